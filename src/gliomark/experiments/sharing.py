"""Sharing the jobs of a study out over processes or machines, a finished one never done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from gliomark.cohort.workers import create_dask_client, run_on_cluster
from gliomark.study import GliomarkError

Job = TypeVar("Job")


def run_jobs(
    jobs: Sequence[Job],
    function: Callable[[Job], dict],
    notify: Callable[[Job, dict], None],
    workers: int | None = None,
    scheduler: str | None = None,
) -> dict[Job, dict]:
    """The record of every job, in the order they end; ``say`` is told of each. workers, scheduler: see ``cluster``.

    Raises GliomarkError where a job does, or has killed its worker again and again.
    """
    if workers is None and torch.cuda.is_available():
        workers = 0  # the processes would share one GPU
    records: dict[Job, dict] = {}
    if jobs:
        with create_dask_client(workers, scheduler, keep_memory=True) as client:
            for job, result in run_on_cluster(client, function, jobs):
                if isinstance(result, GliomarkError):
                    raise result
                records[job] = result
                notify(job, result)
    return records

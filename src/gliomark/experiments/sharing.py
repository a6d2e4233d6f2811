"""Sharing the jobs of a study out over processes or machines, a finished one never done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from gliomark.cohort.workers import cluster, each
from gliomark.study import GliomarkError

Job = TypeVar("Job")


def run_jobs(
    jobs: Sequence[Job],
    function: Callable[[Job], dict],
    say: Callable[[Job, dict], None],
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
        with cluster(workers, scheduler, keep_memory=True) as client:
            for job, done in each(client, function, jobs):
                if isinstance(done, GliomarkError):
                    raise done
                records[job] = done
                say(job, done)
    return records

"""Distribution of jobs, such as the trainings of an experiment, over processes or machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from gliomark.cluster import create_dask_client, run_on_cluster
from gliomark.errors import GliomarkError

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    jobs: Sequence[Job],
    function: Callable[[Job], Result],
    notify: Callable[[Job, Result], object],
    workers: int | None = None,
    scheduler: str | None = None,
) -> dict[Job, Result]:
    """Execute jobs on workers; the result of every job, in the order of completion.

    Parameters
    ----------
    jobs
        Picklable and hashable descriptions of the jobs.
    function
        Executes one job and returns its result; runs on a worker.
    notify
        Called with every finished job and its result.
    workers
        Number of worker processes, 0 for this process; None chooses (0 with a GPU, which processes would share).
    scheduler
        Address of a dask scheduler to use instead of own processes.

    Raises
    ------
    GliomarkError
        The error of a job.
    CohortError
        If a job repeatedly ends its worker process.
    """
    if workers is None and torch.cuda.is_available():
        workers = 0  # several processes would share one GPU
    results: dict[Job, Result] = {}
    if jobs:
        with create_dask_client(workers, scheduler, keep_memory=True) as client:
            for job, result in run_on_cluster(client, function, jobs):
                if isinstance(result, GliomarkError):
                    raise result
                results[job] = result
                notify(job, result)
    return results

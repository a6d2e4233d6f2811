"""Process many patients in parallel with dask.distributed: embedded processes or an existing cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import dask
from distributed import Client, KilledWorker, LocalCluster, as_completed

from gliomark.errors import CohortError, ConfigurationError, GliomarkError
from gliomark.files import scratch_folder
from gliomark.isolation import ReaderPool

Job = TypeVar("Job")
Result = TypeVar("Result")
# settings of the C library's malloc: freed memory is not returned to the system
KEEP_MEMORY_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": 1 << 32,
    "MALLOC_MMAP_THRESHOLD_": 1 << 32,
    "OMP_NUM_THREADS": 1,
}
MAX_TRIES = 2  # attempts for a job whose worker died; an external scheduler has its own setting
DEFAULT_MAX_WORKERS = 8  # default limit: each may need 2.5 GB


@contextmanager
def create_dask_client(
    workers: int | None, scheduler: str | None, keep_memory: bool = False
) -> Iterator[Client]:
    """Create a dask client of embedded single-threaded processes, or of an existing scheduler.

    One thread per process keeps the order of sums, so that a patient gives the same bytes on any number of workers.

    Parameters
    ----------
    workers
        Number of processes; 0 for one thread of this process, None for one per processor core (at most 8).
    scheduler
        Address of an existing scheduler, used instead of embedded processes.
    keep_memory
        Whether the processes keep freed memory instead of returning it at once, which makes training about 25 %
        faster.

    Raises
    ------
    ConfigurationError
        If the scheduler does not answer.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=15, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"No dask scheduler answers at {scheduler} ({type(error).__name__}); start one or check the address."
            ) from error
        with client:
            yield client
        return
    number = min(os.cpu_count() or 1, DEFAULT_MAX_WORKERS) if workers is None else workers
    dask_settings: dict[str, Any] = {"distributed.scheduler.allowed-failures": MAX_TRIES - 1}
    if keep_memory:
        dask_settings["distributed.nanny.pre-spawn-environ"] = KEEP_MEMORY_ENVIRONMENT
    with (
        scratch_folder() as scratch,
        dask.config.set(dask_settings),
        LocalCluster(
            local_directory=str(scratch),
            n_workers=max(1, number),
            processes=number > 0,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",  # any free port, local only
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


@cache
def get_reader_pool() -> ReaderPool:
    """Return this process's pool of reader processes."""
    return ReaderPool(os.cpu_count() or 1)


def run_on_cluster(
    client: Client, function: Callable[[Job], Result], jobs: Sequence[Job]
) -> Iterator[tuple[Job, Result | GliomarkError]]:
    """Run a function for every job on the cluster and yield (job, result) in order of completion.

    The job of a worker that died runs again on another worker. A job whose worker died twice yields a CohortError
    as its result.
    """
    futures = {client.submit(function, job, pure=False): job for job in jobs}
    for future in as_completed(futures, loop=client.loop):
        try:
            yield futures[future], future.result()
        except KilledWorker:
            yield (
                futures[future],
                CohortError(
                    "The worker process died twice, usually for lack of memory: build with fewer --workers."
                ),
            )
        finally:
            future.release()

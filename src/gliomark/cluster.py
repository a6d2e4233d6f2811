"""Process many patients in parallel with dask.distributed: embedded processes or an existing cluster."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, as_completed

from gliomark.errors import CohortError, ConfigurationError, GliomarkError
from gliomark.files import scratch_folder
from gliomark.isolation import ReaderPool
from gliomark.messages import message

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
    workers: int | None, scheduler: str | None, keep_memory: bool = False, max_tries: int = MAX_TRIES
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
    max_tries
        Attempts for a job whose worker died; an existing scheduler has its own setting.

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
    dask_settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": max_tries - 1,
        "distributed.worker.preload": [__name__],  # calls dask_setup in every process
    }
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


def dask_setup(worker: Worker) -> None:
    """Leave Ctrl+C to the command, which ends the process; otherwise every worker would print its stack."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


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


def run_with_refill(
    client: Client, function: Callable[[Job], Result], jobs: deque[Job]
) -> Iterator[tuple[Job, Result | None]]:
    """Run a function for every job, one job per thread of the cluster at a time.

    Yield (job, result) in order of completion; a next job is submitted when one has ended, so that the scheduler never
    holds more than what runs. If a worker dies, its job runs again after all others, alone, so that no job is blamed
    for another one's memory. If a worker dies again, the result is None.

    Parameters
    ----------
    client
        The cluster; its workers may come and go.
    function
        Runs on a worker.
    jobs
        Jobs in the order of submission; they are removed, and the caller may append more while it iterates.

    Raises
    ------
    ConfigurationError
        If the scheduler ends.
    """
    running: dict[Future[Result], Job] = {}
    suspects: deque[Job] = deque()
    completed = as_completed(loop=client.loop)

    def submit(job: Job) -> None:
        future = client.submit(function, job, pure=False)
        running[future] = job
        completed.add(future)

    while jobs or running or suspects:
        is_alone = not jobs and not running
        if is_alone:
            submit(suspects.popleft())
        limit = max(1, sum(client.nthreads().values()))
        while jobs and len(running) < limit:
            submit(jobs.popleft())
        future = next(completed)
        job = running.pop(future)
        try:
            yield job, future.result()
        except KilledWorker:
            if is_alone:
                yield job, None
            else:
                suspects.append(job)
        except CancelledError:
            raise ConfigurationError(message("scheduler-lost")) from None
        finally:
            future.release()

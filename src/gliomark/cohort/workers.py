"""Many patients on several processes or machines: dask.distributed, embedded or an existing cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import dask
from distributed import Client, KilledWorker, LocalCluster, as_completed

from gliomark.files import scratch_folder
from gliomark.isolation import ReaderPool
from gliomark.study import GliomarkError

Job = TypeVar("Job")
Result = TypeVar("Result")
# of the C library: never give freed memory back
KEEP_MEMORY_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": 1 << 32,
    "MALLOC_MMAP_THRESHOLD_": 1 << 32,
    "OMP_NUM_THREADS": 1,
}
MAX_TRIES = 2  # of a job whose worker died; on a scheduler of one's own, as that is set
DEFAULT_MAX_WORKERS = 8  # by default: each may take 2.5 GB


@contextmanager
def create_dask_client(
    workers: int | None, scheduler: str | None, keep_memory: bool = False
) -> Iterator[Client]:
    """A client of ``workers`` embedded single-threaded processes (0: one thread of this one), or of a scheduler.

    One thread each keeps sums in one order: the same patient gives the same bytes on any number of workers.
    keep_memory: the processes keep what they freed instead of handing it back at once, which makes training
    a quarter faster. Raises GliomarkError where the scheduler does not answer.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=15, set_as_default=False)
        except (OSError, ValueError) as error:
            raise GliomarkError(
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
            dashboard_address="127.0.0.1:0",  # a port of its own, on no network
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


@cache
def get_reader_pool() -> ReaderPool:
    """Where this process has patients' files read."""
    return ReaderPool(os.cpu_count() or 1)


def run_on_cluster(
    client: Client, function: Callable[[Job], Result], jobs: Sequence[Job]
) -> Iterator[tuple[Job, Result | GliomarkError]]:
    """``function`` of every job, as they end. A worker that dies loses nothing: its job runs again elsewhere.

    A job that has killed its worker twice gives a GliomarkError instead of a result.
    """
    futures = {client.submit(function, job, pure=False): job for job in jobs}
    for future in as_completed(futures, loop=client.loop):
        try:
            yield futures[future], future.result()
        except KilledWorker:
            yield (
                futures[future],
                GliomarkError(
                    "The worker process died twice, for want of memory as a rule: build with fewer --workers."
                ),
            )
        finally:
            future.release()

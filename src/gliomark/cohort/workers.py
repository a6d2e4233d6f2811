"""Many patients on several processes or machines: dask.distributed, embedded or an existing cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from distributed import Client, KilledWorker, LocalCluster, as_completed

from gliomark.study import GliomarkError

Job = TypeVar("Job")
Result = TypeVar("Result")
MOST_WORKERS = 8  # by default: each may take 2.5 GB


@contextmanager
def cluster(workers: int | None, scheduler: str | None) -> Iterator[Client]:
    """A client of ``workers`` embedded single-threaded processes (0: one thread of this one), or of a scheduler.

    One thread each keeps sums in one order: the same patient gives the same bytes on any number of workers.
    Raises GliomarkError where the scheduler does not answer.
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
    number = min(os.cpu_count() or 1, MOST_WORKERS) if workers is None else workers
    with (
        LocalCluster(
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


def each(
    client: Client, function: Callable[[Job], Result], jobs: Sequence[Job]
) -> Iterator[tuple[Job, Result | GliomarkError]]:
    """``function`` of every job, as they end. A worker that dies loses nothing: its job runs again elsewhere.

    A job that has killed its worker again and again gives a GliomarkError instead of a result.
    """
    futures = {client.submit(function, job, pure=False): job for job in jobs}
    for future in as_completed(futures, loop=client.loop):
        try:
            yield futures[future], future.result()
        except KilledWorker:
            yield (
                futures[future],
                GliomarkError(
                    "The worker process died again and again, for want of memory as a rule: build with fewer --workers."
                ),
            )
        finally:
            future.release()

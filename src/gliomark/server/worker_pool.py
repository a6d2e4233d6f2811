"""Worker processes and the threads that supervise them.

A claimed job always ends as done, failed, cancelled or requeued.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from gliomark.models.signatures import TrustPolicy
from gliomark.server.database import Database
from gliomark.server.study_store import StudyStore
from gliomark.server.worker import STUDY_MEMORY_MB, JobResult, WorkerJob, run_worker

REPLY_POLL_INTERVAL_S = 0.2
T = TypeVar("T")
LOG = logging.getLogger("gliomark.server")

JOB_STALL_TIMEOUT_S = 900.0
MODEL_LOAD_TIMEOUT_S = 600.0  # time to load the models
POLL_INTERVAL_S = 0.5  # longest interval between two queries for jobs


class WorkerPool:
    """A pool of worker processes, each supervised by a thread."""

    def __init__(
        self,
        database: Database,
        data_folder: Path,
        model_files: Mapping[str, str],
        worker_count: int,
        job_stall_timeout_s: float = JOB_STALL_TIMEOUT_S,
        trust: TrustPolicy = TrustPolicy(),
        device: str = "cpu",
        study_memory_mb: float = STUDY_MEMORY_MB,
    ) -> None:
        """Prepare the threads; ``start`` starts them.

        Parameters
        ----------
        job_stall_timeout_s
            A worker that reports no progress for so long is killed.
        trust
            Keys whose signatures are accepted on weights files.
        device
            Where the networks compute, see ``Model.to_device``.
        study_memory_mb
            Memory of every worker for the last studies, in MB; the last one is always kept.
        """
        self.database, self.data_folder, self.model_files = database, data_folder, model_files
        self.job_stall_timeout_s, self.trust, self.device = job_stall_timeout_s, trust, device
        self.study_memory_mb = study_memory_mb
        self.threads_per_worker = max(1, (os.cpu_count() or 1) // worker_count)
        self._stopping, self._new_job = threading.Event(), threading.Event()
        self._models_loaded = threading.Event()
        self._claim_lock = threading.Lock()  # SQLite does not lock individual rows
        self._cancelled_jobs: set[str] = set()
        self.pids: dict[int, int] = {}
        self.model_descriptions: list[dict[str, Any]] = []
        self.startup_error = ""
        self.on_startup_error: Callable[[], object] = lambda: None
        self._watchers = [
            threading.Thread(target=self._run_watcher, args=(n,), daemon=True) for n in range(worker_count)
        ]

    def start(self) -> None:
        """Requeue interrupted jobs and start the workers."""
        self.database.requeue_interrupted_jobs()
        for watcher in self._watchers:
            watcher.start()

    def stop(self) -> None:
        """Stop the workers; running jobs are requeued for the next start."""
        self._stopping.set()
        self._new_job.set()
        for watcher in self._watchers:
            watcher.join(timeout=10)

    @property
    def is_watched(self) -> bool:
        """Whether every supervising thread is running."""
        return all(watcher.is_alive() for watcher in self._watchers)

    def wait_for_models(self, seconds: float) -> list[dict[str, Any]]:
        """Return the descriptions of the models, waiting until a worker has loaded them; empty after ``seconds``."""
        self._models_loaded.wait(seconds)
        return self.model_descriptions

    def notify_new_job(self) -> None:
        """Wake the workers: a job was added."""
        self._new_job.set()

    def cancel_job(self, job_id: str) -> None:
        """Kill the worker of a job; a new one is started."""
        self._cancelled_jobs.add(job_id)

    def _run_watcher(self, worker_number: int) -> None:
        process, connection = self._spawn_worker(worker_number)
        while not self._stopping.is_set():
            if not process.is_alive():
                process, connection = self._spawn_worker(worker_number)
            job = self._retry_database_call(self._claim_next_job)
            if job is None:
                self._new_job.wait(POLL_INTERVAL_S)
                self._new_job.clear()
                continue
            if not self._supervise_job(job, process, connection):
                process.kill()
                process.join()
            if (
                not self._stopping.is_set()
                and self._retry_database_call(self.database.find_study, job.study_id) is None
            ):
                # the study was deleted meanwhile: remove what the worker wrote after that
                StudyStore(self.data_folder).remove_study(job.study_id)
        process.kill()

    def _retry_database_call(self, function: Callable[..., T], *args: Any) -> T | None:
        """Retry a database call until it succeeds or the server stops: a database restart must not end the thread."""
        while True:
            try:
                return function(*args)
            except SQLAlchemyError as error:
                LOG.error("database unavailable: %s", type(error).__name__)
                if self._stopping.wait(POLL_INTERVAL_S):
                    return None

    def _spawn_worker(self, worker_number: int) -> tuple[BaseProcess, Connection]:
        """Start a process that loads the models; retry until it runs or the server stops.

        Weights that cannot be loaded are not retried: ``startup_error`` is set and the server ends.
        """
        context = multiprocessing.get_context("spawn")
        while True:
            parent_end, child_end = context.Pipe()
            process = context.Process(
                target=run_worker,
                args=(
                    child_end,
                    self.data_folder,
                    dict(self.model_files),
                    self.threads_per_worker,
                    self.trust,
                    self.device,
                    self.study_memory_mb,
                ),
                daemon=True,
            )
            process.start()
            child_end.close()
            try:
                if not parent_end.poll(MODEL_LOAD_TIMEOUT_S):
                    raise EOFError
                reply = parent_end.recv()
                if isinstance(reply, str):
                    self.startup_error = reply
                    self.on_startup_error()
                    self._stopping.wait()
                    return process, parent_end
                self.model_descriptions = reply
                self._models_loaded.set()
                self.pids[worker_number] = process.pid or 0
                return process, parent_end
            except (EOFError, OSError):
                LOG.error("a worker process did not start; retrying")
                process.kill()
            if self._stopping.wait(POLL_INTERVAL_S):
                return process, parent_end

    def _claim_next_job(self) -> WorkerJob | None:
        with self._claim_lock:
            claimed = self.database.claim_next_job()
        if claimed is None:
            return None
        job, study = claimed
        return WorkerJob(job.id, job.kind, study.id, study.model, job.outline_sha256, job.request)

    def _supervise_job(self, job: WorkerJob, process: BaseProcess, connection: Connection) -> bool:
        """Supervise a job; False if its worker must be killed (crashed, stalled, cancelled, or the server stops)."""
        try:
            connection.send(job)
            last_reply_at = time.monotonic()
            while True:
                if self._stopping.is_set():
                    self._retry_database_call(self.database.requeue_job, job.id, True)
                    return False
                if job.id in self._cancelled_jobs:
                    self._cancelled_jobs.discard(job.id)
                    return False
                if not wait([connection, process.sentinel], timeout=REPLY_POLL_INTERVAL_S):
                    if time.monotonic() - last_reply_at > self.job_stall_timeout_s:
                        self._retry_database_call(
                            self.database.requeue_job, job.id, False, self.job_stall_timeout_s
                        )
                        return False
                    continue
                reply, last_reply_at = connection.recv(), time.monotonic()
                if isinstance(reply, tuple):
                    self.database.update_progress(job.id, *reply)
                elif isinstance(reply, JobResult):
                    result_fields = (job.id, reply.seconds, reply.result, reply.model_sha256)
                    self._retry_database_call(self.database.finish_job, *result_fields)
                    return True
                else:
                    self._retry_database_call(self.database.fail_job, job.id, reply)
                    return True
        except (EOFError, OSError, SQLAlchemyError):
            self._retry_database_call(self.database.requeue_job, job.id)
            return False

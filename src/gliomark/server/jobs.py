"""Worker processes and who watches them: a job that was taken is done, failed, cancelled or given back, never lost."""

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

from gliomark.models.signatures import Trust
from gliomark.server.records import Records
from gliomark.server.store import Store
from gliomark.server.work import Done, Job, work

T = TypeVar("T")
LOG = logging.getLogger("gliomark.server")

STUCK_S = 900.0
LOAD_S = 600.0  # for loading the models
PAUSE_S = 0.5  # at most, between looking for jobs that another server may have left


class Workers:
    """As many processes as asked for, each with a thread that feeds it. Started by ``start``, ended by ``stop``."""

    def __init__(
        self,
        records: Records,
        folder: Path,
        models: Mapping[str, str],
        count: int,
        stuck_s: float = STUCK_S,
        trust: Trust = Trust(),
    ) -> None:
        """stuck_s: for so long a job may tell of no progress until its worker is ended; trust: whose weights are
        loaded."""
        self.records, self.folder, self.models = records, folder, models
        self.stuck_s, self.trust = stuck_s, trust
        self.threads = max(1, (os.cpu_count() or 1) // count)
        self._stopping, self._new_job = threading.Event(), threading.Event()
        self._loaded = threading.Event()
        self._choosing = threading.Lock()  # SQLite does not lock single rows
        self._cancelled: set[str] = set()
        self.pids: dict[int, int] = {}
        self.models_known: list[dict[str, Any]] = []
        self.broken = ""
        self.on_broken: Callable[[], object] = lambda: None
        self._watchers = [threading.Thread(target=self._watch, args=(n,), daemon=True) for n in range(count)]

    def start(self) -> None:
        self.records.take_up()
        for watcher in self._watchers:
            watcher.start()

    def stop(self) -> None:
        """What is running is given back, for the next start."""
        self._stopping.set()
        self._new_job.set()
        for watcher in self._watchers:
            watcher.join(timeout=10)

    @property
    def watched(self) -> bool:
        """Whether somebody still looks after every process."""
        return all(watcher.is_alive() for watcher in self._watchers)

    def wait_for_models(self, seconds: float) -> list[dict[str, Any]]:
        """``models_known``, once a worker has loaded them; nothing where that takes longer."""
        self._loaded.wait(seconds)
        return self.models_known

    def look(self) -> None:
        """There is a new job."""
        self._new_job.set()

    def cancel(self, job: str) -> None:
        """Its worker is ended and another one started."""
        self._cancelled.add(job)

    def _watch(self, number: int) -> None:
        process, connection = self._hire(number)
        while not self._stopping.is_set():
            if not process.is_alive():
                process, connection = self._hire(number)
            job = self._surely(self._next)
            if job is None:
                self._new_job.wait(PAUSE_S)
                self._new_job.clear()
                continue
            if not self._see_through(job, process, connection):
                process.kill()
                process.join()
            if not self._stopping.is_set() and self._surely(self.records.study, job.study_id) is None:
                # deleted meanwhile: what the worker has still written goes too
                Store(self.folder).remove(job.study_id)
        process.kill()

    def _surely(self, ask: Callable[..., T], *told: Any) -> T | None:
        """Ask the database until it answers or the server stops: a restart of it must not end this thread."""
        while True:
            try:
                return ask(*told)
            except SQLAlchemyError as error:
                LOG.error("the database does not answer: %s", type(error).__name__)
                if self._stopping.wait(PAUSE_S):
                    return None

    def _hire(self, number: int) -> tuple[BaseProcess, Connection]:
        """A new process, its models loaded; tried again until it lives or the server stops. Weights that cannot be
        loaded are told in ``broken``: no other process could load them either."""
        context = multiprocessing.get_context("spawn")
        while True:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=work,
                args=(theirs, self.folder, dict(self.models), self.threads, self.trust),
                daemon=True,
            )
            process.start()
            theirs.close()
            try:
                if not ours.poll(LOAD_S):
                    raise EOFError
                said = ours.recv()
                if isinstance(said, str):
                    self.broken = said
                    self.on_broken()
                    self._stopping.wait()
                    return process, ours
                self.models_known = said
                self._loaded.set()
                self.pids[number] = process.pid or 0
                return process, ours
            except (EOFError, OSError):
                LOG.error("a worker could not start; it is tried again")
                process.kill()
            if self._stopping.wait(PAUSE_S):
                return process, ours

    def _next(self) -> Job | None:
        with self._choosing:
            found = self.records.next_job()
        if found is None:
            return None
        job, study = found
        prepared_for = study.about.get("model_sha256", "")
        return Job(job.id, job.kind, study.id, study.model, prepared_for, job.outline_sha256, job.request)

    def _see_through(self, job: Job, process: BaseProcess, connection: Connection) -> bool:
        """Until the job is over; False where the worker must go: dead, stuck, cancelled, or the server stops."""
        try:
            connection.send(job)
            heard = time.monotonic()
            while True:
                if self._stopping.is_set():
                    self._surely(self.records.give_back, job.id, True)
                    return False
                if job.id in self._cancelled:
                    self._cancelled.discard(job.id)
                    return False
                if not wait([connection, process.sentinel], timeout=0.2):
                    if time.monotonic() - heard > self.stuck_s:
                        self._surely(self.records.give_back, job.id, False, self.stuck_s)
                        return False
                    continue
                message, heard = connection.recv(), time.monotonic()
                if isinstance(message, tuple):
                    self.records.tell(job.id, *message)
                elif isinstance(message, Done):
                    told = (job.id, message.seconds, message.result, message.model_sha256)
                    self._surely(self.records.finish, *told)
                    return True
                else:
                    self._surely(self.records.fail, job.id, message)
                    return True
        except (EOFError, OSError, SQLAlchemyError):
            self._surely(self.records.give_back, job.id)
            return False

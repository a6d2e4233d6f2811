"""What every call works with, and what it asks first: who is calling, and whether there is such a thing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, HTTPException, Request
from sqlalchemy.exc import SQLAlchemyError

from gliomark.files import is_disk_full
from gliomark.isolation import ReadingEndedError, ReadingProcesses
from gliomark.messages import message
from gliomark.server.audit_writer import AuditWriter
from gliomark.server.bodies import Inlet, Limits
from gliomark.server.events import Watch
from gliomark.server.intake import take_in
from gliomark.server.jobs import Workers
from gliomark.server.records import Caller, JobRow, Records, StudyRow
from gliomark.server.security import Gate, check_admin
from gliomark.server.store import Store, without_path
from gliomark.study import MRSequence

T = TypeVar("T")
SLOW_AT_ONCE = 4  # reports being drawn
NUL = "\0"  # PostgreSQL takes none
LOADING_S = 120.0  # for so long an upload waits for the models of a server that has just started


@dataclass(frozen=True)
class Then:
    """What is recorded with a study: the prediction to be made, asked from its files in a reading process, and who is
    owed the results."""

    ask: Callable[[Path], dict[str, Any]] | None = None
    destinations: Sequence[str] = ()


@dataclass(frozen=True)
class Server:
    """The parts. models: name to weights file or shipped name, the first the default; reading: where the files that
    were sent are read."""

    records: Records
    store: Store
    workers: Workers
    gate: Gate
    models: Mapping[str, str]
    limits: Limits
    inlet: Inlet
    reading: ReadingProcesses
    watch: Watch
    audit: AuditWriter
    slow: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(SLOW_AT_ONCE))

    async def slowly(self, do: Callable[..., T], *told: Any) -> T:
        """What takes seconds, in one of the few threads that may: the others stay free for quick calls."""
        return await to_thread.run_sync(do, *told, limiter=self.slow)

    def admit(
        self, received: Path, model: str, owner: str, patient: str = "", then: Then = Then()
    ) -> StudyRow:
        """Read and record the files in ``received``, which are moved; where they are no study nothing is left of them.
        patient: names pictures and volumes sent without a folder around them. then: what is recorded with the study.

        Raises GliomarkError for what is no study; HTTPException where the models are still being loaded,
        SQLAlchemyError where the database is away, NotWrittenError where the disk is full, and ReadingEndedError for
        what ended its reading process, the files being in ``received`` then.
        """
        needed, id = self._sequences(model), str(uuid.uuid4())
        try:
            folder = self.store.adopt(id, received, patient)
            found = self.reading(folder, take_in, self.store, id, folder, needed)
            asked = None if then.ask is None else self.reading(folder, then.ask, folder)
            told = (id, found.patient_id, model, found.sha256, owner)
            row = self.records.add_study(*told, asked=asked, destinations=then.destinations)
        except ReadingEndedError as error:
            self.store.give_back(id)
            raise ReadingEndedError(without_path(error.message, folder)) from None
        except BaseException as error:
            if isinstance(error, SQLAlchemyError) or is_disk_full(error):
                self.store.give_back(id)  # no fault of the study's
            else:
                self.store.remove(id)
            raise
        self.store.settle(id)
        return row

    def _sequences(self, model: str) -> list[MRSequence]:
        """What a model takes: without it the examination cannot be chosen."""
        models = {one["name"]: one["sequences"] for one in self.workers.wait_for_models(LOADING_S)}
        if model not in models:
            raise HTTPException(503, message("server-starting"))
        return [MRSequence(name) for name in models[model]]

    def recover(self) -> None:
        """After a restart: what was being taken in is taken in anew, or forgotten where its sender knows that."""
        for id in self.store.unrecorded():
            if self.records.study(id) is None:
                self.store.give_back(id)
            else:
                self.store.settle(id)
        self.store.forget_uploads()

    def study(self, id: str) -> StudyRow:
        """Raises HTTPException 404 where there is none."""
        row = None if NUL in id else self.records.study(id)
        if row is None:
            raise HTTPException(404, message("no-such-study"))
        return row

    def ready(self, id: str) -> StudyRow:
        """A prepared study. Raises HTTPException 409 where it is not."""
        row = self.study(id)
        if row.state != "ready":
            raise HTTPException(409, row.error or message("study-preparing"))
        return row

    def prediction(self, id: str) -> JobRow:
        """Raises HTTPException 404 where there is none."""
        row = None if NUL in id else self.records.job(id)
        if row is None or row.kind != "predict":
            raise HTTPException(404, message("no-such-prediction"))
        return row

    def answered(self, id: str) -> JobRow:
        """A prediction that is done. Raises HTTPException 409 where it is not, 410 where its study was removed."""
        row = self.prediction(id)
        if row.state != "done":
            raise HTTPException(409, row.error or message("prediction-unanswered", state=row.state))
        if self.records.study(row.study_id) is None:
            raise HTTPException(410, message("study-removed"))
        return row


def _server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


Here = Annotated[Server, Depends(_server)]


def _caller(request: Request, server: Here) -> Caller:
    caller = server.gate.caller(request)
    request.state.caller = caller  # for the audit log
    return caller


def _admin(request: Request, server: Here) -> Caller:
    caller = _caller(request, server)
    check_admin(caller)
    return caller


Asking = Annotated[Caller, Depends(_caller)]
Admin = Annotated[Caller, Depends(_admin)]

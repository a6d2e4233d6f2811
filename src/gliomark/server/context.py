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

from gliomark.files import is_disk_full_error
from gliomark.isolation import ReaderPool, ReaderProcessError
from gliomark.messages import message
from gliomark.server.audit_writer import AuditWriter
from gliomark.server.bodies import RequestLimits, UploadSlots
from gliomark.server.events import RowWatcher
from gliomark.server.intake import import_study
from gliomark.server.jobs import WorkerPool
from gliomark.server.records import Caller, Database, JobRow, StudyRow
from gliomark.server.security import Authenticator, check_admin
from gliomark.server.store import StudyStore, redact_folder
from gliomark.study import MRSequence

T = TypeVar("T")
MAX_CONCURRENT_RENDERS = 4  # reports being drawn
NUL = "\0"  # PostgreSQL takes none
MODEL_LOADING_TIMEOUT_S = (
    120.0  # for so long an upload waits for the models of a server that has just started
)


@dataclass(frozen=True)
class FollowUp:
    """What is recorded with a study: the prediction to be made, asked from its files in a reading process, and who is
    owed the results."""

    create_request: Callable[[Path], dict[str, Any]] | None = None
    destinations: Sequence[str] = ()


@dataclass(frozen=True)
class Server:
    """The parts. models: name to weights file or shipped name, the first the default; reading: where the files that
    were sent are read."""

    database: Database
    store: StudyStore
    worker_pool: WorkerPool
    authenticator: Authenticator
    model_files: Mapping[str, str]
    request_limits: RequestLimits
    upload_slots: UploadSlots
    reader_pool: ReaderPool
    row_watcher: RowWatcher
    audit_writer: AuditWriter
    render_limiter: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(MAX_CONCURRENT_RENDERS))

    async def run_slow_function(self, function: Callable[..., T], *args: Any) -> T:
        """What takes seconds, in one of the few threads that may: the others stay free for quick calls."""
        return await to_thread.run_sync(function, *args, limiter=self.render_limiter)

    def admit_study(
        self,
        received_folder: Path,
        model_name: str,
        owner: str,
        patient_name: str = "",
        follow_up: FollowUp = FollowUp(),
    ) -> StudyRow:
        """Read and record the files in ``received``, which are moved; where they are no study nothing is left of them.
        patient: names pictures and volumes sent without a folder around them. then: what is recorded with the study.

        Raises GliomarkError for what is no study; HTTPException where the models are still being loaded,
        SQLAlchemyError where the database is away, NotWrittenError where the disk is full, and ReadingEndedError for
        what ended its reading process, the files being in ``received`` then.
        """
        sequences, study_id = self._get_model_sequences(model_name), str(uuid.uuid4())
        try:
            folder = self.store.adopt_upload(study_id, received_folder, patient_name)
            imported = self.reader_pool(folder, import_study, self.store, study_id, folder, sequences)
            prediction_request = (
                None
                if follow_up.create_request is None
                else self.reader_pool(folder, follow_up.create_request, folder)
            )
            study_fields = (study_id, imported.patient_id, model_name, imported.sha256, owner)
            row = self.database.add_study(
                *study_fields, prediction_request=prediction_request, destinations=follow_up.destinations
            )
        except ReaderProcessError as error:
            self.store.return_files(study_id)
            raise ReaderProcessError(redact_folder(error.message, folder)) from None
        except BaseException as error:
            if isinstance(error, SQLAlchemyError) or is_disk_full_error(error):
                self.store.return_files(study_id)  # no fault of the study's
            else:
                self.store.remove_study(study_id)
            raise
        self.store.mark_recorded(study_id)
        return row

    def _get_model_sequences(self, model_name: str) -> list[MRSequence]:
        """What a model takes: without it the examination cannot be chosen."""
        sequences_by_model = {
            one["name"]: one["sequences"] for one in self.worker_pool.wait_for_models(MODEL_LOADING_TIMEOUT_S)
        }
        if model_name not in sequences_by_model:
            raise HTTPException(503, message("server-starting"))
        return [MRSequence(name) for name in sequences_by_model[model_name]]

    def recover_interrupted_studies(self) -> None:
        """After a restart: what was being taken in is taken in anew, or forgotten where its sender knows that."""
        for study_id in self.store.list_unrecorded():
            if self.database.find_study(study_id) is None:
                self.store.return_files(study_id)
            else:
                self.store.mark_recorded(study_id)
        self.store.remove_unfinished_uploads()

    def get_study(self, study_id: str) -> StudyRow:
        """Raises HTTPException 404 where there is none."""
        row = None if NUL in study_id else self.database.find_study(study_id)
        if row is None:
            raise HTTPException(404, message("no-such-study"))
        return row

    def get_ready_study(self, study_id: str) -> StudyRow:
        """A prepared study. Raises HTTPException 409 where it is not."""
        row = self.get_study(study_id)
        if row.state != "ready":
            raise HTTPException(409, row.error or message("study-preparing"))
        return row

    def get_prediction(self, prediction_id: str) -> JobRow:
        """Raises HTTPException 404 where there is none."""
        row = None if NUL in prediction_id else self.database.find_job(prediction_id)
        if row is None or row.kind != "predict":
            raise HTTPException(404, message("no-such-prediction"))
        return row

    def get_finished_prediction(self, prediction_id: str) -> JobRow:
        """A prediction that is done. Raises HTTPException 409 where it is not, 410 where its study was removed."""
        row = self.get_prediction(prediction_id)
        if row.state != "done":
            raise HTTPException(409, row.error or message("prediction-unanswered", state=row.state))
        if self.database.find_study(row.study_id) is None:
            raise HTTPException(410, message("study-removed"))
        return row


def _get_server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


ServerDep = Annotated[Server, Depends(_get_server)]


def _get_caller(request: Request, server: ServerDep) -> Caller:
    caller = server.authenticator.authenticate_caller(request)
    request.state.caller = caller  # for the audit log
    return caller


def _get_admin(request: Request, server: ServerDep) -> Caller:
    caller = _get_caller(request, server)
    check_admin(caller)
    return caller


CallerDep = Annotated[Caller, Depends(_get_caller)]
AdminDep = Annotated[Caller, Depends(_get_admin)]

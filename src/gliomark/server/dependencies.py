"""The server's parts and the FastAPI dependencies: the server, the authenticated caller, an administrator."""

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
from gliomark.server.body_limits import RequestLimits, UploadSlots
from gliomark.server.database import Caller, Database, JobRow, StudyRow
from gliomark.server.events import RowWatcher
from gliomark.server.security import Authenticator, check_admin
from gliomark.server.study_import import import_study
from gliomark.server.study_store import StudyStore, redact_folder
from gliomark.server.worker_pool import WorkerPool
from gliomark.study import MRSequence

T = TypeVar("T")
MAX_CONCURRENT_RENDERS = 4  # reports rendered at the same time
NUL = "\0"  # not allowed in PostgreSQL texts
MODEL_LOADING_TIMEOUT_S = 120.0  # an upload to a server that has just started waits so long for its models


@dataclass(frozen=True)
class FollowUp:
    """What to record together with a new study.

    Attributes
    ----------
    create_request
        Builds the prediction request from the study's files, in a reader process; None for no prediction.
    destinations
        Where to send the results.
    """

    create_request: Callable[[Path], dict[str, Any]] | None = None
    destinations: Sequence[str] = ()


@dataclass(frozen=True)
class Server:
    """The parts of a running server.

    Attributes
    ----------
    model_files
        Model name to weights file or shipped name; the first is the default.
    reader_pool
        Processes in which uploaded files are read.
    """

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
        """Run a slow function in one of a few threads, so that other threads stay free for quick requests."""
        return await to_thread.run_sync(function, *args, limiter=self.render_limiter)

    def admit_study(
        self,
        received_folder: Path,
        model_name: str,
        owner: str,
        patient_name: str = "",
        follow_up: FollowUp = FollowUp(),
    ) -> StudyRow:
        """Move the files in ``received_folder`` into the store, read them and record the study.

        If they are not a study, they are deleted. If the reader process, the database or the disk fails, they are
        back in ``received_folder``.

        Parameters
        ----------
        received_folder
            The files.
        model_name
            The model that the study is prepared for.
        owner
            Name of the caller.
        patient_name
            Patient id of images and volumes that were sent without a folder.
        follow_up
            What to record together with the study.

        Returns
        -------
        StudyRow
            The recorded study.

        Raises
        ------
        InputError
            If the files are not a study.
        HTTPException
            503 while the models are being loaded.
        ReaderProcessError
            If reading crashed or exceeded a limit.
        FileWriteError
            If the disk is full.
        SQLAlchemyError
            If the database is unavailable.
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
                *study_fields,
                prediction_request=prediction_request,
                destinations=follow_up.destinations,
                series_uids=imported.series_uids,
            )
        except ReaderProcessError as error:
            self.store.return_files(study_id)
            raise ReaderProcessError(redact_folder(error.message, folder)) from None
        except BaseException as error:
            if isinstance(error, SQLAlchemyError) or is_disk_full_error(error):
                self.store.return_files(study_id)  # the study is not at fault
            else:
                self.store.remove_study(study_id)
            raise
        self.store.mark_recorded(study_id)
        return row

    def _get_model_sequences(self, model_name: str) -> list[MRSequence]:
        """Return the sequences of a model, by which the examination is chosen."""
        sequences_by_model = {
            one["name"]: one["sequences"] for one in self.worker_pool.wait_for_models(MODEL_LOADING_TIMEOUT_S)
        }
        if model_name not in sequences_by_model:
            raise HTTPException(503, message("server-starting"))
        return [MRSequence(name) for name in sequences_by_model[model_name]]

    def recover_interrupted_studies(self) -> None:
        """After a restart, delete unfinished uploads and return the files of unrecorded studies to their origin."""
        for study_id in self.store.list_unrecorded():
            if self.database.find_study(study_id) is None:
                self.store.return_files(study_id)
            else:
                self.store.mark_recorded(study_id)
        self.store.remove_unfinished_uploads()

    def get_study(self, study_id: str) -> StudyRow:
        """Return a study.

        Raises
        ------
        HTTPException
            404 if there is none with this id.
        """
        row = None if NUL in study_id else self.database.find_study(study_id)
        if row is None:
            raise HTTPException(404, message("no-such-study"))
        return row

    def get_ready_study(self, study_id: str) -> StudyRow:
        """Return a prepared study.

        Raises
        ------
        HTTPException
            404 if there is none with this id, 409 if it is not prepared.
        """
        row = self.get_study(study_id)
        if row.state != "ready":
            raise HTTPException(409, row.error or message("study-preparing"))
        return row

    def get_prediction(self, prediction_id: str) -> JobRow:
        """Return a prediction.

        Raises
        ------
        HTTPException
            404 if there is none with this id.
        """
        row = None if NUL in prediction_id else self.database.find_job(prediction_id)
        if row is None or row.kind != "predict":
            raise HTTPException(404, message("no-such-prediction"))
        return row

    def get_finished_prediction(self, prediction_id: str) -> JobRow:
        """Return a finished prediction.

        Raises
        ------
        HTTPException
            404 if there is none with this id, 409 if it is not finished, 410 if its study was deleted.
        """
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
    request.state.caller = caller  # read by the audit log
    return caller


def _get_admin(request: Request, server: ServerDep) -> Caller:
    caller = _get_caller(request, server)
    check_admin(caller)
    return caller


CallerDep = Annotated[Caller, Depends(_get_caller)]
AdminDep = Annotated[Caller, Depends(_get_admin)]

"""Turn user actions into HTTP calls and responses into the next ClientState."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PySide6.QtCore import QIODevice, QObject, QSaveFile, QThreadPool, QTimer, Signal
from PySide6.QtNetwork import QNetworkReply

from gliomark.client import errors
from gliomark.client.errors import ErrorMessage
from gliomark.client.http_client import HttpClient, abort_reply
from gliomark.client.local_server import LocalServer
from gliomark.client.patient_folder import pack_folder, resolve_patient_folder
from gliomark.client.png import ImageDecodeError, decode_slice, decode_slices, encode_mask
from gliomark.client.shape_interpolation import Mask
from gliomark.client.state import ClientState, Json, Task, restore_document
from gliomark.errors import GliomarkError
from gliomark.files import make_temporary_name, remove_leftovers, remove_path

Action = Callable[[], None]
FINISHED_STATES = ("done", "failed", "cancelled")
PARALLEL_FETCHES = 6
RETRY_INTERVAL_MS = 500


class Session(QObject):
    """One user's session with one server.

    All calls are asynchronous; ``state_changed`` carries the complete new state.
    """

    state_changed = Signal(object)
    slice_received = Signal(str, int, object)
    mask_received = Signal(object)
    supplied_mask_received = Signal(object)
    heatmap_changed = Signal(object)
    request_restored = Signal(object)
    report_saved = Signal(str)
    _folder_packed = Signal(int, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.state = ClientState()
        self.local_server = LocalServer(self)
        self.local_server.ready.connect(self._use_server)
        self.local_server.failed.connect(self._handle_local_server_error)
        self._folder_packed.connect(self._upload_archive)
        self._http_client = HttpClient("", "", self)
        self._pending_replies: list[QNetworkReply] = []
        self._models_reply: QNetworkReply | None = None
        self._run_number = 0
        self._retry_action: Action | None = None
        self._background_retry_action: Action | None = None
        self._deferred_action: Action | None = None
        self._uncorrected_job: Json | None = None
        self._masks_by_job: dict[str, Mask] = {}
        self._heatmaps: dict[str, np.ndarray] = {}
        self._study_search = ""

    # ---- the server -------------------------------------------------------------------------------------

    def connect_to_server(self, address: str, token: str) -> None:
        """Connect to a server, the local one if the address is empty, and send an open patient's folder again."""
        folder = self.state.patient_folder
        self._disconnect_server()
        self._set_state(ClientState(is_local=not address, address=address))
        self._deferred_action = None if folder is None else partial(self.open_patient, folder)
        if address:
            self._use_server(address, token)
        else:
            self.local_server.start()

    def close_session(self) -> None:
        """Abort all calls and stop the local server."""
        self._disconnect_server()

    def _disconnect_server(self) -> None:
        self._reset_patient()
        if self._models_reply is not None:
            abort_reply(self._models_reply)
            self._models_reply = None
        self._http_client = HttpClient("", "", self)
        self.local_server.stop()

    def _use_server(self, address: str, token: str) -> None:
        self._http_client = HttpClient(address, token, self)
        self._update_state(address=address, server_status="starting")
        self._request_models()

    def _request_models(self) -> None:
        self._models_reply = self._http_client.get_json(
            "/api/models", self._handle_models, self._handle_models_error
        )

    def _handle_models(self, models: Any) -> None:
        self._models_reply = None
        if not isinstance(models, list):
            self._handle_models_error(
                ErrorMessage(errors.NOT_A_GLIOMARK_SERVER, (self.state.address,), "settings")
            )
            return
        self._update_state(server_status="ready", models=tuple(models), error=None)
        deferred_action, self._deferred_action = self._deferred_action, None
        if deferred_action is not None:
            deferred_action()

    def _handle_models_error(self, error: ErrorMessage) -> None:
        self._models_reply = None
        if error.status == 503:  # the server is still loading its models
            http_client = self._http_client
            QTimer.singleShot(
                RETRY_INTERVAL_MS,
                self,
                lambda: self._request_models() if http_client is self._http_client else None,
            )
            return
        if error.status == 404:
            error = ErrorMessage(errors.NOT_A_GLIOMARK_SERVER, (self.state.address,), "settings")
        self._update_state(server_status="gone", error=error, task=None)

    def _handle_local_server_error(self, error: ErrorMessage) -> None:
        """Handle a local server that failed to start or stopped; retrying resumes the interrupted action."""
        self._abort_calls()
        self._deferred_action = self._retry_action or self._background_retry_action or self._deferred_action
        self._update_state(server_status="gone", task=None, error=error)

    def retry_failed(self) -> None:
        """Repeat the actions that failed last; an unreachable server is started or contacted first."""
        self._update_state(error=None)
        if self.state.server_status == "ready":
            failed_actions = (
                self._retry_action if self.state.task is None else None,
                self._background_retry_action,
            )
            self._background_retry_action = None
            for retry_action in filter(None, failed_actions):
                retry_action()
        elif self.state.server_status == "gone" and self.state.is_local:
            self._update_state(server_status="starting")
            self.local_server.start()
        elif self.state.server_status == "gone":
            self._update_state(server_status="starting")
            self._request_models()

    def dismiss_error(self) -> None:
        """Remove the error message."""
        self._update_state(error=None)

    @property
    def http_client(self) -> HttpClient:
        """For calls of the server beside those of the patient shown."""
        return self._http_client

    @property
    def pending_call_count(self) -> int:
        """Number of calls without a response."""
        return len(self._pending_replies)

    # ---- the patient ------------------------------------------------------------------------------------

    def open_patient(self, chosen_path: Path, model_name: str = "") -> None:
        """Send a patient's folder to the server and load its prepared images.

        chosen_path: the patient's folder, or a sequence folder or file in it. model_name: "" for the default model.
        """
        self._reset_patient()
        try:
            folder = resolve_patient_folder(chosen_path)
        except (GliomarkError, OSError) as error:
            self._update_state(
                patient_folder=None, error=ErrorMessage(errors.PLAIN_TEXT, (str(error),), None)
            )
            return
        self._update_state(patient_folder=folder, model_name=model_name)
        self._submit_folder()

    def list_studies(self, search: str = "") -> None:
        """Fetch the server's list of studies. search: part of the patient id."""
        self._study_search = search

        def handle_studies(studies: Any) -> None:
            if search == self._study_search:
                self._update_state(studies=tuple(studies))

        path = "/api/studies" + (f"?{urlencode({'patient_id': search})}" if search else "")
        on_error = partial(self._fail_in_background, partial(self.list_studies, search))
        self._track_reply(self._http_client.get_json(path, handle_studies, on_error))

    def open_study(self, study_id: str) -> None:
        """Show a study that is on the server, with its last prediction and the reader's outline."""
        self._reset_patient()
        self._retry_action = partial(self.open_study, study_id)
        self._update_state(task=Task("preparing"))
        path = f"/api/studies/{study_id}"
        self._track_reply(self._http_client.get_json(path, self._handle_study, self._fail_task))

    def remove_study(self, study_id: str) -> None:
        """Remove a study and its results from the server; it is closed if it is shown."""

        def handle_removed(_: bytes) -> None:
            if self.state.study is not None and self._study["id"] == study_id:
                self._reset_patient()
            self.list_studies(self._study_search)

        on_error = partial(self._fail_in_background, partial(self.remove_study, study_id))
        path = f"/api/studies/{study_id}"
        self._track_reply(self._http_client.send_request("DELETE", path, None, handle_removed, on_error))

    def _submit_folder(self) -> None:
        self._retry_action = self._submit_folder
        self._run_number += 1
        if self.state.server_status != "ready":
            self._deferred_action = self._submit_folder
            self._update_state(task=Task("waiting"))
            return
        self._update_state(task=Task("packing"))
        run_number, folder = self._run_number, self.state.patient_folder
        assert folder is not None
        QThreadPool.globalInstance().start(lambda: self._pack_folder(run_number, folder))

    def _pack_folder(self, run_number: int, folder: Path) -> None:
        """Pack the folder; runs in a worker thread because a large folder takes seconds."""
        temporary_folder = Path(tempfile.gettempdir())
        remove_leftovers(temporary_folder)
        archive = temporary_folder / make_temporary_name(".zip")
        archive_or_error: Path | ErrorMessage = archive
        try:
            pack_folder(folder, archive, lambda: run_number != self._run_number)
        except GliomarkError as error:
            remove_path(archive)
            archive_or_error = ErrorMessage(errors.PLAIN_TEXT, (error.message,), "again")
        try:
            self._folder_packed.emit(run_number, archive_or_error)
        except RuntimeError:  # the window has been closed in the meantime
            remove_path(archive)

    def _upload_archive(self, run_number: int, archive_or_error: Path | ErrorMessage) -> None:
        if isinstance(archive_or_error, ErrorMessage):
            if run_number == self._run_number:
                self._fail_task(archive_or_error)
            return
        if run_number != self._run_number:
            archive_or_error.unlink(missing_ok=True)
            return
        self._update_state(task=Task("uploading", 0.0))
        fields = {"model": self.state.model_name} if self.state.model_name else {}
        reply = self._track_reply(
            self._http_client.upload_archive(archive_or_error, fields, self._handle_study, self._fail_task)
        )
        reply.uploadProgress.connect(self._show_upload_progress)
        reply.destroyed.connect(lambda: archive_or_error.unlink(missing_ok=True))

    def _show_upload_progress(self, sent: int, total: int) -> None:
        if total > 0 and self.state.task and self.state.task.kind == "uploading":
            self._update_state(task=Task("uploading", sent / total))

    def _handle_study(self, study: Any) -> None:
        self._update_state(study=restore_document(study))
        self._follow_study()

    def _follow_study(self) -> None:
        self._retry_action = self._follow_study
        self._update_state(task=Task("preparing"))
        path = f"/api/studies/{self._study['id']}"
        self._follow_events(
            path,
            self._handle_study_event,
            lambda: self._study["state"] != "preparing",
            self._handle_study_finished,
        )

    def _handle_study_event(self, study: Any) -> None:
        study = restore_document(study)
        self._update_state(study=study, task=Task("preparing", study["progress"] or None, study["step"]))

    def _handle_study_finished(self) -> None:
        self._retry_action = None
        if self._study["state"] == "failed":
            reason = self._study["error"] or ""
            self._update_state(study=None)
            self._fail_task(ErrorMessage(errors.PLAIN_TEXT, (reason,), None))
            return
        self._fetch_slices()
        if self.state.patient_folder is None:
            self._fetch_earlier_predictions()
        else:
            self._update_state(task=None)

    def _fetch_earlier_predictions(self) -> None:
        self._retry_action = self._fetch_earlier_predictions
        path = f"/api/predictions?{urlencode({'patient_id': self._study['patient_id']})}"
        self._track_reply(self._http_client.get_json(path, self._handle_earlier_predictions, self._fail_task))

    def _handle_earlier_predictions(self, jobs: Any) -> None:
        """Show the last prediction, then the reader's outline, which may be newer than the prediction."""
        self._retry_action = None
        self._update_state(task=None)
        study = self._study
        finished = [job for job in jobs if job["study_id"] == study["id"] and job["state"] == "done"]
        finished = [restore_document(job) for job in finished]
        uncorrected = (job for job in finished if job["request"].get("outline") != "corrected")
        self._uncorrected_job = next(uncorrected, None)
        shown_job = (None if study["corrected"] else self._uncorrected_job) or next(iter(finished), None)

        def show_correction() -> None:
            if study["corrected"]:
                self._fetch_mask(f"/api/studies/{study['id']}/mask.png")

        if shown_job is None:
            show_correction()
            return
        self.request_restored.emit(shown_job["request"])
        self._show_job(shown_job, show_correction)

    def _fetch_slices(self) -> None:
        """Fetch the slices from the middle outwards, a few at a time."""
        count = self._study["shape"][0]
        order = sorted(range(count), key=lambda index: abs(index - count // 2))
        remaining_slices = [(sequence, index) for index in order for sequence in self._study["sequences"]]
        for _ in range(PARALLEL_FETCHES):
            self._fetch_next_slice(remaining_slices)

    def _fetch_next_slice(self, remaining_slices: list[tuple[str, int]]) -> None:
        if not remaining_slices:
            return
        sequence, index = remaining_slices.pop(0)
        study, grey = self._study, self._study["grey"][sequence]
        path = f"/api/studies/{study['id']}/slices/{sequence}/{index}.png"

        def handle_png(png: bytes) -> None:
            self.slice_received.emit(sequence, index, decode_slice(png, grey["low"], grey["high"]))
            self._fetch_next_slice(remaining_slices)

        on_error = partial(self._fail_in_background, self._fetch_slices)
        self._track_reply(self._http_client.get_bytes(path, self._create_png_handler(handle_png), on_error))

    # ---- the prediction ---------------------------------------------------------------------------------

    def predict(self, request: Json, user_mask: Mask | None = None) -> None:
        """Request a prediction.

        request: input of the prediction in the server's format. user_mask: mask ``(slice, row, column)`` drawn by the
        user; None: the model segments the lesion.
        """
        self._retry_action = partial(self.predict, request, user_mask)
        self._set_heatmap_marker("")
        self._update_state(task=Task("predicting", 0.0), error=None)
        if user_mask is None:
            self._post_prediction(dict(request) | {"outline": "model"})
            return
        path, png = f"/api/studies/{self._study['id']}/mask.png", encode_mask(user_mask)
        prediction_request = dict(request) | {"outline": "corrected"}
        self._track_reply(
            self._http_client.send_request(
                "PUT", path, png, lambda _: self._post_prediction(prediction_request), self._fail_task
            )
        )

    def _post_prediction(self, request: Json) -> None:
        path = f"/api/studies/{self._study['id']}/predictions"
        self._track_reply(self._http_client.post_json(path, request, self._follow_job, self._fail_task))

    def _follow_job(self, job: Any) -> None:
        self._retry_action = partial(self._follow_job, job)
        latest_job = dict(restore_document(job))
        self._update_state(
            task=Task("predicting", latest_job["progress"], latest_job["step"]), running_job_id=job["id"]
        )

        def handle_job_event(now: Any) -> None:
            now = restore_document(now)
            latest_job.update(now)
            self._update_state(task=Task("predicting", now["progress"], now["step"]))

        path = f"/api/predictions/{job['id']}"
        self._follow_events(
            path,
            handle_job_event,
            lambda: latest_job["state"] in FINISHED_STATES,
            lambda: self._handle_job_finished(latest_job),
        )

    def _handle_job_finished(self, job: Json) -> None:
        self._retry_action = None
        self._update_state(task=None, running_job_id="")
        if job["state"] == "failed":
            self._retry_action = partial(self._post_prediction, job["request"])
            self._fail_task(ErrorMessage(errors.PLAIN_TEXT, (job["error"] or "",), "again"))
        elif job["state"] == "done":
            if job["request"].get("outline") != "corrected":
                self._uncorrected_job = job
            self._show_job(job)

    def _show_job(self, job: Json, on_shown: Action = lambda: None) -> None:
        self._update_state(job=job, pathology=())
        self._fetch_pathology(job)
        if job["id"] in self._masks_by_job:
            self.mask_received.emit(self._masks_by_job[job["id"]])
            on_shown()
            return

        def handle_png(png: bytes) -> None:
            self._masks_by_job[job["id"]] = decode_slices(png, self._study["shape"][0]) > 127
            self.mask_received.emit(self._masks_by_job[job["id"]])
            on_shown()

        on_error = partial(self._fail_in_background, partial(self._show_job, job, on_shown))
        self._track_reply(
            self._http_client.get_bytes(
                f"/api/predictions/{job['id']}/mask.png", self._create_png_handler(handle_png), on_error
            )
        )

    def cancel_task(self) -> None:
        """Cancel the running task; cancelling an upload or a preparation also closes the patient.

        A study that was on the server already stays there.
        """
        self._abort_calls()
        if self.state.running_job_id:
            self._http_client.send_request(
                "DELETE", f"/api/predictions/{self.state.running_job_id}", None, _ignore_reply, _ignore_reply
            )
        if self.state.is_study_ready:
            self._update_state(task=None, running_job_id="")
            return
        if self.state.study is not None and self.state.patient_folder is not None:
            self._http_client.send_request(
                "DELETE", f"/api/studies/{self._study['id']}", None, _ignore_reply, _ignore_reply
            )
        self._reset_patient()

    def revert_segmentation(self) -> None:
        """Restore the model's segmentation and the prediction based on it."""
        path = f"/api/studies/{self._study['id']}/mask.png"
        on_error = partial(self._fail_in_background, self.revert_segmentation)
        self._track_reply(
            self._http_client.send_request("DELETE", path, None, lambda _: self._handle_reverted(), on_error)
        )

    def _handle_reverted(self) -> None:
        self._set_heatmap_marker("")
        if self._uncorrected_job is not None:
            self._show_job(self._uncorrected_job)
            return
        self._update_state(job=None)
        self.mask_received.emit(np.zeros(self._study["shape"], bool))

    def fetch_supplied_mask(self) -> None:
        """Fetch the lesion mask supplied with the images, for review and prediction."""
        self._fetch_mask(f"/api/studies/{self._study['id']}/found.png")

    def upload_mask_files(self, files: Sequence[Path]) -> None:
        """Let the server read a lesion mask of another program, and fetch it for review and prediction."""
        path = f"/api/studies/{self._study['id']}/mask"
        on_error = partial(self._fail_in_background, partial(self.upload_mask_files, files))
        self._track_reply(
            self._http_client.upload_files(path, files, lambda _: self._fetch_mask(f"{path}.png"), on_error)
        )

    def _fetch_mask(self, path: str) -> None:
        """Fetch a mask of the study; it replaces the one shown, which can be undone."""

        def handle_png(png: bytes) -> None:
            self.supplied_mask_received.emit(decode_slices(png, self._study["shape"][0]) > 127)

        on_error = partial(self._fail_in_background, partial(self._fetch_mask, path))
        self._track_reply(self._http_client.get_bytes(path, self._create_png_handler(handle_png), on_error))

    # ---- pathology --------------------------------------------------------------------------------------

    def _fetch_pathology(self, job: Json) -> None:
        def handle_pathology(entries: Any) -> None:
            if self.state.job is job:
                self._update_state(pathology=tuple(entries))

        on_error = partial(self._fail_in_background, partial(self._fetch_pathology, job))
        self._track_reply(
            self._http_client.get_json(f"/api/predictions/{job['id']}/truth", handle_pathology, on_error)
        )

    def record_pathology(self, marker: str, level: str, note: str) -> None:
        """Record the pathology result of a marker for the prediction shown."""
        job = self.state.job
        if job is None:
            return
        body = {"marker": marker, "value": level, "note": note}
        on_error = partial(self._fail_in_background, partial(self.record_pathology, marker, level, note))
        path = f"/api/predictions/{job['id']}/truth"
        self._track_reply(
            self._http_client.post_json(path, body, lambda _: self._fetch_pathology(job), on_error)
        )

    # ---- heatmaps and reports ---------------------------------------------------------------------------

    def show_heatmap(self, marker: str) -> None:
        """Show the Grad-CAM heatmap of a marker over the images; "" hides it."""
        self._set_heatmap_marker(marker)
        job = self.state.job
        if not marker or job is None:
            return
        key = f"{job['id']}/heat/{marker}"
        if key in self._heatmaps:
            self.heatmap_changed.emit(self._heatmaps[key])
            return

        def handle_png(png: bytes) -> None:
            self._heatmaps[key] = decode_slices(png, self._study["shape"][0])
            if self.state.heatmap_marker == marker:
                self._update_state(is_heatmap_pending=False)
                self.heatmap_changed.emit(self._heatmaps[key])

        def handle_error(found: ErrorMessage) -> None:
            self._set_heatmap_marker("")
            self._fail_in_background(partial(self.show_heatmap, marker), found)

        self._update_state(is_heatmap_pending=True)
        self._track_reply(
            self._http_client.get_bytes_with_long_timeout(
                f"/api/predictions/{key}.png", self._create_png_handler(handle_png), handle_error
            )
        )

    def _set_heatmap_marker(self, marker: str) -> None:
        self._update_state(heatmap_marker=marker, is_heatmap_pending=False)
        self.heatmap_changed.emit(None)

    def save_report(self, file_name: str, path: Path) -> None:
        """Save one of the prediction's files, such as ``report.pdf?language=zh``, at a path."""
        if self.state.job is None:
            return
        on_error = partial(self._fail_in_background, partial(self.save_report, file_name, path))

        def write_file(content: bytes) -> None:
            file = QSaveFile(str(path))
            is_complete = file.open(QIODevice.OpenModeFlag.WriteOnly) and file.write(content) == len(content)
            if is_complete and file.commit():
                self.report_saved.emit(str(path))
            else:
                self._fail_in_background(None, ErrorMessage(errors.FILE_NOT_WRITTEN, (str(path),), None))

        url_path = f"/api/predictions/{self.state.job['id']}/{file_name}"
        self._track_reply(self._http_client.get_bytes_with_long_timeout(url_path, write_file, on_error))

    # ---- internals --------------------------------------------------------------------------------------

    @property
    def _study(self) -> Json:
        assert self.state.study is not None
        return self.state.study

    def _update_state(self, **changes: Any) -> None:
        self._set_state(replace(self.state, **changes))

    def _set_state(self, state: ClientState) -> None:
        self.state = state
        self.state_changed.emit(state)

    def _fail_task(self, error: ErrorMessage) -> None:
        """End the running task with an error."""
        self._update_state(task=None, running_job_id="", error=error)

    def _fail_in_background(self, retry_action: Action | None, error: ErrorMessage) -> None:
        """Report an error of a background call; the running task goes on."""
        self._background_retry_action = retry_action
        self._update_state(error=error)

    def _follow_events(
        self, path: str, on_event: Callable[[Any], None], is_finished: Callable[[], bool], on_finished: Action
    ) -> None:
        """Follow server-sent events until ``is_finished``.

        If the connection is closed before, as proxies do, the current document is requested once and the events are
        followed again.
        """

        def handle_closed() -> None:
            if is_finished():
                on_finished()
            else:
                self._track_reply(self._http_client.get_json(path, handle_document, self._fail_task))

        def handle_document(document: Any) -> None:
            on_event(document)
            run_number = self._run_number
            reopen_stream = partial(self._follow_events, path, on_event, is_finished, on_finished)
            QTimer.singleShot(
                RETRY_INTERVAL_MS, self, lambda: reopen_stream() if run_number == self._run_number else None
            )

        self._track_reply(
            self._http_client.follow_events(f"{path}/events", on_event, handle_closed, self._fail_task)
        )

    def _create_png_handler(self, on_png: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def handle_png(png: bytes) -> None:
            try:
                on_png(png)
            except ImageDecodeError:
                self._fail_task(ErrorMessage(errors.IMAGE_UNREADABLE))

        return handle_png

    def _track_reply(self, reply: QNetworkReply) -> QNetworkReply:
        """Keep the reply so that the call can be aborted."""
        self._pending_replies.append(reply)
        reply.finished.connect(
            lambda: self._pending_replies.remove(reply) if reply in self._pending_replies else None
        )
        return reply

    def _abort_calls(self) -> None:
        self._run_number += 1
        replies, self._pending_replies = self._pending_replies, []
        for reply in replies:
            abort_reply(reply)

    def _reset_patient(self) -> None:
        self._abort_calls()
        self._retry_action = self._background_retry_action = self._deferred_action = self._uncorrected_job = (
            None
        )
        self._masks_by_job, self._heatmaps = {}, {}
        previous_state = self.state
        self._set_state(
            ClientState(
                previous_state.server_status,
                previous_state.is_local,
                previous_state.address,
                previous_state.models,
                model_name=previous_state.model_name,
                studies=previous_state.studies,
            )
        )


def _ignore_reply(_: object) -> None:
    """Ignore the response."""

"""What the user wants done, turned into calls; what comes back, turned into the next State."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QIODevice, QObject, QSaveFile, QThreadPool, QTimer, Signal
from PySide6.QtNetwork import QNetworkReply

from gliomark.client import trouble
from gliomark.client.folder import pack, patient_folder
from gliomark.client.local import LocalServer
from gliomark.client.outline import Mask
from gliomark.client.pictures import NotAPictureError, read_slice, read_tall, write_tall
from gliomark.client.remote import Remote, drop
from gliomark.client.state import Json, State, Task, received
from gliomark.client.trouble import Trouble
from gliomark.files import remove, remove_leftovers, temporary_name
from gliomark.study import GliomarkError

Doing = Callable[[], None]
OVER = ("done", "failed", "cancelled")
AT_ONCE = 6
ASK_AGAIN_MS = 500


class Session(QObject):
    """One user at one server. Everything is asynchronous; ``changed`` carries the whole new state."""

    changed = Signal(object)
    slice_came = Signal(str, int, object)
    outline_came = Signal(object)
    found_came = Signal(object)
    heat_came = Signal(object)
    saved = Signal(str)
    _packed = Signal(int, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.state = State()
        self.local = LocalServer(self)
        self.local.ready.connect(self._reach)
        self.local.failed.connect(self._local_failed)
        self._packed.connect(self._upload)
        self._remote = Remote("", "", self)
        self._replies: list[QNetworkReply] = []
        self._asking: QNetworkReply | None = None
        self._run = 0
        self._again: Doing | None = None
        self._aside_again: Doing | None = None
        self._waiting: Doing | None = None
        self._model_job: Json | None = None
        self._masks: dict[str, Mask] = {}
        self._heats: dict[str, np.ndarray] = {}

    # ---- the server -------------------------------------------------------------------------------------

    def connect_to(self, address: str, token: str) -> None:
        """Use the server at an address, or a local one where the address is empty; a chosen folder is sent anew."""
        folder = self.state.folder
        self._leave_server()
        self._set(State(local=not address, address=address))
        self._waiting = None if folder is None else partial(self.open, folder)
        if address:
            self._reach(address, token)
        else:
            self.local.start()

    def close(self) -> None:
        """Abort what runs and end the local server."""
        self._leave_server()

    def _leave_server(self) -> None:
        self._forget_patient()
        if self._asking is not None:
            drop(self._asking)
            self._asking = None
        self._remote = Remote("", "", self)
        self.local.stop()

    def _reach(self, address: str, token: str) -> None:
        self._remote = Remote(address, token, self)
        self._change(address=address, server="starting")
        self._ask_models()

    def _ask_models(self) -> None:
        self._asking = self._remote.read_json("/api/models", self._reached, self._not_reached)

    def _reached(self, models: Any) -> None:
        self._asking = None
        if not isinstance(models, list):
            self._not_reached(Trouble(trouble.NOT_OURS, (self.state.address,), "settings"))
            return
        self._change(server="ready", models=tuple(models), trouble=None)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting()

    def _not_reached(self, found: Trouble) -> None:
        self._asking = None
        if found.status == 503:  # it is loading its models
            remote = self._remote
            QTimer.singleShot(
                ASK_AGAIN_MS, self, lambda: self._ask_models() if remote is self._remote else None
            )
            return
        if found.status == 404:
            found = Trouble(trouble.NOT_OURS, (self.state.address,), "settings")
        self._change(server="gone", trouble=found, task=None)

    def _local_failed(self, found: Trouble) -> None:
        """Gone at the start or in the middle; what ran is what 'try again' goes on with."""
        self._stop_calls()
        self._waiting = self._again or self._aside_again or self._waiting
        self._change(server="gone", task=None, trouble=found)

    def try_again(self) -> None:
        """What failed last, once more; a server that has gone is started or asked first."""
        self._change(trouble=None)
        if self.state.server == "ready":
            failed = (self._again if self.state.task is None else None, self._aside_again)
            self._aside_again = None
            for again in filter(None, failed):
                again()
        elif self.state.server == "gone" and self.state.local:
            self._change(server="starting")
            self.local.start()
        elif self.state.server == "gone":
            self._change(server="starting")
            self._ask_models()

    def dismiss(self) -> None:
        """The user has read what went wrong."""
        self._change(trouble=None)

    @property
    def waiting_for(self) -> int:
        """How many calls have not come back yet."""
        return len(self._replies)

    # ---- the patient ------------------------------------------------------------------------------------

    def open(self, picked: Path, model: str = "") -> None:
        """Send the patient's folder around what was picked, and show the sequences when they are prepared."""
        self._forget_patient()
        try:
            folder = patient_folder(picked)
        except (GliomarkError, OSError) as error:
            self._change(folder=None, trouble=Trouble(trouble.DETAIL, (str(error),), None))
            return
        self._change(folder=folder, model=model)
        self._send_folder()

    def _send_folder(self) -> None:
        self._again = self._send_folder
        self._run += 1
        if self.state.server != "ready":
            self._waiting = self._send_folder
            self._change(task=Task("waiting"))
            return
        self._change(task=Task("packing"))
        run, folder = self._run, self.state.folder
        assert folder is not None
        QThreadPool.globalInstance().start(lambda: self._pack(run, folder))

    def _pack(self, run: int, folder: Path) -> None:
        """In a thread of its own: a large folder takes seconds."""
        place = Path(tempfile.gettempdir())
        remove_leftovers(place)
        archive = place / temporary_name(".zip")
        found: Path | Trouble = archive
        try:
            pack(folder, archive, lambda: run != self._run)
        except GliomarkError as error:
            remove(archive)
            found = Trouble(trouble.DETAIL, (error.message,), "again")
        try:
            self._packed.emit(run, found)
        except RuntimeError:  # the window was closed meanwhile
            remove(archive)

    def _upload(self, run: int, found: Path | Trouble) -> None:
        if isinstance(found, Trouble):
            if run == self._run:
                self._fail(found)
            return
        if run != self._run:
            found.unlink(missing_ok=True)
            return
        self._change(task=Task("uploading", 0.0))
        fields = {"model": self.state.model} if self.state.model else {}
        reply = self._keep(self._remote.upload(found, fields, self._study_came, self._fail))
        reply.uploadProgress.connect(self._uploaded)
        reply.destroyed.connect(lambda: found.unlink(missing_ok=True))

    def _uploaded(self, sent: int, total: int) -> None:
        if total > 0 and self.state.task and self.state.task.doing == "uploading":
            self._change(task=Task("uploading", sent / total))

    def _study_came(self, study: Any) -> None:
        self._change(study=received(study))
        self._follow_study()

    def _follow_study(self) -> None:
        self._again = self._follow_study
        self._change(task=Task("preparing"))
        path = f"/api/studies/{self._study['id']}"
        self._follow(path, self._study_changed, lambda: self._study["state"] != "preparing", self._study_over)

    def _study_changed(self, study: Any) -> None:
        study = received(study)
        self._change(study=study, task=Task("preparing", study["progress"] or None, study["step"]))

    def _study_over(self) -> None:
        self._again = None
        if self._study["state"] == "failed":
            reason = self._study["error"] or ""
            self._change(study=None)
            self._fail(Trouble(trouble.DETAIL, (reason,), None))
            return
        self._change(task=None)
        self._fetch_slices()

    def _fetch_slices(self) -> None:
        """From the middle outwards, a few at a time."""
        count = self._study["shape"][0]
        order = sorted(range(count), key=lambda index: abs(index - count // 2))
        wanted = [(sequence, index) for index in order for sequence in self._study["sequences"]]
        for _ in range(AT_ONCE):
            self._fetch_next(wanted)

    def _fetch_next(self, wanted: list[tuple[str, int]]) -> None:
        if not wanted:
            return
        sequence, index = wanted.pop(0)
        study, grey = self._study, self._study["grey"][sequence]
        path = f"/api/studies/{study['id']}/slices/{sequence}/{index}.png"

        def came(png: bytes) -> None:
            self.slice_came.emit(sequence, index, read_slice(png, grey["low"], grey["high"]))
            self._fetch_next(wanted)

        failed = partial(self._fail_aside, self._fetch_slices)
        self._keep(self._remote.read(path, self._picture(came), failed))

    # ---- the prediction ---------------------------------------------------------------------------------

    def predict(self, request: Json, drawn: Mask | None = None) -> None:
        """Ask for the markers; drawn: the doctor's own outline to rest on. request: as the server takes it."""
        self._again = partial(self.predict, request, drawn)
        self._show_heat("")
        self._change(task=Task("predicting", 0.0), trouble=None)
        if drawn is None:
            self._post(dict(request) | {"outline": "model"})
            return
        path, png = f"/api/studies/{self._study['id']}/mask.png", write_tall(drawn)
        after = dict(request) | {"outline": "corrected"}
        self._keep(self._remote.send("PUT", path, png, lambda _: self._post(after), self._fail))

    def _post(self, request: Json) -> None:
        path = f"/api/studies/{self._study['id']}/predictions"
        self._keep(self._remote.send_json(path, request, self._follow_job, self._fail))

    def _follow_job(self, job: Any) -> None:
        self._again = partial(self._follow_job, job)
        latest = dict(received(job))
        self._change(task=Task("predicting", latest["progress"], latest["step"]), running=job["id"])

        def changed(now: Any) -> None:
            now = received(now)
            latest.update(now)
            self._change(task=Task("predicting", now["progress"], now["step"]))

        path = f"/api/predictions/{job['id']}"
        self._follow(path, changed, lambda: latest["state"] in OVER, lambda: self._job_over(latest))

    def _job_over(self, job: Json) -> None:
        self._again = None
        self._change(task=None, running="")
        if job["state"] == "failed":
            self._again = partial(self._post, job["request"])
            self._fail(Trouble(trouble.DETAIL, (job["error"] or "",), "again"))
        elif job["state"] == "done":
            if job["request"].get("outline") != "corrected":
                self._model_job = job
            self._show_job(job)

    def _show_job(self, job: Json) -> None:
        self._change(job=job)
        if job["id"] in self._masks:
            self.outline_came.emit(self._masks[job["id"]])
            return

        def came(png: bytes) -> None:
            self._masks[job["id"]] = read_tall(png, self._study["shape"][0]) > 127
            self.outline_came.emit(self._masks[job["id"]])

        failed = partial(self._fail_aside, partial(self._show_job, job))
        self._keep(self._remote.read(f"/api/predictions/{job['id']}/mask.png", self._picture(came), failed))

    def cancel(self) -> None:
        """Stop what is going on: an upload or preparation gives the patient up, a prediction only itself."""
        self._stop_calls()
        if self.state.running:
            self._remote.send("DELETE", f"/api/predictions/{self.state.running}", None, _nothing, _nothing)
        if self.state.ready:
            self._change(task=None, running="")
            return
        if self.state.study is not None:
            self._remote.send("DELETE", f"/api/studies/{self._study['id']}", None, _nothing, _nothing)
        self._forget_patient()

    def revert(self) -> None:
        """Back to the model's outline, and to the answer that rests on it."""
        path = f"/api/studies/{self._study['id']}/mask.png"
        failed = partial(self._fail_aside, self.revert)
        self._keep(self._remote.send("DELETE", path, None, lambda _: self._reverted(), failed))

    def _reverted(self) -> None:
        self._show_heat("")
        if self._model_job is not None:
            self._show_job(self._model_job)
            return
        self._change(job=None)
        self.outline_came.emit(np.zeros(self._study["shape"], bool))

    def fetch_found_outline(self) -> None:
        """The lesion mask that came with the images, to be looked at and predicted with."""

        def came(png: bytes) -> None:
            self.found_came.emit(read_tall(png, self._study["shape"][0]) > 127)

        failed = partial(self._fail_aside, self.fetch_found_outline)
        path = f"/api/studies/{self._study['id']}/found.png"
        self._keep(self._remote.read(path, self._picture(came), failed))

    # ---- looking closer ---------------------------------------------------------------------------------

    def show_heat(self, marker: str) -> None:
        """Grad-CAM of a marker over the images, none for ""."""
        self._show_heat(marker)
        job = self.state.job
        if not marker or job is None:
            return
        key = f"{job['id']}/heat/{marker}"
        if key in self._heats:
            self.heat_came.emit(self._heats[key])
            return

        def came(png: bytes) -> None:
            self._heats[key] = read_tall(png, self._study["shape"][0])
            if self.state.heat == marker:
                self._change(heat_pending=False)
                self.heat_came.emit(self._heats[key])

        def failed(found: Trouble) -> None:
            self._show_heat("")
            self._fail_aside(partial(self.show_heat, marker), found)

        self._change(heat_pending=True)
        self._keep(self._remote.read_slowly(f"/api/predictions/{key}.png", self._picture(came), failed))

    def _show_heat(self, marker: str) -> None:
        self._change(heat=marker, heat_pending=False)
        self.heat_came.emit(None)

    def save(self, name: str, path: Path) -> None:
        """Keep one of the prediction's documents, such as ``report.pdf?language=zh``, at a path."""
        if self.state.job is None:
            return
        failed = partial(self._fail_aside, partial(self.save, name, path))

        def came(content: bytes) -> None:
            file = QSaveFile(str(path))
            whole = file.open(QIODevice.OpenModeFlag.WriteOnly) and file.write(content) == len(content)
            if whole and file.commit():
                self.saved.emit(str(path))
            else:
                self._fail_aside(None, Trouble(trouble.NOT_SAVED, (str(path),), None))

        place = f"/api/predictions/{self.state.job['id']}/{name}"
        self._keep(self._remote.read_slowly(place, came, failed))

    # ---- plumbing ---------------------------------------------------------------------------------------

    @property
    def _study(self) -> Json:
        assert self.state.study is not None
        return self.state.study

    def _change(self, **parts: Any) -> None:
        self._set(replace(self.state, **parts))

    def _set(self, state: State) -> None:
        self.state = state
        self.changed.emit(state)

    def _fail(self, found: Trouble) -> None:
        """What was going on is over."""
        self._change(task=None, running="", trouble=found)

    def _fail_aside(self, again: Doing | None, found: Trouble) -> None:
        """Something beside what is going on went wrong."""
        self._aside_again = again
        self._change(trouble=found)

    def _follow(self, path: str, each: Callable[[Any], None], over: Callable[[], bool], then: Doing) -> None:
        """Events until ``over``. A line that is closed before, as proxies do, is opened again after one question."""

        def ended() -> None:
            if over():
                then()
            else:
                self._keep(self._remote.read_json(path, asked, self._fail))

        def asked(document: Any) -> None:
            each(document)
            run = self._run
            again = partial(self._follow, path, each, over, then)
            QTimer.singleShot(ASK_AGAIN_MS, self, lambda: again() if run == self._run else None)

        self._keep(self._remote.follow(f"{path}/events", each, ended, self._fail))

    def _picture(self, came: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def read(png: bytes) -> None:
            try:
                came(png)
            except NotAPictureError:
                self._fail(Trouble(trouble.NOT_A_PICTURE))

        return read

    def _keep(self, reply: QNetworkReply) -> QNetworkReply:
        """Remember a call that may have to be aborted."""
        self._replies.append(reply)
        reply.finished.connect(lambda: self._replies.remove(reply) if reply in self._replies else None)
        return reply

    def _stop_calls(self) -> None:
        self._run += 1
        replies, self._replies = self._replies, []
        for reply in replies:
            drop(reply)

    def _forget_patient(self) -> None:
        self._stop_calls()
        self._again = self._aside_again = self._waiting = self._model_job = None
        self._masks, self._heats = {}, {}
        kept = self.state
        self._set(State(kept.server, kept.local, kept.address, kept.models, model=kept.model))


def _nothing(_: object) -> None:
    """What comes back does not matter."""

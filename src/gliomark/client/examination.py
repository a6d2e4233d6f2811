"""One examination of a follow-up: its slices with the outline, fetched from the server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtNetwork import QNetworkReply
from PySide6.QtWidgets import QSlider, QWidget

from gliomark.client import errors
from gliomark.client.errors import ErrorMessage
from gliomark.client.http_client import HttpClient, abort_reply
from gliomark.client.language import format_local_time, translate
from gliomark.client.png import ImageDecodeError, decode_slice, decode_slices
from gliomark.client.shape_interpolation import Mask
from gliomark.client.slice_view import SliceView, compute_grey_window
from gliomark.client.state import Json, restore_document
from gliomark.client.widgets import create_column, create_label

CROP_MARGIN_PIXELS = 8


class ExaminationColumn(QWidget):
    """View of an examination with a slider over its slices.

    ``loaded`` follows the study and its last prediction, ``failed`` carries an error. ``study``, ``job``: documents of
    the server, None until they are received; ``job`` stays None without a finished prediction. ``is_loaded``: whether
    all of them have been received.
    """

    loaded = Signal()
    failed = Signal(object)

    def __init__(self, http_client: HttpClient, study_id: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.study: Json | None = None
        self.job: Json | None = None
        self.is_loaded = False
        self.lesion_mask: Mask | None = None
        self._sequence = ""
        self._brain = QRectF()  # of all slices shown so far
        self._slices: dict[tuple[str, int], NDArray[np.float32]] = {}
        self._requested_slices: set[tuple[str, int]] = set()
        self._http_client, self._study_id = http_client, study_id
        self._replies: list[QNetworkReply] = []
        self.heading_label, self.position_label = create_label("heading"), create_label("soft")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.view = SliceView()
        self.view.wheel_turned.connect(lambda step: self.slider.setValue(self.slider.value() + step))
        self.slider.valueChanged.connect(lambda _: self._show_slice())
        layout = create_column(self.heading_label, self.view, self.slider, self.position_label)
        layout.setStretch(1, 1)
        self.setLayout(layout)
        self._get_json(f"/api/studies/{study_id}", self._handle_study)

    @property
    def lesion(self) -> Json | None:
        """The lesion of the last prediction, as in prediction.json."""
        return None if self.job is None else self.job["result"]["lesion"]

    @property
    def date(self) -> str:
        """Date of the examination, YYYYMMDD; "" if the images do not state it or there is no prediction."""
        examination = None if self.job is None else self.job["result"]["input"].get("examination")
        return str((examination or {}).get("date") or "")

    def show_sequence(self, sequence: str) -> None:
        """Show a sequence, the slice with most lesion first."""
        self._sequence = sequence
        self._show_slice()

    def close_calls(self) -> None:
        """Abort all calls."""
        replies, self._replies = self._replies, []
        for reply in replies:
            abort_reply(reply)

    # ---- calls ------------------------------------------------------------------------------------------

    def _handle_study(self, study: Any) -> None:
        self.study = restore_document(study)
        self._render_heading()
        spacing_mm = self.study.get("spacing_mm")
        if spacing_mm:
            self.view.pixel_size_mm = spacing_mm[2], spacing_mm[1]
        count = self.study["shape"][0]
        self.slider.setRange(0, count - 1)
        self.slider.setValue(count // 2)
        query = urlencode({"patient_id": self.study["patient_id"]})
        self._get_json(f"/api/predictions?{query}", self._handle_jobs)

    def _handle_jobs(self, jobs: Any) -> None:
        """Take the last prediction, which the server lists first."""
        done = (job for job in jobs if job["study_id"] == self._study_id and job["state"] == "done")
        job = next(done, None)
        if job is None:
            self._finish_loading()
            return
        self.job = restore_document(job)
        self._get_png(f"/api/predictions/{job['id']}/mask.png", self._handle_mask)

    def _handle_mask(self, png: bytes) -> None:
        assert self.study is not None
        self.lesion_mask = decode_slices(png, self.study["shape"][0]) > 127
        if self.lesion_mask.any():
            self.slider.setValue(int(self.lesion_mask.sum(axis=(1, 2)).argmax()))
        self._finish_loading()

    def _finish_loading(self) -> None:
        self.is_loaded = True
        self._render_heading()
        self.loaded.emit()

    def _fetch_slice(self, sequence: str, index: int) -> None:
        if (sequence, index) in self._requested_slices:
            return
        self._requested_slices.add((sequence, index))
        assert self.study is not None
        grey = self.study["grey"][sequence]

        def handle_png(png: bytes) -> None:
            self._slices[sequence, index] = decode_slice(png, grey["low"], grey["high"])
            self._show_slice()

        reply = self._get_png(f"/api/studies/{self._study_id}/slices/{sequence}/{index}.png", handle_png)
        # a slice that failed is requested again when it is shown again
        reply.finished.connect(lambda: self._requested_slices.discard((sequence, index)))

    def _get_json(self, path: str, on_answer: Callable[[Any], None]) -> None:
        self._track(self._http_client.get_json(path, on_answer, self.failed.emit))

    def _get_png(self, path: str, on_png: Callable[[bytes], None]) -> QNetworkReply:
        def handle_png(png: bytes) -> None:
            try:
                on_png(png)
            except ImageDecodeError:
                self.failed.emit(ErrorMessage(errors.IMAGE_UNREADABLE))

        return self._track(self._http_client.get_bytes(path, handle_png, self.failed.emit))

    def _track(self, reply: QNetworkReply) -> QNetworkReply:
        self._replies.append(reply)
        reply.finished.connect(partial(self._remove_reply, reply))
        return reply

    def _remove_reply(self, reply: QNetworkReply) -> None:
        if reply in self._replies:
            self._replies.remove(reply)

    # ---- rendering --------------------------------------------------------------------------------------

    def _render_heading(self) -> None:
        assert self.study is not None
        if self.date:
            date = f"{self.date[:4]}-{self.date[4:6]}-{self.date[6:]}"
            when = translate("follow-up", "examined on {}").format(date)
        else:
            when = translate("follow-up", "received {}").format(format_local_time(self.study["created"]))
        self.heading_label.setText(f"{self.study['patient_id']} · {when}")

    def _show_slice(self) -> None:
        """Show the slice of the slider; it is fetched if it has not been shown yet."""
        if self.study is None or not self._sequence:
            return
        index = self.slider.value()
        self.position_label.setText(
            f"{self.study['slice_names'][index]} ({index + 1} / {self.study['shape'][0]})"
        )
        self.view.title = self._sequence
        image = self._slices.get((self._sequence, index))
        if image is None:
            self.view.show_image(None)
            self._fetch_slice(self._sequence, index)
            return
        background = self.study["grey"][self._sequence]["low"]
        self.view.show_grey_window(compute_grey_window(image, background))
        brain = np.argwhere(image > background + 1e-3)
        if len(brain):
            (top, left), (bottom, right) = brain.min(axis=0), brain.max(axis=0) + 1
            self._brain = self._brain.united(QRectF(left, top, right - left, bottom - top))
            margin = CROP_MARGIN_PIXELS
            self.view.crop = self._brain.adjusted(-margin, -margin, margin, margin)
        self.view.show_image(image)
        self.view.show_segmentation(None if self.lesion_mask is None else self.lesion_mask[index], 1.0)

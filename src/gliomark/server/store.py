"""Where the server keeps images and results: a folder per study, every file written whole or not at all.

::

    DATA/gliomark.db                                 the records, unless another database is named
    DATA/uploads/<id>/...                            what is on its way; emptied at every start
    DATA/studies/<id>/input/<patient>/...            the files as they were sent
    DATA/studies/<id>/unrecorded                     only until the database knows it: where its files came from
    DATA/studies/<id>/study.json, study.*.npz        as read
    DATA/studies/<id>/prepared.json, prepared.*.npz  as the networks see it
    DATA/studies/<id>/found.png                      a lesion mask that came with the images
    DATA/studies/<id>/slices/<sequence>/<index>.png  as the client shows it
    DATA/studies/<id>/corrections/<sha256>.png       the doctor's outlines, by their content
    DATA/studies/<id>/predictions/<job>/...          outline, maps, answer and its DICOM objects

What an earlier version kept in another form is taken over by ``older``.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, fields, make_dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gliomark.files import atomic_write, encode_png, make_temporary_name, remove_leftovers, remove_path
from gliomark.messages import Message, message
from gliomark.server import older
from gliomark.stored import has_record, read_record, write_record
from gliomark.study import GliomarkError, Prediction, SliceStack, Study

MAX_GREY = 65535
UNRECORDED_FILE = "unrecorded"
OMITTED_FIELDS = ("study", "stack")  # of a kept prediction: they are the study's own
_FIELD_TYPES = get_type_hints(Prediction)
_STORED_FIELDS = [
    (part.name, _FIELD_TYPES[part.name], copy(part))
    for part in fields(Prediction)
    if part.name not in OMITTED_FIELDS
]
StoredPrediction: Any = make_dataclass("KeptPrediction", _STORED_FIELDS, frozen=True, eq=False)
T = TypeVar("T")


@dataclass(frozen=True)
class StudyStore:
    """The data folder."""

    data_folder: Path

    @staticmethod
    def from_folder(data_folder: Path) -> StudyStore:
        """Made if need be, for this user alone. Raises GliomarkError where it cannot be."""
        try:
            (data_folder / "studies").mkdir(parents=True, exist_ok=True)
            data_folder.chmod(0o700)
        except OSError as error:
            reason = error.strerror or str(error)
            raise GliomarkError(message("data-folder-unfit", folder=data_folder, reason=reason)) from None
        return StudyStore(data_folder)

    def get_study_folder(self, study_id: str) -> Path:
        return self.data_folder / "studies" / study_id

    def get_input_folder(self, study_id: str) -> Path:
        return self.get_study_folder(study_id) / "input"

    def get_slice_path(self, study_id: str, sequence: str, index: int) -> Path:
        return self.get_study_folder(study_id) / "slices" / sequence / f"{index}.png"

    def choose_upload_folder(self) -> Path:
        """A folder to be made, for what is on its way."""
        return self.data_folder / "uploads" / uuid.uuid4().hex

    @contextmanager
    def fill_folder(self, folder: Path) -> Iterator[Path]:
        """A folder to write into, which then appears whole or not at all; where another was faster, theirs stays."""
        temporary_folder = folder.with_name(make_temporary_name())
        temporary_folder.mkdir()
        try:
            yield temporary_folder
            try:
                temporary_folder.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
        finally:
            remove_path(temporary_folder)

    def remove_unfinished_uploads(self) -> None:
        """What was on its way when the server ended, and what it was writing."""
        remove_path(self.data_folder / "uploads")
        remove_leftovers(self.data_folder, recursive=True)

    def get_correction_path(self, study_id: str, sha256: str) -> Path:
        return self.get_study_folder(study_id) / "corrections" / f"{sha256}.png"

    def save_correction(self, study_id: str, mask: NDArray[np.bool_]) -> str:
        """Its SHA-256; outlines that earlier answers rest on stay beside it."""
        content = encode_mask_png(mask)
        sha256 = hashlib.sha256(content).hexdigest()
        atomic_write(
            self.get_correction_path(study_id, sha256), content
        )  # what a doctor drew outlasts a power cut
        return sha256

    def get_prediction_folder(self, study_id: str, job_id: str) -> Path:
        return self.get_study_folder(study_id) / "predictions" / job_id

    def adopt_upload(self, study_id: str, received_folder: Path, patient_name: str) -> Path:
        """The files become the study's, under the patient's name as far as a file may have it. Until ``settle`` the
        folder says where they came from, for ``give_back``."""
        folder_name = (
            "".join(character for character in patient_name if character.isalnum() or character in " -_")
            .encode()[:80]
            .decode(errors="ignore")
        )
        folder = self.get_input_folder(study_id) / (folder_name.strip() or "patient")
        folder.parent.mkdir(parents=True)
        atomic_write(self.get_study_folder(study_id) / UNRECORDED_FILE, str(received_folder))
        received_folder.rename(folder)
        return folder

    def mark_recorded(self, study_id: str) -> None:
        """The study is recorded."""
        (self.get_study_folder(study_id) / UNRECORDED_FILE).unlink()

    def list_unrecorded(self) -> list[str]:
        """Studies that a server was taking in when it ended."""
        return [
            marker_path.parent.name for marker_path in self.data_folder.glob(f"studies/*/{UNRECORDED_FILE}")
        ]

    def return_files(self, study_id: str) -> None:
        """The files are back where they came from, and the study is gone."""
        for input_folder in self.get_input_folder(study_id).glob(
            "*"
        ):  # none where the disk was full before they were moved
            received = Path((self.get_study_folder(study_id) / UNRECORDED_FILE).read_text("utf-8"))
            received.parent.mkdir(parents=True, exist_ok=True)
            input_folder.rename(received)
        self.remove_study(study_id)

    def remove_study(self, study_id: str) -> None:
        shutil.rmtree(self.get_study_folder(study_id), ignore_errors=True)

    def save_study(self, study_id: str, study: Study) -> None:
        write_record(self.get_study_folder(study_id), "study", study)

    def load_study(self, study_id: str) -> Study:
        return _load_record(self.get_study_folder(study_id), "study", Study)

    def get_supplied_mask_path(self, study_id: str) -> Path:
        return self.get_study_folder(study_id) / "found.png"

    def save_prepared(self, study_id: str, prepared: Any) -> None:
        """With the outline that came with the images, if one did."""
        write_record(self.get_study_folder(study_id), "prepared", prepared)
        if prepared.found is not None and prepared.found.mask is not None:
            write_file(self.get_supplied_mask_path(study_id), encode_mask_png(prepared.found.mask))

    def load_prepared(self, study_id: str) -> Any:
        """A ``pipeline.Prepared``; not named here, because the pipeline brings torch."""
        from gliomark.pipeline import PreparedStudy

        return _load_record(self.get_study_folder(study_id), "prepared", PreparedStudy)

    def save_prediction(self, study_id: str, job_id: str, prediction: Prediction) -> None:
        """The answer and its outline; study and stack are not written twice."""
        folder = self.get_prediction_folder(study_id, job_id)
        stored = StoredPrediction(**{name: getattr(prediction, name) for name, *_ in _STORED_FIELDS})
        write_file(folder / "mask.png", encode_mask_png(prediction.segmentation.mask))
        write_record(folder, "prediction", stored)

    def load_prediction(self, study_id: str, job_id: str) -> Prediction:
        prepared = self.load_prepared(study_id)
        stored = _load_record(self.get_prediction_folder(study_id, job_id), "prediction", StoredPrediction)
        return Prediction(study=prepared.study, stack=prepared.stack, **vars(stored))

    def save_slices(self, study_id: str, stack: SliceStack) -> dict[str, dict[str, float]]:
        """16-bit pictures of every slice; per sequence the values that black and white stand for."""
        grey_ranges = {}
        for name, image in stack.images.items():
            low, high = float(image.min()), float(image.max())
            scaled = np.round((image - low) / max(high - low, 1e-6) * MAX_GREY).astype(np.uint16)
            for index, image_slice in enumerate(scaled):
                write_file(self.get_slice_path(study_id, name, index), encode_slice_png(image_slice))
            grey_ranges[str(name)] = {"low": low, "high": high}
        return grey_ranges


def _load_record(folder: Path, name: str, record_type: type[T]) -> T:
    """Raises GliomarkError where it is gone or damaged."""
    if not has_record(folder, name) and older.has_pickle(folder, name):
        older.convert_pickle(folder, name, record_type)
    return read_record(folder, name, record_type)


def redact_folder(text: str, folder: Path) -> str:
    """Where things lie on the server is nobody's business; a message stays one."""
    if isinstance(text, Message):
        parameters = {name: _redact_parameter(value, folder) for name, value in text.parameters.items()}
        return Message(text.code, parameters)
    return text.replace(f"{folder}/", "").replace(str(folder), "the upload")


def _redact_parameter(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        value = str(value)
    if value == str(folder):
        return message("the-upload")
    return redact_folder(value, folder) if isinstance(value, str) else value


def write_file(path: Path, content: bytes) -> None:
    """The file appears whole. Raises NotWrittenError, a GliomarkError, where the disk is full."""
    atomic_write(path, content, is_durable=False)


def encode_slice_png(image: NDArray[Any]) -> bytes:
    """A grey picture, 8 or 16 bits as the array."""
    return encode_png(image, compress_level=1)


def stack_vertically(slices: NDArray[Any]) -> NDArray[Any]:
    """``(slice, row, column)`` as one picture, slice 0 on top."""
    return slices.reshape(-1, slices.shape[-1])


def encode_mask_png(mask: NDArray[np.bool_]) -> bytes:
    """An outline as one tall picture of 0 and 255."""
    return encode_slice_png(stack_vertically(mask).astype(np.uint8) * np.uint8(255))


def decode_mask_png(content: bytes, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """An outline sent by a client. Raises GliomarkError where it is no such picture."""
    slices, rows, columns = shape
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            size, mode = image.size, image.mode
            # the size is asked before anything is unpacked
            values = np.asarray(image) if size == (columns, slices * rows) else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise GliomarkError(message("outline-unreadable")) from None
    if values is None:
        expected_size = {"wanted_columns": columns, "wanted_rows": slices * rows}
        raise GliomarkError(message("outline-size", columns=size[0], rows=size[1], **expected_size))
    if mode not in ("L", "1"):
        raise GliomarkError(message("outline-kind", kind=mode))
    mask: NDArray[np.bool_] = values.astype(np.uint8).reshape(shape) > 0
    return mask

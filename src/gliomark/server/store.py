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

from gliomark.files import atomic_write, png_bytes, remove, remove_leftovers, temporary_name
from gliomark.messages import Message, message
from gliomark.server import older
from gliomark.stored import has_record, read_record, write_record
from gliomark.study import GliomarkError, Prediction, SliceStack, Study

GREYS = 65535
UNRECORDED = "unrecorded"
LEFT_OUT = ("study", "stack")  # of a kept prediction: they are the study's own
_HINTS = get_type_hints(Prediction)
_OWN = [
    (part.name, _HINTS[part.name], copy(part)) for part in fields(Prediction) if part.name not in LEFT_OUT
]
KeptPrediction: Any = make_dataclass("KeptPrediction", _OWN, frozen=True, eq=False)
T = TypeVar("T")


@dataclass(frozen=True)
class Store:
    """The data folder."""

    folder: Path

    @staticmethod
    def at(folder: Path) -> Store:
        """Made if need be, for this user alone. Raises GliomarkError where it cannot be."""
        try:
            (folder / "studies").mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            reason = error.strerror or str(error)
            raise GliomarkError(message("data-folder-unfit", folder=folder, reason=reason)) from None
        return Store(folder)

    def study(self, id: str) -> Path:
        return self.folder / "studies" / id

    def input(self, id: str) -> Path:
        return self.study(id) / "input"

    def slice(self, id: str, sequence: str, index: int) -> Path:
        return self.study(id) / "slices" / sequence / f"{index}.png"

    def upload(self) -> Path:
        """A folder to be made, for what is on its way."""
        return self.folder / "uploads" / uuid.uuid4().hex

    @contextmanager
    def filling(self, folder: Path) -> Iterator[Path]:
        """A folder to write into, which then appears whole or not at all; where another was faster, theirs stays."""
        part = folder.with_name(temporary_name())
        part.mkdir()
        try:
            yield part
            try:
                part.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
        finally:
            remove(part)

    def forget_uploads(self) -> None:
        """What was on its way when the server ended, and what it was writing."""
        remove(self.folder / "uploads")
        remove_leftovers(self.folder, below=True)

    def correction(self, id: str, sha256: str) -> Path:
        return self.study(id) / "corrections" / f"{sha256}.png"

    def keep_correction(self, id: str, mask: NDArray[np.bool_]) -> str:
        """Its SHA-256; outlines that earlier answers rest on stay beside it."""
        content = mask_png(mask)
        sha256 = hashlib.sha256(content).hexdigest()
        atomic_write(self.correction(id, sha256), content)  # what a doctor drew outlasts a power cut
        return sha256

    def prediction(self, id: str, job: str) -> Path:
        return self.study(id) / "predictions" / job

    def adopt(self, id: str, received: Path, patient: str) -> Path:
        """The files become the study's, under the patient's name as far as a file may have it. Until ``settle`` the
        folder says where they came from, for ``give_back``."""
        named = "".join(c for c in patient if c.isalnum() or c in " -_").encode()[:80].decode(errors="ignore")
        folder = self.input(id) / (named.strip() or "patient")
        folder.parent.mkdir(parents=True)
        atomic_write(self.study(id) / UNRECORDED, str(received))
        received.rename(folder)
        return folder

    def settle(self, id: str) -> None:
        """The study is recorded."""
        (self.study(id) / UNRECORDED).unlink()

    def unrecorded(self) -> list[str]:
        """Studies that a server was taking in when it ended."""
        return [mark.parent.name for mark in self.folder.glob(f"studies/*/{UNRECORDED}")]

    def give_back(self, id: str) -> None:
        """The files are back where they came from, and the study is gone."""
        for folder in self.input(id).glob("*"):  # none where the disk was full before they were moved
            received = Path((self.study(id) / UNRECORDED).read_text("utf-8"))
            received.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(received)
        self.remove(id)

    def remove(self, id: str) -> None:
        shutil.rmtree(self.study(id), ignore_errors=True)

    def keep_study(self, id: str, study: Study) -> None:
        write_record(self.study(id), "study", study)

    def load_study(self, id: str) -> Study:
        return _load(self.study(id), "study", Study)

    def found(self, id: str) -> Path:
        return self.study(id) / "found.png"

    def keep_prepared(self, id: str, prepared: Any) -> None:
        """With the outline that came with the images, if one did."""
        write_record(self.study(id), "prepared", prepared)
        if prepared.found is not None and prepared.found.mask is not None:
            write(self.found(id), mask_png(prepared.found.mask))

    def load_prepared(self, id: str) -> Any:
        """A ``pipeline.Prepared``; not named here, because the pipeline brings torch."""
        from gliomark.pipeline import Prepared

        return _load(self.study(id), "prepared", Prepared)

    def keep_prediction(self, id: str, job: str, prediction: Prediction) -> None:
        """The answer and its outline; study and stack are not written twice."""
        folder = self.prediction(id, job)
        own = KeptPrediction(**{name: getattr(prediction, name) for name, *_ in _OWN})
        write(folder / "mask.png", mask_png(prediction.segmentation.mask))
        write_record(folder, "prediction", own)

    def load_prediction(self, id: str, job: str) -> Prediction:
        prepared = self.load_prepared(id)
        own = _load(self.prediction(id, job), "prediction", KeptPrediction)
        return Prediction(study=prepared.study, stack=prepared.stack, **vars(own))

    def keep_slices(self, id: str, stack: SliceStack) -> dict[str, dict[str, float]]:
        """16-bit pictures of every slice; per sequence the values that black and white stand for."""
        greys = {}
        for name, image in stack.images.items():
            low, high = float(image.min()), float(image.max())
            scaled = np.round((image - low) / max(high - low, 1e-6) * GREYS).astype(np.uint16)
            for index, plane in enumerate(scaled):
                write(self.slice(id, name, index), png(plane))
            greys[str(name)] = {"low": low, "high": high}
        return greys


def _load(folder: Path, name: str, kind: type[T]) -> T:
    """Raises GliomarkError where it is gone or damaged."""
    if not has_record(folder, name) and older.is_kept(folder, name):
        older.take_over(folder, name, kind)
    return read_record(folder, name, kind)


def without_path(sentence: str, folder: Path) -> str:
    """Where things lie on the server is nobody's business; a message stays one."""
    if isinstance(sentence, Message):
        parts = {name: _part_without_path(part, folder) for name, part in sentence.parameters.items()}
        return Message(sentence.code, parts)
    return sentence.replace(f"{folder}/", "").replace(str(folder), "the upload")


def _part_without_path(part: Any, folder: Path) -> Any:
    if isinstance(part, Path):
        part = str(part)
    if part == str(folder):
        return message("the-upload")
    return without_path(part, folder) if isinstance(part, str) else part


def write(path: Path, content: bytes) -> None:
    """The file appears whole. Raises NotWrittenError, a GliomarkError, where the disk is full."""
    atomic_write(path, content, durable=False)


def png(plane: NDArray[Any]) -> bytes:
    """A grey picture, 8 or 16 bits as the array."""
    return png_bytes(plane, compress_level=1)


def tall(planes: NDArray[Any]) -> NDArray[Any]:
    """``(slice, row, column)`` as one picture, slice 0 on top."""
    return planes.reshape(-1, planes.shape[-1])


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """An outline as one tall picture of 0 and 255."""
    return png(tall(mask).astype(np.uint8) * np.uint8(255))


def read_mask(content: bytes, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
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
        wanted = {"wanted_columns": columns, "wanted_rows": slices * rows}
        raise GliomarkError(message("outline-size", columns=size[0], rows=size[1], **wanted))
    if mode not in ("L", "1"):
        raise GliomarkError(message("outline-kind", kind=mode))
    mask: NDArray[np.bool_] = values.astype(np.uint8).reshape(shape) > 0
    return mask

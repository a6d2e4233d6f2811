"""Files of images and results: one folder per study, every file written atomically.

::

    DATA/gliomark.db                                 the database, unless another one is configured
    DATA/uploads/<id>/...                            uploads being received; emptied at every start
    DATA/studies/<id>/input/<patient>/...            the files as uploaded
    DATA/studies/<id>/unrecorded                     where the files came from, until the database has the study
    DATA/studies/<id>/study.json, study.*.npz        the images as read
    DATA/studies/<id>/prepared.json, prepared.*.npz  the images as the networks use them
    DATA/studies/<id>/found.png                      a lesion mask found among the images
    DATA/studies/<id>/slices/<sequence>/<index>.png  slices for the client
    DATA/studies/<id>/volumes/<sequence>.nii.gz      the same images for the page, once they were requested
    DATA/studies/<id>/corrections/<sha256>.png       the reader's masks, named by their hash
    DATA/studies/<id>/predictions/<job>/...          mask, maps, result and DICOM objects

Records in formats of earlier versions are converted by ``legacy_records``.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, fields, make_dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gliomark.errors import ConfigurationError, InputError
from gliomark.files import atomic_write, encode_png, make_temporary_name, remove_leftovers, remove_path
from gliomark.messages import Message, message
from gliomark.prediction import MarkerPrediction, Prediction
from gliomark.record_files import has_record, read_record, write_record
from gliomark.server import legacy_records
from gliomark.study import SliceStack, Study

MAX_GREY = 65535
UNRECORDED_FILE = "unrecorded"
OMITTED_FIELDS = ("study", "stack")  # fields of a prediction that are stored with its study
_FIELD_TYPES = get_type_hints(Prediction) | {"markers": tuple[MarkerPrediction, ...]}
_STORED_FIELDS = [
    (part.name, _FIELD_TYPES[part.name], copy(part))
    for part in fields(Prediction)
    if part.name not in OMITTED_FIELDS
]
StoredPrediction: Any = make_dataclass("StoredPrediction", _STORED_FIELDS, frozen=True, eq=False)
T = TypeVar("T")


@dataclass(frozen=True)
class StudyStore:
    """The data folder of a server."""

    data_folder: Path

    @staticmethod
    def from_folder(data_folder: Path) -> StudyStore:
        """Create the folder if necessary, accessible only to this user.

        Raises
        ------
        ConfigurationError
            If it cannot be created.
        """
        try:
            (data_folder / "studies").mkdir(parents=True, exist_ok=True)
            data_folder.chmod(0o700)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigurationError(
                message("data-folder-unfit", folder=data_folder, reason=reason)
            ) from None
        return StudyStore(data_folder)

    def get_study_folder(self, study_id: str) -> Path:
        """Return the folder of a study."""
        return self.data_folder / "studies" / study_id

    def get_input_folder(self, study_id: str) -> Path:
        """Return the folder of a study's uploaded files."""
        return self.get_study_folder(study_id) / "input"

    def get_slice_path(self, study_id: str, sequence: str, index: int) -> Path:
        """Return the path of a slice image."""
        return self.get_study_folder(study_id) / "slices" / sequence / f"{index}.png"

    def get_volume_path(self, study_id: str, sequence: str) -> Path:
        """Return the path of a sequence's prepared images as NIfTI."""
        return self.get_study_folder(study_id) / "volumes" / f"{sequence}.nii.gz"

    def choose_upload_folder(self) -> Path:
        """Return a new, unused path for an upload's folder."""
        return self.data_folder / "uploads" / uuid.uuid4().hex

    @contextmanager
    def fill_folder(self, folder: Path) -> Iterator[Path]:
        """Yield a temporary folder that becomes ``folder`` when the block ends; an existing ``folder`` is kept.

        Raises
        ------
        OSError
            If it cannot be renamed.
        """
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
        """Delete unfinished uploads and temporary files of a previous run."""
        remove_path(self.data_folder / "uploads")
        remove_leftovers(self.data_folder, recursive=True)

    def get_correction_path(self, study_id: str, sha256: str) -> Path:
        """Return the path of a reader's mask."""
        return self.get_study_folder(study_id) / "corrections" / f"{sha256}.png"

    def save_correction(self, study_id: str, mask: NDArray[np.bool_]) -> str:
        """Save a reader's mask ``(slice, row, column)`` and return its SHA-256; earlier masks are kept."""
        content = encode_mask_png(mask)
        sha256 = hashlib.sha256(content).hexdigest()
        atomic_write(
            self.get_correction_path(study_id, sha256), content
        )  # durable: a reader's work must survive a power failure
        return sha256

    def get_prediction_folder(self, study_id: str, job_id: str) -> Path:
        """Return the folder of a prediction."""
        return self.get_study_folder(study_id) / "predictions" / job_id

    def adopt_upload(self, study_id: str, received_folder: Path, patient_name: str) -> Path:
        """Move the received files into the study's folder and note their origin until the database has the study.

        The patient's folder is named after ``patient_name``, as far as the characters are safe in a file name.
        """
        folder = self.get_input_folder(study_id) / create_patient_folder_name(patient_name)
        folder.parent.mkdir(parents=True)
        atomic_write(self.get_study_folder(study_id) / UNRECORDED_FILE, str(received_folder))
        received_folder.rename(folder)
        return folder

    def mark_recorded(self, study_id: str) -> None:
        """Delete the note of the files' origin: the database has the study."""
        (self.get_study_folder(study_id) / UNRECORDED_FILE).unlink()

    def list_unrecorded(self) -> list[str]:
        """Return the ids of studies whose import was interrupted."""
        return [
            marker_path.parent.name for marker_path in self.data_folder.glob(f"studies/*/{UNRECORDED_FILE}")
        ]

    def return_files(self, study_id: str) -> None:
        """Move a study's files back to where they came from and delete the study."""
        for input_folder in self.get_input_folder(study_id).glob(
            "*"
        ):  # empty if the disk was full before the files were moved
            received = Path((self.get_study_folder(study_id) / UNRECORDED_FILE).read_text("utf-8"))
            received.parent.mkdir(parents=True, exist_ok=True)
            input_folder.rename(received)
        self.remove_study(study_id)

    def remove_study(self, study_id: str) -> None:
        """Delete a study's folder."""
        shutil.rmtree(self.get_study_folder(study_id), ignore_errors=True)

    def save_study(self, study_id: str, study: Study) -> None:
        """Save a study as read."""
        write_record(self.get_study_folder(study_id), "study", study)

    def load_study(self, study_id: str) -> Study:
        """Load a study as read."""
        return _load_record(self.get_study_folder(study_id), "study", Study)

    def get_supplied_mask_path(self, study_id: str) -> Path:
        """Return the path of the mask found among a study's images."""
        return self.get_study_folder(study_id) / "found.png"

    def save_prepared(self, study_id: str, prepared: Any) -> None:
        """Save a prepared study and the mask found among its images, if any."""
        write_record(self.get_study_folder(study_id), "prepared", prepared)
        if prepared.found is not None and prepared.found.mask is not None:
            write_file(self.get_supplied_mask_path(study_id), encode_mask_png(prepared.found.mask))

    def load_prepared(self, study_id: str) -> Any:
        """Load a ``PreparedStudy``; the type is not annotated because importing the pipeline loads torch."""
        from gliomark.pipeline import PreparedStudy

        return _load_record(self.get_study_folder(study_id), "prepared", PreparedStudy)

    def get_prepared_version(self, study_id: str) -> tuple[int, int]:
        """Return what changes when another prepared study is saved: inode and time of its file; zeros without one."""
        file = self.get_study_folder(study_id) / "prepared.json"
        with suppress(FileNotFoundError):
            status = file.stat()
            return status.st_ino, status.st_mtime_ns
        return 0, 0

    def save_prediction(self, study_id: str, job_id: str, prediction: Prediction) -> None:
        """Save a prediction and its mask; its study and stack are already stored."""
        folder = self.get_prediction_folder(study_id, job_id)
        stored = StoredPrediction(**{name: getattr(prediction, name) for name, *_ in _STORED_FIELDS})
        write_file(folder / "mask.png", encode_mask_png(prediction.segmentation.mask))
        write_record(folder, "prediction", stored)

    def load_prediction(self, study_id: str, job_id: str) -> Prediction:
        """Load a prediction together with its study and stack."""
        prepared = self.load_prepared(study_id)
        stored = _load_record(self.get_prediction_folder(study_id, job_id), "prediction", StoredPrediction)
        return Prediction(study=prepared.study, stack=prepared.stack, **vars(stored))

    def save_slices(self, study_id: str, stack: SliceStack) -> dict[str, dict[str, float]]:
        """Save every slice as a 16-bit image; return the intensities shown as black and white for each sequence."""
        grey_ranges = {}
        for name, image in stack.images.items():
            low, high = float(image.min()), float(image.max())
            scaled = np.round((image - low) / max(high - low, 1e-6) * MAX_GREY).astype(np.uint16)
            for index, image_slice in enumerate(scaled):
                write_file(self.get_slice_path(study_id, name, index), encode_slice_png(image_slice))
            grey_ranges[str(name)] = {"low": low, "high": high}
        return grey_ranges

    def save_volumes(self, study_id: str, stack: SliceStack) -> None:
        """Save the prepared images of every sequence as NIfTI, with the 16-bit grey values of the slices."""
        # imported here, because the processes that read uploads import this module and start quickly
        from gliomark.reporting.segmentation_images import create_nifti_image

        for name, image in stack.images.items():
            volume = create_nifti_image(image, stack.affine)
            volume.header.set_data_dtype(
                np.uint16
            )  # nibabel scales the values and states slope and intercept
            content = gzip.compress(volume.to_bytes(), compresslevel=1, mtime=0)
            write_file(self.get_volume_path(study_id, name), content)


def _load_record(folder: Path, name: str, record_type: type[T]) -> T:
    """Load a record, converting it first if it is in an older format.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    if not has_record(folder, name) and legacy_records.has_pickle(folder, name):
        legacy_records.convert_pickle(folder, name, record_type)
    return read_record(folder, name, record_type)


def redact_folder(text: str, folder: Path) -> str:
    """Remove the server's paths from a text or message before it is shown to a client."""
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


def create_patient_folder_name(patient_name: str) -> str:
    """Return a folder name from a patient's name, as far as its characters are safe in a file name."""
    safe_characters = (one for one in patient_name if one.isalnum() or one in " -_")
    folder_name = "".join(safe_characters).encode()[:80].decode(errors="ignore")
    return folder_name.strip() or "patient"


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically but not durably.

    Raises
    ------
    FileWriteError
        If the disk is full.
    """
    atomic_write(path, content, is_durable=False)


def encode_slice_png(image: NDArray[Any]) -> bytes:
    """Encode one slice ``(row, column)`` as a greyscale PNG with 8 or 16 bits, depending on the array's type."""
    return encode_png(image, compress_level=1)


def stack_vertically(slices: NDArray[Any]) -> NDArray[Any]:
    """Return a stack ``(slice, row, column)`` as one image ``(slice * row, column)``, slice 0 on top."""
    return slices.reshape(-1, slices.shape[-1])


def encode_mask_png(mask: NDArray[np.bool_]) -> bytes:
    """Encode a mask ``(slice, row, column)`` as one PNG with the slices below each other, values 0 and 255."""
    return encode_slice_png(stack_vertically(mask).astype(np.uint8) * np.uint8(255))


def decode_mask_png(content: bytes, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Decode a mask from a client.

    Parameters
    ----------
    content
        A PNG with the slices below each other; every value above 0 is lesion.
    shape
        Expected number of slices, rows and columns.

    Returns
    -------
    NDArray[np.bool_]
        Mask ``(slice, row, column)``.

    Raises
    ------
    InputError
        If the content is not a greyscale PNG of this size.
    """
    slices, rows, columns = shape
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            size, mode = image.size, image.mode
            # check the size before decompressing
            values = np.asarray(image) if size == (columns, slices * rows) else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError(message("outline-unreadable")) from None
    if values is None:
        expected_size = {"wanted_columns": columns, "wanted_rows": slices * rows}
        raise InputError(message("outline-size", columns=size[0], rows=size[1], **expected_size))
    if mode not in ("L", "1"):
        raise InputError(message("outline-kind", kind=mode))
    mask: NDArray[np.bool_] = values.astype(np.uint8).reshape(shape) > 0
    return mask

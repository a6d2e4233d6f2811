"""Read, store and hash the files of a new study, in a reader process.

Only image readers and the store are imported here, so that a reader process starts quickly.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from gliomark.errors import DATA_ERRORS, GliomarkError, InputError
from gliomark.files import iterate_files
from gliomark.io import find_patients, read_study
from gliomark.io.dicom import find_dicom_files
from gliomark.io.dicom.dataset_reader import read_dataset
from gliomark.io.folder_listing import is_regular_file
from gliomark.messages import message
from gliomark.server.study_store import StudyStore, redact_folder
from gliomark.study import MRSequence, Study

MAX_AGE_YEARS = 120


@dataclass(frozen=True)
class ImportedStudy:
    """The part of a new study that goes into the database.

    Attributes
    ----------
    patient_id
        Patient id from the images.
    sha256
        SHA-256 of all files.
    series_uids
        SeriesInstanceUID by sequence; empty if the images are not DICOM.
    """

    patient_id: str
    sha256: str
    series_uids: dict[str, str]


def import_study(
    store: StudyStore, study_id: str, folder: Path, required_sequences: Sequence[MRSequence]
) -> ImportedStudy:
    """Read the files in ``folder`` and store them as study ``study_id``.

    Raises
    ------
    InputError
        If the files are not the study of one patient.
    """
    study = read_upload(folder, required_sequences)
    store.save_study(study_id, study)
    return ImportedStudy(study.patient_id, compute_folder_sha256(folder), _read_series_uids(study))


def _read_series_uids(study: Study) -> dict[str, str]:
    """Return the SeriesInstanceUID of each sequence that was read from DICOM; viewers name a series by it."""
    uids = {}
    for name, series in study.series.items():
        if series.source_images:
            tag = "SeriesInstanceUID"
            header = read_dataset(series.source_images[0].file, stop_before_pixels=True, specific_tags=[tag])
            uids[str(name)] = str(header.get(tag) or "")
    return {name: uid for name, uid in uids.items() if uid}


def read_upload(folder: Path, required_sequences: Sequence[MRSequence] = ()) -> Study:
    """Read the one patient in an upload; messages do not contain paths of the server.

    Parameters
    ----------
    folder
        The uploaded files.
    required_sequences
        Sequences of the model, by which one of several examinations is chosen.

    Raises
    ------
    InputError
        If the files cannot be read or belong to several patients.
    MemoryError
        If the reader process exceeds its memory limit; the pool reports it.
    """
    try:
        patients = find_patients(_find_innermost_folder(folder))
        if len(patients) > 1:
            names = ", ".join(patient.name for patient in patients[:4])
            raise InputError(message("upload-patients", count=len(patients), names=names))
        return read_study(patients[0], required_sequences=required_sequences)
    except GliomarkError as error:
        raise InputError(redact_folder(error.message, folder)) from None
    except MemoryError:
        raise  # the limit of the reader process, which has its own message
    except DATA_ERRORS as error:
        reason = redact_folder(" ".join(str(error).split())[-200:], folder)
        kind = type(error).__name__
        raise InputError(message("images-unreadable", kind=kind, reason=reason)) from None


def _find_innermost_folder(folder: Path) -> Path:
    """Descend through folders that contain nothing but one folder."""
    while True:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        folder = entries[0]


def compute_folder_sha256(folder: Path) -> str:
    """Return the SHA-256 over the path and content of every file, sorted by path."""
    folder_hash = hashlib.sha256()
    for path in sorted(filter(is_regular_file, iterate_files(folder))):
        folder_hash.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            folder_hash.update(hashlib.file_digest(file, "sha256").digest())
    return folder_hash.hexdigest()


# ---- clinical data from DICOM headers ---------------------------------------------------------------


def create_prediction_request(folder: Path) -> dict[str, Any]:
    """Return the prediction request of a received study; age in years and sex come from its DICOM headers."""
    header = read_dataset(next(iter(find_dicom_files(folder))), stop_before_pixels=True)
    age, sex = read_age(header), {"M": 0, "F": 1}.get(str(header.get("PatientSex", "")).strip().upper())
    is_clinical_missing = age is None or sex is None
    return {
        "age": age,
        "sex": sex,
        "without_clinical": is_clinical_missing,
        "fusion": "near",
        "outline": "model",
    }


def read_age(header: Dataset) -> float | None:
    """Return the age in years from PatientAge, otherwise from the dates of birth and study; None if unknown."""
    if match := re.fullmatch(r"(\d{1,3})([YMWD])", str(header.get("PatientAge", "")).strip()):
        age = int(match[1]) / {"Y": 1, "M": 12, "W": 52, "D": 365.25}[match[2]]
        if 0 < age <= MAX_AGE_YEARS:  # 000Y and 999Y are used for an unknown age
            return age
    birth_date, study_date = (
        str(header.get(keyword, ""))[:8] for keyword in ("PatientBirthDate", "StudyDate")
    )
    if re.fullmatch(r"\d{8}", birth_date) and re.fullmatch(r"\d{8}", study_date):
        years = int(study_date[:4]) - int(birth_date[:4]) - (study_date[4:] < birth_date[4:])
        return float(years) if 0 <= years <= MAX_AGE_YEARS else None
    return None

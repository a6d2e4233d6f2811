"""What is done with a study's files as they come in, in a reading process: read, kept as a record, hashed.

Nothing but imaging and the store is imported here, so that such a process is ready soon.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from gliomark.files import iterate_files
from gliomark.io import find_patients, read_study
from gliomark.io.dicom import find_dicom_files
from gliomark.io.dicom.files import read_dataset
from gliomark.io.limits import is_regular_file
from gliomark.messages import message
from gliomark.server.store import StudyStore, redact_folder
from gliomark.study import DATA_ERRORS, GliomarkError, MRSequence, Study

MAX_AGE_YEARS = 120


@dataclass(frozen=True)
class ImportedStudy:
    """What the server records of a study. sha256: of its files."""

    patient_id: str
    sha256: str


def import_study(
    store: StudyStore, study_id: str, folder: Path, required_sequences: Sequence[MRSequence]
) -> ImportedStudy:
    """Read the files in ``folder`` and keep them as study ``id``. Raises GliomarkError for what is no study."""
    study = read_upload(folder, required_sequences)
    store.save_study(study_id, study)
    return ImportedStudy(study.patient_id, compute_folder_sha256(folder))


def read_upload(folder: Path, required_sequences: Sequence[MRSequence] = ()) -> Study:
    """The one patient in what was sent; needed: the model's sequences, for the choice between examinations.

    Raises GliomarkError, in a sentence without the server's own paths."""
    try:
        patients = find_patients(_find_innermost_folder(folder))
        if len(patients) > 1:
            names = ", ".join(patient.name for patient in patients[:4])
            raise GliomarkError(message("upload-patients", count=len(patients), names=names))
        return read_study(patients[0], required_sequences=required_sequences)
    except GliomarkError as error:
        raise GliomarkError(redact_folder(error.message, folder)) from None
    except MemoryError:
        raise  # the reading process's limit, which has a sentence of its own
    except DATA_ERRORS as error:
        reason = redact_folder(" ".join(str(error).split())[-200:], folder)
        kind = type(error).__name__
        raise GliomarkError(message("images-unreadable", kind=kind, reason=reason)) from None


def _find_innermost_folder(folder: Path) -> Path:
    """Past the folders that hold nothing but one folder."""
    while True:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        folder = entries[0]


def compute_folder_sha256(folder: Path) -> str:
    """SHA-256 over every file's path and content, in order of path."""
    folder_hash = hashlib.sha256()
    for path in sorted(filter(is_regular_file, iterate_files(folder))):
        folder_hash.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            folder_hash.update(hashlib.file_digest(file, "sha256").digest())
    return folder_hash.hexdigest()


# ---- a pushed study's person ------------------------------------------------------------------------


def create_prediction_request(folder: Path) -> dict[str, Any]:
    """A prediction as it is asked for, age in years and sex from the headers."""
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
    """PatientAge, else from the dates of birth and study."""
    if match := re.fullmatch(r"(\d{1,3})([YMWD])", str(header.get("PatientAge", "")).strip()):
        age = int(match[1]) / {"Y": 1, "M": 12, "W": 52, "D": 365.25}[match[2]]
        if 0 < age <= MAX_AGE_YEARS:  # 000Y and 999Y say that nobody knew
            return age
    birth_date, study_date = (
        str(header.get(keyword, ""))[:8] for keyword in ("PatientBirthDate", "StudyDate")
    )
    if re.fullmatch(r"\d{8}", birth_date) and re.fullmatch(r"\d{8}", study_date):
        years = int(study_date[:4]) - int(birth_date[:4]) - (study_date[4:] < birth_date[4:])
        return float(years) if 0 <= years <= MAX_AGE_YEARS else None
    return None

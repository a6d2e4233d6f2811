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

from gliomark.files import files_below
from gliomark.io import find_patients, read_study
from gliomark.io.dicom import dicom_files
from gliomark.io.dicom.files import read_dataset
from gliomark.io.limits import is_plain
from gliomark.messages import message
from gliomark.server.store import Store, without_path
from gliomark.study import UNFORESEEN, GliomarkError, MRSequence, Study

OLDEST = 120


@dataclass(frozen=True)
class TakenIn:
    """What the server records of a study. sha256: of its files."""

    patient_id: str
    sha256: str


def take_in(store: Store, id: str, folder: Path, needed: Sequence[MRSequence]) -> TakenIn:
    """Read the files in ``folder`` and keep them as study ``id``. Raises GliomarkError for what is no study."""
    study = read_upload(folder, needed)
    store.keep_study(id, study)
    return TakenIn(study.patient_id, digest(folder))


def read_upload(folder: Path, needed: Sequence[MRSequence] = ()) -> Study:
    """The one patient in what was sent; needed: the model's sequences, for the choice between examinations.

    Raises GliomarkError, in a sentence without the server's own paths."""
    try:
        patients = find_patients(_innermost(folder))
        if len(patients) > 1:
            names = ", ".join(patient.name for patient in patients[:4])
            raise GliomarkError(message("upload-patients", count=len(patients), names=names))
        return read_study(patients[0], needed=needed)
    except GliomarkError as error:
        raise GliomarkError(without_path(error.message, folder)) from None
    except MemoryError:
        raise  # the reading process's limit, which has a sentence of its own
    except UNFORESEEN as error:
        reason = without_path(" ".join(str(error).split())[-200:], folder)
        kind = type(error).__name__
        raise GliomarkError(message("images-unreadable", kind=kind, reason=reason)) from None


def _innermost(folder: Path) -> Path:
    """Past the folders that hold nothing but one folder."""
    while True:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        if len(entries) != 1 or not entries[0].is_dir():
            return folder
        folder = entries[0]


def digest(folder: Path) -> str:
    """SHA-256 over every file's path and content, in order of path."""
    whole = hashlib.sha256()
    for path in sorted(filter(is_plain, files_below(folder))):
        whole.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


# ---- a pushed study's person ------------------------------------------------------------------------


def asked_of(folder: Path) -> dict[str, Any]:
    """A prediction as it is asked for, age in years and sex from the headers."""
    header = read_dataset(next(iter(dicom_files(folder))), stop_before_pixels=True)
    age, sex = age_of(header), {"M": 0, "F": 1}.get(str(header.get("PatientSex", "")).strip().upper())
    unknown = age is None or sex is None
    return {"age": age, "sex": sex, "without_clinical": unknown, "fusion": "near", "outline": "model"}


def age_of(header: Dataset) -> float | None:
    """PatientAge, else from the dates of birth and study."""
    if found := re.fullmatch(r"(\d{1,3})([YMWD])", str(header.get("PatientAge", "")).strip()):
        stated = int(found[1]) / {"Y": 1, "M": 12, "W": 52, "D": 365.25}[found[2]]
        if 0 < stated <= OLDEST:  # 000Y and 999Y say that nobody knew
            return stated
    born, seen = (str(header.get(word, ""))[:8] for word in ("PatientBirthDate", "StudyDate"))
    if re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", seen):
        years = int(seen[:4]) - int(born[:4]) - (seen[4:] < born[4:])
        return float(years) if 0 <= years <= OLDEST else None
    return None

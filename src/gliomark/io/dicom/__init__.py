"""DICOM: a folder, searched with all its subfolders, of one patient's MR files.

Which series is which sequence: ``recognition``. How files become stacks: ``dicom_series``. Which stack is read
where several are candidates: ``series_choice``. How slices become a volume, and what is mended on the way:
``dicom_volume``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gliomark.io.dicom.choice import choose_series, contrast_doubt, why_chosen
from gliomark.io.dicom.instances import (
    Frame,
    Instance,
    dicom_files,
    holds_dicom,
    is_one_patient,
    looks_like_dicom,
    read_instance,
)
from gliomark.io.dicom.series import DicomSeries, group_series, owner_key
from gliomark.io.dicom.volume import read_series
from gliomark.io.nifti import folder_name
from gliomark.study import GliomarkError, MRSequence, Study

__all__ = [
    "DicomSeries", "Frame", "Instance", "choose_series", "contrast_doubt", "dicom_files", "group_series", "holds_dicom",
    "is_one_patient", "looks_like_dicom", "owner_key", "read_dicom", "read_instance", "read_series", "why_chosen",
]  # fmt: skip


def read_dicom(path: Path) -> Study:
    """Read one patient's DICOM folder; the id is PatientID, or the folder's name where that is blank.

    Raises: GliomarkError for two patients, no usable series, uneven slices or pixels that cannot be decoded.
    """
    instances = [read_instance(file) for file in dicom_files(path)]
    images = [instance for instance in instances if instance.is_mr_image]
    if not images:
        found = sorted({instance.modality or "unknown" for instance in instances})
        raise GliomarkError(
            f"No MR images among the DICOM files in {path} (found {', '.join(found)}): export the MRI."
        )
    _check_one_patient(path, images)
    series = group_series(images)
    chosen = _choose(path, series)
    notes = _notes_on_choice(series, chosen)
    read = {}
    for sequence, one in chosen.items():
        read[sequence], mended = read_series(one)
        notes += mended
    patient = images[0].patient_id or folder_name(path)
    return Study(patient, read, path, "volumes", notes=tuple(notes))


def _check_one_patient(path: Path, images: Sequence[Instance]) -> None:
    """Refuse a folder in which id, name or birth date (where given) differ between two files."""
    for keyword, what in (("patient_id", "ids"), ("patient_name", "names"), ("birth_date", "birth dates")):
        owners: dict[str, Path] = {}
        for instance in images:
            if value := re.sub(r"[\s^=]+", " ", getattr(instance, keyword)).strip().casefold():
                owners.setdefault(value, instance.file)
        if len(owners) > 1:
            one, other = list(owners.values())[:2]
            raise GliomarkError(
                f"{path} holds files of two patients (different {what} in {one.relative_to(path)} and "
                f"{other.relative_to(path)}): give every patient a folder of their own."
            )


def _choose(path: Path, series: Sequence[DicomSeries]) -> dict[MRSequence, DicomSeries]:
    """The series to read: of the examination with most sequences (then the later), filled up from the others."""
    examinations = sorted(
        {one.study_uid for one in series},
        key=lambda uid: (
            len(choose_series(_of(series, uid))),
            max(s.study_date for s in _of(series, uid)),
            uid,
        ),
        reverse=True,
    )
    chosen: dict[MRSequence, DicomSeries] = {}
    for uid in examinations:
        chosen = choose_series(_of(series, uid)) | chosen
    if not chosen:
        found = ", ".join(sorted({one.description or "no name" for one in series}))
        raise GliomarkError(
            f"None of the MR series in {path} is a T1, T1C, T2 or FLAIR (found {found}): export these."
        )
    return {sequence: chosen[sequence] for sequence in MRSequence if sequence in chosen}


def _of(series: Sequence[DicomSeries], study_uid: str) -> list[DicomSeries]:
    return [one for one in series if one.study_uid == study_uid]


def _notes_on_choice(series: Sequence[DicomSeries], chosen: dict[MRSequence, DicomSeries]) -> list[str]:
    """Where there was a choice, what was left as unknown, and examinations that were mixed."""
    notes = []
    for sequence, one in chosen.items():
        candidates = [other for other in series if other.recognition.sequence == sequence]
        if len(candidates) > 1:
            name = one.description or one.first.file.name
            notes.append(f"{len(candidates)} series look like {sequence}; read: {name}.")
    for other in series:
        if other.recognition.kind == "unknown":
            notes.append(f"Series '{other.description}' was not used: {other.recognition.reason}")
    examinations = {one.study_uid for one in chosen.values()}
    doubts = (contrast_doubt(_of(series, uid)) for uid in sorted(examinations))
    notes += [doubt for doubt in doubts if doubt]
    if len(examinations) > 1:
        notes.append(f"The sequences come from {len(examinations)} different examinations of this patient.")
    return notes

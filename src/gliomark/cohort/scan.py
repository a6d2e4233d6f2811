"""From any folder tree to patients: which files are DICOM, whose they are, and what each series is taken for.

No order, name or depth of folders is assumed. Zip files are opened. A PatientID that two people share (name or
birth date disagree) is quarantined, never merged.
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from gliomark.cohort.private import read_private_csv, write_private_csv
from gliomark.cohort.workers import each
from gliomark.io.dicom import (
    DicomSeries,
    Instance,
    choose_series,
    contrast_doubt,
    dicom_files,
    group_series,
    owner_key,
    read_instance,
    why_chosen,
)
from gliomark.io.masks import predicted
from gliomark.study import GliomarkError, MRSequence

BATCH = 100
_ZIP_DAMAGE = (
    zipfile.BadZipFile,
    RuntimeError,
    NotImplementedError,
    EOFError,
    OSError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
)
ZIP_LARGEST_RATIO = 200
ZIP_ALWAYS_ALLOWED = 1 << 30
SERIES_COLUMNS = (
    "patient_id", "study_date", "series", "description", "images", "plane", "spacing_mm", "recognised", "use",
    "reason", "folder",
)  # fmt: skip
QUARANTINE_COLUMNS = ("patient_id", "patient_name", "birth_date", "series", "where", "reason")
MASK_CLASSES = (SegmentationStorage, RTStructureSetStorage)
NOT_USED = ("", "no")
UNDECIDED = "auto"  # in the column use: decide as if the row had not been edited


@dataclass(frozen=True)
class Quarantined:
    """What was kept out: a patient's series, or a file, with the reason."""

    where: str
    reason: str
    patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""
    series: str = ""


@dataclass(frozen=True, eq=False)
class DicomPatient:
    """One patient as found on disk. used: the series read for each sequence; masks: SEG and RTSTRUCT files."""

    patient_id: str
    used: Mapping[MRSequence, DicomSeries]
    masks: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Scan:
    """Everything found below a folder. rows: one per series, as ``series.csv`` holds them."""

    patients: tuple[DicomPatient, ...]
    rows: tuple[dict[str, str], ...]
    quarantined: tuple[Quarantined, ...]


def scan(
    root: Path, private: Path, client: Client, edited: Path | None, leave_out: Sequence[Path] = ()
) -> Scan:
    """Find every series below ``root``, decide what it is, and write ``series.csv`` and ``quarantine.csv``.

    edited: a ``series.csv`` whose columns ``patient_id`` and ``use`` overrule the decisions. leave_out: folders
    that are read otherwise. Raises GliomarkError for an edited table that does not fit.
    """
    files, bad = _all_files(root, private, leave_out)
    instances: list[Instance] = []
    batches = [tuple(files[start : start + BATCH]) for start in range(0, len(files), BATCH)]
    for _, result in each(client, _read_batch, batches):
        if isinstance(result, GliomarkError):
            raise result
        instances += [one for one in result if isinstance(one, Instance)]
        bad += [one for one in result if isinstance(one, Quarantined)]
    series = sorted(group_series(instances), key=lambda one: one.key)
    found = _decide(series, _overrides(edited, series))
    found = replace(found, quarantined=(*bad, *found.quarantined))
    write_private_csv(private / "series.csv", SERIES_COLUMNS, found.rows)
    write_private_csv(private / "quarantine.csv", QUARANTINE_COLUMNS, map(vars, found.quarantined))
    return found


# ---- files ------------------------------------------------------------------------------------------


def _all_files(root: Path, private: Path, leave_out: Sequence[Path]) -> tuple[list[Path], list[Quarantined]]:
    """DICOM files below the root and in its zip files, and the zip files that cannot be used."""
    bad: list[Quarantined] = []
    places = [root]
    for archive in sorted(
        path for path in root.rglob("*") if path.suffix.lower() == ".zip" and path.is_file()
    ):
        try:
            places.append(_unzipped(archive, root, private))
        except GliomarkError as error:
            bad.append(Quarantined(str(archive), str(error)))
    hidden = {folder.absolute() for folder in leave_out} | {private.absolute()}
    files = [file for place in places for file in dicom_files(place)]
    return [f for f in files if f.is_relative_to(private) or hidden.isdisjoint(f.absolute().parents)], bad


def _unzipped(archive: Path, root: Path, private: Path) -> Path:
    """The folder that holds an archive's files, as they are in it now; what it held before is removed.

    Raises GliomarkError for a damaged, locked or monstrous one.
    """
    name = hashlib.sha256(str(archive.relative_to(root)).encode()).hexdigest()[:12]
    try:
        with archive.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        place = private / "unzipped" / f"{name}-{content}"
        if place.exists():
            return place
        for older in place.parent.glob(f"{name}-*"):
            shutil.rmtree(older)
        part = place.with_suffix(".part")
        _unpack(archive, part)
    except _ZIP_DAMAGE as error:
        raise GliomarkError(f"{archive} cannot be unpacked ({error}); unpack it yourself.") from error
    part.rename(place)
    return place


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        grown = sum(member.file_size for member in content.infolist())
        if grown > max(ZIP_ALWAYS_ALLOWED, ZIP_LARGEST_RATIO * archive.stat().st_size):
            raise GliomarkError(
                f"{archive} would grow to {grown / 1e9:.0f} GB; unpack it yourself if that is right."
            )
        content.extractall(folder)  # names that would leave the folder are made harmless by zipfile


def _read_batch(files: Sequence[Path]) -> list[Instance | Quarantined]:
    found: list[Instance | Quarantined] = []
    for file in files:
        try:
            found.append(read_instance(file))
        except GliomarkError as error:
            found.append(Quarantined(str(file), str(error)))
    return found


# ---- patients ---------------------------------------------------------------------------------------


def _decide(series: Sequence[DicomSeries], overrides: Mapping[str, Mapping[str, str]]) -> Scan:
    """Group by patient, quarantine whom nobody can tell apart, and choose the series to read."""
    by_patient: dict[str, list[DicomSeries]] = defaultdict(list)
    for one in series:
        by_patient[overrides.get(one.key, {}).get("patient_id", one.patient_id)].append(one)
    patients, rows, quarantined = [], [], []
    for patient_id, theirs in sorted(by_patient.items()):
        # an id that a person wrote into the table is that person's word
        reason = _why_not_one_person(patient_id, [one for one in theirs if one.patient_id == patient_id])
        if reason:
            quarantined += [_quarantined(one, reason) for one in theirs]
            rows += [_row(patient_id, one, UNDECIDED, f"quarantined: {reason}") for one in theirs]
            continue
        used, reasons, notes = _choose(theirs, overrides)
        names = {one.key: name for name, one in used.items()}
        rows += [_row(patient_id, one, names.get(one.key, ""), reasons[one.key]) for one in theirs]
        masks = [i.file for one in theirs for i in one.instances if i.sop_class in MASK_CLASSES]
        # an outline that gliomark predicted and an archive gave back must not be learnt from as a reader's
        masks = [file for file in sorted(masks) if not predicted(file)]
        if used:
            patients.append(DicomPatient(patient_id, used, tuple(masks), notes))
    return Scan(tuple(patients), tuple(rows), tuple(quarantined))


def _why_not_one_person(patient_id: str, theirs: Sequence[DicomSeries]) -> str:
    """Why the series under one PatientID are not one person's for certain; blank where they are."""
    if not patient_id:
        return "the PatientID is blank; give the series one in the column patient_id"
    for what, values in (
        ("names", {owner_key(one.first)[1] for one in theirs}),
        ("birth dates", {owner_key(one.first)[2] for one in theirs}),
    ):
        if len(values - {""}) > 1:
            return (
                f"{len(values - {''})} different {what} share this PatientID; "
                "give each person an id in the column patient_id"
            )
    return ""


def _choose(
    series: Sequence[DicomSeries], overrides: Mapping[str, Mapping[str, str]]
) -> tuple[dict[MRSequence, DicomSeries], dict[str, str], tuple[str, ...]]:
    """The series to read, the reason for each series, and notes.

    Of several examinations, the one with most sequences is read; of equals the earliest, which is the one
    before surgery as a rule.
    """
    examinations: dict[str, list[DicomSeries]] = defaultdict(list)
    for one in series:
        examinations[one.study_date or one.study_uid].append(one)
    chosen = {day: choose_series(theirs) for day, theirs in examinations.items()}
    best = min(chosen, key=lambda day: (-len(chosen[day]), day))
    reasons = {one.key: one.recognition.reason for one in series}
    for day, theirs in examinations.items():
        for one in theirs:
            if one.recognition.sequence is None:
                continue
            if day != best:
                reasons[one.key] += " Not chosen: another examination of the patient was."
            elif one not in chosen[day].values():
                reasons[one.key] += f" {why_chosen(chosen[day][one.recognition.sequence], one)}"
    used = _with_overrides(chosen[best], series, overrides, reasons)
    notes = [f"{len(examinations)} examinations were found; one was used."] if len(examinations) > 1 else []
    if doubt := contrast_doubt(examinations[best]):
        notes.append(doubt)
    return used, reasons, tuple(notes)


def _with_overrides(
    chosen: Mapping[MRSequence, DicomSeries],
    series: Sequence[DicomSeries],
    overrides: Mapping[str, Mapping[str, str]],
    reasons: dict[str, str],
) -> dict[MRSequence, DicomSeries]:
    """The choice after the edited table; where it names one sequence twice, GliomarkError."""
    known = [one for one in series if overrides.get(one.key, {}).get("use", UNDECIDED) != UNDECIDED]
    used = {name: one for name, one in chosen.items() if one not in known}
    by_hand: dict[MRSequence, DicomSeries] = {}
    for one in known:
        wanted = overrides[one.key]["use"]
        if wanted in NOT_USED:
            continue
        name = MRSequence(wanted.upper())
        if name in by_hand:
            raise GliomarkError(
                f"The edited table uses two series of one patient as {name} ({by_hand[name].key} and {one.key}); "
                "leave one."
            )
        by_hand[name] = one
        if chosen.get(name) is not one:
            reasons[one.key] += f" Used as {name} by the edited table."
    return used | by_hand


def _overrides(edited: Path | None, series: Sequence[DicomSeries]) -> dict[str, dict[str, str]]:
    """Series key to the edited row. Raises GliomarkError for a series or a sequence nobody knows."""
    if edited is None:
        return {}
    columns = ("series", "patient_id", "use")
    # people write Auto and t2, and spreadsheets drop empty cells at a row's end
    read = [
        {name: (row[name] or "").strip() for name in columns} for row in read_private_csv(edited, columns)
    ]
    rows = {row["series"]: {**row, "use": row["use"].lower()} for row in read}
    unknown = sorted(set(rows) - {one.key for one in series})
    if unknown:
        raise GliomarkError(
            f"{edited}: the series {unknown[0]} is not in the folder; edit the table of this folder."
        )
    for row in rows.values():
        use = row["use"]
        if use not in (*NOT_USED, UNDECIDED) and use.upper() not in set(MRSequence):
            raise GliomarkError(
                f"{edited}: '{use}' in column use of series {row['series']} must be T1, T1C, T2, FLAIR, auto or blank."
            )
    return rows


# ---- rows -------------------------------------------------------------------------------------------


def _row(patient_id: str, one: DicomSeries, use: MRSequence | str, reason: str) -> dict[str, str]:
    spacing = one.spacing_mm
    return {
        "patient_id": patient_id,
        "study_date": one.study_date,
        "series": one.key,
        "description": one.description,
        "images": str(one.images),
        "plane": one.plane,
        "spacing_mm": "" if spacing is None else " x ".join(f"{step:.4g}" for step in spacing),
        "recognised": one.recognition.kind,
        "use": str(use),
        "reason": reason,
        "folder": str(one.instances[0].file.parent),
    }


def _quarantined(one: DicomSeries, reason: str) -> Quarantined:
    folder = str(one.instances[0].file.parent)
    return Quarantined(folder, reason, one.patient_id, one.patient_name, one.birth_date, one.key)

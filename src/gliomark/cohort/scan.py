"""From any folder tree to patients: which files are DICOM, whose they are, and what each series is taken for.

No order, name or depth of folders is assumed. Zip files are opened. A PatientID that two people share (name or
birth date disagree) is quarantined, never merged.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from gliomark.cohort.private import read_private_csv, write_private_csv
from gliomark.cohort.workers import each, reading
from gliomark.files import ZIP_DAMAGE, atomic_folder, files_below, is_disk_full
from gliomark.io.dicom import (
    DicomSeries,
    Instance,
    check_unreadable,
    choose_from,
    destroyed_files,
    dicom_files,
    group_series,
    owner_key,
    read_headers,
)
from gliomark.io.examinations import NoExaminationError
from gliomark.io.layout import folders_in
from gliomark.io.limits import is_plain
from gliomark.io.masks import predicted
from gliomark.io.naming import same_id
from gliomark.isolation import read_each, reading_by
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence

BATCH = 100
ZIP_LARGEST_RATIO = 200
ZIP_ALWAYS_ALLOWED = 1 << 30
DEEPEST_IN_ZIP = 100
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
    root: Path,
    private: Path,
    client: Client,
    edited: Path | None,
    leave_out: Sequence[Path] = (),
    needed: Sequence[MRSequence] = (),
) -> Scan:
    """Find every series below ``root``, decide what it is, and write ``series.csv`` and ``quarantine.csv``.

    edited: a ``series.csv`` whose columns ``patient_id`` and ``use`` overrule the decisions. leave_out: folders
    that are read otherwise. needed: the cohort's sequences, for the choice between examinations.

    Raises GliomarkError for an edited table that does not fit.
    """
    files, bad = _all_files(root, private, leave_out)
    instances: list[Instance] = []
    batches = [tuple(files[start : start + BATCH]) for start in range(0, len(files), BATCH)]
    for _, result in each(client, _read_batch, batches):
        if isinstance(result, GliomarkError):
            raise result
        instances += [one for one in result if isinstance(one, Instance)]
        bad += [one for one in result if isinstance(one, Quarantined)]
    with reading_by(reading()):
        series = sorted(group_series(instances), key=lambda one: one.key)
    known = set(files)
    unreadable = {Path(one.where): one.reason for one in bad if Path(one.where) in known}
    unreadable |= {
        file: message("dicom-damaged", file=file) for file in destroyed_files(one.file for one in instances)
    }
    found = _decide(series, _overrides(edited, series), needed, unreadable)
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
        path for path in files_below(root) if path.suffix.lower() == ".zip" and is_plain(path)
    ):
        try:
            places.append(_unzipped(archive, root, private))
        except GliomarkError as error:
            if is_disk_full(error):
                raise
            bad.append(Quarantined(str(archive), str(error)))
    hidden = {folder.absolute() for folder in leave_out} | {private.absolute()}
    places += [
        folder for folder in folders_in(root) if folder.is_symlink()
    ]  # a patient's folder lies elsewhere
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
        with atomic_folder(place) as part:
            _unpack(archive, part)
    except ZIP_DAMAGE as error:
        raise GliomarkError(message("archive-unreadable", file=archive, reason=str(error))) from error
    return place


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        grown = sum(member.file_size for member in content.infolist())
        if grown > max(ZIP_ALWAYS_ALLOWED, ZIP_LARGEST_RATIO * archive.stat().st_size):
            raise GliomarkError(message("archive-huge", file=archive, gigabytes=grown / 1e9))
        if any(member.filename.count("/") > DEEPEST_IN_ZIP for member in content.infolist()):
            raise zipfile.BadZipFile(f"folders more than {DEEPEST_IN_ZIP} deep")
        try:
            content.extractall(folder)  # names that would leave the folder are made harmless by zipfile
        except OSError as error:
            if is_disk_full(error):
                raise
            raise zipfile.BadZipFile(str(error)) from error


def _read_batch(files: Sequence[Path]) -> list[Instance | Quarantined]:
    """On a worker; a file that ends the process that reads it is kept out like a damaged one."""
    headers, ended = read_each(reading(), files[0].parent, read_headers, files, file_of=lambda file: file)
    read = [one.instance or Quarantined(str(one.file), one.problem) for one in headers]
    return [*read, *(Quarantined(str(file), sentence) for file, sentence in ended)]


# ---- patients ---------------------------------------------------------------------------------------


def _decide(
    series: Sequence[DicomSeries],
    overrides: Mapping[str, Mapping[str, str]],
    needed: Sequence[MRSequence],
    unreadable: Mapping[Path, str],
) -> Scan:
    """Group by patient, quarantine whom nobody can tell apart, and choose the series to read."""
    patients, rows, quarantined = [], [], []
    for patient_id, theirs in sorted(_by_patient(series, overrides).items()):
        # an id that a person wrote into the table is that person's word
        own = [one for one in theirs if same_id(one.patient_id) == same_id(patient_id)]
        reason = _why_not_one_person(patient_id, own)
        if not reason:
            try:
                used, reasons, notes = _choose(patient_id, theirs, overrides, needed)
                _check_holes(used, unreadable)
            except _LeftOutError as error:
                reason = str(error)
        if reason:
            quarantined += [_quarantined(one, reason) for one in theirs]
            rows += [_row(patient_id, one, UNDECIDED, f"quarantined: {reason}") for one in theirs]
            continue
        names = {one.key: name for name, one in used.items()}
        rows += [_row(patient_id, one, names.get(one.key, ""), reasons[one.key]) for one in theirs]
        masks = [i.file for one in theirs for i in one.instances if i.sop_class in MASK_CLASSES]
        # an outline that gliomark predicted and an archive gave back must not be learnt from as a reader's
        masks = [file for file in sorted(masks) if not predicted(file)]
        if used:
            patients.append(DicomPatient(patient_id, used, tuple(masks), notes))
    return Scan(tuple(patients), tuple(rows), tuple(quarantined))


class _LeftOutError(GliomarkError):
    """Why one patient is left out, whatever becomes of the others."""


def _by_patient(
    series: Sequence[DicomSeries], overrides: Mapping[str, Mapping[str, str]]
) -> dict[str, list[DicomSeries]]:
    """Series by the edited table's id, else by PatientID, whatever its capitals, blanks and padding."""
    spelled: dict[str, str] = {}
    for one in sorted(series, key=lambda one: one.patient_id):
        spelled.setdefault(same_id(one.patient_id), one.patient_id.strip(" ^"))
    by_patient: dict[str, list[DicomSeries]] = defaultdict(list)
    for one in series:
        own = spelled[same_id(one.patient_id)]
        by_patient[overrides.get(one.key, {}).get("patient_id", own)].append(one)
    return by_patient


def _check_holes(used: Mapping[MRSequence, DicomSeries], unreadable: Mapping[Path, str]) -> None:
    """Leave a patient out where a series that is used lacks a file that cannot be read."""
    folders = {instance.file.parent for one in used.values() for instance in one.instances}
    try:
        beside = {file: why for file, why in unreadable.items() if file.parent in folders}
        check_unreadable(used, beside, list(used))
    except GliomarkError as error:
        raise _LeftOutError(error.message) from None


def _why_not_one_person(patient_id: str, theirs: Sequence[DicomSeries]) -> str:
    """Why the series under one PatientID are not one person's for certain; blank where they are."""
    if not patient_id:
        return message("patient-id-blank")
    for at, code in ((1, "patient-id-names"), (2, "patient-id-birth-dates")):
        values = {owner_key(one.first)[at] for one in theirs} - {""}
        if len(values) > 1:
            return message(code, count=len(values))
    return ""


def _choose(
    patient_id: str,
    series: Sequence[DicomSeries],
    overrides: Mapping[str, Mapping[str, str]],
    needed: Sequence[MRSequence],
) -> tuple[dict[MRSequence, DicomSeries], dict[str, str], tuple[str, ...]]:
    """The series to read, the reason for each series, and notes; the examination as ``predict`` chooses it.

    Notes enter the cohort, so they say no date. Raises GliomarkError where no examination can be chosen.
    """
    reasons = {one.key: one.recognition.reason for one in series}
    try:
        chosen = choose_from(patient_id, series, needed)
    except NoExaminationError as error:
        if not any(
            overrides.get(one.key, {}).get("use", UNDECIDED) not in (*NOT_USED, UNDECIDED) for one in series
        ):
            raise _LeftOutError(error.message) from None
        chosen = None  # a person has named the series in the table
    if chosen is None:
        return _with_overrides({}, series, overrides, reasons), reasons, ()
    reasons = dict(chosen.reasons)
    used = _with_overrides(chosen.used, series, overrides, reasons)
    which = chosen.examination
    dated = {"examination-chosen", "examination-after-surgery"}
    notes = [note for note in chosen.notes if getattr(note, "code", "") not in dated]
    if which.count > 1:
        notes.insert(0, message("examination-number", count=which.count, number=which.number))
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
            both = {"one": by_hand[name].key, "other": one.key}
            raise GliomarkError(message("series-table-twice", sequence=str(name), **both))
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
        raise GliomarkError(message("series-table-unknown", table=edited, series=unknown[0]))
    for row in rows.values():
        use = row["use"]
        if use not in (*NOT_USED, UNDECIDED) and use.upper() not in set(MRSequence):
            raise GliomarkError(message("series-table-use", table=edited, use=use, series=row["series"]))
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

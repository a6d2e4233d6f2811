"""Scan any folder tree for DICOM: find the files, group them by patient, and select the series of each sequence.

No order, name or depth of folders is assumed. Zip files are unpacked. A PatientID that two people share (name or
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

from gliomark.cluster import get_reader_pool, run_on_cluster
from gliomark.cohort.private_files import read_private_csv, write_private_csv
from gliomark.errors import CohortError, GliomarkError, InputError
from gliomark.files import ZIP_ERRORS, atomic_folder, is_disk_full_error, iterate_files
from gliomark.io.dicom import (
    DicomSeries,
    Instance,
    choose_examination_series,
    drop_incomplete_series,
    find_destroyed_files,
    find_dicom_files,
    get_patient_identity,
    group_series,
    read_headers,
)
from gliomark.io.examination_choice import NoExaminationError
from gliomark.io.folder_listing import is_regular_file, list_subfolders
from gliomark.io.masks import is_gliomark_result
from gliomark.io.naming import normalise_patient_id
from gliomark.isolation import read_items_skipping_crashes, use_reader_pool
from gliomark.messages import message
from gliomark.study import MRSequence

FILES_PER_BATCH = 100
MAX_ZIP_RATIO = 200
ZIP_BYTES_ALWAYS_ALLOWED = 1 << 30
MAX_ZIP_DEPTH = 100
SERIES_COLUMNS = (
    "patient_id",
    "study_date",
    "series",
    "description",
    "images",
    "plane",
    "spacing_mm",
    "recognised",
    "use",
    "reason",
    "folder",
)
QUARANTINE_COLUMNS = ("patient_id", "patient_name", "birth_date", "series", "where", "reason")
MASK_SOP_CLASSES = (SegmentationStorage, RTStructureSetStorage)
NOT_USED_VALUES = ("", "no")
USE_AUTOMATIC = "auto"  # in the column use: select the series automatically


@dataclass(frozen=True)
class QuarantinedItem:
    """An excluded series or file, and the reason."""

    where: str
    reason: str
    patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""
    series: str = ""


@dataclass(frozen=True, eq=False)
class DicomPatient:
    """One patient found on disk. series_by_sequence: the series to read. mask_files: SEG and RTSTRUCT files."""

    patient_id: str
    series_by_sequence: Mapping[MRSequence, DicomSeries]
    mask_files: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ScanResult:
    """Result of scanning a folder. series_rows: the rows of ``series.csv``, one per series."""

    patients: tuple[DicomPatient, ...]
    series_rows: tuple[dict[str, str], ...]
    quarantined: tuple[QuarantinedItem, ...]


def scan_folder(
    root: Path,
    private_folder: Path,
    client: Client,
    overrides_path: Path | None,
    skipped_folders: Sequence[Path] = (),
    required_sequences: Sequence[MRSequence] = (),
) -> ScanResult:
    """Find and classify every series below ``root``, and write ``series.csv`` and ``quarantine.csv``.

    Parameters
    ----------
    root
        Folder of the export.
    private_folder
        Folder for files that identify patients.
    client
        Client of the cluster that reads the headers.
    overrides_path
        A ``series.csv`` whose columns ``patient_id`` and ``use`` override the automatic selection.
    skipped_folders
        Folders to skip, because their patients are read as pictures or volumes.
    required_sequences
        Sequences of the cohort, for the choice between examinations.

    Raises
    ------
    InputError
        If ``overrides_path`` contains an unknown series or sequence, or one sequence twice for a patient.
    CohortError
        If a worker process died twice.
    """
    files, quarantined = _find_dicom_files(root, private_folder, skipped_folders)
    instances: list[Instance] = []
    batches = [
        tuple(files[start : start + FILES_PER_BATCH]) for start in range(0, len(files), FILES_PER_BATCH)
    ]
    for _, result in run_on_cluster(client, _read_header_batch, batches):
        if isinstance(result, GliomarkError):
            raise result
        instances += [one for one in result if isinstance(one, Instance)]
        quarantined += [one for one in result if isinstance(one, QuarantinedItem)]
    with use_reader_pool(get_reader_pool()):
        series = sorted(group_series(instances), key=lambda one: one.series_key)
    known = set(files)
    unreadable = {Path(one.where): one.reason for one in quarantined if Path(one.where) in known}
    unreadable |= {
        file: message("dicom-damaged", file=file)
        for file in find_destroyed_files(one.file for one in instances)
    }
    scan_result = _select_patients(
        series, _read_overrides(overrides_path, series), required_sequences, unreadable
    )
    scan_result = replace(scan_result, quarantined=(*quarantined, *scan_result.quarantined))
    write_private_csv(private_folder / "series.csv", SERIES_COLUMNS, scan_result.series_rows)
    write_private_csv(
        private_folder / "quarantine.csv", QUARANTINE_COLUMNS, map(vars, scan_result.quarantined)
    )
    return scan_result


# ---- files ------------------------------------------------------------------------------------------


def _find_dicom_files(
    root: Path, private_folder: Path, skipped_folders: Sequence[Path]
) -> tuple[list[Path], list[QuarantinedItem]]:
    """Find DICOM files below the root and in its zip files; return also the zip files that cannot be used."""
    quarantined: list[QuarantinedItem] = []
    folders = [root]
    for archive in sorted(
        path for path in iterate_files(root) if path.suffix.lower() == ".zip" and is_regular_file(path)
    ):
        try:
            folders.append(_unzip_archive(archive, root, private_folder))
        except GliomarkError as error:
            if is_disk_full_error(error):
                raise
            quarantined.append(QuarantinedItem(str(archive), str(error)))
    hidden = {folder.absolute() for folder in skipped_folders} | {private_folder.absolute()}
    folders += [
        folder for folder in list_subfolders(root) if folder.is_symlink()
    ]  # a link to a patient's folder elsewhere
    files = [file for folder in folders for file in find_dicom_files(folder)]
    return [
        f for f in files if f.is_relative_to(private_folder) or hidden.isdisjoint(f.absolute().parents)
    ], quarantined


def _unzip_archive(archive: Path, root: Path, private_folder: Path) -> Path:
    """Unpack an archive and return the folder; files of an earlier version of the archive are removed.

    Raises InputError for a damaged, encrypted or oversized archive.
    """
    name = hashlib.sha256(str(archive.relative_to(root)).encode()).hexdigest()[:12]
    try:
        with archive.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        unzipped_folder = private_folder / "unzipped" / f"{name}-{content}"
        if unzipped_folder.exists():
            return unzipped_folder
        for outdated_folder in unzipped_folder.parent.glob(f"{name}-*"):
            shutil.rmtree(outdated_folder)
        with atomic_folder(unzipped_folder) as part:
            _extract_archive(archive, part)
    except ZIP_ERRORS as error:
        raise InputError(message("archive-unreadable", file=archive, reason=str(error))) from error
    return unzipped_folder


def _extract_archive(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        unpacked_bytes = sum(member.file_size for member in content.infolist())
        if unpacked_bytes > max(ZIP_BYTES_ALWAYS_ALLOWED, MAX_ZIP_RATIO * archive.stat().st_size):
            raise InputError(message("archive-huge", file=archive, gigabytes=unpacked_bytes / 1e9))
        if any(member.filename.count("/") > MAX_ZIP_DEPTH for member in content.infolist()):
            raise zipfile.BadZipFile(f"folders more than {MAX_ZIP_DEPTH} deep")
        try:
            content.extractall(folder)  # zipfile sanitises names that would leave the folder
        except OSError as error:
            if is_disk_full_error(error):
                raise
            raise zipfile.BadZipFile(str(error)) from error


def _read_header_batch(files: Sequence[Path]) -> list[Instance | QuarantinedItem]:
    """Read headers on a worker; a file that crashes the reader process is excluded like a damaged one."""
    headers, ended = read_items_skipping_crashes(
        get_reader_pool(), files[0].parent, read_headers, files, get_file=lambda file: file
    )
    read = [one.instance or QuarantinedItem(str(one.file), one.problem) for one in headers]
    return [*read, *(QuarantinedItem(str(file), sentence) for file, sentence in ended)]


# ---- patients ---------------------------------------------------------------------------------------


def _select_patients(
    series: Sequence[DicomSeries],
    overrides: Mapping[str, Mapping[str, str]],
    required_sequences: Sequence[MRSequence],
    unreadable: Mapping[Path, str],
) -> ScanResult:
    """Group series by patient, quarantine ambiguous patients, and select the series to read."""
    patients, rows, quarantined = [], [], []
    for patient_id, patient_series in sorted(_group_by_patient(series, overrides).items()):
        # an id that a user wrote into the table is not checked
        series_of_same_id = [
            one
            for one in patient_series
            if normalise_patient_id(one.patient_id) == normalise_patient_id(patient_id)
        ]
        reason = _find_identity_conflict(patient_id, series_of_same_id)
        if not reason:
            try:
                used, reasons, notes = _choose_series(
                    patient_id, patient_series, overrides, required_sequences
                )
                _check_missing_files(used, unreadable)
            except _PatientLeftOutError as error:
                reason = str(error)
        if reason:
            quarantined += [_quarantine_series(one, reason) for one in patient_series]
            rows += [
                _format_series_row(patient_id, one, USE_AUTOMATIC, f"quarantined: {reason}")
                for one in patient_series
            ]
            continue
        names = {one.series_key: name for name, one in used.items()}
        rows += [
            _format_series_row(patient_id, one, names.get(one.series_key, ""), reasons[one.series_key])
            for one in patient_series
        ]
        masks = [
            i.file for one in patient_series for i in one.instances if i.sop_class_uid in MASK_SOP_CLASSES
        ]
        # segmentations predicted by gliomark and stored in the archive must not be used for training
        masks = [file for file in sorted(masks) if not is_gliomark_result(file)]
        if used:
            patients.append(DicomPatient(patient_id, used, tuple(masks), notes))
    return ScanResult(tuple(patients), tuple(rows), tuple(quarantined))


class _PatientLeftOutError(CohortError):
    """A patient is left out; other patients are not affected."""


def _group_by_patient(
    series: Sequence[DicomSeries], overrides: Mapping[str, Mapping[str, str]]
) -> dict[str, list[DicomSeries]]:
    """Group series by the edited table's id, otherwise by PatientID, ignoring case, blanks and padding."""
    id_spellings: dict[str, str] = {}
    for one in sorted(series, key=lambda one: one.patient_id):
        id_spellings.setdefault(normalise_patient_id(one.patient_id), one.patient_id.strip(" ^"))
    by_patient: dict[str, list[DicomSeries]] = defaultdict(list)
    for one in series:
        own = id_spellings[normalise_patient_id(one.patient_id)]
        by_patient[overrides.get(one.series_key, {}).get("patient_id", own)].append(one)
    return by_patient


def _check_missing_files(
    series_by_sequence: Mapping[MRSequence, DicomSeries], unreadable: Mapping[Path, str]
) -> None:
    """Raise _PatientLeftOutError if files of a selected series cannot be read."""
    folders = {instance.file.parent for one in series_by_sequence.values() for instance in one.instances}
    try:
        beside = {file: why for file, why in unreadable.items() if file.parent in folders}
        drop_incomplete_series(series_by_sequence, beside, list(series_by_sequence))
    except GliomarkError as error:
        raise _PatientLeftOutError(error.message) from None


def _find_identity_conflict(patient_id: str, patient_series: Sequence[DicomSeries]) -> str:
    """Return why the series with one PatientID may belong to two people; blank if they do not."""
    if not patient_id:
        return message("patient-id-blank")
    for at, code in ((1, "patient-id-names"), (2, "patient-id-birth-dates")):
        values = {get_patient_identity(one.first_instance)[at] for one in patient_series} - {""}
        if len(values) > 1:
            return message(code, count=len(values))
    return ""


def _choose_series(
    patient_id: str,
    series: Sequence[DicomSeries],
    overrides: Mapping[str, Mapping[str, str]],
    required_sequences: Sequence[MRSequence],
) -> tuple[dict[MRSequence, DicomSeries], dict[str, str], tuple[str, ...]]:
    """Select the examination and the series to read, as ``predict`` does; return also reasons by series and notes.

    Notes are stored in the cohort, so they contain no date. Raises _PatientLeftOutError if no examination fits.
    """
    reasons = {one.series_key: one.recognition.reason for one in series}
    try:
        chosen = choose_examination_series(patient_id, series, required_sequences)
    except NoExaminationError as error:
        if not any(
            overrides.get(one.series_key, {}).get("use", USE_AUTOMATIC)
            not in (*NOT_USED_VALUES, USE_AUTOMATIC)
            for one in series
        ):
            raise _PatientLeftOutError(error.message) from None
        chosen = None  # the user selected series in the table
    if chosen is None:
        return _apply_overrides({}, series, overrides, reasons), reasons, ()
    reasons = dict(chosen.reasons_by_key)
    used = _apply_overrides(chosen.chosen_series, series, overrides, reasons)
    examination = chosen.examination
    dated = {"examination-chosen", "examination-after-surgery"}
    notes = [note for note in chosen.notes if getattr(note, "code", "") not in dated]
    if examination.count > 1:
        notes.insert(0, message("examination-number", count=examination.count, number=examination.number))
    return used, reasons, tuple(notes)


def _apply_overrides(
    chosen: Mapping[MRSequence, DicomSeries],
    series: Sequence[DicomSeries],
    overrides: Mapping[str, Mapping[str, str]],
    reasons: dict[str, str],
) -> dict[MRSequence, DicomSeries]:
    """Apply the edited table to the automatic selection. Raises InputError if it has one sequence twice."""
    known = [
        one for one in series if overrides.get(one.series_key, {}).get("use", USE_AUTOMATIC) != USE_AUTOMATIC
    ]
    used = {name: one for name, one in chosen.items() if one not in known}
    by_hand: dict[MRSequence, DicomSeries] = {}
    for one in known:
        wanted = overrides[one.series_key]["use"]
        if wanted in NOT_USED_VALUES:
            continue
        name = MRSequence(wanted.upper())
        if name in by_hand:
            both = {"one": by_hand[name].series_key, "other": one.series_key}
            raise InputError(message("series-table-twice", sequence=str(name), **both))
        by_hand[name] = one
        if chosen.get(name) is not one:
            reasons[one.series_key] += f" Used as {name} according to the edited table."
    return used | by_hand


def _read_overrides(overrides_path: Path | None, series: Sequence[DicomSeries]) -> dict[str, dict[str, str]]:
    """Read the edited rows by series key. Raises InputError for an unknown series or sequence."""
    if overrides_path is None:
        return {}
    columns = ("series", "patient_id", "use")
    # users write Auto and t2, and spreadsheets drop empty cells at the end of a row
    read = [
        {name: (row[name] or "").strip() for name in columns}
        for row in read_private_csv(overrides_path, columns)
    ]
    rows = {row["series"]: {**row, "use": row["use"].lower()} for row in read}
    unknown = sorted(set(rows) - {one.series_key for one in series})
    if unknown:
        raise InputError(message("series-table-unknown", table=overrides_path, series=unknown[0]))
    for row in rows.values():
        use = row["use"]
        if use not in (*NOT_USED_VALUES, USE_AUTOMATIC) and use.upper() not in set(MRSequence):
            raise InputError(message("series-table-use", table=overrides_path, use=use, series=row["series"]))
    return rows


# ---- rows -------------------------------------------------------------------------------------------


def _format_series_row(
    patient_id: str, series: DicomSeries, use: MRSequence | str, reason: str
) -> dict[str, str]:
    spacing = series.spacing_mm
    return {
        "patient_id": patient_id,
        "study_date": series.study_date,
        "series": series.series_key,
        "description": series.series_description,
        "images": str(series.image_count),
        "plane": series.plane,
        "spacing_mm": "" if spacing is None else " x ".join(f"{step:.4g}" for step in spacing),
        "recognised": series.recognition.kind,
        "use": str(use),
        "reason": reason,
        "folder": str(series.instances[0].file.parent),
    }


def _quarantine_series(series: DicomSeries, reason: str) -> QuarantinedItem:
    folder = str(series.instances[0].file.parent)
    return QuarantinedItem(
        folder, reason, series.patient_id, series.patient_name, series.birth_date, series.series_key
    )

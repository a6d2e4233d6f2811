"""De-identify DICOM by the Basic Application Level Confidentiality Profile of DICOM PS3.15, annex E.

The profile's table of attributes comes from the package dicom-anonymizer. Its rules are applied to every nested
dataset:

    X remove; Z empty; D replace by a dummy value; U replace the UID, the same UID always by the same new one.
    Where the table leaves a choice (X/Z/D and the like), the action that the SOP class requires, otherwise the
    first letter.

Beyond the table, these are removed: private elements, complete overlays and curves, overlay bits in the pixel
data, elements that are not in the DICOM dictionary, and dates, times and person names that the table does not
list. UIDs that it does not list are replaced. File meta information and preamble are written anew. Retained free
text that contains the patient's name or number is replaced by a dummy value.

None of the profile's options is applied, except Clean Descriptors on request: the series description is then
replaced by one of T1, T1C, T2 and FLAIR. Pixels are not cleaned and faces are not removed. Objects that may show
or contain a name (burned-in text, screenshots, ultrasound, reports, documents) are left out.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import secrets
import uuid
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as profile
from pydicom import uid as uids
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import get_expected_length
from pydicom.tag import BaseTag
from pydicom.uid import UID

from gliomark.cohort.private_files import (
    assign_new_ids,
    create_private_folder,
    read_private_csv,
    write_private_csv,
)
from gliomark.errors import CohortError, ConfigurationError, InputError
from gliomark.files import atomic_write, convert_write_errors, iterate_files, remove_leftovers
from gliomark.io.dicom import find_dicom_files
from gliomark.io.dicom.dataset_reader import read_dataset
from gliomark.io.naming import find_sequence_in_name
from gliomark.isolation import ReaderPool, ReadExecutor, read_items_skipping_crashes

Item = TypeVar("Item")
FILES_PER_BATCH = 50  # files
OPTIONS_NOT_APPLIED = (
    "Clean Pixel Data Option not applied: pixels are unchanged; objects that may show text are left out.",
    "Clean Recognizable Visual Features Option not applied: faces are not removed and can be reconstructed.",
    "No Retain option applied: dates, descriptions, device identity and private elements are removed.",
)
_DEIDENTIFICATION_METHOD = [
    "DICOM PS3.15 Annex E Basic Application Confidentiality Profile",
    "Pixel data not cleaned",
    "Faces not removed",
]

_ENHANCED_IMAGE_CLASSES = frozenset(
    {
        uids.EnhancedMRImageStorage,
        uids.LegacyConvertedEnhancedMRImageStorage,
        uids.EnhancedCTImageStorage,
        uids.LegacyConvertedEnhancedCTImageStorage,
        uids.EnhancedPETImageStorage,
        uids.LegacyConvertedEnhancedPETImageStorage,
    }
)
_IMAGE_CLASSES = _ENHANCED_IMAGE_CLASSES | {
    uids.MRImageStorage,
    uids.CTImageStorage,
    uids.PositronEmissionTomographyImageStorage,
}
_SEGMENTATION_CLASSES = frozenset({uids.SegmentationStorage, uids.RTStructureSetStorage})
# Where the table leaves a choice: what the modules of these classes require (type 1: dummy, type 2: empty).
_ENHANCED_REQUIRED_ACTIONS = {
    "AcquisitionDateTime": "D",
    "ContentDate": "D",
    "ContentTime": "D",
    "DeviceSerialNumber": "D",
    "AcquisitionContextSequence": "Z",
}
_RTSTRUCT_REQUIRED_ACTIONS = {"OperatorsName": "Z"}

_FREE_TEXT_VRS = frozenset({"LO", "SH", "LT", "ST", "UT", "UC", "UR"})
_VRS_ALWAYS_REMOVED = frozenset({"DA", "DT", "TM", "PN"})
_DUMMY_VALUES: Mapping[str, object] = {
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "DS": "0",
    "IS": "0",
    "FD": 0.0,
    "FL": 0.0,
    "SS": 0,
    "US": 0,
    "SL": 0,
    "UL": 0,
    "SV": 0,
    "UV": 0,
    "AT": 0,
    "OB": b"\0\0",
    "OW": b"\0\0",
    "UN": b"\0\0",
    "UR": "http://anonymized.invalid",
}
_DUMMY_TEXT = "ANONYMIZED"
# UIDs of classes and codings, not of instances: they are the same in every hospital and are kept.
_CLASS_UID_KEYWORDS = re.compile(
    r".*(ClassUID|ClassesInStudy|ClassesInSeries|ClassesSupported|TransferSyntaxUID)"
)
_CODING_UID_KEYWORDS = frozenset("CodingSchemeUID ContextUID MappingResourceUID".split())
_DICOM_UID_ROOT = "1.2.840.10008."
_NO_CONTRAST_WORDS = frozenset({"", "no", "none", "n", "n/a", "na", "without", "no contrast", "0"})
_PERSONAL_KEYWORDS = frozenset(
    "PatientID OtherPatientIDs AccessionNumber InstitutionName PatientBirthDate PatientAddress StudyID "
    "PatientTelephoneNumbers MedicalRecordLocator AdmissionID StudyInstanceUID SeriesInstanceUID "
    "SOPInstanceUID FrameOfReferenceUID".split()
)
_HEADER_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "BurnedInAnnotation",
    "ImageType",
    "SamplesPerPixel",
    "NumberOfFrames",
)
# Errors that pydicom raises for damaged files, collected by altering files at random.
_DAMAGED_FILE_ERRORS = (
    pydicom.errors.InvalidDicomError,
    pydicom.errors.BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    NotImplementedError,
    IndexError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True)
class AnonymisationReport:
    """Result of a run.

    left_out: (file relative to the source folder, reason) of every file that was not written. unchanged_files:
    files that an earlier run wrote with the same content. duplicate_files: further copies of one object.
    blanked_texts: retained texts that contained the patient's name or number and were replaced by a dummy value.
    """

    patients: int
    written_files: int
    unchanged_files: int
    duplicate_files: int
    blanked_texts: int
    left_out: tuple[tuple[Path, str], ...]
    non_dicom_files: int
    key_file: Path
    options_not_applied: tuple[str, ...] = OPTIONS_NOT_APPLIED


class _NotCleanableError(Exception):
    """An object that must not be written; the message is the reason."""


@dataclass(frozen=True)
class _SourceFile:
    """Identity of one source file.

    person_key is the PatientID or, where that is blank, a substitute built from name and birth date.
    """

    file: Path
    person_key: str
    patient_name: str
    birth_date: str
    study_uid: str
    series_uid: str
    instance_uid: str
    instance_number: int


@dataclass(frozen=True)
class _HeaderResult:
    """A file's identity as read by a reader process, or the reason why the file is left out."""

    file: Path
    source_file: _SourceFile | None
    problem: str = ""


@dataclass(frozen=True)
class _CleaningJob:
    """A file to be de-identified: its output path, new id and the options of ``anonymise_folder``."""

    source_file: _SourceFile
    output_path: Path
    new_id: str
    salt: bytes
    clean_descriptors: bool


@dataclass(frozen=True)
class _CleaningResult:
    """Result of a job: whether the file was written, the number of blanked texts, or why it is left out."""

    file: Path
    is_new: bool = False
    blanked_texts: int = 0
    problem: str = ""


@dataclass(frozen=True)
class _SourceScan:
    """Content of a folder: files to be written, (file, reason) left out, number of duplicates and other files."""

    source_files: tuple[_SourceFile, ...]
    left_out: tuple[tuple[Path, str], ...]
    duplicate_files: int
    non_dicom_files: int


def anonymise_folder(
    root: Path,
    out: Path,
    *,
    key_file: Path | None = None,
    clean_descriptors: bool = False,
    progress: Callable[[str, int, int], None] = lambda doing, done, of: None,
) -> AnonymisationReport:
    """Write every DICOM image, SEG and RTSTRUCT below ``root`` de-identified.

    Files are written as OUT/<id>/<study>/<series>/<00001>.dcm. A second run writes only what is missing or
    changed.

    Parameters
    ----------
    root
        Folder of the DICOM export.
    out
        Folder for the de-identified files.
    key_file
        Table of original and new ids; default ``key.csv`` in the private folder beside ``out``. With the key.csv
        of a cohort, patients get the same ids as there. The secret from which the new UIDs are derived and the
        list of files left out are written beside it.
    clean_descriptors
        Keep the name of the sequence where a series description contains one. Without it, a series can only be
        recognised by its acquisition parameters.
    progress
        Called with the stage, the number of files done and the number of files.

    Returns
    -------
    AnonymisationReport
        Numbers of patients and files, and the reason for each file that was left out.

    Raises
    ------
    InputError
        If there are no DICOM files below ``root``.
    ConfigurationError
        If ``root`` is not a folder, one of ``root`` and ``out`` lies inside the other, the key would lie in
        ``out``, or the key is not called key.csv.
    CohortError
        If ``out`` contains files of another source.
    """
    root, out = Path(root), Path(out)
    _check_paths(root, out, key_file)
    with ReaderPool() as reading:
        return _run_anonymisation(root, out, key_file, clean_descriptors, progress, reading)


def _run_anonymisation(
    root: Path,
    out: Path,
    key_file: Path | None,
    clean_descriptors: bool,
    progress: Callable[[str, int, int], None],
    reader_pool: ReadExecutor,
) -> AnonymisationReport:
    scan = _scan_headers(root, progress, reader_pool)
    left_out = list(scan.left_out)
    private = create_private_folder(out) if key_file is None else _create_key_folder(key_file)
    salt = _load_or_create_salt(private / "uid-salt.csv")
    ids = assign_new_ids(private, {entry.person_key for entry in scan.source_files}, keep_originals=False)
    plan = _plan_output_paths(scan.source_files, ids, salt)
    remove_leftovers(out, recursive=True)
    _check_no_foreign_files(out, plan)
    jobs = [
        _CleaningJob(entry, out / relative_path, ids[entry.person_key], salt, clean_descriptors)
        for relative_path, entry in plan.items()
    ]
    cleaned: list[_CleaningResult] = []
    for batch in _iterate_batches(jobs, "writing", progress):
        done, ended = read_items_skipping_crashes(
            reader_pool, root, clean_files, batch, lambda job: job.source_file.file
        )
        cleaned += done + [_CleaningResult(job.source_file.file, problem=why) for job, why in ended]
    left_out += [(one.file.relative_to(root), one.problem) for one in cleaned if one.problem]
    kept = [one for one in cleaned if not one.problem]
    left_out.sort()
    rows = [{"file": file, "why": why} for file, why in left_out]
    write_private_csv(private / "left_out.csv", ["file", "why"], rows)
    return AnonymisationReport(
        patients=len(ids),
        written_files=sum(one.is_new for one in kept),
        unchanged_files=sum(not one.is_new for one in kept),
        blanked_texts=sum(one.blanked_texts for one in kept),
        duplicate_files=scan.duplicate_files,
        left_out=tuple(left_out),
        non_dicom_files=scan.non_dicom_files,
        key_file=private / "key.csv",
    )


# ---- paths and secrets ------------------------------------------------------------------------------


def _check_paths(root: Path, out: Path, key_file: Path | None) -> None:
    source, target = root.resolve(), out.resolve()
    if not source.is_dir():
        raise ConfigurationError(f"{root} is not a folder: give the folder of the DICOM export.")
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise ConfigurationError(
            f"One of {out} and {root} lies inside the other: write to a separate folder."
        )
    if key_file is None:
        return
    if key_file.resolve().is_relative_to(target):
        raise ConfigurationError(
            f"The key {key_file} would lie among the de-identified files in {out}: keep it elsewhere."
        )
    if key_file.name != "key.csv":
        raise ConfigurationError(
            f"{key_file}: the key must be called key.csv; give the one of the earlier run."
        )


def _create_key_folder(key_file: Path) -> Path:
    with convert_write_errors(key_file.parent):
        key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return key_file.parent


def _load_or_create_salt(path: Path) -> bytes:
    """Return the secret from which new UIDs are derived; it is created in the first run."""
    if not path.exists():
        write_private_csv(path, ["salt"], [{"salt": secrets.token_hex(32)}])
    return bytes.fromhex(read_private_csv(path, ["salt"])[0]["salt"])


def _check_no_foreign_files(out: Path, plan: Mapping[Path, _SourceFile]) -> None:
    """Raise CohortError for files in ``out`` that do not come from this source; they may identify patients."""
    planned = {str(relative_path) for relative_path in plan}
    for file in iterate_files(out):
        if str(file.relative_to(out)) not in planned:
            raise CohortError(f"{out} contains files of another source ({file.name}): give an empty folder.")


def _write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file atomically; return False if it already has this content."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return False
    atomic_write(path, content)
    return True


# ---- scanning and planning --------------------------------------------------------------------------


def _iterate_batches(
    items: Sequence[Item], stage: str, progress: Callable[[str, int, int], None]
) -> Iterator[Sequence[Item]]:
    """Iterate over batches for a reader process; progress is reported after each batch."""
    for start in range(0, len(items), FILES_PER_BATCH):
        batch = items[start : start + FILES_PER_BATCH]
        yield batch
        progress(stage, start + len(batch), len(items))


def _scan_headers(
    root: Path, progress: Callable[[str, int, int], None], reader_pool: ReadExecutor
) -> _SourceScan:
    """Read every header. Raises InputError if there are no DICOM files."""
    files = list(find_dicom_files(root))
    if not files:
        raise InputError(f"{root} contains no DICOM files: give the folder of the DICOM export.")
    found: list[_SourceFile] = []
    left_out = [
        (file.relative_to(root), "zip files are not read: unzip it and run again")
        for file in iterate_files(root)
        if file.suffix.lower() == ".zip"
    ]
    for batch in _iterate_batches(files, "reading headers", progress):
        headers, ended = read_items_skipping_crashes(
            reader_pool, root, read_file_headers, batch, lambda file: file
        )
        found += [one.source_file for one in headers if one.source_file is not None]
        left_out += [(one.file.relative_to(root), one.problem) for one in headers if one.source_file is None]
        left_out += [(file.relative_to(root), why) for file, why in ended]
    shared = _find_shared_ids(found)
    reason = (
        "its PatientID belongs to two people (names or birth dates differ): give each person a separate id"
    )
    left_out += [(entry.file.relative_to(root), reason) for entry in found if entry.person_key in shared]
    known = [entry for entry in found if entry.person_key not in shared]
    kept = _remove_duplicates(known)
    others = sum(1 for _ in iterate_files(root)) - len(files)
    return _SourceScan(tuple(kept), tuple(left_out), len(known) - len(kept), others)


def read_file_headers(files: Sequence[Path]) -> list[_HeaderResult]:
    """Read the headers of files; runs in a reader process."""
    headers = []
    for file in files:
        try:
            headers.append(_HeaderResult(file, _read_file_header(file)))
        except _NotCleanableError as error:
            headers.append(_HeaderResult(file, None, str(error)))
    return headers


def _read_file_header(file: Path) -> _SourceFile:
    """Read the identifying header fields. Raises _NotCleanableError if the file must not be written."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = read_dataset(file, stop_before_pixels=True, specific_tags=list(_HEADER_KEYWORDS))
            text = {name: _to_text(header.get(name)) for name in _HEADER_KEYWORDS}
    except _DAMAGED_FILE_ERRORS:
        raise _NotCleanableError("damaged: its header cannot be read") from None
    _check_cleanable(text)
    name, born = text["PatientName"], text["PatientBirthDate"]
    unnamed = f"{name} born {born or 'unknown'}" if name else f"study {text['StudyInstanceUID']}"
    person = text["PatientID"] or unnamed
    number = int(text["InstanceNumber"]) if re.fullmatch(r"\d{1,9}", text["InstanceNumber"]) else 0
    return _SourceFile(
        file=file,
        person_key=person,
        patient_name=name,
        birth_date=born,
        study_uid=text["StudyInstanceUID"],
        series_uid=text["SeriesInstanceUID"],
        instance_uid=text["SOPInstanceUID"],
        instance_number=number,
    )


def _to_text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(map(str, value))
    return "" if value is None else str(value).strip()


def _check_cleanable(header_texts: Mapping[str, str]) -> None:
    """Raise _NotCleanableError for an object that the basic profile without options cannot de-identify."""
    kind = UID(header_texts["SOPClassUID"])
    if not all(header_texts[key] for key in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")):
        raise _NotCleanableError("the UID of its study, series or instance is missing")
    if kind not in _IMAGE_CLASSES | _SEGMENTATION_CLASSES:
        name = kind.name or "unknown class"
        if re.search("Secondary Capture|Ultrasound|Screen|VL |Video", name):
            raise _NotCleanableError(
                f"{name}: its pixels may show the patient's name or face and are not cleaned"
            )
        raise _NotCleanableError(f"{name}: its content cannot be cleaned by the basic profile")
    if header_texts["BurnedInAnnotation"].upper() == "YES":
        raise _NotCleanableError("text is burned into the pixels (BurnedInAnnotation), which are not cleaned")
    if re.search(r"SCREEN|CAPTURE|REPORT", header_texts["ImageType"].upper()):
        raise _NotCleanableError("a screenshot (ImageType): its pixels may show the patient's name")
    if kind in _IMAGE_CLASSES and header_texts["SamplesPerPixel"] not in {"", "1"}:
        raise _NotCleanableError(
            "a colour image, probably a report or screenshot: its pixels may show the patient's name"
        )


def _find_shared_ids(source_files: Iterable[_SourceFile]) -> set[str]:
    """Find patient ids that occur with two names or two birth dates."""
    dates: dict[str, set[str]] = defaultdict(set)
    names: dict[tuple[str, int], set[str]] = defaultdict(set)
    for entry in source_files:
        if entry.birth_date:
            dates[entry.person_key].add(entry.birth_date)
        # a name may be given in letters, in Chinese, or in both: compare only within one script
        for script, part in enumerate(entry.patient_name.split("=")):
            if words := re.sub(r"[\s^,.]+", " ", part).strip().casefold():
                ideographic = script > 0 or not words.isascii()
                names[entry.person_key, ideographic].add(words)
    conflicting_ids = {person for person, values in dates.items() if len(values) > 1}
    return conflicting_ids | {person for (person, _), values in names.items() if len(values) > 1}


def _remove_duplicates(source_files: Sequence[_SourceFile]) -> list[_SourceFile]:
    """Remove byte-identical copies; two different objects that share a UID are both kept."""
    by_uid: dict[tuple[str, str], list[_SourceFile]] = defaultdict(list)
    for entry in source_files:
        by_uid[entry.series_uid, entry.instance_uid].append(entry)
    kept: list[_SourceFile] = []
    for entries in by_uid.values():
        several = len(entries) > 1
        kept += (
            {_hash_file(entry.file): entry for entry in reversed(entries)}.values() if several else entries
        )
    return kept


def _hash_file(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plan_output_paths(
    source_files: Iterable[_SourceFile], ids: Mapping[str, str], salt: bytes
) -> dict[Path, _SourceFile]:
    """Assign output paths; studies and series are numbered in the order of their new, pseudorandom UIDs."""

    def sort_key(entry: _SourceFile) -> tuple[Any, ...]:
        instance = derive_uid(entry.instance_uid, salt)
        series = derive_uid(entry.study_uid, salt), derive_uid(entry.series_uid, salt)
        return ids[entry.person_key], *series, entry.instance_number, instance, str(entry.file)

    studies: dict[str, dict[str, int]] = defaultdict(dict)
    series: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    files: dict[tuple[str, str, str], int] = defaultdict(int)
    plan = {}
    for entry in sorted(source_files, key=sort_key):
        new_id = ids[entry.person_key]
        study = studies[new_id].setdefault(entry.study_uid, len(studies[new_id]) + 1)
        numbers = series[new_id, entry.study_uid]
        series_number = numbers.setdefault(entry.series_uid, len(numbers) + 1)
        files[new_id, entry.study_uid, entry.series_uid] += 1
        plan[
            Path(
                new_id,
                str(study),
                str(series_number),
                f"{files[new_id, entry.study_uid, entry.series_uid]:05d}.dcm",
            )
        ] = entry
    return plan


# ---- one file ---------------------------------------------------------------------------------------


def derive_uid(original: str, salt: bytes) -> str:
    """Derive the new UID of an original one (keyed hash).

    The same secret always gives the same UID; without the secret it cannot be computed.
    """
    digest = hmac.new(salt, original.encode(), hashlib.sha256).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def clean_files(jobs: Sequence[_CleaningJob]) -> list[_CleaningResult]:
    """Write de-identified files; runs in a reader process."""
    cleaned = []
    for job in jobs:
        try:
            content, blanked = _clean_file(job.source_file.file, job.new_id, job.salt, job.clean_descriptors)
            cleaned.append(
                _CleaningResult(job.source_file.file, _write_if_changed(job.output_path, content), blanked)
            )
        except _NotCleanableError as error:
            cleaned.append(_CleaningResult(job.source_file.file, problem=str(error)))
    return cleaned


def _clean_file(file: Path, new_id: str, salt: bytes, clean_descriptors: bool) -> tuple[bytes, int]:
    """Return the de-identified file's bytes and the number of blanked texts. Raises _NotCleanableError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = read_dataset(file)
            transfer_syntax = _get_transfer_syntax(dataset)
            sequence_name = _get_sequence_name(dataset) if clean_descriptors else ""
            blanked = _clean_dataset(dataset, new_id, salt, transfer_syntax)
            if clean_descriptors:
                _write_sequence_name(dataset, sequence_name)
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = transfer_syntax
            dataset.preamble = b"\0" * 128
            stream = io.BytesIO()
            dataset.save_as(stream, enforce_file_format=True)
    except _DAMAGED_FILE_ERRORS:
        raise _NotCleanableError("damaged: it cannot be read completely") from None
    return stream.getvalue(), blanked


def _get_transfer_syntax(dataset: Dataset) -> UID:
    """Return the transfer syntax; for a file without meta information the one it was read with."""
    stated = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    if stated:
        return UID(stated)
    implicit, little = dataset.original_encoding
    if implicit:
        return uids.ImplicitVRLittleEndian
    return uids.ExplicitVRLittleEndian if little else uids.ExplicitVRBigEndian


def _clean_dataset(dataset: Dataset, new_id: str, salt: bytes, transfer_syntax: UID) -> int:
    """De-identify a dataset in place; return the number of retained texts that were blanked.

    Raises _NotCleanableError for an object that must not be written, pydicom's errors for damaged data.
    """
    kind = UID(dataset.SOPClassUID)
    required_actions = (
        _ENHANCED_REQUIRED_ACTIONS
        if kind in _ENHANCED_IMAGE_CLASSES or kind == uids.SegmentationStorage
        else {}
    )
    if kind == uids.RTStructureSetStorage:
        required_actions = _RTSTRUCT_REQUIRED_ACTIONS
    _check_pixel_data(dataset, transfer_syntax)
    _remove_unknown_elements(dataset)
    _clear_overlay_bits(dataset, transfer_syntax)
    personal = _compile_personal_pattern(dataset)
    _apply_profile(dataset, required_actions, salt)
    blanked = _blank_personal_text(dataset, personal)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID = dataset.PatientName = new_id
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = _DEIDENTIFICATION_METHOD
    dataset.DeidentificationMethodCodeSequence = [
        _create_method_code("113100", "Basic Application Confidentiality Profile")
    ]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    if kind in _IMAGE_CLASSES and dataset.get("RecognizableVisualFeatures") != "NO":
        dataset.RecognizableVisualFeatures = "YES"
    return blanked


def _get_sequence_name(dataset: Dataset) -> str:
    """Return the sequence named by SeriesDescription or ProtocolName; blank if none is."""
    description, protocol = (_to_text(dataset.get(name)) for name in ("SeriesDescription", "ProtocolName"))
    return find_sequence_in_name(description) or find_sequence_in_name(f"{description} {protocol}") or ""


def _write_sequence_name(dataset: Dataset, sequence_name: str) -> None:
    """Write the sequence name as SeriesDescription and record the Clean Descriptors option."""
    if sequence_name:
        dataset.SeriesDescription = str(sequence_name)
    dataset.DeidentificationMethodCodeSequence.append(
        _create_method_code("113105", "Clean Descriptors Option")
    )


def _check_pixel_data(dataset: Dataset, transfer_syntax: UID) -> None:
    """Raise _NotCleanableError for truncated pixel data, which pydicom reads without an error."""
    if dataset.SOPClassUID == uids.RTStructureSetStorage:
        return
    pixels = dataset.get("PixelData")
    if not pixels or not transfer_syntax.is_encapsulated and len(pixels) < get_expected_length(dataset):
        raise _NotCleanableError("damaged: its pixel data is truncated")


def _create_method_code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _remove_unknown_elements(dataset: Dataset) -> None:
    """Remove elements of unknown meaning from all nested datasets, before they are decoded."""
    for tag in list(dataset.keys()):
        if _is_unknown_element(dataset.get_item(tag)):
            del dataset[tag]
        elif dataset[tag].VR == "SQ":
            for item in dataset[tag].value:
                _remove_unknown_elements(item)


def _apply_profile(dataset: Dataset, required_actions: Mapping[str, str], salt: bytes) -> None:
    """Apply the profile to one dataset and to the items of its sequences."""
    for tag in list(dataset.keys()):
        element = dataset[tag]
        action = _get_profile_action(element, required_actions)
        if action == "X":
            del dataset[tag]
        elif action == "Z":
            _empty_element(dataset, element)
        elif action == "D":
            _replace_by_dummy(dataset, element)
        elif action == "U" and element.VR != "SQ":
            _replace_uids(element, salt)
        if tag in dataset and element.VR == "SQ":
            for item in element.value:
                _apply_profile(item, required_actions, salt)
                item.pop("SpecificCharacterSet", None)  # the file is written in a single character set


def _is_unknown_element(raw: DataElement | RawDataElement) -> bool:
    """Whether an element is private, not in the dictionary, of unknown VR, or a group length.

    The content of such an element cannot be checked, so it is removed.
    """
    tag = raw.tag
    if tag.is_private or tag.element == 0 or not dictionary_has_tag(tag) and not _is_repeating_group(tag):
        return True
    # a known sequence or value with VR UN may be encoded in another transfer syntax than the file
    return raw.VR == "UN" and (not dictionary_has_tag(tag) or dictionary_VR(tag) == "SQ")


def _is_repeating_group(tag: BaseTag) -> bool:
    return tag.group & 0xFF00 in (0x5000, 0x6000)


def _get_profile_action(element: DataElement, required_actions: Mapping[str, str]) -> str:
    """Return the profile's action: X, Z, D, U, or K for keep."""
    tag, name = element.tag, keyword_for_tag(element.tag)
    if _is_repeating_group(tag) or element.VR == "UN" or name == "EncryptedAttributesSequence":
        return "X"
    if choices := _load_profile_table().get(tag):
        letter = required_actions.get(name, choices[0])
        return "U" if element.VR == "UI" and letter in "ZD" else letter
    if element.VR in _VRS_ALWAYS_REMOVED:
        return "X"
    kind = _CLASS_UID_KEYWORDS.fullmatch(name) or name in _CODING_UID_KEYWORDS
    return "U" if element.VR == "UI" and not kind else "K"


@cache
def _load_profile_table() -> Mapping[BaseTag, str]:
    """Return the profile's action letters by tag, choices unresolved; U* (sequences of images) is U."""
    letters = {
        "X": profile.X_TAGS,
        "Z": profile.Z_TAGS,
        "D": profile.D_TAGS,
        "U": profile.U_TAGS,
        "ZD": profile.Z_D_TAGS,
        "XZ": profile.X_Z_TAGS,
        "XD": profile.X_D_TAGS,
        "XZD": profile.X_Z_D_TAGS,
        "U*": profile.X_Z_U_STAR_TAGS,
    }
    return {
        BaseTag((group << 16) + number): key
        for key, tags in letters.items()
        for group, number, *mask in tags
        if not mask
    }


def _empty_element(dataset: Dataset, element: DataElement) -> None:
    """Z: empty the element, or set a dummy value where an empty one would make the file useless."""
    name = keyword_for_tag(element.tag)
    agent = str(element.value or "").strip().lower()
    if name == "ROIName":  # the profile allows a dummy; without one, structures cannot be distinguished
        element.value = f"ROI {dataset.get('ROINumber', '')}".strip()
    elif name == "ContrastBolusAgent" and agent not in _NO_CONTRAST_WORDS:
        # the agent's name is removed; that one was given distinguishes T1C from T1
        element.value = "CONTRAST AGENT"
    else:
        element.value = [] if element.VR == "SQ" else None


def _replace_by_dummy(dataset: Dataset, element: DataElement) -> None:
    """D: replace by a dummy value of the VR; code sequences get a dummy code, other sequences are removed."""
    if element.VR != "SQ":
        element.value = _DUMMY_VALUES.get(element.VR, _DUMMY_TEXT)
    elif keyword_for_tag(element.tag).endswith("CodeSequence"):
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "0", "99ANON", _DUMMY_TEXT
        element.value = [code]
    else:
        del dataset[element.tag]


def _replace_uids(element: DataElement, salt: bytes) -> None:
    """U: replace every UID except those defined by DICOM."""
    value = element.value
    many = [value] if isinstance(value, str) or value is None else list(value)
    new = [derive_uid(one, salt) if one and not one.startswith(_DICOM_UID_ROOT) else one for one in many]
    element.value = new if len(new) > 1 else (new[0] if new else None)


# ---- beyond the table -------------------------------------------------------------------------------


def _clear_overlay_bits(dataset: Dataset, transfer_syntax: UID) -> None:
    """Clear the unused bits of the pixels, where old overlays (often text) are embedded."""
    has_overlays = any(
        tag.group & 0xFF00 == 0x6000 and tag.element == 0x0102 for tag in tuple(dataset.keys())
    )
    stored, allocated = dataset.get("BitsStored", 16), dataset.get("BitsAllocated", 16)
    if not has_overlays or "PixelData" not in dataset or stored == allocated:
        return
    if transfer_syntax.is_compressed or allocated != 16:
        raise _NotCleanableError(
            "its pixels may contain an overlay in their unused bits, which cannot be cleared"
        )
    order = "<u2" if transfer_syntax.is_little_endian else ">u2"
    pixels = np.frombuffer(dataset.PixelData, order).astype(np.uint16)
    aligned_pixels = pixels << (15 - dataset.HighBit)
    signed = bool(dataset.get("PixelRepresentation"))
    value = aligned_pixels.view(np.int16) >> (16 - stored) if signed else aligned_pixels >> (16 - stored)
    restored_pixels = (value << (dataset.HighBit + 1 - stored)).astype(np.uint16)
    dataset.PixelData = restored_pixels.astype(order).tobytes()


def _compile_personal_pattern(dataset: Dataset) -> re.Pattern[str]:
    """Compile a pattern of all names and identifying numbers of patient and staff in this file (whole words)."""
    words: set[str] = set()
    for element in dataset.iterall():
        if element.VR == "PN":
            words |= set(re.split(r"[\s^=\\]+", _to_text(element.value)))
        elif element.keyword in _PERSONAL_KEYWORDS:
            words |= {word.strip() for word in _to_text(element.value).split("\\")}
    # two letters or digits match by chance too often; two Chinese characters are a usual name
    words = {word for word in words if len(word) >= (3 if word.isascii() else 2)}
    word_patterns = [
        rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" if word.isascii() else re.escape(word) for word in words
    ]
    return re.compile("|".join(sorted(word_patterns)) or r"(?!)", re.IGNORECASE)


def _blank_personal_text(dataset: Dataset, personal_pattern: re.Pattern[str]) -> int:
    """Replace retained free text that contains a name or number by a dummy value; return how many texts."""
    blanked = 0
    for element in dataset.iterall():
        if element.VR in _FREE_TEXT_VRS and personal_pattern.search(_to_text(element.value)):
            element.value = _DUMMY_TEXT
            blanked += 1
    return blanked

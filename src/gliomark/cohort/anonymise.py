"""Clean DICOM after the Basic Application Level Confidentiality Profile of DICOM PS3.15, annex E.

The profile's table comes with the package dicom-anonymizer; what is done by it is done here, at every depth:

    X remove; Z empty; D dummy; U replaced, the same UID by the same one in the whole set. Where the table leaves
    a choice (X/Z/D and its like), what the object's class requires, else the first letter.

Further than the table: private elements, whole overlays and curves, overlay bits in the pixels, elements that
the DICOM dictionary does not know, and dates, times, person names and UIDs it forgot. File meta information and
preamble are written anew. Kept free text in which the patient's own name or number stands becomes a dummy.

Taken are none of the profile's options, but for Clean Descriptors where it is asked for: a series' description
then becomes one of the words T1, T1C, T2 and FLAIR. Pixels are not cleaned and faces not removed; objects that
may show or tell a name (burned-in text, screenshots, ultrasound, reports, documents) are left out, never written.
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
from typing import TypeVar

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

from gliomark.cohort.private import assign_new_ids, create_private_folder, read_private_csv, write_private_csv
from gliomark.files import atomic_write, convert_write_errors, iterate_files, remove_leftovers
from gliomark.io.dicom import find_dicom_files
from gliomark.io.dicom.files import read_dataset
from gliomark.io.naming import find_sequence_in_name
from gliomark.isolation import ReaderPool, ReadExecutor, read_items_skipping_crashes
from gliomark.study import GliomarkError

Item = TypeVar("Item")
FILES_PER_BATCH = 50  # files
OPTIONS_NOT_APPLIED = (
    "Clean Pixel Data Option not done: pixels are unchanged, objects that may show text are left out.",
    "Clean Recognizable Visual Features Option not done: faces are not removed and can be drawn from the slices.",
    "No Retain option done: dates, descriptions, device identity and private elements are gone.",
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
# What modules of these classes require to be there (type 1 by a dummy, type 2 empty), of the table's choices.
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
# UIDs of kinds of things, not of things: they are the same in every hospital.
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
# How pydicom tells of damage, found by altering files.
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
    """What one run did. left_out: file below the source folder, and why; nothing of it was written.

    unchanged: files that an earlier run had written with the same content. duplicates: copies of one object.
    blanked: kept texts that held the patient's own name or number and became a dummy.
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
    """An object that must not be written; its text is the reason."""


@dataclass(frozen=True)
class _SourceFile:
    """One file's place: person is the original id, or what stands for it where that is blank."""

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
    """What a reading process found in a file's header, or why the file is left out."""

    file: Path
    source_file: _SourceFile | None
    problem: str = ""


@dataclass(frozen=True)
class _CleaningJob:
    """A file to be written clean: where, under which id, and as ``anonymise`` was told."""

    source_file: _SourceFile
    output_path: Path
    new_id: str
    salt: bytes
    clean_descriptors: bool


@dataclass(frozen=True)
class _CleaningResult:
    """What became of it: whether it was written, how many texts were blanked, or why it is left out."""

    file: Path
    is_new: bool = False
    blanked_texts: int = 0
    problem: str = ""


@dataclass(frozen=True)
class _SourceScan:
    """What a folder holds: files to be written, files left out and why, further copies, files of other kinds."""

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
    """Write every DICOM image, SEG and RTSTRUCT below ``root`` clean as OUT/<id>/<study>/<series>/<00001>.dcm.

    key_file: original and new ids, ``key.csv`` in the private folder beside OUT unless given; a cohort's own
    key.csv gives everybody the id they have there. The secret behind the new UIDs and the list of what was left
    out lie beside it. clean_descriptors: a series whose description names a sequence keeps that one word; without,
    a series can be told by its timing alone. A second run writes only what is missing or changed.

    Raises: GliomarkError where there is no DICOM, or one of root, out and the key lies inside another
    or belongs to another source.
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
        _CleaningJob(entry, out / place, ids[entry.person_key], salt, clean_descriptors)
        for place, entry in plan.items()
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


# ---- places and secrets -----------------------------------------------------------------------------


def _check_paths(root: Path, out: Path, key_file: Path | None) -> None:
    source, target = root.resolve(), out.resolve()
    if not source.is_dir():
        raise GliomarkError(f"{root} is not a folder: give the folder of the DICOM export.")
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise GliomarkError(f"One of {out} and {root} lies inside the other: write to a separate folder.")
    if key_file is None:
        return
    if key_file.resolve().is_relative_to(target):
        raise GliomarkError(
            f"The key {key_file} would lie among the clean files in {out}: keep it elsewhere."
        )
    if key_file.name != "key.csv":
        raise GliomarkError(f"{key_file}: the key must be called key.csv; name the one of the earlier run.")


def _create_key_folder(key_file: Path) -> Path:
    with convert_write_errors(key_file.parent):
        key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return key_file.parent


def _load_or_create_salt(path: Path) -> bytes:
    """The secret that new UIDs are made with, drawn at the first run."""
    if not path.exists():
        write_private_csv(path, ["salt"], [{"salt": secrets.token_hex(32)}])
    return bytes.fromhex(read_private_csv(path, ["salt"])[0]["salt"])


def _check_no_foreign_files(out: Path, plan: Mapping[Path, _SourceFile]) -> None:
    """Refuse a folder with files that this source does not give: they might be anybody's."""
    planned = {str(place) for place in plan}
    for file in iterate_files(out):
        if str(file.relative_to(out)) not in planned:
            raise GliomarkError(f"{out} holds files of another source ({file.name}): give an empty folder.")


def _write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file whole; False where it is there with the same content."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return False
    atomic_write(path, content)
    return True


# ---- what there is, and where it goes ---------------------------------------------------------------


def _iterate_batches(
    items: Sequence[Item], stage: str, progress: Callable[[str, int, int], None]
) -> Iterator[Sequence[Item]]:
    """So many at once as are asked of a reading process; progress is told once they are done."""
    for start in range(0, len(items), FILES_PER_BATCH):
        batch = items[start : start + FILES_PER_BATCH]
        yield batch
        progress(stage, start + len(batch), len(items))


def _scan_headers(
    root: Path, progress: Callable[[str, int, int], None], reader_pool: ReadExecutor
) -> _SourceScan:
    """Look into every header. Raises GliomarkError where there is no DICOM."""
    files = list(find_dicom_files(root))
    if not files:
        raise GliomarkError(f"{root} holds no DICOM files: give the folder of the DICOM export.")
    found: list[_SourceFile] = []
    left_out = [
        (file.relative_to(root), "a zip file is not looked into: unzip it and run again")
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
        "its patient id is used by two people (names or birth dates disagree): give each an id of their own"
    )
    left_out += [(entry.file.relative_to(root), reason) for entry in found if entry.person_key in shared]
    known = [entry for entry in found if entry.person_key not in shared]
    kept = _remove_duplicates(known)
    others = sum(1 for _ in iterate_files(root)) - len(files)
    return _SourceScan(tuple(kept), tuple(left_out), len(known) - len(kept), others)


def read_file_headers(files: Sequence[Path]) -> list[_HeaderResult]:
    """What decides about each file, in a reading process."""
    headers = []
    for file in files:
        try:
            headers.append(_HeaderResult(file, _read_file_header(file)))
        except _NotCleanableError as error:
            headers.append(_HeaderResult(file, None, str(error)))
    return headers


def _read_file_header(file: Path) -> _SourceFile:
    """Read what decides about a file. Raises _LeftOutError where it must not be written."""
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
    """Raise _LeftOutError for an object that the profile without its options cannot make clean."""
    kind = UID(header_texts["SOPClassUID"])
    if not all(header_texts[key] for key in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")):
        raise _NotCleanableError("it lacks the UID of its study, series or instance")
    if kind not in _IMAGE_CLASSES | _SEGMENTATION_CLASSES:
        name = kind.name or "unknown class"
        if re.search("Secondary Capture|Ultrasound|Screen|VL |Video", name):
            raise _NotCleanableError(
                f"{name}: its pixels may show the patient's name or face, and are not cleaned"
            )
        raise _NotCleanableError(f"{name}: its content cannot be cleaned by the basic profile")
    if header_texts["BurnedInAnnotation"].upper() == "YES":
        raise _NotCleanableError("its header says that text is burned into the pixels, which are not cleaned")
    if re.search(r"SCREEN|CAPTURE|REPORT", header_texts["ImageType"].upper()):
        raise _NotCleanableError("a screenshot by its image type: its pixels may show the patient's name")
    if kind in _IMAGE_CLASSES and header_texts["SamplesPerPixel"] not in {"", "1"}:
        raise _NotCleanableError(
            "a colour picture, as reports and screenshots are: its pixels may show the patient's name"
        )


def _find_shared_ids(source_files: Iterable[_SourceFile]) -> set[str]:
    """Patient ids under which two names or two birth dates stand."""
    dates: dict[str, set[str]] = defaultdict(set)
    names: dict[tuple[str, int], set[str]] = defaultdict(set)
    for entry in source_files:
        if entry.birth_date:
            dates[entry.person_key].add(entry.birth_date)
        # a name may be written in letters, in Chinese, or in both: like is compared with like
        for script, part in enumerate(entry.patient_name.split("=")):
            if words := re.sub(r"[\s^,.]+", " ", part).strip().casefold():
                ideographic = script > 0 or not words.isascii()
                names[entry.person_key, ideographic].add(words)
    conflicting_ids = {person for person, values in dates.items() if len(values) > 1}
    return conflicting_ids | {person for (person, _), values in names.items() if len(values) > 1}


def _remove_duplicates(source_files: Sequence[_SourceFile]) -> list[_SourceFile]:
    """Drop files that are another's copy, byte for byte; two objects that share a UID both stay."""
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
    """Where every file goes; studies and series are numbered by their new UIDs, which say nothing."""

    def sort_key(entry: _SourceFile) -> tuple:
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
    """The UID that stands for another: the same for the same secret, not to be guessed without it."""
    digest = hmac.new(salt, original.encode(), hashlib.sha256).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def clean_files(jobs: Sequence[_CleaningJob]) -> list[_CleaningResult]:
    """Write files clean, in a reading process."""
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
    """A clean file's bytes, and how many kept texts were blanked. Raises _LeftOutError."""
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
        raise _NotCleanableError("damaged: it cannot be read whole") from None
    return stream.getvalue(), blanked


def _get_transfer_syntax(dataset: Dataset) -> UID:
    """The file's coding; a file without meta information has the one it was read by."""
    stated = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    if stated:
        return UID(stated)
    implicit, little = dataset.original_encoding
    if implicit:
        return uids.ImplicitVRLittleEndian
    return uids.ExplicitVRLittleEndian if little else uids.ExplicitVRBigEndian


def _clean_dataset(dataset: Dataset, new_id: str, salt: bytes, transfer_syntax: UID) -> int:
    """Make a dataset clean in place; returns how many kept texts held the patient's own name or number.

    Raises: _LeftOutError for what must not be written; pydicom's own errors for damaged data.
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
    """The sequence that the series' own words name, blank for none."""
    description, protocol = (_to_text(dataset.get(name)) for name in ("SeriesDescription", "ProtocolName"))
    return find_sequence_in_name(description) or find_sequence_in_name(f"{description} {protocol}") or ""


def _write_sequence_name(dataset: Dataset, sequence_name: str) -> None:
    """Write the one word, and that the option was taken."""
    if sequence_name:
        dataset.SeriesDescription = str(sequence_name)
    dataset.DeidentificationMethodCodeSequence.append(
        _create_method_code("113105", "Clean Descriptors Option")
    )


def _check_pixel_data(dataset: Dataset, transfer_syntax: UID) -> None:
    """Raise _LeftOutError where the file ends before its pixels do, which pydicom reads without a word."""
    if dataset.SOPClassUID == uids.RTStructureSetStorage:
        return
    pixels = dataset.get("PixelData")
    if not pixels or not transfer_syntax.is_encapsulated and len(pixels) < get_expected_length(dataset):
        raise _NotCleanableError("damaged: it ends before its pixels do")


def _create_method_code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _remove_unknown_elements(dataset: Dataset) -> None:
    """Drop, at every depth, what nothing can be known about, before anything of it is decoded."""
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
                item.pop("SpecificCharacterSet", None)  # the whole file is written in one


def _is_unknown_element(raw: DataElement | RawDataElement) -> bool:
    """Private, unknown to the dictionary, of unknown coding, or a group's length: nothing to be vouched for."""
    tag = raw.tag
    if tag.is_private or tag.element == 0 or not dictionary_has_tag(tag) and not _is_repeating_group(tag):
        return True
    # known sequences and values coded as unknown hold data in another coding than the file's
    return raw.VR == "UN" and (not dictionary_has_tag(tag) or dictionary_VR(tag) == "SQ")


def _is_repeating_group(tag: BaseTag) -> bool:
    return tag.group & 0xFF00 in (0x5000, 0x6000)


def _get_profile_action(element: DataElement, required_actions: Mapping[str, str]) -> str:
    """One of X, Z, D, U, or K to keep."""
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
    """The profile: tag to its letters; X, Z and D by what the class requires, sequences of images keep by U."""
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
    """Z: nothing, or a dummy where nothing would lose what a file is for."""
    name = keyword_for_tag(element.tag)
    agent = str(element.value or "").strip().lower()
    if name == "ROIName":  # the profile allows a dummy; without one two structures cannot be told apart
        element.value = f"ROI {dataset.get('ROINumber', '')}".strip()
    elif name == "ContrastBolusAgent" and agent not in _NO_CONTRAST_WORDS:
        element.value = "CONTRAST AGENT"  # which one is gone, that there was one makes a T1 a T1C
    else:
        element.value = [] if element.VR == "SQ" else None


def _replace_by_dummy(dataset: Dataset, element: DataElement) -> None:
    """D: a dummy of the element's kind; of sequences only coded ones have one, others go."""
    if element.VR != "SQ":
        element.value = _DUMMY_VALUES.get(element.VR, _DUMMY_TEXT)
    elif keyword_for_tag(element.tag).endswith("CodeSequence"):
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "0", "99ANON", _DUMMY_TEXT
        element.value = [code]
    else:
        del dataset[element.tag]


def _replace_uids(element: DataElement, salt: bytes) -> None:
    """U: every value, but for those that DICOM itself gives out."""
    value = element.value
    many = [value] if isinstance(value, str) or value is None else list(value)
    new = [derive_uid(one, salt) if one and not one.startswith(_DICOM_UID_ROOT) else one for one in many]
    element.value = new if len(new) > 1 else (new[0] if new else None)


# ---- what the table does not reach ------------------------------------------------------------------


def _clear_overlay_bits(dataset: Dataset, transfer_syntax: UID) -> None:
    """Old overlays lie in the pixels' unused bits, text and all: keep the stored bits alone."""
    has_overlays = any(
        tag.group & 0xFF00 == 0x6000 and tag.element == 0x0102 for tag in tuple(dataset.keys())
    )
    stored, allocated = dataset.get("BitsStored", 16), dataset.get("BitsAllocated", 16)
    if not has_overlays or "PixelData" not in dataset or stored == allocated:
        return
    if transfer_syntax.is_compressed or allocated != 16:
        raise _NotCleanableError(
            "an overlay may lie in the unused bits of its pixels, which cannot be cleared here"
        )
    order = "<u2" if transfer_syntax.is_little_endian else ">u2"
    pixels = np.frombuffer(dataset.PixelData, order).astype(np.uint16)
    aligned_pixels = pixels << (15 - dataset.HighBit)
    signed = bool(dataset.get("PixelRepresentation"))
    value = aligned_pixels.view(np.int16) >> (16 - stored) if signed else aligned_pixels >> (16 - stored)
    restored_pixels = (value << (dataset.HighBit + 1 - stored)).astype(np.uint16)
    dataset.PixelData = restored_pixels.astype(order).tobytes()


def _compile_personal_pattern(dataset: Dataset) -> re.Pattern[str]:
    """Any of the patient's and the staff's names and numbers, whole words, as they stand in this file."""
    words: set[str] = set()
    for element in dataset.iterall():
        if element.VR == "PN":
            words |= set(re.split(r"[\s^=\\]+", _to_text(element.value)))
        elif element.keyword in _PERSONAL_KEYWORDS:
            words |= {word.strip() for word in _to_text(element.value).split("\\")}
    # two letters or digits are no name but a chance; two Chinese characters are one
    words = {word for word in words if len(word) >= (3 if word.isascii() else 2)}
    word_patterns = [
        rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" if word.isascii() else re.escape(word) for word in words
    ]
    return re.compile("|".join(sorted(word_patterns)) or r"(?!)", re.IGNORECASE)


def _blank_personal_text(dataset: Dataset, personal_pattern: re.Pattern[str]) -> int:
    """Put a dummy where free text that the profile keeps holds a name or number."""
    blanked = 0
    for element in dataset.iterall():
        if element.VR in _FREE_TEXT_VRS and personal_pattern.search(_to_text(element.value)):
            element.value = _DUMMY_TEXT
            blanked += 1
    return blanked

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

from gliomark.cohort.private import new_ids, private_folder, read_private_csv, write_private_csv
from gliomark.files import atomic_write, files_below, remove_leftovers, writing
from gliomark.io.dicom import dicom_files
from gliomark.io.dicom.files import read_dataset
from gliomark.io.naming import sequence_in_name
from gliomark.isolation import ReadingProcesses, Reads, read_each
from gliomark.study import GliomarkError

Item = TypeVar("Item")
BATCH = 50  # files
NOT_DONE = (
    "Clean Pixel Data Option not done: pixels are unchanged, objects that may show text are left out.",
    "Clean Recognizable Visual Features Option not done: faces are not removed and can be drawn from the slices.",
    "No Retain option done: dates, descriptions, device identity and private elements are gone.",
)
_METHOD = [
    "DICOM PS3.15 Annex E Basic Application Confidentiality Profile",
    "Pixel data not cleaned",
    "Faces not removed",
]

_ENHANCED = frozenset({
    uids.EnhancedMRImageStorage, uids.LegacyConvertedEnhancedMRImageStorage, uids.EnhancedCTImageStorage,
    uids.LegacyConvertedEnhancedCTImageStorage, uids.EnhancedPETImageStorage,
    uids.LegacyConvertedEnhancedPETImageStorage,
})  # fmt: skip
_IMAGES = _ENHANCED | {
    uids.MRImageStorage,
    uids.CTImageStorage,
    uids.PositronEmissionTomographyImageStorage,
}
_DRAWN = frozenset({uids.SegmentationStorage, uids.RTStructureSetStorage})
# What modules of these classes require to be there (type 1 by a dummy, type 2 empty), of the table's choices.
_REQUIRED_ENHANCED = {
    "AcquisitionDateTime": "D", "ContentDate": "D", "ContentTime": "D", "DeviceSerialNumber": "D",
    "AcquisitionContextSequence": "Z",
}  # fmt: skip
_REQUIRED_STRUCTURES = {"OperatorsName": "Z"}

_TEXT = frozenset({"LO", "SH", "LT", "ST", "UT", "UC", "UR"})
_FORGOTTEN = frozenset({"DA", "DT", "TM", "PN"})
_DUMMIES: Mapping[str, object] = {
    "AS": "000Y", "DA": "19000101", "DT": "19000101000000", "TM": "000000", "DS": "0", "IS": "0", "FD": 0.0,
    "FL": 0.0, "SS": 0, "US": 0, "SL": 0, "UL": 0, "SV": 0, "UV": 0, "AT": 0, "OB": b"\0\0", "OW": b"\0\0",
    "UN": b"\0\0", "UR": "http://anonymized.invalid",
}  # fmt: skip
_DUMMY_TEXT = "ANONYMIZED"
# UIDs of kinds of things, not of things: they are the same in every hospital.
_KIND_UIDS = re.compile(r".*(ClassUID|ClassesInStudy|ClassesInSeries|ClassesSupported|TransferSyntaxUID)")
_CODING_UIDS = frozenset("CodingSchemeUID ContextUID MappingResourceUID".split())
_DICOM_ROOT = "1.2.840.10008."
_NO_AGENT = frozenset({"", "no", "none", "n", "n/a", "na", "without", "no contrast", "0"})
_PERSONAL = frozenset(
    "PatientID OtherPatientIDs AccessionNumber InstitutionName PatientBirthDate PatientAddress StudyID "
    "PatientTelephoneNumbers MedicalRecordLocator AdmissionID StudyInstanceUID SeriesInstanceUID "
    "SOPInstanceUID FrameOfReferenceUID".split()
)
_HEADER = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber", "PatientID",
    "PatientName", "PatientBirthDate", "BurnedInAnnotation", "ImageType", "SamplesPerPixel", "NumberOfFrames",
)  # fmt: skip
# How pydicom tells of damage, found by altering files.
_DAMAGE = (
    pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, OSError, EOFError, ValueError,
    TypeError, KeyError, AttributeError, NotImplementedError, IndexError, OverflowError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What one run did. left_out: file below the source folder, and why; nothing of it was written.

    unchanged: files that an earlier run had written with the same content. duplicates: copies of one object.
    blanked: kept texts that held the patient's own name or number and became a dummy.
    """

    patients: int
    written: int
    unchanged: int
    duplicates: int
    blanked: int
    left_out: tuple[tuple[Path, str], ...]
    not_dicom: int
    key_file: Path
    not_done: tuple[str, ...] = NOT_DONE


class _LeftOutError(Exception):
    """An object that must not be written; its text is the reason."""


@dataclass(frozen=True)
class _Found:
    """One file's place: person is the original id, or what stands for it where that is blank."""

    file: Path
    person: str
    name: str
    birth_date: str
    study: str
    series: str
    instance: str
    number: int


@dataclass(frozen=True)
class _Header:
    """What a reading process found in a file's header, or why the file is left out."""

    file: Path
    found: _Found | None
    problem: str = ""


@dataclass(frozen=True)
class _Cleaning:
    """A file to be written clean: where, under which id, and as ``anonymise`` was told."""

    entry: _Found
    place: Path
    new_id: str
    salt: bytes
    describe: bool


@dataclass(frozen=True)
class _Cleaned:
    """What became of it: whether it was written, how many texts were blanked, or why it is left out."""

    file: Path
    is_new: bool = False
    blanked: int = 0
    problem: str = ""


@dataclass(frozen=True)
class _Scan:
    """What a folder holds: files to be written, files left out and why, further copies, files of other kinds."""

    found: tuple[_Found, ...]
    left_out: tuple[tuple[Path, str], ...]
    duplicates: int
    not_dicom: int


def anonymise(
    root: Path,
    out: Path,
    *,
    key_file: Path | None = None,
    clean_descriptors: bool = False,
    progress: Callable[[str, int, int], None] = lambda doing, done, of: None,
) -> Report:
    """Write every DICOM image, SEG and RTSTRUCT below ``root`` clean as OUT/<id>/<study>/<series>/<00001>.dcm.

    key_file: original and new ids, ``key.csv`` in the private folder beside OUT unless given; a cohort's own
    key.csv gives everybody the id they have there. The secret behind the new UIDs and the list of what was left
    out lie beside it. clean_descriptors: a series whose description names a sequence keeps that one word; without,
    a series can be told by its timing alone. A second run writes only what is missing or changed.

    Raises: GliomarkError where there is no DICOM, or one of root, out and the key lies inside another
    or belongs to another source.
    """
    root, out = Path(root), Path(out)
    _check_places(root, out, key_file)
    with ReadingProcesses() as reading:
        return _anonymise(root, out, key_file, clean_descriptors, progress, reading)


def _anonymise(
    root: Path,
    out: Path,
    key_file: Path | None,
    clean_descriptors: bool,
    progress: Callable[[str, int, int], None],
    reading: Reads,
) -> Report:
    scan = _scan(root, progress, reading)
    left_out = list(scan.left_out)
    private = private_folder(out) if key_file is None else _key_folder(key_file)
    salt = _salt(private / "uid-salt.csv")
    ids = new_ids(private, {entry.person for entry in scan.found}, keep=False)
    plan = _plan(scan.found, ids, salt)
    remove_leftovers(out, below=True)
    _check_nothing_else(out, plan)
    jobs = [
        _Cleaning(entry, out / place, ids[entry.person], salt, clean_descriptors)
        for place, entry in plan.items()
    ]
    cleaned: list[_Cleaned] = []
    for batch in _batches(jobs, "writing", progress):
        done, ended = read_each(reading, root, clean_files, batch, lambda job: job.entry.file)
        cleaned += done + [_Cleaned(job.entry.file, problem=why) for job, why in ended]
    left_out += [(one.file.relative_to(root), one.problem) for one in cleaned if one.problem]
    kept = [one for one in cleaned if not one.problem]
    left_out.sort()
    rows = [{"file": file, "why": why} for file, why in left_out]
    write_private_csv(private / "left_out.csv", ["file", "why"], rows)
    return Report(
        patients=len(ids),
        written=sum(one.is_new for one in kept),
        unchanged=sum(not one.is_new for one in kept),
        blanked=sum(one.blanked for one in kept),
        duplicates=scan.duplicates,
        left_out=tuple(left_out),
        not_dicom=scan.not_dicom,
        key_file=private / "key.csv",
    )


# ---- places and secrets -----------------------------------------------------------------------------


def _check_places(root: Path, out: Path, key_file: Path | None) -> None:
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


def _key_folder(key_file: Path) -> Path:
    with writing(key_file.parent):
        key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return key_file.parent


def _salt(path: Path) -> bytes:
    """The secret that new UIDs are made with, drawn at the first run."""
    if not path.exists():
        write_private_csv(path, ["salt"], [{"salt": secrets.token_hex(32)}])
    return bytes.fromhex(read_private_csv(path, ["salt"])[0]["salt"])


def _check_nothing_else(out: Path, plan: Mapping[Path, _Found]) -> None:
    """Refuse a folder with files that this source does not give: they might be anybody's."""
    planned = {str(place) for place in plan}
    for file in files_below(out):
        if str(file.relative_to(out)) not in planned:
            raise GliomarkError(f"{out} holds files of another source ({file.name}): give an empty folder.")


def _write(path: Path, content: bytes) -> bool:
    """Write a file whole; False where it is there with the same content."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return False
    atomic_write(path, content)
    return True


# ---- what there is, and where it goes ---------------------------------------------------------------


def _batches(
    items: Sequence[Item], doing: str, progress: Callable[[str, int, int], None]
) -> Iterator[Sequence[Item]]:
    """So many at once as are asked of a reading process; progress is told once they are done."""
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        yield batch
        progress(doing, start + len(batch), len(items))


def _scan(root: Path, progress: Callable[[str, int, int], None], reading: Reads) -> _Scan:
    """Look into every header. Raises GliomarkError where there is no DICOM."""
    files = list(dicom_files(root))
    if not files:
        raise GliomarkError(f"{root} holds no DICOM files: give the folder of the DICOM export.")
    found: list[_Found] = []
    left_out = [
        (file.relative_to(root), "a zip file is not looked into: unzip it and run again")
        for file in files_below(root)
        if file.suffix.lower() == ".zip"
    ]
    for batch in _batches(files, "reading headers", progress):
        headers, ended = read_each(reading, root, find_files, batch, lambda file: file)
        found += [one.found for one in headers if one.found is not None]
        left_out += [(one.file.relative_to(root), one.problem) for one in headers if one.found is None]
        left_out += [(file.relative_to(root), why) for file, why in ended]
    shared = _ids_of_two_people(found)
    reason = (
        "its patient id is used by two people (names or birth dates disagree): give each an id of their own"
    )
    left_out += [(entry.file.relative_to(root), reason) for entry in found if entry.person in shared]
    known = [entry for entry in found if entry.person not in shared]
    kept = _without_copies(known)
    others = sum(1 for _ in files_below(root)) - len(files)
    return _Scan(tuple(kept), tuple(left_out), len(known) - len(kept), others)


def find_files(files: Sequence[Path]) -> list[_Header]:
    """What decides about each file, in a reading process."""
    headers = []
    for file in files:
        try:
            headers.append(_Header(file, _find(file)))
        except _LeftOutError as error:
            headers.append(_Header(file, None, str(error)))
    return headers


def _find(file: Path) -> _Found:
    """Read what decides about a file. Raises _LeftOutError where it must not be written."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = read_dataset(file, stop_before_pixels=True, specific_tags=list(_HEADER))
            text = {name: _text(header.get(name)) for name in _HEADER}
    except _DAMAGE:
        raise _LeftOutError("damaged: its header cannot be read") from None
    _check_object(text)
    name, born = text["PatientName"], text["PatientBirthDate"]
    unnamed = f"{name} born {born or 'unknown'}" if name else f"study {text['StudyInstanceUID']}"
    person = text["PatientID"] or unnamed
    number = int(text["InstanceNumber"]) if re.fullmatch(r"\d{1,9}", text["InstanceNumber"]) else 0
    return _Found(
        file=file,
        person=person,
        name=name,
        birth_date=born,
        study=text["StudyInstanceUID"],
        series=text["SeriesInstanceUID"],
        instance=text["SOPInstanceUID"],
        number=number,
    )


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(map(str, value))
    return "" if value is None else str(value).strip()


def _check_object(text: Mapping[str, str]) -> None:
    """Raise _LeftOutError for an object that the profile without its options cannot make clean."""
    kind = UID(text["SOPClassUID"])
    if not all(text[key] for key in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")):
        raise _LeftOutError("it lacks the UID of its study, series or instance")
    if kind not in _IMAGES | _DRAWN:
        name = kind.name or "unknown class"
        if re.search("Secondary Capture|Ultrasound|Screen|VL |Video", name):
            raise _LeftOutError(
                f"{name}: its pixels may show the patient's name or face, and are not cleaned"
            )
        raise _LeftOutError(f"{name}: its content cannot be cleaned by the basic profile")
    if text["BurnedInAnnotation"].upper() == "YES":
        raise _LeftOutError("its header says that text is burned into the pixels, which are not cleaned")
    if re.search(r"SCREEN|CAPTURE|REPORT", text["ImageType"].upper()):
        raise _LeftOutError("a screenshot by its image type: its pixels may show the patient's name")
    if kind in _IMAGES and text["SamplesPerPixel"] not in {"", "1"}:
        raise _LeftOutError(
            "a colour picture, as reports and screenshots are: its pixels may show the patient's name"
        )


def _ids_of_two_people(found: Iterable[_Found]) -> set[str]:
    """Patient ids under which two names or two birth dates stand."""
    dates: dict[str, set[str]] = defaultdict(set)
    names: dict[tuple[str, int], set[str]] = defaultdict(set)
    for entry in found:
        if entry.birth_date:
            dates[entry.person].add(entry.birth_date)
        # a name may be written in letters, in Chinese, or in both: like is compared with like
        for script, part in enumerate(entry.name.split("=")):
            if words := re.sub(r"[\s^,.]+", " ", part).strip().casefold():
                ideographic = script > 0 or not words.isascii()
                names[entry.person, ideographic].add(words)
    twice = {person for person, values in dates.items() if len(values) > 1}
    return twice | {person for (person, _), values in names.items() if len(values) > 1}


def _without_copies(found: Sequence[_Found]) -> list[_Found]:
    """Drop files that are another's copy, byte for byte; two objects that share a UID both stay."""
    by_uid: dict[tuple[str, str], list[_Found]] = defaultdict(list)
    for entry in found:
        by_uid[entry.series, entry.instance].append(entry)
    kept: list[_Found] = []
    for entries in by_uid.values():
        several = len(entries) > 1
        kept += {_sha256(entry.file): entry for entry in reversed(entries)}.values() if several else entries
    return kept


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plan(found: Iterable[_Found], ids: Mapping[str, str], salt: bytes) -> dict[Path, _Found]:
    """Where every file goes; studies and series are numbered by their new UIDs, which say nothing."""

    def key(entry: _Found) -> tuple:
        instance = new_uid(entry.instance, salt)
        series = new_uid(entry.study, salt), new_uid(entry.series, salt)
        return ids[entry.person], *series, entry.number, instance, str(entry.file)

    studies: dict[str, dict[str, int]] = defaultdict(dict)
    series: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    files: dict[tuple[str, str, str], int] = defaultdict(int)
    plan = {}
    for entry in sorted(found, key=key):
        of = ids[entry.person]
        study = studies[of].setdefault(entry.study, len(studies[of]) + 1)
        numbers = series[of, entry.study]
        at = numbers.setdefault(entry.series, len(numbers) + 1)
        files[of, entry.study, entry.series] += 1
        plan[Path(of, str(study), str(at), f"{files[of, entry.study, entry.series]:05d}.dcm")] = entry
    return plan


# ---- one file ---------------------------------------------------------------------------------------


def new_uid(original: str, salt: bytes) -> str:
    """The UID that stands for another: the same for the same secret, not to be guessed without it."""
    digest = hmac.new(salt, original.encode(), hashlib.sha256).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def clean_files(jobs: Sequence[_Cleaning]) -> list[_Cleaned]:
    """Write files clean, in a reading process."""
    cleaned = []
    for job in jobs:
        try:
            content, blanked = _cleaned_file(job.entry.file, job.new_id, job.salt, job.describe)
            cleaned.append(_Cleaned(job.entry.file, _write(job.place, content), blanked))
        except _LeftOutError as error:
            cleaned.append(_Cleaned(job.entry.file, problem=str(error)))
    return cleaned


def _cleaned_file(file: Path, new_id: str, salt: bytes, describe: bool) -> tuple[bytes, int]:
    """A clean file's bytes, and how many kept texts were blanked. Raises _LeftOutError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = read_dataset(file)
            coding = _transfer_syntax(dataset)
            word = _sequence_word(dataset) if describe else ""
            blanked = _clean(dataset, new_id, salt, coding)
            if describe:
                _describe(dataset, word)
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = coding
            dataset.preamble = b"\0" * 128
            stream = io.BytesIO()
            dataset.save_as(stream, enforce_file_format=True)
    except _DAMAGE:
        raise _LeftOutError("damaged: it cannot be read whole") from None
    return stream.getvalue(), blanked


def _transfer_syntax(dataset: Dataset) -> UID:
    """The file's coding; a file without meta information has the one it was read by."""
    stated = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    if stated:
        return UID(stated)
    implicit, little = dataset.original_encoding
    if implicit:
        return uids.ImplicitVRLittleEndian
    return uids.ExplicitVRLittleEndian if little else uids.ExplicitVRBigEndian


def _clean(dataset: Dataset, new_id: str, salt: bytes, coding: UID) -> int:
    """Make a dataset clean in place; returns how many kept texts held the patient's own name or number.

    Raises: _LeftOutError for what must not be written; pydicom's own errors for damaged data.
    """
    kind = UID(dataset.SOPClassUID)
    required = _REQUIRED_ENHANCED if kind in _ENHANCED or kind == uids.SegmentationStorage else {}
    if kind == uids.RTStructureSetStorage:
        required = _REQUIRED_STRUCTURES
    _check_pixels(dataset, coding)
    _drop_unknown(dataset)
    _clear_overlay_bits(dataset, coding)
    personal = _personal_pattern(dataset)
    _clean_level(dataset, required, salt)
    blanked = _blank(dataset, personal)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID = dataset.PatientName = new_id
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = _METHOD
    dataset.DeidentificationMethodCodeSequence = [
        _method("113100", "Basic Application Confidentiality Profile")
    ]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    if kind in _IMAGES and dataset.get("RecognizableVisualFeatures") != "NO":
        dataset.RecognizableVisualFeatures = "YES"
    return blanked


def _sequence_word(dataset: Dataset) -> str:
    """The sequence that the series' own words name, blank for none."""
    description, protocol = (_text(dataset.get(name)) for name in ("SeriesDescription", "ProtocolName"))
    return sequence_in_name(description) or sequence_in_name(f"{description} {protocol}") or ""


def _describe(dataset: Dataset, word: str) -> None:
    """Write the one word, and that the option was taken."""
    if word:
        dataset.SeriesDescription = str(word)
    dataset.DeidentificationMethodCodeSequence.append(_method("113105", "Clean Descriptors Option"))


def _check_pixels(dataset: Dataset, coding: UID) -> None:
    """Raise _LeftOutError where the file ends before its pixels do, which pydicom reads without a word."""
    if dataset.SOPClassUID == uids.RTStructureSetStorage:
        return
    pixels = dataset.get("PixelData")
    if not pixels or not coding.is_encapsulated and len(pixels) < get_expected_length(dataset):
        raise _LeftOutError("damaged: it ends before its pixels do")


def _method(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _drop_unknown(dataset: Dataset) -> None:
    """Drop, at every depth, what nothing can be known about, before anything of it is decoded."""
    for tag in list(dataset.keys()):
        if _is_unknown(dataset.get_item(tag)):
            del dataset[tag]
        elif dataset[tag].VR == "SQ":
            for item in dataset[tag].value:
                _drop_unknown(item)


def _clean_level(dataset: Dataset, required: Mapping[str, str], salt: bytes) -> None:
    """Apply the profile to one dataset and to the items of its sequences."""
    for tag in list(dataset.keys()):
        element = dataset[tag]
        action = _action(element, required)
        if action == "X":
            del dataset[tag]
        elif action == "Z":
            _empty(dataset, element)
        elif action == "D":
            _replace(dataset, element)
        elif action == "U" and element.VR != "SQ":
            _replace_uids(element, salt)
        if tag in dataset and element.VR == "SQ":
            for item in element.value:
                _clean_level(item, required, salt)
                item.pop("SpecificCharacterSet", None)  # the whole file is written in one


def _is_unknown(raw: DataElement | RawDataElement) -> bool:
    """Private, unknown to the dictionary, of unknown coding, or a group's length: nothing to be vouched for."""
    tag = raw.tag
    if tag.is_private or tag.element == 0 or not dictionary_has_tag(tag) and not _repeating(tag):
        return True
    # known sequences and values coded as unknown hold data in another coding than the file's
    return raw.VR == "UN" and (not dictionary_has_tag(tag) or dictionary_VR(tag) == "SQ")


def _repeating(tag: BaseTag) -> bool:
    return tag.group & 0xFF00 in (0x5000, 0x6000)


def _action(element: DataElement, required: Mapping[str, str]) -> str:
    """One of X, Z, D, U, or K to keep."""
    tag, name = element.tag, keyword_for_tag(element.tag)
    if _repeating(tag) or element.VR == "UN" or name == "EncryptedAttributesSequence":
        return "X"
    if choices := _table().get(tag):
        letter = required.get(name, choices[0])
        return "U" if element.VR == "UI" and letter in "ZD" else letter
    if element.VR in _FORGOTTEN:
        return "X"
    kind = _KIND_UIDS.fullmatch(name) or name in _CODING_UIDS
    return "U" if element.VR == "UI" and not kind else "K"


@cache
def _table() -> Mapping[BaseTag, str]:
    """The profile: tag to its letters; X, Z and D by what the class requires, sequences of images keep by U."""
    letters = {
        "X": profile.X_TAGS, "Z": profile.Z_TAGS, "D": profile.D_TAGS, "U": profile.U_TAGS,
        "ZD": profile.Z_D_TAGS, "XZ": profile.X_Z_TAGS, "XD": profile.X_D_TAGS, "XZD": profile.X_Z_D_TAGS,
        "U*": profile.X_Z_U_STAR_TAGS,
    }  # fmt: skip
    return {
        BaseTag((group << 16) + number): key
        for key, tags in letters.items()
        for group, number, *mask in tags
        if not mask
    }


def _empty(dataset: Dataset, element: DataElement) -> None:
    """Z: nothing, or a dummy where nothing would lose what a file is for."""
    name = keyword_for_tag(element.tag)
    agent = str(element.value or "").strip().lower()
    if name == "ROIName":  # the profile allows a dummy; without one two structures cannot be told apart
        element.value = f"ROI {dataset.get('ROINumber', '')}".strip()
    elif name == "ContrastBolusAgent" and agent not in _NO_AGENT:
        element.value = "CONTRAST AGENT"  # which one is gone, that there was one makes a T1 a T1C
    else:
        element.value = [] if element.VR == "SQ" else None


def _replace(dataset: Dataset, element: DataElement) -> None:
    """D: a dummy of the element's kind; of sequences only coded ones have one, others go."""
    if element.VR != "SQ":
        element.value = _DUMMIES.get(element.VR, _DUMMY_TEXT)
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
    new = [new_uid(one, salt) if one and not one.startswith(_DICOM_ROOT) else one for one in many]
    element.value = new if len(new) > 1 else (new[0] if new else None)


# ---- what the table does not reach ------------------------------------------------------------------


def _clear_overlay_bits(dataset: Dataset, coding: UID) -> None:
    """Old overlays lie in the pixels' unused bits, text and all: keep the stored bits alone."""
    drawn = any(tag.group & 0xFF00 == 0x6000 and tag.element == 0x0102 for tag in tuple(dataset.keys()))
    stored, allocated = dataset.get("BitsStored", 16), dataset.get("BitsAllocated", 16)
    if not drawn or "PixelData" not in dataset or stored == allocated:
        return
    if coding.is_compressed or allocated != 16:
        raise _LeftOutError(
            "an overlay may lie in the unused bits of its pixels, which cannot be cleared here"
        )
    order = "<u2" if coding.is_little_endian else ">u2"
    pixels = np.frombuffer(dataset.PixelData, order).astype(np.uint16)
    top = pixels << (15 - dataset.HighBit)
    signed = bool(dataset.get("PixelRepresentation"))
    value = top.view(np.int16) >> (16 - stored) if signed else top >> (16 - stored)
    back = (value << (dataset.HighBit + 1 - stored)).astype(np.uint16)
    dataset.PixelData = back.astype(order).tobytes()


def _personal_pattern(dataset: Dataset) -> re.Pattern[str]:
    """Any of the patient's and the staff's names and numbers, whole words, as they stand in this file."""
    words: set[str] = set()
    for element in dataset.iterall():
        if element.VR == "PN":
            words |= set(re.split(r"[\s^=\\]+", _text(element.value)))
        elif element.keyword in _PERSONAL:
            words |= {word.strip() for word in _text(element.value).split("\\")}
    # two letters or digits are no name but a chance; two Chinese characters are one
    words = {word for word in words if len(word) >= (3 if word.isascii() else 2)}
    whole = [
        rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" if word.isascii() else re.escape(word) for word in words
    ]
    return re.compile("|".join(sorted(whole)) or r"(?!)", re.IGNORECASE)


def _blank(dataset: Dataset, personal: re.Pattern[str]) -> int:
    """Put a dummy where free text that the profile keeps holds a name or number."""
    blanked = 0
    for element in dataset.iterall():
        if element.VR in _TEXT and personal.search(_text(element.value)):
            element.value = _DUMMY_TEXT
            blanked += 1
    return blanked

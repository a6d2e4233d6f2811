"""DICOM files: finding them in a folder tree, and the small record of one file's header."""

from __future__ import annotations

import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from gliomark.io.dicom.facts import (
    FACT_TAGS,
    HeaderFacts,
    as_number,
    facts_of,
    geometry,
    group,
    image_type,
    number,
    numbers,
    text,
    unit,
)
from gliomark.io.dicom.files import InflatedError, read_dataset
from gliomark.io.layout import visible, visible_below
from gliomark.io.limits import MOST_VOXELS
from gliomark.io.naming import same_id
from gliomark.messages import message
from gliomark.study import GliomarkError

MR_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_NOT_DICOM = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".csv", ".txt", ".json", ".xml", ".nii", ".gz", ".pdf")
# Preamble-less exports start with an element of group 2 or 8, little or big endian.
_BARE_STARTS = (b"\x08\x00", b"\x02\x00", b"\x00\x08")
_READ_TAGS = (
    *FACT_TAGS, "SpecificCharacterSet", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID",
    "PatientName", "PatientBirthDate", "PatientSex", "PatientAge", "StudyDate", "StudyTime", "SeriesDate",
    "SeriesTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ContentTime", "SeriesNumber",
    "AcquisitionNumber", "InstanceNumber", "TemporalPositionIdentifier", "TriggerTime", "Rows", "Columns",
    "NumberOfFrames", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "Manufacturer",
    "ManufacturerModelName", "MagneticFieldStrength", "BitsAllocated", "SamplesPerPixel",
)  # fmt: skip
_MOST_FRAMES = 100_000
_MOST_VALUES = 2e9  # of what is no MR image: outlines have a frame for every slice and structure
_LEAST_PACKED_FRAME = 8  # bytes: an item's tag and length
_ESCAPES = re.compile(r"\x1b[$()\-./,]*[A-Z]")  # ISO 2022 switches that pydicom leaves in decoded names
_TAGS = [Tag(name) for name in _READ_TAGS]
# How pydicom and its decoders tell of damage and of codings they do not know, found by altering files.
DAMAGE = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, TypeError, KeyError, IndexError,
    AttributeError, NotImplementedError, struct.error, RecursionError, ArithmeticError, MemoryError, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """One image: its number within a multi-frame file (None for a file of one) and its place.

    position, orientation: LPS mm and unit cosines; spacing: mm between rows, between columns; None where the
    header does not state them. slope, intercept: to stored values; None where the header does not state them, nan
    where it states no usable number. moment: texts that tell repeats in time apart, in the order to try them.
    """

    number: int | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    slope: float | None
    intercept: float | None
    echo: float | None
    b_value: float
    image_type: tuple[str, ...]
    moment: tuple[str, ...]


@dataclass(frozen=True)
class Instance:
    """One DICOM file's header, no pixels. Dates YYYYMMDD or blank; frames: empty for what is no image.

    age: PatientAge as written (``045Y``), blank where absent. acquired_at: when the scan began, as a text that
    sorts; acquired: that and the series' time. order: InstanceNumber. field_strength_t: tesla.
    """

    file: Path
    sop_class: str
    sop_uid: str
    series_uid: str
    study_uid: str
    patient_id: str
    patient_name: str
    birth_date: str
    sex: str
    age: str
    study_date: str
    acquired_at: str
    acquired: str
    modality: str
    description: str
    series_number: str
    order: float
    rows: int
    columns: int
    frames: tuple[Frame, ...]
    facts: HeaderFacts
    manufacturer: str
    model: str
    field_strength_t: float | None

    @property
    def is_mr_image(self) -> bool:
        """Whether the file is an MR image, classic or enhanced."""
        return self.sop_class in MR_CLASSES


Piece = tuple[Instance, Frame]  # one image with its file


# ---- files ------------------------------------------------------------------------------------------


def looks_like_dicom(file: Path) -> bool:
    """DICOM by its first bytes: the preamble's DICM, or bare elements of group 2 or 8 (old exports)."""
    if file.suffix.lower() in _NOT_DICOM or file.name.upper().split(";")[0] in {"DICOMDIR", "DICOMDIR.DCM"}:
        return False
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or (len(start) == 132 and start[:2] in _BARE_STARTS)


def dicom_files(path: Path) -> Iterator[Path]:
    """All DICOM files below a folder, in order of name; a DICOMDIR is left out."""
    for file, entry in visible_below(path):
        if entry.is_file(follow_symlinks=False) and looks_like_dicom(file):
            yield file


def holds_dicom(path: Path) -> bool:
    """Whether any DICOM file lies in a folder or below it."""
    return next(dicom_files(path), None) is not None


def is_one_patient(path: Path) -> bool:
    """Whether a folder is one patient's DICOM, not a folder of such folders: by the first file of each.

    A single subfolder counts as a series when the files lie directly in it, else as a patient of its own.
    """
    entries = visible(path)
    if any(entry.is_file() and looks_like_dicom(entry) for entry in entries):
        return True
    firsts = [file for entry in entries if entry.is_dir() and (file := next(dicom_files(entry), None))]
    if len(firsts) == 1:
        return firsts[0].parent.parent == path
    owners = {same_id(owner) for file in firsts if (owner := _owner(file))}
    return len(owners) == 1


def _owner(file: Path) -> str:
    """PatientID, or the examination where that is blank; blank for a damaged file (reading will name it)."""
    try:
        instance = read_instance(file)
    except GliomarkError:
        return ""
    return instance.patient_id or instance.study_uid


# ---- one header -------------------------------------------------------------------------------------


def read_instance(file: Path) -> Instance:
    """Read one file's header, pixels and all else left out.

    Raises: GliomarkError for a damaged file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are common, and what is odd here is looked at here
            header = read_dataset(file, stop_before_pixels=True, specific_tags=list(_TAGS))
            if not can_hold_frames(header, file.stat().st_size):
                raise too_many_frames(file, header)
            instance = _instance(file, header)
    except InflatedError:
        raise
    except DAMAGE:
        instance = None
    # Cut short within its header, a file reads without complaint but lacks what every image has.
    if instance is None or not instance.sop_class or (instance.is_mr_image and not instance.frames):
        raise GliomarkError(message("dicom-damaged", file=file))
    return instance


def can_hold_frames(header: Dataset, length: int) -> bool:
    """Whether so many bytes can hold the frames that a header states, and as many as any image or outline has.

    One frame of its own that is cut short is told where its pixels are read. Raises: what ``DAMAGE`` lists.
    """
    rows, columns = (number(header, name) or 0.0 for name in ("Rows", "Columns"))
    frames = number(header, "NumberOfFrames") or 1.0
    values = rows * columns * frames
    if not values:
        return True
    most = MOST_VOXELS if text(header, "SOPClassUID") in MR_CLASSES else _MOST_VALUES
    if not 0 < values <= most or frames > _MOST_FRAMES:
        return False
    syntax = getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID")
    if syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed:
        deflated = syntax == DeflatedExplicitVRLittleEndian
        return deflated or frames == 1 or frames * _LEAST_PACKED_FRAME <= length
    bits = (number(header, "BitsAllocated") or 1.0) * (number(header, "SamplesPerPixel") or 1.0)
    return frames == 1 or values * bits / 8 <= length


def too_many_frames(file: Path, header: Dataset) -> GliomarkError:
    """What to raise where ``can_hold_frames`` says no."""
    return GliomarkError(message("dicom-frames", file=file, count=text(header, "NumberOfFrames") or 1))


def _instance(file: Path, header: Dataset) -> Instance:
    facts = facts_of(header)
    return Instance(
        file=file,
        sop_class=facts.sop_class or media_class(header),
        sop_uid=text(header, "SOPInstanceUID"),
        series_uid=text(header, "SeriesInstanceUID"),
        study_uid=text(header, "StudyInstanceUID"),
        patient_id=text(header, "PatientID"),
        patient_name=_ESCAPES.sub("", text(header, "PatientName")),
        birth_date=_date(text(header, "PatientBirthDate")),
        sex=text(header, "PatientSex").upper(),
        age=text(header, "PatientAge").upper(),
        study_date=_date(text(header, "StudyDate")),
        acquired_at=_acquired_at(header),
        acquired=_acquired_at(header) + text(header, "SeriesTime"),
        modality=facts.modality,
        description=facts.description,
        series_number=text(header, "SeriesNumber"),
        order=number(header, "InstanceNumber") or 0.0,
        rows=int(number(header, "Rows") or 0),
        columns=int(number(header, "Columns") or 0),
        frames=_frames(header, facts),
        facts=facts,
        manufacturer=text(header, "Manufacturer"),
        model=text(header, "ManufacturerModelName"),
        field_strength_t=number(header, "MagneticFieldStrength"),
    )


def media_class(header: Dataset) -> str:
    """The SOP class by the meta information, where the header itself has none (a DICOMDIR)."""
    return text(getattr(header, "file_meta", Dataset()), "MediaStorageSOPClassUID")


def _date(written: str) -> str:
    """YYYYMMDD; the old form with dots or dashes is understood, anything else is blank."""
    digits = written.replace(".", "").replace("-", "")
    return digits if len(digits) == 8 and digits.isdigit() else ""


def _acquired_at(header: Dataset) -> str:
    """When the scan began, as a text that sorts: YYYYMMDDHHMMSS.FFFFFF, or what of it is written."""
    if moment := text(header, "AcquisitionDateTime"):
        return moment
    date = text(header, "AcquisitionDate") or text(header, "SeriesDate") or text(header, "StudyDate")
    return date + (
        text(header, "AcquisitionTime") or text(header, "SeriesTime") or text(header, "ContentTime")
    )


def _frames(header: Dataset, facts: HeaderFacts) -> tuple[Frame, ...]:
    """The file's images: none for a report, one for a classic file, one per frame of an enhanced one."""
    if not number(header, "Rows"):
        return ()
    if "PerFrameFunctionalGroupsSequence" not in header:
        count = max(1, int(number(header, "NumberOfFrames") or 1))
        return tuple(_classic(header, facts, None if count == 1 else at) for at in range(count))
    count, described = (
        int(number(header, "NumberOfFrames") or 1),
        len(header.PerFrameFunctionalGroupsSequence),
    )
    if count != described:
        raise ValueError(f"{count} frames, of which {described} are described")
    return tuple(_enhanced(header, facts, at) for at in range(count))


def _classic(header: Dataset, facts: HeaderFacts, at: int | None) -> Frame:
    return Frame(
        number=at,
        position=numbers(header.get("ImagePositionPatient"), 3),
        orientation=unit(facts.orientation),
        spacing=facts.spacing,
        slope=_scale(header, "RescaleSlope"),
        intercept=_scale(header, "RescaleIntercept"),
        echo=facts.echo,
        b_value=facts.b_value,
        image_type=facts.image_type,
        moment=tuple(
            text(header, name)
            for name in (
                "TemporalPositionIdentifier",
                "AcquisitionNumber",
                "TriggerTime",
                "SeriesTime",
                "ContentTime",
            )
        ),
    )


def _enhanced(header: Dataset, facts: HeaderFacts, at: int) -> Frame:
    plane = group(header, at, "PlanePositionSequence")
    values = group(header, at, "PixelValueTransformationSequence") or header
    content = group(header, at, "FrameContentSequence") or Dataset()
    orientation, spacing = geometry(header, at)
    return Frame(
        number=at,
        position=numbers(plane.get("ImagePositionPatient"), 3) if plane is not None else None,
        orientation=unit(orientation),
        spacing=spacing,
        slope=_scale(values, "RescaleSlope"),
        intercept=_scale(values, "RescaleIntercept"),
        echo=number(header, "EchoTime", at),
        b_value=number(header, "DiffusionBValue", at) or 0.0,
        image_type=image_type(header, at),
        moment=tuple(
            text(content, name) for name in ("TemporalPositionIndex", "FrameAcquisitionNumber", "StackID")
        ),
    )


def _scale(values: Dataset, keyword: str) -> float | None:
    """RescaleSlope or RescaleIntercept: None where not written; nan for what is no number, and a slope of 0."""
    try:
        value = values.get(keyword)
    except (ValueError, TypeError):  # pydicom's, for text that is no decimal
        return math.nan
    if value in (None, ""):
        return None
    found = as_number(value)
    usable = found is not None and math.isfinite(found) and (found != 0 or keyword != "RescaleSlope")
    return found if usable else math.nan

"""Find DICOM files in a folder tree and read their headers into small records."""

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

from gliomark.errors import GliomarkError, InputError
from gliomark.io.dicom.dataset_reader import InflatedSizeError, read_dataset
from gliomark.io.dicom.header_metadata import (
    METADATA_KEYWORDS,
    HeaderMetadata,
    extract_header_metadata,
    find_functional_group,
    get_image_type,
    get_number,
    get_plane_geometry,
    get_text,
    orthonormalise_orientation,
    parse_number,
    parse_numbers,
)
from gliomark.io.folder_listing import list_visible_entries, walk_visible_files
from gliomark.io.naming import normalise_patient_id
from gliomark.io.size_limits import MAX_VOXELS
from gliomark.messages import message

MR_SOP_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_NON_DICOM_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".tif",
    ".csv",
    ".txt",
    ".json",
    ".xml",
    ".nii",
    ".gz",
    ".pdf",
)
# Exports without preamble start with an element of group 2 or 8, little or big endian.
_NO_PREAMBLE_STARTS = (b"\x08\x00", b"\x02\x00", b"\x00\x08")
_HEADER_KEYWORDS = (
    *METADATA_KEYWORDS, "SpecificCharacterSet", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID",
    "PatientName", "PatientBirthDate", "PatientSex", "PatientAge", "StudyDate", "StudyTime", "SeriesDate",
    "SeriesTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ContentTime", "SeriesNumber",
    "AcquisitionNumber", "InstanceNumber", "TemporalPositionIdentifier", "TriggerTime", "Rows", "Columns",
    "NumberOfFrames", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "Manufacturer",
    "ManufacturerModelName", "MagneticFieldStrength", "BitsAllocated", "SamplesPerPixel",
)  # fmt: skip
_MAX_FRAMES = 100_000
# for other objects than MR images: a segmentation has one frame per slice and structure
_MAX_PIXEL_VALUES = 2e9
_MIN_COMPRESSED_FRAME_BYTES = 8  # bytes: an item's tag and length
_CHARSET_ESCAPES = re.compile(
    r"\x1b[$()\-./,]*[A-Z]"
)  # ISO 2022 escape sequences that pydicom leaves in decoded names
_HEADER_TAGS = [Tag(name) for name in _HEADER_KEYWORDS]
# Exceptions that pydicom and its decoders raise for damaged files or unsupported encodings, found by corrupting files.
DAMAGED_FILE_ERRORS = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, TypeError, KeyError, IndexError,
    AttributeError, NotImplementedError, struct.error, RecursionError, ArithmeticError, MemoryError, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """One image of a file.

    frame_index: index in a multi-frame file, None in a single-frame file. position, orientation: LPS, mm and
    orthonormal cosines. pixel_spacing_mm: between rows, between columns. rescale_slope, rescale_intercept: None if not
    stated, nan if not a usable number. temporal_keys: values that distinguish repetitions, in the order in which they
    are tried. Geometry is None if not stated.
    """

    frame_index: int | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, float] | None
    rescale_slope: float | None
    rescale_intercept: float | None
    echo_time_ms: float | None
    b_value: float
    image_type: tuple[str, ...]
    temporal_keys: tuple[str, ...]


@dataclass(frozen=True)
class Instance:
    """Header of one DICOM file, without pixels. Dates are YYYYMMDD or ""; frames is empty for non-image objects.

    age: PatientAge as written (``045Y``), "" if absent. acquisition_datetime: start of the scan as sortable text;
    acquisition_sort_key: the same followed by SeriesTime. field_strength_tesla: None if not stated.
    """

    file: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient_id: str
    patient_name: str
    birth_date: str
    sex: str
    age: str
    study_date: str
    acquisition_datetime: str
    acquisition_sort_key: str
    modality: str
    series_description: str
    series_number: str
    instance_number: float
    rows: int
    columns: int
    frames: tuple[Frame, ...]
    metadata: HeaderMetadata
    manufacturer: str
    scanner_model: str
    field_strength_tesla: float | None

    @property
    def is_mr_image(self) -> bool:
        """Whether the file is an MR image, classic or enhanced."""
        return self.sop_class_uid in MR_SOP_CLASSES


InstanceFrame = tuple[Instance, Frame]  # an image with its file's header


# ---- files ------------------------------------------------------------------------------------------


def is_dicom_file(file: Path) -> bool:
    """Whether a file begins as DICOM: with the DICM prefix, or (old exports) an element of group 2 or 8."""
    if file.suffix.lower() in _NON_DICOM_SUFFIXES or file.name.upper().split(";")[0] in {
        "DICOMDIR",
        "DICOMDIR.DCM",
    }:
        return False
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or (len(start) == 132 and start[:2] in _NO_PREAMBLE_STARTS)


def find_dicom_files(folder: Path) -> Iterator[Path]:
    """Yield all DICOM files in a folder and its subfolders, in order of name, without DICOMDIR."""
    for file, entry in walk_visible_files(folder):
        if entry.is_file(follow_symlinks=False) and is_dicom_file(file):
            yield file


def has_dicom_files(folder: Path) -> bool:
    """Whether a folder or one of its subfolders contains a DICOM file."""
    return next(find_dicom_files(folder), None) is not None


def is_one_patient(folder: Path) -> bool:
    """Whether a folder holds one patient's DICOM files rather than several patients' folders.

    Compares the first file of each subfolder. A single subfolder counts as a series if files lie directly in it,
    otherwise as a patient folder.
    """
    entries = list_visible_entries(folder)
    if any(entry.is_file() and is_dicom_file(entry) for entry in entries):
        return True
    first_files = [
        file for entry in entries if entry.is_dir() and (file := next(find_dicom_files(entry), None))
    ]
    if len(first_files) == 1:
        return first_files[0].parent.parent == folder
    owners = {normalise_patient_id(owner) for file in first_files if (owner := _read_owner_id(file))}
    return len(owners) == 1


def _read_owner_id(file: Path) -> str:
    """Return PatientID, else StudyInstanceUID; "" for a damaged file, which is reported when it is read."""
    try:
        instance = read_instance(file)
    except GliomarkError:
        return ""
    return instance.patient_id or instance.study_instance_uid


# ---- one header -------------------------------------------------------------------------------------


def read_instance(file: Path) -> Instance:
    """Read the header of one file; pixels and unused attributes are skipped.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # pydicom warns about unusual values, which this module checks itself
            header = read_dataset(file, stop_before_pixels=True, specific_tags=list(_HEADER_TAGS))
            if not is_frame_count_plausible(header, file.stat().st_size):
                raise create_frame_count_error(file, header)
            instance = _create_instance(file, header)
    except InflatedSizeError:
        raise
    except DAMAGED_FILE_ERRORS:
        instance = None
    # pydicom reads a file truncated within its header without error, but required attributes are missing.
    if instance is None or not instance.sop_class_uid or (instance.is_mr_image and not instance.frames):
        raise InputError(message("dicom-damaged", file=file))
    return instance


def is_frame_count_plausible(header: Dataset, byte_count: int) -> bool:
    """Whether the stated frames fit the byte count and the size limits.

    A truncated single frame is reported when its pixels are read. May raise any of ``DAMAGED_FILE_ERRORS``.
    """
    rows, columns = (get_number(header, name) or 0.0 for name in ("Rows", "Columns"))
    frames = get_number(header, "NumberOfFrames") or 1.0
    values = rows * columns * frames
    if not values:
        return True
    max_values = MAX_VOXELS if get_text(header, "SOPClassUID") in MR_SOP_CLASSES else _MAX_PIXEL_VALUES
    if not 0 < values <= max_values or frames > _MAX_FRAMES:
        return False
    syntax = getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID")
    if syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed:
        is_deflated = syntax == DeflatedExplicitVRLittleEndian
        return is_deflated or frames == 1 or frames * _MIN_COMPRESSED_FRAME_BYTES <= byte_count
    bits = (get_number(header, "BitsAllocated") or 1.0) * (get_number(header, "SamplesPerPixel") or 1.0)
    return frames == 1 or values * bits / 8 <= byte_count


def create_frame_count_error(file: Path, header: Dataset) -> GliomarkError:
    """Create the error for a file that fails ``is_frame_count_plausible``."""
    return InputError(message("dicom-frames", file=file, count=get_text(header, "NumberOfFrames") or 1))


def _create_instance(file: Path, header: Dataset) -> Instance:
    metadata = extract_header_metadata(header)
    return Instance(
        file=file,
        sop_class_uid=metadata.sop_class_uid or get_media_sop_class(header),
        sop_instance_uid=get_text(header, "SOPInstanceUID"),
        series_instance_uid=get_text(header, "SeriesInstanceUID"),
        study_instance_uid=get_text(header, "StudyInstanceUID"),
        patient_id=get_text(header, "PatientID"),
        patient_name=_CHARSET_ESCAPES.sub("", get_text(header, "PatientName")),
        birth_date=_parse_date(get_text(header, "PatientBirthDate")),
        sex=get_text(header, "PatientSex").upper(),
        age=get_text(header, "PatientAge").upper(),
        study_date=_parse_date(get_text(header, "StudyDate")),
        acquisition_datetime=_get_acquisition_datetime(header),
        acquisition_sort_key=_get_acquisition_datetime(header) + get_text(header, "SeriesTime"),
        modality=metadata.modality,
        series_description=metadata.series_description,
        series_number=get_text(header, "SeriesNumber"),
        instance_number=get_number(header, "InstanceNumber") or 0.0,
        rows=int(get_number(header, "Rows") or 0),
        columns=int(get_number(header, "Columns") or 0),
        frames=_create_frames(header, metadata),
        metadata=metadata,
        manufacturer=get_text(header, "Manufacturer"),
        scanner_model=get_text(header, "ManufacturerModelName"),
        field_strength_tesla=get_number(header, "MagneticFieldStrength"),
    )


def get_media_sop_class(header: Dataset) -> str:
    """Return the SOP class of the file meta information, for objects without SOPClassUID (DICOMDIR)."""
    return get_text(getattr(header, "file_meta", Dataset()), "MediaStorageSOPClassUID")


def _parse_date(text: str) -> str:
    """Return YYYYMMDD, also from the old format with dots or dashes; "" for anything else."""
    digits = text.replace(".", "").replace("-", "")
    return digits if len(digits) == 8 and digits.isdigit() else ""


def _get_acquisition_datetime(header: Dataset) -> str:
    """Return the start of the scan as sortable text: YYYYMMDDHHMMSS.FFFFFF, or as much as is stated."""
    if acquisition_datetime := get_text(header, "AcquisitionDateTime"):
        return acquisition_datetime
    date = (
        get_text(header, "AcquisitionDate") or get_text(header, "SeriesDate") or get_text(header, "StudyDate")
    )
    return date + (
        get_text(header, "AcquisitionTime")
        or get_text(header, "SeriesTime")
        or get_text(header, "ContentTime")
    )


def _create_frames(header: Dataset, metadata: HeaderMetadata) -> tuple[Frame, ...]:
    """Create the frames: none for a report, one for a classic file, one per frame of a multi-frame file."""
    if not get_number(header, "Rows"):
        return ()
    if "PerFrameFunctionalGroupsSequence" not in header:
        count = max(1, int(get_number(header, "NumberOfFrames") or 1))
        return tuple(
            _create_classic_frame(header, metadata, None if count == 1 else at) for at in range(count)
        )
    count, described_count = (
        int(get_number(header, "NumberOfFrames") or 1),
        len(header.PerFrameFunctionalGroupsSequence),
    )
    if count != described_count:
        raise ValueError(f"{count} frames, of which {described_count} are described")
    return tuple(_create_enhanced_frame(header, metadata, at) for at in range(count))


def _create_classic_frame(header: Dataset, metadata: HeaderMetadata, frame_index: int | None) -> Frame:
    return Frame(
        frame_index=frame_index,
        position=parse_numbers(header.get("ImagePositionPatient"), 3),
        orientation=orthonormalise_orientation(metadata.orientation),
        pixel_spacing_mm=metadata.pixel_spacing_mm,
        rescale_slope=_get_rescale_value(header, "RescaleSlope"),
        rescale_intercept=_get_rescale_value(header, "RescaleIntercept"),
        echo_time_ms=metadata.echo_time_ms,
        b_value=metadata.b_value,
        image_type=metadata.image_type,
        temporal_keys=tuple(
            get_text(header, name)
            for name in (
                "TemporalPositionIdentifier",
                "AcquisitionNumber",
                "TriggerTime",
                "SeriesTime",
                "ContentTime",
            )
        ),
    )


def _create_enhanced_frame(header: Dataset, metadata: HeaderMetadata, frame_index: int) -> Frame:
    plane = find_functional_group(header, frame_index, "PlanePositionSequence")
    values = find_functional_group(header, frame_index, "PixelValueTransformationSequence") or header
    content = find_functional_group(header, frame_index, "FrameContentSequence") or Dataset()
    orientation, spacing = get_plane_geometry(header, frame_index)
    return Frame(
        frame_index=frame_index,
        position=parse_numbers(plane.get("ImagePositionPatient"), 3) if plane is not None else None,
        orientation=orthonormalise_orientation(orientation),
        pixel_spacing_mm=spacing,
        rescale_slope=_get_rescale_value(values, "RescaleSlope"),
        rescale_intercept=_get_rescale_value(values, "RescaleIntercept"),
        echo_time_ms=get_number(header, "EchoTime", frame_index),
        b_value=get_number(header, "DiffusionBValue", frame_index) or 0.0,
        image_type=get_image_type(header, frame_index),
        temporal_keys=tuple(
            get_text(content, name) for name in ("TemporalPositionIndex", "FrameAcquisitionNumber", "StackID")
        ),
    )


def _get_rescale_value(dataset: Dataset, keyword: str) -> float | None:
    """Return RescaleSlope or RescaleIntercept: None if not stated, nan if invalid or a slope of 0."""
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError):  # raised by pydicom for text that is not a decimal
        return math.nan
    if value in (None, ""):
        return None
    found = parse_number(value)
    is_usable = found is not None and math.isfinite(found) and (found != 0 or keyword != "RescaleSlope")
    return found if is_usable else math.nan

"""Extract from one DICOM header the values that identify a series' sequence.

Enhanced files store timing and technique in shared or per-frame functional groups. Both file types yield the same
record, so that later steps need not distinguish classic from enhanced files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

ORTHONORMALITY_TOLERANCE = 0.01  # for the length of the direction cosines and their dot product
# Top-level attributes used here; only these are parsed when a header is read.
METADATA_KEYWORDS = (
    "SOPClassUID",
    "Modality",
    "ImageType",
    "SeriesDescription",
    "ProtocolName",
    "StudyDescription",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "ScanningSequence",
    "SequenceVariant",
    "SequenceName",
    "PulseSequenceName",
    "AngioFlag",
    "MRAcquisitionType",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "DiffusionBValue",
    "NumberOfTemporalPositions",
    "BurnedInAnnotation",
    "SamplesPerPixel",
    "EchoPulseSequence",
    "EchoPlanarPulseSequence",
    "TimeOfFlightContrast",
    "PhaseContrast",
    "SteadyStatePulseSequence",
    "ComplexImageComponent",
    "AcquisitionContrast",
    "SliceThickness",
    "SpacingBetweenSlices",
    "PixelSpacing",
    "ImageOrientationPatient",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
_FUNCTIONAL_GROUP_PATHS = {
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "SpacingBetweenSlices": ("PixelMeasuresSequence", "SpacingBetweenSlices"),
}
_NO_AGENT_TEXTS = {
    "",
    "no",
    "none",
    "n",
    "n/a",
    "na",
    "without",
    "no contrast",
    "0",
    "无",
    "未使用",
    "null",
    "not used",
}


@dataclass(frozen=True)
class HeaderMetadata:
    """Values of one header. Times in ms, lengths in mm, angles in degrees; None or "" if not stated.

    scanning_sequence: codes SE, GR, IR, EP as in ScanningSequence. orientation: row then column direction, LPS.
    contrast_agent: text of the contrast agent, "" for none. has_contrast_agent_attribute: whether the attribute
    exists, even if empty.
    """

    sop_class_uid: str
    modality: str
    image_type: tuple[str, ...]
    series_description: str
    protocol_name: str
    study_description: str
    body_part: str
    repetition_time_ms: float | None
    echo_time_ms: float | None
    inversion_time_ms: float | None
    flip_angle: float | None
    scanning_sequence: frozenset[str]
    sequence_variant: frozenset[str]
    sequence_name: str
    acquisition_type: str
    contrast_agent: str
    has_contrast_agent_attribute: bool
    b_value: float
    temporal_position_count: int
    has_burned_in_annotation: bool
    is_colour: bool
    is_angiography: bool
    complex_image_component: str
    acquisition_contrast: str
    slice_spacing_mm: float | None
    pixel_spacing_mm: tuple[float, float] | None
    orientation: tuple[float, ...] | None
    is_deidentified: bool


def get_text(header: Dataset, keyword: str) -> str:
    """Return a header value as text without NUL characters, "" if the attribute is missing."""
    value = header.get(keyword)
    return "" if value is None else str(value).replace("\0", "").strip()


def find_functional_group(header: Dataset, frame_index: int, group_keyword: str) -> Dataset | None:
    """Return a functional group of one frame of an enhanced file: per-frame, else shared, else None."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or ()
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    for group_source in [*frames[frame_index : frame_index + 1], *shared[:1]]:
        if content := group_source.get(group_keyword):
            found: Dataset = content[0]
            return found
    return None


def get_number(header: Dataset, keyword: str, frame_index: int = 0) -> float | None:
    """Return a number from the header or the functional groups; None if absent or invalid."""
    value = header.get(keyword)
    if value in (None, "") and keyword in _FUNCTIONAL_GROUP_PATHS:
        name, nested_keyword = _FUNCTIONAL_GROUP_PATHS[keyword]
        holder = find_functional_group(header, frame_index, name)
        value = holder.get(nested_keyword) if holder is not None else None
    return parse_number(value)


def parse_number(value: object) -> float | None:
    """Return the first number of a value, None if the value is empty or invalid."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    try:
        return float(value) if value not in (None, "") else None  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def parse_numbers(value: object, count: int) -> tuple[float, ...] | None:
    """Return exactly ``count`` finite numbers, else None."""
    try:
        found = tuple(float(part) for part in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def get_codes(header: Dataset, keyword: str) -> tuple[str, ...]:
    """Return a value of one or several codes as upper-case strings."""
    value = header.get(keyword) or ()
    parts = [value] if isinstance(value, str) else list(value)
    return tuple(str(part).strip().upper() for part in parts)


def extract_header_metadata(header: Dataset) -> HeaderMetadata:
    """Extract the metadata of a header; for an enhanced file, of its first frame."""
    orientation, spacing = get_plane_geometry(header, 0)
    contrast_agent, has_contrast_agent_attribute = _get_contrast_agent(header)
    return HeaderMetadata(
        sop_class_uid=get_text(header, "SOPClassUID"),
        modality=get_text(header, "Modality").upper(),
        image_type=get_image_type(header, 0),
        series_description=get_text(header, "SeriesDescription"),
        protocol_name=get_text(header, "ProtocolName"),
        study_description=get_text(header, "StudyDescription"),
        body_part=_get_body_part(header),
        repetition_time_ms=_keep_positive(get_number(header, "RepetitionTime")),
        echo_time_ms=_keep_positive(get_number(header, "EchoTime")),
        inversion_time_ms=_keep_positive(get_number(header, "InversionTime")),
        flip_angle=_keep_positive(get_number(header, "FlipAngle")),
        scanning_sequence=_get_scanning_sequence(header),
        sequence_variant=_get_sequence_variant(header),
        sequence_name=get_text(header, "SequenceName") or get_text(header, "PulseSequenceName"),
        acquisition_type=get_text(header, "MRAcquisitionType").upper(),
        contrast_agent=contrast_agent,
        has_contrast_agent_attribute=has_contrast_agent_attribute,
        b_value=get_number(header, "DiffusionBValue") or 0.0,
        temporal_position_count=int(get_number(header, "NumberOfTemporalPositions") or 1),
        has_burned_in_annotation=get_text(header, "BurnedInAnnotation").upper() == "YES",
        is_colour=(get_number(header, "SamplesPerPixel") or 1) > 1,
        is_angiography=_is_angiography(header),
        complex_image_component=get_text(header, "ComplexImageComponent").upper(),
        acquisition_contrast=get_text(header, "AcquisitionContrast").upper(),
        slice_spacing_mm=max(
            (_get_length_mm(header, name) for name in ("SpacingBetweenSlices", "SliceThickness")), default=0
        )
        or None,
        pixel_spacing_mm=spacing,
        orientation=orientation,
        is_deidentified=get_text(header, "PatientIdentityRemoved").upper() == "YES"
        or bool(header.get("DeidentificationMethod")),
    )


def get_image_type(header: Dataset, frame_index: int) -> tuple[str, ...]:
    """Return ImageType, or the FrameType of the frame in an enhanced file, plus Siemens' private values."""
    own = find_functional_group(header, frame_index, "MRImageFrameTypeSequence")
    stated = (get_codes(own, "FrameType") if own is not None else ()) or get_codes(header, "ImageType")
    return (*stated, *(part for part in _get_siemens_image_type(header, frame_index) if part not in stated))


def _get_siemens_image_type(header: Dataset, frame_index: int) -> tuple[str, ...]:
    """Return the classic ImageType values (NORM, DIS2D, SWI) that Siemens' enhanced files store in a private group."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or ()
    holder = frames[frame_index].get((0x0021, 0x11FE)) if frame_index < len(frames) else None
    if holder is None or holder.VR != "SQ" or not holder.value:
        return ()
    element = holder.value[0].get((0x0021, 0x1175))
    value = element.value if element is not None else ()
    parts = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    return tuple(str(part).strip().upper() for part in parts)


def get_plane_geometry(
    header: Dataset, frame_index: int
) -> tuple[tuple[float, ...] | None, tuple[float, float] | None]:
    """Return orientation (six direction cosines) and pixel spacing (between rows, between columns; mm) of one frame."""
    orientation_source = find_functional_group(header, frame_index, "PlaneOrientationSequence") or header
    spacing_source = find_functional_group(header, frame_index, "PixelMeasuresSequence") or header
    spacing = parse_numbers(spacing_source.get("PixelSpacing"), 2)
    if spacing is not None and min(spacing) <= 0:
        spacing = None
    return parse_numbers(orientation_source.get("ImageOrientationPatient"), 6), (
        spacing[0],
        spacing[1],
    ) if spacing else None


def _keep_positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _get_length_mm(header: Dataset, keyword: str) -> float:
    return abs(get_number(header, keyword) or 0.0)


def _get_body_part(header: Dataset) -> str:
    """Return BodyPartExamined, else the meaning of the anatomic region code, also from the first frame's group."""
    if part := get_text(header, "BodyPartExamined"):
        return part
    holder = (
        header
        if header.get("AnatomicRegionSequence")
        else find_functional_group(header, 0, "FrameAnatomySequence")
    )
    regions = (holder.get("AnatomicRegionSequence") if holder is not None else None) or ()
    return get_text(regions[0], "CodeMeaning") if regions else ""


def _get_scanning_sequence(header: Dataset) -> frozenset[str]:
    """Return the ScanningSequence codes, or the equivalent from the attributes of an enhanced file."""
    found = set(get_codes(header, "ScanningSequence"))
    pulse = get_text(header, "EchoPulseSequence").upper()
    found |= {"SPIN": {"SE"}, "GRADIENT": {"GR"}, "BOTH": {"SE", "GR"}}.get(pulse, set())
    modifier = find_functional_group(header, 0, "MRModifierSequence")
    if modifier is not None and get_text(modifier, "InversionRecovery").upper() == "YES":
        found.add("IR")
    if get_text(header, "EchoPlanarPulseSequence").upper() == "YES":
        found.add("EP")
    # Philips encodes it in ImageType: M_FFE is gradient echo, M_SE spin echo, M_IR inversion recovery.
    for part in get_codes(header, "ImageType"):
        if match := re.fullmatch(r"[MPRI]_(FFE|SE|IR|TSE|EPI)", part):
            found.add({"FFE": "GR", "TSE": "SE", "EPI": "EP"}.get(match[1], match[1]))
    return frozenset(found & {"SE", "GR", "IR", "EP"})


def _get_sequence_variant(header: Dataset) -> frozenset[str]:
    """Return the SequenceVariant codes (SP spoiled, SS steady state, MP magnetisation prepared) or the equivalent."""
    found = set(get_codes(header, "SequenceVariant"))
    modifier = find_functional_group(header, 0, "MRModifierSequence")
    spoiling = get_text(modifier, "Spoiling").upper() if modifier is not None else ""
    if spoiling in {"RF", "GRADIENT", "RF_AND_GRADIENT"}:
        found.add("SP")
    if get_text(header, "SteadyStatePulseSequence").upper() in {
        "FREE_PRECESSION",
        "TRANSVERSE",
        "TIME_REVERSED",
    }:
        found.add("SS")
    return frozenset(found)


def _get_contrast_agent(header: Dataset) -> tuple[str, bool]:
    """Return the contrast agent's text ("" for none) and whether the header has the attribute."""
    usage = find_functional_group(header, 0, "ContrastBolusUsageSequence")
    if usage is not None and get_text(usage, "ContrastBolusAgentAdministered").upper() == "NO":
        return "", True
    nested = header.get("ContrastBolusAgentSequence")
    written = get_text(header, "ContrastBolusAgent")
    named = "" if written.lower() in _NO_AGENT_TEXTS else written
    if nested and not named:
        named = (
            get_text(nested[0], "CodeMeaning")
            or get_text(nested[0], "ContrastBolusAgent")
            or "a contrast agent"
        )
    return named, "ContrastBolusAgent" in header or nested is not None


def _is_angiography(header: Dataset) -> bool:
    flags = ("TimeOfFlightContrast", "PhaseContrast")
    angio = get_text(header, "AngioFlag").upper() in {"Y", "YES"}
    return angio or any(get_text(header, name).upper() == "YES" for name in flags)


def is_original(metadata: HeaderMetadata) -> bool:
    """Whether ImageType does not mark the images as derived."""
    return not metadata.image_type or metadata.image_type[0] != "DERIVED"


def find_nearest_plane(orientation: tuple[float, ...] | None) -> tuple[str, float]:
    """Find the anatomical plane closest to an orientation, and the cosine of the angle between their normals.

    Return ("", 0.0) if the orientation is missing or degenerate.
    """
    if orientation is None:
        return "", 0.0
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    axis = int(np.argmax(normal))
    length = float(np.linalg.norm(normal))
    return (
        (("sagittal", "coronal", "axial")[axis], float(normal[axis]) / length) if length > 0.5 else ("", 0.0)
    )


def orthonormalise_orientation(orientation: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Return row and column direction as orthonormal vectors (six cosines); None if they are far from orthonormal.

    Headers round the cosines, some to two decimals. Differences up to 0.01 are corrected; the row direction is kept.
    """
    if orientation is None:
        return None
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if np.abs(lengths - 1.0).max() > ORTHONORMALITY_TOLERANCE or abs(row @ column) > ORTHONORMALITY_TOLERANCE:
        return None
    row /= lengths[0]
    column -= (column @ row) * row
    column /= np.linalg.norm(column)
    return (*row.tolist(), *column.tolist())

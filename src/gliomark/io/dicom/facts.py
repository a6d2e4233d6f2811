"""What one DICOM header says that can tell a series' kind: plain values, classic and enhanced files alike.

An enhanced file keeps its timing and technique in functional groups, shared or per frame; here both end in the
same record, so that nothing further on asks which of the two a file was.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

SKEW = 0.01  # how far direction cosines may be from length one and right angles
# Top-level tags needed here; reading names them, so that nothing else of a header is parsed.
FACT_TAGS = (
    "SOPClassUID", "Modality", "ImageType", "SeriesDescription", "ProtocolName", "StudyDescription",
    "BodyPartExamined", "AnatomicRegionSequence", "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle",
    "ScanningSequence", "SequenceVariant", "SequenceName", "PulseSequenceName", "AngioFlag",
    "MRAcquisitionType", "ContrastBolusAgent", "ContrastBolusAgentSequence", "DiffusionBValue",
    "NumberOfTemporalPositions", "BurnedInAnnotation", "SamplesPerPixel", "EchoPulseSequence",
    "EchoPlanarPulseSequence", "TimeOfFlightContrast", "PhaseContrast", "SteadyStatePulseSequence",
    "ComplexImageComponent", "AcquisitionContrast", "SliceThickness", "SpacingBetweenSlices", "PixelSpacing",
    "ImageOrientationPatient", "PatientIdentityRemoved", "DeidentificationMethod",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_NESTED = {
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "SpacingBetweenSlices": ("PixelMeasuresSequence", "SpacingBetweenSlices"),
}
_NO_AGENT = {
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
class HeaderFacts:
    """Times in ms, lengths in mm, angles in degrees; None or blank where the header does not say.

    technique: codes out of SE, GR, IR, EP, as ScanningSequence has them. orientation: row then column
    direction, LPS. agent: the contrast agent's text, blank for none; agent_tag: the tag exists, be it blank.
    """

    sop_class: str
    modality: str
    image_type: tuple[str, ...]
    description: str
    protocol: str
    study_description: str
    body_part: str
    repetition: float | None
    echo: float | None
    inversion: float | None
    flip: float | None
    technique: frozenset[str]
    variant: frozenset[str]
    sequence_name: str
    acquisition: str
    agent: str
    agent_tag: bool
    b_value: float
    temporal_positions: int
    burned_in: bool
    coloured: bool
    angiography: bool
    component: str
    contrast: str
    thickness: float | None
    spacing: tuple[float, float] | None
    orientation: tuple[float, ...] | None
    deidentified: bool


def text(header: Dataset, keyword: str) -> str:
    """A header value as plain text without NUL, blank where the tag is missing."""
    value = header.get(keyword)
    return "" if value is None else str(value).replace("\0", "").strip()


def group(header: Dataset, frame: int, name: str) -> Dataset | None:
    """A functional group of one frame of an enhanced file: its own, else the shared one, else None."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or ()
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    for holder in [*frames[frame : frame + 1], *shared[:1]]:
        if content := holder.get(name):
            found: Dataset = content[0]
            return found
    return None


def number(header: Dataset, keyword: str, frame: int = 0) -> float | None:
    """A number from the header itself or an enhanced file's groups; None where absent or unreadable."""
    value = header.get(keyword)
    if value in (None, "") and keyword in _NESTED:
        name, nested = _NESTED[keyword]
        holder = group(header, frame, name)
        value = holder.get(nested) if holder is not None else None
    return as_number(value)


def as_number(value: object) -> float | None:
    """The first number of a value, None for a blank or unreadable one."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    try:
        return float(value) if value not in (None, "") else None  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def numbers(value: object, count: int) -> tuple[float, ...] | None:
    """Exactly so many finite numbers, else None."""
    try:
        found = tuple(float(part) for part in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def codes(header: Dataset, keyword: str) -> tuple[str, ...]:
    """A value of one or several codes as upper-case texts."""
    value = header.get(keyword) or ()
    parts = [value] if isinstance(value, str) else list(value)
    return tuple(str(part).strip().upper() for part in parts)


def facts_of(header: Dataset) -> HeaderFacts:
    """Collect a header's facts; of an enhanced file those of its first frame."""
    orientation, spacing = geometry(header, 0)
    agent, agent_tag = _agent(header)
    return HeaderFacts(
        sop_class=text(header, "SOPClassUID"),
        modality=text(header, "Modality").upper(),
        image_type=image_type(header, 0),
        description=text(header, "SeriesDescription"),
        protocol=text(header, "ProtocolName"),
        study_description=text(header, "StudyDescription"),
        body_part=_body_part(header),
        repetition=_positive(number(header, "RepetitionTime")),
        echo=_positive(number(header, "EchoTime")),
        inversion=_positive(number(header, "InversionTime")),
        flip=_positive(number(header, "FlipAngle")),
        technique=_technique(header),
        variant=_variant(header),
        sequence_name=text(header, "SequenceName") or text(header, "PulseSequenceName"),
        acquisition=text(header, "MRAcquisitionType").upper(),
        agent=agent,
        agent_tag=agent_tag,
        b_value=number(header, "DiffusionBValue") or 0.0,
        temporal_positions=int(number(header, "NumberOfTemporalPositions") or 1),
        burned_in=text(header, "BurnedInAnnotation").upper() == "YES",
        coloured=(number(header, "SamplesPerPixel") or 1) > 1,
        angiography=_angiography(header),
        component=text(header, "ComplexImageComponent").upper(),
        contrast=text(header, "AcquisitionContrast").upper(),
        thickness=max(
            (_length(header, name) for name in ("SpacingBetweenSlices", "SliceThickness")), default=0
        )
        or None,
        spacing=spacing,
        orientation=orientation,
        deidentified=text(header, "PatientIdentityRemoved").upper() == "YES"
        or bool(header.get("DeidentificationMethod")),
    )


def image_type(header: Dataset, frame: int) -> tuple[str, ...]:
    """ImageType, or the frame's own FrameType where an enhanced file mixes kinds."""
    own = group(header, frame, "MRImageFrameTypeSequence")
    stated = (codes(own, "FrameType") if own is not None else ()) or codes(header, "ImageType")
    return (*stated, *(part for part in _siemens_image_type(header, frame) if part not in stated))


def _siemens_image_type(header: Dataset, frame: int) -> tuple[str, ...]:
    """What Siemens' enhanced files keep of the classic ImageType (NORM, DIS2D, SWI) in a private group."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or ()
    holder = frames[frame].get((0x0021, 0x11FE)) if frame < len(frames) else None
    if holder is None or holder.VR != "SQ" or not holder.value:
        return ()
    element = holder.value[0].get((0x0021, 0x1175))
    value = element.value if element is not None else ()
    parts = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    return tuple(str(part).strip().upper() for part in parts)


def geometry(header: Dataset, frame: int) -> tuple[tuple[float, ...] | None, tuple[float, float] | None]:
    """Orientation (six cosines) and pixel spacing (between rows, between columns) of one frame."""
    turn = group(header, frame, "PlaneOrientationSequence") or header
    measures = group(header, frame, "PixelMeasuresSequence") or header
    spacing = numbers(measures.get("PixelSpacing"), 2)
    if spacing is not None and min(spacing) <= 0:
        spacing = None
    return numbers(turn.get("ImageOrientationPatient"), 6), (spacing[0], spacing[1]) if spacing else None


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _length(header: Dataset, keyword: str) -> float:
    return abs(number(header, keyword) or 0.0)


def _body_part(header: Dataset) -> str:
    """BodyPartExamined, else the anatomic region's meaning, also from an enhanced file's frames."""
    if part := text(header, "BodyPartExamined"):
        return part
    holder = header if header.get("AnatomicRegionSequence") else group(header, 0, "FrameAnatomySequence")
    regions = (holder.get("AnatomicRegionSequence") if holder is not None else None) or ()
    return text(regions[0], "CodeMeaning") if regions else ""


def _technique(header: Dataset) -> frozenset[str]:
    """ScanningSequence's codes, or the same from an enhanced file's own tags."""
    found = set(codes(header, "ScanningSequence"))
    pulse = text(header, "EchoPulseSequence").upper()
    found |= {"SPIN": {"SE"}, "GRADIENT": {"GR"}, "BOTH": {"SE", "GR"}}.get(pulse, set())
    modifier = group(header, 0, "MRModifierSequence")
    if modifier is not None and text(modifier, "InversionRecovery").upper() == "YES":
        found.add("IR")
    if text(header, "EchoPlanarPulseSequence").upper() == "YES":
        found.add("EP")
    # Philips says it in ImageType: M_FFE is a gradient echo, M_SE a spin echo, M_IR inversion recovery.
    for part in codes(header, "ImageType"):
        if match := re.fullmatch(r"[MPRI]_(FFE|SE|IR|TSE|EPI)", part):
            found.add({"FFE": "GR", "TSE": "SE", "EPI": "EP"}.get(match[1], match[1]))
    return frozenset(found & {"SE", "GR", "IR", "EP"})


def _variant(header: Dataset) -> frozenset[str]:
    """SequenceVariant's codes: SP spoiled, SS steady state, MP prepared; the same from an enhanced file."""
    found = set(codes(header, "SequenceVariant"))
    modifier = group(header, 0, "MRModifierSequence")
    spoiling = text(modifier, "Spoiling").upper() if modifier is not None else ""
    if spoiling in {"RF", "GRADIENT", "RF_AND_GRADIENT"}:
        found.add("SP")
    if text(header, "SteadyStatePulseSequence").upper() in {"FREE_PRECESSION", "TRANSVERSE", "TIME_REVERSED"}:
        found.add("SS")
    return frozenset(found)


def _agent(header: Dataset) -> tuple[str, bool]:
    """The contrast agent's text (blank for none) and whether the header has the tag at all."""
    usage = group(header, 0, "ContrastBolusUsageSequence")
    if usage is not None and text(usage, "ContrastBolusAgentAdministered").upper() == "NO":
        return "", True
    nested = header.get("ContrastBolusAgentSequence")
    written = text(header, "ContrastBolusAgent")
    named = "" if written.lower() in _NO_AGENT else written
    if nested and not named:
        named = text(nested[0], "CodeMeaning") or text(nested[0], "ContrastBolusAgent") or "a contrast agent"
    return named, "ContrastBolusAgent" in header or nested is not None


def _angiography(header: Dataset) -> bool:
    flags = ("TimeOfFlightContrast", "PhaseContrast")
    angio = text(header, "AngioFlag").upper() in {"Y", "YES"}
    return angio or any(text(header, name).upper() == "YES" for name in flags)


def is_original(facts: HeaderFacts) -> bool:
    """Whether ImageType does not mark the images as derived from others."""
    return not facts.image_type or facts.image_type[0] != "DERIVED"


def nearest_plane(orientation: tuple[float, ...] | None) -> tuple[str, float]:
    """The plane that six direction cosines come closest to, and the cosine of the angle to it."""
    if orientation is None:
        return "", 0.0
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    at = int(np.argmax(normal))
    length = float(np.linalg.norm(normal))
    return (("sagittal", "coronal", "axial")[at], float(normal[at]) / length) if length > 0.5 else ("", 0.0)


def unit(orientation: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Row and column direction of length one at a right angle; None where they are far from that.

    Headers round cosines to two digits and more, so up to a hundredth is put right: the row keeps its direction.
    """
    if orientation is None:
        return None
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if np.abs(lengths - 1.0).max() > SKEW or abs(row @ column) > SKEW:
        return None
    row /= lengths[0]
    column -= (column @ row) * row
    column /= np.linalg.norm(column)
    return (*row.tolist(), *column.tolist())

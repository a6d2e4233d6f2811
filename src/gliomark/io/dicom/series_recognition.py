"""Classify a series by timing and attributes first and by its description second; report contradictions as unknown.

Criteria, in this order: SOP class and modality; ImageType and burned-in text; number of images; body part; technique
(echo-planar, diffusion, time series, angiography); words that name another kind; plane; then the weighting inferred
from timing, compared with the description. If timing and description disagree and the timing alone is not conclusive,
the kind is ``unknown`` and the reason states the contradiction. A reformatted or other DERIVED volume is accepted if
its weighting is clear, but any original series is preferred (see ``choose_series``).
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID

from gliomark.io.dicom.description_words import (
    find_other_body_part,
    find_plane_in_words,
    find_weighting_in_words,
    has_head_words,
    has_inversion_words,
)
from gliomark.io.dicom.header_metadata import (
    HeaderMetadata,
    extract_header_metadata,
    find_nearest_plane,
    is_original,
)
from gliomark.io.dicom.recognised_values import (
    ACQUISITION_CONTRAST_KINDS,
    ACQUISITION_CONTRAST_SEQUENCES,
    IMAGE_TYPE_KINDS,
    MODALITY_KINDS,
    SOP_CLASS_KINDS,
    SOP_CLASS_PREFIX_KINDS,
)
from gliomark.io.dicom.repeated_images import MIN_TIME_SERIES_REPEATS
from gliomark.io.dicom.weighting import WeightingEstimate, describe_timing, infer_weighting
from gliomark.io.naming import find_excluded_image_kind, parse_contrast
from gliomark.messages import Message, find_message_for_text, message
from gliomark.study import MRSequence

# sagittal and coronal series with larger slice spacing cannot be resliced to axial
MAX_3D_SLICE_SPACING_MM = 2.5
MAX_ISOTROPIC_VOXEL_MM = 2.0  # voxels up to this size on every side can be resliced
_MAX_LOCALISER_IMAGES = 15  # per plane of a three-plane localiser


@dataclass(frozen=True)
class SeriesRecognition:
    """What a series is.

    sequence: None if the series is not T1, T1C, T2 or FLAIR. kind: name of the sequence or of another kind of image.
    reason: one sentence (a ``Message``).
    """

    sequence: MRSequence | None
    kind: str
    reason: str


@dataclass(frozen=True)
class SeriesContext:
    """Properties of all series that share one SeriesInstanceUID: how many series, echoes, planes and time points.

    max_b_value: in s/mm2. has_constant_agent: whether all time points state the same contrast agent or none.
    """

    series_count: int = 1
    echo_count: int = 1
    plane_count: int = 1
    repeat_count: int = 1
    max_b_value: float = 0.0
    has_constant_agent: bool = True


def recognise_series_from_header(header: Dataset, image_count: int) -> SeriesRecognition:
    """Recognise a series from the header of one of its images and the number of images."""
    return recognise_series(extract_header_metadata(header), image_count)


def recognise_series(
    metadata: HeaderMetadata,
    image_count: int,
    slice_spacing_mm: float | None = None,
    series_context: SeriesContext = SeriesContext(),  # noqa: B008
) -> SeriesRecognition:
    """Recognise a series from its metadata; slice_spacing_mm is the measured one, None to use the header's."""
    found = (
        _reject_by_sop_class(metadata)
        or _reject_by_image_type(metadata)
        or _reject_by_image_count(metadata, image_count)
        or _reject_by_body_part(metadata)
        or _reject_by_technique(metadata, image_count, series_context)
        or _reject_by_description(metadata)
        or _reject_by_plane(metadata, slice_spacing_mm or metadata.slice_spacing_mm)
    )
    if found:
        return found
    return _add_geometry_to_reason(
        _recognise_by_weighting(metadata, series_context),
        metadata,
        slice_spacing_mm or metadata.slice_spacing_mm,
    )


def _reject_series(kind: str, clause: str) -> SeriesRecognition:
    return SeriesRecognition(None, kind, _format_sentence(clause))


def _accept_series(sequence: MRSequence, clause: str) -> SeriesRecognition:
    return SeriesRecognition(sequence, sequence.value, _format_sentence(clause))


def _format_sentence(clause: str) -> str:
    return message("recognised-sentence", clause=clause)


def _join_clauses(clause: str, addition: str) -> str:
    return message("recognised-and", clause=clause, more=addition)


def _reject_by_sop_class(metadata: HeaderMetadata) -> SeriesRecognition | None:
    """Reject objects that are not MR images."""
    kind = SOP_CLASS_KINDS.get(metadata.sop_class_uid)
    if kind is None and metadata.sop_class_uid:
        kind = next(
            (name for stem, name in SOP_CLASS_PREFIX_KINDS if metadata.sop_class_uid.startswith(stem)), None
        )
        kind = kind or MODALITY_KINDS.get(metadata.modality, "other modality")
    if kind:
        return _reject_series(
            kind, message("recognised-class", name=UID(metadata.sop_class_uid).name or metadata.sop_class_uid)
        )
    if metadata.modality not in {"", "MR"}:
        kind = MODALITY_KINDS.get(metadata.modality, "other modality")
        return _reject_series(kind, message("recognised-modality", modality=metadata.modality))
    return None


def _reject_by_image_type(metadata: HeaderMetadata) -> SeriesRecognition | None:
    if metadata.has_burned_in_annotation or metadata.is_colour:
        code = "recognised-burned-in" if metadata.has_burned_in_annotation else "recognised-colour"
        return _reject_series("screenshot", message(code))
    parts = set(metadata.image_type) | {metadata.complex_image_component}
    for kind, marks in IMAGE_TYPE_KINDS:
        if found_marks := parts & marks:
            return _reject_series(kind, message("recognised-image-type", marks="/".join(sorted(found_marks))))
    return None


def _reject_by_image_count(metadata: HeaderMetadata, image_count: int) -> SeriesRecognition | None:
    if image_count > 1:
        return None
    words = find_excluded_image_kind(metadata.series_description)
    return _reject_series(
        words[0] if words else "single image", message("recognised-count", count=image_count)
    )


def _reject_by_body_part(metadata: HeaderMetadata) -> SeriesRecognition | None:
    """Reject other body parts: by BodyPartExamined, then by the descriptions of series and study."""
    part = metadata.body_part
    if part and (body_part := find_other_body_part(part)) and not has_head_words(part):
        return _reject_series("other body part", message("recognised-body-part", part=part, words=body_part))
    for name, words in (
        ("SeriesDescription", metadata.series_description),
        ("ProtocolName", metadata.protocol_name),
    ):
        if (body_part := find_other_body_part(words)) and not has_head_words(words):
            return _reject_series(
                "other body part", message("recognised-elsewhere", source=name, words=body_part)
            )
    series_words = f"{metadata.series_description} {metadata.protocol_name} {part}"
    if (body_part := find_other_body_part(metadata.study_description)) and not has_head_words(
        f"{series_words} {metadata.study_description}"
    ):
        reason = message("recognised-elsewhere", source="StudyDescription", words=body_part)
        return _reject_series("other body part", reason)
    return None


def _reject_by_technique(
    metadata: HeaderMetadata, image_count: int, series_context: SeriesContext
) -> SeriesRecognition | None:
    """Reject diffusion, perfusion, echo-planar, angiography, multi-echo series and localisers by their attributes."""
    b_value = max(metadata.b_value, series_context.max_b_value)
    name = metadata.sequence_name.lower()
    if b_value > 0:
        return _reject_series("DWI", message("recognised-b-value", value=b_value))
    if "EP" in metadata.scanning_sequence or name.lstrip("*").startswith(
        ("ep_", "epfid", "epse", "ep2d", "epi", "epir")
    ):
        return _reject_echo_planar(metadata, series_context)
    if metadata.acquisition_contrast in ACQUISITION_CONTRAST_KINDS:
        return _reject_series(
            ACQUISITION_CONTRAST_KINDS[metadata.acquisition_contrast],
            message("recognised-contrast", contrast=metadata.acquisition_contrast),
        )
    if max(metadata.temporal_position_count, series_context.repeat_count) >= MIN_TIME_SERIES_REPEATS:
        count = max(metadata.temporal_position_count, series_context.repeat_count)
        return _reject_series("perfusion", message("recognised-time-series", count=count))
    if metadata.is_angiography:
        return _reject_series("angiography", message("recognised-angiography"))
    if series_context.plane_count == 3 and image_count <= _MAX_LOCALISER_IMAGES:
        return _reject_series("localiser", message("recognised-scout", count=image_count))
    if (
        series_context.echo_count > 1
        and "GR" in metadata.scanning_sequence
        and not metadata.inversion_time_ms
    ):
        return _reject_series("T2*", message("recognised-echoes", count=series_context.echo_count))
    return None


def _reject_echo_planar(metadata: HeaderMetadata, series_context: SeriesContext) -> SeriesRecognition:
    count = max(metadata.temporal_position_count, series_context.repeat_count)
    words = find_excluded_image_kind(f"{metadata.series_description} {metadata.protocol_name}")
    kind = (
        words[0]
        if words
        else "perfusion"
        if count >= 2 * MIN_TIME_SERIES_REPEATS or (metadata.echo_time_ms or 99) < 50
        else "DWI"
    )
    return _reject_series(
        kind, message("recognised-echo-planar", timing=describe_timing(metadata), count=count)
    )


def _reject_by_description(metadata: HeaderMetadata) -> SeriesRecognition | None:
    """Reject if words name another kind; ProtocolName counts only if SeriesDescription names no weighting."""
    if kind_and_words := find_excluded_image_kind(metadata.series_description):
        return _reject_series(kind_and_words[0], _quote_attribute("SeriesDescription", kind_and_words[1]))
    if not find_weighting_in_words(metadata.series_description) and (
        kind_and_words := find_excluded_image_kind(metadata.protocol_name)
    ):
        return _reject_series(kind_and_words[0], _quote_attribute("ProtocolName", kind_and_words[1]))
    return None


def _quote_attribute(source: str, words: str) -> str:
    return message("recognised-words", source=source, words=words)


def _reject_by_plane(metadata: HeaderMetadata, slice_spacing_mm: float | None) -> SeriesRecognition | None:
    """Reject thick sagittal and coronal series; use the description if no orientation is stated."""
    plane, _ = find_nearest_plane(metadata.orientation)
    source = "ImageOrientationPatient"
    if not plane:
        plane, source = find_plane_in_words(metadata.series_description), "SeriesDescription"
    if plane not in {"sagittal", "coronal"} or _is_resliceable(metadata, slice_spacing_mm):
        return None
    parameters = {"source": source, "plane": message(f"recognised-{plane}")}
    if slice_spacing_mm:
        return _reject_series(plane, message("recognised-thick", **parameters, step=slice_spacing_mm))
    return _reject_series(plane, message("recognised-thick-unwritten", **parameters))


def _is_resliceable(metadata: HeaderMetadata, slice_spacing_mm: float | None) -> bool:
    """Whether voxels are near-isotropic: every side at most 2 mm (slice spacing up to 2.5 mm in 3-D acquisitions)."""
    if slice_spacing_mm is None:
        return metadata.acquisition_type == "3D"
    in_plane = max(metadata.pixel_spacing_mm) if metadata.pixel_spacing_mm else 0.0
    return in_plane <= MAX_ISOTROPIC_VOXEL_MM and (
        slice_spacing_mm <= MAX_ISOTROPIC_VOXEL_MM
        or (slice_spacing_mm <= MAX_3D_SLICE_SPACING_MM and metadata.acquisition_type == "3D")
    )


def _recognise_by_weighting(metadata: HeaderMetadata, series_context: SeriesContext) -> SeriesRecognition:
    """Compare the weighting inferred from timing with the one in the description."""
    timing = infer_weighting(metadata)
    words: MRSequence | str | None = find_weighting_in_words(metadata.series_description)
    source = "SeriesDescription"
    if words is None:
        words, source = find_weighting_in_words(metadata.protocol_name), "ProtocolName"
    if words is None and metadata.acquisition_contrast in ACQUISITION_CONTRAST_SEQUENCES:
        words, source = ACQUISITION_CONTRAST_SEQUENCES[metadata.acquisition_contrast], "AcquisitionContrast"
    words_clause = _quote_attribute(source, words) if words else message("recognised-no-words")
    sequence, reason = _reconcile_timing_and_words(timing, words, words_clause, metadata)
    if not isinstance(sequence, MRSequence):
        return _reject_series(sequence or "unknown", reason)
    return (
        _recognise_contrast_of_t1(metadata, reason, series_context)
        if sequence == MRSequence.T1
        else _accept_series(sequence, reason)
    )


def _reconcile_timing_and_words(
    timing: WeightingEstimate, words: MRSequence | str | None, words_clause: str, metadata: HeaderMetadata
) -> tuple[str | None, str]:
    """Reconcile timing and words: (kind, reason); kind is None if they contradict each other or are insufficient."""
    has_no_timing = (
        metadata.repetition_time_ms is None
        and metadata.echo_time_ms is None
        and metadata.inversion_time_ms is None
    )
    parameters = {"timing": timing.reason, "said": words_clause, "kind": _translate_kind(timing.kind)}
    if timing.reason == message("recognised-no-timing"):
        parameters["timing"] = message("recognised-no-timing-first")  # this form begins a sentence
    if timing.kind is not None and (words is None or words == timing.kind):
        return timing.kind, message("recognised-timing", **parameters)
    if words is None:
        return None, message("recognised-timing-silent", **parameters)
    inline_parameters = parameters | {"timing": timing.reason}
    if isinstance(words, MRSequence) and words in timing.plausible_sequences:
        if (
            words == MRSequence.T1
            and timing.kind == "PD"
            and not has_inversion_words(metadata.series_description)
        ):
            return None, message("recognised-density-but", **parameters)
        return words, message(
            "recognised-silent" if has_no_timing else "recognised-allowed", **inline_parameters
        )
    if timing.kind is not None and timing.is_conclusive:
        is_target_sequence = isinstance(timing.kind, MRSequence)
        return timing.kind, message(
            "recognised-certain" if is_target_sequence else "recognised-although", **parameters
        )
    if words == "PD" and timing.kind is None:
        return "PD", words_clause
    return None, message(
        "recognised-against" if timing.kind else "recognised-against-none", **inline_parameters
    )


def _translate_kind(kind: str | None) -> str:
    return find_message_for_text(str(kind or ""), "recognised-steady-state", "recognised-unknown-kind")


def _recognise_contrast_of_t1(
    metadata: HeaderMetadata, reason: str, series_context: SeriesContext
) -> SeriesRecognition:
    """Distinguish T1 from T1C: by the description, then by the contrast agent attribute."""
    words = parse_contrast(metadata.series_description)
    if words is None:
        words = parse_contrast(metadata.protocol_name) if not metadata.contrast_agent else None
    if words is False:
        before = message("recognised-before-contrast")
        if metadata.contrast_agent:
            before = message("recognised-before-although", agent=metadata.contrast_agent)
        return _accept_series(MRSequence.T1, _join_clauses(reason, before))
    if not (words or metadata.contrast_agent):
        return _recognise_unenhanced_t1(metadata, reason)
    if series_context.repeat_count > 1 and series_context.has_constant_agent:
        return _reject_series(
            "unknown", _join_clauses(reason, message("recognised-repeats", count=series_context.repeat_count))
        )
    after = message("recognised-after-contrast")
    return _accept_series(
        MRSequence.T1C,
        _join_clauses(reason, after if words else message("recognised-agent", agent=metadata.contrast_agent)),
    )


def _recognise_unenhanced_t1(metadata: HeaderMetadata, reason: str) -> SeriesRecognition:
    """Recognise T1, unless de-identification removed everything that could indicate contrast."""
    if (
        metadata.is_deidentified
        and not metadata.has_contrast_agent_attribute
        and not (metadata.series_description or metadata.protocol_name)
    ):
        return _reject_series("unknown", _join_clauses(reason, message("recognised-deidentified")))
    return _accept_series(MRSequence.T1, _join_clauses(reason, message("recognised-no-contrast")))


def _add_geometry_to_reason(
    found: SeriesRecognition, metadata: HeaderMetadata, slice_spacing_mm: float | None
) -> SeriesRecognition:
    """Add to the reason that the images are resliced or derived."""
    if found.sequence is None:
        return found
    assert isinstance(found.reason, Message)
    clause, (plane, _) = found.reason.parameters["clause"], find_nearest_plane(metadata.orientation)
    if plane in {"sagittal", "coronal"}:
        plane_name = message(f"recognised-{plane}")
        resliced = message("recognised-resliced-unwritten", plane=plane_name)
        if slice_spacing_mm:
            resliced = message("recognised-resliced", plane=plane_name, step=slice_spacing_mm)
        clause = _join_clauses(clause, resliced)
    if not is_original(metadata):
        clause = _join_clauses(clause, message("recognised-derived"))
    return _accept_series(found.sequence, clause)

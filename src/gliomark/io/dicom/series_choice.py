"""Choose the best series of each sequence by fixed criteria, and explain why the others were not chosen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from gliomark.io.dicom.header_metadata import find_nearest_plane, is_original
from gliomark.io.dicom.series import DicomSeries
from gliomark.messages import message
from gliomark.study import MRSequence

_HEAD_LENGTH_MM = 140.0  # covers the whole head; a longer series is not better
_COVERAGE_STEP_MM = 15.0
_RANKING_CRITERIA = (
    "series-original",
    "series-complete",
    "series-axial",
    "series-covers-more",
    "series-more-slices",
    "series-evened-out",
    "series-later",
)


def choose_series(series: Sequence[DicomSeries]) -> dict[MRSequence, DicomSeries]:
    """Choose one series per sequence from the series of one examination.

    Criteria, in this order: original before derived; complete before missing slices; axial (also oblique) before
    3-D to be resliced; larger coverage of the head (in steps of 15 mm, up to 140 mm); more slices;
    intensity-normalised (NORM in ImageType); later acquisition; larger series key, so that the result does not
    depend on file order.
    """
    chosen: dict[MRSequence, DicomSeries] = {}
    for sequence in MRSequence:
        if candidates := [one for one in series if one.recognition.sequence == sequence]:
            chosen[sequence] = max(candidates, key=lambda one: (*_rank_series(one), one.series_key))
    return chosen


def explain_choice(chosen: DicomSeries, other: DicomSeries) -> str:
    """Explain in one sentence why a candidate of the same sequence was not chosen."""
    return (
        f"Not chosen: another {chosen.recognition.kind} series of the examination "
        f"{describe_advantage(chosen, other)}."
    )


def describe_advantage(chosen: DicomSeries, other: DicomSeries) -> str:
    """Describe the advantage of the chosen series over another candidate, as the end of a sentence."""
    ranks = zip(_RANKING_CRITERIA, _rank_series(chosen), _rank_series(other), strict=True)
    return message(
        next(
            (rule for rule, chosen_value, other_value in ranks if chosen_value != other_value), "series-equal"
        )
    )


def _rank_series(series: DicomSeries) -> tuple[Any, ...]:
    """Return one value per entry of ``_RANKING_CRITERIA``; larger is better."""
    slice_positions = series.slice_positions
    covered_mm = (
        min(slice_positions.slice_spacing_mm * (len(slice_positions.even_mm) - 1), _HEAD_LENGTH_MM)
        if slice_positions
        else 0.0
    )
    plane = find_nearest_plane(series.instance_frames[0][1].orientation)[0] if series.instance_frames else ""
    return (
        is_original(series.first_instance.metadata),
        slice_positions is not None
        and not slice_positions.missing_indices
        and slice_positions.is_safe_to_resample,
        plane in {"axial", ""},
        int(covered_mm // _COVERAGE_STEP_MM),
        len(slice_positions.measured_mm) if slice_positions else series.image_count,
        "NORM" in series.first_instance.metadata.image_type,
        series.first_instance.acquisition_sort_key,
    )


def describe_contrast_ambiguity(series: Sequence[DicomSeries]) -> str:
    """Warn if T1 series have the same protocol but different times and none is marked as contrast-enhanced.

    Some hospitals record neither the contrast agent nor a description. Acquisition order alone does not identify the
    contrast-enhanced series reliably, so it is left to the user. Return "" if there is no ambiguity.
    """
    if any(one.recognition.sequence == MRSequence.T1C for one in series):
        return ""
    t1_series = [
        one
        for one in series
        if one.recognition.sequence == MRSequence.T1 and is_original(one.first_instance.metadata)
    ]
    times_by_protocol: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for one in t1_series:
        metadata = one.first_instance.metadata
        times_by_protocol[
            one.plane, metadata.sequence_name, metadata.repetition_time_ms, metadata.echo_time_ms
        ].add(one.first_instance.acquisition_datetime)
    if not any(len(times) > 1 for times in times_by_protocol.values()):
        return ""
    return message("contrast-doubt", count=len(t1_series))

"""The best stack per sequence, by a stated rule, and why the others were not chosen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from gliomark.io.dicom.facts import is_original, nearest_plane
from gliomark.io.dicom.series import DicomSeries
from gliomark.messages import message
from gliomark.study import MRSequence

_HEAD_MM = 140.0  # a stack this long covers the head; longer earns nothing
_COVER_STEP_MM = 15.0
_RULE = (
    "series-original",
    "series-complete",
    "series-axial",
    "series-covers-more",
    "series-more-slices",
    "series-evened-out",
    "series-later",
)


def choose_series(series: Sequence[DicomSeries]) -> dict[MRSequence, DicomSeries]:
    """The series to read per sequence, from one examination's.

    By this order: original before derived; complete before one with slices missing; axial (also tilted) before
    a resliced three-dimensional one; more of the head covered (in steps of 15 mm, up to 140 mm); more slices;
    evened out for the coil (NORM in ImageType); later acquisition; last, the larger key, so that the choice never
    hangs on the order of files.
    """
    chosen: dict[MRSequence, DicomSeries] = {}
    for sequence in MRSequence:
        if candidates := [one for one in series if one.recognition.sequence == sequence]:
            chosen[sequence] = max(candidates, key=lambda one: (*_rank(one), one.key))
    return chosen


def why_chosen(chosen: DicomSeries, other: DicomSeries) -> str:
    """One sentence for a candidate of the same sequence that was not chosen: what decided."""
    return (
        f"Not chosen: another {chosen.recognition.kind} series of the examination {why_best(chosen, other)}."
    )


def why_best(chosen: DicomSeries, other: DicomSeries) -> str:
    """What the chosen one has over another candidate of its sequence, as the end of a sentence."""
    ranks = zip(_RULE, _rank(chosen), _rank(other), strict=True)
    return message(next((rule for rule, ours, theirs in ranks if ours != theirs), "series-equal"))


def _rank(series: DicomSeries) -> tuple[Any, ...]:
    """Larger is better, in the order of ``_RULE``."""
    grid = series.grid
    covered = min(grid.step * (len(grid.grid) - 1), _HEAD_MM) if grid else 0.0
    nearest = nearest_plane(series.frames[0][1].orientation)[0] if series.frames else ""
    return (
        is_original(series.first.facts),
        grid is not None and not grid.missing and grid.safe,
        nearest in {"axial", ""},
        int(covered // _COVER_STEP_MM),
        len(grid.places) if grid else series.images,
        "NORM" in series.first.facts.image_type,
        series.first.acquired,
    )


def contrast_doubt(series: Sequence[DicomSeries]) -> str:
    """A sentence where one examination has several T1 taken alike at different times and none said to be a T1C.

    Some hospitals write neither agent nor words; then only the order tells, and that is for a person to judge.
    Blank where there is no such doubt.
    """
    if any(one.recognition.sequence == MRSequence.T1C for one in series):
        return ""
    plain = [
        one for one in series if one.recognition.sequence == MRSequence.T1 and is_original(one.first.facts)
    ]
    moments: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for one in plain:
        facts = one.first.facts
        moments[one.plane, facts.sequence_name, facts.repetition, facts.echo].add(one.first.acquired_at)
    if not any(len(times) > 1 for times in moments.values()):
        return ""
    return message("contrast-doubt", count=len(plain))

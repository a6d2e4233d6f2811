"""A patient's DICOM series parted into examinations, one of them chosen, and of it the series to read.

``read_dicom`` and ``cohort build`` both choose here. An examination is a study (StudyInstanceUID) that holds one of
the four sequences. Studies of one day are one examination where none of them is complete by itself. A study whose
series are copies of another's counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from gliomark.io.dicom.choice import choose_series, contrast_doubt, why_chosen
from gliomark.io.dicom.repeats import same_images
from gliomark.io.dicom.series import DicomSeries
from gliomark.io.examinations import Candidate, choose_examination, is_complete
from gliomark.io.naming import after_surgery_in_words
from gliomark.messages import message
from gliomark.study import Examination, MRSequence


@dataclass(frozen=True, eq=False)
class ChosenSeries:
    """used: the series to read; series: all of the examination's; reasons: for each series of the patient by its key,
    what it is and why it was not chosen."""

    used: Mapping[MRSequence, DicomSeries]
    series: tuple[DicomSeries, ...]
    examination: Examination
    notes: tuple[str, ...]
    reasons: Mapping[str, str]


def choose_from(
    where: Path | str, series: Sequence[DicomSeries], needed: Sequence[MRSequence] = ()
) -> ChosenSeries | None:
    """The examination and its series; None where no series is one of the four sequences.

    needed: what a model or a cohort takes. Raises GliomarkError as ``choose_examination``.
    """
    kept, copies = _without_copies(series)
    examinations = _examinations(kept, needed)
    if not examinations:
        return None
    chosen, examination, notes = choose_examination(where, list(examinations), needed)
    theirs = examinations[chosen]
    used = choose_series(theirs)
    doubt = contrast_doubt(theirs)
    left_out = tuple(
        message("series-copies", sequence=name, count=count)
        for name in MRSequence
        if (count := sum(one.recognition.sequence == name for one in copies))
    )
    reasons = {one.key: one.recognition.reason for one in series}
    for one in series:
        reasons[one.key] += _why_not(one, used, theirs, copies)
    said = (*notes, *left_out, *([doubt] if doubt else []))
    return ChosenSeries(used, tuple(theirs), examination, said, reasons)


def _why_not(
    one: DicomSeries,
    used: Mapping[MRSequence, DicomSeries],
    theirs: Sequence[DicomSeries],
    copies: Sequence[DicomSeries],
) -> str:
    """What a series' reason adds where it is not read; blank where it is, or is none of the four sequences."""
    sequence = one.recognition.sequence
    if sequence is None or one in used.values():
        return ""
    if one in copies:
        return " Not chosen: its images are copies of another series'."
    if one not in theirs:
        return " Not chosen: another examination of the patient was."
    return f" {why_chosen(used[sequence], one)}"


# ---- examinations -----------------------------------------------------------------------------------


def _examinations(
    series: Sequence[DicomSeries], needed: Sequence[MRSequence]
) -> dict[Candidate, list[DicomSeries]]:
    """The patient's examinations with the series of each."""
    studies = [one for one in _studies(series) if _sequences(one)]
    days: dict[tuple[str, bool], list[list[DicomSeries]]] = defaultdict(list)
    for study in studies:
        days[_date(study), _after_surgery(study)].append(study)
    found: list[list[DicomSeries]] = []
    for (day, _), theirs in days.items():
        apart = not day or any(is_complete(_sequences(study), needed) for study in theirs)
        found += theirs if apart else [[one for study in theirs for one in study]]
    return {_candidate(study): study for study in found}


def _studies(series: Sequence[DicomSeries]) -> list[list[DicomSeries]]:
    """Series by study and, where a study has several dates, by date."""
    by_uid: dict[str, list[DicomSeries]] = defaultdict(list)
    for one in series:
        by_uid[one.study_uid].append(one)
    studies: dict[tuple[str, str], list[DicomSeries]] = defaultdict(list)
    for uid, theirs in by_uid.items():
        dates = {one.study_date for one in theirs} - {""}
        only = next(iter(dates)) if len(dates) == 1 else ""
        for one in theirs:
            studies[uid, one.study_date or only].append(one)
    return list(studies.values())


def _candidate(study: Sequence[DicomSeries]) -> Candidate:
    date = _date(study)
    moment = min((one.first.acquired for one in study if one.first.acquired), default="") if date else ""
    return Candidate(
        name=f"study {study[0].study_uid or study[0].first.file.parent.name}",
        date=date,
        moment=moment,
        sequences=_sequences(study),
        after_surgery=_after_surgery(study),
    )


def _date(study: Sequence[DicomSeries]) -> str:
    return min((one.date for one in study if one.date), default="")


def _sequences(study: Sequence[DicomSeries]) -> frozenset[MRSequence]:
    return frozenset(name for one in study if (name := one.recognition.sequence))


def _after_surgery(study: Sequence[DicomSeries]) -> bool:
    """Whether the words of the examination or of one of its series say during or after surgery."""
    facts = [one.first.facts for one in study]
    return any(
        after_surgery_in_words(words)
        for one in facts
        for words in (one.study_description, one.description, one.protocol)
    )


# ---- copies -----------------------------------------------------------------------------------------


def _without_copies(series: Sequence[DicomSeries]) -> tuple[list[DicomSeries], list[DicomSeries]]:
    """The series without those whose images another has too, of the same examination or the same day; the copies.

    Of a series and its copy the one of the fuller study stays, so that no examination is torn apart.
    """
    size: dict[str, int] = defaultdict(int)
    for one in series:
        size[one.study_uid] += one.recognition.sequence is not None
    ordered = sorted(
        series, key=lambda one: (-size[one.study_uid], one.study_uid, one.first.acquired, one.key)
    )
    copies: list[DicomSeries] = []
    for one, other in combinations(ordered, 2):
        if one not in copies and other not in copies and _is_copy(one, other):
            copies.append(other)
    return [one for one in series if one not in copies], copies


def _is_copy(one: DicomSeries, other: DicomSeries) -> bool:
    sequence = one.recognition.sequence
    alike = sequence is not None and sequence == other.recognition.sequence and one.images == other.images
    if not alike or (one.study_uid != other.study_uid and one.date != other.date):
        return False
    return same_images(one.frames, other.frames)

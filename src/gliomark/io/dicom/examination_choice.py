"""Group a patient's DICOM series into examinations, choose one examination and the series to read from it.

Used by ``read_dicom`` and ``cohort build``. An examination is a study (StudyInstanceUID) with at least one of the
four sequences. Studies of one day are merged into one examination if none of them is complete. A study whose series
are copies of another study's counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from gliomark.io.dicom.repeated_images import has_same_images
from gliomark.io.dicom.series import DicomSeries
from gliomark.io.dicom.series_choice import choose_series, describe_contrast_ambiguity, explain_choice
from gliomark.io.examination_choice import ExaminationCandidate, choose_examination, has_required_sequences
from gliomark.io.naming import is_postoperative_description
from gliomark.messages import message
from gliomark.study import Examination, MRSequence


@dataclass(frozen=True, eq=False)
class SeriesChoice:
    """The chosen examination and its series.

    chosen_series: the series to read. examination_series: all series of the examination. reasons_by_key: for each
    series of the patient, what it is and, if it is not read, why.
    """

    chosen_series: Mapping[MRSequence, DicomSeries]
    examination_series: tuple[DicomSeries, ...]
    examination: Examination
    notes: tuple[str, ...]
    reasons_by_key: Mapping[str, str]


def choose_examination_series(
    source: Path | str, series: Sequence[DicomSeries], needed: Sequence[MRSequence] = ()
) -> SeriesChoice | None:
    """Choose the examination and its series; None if no series is one of the four sequences.

    needed: sequences that the model or cohort requires.

    Raises
    ------
    InputError
        If ``choose_examination`` cannot choose one.
    """
    kept, copies = _separate_copies(series)
    examinations = _group_by_examination(kept, needed)
    if not examinations:
        return None
    chosen, examination, notes = choose_examination(source, list(examinations), needed)
    examination_series = examinations[chosen]
    chosen_series = choose_series(examination_series)
    contrast_note = describe_contrast_ambiguity(examination_series)
    copy_notes = tuple(
        message("series-copies", sequence=name, count=count)
        for name in MRSequence
        if (count := sum(one.recognition.sequence == name for one in copies))
    )
    reasons = {one.series_key: one.recognition.reason for one in series}
    for one in series:
        reasons[one.series_key] += _explain_rejection(one, chosen_series, examination_series, copies)
    all_notes = (*notes, *copy_notes, *([contrast_note] if contrast_note else []))
    return SeriesChoice(chosen_series, tuple(examination_series), examination, all_notes, reasons)


def _explain_rejection(
    series: DicomSeries,
    chosen_series: Mapping[MRSequence, DicomSeries],
    examination_series: Sequence[DicomSeries],
    copies: Sequence[DicomSeries],
) -> str:
    """Explain why a series is not read; "" if it is read or is none of the four sequences."""
    sequence = series.recognition.sequence
    if sequence is None or series in chosen_series.values():
        return ""
    if series in copies:
        return " Not chosen: its images are copies of another series."
    if series not in examination_series:
        return " Not chosen: another examination of the patient was chosen."
    return f" {explain_choice(chosen_series[sequence], series)}"


# ---- examinations -----------------------------------------------------------------------------------


def _group_by_examination(
    series: Sequence[DicomSeries], needed: Sequence[MRSequence]
) -> dict[ExaminationCandidate, list[DicomSeries]]:
    """Group the patient's series by examination."""
    studies = [one for one in _group_by_study(series) if _collect_sequences(one)]
    studies_by_day: dict[tuple[str, bool], list[list[DicomSeries]]] = defaultdict(list)
    for study in studies:
        studies_by_day[_get_examination_date(study), _is_after_surgery(study)].append(study)
    found: list[list[DicomSeries]] = []
    for (day, _), same_day_studies in studies_by_day.items():
        are_separate = not day or any(
            has_required_sequences(_collect_sequences(study), needed) for study in same_day_studies
        )
        found += same_day_studies if are_separate else [[one for study in same_day_studies for one in study]]
    return {_create_candidate(study): study for study in found}


def _group_by_study(series: Sequence[DicomSeries]) -> list[list[DicomSeries]]:
    """Group series by study and, if a study has several dates, by date."""
    by_uid: dict[str, list[DicomSeries]] = defaultdict(list)
    for one in series:
        by_uid[one.study_instance_uid].append(one)
    studies: dict[tuple[str, str], list[DicomSeries]] = defaultdict(list)
    for uid, study_series in by_uid.items():
        dates = {one.study_date for one in study_series} - {""}
        only_date = next(iter(dates)) if len(dates) == 1 else ""
        for one in study_series:
            studies[uid, one.study_date or only_date].append(one)
    return list(studies.values())


def _create_candidate(examination_series: Sequence[DicomSeries]) -> ExaminationCandidate:
    date = _get_examination_date(examination_series)
    moment = (
        min(
            (
                one.first_instance.acquisition_sort_key
                for one in examination_series
                if one.first_instance.acquisition_sort_key
            ),
            default="",
        )
        if date
        else ""
    )
    first = examination_series[0]
    return ExaminationCandidate(
        name=f"study {first.study_instance_uid or first.first_instance.file.parent.name}",
        date=date,
        sort_time=moment,
        sequences=_collect_sequences(examination_series),
        is_postoperative=_is_after_surgery(examination_series),
    )


def _get_examination_date(examination_series: Sequence[DicomSeries]) -> str:
    return min((one.examination_date for one in examination_series if one.examination_date), default="")


def _collect_sequences(examination_series: Sequence[DicomSeries]) -> frozenset[MRSequence]:
    return frozenset(name for one in examination_series if (name := one.recognition.sequence))


def _is_after_surgery(examination_series: Sequence[DicomSeries]) -> bool:
    """Whether a description of the examination or of its series names intraoperative or postoperative imaging."""
    metadata = [one.first_instance.metadata for one in examination_series]
    return any(
        is_postoperative_description(words)
        for one in metadata
        for words in (one.study_description, one.series_description, one.protocol_name)
    )


# ---- copies -----------------------------------------------------------------------------------------


def _separate_copies(series: Sequence[DicomSeries]) -> tuple[list[DicomSeries], list[DicomSeries]]:
    """Separate series whose images are copies of another series of the same examination or day: (kept, copies).

    The series of the study with more sequences is kept, so that no examination is split.
    """
    sequence_counts: dict[str, int] = defaultdict(int)
    for one in series:
        sequence_counts[one.study_instance_uid] += one.recognition.sequence is not None
    ordered = sorted(
        series,
        key=lambda one: (
            -sequence_counts[one.study_instance_uid],
            one.study_instance_uid,
            one.first_instance.acquisition_sort_key,
            one.series_key,
        ),
    )
    copies: list[DicomSeries] = []
    for one, other in combinations(ordered, 2):
        if one not in copies and other not in copies and _is_copy(one, other):
            copies.append(other)
    return [one for one in series if one not in copies], copies


def _is_copy(one: DicomSeries, other: DicomSeries) -> bool:
    sequence = one.recognition.sequence
    may_be_copy = (
        sequence is not None
        and sequence == other.recognition.sequence
        and one.image_count == other.image_count
    )
    if not may_be_copy or (
        one.study_instance_uid != other.study_instance_uid and one.examination_date != other.examination_date
    ):
        return False
    return has_same_images(one.instance_frames, other.instance_frames)

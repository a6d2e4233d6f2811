"""Choose one of a patient's examinations: the same rule for folders of volumes and for DICOM.

Candidates are the examinations that show no sign of surgery and precede all that do. The earliest one that has all
required sequences is chosen; if none has them all, the one with the most of them, and of equals the earliest.
Sequences of different examinations are never combined: an error is raised if only several examinations together
would be complete, and if the order of two complete examinations is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import InputError
from gliomark.messages import message
from gliomark.study import Examination, MRSequence

# The method's pairs of sequences, used if neither a model nor a cohort states its required sequences.
_DEFAULT_SEQUENCE_SETS = ((MRSequence.T1C, MRSequence.T2), (MRSequence.T1C, MRSequence.FLAIR))


class NoExaminationError(InputError):
    """No examination can be chosen: only several together are complete, or their order is unknown."""


@dataclass(frozen=True)
class ExaminationCandidate:
    """One examination of a patient.

    Attributes
    ----------
    name
        Shown in messages if the date is unknown.
    date
        YYYYMMDD, empty if unknown.
    sort_time
        Sorts examinations of the same date; empty if unknown.
    sequences
        The sequences that it contains.
    is_postoperative
        Whether its description or name states that it was acquired during or after surgery.
    """

    name: str
    date: str
    sort_time: str
    sequences: frozenset[MRSequence]
    is_postoperative: bool = False

    @property
    def display_name(self) -> str:
        """The date as YYYY-MM-DD if known, else the name."""
        date = self.date
        return f"{date[:4]}-{date[4:6]}-{date[6:]}" if date else self.name


def choose_examination(
    folder: Path | str,
    candidates: Sequence[ExaminationCandidate],
    required_sequences: Sequence[MRSequence] = (),
) -> tuple[ExaminationCandidate, Examination, tuple[str, ...]]:
    """Choose the examination to read by the rule of this module.

    Parameters
    ----------
    folder
        The patient's folder, for messages.
    candidates
        At least one examination.
    required_sequences
        The sequences that a model or a cohort needs; if empty, T1C with T2 or FLAIR.

    Returns
    -------
    tuple[ExaminationCandidate, Examination, tuple[str, ...]]
        The chosen one, its date and number among all examinations, and notes for the user.

    Raises
    ------
    NoExaminationError
        If only several examinations together have the required sequences, or if the order of examinations is unknown.
    """
    ordered = sorted(candidates, key=_compute_sort_key)
    preoperative = _select_preoperative(ordered)
    eligible = preoperative or ordered
    complete = [one for one in eligible if _count_missing_sequences(one, required_sequences) == 0]
    if not complete:
        _check_not_split_over_examinations(folder, eligible, required_sequences)
    if len(complete) > 1 and _is_order_unknown(complete[0], complete[1]):
        raise NoExaminationError(
            message(
                "examinations-undated", folder=str(folder), count=len(complete), names=_format_names(complete)
            )
        )
    chosen = (
        complete[0]
        if complete
        else min(
            eligible,
            key=lambda one: (_count_missing_sequences(one, required_sequences), _compute_sort_key(one)),
        )
    )
    examination = Examination(chosen.date, ordered.index(chosen) + 1, len(ordered))
    return chosen, examination, _collect_choice_notes(chosen, examination, ordered, bool(preoperative))


def has_required_sequences(
    sequences: frozenset[MRSequence], required_sequences: Sequence[MRSequence] = ()
) -> bool:
    """Whether an examination has all required sequences."""
    return not _count_missing_sequences(ExaminationCandidate("", "", "", sequences), required_sequences)


def _compute_sort_key(candidate: ExaminationCandidate) -> tuple[bool, str, bool, bool, str, str]:
    """Sort by date, undated ones last; postoperative ones last within a date."""
    return (
        not candidate.date,
        candidate.date,
        candidate.is_postoperative,
        not candidate.sort_time,
        candidate.sort_time,
        candidate.name,
    )


def _is_order_unknown(first: ExaminationCandidate, second: ExaminationCandidate) -> bool:
    """Whether neither date nor time shows which of two examinations is earlier."""
    unknown = not first.date and not first.sort_time
    return unknown or (first.date, first.sort_time) == (second.date, second.sort_time)


def _select_preoperative(ordered: Sequence[ExaminationCandidate]) -> list[ExaminationCandidate]:
    """Select the examinations before the first postoperative one.

    An undated one counts as preoperative unless marked postoperative.
    """
    postoperative = [one for one in ordered if one.is_postoperative]
    first_postoperative_date = min((one.date for one in postoperative if one.date), default="")
    return [
        one
        for one in ordered
        if not one.is_postoperative
        and not (first_postoperative_date and one.date and one.date > first_postoperative_date)
    ]


def _count_missing_sequences(
    candidate: ExaminationCandidate, required_sequences: Sequence[MRSequence]
) -> int:
    choices = (tuple(required_sequences),) if required_sequences else _DEFAULT_SEQUENCE_SETS
    return min(len(set(choice) - candidate.sequences) for choice in choices)


def _check_not_split_over_examinations(
    folder: Path | str, candidates: Sequence[ExaminationCandidate], required_sequences: Sequence[MRSequence]
) -> None:
    """Raise if only several examinations together have the required sequences."""
    combined = ExaminationCandidate("", "", "", frozenset().union(*(one.sequences for one in candidates)))
    if len(candidates) < 2 or _count_missing_sequences(combined, required_sequences):
        return
    raise NoExaminationError(
        message("examinations-incomplete", folder=str(folder), contents=_format_contents(candidates))
    )


def _format_contents(candidates: Sequence[ExaminationCandidate]) -> str:
    return "; ".join(
        f"{one.display_name}: {', '.join(name for name in MRSequence if name in one.sequences)}"
        for one in candidates[:6]
    )


def _format_names(candidates: Sequence[ExaminationCandidate]) -> str:
    are_names_unique = len({one.display_name for one in candidates}) == len(candidates)
    return ", ".join(
        one.display_name if are_names_unique else f"{one.display_name} {one.name}".strip()
        for one in candidates[:6]
    )


def _collect_choice_notes(
    chosen: ExaminationCandidate,
    examination: Examination,
    ordered: Sequence[ExaminationCandidate],
    has_preoperative: bool,
) -> tuple[str, ...]:
    notes = []
    if len(ordered) > 1:
        text = message(
            "examination-chosen",
            count=len(ordered),
            number=examination.number,
            name=chosen.display_name,
            others=_format_names([one for one in ordered if one is not chosen]),
        )
        notes.append(text)
    if not has_preoperative:
        notes.append(message("examination-after-surgery", name=chosen.display_name))
    return tuple(notes)

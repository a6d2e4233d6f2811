"""Which of several examinations of one patient is read: one rule for folders of volumes and for DICOM.

Of the examinations that show no sign of surgery, and lie before all that do, the earliest is taken that has the
sequences that are needed. Where none of these has them all, the one with most of them is taken, the earliest of
equals. Sequences are never mixed over examinations: where only several together would be complete, the patient is
refused; so are complete examinations of which nothing says which came first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.messages import message
from gliomark.study import Examination, GliomarkError, MRSequence

# What the method's pairs have in common where no model or cohort says what it needs.
_DEFAULT_SEQUENCE_SETS = ((MRSequence.T1C, MRSequence.T2), (MRSequence.T1C, MRSequence.FLAIR))


class NoExaminationError(GliomarkError):
    """No examination can be chosen: they would have to be mixed, or the first cannot be told."""


@dataclass(frozen=True)
class ExaminationCandidate:
    """One examination. name: how a sentence calls it where it has no date; date: YYYYMMDD, blank where unknown.

    moment: sorts examinations of one date, blank where unknown. after_surgery: its words say so.
    """

    name: str
    date: str
    sort_time: str
    sequences: frozenset[MRSequence]
    is_postoperative: bool = False

    @property
    def display_name(self) -> str:
        """The date as ISO, else the name."""
        date = self.date
        return f"{date[:4]}-{date[4:6]}-{date[6:]}" if date else self.name


def choose_examination(
    folder: Path | str,
    candidates: Sequence[ExaminationCandidate],
    required_sequences: Sequence[MRSequence] = (),
) -> tuple[ExaminationCandidate, Examination, tuple[str, ...]]:
    """The examination to read, which of how many it is, and notes; candidates: at least one.

    needed: the sequences that a model or a cohort takes; T1C with T2 or FLAIR where not given.

    Raises: NoExaminationError where sequences would have to be mixed, or where the first cannot be told.
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
    """Whether an examination has all that is needed."""
    return not _count_missing_sequences(ExaminationCandidate("", "", "", sequences), required_sequences)


def _compute_sort_key(candidate: ExaminationCandidate) -> tuple[bool, str, bool, bool, str, str]:
    """By date, undated ones last; of one date those after surgery last."""
    return (
        not candidate.date,
        candidate.date,
        candidate.is_postoperative,
        not candidate.sort_time,
        candidate.sort_time,
        candidate.name,
    )


def _is_order_unknown(first: ExaminationCandidate, second: ExaminationCandidate) -> bool:
    """Whether nothing says which of two came first."""
    unknown = not first.date and not first.sort_time
    return unknown or (first.date, first.sort_time) == (second.date, second.sort_time)


def _select_preoperative(ordered: Sequence[ExaminationCandidate]) -> list[ExaminationCandidate]:
    """Those without a sign of surgery that lie before all that show one; an undated one lies where it says."""
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
    """Refuse where only several examinations together have what is needed."""
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

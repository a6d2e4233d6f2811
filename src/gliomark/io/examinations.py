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
_USUAL = ((MRSequence.T1C, MRSequence.T2), (MRSequence.T1C, MRSequence.FLAIR))


class NoExaminationError(GliomarkError):
    """No examination can be chosen: they would have to be mixed, or the first cannot be told."""


@dataclass(frozen=True)
class Candidate:
    """One examination. name: how a sentence calls it where it has no date; date: YYYYMMDD, blank where unknown.

    moment: sorts examinations of one date, blank where unknown. after_surgery: its words say so.
    """

    name: str
    date: str
    moment: str
    sequences: frozenset[MRSequence]
    after_surgery: bool = False

    @property
    def called(self) -> str:
        """The date as ISO, else the name."""
        date = self.date
        return f"{date[:4]}-{date[4:6]}-{date[6:]}" if date else self.name


def choose_examination(
    where: Path | str, candidates: Sequence[Candidate], needed: Sequence[MRSequence] = ()
) -> tuple[Candidate, Examination, tuple[str, ...]]:
    """The examination to read, which of how many it is, and notes; candidates: at least one.

    needed: the sequences that a model or a cohort takes; T1C with T2 or FLAIR where not given.

    Raises: NoExaminationError where sequences would have to be mixed, or where the first cannot be told.
    """
    ordered = sorted(candidates, key=_order)
    before = _before_surgery(ordered)
    among = before or ordered
    whole = [one for one in among if _lacking(one, needed) == 0]
    if not whole:
        _refuse_mixture(where, among, needed)
    if len(whole) > 1 and _cannot_be_told_apart(whole[0], whole[1]):
        raise NoExaminationError(
            message("examinations-undated", folder=str(where), count=len(whole), names=_listed(whole))
        )
    chosen = whole[0] if whole else min(among, key=lambda one: (_lacking(one, needed), _order(one)))
    examination = Examination(chosen.date, ordered.index(chosen) + 1, len(ordered))
    return chosen, examination, _notes(chosen, examination, ordered, bool(before))


def is_complete(sequences: frozenset[MRSequence], needed: Sequence[MRSequence] = ()) -> bool:
    """Whether an examination has all that is needed."""
    return not _lacking(Candidate("", "", "", sequences), needed)


def _order(one: Candidate) -> tuple[bool, str, bool, bool, str, str]:
    """By date, undated ones last; of one date those after surgery last."""
    return not one.date, one.date, one.after_surgery, not one.moment, one.moment, one.name


def _cannot_be_told_apart(first: Candidate, second: Candidate) -> bool:
    """Whether nothing says which of two came first."""
    unknown = not first.date and not first.moment
    return unknown or (first.date, first.moment) == (second.date, second.moment)


def _before_surgery(ordered: Sequence[Candidate]) -> list[Candidate]:
    """Those without a sign of surgery that lie before all that show one; an undated one lies where it says."""
    after = [one for one in ordered if one.after_surgery]
    first = min((one.date for one in after if one.date), default="")
    return [one for one in ordered if not one.after_surgery and not (first and one.date and one.date > first)]


def _lacking(one: Candidate, needed: Sequence[MRSequence]) -> int:
    choices = (tuple(needed),) if needed else _USUAL
    return min(len(set(choice) - one.sequences) for choice in choices)


def _refuse_mixture(where: Path | str, among: Sequence[Candidate], needed: Sequence[MRSequence]) -> None:
    """Refuse where only several examinations together have what is needed."""
    together = Candidate("", "", "", frozenset().union(*(one.sequences for one in among)))
    if len(among) < 2 or _lacking(together, needed):
        return
    raise NoExaminationError(message("examinations-incomplete", folder=str(where), contents=_contents(among)))


def _contents(among: Sequence[Candidate]) -> str:
    return "; ".join(
        f"{one.called}: {', '.join(name for name in MRSequence if name in one.sequences)}"
        for one in among[:6]
    )


def _listed(candidates: Sequence[Candidate]) -> str:
    apart = len({one.called for one in candidates}) == len(candidates)
    return ", ".join(one.called if apart else f"{one.called} {one.name}".strip() for one in candidates[:6])


def _notes(
    chosen: Candidate, examination: Examination, ordered: Sequence[Candidate], before_known: bool
) -> tuple[str, ...]:
    notes = []
    if len(ordered) > 1:
        text = message(
            "examination-chosen",
            count=len(ordered),
            number=examination.number,
            name=chosen.called,
            others=_listed([one for one in ordered if one is not chosen]),
        )
        notes.append(text)
    if not before_known:
        notes.append(message("examination-after-surgery", name=chosen.called))
    return tuple(notes)

"""What a case of the battery is: one input at one door, and the sentence or the answer that must come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Refused:
    """One sentence and nothing written. says: codes of messages or words, of which one must be said."""

    says: tuple[str, ...]

    def __str__(self) -> str:
        return f"refused: {' | '.join(self.says)}"


@dataclass(frozen=True)
class Answered:
    """Accepted, with the right answer. wrong: what is wrong with what was left in the folder, or nothing."""

    wrong: Callable[[Any], str]
    what: str = "the right answer"

    def __str__(self) -> str:
        return f"answered: {self.what}"


@dataclass(frozen=True)
class Partly:
    """Status 1, every one of these said, and the rest answered rightly. wrong: what is wrong with it, or nothing."""

    says: tuple[str, ...]
    wrong: Callable[[Any], str]

    def __str__(self) -> str:
        return f"refused in part: {' & '.join(self.says)}"


@dataclass(frozen=True)
class Case:
    """One input at one door.

    door: a command ("predict", "cohort build") or "server", "DICOM node"; kind: the kind of damage; make: lays the
    input into the case's own folder, or at the network's doors attacks them; words: of the command line, where they
    are not the door's usual ones.
    """

    door: str
    name: str
    kind: str
    make: Callable[[Any], Any]
    expects: Refused | Answered | Partly
    words: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.door}: {self.name}"


@dataclass(frozen=True)
class Scene:
    """Where a case is laid out. folder: its own, empty at first; ground: the healthy things, not to be changed."""

    folder: Path
    ground: Path


@dataclass(frozen=True)
class Seen:
    """What a command did. signal: by which it ended, else 0; parent_mb: the most memory of its own process."""

    status: int
    signal: int
    seconds: float
    parent_mb: float
    said: str
    hung: bool = False
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A line of the table. why: in words where it is not ok, told and not kept in the table."""

    door: str
    case: str
    kind: str
    expectation: str
    verdict: str
    seconds: float
    parent_mb: float
    why: str = ""

    @classmethod
    def of(cls, case: Case, verdict: str, why: str, seconds: float, parent_mb: float) -> Row:
        return cls(
            case.door,
            case.name,
            case.kind,
            str(case.expects),
            verdict,
            round(seconds, 1),
            round(parent_mb),
            why,
        )


def refused(door: str, name: str, kind: str, make: Callable[[Any], Any], *says: str, words: str = "") -> Case:
    """A case that must be refused with one of these messages (codes, or words that stand in the sentence)."""
    return Case(door, name, kind, make, Refused(says), tuple(words.split()))


def answered(
    door: str, name: str, kind: str, make: Callable[[Any], Any], wrong: Callable[[Any], str], words: str = ""
) -> Case:
    """An odd but healthy case that must be accepted; wrong: says what is wrong with the answer, or nothing."""
    return Case(door, name, kind, make, Answered(wrong), tuple(words.split()))

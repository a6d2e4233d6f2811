"""What a case of the battery is: one input at one door, and the sentence or the answer that must come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ExpectedRefusal:
    """One sentence and nothing written. says: codes of messages or words, of which one must be said."""

    expected_messages: tuple[str, ...]

    def __str__(self) -> str:
        return f"refused: {' | '.join(self.expected_messages)}"


@dataclass(frozen=True)
class ExpectedAnswer:
    """Accepted, with the right answer. wrong: what is wrong with what was left in the folder, or nothing."""

    find_error: Callable[[Any], str]
    description: str = "the right answer"

    def __str__(self) -> str:
        return f"answered: {self.description}"


@dataclass(frozen=True)
class ExpectedPartialRefusal:
    """Status 1, every one of these said, and the rest answered rightly. wrong: what is wrong with it, or nothing."""

    expected_messages: tuple[str, ...]
    find_error: Callable[[Any], str]

    def __str__(self) -> str:
        return f"refused in part: {' & '.join(self.expected_messages)}"


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
    prepare: Callable[[Any], Any]
    expectation: ExpectedRefusal | ExpectedAnswer | ExpectedPartialRefusal
    arguments: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.door}: {self.name}"


@dataclass(frozen=True)
class CaseFolders:
    """Where a case is laid out. folder: its own, empty at first; ground: the healthy things, not to be changed."""

    folder: Path
    healthy_folder: Path


@dataclass(frozen=True)
class ProcessResult:
    """What a command did. signal: by which it ended, else 0; parent_mb: the most memory of its own process."""

    status: int
    signal: int
    seconds: float
    peak_mb: float
    output: str
    timed_out: bool = False
    files_left: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResultRow:
    """A line of the table. why: in words where it is not ok, told and not kept in the table."""

    door: str
    case: str
    kind: str
    expectation: str
    verdict: str
    seconds: float
    parent_mb: float
    reason: str = ""

    @classmethod
    def from_case(cls, case: Case, verdict: str, reason: str, seconds: float, parent_mb: float) -> ResultRow:
        return cls(
            case.door,
            case.name,
            case.kind,
            str(case.expectation),
            verdict,
            round(seconds, 1),
            round(parent_mb),
            reason,
        )


def expect_refusal(
    door: str,
    name: str,
    kind: str,
    prepare: Callable[[Any], Any],
    *expected_messages: str,
    arguments: str = "",
) -> Case:
    """A case that must be refused with one of these messages (codes, or words that stand in the sentence)."""
    return Case(door, name, kind, prepare, ExpectedRefusal(expected_messages), tuple(arguments.split()))


def expect_answer(
    door: str,
    name: str,
    kind: str,
    prepare: Callable[[Any], Any],
    find_error: Callable[[Any], str],
    arguments: str = "",
) -> Case:
    """An odd but healthy case that must be accepted; wrong: says what is wrong with the answer, or nothing."""
    return Case(door, name, kind, prepare, ExpectedAnswer(find_error), tuple(arguments.split()))

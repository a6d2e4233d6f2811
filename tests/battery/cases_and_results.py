"""Cases of the battery: one input to a command or the server, and the message or answer that is expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ExpectedRefusal:
    """Expected: an error message and no output files.

    expected_messages: message codes or words, at least one of which must be in the output.
    """

    expected_messages: tuple[str, ...]

    def __str__(self) -> str:
        return f"refused: {' | '.join(self.expected_messages)}"


@dataclass(frozen=True)
class ExpectedAnswer:
    """Expected: the input is accepted and the answer is right.

    find_error: describes what is wrong with the answer, "" if it is right.
    """

    find_error: Callable[[Any], str]
    description: str = "the right answer"

    def __str__(self) -> str:
        return f"answered: {self.description}"


@dataclass(frozen=True)
class ExpectedPartialRefusal:
    """Expected: exit status 1, all of the messages, and right answers for the other patients.

    find_error: describes what is wrong with these answers, "" if they are right.
    """

    expected_messages: tuple[str, ...]
    find_error: Callable[[Any], str]

    def __str__(self) -> str:
        return f"refused in part: {' & '.join(self.expected_messages)}"


@dataclass(frozen=True)
class Case:
    """One input to one entry point.

    door: a command ("predict", "cohort build"), "server" or "DICOM node"; kind: kind of damage; prepare: writes the
    input into the folder of the case, or sends it to the server; arguments: of the command line, if they differ from
    the usual ones of the command.
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
    """Folders of a case. folder: its own, initially empty; healthy_folder: healthy inputs, which must not change."""

    folder: Path
    healthy_folder: Path


@dataclass(frozen=True)
class ProcessResult:
    """Result of a command. signal: signal that ended it, else 0; peak_mb: peak memory of its main process in MB."""

    status: int
    signal: int
    seconds: float
    peak_mb: float
    output: str
    timed_out: bool = False
    files_left: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResultRow:
    """A row of the result table. reason: why the verdict is not "ok"; it is printed but not stored in the table."""

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
    """Create a case that must be rejected with one of these messages (codes, or words of the message)."""
    return Case(door, name, kind, prepare, ExpectedRefusal(expected_messages), tuple(arguments.split()))


def expect_answer(
    door: str,
    name: str,
    kind: str,
    prepare: Callable[[Any], Any],
    find_error: Callable[[Any], str],
    arguments: str = "",
) -> Case:
    """Create an unusual but valid case that must be accepted; find_error: describes an error of the answer, or ""."""
    return Case(door, name, kind, prepare, ExpectedAnswer(find_error), tuple(arguments.split()))

"""Where a function of somebody's files is done: here, or in a process of its own; and how often it is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from gliomark.study import GliomarkError

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")


class ReadingEndedError(GliomarkError):
    """What was read ended its process or broke a limit: it is not to be tried again. file: the one that was being
    read, as it was opened; blank where that is not known."""

    def __init__(self, sentence: str, file: str = "") -> None:
        super().__init__(sentence)
        self.file = file


class Reads(Protocol):
    """What does a function of a patient's files: ``ReadingProcesses``, or ``read_here``."""

    def __call__(self, subject: Path, function: Callable[P, T], *given: P.args, **named: P.kwargs) -> T: ...


def read_here(subject: Path, function: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """In this very process: for one's own files, and where a crash or a hang is nobody else's."""
    return function(*given, **named)


_READING: ContextVar[Reads] = ContextVar("reading", default=read_here)


@contextmanager
def reading_by(reading: Reads) -> Iterator[None]:
    """Have ``read_file`` read there, in this block."""
    token = _READING.set(reading)
    try:
        yield
    finally:
        _READING.reset(token)


def read_file(function: Callable[[Path], T], file: Path) -> T:
    """One file's pixels, asked for deep within a decision: wherever the caller's caller reads (``reading_by``)."""
    return _READING.get()(file, function, file)


def read_each(
    reading: Reads,
    subject: Path,
    function: Callable[[Sequence[Item]], list[T]],
    items: Sequence[Item],
    file_of: Callable[[Item], Path],
) -> tuple[list[T], list[tuple[Item, str]]]:
    """``function`` of all items, but for those whose file ended the process, which are told with the sentence."""
    left, ended, found = list(items), list[tuple[Item, str]](), list[T]()
    while left:
        try:
            return found + reading(subject, function, left), ended
        except ReadingEndedError as error:
            at = [item for item in left if str(file_of(item)) == error.file]
            if not at and len(left) > 1:  # it did not tell at which file it was
                half = len(left) // 2
                first, those = read_each(reading, subject, function, left[:half], file_of)
                found, ended, left = found + first, ended + those, left[half:]
                continue
            ended += [(item, error.message) for item in at or left]
            left = [item for item in left if at and item not in at]
    return found, ended

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


class ReaderProcessError(GliomarkError):
    """What was read ended its process or broke a limit: it is not to be tried again. file: the one that was being
    read, as it was opened; blank where that is not known."""

    def __init__(self, error_message: str, file: str = "") -> None:
        super().__init__(error_message)
        self.file = file


class ReadExecutor(Protocol):
    """What does a function of a patient's files: ``ReadingProcesses``, or ``read_here``."""

    def __call__(
        self, source_path: Path, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...


def run_in_this_process(source_path: Path, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """In this very process: for one's own files, and where a crash or a hang is nobody else's."""
    return function(*args, **kwargs)


_CURRENT_EXECUTOR: ContextVar[ReadExecutor] = ContextVar("reading", default=run_in_this_process)


@contextmanager
def use_reader_pool(reader_pool: ReadExecutor) -> Iterator[None]:
    """Have ``read_file`` read there, in this block."""
    token = _CURRENT_EXECUTOR.set(reader_pool)
    try:
        yield
    finally:
        _CURRENT_EXECUTOR.reset(token)


def run_file_reader(function: Callable[[Path], T], file: Path) -> T:
    """One file's pixels, asked for deep within a decision: wherever the caller's caller reads (``reading_by``)."""
    return _CURRENT_EXECUTOR.get()(file, function, file)


def read_items_skipping_crashes(
    reader_pool: ReadExecutor,
    source_path: Path,
    function: Callable[[Sequence[Item]], list[T]],
    items: Sequence[Item],
    get_file: Callable[[Item], Path],
) -> tuple[list[T], list[tuple[Item, str]]]:
    """``function`` of all items, but for those whose file ended the process, which are told with the sentence."""
    remaining, failures, results = list(items), list[tuple[Item, str]](), list[T]()
    while remaining:
        try:
            return results + reader_pool(source_path, function, remaining), failures
        except ReaderProcessError as error:
            crashed = [item for item in remaining if str(get_file(item)) == error.file]
            if not crashed and len(remaining) > 1:  # it did not tell at which file it was
                half = len(remaining) // 2
                half_results, half_failures = read_items_skipping_crashes(
                    reader_pool, source_path, function, remaining[:half], get_file
                )
                results, failures, remaining = (
                    results + half_results,
                    failures + half_failures,
                    remaining[half:],
                )
                continue
            failures += [(item, error.message) for item in crashed or remaining]
            remaining = [item for item in remaining if crashed and item not in crashed]
    return results, failures

"""Run functions that read files: in this process or in a reader process, with retries that skip harmful files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from gliomark.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")


class ReaderProcessError(InputError):
    """The reader process crashed or exceeded a limit on this input; do not retry.

    file: the path of the file being read, as it was opened; empty if unknown.
    """

    def __init__(self, error_message: str, file: str = "") -> None:
        super().__init__(error_message)
        self.file = file


class ReadExecutor(Protocol):
    """Runs a function that reads a patient's files: ``ReaderPool`` or ``run_in_this_process``."""

    def __call__(
        self, source_path: Path, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...


def run_in_this_process(source_path: Path, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run the function in this process: for trusted files, or if a crash or hang is acceptable."""
    return function(*args, **kwargs)


_CURRENT_EXECUTOR: ContextVar[ReadExecutor] = ContextVar("reading", default=run_in_this_process)


@contextmanager
def use_reader_pool(reader_pool: ReadExecutor) -> Iterator[None]:
    """Let ``run_file_reader`` use this executor within the context."""
    token = _CURRENT_EXECUTOR.set(reader_pool)
    try:
        yield
    finally:
        _CURRENT_EXECUTOR.reset(token)


def run_file_reader(function: Callable[[Path], T], file: Path) -> T:
    """Run a function on one file with the executor that ``use_reader_pool`` set; by default in this process."""
    return _CURRENT_EXECUTOR.get()(file, function, file)


def read_items_skipping_crashes(
    reader_pool: ReadExecutor,
    source_path: Path,
    function: Callable[[Sequence[Item]], list[T]],
    items: Sequence[Item],
    get_file: Callable[[Item], Path],
) -> tuple[list[T], list[tuple[Item, str]]]:
    """Apply ``function`` to all items; leave out those that crashed the process.

    Parameters
    ----------
    reader_pool
        Runs the function.
    source_path
        The patient's folder or file, for messages.
    function
        Takes a sequence of items and returns a list of results.
    items
        What to read.
    get_file
        Returns the file of an item.

    Returns
    -------
    tuple[list[T], list[tuple[Item, str]]]
        The results, and the items left out with their error messages.
    """
    remaining, failures, results = list(items), list[tuple[Item, str]](), list[T]()
    while remaining:
        try:
            return results + reader_pool(source_path, function, remaining), failures
        except ReaderProcessError as error:
            crashed = [item for item in remaining if str(get_file(item)) == error.file]
            if not crashed and len(remaining) > 1:  # the file is unknown: try each half separately
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

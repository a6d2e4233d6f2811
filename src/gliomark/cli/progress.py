"""Progress on standard error: one live line in a terminal, one log line per step with ``--verbose``, else nothing."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress

    from gliomark.batch import BatchStep
    from gliomark.messages import Language

LOG = logging.getLogger("gliomark")


@contextmanager
def show_log(name: str) -> Iterator[None]:
    """Show the log of a long computation on standard error, a line per step; ``--verbose`` shows it with times.

    Unlike a live line, it does not disturb the progress bars that other libraries print.
    """
    if LOG.isEnabledFor(logging.INFO):
        yield
        return
    logger, handler = logging.getLogger(name), logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


class ProgressLine:
    """A context manager that shows the current step, how much is done, and the time since the start.

    Parameters
    ----------
    is_quiet
        Show nothing; steps are still logged with ``--verbose``.
    """

    def __init__(self, is_quiet: bool = False) -> None:
        self.is_quiet = is_quiet
        self.last_text = ""
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        from rich.console import Console

        console = Console(stderr=True)
        if not self.is_quiet and console.is_terminal and not LOG.isEnabledFor(logging.INFO):
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (
                SpinnerColumn(),
                TimeElapsedColumn(),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[share]:>4}"),
                TextColumn("{task.description}", markup=False),
            )
            self._progress = Progress(*columns, console=console, transient=True)
            self._task = self._progress.add_task("", total=None, share="")
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, text: str, completed: float = 0.0, total: float = 0.0) -> None:
        """Show a step before or while it runs.

        Parameters
        ----------
        text
            What is being done.
        completed, total
            How much is done, in any unit; a total of 0 means unknown.
        """
        is_new = text != self.last_text
        if is_new:
            LOG.info("%s", text)
            self.last_text = text
        if self._progress is not None:
            share = f"{100 * completed / total:.0f} %" if total else ""
            self._progress.update(
                self._task,
                description=text,
                completed=completed,
                total=total or None,
                share=share,
                refresh=is_new,  # also of a step shorter than the time between two refreshes
            )

    def show_step(self, step: BatchStep, language: Language) -> None:
        """Show a step of a batch in a language."""
        from gliomark.messages import render_message

        self.show(render_message(step.text, language), step.completed, step.total)

    def count(self, task: str) -> Callable[[str, int, int], None]:
        """Return a callback for ``(name, done, total)`` of items, such as patients, of a task."""

        def show_item(name: str, done: int, total: int) -> None:
            self.show(f"{task}: {name}", done, total)

        return show_item

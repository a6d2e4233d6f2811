"""Where an experiment reads, writes and works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def cohort_name(folder: Path) -> str:
    """What the tables call a cohort."""
    return folder.absolute().name


@dataclass(frozen=True)
class Place:
    """The cohorts (the first is the one trained on), the folder of the tables, and who works how.

    workers, scheduler: see ``sharing.run_jobs``. say: is told of every step.
    """

    cohorts: tuple[Path, ...]
    out: Path
    preset: str
    workers: int | None
    scheduler: str | None
    say: Callable[[str], None]

    @property
    def names(self) -> list[str]:
        """The cohorts' names in the tables."""
        return [cohort_name(folder) for folder in self.cohorts]

    @property
    def work(self) -> Path:
        """What is kept for the next call."""
        return self.out / "work"

"""Where an experiment reads, writes and works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def get_cohort_name(cohort_folder: Path) -> str:
    """What the tables call a cohort."""
    return cohort_folder.absolute().name


@dataclass(frozen=True)
class ExperimentConfig:
    """The cohorts (the first is the one trained on), the folder of the tables, and who works how.

    workers, scheduler: see ``sharing.run_jobs``. say: is told of every step.
    """

    cohort_folders: tuple[Path, ...]
    output_folder: Path
    preset: str
    workers: int | None
    scheduler: str | None
    notify: Callable[[str], None]

    @property
    def cohort_names(self) -> list[str]:
        """The cohorts' names in the tables."""
        return [get_cohort_name(folder) for folder in self.cohort_folders]

    @property
    def work_folder(self) -> Path:
        """What is kept for the next call."""
        return self.output_folder / "work"

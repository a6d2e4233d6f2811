"""Configuration of an experiment: cohorts, output folder, preset and parallel execution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gliomark.errors import ConfigurationError

Preset = TypeVar("Preset")


def get_preset(presets: Mapping[str, Preset], preset_name: str) -> Preset:
    """Return a preset by name.

    Raises
    ------
    ConfigurationError
        If the preset is unknown.
    """
    if preset_name not in presets:
        raise ConfigurationError(
            f"The preset '{preset_name}' is unknown; it must be one of {', '.join(presets)}."
        )
    return presets[preset_name]


def get_cohort_name(cohort_folder: Path) -> str:
    """Name of a cohort in the tables: the name of its folder."""
    return cohort_folder.absolute().name


@dataclass(frozen=True)
class ExperimentConfig:
    """Where an experiment reads and writes, and how its jobs are executed.

    cohort_folders: the first is the cohort trained on unless a run says otherwise; output_folder: folder of the
    tables; preset: "published" or "quick"; workers, scheduler: see ``training.job_runner.run_jobs``; notify: called
    with a message after every step; test_only_cohorts: folders of cohorts that are tested but not trained on; seeds:
    number of seeds, 0, 1, ..., with which every segmentation network is trained.
    """

    cohort_folders: tuple[Path, ...]
    output_folder: Path
    preset: str
    workers: int | None
    scheduler: str | None
    notify: Callable[[str], None]
    test_only_cohorts: tuple[Path, ...] = ()
    seeds: int = 1

    @property
    def cohort_names(self) -> list[str]:
        """Names of the cohorts in the tables."""
        return [get_cohort_name(folder) for folder in self.cohort_folders]

    @property
    def work_folder(self) -> Path:
        """Folder of finished and interrupted jobs, which the next call reuses."""
        return self.output_folder / "work"

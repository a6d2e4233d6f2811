"""The runner behind all experiments: reuses finished trainings, distributes the others, and writes the results.

What is trained and how it is evaluated is a ``TrainingProcedure``; which runs a table consists of, and the published
values beside them, is a ``ResultTable``. A finished training is a JSON record with a key (settings, patients, hashes of
the images) under ``OUT/work``: it is not repeated, and an interrupted one continues from its checkpoint. All machines
must have the cohorts at the same paths.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pandas as pd

from gliomark.cohort.folds import FOLD_COUNT
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import CohortError, ConfigurationError
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.study import MRSequence
from gliomark.training.job_runner import run_jobs
from gliomark.training.recipes import get_cohort_sequences

KEY_FILE_NAME = "key.json"
# entries that the records of earlier versions lack
LATER_KEY_ENTRIES = ("grades",)


class NamedRun(Protocol):
    """A named row of a table: a network and its training."""

    @property
    def name(self) -> str:
        """Name in the table."""

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Names of the runs whose networks it needs."""


Run = TypeVar("Run", bound=NamedRun)
Result = TypeVar("Result")


@dataclass(frozen=True)
class TrainingJob(Generic[Run]):
    """One training of one run, or one evaluation with networks of another run.

    excluded_folds: folds (from 0) whose patients are not trained on: ``(k,)`` if fold k is tested, ``(j, k)`` for
    out-of-fold vectors, ``()`` for all patients.
    """

    run: Run
    excluded_folds: tuple[int, ...]
    cohort_folders: tuple[Path, ...]
    work_folder: Path

    @property
    def fold_index(self) -> int:
        """Number of the tested fold, from 0."""
        return self.excluded_folds[0]


@dataclass(frozen=True)
class FinishedJob(Generic[Result]):
    """A finished training.

    key: settings, patients and hashes that identify it; seconds: its duration.
    """

    key: dict[str, Any]
    result: Result
    seconds: int


class TrainingProcedure(Protocol[Run, Result]):
    """How the jobs of an experiment are trained, evaluated and stored; picklable, because workers execute it."""

    def list_jobs(
        self, runs: Sequence[Run], fold_count: int, config: ExperimentConfig
    ) -> list[TrainingJob[Run]]:
        """List the jobs of all runs, in the order of the tables."""

    def get_record_path(self, job: TrainingJob[Run]) -> Path:
        """Return the path of the job's record; its key and checkpoints are in the folder of that name."""

    def create_key(self, job: TrainingJob[Run]) -> dict[str, Any]:
        """Create the key: all that the result depends on, as values that JSON can hold."""

    def execute(self, job: TrainingJob[Run], checkpoint_folder: Path) -> Result:
        """Train and evaluate; an interrupted training continues from its checkpoint."""

    def to_record(self, finished: FinishedJob[Result]) -> dict[str, Any]:
        """Convert a finished job to its record, with the key in ``key``."""

    def from_record(self, record: dict[str, Any]) -> FinishedJob[Result]:
        """Convert a record to a finished job."""

    def describe(self, job: TrainingJob[Run], finished: FinishedJob[Result]) -> str:
        """Describe a job that has just been finished, in one line."""


@dataclass(frozen=True)
class PublishedValues:
    """Published numbers of a table.

    key_column: column that identifies the row; columns: ours, each gets a column ``published_...``; values: by the key,
    shorter ones leave the last columns empty; source: where they are published; inserted_after: column after which they
    are inserted, None for the interval of each column.
    """

    key_column: str
    columns: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    source: str
    inserted_after: str | None = None


@dataclass(frozen=True)
class ExperimentResult(Generic[Run, Result]):
    """The finished jobs of an experiment, in the order in which the procedure lists them."""

    config: ExperimentConfig
    runs: tuple[Run, ...]
    finished: Mapping[TrainingJob[Run], FinishedJob[Result]]

    def list_finished(self, run_name: str) -> list[FinishedJob[Result]]:
        """List the finished jobs of a run."""
        return [finished for job, finished in self.finished.items() if job.run.name == run_name]


@dataclass(frozen=True)
class ResultRows:
    """What a table writes.

    rows: of the table; further_tables: by the end of the file name, such as ``_patients``; scores: behind the rows, for
    the plots.
    """

    rows: pd.DataFrame
    further_tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)


PlotFunction = Callable[[ExperimentResult[Run, Result], ResultRows], Sequence[Path]]


def prepare_nothing(_: ExperimentConfig) -> None:
    """Do nothing before the training."""


@dataclass(frozen=True)
class ResultTable(Generic[Run, Result]):
    """A table of the results: named runs, how they become rows, and the published values.

    name, suffix: stem of the csv file; list_runs: by the name of the preset and the sequences of the cohort;
    create_rows: evaluates the finished jobs; describe_run: columns that every row and the run record have in common;
    create_details: further entries of the run record; describe_reductions: what a preset reduces, in words; prepare:
    checks before any training; count_folds: number of folds of a preset; plots: plot from the result and its rows.
    """

    name: str
    procedure: TrainingProcedure[Run, Result]
    list_runs: Callable[[str, tuple[MRSequence, ...]], Sequence[Run]]
    create_rows: Callable[[ExperimentResult[Run, Result]], ResultRows]
    describe_run: Callable[[ExperimentResult[Run, Result]], dict[str, Any]]
    create_details: Callable[[ExperimentResult[Run, Result]], dict[str, Any]]
    describe_reductions: Callable[[str], str]
    suffix: str = ""
    published: PublishedValues | None = None
    prepare: Callable[[ExperimentConfig], None] = prepare_nothing
    count_folds: Callable[[str], int] = lambda _: FOLD_COUNT
    plots: tuple[PlotFunction[Run, Result], ...] = ()


@dataclass(frozen=True)
class WrittenTable:
    """Paths of the csv file and the plots of a table; rows: its rows before rounding."""

    path: Path
    plots: tuple[Path, ...]
    rows: pd.DataFrame


def run_experiment(table: ResultTable[Run, Result], config: ExperimentConfig) -> WrittenTable:
    """Execute the unfinished jobs of a table and write its files.

    Raises
    ------
    ConfigurationError
        If the preset is unknown.
    CohortError
        If a cohort cannot be used, or a finished job was made with other settings, patients, images or weights.
    """
    reductions = table.describe_reductions(config.preset)
    table.prepare(config)
    config.notify(f"preset {config.preset}: {reductions}")
    runs = tuple(table.list_runs(config.preset, get_cohort_sequences(Cohort(config.cohort_folders[0]))))
    jobs = table.procedure.list_jobs(runs, table.count_folds(config.preset), config)
    return write_result(table, ExperimentResult(config, runs, complete_jobs(jobs, table.procedure, config)))


# ---- jobs ---------------------------------------------------------------------------------------------


def complete_jobs(
    jobs: Sequence[TrainingJob[Run]], procedure: TrainingProcedure[Run, Result], config: ExperimentConfig
) -> dict[TrainingJob[Run], FinishedJob[Result]]:
    """Execute the unfinished jobs, distributed over the workers; all finished jobs, in the order of ``jobs``.

    Raises
    ------
    CohortError
        If a finished job was made with other settings, patients, images or weights.
    """
    found = {job: find_finished_job(job, procedure) for job in jobs}
    finished = {job: one for job, one in found.items() if one is not None}
    missing = [job for job in jobs if job not in finished]
    runs = {job.run.name for job in jobs}
    config.notify(f"{len(jobs)} trainings of {len(runs)} runs, {len(finished)} of them already finished")
    for generation in order_by_dependency(missing):
        finished |= run_jobs(
            generation,
            partial(execute_job, procedure=procedure),
            lambda job, one: config.notify(procedure.describe(job, one)),
            config.workers,
            config.scheduler,
        )
    return {job: finished[job] for job in jobs}


def find_finished_job(
    job: TrainingJob[Run], procedure: TrainingProcedure[Run, Result]
) -> FinishedJob[Result] | None:
    """Read the record of a finished job; None if there is none.

    Raises
    ------
    CohortError
        If it was made with other settings, patients, images or weights.
    """
    record = find_finished_record(procedure.get_record_path(job), procedure.create_key(job))
    return None if record is None else procedure.from_record(record)


def find_finished_record(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """Read a record; None if there is none.

    Raises
    ------
    CohortError
        If the record, or the interrupted training in the folder of its name, was made with another key.
    """
    existing_path = path if path.exists() else path.with_suffix("") / KEY_FILE_NAME
    if not existing_path.exists():
        return None
    record = json.loads(existing_path.read_text("utf-8"))
    later = set(LATER_KEY_ENTRIES) - set(record["key"])
    if record["key"] != json.loads(json.dumps({n: value for n, value in key.items() if n not in later})):
        raise CohortError(
            f"{path.parent} holds a run with other settings, patients, images or weights; delete that folder to train "
            "again."
        )
    return record if path.exists() else None


def execute_job(job: TrainingJob[Run], procedure: TrainingProcedure[Run, Result]) -> FinishedJob[Result]:
    """Execute a job on a worker, unless another one has finished it, and write its record.

    Raises
    ------
    CohortError
        If a finished job was made with another key, or a patient is in both training and test.
    """
    started, path, key = time.time(), procedure.get_record_path(job), procedure.create_key(job)
    record = find_finished_record(path, key)
    if record is None:
        checkpoint_folder = path.with_suffix("")
        write_json(checkpoint_folder / KEY_FILE_NAME, {"key": key})
        result = procedure.execute(job, checkpoint_folder)
        record = procedure.to_record(FinishedJob(key, result, round(time.time() - started)))
        write_json(path, record)
        shutil.rmtree(checkpoint_folder, ignore_errors=True)
        # as the next call reads it
        record = json.loads(json.dumps(record))
    return procedure.from_record(record)


def order_by_dependency(jobs: Sequence[TrainingJob[Run]]) -> list[list[TrainingJob[Run]]]:
    """Divide jobs into generations: a run comes after the runs whose networks it needs.

    Raises
    ------
    ConfigurationError
        If runs need each other's networks.
    """
    generations, waiting = [], list(jobs)
    while waiting:
        unfinished_runs = {job.run.name for job in waiting}
        ready = [job for job in waiting if not unfinished_runs.intersection(job.run.depends_on)]
        if not ready:
            raise ConfigurationError(
                f"The runs {', '.join(sorted(unfinished_runs))} need each other's networks."
            )
        generations.append(ready)
        ready_runs = {job.run.name for job in ready}
        waiting = [job for job in waiting if job.run.name not in ready_runs]
    return generations


# ---- results ------------------------------------------------------------------------------------------


def add_published_values(rows: pd.DataFrame, published: PublishedValues) -> pd.DataFrame:
    """Return the rows with the published values in further columns; empty where nothing is published."""
    rows = rows.copy()
    for number, column in enumerate(published.columns):
        numbers = [
            values[number] if number < len(values := published.values.get(key, ())) else np.nan
            for key in rows[published.key_column]
        ]
        if published.inserted_after is None:
            index = rows.columns.get_loc(f"{column}_high_95") + 1
        else:
            index = rows.columns.get_loc(published.inserted_after) + 1 + number
        rows.insert(index, f"published_{column}", numbers)
    return rows


def write_result(table: ResultTable[Run, Result], result: ExperimentResult[Run, Result]) -> WrittenTable:
    """Write the csv files, the run record and the plots of a table."""
    config, created = result.config, table.create_rows(result)
    rows = created.rows if table.published is None else add_published_values(created.rows, table.published)
    common_columns = table.describe_run(result)
    stem = f"{table.name}{table.suffix}"
    tables = {"": rows.assign(**common_columns), **created.further_tables}
    record = create_run_record(table.name, **common_columns | table.create_details(result))
    path = write_result_files(config.output_folder, stem, tables, record)
    plots = tuple(plot for create_plots in table.plots for plot in create_plots(result, created))
    for plot in plots:
        config.notify(str(plot))
    return WrittenTable(path, plots, rows)

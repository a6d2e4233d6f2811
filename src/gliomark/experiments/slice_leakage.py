"""Shows how far splitting by slice instead of by patient overestimates accuracy (data leakage).

The thesis reports "over 90 %" with such a split. Here the same network is trained on the same slices, once with whole
patients held out and once with single slices held out, whose neighbours are then in the training set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit

from gliomark.cohort.folds import FOLD_COUNT
from gliomark.cohort.store import Cohort
from gliomark.evaluation.intervals import bootstrap_cluster_intervals
from gliomark.evaluation.metrics import auc, compute_threshold_metrics
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers.procedure import MarkerData, load_marker_data
from gliomark.experiments.markers.runs import KINET, get_marker_preset, list_table_4_4_runs
from gliomark.experiments.runner import ExperimentResult, FinishedJob, ResultRows, ResultTable, TrainingJob
from gliomark.training.markers import LesionSliceDataset, MarkerTrainingConfig, train_marker_network
from gliomark.training.network_vectors import compute_network_vectors
from gliomark.training.recipes import MarkerDefinition
from gliomark.training.work_folder import to_config_record

WORK_FOLDER_NAME = "slice_leak"  # as in version 0.1, whose finished folds are reused
SPLIT_BY_SLICE, SPLIT_BY_PATIENT = "split by slice (wrong)", "split by patient"


@dataclass(frozen=True)
class SplitRun:
    """A way to split, with the training of its networks."""

    name: str
    training: MarkerTrainingConfig
    splits_by_patient: bool

    @property
    def depends_on(self) -> tuple[str, ...]:
        """No networks of other runs are needed."""
        return ()


@dataclass(frozen=True)
class SliceScores:
    """Row numbers of the test slices in the dataset, and their probabilities."""

    rows: tuple[int, ...]
    probability: tuple[float, ...]


SplitJob: TypeAlias = TrainingJob[SplitRun]
SplitResult: TypeAlias = ExperimentResult[SplitRun, SliceScores]


@dataclass(frozen=True)
class SplitProcedure:
    """Training of the network of one split and fold, and scores of the test slices."""

    definition: MarkerDefinition

    def list_jobs(
        self, runs: Sequence[SplitRun], fold_count: int, config: ExperimentConfig
    ) -> list[SplitJob]:
        """List the folds of every split."""
        return [
            TrainingJob(run, (index,), config.cohort_folders[:1], config.work_folder)
            for run in runs
            for index in range(fold_count)
        ]

    def get_record_path(self, job: SplitJob) -> Path:
        """Return the path of the fold's record."""
        split = "patient" if job.run.splits_by_patient else "slice"
        folder = job.work_folder / WORK_FOLDER_NAME / self.definition.name / split
        return folder / f"fold_{job.fold_index + 1}.json"

    def create_key(self, job: SplitJob) -> dict[str, Any]:
        """Settings, labels and image hashes that identify a finished fold."""
        cohort_folder = job.cohort_folders[0]
        data = load_marker_data(cohort_folder, self.definition)
        return {
            "run": {**asdict(job.run), "training": to_config_record(job.run.training)},
            "fold": job.fold_index + 1,
            "marker": asdict(self.definition),
            "folds_sha256": data.folds.sha256,
            "labels": dict(data.labels),
            "values": dict(data.marker_values),
            "arrays": Cohort(cohort_folder).hash_arrays(tuple(data.labels)),
        }

    def execute(self, job: SplitJob, checkpoint_folder: Path) -> SliceScores:
        """Train the network and score the test slices."""
        data, training = load_marker_data(job.cohort_folders[0], self.definition), job.run.training
        dataset = data.lesion_dataset
        test = create_slice_folds(data, job.run.splits_by_patient)[job.fold_index]
        rest = torch.from_numpy(np.setdiff1d(np.arange(len(dataset.label)), test))
        network = train_marker_network(dataset.select_rows(rest), training, checkpoint_folder)
        crop = training.augmentation.crop
        vectors = compute_network_vectors(network, dataset.image[test], dataset.lesion[test], crop)
        return SliceScores(tuple(test.tolist()), tuple(expit(vectors[:, -1].astype(float)).tolist()))

    def to_record(self, finished: FinishedJob[SliceScores]) -> dict[str, Any]:
        """Convert a finished fold to its record."""
        return {"key": finished.key, **asdict(finished.result), "seconds": finished.seconds}

    def from_record(self, record: dict[str, Any]) -> FinishedJob[SliceScores]:
        """Convert a record to a finished fold."""
        scores = SliceScores(tuple(record["rows"]), tuple(record["probability"]))
        return FinishedJob(record["key"], scores, record["seconds"])

    def describe(self, job: SplitJob, finished: FinishedJob[SliceScores]) -> str:
        """Describe a finished fold."""
        return f"{job.run.name}: fold {job.fold_index + 1}, {finished.seconds} s"


def create_slice_folds(data: MarkerData, splits_by_patient: bool, seed: int = 0) -> list[np.ndarray]:
    """Create the folds; for each, the row numbers of its test slices in the dataset, ``(n,)``."""
    patient_of_slice = data.lesion_dataset.patient.numpy()
    if splits_by_patient:
        patient_indices = {p: index for index, p in enumerate(data.lesion_dataset.patient_ids)}
        return [
            np.flatnonzero(
                np.isin(patient_of_slice, [patient_indices[p] for p in data.list_fold_patients(n)])
            )
            for n in range(FOLD_COUNT)
        ]
    return np.array_split(np.random.default_rng(seed).permutation(len(patient_of_slice)), FOLD_COUNT)


def create_table(definition: MarkerDefinition) -> ResultTable[SplitRun, SliceScores]:
    """Create the table of a marker: one row per split."""

    def create_rows(result: SplitResult) -> ResultRows:
        dataset = load_marker_data(result.config.cohort_folders[0], definition).lesion_dataset
        rows = []
        for run in result.runs:
            probability = np.full(len(dataset.label), np.nan)
            for finished in result.list_finished(run.name):
                probability[list(finished.result.rows)] = finished.result.probability
            statistics = compute_slice_statistics(dataset, probability)
            rows.append({"split": run.name, "patients": len(dataset.patient_ids), **statistics})
        return ResultRows(pd.DataFrame(rows))

    return ResultTable(
        name="slice_leakage",
        procedure=SplitProcedure(definition),
        list_runs=lambda preset, _: list_split_runs(preset),
        create_rows=create_rows,
        describe_run=lambda result: {
            "marker": definition.name,
            "preset": result.config.preset,
            "cuts": get_marker_preset(result.config.preset).reductions,
        },
        create_details=lambda result: {"training": to_config_record(result.runs[0].training)},
        describe_reductions=lambda preset: get_marker_preset(preset).reductions,
        suffix=f"_{definition.name}",
    )


def list_split_runs(preset_name: str) -> list[SplitRun]:
    """List the splits: KiNet of table 4-4, split by patient and by slice."""
    runs = list_table_4_4_runs(get_marker_preset(preset_name))
    training = next(run.training for run in runs if run.name == KINET)
    return [SplitRun(SPLIT_BY_PATIENT, training, True), SplitRun(SPLIT_BY_SLICE, training, False)]


def compute_slice_statistics(
    dataset: LesionSliceDataset, probability: NDArray[np.float64]
) -> dict[str, float]:
    """Compute statistics at slice level with 95 % intervals by bootstrap over patients; probability ``(n,)``."""
    intervals = bootstrap_cluster_intervals(
        lambda y, p: {**compute_threshold_metrics(y, p, 0.5), "auc": auc(y, p)},
        dataset.patient.numpy(),
        dataset.label.numpy(),
        probability,
    )
    row: dict[str, float] = {"slices": len(probability)}
    for figure, one in intervals.items():
        row |= {figure: one.value, f"{figure}_low_95": one.lower, f"{figure}_high_95": one.upper}
    return row

"""Shows how far splitting by slice instead of by patient overestimates accuracy (data leakage).

The thesis reports "over 90 %" with such a split. Here the same network is trained on the same slices, once with whole
patients held out and once with single slices held out, whose neighbours are then in the training set.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit

from gliomark.cohort.folds import FOLD_COUNT
from gliomark.cohort.store import write_json
from gliomark.evaluation.intervals import bootstrap_cluster_intervals
from gliomark.evaluation.metrics import auc, compute_threshold_metrics
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.job_runner import run_jobs
from gliomark.experiments.markers.network_training import MarkerData, load_marker_data
from gliomark.experiments.markers.runs import KINET, get_marker_preset, list_table_4_4_runs
from gliomark.experiments.result_files import create_run_record, write_table
from gliomark.inference.slice_classifier import compute_image_vectors
from gliomark.training.markers import LesionSliceDataset, MarkerTrainingConfig, train_marker_network
from gliomark.training.recipes import MarkerDefinition

EXPERIMENT_NAME = "slice_leak"
SPLIT_BY_SLICE, SPLIT_BY_PATIENT = "split by slice (wrong)", "split by patient"


def create_slice_folds(data: MarkerData, splits_by_patient: bool, seed: int = 0) -> list[np.ndarray]:
    """Create the folds; for each, the row numbers of its test slices in the dataset."""
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


@dataclass(frozen=True)
class SliceLeakageTrainingJob:
    """Training of the network of one split and fold (from 0)."""

    cohort_folder: Path
    definition: MarkerDefinition
    training: MarkerTrainingConfig
    splits_by_patient: bool
    fold_index: int
    work_folder: Path


def train_and_score_split(job: SliceLeakageTrainingJob) -> dict:
    """Train the network of a job; row numbers and probabilities of its test slices."""
    dataset = (data := load_marker_data(job.cohort_folder, job.definition)).lesion_dataset
    test = create_slice_folds(data, job.splits_by_patient)[job.fold_index]
    rest = torch.from_numpy(np.setdiff1d(np.arange(len(dataset.label)), test))
    folder = (
        job.work_folder / ("patient" if job.splits_by_patient else "slice") / f"fold_{job.fold_index + 1}"
    )
    network = train_marker_network(dataset.select_rows(rest), job.training, folder)
    crop = job.training.augmentation.crop
    vectors = compute_image_vectors(network, dataset.image[test].float(), dataset.lesion[test].float(), crop)
    return {"rows": test, "probability": expit(vectors[:, -1].astype(float))}


def run_slice_leakage(config: ExperimentConfig, definition: MarkerDefinition) -> Path:
    """Write ``slice_leak_<marker>.csv`` and its run record to the output folder; the path of the table."""
    cohort, preset = config.cohort_folders[0], get_marker_preset(config.preset)
    dataset = load_marker_data(cohort, definition).lesion_dataset
    training = next(t for t in list_table_4_4_runs(preset) if t.name == KINET).training
    work = config.work_folder / EXPERIMENT_NAME / definition.name
    jobs = [
        SliceLeakageTrainingJob(cohort, definition, training, by_patient, number, work)
        for by_patient in (True, False)
        for number in range(FOLD_COUNT)
    ]

    def notify_trained(job: SliceLeakageTrainingJob, _: dict) -> None:
        config.notify(
            f"{SPLIT_BY_PATIENT if job.splits_by_patient else SPLIT_BY_SLICE}: fold {job.fold_index + 1}"
        )

    records = run_jobs(jobs, train_and_score_split, notify_trained, config.workers, config.scheduler)
    rows = []
    for name, by_patient in ((SPLIT_BY_PATIENT, True), (SPLIT_BY_SLICE, False)):
        probability = np.full(len(dataset.label), np.nan)
        for job, record in records.items():
            if job.splits_by_patient is by_patient:
                probability[record["rows"]] = record["probability"]
        rows.append(
            {
                "split": name,
                "patients": len(dataset.patient_ids),
                **compute_slice_statistics(dataset, probability),
            }
        )
    common_columns = {"marker": definition.name, "preset": config.preset, "cuts": preset.reductions}
    path = config.output_folder / f"{EXPERIMENT_NAME}_{definition.name}.csv"
    write_table(pd.DataFrame(rows).assign(**common_columns), path)
    record = create_run_record(EXPERIMENT_NAME, **common_columns, training=asdict(training))
    write_json(path.with_name(f"{path.stem}_run_record.json"), record)
    return path


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

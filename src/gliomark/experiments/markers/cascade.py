"""Cross-validation of the whole cascade, from segmentation to marker.

In every fold, segmentation, features, trees, calibration and threshold are fitted without its test patients. The
patients of fold k are predicted by the recipe of ``train_marker`` fitted on the other four folds, on segmentations by
the segmentation network of fold k. With permuted labels, the same run tests the whole cascade for data leakage.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gliomark.cohort.folds import FOLD_COUNT, check_disjoint, folds_excluding, load_cohort_folds
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import CohortError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.evaluation.metrics import auc, auc_within_groups, compute_threshold_metrics
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.job_runner import run_jobs
from gliomark.experiments.result_files import create_run_record, write_table
from gliomark.experiments.segmentation.fold_training import (
    FoldTrainingJob,
    SegmentationRun,
    create_run_segmenter,
)
from gliomark.inference.fusion import FusionRule
from gliomark.inference.slice_classifier import apply_calibration
from gliomark.models.weights import Weights, load_weights
from gliomark.training.markers import (
    LesionSliceDataset,
    MarkerTrainingConfig,
    load_lesion_slice_dataset,
    read_marker_labels,
    read_marker_values,
    train_marker_network,
)
from gliomark.training.recipes import (
    MarkerDefinition,
    TrainedMarker,
    build_network_folder,
    get_cohort_sequences,
    train_marker,
)
from gliomark.training.stacking import PatientVectors, compute_held_out_vectors

FUSION_RULES: tuple[FusionRule, ...] = ("near", "all", "large")
CASCADE_STAGE, NETWORK_ONLY_STAGE = "light KiNet + LightGBM", "light KiNet alone"
PERMUTED_LABELS = "shuffled_labels"
MasksByPatient = Mapping[str, NDArray[np.bool_]]


def load_cascade_labels(
    cohort: Cohort, definition: MarkerDefinition, permutation_seed: int = 0
) -> tuple[dict[str, int], dict[str, float]]:
    """Load the marker's label and the measured value behind it, each by patient.

    permutation_seed: seed for permuting labels and values among patients; 0 leaves them unchanged.
    """
    sequences = get_cohort_sequences(cohort)
    labels = read_marker_labels(cohort, definition.column, definition.threshold, sequences)
    values = read_marker_values(cohort, definition.column, sequences)
    if not permutation_seed:
        return labels, values
    patients = list(labels)
    permuted_patients = dict(
        zip(patients, np.random.default_rng(permutation_seed).permutation(patients).tolist(), strict=True)
    )
    return {p: labels[permuted_patients[p]] for p in patients}, {
        p: values[permuted_patients[p]] for p in patients
    }


@dataclass(frozen=True)
class TrainingJob:
    """Training of one network on some patients, in the folder where ``train_marker`` looks for it."""

    cohort_folder: Path
    definition: MarkerDefinition
    labels: tuple[tuple[str, int], ...]
    values: tuple[tuple[str, float], ...]
    patients: tuple[str, ...]
    training_config: MarkerTrainingConfig
    work_folder: Path


def train_network_for_patients(job: TrainingJob) -> dict:
    """Train the network of a job unless it is finished; an empty record."""
    labels_and_values = dict(job.labels), dict(job.values)
    folder = build_network_folder(
        job.work_folder, job.definition, *labels_and_values, job.patients, job.training_config
    )
    train_marker_network(
        _load_lesion_dataset(job.cohort_folder, job.labels, job.values).select_patients(job.patients),
        job.training_config,
        folder,
    )
    return {}


@functools.lru_cache(maxsize=1)
def _load_lesion_dataset(
    cohort_folder: Path, labels: tuple[tuple[str, int], ...], values: tuple[tuple[str, float], ...]
) -> LesionSliceDataset:
    """Load the slices of all patients once for all networks of a marker."""
    cohort = Cohort(cohort_folder)
    return load_lesion_slice_dataset(cohort, dict(labels), get_cohort_sequences(cohort), dict(values))


def train_cascade_networks(
    definition: MarkerDefinition,
    labels: Mapping[str, int],
    values: Mapping[str, float],
    training_config: MarkerTrainingConfig,
    config: ExperimentConfig,
    includes_final_network: bool,
) -> None:
    """Train all networks that the folds need, distributed over the workers.

    One network per excluded fold and one per excluded pair of folds; includes_final_network: whether to train the
    network on all patients too.
    """
    cohort = Cohort(config.cohort_folders[0])
    training_folds = folds_excluding(load_cohort_folds(cohort), None).restrict_to(labels)
    excluded_folds = [*((n,) for n in range(FOLD_COUNT)), *combinations(range(FOLD_COUNT), 2)]
    groups = [
        tuple(
            sorted(p for number, fold in enumerate(training_folds.folds) if number not in out for p in fold)
        )
        for out in [*excluded_folds, *([()] if includes_final_network else [])]
    ]
    labels_and_values, work = (tuple(labels.items()), tuple(values.items())), config.work_folder / "cascade"
    jobs = [
        TrainingJob(config.cohort_folders[0], definition, *labels_and_values, group, training_config, work)
        for group in groups
    ]
    config.notify(f"{definition.title}: {len(jobs)} networks")
    run_jobs(
        jobs,
        train_network_for_patients,
        lambda job, _: config.notify(f"{definition.title}: network trained on {len(job.patients)} patients"),
        config.workers,
        config.scheduler,
    )


def run_cascade(
    definition: MarkerDefinition,
    segmentation_run: SegmentationRun,
    training_config: MarkerTrainingConfig,
    config: ExperimentConfig,
    permutation_seed: int = 0,
    segmentation_work_folder: Path | None = None,
) -> pd.DataFrame:
    """Train and score the cascade in all folds.

    Parameters
    ----------
    definition
        The marker.
    segmentation_run
        The run whose networks segment the test patients.
    training_config
        Training of the marker networks.
    config
        The first cohort is used.
    permutation_seed
        See ``load_cascade_labels``.
    segmentation_work_folder
        Work folder of the segmentation folds; None for that of ``config``.

    Returns
    -------
    pandas.DataFrame
        One row per labelled patient, segmentation (drawn or predicted), stage and fusion rule, with the probability
        and the threshold of the fold.

    Raises
    ------
    CohortError
        If a network of a fold is missing or was trained on one of its test patients.
    """
    cohort = Cohort(config.cohort_folders[0])
    labels, values = load_cascade_labels(cohort, definition, permutation_seed)
    if permutation_seed:
        definition = replace(definition, name=f"{definition.name}-shuffled-{permutation_seed}")
    folds = load_cohort_folds(cohort)
    segmentation_jobs = [
        FoldTrainingJob(
            segmentation_run, n, config.cohort_folders, segmentation_work_folder or config.work_folder
        )
        for n in range(FOLD_COUNT)
    ]
    for job, fold in zip(segmentation_jobs, folds.folds, strict=True):
        load_fold_weights(job, fold)  # fail before hours of training
    train_cascade_networks(
        definition, labels, values, training_config, config, includes_final_network=not permutation_seed
    )
    rows = []
    for fold_index in range(FOLD_COUNT):
        training_folds = folds_excluding(folds, fold_index)
        marker = train_marker(
            cohort,
            training_folds,
            definition,
            labels,
            values,
            training_config,
            config.work_folder / "cascade",
        )
        test = [p for p in folds.folds[fold_index] if p in labels]
        masks = segment_test_patients(segmentation_jobs[fold_index], tuple(test))
        for outline, masks_used in (("drawn", None), ("predicted", masks)):
            for row in score_test_patients(marker, cohort, test, masks_used):
                rows.append({"marker": definition.name, "fold": fold_index + 1, "outline": outline, **row})
        config.notify(f"{definition.title}: fold {fold_index + 1} scored")
    return pd.DataFrame(rows)


def load_fold_weights(job: FoldTrainingJob, test_patients: Sequence[str]) -> Weights:
    """Load the finished segmentation network of a fold.

    Raises
    ------
    CohortError
        If it is missing or was trained on one of the test patients.
    """
    path = job.get_weights_path(job.run.weights_of)
    if not path.exists():
        raise CohortError(
            f"{path} is missing; give the output folder of a completed 'gliomark experiment demonstration'."
        )
    weights = load_weights(path)
    check_disjoint({"trained on": weights.card.training_patients, "tested on": test_patients})
    return weights


@functools.lru_cache(maxsize=FOLD_COUNT)
def segment_test_patients(job: FoldTrainingJob, test_patients: tuple[str, ...]) -> MasksByPatient:
    """Segment the test patients of a fold with its network; masks ``(slice, row, column)`` by patient.

    Raises CohortError if the network was trained on one of them.
    """
    segmenter, cohort = (
        create_run_segmenter(job.run, load_fold_weights(job, test_patients)),
        Cohort(job.cohort_folders[0]),
    )
    return {patient: segmenter.segment(cohort.read_stack(patient)).mask for patient in test_patients}


def score_test_patients(
    marker: TrainedMarker, cohort: Cohort, test_patients: Sequence[str], masks: MasksByPatient | None
) -> list[dict]:
    """Score test patients by both stages and every fusion rule; one row each.

    masks: lesion masks by patient, None for the reader's masks. A patient with an empty mask is left out.
    """
    classifier = marker.classifier
    vectors_by_patient = compute_held_out_vectors(
        classifier.network,
        cohort,
        marker.labels,
        test_patients,
        marker.trained_on,
        get_cohort_sequences(cohort),
        classifier.crop_size,
        masks,
    )
    rows = []
    for patient, vectors in vectors_by_patient.items():
        for stage, probability, threshold in (
            (CASCADE_STAGE, compute_cascade_probability(marker, vectors), marker.threshold),
            (NETWORK_ONLY_STAGE, vectors.compute_network_probability(), 0.5),
        ):
            for fusion in FUSION_RULES:
                row = {"patient": patient, "label": vectors.label, "stage": stage, "fusion": fusion}
                rows.append(
                    row
                    | {"probability": vectors.fuse_probability(probability, fusion), "threshold": threshold}
                )
    return rows


def compute_cascade_probability(marker: TrainedMarker, vectors: PatientVectors) -> NDArray[np.float64]:
    """Compute the calibrated probability of each slice, ``(n,)``."""
    classifier = marker.classifier
    return apply_calibration(
        vectors.predict_slice_probability(classifier.trees, classifier.age_cut, classifier.tree_features),
        classifier.calibration,
    )


def summarise_cascade(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise the cascade over the test patients of all folds.

    One row per marker, segmentation, stage and fusion rule.
    """
    rows = []
    keys = ["marker", "outline", "stage", "fusion"]
    for key, group in table.groupby(keys, sort=False):
        value, low, high = bootstrap_interval(auc, group["label"], group["probability"])
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "patients": len(group),
                "positive": int(group["label"].sum()),
                "auc": value,
                "low_95": low,
                "high_95": high,
                "auc_in_folds": auc_within_groups(group["label"], group["probability"], group["fold"]),
                **compute_threshold_metrics(group["label"], group["probability"], group["threshold"]),
            }
        )
    return pd.DataFrame(rows)


def run_permuted_labels(
    definition: MarkerDefinition,
    segmentation_run: SegmentationRun,
    training_config: MarkerTrainingConfig,
    config: ExperimentConfig,
    permutation_count: int,
    segmentation_work_folder: Path,
) -> Path:
    """Run the cascade with permuted labels, write ``shuffled_labels_<marker>.csv`` and return its path.

    One row per permutation, then their mean: the AUC within folds is close to 0.5 if there is no data leakage.
    """
    tables = [
        run_cascade(definition, segmentation_run, training_config, config, seed, segmentation_work_folder)
        for seed in range(1, permutation_count + 1)
    ]
    table = pd.concat([summarise_cascade(one) for one in tables])
    table = table[table["fusion"] == "near"].drop(columns="fusion")
    means = table.groupby(["outline", "stage"], sort=False)[["auc", "auc_in_folds"]].agg(["mean", "std"])
    means.columns = ["auc", "auc_sd", "auc_in_folds", "auc_in_folds_sd"]
    path = config.output_folder / f"{PERMUTED_LABELS}_{definition.name}.csv"
    write_table(pd.concat([table, means.reset_index().assign(marker=f"mean of {permutation_count}")]), path)
    record = create_run_record(
        PERMUTED_LABELS, marker=definition.name, shuffles=permutation_count, training=asdict(training_config)
    )
    write_json(path.with_name(f"{path.stem}_run_record.json"), record)
    return path

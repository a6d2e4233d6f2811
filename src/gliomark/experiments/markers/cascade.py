"""Cross-validation of the whole cascade, from segmentation to marker.

In every fold, segmentation, features, trees and threshold are fitted without its test patients. The
patients of fold k are predicted by the recipe of ``train_marker`` fitted on the other four folds, on segmentations by
the segmentation network of fold k. With permuted labels, the same run tests the whole cascade for data leakage.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gliomark.cohort.folds import FOLD_COUNT, check_disjoint, folds_excluding, load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.evaluation.metrics import auc, auc_within_groups, compute_threshold_metrics
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers.runs import MarkerRun
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.experiments.runner import FinishedJob, TrainingJob, complete_jobs
from gliomark.experiments.segmentation.procedure import (
    FoldJob,
    SegmentationRun,
    create_fold_job,
    create_run_segmenter,
    get_weights_path,
)
from gliomark.inference.fusion import FusionRule
from gliomark.models.weights import Weights, load_weights
from gliomark.training.markers import (
    LesionSliceDataset,
    MarkerTrainingConfig,
    load_lesion_slice_dataset,
    train_marker_network,
)
from gliomark.training.recipes import (
    MarkerDefinition,
    TrainedMarker,
    build_network_folder,
    get_cohort_sequences,
    read_labels_and_values,
    train_marker,
)
from gliomark.training.stacking import PatientVectors, compute_held_out_vectors
from gliomark.training.work_folder import to_config_record

FUSION_RULES: tuple[FusionRule, ...] = ("near", "all", "large")
CASCADE_STAGE, NETWORK_ONLY_STAGE = "lesion-pooled features + LightGBM", "lesion-pooled features alone"
PERMUTED_LABELS = "permuted_labels"
MasksByPatient = Mapping[str, NDArray[np.bool_]]


def load_cascade_labels(
    cohort: Cohort, definition: MarkerDefinition, permutation_seed: int = 0
) -> tuple[dict[str, int], dict[str, float]]:
    """Load the marker's label and the measured value behind it, each by patient.

    permutation_seed: seed for permuting labels and values among patients; 0 leaves them unchanged.
    """
    labels, values = read_labels_and_values(cohort, definition)
    if not permutation_seed:
        return labels, values
    patients = list(labels)
    permuted_patients = dict(
        zip(patients, np.random.default_rng(permutation_seed).permutation(patients).tolist(), strict=True)
    )
    return {p: labels[permuted_patients[p]] for p in patients}, {
        p: values[permuted_patients[p]] for p in patients
    }


CascadeJob: TypeAlias = TrainingJob[MarkerRun]


@dataclass(frozen=True)
class CascadeProcedure:
    """Training of all networks that the folds of the cascade need, where ``train_marker`` looks for them.

    One network per excluded fold, one per excluded pair of folds, and, unless the labels are permuted, one on all
    patients.
    """

    definition: MarkerDefinition
    permutation_seed: int = 0

    def list_jobs(
        self, runs: Sequence[MarkerRun], fold_count: int, config: ExperimentConfig
    ) -> list[CascadeJob]:
        """List the networks of every run."""
        folds = [(index,) for index in range(fold_count)]
        pairs = combinations(range(fold_count), 2)
        final: list[tuple[int, ...]] = [] if self.permutation_seed else [()]
        excluded_folds = [*folds, *pairs, *final]
        return [
            TrainingJob(run, excluded, config.cohort_folders[:1], config.work_folder)
            for run in runs
            for excluded in excluded_folds
        ]

    def load_labels(self, cohort_folder: Path) -> tuple[dict[str, int], dict[str, float]]:
        """Load labels and values, permuted if there is a seed."""
        return load_cascade_labels(Cohort(cohort_folder), self.definition, self.permutation_seed)

    def list_patients(self, job: CascadeJob) -> tuple[str, ...]:
        """List the patients to train on."""
        labels, _ = self.load_labels(job.cohort_folders[0])
        folds = folds_excluding(load_cohort_folds(Cohort(job.cohort_folders[0])), None).restrict_to(labels)
        return tuple(
            sorted(
                p for index, fold in enumerate(folds.folds) if index not in job.excluded_folds for p in fold
            )
        )

    def get_network_folder(self, job: CascadeJob) -> Path:
        """Return the folder of the network, in which ``train_marker`` looks for it."""
        labels_and_values = self.load_labels(job.cohort_folders[0])
        work_folder = get_cascade_folder(job.work_folder)
        return build_network_folder(
            work_folder, self.definition, *labels_and_values, self.list_patients(job), job.run.training
        )

    def get_record_path(self, job: CascadeJob) -> Path:
        """Return the path of the network's record."""
        return self.get_network_folder(job) / "network.json"

    def create_key(self, job: CascadeJob) -> dict[str, Any]:
        """Hashes of settings, patients, labels and images that identify a finished network."""
        arrays = Cohort(job.cohort_folders[0]).hash_arrays(self.list_patients(job))
        return {"network": self.get_network_folder(job).name, "arrays": arrays}

    def execute(self, job: CascadeJob, _: Path) -> None:
        """Train the network; its checkpoint stays in its folder."""
        cohort_folder = job.cohort_folders[0]
        dataset = _load_lesion_dataset(cohort_folder, self.definition, self.permutation_seed)
        train_marker_network(
            dataset.select_patients(self.list_patients(job)), job.run.training, self.get_network_folder(job)
        )

    def to_record(self, finished: FinishedJob[None]) -> dict[str, Any]:
        """Convert a finished network to its record."""
        return {"key": finished.key, "seconds": finished.seconds}

    def from_record(self, record: dict[str, Any]) -> FinishedJob[None]:
        """Convert a record to a finished network."""
        return FinishedJob(record["key"], None, record["seconds"])

    def describe(self, job: CascadeJob, _: FinishedJob[None]) -> str:
        """Describe a finished network by the number of its patients."""
        return f"{self.definition.title}: network trained on {len(self.list_patients(job))} patients"


def _load_lesion_dataset(
    cohort_folder: Path, definition: MarkerDefinition, permutation_seed: int
) -> LesionSliceDataset:
    """Load the slices of all patients once for all networks of a marker."""
    cohort = Cohort(cohort_folder)
    labels, _ = load_cascade_labels(cohort, definition, permutation_seed)
    state = cohort.hash_arrays(list(labels)) + json.dumps(labels)
    return _load_lesion_dataset_in_state(cohort_folder, definition, permutation_seed, state)


@functools.lru_cache(maxsize=1)
def _load_lesion_dataset_in_state(
    cohort_folder: Path, definition: MarkerDefinition, permutation_seed: int, _: str
) -> LesionSliceDataset:
    """Load the slices of a cohort in a state of its images and labels, by which they are remembered."""
    cohort = Cohort(cohort_folder)
    labels, values = load_cascade_labels(cohort, definition, permutation_seed)
    return load_lesion_slice_dataset(cohort, labels, get_cohort_sequences(cohort), values)


def get_cascade_folder(work_folder: Path) -> Path:
    """Return the folder of the cascade's networks."""
    return work_folder / "cascade"


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
        create_fold_job(
            segmentation_run, n, config.cohort_folders, segmentation_work_folder or config.work_folder
        )
        for n in range(FOLD_COUNT)
    ]
    for job, fold in zip(segmentation_jobs, folds.folds, strict=True):
        load_fold_weights(job, fold)  # fail before hours of training
    procedure = CascadeProcedure(definition, permutation_seed)
    jobs = procedure.list_jobs([MarkerRun("cascade", training_config)], FOLD_COUNT, config)
    complete_jobs(jobs, procedure, config)
    rows: list[dict[str, Any]] = []
    work_folder = get_cascade_folder(config.work_folder)
    for job in segmentation_jobs:
        training_folds = folds_excluding(folds, job.fold_index)
        marker = train_marker(
            cohort, training_folds, definition, labels, values, training_config, work_folder
        )
        rows += _score_fold(marker, cohort, job, [p for p in training_folds.excluded if p in labels])
        config.notify(f"{definition.title}: fold {job.fold_index + 1} scored")
    return pd.DataFrame(rows)


def _score_fold(
    marker: TrainedMarker, cohort: Cohort, job: FoldJob, test_patients: Sequence[str]
) -> list[dict[str, Any]]:
    """Score the test patients of a fold on the drawn and on the predicted segmentations."""
    masks = segment_test_patients(job, tuple(test_patients))
    return [
        {"marker": marker.definition.name, "fold": job.fold_index + 1, "outline": outline, **row}
        for outline, masks_used in (("drawn", None), ("predicted", masks))
        for row in score_test_patients(marker, cohort, test_patients, masks_used)
    ]


def load_fold_weights(job: FoldJob, test_patients: Sequence[str]) -> Weights:
    """Load the finished segmentation network of a fold.

    Raises
    ------
    CohortError
        If it is missing or was trained on one of the test patients.
    """
    path = get_weights_path(job)
    if not path.exists():
        raise CohortError(
            f"{path} is missing; give the output folder of a completed 'gliomark experiment demonstration'."
        )
    weights = load_weights(path)
    check_disjoint({"trained on": weights.card.training_patients, "tested on": test_patients})
    return weights


def segment_test_patients(job: FoldJob, test_patients: tuple[str, ...]) -> MasksByPatient:
    """Segment the test patients of a fold with its network; masks ``(slice, row, column)`` by patient.

    Raises CohortError if the network was trained on one of them.
    """
    state = load_fold_weights(job, test_patients).sha256
    state += Cohort(job.cohort_folders[0]).hash_arrays(test_patients)
    return _segment_in_state(job, test_patients, state)


@functools.lru_cache(maxsize=FOLD_COUNT)
def _segment_in_state(job: FoldJob, test_patients: tuple[str, ...], _: str) -> MasksByPatient:
    """Segment with weights and images in a state, by which the masks are remembered."""
    segmenter, cohort = (
        create_run_segmenter(job.run, load_fold_weights(job, test_patients)),
        Cohort(job.cohort_folders[0]),
    )
    return {patient: segmenter.segment(cohort.read_stack(patient)).mask for patient in test_patients}


def score_test_patients(
    marker: TrainedMarker, cohort: Cohort, test_patients: Sequence[str], masks: MasksByPatient | None
) -> list[dict[str, Any]]:
    """Score test patients by both stages and every fusion rule; one row each.

    masks: lesion masks by patient, None for the reader's masks. A patient with an empty mask is left out.
    """
    classifier = marker.classifier
    vectors_by_patient = compute_held_out_vectors(
        marker.network,
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
    """Compute the probability of each slice, ``(n,)``."""
    classifier = marker.classifier
    return vectors.predict_slice_probability(classifier.trees, classifier.age_cut, classifier.tree_features)


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
    """Run the cascade with permuted labels, write ``permuted_labels_<marker>.csv`` and return its path.

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
    table = pd.concat([table, means.reset_index().assign(marker=f"mean of {permutation_count}")])
    record = create_run_record(
        PERMUTED_LABELS,
        marker=definition.name,
        shuffles=permutation_count,
        training=to_config_record(training_config),
    )
    return write_result_files(
        config.output_folder, f"{PERMUTED_LABELS}_{definition.name}", {"": table}, record
    )

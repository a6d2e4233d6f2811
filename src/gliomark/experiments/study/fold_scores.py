"""Scores of a fold's test patients by a model that was fitted, calibrated and given its threshold without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from gliomark.cohort.folds import FOLD_COUNT, folds_excluding, load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.evaluation.evaluate import find_threshold_at_sensitivity
from gliomark.evaluation.metrics import compute_youden_threshold
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers.cascade import (
    CascadeJob,
    compute_cascade_probability,
    get_cascade_folder,
    load_cascade_labels,
    segment_test_patients,
)
from gliomark.experiments.markers.runs import MarkerRun
from gliomark.experiments.result_files import to_file_name, to_folder_name
from gliomark.experiments.runner import FinishedJob, TrainingJob
from gliomark.experiments.segmentation.procedure import (
    FoldJob,
    SegmentationRun,
    create_fold_job,
    get_weights_path,
    to_run_record,
)
from gliomark.inference.patient_calibration import calibrate_probabilities, compute_level_limits
from gliomark.messages import message
from gliomark.models.patient_calibration import PatientCalibration
from gliomark.models.weights import load_weights
from gliomark.study import CANNOT_TELL
from gliomark.training.recipes import (
    MarkerDefinition,
    TrainedMarker,
    cross_validate_marker,
    get_cohort_sequences,
    train_marker,
)
from gliomark.training.stacking import PatientVectors, compute_held_out_vectors
from gliomark.training.work_folder import to_config_record

# at most: the test fold, the inner test fold, and the one whose vectors the trees are fitted on
MAX_FOLDS_LEFT_OUT = 3


@dataclass(frozen=True)
class FoldScores:
    """Scores of one fold by one recipe.

    Attributes
    ----------
    patients
        A row per labelled test patient, see ``_score_patient``.
    inner_auc
        AUC of the inner folds, by which recipes are compared.
    calibration
        Name of the calibration method that was chosen on the inner folds.
    """

    patients: tuple[dict[str, Any], ...]
    inner_auc: float
    calibration: str


def list_left_out_folds() -> list[tuple[int, ...]]:
    """List the folds that are left out of each marker network of a study: none, any one, two or three."""
    return [
        left_out
        for count in range(MAX_FOLDS_LEFT_OUT + 1)
        for left_out in combinations(range(FOLD_COUNT), count)
    ]


def list_network_jobs(
    runs: Sequence[MarkerRun], config: ExperimentConfig, has_final: bool = True
) -> list[CascadeJob]:
    """List the marker networks of a study, see ``list_left_out_folds``; has_final: also those on all patients."""
    return [
        TrainingJob(run, left_out, config.cohort_folders, config.work_folder)
        for run in runs
        for left_out in list_left_out_folds()
        if left_out or has_final
    ]


@dataclass(frozen=True)
class FoldScoreProcedure:
    """Scoring of every fold on outlines by the segmentation network of that fold.

    The model of fold k is ``train_marker`` on the other four folds. Its calibration, threshold and limits come from
    ``cross_validate_marker`` on those four folds, so that no test patient influences them.

    segmentation_runs: the run that outlines each fold; permutation_seed: see ``load_cascade_labels``.
    """

    definition: MarkerDefinition
    segmentation_runs: tuple[SegmentationRun, ...]
    permutation_seed: int = 0

    def list_jobs(
        self, runs: Sequence[MarkerRun], fold_count: int, config: ExperimentConfig
    ) -> list[CascadeJob]:
        """List the folds of every run."""
        return [
            TrainingJob(run, (number,), config.cohort_folders, config.work_folder)
            for run in runs
            for number in range(fold_count)
        ]

    def get_record_path(self, job: CascadeJob) -> Path:
        """Return the path of the fold's record."""
        name = to_folder_name(self.definition.name)
        if self.permutation_seed:
            name += f"-permuted-{self.permutation_seed}"
        folder = job.work_folder / "scores" / name / to_file_name(job.run.name)
        return folder / f"fold_{job.fold_index + 1}.json"

    def create_key(self, job: CascadeJob) -> dict[str, Any]:
        """Settings, patients, labels, images and the segmentation network that identify the scores."""
        cohort, segmentation_job = Cohort(job.cohort_folders[0]), self._get_segmentation_job(job)
        labels, values = load_cascade_labels(cohort, self.definition, self.permutation_seed)
        clinical = {patient: cohort.get_clinical(patient) for patient in labels}
        return {
            "marker": asdict(self.definition),
            "training": to_config_record(job.run.training),
            "folds": load_cohort_folds(cohort).sha256,
            "patients": [(p, labels[p], values[p], clinical[p].age, clinical[p].sex) for p in sorted(labels)],
            "arrays": cohort.hash_arrays(sorted(labels)),
            "outlines": to_run_record(segmentation_job.run),
            "segmentation": load_weights(get_weights_path(segmentation_job)).sha256,
        }

    def execute(self, job: CascadeJob, _: Path) -> FoldScores:
        """Fit, calibrate and score the fold; networks that are not trained yet are trained.

        Raises
        ------
        CohortError
            If a network was trained on a test patient, or the training part has too few patients with lesion.
        """
        cohort = Cohort(job.cohort_folders[0])
        labels, values = load_cascade_labels(cohort, self.definition, self.permutation_seed)
        training_folds = folds_excluding(load_cohort_folds(cohort), job.fold_index)
        arguments = (
            cohort,
            training_folds,
            self.definition,
            labels,
            values,
            job.run.training,
            get_cascade_folder(job.work_folder),
        )
        marker, inner = train_marker(*arguments), cross_validate_marker(*arguments)
        if inner is None:
            raise CohortError(
                message("study-fold-too-few", marker=self.definition.title, fold=job.fold_index + 1)
            )
        test = [patient for patient in training_folds.excluded if patient in labels]
        volumes, vectors = self._compute_test_vectors(job, marker, cohort, test)
        rows = tuple(
            {
                "id": patient,
                "fold": job.fold_index + 1,
                "label": labels[patient],
                "lesion_volume_ml": volumes[patient],
                **_score_patient(marker, inner.calibration, vectors.get(patient)),
            }
            for patient in test
        )
        return FoldScores(rows, inner.validation.auc, inner.calibration.method)

    def _compute_test_vectors(
        self, job: CascadeJob, marker: TrainedMarker, cohort: Cohort, test: Sequence[str]
    ) -> tuple[dict[str, float], dict[str, PatientVectors]]:
        """Outline the test patients; their lesion volumes in ml, and the vectors of those with a lesion."""
        sequences = get_cohort_sequences(cohort)
        fold = load_cohort_folds(cohort).folds[job.fold_index]
        # all patients of the fold, so that other markers and recipes use the same outlines
        complete = tuple(p for p in fold if set(sequences) <= set(cohort.get_sequences(p)))
        masks = segment_test_patients(self._get_segmentation_job(job), complete)
        volumes = {p: float(masks[p].sum() * cohort.read_stack(p, ()).voxel_volume_ml) for p in test}
        vectors = compute_held_out_vectors(
            marker.network,
            cohort,
            marker.labels,
            test,
            marker.trained_on,
            sequences,
            marker.classifier.crop_size,
            masks,
        )
        return volumes, vectors

    def _get_segmentation_job(self, job: CascadeJob) -> FoldJob:
        run = self.segmentation_runs[job.fold_index]
        return create_fold_job(run, job.fold_index, job.cohort_folders, job.work_folder)

    def to_record(self, finished: FinishedJob[FoldScores]) -> dict[str, Any]:
        """Convert a finished fold to its record."""
        return {"key": finished.key, "seconds": finished.seconds, **asdict(finished.result)}

    def from_record(self, record: dict[str, Any]) -> FinishedJob[FoldScores]:
        """Convert a record to a finished fold."""
        scores = FoldScores(tuple(record["patients"]), record["inner_auc"], record["calibration"])
        return FinishedJob(record["key"], scores, record["seconds"])

    def describe(self, job: CascadeJob, finished: FinishedJob[FoldScores]) -> str:
        """Describe a finished fold."""
        count = len(finished.result.patients)
        permuted = f", labels permuted ({self.permutation_seed})" if self.permutation_seed else ""
        fold = f"{job.run.name}, fold {job.fold_index + 1}"
        return f"{self.definition.title}{permuted}, {fold}: {count} patients scored"


def _score_patient(
    marker: TrainedMarker, calibration: PatientCalibration, vectors: PatientVectors | None
) -> dict[str, Any]:
    """Return a patient's scores as JSON values.

    raw_probability, probability: before and after calibration, None if the network outlined no lesion; level;
    threshold, sensitive_threshold: of the calibrated probability, by Youden's index and for a sensitivity of 0.9.
    """
    inner = calibration.get_labels_and_scores()
    thresholds = {
        "threshold": compute_youden_threshold(*inner),
        "sensitive_threshold": find_threshold_at_sensitivity(*inner),
    }
    if vectors is None:
        return {"raw_probability": None, "probability": None, "level": CANNOT_TELL, **thresholds}
    raw = vectors.fuse_probability(compute_cascade_probability(marker, vectors), "near")
    probability = float(calibrate_probabilities(calibration, raw))
    definition = marker.definition
    level = compute_level_limits(calibration).decide(probability, definition.positive, definition.negative)
    return {"raw_probability": raw, "probability": probability, "level": level, **thresholds}

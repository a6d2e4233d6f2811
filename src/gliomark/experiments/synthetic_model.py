"""Training of the shipped synthetic model, and its learning curve: the thesis's cascade on synthetic patients.

MIG-Net outlines the lesion on T1C or T2, KiNet is trained for every marker, and LightGBM adds age and sex. The cascade
is trained with increasing numbers of patients, for the same number of steps, and every model is tested on the patients
of the cohort's test set, on its own outlines. The largest model is written as the result.

The markers of synthetic patients follow a known rule, so that the best achievable AUC is known: that of the exact
posterior on the same patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gliomark.cohort.folds import CohortFolds, TrainingFolds, load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError, ConfigurationError
from gliomark.evaluation.intervals import UNDEFINED_INTERVAL, bootstrap_interval
from gliomark.evaluation.metrics import auc, dice
from gliomark.experiments.cohort_evaluation import CohortEvaluation, evaluate_on_cohort
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.inference.segmenter import Segmenter
from gliomark.messages import message
from gliomark.model_loading import build_model, build_segmenter, load_model
from gliomark.models.entries import Recipe
from gliomark.models.weights import MarkerValidation, Weights, load_weights, save_weights
from gliomark.training.markers import create_marker_config
from gliomark.training.patient_calibration import add_patient_calibration, calibrate_marker
from gliomark.training.recipes import (
    MARKER_DEFINITIONS,
    collect_segmentation_tensors,
    create_segmentation_card,
    get_cohort_sequences,
    learn_known_range,
    read_labels_and_values,
    save_model,
    train_marker,
    update_inference_settings,
)
from gliomark.training.segmentation import (
    MIN_COMPONENT_SHARE,
    create_segmentation_config,
    train_segmentation_network,
)
from gliomark.training.slice_dataset import load_slice_dataset

EXPERIMENT_NAME = "synthetic_model"
WEIGHTS_NAME = "synthetic.safetensors"
MARKER_NAMES = ("ki67", "idh")
RECIPE: Recipe = "small"
TEST_COHORT_NAME = message("cohort-synthetic-test-set")
THRESHOLDS, THRESHOLD_PATIENTS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99), 50


@dataclass(frozen=True)
class SyntheticModelConfig:
    """Settings of the learning curve.

    Attributes
    ----------
    patient_counts
        Numbers of training patients; the model of the last one is written as the result.
    segmentation_epochs, marker_epochs
        Epochs with the last number of patients. With fewer patients there are more epochs, so that the number of
        steps is the same.
    marker_recipe
        Recipe of the marker networks; ``small`` trains KiNet.

    Raises
    ------
    ConfigurationError
        If the numbers of patients do not increase.
    """

    patient_counts: tuple[int, ...]
    segmentation_epochs: int
    marker_epochs: int
    marker_recipe: Recipe = RECIPE

    def __post_init__(self) -> None:
        if not self.patient_counts or list(self.patient_counts) != sorted(set(self.patient_counts)):
            raise ConfigurationError(
                message("patient-counts-not-increasing", counts=", ".join(map(str, self.patient_counts)))
            )

    def scale_epochs(self, epochs: int, patient_count: int) -> int:
        """Return the number of epochs that has as many steps with this number of patients."""
        return max(1, round(epochs * self.patient_counts[-1] / patient_count))


def run_synthetic_model(
    cohort_folder: Path,
    config: SyntheticModelConfig,
    output_folder: Path,
    notify: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train and test the models; write ``synthetic.safetensors``, tables and run record; the path of the main table.

    Trainings are kept under ``work`` in the output folder; an interrupted one is continued.

    Raises
    ------
    CohortError
        If the cohort is not synthetic, has too few patients, or the work folder belongs to another run.
    """
    cohort = Cohort(cohort_folder)
    if not cohort.is_synthetic:
        raise CohortError(message("cohort-not-synthetic", cohort=cohort_folder))
    folds = load_cohort_folds(cohort)
    selections = [_select_patients(folds, count, cohort_folder) for count in config.patient_counts]
    tables, patient_tables = [], []
    for selection in selections:
        path = _train_model(cohort, folds, selection, config, output_folder / "work")
        evaluation = evaluate_on_cohort(load_model(path), cohort, patients=folds.test)
        table = summarise_model(evaluation, cohort, len(selection.patients))
        notify(table.to_string(index=False))
        tables.append(table)
        patient_tables.append(evaluation.patients.assign(training_patients=len(selection.patients)))
    weights = learn_known_range(load_weights(path), cohort, selections[-1].patients)
    _write_shipped_weights(weights, table, evaluation.patients, output_folder / WEIGHTS_NAME)
    record = create_run_record(
        EXPERIMENT_NAME,
        cohort=cohort.metadata["synthetic"],
        settings={
            "patient_counts": config.patient_counts,
            "segmentation_epochs": config.segmentation_epochs,
            "marker_epochs": config.marker_epochs,
            "marker_recipe": config.marker_recipe,
        },
        test_patients=len(folds.test),
        folds_sha256=folds.sha256,
        weights_sha256=load_weights(output_folder / WEIGHTS_NAME).sha256,
    )
    results = {"": pd.concat(tables), "_patients": pd.concat(patient_tables)}
    return write_result_files(output_folder, EXPERIMENT_NAME, results, record)


def summarise_model(evaluation: CohortEvaluation, cohort: Cohort, training_count: int) -> pd.DataFrame:
    """Create a row per marker: Dice and AUC with 95 % intervals, and the best achievable AUC on the same patients.

    The AUC is nan if the model found no lesion in the patients of a class.
    """
    overlaps = evaluation.patients["dice"].dropna()
    interval = bootstrap_interval(np.mean, overlaps)
    rows = []
    for name in MARKER_NAMES:
        known = evaluation.patients.dropna(subset=[name, f"{name}_probability"])
        found, ceiling = UNDEFINED_INTERVAL, float("nan")
        if name in evaluation.markers:
            found = evaluation.markers[name].overall_statistics.auc
            posterior = read_posteriors(cohort, list(known["id"]), MARKER_DEFINITIONS[name].column)
            ceiling = auc(known[name].to_numpy(int), posterior)
        rows.append(
            {
                "training_patients": training_count,
                "marker": name,
                "test_patients": len(evaluation.patients),
                "with_lesion": len(known),
                "positive": int(known[name].sum()),
                "dice": overlaps.mean(),
                "dice_low_95": interval[1],
                "dice_high_95": interval[2],
                "dice_median": overlaps.median(),
                "auc": found.value,
                "low_95": found.lower,
                "high_95": found.upper,
                "ceiling": ceiling,
                "below_ceiling": ceiling - found.value,
            }
        )
    return pd.DataFrame(rows)


def read_posteriors(cohort: Cohort, patients: Sequence[str], column: str) -> list[float]:
    """Read the exact probability of a marker, given image, age and sex, of synthetic patients, in their order."""
    truth = pd.read_csv(cohort.folder / "truth" / "truth.csv", dtype={"id": str}).set_index("id")
    return [float(value) for value in truth.loc[list(patients), f"posterior_{column}"]]


def _select_patients(folds: CohortFolds, count: int, cohort_folder: Path) -> TrainingFolds:
    """Select the first patients outside the test set, in their folds."""
    known = sorted(patient for fold in folds.development_folds for patient in fold)
    if len(known) < count:
        raise CohortError(
            message("cohort-too-small", cohort=cohort_folder, patients=len(known), wanted=count)
        )
    return TrainingFolds(folds.development_folds, folds.test).restrict_to(known[:count])


def _train_model(
    cohort: Cohort,
    folds: CohortFolds,
    selection: TrainingFolds,
    config: SyntheticModelConfig,
    work_folder: Path,
) -> Path:
    """Train the cascade on the selected patients; the path of its weights."""
    count = len(selection.patients)
    folder = work_folder / f"patients-{count}"
    segmentation = _train_outline(
        cohort, folds, selection, config.scale_epochs(config.segmentation_epochs, count), folder
    )
    marker_config = create_marker_config(
        config.marker_recipe, config.scale_epochs(config.marker_epochs, count)
    )
    markers = {}
    for name in MARKER_NAMES:
        definition = MARKER_DEFINITIONS[name]
        trained = train_marker(
            cohort,
            selection,
            definition,
            *read_labels_and_values(cohort, definition),
            marker_config,
            folder / "markers",
        )
        markers[name] = (trained, trained.create_card())
    path = folder / WEIGHTS_NAME
    save_model(path, segmentation, markers, name="gliomark synthetic")
    return path


def _train_outline(
    cohort: Cohort, folds: CohortFolds, selection: TrainingFolds, epochs: int, folder: Path
) -> Weights:
    """Train MIG-Net on slices of every sequence; its weights."""
    sequences = get_cohort_sequences(cohort)
    config = create_segmentation_config(RECIPE, 1, epochs)
    dataset = load_slice_dataset(cohort, selection.patients, sequences, False, config.context)
    trained = train_segmentation_network(dataset, config, folder / "outline.work")
    card = create_segmentation_card("synthetic", cohort, folds, selection.patients, "union", config)
    card = update_inference_settings(card, True, MIN_COMPONENT_SHARE, config.pool)
    path = folder / "outline.safetensors"
    tensors = collect_segmentation_tensors(trained.network, trained.prior)
    save_weights(path, card, tensors, partial(build_segmenter, engine="torch"))
    threshold = choose_threshold(build_segmenter(load_weights(path)), cohort, selection.patients)
    card = replace(card, segmentation_threshold=threshold)
    save_weights(path, card, tensors, partial(build_segmenter, engine="torch"))
    return load_weights(path)


def choose_threshold(segmenter: Segmenter, cohort: Cohort, patients: Sequence[str]) -> float:
    """Choose the probability threshold with the highest mean Dice on evenly spread training patients.

    The union of two outlines is larger than each; without this the lesion is outlined too large.
    """
    scores: list[list[float]] = []
    for patient in patients[:: max(1, len(patients) // THRESHOLD_PATIENTS)]:
        stack = cohort.read_stack(patient)
        if stack.lesion is None or not stack.lesion.any():
            continue
        probability = segmenter.segment(stack).probability
        masks = (replace(segmenter, threshold=one).create_mask(probability, stack) for one in THRESHOLDS)
        scores.append([dice(stack.lesion > 0, mask) for mask in masks])
    return THRESHOLDS[int(np.argmax(np.mean(scores, axis=0)))] if scores else segmenter.threshold


def _write_shipped_weights(weights: Weights, table: pd.DataFrame, patients: pd.DataFrame, path: Path) -> None:
    """Write the weights with licence, intended use, the results on the test patients, and a calibration on them."""
    row = table.iloc[0]
    performance = message(
        "outline-performance-synthetic",
        dice=f"{row.dice:.2f}",
        low=f"{row.dice_low_95:.2f}",
        high=f"{row.dice_high_95:.2f}",
        patients=row.test_patients,
    )
    markers = {}
    for one in table.itertuples():
        markers[one.marker] = replace(weights.card.markers[one.marker], **_describe_validation(one))
        known = patients.dropna(subset=[one.marker, f"{one.marker}_probability"])
        if known[one.marker].nunique() == 2:
            scores = known[f"{one.marker}_probability"]
            calibration = calibrate_marker(known[one.marker].astype(int), scores, TEST_COHORT_NAME)
            markers[one.marker] = add_patient_calibration(markers[one.marker], calibration)
    card = replace(
        weights.card,
        markers=markers,
        training_cohort=message("training-cohort-synthetic", patients=len(weights.card.training_patients)),
        licence=message("licence-synthetic"),
        intended_use=message("intended-use-synthetic"),
        segmentation_performance=performance,
    )
    save_weights(path, card, weights.tensors, partial(build_model, engine="torch"))


def _describe_validation(row: Any) -> dict[str, Any]:
    """Describe a marker's row of the table for the card: as text and as numbers."""
    if np.isnan(row.auc):
        return {"performance": "not measured: no lesion was found in the test patients of a class"}
    value, low, high = (round(float(one), 4) for one in (row.auc, row.low_95, row.high_95))
    return {
        "performance": (
            f"AUC {value:.2f} (95 % interval {low:.2f} to {high:.2f}) on {row.with_lesion} patients of "
            f"{TEST_COHORT_NAME} ({row.positive} positive), on the model's own outlines; best achievable on them "
            f"{row.ceiling:.2f}"
        ),
        "validation": MarkerValidation(
            value, low, high, row.with_lesion, row.positive, TEST_COHORT_NAME, is_test_set=True
        ),
    }

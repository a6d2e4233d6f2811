"""Evaluate a finished model on a prepared cohort (``gliomark evaluate --model --cohort``).

Patients on whom the model was trained are left out. Each patient is predicted as in a hospital: markers on the model's
own segmentation, fused over the largest lesion slice and its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.evaluation.evaluate import Evaluation, PredictionTable, evaluate_predictions
from gliomark.evaluation.segmentation_metrics import compute_segmentation_scores
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.inference.fusion import fuse_probabilities
from gliomark.inference.patient_calibration import calibrate_probabilities, compute_level_limits
from gliomark.known_range import check_patient
from gliomark.messages import message
from gliomark.model_loading import Model
from gliomark.pipeline import UNDETERMINED, VALIDATED_FUSION_RULE
from gliomark.reporting.evaluation_page import write_evaluation
from gliomark.study import ClinicalData, SliceStack
from gliomark.training.recipes import MarkerDefinition, restore_marker_definition, select_training_patients
from gliomark.training.slice_dataset import parse_clinical_number

EXPERIMENT_NAME = "predictions"
LISTED_SCORES = ("dice", "sensitivity", "hausdorff_95_mm")


@dataclass(frozen=True, eq=False)
class CohortEvaluation:
    """Results of a model on a cohort.

    Attributes
    ----------
    patients
        A row per patient: id, age, sex, lesion volumes in ml, result of the check against the training patients, Dice
        and other scores where there is a reference mask, and ``<marker>`` and ``<marker>_probability``, each empty
        where unknown; of a calibrated model also ``<marker>_raw_probability``, before calibration, and
        ``<marker>_level``. Patients whom the model refuses have no probability.
    markers
        Evaluation by marker, of the patients with label and probability; markers without two classes are left out.
    trained_on, without_sequences
        Patients of the cohort who were left out: the model was trained on them, or they lack one of its sequences.
    """

    patients: pd.DataFrame
    markers: Mapping[str, Evaluation]
    trained_on: tuple[str, ...]
    without_sequences: tuple[str, ...]


def evaluate_on_cohort(
    model: Model,
    cohort: Cohort,
    notify: Callable[[str], None] = lambda _: None,
    patients: Collection[str] | None = None,
) -> CohortEvaluation:
    """Evaluate a model on the patients of a cohort on whom it was not trained.

    Parameters
    ----------
    model
        The model.
    cohort
        A cohort prepared for at least the model's sequences.
    notify
        Called with a patient's id before it is predicted.
    patients
        Only these patients; None: all.

    Raises
    ------
    CohortError
        If the cohort was not prepared as the model needs, or the model was trained on all its patients.
    """
    _check_preparation(model, cohort)
    seen = select_training_patients(model.card, cohort)
    trained_on = tuple(p for p in cohort.patient_ids if p in seen)
    others = [p for p in cohort.patient_ids if p not in seen and (patients is None or p in patients)]
    without_sequences = tuple(p for p in others if not set(model.sequences) <= set(cohort.get_sequences(p)))
    complete = [p for p in others if p not in without_sequences]
    if not complete:
        raise CohortError(
            message("cohort-none-to-evaluate", cohort=cohort.folder.name, count=len(trained_on))
        )
    definitions = {name: restore_marker_definition(name, card) for name, card in model.card.markers.items()}
    rows = []
    for patient in complete:
        notify(patient)
        rows.append(_predict_patient(model, cohort, patient, definitions))
    table = pd.DataFrame(rows)
    evaluations = {
        name: evaluation
        for name in model.classifiers
        if (evaluation := _evaluate_marker(model, name, table, cohort.folder.name)) is not None
    }
    return CohortEvaluation(table, evaluations, trained_on, without_sequences)


def write_cohort_evaluation(evaluation: CohortEvaluation, model: Model, output_folder: Path) -> Path:
    """Write ``predictions.csv`` with its run record, and a folder with tables and page per marker; the table's path."""
    for name, one in evaluation.markers.items():
        write_evaluation(one, output_folder / name)
    record = create_run_record(
        EXPERIMENT_NAME,
        model={"name": model.card.name, "sha256": model.sha256},
        left_out_as_trained_on=len(evaluation.trained_on),
        left_out_without_sequences=len(evaluation.without_sequences),
    )
    return write_result_files(output_folder, EXPERIMENT_NAME, {"": evaluation.patients}, record)


def describe_cohort_evaluation(evaluation: CohortEvaluation) -> list[str]:
    """Describe the results in lines for the terminal."""
    table = evaluation.patients
    lines: list[str] = [
        message(
            "evaluated-patients",
            count=len(table),
            trained_on=len(evaluation.trained_on),
            without=len(evaluation.without_sequences),
        )
    ]
    dice = table["dice"].dropna()
    if len(dice):
        lines.append(
            message(
                "evaluated-dice", mean=dice.mean(), median=dice.median(), worst=dice.min(), count=len(dice)
            )
        )
    for name, one in evaluation.markers.items():
        statistics = one.overall_statistics
        lines.append(
            message(
                "evaluated-marker",
                marker=name,
                auc=statistics.auc.value,
                low=statistics.auc.lower,
                high=statistics.auc.upper,
                count=statistics.patients,
                positive=statistics.positive,
            )
        )
    return lines


def _check_preparation(model: Model, cohort: Cohort) -> None:
    """Raise CohortError if the cohort lacks a sequence of the model or was prepared with other settings."""
    prepared = set(cohort.metadata["sequences"])
    if missing := [str(name) for name in model.sequences if name not in prepared]:
        raise CohortError(
            message("cohort-lacks-sequences", cohort=cohort.folder.name, sequences=", ".join(missing))
        )
    if cohort.preparation != model.preparation:
        raise CohortError(message("cohort-other-preparation", cohort=cohort.folder.name))


def list_training_patients(model: Model) -> frozenset[str]:
    """Return the ids of all patients on whom a network of the model was trained."""
    return frozenset(patient for patient, _ in model.card.list_training_patients())


def _predict_patient(
    model: Model, cohort: Cohort, patient: str, definitions: Mapping[str, MarkerDefinition]
) -> dict[str, Any]:
    stack, clinical = cohort.read_stack(patient, model.sequences), cohort.get_clinical(patient)
    mask = model.segment(stack).mask
    known_range = check_patient(model.known_range, stack, mask)
    row: dict[str, Any] = {
        "id": patient,
        "age": clinical.age,
        "sex": clinical.sex,
        "lesion_volume_ml": float(mask.sum() * stack.voxel_volume_ml),
        "known_range": known_range.result,
        "reference_volume_ml": np.nan,
        **dict.fromkeys(LISTED_SCORES, np.nan),
    }
    if stack.lesion is not None:
        scores = asdict(compute_segmentation_scores(stack.lesion, mask, stack.brain, stack.spacing_mm))
        row["reference_volume_ml"] = float(stack.lesion.sum() * stack.voxel_volume_ml)
        row |= {name: scores[name] for name in LISTED_SCORES}
    scored_mask = np.zeros_like(mask) if known_range.is_refused else mask  # refused: no probability
    for name, definition in definitions.items():
        value = parse_clinical_number(clinical.columns.get(definition.column, ""), definition.column, patient)
        row[name] = np.nan if value is None else definition.label_patient(patient, value)
        row |= score_marker(model, name, stack, scored_mask, clinical)
    return row


def score_marker(
    model: Model, name: str, stack: SliceStack, mask: NDArray[np.bool_], clinical: ClinicalData
) -> dict[str, Any]:
    """Score a marker: its calibrated and its raw probability, and, of a calibrated model, the level.

    mask: the lesion ``(slice, row, column)``.
    """
    calibration = model.card.markers[name].patient_calibration
    columns: dict[str, Any] = {f"{name}_probability": np.nan}
    if calibration is not None:
        columns |= {f"{name}_raw_probability": np.nan, f"{name}_level": UNDETERMINED}
    if not mask.any():
        return columns
    slices, probabilities, _ = model.classifiers[name].score(stack, mask, clinical)
    raw = fuse_probabilities(
        slices.neighbour_index, slices.area_mm2, list(probabilities), VALIDATED_FUSION_RULE
    )
    if calibration is None:
        return {f"{name}_probability": raw}
    probability, card = float(calibrate_probabilities(calibration, raw)), model.card.markers[name]
    level = compute_level_limits(calibration).decide(probability, card.positive, card.negative)
    return {f"{name}_probability": probability, f"{name}_raw_probability": raw, f"{name}_level": level}


def _evaluate_marker(model: Model, name: str, table: pd.DataFrame, cohort_name: str) -> Evaluation | None:
    """Evaluate a marker; None if the patients do not have both classes."""
    known = table.dropna(subset=[name, f"{name}_probability"])
    labels = known[name].to_numpy(int)
    if len(set(labels.tolist())) < 2:
        return None
    predictions = PredictionTable(
        f"{cohort_name}, {name}",
        tuple(known["id"]),
        labels,
        known[f"{name}_probability"].to_numpy(float),
        None,
    )
    return evaluate_predictions(predictions, model_threshold=model.card.markers[name].threshold)

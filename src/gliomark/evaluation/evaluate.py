"""Evaluate a table of predictions against the reference labels (``gliomark evaluate``).

The table has one row per patient: id, label, probability and, optionally, site. Each operating point states on which
patients its threshold was chosen; estimates have 95 % confidence intervals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from gliomark.errors import InputError
from gliomark.evaluation.calibration import (
    CalibrationBin,
    Recalibration,
    brier_score,
    compute_calibration_bins,
    expected_calibration_error,
    fit_recalibration,
)
from gliomark.evaluation.delong import DeLongTestResult, compute_delong_interval, compute_delong_test
from gliomark.evaluation.intervals import UNDEFINED_INTERVAL, Interval, bootstrap_interval
from gliomark.evaluation.metrics import auc, compute_threshold_metrics, compute_youden_threshold
from gliomark.study import CANNOT_TELL
from gliomark.tables import read_table
from gliomark.tables.patient_ids import find_same_patient

TARGET_SENSITIVITY = 0.9


POSITIVE_WORDS = frozenset({"1", "1.0", "yes", "true", "positive"})


NEGATIVE_WORDS = frozenset({"0", "0.0", "no", "false", "negative"})


@dataclass(frozen=True)
class PredictionColumns:
    """Names of the columns in the table.

    site: None without such a column. predicted_class: column with the predicted class, if the probability is that
    of the predicted and not of the positive class. row_filters: pairs of column and value; only matching rows are
    used. answered_only: leave out patients without a probability, to whom the model gave no answer.
    """

    id: str = "id"
    label: str = "label"
    probability: str = "probability"
    site: str | None = None
    predicted_class: str | None = None
    row_filters: tuple[tuple[str, str], ...] = ()
    answered_only: bool = False


@dataclass(frozen=True, eq=False)
class PredictionTable:
    """A table of predictions; the ids are unique.

    labels: ``(n,)``, 0 or 1. probabilities: ``(n,)``, of label 1. sites: n names, or None.
    """

    source_name: str
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    sites: tuple[str, ...] | None


@dataclass(frozen=True)
class OperatingPoint:
    """Classification performance at one threshold. chosen_on: the patients on which the threshold was chosen."""

    name: str
    chosen_on: str
    threshold: float
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval
    accuracy: Interval
    kappa: float


@dataclass(frozen=True)
class GroupStatistics:
    """Discrimination and calibration in one group of patients.

    Intervals: ``auc`` by DeLong, ``auc_bootstrap`` and ``brier`` by bootstrap over patients.
    """

    group: str
    patients: int
    positive: int
    auc: Interval
    auc_bootstrap: Interval
    brier: Interval
    calibration: Recalibration
    ece: float


@dataclass(frozen=True)
class ModelComparison:
    """Comparison of two tables on their common patients. first, second: the AUC of each."""

    against: str
    patients: int
    first: Interval
    second: Interval
    test: DeLongTestResult


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of the evaluation of one table of predictions."""

    predictions: PredictionTable
    overall_statistics: GroupStatistics
    operating_points: tuple[OperatingPoint, ...]
    calibration_bins: tuple[CalibrationBin, ...]
    site_statistics: tuple[GroupStatistics, ...]
    comparison: ModelComparison | None


def read_predictions(path: Path, columns: PredictionColumns) -> PredictionTable:
    """Read a table of predictions from csv or xlsx.

    Raises
    ------
    InputError
        If a column is missing or duplicate, no row matches the filters, an id is empty or duplicate, a label is not
        0 or 1, a probability is not a number from 0 to 1, or all labels are equal. The message names the patient.
    """
    header, records = read_table(path, is_strict=True)
    for name in (columns.id, columns.label, columns.probability, columns.site, columns.predicted_class):
        _check_column(path, header, name)
    for name, _ in columns.row_filters:
        _check_column(path, header, name)
    rows = [dict(zip(header, record, strict=True)) for record in records]
    rows = [row for row in rows if all(row[name] == value for name, value in columns.row_filters)]
    if not rows:
        filter_text = " and ".join(f"{name}={value}" for name, value in columns.row_filters)
        raise InputError(
            f"{path} has no rows{f' with {filter_text}' if filter_text else ''}; nothing can be evaluated."
        )
    if columns.answered_only:
        rows = [row for row in rows if row[columns.probability]]
        if not rows:
            raise InputError(
                f"{path} has no patient with a number in the column {columns.probability}; nothing can be evaluated."
            )
    ids = tuple(row[columns.id] for row in rows)
    if not all(ids):
        raise InputError(f"{path}: row {ids.index('') + 1} has no id; fill it in.")
    repeated_ids = [patient for patient, count in Counter(ids).items() if count > 1]
    if repeated_ids:
        raise InputError(
            f"{path}: {repeated_ids[0]} has {Counter(ids)[repeated_ids[0]]} rows; give one row per patient "
            f"(fuse slices first)."
        )
    label = np.array(
        [_parse_class(row[columns.label], f"{path}, {row[columns.id]}: the label") for row in rows]
    )
    probability = np.array([_parse_probability(row, columns, path) for row in rows])
    if len(set(label.tolist())) < 2:
        raise InputError(f"{path}: all {len(rows)} patients have the label {label[0]}; both are needed.")
    site = None if columns.site is None else tuple(row[columns.site] or "not stated" for row in rows)
    return PredictionTable(path.name, ids, label, probability, site)


def _check_column(path: Path, header: Sequence[str], name: str | None) -> None:
    if name is None:
        return
    if name not in header:
        raise InputError(
            f"{path} has no column {name} (columns: {', '.join(header)}); give the correct column name."
        )
    if header.count(name) > 1:
        raise InputError(f"{path} has the column {name} twice; keep one.")


def _parse_class(text: str, location: str) -> int:
    if text.lower() in POSITIVE_WORDS:
        return 1
    if text.lower() in NEGATIVE_WORDS:
        return 0
    raise InputError(f"{location} is '{text}'; it must be 0 or 1, or no or yes.")


def _parse_probability(row: Mapping[str, str], columns: PredictionColumns, path: Path) -> float:
    location = f"{path}, {row[columns.id]}"
    try:
        value = float(row[columns.probability])
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise InputError(
            f"{location}: the probability is '{row[columns.probability]}'; it must be a number from 0 to 1."
        )
    if columns.predicted_class is None:
        return value
    return value if _parse_class(row[columns.predicted_class], f"{location}: the prediction") else 1 - value


def evaluate_predictions(
    predictions: PredictionTable,
    validation: PredictionTable | None = None,
    comparison_predictions: PredictionTable | None = None,
    model_threshold: float | None = None,
) -> Evaluation:
    """Evaluate a table of predictions.

    Parameters
    ----------
    predictions
        The patients to evaluate.
    validation
        Other patients, on whom the thresholds are chosen; None: they are chosen on the evaluated patients, and the
        results say so.
    comparison_predictions
        Predictions of another model for the same patients.
    model_threshold
        The threshold that the model states, which replaces thresholds chosen on patients.

    Raises
    ------
    InputError
        If a patient is in both ``predictions`` and ``validation``, or the labels of the two models differ.
    """
    if validation is not None and (same := find_same_patient(predictions.ids, validation.ids)):
        name = same[0] if same[0] == same[1] else f"{same[0]} ({same[1]})"
        raise InputError(
            f"{name} appears in both {validation.source_name} and {predictions.source_name}; thresholds must be chosen "
            "on patients that are not evaluated."
        )
    label, probability = predictions.labels, predictions.probabilities
    sites = sorted(set(predictions.sites or ()))
    return Evaluation(
        predictions,
        compute_group_statistics("all", label, probability),
        compute_operating_points(predictions, validation, model_threshold),
        tuple(compute_calibration_bins(label, probability)),
        tuple(_compute_site_statistics(predictions, site) for site in sites),
        None if comparison_predictions is None else compare_predictions(predictions, comparison_predictions),
    )


def compute_group_statistics(group: str, label: NDArray[Any], probability: NDArray[Any]) -> GroupStatistics:
    """Compute the statistics of one group; label: ``(n,)``, 0 or 1; probability: ``(n,)``, of label 1."""

    def compute_bootstrap_interval(statistic: Callable[[NDArray[Any], NDArray[Any]], float]) -> Interval:
        return Interval(*bootstrap_interval(statistic, label, probability, resamples=1000))

    return GroupStatistics(
        group,
        len(label),
        int(label.sum()),
        compute_delong_interval(label, probability),
        compute_bootstrap_interval(auc),
        compute_bootstrap_interval(brier_score),
        fit_recalibration(label, probability),
        expected_calibration_error(label, probability),
    )


def _compute_site_statistics(predictions: PredictionTable, site: str) -> GroupStatistics:
    is_in_site = np.array([name == site for name in predictions.sites or ()])
    return compute_group_statistics(
        site, predictions.labels[is_in_site], predictions.probabilities[is_in_site]
    )


def compute_operating_points(
    predictions: PredictionTable,
    validation: PredictionTable | None = None,
    model_threshold: float | None = None,
) -> tuple[OperatingPoint, ...]:
    """Compute the performance at the Youden threshold, at sensitivity 0.9 and at threshold 0.5.

    The first two thresholds are chosen on ``validation``, or on the evaluated patients without it. A model's own
    threshold takes their place.
    """
    if model_threshold is not None:
        own = {"the model's": ("stated by the model", model_threshold), "0.5": ("fixed in advance", 0.5)}
        return _compute_operating_points(own, predictions)
    threshold_predictions = predictions if validation is None else validation
    threshold_source = (
        "the evaluated patients (optimistic)"
        if validation is None
        else f"{validation.source_name}, other patients"
    )
    thresholds = {
        "Youden": (
            threshold_source,
            compute_youden_threshold(threshold_predictions.labels, threshold_predictions.probabilities),
        ),
        f"sensitivity {TARGET_SENSITIVITY:g}": (
            threshold_source,
            find_threshold_at_sensitivity(threshold_predictions.labels, threshold_predictions.probabilities),
        ),
        "0.5": ("fixed in advance", 0.5),
    }
    return _compute_operating_points(thresholds, predictions)


def _compute_operating_points(
    thresholds: Mapping[str, tuple[str, float]], predictions: PredictionTable
) -> tuple[OperatingPoint, ...]:
    return tuple(
        compute_operating_point(name, chosen_on, threshold, predictions.labels, predictions.probabilities)
        for name, (chosen_on, threshold) in thresholds.items()
    )


def compute_level_shares(
    levels: ArrayLike, label: ArrayLike, positive: str, negative: str
) -> dict[str, Interval]:
    """Compute the coverage of stated levels, and the share without a level.

    Parameters
    ----------
    levels
        ``(n,)``: ``positive``, ``negative`` or "cannot tell".
    label
        ``(n,)``: 1 or 0.
    positive, negative
        Names of the levels.

    Returns
    -------
    dict
        By level: share of its patients whose result is this level or "cannot tell"; by "cannot tell": its share of all
        patients.
    """
    stated, truth = np.asarray(levels, str), np.asarray(label)
    is_open, shares = stated == CANNOT_TELL, {}
    for value, name in ((1, positive), (0, negative)):
        is_covered = (is_open | (stated == name))[truth == value]
        shares[name] = compute_proportion(int(is_covered.sum()), len(is_covered))
    return shares | {CANNOT_TELL: compute_proportion(int(is_open.sum()), len(stated))}


def find_threshold_at_sensitivity(
    label: ArrayLike, probability: ArrayLike, target_sensitivity: float = TARGET_SENSITIVITY
) -> float:
    """Return the highest threshold that reaches the target sensitivity (0 to 1).

    label: ``(n,)``, 0 or 1. probability: ``(n,)``, of label 1.
    """
    positive_probabilities = np.sort(np.asarray(probability, float)[np.asarray(label) == 1])
    allowed_misses = int(np.floor(round((1 - target_sensitivity) * len(positive_probabilities), 9)))
    return float(positive_probabilities[allowed_misses])


def compute_operating_point(
    name: str, chosen_on: str, threshold: ArrayLike, label: NDArray[Any], probability: NDArray[Any]
) -> OperatingPoint:
    """Compute the performance at a threshold.

    label, probability ``(n,)``; threshold: one for all patients, or ``(n,)``, such as that of each patient's fold, of
    which the mean is stated.
    """
    is_predicted_positive, is_positive = probability >= threshold, label == 1
    true_positives, true_negatives = (
        int((is_predicted_positive & is_positive).sum()),
        int((~is_predicted_positive & ~is_positive).sum()),
    )
    return OperatingPoint(
        name,
        chosen_on,
        float(np.mean(np.asarray(threshold, float))),
        sensitivity=compute_proportion(true_positives, int(is_positive.sum())),
        specificity=compute_proportion(true_negatives, int((~is_positive).sum())),
        ppv=compute_proportion(true_positives, int(is_predicted_positive.sum())),
        npv=compute_proportion(true_negatives, int((~is_predicted_positive).sum())),
        accuracy=compute_proportion(true_positives + true_negatives, len(is_positive)),
        kappa=compute_threshold_metrics(label, probability, np.asarray(threshold))["kappa"],
    )


def compute_proportion(count: int, total: int) -> Interval:
    """Return a proportion with its Wilson interval; nan if the denominator is 0."""
    if total == 0:
        return UNDEFINED_INTERVAL
    low, high = binomtest(count, total).proportion_ci(method="wilson")
    return Interval(count / total, float(low), float(high))


def compare_predictions(first: PredictionTable, second: PredictionTable) -> ModelComparison:
    """Compare two tables on their common patients with the DeLong test.

    Raises
    ------
    InputError
        If no patient is in both tables, their labels differ, or all common patients have the same label.
    """
    second_index_by_id = {patient: index for index, patient in enumerate(second.ids)}
    index_pairs = [
        (index, second_index_by_id[patient])
        for index, patient in enumerate(first.ids)
        if patient in second_index_by_id
    ]
    if not index_pairs:
        raise InputError(
            f"{first.source_name} and {second.source_name} have no patient in common; compare the same patients."
        )
    first_indices, second_indices = (np.array(indices) for indices in zip(*index_pairs, strict=True))
    label = first.labels[first_indices]
    differing_labels = np.flatnonzero(label != second.labels[second_indices])
    if len(differing_labels):
        raise InputError(
            f"{first.ids[first_indices[differing_labels[0]]]} has the label {label[differing_labels[0]]} in "
            f"{first.source_name} but not in "
            f"{second.source_name}; both tables need the same labels."
        )
    if len(set(label.tolist())) < 2:
        raise InputError(
            f"{first.source_name} and {second.source_name} have {len(label)} patients in common, all with the "
            f"label {label[0]}; "
            "both labels are needed."
        )
    first_probability, second_probability = (
        first.probabilities[first_indices],
        second.probabilities[second_indices],
    )
    return ModelComparison(
        second.source_name,
        len(label),
        compute_delong_interval(label, first_probability),
        compute_delong_interval(label, second_probability),
        compute_delong_test(label, first_probability, second_probability),
    )

"""A marker's patient-level calibration: calibrated probabilities, and from which one a level is stated."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliomark.evaluation.calibrators import Calibrator, correct_prevalence
from gliomark.evaluation.conformal import fit_conformal_limits
from gliomark.models.patient_calibration import SCORE_DECIMALS, PatientCalibration
from gliomark.prediction import LevelLimits
from gliomark.study import DEFAULT_COVERAGE


def calibrate_probabilities(
    calibration: PatientCalibration | None, probability: ArrayLike, prevalence: float | None = None
) -> NDArray[np.float64]:
    """Return the calibrated probabilities of patients.

    They have as many decimals as the stored scores: otherwise a patient of the calibration could fall below his own
    score, and so outside the limits that it sets.

    Parameters
    ----------
    calibration
        From the weights file; None, in older files: the probabilities stay as they are.
    probability
        The model's, after fusion, of any shape.
    prevalence
        Share of positives among the patients to be predicted, above 0 and below 1; None: as in the calibration.

    Raises
    ------
    ConfigurationError
        If the prevalence is not between 0 and 1.
    """
    if calibration is None:
        return np.asarray(probability, float)
    calibrated = Calibrator(calibration.method, calibration.parameters).apply(probability)
    return _correct_prevalence(calibration, calibrated.round(SCORE_DECIMALS), prevalence)


def create_patient_calibration(
    calibrator: Calibrator, label: ArrayLike, probability: ArrayLike, cohort: str
) -> PatientCalibration:
    """Create the calibration that a weights file keeps, with the calibrated scores of the patients.

    Parameters
    ----------
    calibrator
        Fitted to these patients; its parameters are rounded, and the scores are those of the rounded ones.
    label, probability
        ``(n,)``: 0 or 1, both of which occur, and the model's probability of 1.
    cohort
        Name of the patients' cohort.
    """
    truth = np.asarray(label, int)
    parameters = tuple(round(one, SCORE_DECIMALS) for one in calibrator.parameters)
    scores = Calibrator(calibrator.method, parameters).apply(probability).round(SCORE_DECIMALS)
    positive_scores, negative_scores = (tuple(sorted(scores[truth == one].tolist())) for one in (1, 0))
    return PatientCalibration(calibrator.method, parameters, positive_scores, negative_scores, cohort)


def compute_level_limits(
    calibration: PatientCalibration, coverage: float = DEFAULT_COVERAGE, prevalence: float | None = None
) -> LevelLimits:
    """Compute between which calibrated probabilities the level is "cannot tell".

    A level is stated if it is the only one in the conformal set and also the more probable one. The prevalence changes
    the probability of every patient and the limits alike, so that it changes a level only by the second condition.

    Parameters
    ----------
    calibration, prevalence
        See ``calibrate_probabilities``.
    coverage
        Share of the patients of either class whose set contains the true level, at least 0.5 and below 1.

    Raises
    ------
    ConfigurationError
        If the coverage or the prevalence is out of its range.
    """
    limits = fit_conformal_limits(*calibration.get_labels_and_scores(), coverage)
    both = np.array([limits.positive_from, limits.negative_to])
    positive_from, negative_to = _correct_prevalence(calibration, both, prevalence).tolist()
    return LevelLimits(
        negative_below=min(0.5, positive_from),
        positive_above=max(0.5, negative_to),
        coverage=coverage,
        positives=limits.positives,
        negatives=limits.negatives,
    )


def _correct_prevalence(
    calibration: PatientCalibration, probability: NDArray[np.float64], prevalence: float | None
) -> NDArray[np.float64]:
    """Return the probabilities for the prevalence; 0 and 1, which no patient passes as limits, stay."""
    if prevalence is None:
        return probability
    corrected = correct_prevalence(probability, calibration.prevalence, prevalence)
    return np.where(np.isin(probability, (0, 1)), probability, corrected)

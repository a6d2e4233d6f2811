"""Apply a marker's patient-level calibration: the calibrated probability, and from which one a level is stated."""

from __future__ import annotations

import numpy as np

from gliomark.evaluation.calibrators import Calibrator, correct_prevalence
from gliomark.evaluation.conformal import fit_conformal_limits
from gliomark.models.patient_calibration import SCORE_DECIMALS, PatientCalibration
from gliomark.prediction import LevelLimits
from gliomark.study import DEFAULT_COVERAGE


def calibrate_probability(
    calibration: PatientCalibration, probability: float, prevalence: float | None = None
) -> float:
    """Return a patient's calibrated probability.

    Parameters
    ----------
    calibration
        From the weights file.
    probability
        The model's, after fusion.
    prevalence
        Share of positives among the patients to be predicted, above 0 and below 1; None: as in the calibration.

    Raises
    ------
    ConfigurationError
        If the prevalence is not between 0 and 1.
    """
    calibrated = round(
        float(Calibrator(calibration.method, calibration.parameters).apply(probability)), SCORE_DECIMALS
    )
    return _correct_prevalence(calibration, calibrated, prevalence)


def compute_level_limits(
    calibration: PatientCalibration, coverage: float = DEFAULT_COVERAGE, prevalence: float | None = None
) -> LevelLimits:
    """Compute between which calibrated probabilities the level is "cannot tell".

    A level is stated if it is the only one in the conformal set and also the more probable one. The prevalence changes
    the probability of every patient and the limits alike, so that it changes a level only by the second condition.

    Parameters
    ----------
    calibration, prevalence
        See ``calibrate_probability``.
    coverage
        Share of the patients of either class whose set contains the true level, at least 0.5 and below 1.

    Raises
    ------
    ConfigurationError
        If the coverage or the prevalence is out of its range.
    """
    label = np.repeat([1, 0], [calibration.positives, calibration.negatives])
    limits = fit_conformal_limits(
        label, [*calibration.positive_scores, *calibration.negative_scores], coverage
    )
    return LevelLimits(
        negative_below=min(0.5, _correct_prevalence(calibration, limits.positive_from, prevalence)),
        positive_above=max(0.5, _correct_prevalence(calibration, limits.negative_to, prevalence)),
        coverage=coverage,
        positives=limits.positives,
        negatives=limits.negatives,
    )


def _correct_prevalence(
    calibration: PatientCalibration, probability: float, prevalence: float | None
) -> float:
    """Return the probability for the prevalence; 0 and 1, which no patient passes as limits, stay."""
    if prevalence is None or probability in (0, 1):
        return probability
    return float(correct_prevalence(probability, calibration.prevalence, prevalence))

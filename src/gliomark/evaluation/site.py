"""Adapt a finished model to a hospital: calibration, operating point and conformal limits from local patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliomark.errors import InputError
from gliomark.evaluation.calibration import expected_calibration_error
from gliomark.evaluation.calibrators import Calibrator, choose_calibrator
from gliomark.evaluation.conformal import (
    ConformalLimits,
    compute_coverage,
    fit_conformal_limits,
)
from gliomark.evaluation.evaluate import TARGET_SENSITIVITY, find_threshold_at_sensitivity
from gliomark.evaluation.metrics import auc, compute_threshold_metrics
from gliomark.messages import message
from gliomark.study import DEFAULT_COVERAGE

MIN_PATIENTS = 30
MIN_PER_CLASS = 5
CHANCE_DRAWS = 200


@dataclass(frozen=True)
class SiteSettings:
    """What is fitted on a hospital's own patients.

    Attributes
    ----------
    calibrator
        From the model's probability to the hospital's.
    threshold
        Calibrated probability from which a patient is positive, chosen for a sensitivity of 0.9.
    limits
        Of the calibrated probability, see ``conformal``.
    patients, positives
        Number of patients, and of those with the marker.
    """

    calibrator: Calibrator
    threshold: float
    limits: ConformalLimits
    patients: int
    positives: int

    @property
    def prevalence(self) -> float:
        """Share of the patients with the marker, 0 to 1."""
        return self.positives / self.patients


@dataclass(frozen=True)
class SiteScores:
    """Performance of settings on other patients; shares are 0 to 1, and nan where a class is absent.

    Attributes
    ----------
    auc
        Area under the ROC curve, which no settings change except by ties.
    calibration_error
        Expected calibration error of the calibrated probability.
    chance_error
        The calibration error that correct probabilities would have by chance on as many patients.
    sensitivity, specificity
        At the threshold.
    positives_covered, negatives_covered
        Share of the class whose conformal set contains the true level.
    cannot_tell
        Share of the patients without a level.
    """

    auc: float
    calibration_error: float
    chance_error: float
    sensitivity: float
    specificity: float
    positives_covered: float
    negatives_covered: float
    cannot_tell: float


def fit_site_settings(
    label: ArrayLike, probability: ArrayLike, coverage: float = DEFAULT_COVERAGE, seed: int = 0
) -> SiteSettings:
    """Fit calibration, threshold and limits to a hospital's patients.

    Below 100 patients only maps with at most two parameters are tried.

    Parameters
    ----------
    label, probability
        ``(n,)``: what pathology found, 0 or 1, and the model's probability of 1.
    coverage
        See ``ConformalLimits``.
    seed
        Seed of the folds by which the calibration is chosen.

    Raises
    ------
    InputError
        If there are fewer than 30 patients, or fewer than five of a class.
    """
    truth, score = np.asarray(label, int), np.asarray(probability, float)
    count, positives = len(truth), int(truth.sum())
    if count < MIN_PATIENTS or min(positives, count - positives) < MIN_PER_CLASS:
        raise InputError(
            message(
                "site-too-few",
                patients=count,
                positives=positives,
                negatives=count - positives,
                fewest=MIN_PATIENTS,
                each=MIN_PER_CLASS,
            )
        )
    calibrator = choose_calibrator(truth, score, seed=seed)
    calibrated = calibrator.apply(score)
    return SiteSettings(
        calibrator,
        find_threshold_at_sensitivity(truth, calibrated, TARGET_SENSITIVITY),
        fit_conformal_limits(truth, calibrated, coverage),
        count,
        positives,
    )


def score_site_settings(settings: SiteSettings, label: ArrayLike, probability: ArrayLike) -> SiteScores:
    """Compute the performance of settings on patients that were not used to fit them.

    label, probability ``(n,)``: 0 or 1, and the model's probability of 1 before calibration.
    """
    truth = np.asarray(label, int)
    calibrated = settings.calibrator.apply(probability)
    metrics = compute_threshold_metrics(truth, calibrated, settings.threshold)
    has_both = 0 < truth.sum() < len(truth)
    return SiteScores(
        auc(truth, calibrated) if has_both else float("nan"),
        expected_calibration_error(truth, calibrated),
        estimate_chance_error(calibrated),
        metrics["sensitivity"],
        metrics["specificity"],
        *compute_coverage(settings.limits, truth, calibrated),
    )


def estimate_chance_error(probability: NDArray[np.float64], seed: int = 0) -> float:
    """Estimate the expected calibration error of correct probabilities ``(n,)``, from labels drawn with them."""
    rng = np.random.default_rng(seed)
    draws = (rng.random((CHANCE_DRAWS, len(probability))) < probability).astype(int)
    return float(np.mean([expected_calibration_error(labels, probability) for labels in draws]))

"""Calibration of probabilities and decision-curve net benefit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from gliomark.evaluation.calibrators import compute_log_odds
from gliomark.evaluation.intervals import UNDEFINED_INTERVAL, Interval, compute_wald_interval

DEFAULT_BIN_COUNT = 10


@dataclass(frozen=True)
class CalibrationBin:
    """Patients of similar probability: their number, mean probability and share of positives, 0 to 1."""

    patients: int
    probability: float
    share: float


def brier_score(label: ArrayLike, probability: ArrayLike) -> float:
    """Return the Brier score (Brier 1950): mean squared difference of probability and label, both ``(n,)``."""
    return float(np.mean((np.asarray(probability, float) - np.asarray(label, float)) ** 2))


@dataclass(frozen=True)
class Recalibration:
    """Logistic recalibration with Wald intervals.

    slope, intercept: of the logistic regression of the outcome on the log-odds; 1 and 0 are ideal. in_the_large:
    calibration-in-the-large, the intercept with the slope fixed at 1.
    """

    slope: Interval
    intercept: Interval
    in_the_large: Interval


def fit_recalibration(label: ArrayLike, probability: ArrayLike) -> Recalibration:
    """Fit a logistic recalibration (Cox 1958) to labels and probabilities, both ``(n,)``.

    nan if only one class is present; slope and intercept are nan if the probabilities are all equal or separate the
    classes completely.
    """
    truth, log_odds = np.asarray(label, int), compute_log_odds(probability)
    positive, negative = log_odds[truth == 1], log_odds[truth == 0]
    if not len(positive) or not len(negative):
        return Recalibration(UNDEFINED_INTERVAL, UNDEFINED_INTERVAL, UNDEFINED_INTERVAL)
    shift = float(brentq(lambda shift: expit(log_odds + shift).mean() - truth.mean(), -50.0, 50.0))
    in_the_large = compute_wald_interval(
        shift, float(_compute_logistic_variance(log_odds + shift).sum()) ** -0.5
    )
    if positive.min() >= negative.max() or positive.max() <= negative.min():
        return Recalibration(UNDEFINED_INTERVAL, UNDEFINED_INTERVAL, in_the_large)
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(log_odds[:, None], truth)
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    design = np.stack([np.ones_like(log_odds), log_odds], axis=1)
    information = design.T @ (design * _compute_logistic_variance(intercept + slope * log_odds)[:, None])
    standard_errors = np.sqrt(np.diag(np.linalg.inv(information)))
    return Recalibration(
        compute_wald_interval(slope, standard_errors[1]),
        compute_wald_interval(intercept, standard_errors[0]),
        in_the_large,
    )


def _compute_logistic_variance(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = expit(log_odds) * (1 - expit(log_odds))
    return values


def compute_calibration_bins(
    label: ArrayLike, probability: ArrayLike, bin_count: int = DEFAULT_BIN_COUNT
) -> list[CalibrationBin]:
    """Divide the patients by probability into at most ``bin_count`` groups of similar size.

    label and probability ``(n,)``. Equal probabilities stay in one group.
    """
    truth, score = np.asarray(label, float), np.asarray(probability, float)
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bin_count + 1)[1:-1]))
    group = np.searchsorted(edges, score, side="left")
    return [
        CalibrationBin(int(in_group.sum()), float(score[in_group].mean()), float(truth[in_group].mean()))
        for index in range(len(edges) + 1)
        if (in_group := group == index).any()
    ]


def expected_calibration_error(
    label: ArrayLike, probability: ArrayLike, bin_count: int = DEFAULT_BIN_COUNT
) -> float:
    """Return the mean difference of probability and share of positives over the bins, weighted by patients.

    label and probability ``(n,)``; see ``compute_calibration_bins``.
    """
    groups = compute_calibration_bins(label, probability, bin_count)
    total = sum(group.patients for group in groups)
    return sum(group.patients * abs(group.probability - group.share) for group in groups) / total


def compute_net_benefit(
    label: ArrayLike, probability: ArrayLike, thresholds: ArrayLike
) -> NDArray[np.float64]:
    """Compute the net benefit ``(t,)`` of a decision curve (Vickers and Elkin 2006).

    It is the share of true positives minus the weighted share of false positives. label and probability ``(n,)``;
    thresholds ``(t,)``: probabilities in (0, 1) from which a patient is treated. Treating all patients is a probability
    of 1 for each.
    """
    truth, score = np.asarray(label, bool), np.asarray(probability, float)
    is_positive = score[None] >= np.asarray(thresholds, float)[:, None]
    odds = np.asarray(thresholds, float) / (1 - np.asarray(thresholds, float))
    values: NDArray[np.float64] = (is_positive & truth).mean(axis=1) - odds * (is_positive & ~truth).mean(
        axis=1
    )
    return values

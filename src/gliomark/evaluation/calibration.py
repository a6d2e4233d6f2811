"""Whether a probability means what it says: calibration, and what acting on it would bring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from gliomark.evaluation.intervals import UNDEFINED, Interval, wald

SMALLEST = 1e-6  # a probability of 0 or 1 has no logit
BINS = 10


@dataclass(frozen=True)
class Bin:
    """Patients of like probability: how many, their mean probability, the share that is positive."""

    patients: int
    probability: float
    share: float


def brier(label: ArrayLike, probability: ArrayLike) -> float:
    """Mean squared difference of probability and outcome; 0 is best."""
    return float(np.mean((np.asarray(probability, float) - np.asarray(label, float)) ** 2))


@dataclass(frozen=True)
class Recalibration:
    """What would mend the logits, with Wald's intervals. slope and intercept: of the logistic regression of the
    outcome on the logit, 1 and 0 being perfect; in_the_large: the intercept where the slope is held at 1."""

    slope: Interval
    intercept: Interval
    in_the_large: Interval


def recalibration(label: ArrayLike, probability: ArrayLike) -> Recalibration:
    """Cox 1958; nan where only one class is present, all probabilities are the same, or they tell the classes
    apart without a mistake."""
    truth, scale = np.asarray(label, int), _logit(probability)
    positive, negative = scale[truth == 1], scale[truth == 0]
    if not len(positive) or not len(negative):
        return Recalibration(UNDEFINED, UNDEFINED, UNDEFINED)
    shift = float(brentq(lambda shift: expit(scale + shift).mean() - truth.mean(), -50.0, 50.0))
    large = wald(shift, float(_weight(scale + shift).sum()) ** -0.5)
    if positive.min() >= negative.max() or positive.max() <= negative.min():
        return Recalibration(UNDEFINED, UNDEFINED, large)
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(scale[:, None], truth)
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    design = np.stack([np.ones_like(scale), scale], axis=1)
    information = design.T @ (design * _weight(intercept + slope * scale)[:, None])
    deviations = np.sqrt(np.diag(np.linalg.inv(information)))
    return Recalibration(wald(slope, deviations[1]), wald(intercept, deviations[0]), large)


def _weight(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    return expit(scale) * (1 - expit(scale))


def calibration_bins(label: ArrayLike, probability: ArrayLike, bins: int = BINS) -> list[Bin]:
    """Patients in order of probability, in at most ``bins`` groups of like size; equal probabilities stay together."""
    truth, score = np.asarray(label, float), np.asarray(probability, float)
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]))
    group = np.searchsorted(edges, score, side="left")
    return [
        Bin(int(chosen.sum()), float(score[chosen].mean()), float(truth[chosen].mean()))
        for index in range(len(edges) + 1)
        if (chosen := group == index).any()
    ]


def expected_calibration_error(label: ArrayLike, probability: ArrayLike, bins: int = BINS) -> float:
    """Mean distance of probability and share over ``calibration_bins``, weighted by their patients."""
    groups = calibration_bins(label, probability, bins)
    total = sum(group.patients for group in groups)
    return sum(group.patients * abs(group.probability - group.share) for group in groups) / total


def net_benefit(label: ArrayLike, probability: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Decision curve (Vickers and Elkin 2006): true minus weighed false positives per patient, by threshold.

    thresholds: probabilities in (0, 1) at which one would act; "all" is the benefit of probability 1 for everybody.
    """
    truth, score = np.asarray(label, bool), np.asarray(probability, float)
    acted = score[None] >= np.asarray(thresholds, float)[:, None]
    odds = np.asarray(thresholds, float) / (1 - np.asarray(thresholds, float))
    return (acted & truth).mean(axis=1) - odds * (acted & ~truth).mean(axis=1)


def _logit(probability: ArrayLike) -> NDArray[np.float64]:
    return logit(np.clip(np.asarray(probability, float), SMALLEST, 1 - SMALLEST))

"""DeLong's variance of the AUC and test for two correlated AUCs (DeLong et al. 1988)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from gliomark.evaluation.conservative_auc import compute_conservative_auc_interval
from gliomark.evaluation.intervals import Interval, compute_wald_interval


@dataclass(frozen=True)
class DeLongTestResult:
    """Difference of two AUCs on the same patients (first minus second) with its interval, and the two-sided p value."""

    difference: Interval
    p: float


def compute_delong_interval(label: ArrayLike, probability: ArrayLike) -> Interval:
    """Return the AUC with DeLong's interval, limited to 0 to 1; nan if only one class is present.

    Where the variance is estimated as 0, as for patients who happen to be ranked perfectly, the interval is the
    conservative one. label ``(n,)``, 0 or 1 per patient; probability ``(n,)``, any score that is higher for 1.
    """
    aucs, covariance = compute_delong_covariance(label, [probability])
    if covariance[0, 0] <= 0:
        return compute_conservative_auc_interval(label, probability)
    interval = compute_wald_interval(float(aucs[0]), float(np.sqrt(covariance[0, 0])))
    return Interval(interval.value, *np.clip([interval.lower, interval.upper], 0.0, 1.0).tolist())


def compute_delong_test(label: ArrayLike, first: ArrayLike, second: ArrayLike) -> DeLongTestResult:
    """Test whether two scores ``(n,)`` of the same patients have the same AUC; label ``(n,)``, 0 or 1.

    Interval and p are nan if the AUCs differ and the variance of the difference is estimated as 0.
    """
    aucs, covariance = compute_delong_covariance(label, [first, second])
    difference = float(aucs[0] - aucs[1])
    standard_error = float(
        np.sqrt(np.maximum(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    )
    if difference and not standard_error > 0:
        standard_error = float("nan")
    with np.errstate(invalid="ignore"):
        p = 1.0 if difference == 0 else float(2 * norm.sf(np.abs(difference) / np.float64(standard_error)))
    return DeLongTestResult(compute_wald_interval(difference, standard_error), p)


def compute_delong_covariance(label: ArrayLike, scores: list[ArrayLike]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the AUCs ``(k,)`` of k scores and their covariance ``(k, k)``, from midranks (Sun and Xu 2014).

    label and each score ``(n,)``. The covariance is nan if a class has only one patient.
    """
    positive = np.asarray(label, int) == 1
    positive_count, negative_count = int(positive.sum()), int((~positive).sum())
    if positive_count == 0 or negative_count == 0:
        return np.full(len(scores), np.nan), np.full((len(scores), len(scores)), np.nan)
    positive_placements, negative_placements = [], []
    for score in scores:
        values = np.asarray(score, float)
        ranks = rankdata(values)
        # share of the other class that ranks below each patient
        positive_placements.append((ranks[positive] - rankdata(values[positive])) / negative_count)
        negative_placements.append(1 - (ranks[~positive] - rankdata(values[~positive])) / positive_count)
    aucs = np.array([part.mean() for part in positive_placements])
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = (
            _compute_covariance(positive_placements) / positive_count
            + _compute_covariance(negative_placements) / negative_count
        )
    return aucs, covariance


def _compute_covariance(placements: list[NDArray[Any]]) -> NDArray[Any]:
    if len(placements[0]) < 2:
        return np.full((len(placements), len(placements)), np.nan)
    return np.atleast_2d(np.cov(np.stack(placements), ddof=1))

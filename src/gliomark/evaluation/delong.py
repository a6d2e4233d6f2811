"""DeLong's variance of the area under the ROC curve, and his test of two (DeLong et al. 1988)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from gliomark.evaluation.intervals import Interval, wald


@dataclass(frozen=True)
class AreaTest:
    """The difference of two areas on the same patients (first minus second), its interval, the two-sided p."""

    difference: Interval
    p: float


def delong(label: ArrayLike, probability: ArrayLike) -> Interval:
    """The area with DeLong's interval, cut to 0 and 1; nan where only one class is present.

    label: 0 or 1 per patient; probability: any score, higher for 1.
    """
    areas, covariance = delong_covariance(label, [probability])
    found = wald(float(areas[0]), float(np.sqrt(covariance[0, 0])))
    return Interval(found.value, *np.clip([found.low, found.high], 0.0, 1.0).tolist())


def delong_test(label: ArrayLike, first: ArrayLike, second: ArrayLike) -> AreaTest:
    """Whether two scores of the same patients rank them equally well."""
    areas, covariance = delong_covariance(label, [first, second])
    difference = float(areas[0] - areas[1])
    deviation = float(np.sqrt(np.maximum(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])))
    with np.errstate(invalid="ignore"):
        p = 1.0 if difference == 0 else float(2 * norm.sf(np.abs(difference) / np.float64(deviation)))
    return AreaTest(wald(difference, deviation), p)


def delong_covariance(label: ArrayLike, scores: list[ArrayLike]) -> tuple[NDArray, NDArray]:
    """Areas ``(k,)`` and their covariance ``(k, k)`` of k scores, from midranks (Sun and Xu 2014).

    One patient in a class leaves that class's part of the covariance undefined (nan).
    """
    positive = np.asarray(label, int) == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if m == 0 or n == 0:
        return np.full(len(scores), np.nan), np.full((len(scores), len(scores)), np.nan)
    of_positive, of_negative = [], []
    for score in scores:
        values = np.asarray(score, float)
        ranks = rankdata(values)
        # share of the other class that each patient is ranked above
        of_positive.append((ranks[positive] - rankdata(values[positive])) / n)
        of_negative.append(1 - (ranks[~positive] - rankdata(values[~positive])) / m)
    areas = np.array([part.mean() for part in of_positive])
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = _covariance(of_positive) / m + _covariance(of_negative) / n
    return areas, covariance


def _covariance(parts: list[NDArray]) -> NDArray:
    if len(parts[0]) < 2:
        return np.full((len(parts), len(parts)), np.nan)
    return np.atleast_2d(np.cov(np.stack(parts), ddof=1))

"""95 % intervals: by bootstrap over patients (percentile method), and from a standard error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

Z = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; nan where it is not defined."""

    value: float
    low: float
    high: float


UNDEFINED = Interval(float("nan"), float("nan"), float("nan"))


def wald(value: float, standard_error: float) -> Interval:
    """Normal approximation."""
    return Interval(value, value - Z * standard_error, value + Z * standard_error)


def bootstrap(
    statistic: Callable[..., float], *columns: ArrayLike, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """(value, low, high) of ``statistic(*columns)``; the columns hold one entry per patient.

    Resamples for which the statistic is undefined (one class only) are left out.
    """
    arrays = [np.asarray(column) for column in columns]
    random = np.random.default_rng(seed)
    count = len(arrays[0])
    draws = (random.integers(0, count, count) for _ in range(resamples))
    values = np.array([statistic(*(array[draw] for array in arrays)) for draw in draws])
    low, high = np.nanpercentile(values, [2.5, 97.5]) if np.isfinite(values).any() else (np.nan, np.nan)
    return float(statistic(*arrays)), float(low), float(high)

"""95 % intervals: bootstrap over patients (percentile method), and Wald intervals from a standard error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

NORMAL_QUANTILE_975 = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; nan if undefined."""

    value: float
    lower: float
    upper: float


UNDEFINED_INTERVAL = Interval(float("nan"), float("nan"), float("nan"))


def compute_wald_interval(value: float, standard_error: float) -> Interval:
    """Return the 95 % interval of the normal approximation."""
    return Interval(
        value, value - NORMAL_QUANTILE_975 * standard_error, value + NORMAL_QUANTILE_975 * standard_error
    )


def bootstrap_interval(
    statistic: Callable[..., float], *columns: ArrayLike, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return ``statistic(*columns)`` with the bounds of its bootstrap interval: value, lower, upper.

    Each column ``(n,)`` has one entry per patient. Resamples with an undefined statistic (one class only) are left out.
    """
    arrays = [np.asarray(column) for column in columns]
    random = np.random.default_rng(seed)
    count = len(arrays[0])
    draws = (random.integers(0, count, count) for _ in range(resamples))
    values = [statistic(*(array[draw] for array in arrays)) for draw in draws]
    return float(statistic(*arrays)), *_compute_percentile_bounds(values)


def bootstrap_cluster_intervals(
    statistic: Callable[..., Mapping[str, float]],
    cluster: ArrayLike,
    *columns: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return each value of ``statistic(*columns)`` with its interval from a bootstrap over patients.

    Each column ``(n,)`` has one entry per slice; all slices of a patient are drawn together. cluster ``(n,)``: the
    patient of each entry. Resamples in which a value is undefined are left out for that value.
    """
    arrays = [np.asarray(column) for column in columns]
    _, cluster_index = np.unique(np.asarray(cluster), return_inverse=True)
    rows = [np.flatnonzero(cluster_index == number) for number in range(cluster_index.max() + 1)]
    random = np.random.default_rng(seed)
    resampled: dict[str, list[float]] = {}
    for _ in range(resamples):
        index = np.concatenate([rows[number] for number in random.integers(0, len(rows), len(rows))])
        for name, value in statistic(*(array[index] for array in arrays)).items():
            resampled.setdefault(name, []).append(value)
    return {
        name: Interval(float(value), *_compute_percentile_bounds(resampled[name]))
        for name, value in statistic(*arrays).items()
    }


def _compute_percentile_bounds(values: Sequence[float]) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile; nan if no resample has a value."""
    if not np.isfinite(values).any():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)

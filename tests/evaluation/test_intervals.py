"""Bootstrap intervals over patients."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gliomark.evaluation.intervals import bootstrap_interval
from gliomark.evaluation.metrics import auc


def test_an_interval_contains_the_value_and_has_the_theoretical_width() -> None:
    values = np.random.default_rng(0).normal(5, 2, 200)
    value, low, high = bootstrap_interval(np.mean, values)
    assert value == pytest.approx(values.mean()) and low < value < high
    error = values.std() / math.sqrt(200)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_intervals_are_deterministic() -> None:
    values = np.random.default_rng(0).random(30)
    assert bootstrap_interval(np.mean, values, seed=1) == bootstrap_interval(np.mean, values, seed=1)
    assert bootstrap_interval(np.mean, values, seed=1) != bootstrap_interval(np.mean, values, seed=2)


def test_columns_are_resampled_together() -> None:
    values = np.random.default_rng(0).random(40)
    value, low, high = bootstrap_interval(lambda a, b: float(np.abs(a - b).max()), values, values.copy())
    assert (value, low, high) == (0, 0, 0)


def test_resamples_of_one_class_are_left_out() -> None:
    label, probability = [0, 0, 0, 0, 0, 1], [0.1, 0.2, 0.3, 0.7, 0.1, 0.6]
    value, low, high = bootstrap_interval(auc, label, probability, resamples=300)
    assert value == pytest.approx(0.8) and 0 <= low <= value <= high <= 1


def test_undefined_statistics_give_nan() -> None:
    assert all(math.isnan(number) for number in bootstrap_interval(auc, [1, 1], [0.2, 0.4], resamples=20))

"""Calibration and net benefit on simulated patients with known probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from gliomark.evaluation.calibration import (
    brier_score,
    compute_calibration_bins,
    compute_net_benefit,
    expected_calibration_error,
    fit_recalibration,
)


@pytest.fixture(scope="module")
def simulated() -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and labels of 40 000 simulated patients."""
    random = np.random.default_rng(1)
    scale = random.normal(size=40_000)
    return scale, (random.random(40_000) < expit(scale)).astype(int)


def test_true_probabilities_are_calibrated(simulated) -> None:
    scale, label = simulated
    found = fit_recalibration(label, expit(scale))
    for part, perfect in ((found.slope, 1), (found.intercept, 0), (found.in_the_large, 0)):
        assert part.lower < perfect < part.upper and part.upper - part.lower < 0.12
    assert expected_calibration_error(label, expit(scale)) < 0.01


def test_slope_and_shift_are_found(simulated) -> None:
    scale, label = simulated
    overconfident = fit_recalibration(label, expit(2 * scale + 1))
    assert overconfident.slope.value == pytest.approx(0.5, abs=0.03)
    assert overconfident.intercept.value == pytest.approx(-0.5, abs=0.04)
    shifted = fit_recalibration(label, expit(scale + 1))
    assert shifted.in_the_large.value == pytest.approx(-1, abs=0.04)
    assert shifted.in_the_large.lower < -1 < shifted.in_the_large.upper


def test_the_wald_standard_error_equals_that_of_repeated_samples(simulated) -> None:
    scale, label = simulated
    values, standard_errors = [], []
    for part in np.split(np.arange(40_000), 100):
        slope = fit_recalibration(label[part], expit(scale[part])).slope
        values.append(slope.value)
        standard_errors.append((slope.upper - slope.lower) / 2 / 1.959964)
    assert np.std(values) == pytest.approx(np.mean(standard_errors), rel=0.2)


def test_undefined_slopes_are_nan() -> None:
    for label, probability in (([1, 1], [0.4, 0.6]), ([0, 1], [0.3, 0.7]), ([0, 1, 1], [0.5, 0.5, 0.5])):
        assert np.isnan(fit_recalibration(label, probability).slope.value)
    assert np.isnan(fit_recalibration([0, 0], [0.1, 0.2]).in_the_large.value)
    assert np.isfinite(fit_recalibration([0, 1, 0, 1], [0.0, 1.0, 1.0, 0.0]).in_the_large.value)


def test_bins_hold_every_patient_once_and_ties_stay_together() -> None:
    probability = np.array([0.1] * 30 + [0.2] * 5 + [0.9] * 5)
    label = np.array([0] * 27 + [1] * 3 + [0] * 5 + [1] * 5)
    bins = compute_calibration_bins(label, probability)
    assert sum(group.patients for group in bins) == 40
    assert [(group.patients, round(group.probability, 9), group.share) for group in bins] == [
        (30, 0.1, 0.1),
        (5, 0.2, 0.0),
        (5, 0.9, 1.0),
    ]
    assert expected_calibration_error(label, probability) == pytest.approx((5 * 0.2 + 5 * 0.1) / 40)


def test_brier_score_and_net_benefit_equal_the_arithmetic() -> None:
    label, probability = [1, 0, 1, 0], [0.9, 0.8, 0.3, 0.1]
    assert brier_score(label, probability) == pytest.approx((0.01 + 0.64 + 0.49 + 0.01) / 4)
    assert compute_net_benefit(label, probability, [0.5, 0.2]) == pytest.approx(
        [0.25 - 0.25, 0.5 - 0.25 * 0.25]
    )
    all_positive = compute_net_benefit(label, np.ones(4), [0.25])
    assert all_positive == pytest.approx([0.5 - 0.5 / 3])

"""Calibration maps recover what was done to the probabilities, and never change the order of patients."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit

from gliomark.errors import ConfigurationError
from gliomark.evaluation.calibration import expected_calibration_error
from gliomark.evaluation.calibrators import (
    CALIBRATION_METHODS,
    CalibrationMethod,
    Calibrator,
    choose_calibrator,
    compute_log_loss,
    correct_prevalence,
    fit_calibrator,
)

COUNT = 20_000


def draw_true_probabilities(
    seed: int = 0, centre: float = 0.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw labels and the probabilities with which they were drawn."""
    rng = np.random.default_rng(seed)
    probability = expit(rng.normal(centre, 1.5, COUNT))
    return (rng.random(COUNT) < probability).astype(int), probability


DISTORTIONS = {
    "none": lambda p: p,
    "shift": lambda p: expit(logit(p) - 1.2),
    "temperature": lambda p: expit(3 * logit(p)),
    "platt": lambda p: expit(0.4 * logit(p) + 0.7),
    "beta": lambda p: (
        p**3 / (p**3 + 0.5 * (1 - p) ** 0.7)
    ),  # a = 1/3, b = 1/0.7 is not exact: the log-odds are curved
    "isotonic": lambda p: np.where(p < 0.5, p**4, 0.6 + 0.4 * p),
}


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
def test_a_distortion_is_undone(method: CalibrationMethod) -> None:
    label, true_probability = draw_true_probabilities()
    distorted = DISTORTIONS[method](true_probability)
    calibrated = fit_calibrator(method, label, distorted).apply(distorted)
    allowed = {"beta": 0.03, "isotonic": 0.02}.get(method, 0.01)
    assert np.abs(calibrated - true_probability).mean() < allowed
    if method != "none":
        assert np.abs(distorted - true_probability).mean() > 0.05
        assert expected_calibration_error(label, distorted) > 2 * expected_calibration_error(
            label, calibrated
        )


@pytest.mark.parametrize(
    "method, parameters", [("shift", (1.2,)), ("temperature", (1 / 3,)), ("platt", (2.5, -1.75))]
)
def test_the_parameters_are_those_of_the_distortion(
    method: CalibrationMethod, parameters: tuple[float, ...]
) -> None:
    label, true_probability = draw_true_probabilities()
    found = fit_calibrator(method, label, DISTORTIONS[method](true_probability))
    assert found.parameters == pytest.approx(parameters, abs=0.1)


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
@pytest.mark.parametrize("reversed_labels", [False, True])
@pytest.mark.parametrize("count", [4, 30, 300])
def test_the_order_of_patients_never_changes(
    method: CalibrationMethod, reversed_labels: bool, count: int
) -> None:
    label, probability = (one[:count].copy() for one in draw_true_probabilities(seed=3))
    label[:2] = (0, 1)
    calibrator = fit_calibrator(method, 1 - label if reversed_labels else label, probability)
    grid = np.linspace(0, 1, 1001)
    calibrated = calibrator.apply(grid)
    assert (np.diff(calibrated) >= -1e-12).all()
    assert ((calibrated >= 0) & (calibrated <= 1)).all() and np.isfinite(calibrated).all()


@pytest.mark.parametrize(
    "label, probability",
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]),  # the classes do not overlap
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]),
        ([1, 1, 1, 1], [0.2, 0.4, 0.6, 0.8]),
        ([0, 1], [0.0, 1.0]),
    ],
)
@pytest.mark.parametrize("method", CALIBRATION_METHODS)
def test_extreme_patients_give_finite_maps(
    method: CalibrationMethod, label: list[int], probability: list[float]
) -> None:
    calibrator = fit_calibrator(method, label, probability)
    assert np.isfinite(calibrator.parameters).all()
    calibrated = calibrator.apply(probability)
    assert np.isfinite(compute_log_loss(label, calibrated))
    if method == "isotonic":
        assert ((calibrated > 0) & (calibrated < 1)).all()  # a few patients never make anything certain


@pytest.mark.parametrize("distortion", ["none", "shift", "temperature", "isotonic"])
def test_the_method_is_chosen_by_what_was_distorted(distortion: CalibrationMethod) -> None:
    label, true_probability = draw_true_probabilities(seed=1)
    distorted = DISTORTIONS[distortion](true_probability)
    chosen = choose_calibrator(label, distorted)
    assert np.abs(chosen.apply(distorted) - true_probability).mean() < 0.02
    if distortion == "isotonic":
        assert chosen.method == "isotonic"


def test_few_patients_get_few_parameters() -> None:
    label, probability = (one[:40] for one in draw_true_probabilities(seed=5))
    assert choose_calibrator(label, probability).method in ("none", "shift", "temperature")


def test_another_prevalence_is_corrected() -> None:
    label, probability = draw_true_probabilities()
    rng = np.random.default_rng(1)
    is_kept = (label == 0) | (rng.random(COUNT) < 0.25)
    before, after = label.mean(), label[is_kept].mean()
    corrected = correct_prevalence(probability[is_kept], before, after)
    assert abs(corrected.mean() - after) < 0.01 < abs(probability[is_kept].mean() - after)
    np.testing.assert_allclose(correct_prevalence(corrected, after, before), probability[is_kept], atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_an_impossible_prevalence_is_refused(share: float) -> None:
    with pytest.raises(ConfigurationError, match="above 0 and below 1"):
        correct_prevalence([0.5], 0.5, share)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="spline is unknown: use one of none, shift"):
        fit_calibrator("spline", [0, 1], [0.2, 0.8])  # type: ignore[arg-type]


def test_no_map_returns_the_probabilities() -> None:
    probability = np.random.default_rng(0).random((3, 4))
    np.testing.assert_array_equal(Calibrator().apply(probability), probability)


@pytest.mark.parametrize("extreme", [0.0, 1.0])
def test_tied_extreme_patients_get_about_their_share(extreme: float) -> None:
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.uniform(0.3, 0.7, 300), np.full(100, extreme)])
    truth = (rng.random(400) < np.where(score == extreme, 0.4 + 0.2 * extreme, 0.5)).astype(int)
    calibrated = fit_calibrator("isotonic", truth, score).apply(score)
    assert calibrated[-1] == pytest.approx(truth[300:].mean(), abs=0.05)

"""Calibration from out-of-fold predictions: probabilities mean what they say, levels keep their coverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from gliomark.errors import ConfigurationError
from gliomark.evaluation.calibration import expected_calibration_error
from gliomark.evaluation.calibrators import CALIBRATION_METHODS, CalibrationMethod, fit_calibrator
from gliomark.evaluation.metrics import auc
from gliomark.inference.patient_calibration import (
    calibrate_probabilities,
    compute_level_limits,
    create_patient_calibration,
)
from gliomark.models.card import MarkerCard, MarkerNetworkCard
from gliomark.models.patient_calibration import PatientCalibration
from gliomark.prediction import LevelLimits
from gliomark.training.patient_calibration import add_patient_calibration, calibrate_marker


def draw_patients(
    count: int, seed: int, prevalence: float = 0.4
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw labels and probabilities that are twice as sure as they should be."""
    rng = np.random.default_rng(seed)
    label = (rng.random(count) < prevalence).astype(int)
    log_likelihood_ratio = 2 * rng.normal(2 * label, 1.0) - 2  # of normal distributions around 0 and 2
    return label, expit(2 * (log_likelihood_ratio + np.log(0.4 / 0.6)))


def decide_all(
    calibration: PatientCalibration,
    limits: LevelLimits,
    scores: NDArray[np.float64],
    prevalence: float | None,
) -> NDArray[np.str_]:
    probabilities = calibrate_probabilities(calibration, scores, prevalence)
    return np.array([limits.decide(one, "positive", "negative") for one in probabilities])


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_patients_of_the_calibration_have_exactly_their_stored_scores(
    method: CalibrationMethod, seed: int
) -> None:
    """By every door, or one of them could be on the other side of the limits that he himself sets."""
    label, score = draw_patients(150, seed)
    calibration = create_patient_calibration(fit_calibrator(method, label, score), label, score, "home")
    stored_labels, stored = calibration.get_labels_and_scores()
    together = calibrate_probabilities(calibration, score)
    alone = [float(calibrate_probabilities(calibration, one)) for one in score.tolist()]
    assert together.tolist() == alone and sorted(stored_labels) == sorted(label.tolist())
    for value, level in ((1, "negative"), (0, "positive")):
        known = [one for mark, one in zip(stored_labels, stored, strict=True) if mark == value]
        assert sorted(together[label == value].tolist()) == known
        for prevalence in (None, 0.2):
            limits = compute_level_limits(calibration, prevalence=prevalence)
            levels = decide_all(calibration, limits, score[label == value], prevalence)
            allowed = len(known) - np.ceil(0.9 * (len(known) + 1) - 1e-9)  # by the rank of the limit
            assert (levels == level).sum() <= allowed


def test_probabilities_of_other_patients_mean_what_they_say() -> None:
    calibration = calibrate_marker(*draw_patients(300, 1), "home")
    label, score = draw_patients(4000, 2)
    calibrated = calibrate_probabilities(calibration, score)
    assert expected_calibration_error(label, calibrated) < 0.5 * expected_calibration_error(label, score)
    assert auc(label, calibrated) == pytest.approx(auc(label, score), abs=0.01)


@pytest.mark.parametrize("coverage", [0.9, 0.95])
def test_levels_of_other_patients_keep_the_coverage(coverage: float) -> None:
    """The limits hold for either class, at any prevalence; the second condition can only add to "cannot tell"."""
    wrong = []
    for seed in range(12):
        calibration = calibrate_marker(*draw_patients(120, seed), "home")
        limits = compute_level_limits(calibration, coverage)
        label, score = draw_patients(400, 100 + seed, prevalence=0.2)
        levels = decide_all(calibration, limits, score, None)
        wrong.append([(levels[label == 1] == "negative").mean(), (levels[label == 0] == "positive").mean()])
        assert {"positive", "negative"} <= set(levels)
    assert (np.mean(wrong, axis=0) < 1 - coverage + 0.03).all()
    assert max(np.mean(wrong, axis=0)) > 1 - coverage - 0.05


def test_the_prevalence_moves_probability_and_limits_together() -> None:
    calibration = calibrate_marker(*draw_patients(200, 3), "home")
    _, score = draw_patients(500, 4)
    home = compute_level_limits(calibration)
    assert compute_level_limits(calibration, prevalence=calibration.prevalence) == LevelLimits(
        pytest.approx(home.negative_below),
        pytest.approx(home.positive_above),
        0.9,
        home.positives,
        home.negatives,
    )
    rare = compute_level_limits(calibration, prevalence=0.05)
    assert rare.negative_below < home.negative_below and rare.positive_above >= 0.5
    before, after = decide_all(calibration, home, score, None), decide_all(calibration, rare, score, 0.05)
    assert not ((before == "positive") & (after == "negative")).any()
    assert not ((before == "negative") & (after == "positive")).any()
    assert (after == "positive").sum() < (before == "positive").sum()


@pytest.mark.parametrize("prevalence", [0.01, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.97])
def test_a_level_is_always_the_more_probable_one(coverage: float, prevalence: float) -> None:
    calibration = calibrate_marker(*draw_patients(150, 5), "home")
    limits = compute_level_limits(calibration, coverage, prevalence)
    assert 0 < limits.negative_below <= 0.5 <= limits.positive_above < 1
    for score in np.linspace(0.001, 0.999, 200):
        probability = float(calibrate_probabilities(calibration, score, prevalence))
        level = limits.decide(probability, "positive", "negative")
        assert level == "cannot tell" or (level == "positive") == (probability > 0.5)


@pytest.mark.parametrize(
    ("positives", "negatives", "lower_is_zero", "upper_is_one", "is_mapped"),
    [(1, 1, True, True, False), (8, 40, True, False, True), (40, 8, False, True, True), (4, 60, True, False, False),
     (9, 9, False, False, False), (60, 60, False, False, True)],
)  # fmt: skip
def test_too_few_patients_of_a_class_leave_it_possible(
    positives: int, negatives: int, lower_is_zero: bool, upper_is_one: bool, is_mapped: bool
) -> None:
    label = np.repeat([1, 0], [positives, negatives])
    score = np.random.default_rng(0).normal(label * 0.4 + 0.3, 0.1).clip(0.01, 0.99) ** 3
    calibration = calibrate_marker(label, score, "small")
    assert (calibration.positives, calibration.patients) == (positives, positives + negatives)
    assert (calibration.method != "none") is is_mapped
    for prevalence in (None, 0.2):
        limits = compute_level_limits(calibration, prevalence=prevalence)
        assert (limits.negative_below == 0) is lower_is_zero and (limits.positive_above == 1) is upper_is_one
        assert (limits.decide(0.0, "p", "n") == "cannot tell") is lower_is_zero
        assert (limits.decide(1.0, "p", "n") == "cannot tell") is upper_is_one


@pytest.mark.parametrize("shape", ["separated", "constant", "reversed", "extreme"])
def test_unusual_scores_give_a_valid_calibration(shape: str) -> None:
    label = np.repeat([1, 0], [30, 40])
    rising = np.linspace(0.2, 0.8, 70)
    score = {
        "separated": np.where(label == 1, 0.9, 0.1) + rising / 100,
        "constant": np.full(70, 0.4),
        "reversed": 1 - label * 0.5 - rising / 10,
        "extreme": label.astype(float),
    }[shape]
    calibration = calibrate_marker(label, score, "c")
    assert calibration.prevalence == pytest.approx(3 / 7)
    limits = compute_level_limits(calibration)
    found = decide_all(calibration, limits, score, None)
    if shape in ("separated", "extreme"):
        assert (found == np.where(label == 1, "positive", "negative")).all()
    else:
        assert (
            set(found[label == 1]) <= {"cannot tell", "positive"}
            or (found[label == 1] == "negative").mean() <= 0.1
        )


@pytest.mark.parametrize(
    ("coverage", "prevalence"), [(0.4, None), (1.0, None), (0.9, 0.0), (0.9, 1.0), (0.9, -0.1), (float("nan"), None)]
)  # fmt: skip
def test_an_impossible_setting_is_refused(coverage: float, prevalence: float | None) -> None:
    calibration = calibrate_marker(*draw_patients(100, 6), "home")
    with pytest.raises(ConfigurationError):
        compute_level_limits(calibration, coverage, prevalence)


def test_the_card_gets_the_threshold_of_the_calibrated_probabilities() -> None:
    label, score = draw_patients(200, 7)
    card = MarkerCard("c", "t", "high", "low", "", 0.123, None, MarkerNetworkCard(network={}, crop=192))
    calibration = calibrate_marker(label, score, "home")
    calibrated = calibrate_probabilities(calibration, score)
    changed = add_patient_calibration(card, calibration)
    assert changed == replace(card, patient_calibration=calibration, threshold=changed.threshold)
    called = calibrated >= changed.threshold
    gain = called[label == 1].mean() - called[label == 0].mean()
    assert gain > 0.5 and changed.threshold != 0.123
    for other in np.linspace(0.05, 0.95, 50):
        assert (calibrated >= other)[label == 1].mean() - (calibrated >= other)[
            label == 0
        ].mean() <= gain + 1e-9

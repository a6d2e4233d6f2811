"""Metrics, compared with values computed by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gliomark.evaluation.metrics import (
    auc,
    auc_within_groups,
    compute_threshold_metrics,
    compute_youden_threshold,
    dice,
)


def create_mask(text: str) -> np.ndarray:
    return np.array([c == "1" for c in text])


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        ("1100", "1100", 1),
        ("1100", "0011", 0),
        ("1110", "0111", 2 / 3),
        ("1000", "0000", 0),
        ("1000", "1110", 0.5),
    ],
)
def test_dice_equals_the_arithmetic(truth: str, prediction: str, expected: float) -> None:
    assert dice(create_mask(truth), create_mask(prediction)) == pytest.approx(expected)
    assert dice(create_mask(prediction), create_mask(truth)) == pytest.approx(expected)


def test_dice_of_two_empty_masks_is_undefined() -> None:
    assert math.isnan(dice(create_mask("000"), create_mask("000")))
    assert dice(create_mask("000"), create_mask("010")) == 0


def test_auc_equals_the_arithmetic() -> None:
    assert auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == pytest.approx(0.75)
    assert auc([0, 1], [0.5, 0.5]) == 0.5 and auc([1, 0], [0.1, 0.9]) == 0
    assert math.isnan(auc([1, 1], [0.1, 0.9])) and math.isnan(auc([], []))
    random = np.random.default_rng(0)
    label, tied = random.integers(0, 2, 80), random.random(80).round(1)
    assert auc(label, tied) == pytest.approx(roc_auc_score(label, tied))


def test_threshold_metrics_equal_the_arithmetic() -> None:
    label, probability = [1, 1, 1, 0, 0], [0.9, 0.5, 0.2, 0.5, 0.1]
    found = compute_threshold_metrics(
        label, probability, 0.5
    )  # at the threshold is positive: tp 2, fn 1, fp 1, tn 1
    assert found["accuracy"] == pytest.approx(0.6)
    assert found["sensitivity"] == pytest.approx(2 / 3) and found["specificity"] == pytest.approx(0.5)
    by_chance = (3 * 3 + 2 * 2) / 25
    assert found["kappa"] == pytest.approx((0.6 - by_chance) / (1 - by_chance))  # eq. 4-7
    assert min(found["sensitivity"], found["specificity"]) <= found["accuracy"]
    one_class = compute_threshold_metrics([1, 1, 1], [0.9, 0.9, 0.1], 0.5)
    assert math.isnan(one_class["specificity"]) and one_class["sensitivity"] == pytest.approx(2 / 3)


def test_the_youden_threshold_maximises_the_index() -> None:
    threshold = compute_youden_threshold([0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.6, 0.9])
    assert threshold == pytest.approx(0.45)
    label, score = np.random.default_rng(0).integers(0, 2, 60), np.random.default_rng(1).random(60)
    score = (score + label * 0.4) / 1.4

    def compute_gain(threshold: float) -> float:
        found = compute_threshold_metrics(label, score, threshold)
        return found["sensitivity"] + found["specificity"]

    best = max(compute_gain(candidate) for candidate in [*score, 0.0, 1.1])
    assert compute_gain(compute_youden_threshold(label, score)) == pytest.approx(best)


def test_the_youden_threshold_of_equal_scores_is_finite() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compute_youden_threshold([0, 1], [0.4, 0.4]) == pytest.approx(0.4)


def test_auc_within_groups_does_not_compare_across_groups() -> None:
    """Perfect within each fold on different scales; and constant per fold, where the pooled AUC is below 0.5."""
    label, fold = [0, 0, 1, 0, 1, 1], [1, 1, 1, 2, 2, 2]
    assert (
        auc_within_groups(label, [0.8, 0.7, 0.9, 0.1, 0.2, 0.3], fold)
        == 1
        > auc(label, [0.8, 0.7, 0.9, 0.1, 0.2, 0.3])
    )
    share_of_the_others = [2 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 1 / 3]
    assert auc_within_groups(label, share_of_the_others, fold) == 0.5
    assert auc(label, share_of_the_others) < 0.5
    # groups are weighted by their pairs; a group with one class has none
    assert auc_within_groups([0, 1, 0, 1, 1, 1], [0.1, 0.2, 0.9, 0.1, 0.1, 0.5], [1, 1, 2, 2, 2, 3]) == 1 / 3
    assert np.isnan(auc_within_groups([1, 1], [0.1, 0.2], [1, 1]))

"""Levels with a stated coverage, and "cannot tell"."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from gliomark.errors import ConfigurationError
from gliomark.evaluation.conformal import ConformalLimits, compute_coverage, fit_conformal_limits


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("count", [60, 400])
@pytest.mark.parametrize("separation", [0.0, 1.0, 4.0])  # no information, some, nearly all
def test_both_classes_are_covered(coverage: float, count: int, separation: float) -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        label = (rng.random(2 * count) < 0.3).astype(int)
        probability = expit(rng.normal(separation * (label - 0.5), 1.0))
        limits = fit_conformal_limits(label[:count], probability[:count], coverage)
        shares.append(compute_coverage(limits, label[count:], probability[count:]))
    positives, negatives, cannot_tell = np.nanmean(shares, axis=0)
    # ranks are whole numbers, so that the share of n patients is up to 1 / (n + 1) too high
    assert coverage - 0.01 < negatives and coverage - 0.01 < positives
    if separation == 4.0 and count == 400:
        assert cannot_tell < 0.2  # mistakes and doubts are rare whatever is allowed
    elif separation < 4.0:
        assert positives < coverage + 0.02 + 1 / (0.3 * count) and negatives < coverage + 0.02 + 1 / (
            0.7 * count
        )
    if separation == 0.0:
        assert cannot_tell > 2 * coverage - 1 - 0.05


@pytest.mark.parametrize(
    "positive_from, negative_to, probability, decision",
    [
        (0.3, 0.7, 0.2, "negative"),
        (0.3, 0.7, 0.3, "cannot tell"),  # the limits belong to both
        (0.3, 0.7, 0.7, "cannot tell"),
        (0.3, 0.7, 0.71, "positive"),
        (0.7, 0.3, 0.2, "negative"),
        (0.7, 0.3, 0.5, "cannot tell"),  # strange for either class
        (0.7, 0.3, 0.8, "positive"),
        (0.0, 1.0, 0.99, "cannot tell"),
    ],
)
def test_a_probability_is_decided(
    positive_from: float, negative_to: float, probability: float, decision: str
) -> None:
    assert ConformalLimits(positive_from, negative_to, 0.9, 50, 50).decide(probability) == decision


@pytest.mark.parametrize("coverage, fewest", [(0.9, 9), (0.8, 4), (0.95, 19)])  # (n + 1) * coverage <= n
def test_a_class_with_too_few_patients_is_never_excluded(coverage: float, fewest: int) -> None:
    rng = np.random.default_rng(0)
    for count, is_excluded in ((fewest - 1, False), (fewest, True)):
        label = np.array([1] * count + [0] * 200)
        probability = np.concatenate([0.9 + 0.1 * rng.random(count), 0.1 * rng.random(200)])
        limits = fit_conformal_limits(label, probability, coverage)
        assert (limits.decide(0.0) == "negative") is is_excluded
        assert limits.positives == count


def test_the_limits_are_probabilities_of_patients() -> None:
    probability = np.linspace(0.01, 0.99, 99)
    limits = fit_conformal_limits([1] * 99, probability, 0.9)
    # 90 of 99 patients, and so 90 of 100 with a new one, are not below
    assert limits.positive_from == pytest.approx(0.10) and limits.negative_to == 1.0
    assert compute_coverage(limits, [1] * 99, probability)[0] == pytest.approx(90 / 99)


@pytest.mark.parametrize("coverage", [0.4, 1.0, float("nan")])
def test_an_impossible_coverage_is_refused(coverage: float) -> None:
    with pytest.raises(ConfigurationError, match="at least 0.5 and below 1"):
        fit_conformal_limits([0, 1], [0.1, 0.9], coverage)

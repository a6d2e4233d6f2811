"""DeLong's interval and test, compared with the definition over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gliomark.evaluation.delong import compute_delong_covariance, compute_delong_interval, compute_delong_test


def compute_by_definition(label: np.ndarray, scores: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Compute equations 3 to 6 of DeLong 1988: the kernel of every pair of a positive and a negative patient."""
    areas, positives, negatives = [], [], []
    for score in scores:
        x, y = score[label == 1], score[label == 0]
        kernel = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
        areas.append(kernel.mean())
        positives.append(kernel.mean(axis=1))
        negatives.append(kernel.mean(axis=0))
    k = len(scores)
    covariance = np.zeros((k, k))
    for parts in (positives, negatives):
        for r in range(k):
            for s in range(k):
                count = len(parts[r])
                products = (parts[r] - areas[r]) * (parts[s] - areas[s])
                covariance[r, s] += products.sum() / (count - 1) / count
    return np.array(areas), covariance


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [1, 6])
def test_midranks_equal_the_definition_with_ties(seed: int, decimals: int) -> None:
    random = np.random.default_rng(seed)
    label = (np.arange(60) < 22).astype(int)
    scores = [np.round(random.normal(size=60) + gain * label, decimals) for gain in (0.3, 1.0, 0.0)]
    areas, covariance = compute_delong_covariance(label, list(scores))
    expected_areas, expected = compute_by_definition(label, scores)
    np.testing.assert_allclose(areas, expected_areas, atol=1e-12)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)
    assert compute_delong_interval(label, scores[0]).value == pytest.approx(roc_auc_score(label, scores[0]))


def test_interval_and_p_value_of_a_known_case() -> None:
    """Four patients with AUCs 1 and 0.75; the second's placements are (1, 0.5) and (0.5, 1), variance 0.125."""
    label = [0, 0, 1, 1]
    found = compute_delong_interval(label, [0.1, 0.4, 0.35, 0.8])
    assert found.value == 0.75
    assert (found.lower, found.upper) == pytest.approx((0.75 - 1.959964 * 0.125**0.5, 1.0), abs=1e-6)
    test = compute_delong_test(label, [0.1, 0.2, 0.3, 0.4], [0.1, 0.4, 0.35, 0.8])
    assert test.difference.value == 0.25
    assert test.p == pytest.approx(0.4795, abs=1e-4)
    assert compute_delong_test(label, [1, 2, 3, 4], [1, 2, 3, 4]).p == 1.0


def test_undefined_values_are_nan() -> None:
    assert np.isnan(
        [vars(compute_delong_interval([1, 1], [0.2, 0.3]))[name] for name in ("value", "lower", "upper")]
    ).all()
    single = compute_delong_interval([1, 0, 0], [0.9, 0.1, 0.2])
    assert single.value == 1.0 and np.isnan(single.lower)
    assert np.isnan(compute_delong_test([0, 0], [0.1, 0.2], [0.3, 0.4]).p)


def test_a_perfect_order_of_few_patients_has_no_narrow_interval() -> None:
    label, perfect, constant = [1, 0, 1, 0], [0.9, 0.2, 0.6, 0.4], [0.5] * 4
    interval = compute_delong_interval(label, perfect)
    assert (interval.value, interval.upper) == (1.0, 1.0)
    assert interval.lower == pytest.approx(0.025**0.5)  # Clopper-Pearson, two of two
    test = compute_delong_test(label, perfect, constant)
    assert test.difference.value == pytest.approx(0.5)
    assert np.isnan(test.difference.lower) and np.isnan(test.p)
    assert compute_delong_test(label, perfect, perfect).p == 1.0

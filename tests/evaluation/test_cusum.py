"""CUSUM of a model over time: its steps, its false alarms, and how soon a change is found."""

from __future__ import annotations

import numpy as np
import pytest

from gliomark.errors import ConfigurationError
from gliomark.evaluation.cusum import CusumSettings, compute_cusum, simulate_limit


def test_the_sums_are_those_computed_by_hand() -> None:
    course = compute_cusum([1, 0, 1], [0.5, 0.25, 0.8])
    assert course.observed_minus_expected == pytest.approx([0.5, 0.25, 0.45])
    more = np.cumsum([np.log(2 / 1.5), np.log(1 / 1.25), np.log(2 / 1.8)])  # never below 0
    assert course.more == pytest.approx(more)
    fewer = [0.0, np.log(1 / 0.875), np.log(1 / 0.875) + np.log(0.5 / 0.6)]
    assert course.fewer == pytest.approx(np.maximum(fewer, 0))
    assert not course.alarms


@pytest.mark.parametrize("rate, horizon", [(0.05, 200), (0.2, 100)])
def test_right_probabilities_give_as_many_false_alarms_as_stated(rate: float, horizon: int) -> None:
    rng = np.random.default_rng(1)
    settings = CusumSettings(rate, horizon)
    stated = rng.beta(2, 3, 400)
    limit = simulate_limit(stated, settings)
    assert limit == simulate_limit(stated, settings)
    found = 0
    for _ in range(400):
        p = rng.choice(stated, horizon)
        steps = np.array([[np.log(2), np.log1p(p)], [np.log(0.5), np.log1p(-p / 2)]], dtype=object)
        truth, sums, highest = rng.random(horizon) < p, np.zeros(2), 0.0
        for i in range(horizon):
            sums = np.maximum(0, sums + [truth[i] * up - down[i] for up, down in steps])
            highest = max(highest, sums.max())
        found += highest > limit
    assert found / 400 == pytest.approx(rate, abs=3 * np.sqrt(rate * (1 - rate) / 400))


@pytest.mark.parametrize("shift, direction", [(1.5, "more"), (-1.5, "fewer")])
def test_a_change_is_found_after_it_began(shift: float, direction: str) -> None:
    rng = np.random.default_rng(2)
    stated = rng.uniform(0.2, 0.8, 300)
    odds = stated / (1 - stated) * np.where(np.arange(300) < 150, 1, np.exp(shift))
    course = compute_cusum(rng.random(300) < odds / (1 + odds), stated)
    first = course.alarms[0]
    assert first.direction == direction and 150 <= first.index < 220
    after = course.more if direction == "more" else course.fewer
    assert after[first.index] > course.limit > after[first.index + 1]  # it starts again


@pytest.mark.parametrize("values", [(0.0, 200, 2.0), (1.0, 200, 2.0), (0.05, 0, 2.0), (0.05, 200, 1.0)])
def test_impossible_settings_are_refused(values: tuple[float, int, float]) -> None:
    with pytest.raises(ConfigurationError, match="false alarm rate"):
        CusumSettings(*values)

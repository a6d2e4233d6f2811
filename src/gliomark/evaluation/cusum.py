"""Monitor a model over time: observed minus expected positives, and a CUSUM with a simulated alarm limit.

Two risk-adjusted sums (Steiner et al., Biostatistics 2000) accumulate the evidence that the odds of the marker are
twice, or half, what the model states. A sum never falls below 0, so that good results in the past do not delay the
alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliomark.errors import ConfigurationError
from gliomark.messages import message

DoubleArray = NDArray[np.float64]
Direction = Literal["more", "fewer"]
SIMULATED_SERIES = 4000


@dataclass(frozen=True)
class CusumSettings:
    """Settings of the alarm.

    Attributes
    ----------
    false_alarm_rate
        Probability of an alarm within ``horizon`` patients although the model's probabilities are right, 0 to 1.
    horizon
        Number of patients to whom the rate refers.
    odds_ratio
        Change of the odds that is to be detected, in either direction; above 1.

    Raises
    ------
    ConfigurationError
        If a value is out of its range.
    """

    false_alarm_rate: float = 0.05
    horizon: int = 200
    odds_ratio: float = 2.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not (0 < self.false_alarm_rate < 1 and self.horizon >= 1 and self.odds_ratio > 1):
            raise ConfigurationError(
                message("cusum-settings", rate=self.false_alarm_rate, horizon=self.horizon)
            )


@dataclass(frozen=True)
class Alarm:
    """An alarm. index: of the patient, from 0; direction: whether there are more or fewer positives than stated."""

    index: int
    direction: Direction


@dataclass(frozen=True, eq=False)
class Cusum:
    """Course of a series of patients.

    Attributes
    ----------
    observed_minus_expected
        ``(n,)``: number of positives so far, less the sum of their probabilities.
    more, fewer
        ``(n,)``: sums of evidence for more and for fewer positives than stated; both start again at 0 after an alarm.
    limit
        A sum above it is an alarm.
    alarms
        In order of time.
    """

    observed_minus_expected: DoubleArray
    more: DoubleArray
    fewer: DoubleArray
    limit: float
    alarms: tuple[Alarm, ...]


def compute_cusum(
    label: ArrayLike, probability: ArrayLike, settings: CusumSettings = CusumSettings(), seed: int = 0
) -> Cusum:
    """Compute the course of patients in order of time.

    Parameters
    ----------
    label, probability
        ``(n,)``: 0 or 1, and the probability of 1 that was stated for the patient.
    settings
        See ``CusumSettings``.
    seed
        Seed of the simulation of the limit.
    """
    truth, expected = np.asarray(label, int), np.asarray(probability, float)
    limit = simulate_limit(expected, settings, seed)
    steps = [_compute_steps(truth, expected, ratio) for ratio in _list_ratios(settings)]
    sums, courses, alarms = np.zeros(2), np.zeros((2, len(truth))), []
    for index in range(len(truth)):
        sums = np.maximum(0, sums + [one[index] for one in steps])
        courses[:, index] = sums
        if sums.max() > limit:
            alarms.append(Alarm(index, "more" if sums[0] >= sums[1] else "fewer"))
            sums = np.zeros(2)
    return Cusum(np.cumsum(truth - expected), courses[0], courses[1], limit, tuple(alarms))


def simulate_limit(probability: ArrayLike, settings: CusumSettings = CusumSettings(), seed: int = 0) -> float:
    """Simulate the limit that a sum exceeds within the horizon at the false alarm rate, if the probabilities are right.

    The simulated patients have probabilities drawn from those given, ``(n,)``, and labels drawn with them.
    """
    stated, rng = np.asarray(probability, float), np.random.default_rng(seed)
    sums, highest = np.zeros((2, SIMULATED_SERIES)), np.zeros(SIMULATED_SERIES)
    for _ in range(settings.horizon):
        expected = rng.choice(stated, SIMULATED_SERIES)
        truth = (rng.random(SIMULATED_SERIES) < expected).astype(int)
        steps = [_compute_steps(truth, expected, ratio) for ratio in _list_ratios(settings)]
        sums = np.maximum(0, sums + steps)
        highest = np.maximum(highest, sums.max(axis=0))
    return float(np.quantile(highest, 1 - settings.false_alarm_rate, method="higher"))


def _list_ratios(settings: CusumSettings) -> tuple[float, float]:
    return settings.odds_ratio, 1 / settings.odds_ratio


def _compute_steps(truth: NDArray[np.int64], expected: DoubleArray, odds_ratio: float) -> DoubleArray:
    """Compute the log-likelihood ratio ``(n,)`` of odds changed by a ratio against those stated."""
    return np.asarray(truth * np.log(odds_ratio) - np.log1p((odds_ratio - 1) * expected))

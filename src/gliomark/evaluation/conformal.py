"""Class-conditional conformal prediction: "high", "low" or "cannot tell", with a stated coverage in either class.

Of new patients like those of the fit, the set of levels that is given contains the true one in at least the stated
share, among the positives and among the negatives (Vovk 2012, split conformal prediction by class).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliomark.errors import ConfigurationError
from gliomark.messages import message
from gliomark.study import DEFAULT_COVERAGE

LevelSet = Literal["positive", "negative", "cannot tell"]


@dataclass(frozen=True)
class ConformalLimits:
    """Limits of the probability of the positive class.

    Attributes
    ----------
    positive_from
        From this probability on the patient may be positive.
    negative_to
        Up to this probability the patient may be negative.
    coverage
        Share of the patients of either class whose set contains the true level, 0 to 1.
    positives, negatives
        Number of patients from whom the limits were computed.
    """

    positive_from: float
    negative_to: float
    coverage: float
    positives: int
    negatives: int

    def decide(self, probability: float) -> LevelSet:
        """Return the level, or "cannot tell" if both are possible or neither is."""
        may_be_positive, may_be_negative = probability >= self.positive_from, probability <= self.negative_to
        if may_be_positive == may_be_negative:
            return "cannot tell"
        return "positive" if may_be_positive else "negative"


def fit_conformal_limits(
    label: ArrayLike, probability: ArrayLike, coverage: float = DEFAULT_COVERAGE
) -> ConformalLimits:
    """Compute the limits from patients on whom the model was not trained.

    Parameters
    ----------
    label, probability
        ``(n,)``: 0 or 1, and the probability of 1.
    coverage
        See ``ConformalLimits``. A class with too few patients for it (fewer than 9 for 0.9) is never excluded.

    Raises
    ------
    ConfigurationError
        If the coverage is not between 0.5 and 1.
    """
    check_coverage(coverage)
    truth, score = np.asarray(label, int), np.asarray(probability, float)
    positive, negative = score[truth == 1], score[truth == 0]
    positive_from = max(0.0, -_compute_limit(-positive, coverage))
    negative_to = min(1.0, _compute_limit(negative, coverage))
    if (
        positive_from > negative_to
    ):  # well separated classes; either level between the limits keeps the coverage
        positive_from = negative_to = (positive_from + negative_to) / 2
    return ConformalLimits(positive_from, negative_to, coverage, len(positive), len(negative))


def check_coverage(coverage: float) -> None:
    """Check that a coverage is at least 0.5 and below 1.

    Raises
    ------
    ConfigurationError
        If it is not.
    """
    if not 0.5 <= coverage < 1:
        raise ConfigurationError(message("coverage-range", coverage=coverage))


def _compute_limit(strangeness: NDArray[np.float64], coverage: float) -> float:
    """Return what a share of ``coverage`` of a class does not exceed; infinite if too few patients are known."""
    rank = int(np.ceil(round((len(strangeness) + 1) * coverage, 9)))
    return float("inf") if rank > len(strangeness) else float(np.sort(strangeness)[rank - 1])


def compute_coverage(
    limits: ConformalLimits, label: ArrayLike, probability: ArrayLike
) -> tuple[float, float, float]:
    """Compute how the limits do on other patients: labels and probabilities ``(n,)``.

    Returns
    -------
    positives, negatives
        Share of the class whose set contains the true level, "cannot tell" included; nan without such patients.
    cannot_tell
        Share of all patients.
    """
    truth, score = np.asarray(label, int), np.asarray(probability, float)
    decisions = np.array([limits.decide(one) for one in score])
    is_open = decisions == "cannot tell"
    shares = [
        float((is_open | (decisions == name))[truth == value].mean())
        if (truth == value).any()
        else float("nan")
        for value, name in ((1, "positive"), (0, "negative"))
    ]
    return shares[0], shares[1], float(is_open.mean())

"""An interval for an area under the ROC curve that promises nothing a handful of patients cannot hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from gliomark.evaluation.intervals import UNDEFINED_INTERVAL, Interval
from gliomark.evaluation.metrics import auc


def compute_conservative_auc_interval(label: ArrayLike, score: ArrayLike) -> Interval:
    """The area with a conservative 95 % interval; nan where only one class is present.

    Whatever the scores are, the variance of the area is at most that of a share of as many trials as the smaller
    class has patients (van Dantzig 1951; Birnbaum and Klose 1957); so the interval is Clopper and Pearson's for that
    share. Unlike DeLong's and the bootstrap's it stays wide where a few patients happen to be ranked without a fault:
    with five in the smaller class it always reaches 0.5.
    """
    positive = np.asarray(label) == 1
    trials = int(min(positive.sum(), (~positive).sum()))
    if not trials:
        return UNDEFINED_INTERVAL
    auc_value = auc(label, score)
    successes = auc_value * trials
    low = beta.ppf(0.025, successes, trials - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(0.975, successes + 1, trials - successes) if successes < trials else 1.0
    return Interval(auc_value, float(low), float(high))

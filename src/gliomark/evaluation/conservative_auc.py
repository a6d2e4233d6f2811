"""Conservative confidence interval for the AUC of small samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from gliomark.evaluation.intervals import UNDEFINED_INTERVAL, Interval
from gliomark.evaluation.metrics import auc


def compute_conservative_auc_interval(label: ArrayLike, score: ArrayLike) -> Interval:
    """Return the AUC with a conservative 95 % interval; nan if only one class is present.

    label and score ``(n,)``. For any distribution of scores the variance of the AUC is at most that of a binomial
    proportion with as many trials as the smaller class has patients (van Dantzig 1951; Birnbaum and Klose 1957), so the
    Clopper-Pearson interval of that proportion is used. Unlike DeLong's interval and the bootstrap it stays wide if a
    few patients happen to be ranked perfectly: with five in the smaller class it always includes 0.5.
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

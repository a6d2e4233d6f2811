"""Agreement of outlines and of answers with the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def dice(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    """Dice coefficient, eq. 3-9, of two masks of one shape; nan where both are empty."""
    total = int(truth.sum()) + int(prediction.sum())
    return 2 * int((truth & prediction).sum()) / total if total else float("nan")


def auc(label: ArrayLike, probability: ArrayLike) -> float:
    """Area under the ROC curve, from the ranks (Mann and Whitney 1947); nan where only one class is present."""
    from scipy.stats import rankdata  # half a second to import, which who reads images alone need not pay

    positive = np.asarray(label) == 1
    above, below = int(positive.sum()), int((~positive).sum())
    if not above or not below:
        return float("nan")
    ranks = rankdata(probability)[positive].sum()
    return float((ranks - above * (above + 1) / 2) / (above * below))


def auc_within(label: ArrayLike, probability: ArrayLike, group: ArrayLike) -> float:
    """Area under the ROC curve over pairs of one group (fold) only; nan where no group has both classes.

    Answers of several folds' models need not be on one scale; where they tell nothing they follow the training part's
    share of positives, which is the lower the more of them are tested, and all folds together then fall below 0.5.
    """
    truth, score, where = np.asarray(label), np.asarray(probability), np.asarray(group)
    areas, pairs = [], []
    for name in np.unique(where):
        own = where == name
        positive = int((truth[own] == 1).sum())
        if 0 < positive < own.sum():
            areas.append(auc(truth[own], score[own]))
            pairs.append(positive * (int(own.sum()) - positive))
    return float(np.average(areas, weights=pairs)) if pairs else float("nan")


def at_threshold(label: ArrayLike, probability: ArrayLike, threshold: ArrayLike) -> dict[str, float]:
    """accuracy, sensitivity, specificity and kappa (eq. 4-7) of ``probability >= threshold``; nan where undefined.

    threshold: one, or one for each probability.
    """
    truth, answer = np.asarray(label, bool), np.asarray(probability) >= np.asarray(threshold)
    agree, by_chance = (
        np.mean(truth == answer),
        1 - truth.mean() - answer.mean() + 2 * truth.mean() * answer.mean(),
    )
    return {
        "accuracy": float(agree),
        "sensitivity": float(answer[truth].mean()) if truth.any() else float("nan"),
        "specificity": float(1 - answer[~truth].mean()) if not truth.all() else float("nan"),
        "kappa": float((agree - by_chance) / (1 - by_chance)) if by_chance < 1 else float("nan"),
    }


def youden_threshold(label: ArrayLike, probability: ArrayLike) -> float:
    """The probability that maximises sensitivity + specificity, midway between two patients'."""
    truth, score = np.asarray(label, bool), np.asarray(probability, float)
    levels = np.unique(score)
    cuts = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    gains = [(score >= cut)[truth].mean() - (score >= cut)[~truth].mean() for cut in cuts]
    return float(cuts[int(np.argmax(gains))])

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
    positive_count, negative_count = int(positive.sum()), int((~positive).sum())
    if not positive_count or not negative_count:
        return float("nan")
    ranks = rankdata(probability)[positive].sum()
    return float((ranks - positive_count * (positive_count + 1) / 2) / (positive_count * negative_count))


def auc_within_groups(label: ArrayLike, probability: ArrayLike, group: ArrayLike) -> float:
    """Area under the ROC curve over pairs of one group (fold) only; nan where no group has both classes.

    Answers of several folds' models need not be on one scale; where they tell nothing they follow the training part's
    share of positives, which is the lower the more of them are tested, and all folds together then fall below 0.5.
    """
    truth, score, groups = np.asarray(label), np.asarray(probability), np.asarray(group)
    areas, pairs = [], []
    for name in np.unique(groups):
        in_group = groups == name
        positive = int((truth[in_group] == 1).sum())
        if 0 < positive < in_group.sum():
            areas.append(auc(truth[in_group], score[in_group]))
            pairs.append(positive * (int(in_group.sum()) - positive))
    return float(np.average(areas, weights=pairs)) if pairs else float("nan")


def compute_threshold_metrics(
    label: ArrayLike, probability: ArrayLike, threshold: ArrayLike
) -> dict[str, float]:
    """accuracy, sensitivity, specificity and kappa (eq. 4-7) of ``probability >= threshold``; nan where undefined.

    threshold: one, or one for each probability.
    """
    truth, predicted = np.asarray(label, bool), np.asarray(probability) >= np.asarray(threshold)
    accuracy, chance_agreement = (
        np.mean(truth == predicted),
        1 - truth.mean() - predicted.mean() + 2 * truth.mean() * predicted.mean(),
    )
    return {
        "accuracy": float(accuracy),
        "sensitivity": float(predicted[truth].mean()) if truth.any() else float("nan"),
        "specificity": float(1 - predicted[~truth].mean()) if not truth.all() else float("nan"),
        "kappa": float((accuracy - chance_agreement) / (1 - chance_agreement))
        if chance_agreement < 1
        else float("nan"),
    }


def compute_youden_threshold(label: ArrayLike, probability: ArrayLike) -> float:
    """The probability that maximises sensitivity + specificity, midway between two patients'."""
    truth, score = np.asarray(label, bool), np.asarray(probability, float)
    levels = np.unique(score)
    cuts = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    gains = [(score >= cut)[truth].mean() - (score >= cut)[~truth].mean() for cut in cuts]
    return float(cuts[int(np.argmax(gains))])

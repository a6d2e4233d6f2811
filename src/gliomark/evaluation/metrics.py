"""Agreement of masks and of predictions with the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def dice(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient (equation 3-9) of two masks of the same shape; nan if both are empty."""
    total = int(truth.sum()) + int(prediction.sum())
    return 2 * int((truth & prediction).sum()) / total if total else float("nan")


def auc(label: ArrayLike, probability: ArrayLike) -> float:
    """Return the area under the ROC curve from ranks (Mann and Whitney 1947); nan if only one class is present.

    label ``(n,)``, 0 or 1; probability ``(n,)``.
    """
    from scipy.stats import rankdata  # takes half a second to import, which most commands do not need

    positive = np.asarray(label) == 1
    positive_count, negative_count = int(positive.sum()), int((~positive).sum())
    if not positive_count or not negative_count:
        return float("nan")
    ranks = rankdata(probability)[positive].sum()
    return float((ranks - positive_count * (positive_count + 1) / 2) / (positive_count * negative_count))


def auc_within_groups(label: ArrayLike, probability: ArrayLike, group: ArrayLike) -> float:
    """Return the AUC over pairs of patients within the same group (fold); nan if no group has both classes.

    label, probability and group ``(n,)``. Predictions of several folds are not on a common scale: a model without
    information predicts the share of positives in its training part, which is lower the more of them are in the test
    part, so that the AUC of all folds pooled falls below 0.5.
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
    """Return accuracy, sensitivity, specificity and kappa (equation 4-7) of ``probability >= threshold``.

    label and probability ``(n,)``; threshold: one number or ``(n,)``. Undefined values are nan.
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
    """Return the threshold that maximises sensitivity + specificity (Youden 1950).

    label and probability ``(n,)``. The threshold lies midway between the probabilities of two patients.
    """
    truth, score = np.asarray(label, bool), np.asarray(probability, float)
    levels = np.unique(score)
    cuts = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    gains = [(score >= cut)[truth].mean() - (score >= cut)[~truth].mean() for cut in cuts]
    return float(cuts[int(np.argmax(gains))])

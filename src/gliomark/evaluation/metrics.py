"""Agreement of outlines and of answers with the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import cohen_kappa_score, confusion_matrix, roc_auc_score


def dice(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    """Dice coefficient, eq. 3-9, of two masks of one shape; nan where both are empty."""
    total = int(truth.sum()) + int(prediction.sum())
    return 2 * int((truth & prediction).sum()) / total if total else float("nan")


def auc(label: ArrayLike, probability: ArrayLike) -> float:
    """Area under the ROC curve; nan where only one class is present."""
    return (
        float(roc_auc_score(label, probability))
        if len(set(np.asarray(label).tolist())) == 2
        else float("nan")
    )


def at_threshold(label: ArrayLike, probability: ArrayLike, threshold: float) -> dict[str, float]:
    """accuracy, sensitivity, specificity and kappa (eq. 4-7) of ``probability >= threshold``."""
    truth, answer = np.asarray(label, int), np.asarray(probability) >= threshold
    (tn, fp), (fn, tp) = confusion_matrix(truth, answer, labels=[0, 1])
    return {
        "accuracy": (tp + tn) / len(truth),
        "sensitivity": tp / (tp + fn) if tp + fn else float("nan"),
        "specificity": tn / (tn + fp) if tn + fp else float("nan"),
        "kappa": float(cohen_kappa_score(truth, answer)),
    }


def youden_threshold(label: ArrayLike, probability: ArrayLike) -> float:
    """The probability that maximises sensitivity + specificity, midway between two patients'."""
    truth, score = np.asarray(label, bool), np.asarray(probability, float)
    levels = np.unique(score)
    cuts = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    gains = [(score >= cut)[truth].mean() - (score >= cut)[~truth].mean() for cut in cuts]
    return float(cuts[int(np.argmax(gains))])

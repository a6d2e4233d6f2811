"""How near its ceiling a phantom cohort of a given size lets anybody come who must learn from its labels.

The phantom's ceiling is the AUC of the exact posterior, which knows how labels make a tumour look. Here that has to be
learnt: by logistic regression, which sees the truth behind the images (no pixel, no error of reading), five folds by
patient, on cohort after cohort. What this misses of the ceiling no network can be asked to find on as many patients.
Then the same through an error of reading: of how the tumour looks, only so much of the variance is seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gliomark.cohort.folds import FOLDS
from gliomark.cohort.phantom.appearance import (
    AppearanceSettings,
    ceiling,
    ceiling_of,
    draw_clinical,
    draw_look,
    gather,
)
from gliomark.cohort.store import write_json
from gliomark.evaluation.metrics import auc
from gliomark.experiments.records import run_record, write_table

NAME = "phantom_reach"
NEAR = 0.04
# shares of the variance of every variable of the appearance that are read
READ = (1.0, 0.9, 0.75, 0.5)


def run(
    marker: str, sizes: Sequence[int], cohorts: int, out: Path, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Write ``phantom_reach_<marker>.csv`` and its record under ``out``; the table's path.

    sizes: patients per cohort; cohorts: how many of each size. Raises GliomarkError for an unknown marker.
    """
    settings = AppearanceSettings()
    best = ceiling(marker, settings).image_age_sex
    rows = []
    for size, read in itertools.product(sizes, READ):
        found = [one_cohort(marker, size, seed, settings, read) for seed in range(cohorts)]
        learnt, own = np.array(found).T
        low, high = np.percentile(learnt, [2.5, 97.5])
        rows.append(
            {
                "marker": marker,
                "patients": size,
                "read": read,
                "cohorts": cohorts,
                "auc_mean": learnt.mean(),
                "auc_low_95": low,
                "auc_high_95": high,
                "own_ceiling_mean": own.mean(),
                "missed_mean": (own - learnt).mean(),
                f"share_within_{NEAR}": (own - learnt <= NEAR).mean(),
                "ceiling": best,
            }
        )
        say(f"{size} patients, {read:.0%} read: {learnt.mean():.3f} of {own.mean():.3f}")
    write_table(pd.DataFrame(rows), out / f"{NAME}_{marker}.csv")
    record = run_record(NAME, marker=marker, sizes=list(sizes), cohorts=cohorts)
    write_json(out / f"{NAME}_{marker}_run_record.json", record)
    return out / f"{NAME}_{marker}.csv"


def one_cohort(
    marker: str, size: int, seed: int, settings: AppearanceSettings, read: float = 1.0
) -> tuple[float, float]:
    """AUC of what is learnt from the truth, out of fold, and of the exact posterior on the same patients.

    read: share of the variance of every variable of the appearance that is not the reader's error.
    """
    chance = np.random.default_rng([seed, size])
    clinical = [draw_clinical("", chance) for _ in range(size)]
    patients = [(row, draw_look(row, chance, settings.noise)) for row in clinical]
    truth = gather(patients)
    shown = np.column_stack([truth.latent, truth.mismatch])
    shown += chance.normal(size=shown.shape) * shown.std(axis=0) * np.sqrt(1 / read - 1)
    seen = np.column_stack([shown, truth.age, truth.sex])
    labels = truth.labels(marker, settings.threshold)
    learner = make_pipeline(StandardScaler(), LogisticRegression())
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_predict(learner, seen, labels, cv=folds, method="predict_proba")[:, 1]
    return auc(labels, scores), ceiling_of(patients, marker, settings).image_age_sex

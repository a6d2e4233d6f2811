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

from gliomark.cohort.folds import FOLD_COUNT
from gliomark.cohort.phantom.appearance import (
    AppearanceSettings,
    collect_features,
    compute_auc_ceiling,
    estimate_auc_ceiling,
    sample_appearance,
    sample_clinical,
)
from gliomark.cohort.store import write_json
from gliomark.evaluation.metrics import auc
from gliomark.experiments.records import create_run_record, write_table

EXPERIMENT_NAME = "phantom_reach"
CEILING_TOLERANCE = 0.04
# shares of the variance of every variable of the appearance that are read
READ_VARIANCE_SHARES = (1.0, 0.9, 0.75, 0.5)


def run_phantom_learning_curve(
    marker: str,
    patient_counts: Sequence[int],
    cohort_count: int,
    output_folder: Path,
    notify: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write ``phantom_reach_<marker>.csv`` and its record under ``out``; the table's path.

    sizes: patients per cohort; cohorts: how many of each size. Raises GliomarkError for an unknown marker.
    """
    settings = AppearanceSettings()
    best_auc = estimate_auc_ceiling(marker, settings).image_age_sex
    rows = []
    for size, read_variance in itertools.product(patient_counts, READ_VARIANCE_SHARES):
        auc_pairs = [
            compute_cohort_auc(marker, size, seed, settings, read_variance) for seed in range(cohort_count)
        ]
        learnt_auc, own_ceiling = np.array(auc_pairs).T
        low, high = np.percentile(learnt_auc, [2.5, 97.5])
        rows.append(
            {
                "marker": marker,
                "patients": size,
                "read": read_variance,
                "cohorts": cohort_count,
                "auc_mean": learnt_auc.mean(),
                "auc_low_95": low,
                "auc_high_95": high,
                "own_ceiling_mean": own_ceiling.mean(),
                "missed_mean": (own_ceiling - learnt_auc).mean(),
                f"share_within_{CEILING_TOLERANCE}": (own_ceiling - learnt_auc <= CEILING_TOLERANCE).mean(),
                "ceiling": best_auc,
            }
        )
        notify(
            f"{size} patients, {read_variance:.0%} read: {learnt_auc.mean():.3f} of {own_ceiling.mean():.3f}"
        )
    write_table(pd.DataFrame(rows), output_folder / f"{EXPERIMENT_NAME}_{marker}.csv")
    record = create_run_record(
        EXPERIMENT_NAME, marker=marker, sizes=list(patient_counts), cohorts=cohort_count
    )
    write_json(output_folder / f"{EXPERIMENT_NAME}_{marker}_run_record.json", record)
    return output_folder / f"{EXPERIMENT_NAME}_{marker}.csv"


def compute_cohort_auc(
    marker: str, patient_count: int, seed: int, settings: AppearanceSettings, read_variance: float = 1.0
) -> tuple[float, float]:
    """AUC of what is learnt from the truth, out of fold, and of the exact posterior on the same patients.

    read: share of the variance of every variable of the appearance that is not the reader's error.
    """
    generator = np.random.default_rng([seed, patient_count])
    clinical = [sample_clinical("", generator) for _ in range(patient_count)]
    patients = [(row, sample_appearance(row, generator, settings.noise_factor)) for row in clinical]
    truth = collect_features(patients)
    read_appearance = np.column_stack([truth.latent, truth.mismatch])
    read_appearance += (
        generator.normal(size=read_appearance.shape)
        * read_appearance.std(axis=0)
        * np.sqrt(1 / read_variance - 1)
    )
    predictors = np.column_stack([read_appearance, truth.age, truth.sex])
    labels = truth.compute_labels(marker, settings.ki67_threshold)
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    folds = StratifiedKFold(FOLD_COUNT, shuffle=True, random_state=seed)
    scores = cross_val_predict(classifier, predictors, labels, cv=folds, method="predict_proba")[:, 1]
    return auc(labels, scores), compute_auc_ceiling(patients, marker, settings).image_age_sex

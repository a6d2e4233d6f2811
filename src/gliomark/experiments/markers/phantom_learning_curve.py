"""Best AUC achievable by number of synthetic training patients, compared with the exact posterior.

The maximum AUC of the phantom is that of the exact posterior, which uses the true relation between marker and tumour
appearance. Here the relation is learnt from labels: by logistic regression on the true appearance variables (no images
and no measurement error), in five folds by patient, on many cohorts. No network can be expected to do better on as
many patients. The calculation is repeated with measurement error, so that only a share of the variance of the
appearance is observed.
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
from gliomark.evaluation.metrics import auc
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.phantom.appearance import (
    AppearanceSettings,
    collect_features,
    compute_auc_ceiling,
    estimate_auc_ceiling,
    sample_appearance,
    sample_clinical,
)

EXPERIMENT_NAME = "phantom_learning_curve"
CEILING_TOLERANCE = 0.04
# shares of the variance of every appearance variable that are not measurement error
READ_VARIANCE_SHARES = (1.0, 0.9, 0.75, 0.5)


def run_phantom_learning_curve(
    marker: str,
    patient_counts: Sequence[int],
    cohort_count: int,
    output_folder: Path,
    notify: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write ``phantom_learning_curve_<marker>.csv`` and its run record; the path of the table.

    patient_counts: sizes of the cohorts; cohort_count: number of cohorts of each size.

    Raises
    ------
    ConfigurationError
        If the marker is unknown.
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
            f"{size} patients, {read_variance:.0%} of the variance: AUC {learnt_auc.mean():.3f}, ceiling "
            f"{own_ceiling.mean():.3f}"
        )
    record = create_run_record(
        EXPERIMENT_NAME, marker=marker, sizes=list(patient_counts), cohorts=cohort_count
    )
    return write_result_files(output_folder, f"{EXPERIMENT_NAME}_{marker}", {"": pd.DataFrame(rows)}, record)


def compute_cohort_auc(
    marker: str, patient_count: int, seed: int, settings: AppearanceSettings, read_variance: float = 1.0
) -> tuple[float, float]:
    """Cross-validated AUC of logistic regression on the true appearance variables, and AUC of the exact posterior.

    read_variance: share of the variance of every appearance variable that is not measurement error (0 to 1).
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

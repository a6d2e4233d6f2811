"""A model at other hospitals, before and after its calibration, threshold and limits are fitted to local patients.

The settings of the model's own hospital are fitted on a table of its patients. At every other hospital with enough
patients, random halves are drawn: one half fits local settings, and both settings are evaluated on the other half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gliomark.errors import InputError
from gliomark.evaluation.evaluate import PredictionColumns, PredictionTable, read_predictions
from gliomark.evaluation.site import (
    MIN_PER_CLASS,
    SiteSettings,
    fit_site_settings,
    score_site_settings,
)
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.messages import message

EXPERIMENT_NAME = "site_recalibration"
MIN_SITE_PATIENTS = 80


def run_site_recalibration(
    home_file: Path,
    sites_file: Path,
    columns: PredictionColumns,
    repeat_count: int,
    output_folder: Path,
    notify: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write ``site_recalibration.csv`` and its run record; the path of the table.

    home_file, sites_file: tables of predictions, see ``read_predictions``; the second with a column of the hospital.

    Raises
    ------
    InputError
        If a table cannot be read, a patient is in both, or no hospital has 80 patients.
    """
    home = read_predictions(home_file, replace(columns, site=None))
    others = read_predictions(sites_file, columns)
    if shared := set(home.ids) & set(others.ids):
        raise InputError(message("site-shared-patient", patient=min(shared)))
    home_settings = fit_site_settings(home.labels, home.probabilities)
    rows = []
    for site in sorted(set(others.sites or ())):
        rows += _evaluate_site(site, others, home_settings, repeat_count)
        notify(site)
    if not rows:
        raise InputError(message("site-none-large", file=sites_file.name, fewest=MIN_SITE_PATIENTS))
    record = create_run_record(
        EXPERIMENT_NAME,
        home={"patients": home_settings.patients, "positives": home_settings.positives},
        home_calibration=home_settings.calibrator.method,
        repeats=repeat_count,
    )
    return write_result_files(output_folder, EXPERIMENT_NAME, {"": pd.DataFrame(rows)}, record)


def _evaluate_site(
    site: str, predictions: PredictionTable, home: SiteSettings, repeat_count: int
) -> list[dict[str, Any]]:
    """Evaluate a hospital with at least 80 patients; no rows for a smaller one."""
    in_site = np.array([name == site for name in predictions.sites or ()])
    label, probability = predictions.labels[in_site], predictions.probabilities[in_site]
    if len(label) < MIN_SITE_PATIENTS or min(label.sum(), len(label) - label.sum()) < 2 * MIN_PER_CLASS:
        return []
    rng = np.random.default_rng(len(label))
    scores: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    for repeat in range(repeat_count):
        local, test = draw_halves(label, rng)
        settings = fit_site_settings(label[local], probability[local], seed=repeat)
        for state, one in (("before", home), ("after", settings)):
            scores[state].append(asdict(score_site_settings(one, label[test], probability[test])))
    shared = {"site": site, "patients": len(label), "positive_share": label.mean(), "repeats": repeat_count}
    return [
        shared | {"settings": state} | summarise_repeats(pd.DataFrame(one)) for state, one in scores.items()
    ]


def draw_halves(label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw two halves ``(m,)`` of the indices of labels ``(n,)``, with as many patients of either class."""
    local = np.concatenate(
        [
            rng.permutation(np.flatnonzero(label == value))[: int((label == value).sum()) // 2]
            for value in (0, 1)
        ]
    )
    return local, np.setdiff1d(np.arange(len(label)), local)


def summarise_repeats(scores: pd.DataFrame) -> dict[str, float]:
    """Return the mean and the range of 95 % of the repeats of every score."""
    return {
        f"{name}{suffix}": value
        for name in scores
        for suffix, value in (
            ("", scores[name].mean()),
            ("_low_95", scores[name].quantile(0.025)),
            ("_high_95", scores[name].quantile(0.975)),
        )
    }

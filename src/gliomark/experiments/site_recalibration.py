"""A model at other hospitals, before and after its calibration, threshold and limits are fitted to local patients.

The settings of the model's own hospital are fitted on a table of its patients. At every other hospital with enough
patients, some are drawn at random, half of them or a given number: they fit local settings, and both settings are
evaluated on all the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gliomark.errors import InputError
from gliomark.evaluation.evaluate import PredictionColumns, read_predictions
from gliomark.evaluation.site import (
    MIN_PER_CLASS,
    SiteSettings,
    fit_site_settings,
    score_site_settings,
)
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.messages import message

EXPERIMENT_NAME = "site_recalibration"
MIN_SITE_PATIENTS, MIN_TEST_PATIENTS = 80, 40


def run_site_recalibration(
    home_file: Path,
    sites_file: Path,
    columns: PredictionColumns,
    repeat_count: int,
    output_folder: Path,
    notify: Callable[[str], None] = lambda _: None,
    local_counts: Sequence[int] = (),
    name: str = "",
) -> Path:
    """Write ``site_recalibration.csv`` and its run record; the path of the table.

    name: added to the names of the files.

    home_file, sites_file: tables of predictions, see ``read_predictions``; without a column of the hospital the second
    one is of one hospital. Patients without a probability, to whom the model gave no answer, are left out.
    local_counts: numbers of local patients to fit to; without any, half of each hospital's. A hospital needs at least
    ``MIN_TEST_PATIENTS`` more.

    Raises
    ------
    InputError
        If a table cannot be read, a patient is in both, or no hospital has 80 patients.
    """
    columns = replace(columns, answered_only=True)
    home = read_predictions(home_file, replace(columns, site=None))
    others = read_predictions(sites_file, columns)
    sites = others.sites or (sites_file.stem,) * len(others.ids)
    if shared := set(home.ids) & set(others.ids):
        raise InputError(message("site-shared-patient", patient=min(shared)))
    home_settings = fit_site_settings(home.labels, home.probabilities)
    rows = []
    for site in sorted(set(sites)):
        for count in local_counts or (None,):
            in_site = np.array([name == site for name in sites])
            rows += _evaluate_site(
                site,
                others.labels[in_site],
                others.probabilities[in_site],
                home_settings,
                repeat_count,
                count,
            )
        notify(site)
    if not rows:
        raise InputError(message("site-none-large", file=sites_file.name, fewest=MIN_SITE_PATIENTS))
    experiment = f"{EXPERIMENT_NAME}_{name}" if name else EXPERIMENT_NAME
    record = create_run_record(
        experiment,
        home={"patients": home_settings.patients, "positives": home_settings.positives},
        home_calibration=home_settings.calibrator.method,
        repeats=repeat_count,
    )
    return write_result_files(output_folder, experiment, {"": pd.DataFrame(rows)}, record)


def _evaluate_site(
    site: str,
    label: np.ndarray,
    probability: np.ndarray,
    home: SiteSettings,
    repeat_count: int,
    local_count: int | None,
) -> list[dict[str, Any]]:
    """Evaluate a hospital, see ``run_site_recalibration``; no rows for one with too few patients."""
    positive = int(label.sum())
    classes = (len(label) - positive, positive)
    if local_count is None:
        drawn = (classes[0] // 2, classes[1] // 2)
    else:
        local_positive = round(local_count * positive / max(len(label), 1))
        drawn = (local_count - local_positive, local_positive)
    if len(label) < max(MIN_SITE_PATIENTS, sum(drawn) + MIN_TEST_PATIENTS) or min(drawn) < MIN_PER_CLASS:
        return []
    rng = np.random.default_rng(len(label))
    scores: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    for repeat in range(repeat_count):
        local, test = draw_parts(label, rng, drawn)
        settings = fit_site_settings(label[local], probability[local], seed=repeat)
        for state, one in (("before", home), ("after", settings)):
            scores[state].append(asdict(score_site_settings(one, label[test], probability[test])))
    shared = {
        "site": site,
        "patients": len(label),
        "positive_share": label.mean(),
        "local_patients": len(local),
        "repeats": repeat_count,
    }
    return [
        shared | {"settings": state} | summarise_repeats(pd.DataFrame(one)) for state, one in scores.items()
    ]


def draw_parts(
    label: np.ndarray, rng: np.random.Generator, drawn: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw so many negative and positive ones of the indices of labels ``(n,)``; these, and all others."""
    local = np.concatenate(
        [rng.permutation(np.flatnonzero(label == value))[: drawn[value]] for value in (0, 1)]
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

"""Adaptation to a hospital from its own patients, and what it can do with how many of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from gliomark.errors import InputError
from gliomark.evaluation.evaluate import PredictionColumns
from gliomark.evaluation.site import estimate_chance_error, fit_site_settings, score_site_settings
from gliomark.experiments.site_recalibration import run_site_recalibration


def draw_patients(
    count: int, rng: np.random.Generator, prevalence: float = 0.4, shift: float = 0.0, slope: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw labels, and probabilities that are right at home (prevalence 0.4, shift 0, slope 1)."""
    label = (rng.random(count) < prevalence).astype(int)
    log_likelihood_ratio = rng.normal(label, 1.0) - 0.5  # of normal distributions around 0 and 1
    return label, expit(slope * (log_likelihood_ratio + np.log(0.4 / 0.6)) + shift)


@pytest.mark.sample(3)
@pytest.mark.parametrize("prevalence, shift, slope", [(0.1, 0.0, 1.0), (0.4, 2.0, 1.0), (0.5, -1.0, 3.0)])
@pytest.mark.parametrize("count", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_another_hospital_is_adapted_to(prevalence: float, shift: float, slope: float, count: int) -> None:
    rng = np.random.default_rng(0)
    home = fit_site_settings(*draw_patients(2000, rng))
    before, after = [], []
    for _ in range(20):
        label, probability = draw_patients(count + 2000, rng, prevalence, shift, slope)
        label[:5], label[5:10] = 0, 1
        local = fit_site_settings(label[:count], probability[:count])
        before.append(score_site_settings(home, label[count:], probability[count:]))
        after.append(score_site_settings(local, label[count:], probability[count:]))
    errors = [np.mean([one.calibration_error for one in scores]) for scores in (before, after)]
    assert errors[1] < 0.5 * errors[0] and errors[0] > 0.1
    covered = np.mean([(one.positives_covered, one.negatives_covered) for one in after], axis=0)
    assert (covered > 0.88).all()
    assert np.mean([one.sensitivity for one in after]) > 0.85
    assert after[0].auc == pytest.approx(before[0].auc, abs=0.02)


@pytest.mark.parametrize(
    "positives, negatives, is_enough",
    [(15, 15, True), (5, 25, True), (4, 40, False), (14, 15, False), (40, 4, False)],
)
def test_too_few_patients_are_refused(positives: int, negatives: int, is_enough: bool) -> None:
    label = np.array([1] * positives + [0] * negatives)
    probability = np.random.default_rng(0).random(len(label))
    if is_enough:
        assert fit_site_settings(label, probability).patients == positives + negatives
        return
    with pytest.raises(
        InputError, match=f"{len(label)} patients .*{positives} positive, {negatives} negative"
    ):
        fit_site_settings(label, probability)


@pytest.mark.parametrize("count, fewest, most", [(40, 0.08, 0.16), (4000, 0.0, 0.03)])
def test_the_error_by_chance_falls_with_the_number_of_patients(
    count: int, fewest: float, most: float
) -> None:
    probability = np.random.default_rng(1).random(count)
    assert fewest < estimate_chance_error(probability) < most


def write_table(path: Path, sites: dict[str, tuple[int, float]], first: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    rows = []
    for site, (count, shift) in sites.items():
        label, probability = draw_patients(count, rng, shift=shift)
        rows += [(f"P{first + len(rows) + n}", site, label[n], probability[n]) for n in range(count)]
    pd.DataFrame(rows, columns=["id", "site", "label", "probability"]).to_csv(path, index=False)
    return path


def test_hospitals_are_compared_before_and_after(tmp_path: Path) -> None:
    home = write_table(tmp_path / "home.csv", {"home": (400, 0.0)}, 0, 0)
    others = write_table(
        tmp_path / "sites.csv", {"near": (200, 0.0), "far": (200, 2.0), "small": (60, 0.0)}, 1000, 1
    )
    columns = PredictionColumns(site="site")
    path = run_site_recalibration(home, others, columns, 5, tmp_path / "out")
    table = pd.read_csv(path).set_index(["site", "settings"])
    assert set(table.index) == {(site, state) for site in ("near", "far") for state in ("before", "after")}
    assert (
        table.loc[("far", "before"), "specificity"] < 0.3 < table.loc[("far", "after"), "specificity"] + 0.1
    )
    assert (
        table.loc[("far", "after"), "calibration_error"]
        < table.loc[("far", "before"), "calibration_error"] - 0.1
    )
    assert (
        table.loc[("far", "before"), "negatives_covered"]
        < 0.6
        < table.loc[("far", "after"), "negatives_covered"]
    )
    assert set(table["local_patients"]) == {100}
    path = run_site_recalibration(home, others, columns, 2, tmp_path / "counts", local_counts=(30, 120, 161))
    counts = pd.read_csv(path).groupby("site")["local_patients"].apply(list)
    # 161 would leave fewer than 40 of the 200 to test
    assert dict(counts) == {site: [30, 30, 120, 120] for site in ("near", "far")}
    # a table of one hospital, where the model answered for 200 of 201 patients
    one = write_table(tmp_path / "one.csv", {"near": (200, 0.0)}, 7000, 3)
    one.write_text(one.read_text("utf-8") + "P9999,near,1,\n", "utf-8")
    path = run_site_recalibration(home, one, PredictionColumns(), 2, tmp_path / "one", name="ki67")
    assert path.name == "site_recalibration_ki67.csv"
    unanswered = tmp_path / "unanswered.csv"
    unanswered.write_text("id,label,probability\nP8000,1,\nP8001,0,\n", "utf-8")
    with pytest.raises(InputError, match="has no patient with a number in the column probability"):
        run_site_recalibration(home, unanswered, PredictionColumns(), 2, tmp_path / "none")
    assert pd.read_csv(path)[["site", "patients"]].values.tolist() == [["one", 200]] * 2
    with pytest.raises(InputError, match="P0 is a patient of both tables"):
        run_site_recalibration(home, home, columns, 5, tmp_path / "out")
    with pytest.raises(InputError, match="No hospital in small.csv has 80 patients"):
        small = write_table(tmp_path / "small.csv", {"small": (79, 0.0)}, 5000, 2)
        run_site_recalibration(home, small, columns, 5, tmp_path / "none")
    assert not (tmp_path / "none").exists()

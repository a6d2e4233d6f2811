"""Tests of the appearance model: its samples, its exact posterior and the best achievable AUC."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit
from typer.testing import CliRunner

from gliomark.cli.main import app
from gliomark.errors import ConfigurationError, GliomarkError
from gliomark.phantom.appearance import (
    APPEARANCE_EFFECTS,
    MARKER_COLUMNS,
    MISMATCH_LOG_ODDS,
    STRATA,
    AppearanceSettings,
    CaseMix,
    TumourAppearance,
    compute_auc_ceiling,
    compute_posterior,
    estimate_auc_ceiling,
    sample_appearance,
    sample_clinical,
)
from gliomark.phantom.hospital_patient import HospitalSettings
from gliomark.phantom.patient import PhantomSettings
from gliomark.study import ClinicalData


def sample_patients(
    count: int, seed: int, noise: float = 1.0, case_mix: CaseMix = "surgical"
) -> list[tuple[ClinicalData, TumourAppearance]]:
    rng = np.random.default_rng(seed)
    rows = [sample_clinical("x", rng, case_mix) for _ in range(count)]
    return [(row, sample_appearance(row, rng, noise)) for row in rows]


CASE_MIXES: tuple[CaseMix, ...] = ("surgical", "low-grade")


@pytest.mark.parametrize("case_mix", CASE_MIXES)
def test_clinical_rows_follow_the_strata(case_mix: CaseMix) -> None:
    rows = [row for row, _ in sample_patients(6000, 1, case_mix=case_mix)]
    for stratum in STRATA:
        members = [
            row
            for row in rows
            if row.columns["who_grade"] == str(stratum.grade)
            and row.columns["idh_mutant"] == str(stratum.idh_mutant)
        ]
        assert len(members) / len(rows) == pytest.approx(stratum.shares[case_mix], abs=0.025)
        assert np.mean([row.age for row in members]) == pytest.approx(stratum.age_mean_sd[0], abs=2)
        assert np.mean([row.sex for row in members]) == pytest.approx(stratum.female_share, abs=0.07)
        log = np.mean([np.log(float(row.columns["ki67"])) for row in members])
        assert log == pytest.approx(stratum.log_ki67_mean_sd[0], abs=0.12)
    assert all(row.age is not None and 18 <= row.age <= 85 for row in rows)


def test_strata_equal_the_published_tables(shared) -> None:
    with (shared / "tables" / "ipd-brain-ki67.csv").open(encoding="utf-8") as file:
        table = [row for row in csv.DictReader(file) if int(row["WHO Grade"]) > 1]
    for stratum in STRATA:
        members = [
            row
            for row in table
            if (int(row["WHO Grade"]), int(row["IDH1R132H"])) == (stratum.grade, stratum.idh_mutant)
        ]
        ages = [float(row["Age"]) for row in members]
        logs = [np.log(max(float(row["ki67(in %)"]), 0.5)) for row in members]
        assert len(members) / len(table) == pytest.approx(stratum.shares["surgical"], abs=0.015)
        assert (np.mean(ages), np.std(ages, ddof=1)) == pytest.approx(stratum.age_mean_sd, abs=0.6)
        assert (np.mean(logs), np.std(logs, ddof=1)) == pytest.approx(stratum.log_ki67_mean_sd, abs=0.055)
        assert np.mean([row["Sex"] == "F" for row in members]) == pytest.approx(
            stratum.female_share, abs=0.01
        )


def test_labels_determine_the_appearance() -> None:
    def compute_mean(ki67: str, grade: str, mutant: str) -> np.ndarray:
        row = ClinicalData("x", 50, 0, {"ki67": ki67, "who_grade": grade, "idh_mutant": mutant})
        appearances = [sample_appearance(row, np.random.default_rng(seed)) for seed in range(300)]
        return np.mean([list(vars(appearance).values()) for appearance in appearances], axis=0)

    names = list(vars(sample_patients(1, 0)[0][1]))
    low, high = compute_mean("3", "2", "1"), compute_mean("40", "4", "0")
    for name in ("oedema_mm", "enhancement", "necrotic", "marbling"):
        assert high[names.index(name)] > 1.5 * low[names.index(name)]
    assert low[names.index("mismatch")] > 0.5 and high[names.index("mismatch")] < 0.05


def compute_posterior_by_hand(
    appearance: TumourAppearance, age: int, sex: int, marker: str, noise: float, case_mix: CaseMix
) -> float:
    """Compute Bayes' rule directly from its definition, without the module's arrays."""
    total = positive = 0.0
    for stratum in STRATA:
        years = stats.norm.cdf([age, age + 1], *stratum.age_mean_sd)
        person_probability = (years[1] - years[0]) * (
            stratum.female_share if sex else 1 - stratum.female_share
        )
        for percent in range(1, 91):
            below = [0 if percent == 1 else percent - 0.5, np.inf if percent == 90 else percent + 0.5]
            with np.errstate(divide="ignore"):
                percent_probability = np.diff(stats.norm.cdf(np.log(below), *stratum.log_ki67_mean_sd))[0]
            joint_probability = stratum.shares[case_mix] * person_probability * percent_probability
            x = np.log(percent / 10)
            for name, effect in APPEARANCE_EFFECTS.items():
                mean = (
                    effect.intercept
                    + effect.ki67_slope * x
                    + effect.grade_slope * (stratum.grade - 3)
                    + effect.wild_type_shift * (1 - stratum.idh_mutant)
                )
                latent = logit((getattr(appearance, name) - effect.low) / (effect.high - effect.low))
                joint_probability *= np.exp(
                    -0.5 * ((latent - mean) / (noise * effect.standard_deviation)) ** 2
                )
            can_mismatch = stratum.grade < 4 and stratum.idh_mutant == 1
            mismatch_probability = expit(
                (MISMATCH_LOG_ODDS[0] + MISMATCH_LOG_ODDS[1] * x if can_mismatch else MISMATCH_LOG_ODDS[2])
                / noise
            )
            joint_probability *= mismatch_probability if appearance.mismatch else 1 - mismatch_probability
            total += joint_probability
            positive += joint_probability * (percent >= 10 if marker == "ki67" else stratum.idh_mutant == 1)
    return positive / total


@pytest.mark.parametrize("marker", MARKER_COLUMNS)
@pytest.mark.parametrize("case_mix", CASE_MIXES)
@pytest.mark.parametrize("noise", [0.7, 1.0])
def test_the_posterior_follows_bayes_rule(marker: str, noise: float, case_mix: CaseMix) -> None:
    settings = AppearanceSettings(noise, case_mix=case_mix)
    for row, appearance in sample_patients(2, 5, noise, case_mix):
        assert row.age is not None and row.sex is not None
        posterior = compute_posterior(appearance, row.age, row.sex, marker, settings)
        assert posterior == pytest.approx(
            compute_posterior_by_hand(appearance, int(row.age), row.sex, marker, noise, case_mix), rel=1e-9
        )


@pytest.mark.parametrize("marker", MARKER_COLUMNS)
def test_the_posterior_is_calibrated(marker: str) -> None:
    patients = sample_patients(1500, 3)
    posteriors = np.array(
        [compute_posterior(appearance, row.age or 0, row.sex or 0, marker) for row, appearance in patients]
    )
    truth = np.array(
        [
            float(row.columns["ki67"]) >= 10 if marker == "ki67" else row.columns["idh_mutant"] == "1"
            for row, _ in patients
        ]
    )
    for low, high in ((0, 0.3), (0.3, 0.7), (0.7, 1.01)):
        members = (posteriors >= low) & (posteriors < high)
        assert members.sum() > 50
        assert truth[members].mean() == pytest.approx(posteriors[members].mean(), abs=0.08)


def test_the_maximum_auc_is_about_0_9_and_falls_with_noise() -> None:
    default = estimate_auc_ceiling("ki67", patient_count=8000)
    assert default.image_age_sex == pytest.approx(0.90, abs=0.012)
    assert default.image_age_sex > default.image - 0.003 > default.age_sex
    clear, blurred = (
        estimate_auc_ceiling("ki67", AppearanceSettings(noise), patient_count=4000) for noise in (0.3, 4.0)
    )
    assert clear.image_age_sex > 0.96 > default.image_age_sex > blurred.image_age_sex
    assert 0.6 < blurred.image < default.image - 0.05
    assert blurred.age_sex == pytest.approx(default.age_sex, abs=0.03)
    assert str(default).startswith("ki67: best achievable AUC 0.")


def test_the_maximum_auc_of_a_finite_group() -> None:
    few = compute_auc_ceiling(sample_patients(200, 9), "idh_mutant")
    assert few.patients == 200 and 60 < few.positives < 140
    assert 0.8 < few.image_age_sex < 1
    alike = [pair for pair in sample_patients(200, 9) if pair[0].columns["idh_mutant"] == "1"]
    assert np.isnan(compute_auc_ceiling(alike, "idh_mutant").image)


def test_extreme_appearances_have_a_posterior() -> None:
    appearance = replace(sample_patients(1, 0)[0][1], core_mm=12.0 + 1e-9, enhancement=1 - 1e-12)
    assert 0 <= compute_posterior(appearance, 85, 1, "ki67", AppearanceSettings(0.05)) <= 1


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(GliomarkError, match="noise"):
        AppearanceSettings(noise_factor=0)
    with pytest.raises(GliomarkError, match="threshold"):
        AppearanceSettings(ki67_threshold=95)
    with pytest.raises(GliomarkError, match="Unknown marker 'mgmt'"):
        estimate_auc_ceiling("mgmt", patient_count=10)


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("settings", [PhantomSettings, HospitalSettings])
def test_a_scanner_needs_a_finite_noise(settings: Callable[..., object], noise: float) -> None:
    with pytest.raises(ConfigurationError, match="The noise of the scanner is .*: give a number from 0 up"):
        settings(noise_sigma=noise)


@pytest.mark.parametrize("settings", [PhantomSettings, AppearanceSettings])
def test_an_unknown_case_mix_is_refused(settings: Callable[..., object]) -> None:
    with pytest.raises(ConfigurationError, match="no case mix 'mixed': give surgical or low-grade"):
        settings(case_mix="mixed")


@pytest.mark.parametrize("noise", ["nan", "inf", "-1"])
@pytest.mark.parametrize("form", ["prepared", "nifti"])
def test_an_impossible_noise_leaves_nothing(form: str, noise: str, tmp_path: Path) -> None:
    arguments = ["cohort", "phantom", "--out", str(tmp_path / "out"), "--as", form, "--noise", noise]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code != 0 and not (tmp_path / "out").exists()
    assert "noise" in outcome.output + str(outcome.exception)

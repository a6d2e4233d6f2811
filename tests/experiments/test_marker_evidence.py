"""Radiomics, published feature tables, prediction from the reader's finding, and data leakage by splitting slices."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import write_tiny_cohort

from gliomark.cohort.folds import FOLD_COUNT
from gliomark.cohort.store import Cohort, write_json, write_patient
from gliomark.errors import GliomarkError
from gliomark.experiments import slice_leakage
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers import feature_table, phantom_learning_curve, reader_finding
from gliomark.experiments.markers import result_tables as marker_tables
from gliomark.experiments.markers import runs as marker_runs
from gliomark.experiments.markers.feature_table import TableColumns
from gliomark.experiments.markers.procedure import load_marker_data
from gliomark.experiments.markers.radiomics import compute_cohort_features, compute_lesion_features
from gliomark.experiments.markers.runs import PRESETS
from gliomark.experiments.runner import run_experiment
from gliomark.models.published.kinet import KiNetSize
from gliomark.study import MRSequence, SliceStack
from gliomark.training.recipes import MARKER_DEFINITIONS

IDH = MARKER_DEFINITIONS["idh"]

# digital phantom of the Image Biomarker Standardisation Initiative; 0 is outside the region
DIGITAL_PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
REFERENCE = {
    "morph_volume": 556,
    "morph_vol_approx": 592,
    "morph_area_mesh": 388,
    "stat_mean": 2.15,
    "stat_var": 3.05,
    "stat_skew": 1.08,
    "stat_kurt": -0.355,
    "stat_median": 1,
    "stat_p10": 1,
    "stat_p90": 4,
    "stat_max": 6,
    "stat_iqr": 3,
    "stat_mad": 1.55,
    "stat_energy": 567,
    "stat_rms": 2.77,
}


def ignore_message(_: str) -> None:
    pass


# ---- best AUC by number of synthetic patients -----------------------------------------------------------


@pytest.mark.slow
def test_more_patients_bring_the_auc_closer_to_the_maximum_but_never_above_it(tmp_path: Path) -> None:
    table = pd.read_csv(phantom_learning_curve.run_phantom_learning_curve("ki67", [60, 1000], 12, tmp_path))
    few, many = table[table["read"] == 1].to_dict("records")
    assert few["missed_mean"] > 2 * many["missed_mean"] > 0
    auc_by_measurement_error = table[table["patients"] == 1000].sort_values("read", ascending=False)[
        "auc_mean"
    ]
    assert (auc_by_measurement_error.diff().dropna() < 0).all(), "more measurement error gives a lower AUC"
    assert many["auc_mean"] < many["own_ceiling_mean"] == pytest.approx(many["ceiling"], abs=0.02)
    assert (tmp_path / "phantom_learning_curve_ki67_run_record.json").exists()


def test_a_marker_unknown_to_the_phantom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GliomarkError, match="Unknown marker 'mgmt'"):
        phantom_learning_curve.run_phantom_learning_curve("mgmt", [60], 2, tmp_path)


# ---- radiomics --------------------------------------------------------------------------------------


def test_features_equal_the_ibsi_reference_on_its_digital_phantom() -> None:
    pytest.importorskip("mirp")
    padded = np.pad(DIGITAL_PHANTOM, 2)
    found = compute_lesion_features(padded.astype(np.float32), padded > 0, (2.0, 2.0, 2.0))
    # the reference gives three significant digits
    assert {name: float(f"{found[name]:.3g}") for name in REFERENCE} == pytest.approx(REFERENCE, rel=2e-3)
    assert not any(name.startswith("image_") for name in found) and len(found) > 100


@pytest.mark.slow
def test_features_of_a_cohort_are_computed_once(tiny_cohort, tmp_path) -> None:
    pytest.importorskip("mirp")
    messages: list[str] = []
    first = compute_cohort_features(tiny_cohort.folder, tmp_path, 0, messages.append)
    assert set(first) == set(tiny_cohort.patient_ids) and len(messages) == 1
    again = compute_cohort_features(tiny_cohort.folder, tmp_path, 0, messages.append)
    assert len(messages) == 1 and all((again[p] == first[p]).all() for p in first)
    next(tmp_path.glob("radiomics_*/*.json")).unlink()  # simulates an interrupted run
    assert set(compute_cohort_features(tiny_cohort.folder, tmp_path, 0, messages.append)) == set(first)
    assert messages[-1].endswith(f"{len(first) - 1} already computed")
    assert len({len(row) for row in first.values()}) == 1


# ---- published tables --------------------------------------------------------------------------------

COLUMNS = TableColumns("ID", "mutated", "yes", "Age", "Sex", "f1")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Sixty patients; only the second feature is informative, and one label is unknown."""
    random = np.random.default_rng(0)
    label = np.arange(60) % 3 == 0
    rows = pd.DataFrame(
        {
            "ID": [f"患者{i:02d}" for i in range(60)],
            "mutated": np.where(label, "yes", "no"),
            "Age": random.integers(20, 80, 60),
            "Sex": np.where(random.random(60) < 0.5, "M", "F"),
            "decoy": label.astype(int),
            "f1": random.normal(size=60),
            "f2": label + 0.3 * random.normal(size=60),
            "text": "x",
        }
    )
    rows.loc[5, "mutated"] = None
    rows.to_csv(tmp_path / "features.csv", index=False)
    return tmp_path / "features.csv"


def test_a_table_of_features_is_compared_with_age_and_sex(table, tmp_path) -> None:
    path = feature_table.run_feature_table(table, COLUMNS, tmp_path / "out", ignore_message)
    found = pd.read_csv(path).set_index("reading")
    assert found["patients"].eq(59).all() and found["positive"].eq(20).all()
    assert (
        found.loc["radiomics, LightGBM", "auc"] > 0.9 > found.loc["age and sex, logistic regression", "auc"]
    )
    record = json.loads((tmp_path / "out" / "radiomics_features_run_record.json").read_text())
    assert len(record["splits"]) == FOLD_COUNT
    patients = pd.read_csv(tmp_path / "out" / "radiomics_features_patients.csv")
    assert patients.groupby("reading")["patient"].nunique().eq(59).all()


def test_label_age_and_sex_behind_the_first_feature_are_no_features(table, tmp_path) -> None:
    rows = pd.read_csv(table)
    rows["f2"] = np.random.default_rng(1).normal(size=60)
    rows["mutated"] = rows["mutated"].map({"yes": 1, "no": 0})
    columns = ["ID", "f1", "f2", "Age", "Sex", "mutated"]
    rows[columns].to_csv(table, index=False)
    settings = replace(COLUMNS, positive="1")
    found = pd.read_csv(feature_table.run_feature_table(table, settings, tmp_path / "out", ignore_message))
    assert found.set_index("reading").loc["radiomics, LightGBM", "auc"] < 0.8


def test_columns_before_the_first_feature_are_not_used(table, tmp_path) -> None:
    """The column before the first feature equals the label and must not be used."""
    rows = pd.read_csv(table)
    rows["f2"] = np.random.default_rng(1).normal(size=60)
    rows.to_csv(table, index=False)
    found = pd.read_csv(
        feature_table.run_feature_table(table, COLUMNS, tmp_path / "out", ignore_message)
    ).set_index("reading")
    assert found.loc["radiomics, LightGBM", "auc"] < 0.8


@pytest.mark.parametrize(
    ("change", "expected_text"),
    [
        ({"label": "nothing"}, "no column nothing"),
        ({"positive": "maybe"}, "fewer than 10 patients"),
        ({"first_feature": "f9"}, "no column f9"),
    ],
)
def test_a_table_without_the_stated_columns_is_refused(table, tmp_path, change, expected_text) -> None:
    with pytest.raises(GliomarkError, match=expected_text):
        feature_table.run_feature_table(table, replace(COLUMNS, **change), tmp_path / "out", ignore_message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "expected_text"),
    [
        (b"\x00\x01\x02", "not UTF-8, UTF-16 or GB18030"),
        (b"", "no column ID"),
        (b"ID,mutated,Age,Sex,f1\n1,yes,40,0,x\n", "no numeric column"),
        (b"ID,mutated,Age,Sex,f1,f1\n1,yes,40,0,1,1\n", "more than one column f1"),
    ],
)
def test_an_invalid_table_of_features_is_refused(tmp_path, content, expected_text) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(GliomarkError, match=expected_text):
        feature_table.run_feature_table(tmp_path / "x.csv", COLUMNS, tmp_path / "out", ignore_message)
    assert not (tmp_path / "out").exists()


def test_a_patient_listed_twice_is_refused(table, tmp_path) -> None:
    rows = pd.read_csv(table)
    pd.concat([rows, rows[:1]]).to_csv(table, index=False)
    with pytest.raises(GliomarkError, match="患者00 has more than one row"):
        feature_table.run_feature_table(table, COLUMNS, tmp_path / "out", ignore_message)


# ---- reader's finding -----------------------------------------------------------------------------------


def create_enhancing_stack(patient: str, bright: int) -> SliceStack:
    """Stack with a lesion of 20 x 20 x 2 voxels of 6 mm3, of which ``bright`` connected voxels enhance."""
    random = np.random.default_rng(int(patient[1:]))
    brain = np.zeros((4, 240, 240), bool)
    brain[:, 30:210, 40:200] = True
    lesion = np.zeros_like(brain)
    lesion[1:3, 100:120, 100:120] = True
    plain = np.where(brain, random.normal(0, 0.1, brain.shape), -3).astype(np.float32)
    after = plain + np.where(brain, random.normal(0, 0.1, brain.shape), 0).astype(np.float32)
    enhancing_voxels = np.flatnonzero(lesion[1])[:bright]
    after[1].ravel()[enhancing_voxels] += 5
    # an enhancing vessel outside the lesion must not count as a focus
    after[2, 40:44, 60:120] += 5
    names, selected = ("1", "2", "3", "4"), (0, 1, 2, 3)
    affine = np.diag([1.0, 1.0, 6.0, 1.0])
    return SliceStack(
        patient, {MRSequence.T1: plain, MRSequence.T1C: after}, brain, affine, names, selected, lesion
    )


@pytest.fixture
def enhancing_cohort(tmp_path: Path) -> Cohort:
    """Odd patients are IDH-mutant; all wild-type patients have a focus of 0.24 ml, except one with a smaller one."""
    rows = ["id,age,sex,idh_mutant"]
    for number in range(1, 13):
        bright = 0 if number % 2 else (10 if number == 2 else 40)
        write_patient(tmp_path / "c", create_enhancing_stack(f"P{number:02d}", bright))
        rows.append(f"P{number:02d},40,0,{number % 2}")
    (tmp_path / "c" / "MetaMS.csv").write_text("\n".join(rows) + "\n", "utf-8")
    metadata = {"schema_version": 1, "sequences": ["T1", "T1C"], "settings": {"k": 20}}
    write_json(tmp_path / "c" / "cohort.json", metadata)
    return Cohort(tmp_path / "c")


def test_a_focus_is_measured_only_inside_the_lesion(enhancing_cohort) -> None:
    focus = {
        p: reader_finding.compute_largest_focus_ml(enhancing_cohort.read_stack(p))
        for p in enhancing_cohort.patient_ids
    }
    assert focus["P04"] == pytest.approx(0.24, abs=0.02) and focus["P02"] == pytest.approx(0.06, abs=0.02)
    assert focus["P01"] < 0.02


def test_sensitivity_and_specificity_of_the_finding(enhancing_cohort, tmp_path) -> None:
    table = pd.read_csv(
        reader_finding.run_reader_finding(enhancing_cohort.folder, tmp_path / "out")
    ).set_index("figure")
    assert table.loc["sensitivity (mutant found)", ["count", "of"]].tolist() == [6, 6]
    assert table.loc["specificity (wild type found)", ["count", "of"]].tolist() == [5, 6]
    assert table.loc["mutant where no focus", ["count", "of"]].tolist() == [6, 7]
    assert (table["low_95"] <= table["share"]).all() and (table["share"] <= table["high_95"]).all()


def test_the_finding_requires_t1_and_t1c(tiny_cohort, tmp_path) -> None:
    with pytest.raises(GliomarkError, match="T1,T1C"):
        reader_finding.run_reader_finding(tiny_cohort.folder, tmp_path)


# ---- data leakage by splitting slices -------------------------------------------------------------------


@pytest.fixture
def study_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentConfig:
    size = KiNetSize(stem=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), pool=4)
    monkeypatch.setitem(marker_runs.PRESETS, "quick", replace(PRESETS["quick"], network_size=size, epochs=1))
    load_marker_data.cache_clear()
    folder = write_tiny_cohort(tmp_path / "cohort")
    return ExperimentConfig((folder,), tmp_path / "out", "quick", 0, None, ignore_message)


def test_each_slice_is_tested_once_and_only_one_split_keeps_patients_together(study_config) -> None:
    data = load_marker_data(study_config.cohort_folders[0], IDH)
    patient_of_slice = data.lesion_dataset.patient.numpy()
    for by_patient in (True, False):
        folds = slice_leakage.create_slice_folds(data, by_patient)
        assert sorted(np.concatenate(folds)) == list(range(len(patient_of_slice)))
        split_patients = [
            p
            for p in range(15)
            if len({n for n, rows in enumerate(folds) if p in patient_of_slice[rows]}) > 1
        ]
        assert bool(split_patients) is not by_patient


@pytest.mark.slow
def test_the_leakage_table_is_written(study_config, monkeypatch) -> None:
    bootstrap = slice_leakage.bootstrap_cluster_intervals
    monkeypatch.setattr(slice_leakage, "bootstrap_cluster_intervals", lambda *a: bootstrap(*a, resamples=20))
    table = pd.read_csv(run_experiment(slice_leakage.create_table(IDH), study_config).path)
    assert table["split"].tolist() == [slice_leakage.SPLIT_BY_PATIENT, slice_leakage.SPLIT_BY_SLICE]
    assert table["slices"].nunique() == 1 and marker_tables.STATISTICS[0] in table

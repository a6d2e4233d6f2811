"""``gliomark experiment robustness``: who is measured, the answers of the product, and the tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import PAIR
from tests.pipeline.conftest import (
    Volume,
    drawn_images,
    drop_mask,
    reader_pool,
    run_command,
    tiny_weights,
    write_pictures,
)

from gliomark.errors import CohortError
from gliomark.evaluation.metrics import dice
from gliomark.experiments.robustness import image_robustness
from gliomark.experiments.robustness.image_robustness import (
    RobustnessConfig,
    describe_robustness,
    run_robustness,
    summarise_markers,
    summarise_perturbations,
    summarise_strengths,
)
from gliomark.experiments.robustness.perturbations import PERTURBATIONS
from gliomark.io import read_study
from gliomark.model_loading import load_model
from gliomark.models.weights import load_weights, save_weights
from gliomark.pipeline import predict
from gliomark.study import ClinicalData

__all__ = ["drawn_images", "reader_pool", "run_command", "tiny_weights"]
FEW = tuple(
    replace(one, strengths=one.strengths[-1:])
    for one in PERTURBATIONS
    if one.name in ("blur", "weaker enhancement")
)


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory, drawn_images: dict[str, Volume]) -> Path:
    """Two patients with a mask, one of them used for training ("a", see tiny_weights), and one without."""
    folder = tmp_path_factory.mktemp("患者 folder")
    write_pictures(folder / "new", drawn_images)
    write_pictures(folder / "a", drawn_images)
    write_pictures(folder / "no mask", drop_mask(drawn_images))
    (folder / "table.csv").write_text("id,age,sex\nnew,50,M\na,60,F\nno mask,40,M\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, patients: Path, tiny_weights: Path) -> Path:
    out = tmp_path_factory.mktemp("结果 out")
    config = RobustnessConfig(patients, str(tiny_weights), out, patients / "table.csv", perturbations=FEW)
    return run_robustness(config)


def write_weights(tiny_weights: Path, path: Path, training_patients: tuple[str, ...]) -> Path:
    weights = load_weights(tiny_weights)
    save_weights(path, replace(weights.card, training_patients=training_patients), dict(weights.tensors))
    return path


def test_patients_are_answered_as_by_a_prediction(results: Path, patients: Path, tiny_weights: Path) -> None:
    table = pd.read_csv(results.with_name("robustness_patients.csv"))
    assert set(table["id"]) == {"new"}
    assert list(table["outcome"]) == ["answered", "answered", "not possible"]  # no T1, no enhancement
    study = read_study(patients / "new", required_sequences=PAIR)
    expected = predict(study, ClinicalData("new", 50.0, 0), load_model(tiny_weights))
    unchanged = table.iloc[0]
    assert unchanged["perturbation"] == "unchanged"
    truth = expected.stack.reader_mask
    assert unchanged["dice"] == pytest.approx(dice(truth, expected.segmentation.mask), abs=1e-4)
    assert unchanged["lesion_volume_ml"] == pytest.approx(expected.lesion_volume_ml, abs=1e-3)
    for marker in expected.markers:
        assert unchanged[f"{marker.marker}_probability"] == pytest.approx(marker.probability, abs=1e-4)
    assert table["dice"][1] != unchanged["dice"]


def test_tables_plot_and_record_are_written(results: Path) -> None:
    record = json.loads(results.with_name("robustness_run_record.json").read_text("utf-8"))
    assert record["patients"] == 1 and record["left_out"] == {"trained on": 1, "no mask": 1}
    assert record["perturbations"] == {"blur": [6], "weaker enhancement": [0]}
    assert list(pd.read_csv(results)["perturbation"]) == ["unchanged", "blur", "weaker enhancement"]
    assert results.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert [line.split(":")[0] for line in describe_robustness(results)] == ["1 patients", "blur"]


@pytest.mark.slow
def test_finished_patients_are_reused_unless_something_changed(
    results: Path, patients: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    answer = image_robustness._measure
    monkeypatch.setattr(
        image_robustness, "_measure", lambda study, *rest: measured.append("") or answer(study, *rest)
    )
    before = results.read_bytes()
    config = RobustnessConfig(
        patients, str(tiny_weights), results.parent, patients / "table.csv", perturbations=FEW
    )
    assert run_robustness(config).read_bytes() == before and not measured
    run_robustness(replace(config, clinical_table=None))
    assert len(measured) == 2


@pytest.mark.slow
@pytest.mark.parametrize("is_known_by_key", [True, False])
def test_training_patients_are_found_by_their_original_ids(
    tmp_path: Path, patients: Path, tiny_weights: Path, is_known_by_key: bool
) -> None:
    weights = write_weights(tiny_weights, tmp_path / "w.safetensors", ("G0001", "G0002"))
    config = RobustnessConfig(patients, str(weights), tmp_path / "out", perturbations=FEW[:1])
    with pytest.raises(CohortError, match="--training-key"):
        run_robustness(config)
    if not is_known_by_key:
        run_robustness(replace(config, is_trained_elsewhere=True))
        assert set(pd.read_csv(tmp_path / "out/robustness_patients.csv")["id"]) == {"a", "new"}
        return
    key = tmp_path / "key.csv"
    key.write_text("id,original_id\nG0001,A\nG0002,New\n", "utf-8")
    with pytest.raises(CohortError, match="2 trained on, 1 no mask"):
        run_robustness(replace(config, training_key=key))
    assert not (tmp_path / "out").exists()


def test_a_prepared_cohort_is_refused(
    run_command, tmp_path: Path, tiny_weights: Path, tiny_cohort_folder: Path
) -> None:
    words = ("--cohort", tiny_cohort_folder, "--model", tiny_weights, "--out", tmp_path / "out")
    outcome = run_command("experiment", "robustness", *words)
    assert outcome.status == 1 and "give the folder of the original images" in outcome.stderr
    assert not (tmp_path / "out").exists()


# ---- tables -----------------------------------------------------------------------------------------


def create_table() -> pd.DataFrame:
    """Create results of three patients: patient C is refused with strong noise, B loses its lesion by it."""
    rows = [
        ("A", "unchanged", 0, "answered", 0.9, 10, 0.8),
        ("B", "unchanged", 0, "answered", 0.7, 5, 0.45),
        ("C", "unchanged", 0, "answered", 0.8, 5, 0.2),
        ("A", "noise", 1, "answered", 0.8, 9, 0.6),
        ("B", "noise", 1, "answered", 0.6, 4, 0.55),
        ("C", "noise", 1, "answered", 0.8, 4, 0.2),
        ("A", "noise", 2, "answered", 0.5, 8, 0.4),
        ("B", "noise", 2, "answered", 0.0, 0, np.nan),
        ("C", "noise", 2, "refused", np.nan, np.nan, np.nan),
        ("A", "enhancement", 1, "answered", 0.9, 8, 0.8),
        ("B", "enhancement", 1, "not possible", np.nan, np.nan, np.nan),
        ("C", "enhancement", 1, "not possible", np.nan, np.nan, np.nan),
    ]
    columns = ["id", "perturbation", "strength", "outcome", "dice", "lesion_volume_ml", "idh_probability"]
    table = pd.DataFrame(rows, columns=columns).assign(setting="")
    return table.assign(idh_level=table["idh_probability"].map(name_level))


def name_level(probability: float) -> str:
    return "cannot tell" if 0.45 <= probability < 0.58 else "mutant" if probability >= 0.58 else "wild type"


def test_dice_is_compared_with_the_same_patients_unchanged() -> None:
    table = summarise_strengths(create_table()).set_index(["perturbation", "strength"])
    assert table.loc[("unchanged", 0), "dice"] == pytest.approx(0.8)
    counts = table[["patients", "refused", "not_possible"]]
    assert counts.loc[("noise", 2)].tolist() == [2, 1, 0]
    assert counts.loc[("enhancement", 1)].tolist() == [1, 0, 2]
    expected = {("noise", 1): (-0.2 / 3, 0.0), ("noise", 2): (-0.55, 0.5), ("enhancement", 1): (0.0, 0.0)}
    for row, (change, missed) in expected.items():
        assert table.loc[row, "dice_change"] == pytest.approx(change)
        assert table.loc[row, "missed"] == pytest.approx(missed)
    assert table.loc[("noise", 2), "dice_change_low_95"] == pytest.approx(-0.7)
    assert table.loc[("noise", 2), "dice_change_high_95"] == pytest.approx(-0.4)


def test_degradation_is_the_mean_over_strengths_and_then_over_changes() -> None:
    table = summarise_perturbations(create_table()).set_index("perturbation")
    noise, overall = table.loc["noise"], table.loc["mean of all"]
    assert noise["degradation"] == pytest.approx(((1 - 2.2 / 3) + (1 - 0.25)) / 2)
    assert noise["relative_degradation"] == pytest.approx((0.2 / 3 + 0.55) / 2)
    assert noise["refused"] == pytest.approx((0 + 1 / 3) / 2)
    assert overall["relative_degradation"] == pytest.approx((0.2 / 3 + 0.55) / 4)


def test_levels_that_change_are_counted() -> None:
    table = summarise_markers(create_table(), ["idh"]).set_index(["perturbation", "strength"])
    first, second = table.loc[("noise", 1)], table.loc[("noise", 2)]
    assert first["patients"] == 3 and first["absolute_change"] == pytest.approx(0.1)
    assert first["largest_change"] == pytest.approx(0.2)
    assert first["level_changed"] == 0 and first["cannot_tell"] == pytest.approx(1 / 3)
    assert second["patients"] == 1 and second["absolute_change"] == pytest.approx(0.4)
    assert second["level_changed"] == 1 and second["no_probability"] == pytest.approx(2 / 3)
    assert table.loc[("enhancement", 1), "patients"] == 1
    assert table.loc[("enhancement", 1), "no_probability"] == 0

"""A marker that is no better than chance states no level: from validation over the weights file to the report."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import create_tiny_stack
from tests.pipeline.conftest import draw_patient, drop_mask, write_pictures
from typer.testing import CliRunner

from gliomark import cli
from gliomark.cohort.store import Cohort, write_json, write_patient
from gliomark.evaluation.conservative_auc import compute_conservative_auc_interval
from gliomark.evaluation.delong import compute_delong_interval
from gliomark.io import read_study
from gliomark.model_loading import build_model
from gliomark.models.weights import Weights, load_weights
from gliomark.pipeline import predict_prepared, prepare_study
from gliomark.reporting import write_prediction
from gliomark.study import ClinicalData, MRSequence
from gliomark.training import recipes
from gliomark.training.recipes import TrainedMarker


def compute_interval(positives: int, negatives: int, share_right: float = 1.0, seed: int = 0):
    """Return the conservative interval for simulated patients; share_right 1: ranked perfectly."""
    random = np.random.default_rng(seed)
    label = np.repeat([1, 0], [positives, negatives])
    score = label + 0.0 if share_right == 1 else random.normal(share_right * label, 1)
    return compute_conservative_auc_interval(label, score)


@pytest.mark.parametrize(("positives", "negatives"), [(1, 9), (4, 4), (5, 5), (3, 7), (5, 80), (60, 2)])
def test_few_perfectly_ranked_patients_are_no_better_than_chance(positives, negatives) -> None:
    found = compute_interval(positives, negatives)
    assert (found.value, found.upper) == (1.0, 1.0)
    assert found.lower == pytest.approx(0.025 ** (1 / min(positives, negatives)))
    assert found.lower < 0.5
    reversed_interval = compute_conservative_auc_interval([0, 1, 1, 1], [4, 1, 2, 3])
    assert (reversed_interval.value, reversed_interval.lower) == (0.0, 0.0) and reversed_interval.upper > 0.5


@pytest.mark.parametrize(("positives", "negatives"), [(6, 6), (20, 66), (200, 200)])
def test_enough_perfectly_ranked_patients_are_better_than_chance(positives, negatives) -> None:
    assert compute_interval(positives, negatives).lower > 0.5


@pytest.mark.parametrize(("positives", "negatives"), [(8, 12), (20, 66), (150, 90)])
def test_the_conservative_interval_contains_delongs_and_the_truth(positives, negatives) -> None:
    truth, inside = 0.7602, 0  # two normal distributions one standard deviation apart: Phi(1 / sqrt 2)
    for seed in range(200):
        random = np.random.default_rng(seed)
        label = np.repeat([1, 0], [positives, negatives])
        score = random.normal(label, 1)
        found, other = compute_conservative_auc_interval(label, score), compute_delong_interval(label, score)
        assert found.value == pytest.approx(other.value)
        assert found.lower < other.lower or found.value > 0.95
        inside += found.lower < truth < found.upper
    assert inside >= 190


def test_a_single_class_has_no_auc() -> None:
    assert np.isnan(compute_conservative_auc_interval([1, 1, 1], [0.1, 0.5, 0.9]).value)


# ---- ten patients -----------------------------------------------------------------------------------


def write_ten_patients(folder: Path) -> Cohort:
    """Write a cohort of ten patients, five of either class."""
    rows = ["id,age,sex,idh_mutant,who_grade"]
    for number in range(1, 11):
        write_patient(folder, create_tiny_stack(number))
        rows.append(f"P{number:02d},{30 + 2 * number},{number % 2},{number % 2},3")
    (folder / "MetaMS.csv").write_text("\n".join(rows) + "\n", "utf-8")
    metadata = {"schema_version": 1, "sequences": ["T1C", "FLAIR"], "settings": {"k": 20}}
    write_json(folder / "cohort.json", metadata)
    return Cohort(folder)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    return write_ten_patients(tmp_path_factory.mktemp("cohort") / "ten 十例")


@pytest.fixture
def train(tiny_segmentation_training, tiny_marker_training, monkeypatch, tmp_path):
    """Return train(cohort), which runs both commands with tiny networks for one epoch; weights file and output."""
    monkeypatch.setattr(recipes, "create_segmentation_config", lambda *_: tiny_segmentation_training)
    monkeypatch.setattr(recipes, "create_marker_config", lambda *_: tiny_marker_training)

    def run_training(cohort: Cohort) -> tuple[Weights, list[str]]:
        segmentation_path, out = tmp_path / "outline.safetensors", tmp_path / "m.safetensors"
        invoke = partial(CliRunner().invoke, cli.app, catch_exceptions=False)
        common_options = ["--cohort", str(cohort.folder), "--epochs", "1"]
        invoke(["train", "segmentation", *common_options, "--rule", "joint", "--out", str(segmentation_path)])
        markers = ["--segmentation", str(segmentation_path), "--marker", "idh", "--out", str(out)]
        result = invoke(["train", "markers", *common_options, *markers])
        return load_weights(out), result.stdout.splitlines()

    return run_training


@pytest.fixture
def perfect_predictions(request, monkeypatch) -> bool:
    """Whether every patient is predicted correctly."""
    if request.param:
        monkeypatch.setattr(
            TrainedMarker,
            "predict_patients",
            lambda self, _, patients: {p: float(self.labels[p]) for p in patients},
        )
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("perfect_predictions", [False, True], indirect=True, ids=["as trained", "perfect"])
def test_ten_patients_and_one_epoch_give_no_level(cohort, train, tmp_path, perfect_predictions) -> None:
    weights, output = train(cohort)
    card = weights.card.markers["idh"]
    v = card.validation
    assert v is not None and (v.patients, v.positives) == (8, 4), "test patients were used"
    assert v.low < 0.5 < v.high and (v.auc == 1 or not perfect_predictions)
    assert not card.is_level_reported
    assert card.validation_message.code == "marker-at-chance"
    assert (
        f"AUC {v.auc:.2f}" in card.validation_message and f"{v.low:.2f} to {v.high:.2f}" in card.performance
    )
    assert output[-2:] == [f"IDH: {card.validation_message}", str(tmp_path / "m.safetensors")], (
        "verdict not printed"
    )
    # the report of a patient with a reader's mask states it as well
    study = read_study(write_pictures(tmp_path / "患者 01", drop_mask(draw_patient())))
    model = build_model(weights)
    prepared = prepare_study(study, model)
    reader_mask = prepared.stack.images[MRSequence.FLAIR] > 2
    prediction = predict_prepared(
        prepared, ClinicalData(study.patient_id, 50.0, 1), model, reader_mask=reader_mask
    )
    (marker_prediction,) = prediction.markers
    assert (marker_prediction.level, marker_prediction.probability) == ("undetermined", None)
    (warning,) = marker_prediction.warnings
    assert f"AUC {v.auc:.2f}, 95 % interval {v.low:.2f} to {v.high:.2f}; 8 patients" in warning
    page = (write_prediction(prediction, tmp_path / "out") / "report.html").read_text("utf-8")
    assert warning in page

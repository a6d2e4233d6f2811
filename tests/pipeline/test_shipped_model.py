"""The demo weights: their model card, and segmentation of a lesion that was not in the training data."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.models.broken_weights import compute_digest

import gliomark
from gliomark import load_model, predict, read_study
from gliomark.cohort.folds import CohortFolds
from gliomark.engines.torch_engine import TorchNetwork
from gliomark.errors import ConfigurationError
from gliomark.evaluation.metrics import dice
from gliomark.experiments.demonstration import apply_marker_validation
from gliomark.model_loading import Model, build_model, load_weights_by_name
from gliomark.models.shipped_weights import SHIPPED_MODELS
from gliomark.models.weights import ModelCard, load_weights, save_weights
from gliomark.phantom import create_phantom, write_pictures
from gliomark.phantom.patient import PhantomSettings, create_patient_id
from gliomark.pipeline import predict_prepared, prepare_study
from gliomark.reporting import resample_mask_to_series
from gliomark.study import ClinicalData, MRSequence
from gliomark.training.recipes import MARKER_DEFINITIONS

FOLDER = Path(gliomark.__file__).parent / "models" / "shipped"
RESULTS = Path(__file__).parents[2] / "results"
LARGEST_BYTES = 20_000_000  # two segmentation networks of 7.7 MB, the synthetic model of 3.2 MB


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return load_weights(find_shipped_weights()).card


@pytest.fixture(scope="module")
def demo() -> Model:
    find_shipped_weights()
    return load_model("demo")


def find_shipped_weights() -> Path:
    """Return the path of the demo weights; skip the test if they are missing."""
    path = FOLDER / SHIPPED_MODELS["demo"]
    if not path.is_file():
        pytest.skip(
            f"the demonstration weights are not in {FOLDER.name}/ yet: gliomark experiment demonstration"
        )
    return path


def test_the_shipped_weights_are_small() -> None:
    find_shipped_weights()
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < LARGEST_BYTES
    assert {file.name for file in FOLDER.glob("*.safetensors")} == set(SHIPPED_MODELS.values())


def test_the_card_is_complete(card) -> None:
    for field in fields(card):
        # real patients; T2 has a network of its own; ids that TCGA assigned mean the same in every cohort
        if field.name in ("is_synthetic", "stand_ins", "training_cohort_id"):
            assert not getattr(card, field.name)
            continue
        assert getattr(card, field.name), f"the card has no {field.name}"
    assert not [text for text in list_texts(card) if text in ("not measured", "not stated")]
    assert card.sequences == ("T1C", "FLAIR")
    assert len(set(card.training_patients)) == len(card.training_patients) > 10
    assert len(card.folds_sha256) == 64
    assert {"gliomark", "torch", "lightgbm"} <= set(card.versions)
    assert "Dice" in card.segmentation_performance and "95 %" in card.segmentation_performance
    assert "TCGA-LGG" in card.training_cohort


def list_texts(card: ModelCard) -> list[str]:
    markers = [value for marker in card.markers.values() for value in vars(marker).values()]
    return [value for value in (*vars(card).values(), *markers) if isinstance(value, str)]


def test_only_validated_markers_are_shipped(card) -> None:
    assert set(card.markers) == {"idh"}, "the proxy is no better than chance"
    assert (card.markers["idh"].positive, card.markers["idh"].negative) == ("mutant", "wild type")
    for marker in card.markers.values():
        assert 0 < marker.threshold < 1
        assert "AUC" in marker.performance and "95 %" in marker.performance


def test_the_card_states_the_committed_results(card) -> None:
    with (RESULTS / "markers.csv").open(encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if row["outline"] == "predicted" and row["fusion"] == "near"
        ]
    as_shipped = {row["marker"]: row for row in rows if "LightGBM" in row["stage"]}
    for name, row in as_shipped.items():
        if float(row["low_95"]) <= 0.5:
            assert name not in card.markers
            continue
        v = card.markers[name].validation
        assert (v.auc, v.low, v.high) == tuple(float(row[key]) for key in ("auc", "low_95", "high_95"))
        assert (v.patients, v.positives) == (int(row["patients"]), int(row["positive"]))
        expected = f"AUC {v.auc:.2f} (95 % interval {v.low:.2f} to {v.high:.2f})"
        assert card.markers[name].performance.startswith(expected)
        assert card.markers[name].is_level_reported and not card.markers[name].warning
    record = json.loads((RESULTS / "run_record.json").read_text("utf-8"))
    assert record["folds_sha256"] == card.folds_sha256


def test_the_network_for_t2_was_added_to_the_model_of_the_results(card, tmp_path: Path) -> None:
    weights = load_weights(find_shipped_weights())
    record = json.loads((RESULTS / "t2_outline_run_record.json").read_text("utf-8"))
    trained = {n: t for n, t in weights.tensors.items() if not n.startswith("known_range/")}
    save_weights(tmp_path / "without_range.safetensors", card, trained)
    assert load_weights(tmp_path / "without_range.safetensors").sha256 == record["weights_sha256"]
    second = card.second_segmentation
    assert second is not None and second.sequences == ("T1C", "T2")
    tables = (pd.read_csv(RESULTS / f"t2_outline{name}.csv") for name in ("", "_patients"))
    summary, patients = next(tables).iloc[0], next(tables)
    assert second.segmentation_performance.startswith(f"mean Dice {summary.dice:.2f} (95 % interval")
    assert summary.dice == pytest.approx(patients["dice"].mean(), abs=1e-4)
    assert summary.patients == len(patients) == 10
    unseen = set(patients.loc[patients["fold"] == 1, "patient"])
    assert not unseen & set(second.training_patients) and len(unseen) == 5
    before = replace(card, second_segmentation=None, stand_ins={"FLAIR": "T2"})
    tensors = {n: t for n, t in trained.items() if not n.startswith("second_segmentation/")}
    save_weights(tmp_path / "before.safetensors", before, tensors, lambda _: None)
    record = json.loads((RESULTS / "run_record.json").read_text("utf-8"))
    assert load_weights(tmp_path / "before.safetensors").sha256 == record["weights_sha256"]


@pytest.mark.parametrize(
    ("part", "sha256"),
    [
        ("segmentation", "f84a966f0355e3b5e9ea4d8ac5a4fde3bfac04c5a29b497c10183854c15841f0"),
        ("second_segmentation", "d9f798d7769fba1cad7b54b6ffe090622b664e9046d562e1d783a2b443b463d3"),
        ("idh", "f1b326d76739516cef6d588a3c10b3a238f605e48c749e93aa8c6fb53b998f68"),
    ],
)
def test_the_networks_are_those_of_the_results(part, sha256) -> None:
    tensors = load_weights(find_shipped_weights()).tensors
    assert {name.partition("/")[0] for name in tensors} == {
        "segmentation",
        "second_segmentation",
        "idh",
        "prior",
        "known_range",
    }
    part_tensors = {n: torch.from_numpy(t.copy()) for n, t in tensors.items() if n.startswith(f"{part}/")}
    assert compute_digest("", part_tensors) == sha256


def test_applying_the_validation_reproduces_the_shipped_file(tmp_path) -> None:
    """Run the last step of ``experiment demonstration`` on a file that still contains the proxy."""
    weights = load_weights(find_shipped_weights())
    idh = replace(
        weights.card.markers["idh"],
        validation=None,
        patient_calibration=None,
        threshold=0.5,
        performance="not measured",
        warning="old",
    )
    proxy = replace(idh, title="Proliferation proxy")
    tensors = {f"proliferation/{name}": tensor for name, tensor in weights.get_tensors("idh").items()}
    path = tmp_path / "before.safetensors"
    card = replace(weights.card, markers={"idh": idh, "proliferation": proxy}, training_cohort="at least 81")
    save_weights(path, card, {**weights.tensors, **tensors})
    record = json.loads((RESULTS / "run_record.json").read_text("utf-8"))["folds"]
    nested = {name: tuple(map(tuple, record[name])) for name in ("development_folds", "folds")}
    flat = {name: tuple(record[name]) for name in ("train", "validation", "test")}
    folds = CohortFolds(**flat, **nested, seed=record["seed"])
    tables = (pd.read_csv(RESULTS / name) for name in ("markers.csv", "markers_patients.csv"))
    apply_marker_validation(path, *tables, folds)
    assert load_weights(path).sha256 == weights.sha256


def test_the_proxy_is_never_called_ki67() -> None:
    proxy = MARKER_DEFINITIONS["proliferation"]
    for text in (proxy.title, proxy.column, proxy.positive, proxy.negative):
        assert "ki67" not in text.lower().replace("-", "").replace(" ", "")
    assert "proxy" in proxy.title.lower()
    assert "not a stained ki-67" in proxy.label.lower()


def test_licence_and_intended_use_are_stated(card) -> None:
    assert "non-commercial" in card.licence and "share-alike" in card.licence
    assert "not a medical device" in card.intended_use


def test_the_lesion_of_a_phantom_is_segmented(demo, tmp_path) -> None:
    phantom = create_phantom(7)
    folder = write_pictures(phantom.study, tmp_path / "幻 影")
    shutil.rmtree(folder / "mask", ignore_errors=True)
    study = read_study(folder)
    assert study.lesion is None
    prediction = predict(study, phantom.clinical, demo)
    name = MRSequence.T1C
    stack = prediction.stack
    found = resample_mask_to_series(
        stack, prediction.segmentation, study.series[name], to_stack=stack.to_stack.get(name)
    )
    assert phantom.study.lesion is not None
    assert dice(phantom.study.lesion.image > 0, found > 0) > 0.5
    assert all(marker.probability is not None for marker in prediction.markers)


def test_a_real_patient_is_predicted(run_command, tmp_path, shared) -> None:
    find_shipped_weights()
    cohort = shared / "cohorts" / "tcga-lgg"
    out = tmp_path / "结果 夹"
    arguments = ("predict", cohort / "TCGA-CS-4941", "--clinical", cohort / "clinical.csv", "--out", out)
    outcome = run_command(*arguments)
    assert outcome.status == 0, outcome.stderr
    result = out / "TCGA-CS-4941"
    assert {path.name for path in result.iterdir() if not path.name.startswith(".")} == {
        "prediction.json",
        "report.html",
        "masks",
        "segmentation.nii.gz",
        "statistics.json",
    }
    assert (out / "predictions.csv").is_file()
    document = json.loads((result / "prediction.json").read_text("utf-8"))
    assert document["lesion"]["found"]
    assert {marker["marker"] for marker in document["markers"]} == {"idh"}
    names = {file.stem for file in (cohort / "TCGA-CS-4941" / "T1C").iterdir()}
    assert {file.stem for file in (result / "masks").iterdir()} == names
    assert np.all([file.suffix == ".png" for file in (result / "masks").iterdir()])


def test_a_small_model_is_not_converted(tiny_weights: Path) -> None:
    model = load_model(tiny_weights)
    networks = [model.segmenter.network, *(one.network for one in model.classifiers.values())]
    assert {type(one) for one in networks} == {TorchNetwork}


def test_the_engine_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIOMARK_ENGINE", "torch")
    model = load_model("demo")
    networks = [model.segmenter.network, *(one.network for one in model.classifiers.values())]
    assert {type(one) for one in networks} == {TorchNetwork}


@pytest.mark.parametrize("engine, is_stated", [("openvino", False), ("openvino-bf16", True)])
def test_a_result_in_bfloat16_says_so(volume_folder: Path, engine: str, is_stated: bool) -> None:
    try:
        model = build_model(load_weights_by_name("demo"), engine=engine)
    except ConfigurationError as error:
        pytest.skip(str(error))
    prepared = prepare_study(read_study(volume_folder), model)
    prediction = predict_prepared(prepared, ClinicalData(prepared.study.patient_id, 40.0, 1), model)
    assert any("bfloat16" in warning for warning in prediction.warnings) is is_stated


def test_the_patient_of_make_demo_was_not_trained_on() -> None:
    makefile = (RESULTS.parent / "Makefile").read_text("utf-8")
    (seed,) = re.findall(r"cohort phantom --out demo/patients --seed (\d+)", makefile)
    card = load_weights_by_name("synthetic").card
    assert card.is_synthetic and len(card.training_patients) >= 100
    assert create_patient_id(int(seed), PhantomSettings()) not in card.training_patients


def test_the_synthetic_card_states_the_committed_results() -> None:
    card = load_weights_by_name("synthetic").card
    table = pd.read_csv(RESULTS / "synthetic_model.csv").set_index("training_patients")
    rows = table.loc[len(card.training_patients)].set_index("marker")
    assert set(card.markers) == set(rows.index) == {"ki67", "idh"}
    for name, marker in card.markers.items():
        row, v = rows.loc[name], marker.validation
        assert (v.auc, v.low, v.high) == pytest.approx((row.auc, row.low_95, row.high_95))
        assert (v.patients, v.positives) == (row.with_lesion, row.positive)
        assert f"Dice {row.dice:.2f}" in card.segmentation_performance
    record = json.loads((RESULTS / "synthetic_model_run_record.json").read_text("utf-8"))
    assert record["weights_sha256"] == load_weights_by_name("synthetic").sha256

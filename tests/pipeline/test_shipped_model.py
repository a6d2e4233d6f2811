"""The demonstration weights: what their card says, and that they outline a lesion they never saw."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import gliomark
from gliomark import load_model, predict, read_study
from gliomark.cohort.phantom import make_phantom, write_pictures
from gliomark.evaluation.metrics import dice
from gliomark.models.weights import ModelCard, load_weights
from gliomark.pipeline import SHIPPED, Model
from gliomark.reporting import native_mask
from gliomark.study import MRSequence

FOLDER = Path(gliomark.__file__).parent / "models" / "shipped"
LARGEST_BYTES = 15_000_000


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return load_weights(shipped()).card


@pytest.fixture(scope="module")
def demo() -> Model:
    shipped()
    return load_model("demo")


def shipped() -> Path:
    """The demonstration weights; the test is skipped where they are not there yet."""
    path = FOLDER / SHIPPED["demo"]
    if not path.is_file():
        pytest.skip(
            f"the demonstration weights are not in {FOLDER.name}/ yet: gliomark experiment demonstration"
        )
    return path


def test_all_weights_together_are_small() -> None:
    shipped()
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < LARGEST_BYTES
    assert {file.name for file in FOLDER.glob("*.safetensors")} == set(SHIPPED.values())


def test_card_is_complete(card) -> None:
    for field in fields(card):
        assert getattr(card, field.name), f"the card says nothing under {field.name}"
    assert not [text for text in every_text(card) if text in ("not measured", "not stated")]
    assert card.sequences == ("T1C", "FLAIR")
    assert len(set(card.training_patients)) == len(card.training_patients) > 10
    assert len(card.folds_sha256) == 64
    assert {"gliomark", "torch", "lightgbm"} <= set(card.versions)
    assert "Dice" in card.segmentation_performance and "95 %" in card.segmentation_performance
    assert "TCGA-LGG" in card.training_cohort


def every_text(card: ModelCard) -> list[str]:
    markers = [value for marker in card.markers.values() for value in vars(marker).values()]
    return [value for value in (*vars(card).values(), *markers) if isinstance(value, str)]


def test_markers(card) -> None:
    assert set(card.markers) == {"idh", "proliferation"}
    assert (card.markers["idh"].positive, card.markers["idh"].negative) == ("mutant", "wild type")
    for marker in card.markers.values():
        assert 0 < marker.threshold < 1
        assert "AUC" in marker.performance and "95 %" in marker.performance


def test_the_proxy_is_never_called_ki67(card) -> None:
    proxy = card.markers["proliferation"]
    for text in (proxy.title, proxy.column, proxy.positive, proxy.negative, proxy.performance):
        assert "ki67" not in text.lower().replace("-", "").replace(" ", "")
    assert "proxy" in proxy.title.lower()
    assert "not a stained ki-67" in proxy.label.lower()


def test_licence_and_use(card) -> None:
    assert "non-commercial" in card.licence and "share-alike" in card.licence
    assert "not a medical device" in card.intended_use


def test_outlines_a_phantoms_lesion(demo, tmp_path) -> None:
    phantom = make_phantom(7)
    folder = write_pictures(phantom.study, tmp_path / "幻 影")
    shutil.rmtree(folder / "mask", ignore_errors=True)
    study = read_study(folder)
    assert study.lesion is None
    prediction = predict(study, phantom.clinical, demo)
    name = MRSequence.T1C
    stack = prediction.stack
    found = native_mask(stack, prediction.segmentation, study.series[name], to_stack=stack.to_stack.get(name))
    assert phantom.study.lesion is not None
    assert dice(phantom.study.lesion.image > 0, found > 0) > 0.5
    assert all(marker.probability is not None for marker in prediction.markers)


def test_a_real_patient(command, tmp_path, shared) -> None:
    shipped()
    cohort = shared / "cohorts" / "tcga-lgg"
    out = tmp_path / "结果 夹"
    words = ("predict", cohort / "TCGA-CS-4941", "--clinical", cohort / "clinical.csv", "--out", out)
    outcome = command(*words)
    assert outcome.status == 0, outcome.err
    result = out / "TCGA-CS-4941"
    assert {path.name for path in result.iterdir()} == {"prediction.json", "report.html", "masks"}
    assert (out / "predictions.csv").is_file()
    document = json.loads((result / "prediction.json").read_text("utf-8"))
    assert document["lesion"]["found"]
    assert {marker["marker"] for marker in document["markers"]} == {"idh", "proliferation"}
    names = {file.stem for file in (cohort / "TCGA-CS-4941" / "T1C").iterdir()}
    assert {file.stem for file in (result / "masks").iterdir()} == names
    assert np.all([file.suffix == ".png" for file in (result / "masks").iterdir()])

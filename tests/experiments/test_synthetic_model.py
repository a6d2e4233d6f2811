"""The synthetic model: its learning curve, its comparison with the exact posterior, and what its predictions state."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from tests.cohort.test_synthetic import TINY
from tests.conftest import PAIR
from tests.pipeline.conftest import drawn_images, reader_pool, run_command, tiny_weights

from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.cohort.synthetic import write_synthetic_cohort
from gliomark.errors import CohortError, ConfigurationError
from gliomark.evaluation.metrics import auc
from gliomark.experiments.cohort_evaluation import evaluate_on_cohort
from gliomark.experiments.synthetic_model import (
    SyntheticModelConfig,
    choose_threshold,
    read_posteriors,
    run_synthetic_model,
    summarise_model,
)
from gliomark.inference.segmenter import Segmenter
from gliomark.model_loading import Model, build_model
from gliomark.models.weights import load_weights
from gliomark.pipeline import PreparedStudy, predict_prepared
from gliomark.study import Segmentation, SliceStack, Study

__all__ = ["drawn_images", "reader_pool", "run_command", "tiny_weights"]


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Model:
    return build_model(load_weights(tiny_weights))


@pytest.fixture(scope="module")
def synthetic_cohort(tmp_path_factory) -> Iterator[Cohort]:
    settings = replace(TINY, sequences=PAIR, test_count=8)
    yield write_synthetic_cohort(range(1, 16), tmp_path_factory.mktemp("synthetic"), settings).cohort


@pytest.mark.parametrize(("count", "epochs"), [(2000, 4), (1000, 8), (500, 16), (200, 40)])
def test_fewer_patients_get_as_many_steps(count: int, epochs: int) -> None:
    config = SyntheticModelConfig((200, 500, 1000, 2000), 4, 5)
    assert config.scale_epochs(config.segmentation_epochs, count) == epochs


@pytest.mark.parametrize("counts", [(), (500, 200), (200, 200)])
def test_numbers_of_patients_must_increase(counts: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="must increase"):
        SyntheticModelConfig(counts, 4, 5)


def test_a_real_cohort_or_too_few_patients_are_refused(tiny_cohort, synthetic_cohort, tmp_path) -> None:
    with pytest.raises(CohortError, match="is not a synthetic cohort"):
        run_synthetic_model(tiny_cohort.folder, SyntheticModelConfig((10,), 1, 1), tmp_path)
    with pytest.raises(CohortError, match="7 patients outside the test set, but 8"):
        run_synthetic_model(synthetic_cohort.folder, SyntheticModelConfig((5, 8), 1, 1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_the_test_patients_are_evaluated_and_compared_with_the_posterior(
    model: Model, synthetic_cohort: Cohort
) -> None:
    test = load_cohort_folds(synthetic_cohort).test
    card = replace(model.card, preparation=synthetic_cohort.metadata["settings"])
    model = replace(model, weights=replace(model.weights, card=card))
    evaluation = evaluate_on_cohort(model, synthetic_cohort, patients=test)
    assert sorted(evaluation.patients["id"]) == sorted(test)
    with (synthetic_cohort.folder / "truth" / "truth.csv").open(encoding="utf-8") as file:
        truth = {row["id"]: row for row in csv.DictReader(file)}
    table = summarise_model(evaluation, synthetic_cohort, 15).set_index("marker")
    assert set(table.index) == {"ki67", "idh"}
    for name, column in (("ki67", "ki67"), ("idh", "idh_mutant")):
        known = evaluation.patients.dropna(subset=[name, f"{name}_probability"])
        posterior = [float(truth[patient][f"posterior_{column}"]) for patient in known["id"]]
        assert read_posteriors(synthetic_cohort, list(known["id"]), column) == posterior
        row = table.loc[name]
        assert row.ceiling == pytest.approx(auc(known[name].to_numpy(int), posterior))
        assert row.auc == pytest.approx(auc(known[name].to_numpy(int), known[f"{name}_probability"]))
        assert row.below_ceiling == pytest.approx(row.ceiling - row.auc)
        assert row.dice_low_95 <= row.dice <= row.dice_high_95
        assert row.dice == pytest.approx(evaluation.patients["dice"].mean())


@pytest.mark.parametrize("is_synthetic", [True, False])
def test_every_prediction_says_that_the_model_learnt_from_drawings(
    model: Model, tiny_cohort: Cohort, is_synthetic: bool
) -> None:
    card = replace(model.card, is_synthetic=is_synthetic)
    other = replace(model, weights=replace(model.weights, card=card))
    patient = tiny_cohort.patient_ids[0]
    stack = tiny_cohort.read_stack(patient, PAIR)
    prepared = PreparedStudy(Study(patient, {}, Path(), "pictures"), stack, {}, 0.0)
    prediction = predict_prepared(prepared, tiny_cohort.get_clinical(patient), other)
    assert any("drawn heads" in text for text in prediction.warnings) == is_synthetic


@pytest.mark.parametrize(
    ("inside", "around", "expected"), [(0.97, 0.85, 0.9), (0.97, 0.3, 0.5), (0.55, 0.45, 0.5)]
)
def test_the_threshold_is_that_of_the_best_outlines(
    synthetic_cohort: Cohort,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    inside: float,
    around: float,
    expected: float,
) -> None:
    def segment(_: Segmenter, stack: SliceStack) -> Segmentation:
        lesion = np.asarray(stack.lesion, bool)
        wide = ndimage.binary_dilation(lesion, iterations=3)
        probability = np.where(lesion, inside, np.where(wide, around, 0.0)).astype(np.float32)
        return Segmentation(probability, wide, "")

    monkeypatch.setattr(Segmenter, "segment", segment)
    patients = synthetic_cohort.patient_ids
    segmenter = replace(model.segmenter, min_lesion_ml=0.0)
    assert choose_threshold(segmenter, synthetic_cohort, patients) == expected


@pytest.mark.slow
def test_the_cascade_is_trained_and_written(tmp_path) -> None:
    settings = replace(TINY, sequences=PAIR, test_count=8)
    synthetic_cohort = write_synthetic_cohort(range(1, 24), tmp_path / "cohort", settings).cohort
    path = run_synthetic_model(synthetic_cohort.folder, SyntheticModelConfig((12, 15), 1, 1), tmp_path)
    table = pd.read_csv(path)
    assert list(table["training_patients"]) == [12, 12, 15, 15]
    weights = load_weights(tmp_path / "synthetic.safetensors")
    card, folds = weights.card, load_cohort_folds(synthetic_cohort)
    assert card.is_synthetic and card.rule == "union"
    assert len(card.training_patients) == 15 and not set(card.training_patients) & set(folds.test)
    assert card.segmentation.network["name"] == "mignet"
    for name, marker in card.markers.items():
        row = table[(table["training_patients"] == 15) & (table["marker"] == name)].iloc[0]
        assert marker.architecture.network["name"] == "kinet"
        assert marker.validation.auc == pytest.approx(row.auc)
        assert np.isclose(marker.validation.patients, row.with_lesion) and marker.validation.is_test_set

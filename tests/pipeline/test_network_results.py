"""The networks run once for a prepared study; what a person enters afterwards runs none of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gliomark.io import read_study
from gliomark.model_loading import Model, build_model
from gliomark.models.weights import load_weights
from gliomark.pipeline import PreparedStudy, predict_prepared, prepare_study
from gliomark.prediction import Prediction
from gliomark.study import ClinicalData


class CountedNetwork:
    """Counts the runs of a network."""

    def __init__(self, network: Any) -> None:
        self.network, self.runs = network, 0

    def run(self, *inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        self.runs += 1
        return self.network.run(*inputs)

    def release_memory(self) -> None:
        self.network.release_memory()


@pytest.fixture
def model(tiny_weights: Path) -> Model:
    built = build_model(load_weights(tiny_weights))
    classifiers = {
        name: replace(one, network=CountedNetwork(one.network)) for name, one in built.classifiers.items()
    }
    return replace(
        built,
        segmenter=replace(built.segmenter, network=CountedNetwork(built.segmenter.network)),
        classifiers=classifiers,
    )


@pytest.fixture
def prepared(model: Model, volume_folder: Path) -> PreparedStudy:
    return prepare_study(read_study(volume_folder), model)


def count_runs(model: Model) -> tuple[int, ...]:
    return (model.segmenter.network.runs, *(one.network.runs for one in model.classifiers.values()))  # type: ignore[attr-defined]


def predict(prepared: PreparedStudy, model: Model, age: float | None = 40.0, **options: Any) -> Prediction:
    return predict_prepared(prepared, ClinicalData(prepared.study.patient_id, age, 1), model, **options)


@pytest.mark.parametrize(
    "options", [{"age": 70.0}, {"age": None}, {"has_enhancing_focus": True}, {"fusion": "all"}]
)
def test_what_a_person_enters_runs_no_network_and_changes_nothing_else(
    model: Model, prepared: PreparedStudy, volume_folder: Path, options: dict[str, Any]
) -> None:
    first = predict(prepared, model)
    runs = count_runs(model)
    assert first.segmentation.mask.any() and all(runs)
    again = predict(prepared, model, **options)
    assert count_runs(model) == runs
    expected = predict(prepare_study(read_study(volume_folder), model), model, **options)
    assert count_runs(model) > runs
    np.testing.assert_array_equal(again.segmentation.probability, expected.segmentation.probability)
    found, wanted = again.to_dict(), expected.to_dict()
    for record in (found, wanted):
        del record["seconds"], record["created"]
    assert found == wanted


@pytest.mark.parametrize("change", ["mask", "image"])
def test_another_mask_or_changed_image_is_computed_anew(
    model: Model, prepared: PreparedStudy, change: str
) -> None:
    first, runs = predict(prepared, model), count_runs(model)
    mask = None
    if change == "mask":
        mask = first.segmentation.mask.copy()
        mask[:, ::2] = False
    else:
        next(iter(prepared.stack.images.values()))[:] += 1
    second = predict(prepared, model, reader_mask=mask)
    assert count_runs(model) > runs
    fresh = predict(replace(prepared), model, reader_mask=mask)
    assert [one.probability for one in second.markers] == [one.probability for one in fresh.markers]
    np.testing.assert_array_equal(second.segmentation.mask, fresh.segmentation.mask)
    if mask is not None:
        assert mask.flags.writeable, "the reader's own array became read-only"
        runs = count_runs(model)
        predict(prepared, model)  # the network's mask is still known
        assert count_runs(model) == runs


def test_shared_results_cannot_be_changed(model: Model, prepared: PreparedStudy) -> None:
    prediction = predict(prepared, model)
    with pytest.raises(ValueError, match="read-only"):
        prediction.segmentation.mask[:] = False


def test_a_model_with_another_threshold_has_results_of_its_own(model: Model, prepared: PreparedStudy) -> None:
    found = predict(prepared, model).segmentation
    stricter = replace(model, segmenter=replace(model.segmenter, threshold=0.9))
    np.testing.assert_array_equal(predict(prepared, model).segmentation.mask, found.mask)
    mask = predict(prepared, stricter).segmentation.mask
    assert mask.sum() < found.mask.sum()

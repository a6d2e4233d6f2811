"""A model with a second network for T1C and T2: used if FLAIR is missing, and only then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.conftest import PATIENT

from gliomark import load_model, predict, read_study
from gliomark.errors import GliomarkError
from gliomark.messages import Message, render_message
from gliomark.model_loading import Model
from gliomark.models.second_segmentation import add_second_segmentation
from gliomark.models.weights import load_weights, save_weights
from gliomark.pipeline import PreparedStudy, predict_prepared, prepare_study
from gliomark.preprocessing import PreparationConfig, prepare
from gliomark.reporting import render_pdf
from gliomark.reporting.html_report import render_contents_as_html
from gliomark.reporting.report_contents import create_report_contents
from gliomark.study import ClinicalData, MRSequence, Study

T1C, T2, FLAIR, T1 = MRSequence.T1C, MRSequence.T2, MRSequence.FLAIR, MRSequence.T1
PERSON = ClinicalData(PATIENT, 50.0, 0)


@pytest.fixture(scope="module")
def old_model(tiny_weights: Path) -> Model:
    return load_model(tiny_weights)


@pytest.fixture(scope="module")
def model(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The tiny model with a second network: the same one, but with a lower threshold, so that its lesion is larger."""
    first = load_weights(tiny_weights)
    second_card = replace(first.card, sequences=("T1C", "T2"), segmentation_threshold=0.05, stand_ins={})
    path = tmp_path_factory.mktemp("zwei") / "两 网络.safetensors"
    save_weights(path, *add_second_segmentation(first, replace(first, card=second_card), "not measured"))
    return load_model(path)


@pytest.fixture(scope="module")
def study(picture_folder: Path) -> Study:
    """T1C, T2 and FLAIR; the T2 is a copy of the FLAIR."""
    read = read_study(picture_folder)
    return replace(read, series={**read.series, T2: read.series[FLAIR]})


def select(study: Study, *sequences: MRSequence) -> Study:
    return replace(study, series={name: study.series[name] for name in sequences})


@pytest.fixture(scope="module")
def prepared(study: Study, model: Model) -> PreparedStudy:
    return prepare_study(select(study, T1C, T2), model)


@pytest.mark.parametrize(
    ("present", "used"),
    [
        ((T1C, FLAIR), (T1C, FLAIR)),
        ((T1C, T2, FLAIR), (T1C, FLAIR)),
        ((T2, T1C), (T1C, T2)),
        ((T1C,), (T1C, FLAIR)),
        ((T2, FLAIR), (T1C, FLAIR)),
    ],
)
def test_the_sequences_present_choose_the_network(
    study: Study,
    model: Model,
    old_model: Model,
    present: tuple[MRSequence, ...],
    used: tuple[MRSequence, ...],
) -> None:
    part = select(study, *present)
    assert model.choose_sequences(part) == used and old_model.choose_sequences(part) == (T1C, FLAIR)
    expected = model.second_segmenter if T2 in used else model.segmenter
    assert model.choose_segmenter(part.series) is expected
    assert old_model.choose_segmenter(part.series) is old_model.segmenter


def test_flair_is_outlined_as_without_the_second_network(
    study: Study, model: Model, old_model: Model
) -> None:
    for present in ((T1C, FLAIR), (T1C, T2, FLAIR)):
        new, old = (predict(select(study, *present), PERSON, one) for one in (model, old_model))
        np.testing.assert_array_equal(new.segmentation.probability, old.segmentation.probability)
        np.testing.assert_array_equal(new.segmentation.mask, old.segmentation.mask)
        assert new.markers == old.markers and new.warnings == old.warnings
        assert new.all_notes == old.all_notes and set(new.stack.images) == {T1C, FLAIR}


def test_t2_is_outlined_by_the_second_network(prepared: PreparedStudy, model: Model) -> None:
    prediction = predict_prepared(prepared, PERSON, model)
    assert model.second_segmenter is not None
    np.testing.assert_array_equal(
        prediction.segmentation.mask, model.second_segmenter.segment(prepared.stack).mask
    )
    first = predict_prepared(prepared, PERSON, model).segmentation.probability >= 0.5
    assert prediction.segmentation.mask.sum() > first.sum() > 0
    assert prediction.warnings == () and prediction.stand_ins == {}
    assert model.segment(prepared.stack).rule == prediction.segmentation.rule
    document = prediction.to_dict()
    assert document["sequences"] == {"found": ["T1C", "T2"], "used": ["T1C", "T2"], "stand_ins": {}}
    assert document["lesion"]["found"] and document["lesion"]["rule"].endswith("(T1C, T2)")


@pytest.mark.parametrize("sees_focus", [None, True])
def test_no_marker_is_predicted_from_t2(
    prepared: PreparedStudy, model: Model, sees_focus: bool | None
) -> None:
    prediction = predict_prepared(prepared, PERSON, model, has_enhancing_focus=sees_focus)
    assert {marker.marker for marker in prediction.markers} == {"idh", "ki67"}
    for marker in prediction.markers:
        assert marker.probability is marker.threshold is marker.contributions is None
        assert marker.slices == () and "AUC" not in marker.performance
        (reason,) = (one for one in marker.warnings if isinstance(one, Message))
        assert reason.code == "marker-needs-sequence"
        assert "FLAIR" in reason and "FLAIR" in render_message(reason, "zh")
        is_decided = sees_focus is not None and marker.marker == "idh"
        assert marker.level == ("wild type" if is_decided else "undetermined")


def test_the_report_names_the_sequences_of_the_outline(prepared: PreparedStudy, model: Model) -> None:
    prediction = predict_prepared(prepared, PERSON, model)
    document = prediction.to_dict()
    assert any("FLAIR is missing; the lesion was outlined on T1C + T2" in note for note in document["notes"])
    for language, words in (("en", "outlined on T1C + T2"), ("zh", "用于 T1C + T2 的网络")):
        contents = create_report_contents(prediction, document, language)
        assert contents.sequences_text == "T1C + T2" and contents.contact_sheet_sequence == "T2"
        assert words in render_contents_as_html(contents, language)
        assert render_pdf(prediction, language).startswith(b"%PDF")


def test_a_readers_outline_replaces_that_of_the_second_network(prepared: PreparedStudy, model: Model) -> None:
    outline = np.zeros_like(prepared.stack.brain)
    outline[5, 100:120, 100:120] = True
    prediction = predict_prepared(prepared, PERSON, model, reader_mask=outline)
    np.testing.assert_array_equal(prediction.segmentation.mask, outline)
    assert all(marker.probability is None for marker in prediction.markers)


def test_a_study_without_either_pair_is_refused(study: Study, model: Model) -> None:
    with pytest.raises(GliomarkError, match="FLAIR"):
        prepare_study(select(study, T1C), model)


def test_the_model_moves_with_both_networks(study: Study, model: Model) -> None:
    moved = model.to_device("auto")
    assert (moved.second_segmenter is None) == (model.second_segmenter is None)
    stack = prepare(select(study, T1C, T2), (T1C, T2), PreparationConfig(**model.card.preparation))
    np.testing.assert_array_equal(moved.segment(stack).mask, model.segment(stack).mask)

"""A patient of a public collection with T1C and T2, without FLAIR, and with a segmentation among the images."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from gliomark.io import read_study
from gliomark.model_loading import Model, load_model
from gliomark.pipeline import PreparedStudy, predict_prepared, prepare_study
from gliomark.prediction import Prediction
from gliomark.reporting import write_prediction
from gliomark.study import ClinicalData, MRSequence


@pytest.fixture(scope="module")
def demo() -> Model:
    return load_model("demo")


@pytest.fixture(scope="module")
def prepared(shared: Path, demo: Model) -> PreparedStudy:
    study = read_study(shared / "patients/ReMIND-022-dicom", required_sequences=demo.sequences)
    return prepare_study(study, demo)


@pytest.fixture(scope="module")
def remind_prediction(prepared: PreparedStudy, demo: Model) -> Prediction:
    assert prepared.found is not None and prepared.found.files == "Tumor_segmentation.dcm"
    assert prepared.found.mask is not None and prepared.found.mask.shape == prepared.stack.brain.shape
    volume_ml = prepared.found.mask.sum() * prepared.stack.voxel_volume_ml
    assert volume_ml == pytest.approx(0.762, abs=0.05), "the volume in the file"
    return predict_prepared(prepared, ClinicalData(prepared.study.patient_id, 40, 1), demo)


def test_the_outline_on_t2_contains_the_tumour_and_not_the_ventricles(
    prepared: PreparedStudy, remind_prediction: Prediction
) -> None:
    """The tumour is a small focus in a large abnormal region. Ventricles are the dark core of the brain on T1C."""
    assert prepared.found is not None
    tumour, outline = prepared.found.mask, remind_prediction.segmentation.mask
    assert tumour is not None and (outline & tumour).sum() / tumour.sum() > 0.95
    stack = prepared.stack
    inside = np.array([ndimage.distance_transform_edt(one) > 25 for one in stack.brain])
    fluid = inside & (stack.images[MRSequence.T1C] < -1.5) & (stack.images[MRSequence.T2] > 2)
    assert fluid.sum() * stack.voxel_volume_ml > 5 and (outline & fluid).sum() / fluid.sum() < 0.05


def test_t2_keeps_its_name_and_no_number_is_shown(remind_prediction: Prediction, tmp_path: Path) -> None:
    assert remind_prediction.stand_ins == {}, "T2 has a network of its own"
    assert any("outlined on T1C + T2, by the model's network" in note for note in remind_prediction.all_notes)
    written = write_prediction(remind_prediction, tmp_path)
    document = json.loads((written / "prediction.json").read_text("utf-8"))
    assert document["sequences"]["used"] == ["T1C", "T2"]
    (marker,) = document["markers"]
    assert marker["level"] == "undetermined" and marker["slices"] == []
    assert marker["probability"] is marker["threshold"] is marker["probability_range"] is None
    page = unescape(
        re.sub(r"<style>.*?</style>|<[^>]+>", " ", (written / "report.html").read_text("utf-8"), flags=re.S)
    )
    lines = [line for line in page.splitlines() if "FLAIR" in line]
    known = ("missing", "T1C and FLAIR", "Buda")  # nothing that was shown or used is called FLAIR
    assert lines and all(any(word in line for word in known) for line in lines), lines
    assert "Probability of" not in page


def test_the_segmentation_among_the_images_is_named_and_not_used(remind_prediction: Prediction) -> None:
    assert not remind_prediction.segmentation.is_drawn_by_reader
    (note,) = (one for one in remind_prediction.all_notes if "lesion mask was found with" in one)
    assert "Tumor_segmentation.dcm" in note and "not used" in note

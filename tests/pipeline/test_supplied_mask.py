"""A patient of a public collection in whom T2 replaces FLAIR, with a segmentation among the images."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest

from gliomark.io import read_study
from gliomark.pipeline import load_model, predict_prepared, prepare_study
from gliomark.prediction import Prediction
from gliomark.reporting import write_prediction
from gliomark.study import ClinicalData, MRSequence


@pytest.fixture(scope="module")
def remind_prediction(shared: Path) -> Prediction:
    model = load_model("demo")
    study = read_study(shared / "patients/ReMIND-022-dicom", required_sequences=model.sequences)
    prepared = prepare_study(study, model)
    assert prepared.found is not None and prepared.found.files == "Tumor_segmentation.dcm"
    assert prepared.found.mask is not None and prepared.found.mask.shape == prepared.stack.brain.shape
    volume_ml = prepared.found.mask.sum() * prepared.stack.voxel_volume_ml
    assert volume_ml == pytest.approx(0.762, abs=0.05), "the volume in the file"
    return predict_prepared(prepared, ClinicalData(study.patient_id, 40, 1), model)


def test_t2_keeps_its_name_and_no_number_is_shown(remind_prediction: Prediction, tmp_path: Path) -> None:
    assert remind_prediction.stand_ins == {MRSequence.FLAIR: MRSequence.T2}
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
    assert lines and all("T2" in line or "T1C and FLAIR" in line or "Buda" in line for line in lines)
    assert "Probability of" not in page


def test_the_segmentation_among_the_images_is_named_and_not_used(remind_prediction: Prediction) -> None:
    assert not remind_prediction.segmentation.is_drawn_by_reader
    (note,) = (one for one in remind_prediction.all_notes if "lesion mask was found with" in one)
    assert "Tumor_segmentation.dcm" in note and "not used" in note

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
def remind(shared: Path) -> Prediction:
    model = load_model("demo")
    study = read_study(shared / "patients/ReMIND-022-dicom", required_sequences=model.sequences)
    prepared = prepare_study(study, model)
    assert prepared.found is not None and prepared.found.files == "Tumor_segmentation.dcm"
    assert prepared.found.mask is not None and prepared.found.mask.shape == prepared.stack.brain.shape
    millilitres = prepared.found.mask.sum() * prepared.stack.voxel_volume_ml
    assert millilitres == pytest.approx(0.762, abs=0.05), (
        "as in the file, so that it can be offered as an outline"
    )
    return predict_prepared(prepared, ClinicalData(study.patient_id, 40, 1), model)


def test_t2_is_called_t2_and_no_number_is_shown(remind: Prediction, tmp_path: Path) -> None:
    assert remind.stand_ins == {MRSequence.FLAIR: MRSequence.T2}
    written = write_prediction(remind, tmp_path)
    document = json.loads((written / "prediction.json").read_text("utf-8"))
    assert document["sequences"]["used"] == ["T1C", "T2"]
    (marker,) = document["markers"]
    assert marker["level"] == "undetermined" and marker["slices"] == []
    assert marker["probability"] is marker["threshold"] is marker["probability_range"] is None
    page = unescape(
        re.sub(r"<style>.*?</style>|<[^>]+>", " ", (written / "report.html").read_text("utf-8"), flags=re.S)
    )
    about = [line for line in page.splitlines() if "FLAIR" in line]
    assert about and all("T2" in line or "T1C and FLAIR" in line or "Buda" in line for line in about)
    assert "Probability of" not in page


def test_the_segmentation_among_the_images_is_named_and_not_used(remind: Prediction) -> None:
    assert not remind.segmentation.is_drawn_by_reader
    (said,) = (note for note in remind.all_notes if "lesion mask was found with" in note)
    assert "Tumor_segmentation.dcm" in said and "not used" in said

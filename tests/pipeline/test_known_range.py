"""A patient unlike the training patients gets no probability from any door; an unusual one gets a sentence with it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomark import load_model
from gliomark.io import read_study
from gliomark.known_range import KNOWN_RANGE_TENSOR, KnownRange, fit_known_range, measure_patient
from gliomark.known_range.statistics import PatientStatistics
from gliomark.messages import Message, render_message
from gliomark.models.weights import load_weights, save_weights
from gliomark.pipeline import Model, PreparedStudy, predict_prepared, prepare_study
from gliomark.study import ClinicalData, MRSequence

PATIENT = "患者 01"
PERSON = ClinicalData(PATIENT, 50.0, 0)
PAIR = (MRSequence.T1C, MRSequence.FLAIR)


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Model:
    return load_model(tiny_weights)


@pytest.fixture(scope="module")
def prepared(picture_folder: Path, model: Model) -> PreparedStudy:
    return prepare_study(read_study(picture_folder), model)


def fit_range_around(
    statistics: PatientStatistics, images_by: float = 0.0, volume_by: float = 1.0
) -> KnownRange:
    """Fit a known range to 24 patients near this one; images_by: added to the statistics of their images."""
    rng = np.random.default_rng(0)

    def vary(numbers: dict[str, float], by: float = 0.0) -> dict[str, float]:
        return {name: value + by + 0.2 * rng.normal() for name, value in numbers.items()}

    assert statistics.lesion is not None
    lesion = statistics.lesion | {"volume_ml": statistics.lesion["volume_ml"] * volume_by}
    patients = [
        PatientStatistics(vary(statistics.images, images_by), vary(statistics.geometry), vary(lesion), 0.5)
        for _ in range(24)
    ]
    known_range = fit_known_range(patients, PAIR, {})
    assert known_range is not None
    return known_range


@pytest.fixture(scope="module")
def statistics(prepared: PreparedStudy, model: Model) -> PatientStatistics:
    return measure_patient(prepared.stack, model.segment(prepared.stack).mask, PAIR)


def test_a_patient_like_the_training_patients_is_predicted_as_before(prepared, model, statistics) -> None:
    before = predict_prepared(prepared, PERSON, model)
    after = predict_prepared(
        replace(prepared), PERSON, replace(model, known_range=fit_range_around(statistics))
    )
    assert before.known_range.result == "not checked"
    assert after.known_range.result == "in range" and not after.known_range.findings
    assert [one.probability for one in after.markers] == [one.probability for one in before.markers]
    assert after.warnings == before.warnings


def test_an_unusual_patient_is_predicted_with_a_sentence(prepared, model, statistics) -> None:
    unusual = replace(model, known_range=fit_range_around(statistics, volume_by=3.0))
    prediction = predict_prepared(replace(prepared), PERSON, unusual)
    assert prediction.known_range.result == "unusual"
    assert all(one.probability is not None for one in prediction.markers)
    assert any("lesion volume is" in warning for warning in prediction.warnings)
    assert set(prediction.known_range.findings) <= set(prediction.warnings)


@pytest.mark.parametrize("sees_focus", [None, True, False])
def test_a_refused_patient_has_no_probability(prepared, model, statistics, sees_focus) -> None:
    refused = replace(model, known_range=fit_range_around(statistics, images_by=5.0))
    prediction = predict_prepared(replace(prepared), PERSON, refused, has_enhancing_focus=sees_focus)
    assert prediction.known_range.is_refused
    for marker in prediction.markers:
        assert marker.probability is None and marker.probability_range is None and not marker.slices
        if sees_focus is None or marker.marker != "idh":
            assert (marker.level, marker.decided_by) == ("undetermined", "model")
        else:
            assert marker.decided_by == "reader's finding"
        (reason,) = [text for text in marker.warnings if isinstance(text, Message)]
        assert reason.code == "marker-refused"


def test_every_output_refuses(
    run_command, picture_folder, clinical_table, tmp_path, tiny_weights, statistics
) -> None:
    weights, path = load_weights(tiny_weights), tmp_path / "refusing.safetensors"
    known_range = fit_range_around(statistics, images_by=5.0)
    tensors = {**weights.tensors, KNOWN_RANGE_TENSOR: known_range.to_array()}
    save_weights(path, weights.card, tensors)
    out = tmp_path / "out"
    options = ("--clinical", clinical_table, "--out", out, "--model", path, "--language", "zh")
    outcome = run_command("predict", picture_folder, *options)
    assert outcome.status == 0, outcome.stderr
    document = json.loads((out / PATIENT / "prediction.json").read_text("utf-8"))
    assert document["known_range"]["result"] == "refused" and document["known_range"]["score"] >= 1
    assert [marker["probability"] for marker in document["markers"]] == [None, None]
    (finding,) = document["known_range"]["findings"]
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["idh_probability"] == row["ki67_probability"] == "" and finding in row["warnings"]
    html = (out / PATIENT / "report.html").read_text("utf-8")
    record = next(one for one in document["messages"] if one["text"] == finding)
    assert record["code"].startswith("range-")
    from gliomark.messages import from_message_record

    assert render_message(from_message_record(record), "zh") in html

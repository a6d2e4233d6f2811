"""A patient unlike the training patients gets no probability from any door; an unusual one gets a sentence with it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pypdfium2
import pytest
from tests.cli.test_bids_app import write_bids
from tests.pipeline.conftest import CommandResult, Volume, drop_mask, write_dicom

from gliomark import cli, load_model, predict
from gliomark.io import read_study
from gliomark.known_range import KNOWN_RANGE_TENSOR, KnownRange, fit_known_range, measure_patient
from gliomark.known_range.statistics import PatientStatistics
from gliomark.messages import Message, format_percent
from gliomark.model_loading import Model
from gliomark.models.weights import load_weights, save_weights
from gliomark.pipeline import PreparedStudy, predict_prepared, prepare_study
from gliomark.prediction import Prediction
from gliomark.reporting.html_report import render_contents_as_html
from gliomark.reporting.report_input import ReportInput
from gliomark.server.study_store import StudyStore
from gliomark.server.worker import Worker, WorkerJob
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
    assert all(format_percent(one.probability) in render_page(after) for one in after.markers)


def test_an_unusual_patient_is_predicted_with_a_sentence(prepared, model, statistics) -> None:
    unusual = replace(model, known_range=fit_range_around(statistics, volume_by=3.0))
    study = replace(prepared.study, spacing_assumed=False)  # in pictures, volumes are not compared
    prediction = predict_prepared(replace(prepared, study=study), PERSON, unusual)
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


# ---- doors ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refusing_weights(
    tiny_weights: Path, statistics: PatientStatistics, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The weights of the other tests with a range that refuses their patient."""
    weights, path = load_weights(tiny_weights), tmp_path_factory.mktemp("weights") / "refusing.safetensors"
    known_range = fit_range_around(statistics, images_by=5.0)
    save_weights(path, weights.card, {**weights.tensors, KNOWN_RANGE_TENSOR: known_range.to_array()})
    return path


@dataclass(frozen=True)
class Visit:
    """What a door needs: the weights, the patient in several forms, an empty folder, and the command line."""

    weights: Path
    pictures: Path
    images: Mapping[str, Volume]
    prepared: PreparedStudy
    folder: Path
    run_command: Callable[..., CommandResult]

    def read_documents(self, out: Path) -> list[dict[str, Any]]:
        return [json.loads(path.read_text("utf-8")) for path in out.rglob("prediction.json")]


def render_page(prediction: Prediction) -> str:
    return render_contents_as_html(ReportInput(prediction).contents, "en")


def enter_by_python(visit: Visit) -> tuple[list[dict[str, Any]], list[str]]:
    prediction = predict(visit.pictures, age=50, sex=0, model=visit.weights)
    return [prediction.to_dict()], [repr(prediction)]


def enter_by_command(visit: Visit) -> tuple[list[dict[str, Any]], list[str]]:
    """Predict a patient in DICOM with every output."""
    folder = write_dicom(visit.folder / "in", drop_mask(visit.images))
    out = visit.folder / "out"
    options = ("--allow-missing-clinical", "--dicom-out", "--pdf", "--out", out, "--model", visit.weights)
    outcome = visit.run_command("predict", folder, *options)
    assert outcome.status == 0, outcome.stderr
    (report,) = out.rglob("report.pdf")
    pages = pypdfium2.PdfDocument(report)
    printed = "".join(page.get_textpage().get_text_range() for page in pages)
    (html,) = out.rglob("report.html")
    (structured,) = out.rglob("report.dcm")
    texts = [html.read_text("utf-8"), printed, str(pydicom.dcmread(structured)), outcome.stdout]
    with (out / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert not any(value for name, value in row.items() if "probability" in name)
    return visit.read_documents(out), texts


def enter_by_bids(visit: Visit) -> tuple[list[dict[str, Any]], list[str]]:
    raw = write_bids(visit.folder / "raw", {"sub-01": ""}, visit.images)
    out = visit.folder / "derivative"
    options = ("--model", visit.weights, "--quiet", "--allow-missing-clinical")
    outcome = visit.run_command(raw, out, "participant", *options, command=cli.run_bids)
    assert outcome.status == 0, outcome.stderr
    (html,) = out.rglob("report.html")
    return visit.read_documents(out), [html.read_text("utf-8")]


def enter_by_server(visit: Visit) -> tuple[list[dict[str, Any]], list[str]]:
    """Predict in a worker, and read what it stored, from which the client and the page show the result."""
    store = StudyStore(visit.folder)
    store.get_study_folder("a").mkdir(parents=True)
    store.save_prepared("a", visit.prepared)
    job = WorkerJob("1", "predict", "a", "tiny", "", {"age": 50, "sex": 0})
    document = Worker(visit.folder, {}).predict(job, load_model(visit.weights), lambda *_: None)
    stored = store.load_prediction("a", "1")
    return [document, stored.to_dict()], [render_page(stored)]


DOORS = {
    "Python": enter_by_python,
    "gliomark predict": enter_by_command,
    "gliomark-bids": enter_by_bids,
    "server": enter_by_server,
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_gives_a_number(
    door, refusing_weights, model, picture_folder, drawn_images, prepared, tmp_path, run_command
) -> None:
    visit = Visit(refusing_weights, picture_folder, drawn_images, replace(prepared), tmp_path, run_command)
    documents, texts = DOORS[door](visit)
    assert documents
    for document in documents:
        assert document["known_range"]["result"] == "refused"
        (finding,) = document["known_range"]["findings"]
        assert finding in document["warnings"]
        for marker in document["markers"]:
            assert marker["probability"] is marker["raw_probability"] is marker["probability_range"] is None
            assert (marker["level"], marker["slices"], marker["possible_levels"]) == ("undetermined", [], [])
    for one in predict_prepared(prepared, PERSON, model).markers:
        assert not any(format_percent(one.probability) in text for text in texts)


def test_an_explanation_says_why_there_is_none(
    refusing_weights, picture_folder, tmp_path, run_command
) -> None:
    outcome = run_command(
        "explain", picture_folder, "--model", refusing_weights, "--out", tmp_path / "explained"
    )
    assert outcome.status != 0 and "do not look like those of the 24 patients" in outcome.stderr
    assert not (tmp_path / "explained").exists()

"""Every output states "cannot tell", both probabilities, the coverage and the prevalence, in both languages."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pypdfium2
import pytest

from gliomark.cli.results_table import show_results
from gliomark.inference.levels import LevelOptions, decide_level
from gliomark.messages import Language, render_message
from gliomark.models.card import MarkerCard, MarkerNetworkCard
from gliomark.models.patient_calibration import PatientCalibration
from gliomark.prediction import Prediction
from gliomark.reporting import render_pdf, write_prediction, write_predictions_table

Make = Callable[..., Prediction]
SCHEMA = json.loads((files("gliomark.reporting") / "prediction.schema.json").read_text(encoding="utf-8"))
SCORES = tuple(round(0.1 + 0.04 * rank, 2) for rank in range(20))
CALIBRATION = PatientCalibration("platt", (1.0, 0.0), SCORES, SCORES[:18], "TCGA")
WORDS = {
    "en": ("cannot tell", "mutant", "wild type", "before calibration", "share of 40 % mutant"),
    "zh": ("无法判断", "突变", "野生型", "校准前", "40 %"),
}


@pytest.fixture(params=[0.45, 0.95], ids=["cannot tell", "stated"])
def prediction(request: pytest.FixtureRequest, make_prediction: Make) -> Prediction:
    """A patient whose IDH is decided by limits, at a prevalence of 40 %, and whose Ki-67 by a threshold."""
    made = make_prediction()
    idh = replace(made.markers["idh"], threshold=None, negative="wild type", raw_probability=request.param)
    card = MarkerCard(
        "idh_mutant", "IDH", "mutant", "wild type", "", 0.5, None, MarkerNetworkCard(network={}, crop=192),
        patient_calibration=CALIBRATION,
    )  # fmt: skip
    idh = decide_level(idh, card, LevelOptions(0.8, {"idh": 0.4}))
    assert idh.level == ("cannot tell" if request.param == 0.45 else "mutant")
    return replace(made, markers=(idh, made.markers["ki67"]))


def test_the_document_has_both_probabilities_and_the_set(prediction: Prediction, tmp_path: Path) -> None:
    folder = write_prediction(prediction, tmp_path)
    document = json.loads((folder / "prediction.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    idh, ki67 = document["markers"]
    assert idh["probability"] < idh["raw_probability"] in (0.45, 0.95)
    is_stated = idh["level"] == "mutant"
    assert idh["possible_levels"] == (["mutant"] if is_stated else ["mutant", "wild type"])
    assert idh["limits"]["coverage"] == 0.8 and (idh["limits"]["positives"], idh["limits"]["negatives"]) == (
        20,
        18,
    )
    assert (
        idh["limits"]["negative_below"] <= idh["probability"] <= idh["limits"]["positive_above"]
    ) is not is_stated
    assert idh["calibration"]["prevalence"] == 0.4
    assert idh["calibration"]["cohort_prevalence"] == pytest.approx(20 / 38, abs=1e-6)
    assert idh["threshold"] is None and idh["limits_in_words"] and idh["calibration_in_words"]
    assert ki67["limits"] is ki67["calibration"] is None and ki67["possible_levels"] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_pages_say_it_in_words(prediction: Prediction, tmp_path: Path, language: Language) -> None:
    page = (write_prediction(prediction, tmp_path, language=language) / "report.html").read_text("utf-8")
    pdf = pypdfium2.PdfDocument(render_pdf(prediction, language))
    printed = "".join(part.get_textpage().get_text_range() for part in pdf)
    idh = prediction.markers["idh"]
    for text in (page, printed):
        flat = "".join(text.split())
        for word in WORDS[language]:
            assert "".join(word.split()) in flat
        for sentence in (idh.limits_in_words, idh.calibration_in_words, *idh.warnings):
            assert "".join(render_message(sentence, language).split()) in flat
        assert f"{100 * idh.probability:.0f}%" in flat
    # the class "unsure" greys the level
    assert ("level unsure" in page) is (idh.level == "cannot tell")


def test_the_table_has_a_column_for_each(prediction: Prediction, tmp_path: Path) -> None:
    write_predictions_table([prediction], tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(encoding="utf-8-sig") as file:
        (row,) = csv.DictReader(file)
    idh = prediction.markers["idh"]
    assert row["idh_level"] == idh.level and row["idh_possible_levels"] == " or ".join(idh.possible_levels)
    assert float(row["idh_raw_probability"]) == idh.raw_probability
    assert float(row["idh_probability"]) == pytest.approx(idh.probability, abs=1e-6)
    assert (row["idh_coverage"], row["idh_prevalence"]) == ("0.8", "0.4")
    assert row["ki67_coverage"] == row["ki67_prevalence"] == row["ki67_possible_levels"] == ""


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_terminal_shows_limits_instead_of_a_threshold(
    prediction: Prediction,
    language: Language,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_results([prediction.to_dict()], language)
    table = capsys.readouterr().out.split("KI67")[0]
    (row,) = [line for line in table.splitlines() if " IDH " in line and "P1" in line]
    assert f"{100 * prediction.markers['idh'].probability:.0f} %" in row
    assert {"en": "(cannot tell: ", "zh": "(无法判断："}[language] in table
    assert {"en": "(for 40 % positive patients)", "zh": "(阳性比例按 40 % 计)"}[language] in table
    assert {"en": "threshold", "zh": "阈值"}[language] not in table

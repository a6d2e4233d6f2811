"""Predictions of markers: withheld, borderline, and decided by model or reader."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.conftest import PATIENT

from gliomark import load_model, read_study
from gliomark.errors import GliomarkError
from gliomark.messages import Message, render_message
from gliomark.models.weights import MarkerValidation
from gliomark.pipeline import Model, PreparedStudy, predict, predict_prepared, prepare_study
from gliomark.prediction import MarkerPrediction
from gliomark.reader_finding_accuracy import READER_FINDING_ACCURACY
from gliomark.reporting import render_pdf
from gliomark.reporting.html_report import render_contents_as_html
from gliomark.reporting.report_contents import create_report_contents
from gliomark.study import ClinicalData, MRSequence

PERSON = ClinicalData(PATIENT, 50.0, 0)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Model:
    return load_model(tiny_weights)


@pytest.fixture(scope="module")
def prepared(picture_folder: Path, model: Model) -> PreparedStudy:
    return prepare_study(read_study(picture_folder), model)


def with_card(model: Model, **changes: object) -> Model:
    """Return the model with changes to its IDH card."""
    idh = replace(model.card.markers["idh"], **changes)  # type: ignore[arg-type]
    return replace(model, card=replace(model.card, markers={**model.card.markers, "idh": idh}))


def idh_of(prepared: PreparedStudy, model: Model, **asked: object) -> MarkerPrediction:
    prediction = predict_prepared(prepared, PERSON, model, **asked)  # type: ignore[arg-type]
    return next(marker for marker in prediction.markers if marker.marker == "idh")


def codes(texts: tuple[str, ...]) -> list[str]:
    return [text.code for text in texts if isinstance(text, Message)]


# ---- close to the threshold -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance", "level", "is_borderline"),
    [
        (0.049, "wild type", True),  # distance of the threshold above the probability
        (0.051, "wild type", False),
        (0.2, "wild type", False),
        (0.0, "mutant", True),
        (-0.049, "mutant", True),
        (-0.051, "mutant", False),
    ],
)
def test_a_probability_close_to_its_threshold_is_borderline(
    prepared, model, distance: float, level: str, is_borderline: bool
) -> None:
    probability = idh_of(prepared, model).probability
    assert probability is not None
    answer = idh_of(prepared, with_card(model, threshold=probability + distance))
    assert (answer.level, answer.borderline) == (level, is_borderline)
    assert ("borderline" in codes(answer.warnings)) == is_borderline


@pytest.mark.parametrize(
    ("language", "said"), [("en", "borderline, leaning mutant"), ("zh", "临界，倾向突变型")]
)
def test_borderline_is_said_in_every_output(prepared, model, language, said) -> None:
    probability = idh_of(prepared, model).probability
    assert probability is not None
    prediction = predict_prepared(prepared, PERSON, with_card(model, threshold=probability - 0.01))
    document = json.loads(json.dumps(prediction.to_dict()))
    assert document["markers"][0]["level"] == "mutant" and document["markers"][0]["borderline"] is True
    shown = create_report_contents(prediction, document, language)
    assert said in render_contents_as_html(shown, language) and shown.marker_cards[0].level == said


def test_a_level_that_50_percent_would_not_name_is_explained(prepared, model) -> None:
    """If most validation patients were mutant, a probability above 0.5 can mean wild type."""
    probability = idh_of(prepared, model).probability
    assert probability is not None and 0.5 < probability < 0.85
    validation = MarkerValidation(0.84, 0.71, 0.95, 86, 66, "TCGA-LGG")
    answer = idh_of(prepared, with_card(model, threshold=probability + 0.1, validation=validation))
    assert answer.level == "wild type" and not answer.borderline
    said = answer.threshold_origin
    assert "66 of 86 patients (77 %) were mutant" in said and "50 %" in said
    assert "86 例患者中 66 例（77 %）为突变型" in render_message(said, "zh")


# ---- the reader's finding ---------------------------------------------------------------------------


@pytest.mark.parametrize("sees_focus", [True, False])
def test_beside_the_readers_finding_stands_its_own_accuracy(prepared, model, sees_focus: bool) -> None:
    answer = idh_of(prepared, model, has_enhancing_focus=sees_focus)
    assert answer.decided_by == "reader's finding"
    assert answer.level == ("wild type" if sees_focus else "mutant")
    assert (
        "55 of 86" in answer.performance and "0.64" in answer.performance and "AUC" not in answer.performance
    )
    assert ("10 of 31" if sees_focus else "45 of 55") in answer.performance


@pytest.mark.parametrize(
    ("sees_focus", "distance", "is_contradicted"),
    [
        (True, -0.2, True),  # the model clearly predicts mutant
        (True, -0.03, False),  # borderline
        (True, 0.2, False),  # the model agrees
        (False, 0.2, True),
        (False, 0.03, False),
        (False, -0.2, False),
    ],
)
def test_a_confident_model_of_the_other_opinion_is_heard(
    prepared, model, sees_focus, distance, is_contradicted
) -> None:
    probability = idh_of(prepared, model).probability
    assert probability is not None
    asked = with_card(model, threshold=probability + distance)
    answer = idh_of(prepared, asked, has_enhancing_focus=sees_focus)
    assert ("finding-contradicted" in codes(answer.warnings)) == is_contradicted
    assert not answer.borderline and answer.probability == probability


def test_the_findings_figures_are_the_measured_ones() -> None:
    with (ROOT / "results" / "reader_finding.csv").open(newline="") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    found = READER_FINDING_ACCURACY
    counts = {
        "accuracy": (found.correct, found.patients),
        "wild type where a focus": (found.wild_type_with_focus, found.with_focus),
        "mutant where no focus": (found.mutant_without_focus, found.without_focus),
    }
    assert {name: (int(rows[name]["count"]), int(rows[name]["of"])) for name in counts} == counts
    assert (found.lower, found.upper) == (
        float(rows["accuracy"]["low_95"]),
        float(rows["accuracy"]["high_95"]),
    )
    assert (
        found.with_focus + found.without_focus == found.patients
        and found.wild_type_with_focus + found.mutant_without_focus == found.correct
    )


@pytest.mark.parametrize("sees_focus", [True, False, None])
def test_without_a_lesion_nothing_is_answered_whatever_the_reader_finds(prepared, model, sees_focus) -> None:
    nothing = np.zeros_like(prepared.stack.brain)
    for outline in (None, nothing):
        blind = replace(model, segmenter=replace(model.segmenter, threshold=1.1))
        prediction = predict_prepared(
            prepared, PERSON, blind, has_enhancing_focus=sees_focus, reader_mask=outline
        )
        assert codes(prediction.warnings) == ["no-lesion" if outline is None else "no-outline"]
        for marker in prediction.markers:
            assert (marker.level, marker.decided_by) == ("undetermined", "model")
            assert marker.probability is None and marker.threshold is None and marker.slices == ()
        told = codes(prediction.markers[0].warnings)
        assert told == ([] if sees_focus is None else ["finding-without-lesion"])


@pytest.mark.parametrize(
    ("examined", "code", "said"),
    [(None, "no-lesion-in-part-shown", ""), (1.0, "no-lesion", ""), (0.4, "no-lesion-in-part", "40 %")],
)
def test_no_lesion_says_how_much_was_examined(prepared, model, examined, code, said) -> None:
    blind = replace(model, segmenter=replace(model.segmenter, threshold=1.1))
    partly = replace(prepared, stack=replace(prepared.stack, examined=examined))
    (warning,) = predict_prepared(partly, PERSON, blind).warnings
    assert isinstance(warning, Message) and warning.code == code
    assert said in warning and said in render_message(warning, "zh")


# ---- substituted sequence ---------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "is_warned"), [(0.1, False), (0.49, False), (0.51, True), (1.0, True)])
def test_a_lesion_over_half_of_the_brain_is_reported_as_implausible(
    prepared: PreparedStudy, model: Model, share: float, is_warned: bool
) -> None:
    voxels = np.flatnonzero(prepared.stack.brain)
    mask = np.zeros(prepared.stack.brain.shape, bool)
    mask.ravel()[voxels[: round(share * len(voxels))]] = True
    warnings = predict_prepared(prepared, PERSON, model, reader_mask=mask).warnings
    assert ("lesion-too-large" in codes(warnings)) == is_warned
    if is_warned:
        (warning,) = (one for one in warnings if getattr(one, "code", "") == "lesion-too-large")
        assert f"{100 * share:.0f} %" in warning and "轮廓" in render_message(warning, "zh")


@pytest.fixture(scope="module")
def stood_in(picture_folder: Path, model: Model) -> PreparedStudy:
    """The patient with FLAIR renamed to T2."""
    study = read_study(picture_folder)
    series = {MRSequence.T1C: study.series[MRSequence.T1C], MRSequence.T2: study.series[MRSequence.FLAIR]}
    return prepare_study(replace(study, series=series), model)


def test_a_stand_in_keeps_its_name(stood_in, prepared, model) -> None:
    assert [str(name) for name in stood_in.stack.images] == ["T1C", "T2"]
    assert set(stood_in.stack.to_stack) == {"T1C", "T2"}
    prediction, plain = (predict_prepared(one, PERSON, model) for one in (stood_in, prepared))
    np.testing.assert_array_equal(prediction.segmentation.mask, plain.segmentation.mask)
    document = prediction.to_dict()
    assert document["sequences"] == {
        "found": ["T1C", "T2"],
        "used": ["T1C", "T2"],
        "stand_ins": {"FLAIR": "T2"},
    }
    told = [*document["notes"], *(text for one in document["markers"] for text in one["warnings"])]
    assert not any(text.startswith("FLAIR") for text in told)
    for language in ("en", "zh"):
        shown = create_report_contents(prediction, document, language)
        names = {
            name for picture in (*shown.large_images, *shown.contact_sheet) for name, _ in picture.panels
        }
        assert (
            names == {"T1C", "T2"}
            and shown.contact_sheet_sequence == "T2"
            and shown.sequences_text.startswith("T1C + T2")
        )
        assert render_pdf(prediction, language).startswith(b"%PDF")


@pytest.mark.parametrize("sees_focus", [None, True])
def test_on_a_stand_in_no_number_is_shown(stood_in, model, sees_focus) -> None:
    for marker in predict_prepared(stood_in, PERSON, model, has_enhancing_focus=sees_focus).markers:
        assert (
            marker.probability is marker.threshold is marker.contributions is marker.probability_range is None
        )
        assert marker.slices == () and "marker-on-stand-in" in codes(marker.warnings)
        decided = sees_focus is not None and marker.marker == "idh"
        assert marker.level == ("wild type" if decided else "undetermined")
        assert "AUC" not in marker.performance


# ---- arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"has_enhancing_focus": "yes"}, "'yes'"),
        ({"has_enhancing_focus": "no"}, "'no'"),
        ({"has_enhancing_focus": 1}, "1 is not a valid value for the enhancing focus"),
        ({"has_enhancing_focus": 0}, "0 is not a valid value for the enhancing focus"),
        ({"has_enhancing_focus": ""}, "''"),
        ({"fusion": "median"}, "'median'"),
        ({"fusion": "Near"}, "'Near'"),
        ({"fusion": None}, "None"),
    ],
)
def test_what_is_no_value_of_an_argument_raises(prepared, model, asked, said) -> None:
    with pytest.raises(GliomarkError, match=said):
        predict(prepared.study, PERSON, model, **asked)
    with pytest.raises(GliomarkError, match=said):
        predict_prepared(prepared, PERSON, model, **asked)


@pytest.mark.parametrize("other", ["患者 02", "", "患者", "患者 0l"])
def test_another_patients_row_raises(prepared, model, other: str) -> None:
    with pytest.raises(GliomarkError, match="belongs to patient"):
        predict(prepared.study, ClinicalData(other, 50.0, 0), model)


def test_the_same_id_in_another_form_is_the_same_patient(prepared, model) -> None:
    assert predict_prepared(prepared, ClinicalData(f" {PATIENT} ", 50.0, 0), model).patient_id == PATIENT


@pytest.mark.parametrize("age", [-1, 120.5, 450, float("nan"), float("inf"), "50", True])
def test_an_impossible_age_raises(prepared, model, age) -> None:
    for ask in (predict, predict_prepared):
        given = prepared.study if ask is predict else prepared
        with pytest.raises(GliomarkError, match="age"):
            ask(given, ClinicalData(PATIENT, age, 0), model)


@pytest.mark.parametrize("sex", [2, -1, 0.5, "男", "M", True])
def test_an_impossible_sex_raises(prepared, model, sex) -> None:
    with pytest.raises(GliomarkError, match="sex"):
        predict_prepared(prepared, ClinicalData(PATIENT, 50.0, sex), model)


@pytest.mark.parametrize(
    ("age", "sex"), [(0, 0), (120, 1), (45.5, None), (None, 1), (np.float64(7), np.int64(1))]
)
def test_a_possible_person_is_taken(prepared, model, age, sex) -> None:
    assert predict_prepared(prepared, ClinicalData(PATIENT, age, sex), model).clinical.age == age

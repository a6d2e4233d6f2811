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
from gliomark.errors import ConfigurationError, GliomarkError, WeightsError
from gliomark.inference.levels import LevelOptions
from gliomark.messages import Message, render_message
from gliomark.model_loading import Model
from gliomark.models.patient_calibration import PatientCalibration
from gliomark.models.weights import MarkerValidation
from gliomark.pipeline import PreparedStudy, check_prepared_for, predict, predict_prepared, prepare_study
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


def change_card(model: Model, **changes: object) -> Model:
    """Return the model with changes to its IDH card."""
    idh = replace(model.card.markers["idh"], **changes)  # type: ignore[arg-type]
    card = replace(model.card, markers={**model.card.markers, "idh": idh})
    return replace(model, weights=replace(model.weights, card=card))


def predict_idh(prepared: PreparedStudy, model: Model, **options: object) -> MarkerPrediction:
    prediction = predict_prepared(prepared, PERSON, model, **options)  # type: ignore[arg-type]
    return next(one for one in prediction.markers if one.marker == "idh")


def list_codes(texts: tuple[str, ...]) -> list[str]:
    return [text.code for text in texts if isinstance(text, Message)]


# ---- prepared for a model ---------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"training_cohort": "another"}, {"segmentation_threshold": 0.4}])
def test_other_weights_with_the_same_preparation_use_a_prepared_study(prepared, model, changes) -> None:
    other = replace(model, weights=replace(model.weights, card=replace(model.card, **changes)))
    assert predict_idh(prepared, other).raw_probability is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"preparation": {"k": 19}},
        {"preparation": {"step_mm": 5.0}},
        {"preparation": {"size": 224, "pixel_mm": 1.1}},
        {"sequences": ("FLAIR", "T1C")},  # another reference: another grid
        {"sequences": ("T1C", "T2"), "stand_ins": {}},
    ],
)
def test_a_study_prepared_for_another_model_is_refused(prepared, model, changes) -> None:
    other = replace(model, weights=replace(model.weights, card=replace(model.card, **changes)))
    with pytest.raises(WeightsError, match=r"prepared \(T1C \+ FLAIR\) for a model with other"):
        predict_prepared(prepared, PERSON, other)


def test_a_substitute_is_only_used_where_the_model_permits_it(prepared, model) -> None:
    t1c, flair = prepared.stack.images.values()
    stack = replace(prepared.stack, images={MRSequence.T1C: t1c, MRSequence.T2: flair})
    with_substitute = replace(prepared, stack=stack, stand_ins={MRSequence.FLAIR: MRSequence.T2})
    check_prepared_for(with_substitute, model)
    card = replace(model.card, stand_ins={})
    forbidden = replace(model, weights=replace(model.weights, card=card))
    with pytest.raises(WeightsError):
        check_prepared_for(with_substitute, forbidden)


# ---- calibrated for the patient ---------------------------------------------------------------------


def test_a_calibrated_model_states_both_probabilities_and_cannot_tell(prepared, model) -> None:
    plain = predict_idh(prepared, model)
    raw = plain.probability
    assert raw is not None and plain.raw_probability == raw and plain.limits is None
    scores = tuple(np.linspace(0.01, 0.99, 30).round(6).tolist())
    calibration = PatientCalibration("shift", (1.0,), scores, scores, "cohort")
    calibrated = change_card(model, patient_calibration=calibration)
    marker = predict_idh(prepared, calibrated)
    assert marker.raw_probability == raw and marker.slices == plain.slices
    odds = raw / (1 - raw) * np.e
    assert marker.probability == pytest.approx(odds / (1 + odds))
    assert marker.limits is not None and marker.limits.positive_above > 0.85
    half = predict_idh(prepared, calibrated, levels=LevelOptions(0.5, {"idh": 0.5}))
    assert half.probability == pytest.approx(marker.probability) and half.limits != marker.limits
    rare = predict_idh(prepared, calibrated, levels=LevelOptions(prevalence={"idh": 0.01}))
    assert rare.probability == pytest.approx(odds / 99 / (1 + odds / 99)) and rare.level != "mutant"
    decided = predict_idh(prepared, calibrated, has_enhancing_focus=False)
    assert decided.level == "mutant" and decided.probability == marker.probability
    assert "cannot-tell" not in list_codes(decided.warnings)
    assert decided.possible_levels == marker.possible_levels
    with pytest.raises(ConfigurationError, match="ki67 cannot be corrected"):
        predict_idh(prepared, calibrated, levels=LevelOptions(prevalence={"ki67": 0.1}))


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
    probability = predict_idh(prepared, model).probability
    assert probability is not None
    marker = predict_idh(prepared, change_card(model, threshold=probability + distance))
    assert (marker.level, marker.borderline) == (level, is_borderline)
    assert ("borderline" in list_codes(marker.warnings)) == is_borderline


@pytest.mark.parametrize(
    ("language", "text"), [("en", "borderline, leaning mutant"), ("zh", "临界，倾向突变型")]
)
def test_every_output_states_that_a_level_is_borderline(prepared, model, language, text) -> None:
    probability = predict_idh(prepared, model).probability
    assert probability is not None
    prediction = predict_prepared(prepared, PERSON, change_card(model, threshold=probability - 0.01))
    document = json.loads(json.dumps(prediction.to_dict()))
    assert document["markers"][0]["level"] == "mutant" and document["markers"][0]["borderline"] is True
    shown = create_report_contents(prediction, document, language)
    assert text in render_contents_as_html(shown, language) and shown.marker_cards[0].level == text


def test_a_threshold_far_from_50_percent_is_explained(prepared, model) -> None:
    """If most validation patients were mutant, a probability above 0.5 can mean wild type."""
    probability = predict_idh(prepared, model).probability
    assert probability is not None and 0.5 < probability < 0.85
    validation = MarkerValidation(0.84, 0.71, 0.95, 86, 66, "TCGA-LGG")
    marker = predict_idh(prepared, change_card(model, threshold=probability + 0.1, validation=validation))
    assert marker.level == "wild type" and not marker.borderline
    explanation = marker.threshold_origin
    assert "66 of 86 patients (77 %) were mutant" in explanation and "50 %" in explanation
    assert "86 例患者中 66 例（77 %）为突变型" in render_message(explanation, "zh")


# ---- the reader's finding ---------------------------------------------------------------------------


@pytest.mark.parametrize("sees_focus", [True, False])
def test_the_accuracy_of_the_readers_finding_is_shown(prepared, model, sees_focus: bool) -> None:
    marker = predict_idh(prepared, model, has_enhancing_focus=sees_focus)
    assert marker.decided_by == "reader's finding"
    assert marker.level == ("wild type" if sees_focus else "mutant")
    assert (
        "55 of 86" in marker.performance and "0.64" in marker.performance and "AUC" not in marker.performance
    )
    assert ("10 of 31" if sees_focus else "45 of 55") in marker.performance


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
def test_a_confident_model_that_contradicts_the_finding_gives_a_warning(
    prepared, model, sees_focus, distance, is_contradicted
) -> None:
    probability = predict_idh(prepared, model).probability
    assert probability is not None
    changed_model = change_card(model, threshold=probability + distance)
    marker = predict_idh(prepared, changed_model, has_enhancing_focus=sees_focus)
    assert ("finding-contradicted" in list_codes(marker.warnings)) == is_contradicted
    assert not marker.borderline and marker.probability == probability


def test_the_accuracy_of_the_finding_is_that_of_the_results() -> None:
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
def test_without_a_lesion_no_marker_is_predicted(prepared, model, sees_focus) -> None:
    empty_mask = np.zeros_like(prepared.stack.brain)
    for outline in (None, empty_mask):
        model_without_lesions = replace(model, segmenter=replace(model.segmenter, threshold=1.1))
        prediction = predict_prepared(
            prepared, PERSON, model_without_lesions, has_enhancing_focus=sees_focus, reader_mask=outline
        )
        assert list_codes(prediction.warnings) == ["no-lesion" if outline is None else "no-outline"]
        for marker in prediction.markers:
            assert (marker.level, marker.decided_by) == ("undetermined", "model")
            assert marker.probability is None and marker.threshold is None and marker.slices == ()
        marker_codes = list_codes(prediction.markers[0].warnings)
        assert marker_codes == ([] if sees_focus is None else ["finding-without-lesion"])


@pytest.mark.parametrize(
    ("examined", "code", "text"),
    [(None, "no-lesion-in-part-shown", ""), (1.0, "no-lesion", ""), (0.4, "no-lesion-in-part", "40 %")],
)
def test_the_warning_without_a_lesion_states_the_examined_part(prepared, model, examined, code, text) -> None:
    model_without_lesions = replace(model, segmenter=replace(model.segmenter, threshold=1.1))
    partly_examined = replace(prepared, stack=replace(prepared.stack, examined=examined))
    (warning,) = predict_prepared(partly_examined, PERSON, model_without_lesions).warnings
    assert isinstance(warning, Message) and warning.code == code
    assert text in warning and text in render_message(warning, "zh")


# ---- substituted sequence ---------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "is_warned"), [(0.1, False), (0.49, False), (0.51, True), (1.0, True)])
def test_a_lesion_over_half_of_the_brain_is_reported_as_implausible(
    prepared: PreparedStudy, model: Model, share: float, is_warned: bool
) -> None:
    voxels = np.flatnonzero(prepared.stack.brain)
    mask = np.zeros(prepared.stack.brain.shape, bool)
    mask.ravel()[voxels[: round(share * len(voxels))]] = True
    warnings = predict_prepared(prepared, PERSON, model, reader_mask=mask).warnings
    assert ("lesion-too-large" in list_codes(warnings)) == is_warned
    if is_warned:
        (warning,) = (one for one in warnings if getattr(one, "code", "") == "lesion-too-large")
        assert f"{100 * share:.0f} %" in warning and "勾画" in render_message(warning, "zh")


@pytest.mark.parametrize(("outside", "is_warned"), [(0.0, False), (0.4, False), (0.6, True), (1.0, True)])
def test_an_outline_outside_the_brain_is_reported(
    prepared: PreparedStudy, model: Model, outside: float, is_warned: bool
) -> None:
    mask = np.zeros(prepared.stack.brain.shape, bool)
    for share, voxels in ((1 - outside, prepared.stack.brain), (outside, ~prepared.stack.brain)):
        mask.ravel()[np.flatnonzero(voxels)[: round(1000 * share)]] = True
    warnings = predict_prepared(prepared, PERSON, model, reader_mask=mask).warnings
    assert ("outline-outside-brain" in list_codes(warnings)) == is_warned
    assert "lesion-too-large" not in list_codes(warnings)


def test_the_whole_image_covers_no_more_than_the_whole_brain(prepared: PreparedStudy, model: Model) -> None:
    mask = np.ones(prepared.stack.brain.shape, bool)
    warnings = predict_prepared(prepared, PERSON, model, reader_mask=mask).warnings
    assert any("covers 100 % of the examined brain" in warning for warning in warnings)


@pytest.mark.parametrize(("finding", "is_mentioned"), [(None, False), (True, True), (False, True)])
def test_a_finding_that_the_model_cannot_use_is_mentioned(
    prepared: PreparedStudy, model: Model, finding: bool | None, is_mentioned: bool
) -> None:
    without_idh = replace(model, classifiers={"ki67": model.classifiers["ki67"]})
    prediction = predict_prepared(prepared, PERSON, without_idh, has_enhancing_focus=finding)
    assert ("finding-without-idh" in list_codes(prediction.warnings)) == is_mentioned


@pytest.fixture(scope="module")
def prepared_with_t2(picture_folder: Path, model: Model) -> PreparedStudy:
    """The patient with FLAIR renamed to T2."""
    study = read_study(picture_folder)
    series = {MRSequence.T1C: study.series[MRSequence.T1C], MRSequence.T2: study.series[MRSequence.FLAIR]}
    return prepare_study(replace(study, series=series), model)


def test_a_substituted_sequence_keeps_its_name(prepared_with_t2, prepared, model) -> None:
    assert [str(name) for name in prepared_with_t2.stack.images] == ["T1C", "T2"]
    assert set(prepared_with_t2.stack.to_stack) == {"T1C", "T2"}
    prediction, plain = (predict_prepared(one, PERSON, model) for one in (prepared_with_t2, prepared))
    np.testing.assert_array_equal(prediction.segmentation.mask, plain.segmentation.mask)
    document = prediction.to_dict()
    assert document["sequences"] == {
        "found": ["T1C", "T2"],
        "used": ["T1C", "T2"],
        "stand_ins": {"FLAIR": "T2"},
    }
    texts = [*document["notes"], *(text for one in document["markers"] for text in one["warnings"])]
    assert not any(text.startswith("FLAIR") for text in texts)
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
def test_no_number_is_shown_for_a_substituted_sequence(prepared_with_t2, model, sees_focus) -> None:
    for marker in predict_prepared(prepared_with_t2, PERSON, model, has_enhancing_focus=sees_focus).markers:
        assert (
            marker.probability is marker.threshold is marker.contributions is marker.probability_range is None
        )
        assert marker.slices == () and "marker-on-stand-in" in list_codes(marker.warnings)
        decided = sees_focus is not None and marker.marker == "idh"
        assert marker.level == ("wild type" if decided else "undetermined")
        assert "AUC" not in marker.performance


# ---- arguments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error_text"),
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
def test_an_invalid_argument_is_refused(prepared, model, options, error_text) -> None:
    with pytest.raises(GliomarkError, match=error_text):
        predict(prepared.study, PERSON, model, **options)
    with pytest.raises(GliomarkError, match=error_text):
        predict_prepared(prepared, PERSON, model, **options)


@pytest.mark.parametrize("other", ["患者 02", "", "患者", "患者 0l"])
def test_the_row_of_another_patient_is_refused(prepared, model, other: str) -> None:
    with pytest.raises(GliomarkError, match="belongs to patient"):
        predict(prepared.study, ClinicalData(other, 50.0, 0), model)


def test_the_same_id_in_another_form_is_the_same_patient(prepared, model) -> None:
    assert predict_prepared(prepared, ClinicalData(f" {PATIENT} ", 50.0, 0), model).patient_id == PATIENT


@pytest.mark.parametrize("age", [-1, 120.5, 450, float("nan"), float("inf"), "50", True])
def test_an_impossible_age_is_refused(prepared, model, age) -> None:
    for function in (predict, predict_prepared):
        study = prepared.study if function is predict else prepared
        with pytest.raises(GliomarkError, match="age"):
            function(study, ClinicalData(PATIENT, age, 0), model)


@pytest.mark.parametrize("sex", [2, -1, 0.5, "男", "M", True])
def test_an_impossible_sex_is_refused(prepared, model, sex) -> None:
    with pytest.raises(GliomarkError, match="sex"):
        predict_prepared(prepared, ClinicalData(PATIENT, 50.0, sex), model)


@pytest.mark.parametrize(
    ("age", "sex"), [(0, 0), (120, 1), (45.5, None), (None, 1), (np.float64(7), np.int64(1))]
)
def test_possible_ages_and_sexes_are_accepted(prepared, model, age, sex) -> None:
    assert predict_prepared(prepared, ClinicalData(PATIENT, age, sex), model).clinical.age == age

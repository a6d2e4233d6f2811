"""Levels from calibrated probabilities: a level or "cannot tell", said in words, and never against the probability."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gliomark.errors import ConfigurationError
from gliomark.inference.levels import (
    ANY_MARKER,
    LevelOptions,
    check_level_options,
    decide_level,
    parse_prevalence,
)
from gliomark.messages import LANGUAGES, render_message
from gliomark.models.card import MarkerCard, MarkerNetworkCard, MarkerValidation
from gliomark.models.patient_calibration import PatientCalibration
from gliomark.prediction import LevelLimits, MarkerPrediction

# 19 patients of either class: at a coverage of 0.9, one may be excluded on its side: ranks 2 and 18
CALIBRATION = PatientCalibration(
    "temperature",
    (2.0,),
    tuple(round(0.20 + 0.04 * rank, 2) for rank in range(19)),
    tuple(round(0.08 + 0.04 * rank, 2) for rank in range(19)),
    "队列 A",
)
CARD = MarkerCard(
    "idh_mutant",
    "IDH",
    "mutant",
    "wild type",
    "",
    0.5,
    None,
    MarkerNetworkCard(network={}, crop=192),
    validation=MarkerValidation(0.8, 0.7, 0.9, 38, 19, "队列 A"),
    patient_calibration=CALIBRATION,
)


def decide(raw: float, options: LevelOptions = LevelOptions(), card: MarkerCard = CARD) -> MarkerPrediction:
    empty = MarkerPrediction(
        "idh", "IDH", None, "undetermined", "", "near", None, "model", positive="mutant", negative="wild type"
    )
    return decide_level(replace(empty, raw_probability=raw), card, options)


# the calibration doubles the log-odds: 0.7 becomes 0.845, 0.3 becomes 0.155
@pytest.mark.parametrize(
    ("raw", "probability", "level", "possible"),
    [
        (0.7, 0.845, "mutant", ("mutant",)),
        (0.3, 0.155, "wild type", ("wild type",)),
        (0.5, 0.5, "cannot tell", ("mutant", "wild type")),
        (0.6, 0.692, "cannot tell", ("mutant", "wild type")),
        (0.4, 0.308, "cannot tell", ("mutant", "wild type")),
    ],
)
def test_a_level_is_stated_outside_the_limits_only(
    raw: float, probability: float, level: str, possible: tuple[str, ...]
) -> None:
    found = decide(raw)
    assert found.probability == pytest.approx(probability, abs=5e-4) and found.raw_probability == raw
    assert (found.level, found.possible_levels) == (level, possible)
    assert found.limits == LevelLimits(pytest.approx(0.24), pytest.approx(0.76), 0.9, 19, 19)
    assert found.threshold is None and found.threshold_origin == "" and not found.borderline
    assert [w.code for w in found.warnings] == (["cannot-tell"] if level == "cannot tell" else [])  # type: ignore[attr-defined]
    assert found.calibration is not None
    assert (found.calibration.prevalence, found.calibration.cohort_prevalence) == (0.5, 0.5)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (LevelOptions(), ["76 %", "24 %", "10 %", "19", "38", "50 %", "60 %", "队列 A"]),
        (LevelOptions(0.8), ["20 %", "38"]),
        (LevelOptions(prevalence={"idh": 0.2}), ["20 %", "50 %", "60 %"]),
    ],
)
def test_the_decision_is_stated_in_words(language: str, options: LevelOptions, numbers: list[str]) -> None:
    found = decide(0.6, options)
    texts = (found.limits_in_words, found.calibration_in_words, *found.warnings)
    text = " ".join(render_message(one, language) for one in texts)  # type: ignore[arg-type]
    for number in numbers:
        assert number in text
    words = {"en": ("mutant", "wild type", "cannot tell"), "zh": ("突变", "野生型", "无法判断")}[language]
    assert all(word in text for word in words)


def test_another_prevalence_changes_the_probability_but_never_reverses_a_level() -> None:
    home = decide(0.7)
    rare = decide(0.7, LevelOptions(prevalence={"idh": 0.1}))
    # odds of 0.845 at a share of 0.5, times 0.1 / 0.9
    assert rare.probability == pytest.approx(0.377, abs=1e-3) and home.level == "mutant"
    assert rare.level == "cannot tell", "less probable than not"
    assert rare.calibration is not None and rare.calibration.prevalence == 0.1
    frequent = decide(0.3, LevelOptions(prevalence={ANY_MARKER: 0.9}))
    assert frequent.probability == pytest.approx(0.623, abs=1e-3) and frequent.level == "cannot tell"
    assert decide(0.7, LevelOptions(prevalence={"ki67": 0.1})) == home, "of another marker"


@pytest.mark.parametrize(
    ("positives", "negatives", "code"),
    [
        (19, 19, "limits"),
        (8, 19, "limits-positive-only"),
        (19, 8, "limits-negative-only"),
        (3, 3, "limits-none"),
    ],
)
def test_too_few_patients_are_named(positives: int, negatives: int, code: str) -> None:
    calibration = replace(
        CALIBRATION,
        positive_scores=CALIBRATION.positive_scores[:positives],
        negative_scores=CALIBRATION.negative_scores[:negatives],
    )
    found = decide(0.5, card=replace(CARD, patient_calibration=calibration))
    assert found.limits_in_words.code == code and found.level == "cannot tell"  # type: ignore[attr-defined]
    for language in LANGUAGES:
        text = render_message(found.limits_in_words, language)
        assert f"{min(positives, negatives)} " in text and "mutant" in text or "突变" in text


def test_a_model_without_calibration_decides_by_its_threshold_as_before() -> None:
    card = replace(CARD, patient_calibration=None)
    for raw, level, is_borderline in (
        (0.7, "mutant", False),
        (0.52, "mutant", True),
        (0.3, "wild type", False),
    ):
        found = decide(raw, card=card)
        assert (found.probability, found.raw_probability) == (raw, raw)
        assert (found.level, found.borderline, found.threshold) == (level, is_borderline, 0.5)
        assert found.limits is found.calibration is None and found.possible_levels == ()
        assert found.limits_in_words == found.calibration_in_words == ""


@pytest.mark.parametrize(
    ("options", "names", "words"),
    [
        ({"coverage": 0.8}, ["old"], "no marker of the model"),
        ({"prevalence": {"": 0.3}}, ["idh", "ki67"], "idh, ki67"),
        ({"prevalence": {"": 0.3}}, [], "exactly one marker"),
        ({"prevalence": {"mgmt": 0.3}}, ["idh", "ki67"], "mgmt, which is not a marker"),
        ({"prevalence": {"old": 0.3}}, ["old", "idh"], "old cannot be corrected"),
        ({"prevalence": {"": 0.3}}, ["old"], "old cannot be corrected"),
        ({"prevalence": {"": 0.3}}, ["idh"], None),
        ({"coverage": 0.8, "prevalence": {"ki67": 0.3}}, ["idh", "ki67", "old"], None),
        ({}, ["old"], None),
    ],
    ids=str,
)
def test_options_that_a_model_cannot_follow_are_refused(
    options: dict, names: list[str], words: str | None
) -> None:
    markers = {name: CARD if name != "old" else replace(CARD, patient_calibration=None) for name in names}
    if words is None:
        check_level_options(LevelOptions(**options), markers)
        return
    with pytest.raises(ConfigurationError, match=words):
        check_level_options(LevelOptions(**options), markers)


@pytest.mark.parametrize(
    "options", [{"coverage": 0.49}, {"coverage": 1.0}, {"prevalence": {"idh": 0.0}}, {"prevalence": {"idh": 1.0}}]
)  # fmt: skip
def test_a_value_out_of_range_is_refused(options: dict) -> None:
    with pytest.raises(ConfigurationError):
        LevelOptions(**options)


@pytest.mark.parametrize(
    ("texts", "shares"),
    [([], {}), (["0.3"], {"": 0.3}), (["idh=0.3", " ki67 = 0.25"], {"idh": 0.3, "ki67": 0.25})],
)
def test_shares_are_parsed(texts: list[str], shares: dict[str, float]) -> None:
    assert parse_prevalence(texts) == shares


@pytest.mark.parametrize("text", ["", "idh", "idh=", "30 %", "idh=a", "0,3"])
def test_a_text_that_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a share"):
        parse_prevalence([text])

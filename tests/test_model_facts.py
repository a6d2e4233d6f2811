"""A model's facts on one page agree with its weights file, in both languages and as a Hugging Face card."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from gliomark.known_range import load_known_range
from gliomark.messages import Language
from gliomark.model_facts import collect_model_facts, render_facts_as_html, render_hugging_face_card
from gliomark.model_loading import load_weights_by_name
from gliomark.models.card import SiteRecalibration
from gliomark.models.weights import MarkerCard, Weights
from gliomark.models.weights_description import describe_as_text


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_weights_by_name("demo")


def change_marker(weights: Weights, **changes: object) -> Weights:
    marker: MarkerCard = replace(weights.card.markers["idh"], **changes)  # type: ignore[arg-type]
    return replace(weights, card=replace(weights.card, markers={"idh": marker}))


def join_facts(weights: Weights, language: Language = "en") -> str:
    return "\n".join(
        one
        for section in collect_model_facts(weights, language)
        for one in (section.title, *section.sentences)
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_contains_the_measured_values(weights: Weights, language: Language) -> None:
    page, validation = render_facts_as_html(weights, language), weights.card.markers["idh"].validation
    assert validation is not None
    visible = re.sub(r"<[^>]*>", " ", page[page.index("<main>") :])
    for value in (validation.auc, validation.low, validation.high):
        assert f"{value:.2f}" in visible
    for text in (weights.sha256, str(validation.patients), str(validation.positives), "T1C + FLAIR"):
        assert text in visible
    assert ("野生型" in visible and "仅供科研使用" in visible) is (language == "zh")
    assert ("wild type" in visible and "Research use only" in visible) is (language == "en")
    assert f'lang="{language}"' in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("changes", "sentence", "is_there"),
    [
        ({}, "between them it cannot tell", True),
        ({"patient_calibration": None}, "cannot tell", False),
        ({"validation": None, "performance": "not measured"}, "has not been validated for this marker", True),
        ({"validation": None, "performance": "not measured"}, "between them it cannot tell", False),
        ({"validation": None, "performance": "not measured"}, "not measured", True),
        ({"age_cut": None}, "age and sex", False),
        ({"warning": "Do not use after surgery."}, "Do not use after surgery.", True),
    ],
)
def test_the_facts_follow_the_card(
    weights: Weights, changes: dict[str, object], sentence: str, is_there: bool
) -> None:
    assert (sentence in join_facts(change_marker(weights, **changes))) is is_there


def test_refits_at_hospitals_are_listed(weights: Weights) -> None:
    record = SiteRecalibration("市医院", "Dr. 李", "2026-03-01", 60, 22, "a" * 64, weights.sha256)
    facts = join_facts(change_marker(weights, recalibrations=(record,)))
    assert "Refitted at 市医院 by Dr. 李 on 2026-03-01, to 60 patients with pathology (22 positive)." in facts


def test_the_facts_say_whether_images_are_compared_with_those_of_the_training(weights: Weights) -> None:
    known_range = load_known_range(weights)
    assert known_range is not None and known_range.patients <= len(weights.card.training_patients)
    tensors = {name: one for name, one in weights.tensors.items() if not name.startswith("known_range/")}
    without = replace(weights, tensors=tensors)
    for language, compared, unchecked in (
        ("en", f"those of the {known_range.patients} training patients", "does not check whether images"),
        ("zh", f"与 {known_range.patients} 例训练患者比较", "不检查影像是否"),
    ):
        assert compared in join_facts(weights, language) and unchecked not in join_facts(weights, language)
        assert unchecked in join_facts(without, language) and compared not in join_facts(without, language)
    assert "get no marker" in find_line(describe_as_text(weights), "known range")
    assert "not stored" in find_line(describe_as_text(without), "known range")


def find_line(text: str, start: str) -> str:
    (line,) = (one for one in text.splitlines() if one.startswith(start))
    return line


def test_a_synthetic_model_warns_first(weights: Weights) -> None:
    synthetic = replace(weights, card=replace(weights.card, is_synthetic=True))
    (beware,) = (one for one in collect_model_facts(synthetic, "en") if one.title == "Beware")
    assert "not valid for any person" in beware.sentences[0]
    assert "not valid for any person" not in join_facts(weights)


def test_the_hugging_face_card_has_its_metadata_in_yaml(weights: Weights) -> None:
    strange = replace(weights, card=replace(weights.card, licence='CC: "x" # 1\n---'))
    for one in (weights, strange):
        _, metadata_text, body = re.split(r"^---$", render_hugging_face_card(one), maxsplit=2, flags=re.M)
        metadata = yaml.safe_load(metadata_text)
        assert metadata["license_name"] == one.card.licence and metadata["library_name"] == "gliomark"
        ((result,),) = (entry["results"] for entry in metadata["model-index"])
        validation = one.card.markers["idh"].validation
        assert validation is not None and result["metrics"][0]["value"] == validation.auc
        assert result["dataset"]["name"] == validation.cohort and "Research use only" in body
    bare = change_marker(weights, validation=None)
    assert "model-index" not in render_hugging_face_card(bare)

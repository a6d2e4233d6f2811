"""Sentences as data: one English and one Chinese text each, the same parameters in both."""

from __future__ import annotations

import copy
import json
import pickle
import re
import string
from pathlib import Path

import numpy as np
import pytest

from gliomark.inference.segmenter import SEQUENCE_RULES
from gliomark.messages import (
    MESSAGES,
    Language,
    Message,
    collect_message_records,
    describe_level,
    find_message_for_text,
    format_percent,
    from_message_record,
    message,
    render_message,
    restore_messages,
    to_message_record,
)
from gliomark.model_facts import collect_model_facts
from gliomark.model_loading import load_model, load_weights_by_name
from gliomark.models.shipped_weights import SHIPPED_MODELS
from gliomark.server.worker import STEP_MESSAGES
from gliomark.study import READER_SEGMENTATION_RULE, MRSequence

HAN = re.compile(r"[\u4e00-\u9fff]")


def find_fields(text: str) -> set[str]:
    """Find the names of the parameters of a format string."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("code", MESSAGES)
def test_both_languages_use_the_same_parameters(code: str) -> None:
    english, chinese = MESSAGES[code]
    assert find_fields(english) == find_fields(chinese)
    assert "" not in find_fields(english), "parameters are named"


@pytest.mark.parametrize("code", MESSAGES)
def test_each_text_is_in_its_language(code: str) -> None:
    english, chinese = MESSAGES[code]
    has_words = re.search(
        "[A-Za-z]", re.sub(r"\{[^}]*\}", "", english)
    )  # a message that only joins others has no words
    assert HAN.search(chinese) or not has_words
    assert not re.search(r"[\u4e00-\u9fff]{5,}", english), "English may quote a Chinese word, not a phrase"
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)


def test_a_message_is_its_english_text_and_renders_in_chinese() -> None:
    text = message("no-lesion")
    assert text == "No lesion was found; no marker is predicted."
    assert render_message(text, "en") == text
    assert render_message(text, "zh") == "未发现病灶，因此未预测标志物。"
    assert render_message("a file's own words", "zh") == "a file's own words"


@pytest.mark.parametrize("transfer", [pickle.loads, copy.deepcopy, json.loads])
def test_code_and_parameters_survive_serialisation(transfer) -> None:
    text = message("no-lesion")
    if transfer is json.loads:
        restored = from_message_record(json.loads(json.dumps(to_message_record(text))))
    else:
        restored = transfer(pickle.dumps(text)) if transfer is pickle.loads else transfer(text)
    assert isinstance(restored, Message)
    assert (restored, restored.code, restored.parameters) == (text, text.code, text.parameters)


def test_long_content_of_a_file_is_shortened() -> None:
    """A cell of a megabyte does not make a sentence of a megabyte; a path is not shortened."""
    path = Path("/" + "x" * 1000)
    text = message("age-refused", cell="9" * 5000, patient="P1", table=path, reason=message("age-nought"))
    assert len(text) < 1600 and f"{'9' * 300}…" in text and str(path) in text
    assert text.parameters["reason"] == message("age-nought")


def test_an_unknown_code_keeps_its_text() -> None:
    assert (
        from_message_record({"text": "From a newer version.", "code": "not-yet", "parameters": {}})
        == "From a newer version."
    )
    assert from_message_record({"text": "Plain."}) == "Plain."


@pytest.mark.parametrize("missing", [{}, {"folder": "P1"}, {"count": 3}])
def test_a_message_stored_by_an_older_version_keeps_its_text(monkeypatch, missing: dict) -> None:
    with monkeypatch.context() as older:
        older.setitem(MESSAGES, "since-renamed", ("Said by an older version.", "旧版本的句子。"))
        kept = pickle.dumps([message("since-renamed")])
    assert pickle.loads(kept) == ["Said by an older version."]
    changed = to_message_record(message("folder-many-patients", folder="F", count=3, patient="P1"))
    assert from_message_record({**changed, "parameters": missing}) == changed["text"]


@pytest.mark.parametrize(
    "code, parameters",
    [
        ("brain-small", {"ml": np.float32(640.4), "steps": "1 x 1"}),
        ("mask-not-numbers", {"file": Path("a/b.nii"), "count": np.int64(3)}),
        (
            "weights-card-unknown",
            {"path": Path("m.safetensors"), "field": "markers.idh", "reason": ValueError("no figures")},
        ),
        ("brain-partly-shown", {"sequence": MRSequence.T2, "percent": 61.2, "part": message("brain-top")}),
    ],
)
def test_every_kind_of_parameter_is_serialised_as_json(code: str, parameters: dict) -> None:
    text = message(code, **parameters)
    restored = from_message_record(json.loads(json.dumps(to_message_record(text), allow_nan=False)))
    assert (
        isinstance(restored, Message)
        and restored == text
        and render_message(restored, "zh") == render_message(text, "zh")
    )


def test_a_parameter_not_a_number_keeps_the_english_text() -> None:
    text = message("brain-small", ml=float("nan"), steps="1 x 1")
    assert from_message_record(json.loads(json.dumps(to_message_record(text), allow_nan=False))) == text


@pytest.mark.parametrize(
    ("probability", "text"),
    [(None, "–"), (0.0, "< 1 %"), (0.004, "< 1 %"), (0.006, "1 %"), (0.994, "99 %"), (1.0, "> 99 %")],
)
def test_no_probability_is_shown_as_certain(probability: float | None, text: str) -> None:
    assert format_percent(probability) == text


@pytest.mark.parametrize(
    ("level", "is_borderline", "english", "chinese"),
    [
        ("mutant", False, "mutant", "突变型"),
        ("wild type", True, "borderline, leaning wild type", "临界，倾向野生型"),
        ("undetermined", False, "undetermined", "不予判定"),
        ("an author's own level", False, "an author's own level", "an author's own level"),
    ],
)
def test_levels_are_described_in_both_languages(
    level: str, is_borderline: bool, english: str, chinese: str
) -> None:
    assert describe_level(level, is_borderline, "en") == english
    assert describe_level(level, is_borderline, "zh") == chinese


def test_a_document_contains_its_messages_as_data() -> None:
    """Texts in JSON are English; the records beside them allow rendering in Chinese."""
    inner = message("level-mutant")
    warning = message("finding-contradicted", found=inner, level=inner, positive=inner, probability="90 %")
    document = {
        "warnings": [warning, "an author's own words"],
        "rule": message("outline-joint", sequences="T1C, T2"),
    }
    sent = json.loads(json.dumps(document | {"messages": collect_message_records(document)}))
    assert sent["warnings"] == [str(warning), "an author's own words"]
    back = restore_messages(sent, sent["messages"])
    assert render_message(back["warnings"][0], "zh") == render_message(
        warning, "zh"
    ) and "突变型" in render_message(warning, "zh")
    assert render_message(back["rule"], "zh") == "各序列合并为一个输入（T1C, T2）"
    assert back["warnings"][1] == "an author's own words"


@pytest.mark.parametrize(
    ("text", "chinese"), [("IDH", "IDH 基因状态"), ("IDH status", "IDH status"), ("idh", "idh")]
)
def test_only_known_words_of_a_weights_file_are_translated(text: str, chinese: str) -> None:
    assert render_message(find_message_for_text(text, "title-idh"), "zh") == chinese
    assert find_message_for_text(text, "no-such-code") == text


@pytest.mark.parametrize(
    "language, licence, use",
    [
        ("en", "not stated", "research use only, not a medical device"),
        ("zh", "未注明", "仅供科研使用，不是医疗器械"),
    ],
)
def test_default_texts_of_a_custom_model_are_translated(language: Language, licence: str, use: str) -> None:
    assert (
        render_message(find_message_for_text("not stated", "licence", "licence-not-stated"), language)
        == licence
    )
    kept = json.loads(json.dumps(message("intended-use-research")))
    assert (
        render_message(find_message_for_text(kept, "intended-use", "intended-use-research"), language) == use
    )


@pytest.mark.parametrize(
    ("code", "parameters"),
    [
        ("training-cohort", {"patients": "96", "fewest": "86"}),
        ("training-cohort-synthetic", {"patients": "200"}),
        (
            "outline-performance",
            {"dice": "0.84", "low": "0.82", "high": "0.86", "median": "0.88", "patients": "96"},
        ),
        ("cohort-synthetic-test-set", {}),
    ],
)
def test_a_text_with_values_is_found_again(code: str, parameters: dict[str, str]) -> None:
    text = str(message(code, **parameters))
    found = find_message_for_text(text, "licence", code)
    assert isinstance(found, Message) and (found.code, dict(found.parameters)) == (code, parameters)
    assert found == text and render_message(found, "zh") == render_message(message(code, **parameters), "zh")
    for other in (f"{text}, and more", f"before {text}", text.replace(" ", "  ", 1), ""):
        assert not isinstance(find_message_for_text(other, code), Message)


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_the_facts_of_a_shipped_model_have_no_english_left_in_chinese(name: str) -> None:
    allowed = {
        "AUC",
        "Dice",
        "BraTS",
        "TCIA",
        "TCGA-LGG",
        "gliomark",
        "site",
        "check",
        "BY-NC-SA",
        "MIG-Net",
        "KiNet",
    }
    allowed |= {"EfficientNet", "U-Net", "Lesion-pooled", "features", "FLAIR", "mutant", "Apache-2"}
    sections = collect_model_facts(load_weights_by_name(name), "zh")
    text = "\n".join(one for section in sections[:-1] for one in (section.title, *section.sentences))
    assert set(re.findall(r"[A-Za-z][A-Za-z-]{4,}(?:-\d)?", text)) <= allowed


def test_texts_of_the_shipped_model_are_translated() -> None:
    model = load_model("demo")
    card, identity = model.card, model.identity
    assert HAN.search(render_message(identity.intended_use, "zh")) and HAN.search(
        render_message(identity.licence, "zh")
    )
    idh = card.markers["idh"]
    assert HAN.search(render_message(find_message_for_text(idh.label, "label-idh"), "zh"))


@pytest.mark.parametrize("text", [*STEP_MESSAGES.values(), READER_SEGMENTATION_RULE], ids=str)
def test_names_of_steps_are_translated(text: str) -> None:
    assert HAN.search(render_message(text, "zh"))


@pytest.mark.parametrize("rule", SEQUENCE_RULES)
def test_each_rule_of_the_outline_has_a_message(rule: str) -> None:
    assert "T1C, T2" in render_message(message(f"outline-{rule}", sequences="T1C, T2"), "zh")

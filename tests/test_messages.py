"""Sentences as data: one English and one Chinese text each, the same parameters in both."""

from __future__ import annotations

import copy
import json
import pickle
import re
import string

import pytest

from gliomark.messages import MESSAGES, Message, from_record, message, render, to_record

HAN = re.compile(r"[\u4e00-\u9fff]")


def fields(text: str) -> set[str]:
    """The names of the parameters of a format string."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("code", MESSAGES)
def test_both_languages_take_the_same_parameters(code: str) -> None:
    english, chinese = MESSAGES[code]
    assert fields(english) == fields(chinese)
    assert "" not in fields(english), "parameters are named"


@pytest.mark.parametrize("code", MESSAGES)
def test_each_language_is_itself(code: str) -> None:
    english, chinese = MESSAGES[code]
    assert HAN.search(chinese)
    assert not re.search(r"[\u4e00-\u9fff]{5,}", english), "English may quote a Chinese word, no more"
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)


def test_a_message_is_its_english_text_and_renders_in_chinese() -> None:
    text = message("no-lesion")
    assert text == "No lesion was found; no marker is predicted."
    assert render(text, "en") == text
    assert render(text, "zh") == "未发现病灶，因此未预测标志物。"
    assert render("a file's own words", "zh") == "a file's own words"


@pytest.mark.parametrize("carry", [pickle.loads, copy.deepcopy, json.loads])
def test_code_and_parameters_outlast_a_journey(carry) -> None:
    text = message("no-lesion")
    if carry is json.loads:
        carried = from_record(json.loads(json.dumps(to_record(text))))
    else:
        carried = carry(pickle.dumps(text)) if carry is pickle.loads else carry(text)
    assert isinstance(carried, Message)
    assert (carried, carried.code, carried.parameters) == (text, text.code, text.parameters)


def test_an_unknown_code_keeps_its_text() -> None:
    assert (
        from_record({"text": "From a newer version.", "code": "not-yet", "parameters": {}})
        == "From a newer version."
    )
    assert from_record({"text": "Plain."}) == "Plain."

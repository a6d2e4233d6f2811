"""Every sentence has its Chinese, in Chinese signs, with the same places to fill; and gliomark's own are known."""

from __future__ import annotations

from string import Formatter

import pytest

from gliomark.inference.segmenter import RULES
from gliomark.pipeline import load_model
from gliomark.sentences import CHINESE, in_chinese, percent
from gliomark.server.work import STEPS
from gliomark.study import READERS_OUTLINE


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= sign <= "\u9fff" for sign in text)


@pytest.mark.parametrize(("english", "chinese"), CHINESE.items(), ids=[text[:40] for text in CHINESE])
def test_sentence_is_chinese_with_the_same_places(english: str, chinese: str) -> None:
    assert is_chinese(chinese)
    places = [field for _, field, _, _ in Formatter().parse(chinese) if field is not None]
    numbered = [int(place) if place else at for at, place in enumerate(places)]
    assert sorted(numbered) == list(range(english.count("{}")))


def test_what_the_shipped_model_says_is_known() -> None:
    card = load_model("demo").card
    said = [card.intended_use, card.training_cohort, card.licence]
    for marker in card.markers.values():
        said += [marker.label, marker.performance, *([marker.warning] if marker.warning else [])]
    assert [text for text in said if not is_chinese(in_chinese(text))] == []


@pytest.mark.parametrize(
    "text", [*(f"{rule} (T1C, FLAIR)" for rule in RULES.values()), *STEPS.values(), READERS_OUTLINE]
)
def test_what_the_program_says_of_its_work_is_known(text: str) -> None:
    assert is_chinese(in_chinese(text))


def test_places_are_filled_and_unknown_words_stay() -> None:
    told = "ReMIND-022: slice 3 of 20 was missing and was interpolated from its neighbours."
    assert in_chinese(told).count("ReMIND-022") == 1 and "20" in in_chinese(told)
    assert in_chinese("whatever a model's author wrote") == "whatever a model's author wrote"


@pytest.mark.parametrize(
    ("probability", "said"),
    [(None, "–"), (0.0, "< 1 %"), (0.004, "< 1 %"), (0.006, "1 %"), (0.994, "99 %"), (1.0, "> 99 %")],
)
def test_no_probability_is_said_to_be_certain(probability: float | None, said: str) -> None:
    assert percent(probability) == said

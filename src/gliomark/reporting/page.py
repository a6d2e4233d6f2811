"""The report as one self-contained page: what the template shows is gathered here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from gliomark.reporting.drawing import Canvas, canvas, data_uri, draw_slice
from gliomark.reporting.masks import agreed_probability
from gliomark.reporting.text import FUSIONS, LEVELS, MEANINGS, TITLES, Language, strings, word
from gliomark.study import MRSequence, Prediction

MOST_LARGE = 3  # slices shown large
MOST_SMALL = 48  # slices on the contact sheet
WITHOUT_LESION = 10  # slices shown where nothing was found
HERO_WIDTH, PAIR_WIDTH, SHEET_WIDTH = 560, 340, 190

Document = Mapping[str, Any]  # what prediction.json holds; the page says the same


@dataclass(frozen=True)
class Card:
    """One marker's answer in the page's language; answer is the marker's part of the document."""

    title: str
    level: str
    meaning: tuple[str, ...]
    fusion: str
    by_reader: bool
    answer: Document
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """One slice, drawn in one or more sequences: (sequence, data URI)."""

    name: str
    decides: bool
    area_mm2: float | None
    panels: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Row:
    """One slice of the table, with a score per marker where there is one."""

    name: str
    area_mm2: float | None
    scores: tuple[Document | None, ...]


def render_page(prediction: Prediction, document: Document, language: Language) -> str:
    """The HTML; every value that is also in prediction.json is taken from ``document``."""
    sequences = _shown_sequences(prediction)
    paper = canvas(prediction.stack, agreed_probability(prediction.segmentation), sequences)
    large, sheet = _large_slices(prediction, document), _sheet_slices(prediction, document)
    filters: dict[str, Callable[..., str]] = {"percent": _percent, "decimals": _decimals, "signed": _signed}
    template = page_environment(filters).get_template("report.html.j2")
    return template.render(
        t=strings(language),
        document=document,
        cards=[_card(answer, document, language) for answer in document["markers"]],
        large=_large_pictures(paper, large, document),
        large_are_deciding=set(large) == _deciding(document),
        some_decide=bool(_deciding(document)),
        sheet=[_picture(paper, name, sequences[-1:], SHEET_WIDTH, document) for name in sheet],
        sheet_sequence=str(sequences[-1]),
        rows=_rows(prediction, document),
    )


def page_environment(filters: Mapping[str, Callable[..., str]]) -> Environment:
    """Of this room's pages. Autoescape is on: ids and warnings may hold any character."""
    environment = Environment(
        loader=PackageLoader("gliomark.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment


def _card(answer: Document, document: Document, language: Language) -> Card:
    meaning = word(MEANINGS, answer["marker"], language, "")
    return Card(
        title=word(TITLES, answer["marker"], language, answer["title"]),
        level=word(LEVELS, answer["level"], language, answer["level"]),
        meaning=tuple(text for text in (meaning, answer["label"]) if text),
        fusion=word(FUSIONS, answer["fusion"], language, answer["fusion"]),
        by_reader=answer["decided_by"] != "model",
        answer=answer,
        warnings=tuple(text for text in answer["warnings"] if text not in document["warnings"]),
    )


def _deciding(document: Document) -> set[str]:
    return {name for answer in document["markers"] for name in answer["slices_used"]}


def _lesion_slices(prediction: Prediction, document: Document) -> list[str]:
    """Slices with a lesion in the stack's order."""
    return [name for name in prediction.stack.slice_names if name in document["lesion"]["areas_mm2"]]


def _large_slices(prediction: Prediction, document: Document) -> list[str]:
    """The deciding slices with the largest lesion, that one first; without any, the largest lesion slices."""
    areas = document["lesion"]["areas_mm2"]
    lesions = _lesion_slices(prediction, document)
    deciding = [name for name in lesions if name in _deciding(document)] or lesions
    chosen = sorted(deciding, key=lambda name: -(areas[name] or 0.0))[:MOST_LARGE]
    return chosen[:1] + [name for name in deciding if name in chosen[1:]]


def _sheet_slices(prediction: Prediction, document: Document) -> list[str]:
    """Every lesion slice, thinned evenly where there are too many; without a lesion a few of all slices."""
    lesions, stack = _lesion_slices(prediction, document), prediction.stack
    names = lesions or [stack.slice_names[index] for index in stack.selected]
    most = MOST_SMALL if lesions else WITHOUT_LESION
    if len(names) <= most:
        return names
    kept = {names[round(position)] for position in np.linspace(0, len(names) - 1, most)} | _deciding(document)
    return [name for name in names if name in kept]


def _shown_sequences(prediction: Prediction) -> list[MRSequence]:
    """The model's sequences, its reference last; a stack without them shows what it has."""
    used = [name for name in prediction.stack.images if name in prediction.model.sequences]
    return (used or list(prediction.stack.images))[:2]


def _large_pictures(paper: Canvas, names: Sequence[str], document: Document) -> list[Picture]:
    """The first slice in full width, the others half as large."""
    widths = [HERO_WIDTH] + [PAIR_WIDTH] * len(names)
    sizes = zip(names, widths, strict=False)
    return [_picture(paper, name, list(paper.windows), width, document) for name, width in sizes]


def _picture(
    paper: Canvas, name: str, sequences: Sequence[MRSequence], width: int, document: Document
) -> Picture:
    index = paper.stack.slice_names.index(name)
    return Picture(
        name=name,
        decides=name in _deciding(document),
        area_mm2=document["lesion"]["areas_mm2"].get(name),
        panels=tuple(
            (str(sequence), data_uri(draw_slice(paper, sequence, index, width))) for sequence in sequences
        ),
    )


def _rows(prediction: Prediction, document: Document) -> list[Row]:
    """Scored slices only, in the stack's order."""
    scores = [{score["name"]: score for score in answer["slices"]} for answer in document["markers"]]
    areas = {name: score["lesion_area_mm2"] for of_marker in scores for name, score in of_marker.items()}
    named = [name for name in prediction.stack.slice_names if name in areas]
    return [Row(name, areas[name], tuple(of_marker.get(name) for of_marker in scores)) for name in named]


def _percent(probability: float | None) -> str:
    """Whole per cent; never 0 or 100, which no model can promise."""
    if probability is None:
        return "–"
    value = round(100 * probability)
    return "< 1 %" if value < 1 else "> 99 %" if value > 99 else f"{value} %"


def _signed(value: float) -> str:
    """Two decimals with a sign, a true minus; what rounds to nothing has none."""
    text = f"{abs(value):.2f}"
    return text if text == "0.00" else f"{'+' if value > 0 else chr(0x2212)}{text}"


def _decimals(value: float | None, places: int) -> str:
    """A fixed number of decimals, thousands set apart by a thin space."""
    return "–" if value is None else f"{value:,.{places}f}".replace(",", "\u2009")

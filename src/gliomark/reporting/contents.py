"""What the report says, whatever its form: gathered once from the prediction and its document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from gliomark.messages import level_in_words, percent, render, restore
from gliomark.reporting.drawing import Canvas, canvas, draw_slice
from gliomark.reporting.masks import agreed_probability
from gliomark.reporting.text import Language, strings
from gliomark.study import MRSequence, Prediction

MOST_LARGE = 3  # slices shown large
MOST_SMALL = 48  # slices on the contact sheet
WITHOUT_LESION = 10  # slices shown where nothing was found
HERO_WIDTH, PAIR_WIDTH, SHEET_WIDTH = 560, 340, 190

T = TypeVar("T")
Document = Mapping[str, Any]  # what prediction.json holds; the report says the same


@dataclass(frozen=True)
class Card:
    """One marker's answer in the page's language; answer is the marker's part of the document.

    positive: what the probability is the probability of. is_known: whether a level is named.
    """

    title: str
    level: str
    is_known: bool
    positive: str
    meaning: str
    fusion: str
    threshold_origin: str
    range: str
    by_reader: bool
    answer: Document
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """One slice, drawn in one or more sequences."""

    name: str
    decides: bool
    area_mm2: float | None
    panels: tuple[tuple[str, Image.Image], ...]


@dataclass(frozen=True)
class Row:
    """One slice of the table, with a score per marker where there is one."""

    name: str
    area_mm2: float | None
    scores: tuple[Document | None, ...]


@dataclass(frozen=True, eq=False)
class Contents:
    """What every form of the report says, in this order; values that are in prediction.json are in ``document``.

    images: the sequences that the networks were shown. drawn_by_reader: whether the outline is a reader's. large: the
    slices that decided, the one with the largest lesion first. sheet: all slices with a lesion, small.
    """

    document: Document
    images: str
    drawn_by_reader: bool
    cards: tuple[Card, ...]
    large: tuple[Picture, ...]
    large_are_deciding: bool
    some_decide: bool
    rows: tuple[Row, ...]
    sheet: tuple[Picture, ...]
    sheet_sequence: str


def contents(prediction: Prediction, document: Document, language: Language) -> Contents:
    """Gather the report's contents, pictures drawn, every known sentence of the document in the language."""
    document = _worded(document, language)
    sequences = _shown_sequences(prediction)
    paper = canvas(prediction.stack, agreed_probability(prediction.segmentation), sequences)
    large, sheet = _large_slices(prediction, document), _sheet_slices(prediction, document)
    return Contents(
        document=document,
        images=_images(document, language),
        drawn_by_reader=prediction.segmentation.by_reader,
        cards=tuple(_card(answer, document, language) for answer in document["markers"]),
        large=tuple(_large_pictures(paper, large, document)),
        large_are_deciding=set(large) == _deciding(document),
        some_decide=bool(_deciding(document)),
        rows=tuple(_rows(prediction, document)),
        sheet=tuple(_picture(paper, name, sequences[-1:], SHEET_WIDTH, document) for name in sheet),
        sheet_sequence=str(sequences[-1]),
    )


def _worded(document: Document, language: Language) -> Document:
    """The document with its messages in the language; names, numbers, levels and other authors' words stay."""

    def worded(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: worded(part) for name, part in value.items()}
        if isinstance(value, list):
            return [worded(part) for part in value]
        return render(value, language) if isinstance(value, str) else value

    # answers that a server keeps may be older than the records
    found: Document = worded(restore(dict(document), document.get("messages", ())))
    return found


def _images(document: Document, language: Language) -> str:
    """The sequences that were shown, a stand-in with what is missing."""
    missing = {shown: wanted for wanted, shown in document["sequences"].get("stand_ins", {}).items()}
    instead = strings(language).instead
    used = document["sequences"]["used"]
    return " + ".join(instead.format(name, missing[name]) if name in missing else name for name in used)


def _card(answer: Document, document: Document, language: Language) -> Card:
    is_borderline = answer.get("borderline", False)
    return Card(
        title=answer["title"],
        level=level_in_words(answer["level"], is_borderline, language),
        is_known=answer["level"] != "undetermined",
        positive=level_in_words(answer.get("positive") or "+", False, language),
        meaning=answer["label"],
        fusion=answer.get("fusion_in_words") or answer["fusion"],
        threshold_origin=answer.get("threshold_origin", ""),
        range=_range(answer["probability_range"], language),
        by_reader=answer["decided_by"] != "model",
        answer=answer,
        warnings=tuple(text for text in answer["warnings"] if text not in document["warnings"]),
    )


def _range(extremes: Sequence[float] | None, language: Language) -> str:
    """The range over the lesion's slices in words; nothing where there is none."""
    if extremes is None:
        return ""
    t, (low, high) = strings(language), map(percent, extremes)
    return t.range_same.format(low) if low == high else t.range_value.format(low, high)


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
    deciding = _deciding(document)
    return thinned(names, most, lambda name: name in deciding)


def thinned(items: Sequence[T], most: int, needed: Callable[[T], bool]) -> list[T]:
    """About ``most`` of the items, evenly spread, in their order, and none of the needed ones left out."""
    spread = {round(position) for position in np.linspace(0, len(items) - 1, min(most, len(items)))}
    return [item for at, item in enumerate(items) if at in spread or needed(item)]


def _shown_sequences(prediction: Prediction) -> list[MRSequence]:
    """What the networks were shown, the reference last."""
    return list(prediction.stack.images)[-2:]


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
        panels=tuple((str(sequence), draw_slice(paper, sequence, index, width)) for sequence in sequences),
    )


def _rows(prediction: Prediction, document: Document) -> list[Row]:
    """Scored slices only, in the stack's order."""
    scores = [{score["name"]: score for score in answer["slices"]} for answer in document["markers"]]
    areas = {name: score["lesion_area_mm2"] for of_marker in scores for name, score in of_marker.items()}
    named = [name for name in prediction.stack.slice_names if name in areas]
    return [Row(name, areas[name], tuple(of_marker.get(name) for of_marker in scores)) for name in named]


def signed(value: float) -> str:
    """Two decimals with a sign, a true minus; what rounds to nothing has none."""
    text = f"{abs(value):.2f}"
    return text if text == "0.00" else f"{'+' if value > 0 else chr(0x2212)}{text}"


def decimals(value: float | None, places: int) -> str:
    """A fixed number of decimals, thousands set apart by a thin space."""
    return "–" if value is None else f"{value:,.{places}f}".replace(",", "\u2009")

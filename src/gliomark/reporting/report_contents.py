"""Contents of the report, collected once from the prediction and its document for all output formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from gliomark.messages import describe_level, format_percent, render_message, restore_messages
from gliomark.prediction import Prediction
from gliomark.reporting.drawing import SliceCanvas, create_slice_canvas, draw_slice
from gliomark.reporting.mask_resampling import align_probability_with_mask
from gliomark.reporting.report_texts import Language, get_report_texts
from gliomark.study import CANNOT_TELL, MRSequence

MAXIMUM_LARGE_SLICES = 3  # slices shown large
MAXIMUM_SHEET_SLICES = 48  # slices on the contact sheet
MAXIMUM_SLICES_WITHOUT_LESION = 10  # slices shown if no lesion was found
MINIMUM_REGION_SHARE = 0.01  # of the lesion; smaller parts are within the error of the registration
LARGEST_SLICE_WIDTH, LARGE_SLICE_WIDTH, SHEET_SLICE_WIDTH = 560, 340, 190

T = TypeVar("T")
Document = Mapping[str, Any]  # the content of prediction.json


@dataclass(frozen=True)
class MarkerCard:
    """The prediction of one marker in the report's language.

    positive_level: the level whose probability is given. is_known: whether a level is reported. rule_name, rule_text:
    how the level follows from the probability. marks: probabilities marked on the bar, the threshold or the two limits
    of "cannot tell"; marks_label: written below them. bracket: range of the slices' probabilities, drawn if it is on
    the scale of the bar. marker_prediction: the marker's part of the document.
    """

    title: str
    level: str
    is_known: bool
    positive_level: str
    label_definition: str
    fusion_text: str
    rule_name: str
    rule_text: str
    calibration_text: str
    contributions_name: str
    marks: tuple[float, ...]
    marks_label: str
    bracket: tuple[float, ...]
    range_text: str
    is_decided_by_reader: bool
    marker_prediction: Document
    warnings: tuple[str, ...]

    @property
    def slice_marks(self) -> tuple[float, ...]:
        """The threshold, for the bars of single slices; empty if they are not calibrated as the patient's bar."""
        return self.marks if len(self.marks) == 1 else ()


@dataclass(frozen=True)
class SliceImage:
    """One slice, drawn in one or more sequences."""

    slice_name: str
    is_used: bool
    area_mm2: float | None
    panels: tuple[tuple[str, Image.Image], ...]


@dataclass(frozen=True)
class SliceRow:
    """One row of the slice table; ``scores`` has one entry per marker, None if the slice was not scored."""

    slice_name: str
    area_mm2: float | None
    scores: tuple[Document | None, ...]


@dataclass(frozen=True)
class LocationContents:
    """Location of the lesion: sentences, and pairs of a title and a text that lists shares or distances."""

    sentences: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class ReportContents:
    """Contents of the report in the order in which they are shown.

    Values that are in prediction.json are read from ``document``.

    sequences_text: the sequences that the networks used. is_drawn_by_reader: whether a reader drew the segmentation.
    large_images: the slices used for the prediction, the one with the largest lesion first.
    contact_sheet: all slices with lesion, small.
    """

    document: Document
    sequences_text: str
    is_drawn_by_reader: bool
    marker_cards: tuple[MarkerCard, ...]
    large_images: tuple[SliceImage, ...]
    are_large_images_used: bool
    has_used_slices: bool
    slice_rows: tuple[SliceRow, ...]
    table_key: str
    contact_sheet: tuple[SliceImage, ...]
    contact_sheet_sequence: str
    location: LocationContents | None


def create_report_contents(prediction: Prediction, document: Document, language: Language) -> ReportContents:
    """Collect the report's contents: draw the slice images and translate the document's messages."""
    document = _translate_document(document, language)
    sequences = _list_shown_sequences(prediction)
    texts = get_report_texts(language)
    cards = tuple(_create_marker_card(one, document, language) for one in document["markers"])
    canvas = create_slice_canvas(
        prediction.stack, align_probability_with_mask(prediction.segmentation), sequences
    )
    large_slices, sheet_slices = (
        _select_large_slices(prediction, document),
        _select_sheet_slices(prediction, document),
    )
    return ReportContents(
        document=document,
        sequences_text=_format_sequences(document, language),
        is_drawn_by_reader=prediction.segmentation.is_drawn_by_reader,
        marker_cards=cards,
        large_images=tuple(_draw_large_images(canvas, large_slices, document)),
        are_large_images_used=set(large_slices) == _collect_used_slices(document),
        has_used_slices=bool(_collect_used_slices(document)),
        slice_rows=tuple(_create_slice_rows(prediction, document)),
        table_key=texts.table_key_raw if any(card.calibration_text for card in cards) else texts.table_key,
        contact_sheet=tuple(
            _draw_slice_image(canvas, name, sequences[-1:], SHEET_SLICE_WIDTH, document)
            for name in sheet_slices
        ),
        contact_sheet_sequence=str(sequences[-1]),
        location=_create_location_contents(document, texts),
    )


def _create_location_contents(document: Document, texts: SimpleNamespace) -> LocationContents | None:
    """Create the location of the lesion; None if it was not requested, or in older documents."""
    location = document.get("location")
    if location is None:
        return None
    shares = [
        (one["name"], format_percent(one["share"]))
        for one in location["regions"]
        if one["share"] >= MINIMUM_REGION_SHARE
    ]
    distances = [
        (one["name"], f"{one['distance_mm']:.0f} mm" if one["distance_mm"] else texts.location_overlap)
        for one in location["distances"]
    ]
    facts = ((texts.location_regions, shares), (texts.location_distances, distances))
    return LocationContents(
        tuple(location["sentences"]),
        tuple(
            (title, texts.list_separator.join(texts.name_and_value.format(*pair) for pair in pairs))
            for title, pairs in facts
            if pairs
        ),
    )


def _translate_document(document: Document, language: Language) -> Document:
    """Return the document with its messages translated; names, numbers, levels and free text are unchanged."""

    def translate_value(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: translate_value(part) for name, part in value.items()}
        if isinstance(value, list):
            return [translate_value(part) for part in value]
        return render_message(value, language) if isinstance(value, str) else value

    # predictions stored by a server may be older than the message records
    translated_document: Document = translate_value(
        restore_messages(dict(document), document.get("messages", ()))
    )
    return translated_document


def _format_sequences(document: Document, language: Language) -> str:
    """Return the sequences used, a substitute together with the sequence that it replaces."""
    missing_by_substitute = {
        substitute: missing_sequence
        for missing_sequence, substitute in document["sequences"].get("stand_ins", {}).items()
    }
    substitute_text = get_report_texts(language).instead
    used_sequences = document["sequences"]["used"]
    return " + ".join(
        substitute_text.format(name, missing_by_substitute[name]) if name in missing_by_substitute else name
        for name in used_sequences
    )


def _create_marker_card(marker_prediction: Document, document: Document, language: Language) -> MarkerCard:
    texts, is_borderline = get_report_texts(language), marker_prediction.get("borderline", False)
    # predictions stored by a server may be older than limits and calibration
    limits, threshold = marker_prediction.get("limits"), marker_prediction["threshold"]
    marks: tuple[float, ...] = ()
    marks_label, bracket = "", tuple(marker_prediction["probability_range"] or ())
    if limits is not None:
        marks, bracket = (limits["negative_below"], limits["positive_above"]), ()
        marks_label = texts.cannot_tell_between.format(*map(format_percent, marks))
    elif threshold is not None:
        marks, marks_label = (threshold,), texts.threshold.format(format_percent(threshold))
    return MarkerCard(
        title=marker_prediction["title"],
        level=describe_level(marker_prediction["level"], is_borderline, language),
        is_known=marker_prediction["level"] not in ("undetermined", CANNOT_TELL),
        positive_level=describe_level(marker_prediction.get("positive") or "+", False, language),
        label_definition=marker_prediction["label"],
        fusion_text=marker_prediction.get("fusion_in_words") or marker_prediction["fusion"],
        rule_name=texts.threshold_origin if limits is None else texts.limits,
        rule_text=marker_prediction.get("limits_in_words") or marker_prediction.get("threshold_origin", ""),
        calibration_text=marker_prediction.get("calibration_in_words", ""),
        contributions_name=texts.made_of if limits is None else texts.made_of_raw,
        marks=marks,
        marks_label=marks_label,
        bracket=tuple(bracket),
        range_text=_format_probability_range(marker_prediction["probability_range"], limits is None, texts),
        is_decided_by_reader=marker_prediction["decided_by"] != "model",
        marker_prediction=marker_prediction,
        warnings=tuple(text for text in marker_prediction["warnings"] if text not in document["warnings"]),
    )


def _format_probability_range(
    probability_range: Sequence[float] | None, is_drawn: bool, texts: SimpleNamespace
) -> str:
    """Return the probability range across the lesion slices as text; empty without one.

    is_drawn: whether the bar shows the range; it does not if the slices' probabilities are not calibrated as its own.
    """
    if probability_range is None:
        return ""
    low, high = map(format_percent, probability_range)
    template = texts.range_same if low == high else texts.range_value
    if not is_drawn:
        template = texts.range_same_raw if low == high else texts.range_value_raw
    return str(template.format(low, high))


def _collect_used_slices(document: Document) -> set[str]:
    return {name for marker_prediction in document["markers"] for name in marker_prediction["slices_used"]}


def _list_lesion_slices(prediction: Prediction, document: Document) -> list[str]:
    """Return the names of the slices with lesion, in the stack's order."""
    return [name for name in prediction.stack.slice_names if name in document["lesion"]["areas_mm2"]]


def _select_large_slices(prediction: Prediction, document: Document) -> list[str]:
    """Select the slices used for the prediction with the largest lesion, the largest first.

    Without used slices, select from all slices with lesion.
    """
    areas = document["lesion"]["areas_mm2"]
    lesion_slices = _list_lesion_slices(prediction, document)
    used_slices = [name for name in lesion_slices if name in _collect_used_slices(document)] or lesion_slices
    largest_slices = sorted(used_slices, key=lambda name: -(areas[name] or 0.0))[:MAXIMUM_LARGE_SLICES]
    return largest_slices[:1] + [name for name in used_slices if name in largest_slices[1:]]


def _select_sheet_slices(prediction: Prediction, document: Document) -> list[str]:
    """Select all lesion slices, thinned out evenly if too many; without a lesion a few of all slices."""
    lesions, stack = _list_lesion_slices(prediction, document), prediction.stack
    names = lesions or [stack.slice_names[index] for index in stack.selected]
    maximum = MAXIMUM_SHEET_SLICES if lesions else MAXIMUM_SLICES_WITHOUT_LESION
    used_slices = _collect_used_slices(document)
    return thin_out(names, maximum, lambda name: name in used_slices)


def thin_out(items: Sequence[T], maximum: int, is_required: Callable[[T], bool]) -> list[T]:
    """Return about ``maximum`` items, evenly spread and in order, including all for which ``is_required`` is true."""
    kept_indices = {round(position) for position in np.linspace(0, len(items) - 1, min(maximum, len(items)))}
    return [item for index, item in enumerate(items) if index in kept_indices or is_required(item)]


def _list_shown_sequences(prediction: Prediction) -> list[MRSequence]:
    """Return at most two of the sequences that the networks used, the reference last."""
    return list(prediction.stack.images)[-2:]


def _draw_large_images(
    canvas: SliceCanvas, slice_names: Sequence[str], document: Document
) -> list[SliceImage]:
    """Draw the first slice in full width, the others smaller."""
    widths = [LARGEST_SLICE_WIDTH] + [LARGE_SLICE_WIDTH] * len(slice_names)
    sizes = zip(slice_names, widths, strict=False)
    return [
        _draw_slice_image(canvas, name, list(canvas.grey_windows), width, document) for name, width in sizes
    ]


def _draw_slice_image(
    canvas: SliceCanvas, slice_name: str, sequences: Sequence[MRSequence], width: int, document: Document
) -> SliceImage:
    index = canvas.stack.slice_names.index(slice_name)
    return SliceImage(
        slice_name=slice_name,
        is_used=slice_name in _collect_used_slices(document),
        area_mm2=document["lesion"]["areas_mm2"].get(slice_name),
        panels=tuple((str(sequence), draw_slice(canvas, sequence, index, width)) for sequence in sequences),
    )


def _create_slice_rows(prediction: Prediction, document: Document) -> list[SliceRow]:
    """Create the rows of all scored slices, in the stack's order."""
    scores = [{score["name"]: score for score in answer["slices"]} for answer in document["markers"]]
    areas = {
        name: score["lesion_area_mm2"] for marker_scores in scores for name, score in marker_scores.items()
    }
    scored_names = [name for name in prediction.stack.slice_names if name in areas]
    return [
        SliceRow(name, areas[name], tuple(of_marker.get(name) for of_marker in scores))
        for name in scored_names
    ]


def format_signed(value: float) -> str:
    """Format with two decimals and a sign (Unicode minus); a value that rounds to 0 has no sign."""
    text = f"{abs(value):.2f}"
    return text if text == "0.00" else f"{'+' if value > 0 else chr(0x2212)}{text}"


def format_decimals(value: float | None, digits: int) -> str:
    """Format with a fixed number of decimals and a thin space between thousands; None becomes a dash."""
    return "–" if value is None else f"{value:,.{digits}f}".replace(",", "\u2009")

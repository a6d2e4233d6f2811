"""The report as a PDF for printing or sending, with the contents of the HTML report in the same order.

Its only font, Noto Sans SC, covers Latin and Chinese and is embedded, so that every viewer shows every id. Lengths
are in mm, font sizes in points.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pylopdf_fonts_zh_cn as fonts
from fpdf import FPDF
from PIL import Image

from gliomark.messages import format_percent
from gliomark.reporting.drawing import encode_jpeg
from gliomark.reporting.prediction_json import create_prediction_document
from gliomark.reporting.report_contents import (
    Document,
    MarkerCard,
    ReportContents,
    SliceImage,
    create_report_contents,
    format_decimals,
    format_signed,
    thin_out,
)
from gliomark.reporting.report_texts import Language, get_report_texts
from gliomark.study import Prediction

TEXT_COLOUR, SECONDARY_COLOUR, LINE_COLOUR, BOX_COLOUR, ACCENT_COLOUR, MUTED_COLOUR = (
    "#14181b",
    "#56616a",
    "#d9dfe3",
    "#f4f7f8",
    "#0b5f78",
    "#9fb4be",
)
PAGE_LEFT, PAGE_TOP, CONTENT_WIDTH, PAGE_BOTTOM = 16.0, 14.0, 178.0, 280.0
MM_PER_POINT = 25.4 / 72
COLUMN_GAP = 8.0  # between columns
IMAGES_PER_ROW, MAXIMUM_SHEET_IMAGES = (
    12,
    21,
)  # contact sheet: images per row, and maximum number of evenly spread images
# Width of the largest slice image, and the minimum to which it shrinks to fit the rest of a page.
PANEL_WIDTH, MINIMUM_PANEL_WIDTH = 57.0, 44.0
# In this font these characters are as wide as a Chinese one, which leaves gaps in English text.
CHARACTER_REPLACEMENTS = str.maketrans({"’": "'", "“": '"', "”": '"', "·": "–", "\u2009": " "})
# Chinese text may break between any two characters, but no line starts with closing punctuation.
_TOKEN_PATTERN = re.compile(
    r"\s+|[\u2e80-\u9fff\uf900-\uff60](?:[，。、；：？！）”’》])*|[^\s\u2e80-\u9fff\uf900-\uff60]+"
)

logging.getLogger("fpdf").setLevel(
    logging.ERROR
)  # fpdf logs every missing glyph; such characters are printed as boxes


@dataclass(frozen=True)
class Paragraph:
    """A paragraph. size: points. space_before: space above it in mm."""

    text: str
    size: float = 8.0
    colour: str = TEXT_COLOUR
    bold: bool = False
    space_before: float = 0.0


@dataclass(frozen=True)
class ProbabilityBar:
    """A probability (0 to 1) with its threshold as a bar.

    is_emphasised: drawn in the accent colour. probability_range: drawn as a bracket above the bar.
    """

    probability: float
    threshold: float | None
    is_emphasised: bool
    label: str = ""
    probability_range: Sequence[float] | None = None


Block = Paragraph | ProbabilityBar


class ReportPdf(FPDF):
    """An A4 document with the research notice at the foot of each page."""

    def __init__(self, notice: str) -> None:
        super().__init__(format="A4")
        self.notice = notice
        self.set_auto_page_break(False)
        self.add_font("sans", fname=fonts.sans_path())

    def footer(self) -> None:
        """Write research notice and page number; called by fpdf."""
        self.set_font("sans", size=7.5)
        self.set_text_color(SECONDARY_COLOUR)
        self.set_xy(PAGE_LEFT - self.c_margin, 284)
        self.cell(
            text=f"{self.notice}    {self.page_no()} / {{nb}}"
        )  # only cell() replaces {nb} by the number of pages


def render_pdf(prediction: Prediction, language: Language = "en") -> bytes:
    """Render the report as a PDF file."""
    return render_contents_as_pdf(
        create_report_contents(prediction, create_prediction_document(prediction), language), language
    )


def render_contents_as_pdf(contents: ReportContents, language: Language) -> bytes:
    """Render the collected contents of a report as a PDF file."""
    texts, document = get_report_texts(language, contents.is_drawn_by_reader), contents.document
    pdf = ReportPdf(texts.research)
    pdf.set_title(f"{document['patient_id']} · {texts.title}")
    pdf.set_lang(texts.html_lang)
    pdf.set_creator(f"gliomark {document['software']['version']}")
    pdf.set_creation_date(datetime.fromisoformat(document["created"]))
    pdf.add_page()
    pdf.y = PAGE_TOP
    for write_section in (
        _write_header,
        _write_marker_cards,
        _write_large_images,
        _write_lesion_section,
        _write_slice_table,
        _write_contact_sheet,
        _write_model_section,
    ):
        write_section(pdf, contents, texts)
    return bytes(pdf.output())


# ---- sections ---------------------------------------------------------------------------------------


def _write_header(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    document = contents.document
    _write_blocks(
        pdf,
        [
            Paragraph(f"gliomark – {texts.title}", 9, ACCENT_COLOUR, bold=True),
            Paragraph(document["patient_id"], 19, bold=True, space_before=2),
        ],
    )
    age, sex, created = document["age"], document["sex"], document["created"]
    facts = [
        (texts.age, texts.not_stated if age is None else texts.years.format(f"{age:g}")),
        (texts.sex, texts.not_stated if sex is None else (texts.male, texts.female)[sex]),
        (texts.images, contents.sequences_text),
        (texts.date, f"{created[:10]} {created[11:16]} UTC"),
    ]
    _write_columns(
        pdf,
        [
            [Paragraph(name, 7, SECONDARY_COLOUR, space_before=2), Paragraph(value, 9)]
            for name, value in facts
        ],
        (1, 1, 1, 1),
    )
    _write_box(pdf, [Paragraph(texts.research, bold=True), Paragraph(texts.research_more)], frame=TEXT_COLOUR)
    if document["warnings"]:
        _write_box(
            pdf,
            [Paragraph(texts.warnings, bold=True), *_create_bullet_blocks(document["warnings"])],
            fill=BOX_COLOUR,
        )
    if not document["lesion"]["found"]:
        _write_box(
            pdf,
            [Paragraph(texts.no_lesion, 15, bold=True), Paragraph(texts.no_lesion_more, 9, space_before=1)],
            frame=TEXT_COLOUR,
        )


def _write_marker_cards(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    if contents.marker_cards:
        _write_heading(pdf, texts.answer)
    has_lesion = contents.document["lesion"]["found"]
    if len(contents.marker_cards) == 1:
        columns = [
            _create_level_blocks(contents.marker_cards[0], texts, has_lesion),
            _create_explanation_blocks(contents.marker_cards[0], texts),
        ]
        _write_columns(
            pdf, columns if columns[1] else columns[:1], (1, 1) if columns[1] else (1,), has_rule=True
        )
        return
    for card_index in range(0, len(contents.marker_cards), 2):
        pair = [
            [*_create_level_blocks(card, texts, has_lesion), *_create_explanation_blocks(card, texts)]
            for card in contents.marker_cards[card_index : card_index + 2]
        ]
        _write_columns(pdf, pair, (1, 1), has_rule=True)


def _create_level_blocks(card: MarkerCard, texts: SimpleNamespace, has_lesion: bool) -> list[Block]:
    """Create the prediction of one marker in the order of the HTML report."""
    marker_prediction = card.marker_prediction
    blocks: list[Block] = [
        Paragraph(card.title, 9, SECONDARY_COLOUR, space_before=2),
        Paragraph(card.level, 18, ACCENT_COLOUR if card.is_known else SECONDARY_COLOUR, bold=card.is_known),
    ]
    if card.is_decided_by_reader:
        blocks += [Paragraph(texts.by_reader, bold=True), Paragraph(texts.by_reader_more)]
    if marker_prediction["probability"] is not None:
        blocks += [
            *_create_labelled_blocks(texts.positive, card.label_definition),
            *_create_probability_blocks(card, texts),
        ]
    elif has_lesion and not card.warnings:
        blocks.append(Paragraph(texts.no_probability, space_before=1.5))
    if card.warnings:
        blocks += [
            Paragraph(texts.warn_here, bold=True, space_before=1.5),
            *_create_bullet_blocks(card.warnings),
        ]
    return blocks


def _create_explanation_blocks(card: MarkerCard, texts: SimpleNamespace) -> list[Block]:
    """Create the blocks that explain how the prediction was computed and validated."""
    marker_prediction, blocks = card.marker_prediction, list[Block]()
    if marker_prediction["probability"] is not None:
        blocks += _create_labelled_blocks(texts.threshold_origin, card.threshold_origin)
        used_slices = ", ".join(marker_prediction["slices_used"])
        blocks += _create_labelled_blocks(
            texts.how, card.fusion_text, f"{texts.slices_used}: {used_slices}" if used_slices else ""
        )
        blocks += _create_labelled_blocks(texts.range, card.range_text)
    if marker_prediction["contributions"]:
        blocks += _create_labelled_blocks(
            texts.made_of, _format_contributions(marker_prediction["contributions"], texts)
        )
    performance = texts.finding_performance if card.is_decided_by_reader else texts.performance
    return blocks + _create_labelled_blocks(performance, marker_prediction["performance"])


def _create_probability_blocks(card: MarkerCard, texts: SimpleNamespace) -> list[Block]:
    marker_prediction = card.marker_prediction
    threshold = marker_prediction["threshold"]
    label = "" if threshold is None else texts.threshold.format(format_percent(threshold))
    name = (texts.model_says if card.is_decided_by_reader else texts.probability_of).format(
        card.positive_level
    )
    return [
        Paragraph(
            f"{name}  {format_percent(marker_prediction['probability'])}", 11, bold=True, space_before=2
        ),
        ProbabilityBar(
            marker_prediction["probability"],
            threshold,
            not card.is_decided_by_reader,
            label,
            marker_prediction["probability_range"],
        ),
    ]


def _format_contributions(contributions: Document, texts: SimpleNamespace) -> str:
    named_contributions = (
        (texts.made_of_image, "image"),
        (texts.age, "age"),
        (texts.sex, "sex"),
        (texts.made_of_start, "start"),
    )
    return ", ".join(
        f"{name.lower()} {format_signed(contributions[key])}"
        for name, key in named_contributions
        if contributions[key] is not None
    )


def _write_large_images(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    """Draw the slice with the largest lesion large and up to two more beside it, half as large."""
    if not contents.large_images:
        return
    ratio, count = (
        _compute_aspect_ratio(contents.large_images[0].panels[0][1]),
        len(contents.large_images[0].panels),
    )
    panel_width = min(PANEL_WIDTH, (PAGE_BOTTOM - pdf.y - 22) / ratio)
    if panel_width < MINIMUM_PANEL_WIDTH:
        panel_width = PANEL_WIDTH
    panel_height, step = panel_width * ratio, (panel_width * ratio + 5.5) / 2
    _ensure_space(pdf, panel_height + 22)
    _write_heading(
        pdf,
        texts.deciding if contents.are_large_images_used else texts.largest,
        f"{texts.outline_key} {texts.side_key}",
    )
    top = pdf.y
    right = _draw_panels(pdf, contents.large_images[0], PAGE_LEFT, top, panel_width, texts) + COLUMN_GAP / 2
    small_width = min((step - 5.5) / ratio, (PAGE_LEFT + CONTENT_WIDTH - right) / count - 0.8)
    for image_index, picture in enumerate(contents.large_images[1:]):
        _draw_panels(pdf, picture, right, top + image_index * step, small_width, texts)
    pdf.y = top + panel_height + 5


def _draw_panels(
    pdf: ReportPdf, slice_image: SliceImage, x: float, y: float, width: float, texts: SimpleNamespace
) -> float:
    """Draw one slice in its sequences, side by side, with a caption; return the right edge in mm."""
    panel_height = width * _compute_aspect_ratio(slice_image.panels[0][1])
    start = x
    for sequence, image in slice_image.panels:
        _draw_image(pdf, image, x, y, width)
        _draw_text_line(pdf, x + 1.2, y + panel_height - 1.6, Paragraph(sequence, 7.5, "#ebebeb"))
        x += width + 0.8
    area = (
        ""
        if slice_image.area_mm2 is None
        else f" – {texts.area} {format_decimals(slice_image.area_mm2 / 100, 1)} cm²"
    )
    _draw_text_line(
        pdf,
        start,
        y + panel_height + 3.6,
        Paragraph(f"{texts.slice} {slice_image.slice_name}{area}", 7, SECONDARY_COLOUR),
    )
    return x


def _write_lesion_section(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    document = contents.document
    lesion = document["lesion"]
    if not lesion["found"]:
        return
    _ensure_space(pdf, 26)
    _write_heading(pdf, texts.lesion)
    areas = {name: area for name, area in lesion["areas_mm2"].items() if area is not None}
    facts = [(texts.volume, f"{format_decimals(lesion['volume_ml'], 1)} ml")]
    if areas:
        name, area = max(areas.items(), key=lambda item: item[1])
        facts.append(
            (texts.largest_area, f"{format_decimals(area / 100, 1)} cm² {texts.in_slice.format(name)}")
        )
    facts += [(texts.lesion_slices, str(len(lesion["areas_mm2"]))), (texts.outline_rule, lesion["rule"])]
    _write_columns(
        pdf,
        [[Paragraph(name, 7, SECONDARY_COLOUR), Paragraph(value, 9)] for name, value in facts],
        (1, 1.5, 1, 2.5),
    )
    if document["input"]["spacing_assumed"]:
        _write_box(pdf, [Paragraph(texts.assumed)], fill=BOX_COLOUR)


def _write_slice_table(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    """Write the results by slice; the header is repeated on each new page."""
    if not contents.slice_rows:
        return
    _ensure_space(pdf, min(20 + 4.4 * len(contents.slice_rows), 60))
    _write_heading(pdf, texts.table, texts.table_key)
    column_width = (CONTENT_WIDTH - 44 + COLUMN_GAP) / max(len(contents.marker_cards), 1)
    _write_table_header(pdf, contents, texts, column_width)
    for row in contents.slice_rows:
        if _ensure_space(pdf, 4.4):
            _write_table_header(pdf, contents, texts, column_width)
        area = "–" if row.area_mm2 is None else f"{format_decimals(row.area_mm2 / 100, 1)} cm²"
        _draw_text_line(pdf, PAGE_LEFT, pdf.y + 3.2, Paragraph(row.slice_name, 8))
        _draw_text_line(pdf, PAGE_LEFT + 20, pdf.y + 3.2, Paragraph(area, 8))
        for card_index, (card, score) in enumerate(zip(contents.marker_cards, row.scores, strict=True)):
            _write_table_cell(pdf, PAGE_LEFT + 44 + card_index * column_width, column_width, card, score)
        pdf.y += 4.4


def _write_table_header(
    pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace, column_width: float
) -> None:
    names = [(PAGE_LEFT, 18.0, texts.slice), (PAGE_LEFT + 20, 22.0, texts.area)]
    names += [
        (PAGE_LEFT + 44 + card_index * column_width, column_width - COLUMN_GAP, card.title)
        for card_index, card in enumerate(contents.marker_cards)
    ]
    pieces = [[Paragraph(name, 7, SECONDARY_COLOUR)] for *_, name in names]
    row_height = max(
        _measure_height(pdf, piece, width) for piece, (_, width, _) in zip(pieces, names, strict=True)
    )
    for piece, (x, width, _) in zip(pieces, names, strict=True):
        _draw_blocks(pdf, piece, x, pdf.y, width)
    pdf.y += row_height + 1
    _draw_rule(pdf, PAGE_LEFT, pdf.y, CONTENT_WIDTH, TEXT_COLOUR)
    pdf.y += 1


def _write_table_cell(
    pdf: ReportPdf, x: float, column_width: float, card: MarkerCard, score: Document | None
) -> None:
    if score is None or score["probability"] is None:
        return _draw_text_line(pdf, x, pdf.y + 3.2, Paragraph("–", 8))
    _draw_text_line(
        pdf, x, pdf.y + 3.2, Paragraph(format_percent(score["probability"]), 8, bold=score["decides"])
    )
    _draw_bar(
        pdf,
        x + 13,
        pdf.y + 0.9,
        column_width - 13 - COLUMN_GAP,
        2.4,
        score["probability"],
        card.marker_prediction["threshold"],
        score["decides"],
    )


def _write_contact_sheet(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    """Draw the slices with lesion, small; a dot marks those used for the prediction."""
    if not contents.contact_sheet:
        return
    lesion = contents.document["lesion"]
    sheet = thin_out(contents.contact_sheet, MAXIMUM_SHEET_IMAGES, lambda picture: picture.is_used)
    title_template = texts.sheet if len(sheet) >= len(lesion["areas_mm2"]) else texts.sheet_some
    title = (
        title_template.format(len(sheet), len(lesion["areas_mm2"])) if lesion["found"] else texts.sheet_none
    )
    key_texts = [
        texts.sheet_key.format(contents.contact_sheet_sequence),
        texts.dot_key if contents.has_used_slices else "",
    ]
    cell_width = CONTENT_WIDTH / IMAGES_PER_ROW
    cell_height = (cell_width - 1) * _compute_aspect_ratio(contents.contact_sheet[0].panels[0][1]) + 4
    _ensure_space(pdf, cell_height + 16)
    _write_heading(pdf, title, " ".join([*key_texts, "" if contents.large_images else texts.side_key]))
    for image_index, picture in enumerate(sheet):
        if image_index % IMAGES_PER_ROW == 0:
            pdf.y += cell_height if image_index else 0
            _ensure_space(pdf, cell_height)
        x = PAGE_LEFT + image_index % IMAGES_PER_ROW * cell_width
        _draw_image(pdf, picture.panels[0][1], x, pdf.y, cell_width - 1)
        mark = " ●" if picture.is_used else ""
        _draw_text_line(
            pdf,
            x,
            pdf.y + cell_height - 1.2,
            Paragraph(f"{picture.slice_name}{mark}", 6.5, ACCENT_COLOUR if mark else SECONDARY_COLOUR),
        )
    pdf.y += cell_height


def _write_model_section(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    document = contents.document
    model, sequences = document["model"], document["sequences"]
    states_assumed_spacing = document["input"]["spacing_assumed"] and not document["lesion"]["found"]
    facts = [
        (texts.model_name, model["name"]),
        (texts.intended_use, model["intended_use"]),
        (texts.trained_on, model["training_cohort"]),
        (texts.licence, model["licence"]),
        (texts.sha256, model["sha256"]),
        (texts.input_kind, texts.pictures if document["input"]["kind"] == "pictures" else texts.volumes),
        (texts.sequences_found, ", ".join(sequences["found"])),
        (texts.sequences_used, ", ".join(sequences["used"])),
        (texts.software, f"{document['software']['name']} {document['software']['version']}"),
    ]
    if document["seconds"] is not None:
        facts.append((texts.seconds, texts.seconds_value.format(format_decimals(document["seconds"], 1))))
    _ensure_space(pdf, 30)
    _write_heading(pdf, texts.model)
    _write_blocks(
        pdf,
        _create_bullet_blocks(
            [*([texts.assumed] if states_assumed_spacing else []), *document["notes"]], SECONDARY_COLOUR
        ),
    )
    pdf.y += 1
    for name, value in facts:
        _write_name_and_value(pdf, [Paragraph(name, 7, SECONDARY_COLOUR)], [Paragraph(value, 7.5)])


# ---- blocks -----------------------------------------------------------------------------------------


def _create_labelled_blocks(name: str, *texts: str) -> list[Block]:
    """Create a small grey label with its texts; empty if all texts are empty."""
    value_blocks = [Paragraph(text) for text in texts if text]
    return [Paragraph(name, 7, SECONDARY_COLOUR, space_before=1.5), *value_blocks] if value_blocks else []


def _create_bullet_blocks(texts: Sequence[str], colour: str = TEXT_COLOUR) -> list[Block]:
    return [Paragraph(f"–  {text}", 8, colour) for text in texts]


def _write_blocks(pdf: ReportPdf, blocks: Sequence[Block]) -> None:
    """Write blocks over the full width, continuing on the next page where needed."""
    for piece in blocks:
        _ensure_space(pdf, _measure_height(pdf, [piece], CONTENT_WIDTH))
        _draw_blocks(pdf, [piece], PAGE_LEFT, pdf.y, CONTENT_WIDTH)
        pdf.y += _measure_height(pdf, [piece], CONTENT_WIDTH)


def _write_columns(
    pdf: ReportPdf,
    columns: Sequence[Sequence[Block]],
    width_ratios: Sequence[float],
    *,
    has_rule: bool = False,
) -> None:
    """Write columns side by side with these width ratios, on one page if they fit on one."""
    available_width = CONTENT_WIDTH - COLUMN_GAP * (len(width_ratios) - 1)
    widths = [available_width * share / sum(width_ratios) for share in width_ratios]
    row_height = max(
        _measure_height(pdf, column, wide) for column, wide in zip(columns, widths, strict=False)
    )
    _ensure_space(pdf, row_height + 2)
    x = PAGE_LEFT
    for column, column_width in zip(columns, widths, strict=False):
        if has_rule:
            _draw_rule(pdf, x, pdf.y + 1, column_width, ACCENT_COLOUR, 0.8)
        _draw_blocks(pdf, column, x, pdf.y + (1 if has_rule else 0), column_width)
        x += column_width + COLUMN_GAP
    pdf.y += row_height + (3 if has_rule else 1)


def _write_name_and_value(pdf: ReportPdf, name: Sequence[Block], value: Sequence[Block]) -> None:
    """Write a narrow column with the name and a wide one with the value."""
    row_height = max(_measure_height(pdf, name, 40), _measure_height(pdf, value, CONTENT_WIDTH - 44))
    _ensure_space(pdf, row_height)
    _draw_blocks(pdf, name, PAGE_LEFT, pdf.y, 40)
    _draw_blocks(pdf, value, PAGE_LEFT + 44, pdf.y, CONTENT_WIDTH - 44)
    pdf.y += row_height + 0.4


def _write_box(pdf: ReportPdf, blocks: Sequence[Block], *, frame: str = "", fill: str = "") -> None:
    box_height = _measure_height(pdf, blocks, CONTENT_WIDTH - 8) + 4
    _ensure_space(pdf, box_height + 3)
    pdf.y += 2.5
    pdf.set_draw_color(frame or fill)
    pdf.set_fill_color(fill or "#ffffff")
    pdf.set_line_width(0.3)
    pdf.rect(PAGE_LEFT, pdf.y, CONTENT_WIDTH, box_height, style="DF")
    _draw_blocks(pdf, blocks, PAGE_LEFT + 4, pdf.y + 1.8, CONTENT_WIDTH - 8)
    pdf.y += box_height


def _write_heading(pdf: ReportPdf, title: str, key: str = "") -> None:
    pdf.y += 4
    _write_blocks(
        pdf, [Paragraph(title, 11.5, bold=True), *([Paragraph(key, 7, SECONDARY_COLOUR)] if key else [])]
    )
    pdf.y += 1.2


def _ensure_space(pdf: ReportPdf, height: float) -> bool:
    """Start a new page if less than ``height`` mm are left; return whether one was started."""
    if pdf.y + height <= PAGE_BOTTOM or pdf.y <= PAGE_TOP:
        return False
    pdf.add_page()
    pdf.y = PAGE_TOP
    return True


# ---- drawing ----------------------------------------------------------------------------------------


def _measure_height(pdf: ReportPdf, blocks: Sequence[Block], width: float) -> float:
    return sum(_measure_block_height(pdf, piece, width) for piece in blocks)


def _measure_block_height(pdf: ReportPdf, block: Block, width: float) -> float:
    if isinstance(block, ProbabilityBar):
        return 9.0
    return block.space_before + _compute_leading(block) * len(list(_break_lines(pdf, block, width)))


def _draw_blocks(pdf: ReportPdf, blocks: Sequence[Block], x: float, y: float, width: float) -> None:
    """Draw blocks below each other."""
    for piece in blocks:
        if isinstance(piece, ProbabilityBar):
            _draw_range_bracket(pdf, x, y + 1, width, piece.probability_range)
            _draw_bar(pdf, x, y + 2.4, width, 3.0, piece.probability, piece.threshold, piece.is_emphasised)
            _draw_threshold_label(pdf, x, y + 8.4, width, piece)
        else:
            for line_index, line in enumerate(_break_lines(pdf, piece, width)):
                base = y + piece.space_before + _compute_leading(piece) * (line_index + 0.78)
                _draw_text_line(pdf, x, base, Paragraph(line, piece.size, piece.colour, piece.bold))
        y += _measure_block_height(pdf, piece, width)


def _break_lines(pdf: ReportPdf, paragraph: Paragraph, width: float) -> Iterator[str]:
    """Break a paragraph at spaces, between Chinese characters, and within words longer than a line."""
    pdf.set_font("sans", size=paragraph.size)
    line = ""
    for token in _split_tokens(pdf, paragraph.text, width):
        if line and pdf.get_string_width((line + token).rstrip()) > width:
            yield line.rstrip()
            line = ""
        line = line + token if line or token.strip() else ""
    yield line.rstrip()


def _split_tokens(pdf: ReportPdf, text: str, width: float) -> Iterator[str]:
    for token in _TOKEN_PATTERN.findall(text.translate(CHARACTER_REPLACEMENTS)):
        if pdf.get_string_width(token) <= width:
            yield " " if token.isspace() else token
        else:
            yield from token


def _compute_leading(paragraph: Paragraph) -> float:
    return paragraph.size * MM_PER_POINT * (1.38 if paragraph.size < 14 else 1.3)


def _draw_text_line(pdf: ReportPdf, x: float, baseline: float, paragraph: Paragraph) -> None:
    """Draw one line of text; the font has a single weight, so bold text is drawn with a thin stroke."""
    pdf.set_font("sans", size=paragraph.size)
    pdf.set_text_color(paragraph.colour)
    pdf.set_draw_color(paragraph.colour)
    with pdf.local_context(
        text_mode="FILL_STROKE" if paragraph.bold else "FILL", line_width=paragraph.size * 0.011
    ):
        pdf.text(x, baseline, paragraph.text.translate(CHARACTER_REPLACEMENTS))


def _draw_bar(
    pdf: ReportPdf,
    x: float,
    y: float,
    width: float,
    height: float,
    probability: float,
    threshold: float | None,
    is_emphasised: bool,
) -> None:
    for share, colour in ((1.0, "#e7ebee"), (probability, ACCENT_COLOUR if is_emphasised else MUTED_COLOUR)):
        pdf.set_fill_color(colour)
        pdf.rect(x, y, width * min(max(share, 0.0), 1.0), height, style="F")
    if threshold is not None:
        threshold_x = x + width * min(max(threshold, 0.0), 1.0)
        pdf.set_draw_color(TEXT_COLOUR)
        pdf.set_line_width(0.35)
        pdf.line(threshold_x, y - 0.6, threshold_x, y + height + 0.6)


def _draw_range_bracket(
    pdf: ReportPdf, x: float, y: float, width: float, probability_range: Sequence[float] | None
) -> None:
    """Draw a bracket from the lowest to the highest probability, open towards the bar below."""
    if probability_range is None or probability_range[0] == probability_range[1]:
        return
    low, high = (x + width * share for share in probability_range)
    pdf.set_draw_color(TEXT_COLOUR)
    pdf.set_line_width(0.25)
    pdf.polyline([(low, y + 1), (low, y), (high, y), (high, y + 1)])


def _draw_threshold_label(
    pdf: ReportPdf, x: float, baseline: float, width: float, bar: ProbabilityBar
) -> None:
    """Draw the threshold's text under its line, within the width of the bar."""
    if bar.threshold is None:
        return
    pdf.set_font("sans", size=7)
    half = pdf.get_string_width(bar.label) / 2
    middle = min(max(width * bar.threshold, half), width - half)
    _draw_text_line(pdf, x + middle - half, baseline, Paragraph(bar.label, 7, SECONDARY_COLOUR))


def _draw_rule(pdf: ReportPdf, x: float, y: float, width: float, colour: str, thickness: float = 0.3) -> None:
    pdf.set_draw_color(colour)
    pdf.set_line_width(thickness)
    pdf.line(x, y, x + width, y)


def _draw_image(pdf: ReportPdf, image: Image.Image, x: float, y: float, width: float) -> Any:
    return pdf.image(io.BytesIO(encode_jpeg(image)), x, y, width)


def _compute_aspect_ratio(image: Image.Image) -> float:
    return image.height / image.width

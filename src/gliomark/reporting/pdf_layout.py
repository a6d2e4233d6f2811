"""Text, bars, columns, boxes and images on the pages of the PDF report.

Its only font, Noto Sans SC, covers Latin and Chinese and is embedded, so that every viewer shows every id. Lengths
are in mm, font sizes in points.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pylopdf_fonts_zh_cn as fonts
from fpdf import FPDF
from PIL import Image

from gliomark.reporting.drawing import encode_jpeg

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
    """A probability (0 to 1) as a bar, with marks at the threshold or at the limits of "cannot tell".

    is_emphasised: drawn in the accent colour. label: written below the marks. probability_range: drawn as a bracket
    above the bar, unless it is empty.
    """

    probability: float
    marks: Sequence[float]
    is_emphasised: bool
    label: str = ""
    probability_range: Sequence[float] = ()


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


def create_labelled_blocks(name: str, *texts: str) -> list[Block]:
    """Create a small grey label with its texts; empty if all texts are empty."""
    value_blocks = [Paragraph(text) for text in texts if text]
    return [Paragraph(name, 7, SECONDARY_COLOUR, space_before=1.5), *value_blocks] if value_blocks else []


def create_bullet_blocks(texts: Sequence[str], colour: str = TEXT_COLOUR) -> list[Block]:
    """Create one paragraph with a dash for each text."""
    return [Paragraph(f"–  {text}", 8, colour) for text in texts]


def write_blocks(pdf: ReportPdf, blocks: Sequence[Block]) -> None:
    """Write blocks over the full width, continuing on the next page where needed."""
    for piece in blocks:
        ensure_space(pdf, measure_height(pdf, [piece], CONTENT_WIDTH))
        draw_blocks(pdf, [piece], PAGE_LEFT, pdf.y, CONTENT_WIDTH)
        pdf.y += measure_height(pdf, [piece], CONTENT_WIDTH)


def write_columns(
    pdf: ReportPdf,
    columns: Sequence[Sequence[Block]],
    width_ratios: Sequence[float],
    *,
    has_rule: bool = False,
) -> None:
    """Write columns side by side with these width ratios, on one page if they fit on one."""
    available_width = CONTENT_WIDTH - COLUMN_GAP * (len(width_ratios) - 1)
    widths = [available_width * share / sum(width_ratios) for share in width_ratios]
    row_height = max(measure_height(pdf, column, wide) for column, wide in zip(columns, widths, strict=False))
    ensure_space(pdf, row_height + 2)
    x = PAGE_LEFT
    for column, column_width in zip(columns, widths, strict=False):
        if has_rule:
            draw_rule(pdf, x, pdf.y + 1, column_width, ACCENT_COLOUR, 0.8)
        draw_blocks(pdf, column, x, pdf.y + (1 if has_rule else 0), column_width)
        x += column_width + COLUMN_GAP
    pdf.y += row_height + (3 if has_rule else 1)


def write_name_and_value(pdf: ReportPdf, name: Sequence[Block], value: Sequence[Block]) -> None:
    """Write a narrow column with the name and a wide one with the value."""
    row_height = max(measure_height(pdf, name, 40), measure_height(pdf, value, CONTENT_WIDTH - 44))
    ensure_space(pdf, row_height)
    draw_blocks(pdf, name, PAGE_LEFT, pdf.y, 40)
    draw_blocks(pdf, value, PAGE_LEFT + 44, pdf.y, CONTENT_WIDTH - 44)
    pdf.y += row_height + 0.4


def write_box(pdf: ReportPdf, blocks: Sequence[Block], *, frame: str = "", fill: str = "") -> None:
    """Write blocks in a box; frame, fill: its colours, none if empty."""
    box_height = measure_height(pdf, blocks, CONTENT_WIDTH - 8) + 4
    ensure_space(pdf, box_height + 3)
    pdf.y += 2.5
    pdf.set_draw_color(frame or fill)
    pdf.set_fill_color(fill or "#ffffff")
    pdf.set_line_width(0.3)
    pdf.rect(PAGE_LEFT, pdf.y, CONTENT_WIDTH, box_height, style="DF")
    draw_blocks(pdf, blocks, PAGE_LEFT + 4, pdf.y + 1.8, CONTENT_WIDTH - 8)
    pdf.y += box_height


def write_heading(pdf: ReportPdf, title: str, key: str = "") -> None:
    """Write a section's heading; key: explanation of symbols, on the right."""
    pdf.y += 4
    write_blocks(
        pdf, [Paragraph(title, 11.5, bold=True), *([Paragraph(key, 7, SECONDARY_COLOUR)] if key else [])]
    )
    pdf.y += 1.2


def ensure_space(pdf: ReportPdf, height: float) -> bool:
    """Start a new page if less than ``height`` mm are left; return whether one was started."""
    if pdf.y + height <= PAGE_BOTTOM or pdf.y <= PAGE_TOP:
        return False
    pdf.add_page()
    pdf.y = PAGE_TOP
    return True


def measure_height(pdf: ReportPdf, blocks: Sequence[Block], width: float) -> float:
    """Measure the height of blocks below each other; width and result in mm."""
    return sum(_measure_block_height(pdf, piece, width) for piece in blocks)


def _measure_block_height(pdf: ReportPdf, block: Block, width: float) -> float:
    if isinstance(block, ProbabilityBar):
        return 9.0
    return block.space_before + _compute_leading(block) * len(list(_break_lines(pdf, block, width)))


def draw_blocks(pdf: ReportPdf, blocks: Sequence[Block], x: float, y: float, width: float) -> None:
    """Draw blocks below each other."""
    for piece in blocks:
        if isinstance(piece, ProbabilityBar):
            _draw_range_bracket(pdf, x, y + 1, width, piece.probability_range)
            draw_bar(pdf, x, y + 2.4, width, 3.0, piece.probability, piece.marks, piece.is_emphasised)
            _draw_marks_label(pdf, x, y + 8.8, width, piece)
        else:
            for line_index, line in enumerate(_break_lines(pdf, piece, width)):
                base = y + piece.space_before + _compute_leading(piece) * (line_index + 0.78)
                draw_text_line(pdf, x, base, Paragraph(line, piece.size, piece.colour, piece.bold))
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


def draw_text_line(pdf: ReportPdf, x: float, baseline: float, paragraph: Paragraph) -> None:
    """Draw one line of text; the font has a single weight, so bold text is drawn with a thin stroke."""
    pdf.set_font("sans", size=paragraph.size)
    pdf.set_text_color(paragraph.colour)
    pdf.set_draw_color(paragraph.colour)
    with pdf.local_context(
        text_mode="FILL_STROKE" if paragraph.bold else "FILL", line_width=paragraph.size * 0.011
    ):
        pdf.text(x, baseline, paragraph.text.translate(CHARACTER_REPLACEMENTS))


def draw_bar(
    pdf: ReportPdf,
    x: float,
    y: float,
    width: float,
    height: float,
    probability: float,
    marks: Sequence[float],
    is_emphasised: bool,
) -> None:
    """Draw a horizontal bar filled to a probability, with vertical marks, joined if there are two; lengths in mm."""
    for share, colour in ((1.0, "#e7ebee"), (probability, ACCENT_COLOUR if is_emphasised else MUTED_COLOUR)):
        pdf.set_fill_color(colour)
        pdf.rect(x, y, width * min(max(share, 0.0), 1.0), height, style="F")
    marks_x = [x + width * min(max(mark, 0.0), 1.0) for mark in marks]
    pdf.set_draw_color(TEXT_COLOUR)
    pdf.set_line_width(0.35)
    for mark_x in marks_x:
        pdf.line(mark_x, y - 0.6, mark_x, y + height + 0.6)
    if len(marks_x) > 1:
        pdf.line(marks_x[0], y + height + 0.6, marks_x[-1], y + height + 0.6)


def _draw_range_bracket(
    pdf: ReportPdf, x: float, y: float, width: float, probability_range: Sequence[float]
) -> None:
    """Draw a bracket from the lowest to the highest probability, open towards the bar below."""
    if not probability_range or probability_range[0] == probability_range[1]:
        return
    low, high = (x + width * share for share in probability_range)
    pdf.set_draw_color(TEXT_COLOUR)
    pdf.set_line_width(0.25)
    pdf.polyline([(low, y + 1), (low, y), (high, y), (high, y + 1)])


def _draw_marks_label(pdf: ReportPdf, x: float, baseline: float, width: float, bar: ProbabilityBar) -> None:
    """Draw the text of the marks under them, within the width of the bar."""
    if not bar.marks:
        return
    pdf.set_font("sans", size=7)
    half = pdf.get_string_width(bar.label) / 2
    middle = min(max(width * sum(bar.marks) / len(bar.marks), half), width - half)
    draw_text_line(pdf, x + middle - half, baseline, Paragraph(bar.label, 7, SECONDARY_COLOUR))


def draw_rule(pdf: ReportPdf, x: float, y: float, width: float, colour: str, thickness: float = 0.3) -> None:
    """Draw a horizontal line; all lengths in mm."""
    pdf.set_draw_color(colour)
    pdf.set_line_width(thickness)
    pdf.line(x, y, x + width, y)


def draw_image(pdf: ReportPdf, image: Image.Image, x: float, y: float, width: float) -> Any:
    """Draw an image as JPEG; position and width in mm."""
    return pdf.image(io.BytesIO(encode_jpeg(image)), x, y, width)


def compute_aspect_ratio(image: Image.Image) -> float:
    """Compute height / width."""
    return image.height / image.width

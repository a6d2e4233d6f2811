"""A page of results (``study.html.j2``, ``evaluation.html.j2``) as a PDF file for a publication's supplement.

The page itself is converted, so that both say the same: headings, paragraphs, lists, facts, tables and plots. Plots
must have their text as paths (``plots.render_inline_svg``), because the PDF has one font. Lengths are in mm.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from fpdf.fonts import FontFace

from gliomark.reporting.pdf_layout import (
    ACCENT_COLOUR,
    CHARACTER_REPLACEMENTS,
    CONTENT_WIDTH,
    LINE_COLOUR,
    PAGE_BOTTOM,
    PAGE_LEFT,
    PAGE_TOP,
    SECONDARY_COLOUR,
    TEXT_COLOUR,
    Paragraph,
    ReportPdf,
    draw_blocks,
    ensure_space,
    measure_height,
    write_blocks,
)
from gliomark.reporting.plots import PLOT_SIZE

TABLE_FONT_SIZE, TABLE_LINE_HEIGHT, CELL_PADDING = 7.0, 3.6, 2.0
FACTS_PER_ROW, PLOTS_PER_ROW, PLOT_GAP = 3, 3, 5.0
PLOT_ASPECT_RATIO = PLOT_SIZE[1] / PLOT_SIZE[0]
HEADING_SPACE = 45.0  # a heading stands above at least as much of its section

_PARAGRAPHS: dict[str, Paragraph] = {
    "h1": Paragraph("", 16, bold=True),
    "h2": Paragraph("", 11.5, bold=True, space_before=5),
    "marker": Paragraph("", 14, ACCENT_COLOUR, bold=True, space_before=8),
    "p": Paragraph("", 8, space_before=1),
    "key": Paragraph("", 7, SECONDARY_COLOUR),
    "brand": Paragraph("", 8, ACCENT_COLOUR, bold=True),
    "li": Paragraph("–  ", 8),
}
_SVG_PATTERN = re.compile(r"<svg.*?</svg>", re.DOTALL)
_TEXT_TAGS = ("title", "h1", "h2", "p", "li", "dt", "dd", "figcaption", "td", "th")


@dataclass
class _Cell:
    """A table cell; lines: the value, and its interval below it."""

    is_number: bool
    lines: list[str] = field(default_factory=lambda: [""])


def render_page_as_pdf(page: str) -> bytes:
    """Convert a page to A4.

    page: HTML of one of this package's templates.
    """
    pdf = ReportPdf("")
    pdf.set_margins(PAGE_LEFT, PAGE_TOP)
    pdf.add_page()
    # XML, which the parser of HTML would not keep as it is
    converter = _PageConverter(pdf, iter(_SVG_PATTERN.findall(page)))
    converter.feed(_SVG_PATTERN.sub("<svg></svg>", page))
    converter.close()
    return bytes(pdf.output())


class _PageConverter(HTMLParser):
    """Writes the elements of a page as they are closed."""

    def __init__(self, pdf: ReportPdf, drawings: Iterator[str]) -> None:
        super().__init__()
        self.pdf, self.drawings = pdf, drawings
        self.text, self.css_class = "", ""
        self.rows: list[list[_Cell]] = []
        self.facts: list[tuple[str, str]] = []
        self.plots: list[tuple[str, str]] = []
        self.label = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        css_class = dict(attrs).get("class") or ""
        if tag in _TEXT_TAGS:
            self.text, self.css_class = "", css_class
            if tag in ("td", "th"):
                self.rows[-1].append(_Cell(css_class == "n"))
        elif tag == "tr":
            self.rows.append([])
        elif tag == "small":
            self.rows[-1][-1].lines.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1].lines[-1] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        text = " ".join(self.text.split())
        if tag in ("h1", "h2", "p", "li"):
            self._write_paragraph(tag, text)
        elif tag == "title":
            self.pdf.notice = text
        elif tag in ("dt", "figcaption"):
            self.label = text
        elif tag == "svg":
            self.plots.append((self.label, next(self.drawings)))
        elif tag == "dd":
            self.facts.append((self.label, text))
        elif tag == "dl":
            _write_facts(self.pdf, self.facts)
            self.facts = []
        elif tag == "table":
            _write_table(self.pdf, self.rows)
            self.rows = []
        elif tag == "div" and self.plots:
            _write_plots(self.pdf, self.plots)
            self.plots = []

    def _write_paragraph(self, tag: str, text: str) -> None:
        style = _PARAGRAPHS.get(self.css_class, _PARAGRAPHS[tag])
        if tag in ("h1", "h2"):
            ensure_space(self.pdf, HEADING_SPACE)
        block = Paragraph(style.text + text, style.size, style.colour, style.bold, style.space_before)
        write_blocks(self.pdf, [block])


def _write_facts(pdf: ReportPdf, facts: Sequence[tuple[str, str]]) -> None:
    """Write names with their values below them, in columns."""
    width = CONTENT_WIDTH / FACTS_PER_ROW
    for start in range(0, len(facts), FACTS_PER_ROW):
        columns = [
            [Paragraph(name, 7, SECONDARY_COLOUR, space_before=2), Paragraph(value, 10, bold=True)]
            for name, value in facts[start : start + FACTS_PER_ROW]
        ]
        height = max(measure_height(pdf, column, width) for column in columns)
        ensure_space(pdf, height)
        for index, column in enumerate(columns):
            draw_blocks(pdf, column, PAGE_LEFT + index * width, pdf.y, width - PLOT_GAP)
        pdf.y += height


def _write_plots(pdf: ReportPdf, plots: Sequence[tuple[str, str]]) -> None:
    """Write plots, as caption and SVG, side by side."""
    width = (CONTENT_WIDTH - PLOT_GAP * (PLOTS_PER_ROW - 1)) / PLOTS_PER_ROW
    for start in range(0, len(plots), PLOTS_PER_ROW):
        height = width * PLOT_ASPECT_RATIO + 8
        ensure_space(pdf, height)
        for index, (caption, svg) in enumerate(plots[start : start + PLOTS_PER_ROW]):
            x = PAGE_LEFT + index * (width + PLOT_GAP)
            draw_blocks(pdf, [Paragraph(caption, 7, bold=True, space_before=2)], x, pdf.y, width)
            pdf.image(io.BytesIO(svg.encode()), x, pdf.y + 6, width)
        pdf.y += height


def _write_table(pdf: ReportPdf, rows: Sequence[Sequence[_Cell]]) -> None:
    """Write a table whose first row is its heading, which is repeated on every page."""
    if not rows:
        return
    pdf.set_font("sans", size=TABLE_FONT_SIZE)
    pdf.set_draw_color(LINE_COLOUR)
    pdf.set_line_width(0.2)
    pdf.set_text_color(TEXT_COLOUR)
    pdf.set_auto_page_break(True, margin=pdf.h - PAGE_BOTTOM)
    pdf.set_y(pdf.y + 1.5)
    widths = _compute_column_widths(pdf, rows)
    options: dict[str, Any] = {
        "col_widths": widths,
        "width": sum(widths),
        "text_align": ["RIGHT" if cell.is_number else "LEFT" for cell in rows[0]],
    }
    with pdf.table(
        align="LEFT",
        borders_layout="HORIZONTAL_LINES",
        headings_style=FontFace(color=SECONDARY_COLOUR),
        line_height=TABLE_LINE_HEIGHT,
        padding=(0.6, CELL_PADDING, 0.6, 0),
        **options,
    ) as table:
        for row in rows:
            cells = table.row()
            for cell in row:
                cells.cell(_join_lines(cell))
    pdf.set_auto_page_break(False)


def _join_lines(cell: _Cell) -> str:
    return "\n".join(cell.lines).translate(CHARACTER_REPLACEMENTS)


def _compute_column_widths(pdf: ReportPdf, rows: Sequence[Sequence[_Cell]]) -> list[float]:
    """Compute the width of every column: that of its longest line, the widest columns narrowed to fit the page."""
    widths = []
    for column in zip(*rows, strict=True):
        lines = (line for cell in column for line in _join_lines(cell).split("\n"))
        widths.append(max(pdf.get_string_width(line) for line in lines) + CELL_PADDING + 1.5)
    limit = max(widths)
    while sum(min(width, limit) for width in widths) > CONTENT_WIDTH:
        limit -= 0.5
    return [min(width, limit) for width in widths]

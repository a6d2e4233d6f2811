"""Pages of results as PDF: what the page says, in its order, within the margins, and the plots as drawings."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pypdfium2
import pypdfium2.raw
import pytest

from gliomark.evaluation.evaluate import PredictionColumns, evaluate_predictions, read_predictions
from gliomark.reporting.evaluation_page import write_evaluation
from gliomark.reporting.page_pdf import render_page_as_pdf
from gliomark.reporting.pdf_layout import CONTENT_WIDTH, MM_PER_POINT, PAGE_LEFT
from gliomark.reporting.plots import render_inline_svg

Render = Callable[[str], pypdfium2.PdfDocument]


@pytest.fixture
def render() -> Render:
    def open_pdf(body: str) -> pypdfium2.PdfDocument:
        page = (
            f"<html><head><title>T</title><style>p {{ color: #000 }}</style></head><main>{body}</main></html>"
        )
        return pypdfium2.PdfDocument(render_page_as_pdf(page))

    return open_pdf


def read_text(page: pypdfium2.PdfPage) -> str:
    return " ".join(page.get_textpage().get_text_bounded().split())


class TextParser(HTMLParser):
    """Collects the text of a page outside its drawings and its head."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped, self.texts = 0, [""]

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.skipped += tag in ("svg", "head")

    def handle_endtag(self, tag: str) -> None:
        self.skipped -= tag in ("svg", "head")

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.texts.append(" ".join(data.split()))


def test_the_pdf_of_an_evaluation_says_what_its_page_says(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    scores = 1 / (1 + np.exp(-(2 * labels - 1 + random.normal(size=60))))
    rows = [
        f"P{n},{label},{score:.4f},{'东院' if n < 30 else '<West>'}"
        for n, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    table = tmp_path / "东院.csv"
    table.write_text("\n".join(["id,label,probability,site", *rows]), "utf-8")
    evaluation = evaluate_predictions(read_predictions(table, PredictionColumns(site="site")))
    page = write_evaluation(evaluation, tmp_path / "out")
    document = pypdfium2.PdfDocument(page.with_suffix(".pdf"))
    found = " ".join(map(read_text, document)).replace(" ", "")
    parser = TextParser()
    parser.feed(page.read_text("utf-8"))
    written = [
        text.translate(str.maketrans({"’": "'", "“": '"', "”": '"', "·": "–"}))
        for text in parser.texts
        if text
    ]
    assert len(written) > 80
    assert [text for text in written if text.replace(" ", "") not in found] == []
    drawings = [
        one for page in document for one in page.get_objects() if one.type == pypdfium2.raw.FPDF_PAGEOBJ_PATH
    ]
    assert len(drawings) > 100, "the plots are missing"


def test_a_long_table_repeats_its_heading_and_stays_within_the_margins(render: Render) -> None:
    cells = "".join(f"<td>{'word ' * 12}{n}</td>" for n in range(4))
    rows = "".join(f"<tr><td class='n'>{row}</td>{cells}</tr>" for row in range(60))
    heading = "<tr><th class='n'>Row</th>" + "".join(f"<th>Column {n}</th>" for n in range(4)) + "</tr>"
    document = render(f"<h2>Table</h2><table><thead>{heading}</thead><tbody>{rows}</tbody></table>")
    texts = list(map(read_text, document))
    assert len(texts) > 1 and all("Row Column 0 Column 1 Column 2 Column 3" in text for text in texts)
    assert "59 word" in texts[-1] and f"T {len(texts)} / {len(texts)}" in texts[-1]
    left, right = PAGE_LEFT / MM_PER_POINT, (PAGE_LEFT + CONTENT_WIDTH) / MM_PER_POINT
    for page in document:
        for one in page.get_objects():
            x_low, _, x_high, _ = one.get_bounds()
            assert left - 1 <= x_low and x_high <= right + 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<p>one <b>two</b> three</p>", "one two three"),
        ("<ul><li>first</li><li>second &lt;b&gt; &amp;</li></ul>", "– first – second <b> &"),
        ("<dl><div><dt>AUC</dt><dd>0.9</dd></div></dl><p>after</p>", "AUC 0.9 after"),
        (
            "<table><tr><th>a</th></tr><tr><td>1<small>0 to 2</small></td></tr></table><p>after</p>",
            "a 1 0 to 2 after",
        ),
        ("<table></table><p>an empty table</p>", "an empty table"),
        ("<h2 class='marker'>Ki-67 指数</h2>", "Ki-67 指数"),
    ],
)
def test_elements_of_a_page(render: Render, body: str, expected: str) -> None:
    assert read_text(render(body)[0]) == f"{expected} T 1 / 1"


def test_a_heading_stands_on_the_page_of_its_section(render: Render) -> None:
    document = render("<p>text</p>" * 66 + "<h2>Heading</h2><p>of the section</p>")
    page = next(text for text in map(read_text, document) if "Heading" in text)
    assert "Heading of the section" in page and document[0] is not None


def test_plots_are_drawn_side_by_side_under_their_captions(render: Render) -> None:
    svg = render_inline_svg(lambda axes: axes.plot([0, 1], [0, 1]), is_text_drawn=True)
    figures = "".join(f"<figure><figcaption>Plot {n}</figcaption>{svg}</figure>" for n in range(4))
    page = render(f"<div class='plots'>{figures}</div>")[0]
    assert "Plot 0 Plot 1 Plot 2" in read_text(page) and "Plot 3" in read_text(page)
    width = CONTENT_WIDTH / MM_PER_POINT
    lefts = [
        one.get_bounds()[0] - PAGE_LEFT / MM_PER_POINT
        for one in page.get_objects()
        if one.type == pypdfium2.raw.FPDF_PAGEOBJ_PATH
    ]
    assert min(lefts) < width / 3 and max(lefts) > 2 * width / 3

"""The PDF report: both languages, fonts fully embedded, few pages, nothing outside the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pypdfium2
import pytest

from gliomark.prediction import Prediction
from gliomark.reporting import render_pdf
from gliomark.reporting.pdf_layout import COLUMN_GAP, CONTENT_WIDTH, MM_PER_POINT, PAGE_LEFT
from gliomark.study import READER_SEGMENTATION_RULE, Segmentation

Make = Callable[..., Prediction]
LONG = (
    "the patients it was tested on were few and all of one hospital, so this may be quite different elsewhere; "
    * 5
)


def read_pages(prediction: Prediction, language: str = "en") -> list[str]:
    """The text of each page with its lines joined."""
    document = pypdfium2.PdfDocument(render_pdf(prediction, language))  # type: ignore[arg-type]
    return [" ".join(page.get_textpage().get_text_bounded().split()) for page in document]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        (
            "en",
            ["Research use only. Not a medical device.", "wild type", "30 %", "threshold 50 %", "51 years"],
        ),
        ("zh", ["仅供科研使用，不是医疗器械。", "野生型", "30 %", "阈值 50 %", "51 岁", "用于预测的层面"]),
    ],
)
def test_the_pdf_has_the_contents_of_the_report(
    make_prediction: Make, language: str, expected: list[str]
) -> None:
    page_texts = read_pages(make_prediction(), language)
    assert len(page_texts) <= 2
    for text in (*expected, "a warning", "AUC 0.7", "what idh means", "ab" * 32, "CC BY-NC-SA 4.0", "−0.40"):
        assert text in " ".join(page_texts), text
    order = [" ".join(page_texts).index(text) for text in (*expected[:3], "AUC 0.7", "ab" * 32)]
    assert order == sorted(order)
    assert f"1 / {len(page_texts)}" in page_texts[0]


def test_chinese_ids_are_shown_in_an_english_report(make_prediction: Make) -> None:
    pdf = render_pdf(make_prediction(patient_id="住院号 07 王小明/龍"))
    page = pypdfium2.PdfDocument(pdf)[0]
    assert "住院号 07 王小明/龍" in page.get_textpage().get_text_bounded()
    assert pdf.count(b"/FontFile3") == pdf.count(b"/Type /FontDescriptor") == 1  # only embedded fonts


def test_long_texts_stay_within_the_page(make_prediction: Make) -> None:
    prediction = make_prediction(patient_id="X" * 200, warnings=tuple([LONG] * 6))
    markers = tuple(
        replace(m, label=LONG, performance=LONG, warnings=(LONG, LONG)) for m in prediction.markers
    )
    document = pypdfium2.PdfDocument(render_pdf(replace(prediction, markers=markers * 2)))
    for page in document:
        text = page.get_textpage()
        boxes = np.array([text.get_charbox(at) for at in range(text.count_chars())]) * MM_PER_POINT
        boxes = boxes[boxes[:, 2] > boxes[:, 0]]
        assert boxes[:, 0].min() > PAGE_LEFT - 1 and boxes[:, 2].max() < PAGE_LEFT + CONTENT_WIDTH + 1
        assert boxes[:, 1].min() > 5 and boxes[:, 3].max() < 297 - 10


def test_the_outline_is_coloured_and_on_the_patients_left(make_prediction: Make) -> None:
    page = pypdfium2.PdfDocument(render_pdf(make_prediction()))[0]
    pictures = [one for one in page.get_objects() if isinstance(one, pypdfium2.PdfImage)]
    assert len(pictures) == 2  # the single used slice of the fixture, in two sequences
    picture = np.asarray(pictures[0].get_bitmap().to_pil().convert("RGB")).astype(int)
    yellow = np.argwhere(picture[..., 0] - picture[..., 2] > 120)
    assert len(yellow) > 50 and yellow[:, 1].min() > picture.shape[1] / 2


@pytest.mark.parametrize(
    ("language", "expected_text"),
    [("en", "Range across lesion slices 12 % to 52 %"), ("zh", "各病灶层面的概率范围 12 % 至 52 %")],
)
def test_the_range_is_stated_and_drawn_above_the_bar(
    make_prediction: Make, language: str, expected_text: str
) -> None:
    prediction = make_prediction()
    assert " ".join(read_pages(prediction, language)).count(expected_text) == 2
    bar_width = (CONTENT_WIDTH - COLUMN_GAP) / 2
    expected_edges = (PAGE_LEFT + 0.12 * bar_width, PAGE_LEFT + 0.52 * bar_width)
    assert [
        found for found in list_shape_edges(prediction) if found == pytest.approx(expected_edges, abs=0.4)
    ]


def list_shape_edges(prediction: Prediction) -> list[tuple[float, float]]:
    """Left and right edge in mm of every shape on the first page."""
    page = pypdfium2.PdfDocument(render_pdf(prediction))[0]
    shapes = page.get_objects(filter=[pypdfium2.raw.FPDF_PAGEOBJ_PATH])
    return [
        (MM_PER_POINT * left, MM_PER_POINT * right)
        for left, _, right, _ in (shape.get_bounds() for shape in shapes)
    ]


def test_a_single_slice_has_no_range(make_prediction: Make) -> None:
    prediction = make_prediction()
    markers = tuple(replace(m, slices=tuple(s for s in m.slices if s.decides)) for m in prediction.markers)
    text = " ".join(read_pages(replace(prediction, markers=markers)))
    assert "30 %" in text and "Range across" not in text


def test_an_outline_by_the_reader_is_not_attributed_to_the_model(make_prediction: Make) -> None:
    prediction = make_prediction()
    drawn = replace(prediction.segmentation, rule=READER_SEGMENTATION_RULE)
    text = " ".join(read_pages(replace(prediction, segmentation=drawn)))
    assert "lesion outline by the reader" in text and "outline by the model" not in text


def test_a_missing_lesion_and_the_readers_finding_are_reported(make_prediction: Make) -> None:
    prediction = make_prediction()
    idh = replace(prediction.markers[0], level="mutant", decided_by="reader's finding")
    text = " ".join(read_pages(replace(prediction, markers=(idh,))))
    assert "mutant From the reader's finding" in text
    assert 'For comparison, the model\'s probability of "mutant" 30 %' in text
    empty = np.zeros_like(prediction.segmentation.mask)
    segmentation = Segmentation(empty.astype(np.float32), empty, "union")
    blank = replace(
        idh, probability=None, threshold=None, level="undetermined", slices=(), contributions=None
    )
    nothing = replace(prediction, segmentation=segmentation, lesion_areas_mm2={}, markers=(blank,))
    text = " ".join(read_pages(nothing))
    assert "No lesion was found" in text and "threshold" not in text and "undetermined" in text

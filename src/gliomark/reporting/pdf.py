"""The report as a PDF of few pages, to print or to send: the same facts as the page, in the same order.

Its one font, Noto Sans SC, holds Latin and Chinese and is embedded, so that any viewer shows any id. Lengths are mm,
sizes points.
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

from gliomark.messages import percent
from gliomark.reporting.contents import (
    Card,
    Contents,
    Document,
    Picture,
    contents,
    decimals,
    signed,
    thinned,
)
from gliomark.reporting.document import prediction_document
from gliomark.reporting.drawing import jpeg
from gliomark.reporting.text import Language, strings
from gliomark.study import Prediction

INK, SOFT, LINE, WASH, ACCENT, PALE = "#14181b", "#56616a", "#d9dfe3", "#f4f7f8", "#0b5f78", "#9fb4be"
LEFT, TOP, WIDTH, BOTTOM = 16.0, 14.0, 178.0, 280.0
POINT = 25.4 / 72
GAP = 8.0  # between columns
SHEET_ROW, MOST_SMALL = 12, 21  # pictures in a row, and altogether those that did not decide
# Width of the largest lesion's picture, and the least that it shrinks to on what is left of a page.
PANEL, SMALL_PANEL = 57.0, 44.0
# In this font these are as wide as a Chinese character, which tears English apart.
PLAIN = str.maketrans({"’": "'", "“": '"', "”": '"', "·": "–", "\u2009": " "})
# Chinese may break between any two characters, but no line starts with what closes.
_TOKENS = re.compile(
    r"\s+|[\u2e80-\u9fff\uf900-\uff60](?:[，。、；：？！）”’》])*|[^\s\u2e80-\u9fff\uf900-\uff60]+"
)

logging.getLogger("fpdf").setLevel(
    logging.ERROR
)  # a script that the font lacks prints as boxes, and it would tell


@dataclass(frozen=True)
class Text:
    """A paragraph. before: space above it."""

    text: str
    size: float = 8.0
    colour: str = INK
    bold: bool = False
    before: float = 0.0


@dataclass(frozen=True)
class Bar:
    """A probability from 0 to 1 with its threshold; strong where it is what decided; bracket: the range above it."""

    probability: float
    threshold: float | None
    strong: bool
    label: str = ""
    bracket: Sequence[float] | None = None


Piece = Text | Bar


class Pages(FPDF):
    """A4 with the research notice at the foot of each page."""

    def __init__(self, notice: str) -> None:
        super().__init__(format="A4")
        self.notice = notice
        self.set_auto_page_break(False)
        self.add_font("sans", fname=fonts.sans_path())

    def footer(self) -> None:
        self.set_font("sans", size=7.5)
        self.set_text_color(SOFT)
        self.set_xy(LEFT - self.c_margin, 284)
        self.cell(
            text=f"{self.notice}    {self.page_no()} / {{nb}}"
        )  # cell alone fills in the number of pages


def render_pdf(prediction: Prediction, language: Language = "en") -> bytes:
    """The report as a PDF file."""
    return typeset(contents(prediction, prediction_document(prediction), language), language)


def typeset(shown: Contents, language: Language) -> bytes:
    """The PDF of a report's gathered contents."""
    t, document = strings(language, shown.drawn_by_reader), shown.document
    pdf = Pages(t.research)
    pdf.set_title(f"{document['patient_id']} · {t.title}")
    pdf.set_lang(t.html_lang)
    pdf.set_creator(f"gliomark {document['software']['version']}")
    pdf.set_creation_date(datetime.fromisoformat(document["created"]))
    pdf.add_page()
    pdf.y = TOP
    for part in (_head, _answer, _deciding, _lesion, _table, _sheet, _model):
        part(pdf, shown, t)
    return bytes(pdf.output())


# ---- the parts --------------------------------------------------------------------------------------


def _head(pdf: Pages, shown: Contents, t: SimpleNamespace) -> None:
    document = shown.document
    _flow(
        pdf,
        [
            Text(f"gliomark – {t.title}", 9, ACCENT, bold=True),
            Text(document["patient_id"], 19, bold=True, before=2),
        ],
    )
    age, sex, made = document["age"], document["sex"], document["created"]
    facts = [
        (t.age, t.not_stated if age is None else t.years.format(f"{age:g}")),
        (t.sex, t.not_stated if sex is None else (t.male, t.female)[sex]),
        (t.images, shown.images),
        (t.date, f"{made[:10]} {made[11:16]} UTC"),
    ]
    _columns(pdf, [[Text(name, 7, SOFT, before=2), Text(value, 9)] for name, value in facts], (1, 1, 1, 1))
    _boxed(pdf, [Text(t.research, bold=True), Text(t.research_more)], frame=INK)
    if document["warnings"]:
        _boxed(pdf, [Text(t.warnings, bold=True), *_bullets(document["warnings"])], fill=WASH)
    if not document["lesion"]["found"]:
        _boxed(pdf, [Text(t.no_lesion, 15, bold=True), Text(t.no_lesion_more, 9, before=1)], frame=INK)


def _answer(pdf: Pages, shown: Contents, t: SimpleNamespace) -> None:
    if shown.cards:
        _heading(pdf, t.answer)
    found = shown.document["lesion"]["found"]
    if len(shown.cards) == 1:
        halves = [_level(shown.cards[0], t, found), _grounds(shown.cards[0], t)]
        _columns(pdf, halves if halves[1] else halves[:1], (1, 1) if halves[1] else (1,), rule=True)
        return
    for at in range(0, len(shown.cards), 2):
        pair = [[*_level(card, t, found), *_grounds(card, t)] for card in shown.cards[at : at + 2]]
        _columns(pdf, pair, (1, 1), rule=True)


def _level(card: Card, t: SimpleNamespace, found: bool) -> list[Piece]:
    """One marker's answer, in the order of the page's card."""
    answer = card.answer
    pieces: list[Piece] = [
        Text(card.title, 9, SOFT, before=2),
        Text(card.level, 18, ACCENT if card.is_known else SOFT, bold=card.is_known),
    ]
    if card.by_reader:
        pieces += [Text(t.by_reader, bold=True), Text(t.by_reader_more)]
    if answer["probability"] is not None:
        pieces += [*_named(t.positive, card.meaning), *_probability(card, t)]
    elif found and not card.warnings:
        pieces.append(Text(t.no_probability, before=1.5))
    if card.warnings:
        pieces += [Text(t.warn_here, bold=True, before=1.5), *_bullets(card.warnings)]
    return pieces


def _grounds(card: Card, t: SimpleNamespace) -> list[Piece]:
    """What the answer rests on and how far it can be trusted."""
    answer, pieces = card.answer, list[Piece]()
    if answer["probability"] is not None:
        pieces += _named(t.threshold_origin, card.threshold_origin)
        used = ", ".join(answer["slices_used"])
        pieces += _named(t.how, card.fusion, f"{t.slices_used}: {used}" if used else "")
        pieces += _named(t.range, card.range)
    if answer["contributions"]:
        pieces += _named(t.made_of, _contributions(answer["contributions"], t))
    performance = t.finding_performance if card.by_reader else t.performance
    return pieces + _named(performance, answer["performance"])


def _probability(card: Card, t: SimpleNamespace) -> list[Piece]:
    answer = card.answer
    threshold = answer["threshold"]
    label = "" if threshold is None else t.threshold.format(percent(threshold))
    name = (t.model_says if card.by_reader else t.probability_of).format(card.positive)
    return [
        Text(f"{name}  {percent(answer['probability'])}", 11, bold=True, before=2),
        Bar(answer["probability"], threshold, not card.by_reader, label, answer["probability_range"]),
    ]


def _contributions(parts: Document, t: SimpleNamespace) -> str:
    named = ((t.made_of_image, "image"), (t.age, "age"), (t.sex, "sex"), (t.made_of_start, "start"))
    return ", ".join(f"{name.lower()} {signed(parts[key])}" for name, key in named if parts[key] is not None)


def _deciding(pdf: Pages, shown: Contents, t: SimpleNamespace) -> None:
    """The slice with the largest lesion large, up to two more at its side, half as large."""
    if not shown.large:
        return
    ratio, count = _ratio(shown.large[0].panels[0][1]), len(shown.large[0].panels)
    panel = min(PANEL, (BOTTOM - pdf.y - 22) / ratio)
    if panel < SMALL_PANEL:
        panel = PANEL
    tall, step = panel * ratio, (panel * ratio + 5.5) / 2
    _need(pdf, tall + 22)
    _heading(pdf, t.deciding if shown.large_are_deciding else t.largest, f"{t.outline_key} {t.side_key}")
    top = pdf.y
    right = _panels(pdf, shown.large[0], LEFT, top, panel, t) + GAP / 2
    small = min((step - 5.5) / ratio, (LEFT + WIDTH - right) / count - 0.8)
    for at, picture in enumerate(shown.large[1:]):
        _panels(pdf, picture, right, top + at * step, small, t)
    pdf.y = top + tall + 5


def _panels(pdf: Pages, picture: Picture, x: float, y: float, width: float, t: SimpleNamespace) -> float:
    """One slice in its sequences, side by side, with its caption; the right edge."""
    tall = width * _ratio(picture.panels[0][1])
    start = x
    for sequence, image in picture.panels:
        _image(pdf, image, x, y, width)
        _line(pdf, x + 1.2, y + tall - 1.6, Text(sequence, 7.5, "#ebebeb"))
        x += width + 0.8
    area = "" if picture.area_mm2 is None else f" – {t.area} {decimals(picture.area_mm2 / 100, 1)} cm²"
    _line(pdf, start, y + tall + 3.6, Text(f"{t.slice} {picture.name}{area}", 7, SOFT))
    return x


def _lesion(pdf: Pages, shown: Contents, t: SimpleNamespace) -> None:
    document = shown.document
    lesion = document["lesion"]
    if not lesion["found"]:
        return
    _need(pdf, 26)
    _heading(pdf, t.lesion)
    areas = {name: area for name, area in lesion["areas_mm2"].items() if area is not None}
    facts = [(t.volume, f"{decimals(lesion['volume_ml'], 1)} ml")]
    if areas:
        name, area = max(areas.items(), key=lambda item: item[1])
        facts.append((t.largest_area, f"{decimals(area / 100, 1)} cm² {t.in_slice.format(name)}"))
    facts += [(t.lesion_slices, str(len(lesion["areas_mm2"]))), (t.outline_rule, lesion["rule"])]
    _columns(pdf, [[Text(name, 7, SOFT), Text(value, 9)] for name, value in facts], (1, 1.5, 1, 2.5))
    if document["input"]["spacing_assumed"]:
        _boxed(pdf, [Text(t.assumed)], fill=WASH)


def _table(pdf: Pages, shown: Contents, t: SimpleNamespace) -> None:
    """Slice by slice; a page that begins within it repeats the names of the columns."""
    if not shown.rows:
        return
    _need(pdf, min(20 + 4.4 * len(shown.rows), 60))
    _heading(pdf, t.table, t.table_key)
    wide = (WIDTH - 44 + GAP) / max(len(shown.cards), 1)
    _table_head(pdf, shown, t, wide)
    for row in shown.rows:
        if _need(pdf, 4.4):
            _table_head(pdf, shown, t, wide)
        area = "–" if row.area_mm2 is None else f"{decimals(row.area_mm2 / 100, 1)} cm²"
        _line(pdf, LEFT, pdf.y + 3.2, Text(row.name, 8))
        _line(pdf, LEFT + 20, pdf.y + 3.2, Text(area, 8))
        for at, (card, score) in enumerate(zip(shown.cards, row.scores, strict=True)):
            _table_cell(pdf, LEFT + 44 + at * wide, wide, card, score)
        pdf.y += 4.4


def _table_head(pdf: Pages, shown: Contents, t: SimpleNamespace, wide: float) -> None:
    names = [(LEFT, 18.0, t.slice), (LEFT + 20, 22.0, t.area)]
    names += [(LEFT + 44 + at * wide, wide - GAP, card.title) for at, card in enumerate(shown.cards)]
    pieces = [[Text(name, 7, SOFT)] for *_, name in names]
    tall = max(_height(pdf, piece, width) for piece, (_, width, _) in zip(pieces, names, strict=True))
    for piece, (x, width, _) in zip(pieces, names, strict=True):
        _stack(pdf, piece, x, pdf.y, width)
    pdf.y += tall + 1
    _rule(pdf, LEFT, pdf.y, WIDTH, INK)
    pdf.y += 1


def _table_cell(pdf: Pages, x: float, wide: float, card: Card, score: Document | None) -> None:
    if score is None or score["probability"] is None:
        return _line(pdf, x, pdf.y + 3.2, Text("–", 8))
    _line(pdf, x, pdf.y + 3.2, Text(percent(score["probability"]), 8, bold=score["decides"]))
    _bar(
        pdf,
        x + 13,
        pdf.y + 0.9,
        wide - 13 - GAP,
        2.4,
        score["probability"],
        card.answer["threshold"],
        score["decides"],
    )


def _sheet(pdf: Pages, shown: Contents, t: SimpleNamespace) -> None:
    """Every slice with a lesion, small; a dot marks those that decided."""
    if not shown.sheet:
        return
    lesion = shown.document["lesion"]
    sheet = thinned(shown.sheet, MOST_SMALL, lambda picture: picture.decides)
    some = t.sheet if len(sheet) >= len(lesion["areas_mm2"]) else t.sheet_some
    title = some.format(len(sheet), len(lesion["areas_mm2"])) if lesion["found"] else t.sheet_none
    keys = [t.sheet_key.format(shown.sheet_sequence), t.dot_key if shown.some_decide else ""]
    wide = WIDTH / SHEET_ROW
    tall = (wide - 1) * _ratio(shown.sheet[0].panels[0][1]) + 4
    _need(pdf, tall + 16)
    _heading(pdf, title, " ".join([*keys, "" if shown.large else t.side_key]))
    for at, picture in enumerate(sheet):
        if at % SHEET_ROW == 0:
            pdf.y += tall if at else 0
            _need(pdf, tall)
        x = LEFT + at % SHEET_ROW * wide
        _image(pdf, picture.panels[0][1], x, pdf.y, wide - 1)
        mark = " ●" if picture.decides else ""
        _line(pdf, x, pdf.y + tall - 1.2, Text(f"{picture.name}{mark}", 6.5, ACCENT if mark else SOFT))
    pdf.y += tall


def _model(pdf: Pages, shown: Contents, t: SimpleNamespace) -> None:
    document = shown.document
    model, sequences = document["model"], document["sequences"]
    assumed = document["input"]["spacing_assumed"] and not document["lesion"]["found"]
    facts = [
        (t.model_name, model["name"]),
        (t.intended_use, model["intended_use"]),
        (t.trained_on, model["training_cohort"]),
        (t.licence, model["licence"]),
        (t.sha256, model["sha256"]),
        (t.input_kind, t.pictures if document["input"]["kind"] == "pictures" else t.volumes),
        (t.sequences_found, ", ".join(sequences["found"])),
        (t.sequences_used, ", ".join(sequences["used"])),
        (t.software, f"{document['software']['name']} {document['software']['version']}"),
    ]
    if document["seconds"] is not None:
        facts.append((t.seconds, t.seconds_value.format(decimals(document["seconds"], 1))))
    _need(pdf, 30)
    _heading(pdf, t.model)
    _flow(pdf, _bullets([*([t.assumed] if assumed else []), *document["notes"]], SOFT))
    pdf.y += 1
    for name, value in facts:
        _pair(pdf, [Text(name, 7, SOFT)], [Text(value, 7.5)])


# ---- pieces -----------------------------------------------------------------------------------------


def _named(name: str, *texts: str) -> list[Piece]:
    """A small grey name and what it names; nothing where there is nothing to say."""
    said = [Text(text) for text in texts if text]
    return [Text(name, 7, SOFT, before=1.5), *said] if said else []


def _bullets(texts: Sequence[str], colour: str = INK) -> list[Piece]:
    return [Text(f"–  {text}", 8, colour) for text in texts]


def _flow(pdf: Pages, pieces: Sequence[Piece]) -> None:
    """Over the full width, onto the next page where the page ends."""
    for piece in pieces:
        _need(pdf, _height(pdf, [piece], WIDTH))
        _stack(pdf, [piece], LEFT, pdf.y, WIDTH)
        pdf.y += _height(pdf, [piece], WIDTH)


def _columns(
    pdf: Pages, columns: Sequence[Sequence[Piece]], shares: Sequence[float], *, rule: bool = False
) -> None:
    """Side by side, their widths in these shares, kept on one page where one page can hold them."""
    room = WIDTH - GAP * (len(shares) - 1)
    widths = [room * share / sum(shares) for share in shares]
    tall = max(_height(pdf, column, wide) for column, wide in zip(columns, widths, strict=False))
    _need(pdf, tall + 2)
    x = LEFT
    for column, wide in zip(columns, widths, strict=False):
        if rule:
            _rule(pdf, x, pdf.y + 1, wide, ACCENT, 0.8)
        _stack(pdf, column, x, pdf.y + (1 if rule else 0), wide)
        x += wide + GAP
    pdf.y += tall + (3 if rule else 1)


def _pair(pdf: Pages, name: Sequence[Piece], value: Sequence[Piece]) -> None:
    """A narrow column and a wide one."""
    tall = max(_height(pdf, name, 40), _height(pdf, value, WIDTH - 44))
    _need(pdf, tall)
    _stack(pdf, name, LEFT, pdf.y, 40)
    _stack(pdf, value, LEFT + 44, pdf.y, WIDTH - 44)
    pdf.y += tall + 0.4


def _boxed(pdf: Pages, pieces: Sequence[Piece], *, frame: str = "", fill: str = "") -> None:
    tall = _height(pdf, pieces, WIDTH - 8) + 4
    _need(pdf, tall + 3)
    pdf.y += 2.5
    pdf.set_draw_color(frame or fill)
    pdf.set_fill_color(fill or "#ffffff")
    pdf.set_line_width(0.3)
    pdf.rect(LEFT, pdf.y, WIDTH, tall, style="DF")
    _stack(pdf, pieces, LEFT + 4, pdf.y + 1.8, WIDTH - 8)
    pdf.y += tall


def _heading(pdf: Pages, title: str, key: str = "") -> None:
    pdf.y += 4
    _flow(pdf, [Text(title, 11.5, bold=True), *([Text(key, 7, SOFT)] if key else [])])
    pdf.y += 1.2


def _need(pdf: Pages, tall: float) -> bool:
    """Go to a new page, and say so, where fewer millimetres are left."""
    if pdf.y + tall <= BOTTOM or pdf.y <= TOP:
        return False
    pdf.add_page()
    pdf.y = TOP
    return True


# ---- drawing ----------------------------------------------------------------------------------------


def _height(pdf: Pages, pieces: Sequence[Piece], width: float) -> float:
    return sum(_piece_height(pdf, piece, width) for piece in pieces)


def _piece_height(pdf: Pages, piece: Piece, width: float) -> float:
    if isinstance(piece, Bar):
        return 9.0
    return piece.before + _leading(piece) * len(list(_lines(pdf, piece, width)))


def _stack(pdf: Pages, pieces: Sequence[Piece], x: float, y: float, width: float) -> None:
    """Pieces below each other."""
    for piece in pieces:
        if isinstance(piece, Bar):
            _bracket(pdf, x, y + 1, width, piece.bracket)
            _bar(pdf, x, y + 2.4, width, 3.0, piece.probability, piece.threshold, piece.strong)
            _threshold(pdf, x, y + 8.4, width, piece)
        else:
            for at, line in enumerate(_lines(pdf, piece, width)):
                base = y + piece.before + _leading(piece) * (at + 0.78)
                _line(pdf, x, base, Text(line, piece.size, piece.colour, piece.bold))
        y += _piece_height(pdf, piece, width)


def _lines(pdf: Pages, text: Text, width: float) -> Iterator[str]:
    """The paragraph broken at blanks, between Chinese characters, and within a word that is longer than a line."""
    pdf.set_font("sans", size=text.size)
    line = ""
    for token in _tokens(pdf, text.text, width):
        if line and pdf.get_string_width((line + token).rstrip()) > width:
            yield line.rstrip()
            line = ""
        line = line + token if line or token.strip() else ""
    yield line.rstrip()


def _tokens(pdf: Pages, text: str, width: float) -> Iterator[str]:
    for token in _TOKENS.findall(text.translate(PLAIN)):
        if pdf.get_string_width(token) <= width:
            yield " " if token.isspace() else token
        else:
            yield from token


def _leading(text: Text) -> float:
    return text.size * POINT * (1.38 if text.size < 14 else 1.3)


def _line(pdf: Pages, x: float, base: float, text: Text) -> None:
    """One line with its baseline at ``base``; the font has one weight, so bold is drawn with a thin contour."""
    pdf.set_font("sans", size=text.size)
    pdf.set_text_color(text.colour)
    pdf.set_draw_color(text.colour)
    with pdf.local_context(text_mode="FILL_STROKE" if text.bold else "FILL", line_width=text.size * 0.011):
        pdf.text(x, base, text.text.translate(PLAIN))


def _bar(
    pdf: Pages, x: float, y: float, wide: float, tall: float,
    probability: float, threshold: float | None, strong: bool,
) -> None:  # fmt: skip
    for share, colour in ((1.0, "#e7ebee"), (probability, ACCENT if strong else PALE)):
        pdf.set_fill_color(colour)
        pdf.rect(x, y, wide * min(max(share, 0.0), 1.0), tall, style="F")
    if threshold is not None:
        at = x + wide * min(max(threshold, 0.0), 1.0)
        pdf.set_draw_color(INK)
        pdf.set_line_width(0.35)
        pdf.line(at, y - 0.6, at, y + tall + 0.6)


def _bracket(pdf: Pages, x: float, y: float, width: float, extremes: Sequence[float] | None) -> None:
    """From the lowest to the highest, open towards the bar below."""
    if extremes is None or extremes[0] == extremes[1]:
        return
    low, high = (x + width * share for share in extremes)
    pdf.set_draw_color(INK)
    pdf.set_line_width(0.25)
    pdf.polyline([(low, y + 1), (low, y), (high, y), (high, y + 1)])


def _threshold(pdf: Pages, x: float, base: float, width: float, bar: Bar) -> None:
    """The threshold in words under its line, but not beyond the bar."""
    if bar.threshold is None:
        return
    pdf.set_font("sans", size=7)
    half = pdf.get_string_width(bar.label) / 2
    middle = min(max(width * bar.threshold, half), width - half)
    _line(pdf, x + middle - half, base, Text(bar.label, 7, SOFT))


def _rule(pdf: Pages, x: float, y: float, wide: float, colour: str, thick: float = 0.3) -> None:
    pdf.set_draw_color(colour)
    pdf.set_line_width(thick)
    pdf.line(x, y, x + wide, y)


def _image(pdf: Pages, image: Image.Image, x: float, y: float, width: float) -> Any:
    return pdf.image(io.BytesIO(jpeg(image)), x, y, width)


def _ratio(image: Image.Image) -> float:
    return image.height / image.width

"""The report as a PDF for printing or sending, with the contents of the HTML report in the same order.

``pdf_layout`` draws text, bars and images. Lengths are in mm.
"""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING

from gliomark.messages import format_percent
from gliomark.reporting.pdf_layout import (
    ACCENT_COLOUR,
    BOX_COLOUR,
    COLUMN_GAP,
    CONTENT_WIDTH,
    PAGE_BOTTOM,
    PAGE_LEFT,
    PAGE_TOP,
    SECONDARY_COLOUR,
    TEXT_COLOUR,
    Block,
    Paragraph,
    ProbabilityBar,
    ReportPdf,
    compute_aspect_ratio,
    create_bullet_blocks,
    create_labelled_blocks,
    draw_bar,
    draw_blocks,
    draw_image,
    draw_rule,
    draw_text_line,
    ensure_space,
    measure_height,
    write_blocks,
    write_box,
    write_columns,
    write_heading,
    write_name_and_value,
)
from gliomark.reporting.report_contents import (
    Document,
    MarkerCard,
    ReportContents,
    SliceImage,
    format_decimals,
    format_signed,
    thin_out,
)
from gliomark.reporting.report_texts import Language, get_report_texts

if TYPE_CHECKING:
    pass

IMAGES_PER_ROW, MAXIMUM_SHEET_IMAGES = (
    12,
    21,
)  # contact sheet: images per row, and maximum number of evenly spread images
# Width of the largest slice image, and the minimum to which it shrinks to fit the rest of a page.
PANEL_WIDTH, MINIMUM_PANEL_WIDTH = 57.0, 44.0


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
        _write_location_section,
        _write_slice_table,
        _write_contact_sheet,
        _write_model_section,
    ):
        write_section(pdf, contents, texts)
    return bytes(pdf.output())


# ---- sections ---------------------------------------------------------------------------------------


def _write_header(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    document = contents.document
    write_blocks(
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
    write_columns(
        pdf,
        [
            [Paragraph(name, 7, SECONDARY_COLOUR, space_before=2), Paragraph(value, 9)]
            for name, value in facts
        ],
        (1, 1, 1, 1),
    )
    write_box(pdf, [Paragraph(texts.research, bold=True), Paragraph(texts.research_more)], frame=TEXT_COLOUR)
    if document["warnings"]:
        write_box(
            pdf,
            [Paragraph(texts.warnings, bold=True), *create_bullet_blocks(document["warnings"])],
            fill=BOX_COLOUR,
        )
    if not document["lesion"]["found"]:
        write_box(
            pdf,
            [Paragraph(texts.no_lesion, 15, bold=True), Paragraph(texts.no_lesion_more, 9, space_before=1)],
            frame=TEXT_COLOUR,
        )


def _write_marker_cards(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    if contents.marker_cards:
        write_heading(pdf, texts.answer)
    has_lesion = contents.document["lesion"]["found"]
    if len(contents.marker_cards) == 1:
        columns = [
            _create_level_blocks(contents.marker_cards[0], texts, has_lesion),
            _create_explanation_blocks(contents.marker_cards[0], texts),
        ]
        write_columns(
            pdf, columns if columns[1] else columns[:1], (1, 1) if columns[1] else (1,), has_rule=True
        )
        return
    for card_index in range(0, len(contents.marker_cards), 2):
        pair = [
            [*_create_level_blocks(card, texts, has_lesion), *_create_explanation_blocks(card, texts)]
            for card in contents.marker_cards[card_index : card_index + 2]
        ]
        write_columns(pdf, pair, (1, 1), has_rule=True)


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
            *create_labelled_blocks(texts.positive, card.label_definition),
            *_create_probability_blocks(card, texts),
        ]
    elif has_lesion and not card.warnings:
        blocks.append(Paragraph(texts.no_probability, space_before=1.5))
    if card.warnings:
        blocks += [
            Paragraph(texts.warn_here, bold=True, space_before=1.5),
            *create_bullet_blocks(card.warnings),
        ]
    return blocks


def _create_explanation_blocks(card: MarkerCard, texts: SimpleNamespace) -> list[Block]:
    """Create the blocks that explain how the prediction was computed and validated."""
    marker_prediction, blocks = card.marker_prediction, list[Block]()
    if marker_prediction["probability"] is not None:
        blocks += create_labelled_blocks(card.rule_name, card.rule_text)
        blocks += create_labelled_blocks(texts.calibration, card.calibration_text)
        used_slices = ", ".join(marker_prediction["slices_used"])
        blocks += create_labelled_blocks(
            texts.how, card.fusion_text, f"{texts.slices_used}: {used_slices}" if used_slices else ""
        )
        blocks += create_labelled_blocks(texts.range, card.range_text)
    if marker_prediction["contributions"]:
        blocks += create_labelled_blocks(
            card.contributions_name, _format_contributions(marker_prediction["contributions"], texts)
        )
    performance = texts.finding_performance if card.is_decided_by_reader else texts.performance
    return blocks + create_labelled_blocks(performance, marker_prediction["performance"])


def _create_probability_blocks(card: MarkerCard, texts: SimpleNamespace) -> list[Block]:
    marker_prediction = card.marker_prediction
    name = (texts.model_says if card.is_decided_by_reader else texts.probability_of).format(
        card.positive_level
    )
    return [
        Paragraph(
            f"{name}  {format_percent(marker_prediction['probability'])}", 11, bold=True, space_before=2
        ),
        ProbabilityBar(
            marker_prediction["probability"],
            card.marks,
            not card.is_decided_by_reader,
            card.marks_label,
            card.bracket,
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
        compute_aspect_ratio(contents.large_images[0].panels[0][1]),
        len(contents.large_images[0].panels),
    )
    panel_width = min(PANEL_WIDTH, (PAGE_BOTTOM - pdf.y - 22) / ratio)
    if panel_width < MINIMUM_PANEL_WIDTH:
        panel_width = PANEL_WIDTH
    panel_height, step = panel_width * ratio, (panel_width * ratio + 5.5) / 2
    ensure_space(pdf, panel_height + 22)
    write_heading(
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
    panel_height = width * compute_aspect_ratio(slice_image.panels[0][1])
    start = x
    for sequence, image in slice_image.panels:
        draw_image(pdf, image, x, y, width)
        draw_text_line(pdf, x + 1.2, y + panel_height - 1.6, Paragraph(sequence, 7.5, "#ebebeb"))
        x += width + 0.8
    area = (
        ""
        if slice_image.area_mm2 is None
        else f" – {texts.area} {format_decimals(slice_image.area_mm2 / 100, 1)} cm²"
    )
    draw_text_line(
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
    ensure_space(pdf, 26)
    diameters = lesion.get("diameters")  # missing in a document of an older version
    write_heading(pdf, texts.lesion, texts.diameters_key if diameters else "")
    areas = {name: area for name, area in lesion["areas_mm2"].items() if area is not None}
    facts = [(texts.volume, f"{format_decimals(lesion['volume_ml'], 1)} ml")]
    if areas:
        name, area = max(areas.items(), key=lambda item: item[1])
        facts.append(
            (texts.largest_area, f"{format_decimals(area / 100, 1)} cm² {texts.in_slice.format(name)}")
        )
    if diameters:
        longest, perpendicular, longest_3d = (
            format_decimals(diameters[name]["mm"], 0) for name in ("longest", "perpendicular", "longest_3d")
        )
        slice_text = texts.in_slice.format(diameters["slice"])
        facts += [
            (texts.diameters, f"{longest} × {perpendicular} mm {slice_text}"),
            (texts.longest_3d, f"{longest_3d} mm"),
        ]
    more = [(texts.lesion_slices, str(len(lesion["areas_mm2"]))), (texts.outline_rule, lesion["rule"])]
    for row, widths in ((facts, (1, 1.5, 2, 1.5)), (more, (1, 5.4))):
        write_columns(
            pdf,
            [[Paragraph(name, 7, SECONDARY_COLOUR), Paragraph(value, 9)] for name, value in row],
            widths,
        )
    if document["input"]["spacing_assumed"]:
        write_box(pdf, [Paragraph(texts.assumed)], fill=BOX_COLOUR)


def _write_location_section(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    """Write the approximate location of the lesion, if it was requested."""
    location = contents.location
    if location is None:
        return
    ensure_space(pdf, 26)
    write_heading(pdf, texts.location)
    write_blocks(pdf, [Paragraph(sentence) for sentence in location.sentences])
    for title, text in location.facts:
        write_name_and_value(pdf, [Paragraph(title, 7, SECONDARY_COLOUR)], [Paragraph(text, 8)])


def _write_slice_table(pdf: ReportPdf, contents: ReportContents, texts: SimpleNamespace) -> None:
    """Write the results by slice; the header is repeated on each new page."""
    if not contents.slice_rows:
        return
    ensure_space(pdf, min(20 + 4.4 * len(contents.slice_rows), 60))
    write_heading(pdf, texts.table, contents.table_key)
    column_width = (CONTENT_WIDTH - 44 + COLUMN_GAP) / max(len(contents.marker_cards), 1)
    _write_table_header(pdf, contents, texts, column_width)
    for row in contents.slice_rows:
        if ensure_space(pdf, 4.4):
            _write_table_header(pdf, contents, texts, column_width)
        area = "–" if row.area_mm2 is None else f"{format_decimals(row.area_mm2 / 100, 1)} cm²"
        draw_text_line(pdf, PAGE_LEFT, pdf.y + 3.2, Paragraph(row.slice_name, 8))
        draw_text_line(pdf, PAGE_LEFT + 20, pdf.y + 3.2, Paragraph(area, 8))
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
        measure_height(pdf, piece, width) for piece, (_, width, _) in zip(pieces, names, strict=True)
    )
    for piece, (x, width, _) in zip(pieces, names, strict=True):
        draw_blocks(pdf, piece, x, pdf.y, width)
    pdf.y += row_height + 1
    draw_rule(pdf, PAGE_LEFT, pdf.y, CONTENT_WIDTH, TEXT_COLOUR)
    pdf.y += 1


def _write_table_cell(
    pdf: ReportPdf, x: float, column_width: float, card: MarkerCard, score: Document | None
) -> None:
    if score is None or score["probability"] is None:
        return draw_text_line(pdf, x, pdf.y + 3.2, Paragraph("–", 8))
    draw_text_line(
        pdf, x, pdf.y + 3.2, Paragraph(format_percent(score["probability"]), 8, bold=score["decides"])
    )
    draw_bar(
        pdf,
        x + 13,
        pdf.y + 0.9,
        column_width - 13 - COLUMN_GAP,
        2.4,
        score["probability"],
        card.slice_marks,
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
    cell_height = (cell_width - 1) * compute_aspect_ratio(contents.contact_sheet[0].panels[0][1]) + 4
    ensure_space(pdf, cell_height + 16)
    write_heading(pdf, title, " ".join([*key_texts, "" if contents.large_images else texts.side_key]))
    for image_index, picture in enumerate(sheet):
        if image_index % IMAGES_PER_ROW == 0:
            pdf.y += cell_height if image_index else 0
            ensure_space(pdf, cell_height)
        x = PAGE_LEFT + image_index % IMAGES_PER_ROW * cell_width
        draw_image(pdf, picture.panels[0][1], x, pdf.y, cell_width - 1)
        mark = " ●" if picture.is_used else ""
        draw_text_line(
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
    ensure_space(pdf, 30)
    write_heading(pdf, texts.model)
    write_blocks(
        pdf,
        create_bullet_blocks(
            [*([texts.assumed] if states_assumed_spacing else []), *document["notes"]], SECONDARY_COLOUR
        ),
    )
    pdf.y += 1
    for name, value in facts:
        write_name_and_value(pdf, [Paragraph(name, 7, SECONDARY_COLOUR)], [Paragraph(value, 7.5)])

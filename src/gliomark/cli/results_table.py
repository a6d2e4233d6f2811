"""The table that ``gliomark predict`` prints: every marker's answer, the lesion volume and every warning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gliomark.messages import (
    Language,
    describe_level,
    find_level_message,
    format_percent,
    render_message,
)
from gliomark.pipeline import UNDETERMINED
from gliomark.reporting.report_texts import get_report_texts
from gliomark.study import CANNOT_TELL

Document = Mapping[str, Any]


def show_results(documents: Iterable[Document], language: Language) -> None:
    """Print the table and the warnings of all patients on standard output.

    documents: contents of ``prediction.json`` with their messages, as ``Prediction.to_dict`` returns them.
    """
    texts = get_report_texts(language)
    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(texts.patient, overflow="fold")
    table.add_column(texts.lesion, justify="right", no_wrap=True)
    table.add_column(texts.marker)
    table.add_column(texts.answer)
    table.add_column(texts.probability, no_wrap=True)
    warnings: list[tuple[str, str, str]] = []
    patients = []
    for document in documents:
        patients.append(document["patient_id"])
        for row in _create_rows(document, language):
            table.add_row(*row)
        warnings += _list_warnings(document, language)
    console.print(table)
    if warnings:
        console.print(Text(texts.warnings, "bold yellow"))
        console.print(Padding(_create_warning_grid(warnings, len(patients) > 1), (0, 0, 1, 2)))
    console.print(Text(texts.research, "dim"))


def _create_rows(document: Document, language: Language) -> Iterator[tuple[Text | str, ...]]:
    """Create one row per marker; patient and lesion are stated once."""
    texts = get_report_texts(language)
    lesion = document["lesion"]
    volume = f"{lesion['volume_ml']:.1f} ml" if lesion["found"] else texts.no_lesion
    first_columns = (document["patient_id"], volume)
    for marker in document["markers"] or [None]:
        answer = ("–", "–", "–") if marker is None else _describe_marker(marker, language)
        yield (*first_columns, *answer)
        first_columns = ("", "")


def _describe_marker(marker: Document, language: Language) -> tuple[Text | str, ...]:
    """Describe a marker: title, level and probability of the positive level."""
    texts = get_report_texts(language)
    level = Text(describe_level(marker["level"], marker["borderline"], language))
    level.stylize("dim" if marker["level"] in (UNDETERMINED, CANNOT_TELL) else "bold")
    if marker["decided_by"] != "model":
        level.append(f" ({texts.reader_finding})")
    positive = render_message(find_level_message(marker["positive"]), language)
    probability = "–"
    if marker["probability"] is not None:
        probability = f"{positive} {format_percent(marker['probability'])}{_describe_rule(marker, language)}"
    return render_message(marker["title"], language), level, probability


def _describe_rule(marker: Document, language: Language) -> str:
    """Describe the threshold, or on their own lines the limits and a share of positives that was given."""
    texts, limits, calibration = get_report_texts(language), marker["limits"], marker["calibration"]
    if limits is None:
        return f" ({texts.threshold.format(format_percent(marker['threshold']))})"
    shares = (limits["negative_below"], limits["positive_above"])
    lines = [texts.cannot_tell_between.format(*map(format_percent, shares))]
    if calibration["prevalence"] != calibration["cohort_prevalence"]:
        lines.append(texts.given_prevalence.format(format_percent(calibration["prevalence"])))
    return "".join(f"\n({line})" for line in lines)


def _create_warning_grid(warnings: Sequence[tuple[str, str, str]], has_patients: bool) -> Table:
    """Create a grid with a row per warning: patient (if there are several) and marker concerned, and the text."""
    names = [" ".join(filter(None, (patient * has_patients, marker))) for patient, marker, _ in warnings]
    grid = Table.grid(padding=(0, 2))
    for name, (_, _, text) in zip(names, warnings, strict=True):
        grid.add_row(*([Text(name, "bold")] if any(names) else []), text)
    return grid


def _list_warnings(document: Document, language: Language) -> Iterator[tuple[str, str, str]]:
    """List patient, marker ("" if it concerns all) and text of every warning."""
    for warning in document["warnings"]:
        yield document["patient_id"], "", render_message(warning, language)
    for marker in document["markers"]:
        for warning in marker["warnings"]:
            title = render_message(marker["title"], language)
            yield document["patient_id"], title, render_message(warning, language)

"""The report as a PDF file; ``pdf_report`` draws it and is loaded when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gliomark.prediction import Prediction
from gliomark.reporting.report_contents import create_report_contents
from gliomark.reporting.report_texts import Language
from gliomark.reporting.result_writer import Writer

if TYPE_CHECKING:
    from gliomark.reporting.report_input import ReportInput


def render_pdf(prediction: Prediction, language: Language = "en") -> bytes:
    """Render the report as a PDF file."""
    from gliomark.reporting.pdf_report import render_contents_as_pdf  # loads libraries for fonts

    return render_contents_as_pdf(
        create_report_contents(prediction, prediction.to_dict(), language), language
    )


def write_pdf_report(report_input: ReportInput, folder: Path) -> None:
    """Write ``report.pdf``."""
    (folder / "report.pdf").write_bytes(report_input.pdf)


WRITER = Writer("pdf", ("report.pdf",), write_pdf_report)

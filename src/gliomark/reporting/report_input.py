"""What the writers of all outputs share: the prediction, its document, the report's contents and the PDF."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gliomark.isolation import ReadExecutor, run_in_this_process
from gliomark.prediction import Prediction
from gliomark.reporting.report_contents import Document, ReportContents, create_report_contents
from gliomark.reporting.report_texts import Language


@dataclass(frozen=True, eq=False)
class ReportInput:
    """A prediction to be written. Document, contents and PDF are made once, however many writers use them.

    Attributes
    ----------
    prediction
        Result of ``predict``.
    language
        Language of the reports: "en" or "zh".
    reader_pool
        Runs the reading of the source files.
    """

    prediction: Prediction
    language: Language = "en"
    reader_pool: ReadExecutor = run_in_this_process

    @cached_property
    def document(self) -> Document:
        """The content of prediction.json."""
        return self.prediction.to_dict()

    @cached_property
    def contents(self) -> ReportContents:
        """The report's contents with its pictures."""
        return create_report_contents(self.prediction, self.document, self.language)

    @cached_property
    def pdf(self) -> bytes:
        """The report as a PDF file."""
        from gliomark.reporting.pdf_report import render_contents_as_pdf  # loads libraries for fonts

        return render_contents_as_pdf(self.contents, self.language)

"""The report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from gliomark.messages import format_percent
from gliomark.reporting.drawing import encode_data_uri
from gliomark.reporting.report_contents import ReportContents, format_decimals, format_signed
from gliomark.reporting.report_texts import Language, get_report_texts
from gliomark.reporting.result_writer import Writer

if TYPE_CHECKING:
    from gliomark.reporting.report_input import ReportInput


def render_contents_as_html(contents: ReportContents, language: Language) -> str:
    """Return the report as HTML; every value that is also in prediction.json is taken from the document."""
    filters: dict[str, Callable[..., str]] = {
        "percent": format_percent,
        "decimals": format_decimals,
        "signed": format_signed,
        "data_uri": encode_data_uri,
    }
    template = create_template_environment(filters).get_template("report.html.j2")
    return template.render(t=get_report_texts(language, contents.is_drawn_by_reader), **vars(contents))


def create_template_environment(filters: Mapping[str, Callable[..., str]]) -> Environment:
    """Return the Jinja environment of this package's pages.

    Autoescape is on because ids and warnings can contain any character.
    """
    environment = Environment(
        loader=PackageLoader("gliomark.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment


def write_html_report(report_input: ReportInput, folder: Path) -> None:
    """Write ``report.html``."""
    page = render_contents_as_html(report_input.contents, report_input.language)
    (folder / "report.html").write_text(page, encoding="utf-8")


WRITER = Writer("html", ("report.html",), write_html_report, is_default=True)

"""The report as one self-contained page."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from gliomark.messages import percent
from gliomark.reporting.contents import Contents, decimals, signed
from gliomark.reporting.drawing import data_uri
from gliomark.reporting.text import Language, strings


def render_page(contents: Contents, language: Language) -> str:
    """The HTML; every value that is also in prediction.json is taken from the document."""
    filters: dict[str, Callable[..., str]] = {
        "percent": percent,
        "decimals": decimals,
        "signed": signed,
        "data_uri": data_uri,
    }
    template = page_environment(filters).get_template("report.html.j2")
    return template.render(t=strings(language, contents.drawn_by_reader), **vars(contents))


def page_environment(filters: Mapping[str, Callable[..., str]]) -> Environment:
    """Of this room's pages. Autoescape is on: ids and warnings may hold any character."""
    environment = Environment(
        loader=PackageLoader("gliomark.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment

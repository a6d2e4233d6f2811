"""Plots as inline SVG for self-contained HTML pages."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

TEXT_COLOUR, ACCENT_COLOUR, SECOND_COLOUR = "#14181b", "#0b5f78", "#d08a3c"
PLOT_SIZE = (4.5, 3.2)  # width and height in inches


def render_inline_svg(
    draw: Callable[[Any], None], size: tuple[float, float] = PLOT_SIZE, is_text_drawn: bool = False
) -> Markup:
    """Return one plot as inline SVG; needs no display.

    draw: function that draws on the given matplotlib axes. size: width and height in inches. is_text_drawn: text as
    paths, for a PDF; otherwise it stays text, so that the page's font is used.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[str, Any] = {
        "svg.fonttype": "path" if is_text_drawn else "none",
        "svg.hashsalt": "gliomark",
        "font.size": 9,
        "axes.edgecolor": "#9aa5ab",
    }
    style |= {"text.color": TEXT_COLOUR, "axes.labelcolor": "#56616a", "font.family": "sans-serif"}
    with rc_context(style):  # type: ignore[arg-type]  # matplotlib's type lists every key as a literal
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return Markup(_make_ids_unique(text.getvalue()[text.getvalue().index("<svg") :]))


def _make_ids_unique(svg: str) -> str:
    """Make the ids unique among the plots of a page and remove the fixed size of the drawing."""
    id_prefix = f"p{zlib.crc32(svg.encode()):08x}_"
    unique_svg = re.sub(r'(\bid="|url\(#|href="#)', lambda match: match.group(1) + id_prefix, svg)
    opening, closing, rest = unique_svg.partition(">")
    return re.sub(r' (width|height)="[^"]*"', "", opening) + closing + rest

"""Write csv that a spreadsheet opens without executing formulas."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from io import StringIO

from gliomark.tables.cell_text import is_formula_like

_NUMBER = re.compile(r"[+-]?(\d[\d.,]*|\.\d+)([eE][+-]?\d+)?\s?%?")
_SIGNS_ALONE = re.compile(r"[+-]+")


def escape_formula(cell: object) -> object:
    """Prepend an apostrophe to a text that a spreadsheet would execute; ``table_reader`` removes it.

    Numbers, including negative ones, and signs alone are unchanged.
    """
    if not isinstance(cell, str):
        return cell
    if not is_formula_like(cell):
        return cell
    return cell if _NUMBER.fullmatch(cell) or _SIGNS_ALONE.fullmatch(cell) else f"'{cell}"


def format_csv(rows: Iterable[Sequence[object]], delimiter: str = ",") -> str:
    """Format rows as csv with line feeds and escaped formulas."""
    text = StringIO(newline="")
    table = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    table.writerows([escape_formula(cell) for cell in row] for row in rows)
    return text.getvalue()

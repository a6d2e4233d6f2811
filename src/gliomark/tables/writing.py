"""csv that a spreadsheet opens without running anything."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from io import StringIO

from gliomark.tables.text import looks_like_formula

_NUMBER = re.compile(r"[+-]?(\d[\d.,]*|\.\d+)([eE][+-]?\d+)?\s?%?")
_SIGNS_ALONE = re.compile(r"[+-]+")


def harmless(cell: object) -> object:
    """A text that a spreadsheet would run gets an apostrophe before it, which ``reading`` takes away again.

    Numbers, negative ones too, and lone signs stay as they are.
    """
    if not isinstance(cell, str):
        return cell
    if not looks_like_formula(cell):
        return cell
    return cell if _NUMBER.fullmatch(cell) or _SIGNS_ALONE.fullmatch(cell) else f"'{cell}"


def csv_text(rows: Iterable[Sequence[object]], delimiter: str = ",") -> str:
    """Rows as csv, lines ended by a line feed, every cell harmless."""
    text = StringIO(newline="")
    table = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    table.writerows([harmless(cell) for cell in row] for row in rows)
    return text.getvalue()

"""csv that a spreadsheet opens without running anything."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from io import StringIO

from gliomark.tables.text import FORMULA_SIGNS

_NUMBER = re.compile(r"[+-]?(\d[\d.,]*|\.\d+)([eE][+-]?\d+)?\s?%?")
_SIGNS_ALONE = re.compile(r"[+-]+")


def harmless(cell: object) -> object:
    """A text that a spreadsheet would run gets an apostrophe before it, which ``reading`` takes away again.

    Numbers, negative ones too, and lone signs stay as they are.
    """
    if not isinstance(cell, str):
        return cell
    begins = cell.lstrip(" \u00a0\u3000")[:1]
    if not begins or begins not in FORMULA_SIGNS:
        return cell
    return cell if _NUMBER.fullmatch(cell) or _SIGNS_ALONE.fullmatch(cell) else f"'{cell}"


def unharmed(cell: str) -> str:
    """A cell as it was before ``harmless``."""
    begins = cell[1:].lstrip(" \u00a0\u3000")[:1]
    return cell[1:] if cell[:1] == "'" and begins and begins in FORMULA_SIGNS else cell


def csv_text(rows: Iterable[Sequence[object]], delimiter: str = ",") -> str:
    """Rows as csv, lines ended by a line feed, every cell harmless."""
    text = StringIO(newline="")
    table = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    table.writerows([harmless(cell) for cell in row] for row in rows)
    return text.getvalue()

"""Clean and normalise the text of cells, and recognise empty ones."""

from __future__ import annotations

import re
import unicodedata

# Characters that start a formula in a spreadsheet; East Asian editions also execute the full-width ones.
FORMULA_SIGNS = frozenset("=+-@＝＋－＠\t\r\n")
# Texts for an unknown value.
BLANK_VALUES = frozenset(
    "na n/a #n/a nan none null nil unknown unk - -- --- — —— / \\ ? . .. … 未知 不知 不详 不明 不清 "
    "未填 未录入 空 缺 缺失值  "
    "notavailable notapplicable notreported notstated notrecorded notknown missing".split()
) | {""}
_INVISIBLE_CHARACTERS = re.compile("[\ufeff\u200b\u200c\u200d\u200e\u200f\u2060]")


def clean_cell(text: str) -> str:
    """Clean a cell: composed characters (NFC), no surrounding blanks, no invisible characters.

    ``="007"`` and ``'=x``, with which spreadsheets and ``csv_writer`` mark text, become the text itself.
    """
    plain = _INVISIBLE_CHARACTERS.sub("", unicodedata.normalize("NFC", text)).strip()
    if kept := re.fullmatch(r'="([^"]*)"', plain):
        return kept[1].strip()
    return unescape_formula(plain)


def is_formula_like(text: str) -> bool:
    """Whether a spreadsheet may execute a text; leading blanks and apostrophes are ignored."""
    return text.lstrip(" \u00a0\u3000'")[:1] in FORMULA_SIGNS


def unescape_formula(text: str) -> str:
    """Remove the apostrophe that ``csv_writer.escape_formula`` added."""
    return text[1:] if text[:1] == "'" and is_formula_like(text) else text


def normalise_cell(text: str) -> str:
    """Normalise a cell for comparison: lower case, no full-width characters, no blanks."""
    wide = unicodedata.normalize("NFKC", _INVISIBLE_CHARACTERS.sub("", text))
    return re.sub(r"\s+", "", re.sub("[−–‐‑﹣]", "-", wide).lower())


def is_blank_cell(text: str) -> bool:
    """Whether a cell is empty or states that the value is unknown."""
    return normalise_cell(text) in BLANK_VALUES

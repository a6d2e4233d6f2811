"""A cell's text: cleaned as it is read, squeezed as it is compared, and the marks of an empty one."""

from __future__ import annotations

import re
import unicodedata

# Signs that begin a formula in a spreadsheet; full-width ones are run by East Asian editions.
FORMULA_SIGNS = frozenset("=+-@＝＋－＠\t\r\n")
# Each says that a value is not known.
BLANK_VALUES = frozenset(
    "na n/a #n/a nan none null nil unknown unk - -- --- — —— / \\ ? . .. … 未知 不知 不详 不明 不清 "
    "未填 未录入 空 缺 缺失值  "
    "notavailable notapplicable notreported notstated notrecorded notknown missing".split()
) | {""}
_INVISIBLE_CHARACTERS = re.compile("[\ufeff\u200b\u200c\u200d\u200e\u200f\u2060]")


def clean_cell(text: str) -> str:
    """A cell as it is kept: composed letters, no outer blanks, no invisible signs.

    ``="007"`` and ``'=x``, which spreadsheets and ``writing`` use to keep a text a text, become the text.
    """
    plain = _INVISIBLE_CHARACTERS.sub("", unicodedata.normalize("NFC", text)).strip()
    if kept := re.fullmatch(r'="([^"]*)"', plain):
        return kept[1].strip()
    return unescape_formula(plain)


def is_formula_like(text: str) -> bool:
    """Whether a spreadsheet may run a text; blanks and apostrophes before the sign do not count."""
    return text.lstrip(" \u00a0\u3000'")[:1] in FORMULA_SIGNS


def unescape_formula(text: str) -> str:
    """A cell as it was before ``writing.harmless`` set an apostrophe before it."""
    return text[1:] if text[:1] == "'" and is_formula_like(text) else text


def normalise_cell(text: str) -> str:
    """Lower case, full-width letters as plain ones, no blanks: the form that values are compared in."""
    wide = unicodedata.normalize("NFKC", _INVISIBLE_CHARACTERS.sub("", text))
    return re.sub(r"\s+", "", re.sub("[−–‐‑﹣]", "-", wide).lower())


def is_blank_cell(text: str) -> bool:
    """Whether a cell says nothing, or that nothing is known."""
    return normalise_cell(text) in BLANK_VALUES

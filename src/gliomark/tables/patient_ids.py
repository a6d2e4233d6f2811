"""Find ids that a spreadsheet changed: 007 becomes 7, 12345678901 becomes 1.23E+10, 42 becomes 42.0."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_SCIENTIFIC_NOTATION = re.compile(r"(\d)(?:[.,](\d+))?e\+?(\d+)")
_SPREADSHEET_DIGITS = 15  # significant digits that a spreadsheet stores


def list_id_spellings(patient_id: str) -> tuple[str, ...]:
    """List the possible spellings of an id in a table: the id itself, and a BIDS subject without ``sub-``."""
    short = re.sub(r"^sub-", "", patient_id, flags=re.IGNORECASE)
    return (patient_id,) if short in ("", patient_id) else (patient_id, short)


def find_similar_ids(wanted: str, ids: Iterable[str]) -> list[str]:
    """Find ids that a spreadsheet or a typing error could have changed into this form, without the id itself."""
    return [
        found for found in dict.fromkeys(ids) if found and found != wanted and _is_similar_id(wanted, found)
    ]


def find_same_patient(one_table: Iterable[str], other_table: Iterable[str]) -> tuple[str, str] | None:
    """Find a patient of both tables, whose id a spreadsheet may have changed in one of them; None if there is none.

    Returns the two spellings.
    """
    by_plain_id = {_normalise_id(name): name for name in one_table}
    found = (
        (by_plain_id[plain], name) for name in other_table if (plain := _normalise_id(name)) in by_plain_id
    )
    return next(found, None)


def _is_similar_id(one: str, other: str) -> bool:
    first, second = _normalise_id(one), _normalise_id(other)
    if first == second or _is_same_rounded_number(first, second):
        return True
    return _is_in_scientific_notation(first, second) or _is_in_scientific_notation(second, first)


def _normalise_id(patient_id: str) -> str:
    """Normalise case, width, blanks, dashes, punctuation, a final ``.0``, and leading zeros of numbers."""
    plain = unicodedata.normalize("NFKC", patient_id).casefold().strip().lstrip("'")
    plain = re.sub(r"(?<=\d)[.,]0+$", "", plain)
    if _SCIENTIFIC_NOTATION.fullmatch(plain):
        return plain
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\W_]+", "", plain))


def _is_same_rounded_number(one: str, other: str) -> bool:
    """Whether two whole numbers of equal length differ only in digits that a spreadsheet rounds."""
    both = one.isdecimal() and other.isdecimal() and len(one) == len(other) > _SPREADSHEET_DIGITS
    return both and one[: _SPREADSHEET_DIGITS - 1] == other[: _SPREADSHEET_DIGITS - 1]


def _is_in_scientific_notation(whole: str, exponent: str) -> bool:
    """Whether the second is the first, a whole number, in scientific notation."""
    found = _SCIENTIFIC_NOTATION.fullmatch(exponent)
    if not found or not whole.isdecimal() or int(found[3]) != len(whole) - 1:
        return False
    decimals = len(found[2] or "")
    return f"{int(whole):.{decimals}e}".split("e")[0] == f"{found[1]}.{found[2]}".rstrip(".").replace(
        ".None", ""
    )

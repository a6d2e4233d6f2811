"""Patients' ids as spreadsheets spoil them: 007 becomes 7, 12345678901 becomes 1.23E+10, 42 becomes 42.0."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_EXPONENT = re.compile(r"(\d)(?:[.,](\d+))?e\+?(\d+)")
_DIGITS_KEPT = 15  # of a number in a spreadsheet


def spellings_of_id(patient_id: str) -> tuple[str, ...]:
    """How a table may write an id: as it is, and a BIDS subject without its ``sub-``."""
    short = re.sub(r"^sub-", "", patient_id, flags=re.IGNORECASE)
    return (patient_id,) if short in ("", patient_id) else (patient_id, short)


def similar_ids(wanted: str, ids: Iterable[str]) -> list[str]:
    """The ids, each once, that a spreadsheet or a typist may have made of the wanted one; not the id itself."""
    return [found for found in dict.fromkeys(ids) if found and found != wanted and _alike(wanted, found)]


def _alike(one: str, other: str) -> bool:
    first, second = _bare(one), _bare(other)
    if first == second or _same_number(first, second):
        return True
    return _shortened(first, second) or _shortened(second, first)


def _bare(patient_id: str) -> str:
    """Without case, width, blanks, dashes and other signs, a ``.0`` at the end, and zeros before numbers."""
    plain = unicodedata.normalize("NFKC", patient_id).casefold().strip().lstrip("'")
    plain = re.sub(r"(?<=\d)[.,]0+$", "", plain)
    if _EXPONENT.fullmatch(plain):
        return plain
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\W_]+", "", plain))


def _same_number(one: str, other: str) -> bool:
    """Two whole numbers of one length whose digits beyond the fifteenth were lost."""
    both = one.isdecimal() and other.isdecimal() and len(one) == len(other) > _DIGITS_KEPT
    return both and one[: _DIGITS_KEPT - 1] == other[: _DIGITS_KEPT - 1]


def _shortened(whole: str, exponent: str) -> bool:
    """Whether the second is the first, a whole number, written with an exponent."""
    found = _EXPONENT.fullmatch(exponent)
    if not found or not whole.isdecimal() or int(found[3]) != len(whole) - 1:
        return False
    places = len(found[2] or "")
    return f"{int(whole):.{places}e}".split("e")[0] == f"{found[1]}.{found[2]}".rstrip(".").replace(
        ".None", ""
    )

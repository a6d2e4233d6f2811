"""The patient's row of a csv: age and sex, found by the id."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from gliomark.client.language import translate
from gliomark.study import GliomarkError

SEXES = {"0": 0, "0.0": 0, "m": 0, "male": 0, "男": 0, "1": 1, "1.0": 1, "f": 1, "female": 1, "女": 1}
BLANKS = {"", "na", "n/a", "nan", "none", "null", "unknown", "-"}
OLDEST = 120.0


@dataclass(frozen=True)
class AgeSex:
    """age in years; sex 0 male, 1 female; None unknown."""

    age: float | None
    sex: int | None


def age_and_sex(path: Path, patient_id: str) -> AgeSex:
    """One patient's age and sex from a csv in UTF-8 or GB18030.

    Raises GliomarkError where the table cannot be read, the patient has not exactly one row, or a cell is nonsense.
    """
    wanted = _clean(patient_id)
    found = [row for row in _rows(path) if row["id"] == wanted]
    if len(found) != 1:
        raise GliomarkError(_not_one_row(len(found)).format(patient_id, path.name))
    return AgeSex(parse_age(found[0].get("age", "")), _sex(found[0].get("sex", "")))


def _not_one_row(count: int) -> str:
    if count:
        return translate("clinical", "Patient {} has several rows in {}: keep one, or type age and sex.")
    return translate("clinical", "Patient {} has no row in {}: choose another table, or type age and sex.")


def _rows(path: Path) -> list[Mapping[str, str]]:
    text = _text(path)
    header = text.strip("\r\n").splitlines()[:1]
    delimiter = max(",;\t", key="".join(header).count)
    lines = [[_clean(cell) for cell in line] for line in csv.reader(StringIO(text), delimiter=delimiter)]
    filled = [line for line in lines if any(line)]
    names = [name.lower() for name in filled[0]] if filled else []
    if "id" not in names:
        raise GliomarkError(
            translate("clinical", "{} has no column named id: choose a table with id, age, sex.").format(
                path.name
            )
        )
    return [{"id": "", **dict(zip(names, line, strict=False))} for line in filled[1:]]


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GliomarkError(
            translate("clinical", "{} cannot be opened ({}): check the path.").format(
                path.name, error.strerror
            )
        ) from None
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise GliomarkError(
        translate("clinical", "{} is no csv in UTF-8 or GB18030: save it as CSV UTF-8.").format(path.name)
    )


def parse_age(text: str) -> float | None:
    """Years from a cell, None for a blank one. Raises GliomarkError for anything else."""
    if text.strip().lower() in BLANKS:
        return None
    number = re.sub(r"^(\d{1,3}),(\d{1,2})$", r"\1.\2", text.strip())
    if not re.fullmatch(r"\d+(\.\d*)?", number) or float(number) > OLDEST:
        raise GliomarkError(
            translate("clinical", "The age {} is not a number of years from 0 to 120.").format(text)
        )
    return float(number)


def _sex(text: str) -> int | None:
    if text.lower() in BLANKS:
        return None
    if text.lower() not in SEXES:
        raise GliomarkError(
            translate("clinical", "The sex {} is not understood: 0 or M is male, 1 or F female.").format(text)
        )
    return SEXES[text.lower()]


def _clean(cell: str) -> str:
    return unicodedata.normalize("NFC", cell).strip()

"""The clinical table: a csv with columns id, age, sex and any others, one row per patient."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from gliomark.study import Clinical, GliomarkError

ENCODINGS = ("utf-8-sig", "gb18030")
OLDEST = 120.0
_SEXES = {"0": 0, "0.0": 0, "m": 0, "male": 0, "男": 0, "1": 1, "1.0": 1, "f": 1, "female": 1, "女": 1}
_BLANKS = frozenset({"", "na", "n/a", "nan", "none", "null", "unknown", "-"})


@dataclass(frozen=True)
class ClinicalTable:
    """The table as text. rows: column name in lower case to cell, one mapping per patient row."""

    source: Path
    rows: tuple[Mapping[str, str], ...]

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """The ids in the table's order."""
        return tuple(row["id"] for row in self.rows)

    def row(self, patient_id: str, *, require_age_sex: bool = True) -> Clinical:
        """One patient's row, age in years and sex 0 (male) or 1 (female).

        Raises: GliomarkError for no row, two rows, or age or sex missing (unless not required) or nonsense.
        """
        found = [row for row in self.rows if row["id"] == unicodedata.normalize("NFC", patient_id).strip()]
        if len(found) != 1:
            wrong = "has no row" if not found else f"has {len(found)} rows"
            raise GliomarkError(
                f"Patient {patient_id} {wrong} in {self.source}: give the table one row with this id."
            )
        cells = found[0]
        where = f"of patient {patient_id} in {self.source}"
        age, sex = _age(cells.get("age", ""), where), _sex(cells.get("sex", ""), where)
        for name, value in (("age", age), ("sex", sex)):
            if value is None and require_age_sex:
                raise GliomarkError(
                    f"The {name} {where} is missing: fill it in, or allow prediction without it."
                )
        others = {name: cell for name, cell in cells.items() if name not in {"id", "age", "sex"} and cell}
        return Clinical(patient_id, age, sex, others)


def read_clinical(path: Path | str) -> ClinicalTable:
    """Read a clinical csv: UTF-8 with or without BOM, or GB18030; comma, semicolon or tab.

    Raises: GliomarkError when it cannot be opened or decoded, has no id column or is no table.
    """
    path = Path(path)
    text = _decoded(path)
    table = csv.reader(StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        records = [record for record in table if any(cell.strip() for cell in record)]
    except csv.Error as error:
        raise GliomarkError(f"{path} is no proper csv table ({error}): save it again as CSV UTF-8.") from None
    header = [_cell(name).lower() for name in records[0]] if records else []
    if "id" not in header:
        shown = ", ".join(name for name in header if name)[:80] or "none"
        raise GliomarkError(f"{path} has no column id (columns: {shown}): name the patient column id.")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise GliomarkError(f"{path} has the column {twice[0]} twice: keep one.")
    return ClinicalTable(path, tuple(_row(path, header, record) for record in records[1:]))


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GliomarkError(
            f"The clinical table {path} cannot be opened ({error.strerror}): check the path."
        ) from None
    for encoding in ENCODINGS:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:  # UTF-16 without a mark decodes as text full of zeros
            return text
    raise GliomarkError(f"{path} is neither UTF-8 nor GB18030 text: save it as CSV UTF-8.")


def _delimiter(text: str) -> str:
    """Comma, semicolon or tab: the one that splits the header most; the comma where none does."""
    header = text.strip("\r\n").splitlines()[:1]
    return max(",;\t", key="".join(header).count)


def _row(path: Path, header: list[str], record: list[str]) -> Mapping[str, str]:
    # A cell too many shifts the others under wrong names: a decimal comma in a comma table does that.
    if any(_cell(cell) for cell in record[len(header) :]):
        raise GliomarkError(
            f"The row {record[0]} in {path} has more cells than the header: look for a comma inside a cell."
        )
    return {"id": "", **{name: _cell(cell) for name, cell in zip(header, record, strict=False) if name}}


def _cell(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _age(text: str, where: str) -> float | None:
    if text.lower() in _BLANKS:
        return None
    number = re.sub(r"^(\d{1,3}),(\d{1,2})$", r"\1.\2", text)  # decimal comma, as in semicolon tables
    if not re.fullmatch(r"[+-]?\d+(\.\d*)?", number):
        raise GliomarkError(f"The age {text} {where} is not a number: give years.")
    age = float(number)
    if not 0 <= age <= OLDEST:
        raise GliomarkError(f"The age {text} {where} is outside 0 to {OLDEST:.0f} years: correct it.")
    return age


def _sex(text: str, where: str) -> int | None:
    if text.lower() in _BLANKS:
        return None
    if text.lower() not in _SEXES:
        raise GliomarkError(f"The sex {text} {where} is not understood: give 0 or M (male), 1 or F (female).")
    return _SEXES[text.lower()]

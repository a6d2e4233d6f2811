"""The clinical table: csv or xlsx with columns id, age, sex and any others, one row per patient."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from gliomark.study import Clinical, GliomarkError

ENCODINGS = ("utf-8-sig", "gb18030")
OLDEST = 120.0
_XLSX = b"PK\x03\x04"
_OLD_OFFICE = b"\xd0\xcf\x11\xe0"
_SEXES = {"0": 0, "0.0": 0, "m": 0, "male": 0, "男": 0, "1": 1, "1.0": 1, "f": 1, "female": 1, "女": 1}
BLANKS = frozenset({"", "na", "n/a", "nan", "none", "null", "unknown", "-"})


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
    """Read a clinical csv (UTF-8 with or without BOM, or GB18030; comma, semicolon or tab) or xlsx.

    Raises: GliomarkError when it cannot be opened or decoded, has no id column or is no table.
    """
    path = Path(path)
    header, records = read_records(path)
    header = [name.lower() for name in header]
    if "id" not in header:
        shown = ", ".join(name for name in header if name)[:80] or "none"
        raise GliomarkError(f"{path} has no column id (columns: {shown}): name the patient column id.")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise GliomarkError(f"{path} has the column {twice[0]} twice: keep one.")
    return ClinicalTable(path, tuple(_row(header, record) for record in records))


def read_records(path: Path) -> tuple[list[str], list[list[str]]]:
    """A table's header as written and its rows, every cell as text without outer blanks; csv or xlsx.

    Empty rows are passed over; short rows are filled with empty cells.

    Raises: GliomarkError when it cannot be opened or decoded, is no table, or a row is longer than the header.
    """
    content = _content(path)
    raw = _workbook(path, content) if content.startswith(_XLSX) else _csv(path, content)
    cells = [[_cell(cell) for cell in record] for record in raw]
    filled = [record for record in cells if any(record)]
    header, records = (filled[0], filled[1:]) if filled else ([], [])
    # A cell too many shifts the others under wrong names: a decimal comma in a comma table does that.
    for record in records:
        if any(record[len(header) :]):
            raise GliomarkError(
                f"The row {record[0]} in {path} has more cells than the header: look for a comma inside a cell."
            )
    wide = len(header)
    return header, [record[:wide] + [""] * (wide - len(record)) for record in records]


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise GliomarkError(
            f"The table {path} cannot be opened ({error.strerror}): check the path."
        ) from None
    if content.startswith(_OLD_OFFICE):
        raise GliomarkError(f"{path} is an old or password-protected workbook: save it as plain xlsx or CSV.")
    return content


def _csv(path: Path, content: bytes) -> list[list[str]]:
    text = _decoded(path, content)
    try:
        return list(csv.reader(StringIO(text, newline=""), delimiter=_delimiter(text), strict=True))
    except csv.Error as error:
        raise GliomarkError(f"{path} is no proper csv table ({error}): save it again as CSV UTF-8.") from None


def _workbook(path: Path, content: bytes) -> list[list[str]]:
    """The first sheet of an xlsx as text; openpyxl is asked for only here."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise GliomarkError(
            f"{path} is an Excel workbook, for which openpyxl is needed: pip install openpyxl, or save it as CSV."
        ) from None
    try:
        book = load_workbook(BytesIO(content), data_only=True)
        return [[_excel_text(cell) for cell in row] for row in book.worksheets[0].iter_rows()]
    except Exception:  # openpyxl throws whatever its parsers throw: zip, xml, key and value errors
        raise GliomarkError(
            f"{path} is a damaged workbook, or has no sheet with cells: save it again as xlsx or CSV."
        ) from None


def _excel_text(cell: Any) -> str:
    """A cell as its user sees it: 15 % is not 0.15, a date is ISO, an id keeps the zeros of its format."""
    value, shown = cell.value, str(cell.number_format or "")
    if value is None or cell.data_type == "e":
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if not isinstance(value, int | float):
        return str(value)
    if "%" in shown:
        return f"{value * 100:.12g}%"
    number = f"{value:.15g}" if isinstance(value, float) and not value.is_integer() else str(int(value))
    return number.zfill(len(shown)) if re.fullmatch("0{2,}", shown) else number


def _decoded(path: Path, content: bytes) -> str:
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


def _row(header: list[str], record: list[str]) -> Mapping[str, str]:
    return {"id": "", **{name: cell for name, cell in zip(header, record, strict=True) if name}}


def _cell(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _age(text: str, where: str) -> float | None:
    if text.lower() in BLANKS:
        return None
    number = re.sub(r"^(\d{1,3}),(\d{1,2})$", r"\1.\2", text)  # decimal comma, as in semicolon tables
    if not re.fullmatch(r"[+-]?\d+(\.\d*)?", number):
        raise GliomarkError(f"The age {text} {where} is not a number: give years.")
    age = float(number)
    if not 0 <= age <= OLDEST:
        raise GliomarkError(f"The age {text} {where} is outside 0 to {OLDEST:.0f} years: correct it.")
    return age


def _sex(text: str, where: str) -> int | None:
    if text.lower() in BLANKS:
        return None
    if text.lower() not in _SEXES:
        raise GliomarkError(f"The sex {text} {where} is not understood: give 0 or M (male), 1 or F (female).")
    return _SEXES[text.lower()]

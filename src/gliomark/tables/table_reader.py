"""Read a csv of any separator and encoding, or an xlsx, into a header and rows of text."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, time
from io import BytesIO, StringIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any
from zipfile import ZipFile

from gliomark.errors import GliomarkError, InputError
from gliomark.messages import message
from gliomark.tables.cell_text import clean_cell
from gliomark.tables.column_names import is_age_column, is_id_column, is_sex_column

_XLSX_MAGIC = b"PK\x03\x04"
_OLD_OFFICE_MAGIC = b"\xd0\xcf\x11\xe0"
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_SEPARATORS = ",;\t|"
_MAX_ROWS_ABOVE_HEADER = 10
_MAX_COLUMN_NAME_LENGTH = 1000  # characters; longer cells are not considered as column names
_MAX_BLANK_SEPARATED_LENGTH = 4 << 20  # characters; longer texts are not split at blanks
_MAX_BYTES = 200 << 20  # of a file, and of all parts of a workbook, uncompressed
_MAX_WORKBOOK_PARTS, _MAX_CELLS = 10_000, 3_000_000


def read_table(path: Path, is_strict: bool = False) -> tuple[list[str], list[list[str]]]:
    """Read a table as text; every cell is stripped of surrounding blanks.

    csv: UTF-8, UTF-16, GB18030 or Windows-1252, with or without a byte order mark; separated by comma, semicolon, tab,
    vertical bar or blanks; a first line ``sep=;`` sets the separator. xlsx: the first sheet with cells. Titles above
    the header and empty rows are skipped; short rows are filled with empty cells.

    Parameters
    ----------
    path
        A csv or xlsx file.
    is_strict
        Refuse empty cells beyond the header too, and values in a column without a name: a decimal comma may have
        shifted the cells.

    Returns
    -------
    tuple[list[str], list[list[str]]]
        The header as written, and the rows, each as long as the header.

    Raises
    ------
    InputError
        If the file cannot be opened or decoded, is too large or not a table, or a row is longer than the header.
    """
    content = _read_content(path)
    raw = (
        _read_workbook(path, content) if content.startswith(_XLSX_MAGIC) else _parse_text_table(path, content)
    )
    rows = [row for row in ([clean_cell(cell) for cell in record] for record in raw) if any(row)]
    index = _find_header_row(rows)
    header, records = (rows[index], rows[index + 1 :]) if rows else ([], [])
    while header and not header[-1] and not any(any(record[len(header) - 1 :]) for record in records):
        header = header[:-1]
    # An extra cell (such as from a decimal comma in a comma-separated table) shifts the others under wrong names.
    for record in records:
        is_longer = len(record) > len(rows[index])
        has_nameless = any(cell for name, cell in zip(header, record, strict=False) if not name)
        if any(record[len(header) :]) or (is_strict and (is_longer or has_nameless)):
            raise InputError(message("table-row-too-long", row=record[0], table=path))
    width = len(header)
    return header, [record[:width] + [""] * (width - len(record)) for record in records]


def _read_content(path: Path) -> bytes:
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode) and not S_ISDIR(found.st_mode):
            raise InputError(message("table-no-file", table=path))
        _check_size(path, found.st_size, _MAX_BYTES)
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(message("table-unopenable", table=path, reason=reason)) from None
    if content.startswith(_OLD_OFFICE_MAGIC):
        raise InputError(message("table-old-workbook", table=path))
    return content


# ---- text -------------------------------------------------------------------------------------------


def _parse_text_table(path: Path, content: bytes) -> list[list[str]]:
    text = re.sub(r"\r\n?", "\n", _decode_text(path, content)).lstrip("\ufeff")
    if text.lstrip()[:1] == "<":  # web pages and XML are often saved as .xls
        raise InputError(message("table-web-page", table=path))
    if stated := re.match(r'\s*"?sep=(.)"?[^\n\S]*(\n|$)', text):
        return _parse_csv(path, text[stated.end() :].lstrip("\ufeff"), stated[1])
    attempts = [_try_separator(path, text, separator) for separator in _SEPARATORS]
    tables = [way for way in attempts if not isinstance(way, GliomarkError)]
    best = max(tables, key=_score_table_likeness, default=[])
    if _score_table_likeness(best)[1] < 1 and '"' not in text and len(text) < _MAX_BLANK_SEPARATED_LENGTH:
        best = max([best, *_split_at_blanks(text)], key=_score_table_likeness)
    if isinstance(attempts[0], GliomarkError) and not _score_table_likeness(best)[1]:
        raise attempts[0]  # no separator gives columns; the comma's error explains why
    return best


def _decode_text(path: Path, content: bytes) -> str:
    """Decode by the byte order mark or the pattern of zero bytes if there is one, else as UTF-8, GB18030 or cp1252.

    Accented letters of cp1252 mostly stand alone between ASCII characters; Chinese ones are pairs of higher bytes.
    """
    guessed = False
    encodings = [name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)][:1]
    if not encodings and b"\0" in content[:4000]:
        odd = content[1:4000:2].count(0) > content[0:4000:2].count(0)
        encodings = ["utf-16-le" if odd else "utf-16-be"]
        guessed = True
    elif not encodings:
        runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", content)]
        is_western = sum(length == 1 for length in runs) > len(runs) / 2
        encodings = ["utf-8-sig", "cp1252" if is_western else "gb18030", "gb18030"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text and not (guessed and not re.search(rf"[{_SEPARATORS} ].*[\r\n]", text)):
            return text
    raise InputError(message("table-encoding", table=path))


def _try_separator(path: Path, text: str, separator: str) -> list[list[str]] | GliomarkError:
    try:
        return _parse_csv(path, text, separator)
    except GliomarkError as error:
        return error


def _parse_csv(path: Path, text: str, separator: str) -> list[list[str]]:
    try:
        return list(
            csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
        )
    except csv.Error as error:
        raise InputError(message("table-not-csv", table=path, reason=str(error))) from None


def _split_at_blanks(text: str) -> list[list[list[str]]]:
    """Split lines at tabs or several blanks, and at any blank; keep results with equally long rows only."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    attempts = [[re.split(cut, line) for line in lines] for cut in (r"[ \t]*\t[ \t]*| {2,}", r"\s+")]
    return [rows for rows in attempts if len({len(row) for row in rows}) == 1]


def _score_table_likeness(rows: Sequence[Sequence[str]]) -> tuple[int, float, int]:
    """Score how table-like rows are: known columns in the header, share of rows of the same width, that width."""
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    if not filled:
        return 0, 0.0, 0
    widths = Counter(len(row) for row in filled)
    width, row_count = widths.most_common(1)[0]
    header = filled[_find_header_row(filled)]
    known = sum(
        is_id_column(cell) or is_age_column(cell) or is_sex_column(cell)
        for cell in _clean_header_cells(header)
    )
    return (known if len(header) > 1 else 0), row_count / len(filled) * (width > 1), width


def _find_header_row(rows: Sequence[Sequence[str]]) -> int:
    """Find the header: the first row with several cells and an id column, else the first with several cells."""
    several = [at for at, row in enumerate(rows[:_MAX_ROWS_ABOVE_HEADER]) if sum(map(bool, row)) > 1]
    named = [at for at in several if any(map(is_id_column, _clean_header_cells(rows[at])))]
    return (named or several or [0])[0]


def _clean_header_cells(row: Sequence[str]) -> list[str]:
    return [clean_cell(cell) for cell in row if len(cell) <= _MAX_COLUMN_NAME_LENGTH]


# ---- workbooks --------------------------------------------------------------------------------------


def _read_workbook(path: Path, content: bytes) -> list[list[str]]:
    """Read the first sheet with cells as text; openpyxl is imported only here."""
    from openpyxl import load_workbook

    try:
        _check_workbook_parts(path, content)
        book = load_workbook(BytesIO(content))
        for sheet in book.worksheets:
            _check_size(path, sheet.max_row * sheet.max_column, _MAX_CELLS)
        visible_sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
        sheet = next(
            (one for one in [*visible_sheets, *book.worksheets] if any(any(row) for row in one.values)),
            book.worksheets[0],
        )
        rows = list(sheet.iter_rows())
        if not any(cell.data_type == "f" for row in rows for cell in row):
            return [[_format_excel_cell(cell) for cell in row] for row in rows]
        results = load_workbook(BytesIO(content), data_only=True)[sheet.title]
        return [[_format_formula_result(cell, results[cell.coordinate]) for cell in row] for row in rows]
    except GliomarkError:
        raise
    except Exception:  # openpyxl raises all errors of its parsers: zip, xml, key and value errors
        raise InputError(message("table-damaged-workbook", table=path)) from None


def _check_workbook_parts(path: Path, content: bytes) -> None:
    """Limit the uncompressed size: a workbook is a zip archive, and a megabyte may expand to gigabytes."""
    with ZipFile(BytesIO(content)) as parts:
        entries = parts.infolist()
    _check_size(path, len(entries), _MAX_WORKBOOK_PARTS)
    _check_size(path, sum(entry.file_size for entry in entries), _MAX_BYTES)


def _check_size(path: Path, size: int, maximum: int) -> None:
    if size > maximum:
        raise InputError(message("table-huge", table=path))


def _format_formula_result(cell: Any, result: Any) -> str:
    """Format a formula's stored result; without one, a text that no parser accepts."""
    if cell.data_type == "f" and result.value is None:
        return f"formula without a stored result: {cell.value}"
    return _format_excel_cell(result)


def _format_excel_cell(cell: Any) -> str:
    """Format a cell as displayed: 15 % is not 0.15, dates are ISO, an id keeps the zeros of its number format."""
    value, number_format = cell.value, str(cell.number_format or "")
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
    if "%" in number_format:
        return f"{value * 100:.12g}%"
    number = f"{value:.15g}" if isinstance(value, float) and not value.is_integer() else str(int(value))
    return number.zfill(len(number_format)) if re.fullmatch("0{2,}", number_format) else number

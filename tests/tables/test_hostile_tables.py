"""Tables that expand to far more data than any clinical table raise an error immediately."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import pytest
from openpyxl import Workbook

from gliomark.errors import GliomarkError
from gliomark.tables.table_reader import read_table


def create_workbook(cell: str = "") -> bytes:
    """Create a small workbook, optionally with one more cell far away."""
    book = Workbook()
    for row in (("patient", "age", "sex"), ("P1", 50, "F")):
        book.active.append(row)
    if cell:
        book.active[cell] = "x"
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def create_workbook_with_part(name: str, size: int, count: int = 1) -> bytes:
    """Create the small workbook with additional parts of zeros, or with blanks appended to one of its own parts."""
    enlarged = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(create_workbook())) as old,
        zipfile.ZipFile(enlarged, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            more = b" " * size if entry == name else b""
            new.writestr(entry, old.read(entry) + more)
        if name not in old.namelist():
            for number in range(count):
                new.writestr(f"{name}{number}", bytes(size))
    return enlarged.getvalue()


@pytest.mark.parametrize("create_content", [
    lambda: create_workbook_with_part("xl/media/image", 210 << 20),
    lambda: create_workbook_with_part("xl/worksheets/sheet1.xml", 210 << 20),
    lambda: create_workbook_with_part("xl/media/image", 1, count=10_001), lambda: create_workbook("XFD1048576"),
    lambda: create_workbook("A1048576"), lambda: create_workbook("XFD1000"),
])  # fmt: skip
def test_a_workbook_that_expands_too_much_is_refused(tmp_path: Path, create_content):
    table = tmp_path / "clinical.xlsx"
    table.write_bytes(create_content())
    started = time.monotonic()
    with pytest.raises(GliomarkError) as caught:
        read_table(table)
    assert f"{table} is far larger than any table of patients" in str(caught.value)
    assert time.monotonic() - started < 10


def test_a_csv_that_is_too_large_is_refused(tmp_path: Path):
    table = tmp_path / "clinical.csv"
    with table.open("wb") as file:
        file.truncate(201 << 20)
    with pytest.raises(GliomarkError, match="far larger than any table of patients"):
        read_table(table)


@pytest.mark.parametrize("cell", ["", "Z500", "A5000"])
def test_a_valid_workbook_is_read(tmp_path: Path, cell: str):
    table = tmp_path / "clinical.xlsx"
    table.write_bytes(create_workbook(cell))
    header, rows = read_table(table)
    assert header[:3] == ["patient", "age", "sex"] and rows[0][:3] == ["P1", "50", "F"]

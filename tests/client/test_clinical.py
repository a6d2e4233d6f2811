"""Age and sex from a table, and the errors it may contain."""

from __future__ import annotations

from pathlib import Path

import pytest

from gliomark.client.clinical_data import parse_typed_age, read_age_and_sex
from gliomark.client.language import translate_message, use_language
from gliomark.errors import GliomarkError

TABLE = "ID,Age,Sex,备注\n患者 1,53.5,男,\nP2,40,F,x\nP3,,,\nP4,abc,1,\nP5,30,5,\nP6,1,0,\nP6,2,1,\n"


def write_table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "clinical.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_row_is_found_as_on_the_server(tmp_path: Path, encoding: str, delimiter: str) -> None:
    path = write_table(tmp_path, TABLE.replace(",", delimiter), encoding)
    for patient, expected in (("患者 1", (53.5, 0)), ("P2", (40, 1)), ("P3", (None, None))):
        found = read_age_and_sex(path, patient)
        assert (found.age, found.sex) == expected


@pytest.mark.parametrize("patient, row", [("sub-01", "01"), ("sub-P7", "P7"), ("sub-01", "sub-01")])
def test_a_subject_is_found_without_its_prefix(tmp_path: Path, patient: str, row: str) -> None:
    found = read_age_and_sex(write_table(tmp_path, f"id,age,sex\n{row},61,F\n"), patient)
    assert (found.patient_id, found.age, found.sex) == (patient, 61, 1)


@pytest.mark.parametrize(
    "patient, error_text",
    [
        ("P4", "age abc of patient P4 in .*clinical.csv is not an age"),
        ("P5", "sex 5 of patient P5 in .*clinical.csv is not a valid value"),
        ("P6", "2 rows in .*clinical.csv"),
        ("P9", "no row in .*clinical.csv"),
    ],
)
def test_invalid_rows_are_refused(tmp_path: Path, patient: str, error_text: str) -> None:
    with pytest.raises(GliomarkError, match=error_text):
        read_age_and_sex(write_table(tmp_path, TABLE), patient)


@pytest.mark.parametrize("text, error_text", [("a,b\n1,2\n", "no id column"), ("", "no id column")])
def test_a_file_without_an_id_column_is_refused(tmp_path: Path, text: str, error_text: str) -> None:
    with pytest.raises(GliomarkError, match=error_text):
        read_age_and_sex(write_table(tmp_path, text), "P1")


def test_an_unreadable_or_missing_file_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"id,age\n\xff\xff,5\n")
    with pytest.raises(GliomarkError, match="not UTF-8"):
        read_age_and_sex(broken, "P1")
    with pytest.raises(GliomarkError, match="cannot be opened"):
        read_age_and_sex(tmp_path / "nowhere.csv", "P1")


def test_typed_ages_are_parsed() -> None:
    assert [parse_typed_age(text) for text in ("", " 53 ", "53,5", "120", "53岁")] == [
        None,
        53,
        53.5,
        120,
        53,
    ]
    for wrong in ("121", "-1", "x", "1e2", "53,555", "0", "1970"):
        with pytest.raises(GliomarkError, match=f"The age {wrong} is"):
            parse_typed_age(wrong)


def test_a_workbook_is_read_and_errors_are_translated(tmp_path: Path, qapp: object) -> None:
    """A workbook is read like a csv file, and error messages follow the language of the window."""
    from openpyxl import Workbook

    book = Workbook()
    for row in (["住院号", "年龄（岁）", "性别"], ["007", "49岁", "女"]):
        book.active.append(row)
    book.save(tmp_path / "表.xlsx")
    found = read_age_and_sex(tmp_path / "表.xlsx", "007")
    assert (found.age, found.sex) == (49, 1)
    use_language("zh")
    try:
        with pytest.raises(GliomarkError) as refused:
            read_age_and_sex(tmp_path / "表.xlsx", "7")
        assert "仅有相似的编号 '007'" in translate_message(refused.value.message)
    finally:
        use_language("en")

"""The clinical table: encodings, separators, and invalid rows."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gliomark.errors import GliomarkError
from gliomark.io import ClinicalTable, read_clinical_table
from gliomark.study import ClinicalData
from gliomark.tables import check_clinical_row


def write_and_read_table(tmp_path: Path, text: str | bytes, encoding: str = "utf-8") -> ClinicalTable:
    file = tmp_path / "临床 data.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_clinical_table(file)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_encodings_and_separators(tmp_path: Path, encoding: str, separator: str):
    text = "ID,Age,SEX,医院,idh_mutant\r\n患者 01,67.0,女,湘雅,1\r\n\r\nB, 30 ,男,,\r\n".replace(
        ",", separator
    )
    rows = write_and_read_table(tmp_path, text, encoding)
    assert rows.get_row("患者 01") == ClinicalData("患者 01", 67.0, 1, {"医院": "湘雅", "idh_mutant": "1"})
    assert rows.get_row("B") == ClinicalData("B", 30.0, 0, {})
    assert rows.patient_ids == ("患者 01", "B")


@pytest.mark.parametrize("ids, patient, age", [
    ("01 02", "sub-01", 50), ("01 sub-01", "sub-01", 51), ("sub-01 01", "sub-01", 50), ("P7", "SUB-P7", 50),
])  # fmt: skip
def test_a_table_may_omit_the_prefix_of_a_subject(tmp_path: Path, ids: str, patient: str, age: float):
    text = "".join(f"{one},{50 + at},F\n" for at, one in enumerate(ids.split()))
    row = write_and_read_table(tmp_path, f"id,age,sex\n{text}").get_row(patient)
    assert row == ClinicalData(patient, age, 1, {})
    check_clinical_row(row, patient)


@pytest.mark.parametrize("row, patient", [("01", "sub-01"), ("sub-01", "sub-01"), ("P7", "sub-P7")])
def test_a_row_without_the_prefix_belongs_to_the_subject(row: str, patient: str):
    check_clinical_row(ClinicalData(row, 50, 0, {}), patient)


@pytest.mark.parametrize(
    "row, patient", [("1", "sub-01"), ("sub-02", "sub-01"), ("sub-", "sub-01"), ("", "sub-")]
)
def test_a_row_of_another_subject_is_refused(row: str, patient: str):
    with pytest.raises(GliomarkError, match="belongs to patient"):
        check_clinical_row(ClinicalData(row, 50, 0, {}), patient)


@pytest.mark.parametrize("text, sex", [
    ("0", 0), ("1", 1), ("0.0", 0), ("1.0", 1), ("M", 0), ("f", 1), ("Male", 0), ("FEMALE", 1),
    ("男", 0), ("女", 1),
])  # fmt: skip
def test_sexes_are_read(tmp_path: Path, text: str, sex: int):
    assert write_and_read_table(tmp_path, f"id,age,sex\na,50,{text}\n").get_row("a").sex == sex


@pytest.mark.parametrize("header, cells, sexes", [
    ("sex", "1", [1]), ("sex", "0 0", [0, 0]), ("sex", "0 1", [0, 1]), ("sex", "1 2", [0, 1]),
    ("sex (1=female)", "1 1", [1, 1]), ("sex (1=male)", "1 1 1", [0, 0, 0]), ("性别(1=女)", "1 1", [1, 1]),
])  # fmt: skip
def test_sex_codes_are_interpreted_by_their_column(tmp_path: Path, header: str, cells: str, sexes: list[int]):
    text = "".join(f"p{at},50,{cell}\n" for at, cell in enumerate(cells.split()))
    rows = write_and_read_table(tmp_path, f"id,age,{header}\n{text}")
    assert [rows.get_row(one).sex for one in rows.patient_ids] == sexes


@pytest.mark.parametrize("cells, expected_text", [
    ("1 1", "1 is the only number"), ("1 1 1.0", "1 is the only number"), ("1 NA 1", "1 is the only number"),
    ("2 2", "neither 0 and 1"), ("2", "neither 0 and 1"),
])  # fmt: skip
def test_a_single_code_that_may_be_either_sex_is_refused(tmp_path: Path, cells: str, expected_text: str):
    text = "".join(f"p{at},50,{cell}\n" for at, cell in enumerate(cells.split()))
    with pytest.raises(GliomarkError, match=expected_text):
        write_and_read_table(tmp_path, f"id,age,sex\n{text}").get_row("p0")


@pytest.mark.parametrize("cells, sexes", [("1 1", [1, 1]), ("1 F", None), ("0 0", [0, 0]), ("F F", [1, 1])])
def test_a_table_written_by_gliomark_is_read_unchanged(tmp_path: Path, cells: str, sexes: list[int] | None):
    file = tmp_path / "MetaMS.csv"
    file.write_text("id,age,sex\n" + "".join(f"p{at},50,{cell}\n" for at, cell in enumerate(cells.split())))
    rows = read_clinical_table(file, is_gliomark_table=True)
    if sexes is None:
        with pytest.raises(GliomarkError, match="mixes numbers and words"):
            rows.get_row("p0")
    else:
        assert [rows.get_row(one).sex for one in rows.patient_ids] == sexes


@pytest.mark.parametrize("written", [
    "P\u20130007", "P\u20140007", "P\u22120007", "P\uff0d0007", "Ｐ-0007", "P\uff3f0007", "P\u00ad0007", "P\uff0f0007",
])  # fmt: skip
def test_an_id_with_other_characters_is_suggested(tmp_path: Path, written: str):
    with pytest.raises(GliomarkError) as caught:
        write_and_read_table(tmp_path, f"id,age,sex\n{written},50,M\n").get_row("P-0007")
    assert "Patient P-0007" in str(caught.value) and f"'{written}'" in str(caught.value)


def test_decimal_comma_in_a_semicolon_table(tmp_path: Path):
    assert write_and_read_table(tmp_path, "id;age;sex\na;45,5;M\n").get_row("a").age == 45.5


def test_two_encodings_of_one_letter_are_one_patient(tmp_path: Path):
    assert write_and_read_table(tmp_path, "id,age,sex\nRene\u0301,50,M\n").get_row("Ren\u00e9").age == 50


@pytest.mark.parametrize("row, column", [("a,,M", "age"), ("a,50,", "sex"), ("a,NA,M", "age"), ("a", "age")])
def test_missing_age_or_sex_is_refused_if_required(tmp_path: Path, row: str, column: str):
    rows = write_and_read_table(tmp_path, f"id,age,sex\n{row}\n")
    with pytest.raises(GliomarkError, match=f"The {column} of patient a in .*csv is missing"):
        rows.get_row("a")
    assert getattr(rows.get_row("a", require_age_sex=False), column) is None


@pytest.mark.parametrize("row, expected_text", [
    ("a,-1,M", "age -1 .*outside 0 to 120"), ("a,130,M", "age 130 .*outside"),
    ("a,old,M", "age old .*not an age"),
    ("a,1_0,M", "not an age"), ("a,inf,M", "not an age"), ("a,50,2", "sex 2 .*not a valid value"),
    ("a,50,x", "sex x .*not a valid value"),
])  # fmt: skip
def test_invalid_values_are_refused_even_if_not_required(tmp_path: Path, row: str, expected_text: str):
    with pytest.raises(GliomarkError, match=expected_text):
        write_and_read_table(tmp_path, f"id,age,sex\n{row}\n").get_row("a", require_age_sex=False)


def test_a_patient_not_in_the_table_or_listed_twice_is_refused(tmp_path: Path):
    rows = write_and_read_table(tmp_path, "id,age,sex\na,50,M\nb,40,F\nb,41,F\n")
    with pytest.raises(GliomarkError, match="Patient c has no row in .*临床 data.csv"):
        rows.get_row("c")
    with pytest.raises(GliomarkError, match="Patient b has 2 rows in"):
        rows.get_row("b")
    assert rows.get_row("a").age == 50


@pytest.mark.parametrize("text, expected_text", [
    ("name,age\na,5\n", "no id column .columns: name, age"), ("", "no id column .columns: none"),
    ("id,age,Age\na,5,6\n", "column age twice"), ("id,age,sex\na,45,5,M\n", "more cells than the header"),
    ('id,age,sex\n"a,50,M\n', "not a valid CSV"),
    (b"id,age\n\xff\xff,5\n", "not UTF-8, UTF-16 or GB18030"),
    (b"id,age\0\na,5\n", "not UTF-8, UTF-16 or GB18030"),
])  # fmt: skip
def test_invalid_tables_are_refused(tmp_path: Path, text: str | bytes, expected_text: str):
    with pytest.raises(GliomarkError, match=expected_text):
        write_and_read_table(tmp_path, text)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(GliomarkError, match="cannot be opened"):
        read_clinical_table(tmp_path / "none.csv")
    with pytest.raises(GliomarkError, match="cannot be opened"):
        read_clinical_table(tmp_path)


def test_real_table(shared: Path):
    rows = read_clinical_table(shared / "cohorts/tcga-lgg/clinical.csv")
    assert len(rows.patient_ids) == 96
    patient = rows.get_row("TCGA-CS-4941")
    assert (patient.age, patient.sex) == (67.0, 0)
    assert patient.columns["who_cns5"] == "Glioblastoma, IDH-wildtype. Grade 4."


def write_workbook(file: Path, rows: list[list[Any]], formats: dict[str, str] | None = None) -> Path:
    from openpyxl import Workbook

    book = Workbook()
    for row in rows:
        book.active.append(row)
    for cell, cell_format in (formats or {}).items():
        book.active[cell].number_format = cell_format
    book.create_sheet("second").append(["id", "age"])
    book.save(file)
    return file


def test_workbook_cells_are_read_as_displayed(tmp_path: Path):
    rows = [
        ["ID", "Age", "sex", "ki67", "seen", "score", "done"],
        [42, 67.0, "女", 0.15, datetime(2020, 1, 31), 0.1 + 0.2, True],
        [None] * 7,
        ["b", None, "M", "10-20%", None, 12.5, False],
    ]
    write_and_read_table = read_clinical_table(
        write_workbook(tmp_path / "t.xlsx", rows, {"A2": "00000", "D2": "0%"})
    )
    assert write_and_read_table.patient_ids == ("00042", "b")
    assert write_and_read_table.get_row("00042") == ClinicalData(
        "00042", 67.0, 1, {"ki67": "15%", "seen": "2020-01-31", "score": "0.3", "done": "1"}
    )
    assert write_and_read_table.get_row("b", require_age_sex=False).columns == {
        "ki67": "10-20%",
        "score": "12.5",
        "done": "0",
    }


def test_unreadable_workbooks_are_refused(tmp_path: Path):
    file = write_workbook(tmp_path / "t.xlsx", [["name", "age"], ["a", 5]])
    with pytest.raises(GliomarkError, match="no id column .columns: name, age"):
        read_clinical_table(file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(GliomarkError, match="damaged workbook"):
        read_clinical_table(file)
    file.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    with pytest.raises(GliomarkError, match="old or password-protected workbook"):
        read_clinical_table(file)

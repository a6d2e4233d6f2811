"""The table reader: separators, encodings, headers, titles, ages, sexes and ids as used in hospitals."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openpyxl import Workbook

from gliomark.errors import GliomarkError
from gliomark.study import ClinicalData
from gliomark.tables import (
    CellError,
    check_clinical_row,
    format_csv,
    parse_age,
    read_clinical_table,
    read_table,
)
from gliomark.tables.age_sex import AgeFormat
from gliomark.tables.cell_text import unescape_formula
from gliomark.tables.csv_writer import escape_formula
from gliomark.tables.patient_ids import find_similar_ids

PLAIN = "id,age,sex,note\nP-007,49.5,F,a\nP-008,50,M,\n"


def write_table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "表 1.csv"
    path.write_bytes(text.encode(encoding))
    return path


def read_patients(path: Path) -> list[tuple[str, float | None, int | None]]:
    table = read_clinical_table(path)
    rows = [table.get_row(one, require_age_sex=False) for one in table.patient_ids]
    return [(row.patient_id, row.age, row.sex) for row in rows]


# ---- csv ---------------------------------------------------------------------------------------------

EQUAL_TABLES = {
    "comma": PLAIN,
    "semicolon with decimal comma": "id;age;sex;note\nP-007;49,5;F;a\nP-008;50;M;\n",
    "semicolon with commas in a cell": "id;age;sex;note\nP-007;49,5;F;a, b, c\nP-008;50;M;d, e, f\n",
    "tab": PLAIN.replace(",", "\t"),
    "vertical bar": PLAIN.replace(",", " | "),
    "blanks": "id     age   sex\nP-007  49.5  F\nP-008  50    M\n",
    "one blank": "id age sex\nP-007 49.5 F\nP-008 50 M\n",
    "tabs and blanks": "id\t\tage \t sex\nP-007\t\t49.5\t F\nP-008 \t50\tM\n",
    "sep": "sep=;\nid;age;sex\nP-007;49,5;F\nP-008;50;M\n",
    "sep in quotes": '"sep=|"\r\nid|age|sex\r\nP-007|49,5|F\r\nP-008|50|M\r\n',
    "two byte order marks": "\ufeff\ufeff" + PLAIN,
    "byte order mark and sep": "\ufeffsep=,\n\ufeff" + PLAIN,
    "carriage returns": PLAIN.replace("\n", "\r"),
    "doubled carriage returns": PLAIN.replace("\n", "\r\r\n"),
    "quotes": 'id,age,sex\n"P-007","49,5","F"\n"P-008", "50", "M"\n',
    "marked as text": '="id",age,sex\n="P-007",49.5,F\n="P-008",50,M\n',
    "title above": "胶质瘤患者登记表,,,\n\n" + PLAIN,
    "title without commas": "Glioma registry 2024\n" + PLAIN,
    "empty columns at the end": "id,age,sex,,,\nP-007,49.5,F,,,\nP-008,50,M,,,\n",
    "invisible characters": "\u200bid,age,sex\nP-007\u200b,49.5\u00a0,F\n\u200eP-008,50,M\n",
    "full-width digits in ages": "id,age,sex\nP-007,４９．５,F\nP-008,５０岁,M\n",
}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("id,Name\nMüller1,Jörg\nGroß2,Zoë\n", "cp1252"),
        ("id;Ort\n1;Universitätsklinik Köln\n2;Besançon\n", "cp1252"),
        ("id,clinic\n1,Saint-Étienne\n2,A Coruña – Área 3\n", "cp1252"),
        ("编号,姓名\n1,张三\n2,李镕\n", "gb18030"),
        ("id,IDH突变\n1,突变型\n2,野生型\n", "gb18030"),
        ("id,医院\n1,㐀㐁医院\n2,Müller 医院\n", "gb18030"),
    ],
)
def test_letters_of_both_single_and_double_bytes_are_read(tmp_path: Path, text: str, encoding: str) -> None:
    header, records = read_table(write_table(tmp_path, text, encoding))
    separator = ";" if ";" in text else ","
    assert [header, *records] == [line.split(separator) for line in text.splitlines()]


@pytest.mark.parametrize("form", EQUAL_TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "gb18030"])
def test_the_same_table_is_read_in_every_form(tmp_path: Path, form: str, encoding: str) -> None:
    text = EQUAL_TABLES[form]
    if encoding == "gb18030":
        text = text.replace("\ufeff", "").replace("\u00a0", "")
    assert read_patients(write_table(tmp_path, text, encoding)) == [("P-007", 49.5, 1), ("P-008", 50, 0)]


@pytest.mark.parametrize("text, expected_text", [
    ("<html><table><tr><td>id</td></tr></table>", "web page or XML"),
    ('<?xml version="1.0"?>\n<Workbook/>', "web page"),
    ("id,age,sex\nA,49,5,F\n", "Row A in .* has more cells than the header"),
    ("id,age,sex\nA,49,F,x\n", "more cells"),
    ("age,sex\n49,F\n", "no id column .columns: age, sex"), ("\n\n", "no id column .columns: none"),
    ("住院号,影像号,年龄\n1,2,49\n", "several columns that may contain the patient's id .住院号, 影像号."),
    ("patient_id,MRN,age\nA,1,49\n", "patient_id, MRN"),
    ("case id,subject,age\nA,1,49\n", "case id, subject"),
    ("id,age,年龄\nA,49,50\n", "several columns for age .age, 年龄."),
    ("id,sex,性别\nA,F,男\n", "several columns for sex"),
    ("id,note,Note\nA,x,y\n", "column note twice"),
])  # fmt: skip
def test_invalid_tables_are_refused_in_one_sentence(tmp_path: Path, text: str, expected_text: str) -> None:
    with pytest.raises(GliomarkError, match=expected_text) as refused:
        read_clinical_table(write_table(tmp_path, text))
    assert "表 1.csv" in str(refused.value)


@pytest.mark.parametrize("header", [
    "编号,年龄,性别", "住院号,年龄（岁）,性别", "病历号,年龄(岁),性别（男/女）",
    "患者编号,患者年龄,患者性别", "影像号,诊断年龄,性别", "ID,Age (years),Sex",
    "patient_id,age_at_diagnosis,Gender", "PatientID,PatientAge,PatientSex", "subject,Age at MRI,sex (M/F)",
    "participant_id,age,sex", "MRN,Age,Sex at birth", "Patient ID,AGE,Patient's Sex",
    "case_id,age_years,gender",
])  # fmt: skip
def test_headers_are_recognised(tmp_path: Path, header: str) -> None:
    assert read_patients(write_table(tmp_path, f"{header}\n0012,49,F\n")) == [("0012", 49, 1)]


@pytest.mark.parametrize("text, patient", [
    ("编号,住院号,年龄\n1,0012,49\n2,0013,50\n", "0012"),
    ("id,住院号,年龄\n1,0012,49\n2,0013,50\n", "0012"),
    ("住院号,id,年龄\n0012,1,49\n0013,2,50\n", "0012"), ("id,MRN,age\nA1,0012,49\nA2,0013,50\n", "A1"),
    ("patient_id,MRN,age\nA,A,49\nB,B,50\n", "A"),
])  # fmt: skip
def test_the_id_column_is_chosen_among_several(tmp_path: Path, text: str, patient: str) -> None:
    """``id`` is chosen unless it numbers the rows; row numbers come last; equal columns count as one."""
    assert read_clinical_table(write_table(tmp_path, text)).get_row(patient, require_age_sex=False).age == 49


# ---- workbooks ---------------------------------------------------------------------------------------


def write_workbook(path: Path, rows: list[list[Any]]) -> Path:
    book = Workbook()
    book.active.title = "empty"
    sheet = book.create_sheet("患者")
    for row in rows:
        sheet.append(row)
    book.save(path)
    return path


def test_a_title_and_an_empty_first_sheet_are_skipped(tmp_path: Path) -> None:
    rows = [["胶质瘤登记表"], [], ["住院号", "年龄", "性别"], ["0012", 49, "女"]]
    assert read_patients(write_workbook(tmp_path / "t.xlsx", rows)) == [("0012", 49, 1)]


@pytest.mark.parametrize("cell, expected_text", [
    (date(1970, 1, 2), "age 1970-01-02 .* is a date"), (1970, "age 1970 .* year of birth"),
    ("=2024-1975", "without a stored"),
])  # fmt: skip
def test_workbook_cells_that_are_not_an_age_are_refused(
    tmp_path: Path, cell: object, expected_text: str
) -> None:
    table = read_clinical_table(write_workbook(tmp_path / "t.xlsx", [["id", "age", "sex"], ["A", cell, "F"]]))
    with pytest.raises(GliomarkError, match=expected_text):
        table.get_row("A")


def test_a_web_page_named_xls_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.xls"
    file.write_text("<html><body><table><tr><td>id</td></tr></table></body></html>")
    with pytest.raises(GliomarkError, match="web page"):
        read_table(file)


# ---- ages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, years", [
    ("45", 45), ("49.5", 49.5), ("49,5", 49.5), ("045Y", 45), ("45岁", 45), ("45 周岁", 45), ("045岁", 45),
    ("49 y", 49),
    ("49 years", 49), ("49 yrs", 49), ("49 y/o", 49), ("49 years old", 49), ("18M", 1.5), ("018M", 1.5),
    ("18个月", 1.5),
    ("18 months", 1.5), ("3岁6月", 3.5), ("3 岁 6 个月", 3.5), ("3y6m", 3.5), ("1岁半", 1.5), (">89", 90),
    ("> 89", 90), ("90+", 90),
    ("≥90", 90), ("90岁以上", 90), ("<1", 0.5), ("52W", 52 / 52.18), ("45.0", 45), ("４５", 45),
    ("年龄：45岁", 45), ("120", 120),
    ("", None), ("NA", None), ("不详", None), ("-", None), ("000Y", None), ("#N/A", None),
])  # fmt: skip
def test_ages_are_read_in_every_form(text: str, years: float | None) -> None:
    assert parse_age(text) == (years if years is None else pytest.approx(years))


@pytest.mark.parametrize("text, expected_text", [
    ("-3", "outside 0 to 120"), ("150", "outside 0 to 120"), ("430", "outside"), ("120.5", "outside"),
    ("1970", "year of birth"),
    ("1970年", "year of birth"), ("1970-01-02", "a date"), ("1970/1/2", "a date"), ("19700102", "a date"),
    ("2.1.1970", "a date"),
    ("0", "is 0"), ("0.0", "is 0"), ("0岁", "is 0"), ("fifty", "no"), ("4 9", "not an age"),
    ("49,555", "not an age"),
    ("1,234", "not an age"), ("1e2", "not an age"), ("inf", "not an age"), ("40-50", "not an age"),
    (">50", "not an age"),
    ("约45", "not an age"), ("45 M", "months or the age of a man"), ("45/F", "not an age"),
    ("49%", "not an age"), ("45?", "not an age"),
])  # fmt: skip
def test_impossible_ages_are_refused(text: str, expected_text: str) -> None:
    with pytest.raises(CellError, match=expected_text):
        parse_age(text)


@pytest.mark.parametrize("header, cell, years", [
    ("Age (months)", "588", 49), ("年龄（月）", "18", 1.5), ("age_at_diagnosis (days)", "17897", 49),
    ("Age (months)", "49岁", 49),
])  # fmt: skip
def test_ages_in_other_units_are_converted(tmp_path: Path, header: str, cell: str, years: float) -> None:
    table = read_clinical_table(write_table(tmp_path, f"id,{header},sex\nA,{cell},F\n"))
    assert table.get_row("A").age == pytest.approx(years, abs=0.01)


def test_an_m_may_mean_months_or_male() -> None:
    assert parse_age("18M", AgeFormat()) == 1.5
    with pytest.raises(CellError, match="months or the age of a man"):
        parse_age("18M", AgeFormat(uses_m_for_months=False))


# ---- sexes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header, cells, sexes", [
    ("sex", "M F", (0, 1)), ("sex", "male Female", (0, 1)), ("性别", "男 女", (0, 1)),
    ("性别", "男性 女性", (0, 1)), ("sex", "m w", (0, 1)),
    ("sex", "Man Woman", (0, 1)), ("sex", "0 1", (0, 1)), ("sex", "1.0 0.0", (1, 0)),
    ("sex", "1 2", (0, 1)),
    ("sex", "2 1 9", (1, 0, None)), ("sex (1=male, 2=female)", "1 1", (0, 0)),
    ("性别(1男2女)", "1 2", (0, 1)),
    ("性别（男=1，女=0）", "1 0", (0, 1)), ("Sex (0=F, 1=M)", "0 1", (1, 0)),
    ("sex (1=female)", "1 0", (1, 0)),
    ("sex_1male_2female", "2 1", (1, 0)), ("sex", "1", (1,)), ("sex", "M -", (0, None)),
    ("性别", "女 不详", (1, None)),
])  # fmt: skip
def test_sexes_are_read_in_every_form(
    tmp_path: Path, header: str, cells: str, sexes: tuple[int | None, ...]
) -> None:
    rows = [f"P{at},{cell}" for at, cell in enumerate(cells.split())]
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", header], *(row.split(",") for row in rows)])
    assert tuple(sex for _, _, sex in read_patients(path)) == sexes


@pytest.mark.parametrize("header, cells, expected_text", [
    ("sex", "0 1 2", "neither 0 and 1"), ("sex", "1 1", "1 is the only number"),
    ("sex", "2 2", "not a valid value"), ("sex", "1 3", "not a valid value"),
    ("sex", "1 M", "mixes numbers and words"), ("sex", "2 女", "mixes"), ("sex", "M/F F", "not a valid value"),
    ("sex (1=male, 2=female)", "0 1", "name defines other codes"), ("sex", "M H", "mujer"),
    ("sex", "x M", "not a valid value"),
])  # fmt: skip
def test_ambiguous_or_invalid_sexes_are_refused(
    tmp_path: Path, header: str, cells: str, expected_text: str
) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [["id", header], *([f"P{at}", cell] for at, cell in enumerate(cells.split()))]
        )
    with pytest.raises(GliomarkError, match=expected_text):
        read_clinical_table(path).get_row("P0", require_age_sex=False)


# ---- ids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requested, row", [
    ("007", "7"), ("7", "007"), ("12345678901", "1.23457E+10"), ("12345678901", "1.23E+10"), ("42", "42.0"),
    ("A 42", "A42"),
    ("p-42", "P-42"), ("P42", "Ｐ４２"), ("P-007", "P7"), ("123456789012345678", "123456789012345000"),
    ("'007", "007"),
])  # fmt: skip
def test_a_similar_id_is_suggested_but_not_used(tmp_path: Path, requested: str, row: str) -> None:
    table = read_clinical_table(write_table(tmp_path, f"id,age,sex\n{row},49,F\nother,50,M\n"))
    with pytest.raises(GliomarkError, match="no row in") as refused:
        table.get_row(requested)
    assert f"similar id exists ('{row}')" in str(refused.value)


def test_different_ids_are_not_similar(tmp_path: Path) -> None:
    assert find_similar_ids("007", ["70", "17", "0070", "7A", ""]) == []
    assert find_similar_ids("12345678901", ["1.24E+10", "1.23E+11"]) == []
    assert find_similar_ids("P1", ["p1", "P-1", "P01"]) == ["p1", "P-1", "P01"]
    with pytest.raises(GliomarkError, match="add one row with this id"):
        read_clinical_table(write_table(tmp_path, "id,age,sex\n70,49,F\n")).get_row("007")


def test_equal_rows_of_one_patient_count_once(tmp_path: Path) -> None:
    """Equal rows count as one; different rows are an error."""
    table = read_clinical_table(write_table(tmp_path, "id,age,sex\nA,49,F\nA,49,F\nB,50,M\nB,51,M\n"))
    assert table.get_row("A").age == 49
    with pytest.raises(GliomarkError, match="Patient B has 2 rows"):
        table.get_row("B")


# ---- the row of a prediction -------------------------------------------------------------------------


@pytest.mark.parametrize("row, expected_text", [
    (ClinicalData("B", 49, 1), "row belongs to patient B, the images to patient A"),
    (ClinicalData("a", 49, 1), "patient a"),
    (ClinicalData("A", -3, 1), "age -3 is invalid"), (ClinicalData("A", 150, 1), "age 150"),
    (ClinicalData("A", float("nan"), 1), "age nan"),
    (ClinicalData("A", "49", 1), "age '49'"), (ClinicalData("A", True, 1), "age True"),
    (ClinicalData("A", 49, 2), "sex 2 is invalid"),
    (ClinicalData("A", 49, "F"), "sex 'F'"), (ClinicalData("A", 49, -1), "sex -1"),
    (ClinicalData("A", 49, True), "sex True"),
])  # fmt: skip
def test_a_row_that_cannot_belong_to_the_patient_is_refused(row: ClinicalData, expected_text: str) -> None:
    with pytest.raises(GliomarkError, match=expected_text):
        check_clinical_row(row, "A")


@pytest.mark.parametrize("row", [
    ClinicalData("A", 49, 1), ClinicalData("A", None, None), ClinicalData("A", np.float32(49.5), np.int64(0)),
    ClinicalData(" A", 0.2, 0),
])  # fmt: skip
def test_a_row_that_may_belong_to_the_patient_is_accepted(row: ClinicalData) -> None:
    check_clinical_row(row, "A")


# ---- writing -----------------------------------------------------------------------------------------

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "＝1+1",
    "=HYPERLINK(0)",
    "-Foo",
    "'=1",
]
HARMLESS = ["-3.5", "+5", "-1e-5", "-", "--", "+", "P-1", "a=b", "", "-12 %", "'quoted'", "-0,5"]


@pytest.mark.parametrize("cell", FORMULAS)
def test_formulas_are_written_as_text_and_read_back(tmp_path: Path, cell: str) -> None:
    text = format_csv([["id", "age", "sex", "remark"], [cell, 49, "F", cell]])
    (row,) = list(csv.reader(text.splitlines()[1:2])) if "\r" not in cell else [[escape_formula(cell)]]
    assert row[0].startswith("'") and unescape_formula(str(escape_formula(cell))) == cell


@pytest.mark.parametrize("cell", HARMLESS)
def test_other_cells_are_unchanged(cell: str) -> None:
    assert escape_formula(cell) == cell and unescape_formula(cell) == cell


@pytest.mark.parametrize("patient", ["=1+1", "@home", "-Foo", "+49 171"])
def test_an_id_like_a_formula_finds_its_row(tmp_path: Path, patient: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(format_csv([["id", "age", "sex"], [patient, 49, 1]]), encoding="utf-8")
    assert read_clinical_table(path).get_row(patient).age == 49

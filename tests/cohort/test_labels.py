"""Tests of reading hospitals' tables, and of the columns that may enter a cohort."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliomark.cohort.labels import (
    LabelSettings,
    LabelTable,
    cell_encoding,
    compute_age,
    read_labels,
    write_clinical_table,
)
from gliomark.errors import GliomarkError
from gliomark.io import read_clinical_table


def write_and_read_labels(tmp_path: Path, text: str, settings: LabelSettings = LabelSettings()) -> LabelTable:
    file = tmp_path / "table.csv"
    file.write_text(text, "utf-8")
    return read_labels(file, settings)


def test_a_chinese_table_is_read(tmp_path: Path):
    table = write_and_read_labels(
        tmp_path,
        "编号,姓名,住院号,性别,年龄,WHO分级,Ki-67（%）,IDH1,1p/19q,MGMT启动子甲基化,手术日期,医院\n"
        "1,王小明,00123456,男,67岁,Ⅲ级,15%,突变,共缺失,甲基化,2020-01-31,湘雅\n"
        "2,李雷,00123457,女,34,II,约5%,野生型,未缺失,未甲基化,2020年2月1日,湘雅\n"
        "3,张三丰,00123458,男,,4,,-,,,2020/3/1,协和\n",
    )
    assert table.ids == ("00123456", "00123457", "00123458")
    assert table.columns == (
        "age", "sex", "ki67", "ki67_high", "idh_mutant", "mgmt", "who_grade", "codel_1p19q", "医院"
    )  # fmt: skip
    assert table.find_row("00123456") == dict(
        zip(table.columns, ["67", "0", "15", "1", "1", "1", "3", "1", "湘雅"], strict=True)
    )
    assert table.find_row("123457") == dict(
        zip(table.columns, ["34", "1", "5", "0", "0", "0", "2", "0", "湘雅"], strict=True)
    )
    assert table.find_row("00123458")["idh_mutant"] == "" and table.find_row("9") is None
    assert table.notes == ("Omitted because they may identify a patient: 编号, 姓名, 手术日期.",)


@pytest.mark.parametrize("cells, threshold, percent, high", [
    (["15", "9.9", "10", ""], 10.0, ["15", "9.9", "10", ""], ["1", "0", "1", ""]),
    (["15", "9.9", "10", ""], 12.0, ["15", "9.9", "10", ""], ["1", "0", "0", ""]),
    (["15%", "(+, 30%)", "20%+", "10-20 %"], 15.0, ["15", "30", "20", "15"], ["1", "1", "1", "1"]),
    (["<5%", ">30%", "<20%", ">5"], 10.0, ["", "", "", ""], ["0", "1", "", ""]),
    (["0", "1", "1.0", ""], 10.0, None, ["0", "1", "1", ""]),
    (["high", "低", "", "高"], 10.0, None, ["1", "0", "", "1"]),
    (["0.5%", "1", "0", "40"], 10.0, ["0.5", "1", "0", "40"], ["0", "0", "0", "1"]),
])  # fmt: skip
def test_ki67_is_stored_as_percentage_and_level(
    tmp_path: Path, cells: list[str], threshold: float, percent: list[str] | None, high: list[str]
):
    rows = "".join(f'{at},"{cell}"\n' for at, cell in enumerate(cells))
    table = write_and_read_labels(tmp_path, "id,Ki-67\n" + rows, LabelSettings(threshold))
    read = list(table.rows.values())
    assert [row["ki67_high"] for row in read] == high
    assert ([row["ki67"] for row in read] if "ki67" in table.columns else None) == percent


@pytest.mark.parametrize("header, cell, expected_text", [
    ("ki67", "0.15", r"ki67 '0.15' of b may mean 15 % or 0.15 %"), ("ki67", "150", "above 100 %"),
    ("ki67", "many", "is not a percentage"), ("ki67", "30-20", "first value is larger"),
    ("ki67", "2020-10-20", "is not a percentage"), ("ki67(%)", "0.15", None),
    ("idh", "maybe", "enter 1 or 0, or mutant"),
    ("idh", "2", "is not a valid value"), ("grade", "II-III", "not a single WHO grade"), ("grade", "5", "not a single"),
    ("sex", "2", "is not a valid value"), ("age", "old", "not an age in years"), ("age", "150", "outside 0 to 120"),
])  # fmt: skip
def test_ambiguous_or_invalid_cells_are_refused(
    tmp_path: Path, header: str, cell: str, expected_text: str | None
):
    good = {"ki67": "40", "ki67(%)": "40", "idh": "wt", "grade": "3", "sex": "M", "age": "50"}[header]
    text = f"id,{header}\na,{good}\nb,{cell}\n"
    if expected_text is None:
        assert write_and_read_labels(tmp_path, text).find_row("b")["ki67"] == "0.15"
        return
    with pytest.raises(GliomarkError, match=expected_text):
        write_and_read_labels(tmp_path, text)


def test_all_invalid_cells_are_reported_together(tmp_path: Path):
    with pytest.raises(
        GliomarkError, match=r"grade 'x' of a .*; grade 'q' of b .*; idh .* \(and 1 more\)\.$"
    ):
        write_and_read_labels(tmp_path, "id,idh,grade\na,x,x\nb,q,q\n")


@pytest.mark.parametrize("reader, ones, zeros, blanks", [
    (cell_encoding.encode_idh, "mutant Mutated 突变 突变型 1 1.0 + 阳性 R132H IDH1突变 positive",
     "wt WT wildtype 野生型 0 - "
     "阴性 未突变 IDH-wildtype", ". 未知 NA indeterminate"),
    (cell_encoding.encode_mgmt, "methylated 甲基化 阳性 1 positive", "unmethylated 未甲基化 0 negative",
     "indeterminate 不详"),
    (cell_encoding.encode_1p19q, "codel co-deletion 共缺失 1", "intact non-codel 未缺失 0", "relative_co-deletion"),
])  # fmt: skip
def test_flags(reader, ones: str, zeros: str, blanks: str):
    assert {reader(text) for text in ones.split()} == {"1"}
    assert {reader(text) for text in zeros.split()} == {"0"}
    assert {reader(text.replace("_", " ")) for text in blanks.split()} == {""}


@pytest.mark.parametrize("text, grade", [
    ("II", "2"), ("WHO 3", "3"), ("G4", "4"), ("Ⅲ级", "3"), ("grade IV", "4"), ("2.0", "2"), ("三级", "3"),
    ("WHO CNS Grade 2", "2"), ("", ""), ("1", "1"),
])  # fmt: skip
def test_grades(text: str, grade: str):
    assert cell_encoding.encode_who_grade(text) == grade


def test_idh1_and_idh2_are_one_label_and_a_minus_sign_depends_on_the_column(tmp_path: Path):
    table = write_and_read_labels(tmp_path, "id,IDH1,IDH2\na,wt,mut\nb,wt,\nc,,\nd,mut,wt\n")
    assert [row["idh_mutant"] for row in table.rows.values()] == ["1", "0", "", "1"]
    signs = write_and_read_labels(tmp_path, "id,IDH\na,+\nb,-\n")
    assert [row["idh_mutant"] for row in signs.rows.values()] == ["1", "0"]
    empty = write_and_read_labels(tmp_path, "id,IDH\na,mutant\nb,-\n")
    assert [row["idh_mutant"] for row in empty.rows.values()] == ["1", ""]


@pytest.mark.parametrize("header, cells", [
    ("Name", "x y z"), ("电话", "a b c"), ("note", "x a@b.org y"), ("free", "13812345678 x y"), ("x", "2020-01-31 y z"),
    ("seen", "20200131 20200201 20200302"), ("y", "王小明 李雷 张三丰"), ("ref", "00123456 00123457 00123458"),
    ("copy", "P-001 P-002 P-003"), ("ward code", "11 12 13"), ("StudyDate", "a b c"), ("accession", "1 2 3"),
    ("k", "430102199001011234 x y"), ("birth date", "1990 1991 1992"),
])  # fmt: skip
def test_identifying_columns_are_omitted(tmp_path: Path, header: str, cells: str):
    rows = "".join(f"P-00{at},{cell},{at % 2}\n" for at, cell in enumerate(cells.split(), start=1))
    table = write_and_read_labels(tmp_path, f"PatientID,{header},resection\n" + rows)
    assert table.columns == ("resection",)
    assert table.notes == (f"Omitted because they may identify a patient: {header}.",)


def test_measurements_and_classes_are_kept_and_keep_adds_columns(tmp_path: Path):
    rows = "".join(
        f"p{at},{1260788 + at * 977},{at * 0.317:.6f},{'A' if at % 2 else 'B'},text {at}\n"
        for at in range(12)
    )
    header = "id,VOLUME_BRAIN,glcm_Id,subtype,story\n"
    assert write_and_read_labels(tmp_path, header + rows).columns == ("volume_brain", "glcm_id", "subtype")
    kept = write_and_read_labels(tmp_path, header + rows, LabelSettings(keep=("Story",)))
    assert "story" in kept.columns and kept.notes == ()


def test_a_birth_date_is_used_for_the_age_but_is_not_a_column(tmp_path: Path):
    table = write_and_read_labels(
        tmp_path, "id,出生日期,sex\na,1960-02-03,M\nb,,F\n", LabelSettings(keep=("出生日期",))
    )
    assert table.columns == ("sex",) and "1960" not in repr(table)
    assert (table.get_birth_date("a"), table.get_birth_date("b")) == ("19600203", "")


@given(st.dates(date(1900, 1, 1), date(2020, 1, 1)), st.integers(0, 40000))
def test_age_is_computed_from_two_dates(birth: date, days: int):
    examination = date.fromordinal(birth.toordinal() + days)
    years = compute_age(f"{birth:%Y%m%d}", f"{examination:%Y%m%d}")
    assert years == 90.0 or abs(years - days / 365.25) < 0.1
    assert years <= 90.0 and (days < 91 * 365.25 or years == 90.0)


def test_ages_above_89_are_pooled_and_invalid_dates_are_refused(tmp_path: Path):
    assert compute_age("19300601", "20200531") == 90.0 and compute_age("19300601", "20190601") == 89.0
    assert write_and_read_labels(tmp_path, "id,age\na,97\nb,89.5\n").find_row("a")["age"] == "90"
    with pytest.raises(GliomarkError, match="dated before the patient's birth"):
        compute_age("20200101", "20190101")
    with pytest.raises(GliomarkError, match="is not a valid date") as refused:
        compute_age("1960", "20190101")
    assert "1960" not in str(refused.value)


def test_ids(tmp_path: Path):
    table = write_and_read_labels(tmp_path, "id,age\na1,50\na1,50\nB,60\nB,61\n007,70\n")
    assert table.find_row("A1")["age"] == "50" and table.find_row("7")["age"] == "70"
    with pytest.raises(GliomarkError, match="Patient B has several different rows"):
        table.find_row("b")
    assert table.notes == ("1 patient(s) have several rows with different contents.",)
    with pytest.raises(GliomarkError, match="no id column .columns: who, age"):
        write_and_read_labels(tmp_path, "who,age\na,5\n")
    assert write_and_read_labels(tmp_path, "who,age\na,5\n", LabelSettings(id_column="WHO")).ids == ("a",)
    with pytest.raises(GliomarkError, match="Both grade and WHO分级 .* mean who_grade"):
        write_and_read_labels(tmp_path, "id,grade,WHO分级\na,2,3\n")


def test_a_written_table_is_read_back(tmp_path: Path):
    rows = [
        {"id": "G0002", "sex": "0", "resection": "gross, total", "ki67": "15"},
        {"id": "G0001", "age": "50", "sex": "1", "idh_mutant": "1", "医院": "湘雅"},
    ]
    file = tmp_path / "MetaMS.csv"
    write_clinical_table(file, rows)
    assert file.read_text("utf-8").splitlines()[0] == "id,age,sex,ki67,idh_mutant,医院,resection"
    assert [entry.name for entry in tmp_path.iterdir()] == ["MetaMS.csv"]
    table = read_clinical_table(file)
    assert table.patient_ids == ("G0001", "G0002")
    assert table.get_row("G0001").columns == {"idh_mutant": "1", "医院": "湘雅"}
    assert table.get_row("G0002", require_age_sex=False).columns == {
        "ki67": "15",
        "resection": "gross, total",
    }


def test_real_tables(shared: Path):
    ucsf = read_labels(shared / "tables/ucsf-pdgm-t1c-radiomics.csv")
    first = ucsf.find_row("UCSF-PDGM-0004")
    assert {name: first[name] for name in ("age", "sex", "idh_mutant", "mgmt", "who_grade")} == {
        "age": "66", "sex": "0", "idh_mutant": "0", "mgmt": "0", "who_grade": "4",
    }  # fmt: skip
    assert max(float(row["age"]) for row in ucsf.rows.values()) <= 90 and len(ucsf.columns) > 100
    lgg = read_labels(shared / "cohorts/tcga-lgg/clinical.csv")
    assert len(lgg.ids) == 96 and {row["who_grade"] for row in lgg.rows.values()} <= {"", "2", "3", "4"}
    assert lgg.notes == ()


def test_predictions_in_the_table_are_no_labels(tmp_path: Path):
    text = (
        "id,ki67_probability,ki67_level,Ki-67,idh_raw_probability,idh_level,mgmt_level\n"
        "A,0.9,high,3 %,0.1,cannot tell,1\nB,0.1,cannot tell,,0.9,mutant,0\n"
    )
    table = write_and_read_labels(tmp_path, text)
    assert table.rows["A"] == {"ki67": "3", "ki67_high": "0", "mgmt_level": "1"}
    assert table.rows["B"] == {"ki67": "", "ki67_high": "", "mgmt_level": "0"}

"""Age and sex out of a csv, and each way in which it may be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gliomark.client.clinical import AgeSex, age_and_sex, parse_age
from gliomark.io import read_clinical
from gliomark.study import GliomarkError

TABLE = "ID,Age,Sex,备注\n患者 1,53.5,男,\nP2,40,F,x\nP3,,,\nP4,abc,1,\nP5,30,5,\nP6,1,0,\nP6,2,1,\n"


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "clinical.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_row_is_found_as_the_server_would(tmp_path: Path, encoding: str, delimiter: str) -> None:
    path = written(tmp_path, TABLE.replace(",", delimiter), encoding)
    table = read_clinical(path)
    for patient, expected in (("患者 1", AgeSex(53.5, 0)), ("P2", AgeSex(40, 1)), ("P3", AgeSex(None, None))):
        found = age_and_sex(path, patient)
        assert found == expected
        row = table.row(patient, require_age_sex=False)
        assert (row.age, row.sex) == (found.age, found.sex)


@pytest.mark.parametrize(
    "patient, said",
    [
        ("P4", "age abc is not a number"),
        ("P5", "sex 5 is not understood"),
        ("P6", "several rows in clinical.csv"),
        ("P9", "no row in clinical.csv"),
    ],
)
def test_wrong_rows_say_what_to_do(tmp_path: Path, patient: str, said: str) -> None:
    with pytest.raises(GliomarkError, match=said):
        age_and_sex(written(tmp_path, TABLE), patient)


@pytest.mark.parametrize("text, said", [("a,b\n1,2\n", "no column named id"), ("", "no column named id")])
def test_no_table(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(GliomarkError, match=said):
        age_and_sex(written(tmp_path, text), "P1")


def test_no_text_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(GliomarkError, match="no csv in UTF-8 or GB18030"):
        age_and_sex(written(tmp_path, TABLE, "utf-16"), "P1")
    with pytest.raises(GliomarkError, match="cannot be opened"):
        age_and_sex(tmp_path / "nowhere.csv", "P1")


def test_age_as_typed() -> None:
    assert [parse_age(text) for text in ("", " 53 ", "53,5", "120")] == [None, 53, 53.5, 120]
    for wrong in ("121", "-1", "x", "1e2", "53,555"):
        with pytest.raises(GliomarkError, match="0 to 120"):
            parse_age(wrong)

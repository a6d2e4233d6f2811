"""Tests of the interpretation of pathologists' phrases: the correct label, blank if unknown, or refused."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from gliomark.cohort.labels import read_labels
from gliomark.errors import GliomarkError

TABLE = Path(__file__).with_name("label_phrases.csv")
LABEL_COLUMNS = {
    "idh": "idh_mutant",
    "mgmt": "mgmt",
    "1p/19q": "codel_1p19q",
    "ki67": "ki67",
    "WHO grade": "who_grade",
}
with TABLE.open(encoding="utf-8", newline="") as _file:
    PHRASES = [(row["column"], row["phrase"], row["expected"]) for row in csv.DictReader(_file)]


def read_cells(folder: Path, column: str, *cells: str) -> list[dict[str, str]]:
    path = folder / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", column], *([f"P{at}", cell] for at, cell in enumerate(cells))])
    return list(read_labels(path).rows.values())


@pytest.mark.parametrize("column, phrase, expected", PHRASES)
def test_a_phrase_gives_its_label(tmp_path: Path, column: str, phrase: str, expected: str) -> None:
    """expected: the label; blank; "refused", with the cell quoted; for Ki-67 "bound": no percentage, maybe a level."""
    if expected == "refused":
        with pytest.raises(GliomarkError) as refused:
            read_cells(tmp_path, column, phrase)
        assert f"{column} '{phrase}' of P0 " in str(refused.value)
        return
    (row,) = read_cells(tmp_path, column, phrase)
    assert row.get(LABEL_COLUMNS[column], "") == ("" if expected in ("blank", "bound") else expected)
    if expected == "blank":
        assert row.get("ki67_high", "") == ""


def test_there_are_enough_phrases() -> None:
    """There are at least 200, half of them Chinese, with every kind of result."""
    chinese = [phrase for _, phrase, _ in PHRASES if re.search(r"[\u3000-\u9fff\uff00-\uffefⅠ-Ⅻ]", phrase)]
    assert len(PHRASES) - len(chinese) >= 100 and len(chinese) >= 100
    assert len(set(PHRASES)) == len(PHRASES)
    kinds = Counter(expected for _, _, expected in PHRASES)
    assert min(kinds["0"], kinds["1"], kinds["blank"], kinds["refused"]) >= 40


@pytest.mark.parametrize("cell, threshold_10", [
    ("<5%", "0"), ("<10%", "0"), ("<20%", ""), ("≤10%", ""), (">30%", "1"), (">10%", "1"), (">5%", ""),
    ("30%以上", "1"),
    ("不足5%", "0"), ("2,5 %", "0"), ("5-10%", "0"), ("10～30%", "1"),
])  # fmt: skip
def test_levels_of_ki67(tmp_path: Path, cell: str, threshold_10: str) -> None:
    assert read_cells(tmp_path, "Ki-67", cell)[0]["ki67_high"] == threshold_10


@pytest.mark.parametrize("column, cells, expected", [
    ("IDH (0=mutant, 1=wild type)", "0 1", ["1", "0"]), ("IDH (0=wt, 1=mutant)", "0 1", ["0", "1"]),
    ("IDH状态(0突变1野生)", "0 1", ["1", "0"]), ("IDH（1：突变，2：野生）", "1 2", ["1", "0"]),
    ("IDH突变(1有0无)", "1 0", ["1", "0"]), ("IDH (0/1)", "0 1", ["0", "1"]),
    ("IDH (exon 4: R132)", "1 0", ["1", "0"]),
    ("IDH (1=foo, 0=bar)", "1 0", None), ("IDH (1=mutant, 0=wt)", "1 2", None),
    ("IDH (1=mutant)", "1 0", ["1", "0"]),
])  # fmt: skip
def test_codes_defined_in_a_column_name(
    tmp_path: Path, column: str, cells: str, expected: list[str] | None
) -> None:
    if expected is None:
        with pytest.raises(GliomarkError, match=r"defines codes|codes in the column name"):
            read_cells(tmp_path, column, *cells.split())
        return
    assert [row["idh_mutant"] for row in read_cells(tmp_path, column, *cells.split())] == expected


@pytest.mark.parametrize("column, name, expected", [
    ("Grade (1=II, 2=III, 3=IV)", "who_grade", ["2", "3"]),
    ("MGMT (1=unmethylated, 2=methylated)", "mgmt", ["0", "1"]),
    ("Ki-67 (1=low, 2=high)", "ki67_high", ["0", "1"]),
    ("1p/19q (1=intact, 2=codeleted)", "codel_1p19q", ["0", "1"]),
])  # fmt: skip
def test_codes_of_the_other_markers(tmp_path: Path, column: str, name: str, expected: list[str]) -> None:
    assert [row[name] for row in read_cells(tmp_path, column, "1", "2")] == expected


@pytest.mark.parametrize("column, cells, expected", [
    ("IDH突变", ["有", "无"], ["1", "0"]), ("IDH", ["+", "-"], ["1", "0"]),
    ("IDH", ["突变", "-"], ["1", ""]),
    ("MGMT甲基化", ["阳性", "阴性"], ["1", "0"]), ("MGMT甲基化", ["(+)", "(-)"], ["1", "0"]),
])  # fmt: skip
def test_single_signs_are_interpreted_by_the_rest_of_the_column(
    tmp_path: Path, column: str, cells: list[str], expected: list[str]
) -> None:
    name = "mgmt" if "MGMT" in column else "idh_mutant"
    assert [row[name] for row in read_cells(tmp_path, column, *cells)] == expected


@pytest.mark.parametrize("column", ["MGMT", "MGMT状态", "MGMT status"])
@pytest.mark.parametrize("cell", ["(+)", "阳性", "MGMT(-)"])
def test_a_protein_stain_is_not_methylation(tmp_path: Path, column: str, cell: str) -> None:
    with pytest.raises(GliomarkError, match="stain for the protein"):
        read_cells(tmp_path, column, cell)

"""Tests of the cohort description: statistics of a small written cohort, each with the number of patients."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import h5py
import pytest
from tests.conftest import update_slice_hashes

from gliomark.cohort.describe import describe_cohort, parse_markers
from gliomark.cohort.store import Cohort


@pytest.fixture
def cohort_copy(prepared_cohort: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared_cohort, tmp_path / "cohort"))


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _get_line(
    rows: list[dict[str, str]], variable: str, level: str = "", section: str = ""
) -> dict[str, str]:
    found = [
        row
        for row in rows
        if row["variable"] == variable and row["level"] == level and section in ("", row["section"])
    ]
    assert len(found) == 1, (variable, level, found)
    return found[0]


def test_table_2_1_uses_the_published_coding(prepared_cohort: Path, tmp_path: Path) -> None:
    folder = describe_cohort(Cohort(prepared_cohort), tmp_path / "out")
    table = {
        row["characteristic"]: (row["coded_0"], row["coded_1"], row["missing"], row["n"])
        for row in _read_rows(folder / "table_2_1.csv")
    }
    # ages 61, 34.5, 47, unknown, 92, 29 (mean 52.7); Ki-67 30, 5, 12, 8, 45, 3 %
    assert table["age >= 45 years"] == ("2", "3", "1", "5")
    assert table["age >= 52.7 years (this cohort's mean)"] == ("3", "2", "1", "5")
    assert table["sex (1 female)"] == ("3", "3", "0", "6")
    assert table["IDH mutant"] == ("2", "3", "1", "5")
    assert table["Ki-67 (1 high, >= 10 % unless given as 0/1)"] == ("3", "3", "0", "6")
    assert table["MGMT methylated"] == ("0", "0", "6", "0")


def test_every_line_of_the_summary_has_its_n(prepared_cohort: Path, tmp_path: Path) -> None:
    rows = _read_rows(describe_cohort(Cohort(prepared_cohort), tmp_path / "out") / "summary.csv")
    assert all(row["n"] and row["of"] for row in rows)
    age = _get_line(rows, "age (years)")
    assert (age["n"], age["of"], age["median"], age["min"], age["max"]) == ("5", "6", "47", "29", "92")
    assert _get_line(rows, "who_grade", "2")["n"] == "3"
    missing = _get_line(rows, "T1C", "missing", "sequences")
    assert (missing["n"], missing["share"]) == ("1", "0.1667")
    scanner = _get_line(rows, "scanner", "SIEMENS Prisma 3 T", "series T1C")
    assert (scanner["n"], scanner["of"]) == ("5", "5")
    train = _get_line(rows, "train", "IDH mutant (of those known)")
    assert (train["n"], train["of"], train["share"]) == ("2", "3", "0.6667")


def test_lesion_volume_is_that_of_the_mask(prepared_cohort: Path, tmp_path: Path) -> None:
    folder = describe_cohort(Cohort(prepared_cohort), tmp_path / "out")
    row = next(row for row in _read_rows(folder / "cohort.csv") if row["id"] == "G0002")
    voxels = 0
    for path in (prepared_cohort / "GMSBraTS" / "T2" / "G0002").glob("*.h5"):
        with h5py.File(path) as file:
            voxels += int(file["mask"][()].sum())
    assert float(row["lesion_volume_ml"]) == pytest.approx(voxels * 0.95 * 0.95 * 5 / 1000, rel=1e-4)
    assert row["sequences"] == "T1C T2"


def test_page_and_datasheet_are_self_contained(prepared_cohort: Path, tmp_path: Path) -> None:
    folder = describe_cohort(Cohort(prepared_cohort), tmp_path / "out")
    page, sheet = ((folder / name).read_text("utf-8") for name in ("describe.html", "datasheet.md"))
    assert page.count("<svg") == 6
    assert not re.search(r'(src|href)="(https?:)?//', page) and "<script" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "Age by sex, n = 5" in page and "TO BE COMPLETED BY THE OWNER" in sheet
    assert "T1C: missing for 1 of 6 patients" in sheet


def test_the_same_cohort_gives_the_same_bytes(prepared_cohort: Path, tmp_path: Path) -> None:
    one, other = (describe_cohort(Cohort(prepared_cohort), tmp_path / name) for name in ("one", "other"))
    assert all((other / path.name).read_bytes() == path.read_bytes() for path in one.iterdir())


def test_rejected_patients_are_left_out_and_counted(cohort_copy: Path) -> None:
    (cohort_copy / "qc.csv").write_text("id,decision\nG0005,reject\n", "utf-8")
    folder = describe_cohort(Cohort(cohort_copy))
    assert folder == cohort_copy / "describe"
    assert "G0005" not in {row["id"] for row in _read_rows(folder / "cohort.csv")}
    assert _get_line(_read_rows(folder / "summary.csv"), "test", "patients")["n"] == "1"
    assert "1 more were prepared and rejected" in (folder / "datasheet.md").read_text("utf-8")


def test_a_cohort_with_almost_no_information_is_described(cohort_copy: Path) -> None:
    """A cohort as from a folder of pictures: no acquisition parameters, ages, labels, folds or masks."""
    (cohort_copy / "folds.json").unlink()
    rows = [f"{path.stem},,,<b>free</b>" for path in sorted((cohort_copy / "patients").glob("*.json"))]
    (cohort_copy / "MetaMS.csv").write_text("\n".join(["id,age,sex,note", *rows]) + "\n", "utf-8")
    for path in (cohort_copy / "patients").glob("*.json"):
        content = json.loads(path.read_text("utf-8"))
        path.write_text(
            json.dumps({k: v for k, v in content.items() if k not in {"series", "quality"}}), "utf-8"
        )
    for path in (cohort_copy / "GMSBraTS").rglob("*.h5"):
        with h5py.File(path, "a") as file:
            del file["mask"]
    update_slice_hashes(cohort_copy)
    folder = describe_cohort(Cohort(cohort_copy))
    lines = _read_rows(folder / "summary.csv")
    assert (_get_line(lines, "age (years)")["n"], _get_line(lines, "volume (ml)")["n"]) == ("0", "0")
    page = (folder / "describe.html").read_text("utf-8")
    assert "<svg" not in page and "<b>free" not in page and "&lt;b&gt;free" in page
    assert "Not created yet" in (folder / "datasheet.md").read_text("utf-8")


def test_ki67_percentage_is_used_only_without_a_code() -> None:
    assert parse_markers({"ki67": "10"})["ki67_high"] == 1
    assert parse_markers({"ki67": "9.9"})["ki67_high"] == 0
    assert parse_markers({"ki67": "30", "ki67_high": "0"})["ki67_high"] == 0
    assert parse_markers({"ki67": "n/a", "mgmt": "1.0"}) == {
        "idh_mutant": None,
        "ki67_high": None,
        "mgmt": 1,
        "codel_1p19q": None,
    }

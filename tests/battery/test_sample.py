"""A fixed sample of the battery, from many entry points and kinds; ``make battery`` runs all cases."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.battery.case_table import collect_cases

DOORS = 12


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Rows of the sample's result table, by key."""
    table = tmp_path_factory.mktemp("battery") / "battery.csv"
    root = Path(__file__).resolve().parents[2]
    arguments = [
        "-m",
        "tests.battery.run",
        "--sample",
        "--out",
        str(table),
        "--work",
        str(table.parent / "work"),
    ]
    process = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=os.environ, capture_output=True, text=True, check=False
    )
    assert table.exists(), process.stdout + process.stderr
    with table.open(newline="", encoding="utf-8") as file:
        found = {f"{row['door']}: {row['case']}": row for row in csv.DictReader(file)}
    assert all(row["verdict"] == "ok" for row in found.values()), process.stdout
    return found


@pytest.mark.slow
def test_cases_of_the_sample_end_as_expected(rows) -> None:
    assert len(rows) >= 40
    assert len({row["door"] for row in rows.values()}) >= 8
    assert len({row["kind"] for row in rows.values()}) >= 15
    assert any(row["expectation"].startswith("answered") for row in rows.values())


def test_the_battery_has_enough_cases() -> None:
    cases = collect_cases().values()
    doors, healthy_cases = (
        Counter(case.door for case in cases),
        [c for c in cases if str(c.expectation).startswith("answered")],
    )
    assert len(cases) >= 400 and len(doors) >= DOORS
    assert len(healthy_cases) >= len(cases) / 12

"""``gliomark audit`` on the command line."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gliomark.cli import app
from gliomark.errors import GliomarkError
from gliomark.messages import render_message
from gliomark.server.run import open_database


def run_audit_command(*arguments: str | Path) -> str:
    """Return the output; GliomarkError is raised here, where ``main`` would print it and exit with status 1."""
    result = CliRunner().invoke(app, ["audit", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


@pytest.fixture
def data(tmp_path: Path) -> Path:
    records = open_database(tmp_path, "")
    for number in range(2500):
        records.add_audit_entry(
            "=Dr. 王", "study viewed" if number % 2 else "report exported", f"s{number}", kind="T1, T2"
        )
    records.engine.dispose()
    return tmp_path


def test_verify_prints_one_sentence_with_the_head(data) -> None:
    sha256, number, at = run_audit_command("head", "--data", data).split()
    assert (
        run_audit_command("verify", "--data", data) == f"2500 lines, intact, head {sha256} ({number}, {at})\n"
    )
    assert number == "2500"
    run_audit_command("show", "--data", data)  # one more line: the export itself is recorded
    noted = run_audit_command("verify", "--data", data, "--expect", f" {sha256.upper()}\n")
    assert noted.startswith("2501 lines, intact") and noted.endswith("; the expected head is at line 2500\n")


def test_show_prints_all_pages_and_applies_filters(data, tmp_path) -> None:
    rows = list(csv.DictReader(run_audit_command("show", "--data", data).splitlines()))
    assert [int(row["number"]) for row in rows] == list(range(1, 2502))
    assert rows[0]["who"] == "'=Dr. 王" and rows[0]["detail"] == '{"kind": "T1, T2"}'
    assert rows[0]["previous_sha256"] == "0" * 64 and rows[1]["previous_sha256"] == rows[0]["sha256"]
    out = tmp_path / "log.csv"
    assert run_audit_command("show", "--data", data, "--action", "report exported", "--out", out) == ""
    with out.open(encoding="utf-8-sig", newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 1250 and {row["action"] for row in found} == {"report exported"}
    assert not list(run_audit_command("show", "--data", data, "--since", "2999-01-01").splitlines()[1:])
    audit_reads = open_database(data, "").list_audit_lines()[:3]
    assert [row.action for row in audit_reads] == ["audit read"] * 3
    assert audit_reads[0].detail == {"since": "2999-01-01T00:00:00.000000Z"}


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        (("verify", "--data", "nowhere"), "contains no gliomark.db"),
        (("head", "--data", "nowhere"), "contains no gliomark.db"),
        (("verify", "--expect", "5f0c"), "is not a SHA-256"),
        (("verify", "--expect", "a" * 64), "is in none of the 0 lines"),
        (("show", "--since", "yesterday"), "is not a date or time"),
    ],
)
def test_an_invalid_request_is_refused_in_one_sentence(tmp_path, monkeypatch, arguments, error_text) -> None:
    monkeypatch.chdir(tmp_path)
    open_database(tmp_path / "gliomark-data", "").engine.dispose()
    with pytest.raises(GliomarkError, match=error_text) as refused:
        run_audit_command(*arguments)
    assert render_message(refused.value.message, "zh") != str(refused.value)
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_log_is_reported_and_leaves_no_partial_export(data, tmp_path) -> None:
    connection = sqlite3.connect(data / "gliomark.db", isolation_level=None)
    connection.execute("DROP TRIGGER audit_no_update")
    connection.execute("UPDATE audit SET detail = 'no json' WHERE number = 1700")
    connection.close()
    with pytest.raises(GliomarkError, match=r"Line 1700 .* was modified .* 1699 lines before it are intact"):
        run_audit_command("verify", "--data", data)
    out = tmp_path / "log.csv"
    with pytest.raises(GliomarkError, match="'gliomark audit verify' identifies the line"):
        run_audit_command("show", "--data", data, "--out", out)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("gliomark.db")] == [
        "studies"
    ]

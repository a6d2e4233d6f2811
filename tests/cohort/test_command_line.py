"""Tests of the cohort commands with bad input: one sentence, exit status 1, and no partial output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gliomark.cli import run

TABLE = "id,age,sex,ki67\nA,50,0,20\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an export without usable files, and a table."""
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "readme.txt").write_text("nothing here")
    (tmp_path / "labels.csv").write_text(TABLE)
    return tmp_path


@pytest.fixture
def run_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., str]:
    """Function that runs a command which must fail, and returns its single line on standard error."""

    def run_command(*arguments: object) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["gliomark", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run()
        error_text = capsys.readouterr().err.strip()
        assert ended.value.code == 1 and error_text.startswith("gliomark: ") and "\n" not in error_text, (
            error_text
        )
        return error_text

    return run_command


BUILD = ("cohort", "build", "export", "--labels", "labels.csv", "--out", "out", "--workers", "0")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("cohort", "build", "none", "--labels", "labels.csv", "--out", "out"), "none is not a folder"),
        (("cohort", "build", "export", "--labels", "none.csv", "--out", "out"), "none.csv cannot be opened"),
        (
            ("cohort", "build", "export", "--labels", "labels.csv", "--out", "export/out"),
            "lies inside export",
        ),
        ((*BUILD, "--sequences", "T1C,T9"), "two different sequences"),
        ((*BUILD, "--masks", "none"), "none is not a folder"),
        ((*BUILD, "--series", "none.csv"), "none.csv cannot be read"),
        ((*BUILD, "--ki67-threshold", "-3"), "threshold"),
        (BUILD, "No patient was found below export"),
        (("cohort", "describe", "export"), "export is not a prepared cohort"),
        (("cohort", "check", "export"), "export is not a prepared cohort"),
        (("cohort", "export", "export", "--to", "bids", "--out", "out"), "export is not a prepared cohort"),
        (("cohort", "anonymise", "none", "--out", "out"), "none"),
        (("cohort", "anonymise", "export", "--out", "export/clean"), "export"),
        (("cohort", "phantom", "--out", "export", "--as", "dicom"), "not empty"),
        (
            ("experiment", "table-2-3", "--cohort", "export", "--out", "out"),
            "export is not a prepared cohort",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    run_refused, folder: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in run_refused(*arguments)
    assert not list(folder.glob("out/*")), "no partial output"
    assert sorted(path.name for path in (folder / "export").iterdir()) == ["readme.txt"]


def test_a_table_without_ids_is_refused_before_any_work(run_refused, folder: Path) -> None:
    (folder / "labels.csv").write_text("name,age\nx,50\n")
    assert "labels.csv" in run_refused(*BUILD)
    assert not (folder / "out").exists() and not (folder / "out.private").exists()

"""What the long commands show while they run: steps on standard error, results on standard output."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gliomark.cli.progress import ProgressLine, show_log


@pytest.fixture
def verbose() -> Iterator[None]:
    """The log as ``--verbose`` configures it; reset after the test."""
    logger = logging.getLogger("gliomark")
    yield
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (("cohort", "check", "COHORT"), "writing quality pages: P01"),
        (("cohort", "describe", "COHORT", "--out", "OUT"), "describing the cohort: P01"),
        (("cohort", "export", "COHORT", "--to", "bids", "--out", "OUT"), "exporting: P15"),
        (("cohort", "export", "COHORT", "--to", "nnunet", "--out", "OUT"), "exporting: P15"),
        (("cohort", "export", "COHORT", "--to", "structured-pictures", "--out", "OUT"), "exporting: P15"),
    ],
)
def test_cohort_commands(verbose, run_command, tiny_cohort_folder, tmp_path: Path, words, steps: str) -> None:
    cohort = shutil.copytree(tiny_cohort_folder, tmp_path / "cohort")
    places = {"COHORT": cohort, "OUT": tmp_path / "out"}
    words = [places.get(word, word) for word in words]
    quiet = run_command(*words)
    assert (quiet.status, quiet.stderr) == (0, "") and str(tmp_path) in quiet.stdout
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    shown = run_command("-v", *words)
    assert shown.status == 0 and shown.stdout == quiet.stdout and steps in shown.stderr


def test_phantom(run_command, verbose, tmp_path: Path) -> None:
    words = ("cohort", "phantom", "--out", tmp_path, "--patients", "1", "--workers", "1")
    shown = run_command("--verbose", *words)
    assert shown.status == 0 and "generating patients: PHANTOM-0001" in shown.stderr


def test_masks_are_required_unless_told(run_command, tmp_path: Path) -> None:
    run_command("cohort", "phantom", "--out", tmp_path / "all", "--workers", "1")
    for mask in (tmp_path / "all").rglob("mask"):
        shutil.rmtree(mask)
    build = ("cohort", "build", tmp_path / "all" / "pictures", "--labels", tmp_path / "all" / "clinical.csv")
    options = ("--out", tmp_path / "cohort", "--workers", "0", "--sequences", "T1C,FLAIR")
    refused = run_command(*build, *options)
    assert refused.status == 1 and refused.stderr.count("\n") == 1
    reasons = (tmp_path / "cohort.private" / "left_out.csv").read_text("utf-8")
    assert "build with --allow-missing-masks" in reasons
    built = run_command(*build, *options, "--allow-missing-masks")
    assert built.status == 0 and "1 patients prepared" in built.stdout, built.stderr


def test_steps_of_a_training_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("gliomark.training")
    with show_log("gliomark.training"):
        log.info("training on %d patients", 8)
    log.info("not shown")
    assert capsys.readouterr() == ("", "training on 8 patients\n")


def test_no_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine() as progress:
        progress.count("exporting")("P01", 1, 2)
    assert capsys.readouterr() == ("", "")

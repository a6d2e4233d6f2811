"""What the long commands show while they run: steps on standard error, results on standard output."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gliomark.cli.progress import ProgressLine, show_log


@pytest.fixture
def reset_log() -> Iterator[None]:
    """The log as ``--verbose`` configures it; reset after the test."""
    logger = logging.getLogger("gliomark")
    yield
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        (("cohort", "check", "COHORT"), "writing quality pages: P01"),
        (("cohort", "describe", "COHORT", "--out", "OUT"), "describing the cohort: P01"),
        (("cohort", "export", "COHORT", "--to", "bids", "--out", "OUT"), "exporting: P15"),
        (("cohort", "export", "COHORT", "--to", "nnunet", "--out", "OUT"), "exporting: P15"),
        (("cohort", "export", "COHORT", "--to", "structured-pictures", "--out", "OUT"), "exporting: P15"),
    ],
)
def test_cohort_commands_log_their_steps_if_verbose(
    reset_log, run_command, tiny_cohort_folder, tmp_path: Path, arguments, steps: str
) -> None:
    cohort = shutil.copytree(tiny_cohort_folder, tmp_path / "cohort")
    paths = {"COHORT": cohort, "OUT": tmp_path / "out"}
    arguments = [paths.get(argument, argument) for argument in arguments]
    quiet_result = run_command(*arguments)
    assert (quiet_result.status, quiet_result.stderr) == (0, "") and str(tmp_path) in quiet_result.stdout
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    verbose_result = run_command("-v", *arguments)
    assert (
        verbose_result.status == 0
        and verbose_result.stdout == quiet_result.stdout
        and steps in verbose_result.stderr
    )


@pytest.mark.slow
def test_generating_phantoms_logs_its_steps_if_verbose(run_command, reset_log, tmp_path: Path) -> None:
    arguments = ("cohort", "phantom", "--out", tmp_path, "--patients", "1", "--workers", "1")
    verbose_result = run_command("--verbose", *arguments)
    assert verbose_result.status == 0 and "generating patients: PHANTOM-0001" in verbose_result.stderr


@pytest.mark.slow
def test_masks_are_required_unless_allowed_to_be_missing(run_command, tmp_path: Path) -> None:
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


def test_steps_of_training_are_logged_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("gliomark.training")
    with show_log("gliomark.training"):
        log.info("training on %d patients", 8)
    log.info("not shown")
    assert capsys.readouterr() == ("", "training on 8 patients\n")


def test_no_progress_is_shown_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLine() as progress:
        progress.count("exporting")("P01", 1, 2)
    assert capsys.readouterr() == ("", "")

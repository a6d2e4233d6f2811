"""Cases at the command line: preparation, execution, and the files that may remain after a rejection."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.battery.cases_and_results import (
    Case,
    CaseFolders,
    ExpectedAnswer,
    ExpectedPartialRefusal,
    ProcessResult,
)
from tests.battery.watched_process import run_in_fork

from gliomark.cli import run

BUILD_ARGUMENTS = (
    "cohort build hospital --labels labels.csv --out cohort --sequences T1C,FLAIR --allow-missing-masks "
    "--workers 0"
)
# arguments of the command, and files that may exist after a rejection
DOORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "predict": ("predict P001 --out out --allow-missing-clinical", ("out/predictions.csv",)),
    "predict many": ("predict patients --out out --allow-missing-clinical", ("out/",)),
    "predict with table": ("predict P001 --out out --clinical clinical.csv", ("out/predictions.csv",)),
    "predict with weights": ("predict P001 --out out --allow-missing-clinical --model model.safetensors", ()),
    "explain": ("explain P001 --out out", ()),
    "cohort build": (BUILD_ARGUMENTS, ("cohort.private/",)),
    "cohort check": ("cohort check cohort", ()),
    "cohort describe": ("cohort describe cohort", ()),
    "cohort export": ("cohort export cohort --to nnunet --out exported", ()),
    "cohort anonymise": ("cohort anonymise P001 --out clean", ("clean.private/",)),
    "train segmentation": (
        "train segmentation --cohort cohort --out model.safetensors --rule joint --recipe small --epochs 1",
        (),
    ),
    "train markers": (
        "train markers --cohort cohort --segmentation outline.safetensors --marker idh --out model.safetensors "
        "--recipe pretrained",
        (),
    ),
    "evaluate": ("evaluate predictions.csv --out judged", ()),
}


class PreparationError(Exception):
    """Raised when a case cannot be prepared, which is an error of the battery itself."""


def run_case(case: Case, ground: Path, folder: Path) -> tuple[ProcessResult, str]:
    """Prepare a case in a new folder and run its command; the result, and the answer's error ("" if it is right)."""
    folder.mkdir(parents=True)
    scene, output_file = CaseFolders(folder, ground), folder.with_suffix(".output")
    preparation = run_in_fork(lambda: case.prepare(scene), folder, output_file, limit_s=300)
    if preparation.status or preparation.timed_out:
        raise PreparationError(preparation.output[-2000:])
    arguments, _ = DOORS[case.door]
    before = find_files(folder)
    result = run_in_fork(lambda: run_command(case.arguments or arguments.split()), folder, output_file)
    result = replace(
        result,
        output=result.output + read_private_tables(folder),
        files_left=tuple(find_files(folder) - before),
    )
    has_answer = isinstance(case.expectation, ExpectedPartialRefusal) or (
        isinstance(case.expectation, ExpectedAnswer) and not result.status
    )
    answer_error = case.expectation.find_error(scene) if has_answer else ""
    return result, answer_error


def run_command(arguments: tuple[str, ...] | list[str]) -> None:
    sys.argv = ["gliomark", *arguments]
    run()


def find_files(folder: Path) -> set[str]:
    """List all files, links and pipes below a folder at any depth, without following links."""
    found, waiting = set(), [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    found.add(os.path.relpath(entry.path, folder))
    return found


def read_private_tables(folder: Path) -> str:
    """Read the private tables of a build, which contain messages about single patients and series."""
    tables = sorted((folder / "cohort.private").glob("*.csv"))
    return "".join(f"\n{table.name}\n{table.read_text('utf-8-sig', 'replace')}" for table in tables)


def create_leftover_filter(door: str) -> Callable[[str], bool]:
    allowed = DOORS[door][1]
    return lambda name: name in allowed or any(name.startswith(one) for one in allowed if one.endswith("/"))

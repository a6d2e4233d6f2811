"""The doors of the command line: how a case is laid before one, run, and what may stay behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.battery.case import Answered, Case, Partly, Scene, Seen
from tests.battery.watch import fork

from gliomark.cli import run as run_command_line

BUILD = (
    "cohort build hospital --labels labels.csv --out cohort --sequences T1C,FLAIR --without-masks --workers 0"
)
# the command's words, and which files may be there after a refusal
DOORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "predict": ("predict P001 --out out --without-clinical", ("out/predictions.csv",)),
    "predict many": ("predict patients --out out --without-clinical", ("out/",)),
    "predict with table": ("predict P001 --out out --clinical clinical.csv", ("out/predictions.csv",)),
    "predict with weights": ("predict P001 --out out --without-clinical --model model.safetensors", ()),
    "explain": ("explain P001 --out out", ()),
    "cohort build": (BUILD, ("cohort.private/",)),
    "cohort check": ("cohort check cohort", ()),
    "cohort describe": ("cohort describe cohort", ()),
    "cohort export": ("cohort export cohort --to nnunet --out exported", ()),
    "cohort anonymise": ("cohort anonymise P001 --out clean", ("clean.private/",)),
    "train segmentation": (
        "train segmentation --cohort cohort --out model.safetensors --rule joint --size small --epochs 1", (),
    ),
    "train markers": (
        "train markers --cohort cohort --segmentation outline.safetensors --marker idh --out model.safetensors "
        "--size light", (),
    ),
    "evaluate": ("evaluate predictions.csv --out judged", ()),
}  # fmt: skip


class NotLaidError(Exception):
    """A case that could not be made: a mistake of the battery's own."""


def run_case(case: Case, ground: Path, folder: Path) -> tuple[Seen, str]:
    """Lay a case out in a new folder and run its command; what was seen, and what is wrong with an answer."""
    folder.mkdir(parents=True)
    scene, said = Scene(folder, ground), folder.with_suffix(".said")
    laid = fork(lambda: case.make(scene), folder, said, limit_s=300)
    if laid.status or laid.hung:
        raise NotLaidError(laid.said[-2000:])
    words, _ = DOORS[case.door]
    before = files_below(folder)
    seen = fork(lambda: command(case.words or words.split()), folder, said)
    seen = replace(seen, said=seen.said + told_in_files(folder), left=tuple(files_below(folder) - before))
    asked = isinstance(case.expects, Partly) or (isinstance(case.expects, Answered) and not seen.status)
    wrong = case.expects.wrong(scene) if asked else ""
    return seen, wrong


def command(words: tuple[str, ...] | list[str]) -> None:
    sys.argv = ["gliomark", *words]
    run_command_line()


def files_below(folder: Path) -> set[str]:
    """Every file, link and pipe below a folder, without following links, however deep."""
    found, waiting = set(), [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    found.add(os.path.relpath(entry.path, folder))
    return found


def told_in_files(folder: Path) -> str:
    """What a build tells of single patients and series in its private tables."""
    tables = sorted((folder / "cohort.private").glob("*.csv"))
    return "".join(f"\n{table.name}\n{table.read_text('utf-8-sig', 'replace')}" for table in tables)


def may_stay(door: str) -> Callable[[str], bool]:
    allowed = DOORS[door][1]
    return lambda name: name in allowed or any(name.startswith(one) for one in allowed if one.endswith("/"))

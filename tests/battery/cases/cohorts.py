"""Prepared cohorts that are cut, altered or made up, at every command that reads one; folds of others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from tests.battery.case import Case, Scene, answered, refused
from tests.battery.kit import Change, both, cut, lay, noise, on, put, take_away

from gliomark.cohort.store import _read_slice, _slice_sha256

ABOUT, TABLE = "cohort.json", "MetaMS.csv"
FIRST = "patients/P01.json"
SLICE = "GMSBraTS/FLAIR/P01/002.h5"
SEGMENTATION, MARKERS = "train segmentation", "train markers"
EVERY = ("cohort check", "cohort describe", "cohort export", SEGMENTATION)


def cohort(*changes: Change) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        folder = scene.folder / "cohort"
        shutil.copytree(scene.ground / "cohort", folder)
        for change in changes:
            change(folder)

    return make


def record(name: str, **values: object) -> Change:
    """Fields of a JSON file with other values, written with NaN as Python writes it."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")

    return change


def slices(how: Callable[[h5py.File], object], pattern: str = SLICE) -> Change:
    """Slices changed, and the records' hashes with them, as if it had been built so."""

    def change(folder: Path) -> None:
        for path in sorted(folder.glob(pattern)):
            path.write_bytes(path.read_bytes())  # no longer the same file as its hard link
            with h5py.File(path, "r+") as file:
                how(file)
        for path in (folder / "patients").glob("*.json"):
            told = json.loads(path.read_text("utf-8"))
            told["slices_sha256"] = {
                sequence: {
                    name: _slice_sha256(
                        _read_slice(folder / "GMSBraTS" / sequence / path.stem / f"{name}.h5")
                    )
                    for name in told["slice_names"]
                }
                for sequence in told["sequences"]
            }
            path.write_text(json.dumps(told), "utf-8")

    return change


def value(key: str, number: float, kind: str = "f2") -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        shape = file[key].shape
        del file[key]
        file[key] = np.full(shape, number, kind)

    return change


def reshape(key: str, *shape: int) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = np.zeros(shape, "f2")

    return change


def of(doors: tuple[str, ...], name: str, kind: str, change: Change, *says: str) -> list[Case]:
    return [refused(door, f"cohort {name}", kind, cohort(change), *says) for door in doors]


UNREADABLE = ("cohort-record-damaged",)
CASES = [
    *of(EVERY, "whose cohort.json is cut", "truncation", on(ABOUT, cut(0.5)), *UNREADABLE),
    *of(EVERY, "whose cohort.json is a list", "another kind", put(ABOUT, "[1, 2]"), *UNREADABLE),
    *of(EVERY, "whose cohort.json is 100 000 deep", "nested", put(ABOUT, "[" * 100_000), *UNREADABLE),
    *of(EVERY, "of a newer gliomark", "header lie", record(ABOUT, schema_version=99), "newer gliomark"),
    *of(EVERY, "that was not finished", "truncation", record(ABOUT, finished=False), "was not finished"),
    *of(EVERY, "without cohort.json", "missing part", take_away(ABOUT), "not a prepared cohort"),
    *of(EVERY, "with a patient's record cut", "truncation", on(FIRST, cut(0.6)), *UNREADABLE),
    *of(EVERY, "with a patient's record of nothing", "truncation", on(FIRST, cut(0.0)), *UNREADABLE),
    *of(EVERY, "with a record without slices", "missing part", put(FIRST, "{}"), *UNREADABLE),
    *of(("cohort check", SEGMENTATION), "with an affine of no numbers", "NaN and inf",
        record(FIRST, affine=[[float("nan")] * 4] * 4), *UNREADABLE),
    *of(("cohort check", SEGMENTATION), "with an affine of three rows", "impossible dimensions",
        record(FIRST, affine=[[1, 0, 0]] * 3), *UNREADABLE),
    *of(("cohort check", SEGMENTATION), "with selected slices that are none", "impossible value",
        record(FIRST, selected=[0, 99]), *UNREADABLE),
    *of(("cohort export", SEGMENTATION), "with slice names that lead out", "names another file",
        record(FIRST, slice_names=["../../../x"] * 4), *UNREADABLE, "cohort-slice-missing"),
    *of(("cohort export", SEGMENTATION), "of an unknown sequence", "impossible value",
        record(FIRST, sequences=["T9"]), *UNREADABLE),
    *of(EVERY[2:], "with a slice cut", "truncation", on(SLICE, cut(0.5)), "cohort-slice-damaged"),
    *of(EVERY[2:], "with a slice of nothing", "truncation", on(SLICE, cut(0.0)), "cohort-slice-damaged"),
    *of(EVERY[2:], "with a slice altered", "noise", lambda folder: altered(folder), "cohort-slice-altered",
        "cohort-slice-damaged"),
    *of(EVERY[2:], "with a slice gone", "missing part", take_away(SLICE), "cohort-slice-missing"),
    *of(EVERY[2:], "with a slice that is a text", "another format", put(SLICE, "a slice"), "cohort-slice-damaged"),
    *of((SEGMENTATION,), "with slices of no numbers", "NaN and inf",
        slices(value("image", float("nan")), "GMSBraTS/FLAIR/P0*/00*.h5"), "cohort-slice-unusable"),
    *of((SEGMENTATION,), "with slices of another size", "impossible dimensions",
        slices(reshape("image", 9, 9), "GMSBraTS/FLAIR/P01/00*.h5"), "cohort-slice-unusable",
        "cohort-slice-altered"),
    *of((SEGMENTATION,), "with masks of 7", "labels", slices(value("mask", 7, "u1"), "GMSBraTS/*/P0*/00*.h5"),
        "cohort-slice-unusable"),
    *of(("cohort describe", SEGMENTATION, MARKERS), "whose table is cut off its patients", "truncation",
        on(TABLE, cut(20)), "row-missing", "segmentation", "weights"),
    *of(("cohort describe", SEGMENTATION), "whose table is gone", "missing part", take_away(TABLE),
        "table-unopenable"),
    *of(("cohort describe", SEGMENTATION), "whose table has one patient twice", "duplicates",
        lambda folder: (folder / TABLE).write_text((folder / TABLE).read_text() + "P01,99,1,1,4\n"),
        "row-repeated"),
    *of((SEGMENTATION,), "with folds of other patients", "folds",
        put("folds.json", json.dumps({"train": ["X1"], "validation": ["X2"], "test": ["X3"]})),
        "in the cohort or in the folds", "folds"),
    *of((SEGMENTATION,), "with folds that are cut", "truncation", put("folds.json", '{"train": ["P0'),
        *UNREADABLE, "folds"),
    *of((SEGMENTATION,), "with folds that are a list", "another kind", put("folds.json", "[]"), *UNREADABLE, "folds"),
    *of((SEGMENTATION,), "with a patient on both sides", "folds", lambda folder: two_sides(folder), "stands in both"),
    *of((SEGMENTATION,), "with folds of an older gliomark", "folds", lambda folder: old_folds(folder), "older"),
    *of(("cohort check", "cohort describe"), "with decisions that are a folder", "another kind",
        lambda folder: (folder / "qc.csv").mkdir(), "table-unopenable", "qc.csv", "check the path"),
    *of(("cohort check", "cohort describe", SEGMENTATION), "with decisions of chance", "noise",
        put("qc.csv", bytes(range(256)) * 9), "qc.csv"),
    refused(SEGMENTATION, "cohort of too few patients", "missing part",
            cohort(take_away("folds.json"), take_away("patients/P0[2-9].json"),
                   take_away("patients/P1*.json")), "too few", "at least"),
    refused(SEGMENTATION, "unknown rule", "impossible value", cohort(), "rule",
            words="train segmentation --cohort cohort --out model.safetensors --rule most"),
    refused(SEGMENTATION, "unknown size", "impossible value", cohort(), "size",
            words="train segmentation --cohort cohort --out model.safetensors --rule joint --size huge"),
    refused(SEGMENTATION, "checkpoint damaged", "truncation", both(cohort(), lambda scene: checkpoints(scene)),
            "checkpoint", "work", "damaged"),
    refused("cohort export", "cohort into a folder that holds something", "partial",
            both(cohort(), lay("exported/precious.txt", "mine")), "exported"),
    refused("cohort export", "cohort into a file", "another kind", both(cohort(), lay("exported", "mine")),
            "exported", "check the path"),
    refused(MARKERS, "weights that are none", "another format",
            both(cohort(), lay("outline.safetensors", b"no weights" * 99)), "weights", "damaged"),
    refused(MARKERS, "weights that are not there", "missing part", cohort(), "weights"),
    refused(MARKERS, "marker of an odd threshold", "impossible value", both(cohort(), lambda scene: shipped(scene)),
            "must be a marker", "idh>=abc",
            words="train markers --cohort cohort --segmentation outline.safetensors --marker idh>=abc "
                  "--out model.safetensors --size light"),
    refused(MARKERS, "marker of no column", "missing part", both(cohort(), lambda scene: shipped(scene)),
            "mgmt",
            words="train markers --cohort cohort --segmentation outline.safetensors --marker mgmt "
                  "--out model.safetensors --size light"),
    answered("cohort check", "cohort as it is", "odd but healthy", cohort(),
             lambda scene: there(scene, "cohort/qc.html")),
    answered("cohort describe", "cohort with a hidden file", "odd but healthy", cohort(put("patients/._P01.json", "x")),
             lambda scene: there(scene, "cohort/describe")),
    answered("cohort export", "cohort with a stranger's folder", "odd but healthy", cohort(put("notes/a.txt", "x")),
             lambda scene: there(scene, "exported")),
    answered("cohort describe", "cohort with an id of Chinese", "odd but healthy", cohort(put("MetaMS.csv.bak", "x")),
             lambda scene: there(scene, "cohort/describe")),
]  # fmt: skip


def altered(folder: Path) -> None:
    """One slice whose content is another patient's."""
    shutil.copy(folder / "GMSBraTS/FLAIR/P02/003.h5", folder / "other")
    (folder / SLICE).unlink()
    (folder / "other").rename(folder / SLICE)


def ids(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "patients").glob("*.json"))


def folds_of(folder: Path) -> dict:
    people = ids(folder)
    fifths = [people[n::5] for n in range(5)]
    rest = sorted(p for fold in fifths[:4] for p in fold)
    return {
        "train": sorted(p for fold in fifths[:3] for p in fold), "validation": fifths[3], "test": fifths[4],
        "development_folds": [rest[n::5] for n in range(5)], "folds": fifths, "seed": 0,
    }  # fmt: skip


def two_sides(folder: Path) -> None:
    folds = folds_of(folder)
    folds["train"] = [*folds["train"], folds["test"][0]]
    (folder / "folds.json").write_text(json.dumps(folds))


def old_folds(folder: Path) -> None:
    folds = folds_of(folder)
    del folds["folds"]
    (folder / "folds.json").write_text(json.dumps(folds))


def checkpoints(scene: Scene) -> None:
    """A work folder as an unfinished training leaves it, all of chance."""
    work = scene.folder / "model.work"
    work.mkdir()
    for name in ("key.json", "last.ckpt", "best.ckpt", "checkpoint.ckpt"):
        (work / name).write_bytes(noise(1)(bytes(999)))


def shipped(scene: Scene) -> None:
    from gliomark import models

    source = Path(models.__file__).parent / "shipped" / "demonstration.safetensors"
    shutil.copy(source, scene.folder / "outline.safetensors")


def there(scene: Scene, name: str) -> str:
    path = scene.folder / name
    return "" if path.is_file() or (path.is_dir() and any(path.iterdir())) else f"{name} is not there"

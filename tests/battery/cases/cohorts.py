"""Prepared cohorts that are truncated, altered or forged, and wrong folds, for every command that reads a cohort."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from tests.battery.cases_and_results import Case, CaseFolders, expect_answer, expect_refusal
from tests.battery.changes import (
    FolderChange,
    change_files,
    corrupt_bytes,
    delete_files,
    run_all,
    truncate_bytes,
    write_case_file,
    write_file,
)

from gliomark.cohort.store import _hash_slice, _read_slice

COHORT_FILE, TABLE = "cohort.json", "MetaMS.csv"
FIRST_PATIENT_FILE = "patients/P01.json"
SLICE = "GMSBraTS/FLAIR/P01/002.h5"
SEGMENTATION, MARKERS = "train segmentation", "train markers"
READING_COMMANDS = ("cohort check", "cohort describe", "cohort export", SEGMENTATION)


def copy_cohort(*changes: FolderChange) -> Callable[[CaseFolders], None]:
    def copy_and_change(scene: CaseFolders) -> None:
        folder = scene.folder / "cohort"
        shutil.copytree(scene.healthy_folder / "cohort", folder)
        for change in changes:
            change(folder)

    return copy_and_change


def change_record(name: str, **values: object) -> FolderChange:
    """Replace fields of a JSON file; NaN is written as Python writes it."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")

    return change


def change_slices(change_file: Callable[[h5py.File], object], pattern: str = SLICE) -> FolderChange:
    """Change slices and update the hashes in the records, as if the cohort had been built with them."""

    def change(folder: Path) -> None:
        for path in sorted(folder.glob(pattern)):
            path.write_bytes(path.read_bytes())  # break the hard link
            with h5py.File(path, "r+") as file:
                change_file(file)
        for path in (folder / "patients").glob("*.json"):
            record = json.loads(path.read_text("utf-8"))
            record["slices_sha256"] = {
                sequence: {
                    name: _hash_slice(_read_slice(folder / "GMSBraTS" / sequence / path.stem / f"{name}.h5"))
                    for name in record["slice_names"]
                }
                for sequence in record["sequences"]
            }
            path.write_text(json.dumps(record), "utf-8")

    return change


def fill_dataset(key: str, number: float, kind: str = "f2") -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        shape = file[key].shape
        del file[key]
        file[key] = np.full(shape, number, kind)

    return change


def reshape_dataset(key: str, *shape: int) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = np.zeros(shape, "f2")

    return change


def create_cases_at(
    doors: tuple[str, ...], name: str, kind: str, change: FolderChange, *expected_messages: str
) -> list[Case]:
    return [
        expect_refusal(door, f"cohort {name}", kind, copy_cohort(change), *expected_messages)
        for door in doors
    ]


UNREADABLE = ("cohort-record-damaged",)
CASES = [
    *create_cases_at(
        READING_COMMANDS,
        "whose cohort.json is cut",
        "truncation",
        change_files(COHORT_FILE, truncate_bytes(0.5)),
        *UNREADABLE,
    ),
    *create_cases_at(
        READING_COMMANDS,
        "whose cohort.json is a list",
        "another kind",
        write_file(COHORT_FILE, "[1, 2]"),
        *UNREADABLE,
    ),
    *create_cases_at(
        READING_COMMANDS,
        "whose cohort.json is 100 000 deep",
        "nested",
        write_file(COHORT_FILE, "[" * 100_000),
        *UNREADABLE,
    ),
    *create_cases_at(
        READING_COMMANDS,
        "of a newer gliomark",
        "header lie",
        change_record(COHORT_FILE, schema_version=99),
        "newer gliomark",
    ),
    *create_cases_at(
        READING_COMMANDS,
        "that was not finished",
        "truncation",
        change_record(COHORT_FILE, finished=False),
        "was not finished",
    ),
    *create_cases_at(
        READING_COMMANDS,
        "without cohort.json",
        "missing part",
        delete_files(COHORT_FILE),
        "not a prepared cohort",
    ),
    *create_cases_at(
        READING_COMMANDS,
        "with a patient's record cut",
        "truncation",
        change_files(FIRST_PATIENT_FILE, truncate_bytes(0.6)),
        *UNREADABLE,
    ),
    *create_cases_at(
        READING_COMMANDS,
        "with a patient's record of nothing",
        "truncation",
        change_files(FIRST_PATIENT_FILE, truncate_bytes(0.0)),
        *UNREADABLE,
    ),
    *create_cases_at(
        READING_COMMANDS,
        "with a record without slices",
        "missing part",
        write_file(FIRST_PATIENT_FILE, "{}"),
        *UNREADABLE,
    ),
    *create_cases_at(
        ("cohort check", SEGMENTATION),
        "with an affine of no numbers",
        "NaN and inf",
        change_record(FIRST_PATIENT_FILE, affine=[[float("nan")] * 4] * 4),
        *UNREADABLE,
    ),
    *create_cases_at(
        ("cohort check", SEGMENTATION),
        "with an affine of three rows",
        "impossible dimensions",
        change_record(FIRST_PATIENT_FILE, affine=[[1, 0, 0]] * 3),
        *UNREADABLE,
    ),
    *create_cases_at(
        ("cohort check", SEGMENTATION),
        "with selected slices that are none",
        "impossible value",
        change_record(FIRST_PATIENT_FILE, selected=[0, 99]),
        *UNREADABLE,
    ),
    *create_cases_at(
        ("cohort export", SEGMENTATION),
        "with slice names that lead out",
        "names another file",
        change_record(FIRST_PATIENT_FILE, slice_names=["../../../x"] * 4),
        *UNREADABLE,
        "cohort-slice-missing",
    ),
    *create_cases_at(
        ("cohort export", SEGMENTATION),
        "of an unknown sequence",
        "impossible value",
        change_record(FIRST_PATIENT_FILE, sequences=["T9"]),
        *UNREADABLE,
    ),
    *create_cases_at(
        READING_COMMANDS[2:],
        "with a slice cut",
        "truncation",
        change_files(SLICE, truncate_bytes(0.5)),
        "cohort-slice-damaged",
    ),
    *create_cases_at(
        READING_COMMANDS[2:],
        "with a slice of nothing",
        "truncation",
        change_files(SLICE, truncate_bytes(0.0)),
        "cohort-slice-damaged",
    ),
    *create_cases_at(
        READING_COMMANDS[2:],
        "with a slice altered",
        "noise",
        lambda folder: replace_slice(folder),
        "cohort-slice-altered",
        "cohort-slice-damaged",
    ),
    *create_cases_at(
        READING_COMMANDS[2:], "with a slice gone", "missing part", delete_files(SLICE), "cohort-slice-missing"
    ),
    *create_cases_at(
        READING_COMMANDS[2:],
        "with a slice that is a text",
        "another format",
        write_file(SLICE, "a slice"),
        "cohort-slice-damaged",
    ),
    *create_cases_at(
        (SEGMENTATION,),
        "with slices of no numbers",
        "NaN and inf",
        change_slices(fill_dataset("image", float("nan")), "GMSBraTS/FLAIR/P0*/00*.h5"),
        "cohort-slice-unusable",
    ),
    *create_cases_at(
        (SEGMENTATION,),
        "with slices of another size",
        "impossible dimensions",
        change_slices(reshape_dataset("image", 9, 9), "GMSBraTS/FLAIR/P01/00*.h5"),
        "cohort-slice-unusable",
        "cohort-slice-altered",
    ),
    *create_cases_at(
        (SEGMENTATION,),
        "with masks of 7",
        "labels",
        change_slices(fill_dataset("mask", 7, "u1"), "GMSBraTS/*/P0*/00*.h5"),
        "cohort-slice-unusable",
    ),
    *create_cases_at(
        ("cohort describe", SEGMENTATION, MARKERS),
        "whose table is cut off its patients",
        "truncation",
        change_files(TABLE, truncate_bytes(20)),
        "row-missing",
        "segmentation",
        "weights",
    ),
    *create_cases_at(
        ("cohort describe", SEGMENTATION),
        "whose table is gone",
        "missing part",
        delete_files(TABLE),
        "table-unopenable",
    ),
    *create_cases_at(
        ("cohort describe", SEGMENTATION),
        "whose table has one patient twice",
        "duplicates",
        lambda folder: (folder / TABLE).write_text((folder / TABLE).read_text() + "P01,99,1,1,4\n"),
        "row-repeated",
    ),
    *create_cases_at(
        (SEGMENTATION,),
        "with folds of other patients",
        "folds",
        write_file("folds.json", json.dumps({"train": ["X1"], "validation": ["X2"], "test": ["X3"]})),
        "in the cohort or in the folds",
        "folds",
    ),
    *create_cases_at(
        (SEGMENTATION,),
        "with folds that are cut",
        "truncation",
        write_file("folds.json", '{"train": ["P0'),
        *UNREADABLE,
        "folds",
    ),
    *create_cases_at(
        (SEGMENTATION,),
        "with folds that are a list",
        "another kind",
        write_file("folds.json", "[]"),
        *UNREADABLE,
        "folds",
    ),
    *create_cases_at(
        (SEGMENTATION,),
        "with a patient on both sides",
        "folds",
        lambda folder: repeat_patient_in_folds(folder),
        "is in both",
    ),
    *create_cases_at(
        (SEGMENTATION,),
        "with folds of an older gliomark",
        "folds",
        lambda folder: write_old_folds(folder),
        "older",
    ),
    *create_cases_at(
        ("cohort check", "cohort describe"),
        "with decisions that are a folder",
        "another kind",
        lambda folder: (folder / "qc.csv").mkdir(),
        "table-unopenable",
        "qc.csv",
        "check the path",
    ),
    *create_cases_at(
        ("cohort check", "cohort describe", SEGMENTATION),
        "with decisions of chance",
        "noise",
        write_file("qc.csv", bytes(range(256)) * 9),
        "qc.csv",
    ),
    expect_refusal(
        SEGMENTATION,
        "cohort of too few patients",
        "missing part",
        copy_cohort(
            delete_files("folds.json"),
            delete_files("patients/P0[2-9].json"),
            delete_files("patients/P1*.json"),
        ),
        "too few",
        "at least",
    ),
    expect_refusal(
        SEGMENTATION,
        "unknown rule",
        "impossible value",
        copy_cohort(),
        "rule",
        arguments="train segmentation --cohort cohort --out model.safetensors --rule most",
    ),
    expect_refusal(
        SEGMENTATION,
        "unknown network",
        "impossible value",
        copy_cohort(),
        "no network named 'V-Net'",
        arguments="train segmentation --cohort cohort --out model.safetensors --rule joint --network V-Net",
    ),
    expect_refusal(
        SEGMENTATION,
        "checkpoint damaged",
        "truncation",
        run_all(copy_cohort(), lambda scene: write_damaged_checkpoints(scene)),
        "checkpoint",
        "work",
        "damaged",
    ),
    expect_refusal(
        "cohort export",
        "cohort into a folder that holds something",
        "partial",
        run_all(copy_cohort(), write_case_file("exported/precious.txt", "mine")),
        "exported",
    ),
    expect_refusal(
        "cohort export",
        "cohort into a file",
        "another kind",
        run_all(copy_cohort(), write_case_file("exported", "mine")),
        "exported",
        "check the path",
    ),
    expect_refusal(
        MARKERS,
        "weights that are none",
        "another format",
        run_all(copy_cohort(), write_case_file("outline.safetensors", b"no weights" * 99)),
        "weights",
        "damaged",
    ),
    expect_refusal(MARKERS, "weights that are not there", "missing part", copy_cohort(), "weights"),
    expect_refusal(
        MARKERS,
        "marker of an odd threshold",
        "impossible value",
        run_all(copy_cohort(), lambda scene: copy_shipped_weights(scene)),
        "must be a marker",
        "idh>=abc",
        arguments="train markers --cohort cohort --segmentation outline.safetensors --marker idh>=abc "
        "--out model.safetensors --recipe pretrained",
    ),
    expect_refusal(
        MARKERS,
        "marker of no column",
        "missing part",
        run_all(copy_cohort(), lambda scene: copy_shipped_weights(scene)),
        "mgmt",
        arguments="train markers --cohort cohort --segmentation outline.safetensors --marker mgmt "
        "--out model.safetensors --recipe pretrained",
    ),
    expect_answer(
        "cohort check",
        "cohort as it is",
        "odd but healthy",
        copy_cohort(),
        lambda scene: check_exists(scene, "cohort/qc.html"),
    ),
    expect_answer(
        "cohort describe",
        "cohort with a hidden file",
        "odd but healthy",
        copy_cohort(write_file("patients/._P01.json", "x")),
        lambda scene: check_exists(scene, "cohort/describe"),
    ),
    expect_answer(
        "cohort export",
        "cohort with a stranger's folder",
        "odd but healthy",
        copy_cohort(write_file("notes/a.txt", "x")),
        lambda scene: check_exists(scene, "exported"),
    ),
    expect_answer(
        "cohort describe",
        "cohort with an id of Chinese",
        "odd but healthy",
        copy_cohort(write_file("MetaMS.csv.bak", "x")),
        lambda scene: check_exists(scene, "cohort/describe"),
    ),
]


def replace_slice(folder: Path) -> None:
    """Replace one slice by that of another patient."""
    shutil.copy(folder / "GMSBraTS/FLAIR/P02/003.h5", folder / "other")
    (folder / SLICE).unlink()
    (folder / "other").rename(folder / SLICE)


def read_ids(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "patients").glob("*.json"))


def create_folds(folder: Path) -> dict:
    patient_ids = read_ids(folder)
    fifths = [patient_ids[n::5] for n in range(5)]
    development_ids = sorted(p for fold in fifths[:4] for p in fold)
    return {
        "train": sorted(p for fold in fifths[:3] for p in fold),
        "validation": fifths[3],
        "test": fifths[4],
        "development_folds": [development_ids[n::5] for n in range(5)],
        "folds": fifths,
        "seed": 0,
    }


def repeat_patient_in_folds(folder: Path) -> None:
    folds = create_folds(folder)
    folds["train"] = [*folds["train"], folds["test"][0]]
    (folder / "folds.json").write_text(json.dumps(folds))


def write_old_folds(folder: Path) -> None:
    folds = create_folds(folder)
    del folds["folds"]
    (folder / "folds.json").write_text(json.dumps(folds))


def write_damaged_checkpoints(scene: CaseFolders) -> None:
    """Create the work folder of an unfinished training, with random content."""
    work = scene.folder / "model.work"
    work.mkdir()
    for name in ("key.json", "last.ckpt", "best.ckpt", "checkpoint.ckpt"):
        (work / name).write_bytes(corrupt_bytes(1)(bytes(999)))


def copy_shipped_weights(scene: CaseFolders) -> None:
    from gliomark import models

    source = Path(models.__file__).parent / "shipped" / "demonstration.safetensors"
    shutil.copy(source, scene.folder / "outline.safetensors")


def check_exists(scene: CaseFolders, name: str) -> str:
    path = scene.folder / name
    return "" if path.is_file() or (path.is_dir() and any(path.iterdir())) else f"{name} is not there"

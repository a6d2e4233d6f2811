"""Tests of damaged records of a prepared cohort: they are refused with a message that gives the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from gliomark.cohort.describe import describe_cohort
from gliomark.cohort.folds import has_outdated_folds, load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import GliomarkError

NAN = float("nan")


@pytest.fixture
def cohort_copy(tiny_cohort_folder: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(tiny_cohort_folder, tmp_path / "cohort"))


def update_record(**replace_values: object) -> Callable[[str], str]:
    return lambda text: json.dumps(json.loads(text) | replace_values)


NOT_OBJECTS = (
    lambda text: text[: len(text) // 2],
    lambda text: "",
    lambda text: "[1, 2]",
    lambda text: "[" * 100_000,
)


@pytest.mark.parametrize("change_text", [
    *NOT_OBJECTS, update_record(sequences=["T9"]), update_record(sequences=7), update_record(schema_version="two"),
])  # fmt: skip
def test_a_damaged_cohort_record_is_refused(cohort_copy: Path, change_text: Callable[[str], str]):
    path = cohort_copy / "cohort.json"
    path.write_text(change_text(path.read_text("utf-8")), "utf-8")
    with pytest.raises(GliomarkError, match="cohort.json is damaged or not a record of this cohort"):
        Cohort(cohort_copy)


@pytest.mark.parametrize("change_text", [
    *NOT_OBJECTS, lambda text: "{}", update_record(affine=[[NAN] * 4] * 4), update_record(affine=[[1, 0, 0]] * 3),
    update_record(affine=[[0.0] * 4] * 4), update_record(selected=[0, 99]), update_record(selected=[-1]),
    update_record(sequences=[]), update_record(sequences=["T9"]), update_record(slice_names=["../../x"] * 4),
    update_record(slice_names=[1, 2, 3, 4]), update_record(notes="none"),
])  # fmt: skip
def test_a_damaged_patient_record_is_refused(cohort_copy: Path, change_text: Callable[[str], str]):
    path = cohort_copy / "patients" / "P01.json"
    path.write_text(change_text(path.read_text("utf-8")), "utf-8")
    with pytest.raises(GliomarkError, match="P01.json is damaged or not a record of this cohort"):
        Cohort(cohort_copy).read_stack("P01")
    assert Cohort(cohort_copy).read_stack("P02").brain.any()


@pytest.mark.parametrize("content", [
    '{"train": ["P0', "[]", '{"train": "P01", "validation": [], "test": []}',
    '{"train": [1], "validation": [], "test": []}',
    '{"train": [], "validation": [], "test": [], "folds": 5}',
])  # fmt: skip
@pytest.mark.parametrize("read", [load_cohort_folds, has_outdated_folds, describe_cohort])
def test_a_damaged_folds_file_is_refused(cohort_copy: Path, content: str, read: Callable[[Cohort], object]):
    (cohort_copy / "folds.json").write_text(content)
    with pytest.raises(GliomarkError, match="folds.json is damaged or not a record of this cohort"):
        read(Cohort(cohort_copy))


def replace_values(
    key: str, value: float, kind: str, shape: tuple[int, ...] = (240, 240)
) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = np.full(shape, value, kind)

    return change


@pytest.mark.parametrize("change", [
    replace_values("image", NAN, "f2"), replace_values("image", np.inf, "f4"), replace_values("image", 0, "f2", (9, 9)),
    replace_values("image", 0, "f2", (240, 240, 1)), replace_values("mask", 7, "u1"), replace_values("brain", 2, "u1"),
    replace_values("mask", 1, "u1", (4, 4)),
])  # fmt: skip
def test_slices_that_preparation_never_writes_are_refused(
    cohort_copy: Path, change: Callable[[h5py.File], None]
):
    path = cohort_copy / "GMSBraTS" / "FLAIR" / "P01" / "002.h5"
    with h5py.File(path, "r+") as file:
        change(file)
    record = cohort_copy / "patients" / "P01.json"
    kept = {k: v for k, v in json.loads(record.read_text()).items() if not k.endswith("sha256")}
    record.write_text(json.dumps(kept))
    with pytest.raises(GliomarkError, match="002.h5 has contents that preparation never writes"):
        Cohort(cohort_copy).read_stack("P01")


def test_hidden_files_are_not_patients(cohort_copy: Path):
    (cohort_copy / "patients" / "._P01.json").write_bytes(b"\0\5\x16\7")
    assert len(Cohort(cohort_copy).prepared_ids) == 15

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
def own(tiny_cohort_folder: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(tiny_cohort_folder, tmp_path / "cohort"))


def changed(**values: object) -> Callable[[str], str]:
    return lambda text: json.dumps(json.loads(text) | values)


NO_OBJECTS = (
    lambda text: text[: len(text) // 2],
    lambda text: "",
    lambda text: "[1, 2]",
    lambda text: "[" * 100_000,
)


@pytest.mark.parametrize("how", [
    *NO_OBJECTS, changed(sequences=["T9"]), changed(sequences=7), changed(schema_version="two"),
])  # fmt: skip
def test_what_a_cohort_says_of_itself(own: Path, how: Callable[[str], str]):
    path = own / "cohort.json"
    path.write_text(how(path.read_text("utf-8")), "utf-8")
    with pytest.raises(GliomarkError, match="cohort.json is damaged or not a record of this cohort"):
        Cohort(own)


@pytest.mark.parametrize("how", [
    *NO_OBJECTS, lambda text: "{}", changed(affine=[[NAN] * 4] * 4), changed(affine=[[1, 0, 0]] * 3),
    changed(affine=[[0.0] * 4] * 4), changed(selected=[0, 99]), changed(selected=[-1]), changed(sequences=[]),
    changed(sequences=["T9"]), changed(slice_names=["../../x"] * 4), changed(slice_names=[1, 2, 3, 4]),
    changed(notes="none"),
])  # fmt: skip
def test_a_patients_record(own: Path, how: Callable[[str], str]):
    path = own / "patients" / "P01.json"
    path.write_text(how(path.read_text("utf-8")), "utf-8")
    with pytest.raises(GliomarkError, match="P01.json is damaged or not a record of this cohort"):
        Cohort(own).read_stack("P01")
    assert Cohort(own).read_stack("P02").brain.any()


@pytest.mark.parametrize("content", [
    '{"train": ["P0', "[]", '{"train": "P01", "validation": [], "test": []}',
    '{"train": [1], "validation": [], "test": []}',
    '{"train": [], "validation": [], "test": [], "folds": 5}',
])  # fmt: skip
@pytest.mark.parametrize("read", [load_cohort_folds, has_outdated_folds, describe_cohort])
def test_folds(own: Path, content: str, read: Callable[[Cohort], object]):
    (own / "folds.json").write_text(content)
    with pytest.raises(GliomarkError, match="folds.json is damaged or not a record of this cohort"):
        read(Cohort(own))


def values(
    key: str, value: float, kind: str, shape: tuple[int, ...] = (240, 240)
) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = np.full(shape, value, kind)

    return change


@pytest.mark.parametrize("change", [
    values("image", NAN, "f2"), values("image", np.inf, "f4"), values("image", 0, "f2", (9, 9)),
    values("image", 0, "f2", (240, 240, 1)), values("mask", 7, "u1"), values("brain", 2, "u1"),
    values("mask", 1, "u1", (4, 4)),
])  # fmt: skip
def test_slices_that_no_preparation_writes(own: Path, change: Callable[[h5py.File], None]):
    path = own / "GMSBraTS" / "FLAIR" / "P01" / "002.h5"
    with h5py.File(path, "r+") as file:
        change(file)
    record = own / "patients" / "P01.json"
    kept = {k: v for k, v in json.loads(record.read_text()).items() if not k.endswith("sha256")}
    record.write_text(json.dumps(kept))
    with pytest.raises(GliomarkError, match="002.h5 has contents that preparation never writes"):
        Cohort(own).read_stack("P01")


def test_hidden_files_are_no_patients(own: Path):
    (own / "patients" / "._P01.json").write_bytes(b"\0\5\x16\7")
    assert len(Cohort(own).prepared_ids) == 15

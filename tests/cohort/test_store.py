"""Tests of reading prepared patients: requested sequences, lesion masks, and altered files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.conftest import update_slice_hashes

from gliomark.cohort import store
from gliomark.cohort.store import Cohort
from gliomark.errors import GliomarkError
from gliomark.study import MRSequence

T1C, T2 = MRSequence.T1C, MRSequence.T2


@pytest.mark.parametrize(
    ("requested", "found"), [(None, [T1C, T2]), ([T2], [T2]), ((T2, T1C), [T1C, T2]), ([], [])]
)
def test_only_the_requested_sequences_are_read(
    prepared_cohort: Path, requested, found: list[MRSequence]
) -> None:
    cohort = Cohort(prepared_cohort)
    full, partial = cohort.read_stack("G0001"), cohort.read_stack("G0001", requested)
    assert list(partial.images) == found
    for name in found:
        np.testing.assert_array_equal(partial.images[name], full.images[name])
    # brain and lesion are always read
    np.testing.assert_array_equal(partial.brain, full.brain)
    np.testing.assert_array_equal(partial.reader_mask, full.reader_mask)
    np.testing.assert_array_equal(partial.affine, full.affine)
    assert partial.slice_names == full.slice_names and partial.selected == full.selected


def test_a_sequence_that_the_patient_lacks_is_left_out(prepared_cohort: Path) -> None:
    cohort = Cohort(prepared_cohort)
    assert list(cohort.read_stack("G0003", [T1C, T2]).images) == [T2]
    alone = cohort.read_stack("G0003", [T1C])
    assert not alone.images and alone.brain.any() and alone.reader_mask.any()


def test_files_of_other_sequences_are_not_opened(
    prepared_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    read = store._read_slices

    def record_sequence(folder, sequence, patient, names, hashes):
        opened.append(sequence)
        return read(folder, sequence, patient, names, hashes)

    monkeypatch.setattr(store, "_read_slices", record_sequence)
    Cohort(prepared_cohort).read_stack("G0001", sequences=[T2])
    assert opened == ["T2"]


def test_spacing_is_the_step_between_slices_rows_and_columns(prepared_cohort: Path) -> None:
    """In an oblique grid, spacings are measured along the axes of the grid."""
    assert Cohort(prepared_cohort).read_stack("G0002", [T2]).spacing_mm == pytest.approx((5.0, 0.95, 0.95))


def test_has_mask_is_false_without_a_drawn_lesion(prepared_cohort: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prepared_cohort, tmp_path / "cohort"))
    for path in (folder / "GMSBraTS").glob("*/G0002/*.h5"):
        with h5py.File(path, "a") as file:
            del file["mask"]
    update_slice_hashes(folder)
    cohort = Cohort(folder)
    assert {p: cohort.has_mask(p) for p in cohort.patient_ids} == {
        p: p != "G0002" for p in cohort.patient_ids
    }
    assert cohort.read_stack("G0002").lesion is None


def test_an_empty_mask_counts_as_drawn(prepared_cohort: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prepared_cohort, tmp_path / "cohort"))
    for path in (folder / "GMSBraTS").glob("*/G0001/*.h5"):
        with h5py.File(path, "a") as file:
            file["mask"][...] = 0
    update_slice_hashes(folder)
    cohort = Cohort(folder)
    assert cohort.has_mask("G0001") and not cohort.read_stack("G0001").reader_mask.any()


# ---- files altered after writing --------------------------------------------------------------------


@pytest.fixture
def cohort_copy(prepared_cohort: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(prepared_cohort, tmp_path / "队列 1"))


def change_one_value(file: h5py.File) -> None:
    file["image"][120, 100] += 0.5


def delete_mask(file: h5py.File) -> None:
    del file["mask"]


def invert_mask(file: h5py.File) -> None:
    file["mask"][:] = 1 - file["mask"][:]


def widen_values(file: h5py.File) -> None:
    image = file["image"][()].astype(np.float32)
    del file["image"]
    file["image"] = image


def add_key(file: h5py.File) -> None:
    file["prediction"] = np.zeros((240, 240), np.uint8)


ALTERATIONS = [change_one_value, delete_mask, invert_mask, widen_values, add_key]


@pytest.mark.parametrize("layout", ["by slice", "by patient"])
@pytest.mark.parametrize("alter", ALTERATIONS)
def test_an_altered_slice_is_refused_with_its_name(cohort_copy: Path, alter, layout: str) -> None:
    path = cohort_copy / "GMSBraTS" / "T2" / "G0001" / "004.h5"
    with h5py.File(path, "a") as file:
        alter(file)
    if layout == "by patient":
        remove_from_record(cohort_copy, "G0001", "slices_sha256")
    cohort = Cohort(cohort_copy)
    with pytest.raises(GliomarkError, match="changed after 'cohort build' wrote it") as caught:
        cohort.read_stack("G0001", [T2])
    assert str(path if layout == "by slice" else path.parent.name) in str(caught.value)
    # the other patients are still readable
    assert cohort.read_stack("G0002").images[T2].shape == (6, 240, 240)


def remove_from_record(folder: Path, patient: str, *names: str) -> None:
    """Change the record to that of an older gliomark."""
    path = folder / "patients" / f"{patient}.json"
    record = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({key: value for key, value in record.items() if key not in names}), "utf-8")


@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "another patient's", "no HDF5"])
def test_a_damaged_or_exchanged_slice_is_refused_with_its_name(cohort_copy: Path, damage: str) -> None:
    path = cohort_copy / "GMSBraTS" / "T1C" / "G0001" / "001.h5"
    content = path.read_bytes()
    path.unlink()
    other = cohort_copy / "GMSBraTS" / "T1C" / "G0002" / "001.h5"
    new = {
        "empty": b"",
        "cut short": content[: len(content) // 2],
        "another patient's": other.read_bytes(),
        "no HDF5": b"id,age,sex\n" * 50,
    }
    if damage in new:
        path.write_bytes(new[damage])
    cohort = Cohort(cohort_copy)
    for read in (cohort.read_stack, cohort.has_mask):
        with pytest.raises(GliomarkError) as caught:
            read("G0001")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        ((), ()),
        (("slices_sha256",), ()),
        (("slices_sha256", "arrays_sha256"), ("cohort-not-hashed",)),
    ],
    ids=["now", "older", "oldest"],
)
def test_older_cohorts_can_be_read(cohort_copy: Path, names, notes) -> None:
    """With one hash for the patient: verified at the first read. Without a hash: there is a note."""
    remove_from_record(cohort_copy, "G0001", *names)
    cohort = Cohort(cohort_copy)
    stack = cohort.read_stack("G0001")
    assert tuple(note.code for note in stack.notes) == notes
    np.testing.assert_array_equal(
        stack.images[T1C], Cohort(cohort_copy).read_stack("G0001", [T1C]).images[T1C]
    )


def test_rewritten_equal_arrays_are_accepted(cohort_copy: Path) -> None:
    path = cohort_copy / "GMSBraTS" / "T2" / "G0001" / "002.h5"
    with h5py.File(path, "a") as file:
        arrays = {key: file[key][()] for key in file}
        for key, array in arrays.items():
            del file[key]
            file.create_dataset(key, data=array, compression="gzip", compression_opts=9)
    assert Cohort(cohort_copy).read_stack("G0001").images[T2].shape == (6, 240, 240)


@pytest.mark.parametrize("change", ["arrays", "grid", "selected"])
def test_the_hash_of_the_arrays_changes_with_them(cohort_copy: Path, change: str) -> None:
    before, others = (Cohort(cohort_copy).hash_arrays(p) for p in (["G0001", "G0002"], ["G0002"]))
    record = cohort_copy / "patients" / "G0001.json"
    content = json.loads(record.read_text("utf-8"))
    if change == "arrays":
        with h5py.File(cohort_copy / "GMSBraTS" / "T2" / "G0001" / "002.h5", "a") as file:
            change_one_value(file)
        update_slice_hashes(cohort_copy)
    elif change == "grid":
        content["affine"][0][0] += 0.1
        record.write_text(json.dumps(content), "utf-8")
    else:
        content["selected"] = content["selected"][1:]
        record.write_text(json.dumps(content), "utf-8")
    assert Cohort(cohort_copy).hash_arrays(["G0001", "G0002"]) != before
    assert Cohort(cohort_copy).hash_arrays(["G0002"]) == others

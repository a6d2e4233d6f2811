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
    ("only", "found"), [(None, [T1C, T2]), ([T2], [T2]), ((T2, T1C), [T1C, T2]), ([], [])]
)
def test_the_sequences_asked_for_are_read(prepared_cohort: Path, only, found: list[MRSequence]) -> None:
    cohort = Cohort(prepared_cohort)
    whole, part = cohort.read_stack("G0001"), cohort.read_stack("G0001", only)
    assert list(part.images) == found
    for name in found:
        np.testing.assert_array_equal(part.images[name], whole.images[name])
    # brain and lesion are always read
    np.testing.assert_array_equal(part.brain, whole.brain)
    np.testing.assert_array_equal(part.reader_mask, whole.reader_mask)
    np.testing.assert_array_equal(part.affine, whole.affine)
    assert part.slice_names == whole.slice_names and part.selected == whole.selected


def test_a_sequence_that_the_patient_lacks_is_left_out(prepared_cohort: Path) -> None:
    cohort = Cohort(prepared_cohort)
    assert list(cohort.read_stack("G0003", [T1C, T2]).images) == [T2]
    alone = cohort.read_stack("G0003", [T1C])
    assert not alone.images and alone.brain.any() and alone.reader_mask.any()


def test_no_other_sequences_file_is_opened(prepared_cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = store._read_slices

    def watched(folder, sequence, patient, names, hashes):
        opened.append(sequence)
        return read(folder, sequence, patient, names, hashes)

    monkeypatch.setattr(store, "_read_slices", watched)
    Cohort(prepared_cohort).read_stack("G0001", sequences=[T2])
    assert opened == ["T2"]


def test_spacing_is_the_step_between_slices_rows_and_columns(prepared_cohort: Path) -> None:
    """In an oblique grid, spacings are measured along the axes of the grid."""
    assert Cohort(prepared_cohort).read_stack("G0002", [T2]).spacing_mm == pytest.approx((5.0, 0.95, 0.95))


def test_whether_a_lesion_was_drawn(prepared_cohort: Path, tmp_path: Path) -> None:
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


def test_an_empty_mask_was_drawn_all_the_same(prepared_cohort: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prepared_cohort, tmp_path / "cohort"))
    for path in (folder / "GMSBraTS").glob("*/G0001/*.h5"):
        with h5py.File(path, "a") as file:
            file["mask"][...] = 0
    update_slice_hashes(folder)
    cohort = Cohort(folder)
    assert cohort.has_mask("G0001") and not cohort.read_stack("G0001").reader_mask.any()


# ---- files altered after writing --------------------------------------------------------------------


@pytest.fixture
def own_cohort(prepared_cohort: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(prepared_cohort, tmp_path / "队列 1"))


def one_value(file: h5py.File) -> None:
    file["image"][120, 100] += 0.5


def no_mask(file: h5py.File) -> None:
    del file["mask"]


def another_mask(file: h5py.File) -> None:
    file["mask"][:] = 1 - file["mask"][:]


def wider_values(file: h5py.File) -> None:
    image = file["image"][()].astype(np.float32)
    del file["image"]
    file["image"] = image


def more_keys(file: h5py.File) -> None:
    file["prediction"] = np.zeros((240, 240), np.uint8)


ALTERATIONS = [one_value, no_mask, another_mask, wider_values, more_keys]


@pytest.mark.parametrize("layout", ["by slice", "by patient"])
@pytest.mark.parametrize("alter", ALTERATIONS)
def test_an_altered_slice_is_refused_by_name(own_cohort: Path, alter, layout: str) -> None:
    path = own_cohort / "GMSBraTS" / "T2" / "G0001" / "004.h5"
    with h5py.File(path, "a") as file:
        alter(file)
    if layout == "by patient":
        forget(own_cohort, "G0001", "slices_sha256")
    cohort = Cohort(own_cohort)
    with pytest.raises(GliomarkError, match="changed after 'cohort build' wrote it") as caught:
        cohort.read_stack("G0001", [T2])
    assert str(path if layout == "by slice" else path.parent.name) in str(caught.value)
    # the other patients are still readable
    assert cohort.read_stack("G0002").images[T2].shape == (6, 240, 240)


def forget(folder: Path, patient: str, *names: str) -> None:
    """Change the record to that of an older gliomark."""
    path = folder / "patients" / f"{patient}.json"
    record = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({key: value for key, value in record.items() if key not in names}), "utf-8")


@pytest.mark.parametrize("harm", ["missing", "empty", "cut short", "another patient's", "no HDF5"])
def test_a_damaged_or_exchanged_slice_is_refused_by_name(own_cohort: Path, harm: str) -> None:
    path = own_cohort / "GMSBraTS" / "T1C" / "G0001" / "001.h5"
    content = path.read_bytes()
    path.unlink()
    other = own_cohort / "GMSBraTS" / "T1C" / "G0002" / "001.h5"
    new = {
        "empty": b"",
        "cut short": content[: len(content) // 2],
        "another patient's": other.read_bytes(),
        "no HDF5": b"id,age,sex\n" * 50,
    }
    if harm in new:
        path.write_bytes(new[harm])
    cohort = Cohort(own_cohort)
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
def test_older_cohorts_stay_readable(own_cohort: Path, names, notes) -> None:
    """With one hash for the patient: verified at the first read. Without a hash: there is a note."""
    forget(own_cohort, "G0001", *names)
    cohort = Cohort(own_cohort)
    stack = cohort.read_stack("G0001")
    assert tuple(note.code for note in stack.notes) == notes
    np.testing.assert_array_equal(
        stack.images[T1C], Cohort(own_cohort).read_stack("G0001", [T1C]).images[T1C]
    )


def test_the_same_arrays_written_anew_are_the_same(own_cohort: Path) -> None:
    path = own_cohort / "GMSBraTS" / "T2" / "G0001" / "002.h5"
    with h5py.File(path, "a") as file:
        arrays = {key: file[key][()] for key in file}
        for key, array in arrays.items():
            del file[key]
            file.create_dataset(key, data=array, compression="gzip", compression_opts=9)
    assert Cohort(own_cohort).read_stack("G0001").images[T2].shape == (6, 240, 240)


@pytest.mark.parametrize("change", ["arrays", "grid", "selected"])
def test_the_digest_of_the_arrays_follows_them(own_cohort: Path, change: str) -> None:
    before, others = (Cohort(own_cohort).hash_arrays(p) for p in (["G0001", "G0002"], ["G0002"]))
    record = own_cohort / "patients" / "G0001.json"
    content = json.loads(record.read_text("utf-8"))
    if change == "arrays":
        with h5py.File(own_cohort / "GMSBraTS" / "T2" / "G0001" / "002.h5", "a") as file:
            one_value(file)
        update_slice_hashes(own_cohort)
    elif change == "grid":
        content["affine"][0][0] += 0.1
        record.write_text(json.dumps(content), "utf-8")
    else:
        content["selected"] = content["selected"][1:]
        record.write_text(json.dumps(content), "utf-8")
    assert Cohort(own_cohort).hash_arrays(["G0001", "G0002"]) != before
    assert Cohort(own_cohort).hash_arrays(["G0002"]) == others

"""A prepared patient is read in part: the sequences asked for, and whether a lesion was drawn."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from gliomark.cohort import store
from gliomark.cohort.store import Cohort
from gliomark.study import MRSequence

T1C, T2 = MRSequence.T1C, MRSequence.T2


@pytest.mark.parametrize(
    ("only", "found"), [(None, [T1C, T2]), ([T2], [T2]), ((T2, T1C), [T1C, T2]), ([], [])]
)
def test_the_sequences_asked_for_are_read(prepared_cohort: Path, only, found: list[MRSequence]) -> None:
    cohort = Cohort(prepared_cohort)
    whole, part = cohort.stack("G0001"), cohort.stack("G0001", only)
    assert list(part.images) == found
    for name in found:
        np.testing.assert_array_equal(part.images[name], whole.images[name])
    # brain and lesion are there whatever was asked for
    np.testing.assert_array_equal(part.brain, whole.brain)
    np.testing.assert_array_equal(part.drawn, whole.drawn)
    np.testing.assert_array_equal(part.affine, whole.affine)
    assert part.slice_names == whole.slice_names and part.selected == whole.selected


def test_a_sequence_that_the_patient_lacks_is_left_out(prepared_cohort: Path) -> None:
    cohort = Cohort(prepared_cohort)
    assert list(cohort.stack("G0003", [T1C, T2]).images) == [T2]
    alone = cohort.stack("G0003", [T1C])
    assert not alone.images and alone.brain.any() and alone.drawn.any()


def test_no_other_sequences_file_is_opened(prepared_cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = store._read_slices

    def watched(folder, sequence, patient, names):
        opened.append(sequence)
        return read(folder, sequence, patient, names)

    monkeypatch.setattr(store, "_read_slices", watched)
    Cohort(prepared_cohort).stack("G0001", only=[T2])
    assert opened == ["T2"]


def test_spacing_is_the_step_between_slices_rows_and_columns(prepared_cohort: Path) -> None:
    """An oblique grid: the steps are those of the axes, whatever way they point."""
    assert Cohort(prepared_cohort).stack("G0002", [T2]).spacing_mm == pytest.approx((5.0, 0.95, 0.95))


def test_whether_a_lesion_was_drawn(prepared_cohort: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prepared_cohort, tmp_path / "cohort"))
    for path in (folder / "GMSBraTS").glob("*/G0002/*.h5"):
        with h5py.File(path, "a") as file:
            del file["mask"]
    cohort = Cohort(folder)
    assert {p: cohort.has_mask(p) for p in cohort.patient_ids} == {
        p: p != "G0002" for p in cohort.patient_ids
    }
    assert cohort.stack("G0002").lesion is None


def test_an_empty_mask_was_drawn_all_the_same(prepared_cohort: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(prepared_cohort, tmp_path / "cohort"))
    for path in (folder / "GMSBraTS").glob("*/G0001/*.h5"):
        with h5py.File(path, "a") as file:
            file["mask"][...] = 0
    cohort = Cohort(folder)
    assert cohort.has_mask("G0001") and not cohort.stack("G0001").drawn.any()

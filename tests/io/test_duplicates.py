"""Repeated SOP Instance UIDs: copies are removed; two different images are rejected, with the names of their files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless, generate_uid
from tests.io.test_dicom import T1C, T2, write_series

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.study import MRSequence


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """Write two series, a and b."""
    write_series(tmp_path / "患者" / "a", **T1C)
    write_series(tmp_path / "患者" / "b", **T2)
    return tmp_path / "患者"


def rewrite(file: Path, change: Callable[[pydicom.Dataset], object]) -> None:
    dataset = pydicom.dcmread(file)
    change(dataset)
    dataset.save_as(file)


def change_pixels(dataset: pydicom.Dataset) -> None:
    pixels = dataset.pixel_array.copy()
    pixels[6, 5] += 1
    dataset.PixelData = pixels.tobytes()


def change_position(dataset: pydicom.Dataset) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, z + 40]


def change_size(dataset: pydicom.Dataset) -> None:
    dataset.Rows, dataset.PixelData = 6, dataset.pixel_array[:6].tobytes()


def change_series(dataset: pydicom.Dataset) -> None:
    change_pixels(dataset)
    dataset.SeriesInstanceUID = generate_uid()


@pytest.mark.parametrize("change", [change_pixels, change_position, change_size, change_series])
def test_two_images_with_one_uid_are_refused_with_their_file_names(patient: Path, change) -> None:
    first, second = patient / "a" / "IM97", patient / "a" / "again" / "IM97"
    second.parent.mkdir()
    shutil.copyfile(first, second)
    rewrite(second, change)
    with pytest.raises(GliomarkError, match="same SOP instance UID") as caught:
        read_study(patient)
    assert str(first) in str(caught.value) and str(second) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("every_image", [True, False], ids=["every image", "one image"])
def test_the_uids_of_another_series_are_refused(patient: Path, every_image: bool) -> None:
    """As after faulty anonymisation: the T2 images have the UIDs of the T1C images."""
    for file in sorted((patient / "b").iterdir()) if every_image else [patient / "b" / "IM95"]:
        rewrite(file, change_pixels)
        uid = pydicom.dcmread(patient / "a" / file.name).SOPInstanceUID
        rewrite(file, lambda one, uid=uid: setattr(one, "SOPInstanceUID", uid))
    with pytest.raises(GliomarkError, match="same SOP instance UID") as caught:
        read_study(patient)
    assert str(patient / "a") in str(caught.value) and str(patient / "b") in str(caught.value)


def test_one_uid_for_a_whole_series_is_refused(patient: Path) -> None:
    for file in (patient / "b").iterdir():
        rewrite(file, lambda one: setattr(one, "SOPInstanceUID", "1.2.3.9"))
    with pytest.raises(GliomarkError, match="IM94 and .*IM95 are different images"):
        read_study(patient)


def keep_bytes(dataset: pydicom.Dataset) -> None:
    pass


def change_header(dataset: pydicom.Dataset) -> None:
    dataset.InstitutionName, dataset.SeriesTime = "Ward 7", "101112"


def compress_pixels(dataset: pydicom.Dataset) -> None:
    dataset.compress(RLELossless, generate_instance_uid=False)


def shift_slightly(dataset: pydicom.Dataset) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, round(float(z) + 1e-5, 6)]


@pytest.mark.parametrize("change", [keep_bytes, change_header, compress_pixels, shift_slightly])
@pytest.mark.parametrize("which", ["one", "all"])
def test_copies_are_ignored(patient: Path, change, which: str) -> None:
    before = read_study(patient).series[MRSequence.T2].image
    files = sorted((patient / "b").iterdir())
    (patient / "copy").mkdir()
    for file in files if which == "all" else files[2:3]:
        copy = patient / "copy" / file.name
        shutil.copyfile(file, copy)
        rewrite(copy, change)
    np.testing.assert_array_equal(read_study(patient).series[MRSequence.T2].image, before)


def test_uids_may_repeat_in_another_examination(patient: Path) -> None:
    """A UID must be unique within one examination only; the older examination is not read."""
    for file in write_series(patient / "c", **(T2 | {"StudyInstanceUID": "1.2.9"})):
        uid = pydicom.dcmread(patient / "b" / file.name).SOPInstanceUID
        rewrite(file, lambda one, uid=uid: setattr(one, "SOPInstanceUID", uid))
    assert read_study(patient).series[MRSequence.T2].image.shape == (6, 12, 10)


def test_duplicate_uids_in_an_unused_series_are_not_refused(patient: Path) -> None:
    """A localiser with one UID for all its images does not stop the other series from being read."""
    for file in write_series(patient / "c", tuple(range(3)), SeriesDescription="localizer"):
        rewrite(file, lambda one: setattr(one, "SOPInstanceUID", "1.2.3.9"))
    assert set(read_study(patient).series) == {MRSequence.T1C, MRSequence.T2}

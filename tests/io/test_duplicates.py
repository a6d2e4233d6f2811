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
    one = pydicom.dcmread(file)
    change(one)
    one.save_as(file)


def other_pixels(one: pydicom.Dataset) -> None:
    pixels = one.pixel_array.copy()
    pixels[6, 5] += 1
    one.PixelData = pixels.tobytes()


def other_place(one: pydicom.Dataset) -> None:
    x, y, z = one.ImagePositionPatient
    one.ImagePositionPatient = [x, y, z + 40]


def other_size(one: pydicom.Dataset) -> None:
    one.Rows, one.PixelData = 6, one.pixel_array[:6].tobytes()


def other_series(one: pydicom.Dataset) -> None:
    other_pixels(one)
    one.SeriesInstanceUID = generate_uid()


@pytest.mark.parametrize("change", [other_pixels, other_place, other_size, other_series])
def test_two_images_under_one_uid_are_refused_by_name(patient: Path, change) -> None:
    first, second = patient / "a" / "IM97", patient / "a" / "again" / "IM97"
    second.parent.mkdir()
    shutil.copyfile(first, second)
    rewrite(second, change)
    with pytest.raises(GliomarkError, match="same SOP instance UID") as caught:
        read_study(patient)
    assert str(first) in str(caught.value) and str(second) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("whole", [True, False], ids=["every image", "one image"])
def test_the_uids_of_another_series_are_refused(patient: Path, whole: bool) -> None:
    """As after faulty anonymisation: the T2 images have the UIDs of the T1C images."""
    for file in sorted((patient / "b").iterdir()) if whole else [patient / "b" / "IM95"]:
        rewrite(file, other_pixels)
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


def same_bytes(one: pydicom.Dataset) -> None:
    pass


def other_header(one: pydicom.Dataset) -> None:
    one.InstitutionName, one.SeriesTime = "Ward 7", "101112"


def compressed(one: pydicom.Dataset) -> None:
    one.compress(RLELossless, generate_instance_uid=False)


def a_hair_away(one: pydicom.Dataset) -> None:
    x, y, z = one.ImagePositionPatient
    one.ImagePositionPatient = [x, y, round(float(z) + 1e-5, 6)]


@pytest.mark.parametrize("change", [same_bytes, other_header, compressed, a_hair_away])
@pytest.mark.parametrize("which", ["one", "all"])
def test_copies_are_left_out(patient: Path, change, which: str) -> None:
    before = read_study(patient).series[MRSequence.T2].image
    files = sorted((patient / "b").iterdir())
    (patient / "copy").mkdir()
    for file in files if which == "all" else files[2:3]:
        copy = patient / "copy" / file.name
        shutil.copyfile(file, copy)
        rewrite(copy, change)
    np.testing.assert_array_equal(read_study(patient).series[MRSequence.T2].image, before)


def test_another_examinations_uids_are_its_own(patient: Path) -> None:
    """A UID must be unique within one examination only; the older examination is not read."""
    for file in write_series(patient / "c", **(T2 | {"StudyInstanceUID": "1.2.9"})):
        uid = pydicom.dcmread(patient / "b" / file.name).SOPInstanceUID
        rewrite(file, lambda one, uid=uid: setattr(one, "SOPInstanceUID", uid))
    assert read_study(patient).series[MRSequence.T2].image.shape == (6, 12, 10)


def test_what_is_not_read_is_not_refused(patient: Path) -> None:
    """A localiser with one UID for all its images does not stop the other series from being read."""
    for file in write_series(patient / "c", tuple(range(3)), SeriesDescription="localizer"):
        rewrite(file, lambda one: setattr(one, "SOPInstanceUID", "1.2.3.9"))
    assert set(read_study(patient).series) == {MRSequence.T1C, MRSequence.T2}

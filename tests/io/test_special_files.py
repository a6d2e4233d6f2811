"""Links, pipes, sockets and loops in a patient's folder are never opened; a patient folder that is a link is read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tests.io.test_dicom import write_series

from gliomark.cohort.scan import _find_dicom_files
from gliomark.errors import GliomarkError
from gliomark.io import find_patients, list_patient_files, read_clinical_table, read_study
from gliomark.io.masks import find_masks
from gliomark.study import MRSequence

VOXELS = np.random.default_rng(1).integers(0, 200, (10, 14, 6)).astype(np.int16)
VOXELS[:2], VOXELS[-2:] = 0, 0


def write_volumes(folder: Path) -> None:
    image = nib.Nifti1Image(VOXELS, np.diag([2.0, 2.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / "flair.nii.gz")


def write_pictures(folder: Path) -> None:
    (folder / "FLAIR").mkdir()
    for name in ("001", "002", "003"):
        pixels = np.full((32, 32), 10, np.uint8)
        pixels[8:20, 8:20] = 100
        Image.fromarray(pixels).save(folder / "FLAIR" / f"{name}.png")


def write_dicom(folder: Path) -> None:
    write_series(folder, SeriesDescription="T2 FLAIR")


def link_to_parent(path: Path) -> None:
    path.symlink_to(path.parent)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def link_outside(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def create_socket(path: Path) -> None:
    """Create a socket; its path is short because socket paths are limited."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(before)


SPECIAL = (
    os.mkfifo,
    link_to_parent,
    link_to_itself,
    link_outside,
    link_to_nothing,
    link_to_device,
    create_socket,
)
KINDS = {
    "t1.nii.gz": write_volumes,
    "t2.mha": write_volumes,
    "other/007.png": write_pictures,
    "FLAIR/004.png": write_pictures,
    "IM1": write_dicom,
}


@pytest.mark.parametrize("create_special", SPECIAL)
@pytest.mark.parametrize("name", KINDS)
def test_special_files_are_skipped_with_a_note(
    tmp_path: Path, create_special: Callable[[Path], None], name: str
):
    folder = tmp_path / "p"
    folder.mkdir()
    KINDS[name](folder)
    (folder / name).parent.mkdir(exist_ok=True)
    create_special(folder / name)
    study = read_study(folder)
    assert list(study.series) == [MRSequence.FLAIR]
    assert any(f"1 links or special files in the folder were skipped ({Path(name).name})" in note
               for note in study.notes)  # fmt: skip
    assert find_patients(folder) == [folder]
    assert folder / name not in list_patient_files(folder)
    assert folder / name not in find_masks(folder)


@pytest.mark.parametrize("create_special", SPECIAL)
@pytest.mark.parametrize("name", ["flair.nii.gz", "FLAIR", "IM1"])
def test_a_folder_with_only_special_files_is_refused(
    tmp_path: Path, create_special: Callable[[Path], None], name: str
):
    folder = tmp_path / "p"
    folder.mkdir()
    create_special(folder / name)
    with pytest.raises(GliomarkError) as caught:
        read_study(folder)
    assert f"{folder} contains no images, only links or special files" in str(caught.value) and name in str(
        caught.value
    )


@pytest.mark.parametrize("write", [write_volumes, write_pictures, write_dicom])
def test_a_patient_folder_that_is_a_link_is_read(tmp_path: Path, write: Callable[[Path], None]):
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere")
    (tmp_path / "cohort").mkdir()
    link = tmp_path / "cohort" / "P1"
    link.symlink_to(tmp_path / "elsewhere")
    assert find_patients(tmp_path / "cohort") == [link]
    assert list(read_study(link).series) == [MRSequence.FLAIR]
    assert not any("skipped" in note for note in read_study(link).notes)


@pytest.mark.parametrize("create_special", [os.mkfifo, link_to_device, create_socket])
def test_a_special_file_is_not_a_table(tmp_path: Path, create_special: Callable[[Path], None]):
    create_special(tmp_path / "table.csv")
    with pytest.raises(GliomarkError, match=r"table\.csv is a pipe, a socket or a device"):
        read_clinical_table(tmp_path / "table.csv")


def test_a_table_behind_a_link_is_read(tmp_path: Path):
    (tmp_path / "real.csv").write_text("id,age,sex\nP1,50,0\n", "utf-8")
    (tmp_path / "table.csv").symlink_to(tmp_path / "real.csv")
    assert read_clinical_table(tmp_path / "table.csv").get_row("P1").age == 50


@pytest.mark.parametrize("create_special", SPECIAL)
def test_a_mask_folder_is_read_without_special_files(tmp_path: Path, create_special: Callable[[Path], None]):
    folder = tmp_path / "masks"
    folder.mkdir()
    lesion = nib.Nifti1Image((VOXELS > 150).astype(np.uint8), np.diag([2.0, 2.0, 3.0, 1.0]))
    nib.save(lesion, folder / "lesion.nii.gz")
    for name in ("seg.nii.gz", "seg.dcm", "rater", "001.xml"):
        create_special(folder / name)
    assert find_masks(folder) == (folder / "lesion.nii.gz",)


@pytest.mark.parametrize("create_special", SPECIAL)
def test_a_cohort_folder_is_scanned_without_special_files(
    tmp_path: Path, create_special: Callable[[Path], None]
):
    """Links to folders are patients stored elsewhere; files are not read through links, pipes or devices."""
    (tmp_path / "P1").mkdir()
    write_volumes(tmp_path / "P1")
    for name in ("IM1", "export.zip"):
        create_special(tmp_path / name)
    (tmp_path / "private").mkdir()
    files, damaged = _find_dicom_files(tmp_path, tmp_path / "private", [tmp_path / "P1"])
    assert (files, damaged) == ([], [])

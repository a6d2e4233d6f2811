"""Malicious NIfTI headers are rejected before memory is allocated; valid ones are read."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.io.masks.mask_files import find_mask_kind
from gliomark.study import MRSequence

VOXELS = np.random.default_rng(1).integers(0, 200, (10, 14, 6)).astype("<i2")
VOXELS[:2], VOXELS[-2:] = 0, 0
FIELDS = {"dim": (40, "<i2"), "vox_offset": (108, "<f4"), "datatype": (70, "<i2"), "esize": (352, "<i4")}


def write(folder: Path, suffix: str = "nii", trailing: bytes = b"", **changes: Any) -> Path:
    """Write flair.<suffix> with ``changes`` in its header bytes; trailing: bytes after the values."""
    image = nib.Nifti1Image(VOXELS, np.diag([2.0, 2.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm")
    image.header.extensions.append(Nifti1Extension("comment", b"of a phantom"))
    content = bytearray(image.to_bytes())
    for name, value in changes.items():
        start, kind = FIELDS[name]
        written = np.asarray(value, kind).tobytes()
        content[start : start + len(written)] = written
    folder.mkdir(exist_ok=True)
    file = folder / f"flair.{suffix}"
    data = bytes(content) + trailing
    file.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    return file


def get_error_message(folder: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(folder)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("changes, stated", [
    ({"dim": [0, 10, 14, 6]}, "dim[0]: 0"), ({"dim": [9, 10, 14, 6]}, "dim[0]: 2304"),
    ({"dim": [3, 10, -14, 6]}, "dim: 10 -14 6"), ({"dim": [3, 10, 0, 6]}, "dim: 10 0 6"),
    ({"vox_offset": np.inf}, "vox_offset: inf"), ({"vox_offset": np.nan}, "vox_offset: nan"),
    ({"vox_offset": -352}, "vox_offset: -352"), ({"vox_offset": 2e9}, "vox_offset: 2000000000"),
    ({"esize": 2_000_000_000}, "esize: 2000000000"), ({"esize": -16}, "esize: -16"),
])  # fmt: skip
def test_an_invalid_field_is_refused(tmp_path: Path, suffix: str, changes: dict[str, Any], stated: str):
    file = write(tmp_path / "p", suffix, **changes)
    assert f"The header of {file} is invalid ({stated}" in get_error_message(tmp_path / "p")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("changes", [
    {"dim": [3, 500, 500, 500]}, {"dim": [3, 1000, 1000, 199]}, {"datatype": 64, "dim": [3, 200, 200, 200]},
])  # fmt: skip
def test_fewer_bytes_than_the_header_states_are_refused(tmp_path: Path, suffix: str, changes: dict[str, Any]):
    file = write(tmp_path / "p", suffix, **changes)
    assert f"{file} is damaged: its header states" in get_error_message(tmp_path / "p")


@pytest.mark.parametrize("dim", [[3, 1000, 1000, 201], [4, 32767, 32767, 32767, 1], [7] + [32767] * 7])
def test_more_voxels_than_any_image_are_refused(tmp_path: Path, dim: list[int]):
    write(tmp_path / "p", "nii.gz", dim=dim)
    assert "million voxels, more than any MR image" in get_error_message(tmp_path / "p")


def test_a_decompression_bomb_is_refused(tmp_path: Path):
    file = write(tmp_path / "p", "nii.gz", trailing=bytes(200 << 20))
    assert file.stat().st_size < 1 << 20
    assert f"{file} is damaged" in get_error_message(tmp_path / "p")


@pytest.mark.parametrize("kind, sentence", [
    ("link", "refers to a data file outside its own folder"),
    ("pipe", "refers to the data file flair.img, which does not"),
    ("folder", "refers to the data file flair.img, which does not"),
    ("none", "refers to the data file flair.img, which does not"),
])  # fmt: skip
def test_a_data_file_that_is_not_a_regular_file_is_refused(tmp_path: Path, kind: str, sentence: str):
    nib.Nifti1Pair(VOXELS, np.eye(4)).to_filename(tmp_path / "flair.hdr")
    image = (tmp_path / "flair.img").rename(tmp_path / "values")
    if kind == "link":
        (tmp_path / "flair.img").symlink_to(image)
    if kind == "pipe":
        os.mkfifo(tmp_path / "flair.img")
    if kind == "folder":
        (tmp_path / "flair.img").mkdir()
    assert sentence in get_error_message(tmp_path)


@pytest.mark.parametrize(
    "suffix, trailing", [("nii", b""), ("nii.gz", b""), ("nii", b"more"), ("nii.gz", b"more")]
)
def test_valid_files_are_read(tmp_path: Path, suffix: str, trailing: bytes):
    write(tmp_path / "p", suffix, trailing)
    np.testing.assert_array_equal(read_study(tmp_path / "p").series[MRSequence.FLAIR].image, VOXELS.T)


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Image, nib.Nifti2Pair])
def test_valid_files_of_other_kinds_are_read(tmp_path: Path, kind: type):
    pair = kind in (nib.Nifti1Pair, nib.Nifti2Pair)
    image = kind(VOXELS.astype(">i2"), np.diag([2.0, 2.0, 3.0, 1.0]))
    image.to_filename(tmp_path / ("flair.hdr" if pair else "flair.nii"))
    np.testing.assert_array_equal(read_study(tmp_path).series[MRSequence.FLAIR].image, VOXELS.T)


@pytest.mark.parametrize("changes", [
    {"dim": [3, 32767, 32767, 32767]}, {"dim": [0, 1, 1, 1]}, {"vox_offset": np.inf},
])  # fmt: skip
def test_a_malicious_mask_is_not_passed_to_nibabel(tmp_path: Path, changes: dict[str, Any]):
    assert find_mask_kind(write(tmp_path / "p", **changes)) == ""

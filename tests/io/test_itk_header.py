"""Malicious MetaImage and NRRD headers are rejected before ITK reads them; valid ones are read."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.io.masks.mask_files import find_mask_kind
from gliomark.study import MRSequence

SHAPE = (6, 14, 10)  # slice, row, column
VOXELS = np.random.default_rng(1).integers(0, 200, SHAPE).astype("<i2")
VOXELS[:, :3], VOXELS[:, -3:] = 0, 0
META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0", "ElementSpacing": "2 2 3",
    "DimSize": "10 14 6", "ElementType": "MET_SHORT",
}  # fmt: skip
NRRD = {
    "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "10 14 6",
    "space directions": "(2,0,0) (0,2,0) (0,0,3)", "endian": "little", "encoding": "raw",
    "space origin": "(0,0,0)",
}  # fmt: skip


def write(folder: Path, suffix: str, values: bytes, data: str = "", **changes: str) -> Path:
    """Write flair.<suffix> with header changes ("_" stands for a space); values inline or in the file ``data``."""
    meta = suffix in ("mha", "mhd")
    fields = {**(META if meta else NRRD), **{name.replace("_", " "): text for name, text in changes.items()}}
    if meta:
        header = "".join(f"{name} = {text}\n" for name, text in fields.items())
        header += f"ElementDataFile = {data or 'LOCAL'}\n"
    else:
        header = "NRRD0004\n" + "".join(f"{name}: {text}\n" for name, text in fields.items())
        header += f"data file: {data}\n" if data else "\n"
    folder.mkdir(exist_ok=True)
    file = folder / f"flair.{suffix}"
    file.write_bytes(header.encode() + (b"" if data else values))
    return file


def get_error_message(folder: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(folder)
    return str(caught.value)


def assert_read(folder: Path) -> None:
    np.testing.assert_array_equal(read_study(folder).series[MRSequence.FLAIR].image, VOXELS)


@pytest.mark.parametrize("suffix, changes, stated", [
    ("mha", {"NDims": "9" * 1500}, "NDims: 9999"),
    ("mha", {"NDims": "9" * 50_000}, "NDims = 9999"),
    ("mha", {"NDims": "500", "DimSize": "1 " * 499 + "1", "ElementSpacing": "1 " * 499 + "1"}, "NDims: 500"),
    ("mha", {"NDims": "0"}, "NDims: 0"),
    ("mha", {"NDims": "-3"}, "NDims: -3"),
    ("mha", {"NDims": "3.0"}, "NDims: 3.0"),
    ("mha", {"NDims": "4"}, "DimSize: 10 14 6"),
    ("mha", {"DimSize": "10 14 -6"}, "DimSize: 10 14 -6"),
    ("mha", {"DimSize": "10 0 6"}, "DimSize: 10 0 6"),
    ("mha", {"ElementType": "MET_OTHER"}, "ElementType = MET_OTHER"),
    ("mha", {"ElementNumberOfChannels": "1000000"}, "ElementNumberOfChannels: 1000000"),
    ("mha", {"HeaderSize": "-2"}, "HeaderSize: -2"),
    ("mha", {"Comment": "x" * 3000}, "Comment = xxx"),
    ("mha", {"ndims": "77"}, "ndims = 77"),
    ("mha", {"Comment": "x\nNDims: 900"}, "NDims: 900"),
    ("nrrd", {"dimension": "17"}, "dimension: 17"),
    ("nrrd", {"dimension": "x"}, "dimension: x"),
    ("nrrd", {"sizes": "10 14"}, "sizes: 10 14"),
    ("nrrd", {"sizes": "10 14 0"}, "sizes: 10 14 0"),
    ("nrrd", {"type": "block"}, "type: block"),
    ("nrrd", {"encoding": "zrl"}, "encoding: zrl"),
    ("nrrd", {"encoding": "ascii"}, "encoding: ascii"),
    ("nrrd", {"encoding": "hex"}, "encoding: hex"),
    ("nrrd", {"encoding": "bzip2"}, "encoding: bzip2"),
    ("nrrd", {"spaces": "1 1 1"}, "spaces: 1 1 1"),
    ("nrrd", {"content": "x" * 3000}, "content: xxx"),
    ("nrrd", {"space": "1 " * 300}, "space: 1 1"),
    ("nrrd", {"space_directions": "1 " * 300}, "space directions: 1 1"),
    ("nrrd", {"byte_skip": "-9"}, "byteskip: -9"),
    ("nrrd", {"content": "x\nsizes: 1 1 1"}, "sizes: 1"),
])  # fmt: skip
def test_an_invalid_field_is_refused(tmp_path: Path, suffix: str, changes: dict[str, str], stated: str):
    file = write(tmp_path / "p", suffix, VOXELS.tobytes(), **changes)
    assert f"The header of {file} is invalid ({stated}" in get_error_message(tmp_path / "p")


@pytest.mark.parametrize("start", ["NDims = 3\n", "ObjectType = Image\nNDims = ", "NRRD0004\ntype: short\n"])
def test_an_endless_header_is_refused(tmp_path: Path, start: str):
    suffix = "nrrd" if start.startswith("NRRD") else "mha"
    (tmp_path / f"flair.{suffix}").write_bytes(start.encode() + b"9" * 77_000)
    assert "has no end within 64 kB" in get_error_message(tmp_path)


@pytest.mark.parametrize("suffix, changes", [
    ("mha", {"DimSize": "1000 1000 201"}), ("mha", {"DimSize": "2000000000 2000000000 2000000000"}),
    ("nrrd", {"sizes": "1000 1000 201"}), ("nrrd", {"sizes": "1000 1000 201", "encoding": "gzip"}),
])  # fmt: skip
def test_more_voxels_than_any_image_are_refused(tmp_path: Path, suffix: str, changes: dict[str, str]):
    write(tmp_path / "p", suffix, VOXELS.tobytes(), **changes)
    assert "million voxels, more than any MR image" in get_error_message(tmp_path / "p")


@pytest.mark.parametrize("suffix, changes, values", [
    ("mha", {}, VOXELS.tobytes()[:-1]),
    ("mha", {"DimSize": "500 500 500"}, VOXELS.tobytes()),
    ("mha", {"ElementType": "MET_DOUBLE"}, VOXELS.tobytes()),
    ("mha", {"HeaderSize": "8"}, VOXELS.tobytes()),
    ("mha", {"DimSize": "500 500 500", "CompressedData": "True"}, zlib.compress(VOXELS.tobytes())),
    ("nrrd", {}, VOXELS.tobytes()[:-1]),
    ("nrrd", {"sizes": "500 500 500"}, VOXELS.tobytes()),
    ("nrrd", {"sizes": "500 500 500", "encoding": "gzip"}, zlib.compress(VOXELS.tobytes())),
])  # fmt: skip
def test_fewer_bytes_than_the_header_states_are_refused(
    tmp_path: Path, suffix: str, changes: dict[str, str], values: bytes
):
    file = write(tmp_path / "p", suffix, values, **changes)
    assert f"{file} is damaged: its header states" in get_error_message(tmp_path / "p")


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_a_decompression_bomb_is_refused(tmp_path: Path, suffix: str):
    changes = {"CompressedData": "True"} if suffix == "mha" else {"encoding": "gzip"}
    packer = zlib.compressobj(9, zlib.DEFLATED, 15 if suffix == "mha" else 31)
    bomb = packer.compress(VOXELS.tobytes() + bytes(200 << 20)) + packer.flush()
    file = write(tmp_path / "p", suffix, bomb, **changes)
    assert f"{file} is damaged" in get_error_message(tmp_path / "p")


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
@pytest.mark.parametrize("data", ["/etc/passwd", "../outside.raw", "sub/../../outside.raw", "link.raw", "C:\\x.raw",
                                  "linked/outside.raw", "\\\\server\\x.raw"])  # fmt: skip
def test_a_data_file_outside_the_folder_is_refused(tmp_path: Path, suffix: str, data: str):
    (tmp_path / "outside.raw").write_bytes(VOXELS.tobytes())
    file = write(tmp_path / "p", suffix, b"", data)
    (tmp_path / "p" / "sub").mkdir()
    (tmp_path / "p" / "link.raw").symlink_to(tmp_path / "outside.raw")
    (tmp_path / "p" / "linked").symlink_to(tmp_path)
    assert f"{file} refers to a data file outside its own folder" in get_error_message(tmp_path / "p")


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
@pytest.mark.parametrize("data", ["nothing.raw", "pipe.raw", "sub", "-", "long" * 19])
def test_a_data_file_that_is_not_a_regular_file_is_refused(tmp_path: Path, suffix: str, data: str):
    write(tmp_path / "p", suffix, b"", data)
    (tmp_path / "p" / "sub").mkdir()
    os.mkfifo(tmp_path / "p" / "pipe.raw")
    assert f"refers to the data file {data}, which does not exist" in get_error_message(tmp_path / "p")


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
@pytest.mark.parametrize("data", ["LIST", "LIST 2D", "slice%03d.raw 1 6 1"])
def test_a_list_of_data_files_is_refused(tmp_path: Path, suffix: str, data: str):
    file = write(tmp_path / "p", suffix, b"", data)
    assert f"{file} consists of several data files ({data})" in get_error_message(tmp_path / "p")


@pytest.mark.parametrize("suffix", ["mha", "mhd", "nrrd", "nhdr"])
@pytest.mark.parametrize("data", ["", "values.raw", "sub/values 1.raw"])
def test_valid_files_are_read(tmp_path: Path, suffix: str, data: str):
    write(tmp_path / "p", suffix, VOXELS.tobytes(), data)
    if data:
        (tmp_path / "p" / data).parent.mkdir(exist_ok=True)
        (tmp_path / "p" / data).write_bytes(VOXELS.tobytes())
    assert_read(tmp_path / "p")


def test_a_patient_folder_behind_a_link_is_read(tmp_path: Path):
    write(tmp_path / "p", "mhd", b"", "values.raw")
    (tmp_path / "p" / "values.raw").write_bytes(VOXELS.tobytes())
    (tmp_path / "named").symlink_to(tmp_path / "p")
    assert_read(tmp_path / "named")


@pytest.mark.parametrize(
    "changes", [{"NDims": "500"}, {"DimSize": "2000 2000 2000"}, {"ElementType": "MET_OTHER"}]
)
def test_a_malicious_mask_is_not_passed_to_itk(tmp_path: Path, changes: dict[str, str]):
    file = write(tmp_path / "p", "mha", VOXELS.tobytes(), **changes)
    assert find_mask_kind(file) == ""

"""DICOM objects that state more frames or pixels than they can hold are rejected before memory is allocated."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    RLELossless,
    SegmentationStorage,
)
from tests.io.test_dicom import create_blank_dataset, create_sequence_item, save, write_series

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.io.dicom import dataset_reader, read_instance
from gliomark.io.masks.dicom_segmentations import read_segmentation
from gliomark.study import MRSequence

IMPOSSIBLE_HEADERS: tuple[dict[str, Any], ...] = (
    {"NumberOfFrames": 10**9},
    {"NumberOfFrames": 2_000_000_000},
    {"NumberOfFrames": 500},
    {"NumberOfFrames": 10**9, "Rows": 1, "Columns": 1},
    {"NumberOfFrames": 150_000, "Rows": 1, "Columns": 1, "PixelData": bytes(300_000)},
    {"Rows": 65535, "Columns": 65535},
    {"NumberOfFrames": -5, "Rows": 12},
)


def write_with_header(file: Path, packed: bool = False, **tags: Any) -> Path:
    """Write a file with one small image whose header states ``tags``."""
    dataset = create_blank_dataset(file, Rows=12, Columns=10, SeriesInstanceUID="1.2.9", PixelData=bytes(240))
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    if packed:
        dataset.file_meta.TransferSyntaxUID = RLELossless
        dataset.PixelData = encapsulate([bytes(66)])
        dataset["PixelData"].VR = "OB"
    save(dataset, file)
    return file


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tags", IMPOSSIBLE_HEADERS)
def test_more_frames_than_the_file_can_hold_are_refused(tmp_path: Path, tags: dict[str, Any], packed: bool):
    file = write_with_header(tmp_path / "one", packed, **tags)
    started = time.monotonic()
    with pytest.raises(GliomarkError, match="more than the file can contain or any MR series has"):
        read_instance(file)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("tags", IMPOSSIBLE_HEADERS[:3])
def test_a_file_with_impossible_frames_is_skipped_if_the_series_is_complete(
    tmp_path: Path, tags: dict[str, Any]
):
    write_series(tmp_path, SeriesDescription="T2 FLAIR")
    write_with_header(tmp_path / "other" / "bomb.dcm", **tags)
    study = read_study(tmp_path, required_sequences=(MRSequence.FLAIR,))
    assert MRSequence.FLAIR in study.series
    assert any("bomb.dcm" in note and "skipped" in note for note in study.notes)


@pytest.mark.parametrize("tags", IMPOSSIBLE_HEADERS[:3])
def test_a_single_file_with_impossible_frames_is_named(tmp_path: Path, tags: dict[str, Any]):
    file = write_with_header(tmp_path / "bomb.dcm", **tags)
    with pytest.raises(GliomarkError, match=f"{file} states .* images of its size, more than the file"):
        read_study(tmp_path)


def write_deflated(file: Path, inflated_bytes: int, group_length: int | None = None) -> Path:
    """Write a deflated file that inflates to at least that size; group_length: as stated in its meta information."""
    dataset = create_blank_dataset(file, Rows=12, Columns=10, SeriesInstanceUID="1.2.9", PixelData=bytes(240))
    if inflated_bytes:
        dataset.add_new(0x00211010, "OB", bytes(inflated_bytes))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    save(dataset, file)
    if group_length is not None:
        content = bytearray(file.read_bytes())
        content[140:144] = group_length.to_bytes(4, "little")
        file.write_bytes(content)
    return file


@pytest.mark.parametrize(("inflated_bytes", "group_length"), [(0, None), (20 << 20, None)])
def test_a_deflated_file_is_read(tmp_path: Path, inflated_bytes: int, group_length: int | None):
    assert read_instance(write_deflated(tmp_path / "one", inflated_bytes, group_length)).rows == 12


@pytest.mark.parametrize(
    ("inflated_bytes", "group_length"), [(3 << 20, None), (9 << 20, None), (3 << 20, 0), (3 << 20, 5000)]
)
@pytest.mark.parametrize("read_file", [read_instance, lambda file: read_study(file.parent)])
def test_a_deflated_bomb_is_refused_before_it_is_inflated(
    tmp_path: Path, monkeypatch, inflated_bytes: int, group_length: int | None, read_file
):
    """For any stated group length; the limit is lowered so that the test need not write 500 MB."""
    monkeypatch.setattr(dataset_reader, "MAX_INFLATED_BYTES", 1 << 21)
    file = write_deflated(tmp_path / "bomb.dcm", inflated_bytes, group_length)
    assert file.stat().st_size < 1 << 16
    with pytest.raises(GliomarkError, match=f"{file} is deflated and expands to more than 2 MB"):
        read_file(file)


@pytest.mark.parametrize("tags", IMPOSSIBLE_HEADERS[:3])
def test_a_segmentation_with_impossible_frames_is_refused(tmp_path: Path, tags: dict[str, Any]):
    segments = create_sequence_item(SegmentNumber=1, SegmentLabel="tumor")
    file = write_with_header(
        tmp_path / "seg.dcm", SOPClassUID=SegmentationStorage, SegmentSequence=segments, SegmentationType="BINARY",
        BitsAllocated=1, BitsStored=1, HighBit=0, **tags,
    )  # fmt: skip
    with pytest.raises(GliomarkError, match=f"{file}.* damaged"):
        read_segmentation(file)


@pytest.mark.parametrize("tags", [
    {"NumberOfFrames": 1}, {"NumberOfFrames": 2, "PixelData": bytes(480)},
    {"SOPClassUID": EnhancedMRImageStorage, "NumberOfFrames": 1}, {"NumberOfFrames": 0},
])  # fmt: skip
def test_a_valid_header_is_read(tmp_path: Path, tags: dict[str, Any]):
    assert len(read_instance(write_with_header(tmp_path / "one", **tags)).frames) == max(
        tags["NumberOfFrames"], 1
    )


@pytest.mark.parametrize(
    "tags", [{"Columns": 5}, {"Rows": 6}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}]
)
def test_pixels_beyond_the_last_row_are_refused(tmp_path: Path, tags: dict[str, Any]):
    """They would be split into rows at wrong positions."""
    write_series(tmp_path, SeriesDescription="T2 FLAIR", PixelData=bytes([3, 1]) * 120, **tags)
    with pytest.raises(GliomarkError, match="do not match its header"):
        read_study(tmp_path)


def test_zeros_after_the_pixels_are_ignored(tmp_path: Path):
    write_series(tmp_path, SeriesDescription="T2 FLAIR")
    for file in tmp_path.iterdir():
        dataset = dcmread(file)
        dataset.PixelData += bytes(272)
        dataset.save_as(file)
    assert MRSequence.FLAIR in read_study(tmp_path).series


def test_encapsulated_uncompressed_pixels_are_refused(tmp_path: Path):
    write_series(tmp_path, SeriesDescription="T2 FLAIR")
    for file in tmp_path.iterdir():
        dataset = dcmread(file)
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True
        dcmwrite(file, dataset, implicit_vr=False, little_endian=True, force_encoding=True)
    with pytest.raises(GliomarkError, match="cannot be decoded"):
        read_study(tmp_path)

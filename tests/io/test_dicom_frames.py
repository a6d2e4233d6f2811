"""DICOM objects that claim more frames or pixels than they can hold are refused before anything is allocated."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedMRImageStorage, RLELossless, SegmentationStorage
from tests.io.test_dicom import blank, item, save, write_series

from gliomark.io import read_study
from gliomark.io.dicom import read_instance
from gliomark.io.masks.dicom import read_segmentation
from gliomark.study import GliomarkError, MRSequence

CLAIMS: tuple[dict[str, Any], ...] = (
    {"NumberOfFrames": 10**9},
    {"NumberOfFrames": 2_000_000_000},
    {"NumberOfFrames": 500},
    {"NumberOfFrames": 10**9, "Rows": 1, "Columns": 1},
    {"NumberOfFrames": 150_000, "Rows": 1, "Columns": 1, "PixelData": bytes(300_000)},
    {"Rows": 65535, "Columns": 65535},
    {"NumberOfFrames": -5, "Rows": 12},
)


def claim(file: Path, packed: bool = False, **tags: Any) -> Path:
    """A file of one small image whose header claims ``tags``."""
    dataset = blank(file, Rows=12, Columns=10, SeriesInstanceUID="1.2.9", PixelData=bytes(240))
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    if packed:
        dataset.file_meta.TransferSyntaxUID = RLELossless
        dataset.PixelData = encapsulate([bytes(66)])
        dataset["PixelData"].VR = "OB"
    save(dataset, file)
    return file


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tags", CLAIMS)
def test_more_than_the_file_can_hold(tmp_path: Path, tags: dict[str, Any], packed: bool):
    file = claim(tmp_path / "one", packed, **tags)
    started = time.monotonic()
    with pytest.raises(GliomarkError, match="more than it can hold or any MR series has"):
        read_instance(file)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("tags", CLAIMS[:3])
def test_such_a_file_is_passed_over_where_the_series_is_whole(tmp_path: Path, tags: dict[str, Any]):
    write_series(tmp_path, SeriesDescription="T2 FLAIR")
    claim(tmp_path / "other" / "bomb.dcm", **tags)
    study = read_study(tmp_path, needed=(MRSequence.FLAIR,))
    assert MRSequence.FLAIR in study.series
    assert any("bomb.dcm" in note and "passed over" in note for note in study.notes)


@pytest.mark.parametrize("tags", CLAIMS[:3])
def test_such_a_file_alone_is_named(tmp_path: Path, tags: dict[str, Any]):
    file = claim(tmp_path / "bomb.dcm", **tags)
    with pytest.raises(GliomarkError, match=str(file)):
        read_study(tmp_path)


@pytest.mark.parametrize("tags", CLAIMS[:3])
def test_such_a_segmentation_is_refused(tmp_path: Path, tags: dict[str, Any]):
    segments = item(SegmentNumber=1, SegmentLabel="tumor")
    file = claim(
        tmp_path / "seg.dcm", SOPClassUID=SegmentationStorage, SegmentSequence=segments, SegmentationType="BINARY",
        BitsAllocated=1, BitsStored=1, HighBit=0, **tags,
    )  # fmt: skip
    with pytest.raises(GliomarkError, match=f"{file}.* damaged"):
        read_segmentation(file)


@pytest.mark.parametrize("tags", [
    {"NumberOfFrames": 1}, {"NumberOfFrames": 2, "PixelData": bytes(480)},
    {"SOPClassUID": EnhancedMRImageStorage, "NumberOfFrames": 1}, {"NumberOfFrames": 0},
])  # fmt: skip
def test_a_healthy_header_is_read(tmp_path: Path, tags: dict[str, Any]):
    assert len(read_instance(claim(tmp_path / "one", **tags)).frames) == max(tags["NumberOfFrames"], 1)

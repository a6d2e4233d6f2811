"""DICOM with missing, invalid or rounded geometry: messages name attribute and file, small jitter is corrected."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import MRImageStorage, generate_uid

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.study import MRSequence

STEP = 5.0


def write(folder: Path, change: Callable[[Dataset, int], None] = lambda dataset, number: None) -> Path:
    """Write eight axial T2 slices; ``change`` alters each dataset before."""
    folder.mkdir(parents=True)
    series = generate_uid()
    for number in range(8):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
        dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "P-1", "1.2.3", series
        dataset.Modality, dataset.SeriesDescription, dataset.InstanceNumber = "MR", "t2 tse", number + 1
        dataset.RepetitionTime, dataset.EchoTime = 4000, 95
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 12, 10, 1
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelSpacing, dataset.ImageOrientationPatient = [2.0, 1.5], [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-10.0, -12.0, STEP * number]
        dataset.PixelData = np.full((12, 10), 10 + number, np.uint16).tobytes()
        change(dataset, number)
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.save_as(folder / f"IM{number + 1}", enforce_file_format=True)
    return folder


def create_text_change(keyword: str, text: bytes) -> Callable[[Dataset, int], None]:
    """Store a text in an attribute unchanged, valid or not."""

    def change(dataset: Dataset, number: int) -> None:
        tag = Tag(keyword)
        padded = text + b" " * (len(text) % 2)
        dataset._dict[tag] = RawDataElement(tag, "DS", len(padded), padded, 0, False, True)

    return change


@pytest.mark.parametrize("keyword, text", [
    ("ImagePositionPatient", b"nan\\nan\\nan"), ("ImagePositionPatient", b"0\\0\\inf"),
    ("ImagePositionPatient", b"0\\0"), ("ImagePositionPatient", b"a\\b\\c"),
    ("ImageOrientationPatient", b"nan\\0\\0\\0\\1\\0"), ("ImageOrientationPatient", b"0\\0\\0\\0\\0\\0"),
    ("ImageOrientationPatient", b"1\\0\\0\\1\\0\\0"), ("ImageOrientationPatient", b"2\\0\\0\\0\\1\\0"),
    ("ImageOrientationPatient", b"1\\0\\0\\0.3\\0.954\\0"), ("ImageOrientationPatient", b"1\\0\\0"),
    ("PixelSpacing", b"0\\0"), ("PixelSpacing", b"-1\\1"), ("PixelSpacing", b"nan\\1"), ("PixelSpacing", b"inf\\1"),
    ("PixelSpacing", b"1"),
])  # fmt: skip
def test_an_invalid_attribute_is_named_with_its_file(tmp_path: Path, keyword: str, text: bytes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write(tmp_path / "p", create_text_change(keyword, text))
    with pytest.raises(GliomarkError, match=rf"{keyword} in .*IM\d is invalid") as caught:
        read_study(folder)
    shown = re.search(r"\((.*?)\)", str(caught.value))
    assert shown is not None and shown[1].split("\\")[0][:1] == text.decode()[:1]


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
@pytest.mark.parametrize("blank", [True, False])
def test_a_missing_attribute_is_named_with_its_file(tmp_path: Path, keyword: str, blank: bool):
    def change(dataset: Dataset, number: int) -> None:
        if blank:
            setattr(dataset, keyword, None)
        else:
            delattr(dataset, keyword)

    with pytest.raises(GliomarkError, match=rf"IM\d lacks {keyword}"):
        read_study(write(tmp_path / "p", change))


@pytest.mark.parametrize("one", [0, 3, 7])
def test_one_slice_without_a_valid_position_is_refused(tmp_path: Path, one: int):
    def change(dataset: Dataset, number: int) -> None:
        if number == one:
            create_text_change("ImagePositionPatient", b"nan\\nan\\nan")(dataset, number)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write(tmp_path / "p", change)
    with pytest.raises(GliomarkError, match=f"ImagePositionPatient in .*IM{one + 1} is invalid"):
        read_study(folder)


@pytest.mark.parametrize("cosines", [
    [0.9998, 0.0175, 0.0, -0.0175, 0.9998, 0.0], [0.98, 0.17, 0.0, -0.17, 0.98, 0.0],
    [0.999999, 0.0001, 0.0, 0.0001, 0.999999, 0.0],
])  # fmt: skip
def test_rounded_cosines_are_made_orthogonal(tmp_path: Path, cosines: list[float]):
    def change(dataset: Dataset, number: int) -> None:
        dataset.ImageOrientationPatient = cosines

    affine = read_study(write(tmp_path / "p", change)).series[MRSequence.T2].affine
    turn = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(turn[:, 0], np.array(cosines[:3]) / np.linalg.norm(cosines[:3]), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (1.5, 2.0, STEP))


@pytest.mark.parametrize("order, noted", [
    ((1, 2, 3, 4, 5, 6, 7, 8), False), ((8, 7, 6, 5, 4, 3, 2, 1), False), ((1, 5, 2, 6, 3, 7, 4, 8), False),
    ((1, 2, 4, 3, 5, 6, 7, 8), True), ((8, 7, 6, 5, 3, 4, 2, 1), True), ((2, 1, 3, 4, 5, 6, 7, 8), True),
])  # fmt: skip
def test_instance_numbers_that_contradict_positions_are_noted_and_ignored(
    tmp_path: Path, order: tuple[int, ...], noted: bool
):
    def change(dataset: Dataset, number: int) -> None:
        dataset.InstanceNumber = order[number]

    study = read_study(write(tmp_path / "p", change))
    assert any("of 1 of 8 slices contradict each other" in note for note in study.notes) is noted
    np.testing.assert_array_equal(study.series[MRSequence.T2].image[:, 0, 0], np.arange(10, 18))


@pytest.mark.parametrize("shear", [0.2, -0.5, 1.0])
def test_a_tilted_stack_is_refused(tmp_path: Path, shear: float):
    def change(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient = [-10.0, -12.0 + shear * STEP * number, STEP * number]

    with pytest.raises(GliomarkError, match="tilted stack"):
        read_study(write(tmp_path / "p", change))

"""Masks that are truncated, hold no labels, or lie outside the images are rejected; none is silently skipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RTStructureSetStorage, generate_uid

from gliomark.errors import GliomarkError
from gliomark.io.masks import find_masks, read_masks
from gliomark.study import MRSequence, Series, SourceImage

SHAPE = (7, 24, 20)
T2 = MRSequence.T2
AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])
AFFINE[:3, 3] = (-30.0, 40.0, 17.0)
FRAME = generate_uid()


@pytest.fixture
def series(tmp_path: Path) -> dict[MRSequence, Series]:
    """A T2 series whose first image is a DICOM file with a frame of reference."""
    file = tmp_path / "images" / "1.dcm"
    _save(file, MRImageStorage, FrameOfReferenceUID=FRAME)
    source = SourceImage(file, None, (0.0, 0.0, 0.0), 0.0)
    names = tuple(f"{n:03d}" for n in range(SHAPE[0]))
    return {T2: Series(np.ones(SHAPE, np.float32), AFFINE, names, file.parent, (source,))}


def _save(file: Path, sop_class: str, **tags: object) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    for name, value in tags.items():
        setattr(dataset, name, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return dataset


def write_contours(
    file: Path, change: Callable[[Dataset], None] = lambda dataset: None, *, open_ended: bool = False
) -> Path:
    """Write an RTSTRUCT with a square GTV in slices 2, 3 and 4, after ``change``."""
    dataset = _save(file, RTStructureSetStorage, Modality="RTSTRUCT")
    roi, drawn, frame = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber = 1, "GTV", 1
    frame.FrameOfReferenceUID = roi.ReferencedFrameOfReferenceUID = FRAME
    drawn.ContourSequence = []
    for at in (2, 3, 4):
        square = np.array([(5, 6, at), (12, 6, at), (12, 15, at), (5, 15, at)]) - (0.5, 0.5, 0)
        one = Dataset()
        one.ContourGeometricType, one.NumberOfContourPoints = "CLOSED_PLANAR", 4
        one.ContourData = (square @ AFFINE[:3, :3].T + AFFINE[:3, 3]).ravel().tolist()
        drawn.ContourSequence.append(one)
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [roi], [drawn]
    change(dataset)
    if open_ended:
        for element in dataset.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
    dataset.save_as(file, enforce_file_format=True)
    return file


def get_contour(dataset: Dataset) -> Dataset:
    return dataset.ROIContourSequence[0].ContourSequence[0]


EXPECTED = np.zeros(SHAPE, bool)
EXPECTED[2:5, 6:15, 5:12] = True


def test_valid_contours_are_read(tmp_path: Path, series: dict[MRSequence, Series]):
    write_contours(tmp_path / "m" / "rt.dcm")
    (mask,) = read_masks(tmp_path / "m", series)
    np.testing.assert_array_equal(mask.series.image > 0, EXPECTED)


@pytest.mark.parametrize("open_ended", [False, True])
def test_truncated_contours_are_refused(tmp_path: Path, series: dict[MRSequence, Series], open_ended: bool):
    """Truncated within its last bytes, the file may still hold every contour; then all are read."""
    file = write_contours(tmp_path / "m" / "rt.dcm", open_ended=open_ended)
    content = file.read_bytes()
    read = 0
    for length in range(133, len(content), 7):
        file.write_bytes(content[:length])
        try:
            masks = read_masks(tmp_path / "m", series)
        except GliomarkError as error:
            assert "rt.dcm" in str(error)
        else:
            read += 1
            np.testing.assert_array_equal(masks[0].series.image > 0, EXPECTED)
    assert read <= 5


def _set(name: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(get_contour(dataset), name, value)


def _drop_contours(dataset: Dataset) -> None:
    dataset.ROIContourSequence = []


@pytest.mark.parametrize("change, expected_text", [
    (lambda d: _set("ContourData", get_contour(d).ContourData[:-1])(d), "does not have the stated number of points"),
    (lambda d: _set("ContourData", get_contour(d).ContourData[:-3])(d), "does not have the stated number of points"),
    (_set("NumberOfContourPoints", 40), "does not have the stated number of points"),
    (lambda d: _set("ContourData", ["nan", *get_contour(d).ContourData[1:]])(d), "not finite numbers|damaged"),
    (lambda d: delattr(get_contour(d), "ContourData"), "damaged DICOM structure set"),
    (lambda d: delattr(d, "ROIContourSequence"), "damaged DICOM structure set"),
    (lambda d: delattr(d, "StructureSetROISequence"), "damaged DICOM structure set"),
    (_drop_contours, "lists the lesion 'GTV' but contains no contours"),
    (lambda d: delattr(d.ROIContourSequence[0], "ContourSequence"), "no closed contour"),
    (lambda d: _set("ContourData", [v + 40 * (i % 3 == 2) for i, v in enumerate(get_contour(d).ContourData)])(d),
     "slices of any of the patient's series"),
])  # fmt: skip
def test_incomplete_contours_are_refused(
    tmp_path: Path, series: dict[MRSequence, Series], change: Callable[[Dataset], None], expected_text: str
):
    write_contours(tmp_path / "m" / "rt.dcm", change)
    with pytest.raises(GliomarkError, match=expected_text) as caught:
        read_masks(tmp_path / "m", series)
    assert "rt.dcm" in str(caught.value)


# ---- another frame of reference ---------------------------------------------------------------------


def _change_frame_of_reference(dataset: Dataset) -> None:
    other = generate_uid()
    dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = other
    dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = other


def _refer_to(uid: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        _change_frame_of_reference(dataset)
        study, one = Dataset(), Dataset()
        one.SeriesInstanceUID = uid
        study.RTReferencedSeriesSequence = [one]
        dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence = [study]

    return change


@pytest.mark.parametrize("change", [_change_frame_of_reference, _refer_to("9.9.9"), _refer_to("1.2.30")])
def test_contours_of_another_frame_of_reference_are_refused(
    tmp_path: Path, series: dict[MRSequence, Series], change: Callable[[Dataset], None]
):
    write_contours(tmp_path / "m" / "rt.dcm", change)
    with pytest.raises(GliomarkError, match=r"rt\.dcm has a different frame of reference"):
        read_masks(tmp_path / "m", series, sequences_by_uid={"1.2.3": T2})


def _remove_frame_of_reference(dataset: Dataset) -> None:
    del dataset.ReferencedFrameOfReferenceSequence
    del dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID


@pytest.mark.parametrize("change", [lambda dataset: None, _refer_to("1.2.3"), _remove_frame_of_reference])
def test_contours_that_refer_to_the_patients_frame_or_series_are_read(
    tmp_path: Path, series: dict[MRSequence, Series], change: Callable[[Dataset], None]
):
    write_contours(tmp_path / "m" / "rt.dcm", change)
    (mask,) = read_masks(tmp_path / "m", series, sequences_by_uid={"1.2.3": T2})
    np.testing.assert_array_equal(mask.series.image > 0, EXPECTED)


# ---- volumes among the masks ------------------------------------------------------------------------


def write_volume(file: Path, image: np.ndarray, affine: np.ndarray = AFFINE, code: int = 1) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    stored = nib.Nifti1Image(image.astype(np.float32).transpose(2, 1, 0), np.diag([-1.0, -1, 1, 1]) @ affine)
    stored.set_sform(stored.affine if code else None, code)
    stored.set_qform(stored.affine if code else None, code)
    nib.save(stored, file)
    return file


@pytest.mark.parametrize("name", ["seg.nii.gz", "P001.nii.gz", "tumour.nii"])
@pytest.mark.parametrize(
    "value, expected_text", [(np.nan, "not finite"), (np.inf, "not finite"), (0.4, "fractional values")]
)
def test_a_mask_with_invalid_values_is_refused_regardless_of_its_name(
    tmp_path: Path, series: dict[MRSequence, Series], name: str, value: float, expected_text: str
):
    image = EXPECTED.astype(np.float32)
    image[0, 0, 0] = value
    file = write_volume(tmp_path / "m" / name, image)
    assert find_masks(tmp_path / "m") == (file,)
    with pytest.raises(GliomarkError, match=expected_text) as caught:
        read_masks(tmp_path / "m", series)
    assert name in str(caught.value)


def test_a_probability_map_is_refused(tmp_path: Path, series: dict[MRSequence, Series]):
    write_volume(tmp_path / "m" / "P001.nii.gz", np.random.default_rng(0).random(SHAPE))
    with pytest.raises(GliomarkError, match="such as probabilities"):
        read_masks(tmp_path / "m", series)


def _create_identity() -> np.ndarray:
    return np.eye(4)


def _shift_affine(mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += mm + 0.5
    return affine


@pytest.mark.parametrize("affine, expected_text", [
    (_create_identity(), "geometry was lost|outside"), (np.diag([-1.0, -1, 1, 1]), "geometry was lost|outside"),
    (AFFINE @ np.diag([3, 3, 1, 1]), "geometry was lost"), (_shift_affine(500), "outside all series"),
    (_shift_affine(-10) @ np.diag([1, 1, 3, 1]), "geometry was lost"),
])  # fmt: skip
def test_a_mask_with_lost_geometry_is_refused(
    tmp_path: Path, series: dict[MRSequence, Series], affine: np.ndarray, expected_text: str
):
    write_volume(tmp_path / "m" / "seg.nii.gz", EXPECTED, affine)
    with pytest.raises(GliomarkError, match=expected_text):
        read_masks(tmp_path / "m", series)


def test_a_mask_on_a_different_grid_is_noted(tmp_path: Path, series: dict[MRSequence, Series]):
    write_volume(tmp_path / "m" / "seg.nii.gz", EXPECTED, _shift_affine(2))
    (mask,) = read_masks(tmp_path / "m", series)
    assert "matches the grid of no series" in mask.notes[-1]


@pytest.mark.parametrize("mask_code, images_oriented", [(0, True), (1, False)])
def test_orientation_stated_for_mask_or_images_alone_is_refused(
    tmp_path: Path, series: dict[MRSequence, Series], mask_code: int, images_oriented: bool
):
    write_volume(tmp_path / "m" / "seg.nii.gz", EXPECTED, code=mask_code)
    images = {T2: replace(series[T2], is_oriented=images_oriented)}
    with pytest.raises(GliomarkError, match="does not state its orientation but"):
        read_masks(tmp_path / "m", images)


# ---- DICOM files of unknown content -----------------------------------------------------------------


@pytest.mark.parametrize("length", [133, 160, 250])
def test_a_dicom_file_truncated_before_its_sop_class_is_refused(
    tmp_path: Path, series: dict[MRSequence, Series], length: int
):
    file = write_contours(tmp_path / "m" / "rt.dcm")
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(GliomarkError, match=r"rt\.dcm is a damaged DICOM"):
        read_masks(tmp_path / "m", series)


def test_images_in_a_mask_folder_are_not_masks(tmp_path: Path):
    _save(tmp_path / "m" / "1.dcm", MRImageStorage)
    assert find_masks(tmp_path / "m") == ()
    assert pydicom.dcmread(tmp_path / "m" / "1.dcm").SOPClassUID == MRImageStorage

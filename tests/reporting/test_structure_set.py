"""The structure set: the outline of the segmentation's mask, on its images, for every shape of lesion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from tests.reporting.test_dicom import (
    SHAPE,
    T1C,
    check_conformance,
    create_prediction,
    create_results,
    remove_lesion,
    write_classic,
    write_enhanced,
)

from gliomark.errors import GliomarkError
from gliomark.io.masks import is_gliomark_result, read_structure_set
from gliomark.prediction import Prediction
from gliomark.reporting import create_structure_set_result, write_prediction
from gliomark.reporting.mask_resampling import resample_mask_to_source_images
from gliomark.study import READER_SEGMENTATION_RULE, Segmentation, Study

Make = Callable[..., Prediction]
UNEVEN = (*range(5), 5.2, *range(6, 9), *range(10, 16))


def create_mask(kind: str) -> NDArray[np.bool_]:
    """A lesion on the grid of the classic series, ``(slice, row, column)``."""
    mask = np.zeros(SHAPE, bool)
    if kind == "one pixel":
        mask[7, 40, 31] = True
        return mask
    z, y, x = np.indices(SHAPE)
    distance = np.sqrt(((z - 8) * 3.0) ** 2 + ((y - 42) * 1.7) ** 2 + ((x - 37) * 1.5) ** 2)
    mask |= distance < 18
    if kind == "two parts":
        mask |= np.sqrt(((z - 9) * 3.0) ** 2 + ((y - 15) * 1.7) ** 2 + ((x - 60) * 1.5) ** 2) < 9
    if kind in ("hole", "ring around a part"):
        mask &= distance > 9
    if kind == "ring around a part":
        mask |= distance < 4
    if kind == "slices between without lesion":
        mask[[6, 9, 10]] = False
    if kind == "at the edge of the image":
        mask[5:9, :7, -9:] = True
        mask[8, -1, 0] = True
    if kind == "noise":
        mask[4:6, 10:34, 10:34] = np.random.default_rng(0).random((2, 24, 24)) < 0.65
    return mask


KINDS = (
    "one part",
    "two parts",
    "hole",
    "ring around a part",
    "one pixel",
    "slices between without lesion",
    "at the edge of the image",
    "noise",
)


def outline(prediction: Prediction, study: Study, mask: NDArray[np.bool_]) -> Prediction:
    """A prediction whose lesion is this mask on the grid of T1C."""
    series = study.series[T1C]
    stack = replace(
        prediction.stack,
        images=dict.fromkeys(study.series, np.zeros(mask.shape, np.float32)),
        brain=np.ones(mask.shape, bool),
        affine=series.affine,
        slice_names=series.slice_names,
        selected=(0,),
    )
    segmentation = Segmentation(mask.astype(np.float32), mask, prediction.segmentation.rule)
    return replace(prediction, study=study, stack=stack, segmentation=segmentation)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    """Oblique series of each kind."""
    folder = tmp_path_factory.mktemp("studies")
    return {
        "classic": write_classic(folder / "classic"),
        "uneven": write_classic(folder / "uneven", UNEVEN),
        "enhanced": write_enhanced(folder / "enhanced"),
    }


def save(prediction: Prediction, folder: Path) -> tuple[Path, Dataset]:
    file = folder / "structure_set.dcm"
    create_structure_set_result(prediction).save_as(file, enforce_file_format=True)
    return file, pydicom.dcmread(file)


def fill_one_by_one(structure_set: Dataset, prediction: Prediction) -> NDArray[np.bool_]:
    """Fill each contour on the image that it names with another library, and unite them."""
    series = prediction.study.series[T1C]
    to_pixels = np.linalg.pinv(series.affine[:3, :2])
    numbers = {
        (str(pydicom.dcmread(one.file, stop_before_pixels=True).SOPInstanceUID), one.frame): index
        for index, one in enumerate(series.source_images)
    }
    planes = np.zeros((len(series.source_images), *series.image.shape[1:]), bool)
    row, column = np.indices(planes.shape[1:])
    centres = np.stack([column.ravel(), row.ravel()], axis=1)
    for contour in structure_set.ROIContourSequence[0].ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        assert len(contour.ContourData) == 3 * contour.NumberOfContourPoints
        (source,) = contour.ContourImageSequence
        frame = source.get("ReferencedFrameNumber")
        index = numbers[source.ReferencedSOPInstanceUID, None if frame is None else int(frame) - 1]
        points = np.reshape([float(one) for one in contour.ContourData], (-1, 3))
        offsets = points - np.array(series.source_images[index].position)
        normal = np.cross(series.affine[:3, 0], series.affine[:3, 1])
        assert np.abs(offsets @ normal / np.linalg.norm(normal)).max() < 0.002  # on the plane of its image
        inside = Polygon(offsets @ to_pixels.T).contains_points(centres)
        planes[index] |= inside.reshape(planes.shape[1:])
    return planes


@pytest.mark.parametrize("kind", KINDS)
def test_the_contours_enclose_the_mask(
    make_prediction: Make, studies: dict[str, Study], tmp_path: Path, kind: str
) -> None:
    study, mask = studies["classic"], create_mask(kind)
    prediction = outline(create_prediction(make_prediction, study), study, mask)
    file, structure_set = save(prediction, tmp_path)
    read = read_structure_set(file, study.series[T1C])
    assert np.array_equal(read.series.image > 0, mask)  # Dice 1
    assert read.referenced_series_uid == structure_set_series(structure_set)
    assert np.array_equal(fill_one_by_one(structure_set, prediction), mask)
    check_conformance({"structure_set.dcm": structure_set}, tmp_path)


def structure_set_series(structure_set: Dataset) -> str:
    (frame,) = structure_set.ReferencedFrameOfReferenceSequence
    return str(frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID)


@pytest.mark.parametrize("source", ["classic", "uneven", "enhanced"])
def test_the_contours_are_those_of_the_segmentation(
    make_prediction: Make, studies: dict[str, Study], tmp_path: Path, source: str
) -> None:
    """On every kind of series, with the same references as the segmentation."""
    prediction = create_prediction(make_prediction, studies[source])
    _, structure_set = save(prediction, tmp_path)
    expected = resample_mask_to_source_images(prediction, T1C) > 0
    assert expected.sum() > 500
    assert np.array_equal(fill_one_by_one(structure_set, prediction), expected)
    segmentation = create_results(prediction)["segmentation.dcm"]
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "FrameOfReferenceUID", "AccessionNumber"):
        assert structure_set[keyword].value == segmentation[keyword].value
    assert structure_set_series(structure_set) == segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
    assert structure_set.SeriesInstanceUID != segmentation.SeriesInstanceUID
    (frame,) = structure_set.ReferencedFrameOfReferenceSequence
    (roi,) = structure_set.StructureSetROISequence
    assert {frame.FrameOfReferenceUID, roi.ReferencedFrameOfReferenceUID} == {
        segmentation.FrameOfReferenceUID
    }
    check_conformance({"structure_set.dcm": structure_set}, tmp_path)


@pytest.mark.parametrize(
    ("rule", "algorithm", "words"),
    [
        (None, "AUTOMATIC", "not reviewed"),
        (READER_SEGMENTATION_RULE, "SEMIAUTOMATIC", "Outlined or corrected by a reader"),
    ],
)
def test_the_region_states_who_outlined_it(
    make_prediction: Make, studies: dict[str, Study], tmp_path: Path, rule: Any, algorithm: str, words: str
) -> None:
    study, mask = studies["classic"], create_mask("hole")
    prediction = outline(create_prediction(make_prediction, study), study, mask)
    if rule is not None:
        mask = create_mask("two parts")
        corrected = Segmentation(prediction.segmentation.probability, mask, rule)
        prediction = replace(prediction, segmentation=corrected)
    file, structure_set = save(prediction, tmp_path)
    assert np.array_equal(read_structure_set(file, study.series[T1C]).series.image > 0, mask)
    (roi,) = structure_set.StructureSetROISequence
    assert (roi.ROIName, roi.ROIGenerationAlgorithm) == ("Lesion", algorithm)
    assert words in roi.ROIDescription and "Research use only" in roi.ROIDescription
    assert roi.ROIGenerationDescription == "demo, gliomark 0.0.1"
    (named,) = roi.ROIDerivationAlgorithmIdentificationSequence
    assert named.AlgorithmName == "demo" and "ab" * 32 in str(named.AlgorithmParameters)
    (observation,) = structure_set.RTROIObservationsSequence
    assert observation.ReferencedROINumber == roi.ROINumber and observation.RTROIInterpretedType == ""
    assert observation.RTROIIdentificationCodeSequence[0].CodeMeaning == "Lesion"
    assert structure_set.ApprovalStatus == "UNAPPROVED"
    assert is_gliomark_result(file) is (rule is None)  # a corrected outline is a reader's


def test_a_contour_longer_than_an_explicit_decimal_string_is_stored(
    make_prediction: Make, studies: dict[str, Study], tmp_path: Path
) -> None:
    """Of 64 KiB: a comb whose teeth are one pixel wide."""
    mask = np.zeros(SHAPE, bool)
    mask[5, ::2], mask[5, :, 0] = True, True
    mask[5, 1::2, 1::2] = True
    study = studies["classic"]
    prediction = outline(create_prediction(make_prediction, study), study, mask)
    file, structure_set = save(prediction, tmp_path)
    sizes = [
        len("\\".join(map(str, contour.ContourData)))
        for contour in structure_set.ROIContourSequence[0].ContourSequence
    ]
    assert max(sizes) > 1 << 16
    assert np.array_equal(read_structure_set(file, study.series[T1C]).series.image > 0, mask)


def test_without_a_lesion_there_is_no_structure_set(
    make_prediction: Make, studies: dict[str, Study], tmp_path: Path
) -> None:
    prediction = remove_lesion(create_prediction(make_prediction, studies["classic"]))
    with pytest.raises(GliomarkError, match="because no lesion was outlined"):
        create_structure_set_result(prediction)
    folder = write_prediction(prediction, tmp_path, formats=("json", "rtstruct"))
    assert [file.name for file in folder.iterdir()] == ["prediction.json"]


def test_it_is_written_alone_or_refused_as_a_whole(
    make_prediction: Make, studies: dict[str, Study], tmp_path: Path
) -> None:
    prediction = create_prediction(make_prediction, studies["classic"])
    folder = write_prediction(prediction, tmp_path, formats=("rtstruct",))
    assert [file.name for file in (folder / "dicom").iterdir()] == ["structure_set.dcm"]
    with pytest.raises(GliomarkError, match="are not DICOM.*--rtstruct"):
        write_prediction(make_prediction("volumes"), tmp_path / "other", formats=("rtstruct",))
    assert not list((tmp_path / "other").glob("*"))

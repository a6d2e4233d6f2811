"""The lesion's diameters in the structured report: on the right image, at the right pixels, as long as stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.spatial import ImageToReferenceTransformer
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage
from tests.reporting.test_dicom import (
    FLAIR,
    STEP,
    T1C,
    check_conformance,
    create_prediction,
    create_results,
    create_rotation,
    remove_lesion,
    save_and_read,
    write_classic,
    write_enhanced,
)

from gliomark.geometry import apply_affine, invert_affine
from gliomark.io import read_study
from gliomark.prediction import Prediction
from gliomark.reporting.dicom import convert_to_comprehensive_sr
from gliomark.study import MRSequence, Study

Make = Callable[..., Prediction]
LONG_AXIS, SHORT_AXIS = "103339001", "103340004"


def create_parallel_prediction(
    make_prediction: Make, study: Study, off_image_mm: float = 0.0, flattened: float = 0.7
) -> Prediction:
    """The synthetic lesion on slices parallel to the images of T1C; slice 3 lies ``off_image_mm`` from one of them.

    flattened: factor for the column spacing, so that the two diameters differ.
    """
    prediction = create_prediction(make_prediction, study)
    affine = np.eye(4)
    affine[:3, :3] = create_rotation() @ np.diag([flattened, 1.0, 5.0])
    middle = (np.array(prediction.stack.brain.shape[::-1]) - 1) / 2
    series = study.series[T1C]
    rows, columns = series.image.shape[1:]
    centre = series.affine @ np.array([(columns - 1) / 2 + 0.3, (rows - 1) / 2 - 0.2, 7, 1.0])
    affine[:3, 3] = centre[:3] + off_image_mm * create_rotation()[:, 2] - affine[:3, :3] @ middle
    return replace(prediction, stack=replace(prediction.stack, affine=affine))


def register(prediction: Prediction, sequence: MRSequence, degrees: float, axis: int) -> Prediction:
    """Let a series be turned about an axis of its images, and shifted, with respect to the stack."""
    a = np.radians(degrees)
    turn = np.roll(
        np.roll([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]], axis, 0), axis, 1
    )
    rotation = np.eye(4)
    rotation[:3, :3] = create_rotation() @ turn @ create_rotation().T
    to_stack = {sequence: rotation}
    return replace(prediction, stack=replace(prediction.stack, to_stack=to_stack))


def list_lines(report: Dataset) -> dict[str, Dataset]:
    """The NUM items with coordinates, by code."""
    (measurements,) = [
        one for one in report.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "126010"
    ]
    return {
        item.ConceptNameCodeSequence[0].CodeValue: item
        for group in measurements.ContentSequence
        for item in group.ContentSequence
        if item.ValueType == "NUM" and item.ContentSequence[0].ValueType == "SCOORD"
    }


def read_image_geometry(file: Path, frame: int | None) -> dict[str, Any]:
    """Position, orientation and pixel spacing as stored in the source file."""
    image = pydicom.dcmread(file, stop_before_pixels=True)
    if frame is None:
        position, orientation, spacing = image, image, image
    else:
        group, shared = (
            image.PerFrameFunctionalGroupsSequence[frame - 1],
            image.SharedFunctionalGroupsSequence[0],
        )
        position, orientation = group.PlanePositionSequence[0], group.PlaneOrientationSequence[0]
        spacing = shared.PixelMeasuresSequence[0]
    return {
        "image_position": list(map(float, position.ImagePositionPatient)),
        "image_orientation": list(map(float, orientation.ImageOrientationPatient)),
        "pixel_spacing": list(map(float, spacing.PixelSpacing)),
    }


def map_to_patient(item: Dataset, study: Study) -> tuple[NDArray[np.float64], MRSequence, float]:
    """Map the end points of a line to LPS mm with the geometry of the file: ends, series and pixel spacing."""
    scoord = item.ContentSequence[0]
    assert (len(item.ContentSequence), scoord.GraphicType) == (1, "POLYLINE")
    reference = scoord.ContentSequence[0].ReferencedSOPSequence[0]
    frame = reference.get("ReferencedFrameNumber")
    files = {
        str(pydicom.dcmread(image.file, stop_before_pixels=True).SOPInstanceUID): (image.file, name)
        for name, series in study.series.items()
        for image in series.source_images
    }
    file, name = files[reference.ReferencedSOPInstanceUID]
    geometry = read_image_geometry(file, None if frame is None else int(frame))
    points = np.array(scoord.GraphicData, dtype=np.float64).reshape(2, 2)
    return ImageToReferenceTransformer(**geometry)(points), name, min(geometry["pixel_spacing"])


def check_lines(prediction: Prediction, report: Dataset, sequence: MRSequence, off_image_mm: float) -> None:
    """The lines lie on an image of the series, at the end points of the diameters, and are as long as stated."""
    axes = prediction.lesion_axes
    assert axes is not None and axes.longest.mm > 1.2 * axes.perpendicular.mm > 10
    lines = list_lines(report)
    assert list(lines) == [LONG_AXIS, SHORT_AXIS]
    to_stack = prediction.stack.to_stack.get(sequence, np.eye(4))
    for code, line in ((LONG_AXIS, axes.longest), (SHORT_AXIS, axes.perpendicular)):
        ends, name, pixel_mm = map_to_patient(lines[code], prediction.study)
        measured = lines[code].MeasuredValueSequence[0]
        assert (name, measured.MeasurementUnitsCodeSequence[0].CodeValue) == (sequence, "mm")
        assert float(measured.NumericValue) == pytest.approx(line.mm, abs=0.006)
        assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(float(measured.NumericValue), abs=0.05)
        normal = prediction.study.series[name].affine[:3, 2]
        expected = apply_affine(invert_affine(to_stack), np.array(line.ends_mm).T).T
        apart = (ends - expected) @ (normal / np.linalg.norm(normal))
        assert np.abs(apart) == pytest.approx(off_image_mm, abs=0.1)
        in_plane = np.linalg.norm(ends - expected, axis=1) ** 2 - apart**2
        assert np.sqrt(in_plane.clip(0)).max() < pixel_mm / 2


@pytest.mark.parametrize(("kind", "off_image_mm"), [("classic", 0.0), ("classic", 1.2), ("enhanced", 0.4)])
def test_the_lines_lie_where_the_diameters_were_measured(
    make_prediction: Make, tmp_path: Path, kind: str, off_image_mm: float
) -> None:
    study = (write_enhanced if kind == "enhanced" else write_classic)(tmp_path / "in")
    prediction = create_parallel_prediction(make_prediction, study, off_image_mm)
    results = create_results(prediction)
    check_lines(prediction, save_and_read(results["report.dcm"]), T1C, off_image_mm)
    check_conformance(results, tmp_path)


def test_lines_of_a_missing_slice_are_on_the_nearest_image(make_prediction: Make, tmp_path: Path) -> None:
    study = write_classic(tmp_path / "in", (*range(7), *range(8, 16)))  # without the slice of the diameters
    prediction = create_parallel_prediction(make_prediction, study)
    check_lines(prediction, save_and_read(create_results(prediction)["report.dcm"]), T1C, STEP)


@pytest.mark.parametrize(("degrees", "axis", "expected"), [(20, 2, T1C), (6, 0, FLAIR), (-15, 1, FLAIR)])
def test_lines_of_a_registered_series_are_on_images_parallel_to_the_slices(
    make_prediction: Make, tmp_path: Path, degrees: float, axis: int, expected: MRSequence
) -> None:
    """T1C is turned in its plane, or tilted out of it; then FLAIR, which defines the slices, has the lines."""
    prediction = create_parallel_prediction(make_prediction, write_classic(tmp_path / "in"))
    prediction = register(prediction, T1C, degrees, axis)
    check_lines(prediction, save_and_read(create_results(prediction)["report.dcm"]), expected, 0.0)


def test_without_a_parallel_series_the_diameters_are_measured_on_the_images(
    make_prediction: Make, tmp_path: Path
) -> None:
    """The slices are tilted by 23 degrees from every image: the lines are those of the segmentation's frames."""
    prediction = create_prediction(make_prediction, write_classic(tmp_path / "in"))
    results = create_results(prediction)
    lines = list_lines(save_and_read(results["report.dcm"]))
    directions = []
    for line in lines.values():
        ends, name, _ = map_to_patient(line, prediction.study)
        stated = float(line.MeasuredValueSequence[0].NumericValue)
        assert name == T1C and np.linalg.norm(ends[1] - ends[0]) == pytest.approx(stated, abs=0.01)
        assert stated == pytest.approx(26, abs=3.5)  # a sphere of radius 13 on slices of 5 mm
        directions.append(ends[1] - ends[0])
        scoord = line.ContentSequence[0]
        uid = scoord.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        frames = results["segmentation.dcm"].PerFrameFunctionalGroupsSequence
        sources = [one.DerivationImageSequence[0].SourceImageSequence[0] for one in frames]
        plane = results["segmentation.dcm"].pixel_array[
            [str(one.ReferencedSOPInstanceUID) for one in sources].index(uid)
        ]
        rows, columns = np.nonzero(plane)
        points = np.array(scoord.GraphicData).reshape(2, 2)
        assert columns.min() - 1e-3 <= points[:, 0].min() and points[:, 0].max() <= columns.max() + 1.001
        assert rows.min() - 1e-3 <= points[:, 1].min() and points[:, 1].max() <= rows.max() + 1.001
    assert np.dot(*directions) == pytest.approx(0, abs=0.01)
    assert "image-diameters" in str(results["report.dcm"])
    check_conformance(results, tmp_path)


def test_without_a_lesion_there_are_no_lines(make_prediction: Make, tmp_path: Path) -> None:
    prediction = remove_lesion(create_prediction(make_prediction, write_classic(tmp_path / "in")))
    assert list_lines(save_and_read(create_results(prediction)["report.dcm"])) == {}


def test_the_tree_has_what_viewers_need(make_prediction: Make, tmp_path: Path) -> None:
    """OHIF needs an image library with the images of the lines, a child of every number, and one tracking UID of all
    groups, and it writes texts of a group across the image."""
    prediction = create_parallel_prediction(make_prediction, write_classic(tmp_path / "in"))
    results = create_results(prediction)
    report = save_and_read(results["report.dcm"])
    names = {one.ConceptNameCodeSequence[0].CodeValue: one for one in report.ContentSequence}
    library, measurements = names["111028"], names["126010"]
    listed = {
        str(entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for group in library.ContentSequence
        for entry in group.ContentSequence
        if entry.ValueType == "IMAGE"
    }
    uids = []
    for group in measurements.ContentSequence:
        items = {one.ConceptNameCodeSequence[0].CodeValue: one for one in group.ContentSequence}
        uids.append(items["112040"].UID)
        assert items["112039"].TextValue == "gliomark lesion" and "121106" not in items
        assert items["121071"].ConceptCodeSequence[0].CodeValue == "52988006"
        assert items["363698007"].ConceptCodeSequence[0].CodeValue == "12738006"
        for item in group.ContentSequence:
            if item.ValueType == "NUM":
                assert len(item.ContentSequence) > 0
    assert uids == [results["segmentation.dcm"].SegmentSequence[0].TrackingUID] * 2
    for line in list_lines(report).values():
        reference = line.ContentSequence[0].ContentSequence[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID in listed


def test_a_comprehensive_report_has_the_same_content(make_prediction: Make, tmp_path: Path) -> None:
    prediction = create_parallel_prediction(make_prediction, write_classic(tmp_path / "in"))
    results = create_results(prediction)
    original = results["report.dcm"]
    converted = convert_to_comprehensive_sr(original)
    assert converted.SOPClassUID == converted.file_meta.MediaStorageSOPClassUID == ComprehensiveSRStorage
    assert (
        converted.SOPInstanceUID == converted.file_meta.MediaStorageSOPInstanceUID != original.SOPInstanceUID
    )
    assert convert_to_comprehensive_sr(original).SOPInstanceUID == converted.SOPInstanceUID
    assert converted.ContentSequence == original.ContentSequence
    check_lines(prediction, save_and_read(converted), T1C, 0.0)
    check_conformance({"report.dcm": converted}, tmp_path)


def test_the_lines_of_a_real_oblique_patient(make_prediction: Make, shared: Path, tmp_path: Path) -> None:
    """On the stack's slices, laid parallel to the real T1C; all images keep their own geometry."""
    study = read_study(shared / "patients/ReMIND-022-dicom")
    series = study.series[T1C]
    prediction = create_prediction(make_prediction, study)
    directions = series.affine[:3, :3] / np.linalg.norm(series.affine[:3, :3], axis=0)
    slices, rows, columns = series.image.shape
    centre = apply_affine(series.affine, np.array([[columns // 2], [rows // 2], [slices // 2]]))[:, 0]
    affine = np.eye(4)
    affine[:3, :3] = directions @ np.diag([0.7, 1.0, 5.0])
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(prediction.stack.brain.shape[::-1]) - 1) / 2)
    prediction = replace(prediction, stack=replace(prediction.stack, affine=affine))
    results = create_results(prediction)
    check_lines(prediction, save_and_read(results["report.dcm"]), T1C, 0.0)
    check_conformance(results, tmp_path)

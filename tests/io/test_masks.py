"""Lesion masks: exact SEG and RTSTRUCT geometry, annotated pictures, raters, merging and comparing masks."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RTStructureSetStorage, generate_uid

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.io.masks import (
    LesionMask,
    compute_agreement,
    compute_rater_agreement,
    find_masks,
    list_rater_names,
    read_masks,
    read_segmentation,
    read_structure_set,
    unite_masks,
)
from gliomark.io.masks.picture_annotations import fill_polygons
from gliomark.io.masks.region_names import select_lesion_regions
from gliomark.study import MRSequence, Series

SHAPE = (7, 24, 20)
T1C, T2 = MRSequence.T1C, MRSequence.T2


def create_affine(angles: tuple[float, float, float], spacing: tuple[float, float, float]) -> np.ndarray:
    """An LPS affine rotated about the three axes (degrees); spacing between columns, rows, slices."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(angles)):
        one, two = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    affine = np.eye(4)
    affine[:3, :3] = matrix * np.asarray(spacing)
    affine[:3, 3] = (-31.5, 42.25, 17.125)
    return affine


def create_grid(affine: np.ndarray, shape: tuple[int, ...] = SHAPE) -> Series:
    names = tuple(f"{n:03d}" for n in range(1, shape[0] + 1))
    return Series(np.ones(shape, np.float32), affine, names, Path("series"))


def draw_blob(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """An asymmetric lesion with a hole and an empty slice."""
    mask = np.zeros(shape, bool)
    mask[1:6, 5:15, 4:12] = np.random.default_rng(seed).random((5, 10, 8)) < 0.7
    mask[3] = False
    return mask


def create_mask(
    image: np.ndarray, affine: np.ndarray, rater: str = "", sequence: MRSequence | None = None
) -> LesionMask:
    names = tuple(f"{n:03d}" for n in range(1, len(image) + 1))
    return LesionMask(
        Series(image.astype(np.float32), affine, names, Path("m")), rater, Path("m"), "", (), sequence
    )


def create_mr_headers(affine: np.ndarray, shape: tuple[int, ...] = SHAPE) -> list[Dataset]:
    """MR headers of a series on a grid, as highdicom requires for source images."""
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / spacing
    slices = []
    for at in range(shape[0]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = Dataset()
        one.file_meta = meta
        one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.PatientID, one.PatientName, one.PatientBirthDate, one.PatientSex = "P1", "A^B", "", ""
        one.StudyID, one.StudyDate, one.StudyTime, one.AccessionNumber = "1", "20200101", "", ""
        one.ReferringPhysicianName, one.Modality = "", "MR"
        one.Rows, one.Columns, one.InstanceNumber = shape[1], shape[2], at + 1
        one.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        one.SliceThickness = float(spacing[2])
        one.ImageOrientationPatient = [float(f"{v:.9g}") for v in cosines[:, :2].T.ravel()]
        one.ImagePositionPatient = [float(f"{v:.9g}") for v in affine[:3, 2] * at + affine[:3, 3]]
        slices.append(one)
    return slices


def write_segmentation(
    file: Path,
    affine: np.ndarray,
    segments: dict[str, np.ndarray],
    *,
    fractional: bool = False,
    creator: str = "",
) -> Path:
    """Write a DICOM SEG with highdicom on the grid of ``affine``; segments by label."""
    import highdicom as hd
    from highdicom.sr.coding import CodedConcept

    code = CodedConcept("49755003", "SCT", "Morphologically Altered Structure")
    described = [
        hd.seg.SegmentDescription(number, label, code, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, label in enumerate(segments, start=1)
    ]
    array = np.stack(list(segments.values()), axis=-1)
    kind = hd.seg.SegmentationTypeValues
    seg = hd.seg.Segmentation(
        source_images=create_mr_headers(affine, array.shape[:3]),
        pixel_array=array.astype(np.float32) if fractional else array.astype(np.uint8),
        segmentation_type=kind.FRACTIONAL if fractional else kind.BINARY,
        segment_descriptions=described,
        series_instance_uid=generate_uid(), series_number=9, sop_instance_uid=generate_uid(),
        instance_number=1, manufacturer="m", manufacturer_model_name="m", software_versions="1",
        device_serial_number="1", content_creator_name=creator or None,
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(file)
    return file


def compute_points(mask: Series) -> np.ndarray:
    """LPS mm of the lesion's voxels, ``(n, 3)``, sorted."""
    at = np.argwhere(mask.image > 0)[:, ::-1]
    points = at @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    return points[np.lexsort(np.round(points, 3).T)]


# ---- DICOM segmentations ----------------------------------------------------------------------------


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-40, 40)] * 3),
    spacing=st.tuples(st.floats(0.4, 2), st.floats(0.4, 2), st.floats(0.8, 6)),
    seed=st.integers(0, 9),
)
@example(angles=(1.0, 1.1e-308, 0.0), spacing=(1.0, 1.0, 1.0), seed=0)
def test_a_segmentation_is_read_exactly_to_the_voxel(tmp_path: Path, angles, spacing, seed: int):
    affine, mask = create_affine(angles, spacing), draw_blob(seed=seed)
    read = read_segmentation(write_segmentation(tmp_path / "seg", affine, {"Tumour": mask}))
    assert read.series.image.sum() == mask.sum()
    truth = create_mask(mask, affine)
    assert np.abs(compute_points(read.series) - compute_points(truth.series)).max() < 1e-4
    assert np.array_equal(unite_masks([read], create_grid(affine)).image > 0, mask)


def test_only_lesion_segments_are_read_and_empty_slices_are_restored(tmp_path: Path):
    affine = create_affine((10, 5, 0), (1, 1, 3))
    core, necrosis, oedema = draw_blob(seed=1), np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    necrosis[5, 1:3, 1:3] = True
    file = write_segmentation(
        tmp_path / "s.dcm", affine, {"Enhancing": core, "Necrosis": necrosis, "Edema": oedema}
    )
    read = read_segmentation(file)
    assert np.array_equal(unite_masks([read], create_grid(affine)).image > 0, core | necrosis)
    assert not read.series.image[3].any() and len(read.series.image) == 7
    assert read.notes == ("1 of 3 drawn regions were ignored because their names do not denote a lesion.",)
    assert read.referenced_series_uid == pydicom.dcmread(file).ReferencedSeriesSequence[0].SeriesInstanceUID
    assert read.rater == ""


def test_fractional_segments_are_thresholded_at_one_half(tmp_path: Path):
    share = np.zeros(SHAPE)
    share[2, 3, 4:8] = (0.2, 0.49, 0.51, 1.0)
    affine = create_affine((0, 0, 0), (1, 1, 2))
    read = read_segmentation(
        write_segmentation(tmp_path / "s.dcm", affine, {"Lesion": share}, fractional=True)
    )
    assert np.argwhere(unite_masks([read], create_grid(affine)).image > 0).tolist() == [[2, 3, 6], [2, 3, 7]]


def edit_file(file: Path, change) -> Path:
    dataset = pydicom.dcmread(file)
    change(dataset)
    dataset.save_as(file)
    return file


def get_frame(dataset: Dataset, number: int) -> Dataset:
    return dataset.PerFrameFunctionalGroupsSequence[number]


def test_frames_may_be_shuffled_or_missing(tmp_path: Path):
    affine, mask = create_affine((20, -10, 5), (0.9, 1.1, 2.5)), draw_blob(seed=3)
    file = write_segmentation(tmp_path / "s.dcm", affine, {"Tumour": mask})

    def shuffle(dataset: Dataset):
        pixels = dataset.pixel_array
        order = [2, 0, 3, 1]
        dataset.PerFrameFunctionalGroupsSequence = Sequence([get_frame(dataset, at) for at in order])
        flat = np.packbits(pixels[order].ravel(), bitorder="little").tobytes()
        dataset.PixelData = flat + b"\0" * (len(flat) % 2)

    assert int(pydicom.dcmread(file).NumberOfFrames) == 4  # highdicom omits empty slices
    read = read_segmentation(edit_file(file, shuffle))
    assert np.array_equal(unite_masks([read], create_grid(affine)).image > 0, mask)


def test_uneven_frames_are_resampled_to_a_regular_grid_with_a_note(tmp_path: Path):
    affine = create_affine((0, 0, 0), (1, 1, 2))
    mask = np.zeros(SHAPE, bool)
    mask[1:4, 4:8, 4:8] = True
    file = write_segmentation(tmp_path / "s.dcm", affine, {"Tumour": mask})

    def shift(dataset: Dataset):
        position = get_frame(dataset, 2).PlanePositionSequence[0]
        x, y, z = position.ImagePositionPatient
        position.ImagePositionPatient = [x, y, float(z) + 0.7]
        del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices

    read = read_segmentation(edit_file(file, shift))
    assert read.notes == (
        "The frames of the segmentation are unevenly spaced; the mask was resampled to a slice spacing of 1.3 mm.",
    )
    assert read.series.image.any(axis=(1, 2)).all()
    assert read.series.image[:, 4:8, 4:8].all() and np.isclose(np.linalg.norm(read.series.affine[:3, 2]), 1.3)


def test_unreadable_segmentations_are_refused(tmp_path: Path):
    affine, file = create_affine((0, 0, 0), (1, 1, 2)), tmp_path / "s.dcm"
    write_segmentation(file, affine, {"Edema": draw_blob(), "Brain": draw_blob()})
    with pytest.raises(GliomarkError, match="No segment of .* has the name of a lesion .Edema.* Brain"):
        read_segmentation(file)
    write_segmentation(file, affine, {"A": draw_blob(), "B": draw_blob(seed=1)})
    with pytest.raises(GliomarkError, match="No segment"):
        read_segmentation(file)
    write_segmentation(file, affine, {"Tumour": draw_blob()})
    content = file.read_bytes()
    file.write_bytes(content[: len(content) - 100])
    with pytest.raises(GliomarkError, match="damaged DICOM segmentation"):
        read_segmentation(file)
    file.write_bytes(content)

    def move_sideways(dataset: Dataset):
        position = get_frame(dataset, 2).PlanePositionSequence[0]
        position.ImagePositionPatient = [
            float(position.ImagePositionPatient[0]) + 5,
            *position.ImagePositionPatient[1:],
        ]

    with pytest.raises(GliomarkError, match="are not aligned with each other"):
        read_segmentation(edit_file(file, move_sideways))


def test_real_segmentation_lies_on_the_series_it_was_drawn_on(shared: Path):
    """Compared with an independent computation: stored pixel to mm by the DICOM equation, then to T1C index."""
    folder = shared / "patients/ReMIND-022-dicom"
    study = read_study(folder)
    (mask,) = read_masks(folder, study.series)
    assert mask.sequence == T1C and mask.rater == "" and mask.series.image.shape == (12, 16, 13)
    stored = pydicom.dcmread(folder / "Tumor_segmentation.dcm")
    shared_groups = stored.SharedFunctionalGroupsSequence[0]
    across, down = np.reshape(shared_groups.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    down_mm, across_mm = shared_groups.PixelMeasuresSequence[0].PixelSpacing
    points = np.array([
        np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        + across * across_mm * column + down * down_mm * row
        for frame, pixels in zip(stored.PerFrameFunctionalGroupsSequence, stored.pixel_array, strict=True)
        for row, column in np.argwhere(pixels)
    ], dtype=float)  # fmt: skip
    t1c = study.series[T1C]
    index = (points - t1c.affine[:3, 3]) @ np.linalg.inv(t1c.affine[:3, :3]).T
    assert np.abs(index - np.round(index)).max() < 1e-3
    expected = np.zeros(t1c.image.shape, bool)
    expected[tuple(np.round(index).astype(int).T[::-1])] = True
    assert expected.sum() == 799
    assert np.array_equal(unite_masks([mask], t1c).image > 0, expected)


# ---- structure sets ---------------------------------------------------------------------------------


def write_structure_set(
    file: Path,
    rois: dict[str, list[np.ndarray]],
    series_uid: str = "",
    *,
    operator: str = "",
    label: str = "",
) -> Path:
    """Write an RTSTRUCT; rois: contours ``(n, 3)`` in LPS mm of each name."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.OperatorsName, dataset.StructureSetLabel = "RTSTRUCT", operator, label
    dataset.StructureSetROISequence, dataset.ROIContourSequence = Sequence(), Sequence()
    if series_uid:
        series, study, frame = Dataset(), Dataset(), Dataset()
        series.SeriesInstanceUID = series_uid
        study.RTReferencedSeriesSequence = Sequence([series])
        frame.RTReferencedStudySequence = Sequence([study])
        dataset.ReferencedFrameOfReferenceSequence = Sequence([frame])
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn_roi = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, drawn_roi.ReferencedROINumber = number, name, number
        drawn_roi.ContourSequence = Sequence()
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [float(f"{v:.6f}") for v in np.ravel(points)]
            drawn_roi.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn_roi)
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return file


def draw_circles(
    affine: np.ndarray, slices: list[int], centre: tuple[float, float], radius: float
) -> list[np.ndarray]:
    """Circles ``(n, 3)`` in LPS mm around a pixel (column, row), radius in pixels."""
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    circles = []
    for at in slices:
        index = np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle),
                          np.full_like(angle, at)], axis=1)  # fmt: skip
        circles.append(index @ affine[:3, :3].T + affine[:3, 3])
    return circles


def draw_disc(centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    return (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < radius**2


def test_contours_with_a_hole_on_an_oblique_grid(tmp_path: Path):
    affine = create_affine((25, -15, 8), (0.9, 1.2, 4))
    outer, hole = (
        draw_circles(affine, [2, 3, 4], (9.3, 11.2), 6.4),
        draw_circles(affine, [3], (9.3, 11.2), 2.6),
    )
    rois = {
        "GTV 1": outer + hole,
        "Oedema": draw_circles(affine, [1], (9, 9), 5),
        "Brain": draw_circles(affine, [5], (9, 9), 8),
    }
    read = read_structure_set(write_structure_set(tmp_path / "rt.dcm", rois, "1.2.3"), create_grid(affine))
    full, ringed = draw_disc((9.3, 11.2), 6.4), draw_disc((9.3, 11.2), 6.4) & ~draw_disc((9.3, 11.2), 2.6)
    expected = np.zeros(SHAPE, bool)
    expected[2], expected[3], expected[4] = full, ringed, full
    # The circle is a polygon with 90 corners and may miss a pixel that touches the arc.
    assert np.count_nonzero((read.series.image > 0) ^ expected) <= 3
    assert not read.series.image[3, 11, 9] and read.series.image[2, 11, 9]
    assert read.referenced_series_uid == "1.2.3"
    assert read.notes == ("2 of 3 drawn regions were ignored because their names do not denote a lesion.",)


def test_contours_are_matched_to_their_series_by_reference_or_position(tmp_path: Path):
    affine, other = create_affine((0, 0, 0), (1, 1, 4)), create_affine((0, 0, 0), (1, 1, 3))
    other[2, 3] += 1.3
    series = {T1C: create_grid(affine), T2: create_grid(other)}
    file = write_structure_set(
        tmp_path / "m/rt", {"Tumor": draw_circles(affine, [1, 2, 3], (9, 11), 4)}, "9.9", label="T1 set"
    )
    (mask,) = read_masks(tmp_path / "m", series)
    assert (mask.sequence, mask.referenced_series_uid, mask.rater) == (T1C, "9.9", "")
    with pytest.raises(GliomarkError, match="do not lie on the slices of the series"):
        read_masks(tmp_path / "m", series, sequences_by_uid={"9.9": T2})
    with pytest.raises(GliomarkError, match="lie on the slices of any of the patient's series"):
        read_masks(tmp_path / "m", {T2: create_grid(other)})
    assert find_masks(tmp_path / "m") == (file,)


def test_unusable_structure_sets_are_refused(tmp_path: Path):
    affine = create_affine((0, 0, 0), (1, 1, 4))
    file = write_structure_set(
        tmp_path / "rt.dcm", {"Edema": draw_circles(affine, [1], (9, 9), 4), "Eye L": []}
    )
    with pytest.raises(GliomarkError, match="No region of .* has the name of a lesion .Edema, Eye L"):
        read_structure_set(file, create_grid(affine))
    file = write_structure_set(tmp_path / "rt.dcm", {"GTV": []})
    with pytest.raises(GliomarkError, match="no closed contour"):
        read_structure_set(file, create_grid(affine))
    file = write_structure_set(tmp_path / "rt.dcm", {"GTV": draw_circles(affine, [1], (900, 900), 4)})
    with pytest.raises(GliomarkError, match="cover no voxel"):
        read_structure_set(file, create_grid(affine))
    file = write_structure_set(tmp_path / "rt.dcm", {"GTV": draw_circles(affine, [1, 3], (9, 9), 4)})
    assert (
        "1 slice(s) between the first and the last" in read_structure_set(file, create_grid(affine)).notes[0]
    )


# ---- polygons ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    centre=st.tuples(st.floats(90, 110), st.floats(90, 110)),
    radii=st.tuples(st.floats(20, 80), st.floats(20, 80)),
    corners=st.integers(3, 60),
    turn=st.floats(0, 6.28),
)
def test_filled_area_is_the_polygons_area(centre, radii, corners: int, turn: float):
    angle = turn + np.linspace(0, 2 * np.pi, corners, endpoint=False)
    polygon = np.array(centre) + np.stack([radii[0] * np.cos(angle), radii[1] * np.sin(angle)], axis=1)
    x, y = polygon.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    edge = np.linalg.norm(polygon - np.roll(polygon, -1, axis=0), axis=1).sum()
    filled = fill_polygons([polygon], 200, 200)
    assert abs(filled.sum() - area) <= 0.5 * edge
    inside = np.argwhere(filled)
    assert inside[:, 1].min() >= np.floor(x.min() - 0.5) and inside[:, 0].max() <= np.ceil(y.max() + 0.5)
    assert np.array_equal(fill_polygons([polygon[::-1]], 200, 200), filled)
    assert not fill_polygons([polygon, polygon], 200, 200).any()


@given(edges=st.lists(st.integers(0, 30), min_size=4, max_size=4))
def test_boxes_with_integer_corners_fill_exactly_their_pixels(edges: list[int]):
    left, right = sorted(edges[:2])
    top, bottom = sorted(edges[2:])
    filled = fill_polygons(
        [np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)], 25, 25
    )
    expected = np.zeros((25, 25), bool)
    expected[top:bottom, left:right] = True
    assert np.array_equal(filled, expected)


# ---- annotated pictures -----------------------------------------------------------------------------


def write_voc(
    file: Path, boxes: dict[str, tuple[int, int, int, int]], size: tuple[int, int] = (20, 24)
) -> Path:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
        "</bndbox></object>"
        for name, (a, b, c, d) in boxes.items()
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}</annotation>",
        "utf-8",
    )
    return file


def write_labelme(file: Path, shapes: list[dict], size: tuple[int, int] = (20, 24)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"shapes": shapes, "imageWidth": size[0], "imageHeight": size[1]}), "utf-8")
    return file


SERIES = {
    T2: create_grid(create_affine((0, 0, 0), (1, 1, 5))),
    T1C: create_grid(create_affine((0, 0, 0), (1, 1, 5))),
}


def test_boxes_are_filled_as_rectangles_with_a_note(tmp_path: Path):
    write_voc(tmp_path / "T2/003.xml", {"肿瘤": (4, 6, 9, 15), "水肿": (0, 0, 20, 24)})
    write_voc(tmp_path / "T2/004.xml", {})
    (mask,) = read_masks(tmp_path, SERIES)
    expected = np.zeros(SHAPE, bool)
    expected[2, 6:15, 4:9] = True
    assert np.array_equal(mask.series.image > 0, expected)
    assert mask.sequence == T2 and mask.rater == ""
    assert "boxes, filled as rectangles" in mask.notes[0] and "1 of 2 drawn regions" in mask.notes[1]


def test_labelme_shapes(tmp_path: Path):
    drawn_pixels = io.BytesIO()
    Image.fromarray(np.array([[0, 255], [255, 255]], np.uint8)).save(drawn_pixels, "PNG")
    write_labelme(tmp_path / "T1C/001.json", [
        {"label": "a", "shape_type": "rectangle", "points": [[9, 12], [5, 10]]},
        {"label": "tumor", "shape_type": "polygon", "points": [[0, 0], [4, 0], [4, 4], [0, 4]]},
    ])  # fmt: skip
    write_labelme(tmp_path / "T1C/002.json", [
        {"label": "b", "shape_type": "circle", "points": [[10, 12], [10, 17]]},
        {"label": "edema", "shape_type": "polygon", "points": [[0, 0], [20, 0], [20, 24]]},
    ])  # fmt: skip
    pixels = base64.b64encode(drawn_pixels.getvalue()).decode()
    shape = {"label": "l", "shape_type": "mask", "points": [[3, 2], [4, 3]], "mask": pixels}
    write_labelme(tmp_path / "T1C/003.json", [shape])
    (mask,) = read_masks(tmp_path, SERIES)
    first, second, third = mask.series.image[:3] > 0
    assert first[10:12, 5:9].all() and first[:4, :4].all() and first.sum() == 8 + 16
    assert abs(second.sum() - np.pi * 25) < 4 and second[12, 10]
    assert np.argwhere(third).tolist() == [[2, 4], [3, 3], [3, 4]]
    assert mask.notes == ("1 of 5 drawn regions were ignored because their names do not denote a lesion.",)


@pytest.mark.parametrize("write, expected_text", [
    (lambda f: write_voc(f / "T2/003.xml", {"t": (1, 1, 5, 5)}, (512, 512)),
     "512 x 512 pixels but the slice has 20 x 24"),
    (lambda f: write_voc(f / "T2/099.xml", {"t": (1, 1, 5, 5)}), "not named after a slice of its sequence .001 to 007"),
    (lambda f: write_voc(f / "T2/003.xml", {"t": (5, 1, 5, 5)}), "empty box"),
    (lambda f: write_voc(f / "T2/003.xml", {"t": (50, 50, 60, 60)}), "covers no pixel of its slice"),
    (lambda f: write_voc(f / "FLAIR/003.xml", {"t": (1, 1, 5, 5)}), "one of the patient's sequences .T2, T1C"),
    (lambda f: write_labelme(f / "T2/003.json", [{"label": "t", "points": []}]), "a polygon with 0 points"),
    (lambda f: write_labelme(f / "T2/003.json", [{"label": "t", "shape_type": "line", "points": [[1, 1], [2, 2]]}]),
     "type 'line', which encloses no area"),
    (lambda f: write_labelme(f / "T2/003.json", [{"label": "t", "points": [[1, 1], [5, 5], [9, 9]]}]),
     "covers no pixel"),
    (lambda f: write_labelme(f / "T2/003.json", [{"label": "t", "points": "x"}]), "damaged or not a LabelMe file"),
    (lambda f: write_voc(f / "T2/003.xml", {}).write_text("<annotation><size>"), "damaged or not a labelImg"),
    (lambda f: write_voc(f / "T2/003.xml", {}).write_text("<!DOCTYPE x><annotation/>"), "DOCTYPE"),
    (lambda f: (write_voc(f / "T2/003.xml", {}), write_labelme(f / "T2/003.json", [])),
     "annotate the same slice: keep one"),
])  # fmt: skip
def test_unreadable_annotations_are_refused(tmp_path: Path, write, expected_text: str):
    write(tmp_path)
    with pytest.raises(GliomarkError, match=expected_text):
        read_masks(tmp_path, SERIES)


# ---- a patient's folder -----------------------------------------------------------------------------


def write_volume(file: Path, image: np.ndarray, affine: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    nib.save(nib.Nifti1Image(image.transpose(2, 1, 0).astype(np.uint8), ras), file)
    return file


def test_annotation_formats_are_recognised_by_content(tmp_path: Path):
    affine = create_affine((0, 0, 0), (1, 1, 5))
    grey = np.random.default_rng(0).integers(0, 200, SHAPE)
    found = {
        write_volume(tmp_path / "T2_seg.nii.gz", draw_blob(), affine),
        write_volume(tmp_path / "T1C/drawing.nii.gz", draw_blob(), affine),
        write_segmentation(tmp_path / "no suffix", affine, {"Tumour": draw_blob()}),
        write_structure_set(tmp_path / "x.ima", {"GTV": draw_circles(affine, [1], (9, 9), 4)}),
        write_voc(tmp_path / "T2/003.xml", {"t": (1, 1, 5, 5)}),
        write_labelme(tmp_path / "T2/004.json", []),
    }
    write_volume(tmp_path / "T2.nii.gz", grey, affine)
    write_volume(tmp_path / "brain_mask.nii.gz", draw_blob(), affine)
    write_volume(tmp_path / "edema.nii.gz", draw_blob(), affine)
    write_volume(tmp_path / "edema_seg.nii.gz", draw_blob(), affine)
    (tmp_path / "T2.json").write_text('{"EchoTime": 0.1}')
    (tmp_path / "page.xml").write_text("<html/>")
    assert set(find_masks(tmp_path)) == found


def test_raters_are_numbered_and_their_names_are_left_out(tmp_path: Path):
    affine = SERIES[T2].affine
    write_volume(tmp_path / "Dr Wang/T2/seg.nii.gz", draw_blob(seed=1), affine)
    write_volume(tmp_path / "Dr Li/T2/seg.nii.gz", draw_blob(seed=2), affine)
    write_voc(tmp_path / "Dr Li/T1C/003.xml", {"t": (1, 1, 5, 5)})
    masks = read_masks(tmp_path, SERIES)
    assert [(mask.rater, mask.sequence) for mask in masks] == [
        ("rater 1", T1C),
        ("rater 1", T2),
        ("rater 2", T2),
    ]
    assert np.array_equal(masks[2].series.image > 0, draw_blob(seed=1))
    assert list_rater_names(tmp_path) == ("Dr Li", "Dr Wang")
    assert not any("Wang" in note or "Li" in note for mask in masks for note in mask.notes)
    named = read_masks(tmp_path, SERIES, rater_labels={"Dr Li": "rater 7", "Dr Wang": "rater 3"})
    assert {mask.rater for mask in named} == {"rater 3", "rater 7"}


def test_the_rater_of_a_dicom_mask_is_its_creator(tmp_path: Path):
    affine = SERIES[T2].affine
    write_segmentation(tmp_path / "1.dcm", affine, {"Tumour": draw_blob(seed=1)}, creator="Wang^A")
    write_structure_set(tmp_path / "2.dcm", {"GTV": draw_circles(affine, [2], (9, 9), 4)}, operator="Li^B")
    write_volume(tmp_path / "reader2_seg.nii.gz", draw_blob(), affine)
    assert list_rater_names(tmp_path) == ("Li^B", "Wang^A", "reader2")
    assert [mask.rater for mask in read_masks(tmp_path, SERIES)] == ["rater 1", "rater 2", "rater 3"]


def test_masks_of_other_organs_are_ignored(tmp_path: Path):
    affine = SERIES[T2].affine
    ventricles = write_segmentation(tmp_path / "v.dcm", affine, {"Ventricles": draw_blob(seed=1)})
    with pytest.raises(GliomarkError, match="No segment of .*v.dcm has the name of a lesion"):
        read_masks(tmp_path, SERIES)
    tumour = write_segmentation(tmp_path / "elsewhere/t.dcm", affine, {"Tumor": draw_blob(seed=2)})
    (mask,) = read_masks(None, SERIES, files=[ventricles, tumour])
    assert np.array_equal(unite_masks([mask], SERIES[T2]).image > 0, draw_blob(seed=2))


def test_a_mask_outside_all_series_is_refused(tmp_path: Path):
    away = SERIES[T2].affine.copy()
    away[0, 3] += 500
    file = write_volume(tmp_path / "seg.nii.gz", draw_blob(), away)
    with pytest.raises(GliomarkError, match="lies outside all series of the patient .T2, T1C"):
        read_masks(tmp_path, SERIES)
    file.write_bytes(b"no nifti")
    with pytest.raises(GliomarkError, match="damaged"):
        read_masks(tmp_path, SERIES)


def test_a_mask_is_matched_to_a_sequence_by_its_grid(tmp_path: Path):
    series = {
        T2: create_grid(create_affine((0, 0, 0), (1, 1, 5))),
        T1C: create_grid(create_affine((6, 0, 0), (0.9, 0.9, 3))),
    }
    cut = series[T1C].affine.copy()
    cut[:3, 3] += cut[:3, :3] @ (3, 2, 1)
    write_volume(tmp_path / "seg.nii.gz", draw_blob()[:4, :12, :12], cut)
    write_volume(tmp_path / "other_seg.nii.gz", draw_blob(), create_affine((3, 3, 3), (1, 1, 2)))
    on_none, on_t1c = read_masks(tmp_path, series)
    assert on_t1c.sequence == T1C and not on_t1c.notes
    assert on_none.sequence is None and "matches the grid of no series" in on_none.notes[-1]


@pytest.mark.parametrize("names, any_name, selected", [
    (["GTV", "Edema", "Brain"], False, (0,)), (["brain tumour"], False, (0,)), (["脑胶质瘤", "脑"], False, (0,)),
    (["瘤周水肿", "肿瘤"], False, (1,)), (["peritumoral", "x"], False, (1,)), (["A", "B"], False, ()),
    (["A", "B", "oedema"], True, (0, 1)), (["ROI-1"], False, (0,)), (["CTV", "PTV1", "GTV"], False, (2,)),
    (["WT", "TC", "ED"], False, (1,)), (["Whole tumor"], False, (0,)), (["tumour_without_oedema"], False, (0,)),
    (["tumor bed cavity"], False, ()), (["necrosis", "enhancing", "non-enhancing tumor"], False, (0, 1, 2)),
])  # fmt: skip
def test_lesion_regions_are_selected_by_name(names: list[str], any_name: bool, selected: tuple[int, ...]):
    assert select_lesion_regions(names, accept_any_name=any_name) == selected


# ---- one grid ---------------------------------------------------------------------------------------


def test_masks_are_united_after_registration():
    reference = create_grid(create_affine((0, 0, 0), (1, 1, 1)), (20, 30, 30))
    on_t2 = np.zeros((20, 30, 30), bool)
    on_t2[5:9, 10:15, 10:15] = True
    moved = np.eye(4)
    moved[:3, 3] = (4, -2, 3)  # from T1C to the reference, LPS mm
    united = unite_masks(
        [create_mask(on_t2, reference.affine, "", T2), create_mask(on_t2, reference.affine, "", T1C)],
        reference,
        {T1C: moved},
    )
    assert np.array_equal(united.image > 0, on_t2 | np.roll(on_t2, (3, -2, 4), (0, 1, 2)))
    assert set(np.unique(united.image)) == {0.0, 1.0}
    with pytest.raises(GliomarkError, match="no lesion mask"):
        unite_masks([], reference)


def test_a_thick_slice_keeps_its_volume_on_a_fine_grid():
    thick = np.zeros((3, 30, 30), bool)
    thick[0, 10:20, 10:20] = True  # outermost slice: its edge is interpolated like the others
    affine = create_affine((0, 0, 0), (1, 1, 6))
    fine = create_affine((0, 0, 0), (1, 1, 1))
    fine[2, 3] -= 6
    united = unite_masks([create_mask(thick, affine)], create_grid(fine, (24, 30, 30))).image
    assert united.sum() == pytest.approx(600, rel=0.17) and united[3:10, 15, 15].all()
    assert not united[:2].any() and not united[11:].any()


def test_agreement_of_two_raters():
    affine = create_affine((0, 0, 0), (1, 2, 5))
    a, b = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    a[2, 4:8, 4:8] = True
    b[2, 6:10, 4:8] = True
    found = compute_agreement(create_mask(a, affine), create_mask(b, affine), create_grid(affine))
    n = a.size
    observed, chance = 1 - 16 / n, (16 / n) ** 2 + (1 - 16 / n) ** 2
    assert found.dice == 0.5 and found.voxels == n
    assert found.kappa == pytest.approx((observed - chance) / (1 - chance))
    assert (found.a_ml, found.both_ml) == (pytest.approx(0.16), pytest.approx(0.08))
    brain = a | b
    assert (
        compute_agreement(
            create_mask(a, affine), create_mask(b, affine), create_grid(affine), brain=brain
        ).kappa
        < 0
    )
    empty = compute_agreement(
        create_mask(a & b & False, affine), create_mask(a & False, affine), create_grid(affine)
    )
    assert np.isnan(empty.dice) and np.isnan(empty.kappa)
    pairs = compute_rater_agreement(
        [create_mask(a, affine, "rater 1"), create_mask(b, affine, "rater 2"), create_mask(a, affine)],
        create_grid(affine),
    )
    assert list(pairs) == ["rater 1, rater 2"] and pairs["rater 1, rater 2"] == found


@given(at=st.tuples(st.integers(-4, 4), st.integers(-4, 4), st.integers(-2, 2)))
def test_agreement_without_a_grid_counts_all_voxels_of_both_masks(at: tuple[int, int, int]):
    affine = create_affine((12, 0, 0), (1, 1.5, 4))
    other = affine.copy()
    other[:3, 3] += affine[:3, :3] @ at
    box = np.ones((3, 5, 5), bool)
    found = compute_agreement(create_mask(box, affine), create_mask(box, other))
    overlap = np.prod([max(0, 5 - abs(at[0])), max(0, 5 - abs(at[1])), max(0, 3 - abs(at[2]))])
    assert found.dice == pytest.approx(overlap / 75)

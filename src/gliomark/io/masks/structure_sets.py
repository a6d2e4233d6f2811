"""Read contours of a DICOM structure set (RTSTRUCT) and fill them on the grid of the referenced series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from gliomark.errors import InputError
from gliomark.io.dicom.dataset_reader import read_dataset
from gliomark.io.masks.dicom_segmentations import READ_ERRORS, find_referenced_series_uid
from gliomark.io.masks.picture_annotations import fill_polygons
from gliomark.io.masks.region_names import (
    LesionMask,
    NoLesionRegionError,
    collect_excluded_region_notes,
    select_lesion_regions,
)
from gliomark.messages import message
from gliomark.study import Series

# share of the slice spacing; contours farther from a slice belong to another series
MAX_OFF_PLANE_SLICES = 0.25


def read_structure_set(file: Path, series: Series) -> LesionMask:
    """Read the lesion ROIs of an RTSTRUCT as a mask ``(slice, row, column)`` on the grid of a series.

    A voxel belongs to an ROI if its centre lies inside an odd number of the ROI's contours in that slice, so that
    holes stay empty. ROIs are OR-ed.

    Raises
    ------
    InputError
        If the file is damaged, has no lesion ROI or no closed contour, or if the contours do not lie in the slices of
        the series.
    """
    rois, total = read_lesion_contours(file)
    to_index = np.linalg.inv(series.affine).astype(np.float64)
    _, rows, columns = series.image.shape
    image = np.zeros(series.image.shape, dtype=np.float32)
    for contours in rois:
        for index, polygons in _group_by_slice(file, contours, to_index, len(image)).items():
            image[index][fill_polygons(polygons, rows, columns)] = 1.0
    if not image.any():
        raise InputError(message("contours-cover-nothing", file=file))
    notes = collect_excluded_region_notes(total, len(rois)) + _collect_gap_notes(image)
    return LesionMask(
        Series(image, series.affine, series.slice_names, file),
        "",
        file,
        read_referenced_series_uid(file),
        notes,
    )


def read_lesion_contours(file: Path) -> tuple[list[list[NDArray[np.float64]]], int]:
    """Read the closed contours ``(n, 3)`` in LPS mm of every lesion ROI, and the number of ROIs in the file.

    Raises
    ------
    NoLesionRegionError
        If no ROI is named as a lesion.
    InputError
        If the file is damaged, or a lesion ROI has no closed contour.
    """
    try:
        dataset = read_dataset(file)
        names = {int(roi.ROINumber): str(roi.get("ROIName") or "") for roi in dataset.StructureSetROISequence}
        drawn = {
            int(item.ReferencedROINumber): [
                _parse_contour_points(file, contour)
                for contour in item.get("ContourSequence") or ()
                if str(contour.ContourGeometricType).startswith("CLOSED")
            ]
            for item in dataset.ROIContourSequence
        }
    except READ_ERRORS:
        raise InputError(message("contours-damaged", file=file)) from None
    numbers = list(names)
    taken = select_lesion_regions([names[number] for number in numbers])
    if not taken:
        raise NoLesionRegionError(
            message("contours-no-lesion", file=file, names=", ".join(names.values())[:120] or "-")
        )
    if missing := [names[numbers[at]] for at in taken if numbers[at] not in drawn]:
        raise InputError(message("contours-missing", file=file, name=missing[0]))
    rois = [[c for c in drawn[numbers[at]] if len(c) >= 3] for at in taken]
    if not any(rois):
        raise InputError(message("contours-none", file=file))
    return [contours for contours in rois if contours], len(numbers)


def _parse_contour_points(file: Path, contour: Dataset) -> NDArray[np.float64]:
    """Return the points ``(n, 3)`` of a contour; raise InputError if some are missing or not numbers."""
    values = np.atleast_1d(np.array(contour.ContourData, dtype=np.float64))
    stated = contour.get("NumberOfContourPoints")
    if values.size % 3 or (stated is not None and 3 * int(stated) != values.size):
        raise InputError(message("contours-cut-short", file=file, count=values.size))
    if not np.isfinite(values).all():
        raise InputError(message("contours-not-numbers", file=file))
    return values.reshape(-1, 3)


def read_referenced_series_uid(file: Path) -> str:
    """Read the SeriesInstanceUID that a structure set refers to, "" if there is none or more than one."""
    try:
        dataset = read_dataset(file, specific_tags=["ReferencedFrameOfReferenceSequence"])
        return find_referenced_series_uid(dataset)
    except READ_ERRORS:
        return ""


def compute_off_plane_distance(contours: Sequence[NDArray[np.float64]], series: Series) -> float:
    """Return the largest distance of a contour point ``(n, 3)`` from its nearest slice, in slice spacings."""
    points = np.concatenate(contours)
    slices = (points - series.affine[:3, 3]) @ np.linalg.inv(series.affine)[2, :3]
    outside = np.maximum(np.maximum(-slices, slices - (len(series.image) - 1)), 0.0)
    return float(np.maximum(np.abs(slices - np.round(slices)), outside).max())


def _group_by_slice(
    file: Path, contours: Sequence[NDArray[np.float64]], to_index: NDArray[np.float64], slice_count: int
) -> dict[int, list[NDArray[np.float64]]]:
    """Group contours by slice, as polygons in pixel coordinates in which pixel 0 spans 0 to 1."""
    found: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for contour in contours:
        index = contour @ to_index[:3, :3].T + to_index[:3, 3]
        at = int(np.round(index[:, 2].mean()))
        if np.abs(index[:, 2] - at).max() > MAX_OFF_PLANE_SLICES:
            raise InputError(message("contours-off-plane", file=file))
        if not 0 <= at < slice_count:
            raise InputError(message("contours-beyond", file=file, slices=slice_count))
        found[at].append(index[:, :2] + 0.5)
    return found


def _collect_gap_notes(image: NDArray[np.float32]) -> tuple[str, ...]:
    """Note slices without contours between the first and the last; they are not interpolated."""
    drawn = np.flatnonzero(image.any(axis=(1, 2)))
    missing = int(drawn[-1] - drawn[0] + 1 - len(drawn))
    if not missing:
        return ()
    return (message("contours-gaps", count=missing),)

"""Build a volume from DICOM slices: sort by position, decode, rescale, resample to an even grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.io.dicom.geometry_problems import describe_geometry_problem
from gliomark.io.dicom.pixels import read_pixels
from gliomark.io.dicom.series import DicomSeries
from gliomark.io.dicom.slice_positions import (
    SAME_POSITION_MM,
    SlicePositions,
    compute_position_tolerance,
    fit_slice_positions,
)
from gliomark.io.grey_values import clean_grey_values
from gliomark.io.volume_checks import create_slice_names
from gliomark.messages import message
from gliomark.study import Series, SourceImage

MAX_OUT_OF_ORDER_SHARE = 0.25  # share of the slices; above it, InstanceNumber follows another order
_MAX_SIDEWAYS_SHIFT = 0.01  # share of the series length; above it, the series is sheared (gantry tilt)


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """One image of a series: a file, or one frame of a multi-frame file.

    position, row_direction, column_direction: LPS, mm and unit vectors (row_direction is the direction of increasing
    column index). pixel_spacing_mm: between rows, between columns. rescale_slope, rescale_intercept: as in ``Frame``.
    """

    file: Path
    frame_index: int | None
    shape: tuple[int, int]
    position: NDArray[np.float64]
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    pixel_spacing_mm: tuple[float, float]
    rescale_slope: float | None
    rescale_intercept: float | None


def read_series(series: DicomSeries) -> tuple[Series, tuple[str, ...]]:
    """Read one series.

    Corrected with a note: copies of an image are removed; up to two single missing slices, and slices off an even
    grid by up to a quarter of the slice spacing, are interpolated linearly along the normal.

    Parameters
    ----------
    series
        The series to read.

    Returns
    -------
    series : Series
        float32 ``(slice, row, column)``, slices in ascending position along the normal.
    notes : tuple of str
        Corrections that were made.

    Raises
    ------
    InputError
        If different images share an SOP Instance UID or a position, if positions are not stated, if more slices are
        missing or uneven, if the series is sheared or black, or if pixels cannot be decoded.
    """
    folder = series.first_instance.file.parent
    if series.conflicting_files is not None:
        one, other = series.conflicting_files
        raise InputError(message("dicom-duplicate-uid", one=one, other=other))
    slices = _create_slices(series)
    if len(slices) < 2:
        raise InputError(message("dicom-single-image", folder=folder))
    normal = np.cross(slices[0].row_direction, slices[0].column_direction)
    slices.sort(key=lambda piece: float(piece.position @ normal))
    _check_uniform(folder, slices)
    image, pixel_notes = read_pixels(slices, series.recognition.kind)
    slices, image, removed_count = _remove_repeated_slices(folder, slices, image, normal)
    slice_positions = fit_slice_positions(
        np.asarray([piece.position @ normal for piece in slices], dtype=np.float64)
    )
    _check_slice_spacing(folder, slices, slice_positions)
    affine = _compute_affine(folder, slices, normal, len(slice_positions.even_mm))
    image = image if slice_positions.is_even else _resample_to_grid(image, slice_positions)
    names = create_slice_names(len(image))
    grey_values = clean_grey_values(image, folder, series.recognition.kind, names)
    notes = (
        *pixel_notes,
        *grey_values.notes,
        *_create_notes(series, removed_count, slice_positions, _count_out_of_order_slices(series, normal)),
    )
    sources = tuple(map(_create_source_image, slices, slice_positions.fractional_indices.tolist()))
    return Series(grey_values.image, affine, names, folder, sources, missing=grey_values.missing), notes


def _create_source_image(dicom_slice: DicomSlice, fractional_index: float) -> SourceImage:
    x, y, z = dicom_slice.position.tolist()
    return SourceImage(dicom_slice.file, dicom_slice.frame_index, (x, y, z), fractional_index)


def _create_slices(series: DicomSeries) -> list[DicomSlice]:
    """Create the slices of a series; raise if the geometry of one is not stated."""
    slices = []
    for instance, frame in series.instance_frames:
        if frame.position is None or frame.orientation is None or frame.pixel_spacing_mm is None:
            raise InputError(describe_geometry_problem(instance.file, frame.frame_index))
        slices.append(
            DicomSlice(
                file=instance.file,
                frame_index=frame.frame_index,
                shape=(instance.rows, instance.columns),
                position=np.asarray(frame.position, dtype=np.float64),
                row_direction=np.asarray(frame.orientation[:3], dtype=np.float64),
                column_direction=np.asarray(frame.orientation[3:], dtype=np.float64),
                pixel_spacing_mm=frame.pixel_spacing_mm,
                rescale_slope=frame.rescale_slope,
                rescale_intercept=frame.rescale_intercept,
            )
        )
    return slices


def _check_uniform(folder: Path, slices: Sequence[DicomSlice]) -> None:
    """Raise unless all slices share matrix, pixel spacing and orientation."""
    first = slices[0]
    for dicom_slice in slices:
        row_differs = np.abs(dicom_slice.row_direction - first.row_direction).max() > 2e-3
        column_differs = np.abs(dicom_slice.column_direction - first.column_direction).max() > 2e-3
        spacing_differs = not np.allclose(
            dicom_slice.pixel_spacing_mm, first.pixel_spacing_mm, rtol=1e-3, atol=2e-3
        )
        if row_differs or column_differs or spacing_differs or dicom_slice.shape != first.shape:
            raise InputError(
                message("dicom-not-uniform", one=first.file.name, other=dicom_slice.file.name, folder=folder)
            )


def _remove_repeated_slices(
    folder: Path, slices: list[DicomSlice], image: NDArray[np.float32], normal: NDArray[np.float64]
) -> tuple[list[DicomSlice], NDArray[np.float32], int]:
    """Remove repeated slices of one position with identical pixels; raise if their pixels differ."""
    kept_indices = [0]
    for index in range(1, len(slices)):
        last = kept_indices[-1]
        if float((slices[index].position - slices[last].position) @ normal) > SAME_POSITION_MM:
            kept_indices.append(index)
        elif not np.array_equal(image[index], image[last], equal_nan=True):
            one, other = slices[last].file.name, slices[index].file.name
            raise InputError(message("dicom-repeats", one=one, other=other, folder=folder))
    if len(kept_indices) < 2:
        raise InputError(message("dicom-one-place", folder=folder))
    if len(kept_indices) == len(slices):
        return slices, image, 0
    return [slices[at] for at in kept_indices], image[kept_indices], len(slices) - len(kept_indices)


def _check_slice_spacing(folder: Path, slices: Sequence[DicomSlice], slice_positions: SlicePositions) -> None:
    """Raise if too many slices are missing, or positions too far off an even grid, to interpolate."""
    if slice_positions.is_even or slice_positions.is_safe_to_resample:
        return
    gap = float(np.diff(slice_positions.measured_mm)[slice_positions.worst_gap_index])
    one, other = (
        slices[slice_positions.worst_gap_index].file.name,
        slices[slice_positions.worst_gap_index + 1].file.name,
    )
    raise InputError(
        message(
            "dicom-uneven",
            step=slice_positions.slice_spacing_mm,
            gap=gap,
            one=one,
            other=other,
            folder=folder,
        )
    )


def _compute_affine(
    folder: Path, slices: Sequence[DicomSlice], normal: NDArray[np.float64], slice_count: int
) -> NDArray[np.float64]:
    """Compute the LPS affine of sorted slices on an even grid; raise if the series is sheared."""
    first, last = slices[0], slices[-1]
    step = (last.position - first.position) / (slice_count - 1)
    unit_normal = normal / np.linalg.norm(normal)
    offsets = np.asarray([piece.position - first.position for piece in slices])
    sideways_shift = np.linalg.norm(offsets - np.outer(offsets @ unit_normal, unit_normal), axis=1).max()
    if sideways_shift > max(
        _MAX_SIDEWAYS_SHIFT * float(np.linalg.norm(last.position - first.position)), 0.01
    ):
        raise InputError(message("dicom-tilted", folder=folder))
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * first.pixel_spacing_mm[1]
    affine[:3, 1] = first.column_direction * first.pixel_spacing_mm[0]
    affine[:3, 2], affine[:3, 3] = step, first.position
    return affine


def _resample_to_grid(image: NDArray[np.float32], slice_positions: SlicePositions) -> NDArray[np.float32]:
    """Interpolate slices linearly to the even positions; slices already on the grid are kept unchanged."""
    resampled = np.empty((len(slice_positions.even_mm), *image.shape[1:]), dtype=np.float32)
    for index, position in enumerate(slice_positions.even_mm):
        nearest = int(np.argmin(np.abs(slice_positions.measured_mm - position)))
        if abs(slice_positions.measured_mm[nearest] - position) <= compute_position_tolerance(
            slice_positions.slice_spacing_mm
        ):
            resampled[index] = image[nearest]
            continue
        above = int(np.searchsorted(slice_positions.measured_mm, position))
        low, high = slice_positions.measured_mm[above - 1], slice_positions.measured_mm[above]
        weight = np.float32((position - low) / (high - low))
        resampled[index] = (1 - weight) * image[above - 1] + weight * image[above]
    return resampled


def _count_out_of_order_slices(series: DicomSeries, normal: NDArray[np.float64]) -> int:
    """Count the slices whose InstanceNumber contradicts their position, if the other slices agree.

    If the numbers follow another order throughout (acquisition time of an interleaved scan), return 0.
    """
    position_and_number = [
        (np.dot(frame.position or (0, 0, 0), normal), one.instance_number)
        for one, frame in series.instance_frames
    ]
    if any(frame.frame_index is not None for _, frame in series.instance_frames):
        return 0
    steps = np.sign(np.diff([order for _, order in sorted(position_and_number)]))
    reversed_count = int(min((steps > 0).sum(), (steps < 0).sum()))
    return reversed_count if 0 < reversed_count <= MAX_OUT_OF_ORDER_SHARE * len(steps) else 0


def _create_notes(
    series: DicomSeries, removed_count: int, slice_positions: SlicePositions, out_of_order_count: int
) -> tuple[str, ...]:
    """Describe the corrections, without file names or personal data."""
    kind, notes = series.recognition.kind, []
    if series.copy_count or removed_count:
        notes.append(message("dicom-copies", kind=kind, count=series.copy_count + removed_count))
    if out_of_order_count:
        notes.append(message("dicom-order", kind=kind, count=out_of_order_count, total=series.image_count))
    if series.series_context.series_count > 1:
        notes.append(message("dicom-stacks", kind=kind, count=series.series_context.series_count))
    if slice_positions.missing_indices:
        slice_numbers = " and ".join(str(at + 1) for at in slice_positions.missing_indices)
        notes.append(
            message("dicom-interpolated", kind=kind, slices=slice_numbers, count=len(slice_positions.even_mm))
        )
    if slice_positions.max_deviation_mm > compute_position_tolerance(slice_positions.slice_spacing_mm):
        notes.append(
            message(
                "dicom-resampled",
                kind=kind,
                mm=slice_positions.jitter * slice_positions.slice_spacing_mm,
                step=slice_positions.slice_spacing_mm,
            )
        )
    return tuple(notes)

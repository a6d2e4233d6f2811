"""DICOM slices to one volume: ordered by their place in the patient, decoded, rescaled, on an even grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.io.dicom.pixels import read_pixels
from gliomark.io.dicom.series import DicomSeries
from gliomark.io.dicom.spacing import SAME_PLACE_MM, SliceGrid, slice_grid, tolerance
from gliomark.io.dicom.stated_place import place_fault
from gliomark.io.grey_values import check_grey_values
from gliomark.io.nifti import counted_names
from gliomark.messages import message
from gliomark.study import GliomarkError, Series, SourceImage

MOST_AGAINST = 0.25  # of the slices: more is another order altogether
_SIDEWAYS = 0.01  # of the stack's length: more is a tilted stack


@dataclass(frozen=True, eq=False)
class Slice:
    """One image of a series: a file, or one frame of a multi-frame file.

    position, row_direction, column_direction: LPS, mm and unit vectors (row_direction is the way the column
    index grows). spacing: mm from row to row and from column to column. slope, intercept: as ``Frame`` has them.
    """

    file: Path
    frame: int | None
    shape: tuple[int, int]
    position: NDArray[np.float64]
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    spacing: tuple[float, float]
    slope: float | None
    intercept: float | None


def read_series(series: DicomSeries) -> tuple[Series, tuple[str, ...]]:
    """Read one stack: float32 ``(slice, row, column)`` along the normal, and notes of what was mended.

    Mended, with a note: copies of an image left out; up to two single missing slices, and slices unevenly
    spaced by up to a quarter of the step, put on an even grid by linear interpolation along the normal.

    Raises: GliomarkError for two images under one instance UID, positions not stated, different images of one
    place, slices missing or uneven beyond that, a tilted stack, black images, pixels that cannot be decoded.
    """
    folder = series.first.file.parent
    if series.clash is not None:
        one, other = series.clash
        raise GliomarkError(message("dicom-duplicate-uid", one=one, other=other))
    slices = _slices(series)
    if len(slices) < 2:
        raise GliomarkError(message("dicom-single-image", folder=folder))
    normal = np.cross(slices[0].row_direction, slices[0].column_direction)
    slices.sort(key=lambda piece: float(piece.position @ normal))
    _check_uniform(folder, slices)
    image, said = read_pixels(slices, series.recognition.kind)
    slices, image, dropped = _one_per_place(folder, slices, image, normal)
    grid = slice_grid(np.asarray([piece.position @ normal for piece in slices], dtype=np.float64))
    _check_safe(folder, slices, grid)
    affine = _affine(folder, slices, normal, len(grid.grid))
    image = image if grid.even else _resampled(image, grid)
    names = counted_names(len(image))
    grey = check_grey_values(image, folder, series.recognition.kind, names)
    notes = (*said, *grey.notes, *_notes(series, dropped, grid, _out_of_order(series, normal)))
    sources = tuple(map(_source, slices, grid.positions.tolist()))
    return Series(grey.image, affine, names, folder, sources, missing=grey.missing), notes


def _source(piece: Slice, place: float) -> SourceImage:
    x, y, z = piece.position.tolist()
    return SourceImage(piece.file, piece.frame, (x, y, z), place)


def _slices(series: DicomSeries) -> list[Slice]:
    """The images of a series; refuses one whose place is not written."""
    slices = []
    for instance, frame in series.frames:
        if frame.position is None or frame.orientation is None or frame.spacing is None:
            raise GliomarkError(place_fault(instance.file, frame.number))
        slices.append(
            Slice(
                file=instance.file,
                frame=frame.number,
                shape=(instance.rows, instance.columns),
                position=np.asarray(frame.position, dtype=np.float64),
                row_direction=np.asarray(frame.orientation[:3], dtype=np.float64),
                column_direction=np.asarray(frame.orientation[3:], dtype=np.float64),
                spacing=frame.spacing,
                slope=frame.slope,
                intercept=frame.intercept,
            )
        )
    return slices


def _check_uniform(folder: Path, slices: Sequence[Slice]) -> None:
    """All slices of a series share size, pixel spacing and orientation."""
    first = slices[0]
    for piece in slices:
        turned = np.abs(piece.row_direction - first.row_direction).max() > 2e-3
        tilted = np.abs(piece.column_direction - first.column_direction).max() > 2e-3
        scaled = not np.allclose(piece.spacing, first.spacing, rtol=1e-3, atol=2e-3)
        if turned or tilted or scaled or piece.shape != first.shape:
            raise GliomarkError(
                message("dicom-not-uniform", one=first.file.name, other=piece.file.name, folder=folder)
            )


def _one_per_place(
    folder: Path, slices: list[Slice], image: NDArray[np.float32], normal: NDArray[np.float64]
) -> tuple[list[Slice], NDArray[np.float32], int]:
    """Leave out repeats of a place with the very same pixels; refuse repeats that differ."""
    keep = [0]
    for at in range(1, len(slices)):
        last = keep[-1]
        if float((slices[at].position - slices[last].position) @ normal) > SAME_PLACE_MM:
            keep.append(at)
        elif not np.array_equal(image[at], image[last], equal_nan=True):
            one, other = slices[last].file.name, slices[at].file.name
            raise GliomarkError(message("dicom-repeats", one=one, other=other, folder=folder))
    if len(keep) < 2:
        raise GliomarkError(message("dicom-one-place", folder=folder))
    if len(keep) == len(slices):
        return slices, image, 0
    return [slices[at] for at in keep], image[keep], len(slices) - len(keep)


def _check_safe(folder: Path, slices: Sequence[Slice], grid: SliceGrid) -> None:
    """Refuse what interpolation would invent: several slices missing, or places far off an even grid."""
    if grid.even or grid.safe:
        return
    gap = float(np.diff(grid.places)[grid.worst])
    one, other = slices[grid.worst].file.name, slices[grid.worst + 1].file.name
    raise GliomarkError(message("dicom-uneven", step=grid.step, gap=gap, one=one, other=other, folder=folder))


def _affine(
    folder: Path, slices: Sequence[Slice], normal: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """LPS affine of ordered slices over ``count`` even places; refuses a stack that is not right-angled."""
    first, last = slices[0], slices[-1]
    step = (last.position - first.position) / (count - 1)
    along = normal / np.linalg.norm(normal)
    offsets = np.asarray([piece.position - first.position for piece in slices])
    sideways = np.linalg.norm(offsets - np.outer(offsets @ along, along), axis=1).max()
    if sideways > max(_SIDEWAYS * float(np.linalg.norm(last.position - first.position)), 0.01):
        raise GliomarkError(message("dicom-tilted", folder=folder))
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * first.spacing[1]
    affine[:3, 1] = first.column_direction * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, first.position
    return affine


def _resampled(image: NDArray[np.float32], grid: SliceGrid) -> NDArray[np.float32]:
    """Slices at the grid's even places, linear between neighbours; a slice that is in place is kept as it is."""
    resampled = np.empty((len(grid.grid), *image.shape[1:]), dtype=np.float32)
    for at, place in enumerate(grid.grid):
        nearest = int(np.argmin(np.abs(grid.places - place)))
        if abs(grid.places[nearest] - place) <= tolerance(grid.step):
            resampled[at] = image[nearest]
            continue
        above = int(np.searchsorted(grid.places, place))
        low, high = grid.places[above - 1], grid.places[above]
        share = np.float32((place - low) / (high - low))
        resampled[at] = (1 - share) * image[above - 1] + share * image[above]
    return resampled


def _out_of_order(series: DicomSeries, normal: NDArray[np.float64]) -> int:
    """At how many slices InstanceNumber runs against the positions, in a series where it else runs with them.

    Numbers that follow another order throughout (the time of an interleaved scan) are no contradiction.
    """
    placed = [(np.dot(frame.position or (0, 0, 0), normal), one.order) for one, frame in series.frames]
    if any(frame.number is not None for _, frame in series.frames):
        return 0
    steps = np.sign(np.diff([order for _, order in sorted(placed)]))
    against = int(min((steps > 0).sum(), (steps < 0).sum()))
    return against if 0 < against <= MOST_AGAINST * len(steps) else 0


def _notes(series: DicomSeries, dropped: int, grid: SliceGrid, out_of_order: int) -> tuple[str, ...]:
    """What was mended, in sentences that name no file and no person."""
    kind, notes = series.recognition.kind, []
    if series.copies or dropped:
        notes.append(message("dicom-copies", kind=kind, count=series.copies + dropped))
    if out_of_order:
        notes.append(message("dicom-order", kind=kind, count=out_of_order, total=series.images))
    if series.surroundings.stacks > 1:
        notes.append(message("dicom-stacks", kind=kind, count=series.surroundings.stacks))
    if grid.missing:
        places = " and ".join(str(at + 1) for at in grid.missing)
        notes.append(message("dicom-interpolated", kind=kind, slices=places, count=len(grid.grid)))
    if grid.departure > tolerance(grid.step):
        notes.append(message("dicom-resampled", kind=kind, mm=grid.jitter * grid.step, step=grid.step))
    return tuple(notes)

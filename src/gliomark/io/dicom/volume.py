"""DICOM slices to one volume: ordered by their place in the patient, decoded, rescaled, on an even grid."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gliomark.io.dicom.instances import DAMAGE
from gliomark.io.dicom.series import DicomSeries
from gliomark.io.dicom.spacing import SAME_PLACE_MM, SliceGrid, slice_grid, tolerance
from gliomark.io.nifti import counted_names
from gliomark.messages import message
from gliomark.study import GliomarkError, Series, SourceImage

_PIXEL_DAMAGE = (*DAMAGE, RuntimeError)
_SIDEWAYS = 0.01  # of the stack's length: more is a tilted stack


@dataclass(frozen=True, eq=False)
class Slice:
    """One image of a series: a file, or one frame of a multi-frame file.

    position, row_direction, column_direction: LPS, mm and unit vectors (row_direction is the way the column
    index grows). spacing: mm from row to row and from column to column. slope, intercept: to stored values.
    """

    file: Path
    frame: int | None
    shape: tuple[int, int]
    position: NDArray[np.float64]
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    spacing: tuple[float, float]
    slope: float
    intercept: float


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
        raise GliomarkError(f"The series in {folder} has a single image: export the whole series.")
    normal = np.cross(slices[0].row_direction, slices[0].column_direction)
    slices.sort(key=lambda piece: float(piece.position @ normal))
    _check_uniform(folder, slices)
    image = _pixels(slices)
    slices, image, dropped = _one_per_place(folder, slices, image, normal)
    grid = slice_grid(np.asarray([piece.position @ normal for piece in slices], dtype=np.float64))
    _check_safe(folder, slices, grid)
    affine = _affine(folder, slices, normal, len(grid.grid))
    if not image.any():
        raise GliomarkError(f"All images of the series in {folder} are black: export it again.")
    image = image if grid.even else _resampled(image, grid)
    notes = _notes(series, dropped, grid)
    sources = tuple(map(_source, slices, grid.positions.tolist()))
    return Series(image, affine, counted_names(len(image)), folder, sources), notes


def _source(piece: Slice, place: float) -> SourceImage:
    x, y, z = piece.position.tolist()
    return SourceImage(piece.file, piece.frame, (x, y, z), place)


def _slices(series: DicomSeries) -> list[Slice]:
    """The images of a series; refuses one whose place is not written."""
    slices = []
    for instance, frame in series.frames:
        if frame.position is None or frame.orientation is None or frame.spacing is None:
            raise GliomarkError(
                f"{instance.file} does not state position, orientation or pixel spacing: export the original series."
            )
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
                f"The slices {first.file.name} and {piece.file.name} in {folder} differ in size, spacing or "
                "orientation: export one uniform series."
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
        elif not np.array_equal(image[at], image[last]):
            raise GliomarkError(
                f"{slices[last].file.name} and {slices[at].file.name} in {folder} show the same place with different "
                "pixels: the series holds repeats, export one image per place."
            )
    if len(keep) < 2:
        raise GliomarkError(f"All images in {folder} show the same place: export the whole series.")
    if len(keep) == len(slices):
        return slices, image, 0
    return [slices[at] for at in keep], image[keep], len(slices) - len(keep)


def _check_safe(folder: Path, slices: Sequence[Slice], grid: SliceGrid) -> None:
    """Refuse what interpolation would invent: several slices missing, or places far off an even grid."""
    if grid.even or grid.safe:
        return
    gap = float(np.diff(grid.places)[grid.worst])
    between = f"{slices[grid.worst].file.name} and {slices[grid.worst + 1].file.name} in {folder}"
    raise GliomarkError(
        f"The slices are {grid.step:.2f} mm apart but {gap:.2f} mm between {between}: too many slices are missing or "
        "misplaced to be interpolated, export the whole series."
    )


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
        raise GliomarkError(
            f"The slices in {folder} are shifted sideways (tilted stack): export a straight one."
        )
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


def _notes(series: DicomSeries, dropped: int, grid: SliceGrid) -> tuple[str, ...]:
    """What was mended, in sentences that name no file and no person."""
    kind, notes = series.recognition.kind, []
    if series.copies or dropped:
        notes.append(f"{kind}: {series.copies + dropped} copies of other images were left out.")
    if series.surroundings.stacks > 1:
        notes.append(
            f"{kind}: its SeriesInstanceUID holds {series.surroundings.stacks} stacks; one of them was read."
        )
    if grid.missing:
        places = " and ".join(str(at + 1) for at in grid.missing)
        notes.append(
            f"{kind}: slice {places} of {len(grid.grid)} was missing and was interpolated from its neighbours."
        )
    if grid.departure > tolerance(grid.step):
        notes.append(
            f"{kind}: the slices were unevenly spaced (by up to {grid.jitter * grid.step:.2f} mm) and were resampled "
            f"to an even {grid.step:.2f} mm."
        )
    return tuple(notes)


# ---- pixels -----------------------------------------------------------------------------------------


def _pixels(slices: Sequence[Slice]) -> NDArray[np.float32]:
    """Decode and rescale: float32 ``(slice, row, column)``; a multi-frame file is decoded once."""
    image = np.empty((len(slices), *slices[0].shape), dtype=np.float32)
    wanted: dict[Path, list[int]] = defaultdict(list)
    for at, piece in enumerate(slices):
        wanted[piece.file].append(at)
    for file, places in wanted.items():
        pixels = _decoded(file)
        for at in places:
            piece = slices[at]
            plane = _plane(pixels, piece)
            if plane is None or plane.shape != piece.shape:
                raise GliomarkError(
                    f"{file} does not hold one grey image of {piece.shape}: export the original."
                )
            image[at] = plane * piece.slope + piece.intercept
    return image


def _plane(pixels: NDArray[np.float32], piece: Slice) -> NDArray[np.float32] | None:
    if piece.frame is None or pixels.ndim == 2:
        return pixels
    return pixels[piece.frame] if pixels.ndim == 3 and piece.frame < len(pixels) else None


def _decoded(file: Path) -> NDArray[np.float32]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(file, force=True)
            _state_syntax(dataset)
            return np.asarray(dataset.pixel_array, dtype=np.float32)
    except _PIXEL_DAMAGE:
        raise GliomarkError(
            f"The pixels of {file} cannot be decoded{_coding(file)}: export it again, uncompressed."
        ) from None


def _state_syntax(dataset: Dataset) -> None:
    """A file without meta information is uncompressed; its transfer syntax is how it was just read."""
    meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    dataset.file_meta = meta


def _coding(file: Path) -> str:
    """Why pixels may not be decoded: the compression in words, else that the file is damaged."""
    try:
        meta = pydicom.dcmread(file, stop_before_pixels=True, force=True).file_meta
    except _PIXEL_DAMAGE:
        meta = FileMetaDataset()
    syntax = meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed:
        return f" ({syntax.name})"
    return " (cut short or damaged)"

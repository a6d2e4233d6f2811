"""Diameters of the lesion: the largest two on an axial slice, and the longest in space, with their end points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Point = tuple[float, float, float]

# Edges of a cell of four pixel centres that the outline crosses, by the pixels inside: 1 top left, 2 top right,
# 4 bottom right, 8 bottom left. Pixels that touch at a corner are connected. Top, right, bottom, left:
_T, _R, _B, _L = (0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)
_CELL_SEGMENTS: dict[int, tuple[tuple[tuple[float, float], tuple[float, float]], ...]] = {
    1: ((_L, _T),), 2: ((_T, _R),), 3: ((_L, _R),), 4: ((_R, _B),), 5: ((_T, _R), (_B, _L)), 6: ((_T, _B),),
    7: ((_B, _L),), 8: ((_B, _L),), 9: ((_T, _B),), 10: ((_L, _T), (_R, _B)), 11: ((_R, _B),), 12: ((_L, _R),),
    13: ((_T, _R),), 14: ((_L, _T),),
}  # fmt: skip
# voxels are connected by faces, edges and corners, as where small parts are removed
_TOUCHING = np.ones((3, 3, 3))


@dataclass(frozen=True)
class Diameter:
    """A straight line across the lesion.

    mm: its length. ends_mm: its end points in LPS mm.
    """

    mm: float
    ends_mm: tuple[Point, Point]


@dataclass(frozen=True)
class LesionAxes:
    """Diameters of the largest connected part of a lesion.

    Attributes
    ----------
    slice_index
        The slice of the two axial diameters, from 0.
    longest
        The longest diameter on that slice.
    perpendicular
        The longest diameter perpendicular to it on that slice.
    longest_3d
        The longest diameter in any direction.
    """

    slice_index: int
    longest: Diameter
    perpendicular: Diameter
    longest_3d: Diameter


def compute_lesion_axes(mask: NDArray[Any], affine: NDArray[np.float64]) -> LesionAxes | None:
    """Compute the diameters of the largest connected part of a lesion.

    On every slice the longest diameter is taken, then the longest one perpendicular to it; the slice is the one with
    the largest product of the two, as the bidimensional measurement of the Macdonald and RANO criteria requires
    (Wen et al., J Clin Oncol 2010;28:1963-1972). RANO measures enhancing tumour that a radiologist selects, leaves out
    cysts and cavities, and may sum several lesions; here everything inside the outline of one part counts.

    The outline runs midway between the centres of voxels inside and outside, as the mesh of the Image Biomarker
    Standardisation Initiative does (Zwanenburg et al., Radiology 2020;295:328-338): one voxel is as long as its
    spacing. Of parts that are separate on a slice each is measured alone. A diameter ends on the outline; where the
    outline is concave, it may leave the lesion in between.

    Parameters
    ----------
    mask
        ``(slice, row, column)``, non-zero inside.
    affine
        ``(4, 4)``, from ``(column, row, slice, 1)`` to LPS mm; its axes need not be orthogonal.

    Returns
    -------
    LesionAxes | None
        None if the mask is empty.
    """
    from scipy import ndimage  # loads slowly

    labels, count = ndimage.label(np.asarray(mask) != 0, structure=_TOUCHING)
    if count == 0:
        return None
    largest = int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    box = ndimage.find_objects(labels, largest)[largest - 1]
    start = np.array([part.start for part in box])
    part_affine = np.array(affine, dtype=np.float64)
    part_affine[:3, 3] += part_affine[:3, :3] @ start[::-1]
    part = labels[box] == largest
    index, longest, perpendicular = _measure_slices(part, part_affine)
    return LesionAxes(index + int(start[0]), longest, perpendicular, _measure_longest_3d(part, part_affine))


# ---- on a slice -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Section:
    """One part of the lesion on a slice.

    segments: of its outline, ``(n, 2, 2)`` in mm: segment, end, coordinate along and across the longest diameter,
    whose start is the origin. length_mm: of the longest diameter. axes: the two directions as rows, ``(2, 2)``; start:
    ``(2,)``; both in mm of the plane. bound_mm2: no smaller than the product of the two diameters.
    """

    slice_index: int
    segments: Points
    length_mm: float
    axes: Points
    start: Points
    bound_mm2: float


def _measure_slices(part: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[int, Diameter, Diameter]:
    """Measure the slice with the largest product: its index, the longest and the perpendicular diameter."""
    plane_axes, to_plane = np.linalg.qr(affine[:3, :2])  # orthonormal axes, also for skewed columns and rows
    sections = sorted(_list_sections(part, to_plane), key=lambda section: -section.bound_mm2)
    best = None
    for section in sections:
        if best is not None and section.bound_mm2 <= best[0]:
            break
        lines = np.array(
            [[[0.0, 0.0], [section.length_mm, 0.0]], _find_longest_perpendicular(section.segments)]
        )
        product = section.length_mm * abs(lines[1, 1, 1] - lines[1, 0, 1])
        if best is None or product > best[0]:
            best = (product, section, lines)
    assert best is not None  # the part is not empty
    _, section, lines = best
    origin = affine[:3, 3] + section.slice_index * affine[:3, 2]
    longest, perpendicular = (origin + (section.start + line @ section.axes) @ plane_axes.T for line in lines)
    return section.slice_index, _create_diameter(longest), _create_diameter(perpendicular)


def _list_sections(part: NDArray[np.bool_], to_plane: NDArray[np.float64]) -> Iterator[_Section]:
    """List the separate parts on every slice; to_plane: ``(2, 2)``, from (column, row) to mm of the plane."""
    from scipy import ndimage

    for index, plane in enumerate(part):
        labels, _ = ndimage.label(plane, structure=_TOUCHING[0])
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            corner = np.array([box[1].start, box[0].start])
            segments = (_trace_outline(labels[box] == label) + corner) @ to_plane.T
            start, end = _find_farthest_points(segments.reshape(-1, 2))
            length = float(np.linalg.norm(end - start))
            along = (end - start) / length
            axes = np.array([along, [-along[1], along[0]]])
            turned = (segments - start) @ axes.T
            yield _Section(index, turned, length, axes, start, length * float(np.ptp(turned[..., 1])))


def _trace_outline(plane: NDArray[np.bool_]) -> Points:
    """Trace the outline of a mask ``(row, column)``: segments ``(n, 2, 2)``, their ends as (column, row)."""
    padded = np.pad(plane, 1).astype(np.uint8)
    cells = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, 1:] + 8 * padded[1:, :-1]
    segments: list[Points] = []
    for case, ends in _CELL_SEGMENTS.items():
        corners = np.argwhere(cells == case)[:, ::-1] - 1.0  # top left centre of the cell
        segments += [corners[:, None] + np.array(pair) for pair in ends]
    return np.concatenate(segments)


def _find_longest_perpendicular(segments: Points) -> Points:
    """Find the longest line across, at one coordinate along: its two ends, ``(2, 2)``.

    The distance between the outermost points at a coordinate is linear between vertices, so one of them has the
    longest.
    """
    along, across = segments[..., 0], segments[..., 1]
    length = along[:, 1] - along[:, 0]
    is_across = np.abs(length) < 1e-9
    candidates = np.unique(along.round(9))
    share = (candidates[:, None] - along[:, 0]) / np.where(is_across, 1.0, length)
    crosses = np.where(is_across, np.abs(share) < 1e-6, (share > -1e-6) & (share < 1 + 1e-6))
    share = share.clip(0, 1)
    first = np.where(is_across, across[:, 0], (1 - share) * across[:, 0] + share * across[:, 1])
    last = np.where(is_across, across[:, 1], first)
    low = np.where(crosses, np.minimum(first, last), np.inf).min(axis=1)
    high = np.where(crosses, np.maximum(first, last), -np.inf).max(axis=1)
    best = int(np.argmax(high - low))
    return np.array([[candidates[best], low[best]], [candidates[best], high[best]]])


# ---- in space ---------------------------------------------------------------------------------------


def _measure_longest_3d(part: NDArray[np.bool_], affine: NDArray[np.float64]) -> Diameter:
    """Measure the longest diameter in any direction, between points midway to the voxels outside."""
    padded = np.pad(part, 1)
    middles = []
    for axis in range(3):
        inside = np.argwhere(np.diff(padded.astype(np.int8), axis=axis)).astype(np.float64) - 1.0
        inside[:, axis] += 0.5
        middles.append(inside[:, ::-1])
    return _create_diameter(
        np.array(_find_farthest_points(np.concatenate(middles) @ affine[:3, :3].T)) + affine[:3, 3]
    )


def _find_farthest_points(points: Points) -> tuple[Points, Points]:
    """Find the two points ``(d,)`` of ``(n, d)`` with the longest distance; they are corners of the convex hull."""
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist, squareform

    corners = points[ConvexHull(points).vertices]
    distances = squareform(pdist(corners))
    first, last = np.unravel_index(np.argmax(distances), distances.shape)
    return corners[first], corners[last]


def _create_diameter(ends: Points) -> Diameter:
    """Create a diameter from its end points ``(2, 3)`` in LPS mm."""
    first, last = (tuple(float(value) for value in end) for end in ends)
    return Diameter(
        float(np.linalg.norm(ends[1] - ends[0])),
        ((first[0], first[1], first[2]), (last[0], last[1], last[2])),
    )

"""The outlines of a mask on one slice, as polygons along the edges of its pixels."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Corner = tuple[int, int]  # column and row; pixel (row, column) spans row to row + 1 and column to column + 1


def trace_outlines(mask: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Trace the outlines of a mask.

    Each polygon encloses one part of the mask; parts that only touch at a corner are separate. Its area is that of the
    pixels, and filling it gives the pixels exactly. A hole is joined to the outline around it by a channel without
    width (the keyhole technique of DICOM PS3.3 C.8.8.6.3), so that it stays a hole whether a program fills polygons
    one by one or all together.

    Parameters
    ----------
    mask
        Of one slice, ``(row, column)``; not 0: inside.

    Returns
    -------
    list of NDArray[np.int64]
        Polygons ``(n, 2)`` of column and row, in which pixel 0 spans 0 to 1; the first corner is not repeated.
    """
    padded = np.pad(mask != 0, 1)
    boundaries = _trace_boundaries(padded)
    outlines = [boundary for boundary in boundaries if _is_outer(boundary)]
    # by the corner, of an outline or of another hole farther left, at which the channel to a hole begins
    holes = {
        _find_boundary_to_the_left(padded, min(hole)): hole for hole in boundaries if not _is_outer(hole)
    }
    channel_ends = {*holes, *map(min, holes.values())}
    return [_remove_straight_corners(_join_holes(outline, holes), channel_ends) for outline in outlines]


def _trace_boundaries(padded: NDArray[np.bool_]) -> list[list[_Corner]]:
    """Trace the boundaries corner by corner, with the mask on the right of the direction of travel.

    padded: mask with a margin of one pixel. Where two pixels touch at a corner, each boundary stays at its pixel.
    """
    inside = padded[1:-1, 1:-1]
    sides = (
        # neighbour outside, first corner of the pixel's edge, step along it
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    steps: dict[_Corner, list[_Corner]] = defaultdict(list)
    for neighbour, (right, down), step in sides:
        for row, column in np.argwhere(inside & ~neighbour).tolist():
            steps[column + right, row + down].append(step)
    boundaries = []
    for start in sorted(steps, key=lambda corner: corner[::-1]):  # a topmost corner has one way on
        while steps[start]:
            boundaries.append(_follow_boundary(steps, start))
    return boundaries


def _follow_boundary(steps: dict[_Corner, list[_Corner]], start: _Corner) -> list[_Corner]:
    corner, step = start, steps[start][0]
    boundary: list[_Corner] = []
    while not boundary or corner != start:
        right_turn = (-step[1], step[0])
        ways = steps[corner]
        step = right_turn if boundary and right_turn in ways else ways[0]
        ways.remove(step)
        boundary.append(corner)
        corner = (corner[0] + step[0], corner[1] + step[1])
    return boundary


def _is_outer(boundary: list[_Corner]) -> bool:
    """Whether a boundary encloses the mask, and not a hole."""
    column, row = np.array(boundary).T
    return bool((column * np.roll(row, -1) - np.roll(column, -1) * row).sum() > 0)


def _find_boundary_to_the_left(padded: NDArray[np.bool_], start: _Corner) -> _Corner:
    """Return the first boundary corner to the left of a hole's leftmost corner."""
    column, row = start
    while padded[row, column] and padded[row + 1, column]:  # the pixels above and below the next step
        column -= 1
    return column, row


def _join_holes(outline: list[_Corner], holes: dict[_Corner, list[_Corner]]) -> list[_Corner]:
    """Insert the holes whose channels begin on an outline, and those whose channels begin on such a hole."""
    joined, unfinished = [], [iter(outline)]
    while unfinished:
        for corner in unfinished[-1]:
            joined.append(corner)
            if corner in holes:
                hole = holes.pop(corner)
                first = hole.index(min(hole))
                unfinished.append(iter([*hole[first:], *hole[:first], hole[first], corner]))
                break
        else:
            unfinished.pop()
    return joined


def _remove_straight_corners(outline: list[_Corner], kept: set[_Corner]) -> NDArray[np.int64]:
    corners = np.array(outline, dtype=np.int64)
    steps = np.sign(np.roll(corners, -1, axis=0) - corners)
    is_turn = (steps != np.roll(steps, 1, axis=0)).any(axis=1)
    is_kept = np.array([corner in kept for corner in outline])
    turns: NDArray[np.int64] = corners[is_turn | is_kept]
    return turns

"""Shapes between two slices, interpolated from the distances to their borders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
HALF_PIXEL = 0.5  # from the centre of a pixel to its side, where the border of a mask runs


def interpolate_masks(lower: Mask, upper: Mask, count: int) -> list[Mask]:
    """Interpolate the masks of ``count`` evenly spaced slices between two slices.

    The signed distance to the border is interpolated linearly (Raya and Udupa, IEEE Transactions on Medical Imaging
    1990;9:32-42), so a shape grows or shrinks evenly. Shapes that do not overlap are not joined.

    Parameters
    ----------
    lower, upper
        Masks ``(row, column)``, neither of them empty.
    count
        Number of slices between them.

    Returns
    -------
    list[Mask]
        Masks ``(row, column)`` from lower to upper.

    Raises
    ------
    ValueError
        If a mask is empty: nothing has a distance to its border.
    """
    if not lower.any() or not upper.any():
        raise ValueError("an empty mask has no border")
    box = _find_box(lower | upper)
    distances = [compute_signed_distance(mask[box]) for mask in (lower, upper)]
    masks = []
    for fraction in np.linspace(0, 1, count + 2)[1:-1]:
        mask = np.zeros_like(lower)
        mask[box] = (1 - fraction) * distances[0] + fraction * distances[1] > 0
        masks.append(mask)
    return masks


def compute_signed_distance(mask: Mask) -> NDArray[np.float64]:
    """Compute the distance of every pixel's centre to the border of a mask ``(row, column)`` in pixels.

    Positive inside. The outside of the image does not belong to the mask.
    """
    padded = np.pad(mask, 1)
    inside, outside = _compute_distance_to(~padded), _compute_distance_to(padded)
    signed = np.where(padded, inside - HALF_PIXEL, HALF_PIXEL - outside)
    result: NDArray[np.float64] = signed[1:-1, 1:-1]
    return result


def _compute_distance_to(mask: Mask) -> NDArray[np.float64]:
    """Compute the distance of every pixel to the nearest one of a mask ``(row, column)``, which is not empty."""
    rows, columns = mask.shape
    row = np.arange(rows)[:, None]
    above = np.maximum.accumulate(np.where(mask, row, -np.inf), axis=0)
    below = np.minimum.accumulate(np.where(mask, row, np.inf)[::-1], axis=0)[::-1]
    squared_in_column = np.minimum(row - above, below - row) ** 2
    squared, column = np.full(mask.shape, np.inf), np.arange(columns)
    for nearest_column in range(columns):
        candidate = squared_in_column[:, [nearest_column]] + (column - nearest_column) ** 2
        np.minimum(squared, candidate, out=squared)
    distances: NDArray[np.float64] = np.sqrt(squared)
    return distances


def _find_box(mask: Mask) -> tuple[slice, slice]:
    """Return the smallest rows and columns that contain a mask ``(row, column)``, which is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

"""Outlines of masks: filling them gives the mask again, whichever way a program fills several polygons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.reporting.mask_outlines import trace_outlines


def compute_area(polygon: NDArray[np.int64]) -> float:
    x, y = polygon.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def fill(polygon: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels whose centres matplotlib finds in a polygon."""
    row, column = np.indices(shape)
    centres = np.stack([column.ravel(), row.ravel()], axis=1) + 0.5
    inside: NDArray[np.bool_] = Polygon(polygon).contains_points(centres).reshape(shape)
    return inside


@settings(max_examples=80, deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_outlines_enclose_the_pixels_and_no_others(mask: NDArray[np.bool_]) -> None:
    polygons = trace_outlines(mask)
    filled = [fill(polygon, mask.shape) for polygon in polygons]
    assert np.array_equal(np.any(filled, axis=0) if filled else np.zeros_like(mask), mask)
    assert np.array_equal(np.sum(filled, axis=0) if filled else np.zeros_like(mask), mask), "an overlap"
    assert sum(map(compute_area, polygons)) == mask.sum()
    assert len(polygons) == ndimage.label(mask)[1]  # parts that share an edge


SQUARE_WITH_A_HOLE = np.pad(np.pad(np.zeros((1, 1), bool), 1, constant_values=True), 1)
RINGS = np.add.outer((np.arange(41) - 20) ** 2, (np.arange(41) - 20) ** 2) ** 0.5 // 4 % 2 == 0


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.zeros((3, 4), bool), []),
        (np.ones((1, 1), bool), [[(0, 0), (1, 0), (1, 1), (0, 1)]]),
        (np.eye(2, dtype=bool), [[(0, 0), (1, 0), (1, 1), (0, 1)], [(1, 1), (2, 1), (2, 2), (1, 2)]]),
        (
            SQUARE_WITH_A_HOLE,
            # the channel leads from (1, 2) to the hole at (2, 2) and back
            [[(1, 1), (4, 1), (4, 4), (1, 4), (1, 2), (2, 2), (2, 3), (3, 3), (3, 2), (2, 2), (1, 2)]],
        ),
    ],
)
def test_outlines_have_no_needless_corners(mask: NDArray[np.bool_], expected: list[list[object]]) -> None:
    assert [list(map(tuple, polygon.tolist())) for polygon in trace_outlines(mask)] == expected


def test_rings_in_each_others_holes_and_noise_are_filled_exactly() -> None:
    for mask in (RINGS, np.random.default_rng(3).random((60, 60)) < 0.8):
        polygons = trace_outlines(mask)
        filled = np.sum([fill(polygon, mask.shape) for polygon in polygons], axis=0)
        assert np.array_equal(filled, mask)
        assert len(polygons) == ndimage.label(mask)[1]

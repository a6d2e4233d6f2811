"""An asymmetric, textured brain without a skull, defined at every point in LPS mm and sampled on any grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gliomark.study import Series

Floats = NDArray[np.float64]
RADII = np.array([70.0, 85.0, 55.0])  # an ellipsoid of 1.37 litres
BLOCK_CENTRE = np.array([35.0, -20.0, 8.0])  # on the patient's left, anterior and superior to the centre
BLOCK_HALF_WIDTH = 12.0


def compute_voxel_points(affine: Floats, shape: tuple[int, int, int]) -> Floats:
    """Compute the position of every voxel in LPS mm, ``(slice, row, column, 3)``."""
    slices, rows, columns = np.indices(shape)
    return np.stack([columns, rows, slices], axis=-1) @ affine[:3, :3].T + affine[:3, 3]


def compute_tissue(points: Floats) -> NDArray[np.float32]:
    """Compute grey values: 0 outside, texture inside, a bright block on the patient's left."""
    x, y, z = np.moveaxis(points, -1, 0)
    texture = (
        100
        + 20 * np.sin(x / 9 + 0.4) * np.cos(y / 12)
        + 15 * np.sin(y / 8 + z / 14)
        + 10 * np.cos(z / 7 + x / 21)
        + 0.1 * y
    )
    block = (np.abs(points - BLOCK_CENTRE) < BLOCK_HALF_WIDTH).all(axis=-1)
    inside = ((points / RADII) ** 2).sum(axis=-1) < 1
    return np.where(inside, texture + 120 * block, 0).astype(np.float32)


def invert_contrast(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """Invert the texture, to represent the same tissue in another sequence."""
    return np.where(value > 0, 400 - value, 0).astype(np.float32)


def create_centred_affine(
    spacing: tuple[float, float, float], shape: tuple[int, int, int], shift=(0.0, 0.0, 0.0)
) -> Floats:
    """Compute the LPS affine of a ``(slice, row, column)`` grid centred at ``shift``; spacing x, y, z in mm."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = np.array(shift) - np.array(spacing) * (np.array(shape[::-1]) - 1) / 2
    return affine


@pytest.fixture
def make_brain_series() -> Callable[..., Series]:
    """make(spacing, shape, shift=..., pose=4x4, contrast=False): the brain on a grid.

    pose: from scanner points to points of the brain at rest.
    """

    def make_series(spacing, shape, shift=(0.0, 0.0, 0.0), pose=None, contrast=False) -> Series:
        affine = create_centred_affine(spacing, shape, shift)
        points = compute_voxel_points(affine, shape)
        if pose is not None:
            points = points @ pose[:3, :3].T + pose[:3, 3]
        image = compute_tissue(points)
        names = tuple(f"{i + 1:03d}" for i in range(shape[0]))
        return Series(invert_contrast(image) if contrast else image, affine, names, Path("synthetic"))

    return make_series


@pytest.fixture
def block_centre() -> Floats:
    """The centre of the bright block in LPS mm."""
    return BLOCK_CENTRE


@pytest.fixture
def compute_points() -> Callable[..., Floats]:
    """points(affine, shape) in LPS mm."""
    return compute_voxel_points


@pytest.fixture
def brain_points() -> Floats:
    """Points of the brain at rest, ``(N, 3)`` LPS mm, on a 10 mm lattice."""
    lattice = np.stack(np.meshgrid(*[np.arange(-80.0, 81, 10)] * 3), axis=-1).reshape(-1, 3)
    return lattice[((lattice / RADII) ** 2).sum(axis=1) < 1]

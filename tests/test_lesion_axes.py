"""Diameters of masks whose right answer is known: the same shapes on grids of any spacing and orientation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gliomark.lesion_axes import compute_lesion_axes

Mask = NDArray[np.bool_]
Affine = NDArray[np.float64]


def create_affine(
    spacing: tuple[float, float, float], tilt_degrees: float = 0.0, shear: float = 0.0
) -> Affine:
    """From (column, row, slice) to LPS mm: rotated about two axes; shear: share of a slice step along the columns."""
    a = np.radians(tilt_degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag(spacing)
    affine[:3, 2] += shear * affine[:3, 1]
    affine[:3, 3] = (-31.0, 17.5, 44.0)
    return affine


def fill(affine: Affine, shape: tuple[int, int, int], is_inside: Callable[..., Mask]) -> Mask:
    """Mask of a shape given in mm along columns, rows and slices, centred on the grid."""
    k, j, i = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return np.asarray(is_inside(i * spacing[0], j * spacing[1], k * spacing[2]))


def ellipsoid(a: float, b: float, c: float, turn_degrees: float = 0.0) -> Callable[..., Mask]:
    """Semi-axes in mm; turned in the plane."""
    t = np.radians(turn_degrees)

    def is_inside(x, y, z) -> Mask:
        u, v = x * np.cos(t) + y * np.sin(t), y * np.cos(t) - x * np.sin(t)
        return (u / a) ** 2 + (v / b) ** 2 + (z / c) ** 2 <= 1

    return is_inside


def box(width: float, height: float, depth: float, turn_degrees: float = 0.0) -> Callable[..., Mask]:
    t = np.radians(turn_degrees)

    def is_inside(x, y, z) -> Mask:
        u, v = x * np.cos(t) + y * np.sin(t), y * np.cos(t) - x * np.sin(t)
        return (abs(u) <= width / 2) & (abs(v) <= height / 2) & (abs(z) <= depth / 2)

    return is_inside


def compute_box_perpendicular(width: float, height: float) -> float:
    """Longest line in a rectangle perpendicular to its diagonal, if the rectangle is wider than high."""
    return height * float(np.hypot(width, height)) / width


ISOTROPIC, FLAT, THICK = (1.0, 1.0, 1.0), (0.5, 0.5, 4.0), (1.3, 0.7, 5.0)
SHAPES = {
    # the shape in mm; its longest, perpendicular and longest diameter in space
    "sphere": (ellipsoid(20, 20, 20), 40.0, 40.0, 40.0),
    "flat ellipsoid": (ellipsoid(24, 15, 10), 48.0, 30.0, 48.0),
    "turned ellipsoid": (ellipsoid(24, 12, 12, 33), 48.0, 24.0, 48.0),
    "tall ellipsoid": (ellipsoid(14, 11, 29), 28.0, 22.0, 58.0),
    "turned box": (
        box(40, 16, 12, 25),
        float(np.hypot(40, 16)),
        compute_box_perpendicular(40, 16),
        float(np.linalg.norm((40, 16, 12))),
    ),
}
GRIDS = {
    "1 mm": create_affine(ISOTROPIC),
    "fine pixels, thick slices": create_affine(FLAT),
    "oblong pixels, oblique": create_affine(THICK, 23),
    "oblique 1 mm": create_affine(ISOTROPIC, -40),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_known_shapes_have_their_diameters(shape: str, grid: str) -> None:
    is_inside, longest, perpendicular, longest_3d = SHAPES[shape]
    affine = GRIDS[grid]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    size = tuple(int(62 / step) + 1 for step in spacing[::-1])
    mask = fill(affine, (size[0], size[1], size[2]), is_inside)
    axes = compute_lesion_axes(mask, affine)
    assert axes is not None
    pixel, voxel = spacing[:2].max(), spacing.max()
    assert axes.longest.mm == pytest.approx(longest, abs=1.01 * pixel)
    # a slight error in the direction of the longest line changes the perpendicular of a box by up to its tangent
    assert axes.perpendicular.mm == pytest.approx(
        perpendicular, abs=1.5 * pixel if "box" in shape else 1.01 * pixel
    )
    assert axes.longest_3d.mm == pytest.approx(longest_3d, abs=1.01 * voxel)
    check_ends(axes, affine, mask)


def check_ends(axes, affine: Affine, mask: Mask) -> None:
    """The ends lie as far apart as stated, on one slice, on the outline, and the two lines are perpendicular."""
    directions = []
    for line in (axes.longest, axes.perpendicular, axes.longest_3d):
        ends = np.array(line.ends_mm)
        assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(line.mm, abs=1e-9)
        index = np.linalg.solve(affine[:3, :3], (ends - affine[:3, 3]).T)
        if line is not axes.longest_3d:
            directions.append(ends[1] - ends[0])
            assert np.allclose(index[2], axes.slice_index)
        for column, row, position in index.T:
            near = np.array(
                np.meshgrid(*([np.floor(v), np.ceil(v)] for v in (position, row, column)))
            ).reshape(3, -1)
            inside = near.round().astype(int).T
            assert any(
                mask[tuple(voxel)] for voxel in inside if (voxel >= 0).all() and (voxel < mask.shape).all()
            )
    assert abs(np.dot(*directions)) < 1e-6 * axes.longest.mm * axes.perpendicular.mm


def test_the_slice_has_the_largest_product_not_the_longest_line() -> None:
    mask = np.zeros((3, 60, 60), bool)
    mask[0, 20:22, 5:55] = True  # 50 long, 2 high
    mask[1, 10:40, 20:50] = True  # 30 by 30
    mask[2, 20:24, 5:45] = True
    axes = compute_lesion_axes(mask, create_affine(ISOTROPIC))
    assert axes is not None and axes.slice_index == 1
    assert axes.longest.mm == pytest.approx(np.hypot(30, 30), abs=1) == axes.perpendicular.mm


def test_only_the_largest_connected_part_counts() -> None:
    mask = np.zeros((9, 80, 80), bool)
    mask[1:4, 5:25, 5:25] = True  # 1200 voxels
    mask[5:9, 2:78, 70:72] = True  # 608 voxels, but longer
    mask[2, 70, 70] = True
    axes = compute_lesion_axes(mask, create_affine(ISOTROPIC))
    assert axes is not None and 1 <= axes.slice_index <= 3
    assert axes.longest.mm == pytest.approx(np.hypot(20, 20), abs=1)
    assert axes.longest_3d.mm == pytest.approx(np.linalg.norm((20, 20, 3)), abs=1)


def test_parts_that_are_separate_on_a_slice_are_measured_separately() -> None:
    """A horseshoe standing on its ends: the lower slices show two squares of 10 mm, 40 mm apart."""
    mask = np.zeros((6, 40, 80), bool)
    mask[:5, 10:20, 10:20] = mask[:5, 10:20, 60:70] = True
    mask[5, 14:15, 10:70] = True
    axes = compute_lesion_axes(mask, create_affine(ISOTROPIC))
    assert axes is not None and axes.slice_index < 5
    assert axes.longest.mm == pytest.approx(np.hypot(10, 10), abs=1)
    assert axes.longest_3d.mm == pytest.approx(np.linalg.norm((60, 10, 5)), abs=1)


@pytest.mark.parametrize("connected_by", ["an edge", "a corner"])
def test_voxels_that_touch_are_connected(connected_by: str) -> None:
    mask = np.zeros((4, 20, 20), bool)
    mask[1, 2:6, 2:6] = True
    mask[1 if connected_by == "an edge" else 2, 6:10, 6:10] = True
    axes = compute_lesion_axes(mask, create_affine(ISOTROPIC))
    assert axes is not None
    expected = np.hypot(8, 8) if connected_by == "an edge" else np.hypot(4, 4)
    assert axes.longest.mm == pytest.approx(expected, abs=1)
    assert axes.longest_3d.mm == pytest.approx(np.hypot(8, 8), abs=1)


@pytest.mark.parametrize("tilt", [0, 35])
def test_one_voxel_is_as_long_as_its_spacing(tilt: float) -> None:
    affine, mask = create_affine(THICK, tilt), np.zeros((5, 9, 9), bool)
    mask[4, 0, 8] = True  # in a corner of the grid
    axes = compute_lesion_axes(mask, affine)
    assert axes is not None and axes.slice_index == 4
    assert axes.longest.mm == pytest.approx(1.3)
    assert axes.perpendicular.mm == pytest.approx(0.7)
    assert axes.longest_3d.mm == pytest.approx(5.0)
    centre = affine @ (8, 0, 4, 1)
    for line in (axes.longest, axes.perpendicular, axes.longest_3d):
        assert np.mean(line.ends_mm, axis=0) == pytest.approx(centre[:3])


def test_a_mask_that_fills_the_grid_and_a_skewed_grid() -> None:
    affine = create_affine((1.0, 1.0, 3.0), 10, shear=1.0)  # slices one row apart, as with a tilted gantry
    axes = compute_lesion_axes(np.ones((4, 20, 30), bool), affine)
    assert axes is not None
    assert axes.longest.mm == pytest.approx(np.hypot(30, 20), abs=1)
    corner_to_corner = affine[:3, :3] @ (30, 20, 4)
    assert axes.longest_3d.mm == pytest.approx(np.linalg.norm(corner_to_corner), abs=3)


def test_an_empty_mask_has_no_diameters() -> None:
    assert compute_lesion_axes(np.zeros((3, 5, 5), bool), np.eye(4)) is None


def test_numbers_other_than_one_are_inside() -> None:
    mask = np.zeros((3, 30, 30), np.uint8)
    mask[1, 5:25, 9:11], mask[1, 5:25, 11:13] = 1, 4  # two labels of one lesion
    axes = compute_lesion_axes(mask, np.eye(4))
    assert axes is not None and axes.longest.mm == pytest.approx(np.hypot(20, 4), abs=1)

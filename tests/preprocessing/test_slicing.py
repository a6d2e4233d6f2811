"""The common grid keeps acquired slices, contains the whole brain and does not distort shapes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from gliomark.errors import GliomarkError
from gliomark.preprocessing.preparation import _resample_brain_mask
from gliomark.preprocessing.resampling import compute_image_affine, to_simpleitk_image
from gliomark.preprocessing.slicing import create_slice_grid, select_equidistant_slices


def create_ellipsoid(spacing, shape, radii, origin=(0.0, 0.0, 0.0)) -> sitk.Image:
    """Create a brain mask; spacing, radii and origin x, y, z in mm; shape ``(slice, row, column)``."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    z, y, x = np.indices(shape)
    middle = (np.array(shape[::-1]) - 1) / 2
    distances = [(i - m) * s / r for i, m, s, r in zip((x, y, z), middle, spacing, radii, strict=True)]
    return to_simpleitk_image((sum(a**2 for a in distances) < 1).astype(np.uint8), affine)


def resample_to_grid(grid: sitk.Image, brain: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.Resample(brain, grid, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0


def test_thick_slices_are_kept_as_acquired() -> None:
    brain = create_ellipsoid((0.9, 0.9, 5.5), (27, 256, 256), (70, 85, 55), origin=(-113.3, -98.7, 41.25))
    grid, kept = create_slice_grid(brain, 240, 1.0, 2.0)
    acquired = compute_image_affine(brain)[2, 3] + 5.5 * np.arange(27)
    grid_positions = compute_image_affine(grid)[2, 3] + grid.GetSpacing()[2] * np.arange(grid.GetSize()[2])
    np.testing.assert_allclose(grid_positions, acquired[kept], atol=1e-9)
    assert kept == list(range(kept[0], kept[-1] + 1))
    assert grid.GetSize()[:2] == (240, 240) and grid.GetSpacing()[:2] == (1.0, 1.0)


def test_outer_slices_contain_brain_and_no_large_part_is_cut_off() -> None:
    brain = create_ellipsoid((1.0, 1.0, 5.0), (40, 200, 200), (70, 85, 55))
    grid, kept = create_slice_grid(brain, 240, 1.0, 2.0)
    area = sitk.GetArrayViewFromImage(brain).sum(axis=(1, 2))
    assert area[kept[0]] >= 800 and area[kept[-1]] >= 800
    assert area[: kept[0]].max() < 800 and area[kept[-1] + 1 :].max() < 800
    resampled = resample_to_grid(grid, brain)
    assert resampled[0].any() and resampled[-1].any()


@pytest.mark.parametrize(
    ("slice_mm", "step_mm", "stride"), [(1.0, 2.0, 2), (0.7, 2.0, 3), (2.0, 2.0, 1), (3.0, 0.0, 1)]
)
def test_every_nth_slice_of_a_fine_volume_is_kept(slice_mm: float, step_mm: float, stride: int) -> None:
    brain = create_ellipsoid((2.0, 2.0, slice_mm), (round(130 / slice_mm), 100, 100), (60, 80, 50))
    grid, kept = create_slice_grid(brain, 240, 1.0, step_mm)
    assert set(np.diff(kept)) == {stride}
    assert grid.GetSpacing()[2] == pytest.approx(slice_mm * stride)
    assert grid.GetSize()[2] == len(kept)


def test_the_brain_is_centred() -> None:
    brain = create_ellipsoid((1.0, 1.0, 5.0), (30, 220, 180), (60, 80, 50), origin=(33.0, -71.0, 0.0))
    resampled = resample_to_grid(create_slice_grid(brain, 240, 1.0, 2.0)[0], brain)
    for axis in (0, 1):
        filled_indices = np.flatnonzero(resampled.any(axis=(0, 2 - axis)))
        assert abs((filled_indices[0] + filled_indices[-1]) / 2 - 119.5) <= 1


def test_a_large_brain_is_scaled_isotropically_to_fit() -> None:
    brain = create_ellipsoid((1.0, 1.0, 6.0), (26, 320, 320), (90, 140, 60))
    grid, _ = create_slice_grid(brain, 240, 1.0, 2.0)
    column_mm, row_mm, _ = grid.GetSpacing()
    assert column_mm == row_mm and 278 / 240 < row_mm < 290 / 236
    resampled = resample_to_grid(grid, brain).any(axis=0)
    assert not (resampled[0].any() or resampled[-1].any() or resampled[:, 0].any() or resampled[:, -1].any())
    rows, columns = (np.ptp(np.flatnonzero(resampled.any(axis=axis))) for axis in (1, 0))
    assert rows / columns == pytest.approx(140 / 90, rel=0.02)


def test_an_image_without_enough_brain_is_refused() -> None:
    with pytest.raises(GliomarkError, match="enough brain"):
        create_slice_grid(create_ellipsoid((1.0, 1.0, 1.0), (20, 40, 40), (8, 8, 8)), 240, 1.0, 2.0)


@pytest.mark.parametrize(("count", "k"), [(20, 20), (21, 20), (57, 20), (200, 20), (5, 20), (1, 20), (57, 3)])
def test_selected_slices_are_equidistant(count: int, k: int) -> None:
    chosen = select_equidistant_slices(count, k)
    assert len(chosen) == min(count, k) and list(chosen) == sorted(set(chosen))
    assert chosen[0] == 0
    if count > 1 and k > 1:
        assert chosen[-1] == count - 1
        steps = np.diff(chosen)
        assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize("degrees", [(0, 0, 0), (4, 3, 2), (-7, 3, 2), (10, -5, 1)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 6.0), (0.94, 0.94, 5.3), (0.7, 0.7, 6.6)])
def test_no_slice_of_an_oblique_brain_loses_what_the_next_slice_lacks(degrees, spacing) -> None:
    """A cone: every slice is larger than the next one, and its area on the grid is that of its own mask."""
    slices, rows, columns = np.indices((12, 256, 256))
    radius_mm = 80 - 5 * slices
    distance_mm = np.hypot(rows - 128, columns - 128) * spacing[0]
    brain = (distance_mm < radius_mm).astype(np.uint8)
    image = sitk.GetImageFromArray(brain)
    image.SetSpacing(spacing)
    image.SetDirection(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().ravel().tolist())
    image.SetOrigin((-101.3, -120.7, -58.2))
    grid, indices = create_slice_grid(image, 240, 1.0, 2.0)
    areas = _resample_brain_mask(image, grid).sum(axis=(1, 2))
    true_areas = brain[indices].sum(axis=(1, 2)) * spacing[0] * spacing[1]
    assert len(areas) == 12
    # a pixel at the edge that is partly outside does not count
    np.testing.assert_allclose(areas, true_areas, rtol=0.08)

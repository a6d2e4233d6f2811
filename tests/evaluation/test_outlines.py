"""Segmentation metrics: distances compared with brute force and MONAI, all metrics of a patient by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance

from gliomark.evaluation.segmentation_metrics import compute_hausdorff_distances, compute_segmentation_scores

CASES = [((1.0, 1.0), 2), ((0.5, 2.0), 2), ((1.0, 1.0, 1.0), 3), ((6.0, 1.0, 0.8), 3)]


def compute_reference(truth: np.ndarray, mask: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
    """Compute distances between all surface voxels (those with a neighbour outside) of both masks."""

    def find_surface(one: np.ndarray) -> np.ndarray:
        inside = set(map(tuple, np.argwhere(one)))
        steps = [
            tuple(s * (axis == at) for at in range(one.ndim)) for axis in range(one.ndim) for s in (1, -1)
        ]
        return np.array(
            [p for p in inside if any(tuple(np.add(p, step)) not in inside for step in steps)], float
        )

    first, second = (find_surface(one) * np.array(spacing) for one in (truth, mask))
    pair_distances = np.sqrt(((first[:, None] - second[None]) ** 2).sum(axis=2))
    first_to_second, second_to_first = pair_distances.min(axis=1), pair_distances.min(axis=0)
    return max(first_to_second.max(), second_to_first.max()), max(
        np.percentile(first_to_second, 95), np.percentile(second_to_first, 95)
    )


def draw_ellipsoid(shape: Sequence[int], centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    grid = np.indices(shape)
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)) <= 1


# ---- distances ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spacing", "axes"), CASES)
def test_hausdorff_distances_equal_brute_force(spacing: Sequence[float], axes: int) -> None:
    random = np.random.default_rng(axes)
    for share, _ in product((0.1, 0.4, 0.8), range(8)):
        truth, mask = random.random((2, *(7, 6, 5)[:axes])) < share
        if truth.any() and mask.any():
            assert compute_hausdorff_distances(truth, mask, spacing) == pytest.approx(
                compute_reference(truth, mask, spacing)
            )


@pytest.mark.parametrize(("spacing", "axes"), CASES)
@pytest.mark.parametrize("percentile", [100, 95])
def test_hausdorff_distances_equal_monai(spacing: Sequence[float], axes: int, percentile: int) -> None:
    """For convex masks away from the border MONAI's surface, in 2-D and 3-D, is the same set of voxels."""
    shape = (14, 30, 28)[-axes:]
    truth = draw_ellipsoid(shape, (6, 13, 12)[-axes:], (3.2, 7.5, 6.2)[-axes:])
    mask = draw_ellipsoid(shape, (8, 16, 15)[-axes:], (4.1, 6.3, 8.4)[-axes:])
    mask |= draw_ellipsoid(shape, (2, 4, 4)[-axes:], (1.1, 1.5, 1.5)[-axes:])  # a distant false positive
    hot = [torch.from_numpy(np.stack([~one, one]).astype(np.float32))[None] for one in (mask, truth)]
    expected = compute_hausdorff_distance(
        *hot, include_background=False, spacing=list(spacing), percentile=float(percentile)
    )
    assert compute_hausdorff_distances(truth, mask, spacing)[percentile == 95] == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_equal_masks_have_distance_zero_and_order_has_no_effect() -> None:
    random = np.random.default_rng(0)
    first, second = random.random((2, 5, 8, 9)) < 0.3
    assert compute_hausdorff_distances(first, first, (5.0, 1.0, 1.0)) == (0, 0)
    assert compute_hausdorff_distances(first, second, (5.0, 1.0, 1.0)) == compute_hausdorff_distances(
        second, first, (5.0, 1.0, 1.0)
    )


def test_distances_equal_the_arithmetic() -> None:
    truth, mask = np.zeros((2, 4, 40, 40), bool)
    truth[1, 10, 10] = mask[3, 13, 14] = True
    assert compute_hausdorff_distances(truth, mask, (6.0, 1.0, 1.0)) == (13, 13)  # 12, 3, 4
    # a hundred pixels agree, one lies 20 columns away: it determines the maximum, not the 95th percentile
    truth[:], mask[:] = False, False
    truth[0, 0, :] = mask[0, 0, :] = truth[0, 2, :] = mask[0, 2, :] = True
    mask[0, 22, 5] = True
    assert compute_hausdorff_distances(truth, mask, (6.0, 1.0, 1.0)) == (20, 0)


def test_a_mask_that_touches_the_border_has_its_surface_there() -> None:
    full, inner = np.ones((9, 9), bool), np.zeros((9, 9), bool)
    inner[2:7, 2:7] = True
    assert compute_hausdorff_distances(full, inner, (1.0, 1.0))[0] == pytest.approx(math.hypot(2, 2))


@pytest.mark.parametrize("axes", [2, 3])
def test_distances_to_an_empty_mask_are_nan(axes: int) -> None:
    empty, one = np.zeros((3,) * axes, bool), np.ones((3,) * axes, bool)
    for truth, mask in ((empty, one), (one, empty), (empty, empty)):
        assert all(map(math.isnan, compute_hausdorff_distances(truth, mask, (1.0,) * axes)))


# ---- a patient's metrics ----------------------------------------------------------------------------------


@pytest.fixture
def outlines() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference, mask and brain on six slices of 12 x 12 pixels; the last shows no brain.

    Slice 0: no lesion, 3 pixels in the mask, one of them outside the brain; 1: the mask of 4 x 4 pixels lies two
    columns to the right; 2: a missed lesion of 4 pixels; 3: a lesion of 9 pixels, segmented exactly; 4: both empty.
    """
    truth, mask, brain = np.zeros((3, 6, 12, 12), bool)
    brain[:5, 1:11, 1:11] = True
    mask[0, 5, 5:7] = mask[0, 0, 0] = True
    truth[1, 3:7, 2:6] = mask[1, 3:7, 4:8] = True
    truth[2, 5:7, 5:7] = True
    truth[3, 2:5, 2:5] = mask[3, 2:5, 2:5] = True
    return truth, mask, brain


def test_every_score_equals_the_arithmetic(outlines: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    truth, mask, brain = outlines
    scores = compute_segmentation_scores(truth, mask, brain, (6.0, 1.0, 1.0))
    both = 8 + 9
    assert scores.dice == pytest.approx(2 * both / ((16 + 4 + 9) + (3 + 16 + 9)))
    assert scores.dice_per_lesion_slice == pytest.approx((0.5 + 0 + 1) / 3)
    assert scores.sensitivity == pytest.approx(both / 29)
    # mean of a shift by two columns and of none; slice 2 has no distance
    assert scores.hausdorff_pixels == scores.hausdorff_95_pixels == pytest.approx((2 + 0) / 2)
    # of the slices without a reference lesion, 5 shows no brain; pixels outside the brain do not count
    assert scores.lesion_free == (pytest.approx(2 / 100), 0)
    # the corner pixel in the mask of slice 0 lies 6 mm above and (3, 2) pixels beside slice 1's nearest
    assert scores.hausdorff_mm == pytest.approx(math.sqrt(6**2 + 3**2 + 2**2))
    assert (scores.hausdorff_mm, scores.hausdorff_95_mm) == pytest.approx(
        compute_reference(truth, mask, (6, 1, 1))
    )


def test_distances_in_pixels_do_not_depend_on_the_spacing(
    outlines: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    one, other = (
        compute_segmentation_scores(*outlines, spacing) for spacing in ((6.0, 1.0, 1.0), (3.0, 0.5, 0.5))
    )
    assert (one.hausdorff_pixels, one.dice) == (other.hausdorff_pixels, other.dice)
    assert one.hausdorff_mm == pytest.approx(2 * other.hausdorff_mm)


def test_scores_of_a_patient_without_any_lesion(outlines: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, mask, brain = outlines
    scores = compute_segmentation_scores(np.zeros_like(mask), mask, brain, (6.0, 1.0, 1.0))
    assert scores.dice == 0 and math.isnan(scores.sensitivity) and math.isnan(scores.dice_per_lesion_slice)
    distances = ("hausdorff_pixels", "hausdorff_95_pixels", "hausdorff_mm", "hausdorff_95_mm")
    assert all(math.isnan(getattr(scores, name)) for name in distances)
    assert scores.lesion_free == pytest.approx((0.02, 0.16, 0, 0.09, 0))


def test_scores_of_a_missed_lesion(outlines: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    truth, _, brain = outlines
    scores = compute_segmentation_scores(truth, np.zeros_like(truth), brain, (6.0, 1.0, 1.0))
    assert scores.dice == scores.sensitivity == scores.dice_per_lesion_slice == 0
    assert math.isnan(scores.hausdorff_mm) and math.isnan(scores.hausdorff_95_pixels)
    assert scores.lesion_free == (0, 0)

"""Z-score normalisation inside the brain."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from gliomark.errors import GliomarkError
from gliomark.preprocessing.intensity import clip_outliers, normalise_z_score


@pytest.fixture
def noisy_head() -> tuple[np.ndarray, np.ndarray]:
    """An image with bright noise outside the brain, and the brain mask."""
    random = np.random.default_rng(3)
    brain = np.zeros((4, 30, 30), bool)
    brain[:, 5:25, 5:25] = True
    image = random.gamma(4.0, 50.0, brain.shape).astype(np.float32)
    image[~brain] += 900
    return image, brain


def test_mean_is_0_and_standard_deviation_1_inside_and_minimum_outside(noisy_head) -> None:
    image, brain = noisy_head
    normalised = normalise_z_score(image, brain)
    assert normalised.dtype == np.float32
    assert abs(normalised[brain].mean()) < 1e-4 and abs(normalised[brain].std() - 1) < 1e-4
    assert (normalised[~brain] == normalised[brain].min()).all()


def test_values_are_clipped_to_the_percentiles(noisy_head) -> None:
    image, brain = noisy_head
    image = image.copy()
    image[2, 10, 10] = 1e6  # a metal artefact must not compress the range of the rest
    low, high = np.percentile(image[brain], [0.5, 99.5])
    inside = np.clip(image[brain], low, high)
    np.testing.assert_allclose(
        normalise_z_score(image, brain)[brain], (inside - inside.mean()) / inside.std(), atol=1e-4
    )


@pytest.mark.parametrize("value", [1e6, 1e30, -1e6, -1e30])
@pytest.mark.parametrize("count", [1, 3])
def test_outliers_do_not_change_other_voxels(noisy_head, value: float, count: int) -> None:
    image, brain = noisy_head
    plain, image = normalise_z_score(image, brain), image.copy()
    image[2, 10, 10 : 10 + count] = value
    others = brain.copy()
    others[2, 10, 10 : 10 + count] = False
    difference = np.abs(normalise_z_score(image, brain) - plain)[others]
    assert difference.mean() < 0.03 and difference.max() < 0.3


@pytest.mark.parametrize("value", [1e6, 1e30, -1e6])
@pytest.mark.parametrize("head_share", [0.3, 0.01, 0.001])
def test_outliers_are_clipped_to_the_range_of_most_voxels(value: float, head_share: float) -> None:
    """Also if nearly the whole image is background of one value."""
    random = np.random.default_rng(3)
    array = np.where(random.random((20, 60, 60)) < head_share, random.uniform(100, 300, (20, 60, 60)), 0)
    with_outlier = array.astype(np.float32)
    with_outlier[3, 4, 5] = value
    clipped = sitk.GetArrayFromImage(clip_outliers(sitk.GetImageFromArray(with_outlier)))
    if head_share > 0.005:
        assert clipped.min() >= 0 and clipped.max() <= 300
    assert np.ptp(clipped) > 0


def test_scale_and_offset_have_no_effect_and_the_input_is_unchanged(noisy_head) -> None:
    image, brain = noisy_head
    before = image.copy()
    np.testing.assert_allclose(
        normalise_z_score(image, brain), normalise_z_score(image * 7 + 100, brain), atol=1e-3
    )
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.5])
def test_constant_image_is_refused(noisy_head, value: float) -> None:
    brain = noisy_head[1]
    with pytest.raises(GliomarkError, match="FLAIR has a single grey value"):
        normalise_z_score(np.full(brain.shape, value, np.float32), brain, "FLAIR")

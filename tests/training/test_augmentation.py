"""Random views: the same transform applies to image, mask and prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gliomark.models.network_io import downsample_by_averaging
from gliomark.training.augmentation import (
    CURVE_KNOT_COUNT,
    CURVE_STANDARD_DEVIATION,
    GENTLE_AUGMENTATION,
    MAX_INTENSITY,
    Augmentation,
    apply_random_intensity_curve,
    draw_random_theta,
    draw_random_view,
    perturb_intensities,
    resample_view,
)

STILL = Augmentation(crop=24, shift=0, quarter_turns=False, noise=0.0)
TEMPLATE = 40
UPRIGHT = replace(GENTLE_AUGMENTATION, noise=0.0, tone=0.0)


@pytest.fixture
def slices() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(3, 2, TEMPLATE, TEMPLATE)


def test_a_view_without_movement_is_the_central_crop(slices: torch.Tensor) -> None:
    views = resample_view(slices, draw_random_theta(3, STILL, TEMPLATE), 24)
    torch.testing.assert_close(views, slices[..., 8:32, 8:32], atol=1e-4, rtol=0)


def test_quarter_turns_are_the_four_rotations_of_rot90(slices: torch.Tensor) -> None:
    torch.manual_seed(1)
    theta = draw_random_theta(64, replace(STILL, quarter_turns=True), TEMPLATE)
    views = resample_view(slices[:1].expand(64, -1, -1, -1), theta, 24)
    inner = slices[0, :, 8:32, 8:32]
    found_turns = set()
    for view in views:
        turns = [k for k in range(4) if torch.allclose(view, torch.rot90(inner, k, (1, 2)), atol=1e-3)]
        assert len(turns) == 1
        found_turns.update(turns)
    assert found_turns == {0, 1, 2, 3}


def test_mirror_swaps_left_and_right_only(slices: torch.Tensor) -> None:
    torch.manual_seed(1)
    theta = draw_random_theta(32, replace(STILL, mirror=True), TEMPLATE)
    views = resample_view(slices[:1].expand(32, -1, -1, -1), theta, 24)
    inner = slices[0, :, 8:32, 8:32]
    mirrored = [torch.allclose(one, inner.flip(2), atol=1e-3) for one in views]
    unmirrored = [torch.allclose(one, inner, atol=1e-3) for one in views]
    assert all(m != s for m, s in zip(mirrored, unmirrored, strict=True))
    assert 4 < sum(mirrored) < 28


def test_shifts_stay_within_their_limit() -> None:
    torch.manual_seed(0)
    theta = draw_random_theta(500, replace(STILL, shift=10), TEMPLATE)
    pixels = theta[:, :, 2] * TEMPLATE / 2
    assert pixels.abs().max() <= 10 and pixels.min() < -8 and pixels.max() > 8
    published = draw_random_theta(500, Augmentation(), 240)[:, :, 2] * 120
    assert published.abs().max() <= 56 and published.max() > 50  # 224 of 336


def test_whole_pixel_shifts_are_exact_and_edge_pixels_are_repeated(slices: torch.Tensor) -> None:
    theta = draw_random_theta(3, STILL, TEMPLATE)
    theta[:, 0, 2] = 5 * 2 / TEMPLATE  # five columns to the right
    torch.testing.assert_close(resample_view(slices, theta, 24), slices[..., 8:32, 13:37], atol=1e-4, rtol=0)
    theta[:, 0, 2] = 12 * 2 / TEMPLATE
    views = resample_view(slices, theta, 24)
    torch.testing.assert_close(views[..., :20], slices[..., 8:32, 20:40], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        views[..., 20:], slices[..., 8:32, 39:].expand(-1, -1, -1, 4), atol=1e-4, rtol=0
    )


def test_shapes_are_not_distorted() -> None:
    """Rotation and zoom scale both axes equally: no shear, no stretching."""
    torch.manual_seed(0)
    theta = draw_random_theta(200, GENTLE_AUGMENTATION, 240)[:, :, :2]
    square = theta.transpose(1, 2) @ theta
    assert square[:, 0, 1].abs().max() < 1e-6
    torch.testing.assert_close(square[:, 0, 0], square[:, 1, 1])
    zoom = square[:, 0, 0].sqrt() * 240 / GENTLE_AUGMENTATION.crop
    assert 0.85 <= zoom.min() < 0.9 and 1.1 < zoom.max() <= 1.15
    assert {-1.0, 1.0} == set(torch.linalg.det(theta).sign().tolist())


def test_image_and_mask_are_moved_together() -> None:
    torch.manual_seed(0)
    blob = torch.zeros(64, 1, 120, 120)
    blob[:, :, 40:60, 66:90] = 1
    moving = replace(GENTLE_AUGMENTATION, crop=96, shift=8, quarter_turns=True)
    theta = draw_random_theta(64, moving, 120)
    image = resample_view(3 * blob - 1, theta, 96)  # an image whose contrast is the mask
    mask = resample_view(blob, theta, 96).round()
    torch.testing.assert_close((image > 0.5).float(), mask)
    assert len({tuple(m.nonzero().float().mean(dim=0).round().tolist()) for m in mask}) > 32, "equal views"


def test_noise_and_tone_have_the_stated_range(slices: torch.Tensor) -> None:
    torch.testing.assert_close(perturb_intensities(slices, STILL), slices, atol=0, rtol=0)
    torch.manual_seed(0)
    many = slices[:1].expand(600, -1, -1, -1)
    for level in (0.05, 0.1, 0.3):
        noise = (perturb_intensities(many, replace(STILL, noise=level)) - many).flatten(1).std(dim=1)
        assert 0.8 * level < noise.min() and noise.max() < 1.2 * level, "noise level of a sample"
    toned = perturb_intensities(many, replace(STILL, tone=0.2))
    ratio = (toned[:, 0].amax(dim=(1, 2)) - toned[:, 0].amin(dim=(1, 2))) / (
        slices[0, 0].max() - slices[0, 0].min()
    )
    assert 0.79 < ratio.min() < 0.85 and 1.15 < ratio.max() < 1.21


def compute_detail(images: torch.Tensor) -> float:
    """Return the mean squared difference between neighbouring pixels."""
    return float((images.diff(dim=-1) ** 2).mean() + (images.diff(dim=-2) ** 2).mean())


PUBLISHED = replace(Augmentation(), noise=0.0)


@pytest.mark.parametrize(
    ("augmentation", "pool", "sharpness"),
    [(PUBLISHED, 1, 1.0), (PUBLISHED, 2, 1.0), (PUBLISHED, 4, 1.0), (UPRIGHT, 4, 0.85)],
    ids=str,
)
def test_a_training_view_is_as_sharp_as_a_test_view(augmentation, pool: int, sharpness: float) -> None:
    """On white noise, in which any resampling is visible; the view at inference is the averaged central crop."""
    torch.manual_seed(0)
    image = torch.randn(24, 1, 240, 240)
    views = draw_random_view(image, image[:, 0] > 1, augmentation, pool)[0]
    margin = (240 - augmentation.crop) // 2
    inner = slice(margin, margin + augmentation.crop)
    expected = downsample_by_averaging(image[..., inner, inner], pool)
    assert views.shape == expected.shape
    # outside the slice, where edge pixels are repeated, there is less detail
    inside = slice(None) if augmentation.shift < 20 else slice(views.shape[-1] // 3, -views.shape[-1] // 3)
    assert compute_detail(views[..., inside, inside]) / compute_detail(expected) >= 0.99 * sharpness


@pytest.mark.parametrize("pool", [1, 2, 4])
def test_published_views_are_not_interpolated(pool: int) -> None:
    """Every view is an averaged whole-pixel crop, rotated by a multiple of 90 degrees, for image and mask alike."""
    torch.manual_seed(0)
    image = torch.randn(12, 1, 240, 240)
    lesion = F.avg_pool2d(image, 9, 1, 4)[:, 0] > 0.05
    views, target, theta = draw_random_view(image, lesion, PUBLISHED, pool)
    shifts = (theta[:, :, 2] * 120).round().int()
    torch.testing.assert_close(theta[:, :, 2] * 120, shifts.float(), atol=1e-4, rtol=0)
    padded = (
        F.pad(image, (48,) * 4, mode="replicate"),
        F.pad(lesion[:, None].float(), (48,) * 4, mode="replicate"),
    )
    for index, (column, row) in enumerate(shifts.tolist()):
        turn = round(float(torch.atan2(theta[index, 1, 0], theta[index, 0, 0])) / (np.pi / 2))
        region = (..., slice(56 + row, 280 + row), slice(56 + column, 280 + column))
        cropped_image, cropped_lesion = (
            torch.rot90(one[index : index + 1][region], turn, (2, 3)) for one in padded
        )
        torch.testing.assert_close(
            views[index : index + 1], downsample_by_averaging(cropped_image, pool), atol=2e-3, rtol=0
        )
        assert (
            target[index] == (downsample_by_averaging(cropped_lesion, pool)[0, 0] >= 0.5)
        ).float().mean() > 0.999


# ---- random intensity curves --------------------------------------------------------------------------


KNOTS = torch.linspace(-MAX_INTENSITY, MAX_INTENSITY, CURVE_KNOT_COUNT)


def draw_curves(samples: int, channels: int) -> torch.Tensor:
    """Return the values at the knots that ``apply_random_intensity_curve`` draws with seed 3."""
    torch.manual_seed(3)
    return CURVE_STANDARD_DEVIATION * torch.randn(samples, channels, CURVE_KNOT_COUNT)


def test_each_channel_of_each_sample_has_its_own_curve() -> None:
    grey = torch.cat([KNOTS, torch.linspace(-4, 4, 58)]).reshape(1, 1, 8, 8)
    image = grey.expand(3, 2, -1, -1)
    values = draw_curves(3, 2)
    torch.manual_seed(3)
    views = apply_random_intensity_curve(image)
    assert views.shape == image.shape
    # the value at a knot, linear in between, constant beyond the ends
    torch.testing.assert_close(views.flatten(2)[..., :CURVE_KNOT_COUNT], values, atol=1e-5, rtol=1e-5)
    for sample in range(3):
        for channel in range(2):
            expected = np.interp(grey.flatten().numpy(), KNOTS.numpy(), values[sample, channel].numpy())
            np.testing.assert_allclose(views[sample, channel].flatten(), expected, atol=1e-5)
    assert len({tuple(one.flatten().tolist()) for one in views.flatten(0, 1)}) == 6, "six different curves"


def test_equal_grey_values_stay_equal() -> None:
    torch.manual_seed(0)
    levels = torch.randint(0, 5, (2, 2, 12, 12))
    views = apply_random_intensity_curve(levels.float() - 2)
    for one, level in zip(views.flatten(0, 1), levels.flatten(0, 1), strict=True):
        assert all(len(one[level == number].unique()) == 1 for number in range(5))


def test_recolour_is_the_share_of_samples_that_change(slices: torch.Tensor) -> None:
    many = slices[:1].expand(400, -1, -1, -1)
    torch.testing.assert_close(perturb_intensities(many, replace(STILL, recolour=0.0)), many, atol=0, rtol=0)
    torch.manual_seed(0)
    views = perturb_intensities(many, replace(STILL, recolour=0.3))
    changed = (views != many).flatten(1).any(dim=1)
    assert 0.22 < changed.float().mean() < 0.38
    assert ((views != many).any(dim=(2, 3)).all(dim=1) == changed).all(), "only one channel changed"
    assert (
        (perturb_intensities(many[:20], replace(STILL, recolour=1.0)) != many[:20])
        .flatten(1)
        .any(dim=1)
        .all()
    )

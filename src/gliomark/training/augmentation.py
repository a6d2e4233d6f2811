"""Random views of a batch of slices: one affine per sample acts on image, mask, prior and alpha alike.

Views are taken at full resolution and averaged to a preset's pixels afterwards, as at test: a view of averaged slices
would be blurred twice. The published views, quarter turns and whole-pixel crops, lose nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gliomark.inference.segmenter import downsample_by_averaging

# of the random curve: deviations to either side of the brain's mean, its knots, how far they stray
MAX_INTENSITY, CURVE_KNOT_COUNT, CURVE_STANDARD_DEVIATION = 3.0, 6, 1.0


@dataclass(frozen=True)
class Augmentation:
    """The published one; ``GENTLE`` keeps heads upright, which needs far fewer images to learn from.

    crop: pixels of the view; shift: how far (whole pixels) its centre strays, 56 being a 224 crop of the
    slice padded to 336; quarter_turns: rotation by 0, 90, 180 or 270 degrees; mirror: left and right
    swapped for half the samples; degrees and zoom: largest small rotation and relative scaling; noise:
    deviation of the Gaussian noise on every sample, as a share of the brain's; tone: largest change of
    brightness (deviations) and contrast (share). recolour: share of the samples whose grey values go
    through a random curve, so that no sequence's own contrast is relied on.
    """

    crop: int = 224
    shift: int = 56
    quarter_turns: bool = True
    mirror: bool = False
    degrees: float = 0.0
    zoom: float = 0.0
    noise: float = 0.1
    tone: float = 0.0
    recolour: float = 0.0


GENTLE_AUGMENTATION = Augmentation(
    crop=192, shift=12, quarter_turns=False, mirror=True, degrees=15.0, zoom=0.15, tone=0.2
)


def draw_random_theta(count: int, augmentation: Augmentation, template_size: int) -> Tensor:
    """``(count, 2, 3)``: from the view's normalised coordinates to those of the template slice."""
    angle = torch.deg2rad((2 * torch.rand(count) - 1) * augmentation.degrees)
    if augmentation.quarter_turns:
        angle = angle + math.pi / 2 * torch.randint(0, 4, (count,))
    scale = (1 + (2 * torch.rand(count) - 1) * augmentation.zoom) * augmentation.crop / template_size
    flip = 1 - 2 * torch.randint(0, 2, (count,)).float() if augmentation.mirror else torch.ones(count)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = flip * cosine, -flip * sine
    theta[:, 1, 0], theta[:, 1, 1] = sine, cosine
    shift = torch.randint(-augmentation.shift, augmentation.shift + 1, (count, 2))
    theta[:, :, 2] = shift * 2 / template_size
    return theta


def resample_view(images: Tensor, theta: Tensor, crop_size: int, mode: str = "bilinear") -> Tensor:
    """``(B, C, H, W)`` seen through theta as ``(B, C, crop, crop)``; past the edge the edge goes on."""
    grid = F.affine_grid(theta, [images.shape[0], 1, crop_size, crop_size], align_corners=False)
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def draw_random_view(
    image: Tensor, lesion: Tensor, augmentation: Augmentation, pooling_factor: float = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """A training batch as the network sees it: image ``(B, C, side, side)``, lesion ``(B, side, side)``, theta.

    image ``(B, C, H, W)`` and lesion ``(B, H, W)`` at full resolution; side: the crop over pool.
    """
    theta = draw_random_theta(len(image), augmentation, image.shape[-1]).to(image.device)
    return (*apply_view(theta, image, lesion, augmentation, pooling_factor), theta)


def apply_view(
    theta: Tensor, image: Tensor, lesion: Tensor, augmentation: Augmentation, pooling_factor: float = 1
) -> tuple[Tensor, Tensor]:
    """``random_view`` of a given theta: image and lesion."""
    image_and_lesion = resample_view(
        torch.cat([image.float(), lesion[:, None].float()], dim=1), theta, augmentation.crop
    )
    perturbed = downsample_by_averaging(
        perturb_intensities(image_and_lesion[:, :-1], augmentation), pooling_factor
    )
    # as the slices of a bank are averaged: a pixel is lesion where at least half of it is
    return perturbed, (
        downsample_by_averaging(image_and_lesion[:, -1:].round(), pooling_factor)[:, 0] >= 0.5
    ).float()


def perturb_intensities(image: Tensor, augmentation: Augmentation) -> Tensor:
    """Brightness, contrast and noise, drawn per sample (and per channel for tone); ``(B, C, H, W)``."""
    batch, channels = image.shape[:2]
    if augmentation.recolour > 0:
        is_recoloured = torch.rand(batch, 1, 1, 1, device=image.device) < augmentation.recolour
        image = torch.where(is_recoloured, apply_random_intensity_curve(image), image)
    if augmentation.tone > 0:
        contrast = 1 + augmentation.tone * (2 * torch.rand(batch, channels, 1, 1, device=image.device) - 1)
        shift = augmentation.tone * (2 * torch.rand(batch, channels, 1, 1, device=image.device) - 1)
        image = image * contrast + shift
    return image + augmentation.noise * torch.randn_like(image) if augmentation.noise > 0 else image


def apply_random_intensity_curve(image: Tensor) -> Tensor:
    """Every sample's channel through a curve of its own: straight between random values (deviations) at
    fixed grey values, so that dark may become bright; ``(B, C, H, W)``."""
    knots = torch.linspace(-MAX_INTENSITY, MAX_INTENSITY, CURVE_KNOT_COUNT, device=image.device)
    values = CURVE_STANDARD_DEVIATION * torch.randn(*image.shape[:2], CURVE_KNOT_COUNT, device=image.device)
    position = (image.clamp(-MAX_INTENSITY, MAX_INTENSITY) + MAX_INTENSITY) / (knots[1] - knots[0])
    left = position.floor().clamp(max=CURVE_KNOT_COUNT - 2)
    index = left.long().flatten(2)
    low, high = (values.gather(2, index + step).view_as(image) for step in (0, 1))
    return low + (position - left) * (high - low)

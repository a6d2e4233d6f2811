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

from gliomark.inference.segmenter import averaged

# of the random curve: deviations to either side of the brain's mean, its knots, how far they stray
LARGEST_GREY, CURVE_KNOTS, CURVE_SPREAD = 3.0, 6, 1.0


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


GENTLE = Augmentation(crop=192, shift=12, quarter_turns=False, mirror=True, degrees=15.0, zoom=0.15, tone=0.2)


def random_theta(count: int, augmentation: Augmentation, template: int) -> Tensor:
    """``(count, 2, 3)``: from the view's normalised coordinates to those of the template slice."""
    angle = torch.deg2rad((2 * torch.rand(count) - 1) * augmentation.degrees)
    if augmentation.quarter_turns:
        angle = angle + math.pi / 2 * torch.randint(0, 4, (count,))
    scale = (1 + (2 * torch.rand(count) - 1) * augmentation.zoom) * augmentation.crop / template
    flip = 1 - 2 * torch.randint(0, 2, (count,)).float() if augmentation.mirror else torch.ones(count)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = flip * cosine, -flip * sine
    theta[:, 1, 0], theta[:, 1, 1] = sine, cosine
    shift = torch.randint(-augmentation.shift, augmentation.shift + 1, (count, 2))
    theta[:, :, 2] = shift * 2 / template
    return theta


def view(stack: Tensor, theta: Tensor, crop: int, mode: str = "bilinear") -> Tensor:
    """``(B, C, H, W)`` seen through theta as ``(B, C, crop, crop)``; past the edge the edge goes on."""
    grid = F.affine_grid(theta, [stack.shape[0], 1, crop, crop], align_corners=False)
    return F.grid_sample(stack, grid, mode=mode, padding_mode="border", align_corners=False)


def random_view(
    image: Tensor, lesion: Tensor, augmentation: Augmentation, pool: float = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """A training batch as the network sees it: image ``(B, C, side, side)``, lesion ``(B, side, side)``, theta.

    image ``(B, C, H, W)`` and lesion ``(B, H, W)`` at full resolution; side: the crop over pool.
    """
    theta = random_theta(len(image), augmentation, image.shape[-1]).to(image.device)
    return (*seen_through(theta, image, lesion, augmentation, pool), theta)


def seen_through(
    theta: Tensor, image: Tensor, lesion: Tensor, augmentation: Augmentation, pool: float = 1
) -> tuple[Tensor, Tensor]:
    """``random_view`` of a given theta: image and lesion."""
    both = view(torch.cat([image.float(), lesion[:, None].float()], dim=1), theta, augmentation.crop)
    seen = averaged(disturb(both[:, :-1], augmentation), pool)
    # as the slices of a bank are averaged: a pixel is lesion where at least half of it is
    return seen, (averaged(both[:, -1:].round(), pool)[:, 0] >= 0.5).float()


def disturb(image: Tensor, augmentation: Augmentation) -> Tensor:
    """Brightness, contrast and noise, drawn per sample (and per channel for tone); ``(B, C, H, W)``."""
    batch, channels = image.shape[:2]
    if augmentation.recolour > 0:
        drawn = torch.rand(batch, 1, 1, 1, device=image.device) < augmentation.recolour
        image = torch.where(drawn, recoloured(image), image)
    if augmentation.tone > 0:
        contrast = 1 + augmentation.tone * (2 * torch.rand(batch, channels, 1, 1, device=image.device) - 1)
        shift = augmentation.tone * (2 * torch.rand(batch, channels, 1, 1, device=image.device) - 1)
        image = image * contrast + shift
    return image + augmentation.noise * torch.randn_like(image) if augmentation.noise > 0 else image


def recoloured(image: Tensor) -> Tensor:
    """Every sample's channel through a curve of its own: straight between random values (deviations) at
    fixed grey values, so that dark may become bright; ``(B, C, H, W)``."""
    knots = torch.linspace(-LARGEST_GREY, LARGEST_GREY, CURVE_KNOTS, device=image.device)
    values = CURVE_SPREAD * torch.randn(*image.shape[:2], CURVE_KNOTS, device=image.device)
    place = (image.clamp(-LARGEST_GREY, LARGEST_GREY) + LARGEST_GREY) / (knots[1] - knots[0])
    left = place.floor().clamp(max=CURVE_KNOTS - 2)
    index = left.long().flatten(2)
    low, high = (values.gather(2, index + step).view_as(image) for step in (0, 1))
    return low + (place - left) * (high - low)

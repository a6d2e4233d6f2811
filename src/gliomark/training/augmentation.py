"""Random views of a batch of slices: the same affine per sample applies to image, mask, prior and alpha.

Views are taken at full resolution and then averaged to the network's pixels, as at inference; views of averaged slices
would be blurred twice. The published views, rotations by 90 degrees and whole-pixel crops, do not blur the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gliomark.models.network_io import downsample_by_averaging
from gliomark.training.process_group import draw_share

# random intensity curve: range in standard deviations on either side of the brain's mean, number of knots, and
# standard deviation of their values
MAX_INTENSITY, CURVE_KNOT_COUNT, CURVE_STANDARD_DEVIATION = 3.0, 6, 1.0


@dataclass(frozen=True)
class Augmentation:
    """Parameters of the random views. The defaults are published (method.md, section 3).

    ``GENTLE_AUGMENTATION`` keeps heads upright, which requires far fewer training images.

    Attributes
    ----------
    crop
        Side of the view in pixels.
    shift
        Largest displacement of its centre in whole pixels; 56 is a 224-pixel crop of a slice padded to 336.
    quarter_turns
        Rotation by 0, 90, 180 or 270 degrees.
    mirror
        Exchange left and right in half of the samples.
    degrees, zoom
        Largest additional rotation in degrees, and largest relative scaling.
    noise
        Standard deviation of the Gaussian noise, relative to the brain's.
    tone
        Largest change of brightness (in standard deviations) and of contrast (relative).
    recolour
        Share of the samples whose intensities pass through a random curve, so that the network does not rely on
        the contrast of a sequence.
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
    """Draw affines ``(count, 2, 3)`` from the view's normalised coordinates to the template slice's."""
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
    """Resample ``(B, C, H, W)`` by theta ``(B, 2, 3)`` to ``(B, C, crop_size, crop_size)``, repeating edge pixels."""
    grid = F.affine_grid(theta, [images.shape[0], 1, crop_size, crop_size], align_corners=False)
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def draw_random_view(
    image: Tensor, lesion: Tensor, augmentation: Augmentation, pooling_factor: float = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw random views of a batch.

    image ``(B, C, H, W)`` and lesion mask ``(B, H, W)`` at full resolution become image ``(B, C, side, side)``, mask
    ``(B, side, side)`` and theta ``(B, 2, 3)``, with side = crop / pool.
    """
    theta = draw_share(lambda count: draw_random_theta(count, augmentation, image.shape[-1]), len(image)).to(
        image.device
    )
    return (*apply_view(theta, image, lesion, augmentation, pooling_factor), theta)


def apply_view(
    theta: Tensor, image: Tensor, lesion: Tensor, augmentation: Augmentation, pooling_factor: float = 1
) -> tuple[Tensor, Tensor]:
    """Return image and lesion mask of ``draw_random_view`` for a given theta ``(B, 2, 3)``."""
    image_and_lesion = resample_view(
        torch.cat([image.float(), lesion[:, None].float()], dim=1), theta, augmentation.crop
    )
    perturbed = downsample_by_averaging(
        perturb_intensities(image_and_lesion[:, :-1], augmentation), pooling_factor
    )
    # a pixel is lesion if at least half of it is, as when the slices of a data set are averaged
    return perturbed, (
        downsample_by_averaging(image_and_lesion[:, -1:].round(), pooling_factor)[:, 0] >= 0.5
    ).float()


def perturb_intensities(image: Tensor, augmentation: Augmentation) -> Tensor:
    """Change intensities ``(B, C, H, W)``: brightness and contrast per sample and channel, noise per pixel."""
    channels = image.shape[1]

    def draw_uniform(*shape: int) -> Tensor:
        return draw_share(lambda count: torch.rand(count, *shape, device=image.device), len(image))

    if augmentation.recolour > 0:
        is_recoloured = draw_uniform(1, 1, 1) < augmentation.recolour
        image = torch.where(is_recoloured, apply_random_intensity_curve(image), image)
    if augmentation.tone > 0:
        contrast = 1 + augmentation.tone * (2 * draw_uniform(channels, 1, 1) - 1)
        shift = augmentation.tone * (2 * draw_uniform(channels, 1, 1) - 1)
        image = image * contrast + shift
    return (
        image + augmentation.noise * _draw_normal(image.shape, image.device)
        if augmentation.noise > 0
        else image
    )


def _draw_normal(shape: Sequence[int], device: torch.device) -> Tensor:
    """Draw standard normal numbers of a shape ``(B, ...)``."""
    return draw_share(lambda count: torch.randn(count, *shape[1:], device=device), shape[0])


def apply_random_intensity_curve(image: Tensor) -> Tensor:
    """Apply a random intensity curve to each sample and channel of ``(B, C, H, W)``.

    The curve is linear between random values at fixed intensities, both in standard deviations, so that dark regions
    may become bright.
    """
    knots = torch.linspace(-MAX_INTENSITY, MAX_INTENSITY, CURVE_KNOT_COUNT, device=image.device)
    values = CURVE_STANDARD_DEVIATION * _draw_normal((*image.shape[:2], CURVE_KNOT_COUNT), image.device)
    position = (image.clamp(-MAX_INTENSITY, MAX_INTENSITY) + MAX_INTENSITY) / (knots[1] - knots[0])
    left = position.floor().clamp(max=CURVE_KNOT_COUNT - 2)
    index = left.long().flatten(2)
    low, high = (values.gather(2, index + step).view_as(image) for step in (0, 1))
    return low + (position - left) * (high - low)

"""U-Net (Ronneberger et al. 2015), MONAI's with normalisation. Tensors only."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import with_config

from gliomark.models.entries import SegmentationEntry
from gliomark.models.network_io import CLASS_COUNT, ImageSegmentationNetwork
from gliomark.models.validated_types import STRICT_CONFIG, ChannelCount


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class UNetSettings:
    """Settings of U-Net.

    inputs: input channels; width: channels at full resolution, doubled at each of the next four levels.
    """

    inputs: ChannelCount = 1
    width: ChannelCount = 64


def build_unet(settings: UNetSettings) -> ImageSegmentationNetwork:
    """Build U-Net: two convolutions per level, max pooling; ``(B, inputs, H, W)`` to logits ``(B, 2, H, W)``."""
    from monai.networks.nets.basic_unet import BasicUNet  # takes seconds to import

    width = settings.width
    features = (*(width * 2**level for level in range(5)), width)
    return ImageSegmentationNetwork(BasicUNet(2, settings.inputs, CLASS_COUNT, features=features))


ENTRY = SegmentationEntry(
    name="U-Net",
    reference="Ronneberger et al. 2015",
    recipes={"published": UNetSettings(), "small": UNetSettings(width=16)},
    build=lambda settings, prior: build_unet(settings),
)

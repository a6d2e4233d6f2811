"""Attention U-Net (Oktay et al. 2018), MONAI's; MIG-Net's gate inverts its gate. Tensors only."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import with_config

from gliomark.models.entries import SegmentationEntry
from gliomark.models.network_io import CLASS_COUNT, ImageSegmentationNetwork
from gliomark.models.validated_types import STRICT_CONFIG, ChannelCount

LEVEL_COUNT = 5


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class AttentionUNetSettings:
    """Settings of Attention U-Net.

    inputs: input channels; width: channels at full resolution, doubled at each of the next four levels.
    """

    inputs: ChannelCount = 1
    width: ChannelCount = 64


def build_attention_unet(settings: AttentionUNetSettings) -> ImageSegmentationNetwork:
    """Build Attention U-Net; ``(B, inputs, H, W)`` to logits ``(B, 2, H, W)``, H and W multiples of 16."""
    from monai.networks.nets.attentionunet import AttentionUnet  # takes seconds to import

    channels = [settings.width * 2**level for level in range(LEVEL_COUNT)]
    strides = (2,) * (LEVEL_COUNT - 1)
    return ImageSegmentationNetwork(AttentionUnet(2, settings.inputs, CLASS_COUNT, channels, strides=strides))


ENTRY = SegmentationEntry(
    name="Attention U-Net",
    reference="Oktay et al. 2018",
    recipes={"published": AttentionUNetSettings(), "small": AttentionUNetSettings(width=16)},
    build=lambda settings, prior: build_attention_unet(settings),
)

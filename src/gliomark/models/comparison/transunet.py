"""TransUNet (Chen et al. 2021). Tensors only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import with_config
from torch import Tensor, nn

from gliomark.models.entries import SegmentationEntry
from gliomark.models.network_io import CLASS_COUNT, ImageSegmentationNetwork
from gliomark.models.validated_types import STRICT_CONFIG, ChannelCount


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class TransUNetSettings:
    """Settings of TransUNet.

    inputs: input channels; width: channels at half resolution; 64 is R50-ViT-B/16, as published.
    """

    inputs: ChannelCount = 1
    width: ChannelCount = 64


class TransUNet(nn.Module):
    """TransUNet: a residual encoder, a transformer on its coarsest feature, and a decoder with skip connections.

    ``(B, in_channels, H, W)`` to logits ``(B, 2, H, W)``, H and W multiples of 16. With width w: a stem of w channels
    at 1/2 resolution, residual stages of 4w, 8w and 16w channels at 1/4, 1/8 and 1/16, and hidden size 12w. From
    w = 64 on it has the published residual blocks (3, 4, 9) and transformer layers (12), below that fewer. A depthwise
    convolution replaces the published position embedding of fixed size, so that views of any size can be used.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        from monai.networks.blocks.transformerblock import TransformerBlock  # takes seconds to import

        super().__init__()
        is_published_size = width >= 64
        blocks, layers = ((3, 4, 9), 12) if is_published_size else ((1, 1, 2), 4)
        hidden = 12 * width
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.ModuleList()
        channels = width
        for level, count in enumerate(blocks):
            inner = width * 2**level
            self.stages.append(_build_residual_stage(channels, inner, count))
            channels = 4 * inner
        self.embed = nn.Conv2d(channels, hidden, 1)
        self.position = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.transformer = nn.Sequential(
            *(TransformerBlock(hidden, 4 * hidden, num_heads=hidden // 64 or 1) for _ in range(layers)),
            nn.LayerNorm(hidden),
        )
        self.bridge = _build_convolution(hidden, 8 * width)
        skip_channels = (8 * width, 4 * width, width, 0)
        up_out_channels = (4 * width, 2 * width, width, max(width // 4, 8))
        up_in_channels = (8 * width, *up_out_channels[:-1])
        self.ups = nn.ModuleList(
            nn.Sequential(_build_convolution(i + s, o), _build_convolution(o, o))
            for i, s, o in zip(up_in_channels, skip_channels, up_out_channels, strict=True)
        )
        self.classify = nn.Conv2d(up_out_channels[-1], CLASS_COUNT, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits ``(B, 2, H, W)``."""
        features = [self.stem(image)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        feature = self.embed(features.pop())
        feature = feature + self.position(feature)
        tokens = self.transformer(feature.flatten(2).transpose(1, 2))
        feature = self.bridge(tokens.transpose(1, 2).reshape(feature.shape))
        for up in self.ups:
            feature = nn.functional.interpolate(feature, scale_factor=2, mode="bilinear", align_corners=False)
            feature = up(torch.cat([feature, features.pop()], dim=1) if features else feature)
        output: Tensor = self.classify(feature)
        return output


def _build_residual_stage(in_channels: int, hidden_channels: int, block_count: int) -> nn.Sequential:
    """Build ``block_count`` bottleneck blocks with ``4 * hidden_channels`` output channels, the first with stride 2."""
    from monai.networks.nets.resnet import ResNetBottleneck

    out_channels = 4 * hidden_channels
    shortcut = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, 2, bias=False), nn.BatchNorm2d(out_channels)
    )
    first = ResNetBottleneck(in_channels, hidden_channels, spatial_dims=2, stride=2, downsample=shortcut)
    return nn.Sequential(
        first,
        *(ResNetBottleneck(out_channels, hidden_channels, spatial_dims=2) for _ in range(block_count - 1)),
    )


def _build_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


ENTRY = SegmentationEntry(
    name="TransUNet",
    reference="Chen et al. 2021",
    recipes={"published": TransUNetSettings(), "small": TransUNetSettings(width=16)},
    build=lambda settings, prior: ImageSegmentationNetwork(TransUNet(settings.inputs, settings.width)),
)

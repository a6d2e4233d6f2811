"""Swin-UNet (Cao et al. 2022), the backbone of MIG-Net, built from MONAI's Swin blocks. Tensors only.

MONAI takes seconds to import, so it is imported when a network with its parts is built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from pydantic import with_config
from torch import Tensor, nn

from gliomark.models.validated_types import STRICT_CONFIG, ChannelCount, LayerCounts, PixelCount


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class SwinSize:
    """Size of a Swin-UNet. The defaults are published; ``SMALL_SWIN_SIZE`` suits two CPU cores.

    Attributes
    ----------
    embedding
        Channels of the first stage, doubled at each further stage.
    depths
        Swin blocks per stage.
    heads
        Attention heads per stage.
    patch
        Side of a patch in pixels.
    convolutional_stem
        False as published; True: 3x3 convolutions of stride 2 replace the patch projection, so that a
        transformer can be trained on few images (Xiao et al. 2021).
    window
        Side of the attention windows in tokens. It should divide the grid of every stage (side of the view divided by
        patch * 2^stage) that is larger than the window; other grids are padded with zero tokens.
    """

    embedding: ChannelCount = 96
    depths: LayerCounts = (2, 2, 2, 2)
    heads: LayerCounts = (3, 6, 12, 24)
    patch: PixelCount = 4
    convolutional_stem: bool = False
    window: PixelCount = 7


# a window of 6 divides the grids of views of 96 pixels (48, 24, 12, 6) and of 48 pixels (24, 12, 6, 3)
SMALL_SWIN_SIZE = SwinSize(embedding=16, heads=(1, 2, 4, 8), patch=2, convolutional_stem=True, window=6)


class PatchEmbedding(nn.Module):
    """Patch embedding: ``(B, in_channels, H, W)`` to ``(B, C, H / patch, W / patch)``, normalised over channels."""

    def __init__(self, in_channels: int, size: SwinSize) -> None:
        super().__init__()
        channels = size.embedding
        if size.convolutional_stem:
            steps: list[nn.Module] = [
                nn.Conv2d(in_channels, channels, 3, padding=1),
                build_group_norm(channels),
                nn.GELU(),
            ]
            for _ in range(size.patch.bit_length() - 1):
                steps += [nn.Conv2d(channels, channels, 3, 2, 1), build_group_norm(channels), nn.GELU()]
            steps.append(nn.Conv2d(channels, channels, 1))
            self.project: nn.Module = nn.Sequential(*steps)
        else:
            self.project = nn.Conv2d(in_channels, channels, size.patch, size.patch)
        self.norm = ChannelLayerNorm(channels)

    def forward(self, image: Tensor) -> Tensor:
        """Return the tokens ``(B, C, H / patch, W / patch)``."""
        output: Tensor = self.norm(self.project(image))
        return output


def build_group_norm(channels: int) -> nn.GroupNorm:
    """Build group normalisation with up to eight groups of channels.

    Unlike batch normalisation it gives the same result in training and at inference, independent of the other
    samples of the batch and of their sharpness.
    """
    return nn.GroupNorm(math.gcd(8, channels), channels)


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of ``(B, C, H, W)``."""

    def forward(self, feature: Tensor) -> Tensor:
        """Return the normalised feature ``(B, C, H, W)``."""
        return rearrange(super().forward(rearrange(feature, "b c h w -> b h w c")), "b h w c -> b c h w")


class PatchMerging(nn.Module):
    """Patch merging: half the resolution, twice the channels, ``(B, C, H, W)`` to ``(B, 2C, H/2, W/2)``."""

    def __init__(self, channels: int) -> None:
        from monai.networks.nets.swin_unetr import PatchMergingV2

        super().__init__()
        self.merge = PatchMergingV2(channels, spatial_dims=2)

    def forward(self, feature: Tensor) -> Tensor:
        """Return the merged feature ``(B, 2C, H/2, W/2)``."""
        output: Tensor = rearrange(self.merge(rearrange(feature, "b c h w -> b h w c")), "b h w c -> b c h w")
        return output


class PatchExpanding(nn.Module):
    """Patch expanding by a 1x1 convolution and a pixel shuffle.

    ``(B, C, H, W)`` to ``(B, out_channels, factor H, factor W)``.
    """

    def __init__(self, channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Conv2d(channels, out_channels * factor * factor, 1, bias=False)
        self.norm = ChannelLayerNorm(out_channels)

    def forward(self, feature: Tensor) -> Tensor:
        """Return the expanded feature ``(B, out_channels, factor H, factor W)``."""
        output: Tensor = self.norm(nn.functional.pixel_shuffle(self.expand(feature), self.factor))
        return output


class SwinEncoder(nn.Module):
    """Encoder: ``(B, in_channels, H, W)`` to one feature per level l, fine to coarse.

    The feature of level l is ``(B, 2^l C, H / (patch 2^l), W / (patch 2^l))``; the last, the bottleneck, is normalised.
    """

    def __init__(self, in_channels: int, size: SwinSize) -> None:
        from gliomark.models.published.swin_stage import SwinStage

        super().__init__()
        self.embed = PatchEmbedding(in_channels, size)
        channels = [size.embedding * 2**level for level in range(len(size.depths))]
        windows = [size.window] * len(channels)
        self.stages = nn.ModuleList(map(SwinStage, channels, size.depths, size.heads, windows))
        self.merges = nn.ModuleList(PatchMerging(c) for c in channels[:-1])
        self.norm = ChannelLayerNorm(channels[-1])

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features ``(B, 2^l C, H / (patch 2^l), W / (patch 2^l))``, fine to coarse.

        image: ``(B, in_channels, H, W)``.
        """
        features = [self.stages[0](self.embed(image))]
        for merge, stage in zip(self.merges, self.stages[1:], strict=True):
            features.append(stage(merge(features[-1])))
        return [*features[:-1], self.norm(features[-1])]


class SwinDecoder(nn.Module):
    """Decoder with patch expanding; at each level a gate filters the skip connection.

    gates: one module per skip connection, fine to coarse, called as ``gate(encoder_feature, upsampled_feature)``.
    """

    def __init__(self, size: SwinSize, gates: Sequence[nn.Module], class_count: int) -> None:
        from gliomark.models.published.swin_stage import SwinStage

        super().__init__()
        channels = [size.embedding * 2**level for level in range(len(size.depths))]
        self.gates = nn.ModuleList(gates)
        self.expands = nn.ModuleList(PatchExpanding(2 * c, c, 2) for c in channels[:-1])
        self.reduces = nn.ModuleList(nn.Conv2d(2 * c, c, 1) for c in channels[:-1])
        windows = [size.window] * len(channels[:-1])
        self.stages = nn.ModuleList(map(SwinStage, channels[:-1], size.depths[:-1], size.heads[:-1], windows))
        self.norm = ChannelLayerNorm(channels[0])
        self.final_expand = PatchExpanding(channels[0], channels[0], size.patch)
        self.classify = nn.Conv2d(channels[0], class_count, 1)

    def forward(self, features: list[Tensor], bottleneck: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits ``(B, classes, H, W)`` and the decoder's feature of every level, coarse to fine.

        features: the encoder's, fine to coarse, each ``(B, C, h, w)``; bottleneck ``(B, C, h, w)``.
        """
        feature, decoder_features = bottleneck, []
        for level in reversed(range(len(self.stages))):
            height, width = features[level].shape[-2:]
            # patch merging pads an odd side, so the upsampled feature may be one pixel too large
            upsampled = self.expands[level](feature)[..., :height, :width]
            skip = self.gates[level](features[level], upsampled)
            feature = self.stages[level](self.reduces[level](torch.cat([upsampled, skip], dim=1)))
            decoder_features.append(feature)
        return self.classify(self.final_expand(self.norm(feature))), decoder_features


class IdentitySkip(nn.Module):
    """Swin-UNet's skip connection, which returns the encoder feature unchanged."""

    def forward(self, encoder_feature: Tensor, upsampled_feature: Tensor) -> Tensor:
        """Return the encoder feature ``(B, C, H, W)``."""
        return encoder_feature

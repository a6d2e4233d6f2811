"""Swin-UNet (Cao et al. 2022), the backbone of MIG-Net, on MONAI's Swin blocks. Tensors only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from monai.networks.nets.swin_unetr import (
    BasicLayer,
    PatchMergingV2,
    WindowAttention,
    compute_mask,
    get_window_size,
)
from pydantic import with_config
from torch import Tensor, nn

from gliomark.models.bounds import STRICT_CONFIG, ChannelCount, LayerCounts, PixelCount


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class SwinSize:
    """The published size; ``SMALL`` is for two CPU cores.

    embedding: channels of the first stage, doubled by each of the next; heads: attention heads per
    stage; depth: blocks per stage. convolutional_stem: 3x3 convolutions of stride 2 in place of the 4x4
    patch projection (Xiao et al. 2021 show that this lets a transformer learn from few images); False =
    as published. window: side of the attention's windows, which should divide every stage's grid (the view's side
    over patch * 2^stage) that is larger: another grid is padded with tokens of nothing.
    """

    embedding: ChannelCount = 96
    depths: LayerCounts = (2, 2, 2, 2)
    heads: LayerCounts = (3, 6, 12, 24)
    patch: PixelCount = 4
    convolutional_stem: bool = False
    window: PixelCount = 7


# its windows divide the grids of views of 96 (48, 24, 12, 6) and 48 pixels (24, 12, 6, 3)
SMALL_SWIN_SIZE = SwinSize(embedding=16, heads=(1, 2, 4, 8), patch=2, convolutional_stem=True, window=6)


class PatchEmbedding(nn.Module):
    """``(B, inputs, H, W)`` to ``(B, C, H / patch, W / patch)``, normalised over channels."""

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
        return self.norm(self.project(image))


def build_group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation of a sample by itself, in up to eight groups of channels: it does the same in training and at
    test, whatever the batch and however sharp its images, which batch statistics do not."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of ``(B, C, H, W)``."""

    def forward(self, feature: Tensor) -> Tensor:
        return rearrange(super().forward(rearrange(feature, "b c h w -> b h w c")), "b h w c -> b c h w")


class PatchMerging(nn.Module):
    """Half the resolution, twice the channels: ``(B, C, H, W)`` to ``(B, 2C, H/2, W/2)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = PatchMergingV2(channels, spatial_dims=2)

    def forward(self, feature: Tensor) -> Tensor:
        return rearrange(self.merge(rearrange(feature, "b c h w -> b h w c")), "b h w c -> b c h w")


class PatchExpanding(nn.Module):
    """``(B, C, H, W)`` to ``(B, out, factor H, factor W)``: a linear layer, then pixels for channels."""

    def __init__(self, channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Conv2d(channels, out_channels * factor * factor, 1, bias=False)
        self.norm = ChannelLayerNorm(out_channels)

    def forward(self, feature: Tensor) -> Tensor:
        return self.norm(nn.functional.pixel_shuffle(self.expand(feature), self.factor))


class SmallGridWindowAttention(WindowAttention):
    """MONAI's window attention, its relative positions right in a grid smaller than the window too.

    MONAI cuts the first n rows and columns out of the whole window's index, which are other pairs of pixels.
    ``window``, what is left of it in the grid, is set by the stage before each call.
    """

    window: tuple[int, ...]
    relative_position_index: Tensor
    qkv: nn.Linear
    proj: nn.Linear

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """tokens ``(windows, h * w, C)``; mask ``(windows of a slice, h * w, h * w)``, added to the scores."""
        count = tokens.shape[1]
        query, key, value = rearrange(self.qkv(tokens), "b n (t h d) -> t b h n d", t=3, h=self.num_heads)
        scores = (query * self.scale) @ key.transpose(-2, -1) + self._compute_position_bias()
        if mask is not None:
            scores = scores.unflatten(0, (-1, len(mask))) + mask[:, None]
            scores = scores.flatten(0, 1)
        mixed = scores.softmax(dim=-1).to(value.dtype) @ value
        return self.proj(mixed.transpose(1, 2).reshape(-1, count, self.dim))

    def _compute_position_bias(self) -> Tensor:
        """Of each head, between every two pixels of the window: ``(heads, n, n)``."""
        height, width = self.window
        whole = self.relative_position_index.view(*self.window_size, *self.window_size)
        index = whole[:height, :width, :height, :width]
        bias = self.relative_position_bias_table[index.reshape(-1)]
        return rearrange(bias, "(n m) h -> h n m", n=height * width)


class SwinStage(BasicLayer):
    """Swin blocks, plain and shifted windows in turn; the shape stays ``(B, C, H, W)``."""

    def __init__(self, channels: int, depth: int, heads: int, window: int) -> None:
        sides = (window, window)
        super().__init__(channels, depth, heads, sides, drop_path=[0.0] * depth, qkv_bias=True)
        for block in self.blocks:
            block.attn = SmallGridWindowAttention(channels, heads, sides, qkv_bias=True)

    def forward(self, feature: Tensor) -> Tensor:
        feature = rearrange(feature, "b c h w -> b h w c")
        sides = feature.shape[1:3]
        window, shift = get_window_size(sides, self.window_size, self.shift_size)
        padded = [side + -side % step for side, step in zip(sides, window, strict=True)]
        mask = compute_mask(padded, window, shift, feature.device) if any(shift) else None
        for block in self.blocks:
            cast(SmallGridWindowAttention, block.attn).window = window
            feature = block(feature, mask)
        return rearrange(feature, "b h w c -> b c h w")


class SwinEncoder(nn.Module):
    """``(B, inputs, H, W)`` to one feature per level, fine to coarse: ``(B, 2^l C, H / (patch 2^l), ...)``; the
    last, the bottleneck, is normalised."""

    def __init__(self, in_channels: int, size: SwinSize) -> None:
        super().__init__()
        self.embed = PatchEmbedding(in_channels, size)
        channels = [size.embedding * 2**level for level in range(len(size.depths))]
        windows = [size.window] * len(channels)
        self.stages = nn.ModuleList(map(SwinStage, channels, size.depths, size.heads, windows))
        self.merges = nn.ModuleList(PatchMerging(c) for c in channels[:-1])
        self.norm = ChannelLayerNorm(channels[-1])

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [self.stages[0](self.embed(image))]
        for merge, stage in zip(self.merges, self.stages[1:], strict=True):
            features.append(stage(merge(features[-1])))
        return [*features[:-1], self.norm(features[-1])]


class SwinDecoder(nn.Module):
    """Back up through patch expanding; at each level a gate decides what the skip connection lets through.

    gates: one module per skip, fine to coarse, called as ``gate(encoder_feature, upsampled_feature)``.
    """

    def __init__(self, size: SwinSize, gates: Sequence[nn.Module], class_count: int) -> None:
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
        """The logits, and every level's feature on the way up, coarse to fine."""
        feature, decoder_features = bottleneck, []
        for level in reversed(range(len(self.stages))):
            height, width = features[level].shape[-2:]
            # patch merging pads an odd side, so the way back up may be one pixel too large
            upsampled = self.expands[level](feature)[..., :height, :width]
            skip = self.gates[level](features[level], upsampled)
            feature = self.stages[level](self.reduces[level](torch.cat([upsampled, skip], dim=1)))
            decoder_features.append(feature)
        return self.classify(self.final_expand(self.norm(feature))), decoder_features


class IdentitySkip(nn.Module):
    """Swin-UNet's skip connection: the encoder's feature as it is."""

    def forward(self, encoder_feature: Tensor, upsampled_feature: Tensor) -> Tensor:
        return encoder_feature

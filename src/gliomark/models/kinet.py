"""KiNet: three ResNeSt branches with hand-chosen fusion (thesis chapter 4, figures 4-3 and 4-4). Tensors only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from pydantic import with_config
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models.bounds import STRICT_CONFIG, ChannelCount, ChannelCounts, LayerCounts, PixelCount
from gliomark.models.resnest import build_stage, build_stem

CHANNELS_PER_SEQUENCE = 2
CLASS_COUNT = 2


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class KiNetSize:
    """The published size (ResNeSt-50's widths and depths); ``SMALL`` is for two CPU cores.

    pool: the slice is averaged over pool x pool pixels before the stems (1 = as published). average_down: see
    ``ResNeStBlock``.
    """

    stem: ChannelCount = 64
    widths: ChannelCounts = (256, 512, 1024, 2048)
    blocks: LayerCounts = (3, 4, 6, 3)
    pool: PixelCount = 1
    average_down: bool = True


SMALL_KINET_SIZE = KiNetSize(stem=16, widths=(32, 48, 64, 96), blocks=(1, 1, 1, 1), pool=2)


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class KiNetSettings:
    """Everything that decides KiNet's layers. merge_in off (table 4-5): the master has no early module
    of its own and starts from the auxiliaries' first features. bms off is a matter of the loss."""

    merge_in: bool = True
    size: KiNetSize = field(default_factory=KiNetSize)


class ResNeStBranch(nn.Module):
    """A stem and four stages, called one stage at a time."""

    def __init__(self, in_channels: int, size: KiNetSize) -> None:
        super().__init__()
        self.stem = build_stem(in_channels, size.stem)
        channels = [size.stem, *size.widths]
        strides, down = [1, 2, 2, 2], [size.average_down] * 4
        self.stages = nn.ModuleList(map(build_stage, channels[:-1], channels[1:], size.blocks, strides, down))

    def forward(self, image: Tensor, stage_count: int | None = None) -> list[Tensor]:
        """``(B, inputs, H, W)`` to the stages' features, fine to coarse; the first ``levels`` alone if given."""
        features = [self.stages[0](self.stem(image))]
        for stage in self.stages[1:stage_count]:
            features.append(stage(features[-1]))
        return features


class BranchFusion(nn.Module):
    """Concatenation first : master : second = 1 : 2 part : 1, i.e. each auxiliary at C / part channels.

    part 2 gives the published 1:2:1, part 4 gives 1:4:1; a 1x1 convolution returns to C.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels // reduction, 1)
        self.second = nn.Conv2d(channels, channels // reduction, 1)
        self.mix = nn.Conv2d(channels + 2 * (channels // reduction), channels, 1)

    def forward(self, first: Tensor, master: Tensor, second: Tensor) -> Tensor:
        return self.mix(torch.cat([self.first(first), master, self.second(second)], dim=1))


class MarkerOutput(TypedDict):
    """What every marker network answers: vector ``(B, D)``, the image vector for LightGBM; cat ``(B, 2)``,
    the logits that count."""

    image_vector: Tensor
    logits: Tensor


class KiNetOutput(MarkerOutput):
    """What the BMS loss asks for besides.

    stages: four ``(B, 2)``; first, second ``(B, 2)``; first_pooled, second_pooled: four ``(B, width)`` each.
    """

    stage_logits: list[Tensor]
    first_logits: Tensor
    second_logits: Tensor
    first_stage_vectors: list[Tensor]
    second_stage_vectors: list[Tensor]


class KiNet(nn.Module):
    """Two auxiliary branches (one per sequence) and the master on Merge-IN, fused before stages 2 and 3.

    Input MIX ``(B, 4, H, W)``: image and lesion-only image of the first sequence, then of the second.
    The master's input is the 1:1 mixture itself; what enters its second and third stage is fused
    1:2:1 and 1:4:1; later stages take nothing.
    """

    def __init__(
        self,
        first: ResNeStBranch,
        master: nn.Module | None,
        second: ResNeStBranch,
        master_stages: nn.ModuleList,
        fusions: Sequence[BranchFusion],
        size: KiNetSize,
    ) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.master = master
        self.master_stages = master_stages
        self.fusions = nn.ModuleList(fusions)
        self.stage_heads = nn.ModuleList(nn.Linear(width, CLASS_COUNT) for width in size.widths)
        self.cat_head = nn.Linear(sum(size.widths), CLASS_COUNT)
        self.first_head = nn.Linear(size.widths[-1], CLASS_COUNT)
        self.second_head = nn.Linear(size.widths[-1], CLASS_COUNT)
        self.pooling_factor = size.pool

    def predict(self, mix: Tensor) -> MarkerOutput:
        """``cat`` and ``vector`` of ``forward`` without what only training asks for: the auxiliaries' heads and
        their stages past the last fusion."""
        mix = average_pool_input(mix, self.pooling_factor)
        first, second = self._compute_auxiliary_features(mix, max(1, len(self.fusions)))
        vector = torch.cat(average_globally(self._compute_master_features(mix, first, second)), dim=1)
        return {"vector": vector, "cat": self.cat_head(vector)}

    def _compute_auxiliary_features(
        self, mix: Tensor, stage_count: int | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        first, second = mix[:, :CHANNELS_PER_SEQUENCE], mix[:, CHANNELS_PER_SEQUENCE:]
        return self.first(first, stage_count), self.second(second, stage_count)

    def forward(self, mix: Tensor) -> KiNetOutput:
        mix = average_pool_input(mix, self.pooling_factor)
        first, second = self._compute_auxiliary_features(mix)
        pooled = average_globally(self._compute_master_features(mix, first, second))
        vector = torch.cat(pooled, dim=1)
        return {
            "vector": vector,
            "cat": self.cat_head(vector),
            "stages": [head(feature) for head, feature in zip(self.stage_heads, pooled, strict=True)],
            "first": self.first_head(first[-1].mean(dim=(2, 3))),
            "second": self.second_head(second[-1].mean(dim=(2, 3))),
            "first_pooled": average_globally(first),
            "second_pooled": average_globally(second),
        }

    def _compute_master_features(
        self, mix: Tensor, first: list[Tensor], second: list[Tensor]
    ) -> list[Tensor]:
        features = [first[0] + second[0] if self.master is None else self.master(mix)]
        for level, step in enumerate(self.master_stages):
            feature = features[-1]
            if level < len(self.fusions):
                feature = self.fusions[level](first[level], feature, second[level])
            features.append(step(feature))
        return features


def average_pool_input(mix: Tensor, pooling_factor: int) -> Tensor:
    """The slices averaged over pool x pool pixels."""
    return F.avg_pool2d(mix, pooling_factor) if pooling_factor > 1 else mix


def average_globally(features: Sequence[Tensor]) -> list[Tensor]:
    """Global average pooling, ``(B, C, H, W)`` to ``(B, C)`` each."""
    return [feature.mean(dim=(2, 3)) for feature in features]


def build_kinet(settings: KiNetSettings) -> KiNet:
    """KiNet as the settings say, Kaiming initialised."""
    size = settings.size
    auxiliaries = [ResNeStBranch(CHANNELS_PER_SEQUENCE, size) for _ in range(2)]
    early_module = nn.Sequential(
        build_stem(2 * CHANNELS_PER_SEQUENCE, size.stem),
        build_stage(size.stem, size.widths[0], size.blocks[0], 1),
    )
    average_down = [size.average_down] * 3
    later_stages = nn.ModuleList(
        map(build_stage, size.widths[:-1], size.widths[1:], size.blocks[1:], [2, 2, 2], average_down)
    )
    fusions = [BranchFusion(size.widths[0], 2), BranchFusion(size.widths[1], 4)]
    network = KiNet(
        auxiliaries[0],
        early_module if settings.merge_in else None,
        auxiliaries[1],
        later_stages,
        fusions,
        size,
    )
    network.apply(initialise_kaiming)
    return network


def initialise_kaiming(module: nn.Module) -> None:
    """Kaiming initialisation of a convolution (METHOD section 4: no ImageNet weights)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def build_mix_input(first: Tensor, second: Tensor, lesion: Tensor) -> Tensor:
    """MIX: ``(B, H, W)`` images and lesion to ``(B, 4, H, W)``; ROI is the image with background outside.

    Background is each image's own lowest value, which preparation put outside the brain.
    """
    channels = []
    for image in (first, second):
        background = image.flatten(1).amin(dim=1)[:, None, None]
        channels += [image, torch.where(lesion > 0, image, background)]
    return torch.stack(channels, dim=1)

"""KiNet: three ResNeSt branches with fixed fusion points (section 4 of docs/method.md; figures 4-3 and 4-4).

Tensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from pydantic import with_config
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models.published.resnest import build_stage, build_stem
from gliomark.models.validated_types import (
    STRICT_CONFIG,
    ChannelCount,
    ChannelCounts,
    LayerCounts,
    PixelCount,
)

CHANNELS_PER_SEQUENCE = 2
CLASS_COUNT = 2


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class KiNetSize:
    """Size of a KiNet. The defaults are published (ResNeSt-50); ``SMALL_KINET_SIZE`` suits two CPU cores.

    stem: channels of the stem; widths: channels of the four stages; blocks: blocks per stage; pool: the slice is
    averaged over pool x pool pixels before the stems (1 as published); average_down: see ``ResNeStBlock``.
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
    """Settings that determine KiNet's layers.

    merge_in off (table 4-5): the main branch has no stem and first stage of its own and starts from the sum of the two
    other branches' first features. Switching BMS off changes only the loss.
    """

    merge_in: bool = True
    size: KiNetSize = field(default_factory=KiNetSize)


class ResNeStBranch(nn.Module):
    """A ResNeSt stem and four stages that returns the feature of each stage."""

    def __init__(self, in_channels: int, size: KiNetSize) -> None:
        super().__init__()
        self.stem = build_stem(in_channels, size.stem)
        channels = [size.stem, *size.widths]
        strides, down = [1, 2, 2, 2], [size.average_down] * 4
        self.stages = nn.ModuleList(map(build_stage, channels[:-1], channels[1:], size.blocks, strides, down))

    def forward(self, image: Tensor, stage_count: int | None = None) -> list[Tensor]:
        """Return the features ``(B, C, h, w)`` of the first ``stage_count`` stages (None: all), fine to coarse."""
        features = [self.stages[0](self.stem(image))]
        for stage in self.stages[1:stage_count]:
            features.append(stage(features[-1]))
        return features


class BranchFusion(nn.Module):
    """Fuse the three branches: the main branch with C channels, each other branch reduced to C / reduction channels.

    reduction 2 gives the published ratio 1:2:1, reduction 4 gives 1:4:1; a 1x1 convolution maps the concatenation
    back to C.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels // reduction, 1)
        self.second = nn.Conv2d(channels, channels // reduction, 1)
        self.mix = nn.Conv2d(channels + 2 * (channels // reduction), channels, 1)

    def forward(self, first: Tensor, master: Tensor, second: Tensor) -> Tensor:
        """Return the fused feature ``(B, C, H, W)`` of three features of that shape."""
        return self.mix(torch.cat([self.first(first), master, self.second(second)], dim=1))


class MarkerOutput(TypedDict):
    """Output of every marker network.

    image_vector ``(B, D)``: input of LightGBM; logits ``(B, 2)``: the output used for prediction.
    """

    image_vector: Tensor
    logits: Tensor


class KiNetOutput(MarkerOutput):
    """Output of KiNet, with what the BMS loss needs.

    stage_logits: four ``(B, 2)`` of the main branch; first_logits, second_logits: ``(B, 2)`` of the other branches;
    first_stage_vectors, second_stage_vectors: four ``(B, width)`` each.
    """

    stage_logits: list[Tensor]
    first_logits: Tensor
    second_logits: Tensor
    first_stage_vectors: list[Tensor]
    second_stage_vectors: list[Tensor]


class KiNet(nn.Module):
    """Two branches (one per sequence) and a main branch on both, fused before stages 2 and 3.

    Input MIX ``(B, 4, H, W)``: image and lesion-only image of the first sequence, then of the second. The main branch
    reads all four channels (Merge-IN); the input of its second and third stage is fused with the other branches at
    1:2:1 and 1:4:1; there is no fusion before the fourth stage.
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
        """Return the logits and image vector of ``forward`` for MIX ``(B, 4, H, W)``.

        The auxiliary heads and the branches' stages after the last fusion, which only training needs, are not run.
        """
        mix = average_pool_input(mix, self.pooling_factor)
        first, second = self._compute_auxiliary_features(mix, max(1, len(self.fusions)))
        vector = torch.cat(average_globally(self._compute_master_features(mix, first, second)), dim=1)
        return {"image_vector": vector, "logits": self.cat_head(vector)}

    def _compute_auxiliary_features(
        self, mix: Tensor, stage_count: int | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        first, second = mix[:, :CHANNELS_PER_SEQUENCE], mix[:, CHANNELS_PER_SEQUENCE:]
        return self.first(first, stage_count), self.second(second, stage_count)

    def forward(self, mix: Tensor) -> KiNetOutput:
        """Return the output of all heads for MIX ``(B, 4, H, W)``."""
        mix = average_pool_input(mix, self.pooling_factor)
        first, second = self._compute_auxiliary_features(mix)
        pooled = average_globally(self._compute_master_features(mix, first, second))
        vector = torch.cat(pooled, dim=1)
        return {
            "image_vector": vector,
            "logits": self.cat_head(vector),
            "stage_logits": [head(feature) for head, feature in zip(self.stage_heads, pooled, strict=True)],
            "first_logits": self.first_head(first[-1].mean(dim=(2, 3))),
            "second_logits": self.second_head(second[-1].mean(dim=(2, 3))),
            "first_stage_vectors": average_globally(first),
            "second_stage_vectors": average_globally(second),
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
    """Average the slices ``(B, C, H, W)`` over pooling_factor x pooling_factor pixels."""
    return F.avg_pool2d(mix, pooling_factor) if pooling_factor > 1 else mix


def average_globally(features: Sequence[Tensor]) -> list[Tensor]:
    """Apply global average pooling to each feature, ``(B, C, H, W)`` to ``(B, C)``."""
    return [feature.mean(dim=(2, 3)) for feature in features]


def build_kinet(settings: KiNetSettings) -> KiNet:
    """Build KiNet from its settings, with Kaiming initialisation."""
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
    """Initialise a convolution by Kaiming's method (section 4 of docs/method.md); other modules are left unchanged."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def build_mix_input(first: Tensor, second: Tensor, lesion: Tensor) -> Tensor:
    """Build the network input MIX ``(B, 4, H, W)`` from two images and a lesion mask, each ``(B, H, W)``.

    Each image is followed by its ROI, in which everything outside the lesion has the image's background value. The
    background is the minimum of the image, which preparation assigns outside the brain (section 4 of docs/method.md).
    """
    channels = []
    for image in (first, second):
        background = image.flatten(1).amin(dim=1)[:, None, None]
        channels += [image, torch.where(lesion > 0, image, background)]
    return torch.stack(channels, dim=1)

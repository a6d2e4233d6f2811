"""KiNet: three ResNeSt branches with fixed fusion points (method.md, section 4; figures 4-3 and 4-4).

Tensors only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from pydantic import with_config
from torch import Tensor, nn

from gliomark.models.entries import GradCam, GradCamBranch, MarkerEntry
from gliomark.models.network_io import (
    CHANNELS_PER_SEQUENCE,
    CLASS_COUNT,
    MarkerOutput,
    average_globally,
    average_pool_input,
    initialise_kaiming,
)
from gliomark.models.published.resnest import build_stage, build_stem
from gliomark.models.validated_types import (
    STRICT_CONFIG,
    ChannelCount,
    ChannelCounts,
    LayerCounts,
    PixelCount,
)


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


def use_strided_convolutions(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Complete the settings of a weights file of gliomark 0.1, whose ResNeSt used strided convolutions."""
    size = record.get("size")
    return {**record, "size": {"average_down": False, **size}} if isinstance(size, Mapping) else record


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
        output: Tensor = self.mix(torch.cat([self.first(first), master, self.second(second)], dim=1))
        return output


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


def describe_grad_cam(settings: KiNetSettings) -> GradCam:
    """Describe Grad-CAM of KiNet; without Merge-IN the main branch has no stage 1.

    The main branch is explained by the final output, each other branch by its own auxiliary head, because its last
    stages do not reach the final output.
    """
    first, second = (tuple(f"{name}.stages.{level}" for level in range(4)) for name in ("first", "second"))
    master = ("master" if settings.merge_in else None, *(f"master_stages.{level}" for level in range(3)))
    return GradCam(
        (
            GradCamBranch("first", "first_logits", first, 0),
            GradCamBranch("second", "second_logits", second, 1),
            GradCamBranch("master", "logits", master),
        )
    )


ENTRY = MarkerEntry(
    name="KiNet",
    reference="Li 2023, chapter 4",
    recipes={"published": KiNetSettings(), "small": KiNetSettings(size=SMALL_KINET_SIZE)},
    build=build_kinet,
    get_vector_length=lambda settings: sum(settings.size.widths),
    grad_cam=describe_grad_cam,
    loss="bms",
    predict=lambda network, mix: cast(KiNet, network).predict(mix),
    upgrade_record=use_strided_convolutions,
)

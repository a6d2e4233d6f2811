"""KiNet: three ResNeSt branches with hand-chosen fusion (thesis chapter 4, figures 4-3 and 4-4). Tensors only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from pydantic import with_config
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models.bounds import STRICT, Counts, Side, Width, Widths
from gliomark.models.resnest import stage, stem

CHANNELS_PER_SEQUENCE = 2
CLASSES = 2


@with_config(STRICT)
@dataclass(frozen=True)
class KiNetSize:
    """The published size (ResNeSt-50's widths and depths); ``SMALL`` is for two CPU cores.

    pool: the slice is averaged over pool x pool pixels before the stems (1 = as published). average_down: see
    ``ResNeStBlock``.
    """

    stem: Width = 64
    widths: Widths = (256, 512, 1024, 2048)
    blocks: Counts = (3, 4, 6, 3)
    pool: Side = 1
    average_down: bool = True


SMALL = KiNetSize(stem=16, widths=(32, 48, 64, 96), blocks=(1, 1, 1, 1), pool=2)


@with_config(STRICT)
@dataclass(frozen=True)
class KiNetSettings:
    """Everything that decides KiNet's layers. merge_in off (table 4-5): the master has no early module
    of its own and starts from the auxiliaries' first features. bms off is a matter of the loss."""

    merge_in: bool = True
    size: KiNetSize = field(default_factory=KiNetSize)


class Branch(nn.Module):
    """A stem and four stages, called one stage at a time."""

    def __init__(self, inputs: int, size: KiNetSize) -> None:
        super().__init__()
        self.stem = stem(inputs, size.stem)
        channels = [size.stem, *size.widths]
        strides, down = [1, 2, 2, 2], [size.average_down] * 4
        self.stages = nn.ModuleList(map(stage, channels[:-1], channels[1:], size.blocks, strides, down))

    def forward(self, image: Tensor, levels: int | None = None) -> list[Tensor]:
        """``(B, inputs, H, W)`` to the stages' features, fine to coarse; the first ``levels`` alone if given."""
        features = [self.stages[0](self.stem(image))]
        for step in self.stages[1:levels]:
            features.append(step(features[-1]))
        return features


class Fusion(nn.Module):
    """Concatenation first : master : second = 1 : 2 part : 1, i.e. each auxiliary at C / part channels.

    part 2 gives the published 1:2:1, part 4 gives 1:4:1; a 1x1 convolution returns to C.
    """

    def __init__(self, channels: int, part: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels // part, 1)
        self.second = nn.Conv2d(channels, channels // part, 1)
        self.mix = nn.Conv2d(channels + 2 * (channels // part), channels, 1)

    def forward(self, first: Tensor, master: Tensor, second: Tensor) -> Tensor:
        return self.mix(torch.cat([self.first(first), master, self.second(second)], dim=1))


class MarkerOutput(TypedDict):
    """What every marker network answers: vector ``(B, D)``, the image vector for LightGBM; cat ``(B, 2)``,
    the logits that count."""

    vector: Tensor
    cat: Tensor


class KiNetOutput(MarkerOutput):
    """What the BMS loss asks for besides.

    stages: four ``(B, 2)``; first, second ``(B, 2)``; first_pooled, second_pooled: four ``(B, width)`` each.
    """

    stages: list[Tensor]
    first: Tensor
    second: Tensor
    first_pooled: list[Tensor]
    second_pooled: list[Tensor]


class KiNet(nn.Module):
    """Two auxiliary branches (one per sequence) and the master on Merge-IN, fused before stages 2 and 3.

    Input MIX ``(B, 4, H, W)``: image and lesion-only image of the first sequence, then of the second.
    The master's input is the 1:1 mixture itself; what enters its second and third stage is fused
    1:2:1 and 1:4:1; later stages take nothing.
    """

    def __init__(
        self,
        first: Branch,
        master: nn.Module | None,
        second: Branch,
        master_stages: nn.ModuleList,
        fusions: Sequence[Fusion],
        size: KiNetSize,
    ) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.master = master
        self.master_stages = master_stages
        self.fusions = nn.ModuleList(fusions)
        self.stage_heads = nn.ModuleList(nn.Linear(width, CLASSES) for width in size.widths)
        self.cat_head = nn.Linear(sum(size.widths), CLASSES)
        self.first_head = nn.Linear(size.widths[-1], CLASSES)
        self.second_head = nn.Linear(size.widths[-1], CLASSES)
        self.pool = size.pool

    def answer(self, mix: Tensor) -> MarkerOutput:
        """``cat`` and ``vector`` of ``forward`` without what only training asks for: the auxiliaries' heads and
        their stages past the last fusion."""
        mix = pooled_input(mix, self.pool)
        first, second = self._auxiliaries(mix, max(1, len(self.fusions)))
        vector = torch.cat(averages(self._master(mix, first, second)), dim=1)
        return {"vector": vector, "cat": self.cat_head(vector)}

    def _auxiliaries(self, mix: Tensor, levels: int | None = None) -> tuple[list[Tensor], list[Tensor]]:
        first, second = mix[:, :CHANNELS_PER_SEQUENCE], mix[:, CHANNELS_PER_SEQUENCE:]
        return self.first(first, levels), self.second(second, levels)

    def forward(self, mix: Tensor) -> KiNetOutput:
        mix = pooled_input(mix, self.pool)
        first, second = self._auxiliaries(mix)
        pooled = averages(self._master(mix, first, second))
        vector = torch.cat(pooled, dim=1)
        return {
            "vector": vector,
            "cat": self.cat_head(vector),
            "stages": [head(feature) for head, feature in zip(self.stage_heads, pooled, strict=True)],
            "first": self.first_head(first[-1].mean(dim=(2, 3))),
            "second": self.second_head(second[-1].mean(dim=(2, 3))),
            "first_pooled": averages(first),
            "second_pooled": averages(second),
        }

    def _master(self, mix: Tensor, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        features = [first[0] + second[0] if self.master is None else self.master(mix)]
        for level, step in enumerate(self.master_stages):
            feature = features[-1]
            if level < len(self.fusions):
                feature = self.fusions[level](first[level], feature, second[level])
            features.append(step(feature))
        return features


def pooled_input(mix: Tensor, pool: int) -> Tensor:
    """The slices averaged over pool x pool pixels."""
    return F.avg_pool2d(mix, pool) if pool > 1 else mix


def averages(features: Sequence[Tensor]) -> list[Tensor]:
    """Global average pooling, ``(B, C, H, W)`` to ``(B, C)`` each."""
    return [feature.mean(dim=(2, 3)) for feature in features]


def build_kinet(settings: KiNetSettings) -> KiNet:
    """KiNet as the settings say, Kaiming initialised."""
    size = settings.size
    auxiliaries = [Branch(CHANNELS_PER_SEQUENCE, size) for _ in range(2)]
    early = nn.Sequential(
        stem(2 * CHANNELS_PER_SEQUENCE, size.stem), stage(size.stem, size.widths[0], size.blocks[0], 1)
    )
    down = [size.average_down] * 3
    later = nn.ModuleList(map(stage, size.widths[:-1], size.widths[1:], size.blocks[1:], [2, 2, 2], down))
    fusions = [Fusion(size.widths[0], 2), Fusion(size.widths[1], 4)]
    network = KiNet(
        auxiliaries[0], early if settings.merge_in else None, auxiliaries[1], later, fusions, size
    )
    network.apply(kaiming)
    return network


def kaiming(module: nn.Module) -> None:
    """Kaiming initialisation of a convolution (METHOD section 4: no ImageNet weights)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def mix_input(first: Tensor, second: Tensor, lesion: Tensor) -> Tensor:
    """MIX: ``(B, H, W)`` images and lesion to ``(B, 4, H, W)``; ROI is the image with background outside.

    Background is each image's own lowest value, which preparation put outside the brain.
    """
    channels = []
    for image in (first, second):
        background = image.flatten(1).amin(dim=1)[:, None, None]
        channels += [image, torch.where(lesion > 0, image, background)]
    return torch.stack(channels, dim=1)

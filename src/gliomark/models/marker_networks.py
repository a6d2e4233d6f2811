"""Any marker network from its settings: KiNet, and what it is compared with (tables 4-2 to 4-4). Tensors only.

Every one takes MIX ``(B, 4, H, W)`` (image and lesion-only image of the first sequence, then of the second), may
look at some of its channels alone, and answers at least ``vector`` and ``cat``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import torch
from monai.networks.nets.resnet import ResNet
from pydantic import Field, with_config
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models.bounds import STRICT, checked
from gliomark.models.efficient_unet import STAGES, encoder_stages, encoder_stem, fill_from_imagenet
from gliomark.models.kinet import (
    CHANNELS_PER_SEQUENCE,
    CLASSES,
    Branch,
    KiNetSettings,
    KiNetSize,
    MarkerOutput,
    averages,
    build_kinet,
    kaiming,
    pooled_input,
)
from gliomark.study import GliomarkError

Architecture = Literal["ResNet-50", "ResNet-50, middle fusion", "ResNeSt-50", "CentralNet", "frozen trunk"]
Channels = Annotated[tuple[Annotated[int, Field(ge=0, le=3)], ...], Field(min_length=1, max_length=4)]
ALL_CHANNELS: Channels = (0, 1, 2, 3)
# EfficientNet's stages that the frozen trunk reads: strides 4 and 8
READ_STAGES = (1, 2)


@with_config(STRICT)
@dataclass(frozen=True)
class MarkerBaseline:
    """A rival of KiNet. channels: those of MIX it looks at; size: as KiNet's (the frozen trunk reads the pool)."""

    architecture: Architecture
    channels: Channels = ALL_CHANNELS
    size: KiNetSize = field(default_factory=KiNetSize)


MarkerNetwork = KiNetSettings | MarkerBaseline


class OneHead(nn.Module):
    """A trunk from chosen channels to a vector, and one linear layer: ``(B, 4, H, W)`` to ``MarkerOutput``."""

    def __init__(self, trunk: nn.Module, length: int, channels: Sequence[int], pool: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.cat_head = nn.Linear(length, CLASSES)
        self.channels, self.pool = list(channels), pool

    def forward(self, mix: Tensor) -> MarkerOutput:
        vector = self.trunk(self.seen(mix))
        return {"vector": vector, "cat": self.cat_head(vector)}

    def seen(self, mix: Tensor) -> Tensor:
        """What the trunk sees of MIX."""
        return pooled_input(mix[:, self.channels], self.pool)


class ResNeStTrunk(nn.Module):
    """ResNeSt's stem and four stages (Zhang et al. 2020), the last one averaged."""

    def __init__(self, inputs: int, size: KiNetSize) -> None:
        super().__init__()
        self.branch = Branch(inputs, size)

    def forward(self, image: Tensor) -> Tensor:
        return averages(self.branch(image)[-1:])[0]


class MiddleFusion(nn.Module):
    """Table 4-3, middle: a ResNet's first half per sequence, concatenated, one second half for both.

    A 1x1 convolution brings the concatenation back to the channels of one.
    """

    def __init__(self, first: nn.Module, second: nn.Module, mix: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.mix, self.rest = first, second, mix, rest

    def forward(self, image: Tensor) -> Tensor:
        halves = [
            self.first(image[:, :CHANNELS_PER_SEQUENCE]),
            self.second(image[:, CHANNELS_PER_SEQUENCE:]),
        ]
        return averages([self.rest(self.mix(torch.cat(halves, dim=1)))])[0]


class FrozenTrunk(nn.Module):
    """A light KiNet's: the first stages of one EfficientNet-Lite0 read each sequence's MIX in turn; the mean and the
    deviation of what they find in the lesion, at two scales and of both sequences, make the vector ``(B, 256)``.

    It is never trained: with ImageNet's weights a vector means the same in every fold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stages = encoder_stem(CHANNELS_PER_SEQUENCE), encoder_stages()[: READ_STAGES[-1] + 1]
        # channelwise convolutions run 1.6 times as fast on a CPU with the channels last
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenTrunk:
        """Stays in evaluation mode: its statistics are ImageNet's too."""
        return super().train(False)

    def forward(self, mix: Tensor) -> Tensor:
        # both sequences as one batch
        image = mix.unflatten(1, (-1, CHANNELS_PER_SEQUENCE)).flatten(0, 1)
        lesion = lesion_of(image)
        feature = self.stem(image.contiguous(memory_format=torch.channels_last))
        pooled = []
        for number, step in enumerate(self.stages):
            feature = step(feature)
            if number in READ_STAGES:
                pooled += _mean_and_deviation(feature, F.adaptive_avg_pool2d(lesion, feature.shape[-2:]))
        return torch.cat(pooled, dim=1).unflatten(0, (len(mix), -1)).flatten(1)


def lesion_of(mix: Tensor) -> Tensor:
    """``(B, 2 or 4, H, W)`` to ``(B, 1, H, W)`` of 0 and 1: where the lesion-only image is not background."""
    alone = mix[:, 1:2]
    return (alone > alone.amin(dim=(2, 3), keepdim=True)).float()


def _mean_and_deviation(feature: Tensor, weight: Tensor) -> list[Tensor]:
    """Over the pixels ``(B, C, H, W)`` by their weight ``(B, 1, H, W)``: ``(B, C)`` each."""
    share = weight / weight.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    mean = (share * feature).sum(dim=(2, 3))
    variance = (share * (feature - mean[..., None, None]) ** 2).sum(dim=(2, 3))
    # the root of 0 has no gradient
    return [mean, (variance + 1e-8).sqrt()]


class CentralOutput(MarkerOutput):
    """CentralNet's: the branches' own logits ``(B, 2)`` besides."""

    first: Tensor
    second: Tensor


class CentralNet(nn.Module):
    """Vielzeuf et al. 2018 with ResNeSt stages: a central branch takes weighted sums of both sequences' branches.

    The five rows of ``weights`` (input and four stages; columns: central, first, second) are learnt and start
    uniform; there is no central feature before the input. KiNet's fusion points were read from them (figure 4-7).
    """

    def __init__(self, size: KiNetSize) -> None:
        super().__init__()
        self.first, self.central, self.second = (Branch(CHANNELS_PER_SEQUENCE, size) for _ in range(3))
        start = torch.full((1 + len(size.widths), 3), 1 / 3)
        start[0] = torch.tensor([0.0, 0.5, 0.5])
        self.weights = nn.Parameter(start)
        width = size.widths[-1]
        self.cat_head, self.first_head, self.second_head = (nn.Linear(width, CLASSES) for _ in range(3))
        self.pool = size.pool

    def forward(self, mix: Tensor) -> CentralOutput:
        mix = pooled_input(mix, self.pool)
        images = mix[:, :CHANNELS_PER_SEQUENCE], mix[:, CHANNELS_PER_SEQUENCE:]
        first, second = self.first(images[0]), self.second(images[1])
        _, one, two = self.weights[0]
        fused = self.central.stem(one * images[0] + two * images[1])
        for row, step, own, other in zip(self.weights[1:], self.central.stages, first, second, strict=True):
            fused = row[0] * step(fused) + row[1] * own + row[2] * other
        vector, one, two = averages([fused, first[-1], second[-1]])
        return {
            "vector": vector,
            "cat": self.cat_head(vector),
            "first": self.first_head(one),
            "second": self.second_head(two),
        }


def build_marker_network(settings: MarkerNetwork) -> nn.Module:
    """The network, Kaiming initialised."""
    if isinstance(settings, KiNetSettings):
        return build_kinet(settings)
    network = _baseline(settings)
    return network.apply(kaiming)


def _baseline(settings: MarkerBaseline) -> nn.Module:
    size, inputs = settings.size, len(settings.channels)
    if settings.architecture == "CentralNet":
        return CentralNet(size)
    if settings.architecture == "frozen trunk":
        # two sequences, mean and deviation
        length = 2 * 2 * sum(STAGES[number][-1] for number in READ_STAGES)
        return OneHead(FrozenTrunk(), length, settings.channels, size.pool)
    trunk: nn.Module
    if settings.architecture == "ResNet-50":
        trunk = _resnet(inputs, size)
    elif settings.architecture == "ResNeSt-50":
        trunk = ResNeStTrunk(inputs, size)
    elif settings.architecture == "ResNet-50, middle fusion":
        trunk = _middle(size)
    else:
        raise GliomarkError(f"There is no marker network called {settings.architecture!r}.")
    return OneHead(trunk, size.widths[-1], settings.channels, size.pool)


def _resnet(inputs: int, size: KiNetSize) -> ResNet:
    """He et al. 2016, MONAI's, without the last layer: ``(B, inputs, H, W)`` to ``(B, last width)``."""
    planes = [width // 4 for width in size.widths]
    return ResNet(
        "bottleneck",
        list(size.blocks),
        planes,
        2,
        inputs,
        conv1_t_size=7,
        conv1_t_stride=2,
        feed_forward=False,
    )


def _middle(size: KiNetSize) -> MiddleFusion:
    first, second, whole = (_resnet(CHANNELS_PER_SEQUENCE, size) for _ in range(3))
    one, two = (nn.Sequential(r.conv1, r.bn1, r.act, r.maxpool, r.layer1, r.layer2) for r in (first, second))
    mix = nn.Conv2d(2 * size.widths[1], size.widths[1], 1)
    return MiddleFusion(one, two, mix, nn.Sequential(whole.layer3, whole.layer4))


def start_from_imagenet(network: nn.Module) -> None:
    """Fill the network's frozen trunk with ImageNet weights.

    Raises GliomarkError where it has no such trunk or the weights are not installed.
    """
    trunk = getattr(network, "trunk", None)
    if not isinstance(trunk, FrozenTrunk):
        raise GliomarkError("Of the marker networks only the frozen trunk can have ImageNet weights.")
    fill_from_imagenet(trunk.stem, trunk.stages)


def marker_network_record(settings: MarkerNetwork) -> dict[str, Any]:
    """The settings as a card holds them."""
    return {"architecture": "KiNet", **asdict(settings)}


def marker_network_settings(record: Mapping[str, Any]) -> MarkerNetwork:
    """The settings from a card; the inverse of ``marker_network_record``. Raises ValueError for no such record."""
    size = record.get("size")
    # a card of gliomark 0.1 does not say how its ResNeSt halves the resolution: by a strided convolution
    stated = (
        {**record, "size": {"average_down": False, **size}} if isinstance(size, Mapping) else dict(record)
    )
    if stated.get("architecture", "KiNet") == "KiNet":
        stated.pop("architecture", None)
        return checked(KiNetSettings, stated)
    return checked(MarkerBaseline, stated)

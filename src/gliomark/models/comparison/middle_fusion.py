"""Middle fusion of two sequences by ResNet-50 (table 4-3). Tensors only."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from pydantic import with_config
from torch import Tensor, nn

from gliomark.models.comparison.resnet50 import build_resnet_backbone
from gliomark.models.entries import GradCam, GradCamBranch, MarkerEntry
from gliomark.models.network_io import (
    ALL_CHANNELS,
    CHANNELS_PER_SEQUENCE,
    ChannelIndices,
    SingleHeadNetwork,
    average_globally,
    initialise_kaiming,
)
from gliomark.models.published.kinet import SMALL_KINET_SIZE, KiNetSize
from gliomark.models.validated_types import STRICT_CONFIG


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class MiddleFusionSettings:
    """Settings of middle fusion. channels: all four channels of MIX; size: as KiNet's."""

    channels: ChannelIndices = ALL_CHANNELS
    size: KiNetSize = field(default_factory=KiNetSize)


class MiddleFusionBackbone(nn.Module):
    """Middle fusion (table 4-3): the first half of a ResNet per sequence, and a common second half.

    The two features are concatenated, and a 1x1 convolution maps them back to the channels of one.
    """

    def __init__(self, first: nn.Module, second: nn.Module, mix: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.mix, self.rest = first, second, mix, rest

    def forward(self, image: Tensor) -> Tensor:
        """Return the pooled feature ``(B, D)`` of MIX ``(B, 4, H, W)``."""
        features = [
            self.first(image[:, :CHANNELS_PER_SEQUENCE]),
            self.second(image[:, CHANNELS_PER_SEQUENCE:]),
        ]
        return average_globally([self.rest(self.mix(torch.cat(features, dim=1)))])[0]


def _build_backbone(size: KiNetSize) -> MiddleFusionBackbone:
    first, second, whole = (build_resnet_backbone(CHANNELS_PER_SEQUENCE, size) for _ in range(3))
    one, two = (nn.Sequential(r.conv1, r.bn1, r.act, r.maxpool, r.layer1, r.layer2) for r in (first, second))
    mix = nn.Conv2d(2 * size.widths[1], size.widths[1], 1)
    return MiddleFusionBackbone(one, two, mix, nn.Sequential(whole.layer3, whole.layer4))


def build_middle_fusion(settings: MiddleFusionSettings) -> SingleHeadNetwork:
    """Build middle fusion from its settings, with Kaiming initialisation."""
    size = settings.size
    network = SingleHeadNetwork(_build_backbone(size), size.widths[-1], settings.channels, size.pool)
    return network.apply(initialise_kaiming)


# the sequences share their layers from stage 3 on
_LAYERS = (None, None, "trunk.rest.0", "trunk.rest.1")
ENTRY = MarkerEntry(
    name="Middle fusion",
    reference="He et al. 2016 (backbone)",
    recipes={"published": MiddleFusionSettings(), "small": MiddleFusionSettings(size=SMALL_KINET_SIZE)},
    build=build_middle_fusion,
    get_vector_length=lambda settings: settings.size.widths[-1],
    grad_cam=lambda settings: GradCam((GradCamBranch("whole", "logits", _LAYERS),)),
    recorded_as="ResNet-50, middle fusion",
)

"""ResNet-50 (He et al. 2016) on selected channels of MIX (tables 4-2 to 4-4), from MONAI. Tensors only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import with_config

from gliomark.models.entries import GradCam, GradCamBranch, MarkerEntry
from gliomark.models.network_io import (
    ALL_CHANNELS,
    ChannelIndices,
    SingleHeadNetwork,
    initialise_kaiming,
)
from gliomark.models.published.kinet import SMALL_KINET_SIZE, KiNetSize
from gliomark.models.validated_types import STRICT_CONFIG

if TYPE_CHECKING:
    from monai.networks.nets.resnet import ResNet


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class ResNet50Settings:
    """Settings of ResNet-50. channels: indices of the MIX channels it uses; size: as KiNet's."""

    channels: ChannelIndices = ALL_CHANNELS
    size: KiNetSize = field(default_factory=KiNetSize)


def build_resnet_backbone(in_channels: int, size: KiNetSize) -> ResNet:
    """Build MONAI's ResNet (He et al. 2016) without its last layer: ``(B, in_channels, H, W)`` to ``(B, D)``."""
    from monai.networks.nets.resnet import ResNet  # takes seconds to import

    planes = [width // 4 for width in size.widths]
    return ResNet(
        "bottleneck",
        list(size.blocks),
        planes,
        2,
        in_channels,
        conv1_t_size=7,
        conv1_t_stride=2,
        feed_forward=False,
    )


def build_resnet50(settings: ResNet50Settings) -> SingleHeadNetwork:
    """Build ResNet-50 from its settings, with Kaiming initialisation."""
    size = settings.size
    backbone = build_resnet_backbone(len(settings.channels), size)
    network = SingleHeadNetwork(backbone, size.widths[-1], settings.channels, size.pool)
    return network.apply(initialise_kaiming)


_LAYERS = tuple(f"trunk.layer{stage}" for stage in (1, 2, 3, 4))
ENTRY = MarkerEntry(
    name="ResNet-50",
    reference="He et al. 2016",
    recipes={"published": ResNet50Settings(), "small": ResNet50Settings(size=SMALL_KINET_SIZE)},
    build=build_resnet50,
    get_vector_length=lambda settings: settings.size.widths[-1],
    grad_cam=lambda settings: GradCam((GradCamBranch("whole", "logits", _LAYERS),)),
)

"""ResNeSt-50 (Zhang et al. 2020) on selected channels of MIX (table 4-4). Tensors only."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import with_config
from torch import Tensor, nn

from gliomark.models.entries import GradCam, GradCamBranch, MarkerEntry
from gliomark.models.network_io import (
    ALL_CHANNELS,
    ChannelIndices,
    SingleHeadNetwork,
    average_globally,
    initialise_kaiming,
)
from gliomark.models.published.kinet import (
    SMALL_KINET_SIZE,
    KiNetSize,
    ResNeStBranch,
    use_strided_convolutions,
)
from gliomark.models.validated_types import STRICT_CONFIG


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class ResNeSt50Settings:
    """Settings of ResNeSt-50. channels: indices of the MIX channels it uses; size: as KiNet's."""

    channels: ChannelIndices = ALL_CHANNELS
    size: KiNetSize = field(default_factory=KiNetSize)


class ResNeStBackbone(nn.Module):
    """ResNeSt's stem and four stages (Zhang et al. 2020) with global average pooling of the last."""

    def __init__(self, in_channels: int, size: KiNetSize) -> None:
        super().__init__()
        self.branch = ResNeStBranch(in_channels, size)

    def forward(self, image: Tensor) -> Tensor:
        """Return the pooled feature ``(B, D)`` of images ``(B, C, H, W)``."""
        return average_globally(self.branch(image)[-1:])[0]


def build_resnest50(settings: ResNeSt50Settings) -> SingleHeadNetwork:
    """Build ResNeSt-50 from its settings, with Kaiming initialisation."""
    size = settings.size
    backbone = ResNeStBackbone(len(settings.channels), size)
    network = SingleHeadNetwork(backbone, size.widths[-1], settings.channels, size.pool)
    return network.apply(initialise_kaiming)


_LAYERS = tuple(f"trunk.branch.stages.{level}" for level in range(4))
ENTRY = MarkerEntry(
    name="ResNeSt-50",
    reference="Zhang et al. 2020",
    recipes={"published": ResNeSt50Settings(), "small": ResNeSt50Settings(size=SMALL_KINET_SIZE)},
    build=build_resnest50,
    get_vector_length=lambda settings: settings.size.widths[-1],
    grad_cam=lambda settings: GradCam((GradCamBranch("whole", "logits", _LAYERS),)),
    upgrade_record=use_strided_convolutions,
)

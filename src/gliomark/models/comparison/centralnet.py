"""CentralNet (Vielzeuf et al. 2018) of ResNeSt stages (table 4-4, figure 4-7). Tensors only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from pydantic import with_config
from torch import Tensor, nn

from gliomark.models.entries import GradCam, GradCamBranch, MarkerEntry
from gliomark.models.network_io import (
    ALL_CHANNELS,
    CHANNELS_PER_SEQUENCE,
    CLASS_COUNT,
    ChannelIndices,
    MarkerOutput,
    average_globally,
    average_pool_input,
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
class CentralNetSettings:
    """Settings of CentralNet. channels: all four channels of MIX; size: as KiNet's."""

    channels: ChannelIndices = ALL_CHANNELS
    size: KiNetSize = field(default_factory=KiNetSize)


class CentralNetOutput(MarkerOutput):
    """Output of CentralNet, with the logits ``(B, 2)`` of both sequences' branches."""

    first_logits: Tensor
    second_logits: Tensor


class CentralNet(nn.Module):
    """CentralNet (Vielzeuf et al. 2018) with ResNeSt stages: a central branch adds weighted features of both branches.

    ``weights`` ``(5, 3)`` (rows: input and four stages; columns: central, first, second) are learnt and start uniform;
    the input row has no central feature. KiNet's fusion points were chosen from these weights (figure 4-7).
    """

    def __init__(self, size: KiNetSize) -> None:
        super().__init__()
        self.first, self.central, self.second = (ResNeStBranch(CHANNELS_PER_SEQUENCE, size) for _ in range(3))
        initial_weights = torch.full((1 + len(size.widths), 3), 1 / 3)
        initial_weights[0] = torch.tensor([0.0, 0.5, 0.5])
        self.weights = nn.Parameter(initial_weights)
        width = size.widths[-1]
        self.cat_head, self.first_head, self.second_head = (nn.Linear(width, CLASS_COUNT) for _ in range(3))
        self.pooling_factor = size.pool

    def forward(self, mix: Tensor) -> CentralNetOutput:
        """Return the output of all three heads for MIX ``(B, 4, H, W)``."""
        mix = average_pool_input(mix, self.pooling_factor)
        images = mix[:, :CHANNELS_PER_SEQUENCE], mix[:, CHANNELS_PER_SEQUENCE:]
        first, second = self.first(images[0]), self.second(images[1])
        _, one, two = self.weights[0]
        fused = self.central.stem(one * images[0] + two * images[1])
        for row, step, own, other in zip(self.weights[1:], self.central.stages, first, second, strict=True):
            fused = row[0] * step(fused) + row[1] * own + row[2] * other
        vector, one, two = average_globally([fused, first[-1], second[-1]])
        return {
            "image_vector": vector,
            "logits": self.cat_head(vector),
            "first_logits": self.first_head(one),
            "second_logits": self.second_head(two),
        }


def _list_branches() -> tuple[GradCamBranch, ...]:
    """List the branches: one per sequence, explained by its own head, and the central one, by the final output."""
    layers = {
        name: tuple(f"{name}.stages.{level}" for level in range(4)) for name in ("first", "second", "central")
    }
    return (
        GradCamBranch("first", "first_logits", layers["first"], 0),
        GradCamBranch("second", "second_logits", layers["second"], 1),
        GradCamBranch("central", "logits", layers["central"]),
    )


ENTRY = MarkerEntry(
    name="CentralNet",
    reference="Vielzeuf et al. 2018",
    recipes={"published": CentralNetSettings(), "small": CentralNetSettings(size=SMALL_KINET_SIZE)},
    build=lambda settings: CentralNet(settings.size).apply(initialise_kaiming),
    get_vector_length=lambda settings: settings.size.widths[-1],
    grad_cam=lambda settings: GradCam(_list_branches()),
    loss="branches",
    read_fusion_weights=lambda network: cast(CentralNet, network).weights.tolist(),
    upgrade_record=use_strided_convolutions,
)

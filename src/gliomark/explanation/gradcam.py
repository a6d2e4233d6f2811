"""Grad-CAM (Selvaraju et al. 2017) of KiNet's branches: which pixels speak for the positive class."""

from __future__ import annotations

from typing import Literal

import torch
from monai.visualize.class_activation_maps import GradCAM
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models.kinet import KiNet
from gliomark.study import GliomarkError

Branch = Literal["first", "master", "second"]
BRANCHES: tuple[Branch, ...] = ("first", "master", "second")
POSITIVE = 1


class _Answer(nn.Module):
    """KiNet answering with one head alone, as Grad-CAM wants it."""

    def __init__(self, network: KiNet, head: str) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, mix: Tensor) -> Tensor:
        return self.network(mix)[self.head]


def branch_map(network: KiNet, mix: Tensor, branch: Branch, stage: int) -> Tensor:
    """``(B, 4, H, W)`` to ``(B, H, W)`` in 0 to 1: what in a stage's features speaks for the positive class.

    branch: "master" is asked by the answer that counts, an auxiliary ("first", "second": the sequences)
    by its own head, since its last stages reach no other. stage: 1 the finest to 4 the coarsest; the
    master's first needs Merge-IN. The network stays in evaluation mode. A slice where nothing speaks for
    the positive class is 0 everywhere. Raises GliomarkError for the first stage of a master without Merge-IN.
    """
    head = "cat" if branch == "master" else branch
    if branch == "master" and stage == 1 and network.master is None:
        raise GliomarkError("This network's master has no first stage of its own; ask for stage 2, 3 or 4.")
    if branch == "master":
        layer = "network.master" if stage == 1 else f"network.master_stages.{stage - 2}"
    else:
        layer = f"network.{branch}.stages.{stage - 1}"
    asked = GradCAM(_Answer(network.eval(), head), target_layers=layer)
    with torch.enable_grad():
        coarse = asked.compute_map(mix.requires_grad_(), class_idx=POSITIVE).detach()
    found = F.interpolate(coarse, size=mix.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return found / found.flatten(1).amax(dim=1).clamp(min=1e-12)[:, None, None]

"""Grad-CAM (Selvaraju et al. 2017) of a marker network's branches: which pixels speak for the positive class."""

from __future__ import annotations

from monai.visualize.class_activation_maps import GradCAM
from torch import Tensor, enable_grad, nn
from torch.nn import functional as F

from gliomark.models.kinet import KiNet
from gliomark.models.marker_networks import CentralNet, MiddleFusion, OneHead, ResNeStTrunk, SharedTrunk
from gliomark.study import GliomarkError

POSITIVE = 1
# the shared trunk's stages of strides 4, 8, 16 and 32
SHARED_STAGES = (1, 2, 4, 6)


class _Answer(nn.Module):
    """The network answering with one head alone, as Grad-CAM wants it."""

    def __init__(self, network: nn.Module, head: str) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, mix: Tensor) -> Tensor:
        return self.network(mix)[self.head]


def branches_of(network: nn.Module) -> tuple[str, ...]:
    """The branches that ``branch_map`` knows of a network; "first" and "second" are the sequences' own."""
    if isinstance(network, KiNet):
        return ("first", "second", "master")
    if isinstance(network, CentralNet):
        return ("first", "second", "central")
    return ("first", "second") if isinstance(getattr(network, "trunk", None), SharedTrunk) else ("whole",)


def branch_map(network: nn.Module, mix: Tensor, branch: str, stage: int) -> Tensor:
    """``(B, 4, H, W)`` to ``(B, H, W)`` in 0 to 1: what in a stage's features speaks for the positive class.

    branch: one of ``branches_of``. KiNet's and CentralNet's middle branch is asked by the answer that counts, an
    auxiliary by its own head, since its last stages reach no other. stage: 1 the finest to 4 the coarsest. The
    network stays in evaluation mode. A slice where nothing speaks for the positive class is 0 everywhere. Raises
    GliomarkError for a stage that the network has not: the first of a master without Merge-IN, the first two of
    middle fusion.
    """
    head, layer = _target(network, branch, stage)
    # evaluation mode is the wrapper's too, to which MONAI returns the network afterwards
    asked = GradCAM(_Answer(network, head).eval(), target_layers=f"network.{layer}")
    with enable_grad():
        coarse = asked.compute_map(mix.requires_grad_(), class_idx=POSITIVE).detach()
    if isinstance(getattr(network, "trunk", None), SharedTrunk):
        # both sequences went through as one batch
        coarse = coarse.unflatten(0, (len(mix), -1))[:, branches_of(network).index(branch)]
    found = F.interpolate(coarse, size=mix.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return found / found.flatten(1).amax(dim=1).clamp(min=1e-12)[:, None, None]


def _target(network: nn.Module, branch: str, stage: int) -> tuple[str, str]:
    """The head to ask and the layer to look at."""
    if branch not in branches_of(network):
        raise GliomarkError(
            f"This network has no branch '{branch}'; it has {', '.join(branches_of(network))}."
        )
    if isinstance(network, OneHead):
        return "cat", f"trunk.{_trunk_layer(network.trunk, stage)}"
    if branch == "master" and stage == 1 and isinstance(network, KiNet) and network.master is None:
        raise GliomarkError("This network's master has no first stage of its own; ask for stage 2, 3 or 4.")
    if branch == "master":
        return "cat", "master" if stage == 1 else f"master_stages.{stage - 2}"
    return "cat" if branch == "central" else branch, f"{branch}.stages.{stage - 1}"


def _trunk_layer(trunk: nn.Module, stage: int) -> str:
    if isinstance(trunk, SharedTrunk):
        return f"stages.{SHARED_STAGES[stage - 1]}"
    if isinstance(trunk, ResNeStTrunk):
        return f"branch.stages.{stage - 1}"
    if isinstance(trunk, MiddleFusion):
        if stage < 3:
            raise GliomarkError("Middle fusion has one trunk from stage 3 on; ask for stage 3 or 4.")
        return f"rest.{stage - 3}"
    return f"layer{stage}"

"""Grad-CAM (Selvaraju et al. 2017) of a marker network's branches: which pixels speak for the positive class.

The frozen trunk's is HiResCAM (Draelos and Carin 2020), gradient times feature pixel by pixel: it pools deviations,
whose gradients average to nothing.
"""

from __future__ import annotations

from monai.visualize.class_activation_maps import GradCAM
from torch import Tensor, enable_grad, nn
from torch.nn import functional as F

from gliomark.models.kinet import KiNet
from gliomark.models.marker_networks import (
    POOLED_STAGES,
    CentralNet,
    LesionPooledFeatures,
    MiddleFusionBackbone,
    ResNeStBackbone,
    SingleHeadNetwork,
    extract_lesion_mask,
)
from gliomark.study import GliomarkError

POSITIVE_CLASS = 1


class _HeadSelector(nn.Module):
    """The network answering with one head alone, as Grad-CAM wants it."""

    def __init__(self, network: nn.Module, head: str) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, mix: Tensor) -> Tensor:
        return self.network(mix)[self.head]


def list_branches(network: nn.Module) -> tuple[str, ...]:
    """The branches that ``branch_map`` knows of a network; "first" and "second" are the sequences' own."""
    if isinstance(network, KiNet):
        return ("first", "second", "master")
    if isinstance(network, CentralNet):
        return ("first", "second", "central")
    return ("first", "second", "both") if _uses_lesion_pooled_features(network) else ("whole",)


def _uses_lesion_pooled_features(network: nn.Module) -> bool:
    return isinstance(getattr(network, "trunk", None), LesionPooledFeatures)


class _HiResCAM(GradCAM):
    def compute_map(self, x, class_idx=None, retain_graph=False, layer_idx=-1, **kwargs):  # type: ignore[override]
        _, features, gradients = self.nn_module(x, class_idx=class_idx, retain_graph=retain_graph, **kwargs)
        return F.relu((features[layer_idx] * gradients[layer_idx]).sum(dim=1, keepdim=True))


def compute_branch_map(network: nn.Module, mix: Tensor, branch: str, stage: int) -> Tensor:
    """``(B, 4, H, W)`` to ``(B, H, W)`` in 0 to 1: what in a stage's features speaks for the positive class.

    branch: one of ``branches_of``. KiNet's and CentralNet's middle branch is asked by the answer that counts, an
    auxiliary by its own head, since its last stages reach no other. stage: 1 the finest to 4 the coarsest (of the
    frozen trunk 2). The network stays in evaluation mode. A slice where nothing speaks for the positive class is 0
    everywhere. Raises GliomarkError for a stage that the network has not: the first of a master without Merge-IN,
    the first two of middle fusion.
    """
    head, layer = _find_head_and_layer(network, branch, stage)
    # evaluation mode is the wrapper's too, to which MONAI returns the network afterwards
    cam_class = _HiResCAM if _uses_lesion_pooled_features(network) else GradCAM
    cam = cam_class(_HeadSelector(network, head).eval(), target_layers=f"network.{layer}")
    with enable_grad():
        coarse_map = cam.compute_map(mix.requires_grad_(), class_idx=POSITIVE_CLASS).detach()
    if _uses_lesion_pooled_features(network):
        # both sequences went through as one batch
        sequence_maps = coarse_map.unflatten(0, (len(mix), -1))
        coarse_map = (
            sequence_maps.sum(dim=1)
            if branch == "both"
            else sequence_maps[:, list_branches(network).index(branch)]
        )
    branch_map = F.interpolate(coarse_map, size=mix.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    if _uses_lesion_pooled_features(network):
        # of a coarse pixel on the edge it reads the lesion's part
        branch_map = branch_map * extract_lesion_mask(mix.detach())[:, 0]
    return branch_map / branch_map.flatten(1).amax(dim=1).clamp(min=1e-12)[:, None, None]


def _find_head_and_layer(network: nn.Module, branch: str, stage: int) -> tuple[str, str]:
    """The head to ask and the layer to look at."""
    if branch not in list_branches(network):
        raise GliomarkError(
            f"This network has no branch '{branch}'; it has {', '.join(list_branches(network))}."
        )
    if isinstance(network, SingleHeadNetwork):
        return "cat", f"trunk.{_find_trunk_layer(network.trunk, stage)}"
    if branch == "master" and stage == 1 and isinstance(network, KiNet) and network.master is None:
        raise GliomarkError("This network's master has no first stage of its own; ask for stage 2, 3 or 4.")
    if branch == "master":
        return "cat", "master" if stage == 1 else f"master_stages.{stage - 2}"
    return "cat" if branch == "central" else branch, f"{branch}.stages.{stage - 1}"


def _find_trunk_layer(trunk: nn.Module, stage: int) -> str:
    if isinstance(trunk, LesionPooledFeatures):
        return f"stages.{POOLED_STAGES[min(stage, len(POOLED_STAGES)) - 1]}"
    if isinstance(trunk, ResNeStBackbone):
        return f"branch.stages.{stage - 1}"
    if isinstance(trunk, MiddleFusionBackbone):
        if stage < 3:
            raise GliomarkError("Middle fusion has one trunk from stage 3 on; ask for stage 3 or 4.")
        return f"rest.{stage - 3}"
    return f"layer{stage}"

"""Grad-CAM (Selvaraju et al. 2017) of a marker network's branches.

A map shows the pixels that raise the probability of the positive class. For lesion-pooled features of a pretrained
trunk, HiResCAM (Draelos and Carin 2020) is used, the pixelwise product of gradient and feature: these features
include standard deviations, whose gradients average to zero.
"""

from __future__ import annotations

from monai.visualize.class_activation_maps import GradCAM
from torch import Tensor, enable_grad, nn
from torch.nn import functional as F

from gliomark.errors import ConfigurationError
from gliomark.models.comparison.marker_networks import (
    POOLED_STAGES,
    CentralNet,
    LesionPooledFeatures,
    MiddleFusionBackbone,
    ResNeStBackbone,
    SingleHeadNetwork,
    extract_lesion_mask,
)
from gliomark.models.published.kinet import KiNet

POSITIVE_CLASS = 1


class _HeadSelector(nn.Module):
    """A network reduced to one output head, as MONAI's Grad-CAM requires."""

    def __init__(self, network: nn.Module, head: str) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, mix: Tensor) -> Tensor:
        return self.network(mix)[self.head]


def list_branches(network: nn.Module) -> tuple[str, ...]:
    """Return the branches of a network for ``compute_branch_map``; "first" and "second" use one sequence each."""
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
    """Compute the map of the pixels that raise the probability of the positive class.

    Parameters
    ----------
    network
        Marker network; it stays in evaluation mode.
    mix
        Input of the network, ``(B, 4, H, W)``.
    branch
        One of ``list_branches``. The middle branch of KiNet and CentralNet is explained by the final output, each
        other branch by its own auxiliary head, because its last stages do not reach the final output.
    stage
        From 1 (finest) to 4 (coarsest); a pretrained trunk has 2 stages.

    Returns
    -------
    Tensor
        ``(B, H, W)`` with values from 0 to 1; 0 everywhere on a slice without such pixels.

    Raises
    ------
    ConfigurationError
        If the network does not have the branch or the stage: a master without Merge-IN has no stage 1, middle fusion
        no stages 1 and 2.
    """
    head, layer = _find_head_and_layer(network, branch, stage)
    # MONAI restores the wrapper's mode afterwards, so the wrapper must be in evaluation mode as well
    cam_class = _HiResCAM if _uses_lesion_pooled_features(network) else GradCAM
    cam = cam_class(_HeadSelector(network, head).eval(), target_layers=f"network.{layer}")
    with enable_grad():
        coarse_map = cam.compute_map(mix.requires_grad_(), class_idx=POSITIVE_CLASS).detach()
    if _uses_lesion_pooled_features(network):
        # both sequences were computed as one batch
        sequence_maps = coarse_map.unflatten(0, (len(mix), -1))
        coarse_map = (
            sequence_maps.sum(dim=1)
            if branch == "both"
            else sequence_maps[:, list_branches(network).index(branch)]
        )
    branch_map = F.interpolate(coarse_map, size=mix.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    if _uses_lesion_pooled_features(network):
        # these features only use pixels inside the lesion
        branch_map = branch_map * extract_lesion_mask(mix.detach())[:, 0]
    return branch_map / branch_map.flatten(1).amax(dim=1).clamp(min=1e-12)[:, None, None]


def _find_head_and_layer(network: nn.Module, branch: str, stage: int) -> tuple[str, str]:
    """Return the output head to explain and the name of the layer."""
    if branch not in list_branches(network):
        raise ConfigurationError(
            f"This network has no branch '{branch}'; it has {', '.join(list_branches(network))}."
        )
    if isinstance(network, SingleHeadNetwork):
        return "logits", f"trunk.{_find_trunk_layer(network.trunk, stage)}"
    if branch == "master" and stage == 1 and isinstance(network, KiNet) and network.master is None:
        raise ConfigurationError("The master branch of this network has no stage 1; choose stage 2, 3 or 4.")
    if branch == "master":
        return "logits", "master" if stage == 1 else f"master_stages.{stage - 2}"
    return "logits" if branch == "central" else f"{branch}_logits", f"{branch}.stages.{stage - 1}"


def _find_trunk_layer(trunk: nn.Module, stage: int) -> str:
    if isinstance(trunk, LesionPooledFeatures):
        return f"stages.{POOLED_STAGES[min(stage, len(POOLED_STAGES)) - 1]}"
    if isinstance(trunk, ResNeStBackbone):
        return f"branch.stages.{stage - 1}"
    if isinstance(trunk, MiddleFusionBackbone):
        if stage < 3:
            raise ConfigurationError("Middle fusion has one trunk from stage 3 on; choose stage 3 or 4.")
        return f"rest.{stage - 3}"
    return f"layer{stage}"

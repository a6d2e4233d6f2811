"""Grad-CAM (Selvaraju et al. 2017) of a marker network's branches.

A map shows the pixels that raise the probability of the positive class. The entry of the network names its branches
and layers, and says where HiResCAM (Draelos and Carin 2020) is used.
"""

from __future__ import annotations

from typing import Any

from monai.visualize.class_activation_maps import GradCAM
from torch import Tensor, enable_grad, nn
from torch.nn import functional as F

from gliomark.errors import ConfigurationError
from gliomark.models.entries import GradCam, GradCamBranch
from gliomark.models.network_io import extract_lesion_mask
from gliomark.models.registry import find_marker_entry, get_network_settings

POSITIVE_CLASS = 1


class _HeadSelector(nn.Module):
    """A network reduced to one output head, as MONAI's Grad-CAM requires."""

    def __init__(self, network: nn.Module, head: str) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, mix: Tensor) -> Tensor:
        output: Tensor = self.network(mix)[self.head]
        return output


def describe_grad_cam(network: nn.Module) -> GradCam:
    """Return the branches of a network built by ``registry.build_marker_network``, and how their maps are computed.

    Raises
    ------
    ConfigurationError
        If no Grad-CAM is offered for the network.
    """
    settings = get_network_settings(network)
    entry = find_marker_entry(settings)
    if entry.grad_cam is None:
        raise ConfigurationError(f"{entry.name} has no Grad-CAM; choose a model with another marker network.")
    return entry.grad_cam(settings)


class _HiResCAM(GradCAM):
    def compute_map(  # type: ignore[override] # as in GradCAM, which does not keep to its base class either
        self,
        x: Tensor,
        class_idx: int | None = None,
        retain_graph: bool = False,
        layer_idx: int = -1,
        **kwargs: Any,
    ) -> Tensor:
        _, features, gradients = self.nn_module(x, class_idx=class_idx, retain_graph=retain_graph, **kwargs)
        return F.relu((features[layer_idx] * gradients[layer_idx]).sum(dim=1, keepdim=True))


def compute_branch_map(network: nn.Module, mix: Tensor, branch_name: str, stage: int) -> Tensor:
    """Compute the map of the pixels that raise the probability of the positive class.

    Parameters
    ----------
    network
        Marker network built by ``registry.build_marker_network``; it stays in evaluation mode.
    mix
        Input of the network, ``(B, 4, H, W)``.
    branch_name
        Name of one of the branches of ``describe_grad_cam``.
    stage
        From 1 (finest) to 4 (coarsest).

    Returns
    -------
    Tensor
        ``(B, H, W)`` with values from 0 to 1; 0 everywhere on a slice without such pixels.

    Raises
    ------
    ConfigurationError
        If the network does not have the branch or the stage.
    """
    grad_cam = describe_grad_cam(network)
    branch = _find_branch(grad_cam, branch_name)
    # MONAI restores the wrapper's mode afterwards, so the wrapper must be in evaluation mode as well
    cam_class = _HiResCAM if grad_cam.uses_hirescam else GradCAM
    layer = f"network.{_find_layer(branch, stage)}"
    cam = cam_class(_HeadSelector(network, branch.output).eval(), target_layers=layer)
    with enable_grad():
        coarse_map = cam.compute_map(mix.requires_grad_(), class_idx=POSITIVE_CLASS).detach()
    if grad_cam.is_sequence_batched:
        sequence_maps = coarse_map.unflatten(0, (len(mix), -1))
        coarse_map = (
            sequence_maps.sum(dim=1) if branch.sequence is None else sequence_maps[:, branch.sequence]
        )
    branch_map = F.interpolate(coarse_map, size=mix.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    if grad_cam.is_limited_to_lesion:
        branch_map = branch_map * extract_lesion_mask(mix.detach())[:, 0]
    return branch_map / branch_map.flatten(1).amax(dim=1).clamp(min=1e-12)[:, None, None]


def _find_branch(grad_cam: GradCam, name: str) -> GradCamBranch:
    branches = {branch.name: branch for branch in grad_cam.branches}
    if name not in branches:
        raise ConfigurationError(f"This network has no branch '{name}'; it has {', '.join(branches)}.")
    return branches[name]


def _find_layer(branch: GradCamBranch, stage: int) -> str:
    layers = dict(enumerate(branch.layers, start=1))
    layer = layers.get(stage)
    if layer is None:
        *rest, last = [str(number) for number, one in layers.items() if one is not None]
        stages = f"{', '.join(rest)} or {last}" if rest else last
        raise ConfigurationError(
            f"The {branch.name} branch of this network has no stage {stage}; choose stage {stages}."
        )
    return layer

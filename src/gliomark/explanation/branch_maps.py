"""Compute Grad-CAM maps of a marker classifier's branches on a patient's slices."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gliomark.explanation.gradcam import compute_branch_map, describe_grad_cam
from gliomark.inference.slice_classifier import (
    LesionSlices,
    SliceClassifier,
    compute_crop_index,
    extract_lesion_slices,
)
from gliomark.models.network_io import build_mix_input
from gliomark.study import SliceStack


def compute_branch_maps(
    network: nn.Module,
    classifier: SliceClassifier,
    stack: SliceStack,
    mask: NDArray[np.bool_],
    slice_indices: list[int],
    stage: int,
) -> dict[str, NDArray[np.float32]]:
    """Compute the Grad-CAM maps of the given slices by branch.

    network: the classifier's, from ``models.network_loading.load_marker_network``; mask: ``(slice, row, column)``. The
    maps are ``(S, 240, 240)`` with values from 0 to 1, for S slices; they are 0 outside the central crop that the
    classifier uses.
    """
    chosen = LesionSlices(tuple(slice_indices), tuple(slice_indices), (0.0,) * len(slice_indices))
    images, lesion = map(torch.from_numpy, extract_lesion_slices(stack, mask, chosen, classifier.sequences))
    return compute_slice_branch_maps(network, images, lesion, classifier.crop_size, stage)


def compute_slice_branch_maps(
    network: nn.Module, images: Tensor, lesion: Tensor, crop: int, stage: int
) -> dict[str, NDArray[np.float32]]:
    """Compute Grad-CAM maps by branch, ``(S, 240, 240)`` with values from 0 to 1.

    images: ``(S, 2, 240, 240)``. lesion: mask ``(S, 240, 240)``. crop: side of the central crop in pixels.
    """
    inner = compute_crop_index(images.shape[-1], crop)
    mixed_input = build_mix_input(images[inner][:, 0], images[inner][:, 1], lesion[inner])
    mixed_input = mixed_input.to(next(iter(network.state_dict().values())).device)
    maps: dict[str, NDArray[np.float32]] = {}
    for branch in describe_grad_cam(network).branches:
        full_map = torch.zeros(lesion.shape)
        full_map[inner] = compute_branch_map(network, mixed_input.clone(), branch.name, stage).cpu()
        maps[branch.name] = full_map.numpy()
    return maps

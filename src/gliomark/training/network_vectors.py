"""Compute the image vectors of a marker network in PyTorch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gliomark.inference.slice_classifier import compute_image_vectors
from gliomark.models.torch_inference import wrap_marker_network


def compute_network_vectors(
    network: nn.Module, images: Tensor, lesion: Tensor, crop_size: int
) -> NDArray[np.float32]:
    """Return the image vectors ``(S, D + 1)`` of a network of the registry, its log-odds last.

    images ``(S, 2, H, W)``; lesion mask ``(S, H, W)``; crop_size: side of the network's view in pixels.
    """
    arrays = (images.float().cpu().numpy(), lesion.float().cpu().numpy())
    return compute_image_vectors(wrap_marker_network(network), *arrays, crop_size)

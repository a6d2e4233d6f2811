"""Networks in PyTorch with the input and output of an engine: while they are trained, and as the engines' reference."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import cast

import torch
from torch import Tensor, nn

from gliomark.engines.torch_engine import TorchNetwork
from gliomark.models.network_io import LogitsOnly, MarkerOutput, SingleHeadNetwork, VectorAndLogits
from gliomark.models.registry import find_marker_entry, get_network_settings


def wrap_segmentation_network(network: nn.Module) -> TorchNetwork:
    """Return a segmentation network of the registry, as ``inference.segmenter.Segmenter`` runs it."""
    return TorchNetwork(LogitsOnly(network))


def wrap_marker_network(network: nn.Module) -> TorchNetwork:
    """Return a marker network of the registry, as ``inference.slice_classifier.SliceClassifier`` runs it.

    The vectors of a network whose features are never trained are kept, because they are the same in every fold and for
    every marker.
    """
    entry = find_marker_entry(get_network_settings(network))
    predict = _predict_with_cached_features if entry.has_frozen_features else entry.predict
    return TorchNetwork(VectorAndLogits(network, predict))


# vectors ``(D,)`` of frozen features, about 1 kB each, by a hash of weights and slice; the oldest are removed first
_VECTOR_CACHE: OrderedDict[bytes, Tensor] = OrderedDict()
_MAX_CACHED_VECTORS = 50_000


def _predict_with_cached_features(network: nn.Module, mix: Tensor) -> MarkerOutput:
    network = cast(SingleHeadNetwork, network)
    inputs = network.select_input(mix)
    weights = b"".join(value.cpu().numpy().tobytes() for value in network.trunk.state_dict().values())
    # devices differ in the last digits
    cache_key = blake2b(weights + str(inputs.device).encode()).digest()
    keys = [blake2b(one.numpy().tobytes(), digest_size=16, key=cache_key).digest() for one in inputs.cpu()]
    vectors = [_VECTOR_CACHE.get(key) for key in keys]
    missing = [index for index, vector in enumerate(vectors) if vector is None]
    for index, new_vector in zip(missing, network.trunk(inputs[missing]) if missing else (), strict=True):
        vectors[index] = _VECTOR_CACHE[keys[index]] = new_vector.clone()
    vector = torch.stack([one for one in vectors if one is not None])
    while len(_VECTOR_CACHE) > _MAX_CACHED_VECTORS:
        _VECTOR_CACHE.popitem(last=False)
    return {"image_vector": vector, "logits": network.cat_head(vector)}

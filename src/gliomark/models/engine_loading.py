"""Load the networks of a weights file into an engine.

Networks whose graph is packaged are loaded without PyTorch; others are built in PyTorch and converted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gliomark.engines import EngineNetwork, NetworkSource, check_pytorch, load_network
from gliomark.models.card import SEGMENTATION_PART
from gliomark.models.lightgbm_trees import load_trees
from gliomark.models.packaged_graphs import PackagedGraph, find_packaged_graph
from gliomark.models.weights import TREES_TENSOR, Weights

if TYPE_CHECKING:
    import lightgbm
    import openvino
    from torch import nn

LOGIT_TOLERANCE = 1e-3  # of an engine; a probability then differs by at most 0.0003
VECTOR_TOLERANCE = 1e-3  # of image vectors and logits
MIN_CONVERTED_WEIGHTS = 1_000_000  # the conversion of a smaller network takes longer than it saves


def load_segmentation_engine(
    weights: Weights, device: str = "cpu", engine: str | None = None, part: str = SEGMENTATION_PART
) -> tuple[EngineNetwork, int | None]:
    """Load a segmentation network of a weights file.

    Parameters
    ----------
    weights
        The weights.
    device, engine
        See ``engines.load_network``.
    part
        Prefix of its tensors: the first or the second segmentation network.

    Returns
    -------
    EngineNetwork
        From images ``(B, C, H, W)`` and theta ``(B, 2, 3)`` to logits ``(B, 2, H, W)``.
    int or None
        Its ``size_multiple``, see ``entries.SegmentationEntry``.

    Raises
    ------
    WeightsError
        If the file does not describe a valid network.
    ConfigurationError
        If the engine is unknown, or PyTorch is needed and not installed.
    """
    card = weights.card.get_segmentation(part)
    use, channels = card.segmentation, card.input_channels
    side = round(use.tile / use.pool)
    graph = find_packaged_graph(use.network, (channels, side, side))
    size_multiple = _get_size_multiple(weights, part) if graph is None else graph.size_multiple
    if size_multiple is not None and side % size_multiple:
        graph, size_multiple = None, None  # the graph takes only multiples
    tensors = weights.get_tensors(part)
    source = NetworkSource(
        "segmentation",
        f"{weights.sha256} {part}",
        lambda: _build_segmentation_module(weights, part),
        lambda: create_segmentation_inputs(channels, side),
        LOGIT_TOLERANCE,
        has_batch=True,
        is_size_free=size_multiple is not None,
        read_graph=_create_graph_reader(graph, tensors, weights, part),
        is_converted=_is_worth_converting(tensors),
        allows_bfloat16=True,
    )
    return load_network(source, device, engine), size_multiple


def load_marker_engine(
    weights: Weights, name: str, device: str = "cpu", engine: str | None = None
) -> tuple[EngineNetwork, lightgbm.Booster]:
    """Load the network and the trees of a marker.

    Parameters
    ----------
    weights
        The weights.
    name
        The marker.
    device, engine
        See ``engines.load_network``.

    Returns
    -------
    EngineNetwork
        From images ``(B, 2, H, W)`` and lesion masks ``(B, H, W)`` to image vectors ``(B, D)`` and logits ``(B, 2)``.
    lightgbm.Booster
        The trees.

    Raises
    ------
    WeightsError
        If the file does not describe a valid network or trees.
    ConfigurationError
        If the engine is unknown, or PyTorch is needed and not installed.
    """
    use = weights.card.markers[name].architecture
    graph = find_packaged_graph(use.network, (2, use.crop, use.crop))
    tensors = weights.get_tensors(name)
    tensors.pop(TREES_TENSOR, None)
    source = NetworkSource(
        "marker",
        f"{weights.sha256} {name}",
        lambda: _build_marker_module(weights, name),
        lambda: create_marker_inputs(use.crop),
        VECTOR_TOLERANCE,
        has_batch=True,
        read_graph=_create_graph_reader(graph, tensors, weights, name),
        is_converted=_is_worth_converting(tensors),
        allows_bfloat16=True,
    )
    network = load_network(source, device, engine)
    return network, load_trees(
        weights, name, _get_vector_length(weights, name) if graph is None else graph.vector_length
    )


def create_segmentation_inputs(channels: int, side: int) -> list[NDArray[np.float32]]:
    """Create example inputs of a segmentation network: images ``(2, C, side, side)`` and theta ``(2, 2, 3)``."""
    noise = np.random.default_rng(0).normal(size=(2, channels, side, side))
    return [noise.astype(np.float32), np.eye(2, 3, dtype=np.float32)[None].repeat(2, axis=0)]


def create_marker_inputs(side: int) -> list[NDArray[np.float32]]:
    """Create example inputs of a marker network: images ``(2, 2, side, side)`` and lesion masks ``(2, side, side)``."""
    noise = np.random.default_rng(0).normal(size=(2, 2, side, side)).astype(np.float32)
    lesion = np.zeros((2, side, side), np.float32)
    lesion[:, side // 4 : side // 2, side // 4 : side // 2] = 1
    return [noise, lesion]


def _is_worth_converting(tensors: Mapping[str, NDArray[Any]]) -> bool:
    return sum(tensor.size for tensor in tensors.values()) >= MIN_CONVERTED_WEIGHTS


def _create_graph_reader(
    graph: PackagedGraph | None, tensors: Mapping[str, NDArray[Any]], weights: Weights, part: str
) -> Callable[[], openvino.Model] | None:
    if graph is None:
        return None
    return lambda: graph.join_weights(tensors, weights.path, part)


# what follows imports PyTorch


def _get_size_multiple(weights: Weights, part: str) -> int | None:
    check_pytorch(part)
    from gliomark.models.network_loading import parse_segmentation_network
    from gliomark.models.registry import find_segmentation_entry

    return find_segmentation_entry(parse_segmentation_network(weights, part)).size_multiple


def _get_vector_length(weights: Weights, name: str) -> int:
    check_pytorch(name)
    from gliomark.models.network_loading import parse_marker_network
    from gliomark.models.registry import find_marker_entry

    settings = parse_marker_network(weights, name)
    return find_marker_entry(settings).get_vector_length(settings)


def _build_segmentation_module(weights: Weights, part: str) -> nn.Module:
    from gliomark.models.network_io import LogitsOnly
    from gliomark.models.network_loading import load_segmentation_network

    return LogitsOnly(load_segmentation_network(weights, part)).eval()


def _build_marker_module(weights: Weights, name: str) -> nn.Module:
    from gliomark.models.network_io import VectorAndLogits
    from gliomark.models.network_loading import load_marker_network
    from gliomark.models.registry import find_marker_entry, get_network_settings

    network = load_marker_network(weights, name)
    return VectorAndLogits(network, find_marker_entry(get_network_settings(network)).predict).eval()

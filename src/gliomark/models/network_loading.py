"""Build the networks of a weights file in PyTorch; raise WeightsError if the file does not describe valid ones.

A network is first built on the meta device, without memory for its weights, so that the card is checked against the
tensors before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gliomark.errors import DATA_ERRORS, GliomarkError, WeightsError
from gliomark.models.card import SEGMENTATION_PART, create_invalid_field_message
from gliomark.models.entries import NetworkSettings, SegmentationSettings
from gliomark.models.registry import (
    build_marker_network,
    build_segmentation_network,
    parse_marker_settings,
    parse_segmentation_settings,
)
from gliomark.models.tensor_checks import (
    ExpectedTensor,
    check_tensor_shapes,
    check_tensor_values,
    create_part_message,
)
from gliomark.models.weights import TREES_TENSOR, Weights

Settings = TypeVar("Settings")
RANDOM_INITIALISATION = (Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, Tensor.clamp_)


def load_segmentation_network(weights: Weights, part: str = SEGMENTATION_PART) -> nn.Module:
    """Build a segmentation network of a weights file, in evaluation mode; part: prefix of its tensors.

    Raises
    ------
    WeightsError
        If the card does not describe a valid network, or the tensors do not fit it.
    """
    settings = parse_segmentation_network(weights, part)
    channels = weights.card.get_segmentation(part).input_channels
    if settings.inputs != channels:
        reason = f"network.inputs: {settings.inputs}, but the network receives {channels}"
        field_path = _get_field_path(part)
        raise WeightsError(create_invalid_field_message(weights.path, ValueError(reason), *field_path))
    tensors = weights.get_tensors(part)
    return _build_with_weights(lambda: build_segmentation_network(settings), tensors, weights.path, part)


def load_marker_network(weights: Weights, name: str) -> nn.Module:
    """Build the network of a marker, in evaluation mode.

    Raises
    ------
    WeightsError
        If the card does not describe a valid network, or the tensors do not fit it.
    """
    settings = parse_marker_network(weights, name)
    tensors = weights.get_tensors(name)
    tensors.pop(TREES_TENSOR, None)
    return _build_with_weights(lambda: build_marker_network(settings), tensors, weights.path, name)


def parse_segmentation_network(weights: Weights, part: str = SEGMENTATION_PART) -> SegmentationSettings:
    """Parse the settings of a segmentation network. Raises WeightsError if they are not valid."""
    record = weights.card.get_segmentation(part).segmentation.network
    return _parse_settings(parse_segmentation_settings, record, weights.path, *_get_field_path(part))


def _get_field_path(part: str) -> tuple[str, ...]:
    """Return the path in the card of the settings of a segmentation network."""
    return ("segmentation",) if part == SEGMENTATION_PART else (part, "segmentation")


def parse_marker_network(weights: Weights, name: str) -> NetworkSettings:
    """Parse the settings of a marker's network. Raises WeightsError if they are not valid."""
    record = weights.card.markers[name].architecture.network
    return _parse_settings(parse_marker_settings, record, weights.path, "markers", name, "architecture")


def describe_tensors(network: nn.Module) -> dict[str, ExpectedTensor]:
    """Return type and shape of the tensors of a network by name."""
    return {
        name: ExpectedTensor(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in network.state_dict().items()
    }


def get_constants(network: nn.Module) -> dict[str, NDArray[Any]]:
    """Return the tensors, of any shape, of a network that are whole numbers, but for the counters of training."""
    return {
        name: tensor.numpy()
        for name, tensor in network.state_dict().items()
        if not tensor.is_floating_point() and not name.endswith("num_batches_tracked")
    }


def _parse_settings(
    parse: Callable[[Mapping[str, Any]], Settings], record: Mapping[str, Any], path: Path, *field_path: str
) -> Settings:
    try:
        return parse(record)
    except GliomarkError as error:
        raise WeightsError(
            create_part_message("weights-network", path, ".".join((*field_path, "network")), error)
        ) from None
    except ValueError as error:
        raise WeightsError(create_invalid_field_message(path, error, *field_path, "network")) from None


class _QuickConstruction(TorchFunctionMode):
    """Skip the random initialisation of a network whose weights are all read from a file.

    Indices are always computed on the CPU: on the meta device they, like the initialisation, would import PyTorch's
    compiler, which takes seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RANDOM_INITIALISATION:
            return args[0]
        if func is torch.arange:
            return func(*args, **{"device": "cpu", **(kwargs or {})})
        return func(*args, **kwargs or {})


def _build_with_weights(
    build_network: Callable[[], nn.Module], tensors: Mapping[str, NDArray[Any]], path: Path, part: str
) -> nn.Module:
    """Build a network and load its weights; it is in evaluation mode."""
    try:
        with torch.device("meta"), _QuickConstruction():
            expected = describe_tensors(build_network())
    except (GliomarkError, *DATA_ERRORS, AssertionError) as error:
        raise WeightsError(create_part_message("weights-network", path, part, error)) from None
    check_tensor_shapes(expected, tensors, path, part)
    try:
        with _QuickConstruction():
            network = build_network()
    except DATA_ERRORS as error:
        raise WeightsError(create_part_message("weights-network", path, part, error)) from None
    check_tensor_values(get_constants(network), tensors, path, part)
    network.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()})
    return network.eval()

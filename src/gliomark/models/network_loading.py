"""Build the networks and trees of a weights file; raise WeightsError if the file does not describe valid ones.

A network is first built on the meta device, without memory for its weights, so that the card is checked against the
tensors before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import lightgbm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gliomark.errors import DATA_ERRORS, GliomarkError, WeightsError
from gliomark.messages import message
from gliomark.models.card import (
    SEGMENTATION_PART,
    MarkerNetworkCard,
    SegmentationCard,
    create_invalid_field_message,
)
from gliomark.models.lightgbm_trees import parse_trees
from gliomark.models.registry import (
    build_marker_network,
    build_segmentation_network,
    find_marker_entry,
    parse_marker_settings,
    parse_segmentation_settings,
)
from gliomark.models.weights import TREES_TENSOR, Weights

MAX_NETWORK_BYTES = 2**30  # bytes of weights; the published KiNet needs 3e8
# buffers of batch normalisation: the variance, and a counter that only training uses
NON_NEGATIVE_BUFFERS = ("running_var", "num_batches_tracked")
LESION_FEATURE_COUNT = 9  # see ``inference.slice_classifier.compute_lesion_features``
Settings = TypeVar("Settings")


def load_segmentation_network(weights: Weights) -> tuple[nn.Module, SegmentationCard]:
    """Build the segmentation network of a weights file.

    Returns
    -------
    nn.Module
        The network, in evaluation mode.
    SegmentationCard
        Its inference settings.

    Raises
    ------
    WeightsError
        If the card does not describe a valid network, or the tensors do not fit it.
    """
    field_path, card = ("segmentation",), weights.card
    record = card.segmentation
    settings = _parse_settings(parse_segmentation_settings, record.network, weights.path, *field_path)
    in_channels = (2 if card.rule == "joint" else 1) * (1 + 2 * record.context)
    if settings.inputs != in_channels:
        reason = f"network.inputs: {settings.inputs}, but the network receives {in_channels}"
        raise WeightsError(create_invalid_field_message(weights.path, ValueError(reason), *field_path))
    tensors = weights.get_tensors(SEGMENTATION_PART)
    return _build_with_weights(
        lambda: build_segmentation_network(settings), tensors, weights.path, SEGMENTATION_PART
    ), record


def load_marker_network(weights: Weights, name: str) -> tuple[nn.Module, lightgbm.Booster, MarkerNetworkCard]:
    """Build the network and trees of a marker.

    Returns
    -------
    nn.Module
        The network, in evaluation mode.
    lightgbm.Booster
        Its trees.
    MarkerNetworkCard
        Its inference settings.

    Raises
    ------
    WeightsError
        If the card does not describe a valid network, or the tensors or trees do not fit it.
    """
    field_path, card = ("markers", name, "architecture"), weights.card.markers[name]
    record = card.architecture
    settings = _parse_settings(parse_marker_settings, record.network, weights.path, *field_path)
    tensors = weights.get_tensors(name)
    text = tensors.pop(TREES_TENSOR, torch.empty(0))
    network = _build_with_weights(lambda: build_marker_network(settings), tensors, weights.path, name)
    vector_length = find_marker_entry(settings).get_vector_length(settings)
    columns = {"vector": vector_length + 1, "log-odds": 1, "lesion": 1 + LESION_FEATURE_COUNT}[
        record.evidence
    ]
    try:
        trees = parse_trees(_decode_text(text), columns + (0 if card.age_cut is None else 2))
    except (ValueError, lightgbm.basic.LightGBMError) as error:
        raise WeightsError(_create_message("weights-trees", weights.path, name, error)) from None
    return network, trees, record


def _decode_text(tensor: Tensor) -> str:
    if tensor.dtype != torch.uint8 or tensor.ndim != 1:
        raise ValueError("the text of the trees is missing")
    return bytes(tensor.numpy()).decode("ascii")


def _parse_settings(
    parse: Callable[[Mapping[str, Any]], Settings], record: Mapping[str, Any], path: Path, *field_path: str
) -> Settings:
    try:
        return parse(record)
    except GliomarkError as error:
        raise WeightsError(
            _create_message("weights-network", path, ".".join((*field_path, "network")), error)
        ) from None
    except ValueError as error:
        raise WeightsError(create_invalid_field_message(path, error, *field_path, "network")) from None


class _SkipRandomInitialisation(TorchFunctionMode):
    """Skip the random initialisation of a network whose weights are all read from a file."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **kwargs or {})


def _build_with_weights(
    build_network: Callable[[], nn.Module], tensors: Mapping[str, Tensor], path: Path, part: str
) -> nn.Module:
    """Build a network and load its weights; it is in evaluation mode."""
    try:
        with torch.device("meta"), _SkipRandomInitialisation():
            expected = build_network().state_dict()
    except (GliomarkError, *DATA_ERRORS, AssertionError) as error:
        raise WeightsError(_create_message("weights-network", path, part, error)) from None
    _check_tensor_shapes(expected, tensors, path, part)
    try:
        with _SkipRandomInitialisation():
            network = build_network()
    except DATA_ERRORS as error:
        raise WeightsError(_create_message("weights-network", path, part, error)) from None
    _check_tensor_values(network, tensors, path, part)
    network.load_state_dict(tensors)
    return network.eval()


def _check_tensor_shapes(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path, part: str
) -> None:
    """Raise WeightsError unless exactly the network's tensors are present, with their shapes and types."""
    size = sum(tensor.numel() * tensor.itemsize for tensor in expected.values())
    if size > MAX_NETWORK_BYTES:
        raise WeightsError(_create_message("weights-network", path, part, f"{size / 1e9:.1f} GB of weights"))
    for names in (set(expected) - set(tensors), set(tensors) - set(expected)):
        if names:
            code = "weights-tensor-missing" if names & set(expected) else "weights-tensor-strange"
            raise WeightsError(message(code, path=path, names=_format_tensor_names(part, names)))
    for name, wanted in expected.items():
        found = tensors[name]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            parameters = {"found": _describe_tensor(found), "wanted": _describe_tensor(wanted)}
            raise WeightsError(
                message("weights-tensor-other", path=path, name=f"{part}/{name}", **parameters)
            )


def _check_tensor_values(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, part: str) -> None:
    """Raise WeightsError for a negative variance, and for a constant that differs from the network's."""
    for name, own in network.state_dict().items():
        found = tensors[name]
        if name.endswith(NON_NEGATIVE_BUFFERS):
            is_invalid = bool((found < 0).any())
        else:
            is_invalid = not own.is_floating_point() and not torch.equal(found, own)
        if is_invalid:
            raise WeightsError(message("weights-not-numbers", path=path, names=f"{part}/{name}"))


def _describe_tensor(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _format_tensor_names(part: str, names: set[str]) -> str:
    shown = ", ".join(f"{part}/{name}" for name in sorted(names)[:3])
    return shown[:200] + (f" (+{len(names) - 3})" if len(names) > 3 else "")


def _create_message(code: str, path: Path, part: str, reason: object) -> str:
    if isinstance(reason, GliomarkError):
        return message(code, path=path, part=part, reason=reason.message)
    return message(code, path=path, part=part, reason=" ".join(str(reason).split())[:160])

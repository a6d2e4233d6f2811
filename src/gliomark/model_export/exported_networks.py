"""The networks of a weights file, traced, with the inputs and outputs that prediction gives them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gliomark.errors import WeightsError
from gliomark.messages import message
from gliomark.models.card import SECOND_SEGMENTATION_PART, SEGMENTATION_PART
from gliomark.models.engine_loading import create_marker_inputs, create_segmentation_inputs
from gliomark.models.network_io import LogitsOnly, VectorAndLogits
from gliomark.models.network_loading import load_marker_network, load_segmentation_network
from gliomark.models.registry import find_marker_entry, find_segmentation_entry, get_network_settings
from gliomark.models.weights import Weights

# largest accepted difference between an exported network and ours, in logits and image vectors
OUTPUT_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class ExportedNetwork:
    """A network of a weights file.

    Attributes
    ----------
    name
        The part of the weights file: "segmentation", "second_segmentation" or the name of a marker.
    module
        The network in evaluation mode.
    example
        Its inputs; other inputs may have another number of samples, the first axis.
    input_names, output_names
        Names by which files and the description call them.
    size_multiple
        If not None, rows and columns of the first input may be any multiples of this number.
    description
        What the inputs and outputs are, and the settings around the network.
    """

    name: str
    module: nn.Module
    example: Sequence[NDArray[np.float32]]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    size_multiple: int | None
    description: Mapping[str, Any]

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The example inputs as tensors, ``(N, ...)``."""
        return tuple(map(torch.from_numpy, self.example))

    def compute_example_outputs(self) -> tuple[NDArray[np.float32], ...]:
        """Run the network on the example; arrays whose first axis is that of the inputs, ``(B, ...)``."""
        with torch.no_grad():
            outputs = self.module(*self.tensors)
        return tuple(one.numpy() for one in (outputs if isinstance(outputs, tuple) else (outputs,)))

    def trace(self) -> torch.jit.ScriptModule:
        """Trace the network by running it on the example."""
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tracing, whose result is compared
            return torch.jit.trace(self.module, self.tensors)  # type: ignore[no-any-return]


def check_outputs(
    name: str, found: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]
) -> None:
    """Check that the outputs ``(B, ...)`` of an exported file are ours.

    Raises
    ------
    WeightsError
        If they differ by more than ``OUTPUT_TOLERANCE``.
    """
    difference = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
    if not difference <= OUTPUT_TOLERANCE:
        raise WeightsError(message("export-differs", name=name, difference=difference))


def list_exported_networks(weights: Weights) -> list[ExportedNetwork]:
    """Build all networks of a weights file.

    Raises
    ------
    WeightsError
        If the file does not describe valid networks.
    """
    parts = [SEGMENTATION_PART]
    parts += [SECOND_SEGMENTATION_PART] if weights.card.second_segmentation is not None else []
    return [
        *(build_exported_segmentation(weights, part) for part in parts),
        *(_build_exported_marker(weights, name) for name in weights.card.markers),
    ]


def build_exported_segmentation(weights: Weights, part: str = SEGMENTATION_PART) -> ExportedNetwork:
    """Build a segmentation network; part: prefix of its tensors.

    Raises
    ------
    WeightsError
        If the file does not describe a valid network.
    """
    network, card = load_segmentation_network(weights, part), weights.card.get_segmentation(part)
    use = card.segmentation
    side = round(use.tile / use.pool)
    description = {
        "inputs": {
            "images": f"(B, {card.input_channels}, {side}, {side}): z-scored slices of 240 x 240 pixels of 1 mm, the "
            f"central {use.tile} x {use.tile} averaged to {side} x {side}",
            "theta": "(B, 2, 3): position of this view in the slice, [[w, 0, x], [0, h, y]] in units of the slice",
        },
        "outputs": {"logits": "(B, 2, H, W): background and lesion"},
        "channels": _name_channels(card.sequences, card.rule, use.context),
        "rule": card.rule,
        "mirror_averaged": use.flips,
        "threshold": card.segmentation_threshold,
        "smallest_lesion_ml": card.smallest_lesion_ml,
        "smallest_component_share": use.smallest_share,
    }
    return ExportedNetwork(
        part,
        LogitsOnly(network).eval(),
        create_segmentation_inputs(card.input_channels, side),
        ("images", "theta"),
        ("logits",),
        find_segmentation_entry(get_network_settings(network)).size_multiple,
        description,
    )


def _name_channels(sequences: Sequence[str], rule: str, context: int) -> list[str]:
    """Name the channels of a segmentation network, such as "T1C-1" for the slice below."""
    shown = sequences if rule == "joint" else ["one sequence"]
    steps = range(-context, context + 1)
    return [f"{name}{step:+d}" if step else name for name in shown for step in steps]


def _build_exported_marker(weights: Weights, name: str) -> ExportedNetwork:
    network, card = load_marker_network(weights, name), weights.card.markers[name]
    crop, sequences = card.architecture.crop, ", ".join(weights.card.sequences)
    description = {
        "inputs": {
            "images": f"(B, 2, {crop}, {crop}): the central pixels of z-scored slices, {sequences}",
            "lesion": f"(B, {crop}, {crop}): 0 and 1",
        },
        "outputs": {"image_vector": "(B, D)", "logits": f"(B, 2): {card.negative}, {card.positive}"},
        "trees": f"{name}.trees.txt",
        "tree_inputs": card.architecture.evidence,
        "age_cut": card.age_cut,
        "calibration": list(card.calibration),
        "threshold": card.threshold,
        "meaning": card.label,
    }
    return ExportedNetwork(
        name,
        VectorAndLogits(network, find_marker_entry(get_network_settings(network)).predict).eval(),
        create_marker_inputs(crop),
        ("images", "lesion"),
        ("image_vector", "logits"),
        None,
        description,
    )

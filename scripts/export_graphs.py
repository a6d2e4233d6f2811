"""Write the graphs that let predictions run without PyTorch.

These are the graphs without weights of all networks and recipes, and deepbet's networks with their weights. After a
change of a network: ``python -m scripts.export_graphs``, or with the network's name to renew only its graphs. A test
checks that the graphs are current.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gliomark.engines import NetworkSource
from gliomark.engines.graph_weights import separate_weights
from gliomark.engines.openvino_engine import trace_network
from gliomark.engines.openvino_library import openvino
from gliomark.model_loading import load_weights_by_name
from gliomark.models.engine_loading import create_marker_inputs, create_segmentation_inputs
from gliomark.models.network_io import LogitsOnly, VectorAndLogits
from gliomark.models.network_loading import describe_tensors, get_constants
from gliomark.models.packaged_graphs import PackagedGraph, write_packaged_graph
from gliomark.models.registry import (
    MARKER_NETWORKS,
    SEGMENTATION_NETWORKS,
    build_marker_network,
    build_segmentation_network,
    find_marker_entry,
    parse_marker_settings,
    to_network_record,
)
from gliomark.models.shipped_weights import SHIPPED_MODELS
from gliomark.preprocessing.deepbet_networks import (
    COARSE_SIDE,
    FINE_SIDE,
    GRAPH_FOLDER,
    build_deepbet_network,
    create_example_head,
)
from gliomark.training.markers import create_marker_config
from gliomark.training.segmentation import create_segmentation_config

PACKAGE = Path(__file__).resolve().parents[1] / "src/gliomark"
GRAPHS, DEEPBET_GRAPHS = PACKAGE / "models/graphs", PACKAGE / GRAPH_FOLDER


@dataclass(frozen=True, eq=False)
class ExportedNetwork:
    """An untrained network of a recipe, and how prediction calls it.

    Attributes
    ----------
    network
        The network of the registry, in evaluation mode.
    wrapped
        With the inputs and outputs of an engine.
    record
        Name and settings, as in a weights file.
    input_shape
        Channels, rows and columns of its first input.
    source
        Example inputs, and which sizes are free.
    size_multiple, vector_length
        See ``packaged_graphs.PackagedGraph``.
    """

    network: nn.Module
    wrapped: nn.Module
    record: Mapping[str, Any]
    input_shape: tuple[int, int, int]
    source: NetworkSource
    size_multiple: int | None = None
    vector_length: int = 0


def main() -> None:
    """Write all graphs and remove those of networks that no longer exist; arguments: only those of these names."""
    names = {"deepbet", *(entry.name for entry in (*SEGMENTATION_NETWORKS, *MARKER_NETWORKS))}
    if unknown := sorted(set(sys.argv[1:]) - names):
        sys.exit(f"No network is called {', '.join(unknown)}; the networks are {', '.join(sorted(names))}.")
    GRAPHS.mkdir(exist_ok=True)
    written = set()
    for build in list_networks():
        exported = build()
        if sys.argv[1:] and exported.source.name not in sys.argv[1:]:
            continue
        path = write_packaged_graph(GRAPHS, exported.record, exported.input_shape, export_graph(exported))
        written.add(path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB", file=sys.stderr)
    for name, side in (("bbox_model", COARSE_SIDE), ("model", FINE_SIDE)):
        if sys.argv[1:] in ([], ["deepbet"]):
            export_deepbet_network(name, side)
    if not sys.argv[1:]:
        for path in set(GRAPHS.glob("*.zip")) - written:
            path.unlink()


def list_networks() -> Iterator[Callable[[], ExportedNetwork]]:
    """List the networks of all recipes; each call builds one."""
    for entry in SEGMENTATION_NETWORKS:
        for recipe in entry.recipes:
            for sequence_count in (1, 2):
                yield lambda entry=entry, recipe=recipe, count=sequence_count: build_segmentation_export(
                    entry, recipe, count
                )
    for entry in MARKER_NETWORKS:
        for recipe in entry.recipes:
            config = create_marker_config(recipe, 1, entry)
            record, crop = _to_json(to_network_record(config.network)), config.augmentation.crop
            yield lambda record=record, crop=crop: build_marker_export(record, crop)
    for name in SHIPPED_MODELS:  # whose records may be those of an older version
        for marker in load_weights_by_name(name).card.markers.values():
            yield lambda marker=marker: build_marker_export(
                marker.architecture.network, marker.architecture.crop
            )


def build_segmentation_export(entry: Any, recipe: Any, sequence_count: int) -> ExportedNetwork:
    """Build the segmentation network of a recipe for one or two sequences per input."""
    config = create_segmentation_config(recipe, sequence_count, 1, entry)
    channels, side = config.network.inputs, round(config.augmentation.crop / config.pool)
    network = build_segmentation_network(config.network).eval()
    source = NetworkSource(
        entry.name,
        "",
        lambda: network,
        lambda: create_segmentation_inputs(channels, side),
        has_batch=True,
        is_size_free=entry.size_multiple is not None,
    )
    return ExportedNetwork(
        network,
        LogitsOnly(network).eval(),
        _to_json(to_network_record(config.network)),
        (channels, side, side),
        source,
        entry.size_multiple,
    )


def build_marker_export(record: Mapping[str, Any], crop: int) -> ExportedNetwork:
    """Build a marker network from its record in a weights file; crop: side of its view in pixels."""
    settings = parse_marker_settings(record)
    entry = find_marker_entry(settings)
    network = build_marker_network(settings).eval()
    source = NetworkSource(
        entry.name, "", lambda: network, lambda: create_marker_inputs(crop), has_batch=True
    )
    return ExportedNetwork(
        network,
        VectorAndLogits(network, entry.predict).eval(),
        record,
        (2, crop, crop),
        source,
        vector_length=entry.get_vector_length(settings),
    )


def export_graph(exported: ExportedNetwork) -> PackagedGraph:
    """Convert a network, after giving it other weights, and separate the weights from the graph."""
    _randomise_weights(exported.network)
    weights = {
        name: tensor.contiguous().numpy()
        for name, tensor in exported.network.state_dict().items()
        if tensor.is_floating_point()
    }
    model = trace_network(
        exported.wrapped,
        exported.source.create_inputs(),
        exported.source,
        lambda model: separate_weights(model, weights),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        topology, constants = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    return PackagedGraph(
        topology,
        constants,
        describe_tensors(exported.network),
        get_constants(exported.network),
        exported.size_multiple,
        exported.vector_length,
    )


def export_deepbet_network(name: str, side: int) -> None:
    """Convert one of deepbet's networks, for images of this number of voxels per axis."""
    inputs = [create_example_head(side)]
    source = NetworkSource(name, "", lambda: build_deepbet_network(name), lambda: inputs)
    model = trace_network(source.build(), inputs, source)
    openvino.save_model(model, DEEPBET_GRAPHS / f"{name}.xml", compress_to_fp16=False)


def _randomise_weights(network: nn.Module) -> None:
    """Give every weight a content of its own, by which the graph's constants are recognised."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) / 10)
            if name.endswith("running_var"):
                tensor += 1


def _to_json(record: Mapping[str, Any]) -> Mapping[str, Any]:
    converted: Mapping[str, Any] = json.loads(json.dumps(record))
    return converted


if __name__ == "__main__":
    main()

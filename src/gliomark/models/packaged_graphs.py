"""Graphs without weights of the networks of the registry, which run any weights file of their settings.

They are written by ``scripts/export_graphs.py`` from the networks in PyTorch, so that predictions need none.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gliomark.models.tensor_checks import ExpectedTensor, check_tensor_shapes, check_tensor_values

if TYPE_CHECKING:
    import openvino

GRAPH_FOLDER = "graphs"
TOPOLOGY, TOPOLOGY_CONSTANTS, TENSORS, CONSTANTS = "graph.xml", "graph.bin", "tensors.json", "constants.npz"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the same graph gives the same file


@dataclass(frozen=True, eq=False)
class PackagedGraph:
    """A network's graph without weights, and what its weights must be.

    Attributes
    ----------
    topology, topology_constants
        The graph as OpenVINO writes it, with an input per weight.
    tensors
        The network's tensors by name.
    constants
        Those that are whole numbers and the same in every weights file.
    size_multiple
        See ``entries.SegmentationEntry``.
    vector_length
        Length of a marker network's image vector.
    """

    topology: bytes
    topology_constants: bytes
    tensors: Mapping[str, ExpectedTensor]
    constants: Mapping[str, NDArray[Any]]
    size_multiple: int | None = None
    vector_length: int = 0

    def join_weights(
        self, weights: Mapping[str, NDArray[Any]], path: Path = Path(), part: str = ""
    ) -> openvino.Model:
        """Return the network with these weights, of any shape; path and part: of the weights file, for messages.

        Raises
        ------
        WeightsError
            If the weights do not fit.
        """
        from gliomark.engines.graph_weights import join_weights
        from gliomark.engines.openvino_library import openvino

        check_tensor_shapes(self.tensors, weights, path, part)
        check_tensor_values(self.constants, weights, path, part)
        model = openvino.Core().read_model(self.topology, self.topology_constants)
        join_weights(model, weights)
        return model


def find_packaged_graph(
    record: Mapping[str, Any], input_shape: tuple[int, ...], folder: Path | None = None
) -> PackagedGraph | None:
    """Find the graph of a network.

    Parameters
    ----------
    record
        Name and settings of the network, as in a weights file.
    input_shape
        Channels, rows and columns of its first input.
    folder
        Folder of graphs; None: the package's.

    Returns
    -------
    PackagedGraph or None
        None if there is none for these settings.
    """
    graphs = resources.files("gliomark") / "models" / GRAPH_FOLDER if folder is None else folder
    for shape in (
        input_shape,
        input_shape[:1],
    ):  # of a network that takes any size, only the channels are given
        file = graphs / _build_file_name(record, shape)
        if file.is_file():
            return _read_graph(file.read_bytes())
    return None


def write_packaged_graph(
    folder: Path, record: Mapping[str, Any], input_shape: tuple[int, ...], graph: PackagedGraph
) -> Path:
    """Write a graph for ``find_packaged_graph`` and return its path."""
    constants = io.BytesIO()
    np.savez(constants, **graph.constants)  # type: ignore[arg-type]
    description = {
        "network": record,
        "input_shape": input_shape,
        "size_multiple": graph.size_multiple,
        "vector_length": graph.vector_length,
        "tensors": {name: [one.dtype, one.shape] for name, one in graph.tensors.items()},
    }
    path = folder / _build_file_name(record, input_shape if graph.size_multiple is None else input_shape[:1])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, content in (
            (TOPOLOGY, graph.topology),
            (TOPOLOGY_CONSTANTS, graph.topology_constants),
            (TENSORS, json.dumps(description, indent=0).encode()),
            (CONSTANTS, constants.getvalue()),
        ):
            file.writestr(zipfile.ZipInfo(name, ZIP_DATE), content, zipfile.ZIP_DEFLATED, 9)
    return path


def _read_graph(content: bytes) -> PackagedGraph:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        description = json.loads(file.read(TENSORS))
        constants = np.load(io.BytesIO(file.read(CONSTANTS)))
        return PackagedGraph(
            file.read(TOPOLOGY),
            file.read(TOPOLOGY_CONSTANTS),
            {
                name: ExpectedTensor(dtype, tuple(shape))
                for name, (dtype, shape) in description["tensors"].items()
            },
            {name: constants[name] for name in constants.files},
            description["size_multiple"],
            description["vector_length"],
        )


def _build_file_name(record: Mapping[str, Any], shape: tuple[int, ...]) -> str:
    identity = json.dumps([record, shape], sort_keys=True)
    name = re.sub("[^a-z0-9]+", "-", str(record.get("architecture", "")).lower()).strip("-")[:40]
    return f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.zip"

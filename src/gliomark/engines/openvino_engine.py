"""Run networks with OpenVINO on the CPU, in single precision unless bfloat16 is requested."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gliomark.engines.graph_cache import compute_graph_key, get_cache_folder
from gliomark.engines.graph_rewriting import rewrite_graph
from gliomark.engines.network_source import FloatArray, NetworkSource, check_pytorch
from gliomark.engines.openvino_library import openvino
from gliomark.errors import ConfigurationError
from gliomark.files import FileWriteError, atomic_folder, remove_leftovers, remove_path
from gliomark.messages import message

if TYPE_CHECKING:
    from torch import nn

LOG = logging.getLogger(__name__)
CONVERSION_VERSION = "2"  # changes when the same network is converted differently
GRAPH_NAME = "network.xml"
# of the largest output; correct bfloat16 differs by less than 0.01, a faulty processor or library by far more
BFLOAT16_TOLERANCE = 0.05


class OpenVinoNetwork:
    """A converted network, ready to run, from one thread after the other.

    Parameters
    ----------
    model
        The converted network.
    cache_folder
        Folder for what OpenVINO compiles; None compiles anew every time.
    precision
        "f32" or "bf16".
    """

    def __init__(
        self,
        model: openvino.Model,
        cache_folder: Path | None = None,
        precision: str = "f32",
    ) -> None:
        self._model, self._cache_folder = model, cache_folder
        options: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": count_threads(),
        }
        if cache_folder is not None:
            options["CACHE_DIR"] = str(cache_folder)
        self._compiled = openvino.Core().compile_model(model, "CPU", options)
        self._lock = threading.Lock()

    def run(self, *inputs: FloatArray) -> tuple[FloatArray, ...]:
        """Run the network on its inputs, float32 of the converted shapes; return all its outputs."""
        with self._lock:
            request = self._compiled.create_infer_request()  # has its own outputs, which need no copy
            results = request.infer(list(inputs), share_inputs=True, share_outputs=True)
            outputs: tuple[FloatArray, ...] = tuple(results.values())
        return outputs

    def release_memory(self) -> None:
        """Release the memory of intermediate results, which is large for volumes and many slices."""
        with self._lock:
            self._compiled.release_memory()

    def reduce_precision(self, source: NetworkSource) -> OpenVinoNetwork:
        """Return the network in bfloat16, after a comparison with single precision on the example inputs.

        Raises
        ------
        ConfigurationError
            If the processor does not compute in bfloat16, or the outputs differ too much.
        """
        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigurationError(message("engine-no-bfloat16"))
        reduced = OpenVinoNetwork(self._model, self._cache_folder, "bf16")
        inputs = source.create_inputs()
        expected, found = self.run(*inputs), reduced.run(*inputs)
        difference = max(
            float(np.abs(one - other).max() / np.abs(one).max())
            for one, other in zip(expected, found, strict=True)
        )
        if not np.isfinite(difference):
            raise ConfigurationError(message("engine-bfloat16-no-number", name=source.name))
        if difference > BFLOAT16_TOLERANCE:
            raise ConfigurationError(
                message("engine-wrong-bfloat16", name=source.name, percent=100 * difference)
            )
        return reduced


def load_openvino_network(source: NetworkSource) -> OpenVinoNetwork:
    """Load a network from the cache; otherwise read its graph or convert it, and keep the result.

    Raises
    ------
    ConfigurationError
        If the network cannot be converted, or its output then differs from PyTorch's by more than the tolerance.
    """
    key = compute_graph_key(source.key, openvino.__version__, CONVERSION_VERSION)
    folder = get_cache_folder() / f"{source.name}-{key[:32]}"
    remove_leftovers(folder.parent)
    if (folder / GRAPH_NAME).exists():
        try:
            return OpenVinoNetwork(openvino.Core().read_model(folder / GRAPH_NAME), folder)
        except RuntimeError as error:  # a damaged file
            LOG.warning("%s is converted again: %s", source.name, " ".join(str(error).split())[:300])
            remove_path(folder)
    if source.read_graph is None:
        model = _convert_network(source)
    else:
        model = source.read_graph()
        rewrite_graph(model)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder, is_durable=False) as new:
            openvino.save_model(model, new / GRAPH_NAME, compress_to_fp16=False)
    except (FileWriteError, OSError) as error:  # the network runs all the same
        LOG.warning("%s is converted again every time: %s", source.name, error)
        return OpenVinoNetwork(model)
    return OpenVinoNetwork(model, folder)


def count_threads() -> int:
    """Return the number of threads for one network: ``$OMP_NUM_THREADS``, otherwise all processors of this process."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _convert_network(source: NetworkSource) -> openvino.Model:
    check_pytorch(source.name)
    from gliomark.engines.torch_engine import TorchNetwork

    network, inputs = source.build(), source.create_inputs()
    try:
        model = trace_network(network, inputs, source)
    except Exception as error:  # OpenVINO raises many kinds of them
        reason = " ".join(str(error).split())[:200]
        raise ConfigurationError(message("engine-cannot", name=source.name, reason=reason)) from error
    rewrite_graph(model)
    reference, converted = TorchNetwork(network), OpenVinoNetwork(model)
    differences = [
        _compute_difference(converted.run(*one), reference.run(*one)) for one in _list_trials(source, inputs)
    ]
    difference = float(np.max(differences))
    if not difference <= source.tolerance:  # also if it is not a number
        raise ConfigurationError(
            message("engine-differs", name=source.name, difference=difference, tolerance=source.tolerance)
        )
    return model


def _list_trials(source: NetworkSource, inputs: Sequence[FloatArray]) -> list[Sequence[FloatArray]]:
    """List the example inputs, and such of every other shape that is allowed, because tracing may fix a shape."""
    trials = [inputs]
    if source.has_batch:
        trials.append([one[1:] for one in inputs])
    if source.is_size_free:
        trials.append([np.concatenate([inputs[0], inputs[0]], axis=-1), *inputs[1:]])
    return trials


def _compute_difference(found: Sequence[FloatArray], expected: Sequence[FloatArray]) -> float:
    """Return the largest difference; infinite if the shapes differ, nan if a value is not a number."""
    if [one.shape for one in found] != [one.shape for one in expected]:
        return float("inf")
    return float(np.max([np.abs(one - other).max() for one, other in zip(found, expected, strict=True)]))


def trace_network(
    network: nn.Module,
    inputs: Sequence[FloatArray],
    source: NetworkSource,
    separate: Callable[[openvino.Model], object] = lambda model: None,
) -> openvino.Model:
    """Convert a network by running it; ``openvino.convert_model`` would also change the program's logging.

    separate: changes the graph before constants are folded, see ``graph_weights.separate_weights``.
    """
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.passes import ConstantFolding, Manager

    # gradients would keep all intermediate results; warnings are about tracing, whose result is compared with PyTorch
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoder = TorchScriptPythonDecoder(network, example_input=tuple(map(torch.from_numpy, inputs)))
        front_end = FrontEndManager().load_by_framework("pytorch")
        model = front_end.convert(front_end.load(decoder))
    ports = model.inputs
    separate(model)
    for number, (port, example) in enumerate(zip(ports, inputs, strict=True)):
        shape = [-1 if source.has_batch else len(example), *example.shape[1:]]
        if source.is_size_free and number == 0:
            shape[-2:] = [-1, -1]
        port.get_node().set_element_type(openvino.Type.f32)
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
    model.validate_nodes_and_infer_types()
    folding = Manager()
    folding.register_pass(ConstantFolding())  # the axes of normalisations become numbers
    folding.run_passes(model)
    return model

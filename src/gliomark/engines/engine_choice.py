"""Choose the engine that runs a network."""

from __future__ import annotations

import logging
import os

from gliomark.engines.network_source import EngineNetwork, NetworkSource, check_pytorch
from gliomark.errors import ConfigurationError
from gliomark.messages import message

LOG = logging.getLogger(__name__)
ENGINE_VARIABLE = "GLIOMARK_ENGINE"
BFLOAT16_ENGINE = "openvino-bf16"
ENGINE_NAMES = ("openvino", BFLOAT16_ENGINE, "torch")


def choose_engine(engine: str | None = None) -> str:
    """Return the name of the engine: the given one, that of ``$GLIOMARK_ENGINE``, or "openvino".

    Raises
    ------
    ConfigurationError
        If it is unknown.
    """
    name = engine or os.environ.get(ENGINE_VARIABLE) or ENGINE_NAMES[0]
    if name not in ENGINE_NAMES:
        raise ConfigurationError(message("engine-unknown", engine=name, variable=ENGINE_VARIABLE))
    return name


def load_network(source: NetworkSource, device: str = "cpu", engine: str | None = None) -> EngineNetwork:
    """Load a network into an engine.

    On other devices than the CPU it runs in PyTorch, as does a network that is not worth its conversion, or whose
    conversion is refused, with a warning in the log.

    Parameters
    ----------
    source
        The network.
    device
        "cpu", "cuda", "cuda:<number>" or "mps".
    engine
        "openvino", "openvino-bf16" (faster on processors with AMX, less precise) or "torch"; None: as
        ``$GLIOMARK_ENGINE`` says, "openvino" by default.

    Raises
    ------
    ConfigurationError
        If the engine is unknown, PyTorch is needed and not installed, or the processor does not compute in bfloat16, or
        not correctly.
    """
    name = choose_engine(engine)
    if name != "torch" and device == "cpu" and (source.is_converted or source.read_graph is not None):
        from gliomark.engines.openvino_engine import load_openvino_network

        try:
            network = load_openvino_network(source)
        except ConfigurationError as error:
            check_pytorch(source.name)
            LOG.warning("%s", error)
        else:
            is_reduced = name == BFLOAT16_ENGINE and source.allows_bfloat16
            return network.reduce_precision(source) if is_reduced else network
    check_pytorch(source.name)
    from gliomark.engines.torch_engine import TorchNetwork

    return TorchNetwork(source.build().to(device))

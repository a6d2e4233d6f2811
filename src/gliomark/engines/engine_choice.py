"""Choose the engine that runs a network."""

from __future__ import annotations

import logging
import os

from gliomark.engines.network_source import EngineNetwork, NetworkSource, check_pytorch
from gliomark.errors import ConfigurationError
from gliomark.messages import message

LOG = logging.getLogger(__name__)
ENGINE_VARIABLE = "GLIOMARK_ENGINE"
ENGINE_NAMES = ("openvino", "torch")


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
        "openvino" or "torch"; None: as ``$GLIOMARK_ENGINE`` says, OpenVINO by default.

    Raises
    ------
    ConfigurationError
        If the engine is unknown, or PyTorch is needed and not installed.
    """
    name = engine or os.environ.get(ENGINE_VARIABLE) or ENGINE_NAMES[0]
    if name not in ENGINE_NAMES:
        raise ConfigurationError(message("engine-unknown", engine=name, variable=ENGINE_VARIABLE))
    if name == "openvino" and device == "cpu" and (source.is_converted or source.read_graph is not None):
        from gliomark.engines.openvino_engine import load_openvino_network

        try:
            return load_openvino_network(source)
        except ConfigurationError as error:
            check_pytorch(source.name)
            LOG.warning("%s", error)
    check_pytorch(source.name)
    from gliomark.engines.torch_engine import TorchNetwork

    return TorchNetwork(source.build().to(device))

"""Choose the engine that runs a network."""

from __future__ import annotations

import logging
import os

from gliomark.engines.network_source import EngineNetwork, NetworkSource
from gliomark.errors import ConfigurationError
from gliomark.messages import message

LOG = logging.getLogger(__name__)
ENGINE_VARIABLE = "GLIOMARK_ENGINE"
ENGINE_NAMES = ("openvino", "torch")


def load_network(source: NetworkSource) -> EngineNetwork:
    """Load a network into the engine named by ``$GLIOMARK_ENGINE``; OpenVINO by default.

    A network whose conversion is refused runs in PyTorch, with a warning in the log.

    Raises
    ------
    ConfigurationError
        If the engine is unknown.
    """
    name = os.environ.get(ENGINE_VARIABLE) or ENGINE_NAMES[0]
    if name not in ENGINE_NAMES:
        raise ConfigurationError(message("engine-unknown", engine=name, variable=ENGINE_VARIABLE))
    if name == "openvino":
        from gliomark.engines.openvino_engine import load_openvino_network

        try:
            return load_openvino_network(source)
        except ConfigurationError as error:
            LOG.warning("%s", error)
    from gliomark.engines.torch_engine import TorchNetwork

    return TorchNetwork(source.build())

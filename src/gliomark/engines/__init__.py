"""Engines that run trained networks: OpenVINO on CPUs, with PyTorch as the reference.

An engine takes and returns numpy arrays. OpenVINO's networks are converted once per computer and kept in the user's
cache folder; a conversion is accepted only if its output agrees with PyTorch's.
"""

from gliomark.engines.engine_choice import BFLOAT16_ENGINE, choose_engine, load_network
from gliomark.engines.graph_cache import get_cache_folder
from gliomark.engines.network_source import EngineNetwork, NetworkSource, check_pytorch

__all__ = [
    "BFLOAT16_ENGINE",
    "EngineNetwork",
    "NetworkSource",
    "check_pytorch",
    "choose_engine",
    "get_cache_folder",
    "load_network",
]

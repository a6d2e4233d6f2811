"""Choose the device on which networks compute."""

from __future__ import annotations

import re

import torch
from torch import nn

from gliomark.errors import ConfigurationError
from gliomark.messages import message

_DEVICE_NAMES = re.compile(r"cpu|mps|cuda(:\d+)?")


def select_device(name: str) -> torch.device:
    """Select a device by its name: "cpu", "cuda", "cuda:<number>" or "mps".

    Raises
    ------
    ConfigurationError
        If the name is unknown, or PyTorch does not find the device.
    """
    if not isinstance(name, str) or not _DEVICE_NAMES.fullmatch(name):
        raise ConfigurationError(message("device-unknown", device=repr(name)))
    device = torch.device(name)
    is_available = {
        "cpu": True,
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }[device.type]
    if not is_available:
        raise ConfigurationError(message("device-missing", device=name))
    return device


def list_accelerators() -> list[torch.device]:
    """List the kinds of accelerators that PyTorch finds: CUDA, then MPS."""
    accelerators = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    return [torch.device(name) for name in accelerators]


def find_device(network: nn.Module) -> torch.device:
    """Return the device of a network's weights; the CPU if it has none."""
    return next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))

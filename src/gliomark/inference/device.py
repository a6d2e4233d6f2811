"""Choose the device on which networks compute. PyTorch is imported only where an accelerator may be present."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from contextlib import suppress
from importlib.util import find_spec

from gliomark.errors import ConfigurationError
from gliomark.messages import message

_DEVICE_NAMES = re.compile(r"cpu|mps|cuda(:\d+)?")
_CUDA_DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}


def check_device(name: str) -> None:
    """Check the name of a device: "cpu", "cuda", "cuda:<number>" or "mps".

    Raises
    ------
    ConfigurationError
        If the name is unknown, or PyTorch does not find the device.
    """
    if not isinstance(name, str) or not _DEVICE_NAMES.fullmatch(name):
        raise ConfigurationError(message("device-unknown", device=repr(name)))
    if name != "cpu" and not _is_found_by_torch(name):
        raise ConfigurationError(message("device-missing", device=name))


def list_accelerators() -> list[str]:
    """List the kinds of accelerators that PyTorch finds: "cuda", then "mps"."""
    if not _may_have_accelerator():
        return []
    return [name for name in ("cuda", "mps") if _is_found_by_torch(name)]


def _is_found_by_torch(name: str) -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    if name == "mps":
        return bool(torch.backends.mps.is_available())
    return (torch.device(name).index or 0) < torch.cuda.device_count()


def _may_have_accelerator() -> bool:
    """Whether there is an NVIDIA or AMD driver, or an Apple processor; asking PyTorch takes seconds."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    for library in (_CUDA_DRIVERS.get(sys.platform), "libamdhip64.so" if sys.platform == "linux" else None):
        with suppress(OSError):
            if library is not None and ctypes.CDLL(library):
                return True
    return False

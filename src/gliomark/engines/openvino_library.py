"""Import OpenVINO without its telemetry, which would report every import to Intel over the internet."""

from __future__ import annotations

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # to its importers, it is not installed

import openvino  # noqa: E402
from openvino import opset13  # noqa: E402

__all__ = ["openvino", "opset13"]

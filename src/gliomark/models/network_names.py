"""Names of networks for display. No network is imported, so that a model card is shown without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# records of weights files and finished folds that name no architecture are of these
UNNAMED_ARCHITECTURES = ("MIG-Net", "KiNet")
# by the name in weights files: networks whose name for display has become another one
RENAMED_ARCHITECTURES: Mapping[str, str] = {
    "ResNet-50, middle fusion": "Middle fusion",
    "nnU-Net 2-D": "nnU-Net",
    "frozen trunk": "Lesion-pooled features",
}


def get_display_name(record: Mapping[str, Any]) -> str:
    """Return the name of the network of a weights file's record, for display."""
    recorded = str(record.get("architecture", " or ".join(UNNAMED_ARCHITECTURES)))
    return RENAMED_ARCHITECTURES.get(recorded, recorded)

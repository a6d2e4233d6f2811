"""Any segmentation network from its settings, and its settings from a weights file's card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from gliomark.messages import message
from gliomark.models.bounds import checked
from gliomark.models.efficient_unet import EfficientUNet
from gliomark.models.mignet import MIGNetSettings, build_mignet
from gliomark.models.segmentation_baselines import BaselineSettings, build_segmentation_baseline
from gliomark.study import GliomarkError

NetworkSettings = MIGNetSettings | BaselineSettings


def build_segmentation_network(settings: NetworkSettings, prior: Tensor | None = None) -> nn.Module:
    """The network, called as ``network(image, theta)``, answering an ``Outline``.

    prior: the FPG ``(H, W)`` that MIG-Net's alpha starts from; a rival takes none.
    """
    if isinstance(settings, BaselineSettings):
        return build_segmentation_baseline(settings)
    return build_mignet(settings, prior)


def start_from_imagenet(network: nn.Module) -> None:
    """Fill the network's encoder with ImageNet weights.

    Raises GliomarkError where the network has no such encoder or the weights are not installed.
    """
    inner = getattr(network, "network", None)
    if not isinstance(inner, EfficientUNet):
        raise GliomarkError("Only EfficientNet U-Net can start from ImageNet weights.")
    inner.start_from_imagenet()


def network_record(settings: NetworkSettings) -> dict[str, Any]:
    """The settings as a card holds them."""
    return {"architecture": "MIG-Net", **asdict(settings)}


def network_settings(record: Mapping[str, Any]) -> NetworkSettings:
    """The settings from a card; the inverse of ``network_record``.

    Raises ValueError for what is no such record, GliomarkError for a MIG-Net of gliomark 0.1, whose layers were others
    (batch normalisation, another alpha).
    """
    if record.get("architecture", "MIG-Net") != "MIG-Net":
        return checked(BaselineSettings, record)
    if "gates_start" not in record:
        raise GliomarkError(message("network-of-before"))
    return checked(MIGNetSettings, {k: value for k, value in record.items() if k != "architecture"})

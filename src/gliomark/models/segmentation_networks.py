"""Any segmentation network from its settings, and its settings from a weights file's card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from gliomark.messages import message
from gliomark.models.bounds import parse_record
from gliomark.models.efficient_unet import EfficientNetUNet
from gliomark.models.mignet import MIGNetSettings, build_mignet
from gliomark.models.segmentation_baselines import ComparisonSegmentationSettings, build_comparison_network
from gliomark.study import GliomarkError

SegmentationNetworkSettings = MIGNetSettings | ComparisonSegmentationSettings


def build_segmentation_network(
    settings: SegmentationNetworkSettings, prior: Tensor | None = None
) -> nn.Module:
    """The network, called as ``network(image, theta)``, answering an ``Outline``.

    prior: the FPG ``(H, W)`` that MIG-Net's alpha starts from; a rival takes none.
    """
    if isinstance(settings, ComparisonSegmentationSettings):
        return build_comparison_network(settings)
    return build_mignet(settings, prior)


def load_pretrained_encoder(network: nn.Module) -> None:
    """Fill the network's encoder with ImageNet weights.

    Raises GliomarkError where the network has no such encoder or the weights are not installed.
    """
    inner_network = getattr(network, "network", None)
    if not isinstance(inner_network, EfficientNetUNet):
        raise GliomarkError("Only EfficientNet U-Net can start from ImageNet weights.")
    inner_network.load_imagenet_weights()


def to_segmentation_network_record(settings: SegmentationNetworkSettings) -> dict[str, Any]:
    """The settings as a card holds them."""
    return {"architecture": "MIG-Net", **asdict(settings)}


def parse_segmentation_network_settings(record: Mapping[str, Any]) -> SegmentationNetworkSettings:
    """The settings from a card; the inverse of ``network_record``.

    Raises ValueError for what is no such record, GliomarkError for a MIG-Net of gliomark 0.1, whose layers were others
    (batch normalisation, another alpha).
    """
    if record.get("architecture", "MIG-Net") != "MIG-Net":
        return parse_record(ComparisonSegmentationSettings, record)
    if "gates_start" not in record:
        raise GliomarkError(message("network-of-before"))
    return parse_record(MIGNetSettings, {k: value for k, value in record.items() if k != "architecture"})

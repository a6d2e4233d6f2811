"""Build segmentation networks from their settings, and convert the settings to and from a weights file's card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from gliomark.errors import ConfigurationError, WeightsError
from gliomark.messages import message
from gliomark.models.comparison.segmentation_networks import (
    ComparisonSegmentationSettings,
    build_comparison_network,
)
from gliomark.models.pretrained.efficientnet_unet import EfficientNetUNet
from gliomark.models.published.mignet import MIGNetSettings, build_mignet
from gliomark.models.validated_types import parse_record

SegmentationNetworkSettings = MIGNetSettings | ComparisonSegmentationSettings


def build_segmentation_network(
    settings: SegmentationNetworkSettings, prior: Tensor | None = None
) -> nn.Module:
    """Build a segmentation network, called as ``network(image, theta)``, that returns a ``SegmentationOutput``.

    prior: the FPG ``(H, W)`` from which MIG-Net's alpha is initialised; comparison networks do not use it.
    """
    if isinstance(settings, ComparisonSegmentationSettings):
        return build_comparison_network(settings)
    return build_mignet(settings, prior)


def load_pretrained_encoder(network: nn.Module) -> None:
    """Load ImageNet weights into the network's encoder.

    Raises
    ------
    ConfigurationError
        If the network has no such encoder, or the weights are not installed.
    """
    inner_network = getattr(network, "network", None)
    if not isinstance(inner_network, EfficientNetUNet):
        raise ConfigurationError("Only EfficientNet U-Net can start from ImageNet weights.")
    inner_network.load_imagenet_weights()


def to_segmentation_network_record(settings: SegmentationNetworkSettings) -> dict[str, Any]:
    """Convert the settings to the record that a card holds."""
    return {"architecture": "MIG-Net", **asdict(settings)}


def parse_segmentation_network_settings(record: Mapping[str, Any]) -> SegmentationNetworkSettings:
    """Parse the settings from a card; the inverse of ``to_segmentation_network_record``.

    Raises
    ------
    ValueError
        If the record is not valid.
    WeightsError
        If the record describes a MIG-Net of gliomark 0.1, whose layers differ (batch normalisation, another alpha).
    """
    if record.get("architecture", "MIG-Net") != "MIG-Net":
        return parse_record(ComparisonSegmentationSettings, record)
    if "gates_start" not in record:
        raise WeightsError(message("network-of-before"))
    return parse_record(MIGNetSettings, {k: value for k, value in record.items() if k != "architecture"})

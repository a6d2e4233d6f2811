"""Build marker networks from their settings: KiNet and its comparison networks (tables 4-2 to 4-4). Tensors only.

Every network takes MIX ``(B, 4, H, W)`` (image and lesion-only image of the first sequence, then of the second), may
use a subset of its channels, and returns at least an image vector and logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import torch
from monai.networks.nets.resnet import ResNet
from pydantic import Field, with_config
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.errors import ConfigurationError
from gliomark.models.pretrained.efficientnet_unet import (
    ENCODER_STAGES,
    build_encoder_stages,
    build_encoder_stem,
    load_imagenet_weights,
)
from gliomark.models.published.kinet import (
    CHANNELS_PER_SEQUENCE,
    CLASS_COUNT,
    KiNetSettings,
    KiNetSize,
    MarkerOutput,
    ResNeStBranch,
    average_globally,
    average_pool_input,
    build_kinet,
    initialise_kaiming,
)
from gliomark.models.validated_types import STRICT_CONFIG, parse_record

MarkerArchitecture = Literal[
    "ResNet-50", "ResNet-50, middle fusion", "ResNeSt-50", "CentralNet", "frozen trunk"
]
ChannelIndices = Annotated[tuple[Annotated[int, Field(ge=0, le=3)], ...], Field(min_length=1, max_length=4)]
ALL_CHANNELS: ChannelIndices = (0, 1, 2, 3)
# stages of EfficientNet whose features are pooled over the lesion: strides 4 and 8
POOLED_STAGES = (1, 2)


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class ComparisonMarkerSettings:
    """Settings of a comparison network for markers.

    channels: indices of the MIX channels it uses; size: as KiNet's (lesion-pooled features use only its pool).
    """

    architecture: MarkerArchitecture
    channels: ChannelIndices = ALL_CHANNELS
    size: KiNetSize = field(default_factory=KiNetSize)


MarkerNetworkSettings = KiNetSettings | ComparisonMarkerSettings


class SingleHeadNetwork(nn.Module):
    """A feature extractor on selected channels of MIX ``(B, 4, H, W)``, followed by one linear layer."""

    def __init__(
        self, backbone: nn.Module, vector_length: int, channels: Sequence[int], pooling_factor: int
    ) -> None:
        super().__init__()
        self.trunk = backbone
        self.cat_head = nn.Linear(vector_length, CLASS_COUNT)
        self.channels, self.pooling_factor = list(channels), pooling_factor

    def forward(self, mix: Tensor) -> MarkerOutput:
        """Return image vector and logits ``(B, 2)`` for MIX ``(B, 4, H, W)``."""
        vector = self.trunk(self.select_input(mix))
        return {"image_vector": vector, "logits": self.cat_head(vector)}

    def select_input(self, mix: Tensor) -> Tensor:
        """Return the feature extractor's input ``(B, C, h, w)``: the selected channels of MIX, average-pooled."""
        return average_pool_input(mix[:, self.channels], self.pooling_factor)


class ResNeStBackbone(nn.Module):
    """ResNeSt's stem and four stages (Zhang et al. 2020) with global average pooling of the last."""

    def __init__(self, in_channels: int, size: KiNetSize) -> None:
        super().__init__()
        self.branch = ResNeStBranch(in_channels, size)

    def forward(self, image: Tensor) -> Tensor:
        """Return the pooled feature ``(B, D)`` of images ``(B, C, H, W)``."""
        return average_globally(self.branch(image)[-1:])[0]


class MiddleFusionBackbone(nn.Module):
    """Middle fusion (table 4-3): the first half of a ResNet per sequence, and a common second half.

    The two features are concatenated, and a 1x1 convolution maps them back to the channels of one.
    """

    def __init__(self, first: nn.Module, second: nn.Module, mix: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.mix, self.rest = first, second, mix, rest

    def forward(self, image: Tensor) -> Tensor:
        """Return the pooled feature ``(B, D)`` of MIX ``(B, 4, H, W)``."""
        features = [
            self.first(image[:, :CHANNELS_PER_SEQUENCE]),
            self.second(image[:, CHANNELS_PER_SEQUENCE:]),
        ]
        return average_globally([self.rest(self.mix(torch.cat(features, dim=1)))])[0]


class LesionPooledFeatures(nn.Module):
    """Lesion-pooled features: mean and standard deviation, over the lesion, of EfficientNet-Lite0 features.

    Each sequence's image and lesion-only image pass through the same first stages; the features at strides 4 and 8 of
    both sequences form the vector ``(B, 256)``. The weights are ImageNet's and are never trained, so that vectors are
    comparable between folds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stages = (
            build_encoder_stem(CHANNELS_PER_SEQUENCE),
            build_encoder_stages()[: POOLED_STAGES[-1] + 1],
        )
        # depthwise convolutions run 1.6 times as fast on a CPU in channels-last order
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> LesionPooledFeatures:
        """Stay in evaluation mode, because the batch statistics are ImageNet's as well."""
        return super().train(False)

    def forward(self, mix: Tensor) -> Tensor:
        """Return the vector ``(B, 256)`` of MIX ``(B, 4, H, W)``."""
        # both sequences as one batch
        image = mix.unflatten(1, (-1, CHANNELS_PER_SEQUENCE)).flatten(0, 1)
        lesion = extract_lesion_mask(image)
        feature = self.stem(image.contiguous(memory_format=torch.channels_last))
        pooled = []
        for number, step in enumerate(self.stages):
            feature = step(feature)
            if number in POOLED_STAGES:
                pooled += _pool_mean_and_standard_deviation(
                    feature, F.adaptive_avg_pool2d(lesion, feature.shape[-2:])
                )
        return torch.cat(pooled, dim=1).unflatten(0, (len(mix), -1)).flatten(1)


def extract_lesion_mask(mix: Tensor) -> Tensor:
    """Return the lesion mask ``(B, 1, H, W)``, 0 or 1, of MIX ``(B, 2 or 4, H, W)``.

    The lesion is where the lesion-only image differs from its background.
    """
    lesion_only = mix[:, 1:2]
    return (lesion_only > lesion_only.amin(dim=(2, 3), keepdim=True)).float()


def _pool_mean_and_standard_deviation(feature: Tensor, pixel_weight: Tensor) -> list[Tensor]:
    """Return the weighted mean and standard deviation over the pixels, ``(B, C)`` each.

    feature ``(B, C, H, W)``; pixel_weight ``(B, 1, H, W)``.
    """
    share = pixel_weight / pixel_weight.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    mean = (share * feature).sum(dim=(2, 3))
    variance = (share * (feature - mean[..., None, None]) ** 2).sum(dim=(2, 3))
    # the square root has no finite gradient at 0
    return [mean, (variance + 1e-8).sqrt()]


class CentralNetOutput(MarkerOutput):
    """Output of CentralNet, with the logits ``(B, 2)`` of both sequences' branches."""

    first_logits: Tensor
    second_logits: Tensor


class CentralNet(nn.Module):
    """CentralNet (Vielzeuf et al. 2018) with ResNeSt stages: a central branch adds weighted features of both branches.

    ``weights`` ``(5, 3)`` (rows: input and four stages; columns: central, first, second) are learnt and start uniform;
    the input row has no central feature. KiNet's fusion points were chosen from these weights (figure 4-7).
    """

    def __init__(self, size: KiNetSize) -> None:
        super().__init__()
        self.first, self.central, self.second = (ResNeStBranch(CHANNELS_PER_SEQUENCE, size) for _ in range(3))
        initial_weights = torch.full((1 + len(size.widths), 3), 1 / 3)
        initial_weights[0] = torch.tensor([0.0, 0.5, 0.5])
        self.weights = nn.Parameter(initial_weights)
        width = size.widths[-1]
        self.cat_head, self.first_head, self.second_head = (nn.Linear(width, CLASS_COUNT) for _ in range(3))
        self.pooling_factor = size.pool

    def forward(self, mix: Tensor) -> CentralNetOutput:
        """Return the output of all three heads for MIX ``(B, 4, H, W)``."""
        mix = average_pool_input(mix, self.pooling_factor)
        images = mix[:, :CHANNELS_PER_SEQUENCE], mix[:, CHANNELS_PER_SEQUENCE:]
        first, second = self.first(images[0]), self.second(images[1])
        _, one, two = self.weights[0]
        fused = self.central.stem(one * images[0] + two * images[1])
        for row, step, own, other in zip(self.weights[1:], self.central.stages, first, second, strict=True):
            fused = row[0] * step(fused) + row[1] * own + row[2] * other
        vector, one, two = average_globally([fused, first[-1], second[-1]])
        return {
            "image_vector": vector,
            "logits": self.cat_head(vector),
            "first_logits": self.first_head(one),
            "second_logits": self.second_head(two),
        }


def build_marker_network(settings: MarkerNetworkSettings) -> nn.Module:
    """Build a marker network from its settings, with Kaiming initialisation."""
    if isinstance(settings, KiNetSettings):
        return build_kinet(settings)
    network = _build_comparison_network(settings)
    return network.apply(initialise_kaiming)


def _build_comparison_network(settings: ComparisonMarkerSettings) -> nn.Module:
    size, in_channels = settings.size, len(settings.channels)
    if settings.architecture == "CentralNet":
        return CentralNet(size)
    if settings.architecture == "frozen trunk":
        # two sequences, mean and standard deviation
        vector_length = 2 * 2 * sum(ENCODER_STAGES[number][-1] for number in POOLED_STAGES)
        return SingleHeadNetwork(LesionPooledFeatures(), vector_length, settings.channels, size.pool)
    backbone: nn.Module
    if settings.architecture == "ResNet-50":
        backbone = _build_resnet(in_channels, size)
    elif settings.architecture == "ResNeSt-50":
        backbone = ResNeStBackbone(in_channels, size)
    elif settings.architecture == "ResNet-50, middle fusion":
        backbone = _build_middle_fusion(size)
    else:
        raise ConfigurationError(f"There is no marker network named {settings.architecture!r}.")
    return SingleHeadNetwork(backbone, size.widths[-1], settings.channels, size.pool)


def _build_resnet(in_channels: int, size: KiNetSize) -> ResNet:
    """Build MONAI's ResNet (He et al. 2016) without its last layer: ``(B, in_channels, H, W)`` to ``(B, D)``."""
    planes = [width // 4 for width in size.widths]
    return ResNet(
        "bottleneck",
        list(size.blocks),
        planes,
        2,
        in_channels,
        conv1_t_size=7,
        conv1_t_stride=2,
        feed_forward=False,
    )


def _build_middle_fusion(size: KiNetSize) -> MiddleFusionBackbone:
    first, second, whole = (_build_resnet(CHANNELS_PER_SEQUENCE, size) for _ in range(3))
    one, two = (nn.Sequential(r.conv1, r.bn1, r.act, r.maxpool, r.layer1, r.layer2) for r in (first, second))
    mix = nn.Conv2d(2 * size.widths[1], size.widths[1], 1)
    return MiddleFusionBackbone(one, two, mix, nn.Sequential(whole.layer3, whole.layer4))


def load_pretrained_features(network: nn.Module) -> None:
    """Load ImageNet weights into the lesion-pooled features of a network.

    Raises
    ------
    ConfigurationError
        If the network has no lesion-pooled features, or the weights are not installed.
    """
    backbone = getattr(network, "trunk", None)
    if not isinstance(backbone, LesionPooledFeatures):
        raise ConfigurationError(
            "Only a marker network with lesion-pooled features can use ImageNet weights."
        )
    load_imagenet_weights(backbone.stem, backbone.stages)


def to_marker_network_record(settings: MarkerNetworkSettings) -> dict[str, Any]:
    """Convert the settings to the record that a card holds."""
    return {"architecture": "KiNet", **asdict(settings)}


def parse_marker_network_settings(record: Mapping[str, Any]) -> MarkerNetworkSettings:
    """Parse the settings from a card; the inverse of ``to_marker_network_record``.

    Raises pydantic.ValidationError, which is a ValueError, if the record is not valid.
    """
    size = record.get("size")
    # cards of gliomark 0.1 lack average_down: their ResNeSt used strided convolutions
    stated = (
        {**record, "size": {"average_down": False, **size}} if isinstance(size, Mapping) else dict(record)
    )
    if stated.get("architecture", "KiNet") == "KiNet":
        stated.pop("architecture", None)
        return parse_record(KiNetSettings, stated)
    return parse_record(ComparisonMarkerSettings, stated)

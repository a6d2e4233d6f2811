"""Lesion-pooled features of an EfficientNet-Lite0 pretrained on ImageNet, with one linear layer. Tensors only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from pydantic import with_config
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models.entries import GradCam, GradCamBranch, MarkerEntry
from gliomark.models.network_io import (
    ALL_CHANNELS,
    CHANNELS_PER_SEQUENCE,
    ChannelIndices,
    SingleHeadNetwork,
    extract_lesion_mask,
)
from gliomark.models.pretrained.efficientnet_unet import (
    ENCODER_STAGES,
    build_encoder_stages,
    build_encoder_stem,
    load_imagenet_weights,
)
from gliomark.models.published.kinet import KiNetSize
from gliomark.models.validated_types import STRICT_CONFIG

# stages of EfficientNet whose features are pooled over the lesion: strides 4 and 8
POOLED_STAGES = (1, 2)
# two sequences, mean and standard deviation
VECTOR_LENGTH = 2 * 2 * sum(ENCODER_STAGES[number][-1] for number in POOLED_STAGES)


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class LesionPooledSettings:
    """Settings of lesion-pooled features. channels: all four channels of MIX; size: only its pool is used."""

    channels: ChannelIndices = ALL_CHANNELS
    size: KiNetSize = field(default_factory=KiNetSize)


class LesionPooledFeatures(nn.Module):
    """Lesion-pooled features: mean and standard deviation, over the lesion, of EfficientNet-Lite0 features.

    Each sequence's image and lesion-only image pass through the same first stages; the features at strides 4 and 8 of
    both sequences form the vector ``(B, 256)``. The weights are ImageNet's (or random, for comparison) and are never
    trained, so that vectors are comparable between folds.
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
        vector = torch.cat(pooled, dim=1)
        # -1: the number of slices, which tracing would fix
        output: Tensor = vector.reshape(-1, int(mix.shape[1]) // CHANNELS_PER_SEQUENCE * int(vector.shape[1]))
        return output


def _pool_mean_and_standard_deviation(feature: Tensor, pixel_weight: Tensor) -> list[Tensor]:
    """Return the weighted mean and standard deviation over the pixels, ``(B, C)`` each.

    feature ``(B, C, H, W)``; pixel_weight ``(B, 1, H, W)``.
    """
    share = pixel_weight / pixel_weight.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    mean = (share * feature).sum(dim=(2, 3))
    variance = (share * (feature - mean[..., None, None]) ** 2).sum(dim=(2, 3))
    # the square root has no finite gradient at 0
    return [mean, (variance + 1e-8).sqrt()]


def build_lesion_pooled_network(settings: LesionPooledSettings) -> SingleHeadNetwork:
    """Build the features and their linear layer, with Kaiming initialisation.

    The features are scaled by their inputs (fan-in): by the outputs those of depthwise convolutions would vanish.
    """
    features = LesionPooledFeatures()
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    return SingleHeadNetwork(features, VECTOR_LENGTH, settings.channels, settings.size.pool)


def _load_features(network: nn.Module) -> None:
    features = cast(LesionPooledFeatures, cast(SingleHeadNetwork, network).trunk)
    load_imagenet_weights(features.stem, features.stages)


def _describe_grad_cam() -> GradCam:
    """Describe HiResCAM: the features include standard deviations, whose gradients average to zero.

    There are two pooled stages; stages 3 and 4 show the coarser one.
    """
    fine, coarse = (f"trunk.stages.{number}" for number in POOLED_STAGES)
    layers = (fine, coarse, coarse, coarse)
    branches = (
        GradCamBranch("first", "logits", layers, 0),
        GradCamBranch("second", "logits", layers, 1),
        GradCamBranch("both", "logits", layers),
    )
    return GradCam(branches, uses_hirescam=True, is_sequence_batched=True, is_limited_to_lesion=True)


ENTRY = MarkerEntry(
    name="Lesion-pooled features",
    reference="Tan and Le 2019 (features)",
    recipes={"pretrained": LesionPooledSettings()},
    build=build_lesion_pooled_network,
    get_vector_length=lambda settings: VECTOR_LENGTH,
    grad_cam=lambda settings: _describe_grad_cam(),
    has_frozen_features=True,
    load_pretrained=_load_features,
    recorded_as="frozen trunk",
)

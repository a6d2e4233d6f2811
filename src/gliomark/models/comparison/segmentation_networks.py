"""Comparison networks for segmentation (table 3-1): U-Net, Attention U-Net, TransUNet, 2-D nnU-Net. Tensors only.

EfficientNet U-Net is not published. Swin-UNet, the fifth published one, is MIG-Net with every switch off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from monai.networks.blocks.transformerblock import TransformerBlock
from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.resnet import ResNetBottleneck
from pydantic import with_config
from torch import Tensor, nn

from gliomark.errors import ConfigurationError
from gliomark.messages import message
from gliomark.models.pretrained.efficientnet_unet import EfficientNetUNet
from gliomark.models.published.mignet import CLASS_COUNT, SegmentationOutput
from gliomark.models.validated_types import STRICT_CONFIG, ChannelCount

LEVEL_COUNT = 5
MAX_CHANNELS = 512


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class ComparisonSegmentationSettings:
    """Settings that determine the layers of a comparison network.

    architecture: a key of ``COMPARISON_SEGMENTATION_NETWORKS``; inputs: input channels; width: channels at full
    resolution, doubled at each of the next four levels (64 as published, 32 for nnU-Net).
    """

    architecture: str
    inputs: ChannelCount = 1
    width: ChannelCount = 64


class ComparisonSegmentationNetwork(nn.Module):
    """Wraps a comparison network in MIG-Net's interface, without a grade.

    Input: image ``(B, inputs, H, W)``. theta is ignored: comparison networks do not use the template. nnU-Net returns
    deep-supervision logits while training.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, theta: Tensor | None = None) -> SegmentationOutput:
        """Return the logits ``(B, 2, H, W)``."""
        logits = self.network(image)
        if logits.ndim == 5:  # (B, level, 2, H, W), all brought to full resolution
            return SegmentationOutput(logits[:, 0], None, tuple(logits[:, 1:].unbind(dim=1)))
        return SegmentationOutput(logits, None)


def build_unet(in_channels: int, width: int) -> nn.Module:
    """Build MONAI's U-Net (Ronneberger et al. 2015) with normalisation: two convolutions per level, max pooling."""
    return BasicUNet(2, in_channels, CLASS_COUNT, features=(*_compute_level_channels(width), width))


def build_attention_unet(in_channels: int, width: int) -> nn.Module:
    """Build MONAI's Attention U-Net (Oktay et al. 2018), whose gate MIG-Net's IAG inverts."""
    return AttentionUnet(
        2, in_channels, CLASS_COUNT, _compute_level_channels(width), strides=(2,) * (LEVEL_COUNT - 1)
    )


def build_nnunet(in_channels: int, width: int) -> nn.Module:
    """Build nnU-Net's 2-D configuration (Isensee et al. 2021) from MONAI's DynUNet.

    It has instance normalisation, leaky ReLU, strided convolutions, at most 512 channels, and deep supervision of all
    but the two lowest levels.
    """
    return DynUNet(
        2,
        in_channels,
        CLASS_COUNT,
        kernel_size=[3] * LEVEL_COUNT,
        strides=[1] + [2] * (LEVEL_COUNT - 1),
        upsample_kernel_size=[2] * (LEVEL_COUNT - 1),
        filters=[min(channels, MAX_CHANNELS) for channels in _compute_level_channels(width)],
        norm_name=("instance", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=LEVEL_COUNT - 3,
    )


def build_transunet(in_channels: int, width: int) -> nn.Module:
    """Build TransUNet (Chen et al. 2021); width 64 is R50-ViT-B/16."""
    return TransUNet(in_channels, width)


COMPARISON_SEGMENTATION_NETWORKS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "U-Net": build_unet,
    "TransUNet": build_transunet,
    "Attention U-Net": build_attention_unet,
    "nnU-Net 2-D": build_nnunet,
    "EfficientNet U-Net": EfficientNetUNet,
}


def build_comparison_network(settings: ComparisonSegmentationSettings) -> ComparisonSegmentationNetwork:
    """Build a comparison network from its settings.

    Raises
    ------
    ConfigurationError
        If the architecture is unknown.
    """
    build = COMPARISON_SEGMENTATION_NETWORKS.get(settings.architecture)
    if build is None:
        raise ConfigurationError(message("network-unknown", name=settings.architecture))
    return ComparisonSegmentationNetwork(build(settings.inputs, settings.width))


def _compute_level_channels(width: int) -> tuple[int, int, int, int, int]:
    return width, 2 * width, 4 * width, 8 * width, 16 * width


class TransUNet(nn.Module):
    """TransUNet: a residual encoder, a transformer on its coarsest feature, and a decoder with skip connections.

    ``(B, in_channels, H, W)`` to logits ``(B, 2, H, W)``, H and W multiples of 16. With width w: a stem of w channels
    at 1/2 resolution, residual stages of 4w, 8w and 16w channels at 1/4, 1/8 and 1/16, and hidden size 12w. From
    w = 64 on it has the published residual blocks (3, 4, 9) and transformer layers (12), below that fewer. A depthwise
    convolution replaces the published position embedding of fixed size, so that views of any size can be used.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        is_published_size = width >= 64
        blocks, layers = ((3, 4, 9), 12) if is_published_size else ((1, 1, 2), 4)
        hidden = 12 * width
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.ModuleList()
        channels = width
        for level, count in enumerate(blocks):
            inner = width * 2**level
            self.stages.append(_build_residual_stage(channels, inner, count))
            channels = 4 * inner
        self.embed = nn.Conv2d(channels, hidden, 1)
        self.position = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.transformer = nn.Sequential(
            *(TransformerBlock(hidden, 4 * hidden, num_heads=hidden // 64 or 1) for _ in range(layers)),
            nn.LayerNorm(hidden),
        )
        self.bridge = _build_convolution(hidden, 8 * width)
        skip_channels = (8 * width, 4 * width, width, 0)
        up_out_channels = (4 * width, 2 * width, width, max(width // 4, 8))
        up_in_channels = (8 * width, *up_out_channels[:-1])
        self.ups = nn.ModuleList(
            nn.Sequential(_build_convolution(i + s, o), _build_convolution(o, o))
            for i, s, o in zip(up_in_channels, skip_channels, up_out_channels, strict=True)
        )
        self.classify = nn.Conv2d(up_out_channels[-1], CLASS_COUNT, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits ``(B, 2, H, W)``."""
        features = [self.stem(image)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        feature = self.embed(features.pop())
        feature = feature + self.position(feature)
        tokens = self.transformer(feature.flatten(2).transpose(1, 2))
        feature = self.bridge(tokens.transpose(1, 2).reshape(feature.shape))
        for up in self.ups:
            feature = nn.functional.interpolate(feature, scale_factor=2, mode="bilinear", align_corners=False)
            feature = up(torch.cat([feature, features.pop()], dim=1) if features else feature)
        return self.classify(feature)


def _build_residual_stage(in_channels: int, hidden_channels: int, block_count: int) -> nn.Sequential:
    """Build ``block_count`` bottleneck blocks with ``4 * hidden_channels`` output channels, the first with stride 2."""
    out_channels = 4 * hidden_channels
    shortcut = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, 2, bias=False), nn.BatchNorm2d(out_channels)
    )
    first = ResNetBottleneck(in_channels, hidden_channels, spatial_dims=2, stride=2, downsample=shortcut)
    return nn.Sequential(
        first,
        *(ResNetBottleneck(out_channels, hidden_channels, spatial_dims=2) for _ in range(block_count - 1)),
    )


def _build_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )

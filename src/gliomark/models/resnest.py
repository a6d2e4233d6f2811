"""ResNeSt's split-attention block (Zhang et al. 2020), radix 2, one cardinal group. Tensors only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RADIX = 2
BOTTLENECK = 4


class SplitAttention(nn.Module):
    """Two parallel 3x3 responses, mixed per channel by attention; ``(B, C, H, W)`` to ``(B, C, H/s, W/s)``."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        hidden = max(channels * RADIX // 4, 16)
        self.split = nn.Conv2d(channels, channels * RADIX, 3, stride, 1, groups=RADIX, bias=False)
        self.norm = nn.BatchNorm2d(channels * RADIX)
        self.squeeze = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU())
        self.attend = nn.Conv2d(hidden, channels * RADIX, 1)

    def forward(self, feature: Tensor) -> Tensor:
        splits = torch.stack(F.relu(self.norm(self.split(feature))).chunk(RADIX, dim=1), dim=1)
        pooled = splits.sum(dim=1).mean(dim=(2, 3), keepdim=True)
        scores = torch.stack(self.attend(self.squeeze(pooled)).chunk(RADIX, dim=1), dim=1)
        return (splits * scores.softmax(dim=1)).sum(dim=1)


class ResNeStBlock(nn.Module):
    """Bottleneck 1x1, split attention, 1x1, with a residual; ``(B, inputs, H, W)`` to ``(B, outputs, H/s, W/s)``.

    average_down, as published: the stride is average pooling (3x3) after the split attention; False: the strided
    convolution within it that gliomark 0.1 had.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, average_down: bool = True) -> None:
        super().__init__()
        inner = max(outputs // BOTTLENECK, 8)
        self.reduce = nn.Sequential(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU())
        pooled = average_down and stride > 1
        self.attention = SplitAttention(inner, 1 if pooled else stride)
        self.down = nn.AvgPool2d(3, stride, 1) if pooled else nn.Identity()
        self.expand = nn.Sequential(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        # average pooling before the shortcut's 1x1, as ResNeSt has it
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True) if stride > 1 else nn.Identity(),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
        )

    def forward(self, feature: Tensor) -> Tensor:
        inner = self.down(self.attention(self.reduce(feature)))
        return F.relu(self.expand(inner) + self.shortcut(feature))


def stem(inputs: int, outputs: int) -> nn.Sequential:
    """ResNeSt's deep stem, ``(B, inputs, H, W)`` to ``(B, outputs, H/4, W/4)``."""
    half = outputs // 2
    return nn.Sequential(
        *_convolution(inputs, half, 2),
        *_convolution(half, half, 1),
        *_convolution(half, outputs, 1),
        nn.MaxPool2d(3, 2, 1),
    )


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def stage(inputs: int, outputs: int, blocks: int, stride: int, average_down: bool = True) -> nn.Sequential:
    """``blocks`` ResNeSt blocks, the first with the stride; average_down: see ``ResNeStBlock``."""
    rest = [ResNeStBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(ResNeStBlock(inputs, outputs, stride, average_down), *rest)

"""Split-attention blocks of ResNeSt (Zhang et al. 2020), radix 2, one cardinal group. Tensors only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RADIX = 2
BOTTLENECK_REDUCTION = 4


class SplitAttention(nn.Module):
    """Split attention: two parallel 3x3 convolutions, combined per channel by attention weights.

    ``(B, C, H, W)`` to ``(B, C, H/s, W/s)`` with stride s.
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        hidden = max(channels * RADIX // 4, 16)
        self.split = nn.Conv2d(channels, channels * RADIX, 3, stride, 1, groups=RADIX, bias=False)
        self.norm = nn.BatchNorm2d(channels * RADIX)
        self.squeeze = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU())
        self.attend = nn.Conv2d(hidden, channels * RADIX, 1)

    def forward(self, feature: Tensor) -> Tensor:
        """Return the attended feature ``(B, C, H/s, W/s)``."""
        splits = torch.stack(F.relu(self.norm(self.split(feature))).chunk(RADIX, dim=1), dim=1)
        pooled = splits.sum(dim=1).mean(dim=(2, 3), keepdim=True)
        scores = torch.stack(self.attend(self.squeeze(pooled)).chunk(RADIX, dim=1), dim=1)
        return (splits * scores.softmax(dim=1)).sum(dim=1)


class ResNeStBlock(nn.Module):
    """Residual bottleneck (1x1, split attention, 1x1): ``(B, in_channels, H, W)`` to ``(B, out_channels, H/s, W/s)``.

    average_down: True as published, 3x3 average pooling after the split attention reduces the resolution; False: a
    strided convolution within the split attention, as in gliomark 0.1.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, average_down: bool = True) -> None:
        super().__init__()
        hidden_channels = max(out_channels // BOTTLENECK_REDUCTION, 8)
        self.reduce = nn.Sequential(
            nn.Conv2d(in_channels, hidden_channels, 1, bias=False), nn.BatchNorm2d(hidden_channels), nn.ReLU()
        )
        pooled = average_down and stride > 1
        self.attention = SplitAttention(hidden_channels, 1 if pooled else stride)
        self.down = nn.AvgPool2d(3, stride, 1) if pooled else nn.Identity()
        self.expand = nn.Sequential(
            nn.Conv2d(hidden_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )
        # ResNeSt pools before the 1x1 convolution of the shortcut
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels and stride == 1
            else nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True) if stride > 1 else nn.Identity(),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Return the feature ``(B, out_channels, H/s, W/s)``."""
        inner = self.down(self.attention(self.reduce(feature)))
        return F.relu(self.expand(inner) + self.shortcut(feature))


def build_stem(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build ResNeSt's deep stem: ``(B, in_channels, H, W)`` to ``(B, out_channels, H/4, W/4)``."""
    half = out_channels // 2
    return nn.Sequential(
        *_build_convolution_layers(in_channels, half, 2),
        *_build_convolution_layers(half, half, 1),
        *_build_convolution_layers(half, out_channels, 1),
        nn.MaxPool2d(3, 2, 1),
    )


def _build_convolution_layers(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def build_stage(
    in_channels: int, out_channels: int, block_count: int, stride: int, average_down: bool = True
) -> nn.Sequential:
    """Build a stage of ``block_count`` ResNeSt blocks, the first with the stride; see ``ResNeStBlock``."""
    rest = [ResNeStBlock(out_channels, out_channels, 1) for _ in range(block_count - 1)]
    return nn.Sequential(ResNeStBlock(in_channels, out_channels, stride, average_down), *rest)

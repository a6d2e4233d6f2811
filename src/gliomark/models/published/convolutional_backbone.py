"""Encoder and decoder of U-Net as an alternative backbone for MIG-Net (not published). Tensors only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATION = ("LeakyReLU", {"negative_slope": 0.1})
NORM = ("instance", {"affine": True})


def build_double_convolution(in_channels: int, out_channels: int) -> nn.Module:
    """Build two 3x3 convolutions, each followed by normalisation and leaky ReLU; height and width stay the same."""
    from monai.networks.nets.basic_unet import TwoConv  # takes seconds to import

    return TwoConv(2, in_channels, out_channels, ACTIVATION, NORM, bias=False)


class ConvolutionalEncoder(nn.Module):
    """Encoder: ``(B, in_channels, H, W)`` to a feature ``(B, C_l, H / 2^l, W / 2^l)`` per level l, fine to coarse."""

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(map(build_double_convolution, (in_channels, *channels[:-1]), channels))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features ``(B, C_l, H / 2^l, W / 2^l)`` of an image ``(B, in_channels, H, W)``, fine to coarse."""
        features = [self.stages[0](image)]
        for stage in self.stages[1:]:
            features.append(stage(F.max_pool2d(features[-1], 2)))
        return features


class ConvolutionalDecoder(nn.Module):
    """Decoder with transposed convolutions; same interface as ``SwinDecoder``.

    gates: one module per skip connection, fine to coarse, called as ``gate(encoder_feature, upsampled_feature)``.
    """

    def __init__(self, channels: Sequence[int], gates: Sequence[nn.Module], class_count: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(gates)
        self.expands = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, 2) for c in channels[:-1])
        self.stages = nn.ModuleList(build_double_convolution(2 * c, c) for c in channels[:-1])
        self.classify = nn.Conv2d(channels[0], class_count, 1)

    def forward(self, features: list[Tensor], bottleneck: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits ``(B, classes, H, W)`` and the decoder's feature of every level, coarse to fine.

        features: the encoder's, fine to coarse, each ``(B, C, h, w)``; bottleneck ``(B, C, h, w)``.
        """
        feature, decoder_features = bottleneck, []
        for level in reversed(range(len(self.stages))):
            upsampled = self.expands[level](feature)
            rows, columns = (
                a - b for a, b in zip(features[level].shape[-2:], upsampled.shape[-2:], strict=True)
            )
            # pooling drops the last row or column of an odd side
            upsampled = F.pad(upsampled, (0, columns, 0, rows), mode="replicate")
            skip = self.gates[level](features[level], upsampled)
            feature = self.stages[level](torch.cat([upsampled, skip], dim=1))
            decoder_features.append(feature)
        return self.classify(feature), decoder_features

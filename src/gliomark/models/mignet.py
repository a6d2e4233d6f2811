"""MIG-Net, multi-task information guidance: lesion segmentation with a grading task beside it.

Thesis chapter 3; the numbered equations are in the docstrings of what computes them:
eq. 3-2 ``training.losses.prior_weight``; eqs. 3-3 and 3-4 ``DualPriorGuidance``; eqs. 3-5 to 3-8
``InvertedAttentionGate``. Tensors only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from pydantic import with_config
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models.bounds import STRICT_CONFIG, ChannelCount
from gliomark.models.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from gliomark.models.swin_unet import IdentitySkip, SwinDecoder, SwinEncoder, SwinSize, build_group_norm

CLASS_COUNT = 2
GRADE_COUNT = 2
ALPHA_GRID_SIZE = 30
MAX_ALPHA = 5.0
# sigmoid(4) = 0.98: an open gate lets nearly everything through
OPEN_GATE_BIAS = 4.0


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class MIGNetSettings:
    """Everything that decides MIG-Net's layers. Each ablation of table 3-2 is one switch.

    inputs: channels, 1 as published (sequences are independent samples), 2 for joint input.
    fpg off: the loss is unweighted (alpha starts from the prior wherever guidance is on); guidance off: single
    task, the bottleneck goes straight to the decoder; iag off: plain skip connections. All off: Swin-UNet.
    gates_start "open": the gates let everything through at first; guidance_start "pass-through": the 1x1
    convolutions of eqs. 3-3 and 3-4 return the task's own feature at first. Published is neither ("random").
    Not published: deep_supervision, the decoder's coarser levels answer too while training; backbone
    "convolution", U-Net's encoder and decoder in Swin-UNet's place, with the size's embedding as their
    first width and one level per depth.
    """

    inputs: ChannelCount = 1
    fpg: bool = True
    guidance: bool = True
    iag: bool = True
    gates_start: Literal["random", "open"] = "random"
    guidance_start: Literal["random", "pass-through"] = "random"
    deep_supervision: bool = False
    backbone: Literal["swin", "convolution"] = "swin"
    size: SwinSize = field(default_factory=SwinSize)


class SegmentationOutput(NamedTuple):
    """What a segmentation network answers.

    logits ``(B, 2, H, W)``; grade: logits ``(B, 2)``, or None without a grading task; deeper: the coarser
    levels' logits brought to ``(B, 2, H, W)``, fine to coarse, only while training with deep supervision.
    """

    logits: Tensor
    grade_logits: Tensor | None
    deep_supervision_logits: tuple[Tensor, ...] = ()


class InvertedAttentionGate(nn.Module):
    """IAG on a skip connection (figure 3-5), eqs. 3-5 to 3-8::

        a = sigmoid(psi(relu6(Wx X + Wg G + bg)) + bpsi),   out = X * a

    X: encoder feature, G: decoder feature upsampled to X's level, both ``(B, C, H, W)``. Wx and Wg are
    1x1 convolutions that EXPAND to 2C channels, where Oktay et al. (2018) reduce them; psi maps back.
    """

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        self.wx = nn.Conv2d(channels, expansion * channels, 1, bias=False)
        self.wg = nn.Conv2d(channels, expansion * channels, 1, bias=True)
        self.psi = nn.Conv2d(expansion * channels, channels, 1, bias=True)

    def initialise_open(self) -> None:
        """Let every feature through, wherever it lies."""
        channels = len(self.psi.weight)
        _set_convolution_weights(
            self.psi, torch.zeros_like(self.psi.weight), torch.full((channels,), OPEN_GATE_BIAS)
        )

    def forward(self, encoder_feature: Tensor, upsampled_feature: Tensor) -> Tensor:
        return encoder_feature * torch.sigmoid(
            self.psi(F.relu6(self.wx(encoder_feature) + self.wg(upsampled_feature)))
        )


class DualPriorGuidance(nn.Module):
    """Location and meaning for the bottleneck (figure 3-4), ``(B, C, h, w)`` to ``(Xs, Xc)`` of that shape.

    Location, eq. 3-3, for both tasks: ``X <- conv1x1(concat(alpha * X, X))``.
    Meaning, eq. 3-4, for the target task: ``Xs <- conv1x1(concat(Xs, Xc))``.
    alpha is one learnable map over the template (the brain-centred frame), shared by both tasks.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_segmentation = _build_separable_convolutions(channels)
        self.to_grading = _build_separable_convolutions(channels)
        self.alpha = nn.Parameter(torch.ones(1, 1, ALPHA_GRID_SIZE, ALPHA_GRID_SIZE))
        self.locate_segmentation = nn.Conv2d(2 * channels, channels, 1)
        self.locate_grading = nn.Conv2d(2 * channels, channels, 1)
        self.semantic_fusion = nn.Conv2d(2 * channels, channels, 1)

    def initialise_alpha(self, prior: Tensor) -> None:
        """alpha = the FPG ``(H, W)`` in [0, 1], brought to alpha's cells and scaled to [0, 5]."""
        resampled = F.interpolate(prior[None, None].float(), size=self.alpha.shape[-2:], mode="area")
        with torch.no_grad():
            self.alpha.copy_(MAX_ALPHA * resampled / resampled.max().clamp(min=1e-6))

    def initialise_pass_through(self) -> None:
        """Let each 1x1 convolution return the task's own feature: X of eq. 3-3, Xs of eq. 3-4."""
        identity = torch.eye(self.semantic_fusion.out_channels)[..., None, None]
        zeros = torch.zeros_like(identity)
        for fusion in (self.locate_segmentation, self.locate_grading):
            _set_convolution_weights(fusion, torch.cat([zeros, identity], dim=1), torch.zeros(len(identity)))
        _set_convolution_weights(
            self.semantic_fusion, torch.cat([identity, zeros], dim=1), torch.zeros(len(identity))
        )

    def forward(self, bottleneck: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self._resample_alpha(bottleneck, theta)
        xs, xc = self.to_segmentation(bottleneck), self.to_grading(bottleneck)
        xs = self.locate_segmentation(torch.cat([alpha * xs, xs], dim=1))
        xc = self.locate_grading(torch.cat([alpha * xc, xc], dim=1))
        return self.semantic_fusion(torch.cat([xs, xc], dim=1)), xc

    def _resample_alpha(self, bottleneck: Tensor, theta: Tensor) -> Tensor:
        """alpha as each sample sees it: its crop, turn and flip act on the template's map too.

        A cell of the feature gets the mean of alpha over the cell, not alpha at its middle.
        """
        batch, _, height, width = bottleneck.shape
        points = [max(1, round(ALPHA_GRID_SIZE / side)) for side in (height, width)]
        grid = F.affine_grid(theta, [batch, 1, height * points[0], width * points[1]], align_corners=False)
        alpha = self.alpha.expand(batch, -1, -1, -1)
        resampled = F.grid_sample(alpha, grid.to(alpha.dtype), padding_mode="border", align_corners=False)
        return F.avg_pool2d(resampled, points)


def _set_convolution_weights(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    layer.load_state_dict({"weight": weight, "bias": bias})


def _build_separable_convolutions(channels: int) -> nn.Sequential:
    """Three 3x3 depthwise-separable convolutions, each normalised and rectified."""
    steps: list[nn.Module] = []
    for _ in range(3):
        steps += [
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            build_group_norm(channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*steps)


class MIGNet(nn.Module):
    """MIG-Net built from its parts; ``build_mignet`` makes them from settings.

    Input ``(B, inputs, H, W)``, H and W multiples of 32 (224 as published), and theta ``(B, 2, 3)``: the
    affine, in normalised coordinates, from the sample's frame to the template's (None: the central
    crop of the 240-pixel template). The grade is None with guidance off.
    """

    def __init__(
        self,
        encoder: nn.Module,
        guidance: DualPriorGuidance | None,
        decoder: nn.Module,
        channels: int,
        deep_supervision_heads: nn.ModuleList | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.guidance = guidance
        self.decoder = decoder
        self.grade = nn.Linear(channels, GRADE_COUNT) if guidance is not None else None
        self.deeper = deep_supervision_heads

    def forward(self, image: Tensor, theta: Tensor | None = None) -> SegmentationOutput:
        features = self.encoder(image)
        segmentation_feature, grade_logits = features[-1], None
        if self.guidance is not None and self.grade is not None:
            segmentation_feature, grading_feature = self.guidance(
                segmentation_feature, compute_central_theta(image) if theta is None else theta
            )
            grade_logits = self.grade(grading_feature.mean(dim=(2, 3)))
        logits, decoder_features = self.decoder(features, segmentation_feature)
        if self.deeper is None or not self.training:
            return SegmentationOutput(logits, grade_logits)
        coarse_logits = [head(feature) for head, feature in zip(self.deeper, decoder_features, strict=False)]
        size = image.shape[-2:]
        deep_supervision_logits = [
            F.interpolate(c, size=size, mode="bilinear", align_corners=False) for c in reversed(coarse_logits)
        ]
        return SegmentationOutput(logits, grade_logits, tuple(deep_supervision_logits))


def compute_central_theta(image: Tensor, template_size: int = 240) -> Tensor:
    """theta of the template's central crop of the image's size."""
    height, width = image.shape[-2:]
    theta = image.new_zeros(image.shape[0], 2, 3)
    theta[:, 0, 0] = width / template_size
    theta[:, 1, 1] = height / template_size
    return theta


def build_mignet(settings: MIGNetSettings, prior: Tensor | None = None) -> MIGNet:
    """MIG-Net as the settings say. prior: the FPG ``(H, W)`` that alpha starts from (guidance on)."""
    size = settings.size
    channels = [size.embedding * 2**level for level in range(len(size.depths))]
    gates = [_build_gate(c, settings) for c in channels[:-1]]
    guidance = _build_guidance(channels[-1], settings, prior)
    encoder: nn.Module
    decoder: nn.Module
    if settings.backbone == "convolution":
        encoder = ConvolutionalEncoder(settings.inputs, channels)
        decoder = ConvolutionalDecoder(channels, gates, CLASS_COUNT)
    else:
        encoder, decoder = SwinEncoder(settings.inputs, size), SwinDecoder(size, gates, CLASS_COUNT)
    deep_supervision_heads = None
    if settings.deep_supervision:
        # the finest level of the decoder is the answer itself
        deep_supervision_heads = nn.ModuleList(nn.Conv2d(c, CLASS_COUNT, 1) for c in reversed(channels[1:-1]))
    return MIGNet(encoder, guidance, decoder, channels[-1], deep_supervision_heads)


def _build_gate(channels: int, settings: MIGNetSettings) -> nn.Module:
    if not settings.iag:
        return IdentitySkip()
    gate = InvertedAttentionGate(channels)
    if settings.gates_start == "open":
        gate.initialise_open()
    return gate


def _build_guidance(
    channels: int, settings: MIGNetSettings, prior: Tensor | None
) -> DualPriorGuidance | None:
    if not settings.guidance:
        return None
    guidance = DualPriorGuidance(channels)
    if prior is not None:
        guidance.initialise_alpha(prior)
    if settings.guidance_start == "pass-through":
        guidance.initialise_pass_through()
    return guidance

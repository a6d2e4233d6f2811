"""MIG-Net (multi-task information guidance): lesion segmentation with an auxiliary grading task.

Section 3 of method.md (thesis chapter 3). Equation 3-2 is computed by
``training.losses.compute_prior_weight``, equations 3-3 and 3-4 by ``DualPriorGuidance``, equations 3-5 to 3-8 by
``InvertedAttentionGate``. Tensors only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from pydantic import with_config
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.errors import WeightsError
from gliomark.messages import message
from gliomark.models.entries import SegmentationEntry
from gliomark.models.network_io import CLASS_COUNT, SegmentationOutput
from gliomark.models.published.convolutional_backbone import ConvolutionalDecoder, ConvolutionalEncoder
from gliomark.models.published.swin_unet import (
    SMALL_SWIN_SIZE,
    IdentitySkip,
    SwinDecoder,
    SwinEncoder,
    SwinSize,
    build_group_norm,
)
from gliomark.models.validated_types import STRICT_CONFIG, ChannelCount

GRADE_COUNT = 2
ALPHA_GRID_SIZE = 30
MAX_ALPHA = 5.0
# sigmoid(4) = 0.98: an open gate passes nearly the whole feature
OPEN_GATE_BIAS = 4.0


@with_config(STRICT_CONFIG)
@dataclass(frozen=True)
class MIGNetSettings:
    """Settings that determine MIG-Net's layers. Each ablation of table 3-2 is one switch.

    Attributes
    ----------
    inputs
        Input channels: 1 as published (sequences are independent samples), 2 for joint input.
    fpg
        Off: the loss is not weighted. alpha still starts from the prior wherever guidance is on.
    guidance
        Off: single task; the bottleneck goes directly to the decoder.
    iag
        Off: identity skip connections. With all three off the network is Swin-UNet.
    gates_start
        "random" as published; "open": the gates initially pass the whole feature.
    guidance_start
        "random" as published; "pass-through": the 1x1 convolutions of equations 3-3 and 3-4 initially return the
        task's own feature.
    deep_supervision
        Not published: the coarser decoder levels also predict during training.
    backbone
        "swin" as published; "convolution": U-Net's encoder and decoder, with ``size.embedding`` as their first
        width and one level per entry of ``size.depths``.
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


class InvertedAttentionGate(nn.Module):
    """Inverted attention gate on a skip connection (figure 3-5, equations 3-5 to 3-8)::

        a = sigmoid(psi(relu6(Wx X + Wg G + bg)) + bpsi),   out = X * a

    X is the encoder feature and G the decoder feature upsampled to the same level, both ``(B, C, H, W)``. Wx and Wg
    are 1x1 convolutions that expand to 2C channels, where Oktay et al. (2018) reduce them; psi maps back to C.
    """

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        self.wx = nn.Conv2d(channels, expansion * channels, 1, bias=False)
        self.wg = nn.Conv2d(channels, expansion * channels, 1, bias=True)
        self.psi = nn.Conv2d(expansion * channels, channels, 1, bias=True)

    def initialise_open(self) -> None:
        """Initialise the gate so that it passes nearly the whole feature at every pixel."""
        channels = len(self.psi.weight)
        _set_convolution_weights(
            self.psi, torch.zeros_like(self.psi.weight), torch.full((channels,), OPEN_GATE_BIAS)
        )

    def forward(self, encoder_feature: Tensor, upsampled_feature: Tensor) -> Tensor:
        """Return the gated encoder feature ``(B, C, H, W)``."""
        return encoder_feature * torch.sigmoid(
            self.psi(F.relu6(self.wx(encoder_feature) + self.wg(upsampled_feature)))
        )


class DualPriorGuidance(nn.Module):
    """Dual prior guidance of the bottleneck (figure 3-4): ``(B, C, h, w)`` to Xs and Xc of the same shape.

    Location prior (equation 3-3), for both tasks: ``X <- conv1x1(concat(alpha * X, X))``.
    Semantic prior (equation 3-4), for segmentation: ``Xs <- conv1x1(concat(Xs, Xc))``.
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
        """Set alpha to the FPG ``(H, W)`` with values 0 to 1, resampled to alpha's grid and scaled to 0 to 5."""
        resampled = F.interpolate(prior[None, None].float(), size=self.alpha.shape[-2:], mode="area")
        with torch.no_grad():
            self.alpha.copy_(MAX_ALPHA * resampled / resampled.max().clamp(min=1e-6))

    def initialise_pass_through(self) -> None:
        """Initialise each 1x1 convolution to return the task's own feature: X of eq. 3-3, Xs of eq. 3-4."""
        identity = torch.eye(self.semantic_fusion.out_channels)[..., None, None]
        zeros = torch.zeros_like(identity)
        for fusion in (self.locate_segmentation, self.locate_grading):
            _set_convolution_weights(fusion, torch.cat([zeros, identity], dim=1), torch.zeros(len(identity)))
        _set_convolution_weights(
            self.semantic_fusion, torch.cat([identity, zeros], dim=1), torch.zeros(len(identity))
        )

    def forward(self, bottleneck: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return Xs and Xc, each ``(B, C, h, w)``; theta ``(B, 2, 3)`` maps each sample to the template."""
        alpha = self._resample_alpha(bottleneck, theta)
        xs, xc = self.to_segmentation(bottleneck), self.to_grading(bottleneck)
        xs = self.locate_segmentation(torch.cat([alpha * xs, xs], dim=1))
        xc = self.locate_grading(torch.cat([alpha * xc, xc], dim=1))
        return self.semantic_fusion(torch.cat([xs, xc], dim=1)), xc

    def _resample_alpha(self, bottleneck: Tensor, theta: Tensor) -> Tensor:
        """Resample alpha into each sample's view (crop, rotation, flip), ``(B, 1, h, w)``.

        A cell of the feature gets the mean of alpha over the cell, not alpha at its centre.
        """
        batch, _, height, width = bottleneck.shape
        points = [max(1, round(ALPHA_GRID_SIZE / int(side))) for side in (height, width)]
        grid = _create_sampling_grid(theta, batch, height * points[0], width * points[1])
        alpha = self.alpha.expand(batch, -1, -1, -1)
        resampled = F.grid_sample(alpha, grid.to(alpha.dtype), padding_mode="border", align_corners=False)
        return F.avg_pool2d(resampled, points)


def _set_convolution_weights(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    layer.load_state_dict({"weight": weight, "bias": bias})


def _build_separable_convolutions(channels: int) -> nn.Sequential:
    """Build three 3x3 depthwise-separable convolutions, each followed by normalisation and ReLU."""
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
    """MIG-Net from its parts; ``build_mignet`` creates them from the settings.

    Input: image ``(B, inputs, H, W)``, H and W multiples of 32 (224 as published), and theta ``(B, 2, 3)``: the
    affine, in normalised coordinates, from the sample's frame to the template's (None: the central crop of the
    240-pixel template). grade_logits is None with guidance off.
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
        """Return the logits ``(B, 2, H, W)`` and, with guidance, the grade logits ``(B, 2)``."""
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
    """Return theta ``(B, 2, 3)`` of the template's central crop that has the size of image ``(B, C, H, W)``."""
    height, width = image.shape[-2:]
    theta = image.new_zeros(image.shape[0], 2, 3)
    theta[:, 0, 0] = width / template_size
    theta[:, 1, 1] = height / template_size
    return theta


def build_mignet(settings: MIGNetSettings, prior: Tensor | None = None) -> MIGNet:
    """Build MIG-Net from its settings.

    Parameters
    ----------
    settings
        The layers to build.
    prior
        The FPG ``(H, W)`` from which alpha is initialised when guidance is on.

    Returns
    -------
    MIGNet
        A network with random weights, except for the parts that the settings or the prior initialise.
    """
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
        # the finest decoder level needs no head of its own: it gives the final logits
        deep_supervision_heads = nn.ModuleList(nn.Conv2d(c, CLASS_COUNT, 1) for c in reversed(channels[1:-1]))
    return MIGNet(encoder, guidance, decoder, channels[-1], deep_supervision_heads)


def _create_sampling_grid(theta: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Create the points ``(B, height, width, 2)`` at which theta ``(B, 2, 3)`` samples; inference engines need sums."""
    if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return F.affine_grid(theta, [batch, 1, height, width], align_corners=False)
    x, y = ((2 * torch.arange(int(side)) + 1) / int(side) - 1 for side in (width, height))
    x_axis, y_axis, offset = (theta[:, None, None, :, column] for column in range(3))
    return x_axis * x[None, None, :, None] + y_axis * y[None, :, None, None] + offset


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


def _upgrade_record(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse MIG-Nets of gliomark 0.1, whose layers differ (batch normalisation, another alpha)."""
    if "gates_start" not in record:
        raise WeightsError(message("network-of-before"))
    return record


ENTRY = SegmentationEntry(
    name="MIG-Net",
    reference="Li 2023, chapter 3",
    recipes={"published": MIGNetSettings(), "small": MIGNetSettings(size=SMALL_SWIN_SIZE)},
    build=build_mignet,
    uses_prior_weight=lambda settings: settings.fpg,
    upgrade_record=_upgrade_record,
)
_SWITCHES_OFF = MIGNetSettings(fpg=False, guidance=False, iag=False)
# with all switches off MIG-Net is Swin-UNet, and weights files record it as such a MIG-Net
SWIN_UNET_ENTRY = replace(
    ENTRY,
    name="Swin-UNet",
    reference="Cao et al. 2022",
    recipes={"published": _SWITCHES_OFF, "small": replace(_SWITCHES_OFF, size=SMALL_SWIN_SIZE)},
    recorded_as=ENTRY.name,
)

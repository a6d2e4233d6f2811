"""MIG-Net against its equations, its switches and Swin-UNet."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.models import swin_unet
from gliomark.models.mignet import (
    DualPriorGuidance,
    InvertedAttentionGate,
    MIGNetSettings,
    build_mignet,
    central,
)
from gliomark.models.swin_unet import PlainSkip, SwinDecoder, SwinEncoder, SwinSize

TINY = SwinSize(embedding=8, depths=(1, 1, 1), heads=(1, 2, 2), patch=4)
TINY_SETTINGS = MIGNetSettings(size=TINY)
OFF = {"fpg": False, "guidance": False, "iag": False}
IDENTITY = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])


@pytest.fixture(autouse=True)
def seeded_models() -> None:
    torch.manual_seed(0)


# ---- inverted attention gate ------------------------------------------------------------------------


def gate_reference(gate: InvertedAttentionGate, x: Tensor, g: Tensor) -> Tensor:
    """Eqs. 3-5 to 3-8 pixel by pixel: a 1x1 convolution is a matrix on the channels."""
    wx, wg, psi = (layer.weight[:, :, 0, 0] for layer in (gate.wx, gate.wg, gate.psi))
    pixels_x, pixels_g = (t.permute(0, 2, 3, 1).reshape(-1, t.shape[1]) for t in (x, g))
    mixed = pixels_x @ wx.T + pixels_g @ wg.T + gate.wg.bias  # eq. 3-5
    rectified = torch.minimum(torch.maximum(mixed, torch.zeros(())), torch.tensor(6.0))  # eq. 3-6
    attention = 1 / (1 + torch.exp(-(rectified @ psi.T + gate.psi.bias)))  # eq. 3-7
    out = pixels_x * attention  # eq. 3-8
    return out.reshape(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)


def test_gate_is_its_equations() -> None:
    gate = InvertedAttentionGate(6)
    x, g = 4 * torch.randn(2, 6, 5, 7), 9 * torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        mixed = gate.wx(x) + gate.wg(g)
        assert (mixed > 6).any() and (mixed < 0).any(), "both ends of relu6 must be met"
        torch.testing.assert_close(gate(x, g), gate_reference(gate, x, g), atol=1e-5, rtol=1e-5)


def test_gate_expands_the_channels_and_can_open_and_shut() -> None:
    gate = InvertedAttentionGate(6)
    assert gate.wx.weight.shape == gate.wg.weight.shape == (12, 6, 1, 1)
    assert gate.psi.weight.shape == (6, 12, 1, 1)
    assert gate.wx.bias is None and gate.wg.bias is not None and gate.psi.bias is not None
    x, g = torch.randn(1, 6, 4, 4), torch.randn(1, 6, 4, 4)
    for bias, expected in ((-60.0, torch.zeros_like(x)), (60.0, x)):
        nn.init.constant_(gate.psi.bias, bias)
        torch.testing.assert_close(gate(x, g), expected, atol=1e-6, rtol=0)


# ---- dual prior guidance ----------------------------------------------------------------------------


def separable_reference(steps: nn.Sequential, x: Tensor) -> Tensor:
    """Three times: 3x3 on every channel alone, 1x1 across channels, normalise, rectify."""
    assert len(steps) == 12
    for start in (0, 4, 8):
        depth, point, norm = steps[start], steps[start + 1], steps[start + 2]
        padded = F.pad(x, (1, 1, 1, 1))
        height, width = x.shape[-2:]
        shifted = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        each = sum(
            w[None, :, None, None] * s for w, s in zip(depth.weight.flatten(1).T, shifted, strict=True)
        )
        mixed = torch.einsum("oc,bchw->bohw", point.weight[:, :, 0, 0], each)
        mean, deviation = norm.running_mean, (norm.running_var + norm.eps).sqrt()
        scaled = (mixed - mean[:, None, None]) / deviation[:, None, None]
        x = (scaled * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
    return x


def one_by_one(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], x) + layer.bias[:, None, None]


@pytest.fixture
def guidance() -> DualPriorGuidance:
    module = DualPriorGuidance(6).eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.3, 0.3)
            nn.init.uniform_(part.running_var, 0.2, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, 0.0, 0.5)
    module.start_from(torch.rand(240, 240))
    return module


@torch.no_grad()
def test_guidance_is_its_equations(guidance: DualPriorGuidance) -> None:
    bottleneck = torch.randn(2, 6, 7, 7)
    xs, xc = guidance(bottleneck, IDENTITY.expand(2, -1, -1))
    alpha = F.interpolate(guidance.alpha, size=(7, 7), mode="bilinear", align_corners=False)
    s = separable_reference(guidance.to_segmentation, bottleneck)
    c = separable_reference(guidance.to_grading, bottleneck)
    s = one_by_one(guidance.locate_segmentation, torch.cat([alpha * s, s], dim=1))  # eq. 3-3
    c = one_by_one(guidance.locate_grading, torch.cat([alpha * c, c], dim=1))  # eq. 3-3
    torch.testing.assert_close(xc, c, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(xs, one_by_one(guidance.mean, torch.cat([s, c], dim=1)), atol=1e-5, rtol=1e-4)


def test_alpha_starts_as_the_prior_in_0_to_5() -> None:
    prior = torch.zeros(240, 240)
    prior[40:120, 80:200] = torch.rand(80, 120) * 0.4
    module = DualPriorGuidance(4)
    module.start_from(prior)
    assert module.alpha.min().item() == 0 and module.alpha.max().item() == pytest.approx(5)
    assert module.alpha.requires_grad
    cells = prior.reshape(30, 8, 30, 8).mean(dim=(1, 3))
    torch.testing.assert_close(module.alpha[0, 0].detach(), 5 * cells / cells.max())
    settings = replace(TINY_SETTINGS, fpg=True)
    torch.testing.assert_close(build_mignet(settings, prior).guidance.alpha, module.alpha)
    constant = build_mignet(replace(settings, fpg=False), prior).guidance.alpha
    assert (constant == constant.flatten()[0]).all(), "FPG off: alpha starts constant"


@torch.no_grad()
def test_theta_acts_on_alpha(guidance: DualPriorGuidance) -> None:
    feature = torch.zeros(1, 6, 10, 10)
    straight = guidance._alpha_under(feature, IDENTITY)
    # the view's point (x, y) lies at (-y, x) of the template: a quarter turn counterclockwise
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    turned = guidance._alpha_under(feature, quarter)
    torch.testing.assert_close(turned, torch.rot90(straight, 1, (2, 3)), atol=1e-4, rtol=1e-4)
    mirror = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    torch.testing.assert_close(guidance._alpha_under(feature, mirror), straight.flip(3), atol=1e-4, rtol=1e-4)
    # the view's left third of the template
    third = torch.tensor([[[1 / 3, 0.0, -2 / 3], [0.0, 1.0, 0.0]]])
    shown = guidance._alpha_under(torch.zeros(1, 6, 30, 10), third)
    torch.testing.assert_close(shown, guidance.alpha[..., :10], atol=1e-4, rtol=1e-4)


# ---- the whole ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_default_theta_is_the_central_crop_of_240() -> None:
    network = build_mignet(TINY_SETTINGS, torch.rand(240, 240)).eval()
    image = torch.randn(1, 1, 192, 192)
    theta = torch.tensor([[[0.8, 0.0, 0.0], [0.0, 0.8, 0.0]]])
    torch.testing.assert_close(central(image), theta)
    torch.testing.assert_close(network(image), network(image, theta))
    assert not torch.allclose(network(image)[0], network(image, theta.flip(1))[0]), "alpha must matter"


@pytest.mark.parametrize("fpg", [True, False])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("iag", [True, False])
def test_switches(fpg: bool, guided: bool, iag: bool) -> None:
    network = build_mignet(MIGNetSettings(fpg=fpg, guidance=guided, iag=iag, size=TINY), torch.rand(240, 240))
    logits, grade = network(torch.randn(2, 1, 64, 64))
    assert logits.shape == (2, 2, 64, 64)
    assert (grade is None) == (not guided)
    assert grade is None or grade.shape == (2, 2)
    assert sum(isinstance(part, InvertedAttentionGate) for part in network.modules()) == (2 if iag else 0)
    assert any("guidance" in name for name, _ in network.named_parameters()) == guided


@torch.no_grad()
def test_all_off_is_plain_swin_unet() -> None:
    network = build_mignet(MIGNetSettings(**OFF, size=TINY)).eval()
    encoder = SwinEncoder(1, TINY)
    decoder = SwinDecoder(TINY, [PlainSkip(), PlainSkip()], 2)
    plain = nn.ModuleDict({"encoder": encoder, "decoder": decoder}).eval()
    image = torch.randn(2, 1, 64, 64)
    before = decoder(encoder(image), encoder(image)[-1])
    plain.load_state_dict(network.state_dict())  # strict: no weight more, none less
    features = encoder(image)
    after = decoder(features, features[-1])
    torch.testing.assert_close(network(image)[0], after, atol=0, rtol=0)
    assert not torch.allclose(before, after)


@torch.no_grad()
def test_published_size() -> None:
    def million(**switches: bool) -> float:
        return sum(p.numel() for p in build_mignet(MIGNetSettings(**switches)).parameters()) / 1e6

    assert million(**OFF) == pytest.approx(27.17, abs=0.02)  # Swin-UNet (Cao et al.): 27.17
    assert million(guidance=False) == pytest.approx(28.33, abs=0.02)
    network = build_mignet(MIGNetSettings()).eval()
    assert sum(p.numel() for p in network.parameters()) == 35_460_172
    image = torch.randn(2, 1, 224, 224)
    features = network.encoder(image)
    assert [tuple(f.shape[1:]) for f in features] == [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7)]
    logits, grade = network(image)
    assert logits.shape == (2, 2, 224, 224) and grade.shape == (2, 2)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("size", [TINY, swin_unet.SMALL], ids=["tiny", "small"])
def test_gradient_reaches_everything(size: SwinSize) -> None:
    network = build_mignet(MIGNetSettings(inputs=2, size=size), torch.rand(240, 240))
    logits, grade = network(torch.randn(2, 2, 64, 64))
    (logits.square().mean() + F.cross_entropy(grade, torch.tensor([0, 1]))).backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None]
    assert not unreached
    # biases before a normalisation have no effect; every weight and alpha must have one
    dead = [name for name, p in network.named_parameters() if p.dim() > 1 and not p.grad.abs().max() > 0]
    assert not dead


def test_segmentation_reads_the_grading_branch_but_not_the_other_way_round() -> None:
    """Eq. 3-4: meaning flows from grading to segmentation only."""
    network = build_mignet(TINY_SETTINGS)
    logits, grade = network(torch.randn(2, 1, 64, 64))
    auxiliary = network.guidance.locate_grading.weight
    target = network.guidance.locate_segmentation.weight
    assert torch.autograd.grad(logits.sum(), auxiliary, retain_graph=True)[0].abs().max() > 0
    assert torch.autograd.grad(grade.square().sum(), target, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(grade.square().sum(), network.guidance.alpha)[0].abs().max() > 0

"""MIG-Net: its equations, its switches and its equivalence to Swin-UNet."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from monai.networks.nets.swin_unetr import BasicLayer
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.experiments.segmentation.runs import PRESETS, create_mignet_run
from gliomark.models.published import swin_unet
from gliomark.models.published.mignet import (
    DualPriorGuidance,
    InvertedAttentionGate,
    MIGNetSettings,
    build_mignet,
    compute_central_theta,
)
from gliomark.models.published.swin_stage import SwinStage
from gliomark.models.published.swin_unet import IdentitySkip, SwinDecoder, SwinEncoder, SwinSize
from gliomark.training.segmentation import create_segmentation_config

TINY = SwinSize(embedding=8, depths=(1, 1, 1), heads=(1, 2, 2), patch=4)
TINY_SETTINGS = MIGNetSettings(size=TINY)
OFF = {"fpg": False, "guidance": False, "iag": False}
IDENTITY = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])


@pytest.fixture(autouse=True)
def seed_torch() -> None:
    torch.manual_seed(0)


# ---- inverted attention gate ------------------------------------------------------------------------


def compute_gate_reference(gate: InvertedAttentionGate, x: Tensor, g: Tensor) -> Tensor:
    """Compute equations 3-5 to 3-8 pixel by pixel: a 1x1 convolution is a matrix on the channels."""
    wx, wg, psi = (layer.weight[:, :, 0, 0] for layer in (gate.wx, gate.wg, gate.psi))
    pixels_x, pixels_g = (t.permute(0, 2, 3, 1).reshape(-1, t.shape[1]) for t in (x, g))
    mixed = pixels_x @ wx.T + pixels_g @ wg.T + gate.wg.bias  # eq. 3-5
    rectified = torch.minimum(torch.maximum(mixed, torch.zeros(())), torch.tensor(6.0))  # eq. 3-6
    attention = 1 / (1 + torch.exp(-(rectified @ psi.T + gate.psi.bias)))  # eq. 3-7
    out = pixels_x * attention  # eq. 3-8
    return out.reshape(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)


def test_gate_follows_its_equations() -> None:
    gate = InvertedAttentionGate(6)
    x, g = 4 * torch.randn(2, 6, 5, 7), 9 * torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        mixed = gate.wx(x) + gate.wg(g)
        assert (mixed > 6).any() and (mixed < 0).any(), "both limits of relu6 must be reached"
        torch.testing.assert_close(gate(x, g), compute_gate_reference(gate, x, g), atol=1e-5, rtol=1e-5)


def test_gate_expands_the_channels_and_can_open_and_close() -> None:
    gate = InvertedAttentionGate(6)
    assert gate.wx.weight.shape == gate.wg.weight.shape == (12, 6, 1, 1)
    assert gate.psi.weight.shape == (6, 12, 1, 1)
    assert gate.wx.bias is None and gate.wg.bias is not None and gate.psi.bias is not None
    x, g = torch.randn(1, 6, 4, 4), torch.randn(1, 6, 4, 4)
    for bias, expected in ((-60.0, torch.zeros_like(x)), (60.0, x)):
        nn.init.constant_(gate.psi.bias, bias)
        torch.testing.assert_close(gate(x, g), expected, atol=1e-6, rtol=0)


# ---- dual prior guidance ----------------------------------------------------------------------------


def compute_separable_reference(steps: nn.Sequential, x: Tensor) -> Tensor:
    """Apply three times: depthwise 3x3, 1x1 across channels, group normalisation, ReLU."""
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
        groups = mixed.reshape(len(x), norm.num_groups, -1)
        variance = groups.var(dim=2, correction=0, keepdim=True)
        scaled = ((groups - groups.mean(dim=2, keepdim=True)) / (variance + norm.eps).sqrt()).view_as(mixed)
        x = (scaled * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
    return x


def apply_1x1_convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], x) + layer.bias[:, None, None]


@pytest.fixture
def guidance() -> DualPriorGuidance:
    module = DualPriorGuidance(6).eval()
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, 0.0, 0.5)
    module.initialise_alpha(torch.rand(240, 240))
    return module


@torch.no_grad()
def test_guidance_follows_its_equations(guidance: DualPriorGuidance) -> None:
    bottleneck = torch.randn(2, 6, 7, 7)
    xs, xc = guidance(bottleneck, IDENTITY.expand(2, -1, -1))
    fine = F.interpolate(guidance.alpha, size=(28, 28), mode="bilinear", align_corners=False)
    alpha = F.avg_pool2d(fine, 4)
    s = compute_separable_reference(guidance.to_segmentation, bottleneck)
    c = compute_separable_reference(guidance.to_grading, bottleneck)
    s = apply_1x1_convolution(guidance.locate_segmentation, torch.cat([alpha * s, s], dim=1))  # eq. 3-3
    c = apply_1x1_convolution(guidance.locate_grading, torch.cat([alpha * c, c], dim=1))  # eq. 3-3
    torch.testing.assert_close(xc, c, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        xs, apply_1x1_convolution(guidance.semantic_fusion, torch.cat([s, c], dim=1)), atol=1e-5, rtol=1e-4
    )


def test_alpha_starts_as_the_prior_scaled_to_0_to_5() -> None:
    prior = torch.zeros(240, 240)
    prior[40:120, 80:200] = torch.rand(80, 120) * 0.4
    module = DualPriorGuidance(4)
    module.initialise_alpha(prior)
    assert module.alpha.min().item() == 0 and module.alpha.max().item() == pytest.approx(5)
    assert module.alpha.requires_grad
    cells = prior.reshape(30, 8, 30, 8).mean(dim=(1, 3))
    torch.testing.assert_close(module.alpha[0, 0].detach(), 5 * cells / cells.max())
    for fpg in (True, False):
        # FPG off changes only the loss: guidance still uses the prior
        settings = replace(TINY_SETTINGS, fpg=fpg)
        torch.testing.assert_close(build_mignet(settings, prior).guidance.alpha, module.alpha)


@torch.no_grad()
def test_theta_acts_on_alpha(guidance: DualPriorGuidance) -> None:
    feature = torch.zeros(1, 6, 10, 10)
    straight = guidance._resample_alpha(feature, IDENTITY)
    # the view's point (x, y) lies at (-y, x) of the template: a rotation by 90 degrees counterclockwise
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    rotated = guidance._resample_alpha(feature, quarter)
    torch.testing.assert_close(rotated, torch.rot90(straight, 1, (2, 3)), atol=1e-4, rtol=1e-4)
    mirror = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    torch.testing.assert_close(
        guidance._resample_alpha(feature, mirror), straight.flip(3), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_alpha_is_averaged_over_a_cell_of_the_bottleneck(guidance: DualPriorGuidance, shift: int) -> None:
    """Published geometry: each of the 7 x 7 cells covers 32 pixels of the slice, or 4 x 4 cells of alpha."""
    theta = torch.tensor([[[224 / 240, 0.0, 8 * shift / 120], [0.0, 224 / 240, 0.0]]])
    resampled = guidance._resample_alpha(torch.zeros(1, 6, 7, 7), theta)
    cells = guidance.alpha[0, 0, 1:29, 1 + shift : 29 + shift]
    torch.testing.assert_close(
        resampled[0, 0], cells.reshape(7, 4, 7, 4).mean(dim=(1, 3)), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_gates_and_guidance_may_start_open() -> None:
    settings = replace(TINY_SETTINGS, gates_start="open", guidance_start="pass-through")
    network, x = build_mignet(settings, torch.rand(240, 240)), torch.randn(2, 8, 5, 5)
    for gate, channels in zip(network.decoder.gates, (8, 16), strict=True):
        x = torch.randn(2, channels, 5, 5)
        torch.testing.assert_close(gate(x, torch.randn_like(x)), x, atol=0, rtol=0.02)
    feature = torch.randn(2, 32, 7, 7)
    xs, xc = network.guidance(feature, IDENTITY.expand(2, -1, -1))
    torch.testing.assert_close(xs, network.guidance.to_segmentation(feature))
    torch.testing.assert_close(xc, network.guidance.to_grading(feature))
    default = build_mignet(TINY_SETTINGS)
    assert (TINY_SETTINGS.gates_start, TINY_SETTINGS.guidance_start) == ("random", "random")
    assert default.decoder.gates[0].psi.weight.abs().max() > 0


@pytest.mark.parametrize(
    "size", [SwinSize(), swin_unet.SMALL_SWIN_SIZE, TINY], ids=["published", "small", "tiny"]
)
@pytest.mark.parametrize("backbone", ["swin", "convolution"])
def test_mignet_has_no_batch_normalisation(size: SwinSize, backbone: str) -> None:
    with torch.device("meta"):
        network = build_mignet(MIGNetSettings(size=size, backbone=backbone))
    assert not [
        name for name, part in network.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]


# ---- the complete network -----------------------------------------------------------------------------


@torch.no_grad()
def test_default_theta_is_the_central_crop_of_240() -> None:
    network = build_mignet(TINY_SETTINGS, torch.rand(240, 240)).eval()
    image = torch.randn(1, 1, 192, 192)
    theta = torch.tensor([[[0.8, 0.0, 0.0], [0.0, 0.8, 0.0]]])
    torch.testing.assert_close(compute_central_theta(image), theta)
    for given, default in zip(network(image, theta)[:2], network(image)[:2], strict=True):
        torch.testing.assert_close(default, given)
    assert not torch.allclose(network(image).logits, network(image, theta.flip(1)).logits), (
        "alpha has no effect"
    )


@pytest.mark.parametrize("fpg", [True, False])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("iag", [True, False])
def test_each_switch_adds_or_removes_its_part(fpg: bool, guided: bool, iag: bool) -> None:
    network = build_mignet(MIGNetSettings(fpg=fpg, guidance=guided, iag=iag, size=TINY), torch.rand(240, 240))
    logits, grade, deeper = network(torch.randn(2, 1, 64, 64))
    assert deeper == ()
    assert logits.shape == (2, 2, 64, 64)
    assert (grade is None) == (not guided)
    assert grade is None or grade.shape == (2, 2)
    assert sum(isinstance(part, InvertedAttentionGate) for part in network.modules()) == (2 if iag else 0)
    assert any("guidance" in name for name, _ in network.named_parameters()) == guided


# ---- Swin-UNet, layer by layer ------------------------------------------------------------------------


class PlainSwinUNet(nn.Module):
    """Swin-UNet assembled for this test: encoder, and a decoder with identity skip connections."""

    def __init__(self, inputs: int, size: SwinSize) -> None:
        super().__init__()
        self.encoder = SwinEncoder(inputs, size)
        self.decoder = SwinDecoder(size, [IdentitySkip() for _ in size.depths[1:]], 2)

    def forward(self, image: Tensor) -> Tensor:
        features = self.encoder(image)
        return self.decoder(features, features[-1])[0]


def list_layers(network: nn.Module) -> list[tuple]:
    """List all layers in order: name, type, settings as text, and shapes of the layer's own tensors."""
    return [
        (name, type(part), part.extra_repr(), {key: tuple(p.shape) for key, p in part.named_parameters(recurse=False)})
        for name, part in network.named_modules()
        if name
    ]  # fmt: skip


SIZES = {"published": SwinSize(), "small": swin_unet.SMALL_SWIN_SIZE, "tiny": TINY}


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("name", SIZES)
def test_all_off_is_swin_unet_layer_by_layer(name: str, inputs: int) -> None:
    with torch.device("meta"):
        network = build_mignet(MIGNetSettings(inputs, **OFF, size=SIZES[name]))
        plain = PlainSwinUNet(inputs, SIZES[name])
    assert list_layers(network) == list_layers(plain)
    kinds = {type(part) for part in network.modules()}
    assert IdentitySkip in kinds and not kinds & {InvertedAttentionGate, DualPriorGuidance}
    assert network.grade is None and network.guidance is None and network.deeper is None


@pytest.mark.parametrize("switch", ["guidance", "iag", "deep_supervision"])
def test_each_switch_changes_the_network(switch: str) -> None:
    """The comparison above fails if a single switch is on."""
    with torch.device("meta"):
        network = build_mignet(MIGNetSettings(**{**OFF, switch: True}, size=TINY))
        assert list_layers(network) != list_layers(PlainSwinUNet(1, TINY))


@torch.no_grad()
@pytest.mark.parametrize("size", [TINY, swin_unet.SMALL_SWIN_SIZE], ids=["tiny", "small"])
def test_all_off_predicts_as_swin_unet_with_the_same_weights(size: SwinSize) -> None:
    network = build_mignet(MIGNetSettings(2, **OFF, size=size)).eval()
    plain = PlainSwinUNet(2, size).eval()
    image = torch.randn(2, 2, 64, 64)
    before = plain(image)
    plain.load_state_dict(network.state_dict())  # strict: exactly the same weights
    torch.testing.assert_close(network(image).logits, plain(image), atol=0, rtol=0)
    assert not torch.allclose(before, plain(image))


# ---- parameters by arithmetic -------------------------------------------------------------------------


def count_block_parameters(c: int, heads: int) -> int:
    """Return the parameters of a Swin block: two normalisations, relative positions, qkv, projection, perceptron."""
    attention = 13 * 13 * heads + (3 * c * c + 3 * c) + (c * c + c)
    return 2 * 2 * c + attention + (4 * c * c + 4 * c) + (4 * c * c + c)


def count_swin_unet_parameters(inputs: int, size: SwinSize) -> int:
    widths = [size.embedding * 2**level for level in range(len(size.depths))]
    stages = [
        depth * count_block_parameters(c, heads)
        for c, depth, heads in zip(widths, size.depths, size.heads, strict=True)
    ]
    first, patch = widths[0], size.patch**2
    count = inputs * patch * first + first + 2 * first  # patch projection and its normalisation
    count += 2 * sum(stages) - stages[-1]  # the decoder has no lowest stage
    for c in widths[:-1]:
        count += 4 * c * 2 * c + 2 * 4 * c  # patch merging: 4c to 2c, normalised before
        count += 2 * c * 4 * c + 2 * c  # patch expanding: 2c to 2 x 2 pixels of c, normalised after
        count += 2 * c * c + c  # skip and feature together back to c
    count += 2 * widths[-1]  # the bottleneck is normalised
    count += 2 * first + first * first * patch + 2 * first  # the last normalisation and patch expanding
    return count + 2 * first + 2


def count_gate_parameters(c: int) -> int:
    """Return the parameters of a gate: Wx without bias, Wg and psi with bias, over 2c channels."""
    return c * 2 * c + (c * 2 * c + 2 * c) + (2 * c * c + c)


def count_guidance_parameters(c: int) -> int:
    """Return the parameters of the guidance: two times three separable convolutions, alpha, three 1x1, grading head."""
    separable = 9 * c + c * c + 2 * c
    return 2 * 3 * separable + 30 * 30 + 3 * (2 * c * c + c) + 2 * c + 2


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("size", [SwinSize(), TINY], ids=["published", "tiny"])
@pytest.mark.parametrize("iag", [True, False])
@pytest.mark.parametrize("guided", [True, False])
def test_the_number_of_parameters_equals_the_arithmetic(
    inputs: int, size: SwinSize, iag: bool, guided: bool
) -> None:
    widths = [size.embedding * 2**level for level in range(len(size.depths))]
    expected = count_swin_unet_parameters(inputs, size)
    expected += sum(map(count_gate_parameters, widths[:-1])) if iag else 0
    expected += count_guidance_parameters(widths[-1]) if guided else 0
    with torch.device("meta"):
        network = build_mignet(MIGNetSettings(inputs, guidance=guided, iag=iag, size=size))
    assert sum(p.numel() for p in network.parameters()) == expected


def test_swin_unet_is_as_large_as_published() -> None:
    """Cao et al. 2022 report 27.17 million parameters, with three input channels and a few more classes."""
    assert count_swin_unet_parameters(1, SwinSize()) / 1e6 == pytest.approx(27.17, abs=0.02)


@torch.no_grad()
def test_published_size_on_the_published_view() -> None:
    network = build_mignet(MIGNetSettings()).eval()
    image = torch.randn(2, 1, 224, 224)
    features = network.encoder(image)
    assert [tuple(f.shape[1:]) for f in features] == [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7)]
    logits, grade, deeper = network(image)
    assert logits.shape == (2, 2, 224, 224) and grade.shape == (2, 2) and deeper == ()
    assert torch.isfinite(logits).all()


# ---- windows ------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("side", [(7, 7), (6, 6), (3, 3), (2, 5), (4, 7)], ids=str)
def test_relative_positions_in_a_window_smaller_than_seven(side: tuple[int, int]) -> None:
    """Two pixels d rows and e columns apart have the bias of (d, e), independent of the window's size."""
    attention = SwinStage(8, 1, 2, 7).blocks[0].attn
    attention.window = side
    bias, table = attention._compute_position_bias(), attention.relative_position_bias_table
    pixels = [(r, c) for r in range(side[0]) for c in range(side[1])]
    for i, (r, c) in enumerate(pixels):
        for j, (s, t) in enumerate(pixels):
            torch.testing.assert_close(bias[:, i, j], table[(r - s + 6) * 13 + (c - t + 6)])


@torch.no_grad()
@pytest.mark.parametrize("side", [14, 21], ids=str)
def test_stage_equals_monai_if_the_window_divides_the_grid(side: int) -> None:
    ours, monais = SwinStage(8, 2, 2, 7), BasicLayer(8, 2, 2, (7, 7), [0.0, 0.0], qkv_bias=True)
    monais.load_state_dict(ours.state_dict())
    feature = torch.randn(2, 8, side, side)
    torch.testing.assert_close(ours(feature), monais(feature), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "side"),
    [(SwinSize(), 224), (swin_unet.SMALL_SWIN_SIZE, 96), (swin_unet.SMALL_SWIN_SIZE, 48)],
    ids=str,
)
def test_windows_divide_the_grids_of_every_recipe(size: SwinSize, side: int) -> None:
    """In the published, small and quick recipes a grid is a multiple of the window, or fits into one window."""
    trainings = [
        create_segmentation_config("small", 1, 1),
        *(create_mignet_run("MIG-Net", preset).training for preset in PRESETS.values()),
    ]
    recipes = [(training.network.size, training.view_size) for training in trainings]
    assert (size, side) in recipes
    for level in range(len(size.depths)):
        grid, rest = divmod(side, size.patch * 2**level)
        assert rest == 0 and (grid <= size.window or grid % size.window == 0)


# ---- deep supervision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_coarser_levels_return_logits_in_training_only(levels: int) -> None:
    size = SwinSize(8, (1,) * levels, (1, 2, 2, 2)[:levels], patch=2)
    settings = MIGNetSettings(2, deep_supervision=True, size=size)
    network, image = build_mignet(settings), torch.randn(2, 2, 64, 64)
    logits, grade, deeper = network(image)
    # the lowest level is the bottleneck, the finest gives the final logits
    assert len(deeper) == levels - 2 and all(one.shape == logits.shape == (2, 2, 64, 64) for one in deeper)
    assert grade.shape == (2, 2)
    assert network.eval()(image).deep_supervision_logits == ()
    assert (
        build_mignet(replace(settings, deep_supervision=False)).train()(image).deep_supervision_logits == ()
    )


@torch.no_grad()
def test_deep_supervision_logits_are_ordered_from_fine_to_coarse() -> None:
    size = SwinSize(8, (1, 1, 1, 1), (1, 2, 2, 2), patch=2)
    network = build_mignet(MIGNetSettings(deep_supervision=True, guidance=False, size=size))
    image = torch.randn(1, 1, 64, 64)
    features = network.encoder(image)
    _, decoder_features = network.decoder(features, features[-1])
    assert [one.shape[-1] for one in decoder_features] == [8, 16, 32]
    output = network(image)
    for one, head, feature in zip(
        output.deep_supervision_logits, network.deeper[::-1], decoder_features[1::-1], strict=True
    ):
        expected = F.interpolate(head(feature), (64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(one, expected)


def test_gradients_reach_the_deep_supervision_heads() -> None:
    network = build_mignet(MIGNetSettings(deep_supervision=True, size=TINY))
    sum(one.square().mean() for one in network(torch.randn(2, 1, 64, 64)).deep_supervision_logits).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.deeper.parameters())


# ---- gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [TINY, swin_unet.SMALL_SWIN_SIZE], ids=["tiny", "small"])
def test_gradients_reach_every_parameter(size: SwinSize) -> None:
    network = build_mignet(MIGNetSettings(inputs=2, size=size), torch.rand(240, 240))
    logits, grade, _ = network(torch.randn(2, 2, 64, 64))
    (logits.square().mean() + F.cross_entropy(grade, torch.tensor([0, 1]))).backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None]
    assert not unreached
    # biases before a normalisation have no effect; every weight and alpha must have an effect
    dead = [name for name, p in network.named_parameters() if p.dim() > 1 and not p.grad.abs().max() > 0]
    assert not dead


def test_segmentation_uses_the_grading_branch_but_not_the_reverse() -> None:
    """Equation 3-4: the semantic prior goes from grading to segmentation only."""
    network = build_mignet(TINY_SETTINGS)
    logits, grade, _ = network(torch.randn(2, 1, 64, 64))
    auxiliary = network.guidance.locate_grading.weight
    target = network.guidance.locate_segmentation.weight
    assert torch.autograd.grad(logits.sum(), auxiliary, retain_graph=True)[0].abs().max() > 0
    assert torch.autograd.grad(grade.square().sum(), target, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(grade.square().sum(), network.guidance.alpha)[0].abs().max() > 0

"""Comparison networks of MIG-Net: parameter counts, common interface, and settings stored in a card."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.errors import GliomarkError
from gliomark.models.comparison.nnunet import NNUNetSettings
from gliomark.models.comparison.transunet import TransUNetSettings
from gliomark.models.entries import SegmentationSettings
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SMALL_SWIN_SIZE
from gliomark.models.registry import (
    SEGMENTATION_NETWORKS,
    build_segmentation_network,
    find_segmentation_entry,
    get_segmentation_entry,
    parse_segmentation_settings,
    to_network_record,
)

PUBLISHED_WIDTHS = (64, 128, 256, 512, 1024)


@pytest.fixture(autouse=True)
def seed_torch() -> None:
    torch.manual_seed(0)


COMPARISON = [entry.name for entry in SEGMENTATION_NETWORKS if entry.settings_type is not MIGNetSettings]


def create_small_settings(name: str, inputs: int = 1) -> SegmentationSettings:
    return get_segmentation_entry(name).settings_type(inputs=inputs, width=8)


def count_parameters_at_published_size(name: str) -> int:
    with torch.device("meta"):
        network = build_segmentation_network(get_segmentation_entry(name).recipes["published"])
    return sum(p.numel() for p in network.parameters())


# ---- sizes --------------------------------------------------------------------------------------------


def count_normalised_convolution(inputs: int, out: int, side: int = 3) -> int:
    """Return the parameters of a convolution with bias and a normalisation with scale and shift."""
    return side * side * inputs * out + out + 2 * out


def count_two_convolutions(inputs: int, out: int) -> int:
    return count_normalised_convolution(inputs, out) + count_normalised_convolution(out, out)


def test_unet_parameters_equal_the_arithmetic() -> None:
    a, b, c, d, e = PUBLISHED_WIDTHS
    encoder = (
        count_two_convolutions(1, a)
        + count_two_convolutions(a, b)
        + count_two_convolutions(b, c)
        + count_two_convolutions(c, d)
        + count_two_convolutions(d, e)
    )
    # 2x2 transposed convolutions halve the channels, but for the last one
    upward = sum(4 * lower * out + out for lower, out in ((e, d), (d, c), (c, b), (b, b)))
    decoder = (
        count_two_convolutions(d + d, d)
        + count_two_convolutions(c + c, c)
        + count_two_convolutions(b + b, b)
        + count_two_convolutions(a + b, a)
    )
    expected = encoder + upward + decoder + 2 * a + 2
    assert count_parameters_at_published_size("U-Net") == expected
    assert expected / 1e6 == pytest.approx(31.0, abs=0.2)


def test_attention_unet_parameters_equal_the_arithmetic() -> None:
    expected = count_two_convolutions(1, 64) + 2 * 64 + 2
    for c, lower in zip(PUBLISHED_WIDTHS[:-1], PUBLISHED_WIDTHS[1:], strict=True):
        expected += count_two_convolutions(c, lower)
        expected += count_normalised_convolution(lower, c)  # 3x3 transposed convolution upward
        expected += 2 * count_normalised_convolution(c, c // 2, side=1) + count_normalised_convolution(
            c // 2, 1, side=1
        )  # the gate
        expected += 9 * 2 * c * c + c + 1  # the merging convolution and the slope of its PReLU
    assert count_parameters_at_published_size("Attention U-Net") == expected


def test_nnunet_parameters_equal_the_arithmetic() -> None:
    """Convolutions without bias, each normalised; at most 512 channels; a head for all but the two lowest levels."""
    a, b, c, d, e = widths = (32, 64, 128, 256, 512)

    def count_two_convolutions_without_bias(inputs: int, out: int) -> int:
        return count_two_convolutions(inputs, out) - 2 * out

    expected = sum(
        count_two_convolutions_without_bias(i, o) for i, o in zip((1, *widths), widths, strict=False)
    )
    for channels, lower in ((d, e), (c, d), (b, c), (a, b)):
        expected += 4 * lower * channels + count_two_convolutions_without_bias(2 * channels, channels)
    expected += sum(2 * channels + 2 for channels in (a, b, c))
    # not on the meta device, where its normal initialisation is slower
    network, wide = (build_segmentation_network(NNUNetSettings(width=width)) for width in (32, 64))
    assert sum(p.numel() for p in network.parameters()) == expected
    assert max(part.out_channels for part in wide.modules() if isinstance(part, nn.Conv2d)) == 512


def test_transunet_has_about_the_published_size() -> None:
    """R50-ViT-B/16 has about 105 million parameters; twelve transformer layers hold most of them."""
    assert 90e6 < count_parameters_at_published_size("TransUNet") < 115e6
    with torch.device("meta"):
        network = build_segmentation_network(TransUNetSettings()).network
    h = 768
    # queries, keys and values; projection; perceptron of 4h; three normalisations, one of them unused in MONAI's block
    layer = 3 * h * h + (h * h + h) + (4 * h * h + 4 * h) + (4 * h * h + h) + 3 * 2 * h
    *layers, last = network.transformer
    assert [sum(p.numel() for p in one.parameters()) for one in layers] == [layer] * 12
    assert isinstance(last, nn.LayerNorm) and [len(stage) for stage in network.stages] == [3, 4, 9]


# ---- inputs and outputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [64, 48])
@pytest.mark.parametrize("name", COMPARISON)
def test_outputs_have_the_size_of_the_image(name: str, side: int) -> None:
    network = build_segmentation_network(create_small_settings(name, inputs=2)).eval()
    logits, grade, deeper = network(torch.randn(2, 2, side, side))
    assert logits.shape == (2, 2, side, side) and logits.isfinite().all()
    assert grade is None and deeper == ()


@pytest.mark.parametrize("name", COMPARISON)
def test_a_view_need_not_be_square(name: str) -> None:
    network = build_segmentation_network(create_small_settings(name)).eval()
    assert network(torch.randn(1, 1, 48, 64)).logits.shape == (1, 2, 48, 64)


@torch.no_grad()
@pytest.mark.parametrize("name", COMPARISON)
def test_theta_has_no_effect(name: str) -> None:
    network = build_segmentation_network(create_small_settings(name)).eval()
    image = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(
        network(image, torch.randn(2, 2, 3)).logits, network(image).logits, atol=0, rtol=0
    )


@pytest.mark.parametrize("name", COMPARISON)
def test_only_nnunet_has_deep_supervision_and_only_in_training(name: str) -> None:
    network, image = build_segmentation_network(create_small_settings(name)), torch.randn(2, 1, 64, 64)
    logits, grade, deeper = network.train()(image)
    assert grade is None and logits.shape == (2, 2, 64, 64)
    assert len(deeper) == (2 if name == "nnU-Net" else 0)
    assert all(one.shape == logits.shape for one in deeper)
    assert network.eval()(image).deep_supervision_logits == ()


@torch.no_grad()
def test_deep_supervision_of_nnunet_is_ordered_from_fine_to_coarse() -> None:
    """The final logits come first and equal those in evaluation; each further level is constant over larger squares."""
    network, image = build_segmentation_network(create_small_settings("nnU-Net")), torch.randn(1, 1, 64, 64)
    output = network.train()(image)
    torch.testing.assert_close(
        output.logits, network.eval()(image).logits
    )  # instance normalisation is the same in training and evaluation
    levels = [output.logits, *output.deep_supervision_logits]

    def compute_lost_detail(logits: Tensor, side: int) -> float:
        """Return the largest difference after downsampling to that side and back."""
        downsampled = F.interpolate(logits, (side, side), mode="area")
        return float((logits - F.interpolate(downsampled, (64, 64))).abs().max())

    assert compute_lost_detail(levels[1], 32) < 1e-5 < compute_lost_detail(levels[0], 32)
    assert compute_lost_detail(levels[2], 16) < 1e-5 < compute_lost_detail(levels[1], 16)


@pytest.mark.parametrize("name", COMPARISON)
def test_a_gradient_reaches_every_parameter_and_every_input(name: str) -> None:
    network = build_segmentation_network(create_small_settings(name, inputs=2))
    image = torch.randn(2, 2, 64, 64, requires_grad=True)
    output = network(image)
    target = torch.zeros(2, 64, 64, dtype=torch.long)
    target[:, 20:40, 20:40] = 1
    sum(
        F.cross_entropy(logits, target) for logits in (output.logits, *output.deep_supervision_logits)
    ).backward()
    assert image.grad is not None and (image.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    named_parameters = {
        k: p for k, p in network.named_parameters() if "norm_cross_attn" not in k
    }  # unused by MONAI
    assert not [key for key, p in named_parameters.items() if p.grad is None]
    # a bias before a normalisation has no effect; every weight must have one
    assert not [key for key, p in named_parameters.items() if p.dim() > 1 and not p.grad.abs().max() > 0]


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(GliomarkError, match="V-Net"):
        parse_segmentation_settings({"architecture": "V-Net"})


# ---- settings and card ------------------------------------------------------------------------------------


MANY_SETTINGS: list[SegmentationSettings] = [
    MIGNetSettings(),
    MIGNetSettings(2, fpg=False, guidance=False, iag=False, size=SMALL_SWIN_SIZE),
    MIGNetSettings(
        6, iag=False, deep_supervision=True, size=replace(SMALL_SWIN_SIZE, depths=(1, 2), heads=(1, 2))
    ),
    *(get_segmentation_entry(name).settings_type() for name in COMPARISON),
    *(get_segmentation_entry(name).settings_type(3, 16) for name in COMPARISON),
]


@pytest.mark.parametrize("settings", MANY_SETTINGS, ids=str)
def test_settings_are_restored_from_a_card(settings: SegmentationSettings) -> None:
    record = to_network_record(settings)
    read = json.loads(json.dumps(record))
    assert parse_segmentation_settings(read) == parse_segmentation_settings(record) == settings
    assert type(parse_segmentation_settings(read)) is type(settings)
    assert hash(parse_segmentation_settings(read)) == hash(settings), "lists were not converted to tuples"
    assert json.loads(json.dumps(to_network_record(parse_segmentation_settings(read)))) == read
    assert record["architecture"] == find_segmentation_entry(settings).record_name


@pytest.mark.parametrize("architecture", [{}, {"architecture": "MIG-Net"}], ids=["not named", "named"])
def test_a_mignet_with_other_layers_is_refused(architecture: dict) -> None:
    """The tensors of a card of gliomark 0.1 would not fit, or would have another meaning."""
    record = to_network_record(MIGNetSettings(2, size=SMALL_SWIN_SIZE))
    for name in ("architecture", "gates_start", "guidance_start"):
        del record[name]
    with pytest.raises(GliomarkError, match=r"gliomark 0\.1.*retrain it"):
        parse_segmentation_settings({**record, **architecture})


def test_a_card_without_an_architecture_means_mignet() -> None:
    record = to_network_record(MIGNetSettings(2, size=SMALL_SWIN_SIZE))
    del record["architecture"]
    assert parse_segmentation_settings(record) == MIGNetSettings(2, size=SMALL_SWIN_SIZE)


@pytest.mark.parametrize(
    "settings",
    [MIGNetSettings(2, size=SMALL_SWIN_SIZE), *(create_small_settings(name, 2) for name in COMPARISON)],
    ids=str,
)
def test_a_network_is_rebuilt_from_its_card(settings: SegmentationSettings) -> None:
    network = build_segmentation_network(settings, torch.rand(60, 60))
    again = build_segmentation_network(
        parse_segmentation_settings(json.loads(json.dumps(to_network_record(settings))))
    )
    again.load_state_dict(network.state_dict())
    image = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            again.eval()(image, None).logits, network.eval()(image, None).logits, atol=0, rtol=0
        )

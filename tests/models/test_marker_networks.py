"""Comparison networks for markers: inputs, outputs, sizes and records."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gliomark.errors import GliomarkError
from gliomark.models.comparison.centralnet import CentralNet, CentralNetSettings
from gliomark.models.comparison.resnest50 import ResNeSt50Settings
from gliomark.models.comparison.resnet50 import ResNet50Settings
from gliomark.models.network_io import build_mix_input
from gliomark.models.pretrained.efficientnet_unet import iterate_imagenet_tensors
from gliomark.models.pretrained.lesion_pooled_features import LesionPooledSettings
from gliomark.models.published.kinet import (
    SMALL_KINET_SIZE,
    KiNetSettings,
    KiNetSize,
    ResNeStBranch,
    build_kinet,
)
from gliomark.models.published.resnest import ResNeStBlock
from gliomark.models.registry import (
    MARKER_NETWORKS,
    build_marker_network,
    load_pretrained_weights,
    parse_marker_settings,
    to_network_record,
)
from gliomark.training.losses import centralnet_loss

TINY = KiNetSize(stem=8, widths=(8, 16, 16, 24), blocks=(1, 1, 1, 1))
COMPARISON = [entry.settings_type for entry in MARKER_NETWORKS if entry.name != "KiNet"]


@pytest.mark.parametrize("settings_type", COMPARISON)
def test_every_network_returns_a_vector_and_two_logits(settings_type) -> None:
    network = build_marker_network(settings_type(size=TINY)).eval()
    output = network(torch.randn(3, 4, 96, 96))
    assert output["logits"].shape == (3, 2) and output["image_vector"].shape[0] == 3
    torch.testing.assert_close(network.cat_head(output["image_vector"]), output["logits"])


@pytest.mark.parametrize("channels", [(0,), (1,), (0, 1), (2, 3)])
@torch.no_grad()
def test_only_the_chosen_channels_are_used(channels) -> None:
    torch.manual_seed(0)
    network = build_marker_network(ResNet50Settings(channels, TINY)).eval()
    mix = torch.randn(2, 4, 64, 64)
    for channel in range(4):
        other = mix.clone()
        other[:, channel] += 1 + torch.randn(64, 64)
        same = torch.equal(network(other)["logits"], network(mix)["logits"])
        assert same is (channel not in channels)


@torch.no_grad()
def test_the_frozen_trunk_processes_each_sequence_separately_with_the_same_weights() -> None:
    torch.manual_seed(0)
    network = build_marker_network(LesionPooledSettings(size=TINY)).eval()
    mix = torch.randn(2, 4, 96, 96)
    vector, swapped = network(mix)["image_vector"], network(mix[:, [2, 3, 0, 1]])["image_vector"]
    half = vector.shape[1] // 2
    torch.testing.assert_close(vector, torch.cat([swapped[:, half:], swapped[:, :half]], dim=1))


def test_published_sizes_have_the_published_number_of_parameters() -> None:
    counts = {}
    with torch.device("meta"):
        for entry in MARKER_NETWORKS:
            network = build_marker_network(entry.settings_type())
            counts[entry.name] = sum(p.numel() for p in network.parameters()) / 1e6
    # He et al. 25.6 with ImageNet's 1000 classes, 2.05 of them the last layer
    assert counts["ResNet-50"] == pytest.approx(23.5, abs=0.1)
    assert counts["ResNeSt-50"] == pytest.approx(25.4, abs=0.1)
    assert counts["Lesion-pooled features"] < 0.1, "only the linear layer is trained"
    assert counts["CentralNet"] > 3 * 25


@torch.no_grad()
def test_centralnet_fuses_by_its_weights() -> None:
    """Compare with explicit sums; the weights have five rows and start uniform."""
    torch.manual_seed(0)
    network = build_marker_network(CentralNetSettings(size=TINY)).eval()
    assert isinstance(network, CentralNet) and network.weights.shape == (5, 3)
    torch.testing.assert_close(network.weights[1:], torch.full((4, 3), 1 / 3))
    network.weights.copy_(torch.rand(5, 3))
    mix, w = torch.randn(2, 4, 64, 64), network.weights
    first, second = network.first(mix[:, :2]), network.second(mix[:, 2:])
    fused = network.central.stem(w[0, 1] * mix[:, :2] + w[0, 2] * mix[:, 2:])
    for i in range(4):
        fused = (
            w[i + 1, 0] * network.central.stages[i](fused) + w[i + 1, 1] * first[i] + w[i + 1, 2] * second[i]
        )
    torch.testing.assert_close(network(mix)["image_vector"], fused.mean(dim=(2, 3)))


def test_centralnet_trains_its_weights_and_each_branch_with_its_own_loss() -> None:
    network = build_marker_network(CentralNetSettings(size=TINY))
    output, target = network(torch.randn(4, 4, 64, 64)), torch.tensor([0, 1, 0, 1])
    loss = centralnet_loss(output, target)
    expected = sum(
        F.cross_entropy(output[head], target) for head in ("logits", "first_logits", "second_logits")
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert network.weights.grad is not None and (network.weights.grad[1:] != 0).all()


@torch.no_grad()
@pytest.mark.parametrize("merge_in", [True, False])
def test_kinet_predicts_the_same_without_training_only_parts(merge_in) -> None:
    """The auxiliary heads and the branches' stages after the last fusion are skipped, and nothing else."""
    torch.manual_seed(0)
    network = build_kinet(KiNetSettings(merge_in=merge_in, size=TINY)).eval()
    mix = torch.randn(2, 4, 64, 64)
    full_output, predicted = network(mix), network.predict(mix)
    assert set(predicted) == {"image_vector", "logits"}
    assert torch.equal(predicted["logits"], full_output["logits"]) and torch.equal(
        predicted["image_vector"], full_output["image_vector"]
    )
    for branch in (network.first, network.second):
        for step in branch.stages[2:]:
            step.register_forward_hook(lambda *_: pytest.fail("a dropped stage was run"))
    network.predict(mix)
    with pytest.raises(pytest.fail.Exception):
        network(mix)
    for branch in (network.first, network.second):
        for parameter in branch.stages[1].parameters():
            parameter.mul_(1.5)
    assert not torch.equal(network.predict(mix)["logits"], full_output["logits"]), (
        "the early stages have no effect"
    )


@pytest.mark.parametrize(
    "settings",
    [
        KiNetSettings(size=SMALL_KINET_SIZE),
        KiNetSettings(merge_in=False),
        *(one((0, 1), SMALL_KINET_SIZE) for one in COMPARISON),
    ],
)
def test_settings_are_restored_from_a_card(settings) -> None:
    assert parse_marker_settings(json.loads(json.dumps(to_network_record(settings)))) == settings


def test_a_card_without_an_architecture_means_kinet() -> None:
    record = to_network_record(KiNetSettings(size=SMALL_KINET_SIZE))
    assert parse_marker_settings({k: v for k, v in record.items() if k != "architecture"}) == KiNetSettings(
        size=SMALL_KINET_SIZE
    )


@torch.no_grad()
@pytest.mark.parametrize("settings", [KiNetSettings(size=TINY), ResNeSt50Settings(size=TINY)], ids=str)
def test_a_card_of_gliomark_0_1_keeps_its_strided_convolutions(settings) -> None:
    """It lacks average_down; with average pooling the same tensors would give other results."""
    record = to_network_record(settings)
    del record["size"]["average_down"]
    old = parse_marker_settings(record)
    assert not old.size.average_down and settings.size.average_down
    torch.manual_seed(0)
    networks = [build_marker_network(one).eval() for one in (settings, old)]
    networks[1].load_state_dict(networks[0].state_dict())
    mix = torch.randn(1, 4, 64, 64)
    assert not torch.allclose(networks[0](mix)["logits"], networks[1](mix)["logits"])


@torch.no_grad()
def test_resnest_halves_by_average_pooling_after_the_split_attention() -> None:
    """Zhang et al. 2020, section 3.3: average pooling replaces the strided convolution."""
    torch.manual_seed(0)
    block, x = ResNeStBlock(16, 32, 2).eval(), torch.randn(2, 16, 12, 12)
    inner = block.attention(block.reduce(x))
    assert inner.shape[-1] == 12, "the convolution has no stride"
    pooled = F.avg_pool2d(inner, 3, 2, 1)
    expected = F.relu(block.expand(pooled) + block.shortcut(x))
    torch.testing.assert_close(block(x), expected)
    assert all(part.stride == (1, 1) for part in block.modules() if isinstance(part, torch.nn.Conv2d))
    _, convolution, norm = block.shortcut
    torch.testing.assert_close(block.shortcut(x), norm(convolution(F.avg_pool2d(x, 2))))


def test_resnest_50_has_the_published_parameters_and_operations() -> None:
    """27.5 million with ImageNet's head, and 5.4 G multiply-adds at 224 pixels (4.3 with strided convolutions)."""
    with torch.device("meta"):
        trunk, head = ResNeStBranch(3, KiNetSize()).eval(), torch.nn.Linear(2048, 1000)
    assert sum(p.numel() for part in (trunk, head) for p in part.parameters()) == 27_483_240
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        features = trunk(torch.zeros(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(5.4, abs=0.05)
    assert [feature.shape[-1] for feature in features] == [56, 28, 14, 7]
    # the deep stem: three 3x3 convolutions, the first with stride 2, then max pooling
    stem = [part for part in trunk.stem if isinstance(part, torch.nn.Conv2d | torch.nn.MaxPool2d)]
    assert [tuple(part.weight.shape[:2]) for part in stem[:3]] == [(32, 3), (32, 32), (64, 32)]
    assert [part.stride for part in stem] == [(2, 2), (1, 1), (1, 1), 2]


def test_unknown_architectures_and_unsuitable_weights_are_refused() -> None:
    with pytest.raises(GliomarkError, match="VGG"):
        parse_marker_settings({"architecture": "VGG"})
    with pytest.raises(GliomarkError, match="Lesion-pooled features"):
        load_pretrained_weights(build_marker_network(ResNet50Settings(size=TINY)))


def create_pretrained_network() -> torch.nn.Module:
    network = build_marker_network(LesionPooledSettings())
    load_pretrained_weights(network)
    return network


def test_the_frozen_trunk_has_imagenet_weights_and_keeps_them() -> None:
    network = create_pretrained_network().train()
    kernel = next(iter(iterate_imagenet_tensors())).mean(dim=1)
    torch.testing.assert_close(network.trunk.stem[0].weight[:, 0], kernel * 3 / 2)
    before = {name: value.clone() for name, value in network.state_dict().items() if "trunk" in name}
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
    network(torch.randn(2, 4, 64, 64))["logits"].sum().backward()
    optimiser.step()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert network.cat_head.weight.grad is not None


@torch.no_grad()
def test_the_vector_of_the_frozen_trunk_is_mean_and_standard_deviation_in_the_lesion() -> None:
    """Compare with numpy on the stages' features inside the lesion."""
    torch.manual_seed(0)
    network, image = create_pretrained_network().eval(), torch.randn(1, 96, 96)
    lesion = torch.zeros(1, 96, 96)
    lesion[:, 32:64, 40:72] = 1  # aligned with the pixels of both stages
    mix = build_mix_input(image, image.flip(1), lesion)
    feature, expected = network.trunk.stem(mix[:, :2]), []
    for number, step in enumerate(network.trunk.stages):
        feature = step(feature)
        if number > 0:
            scale = 96 // feature.shape[-1]
            inside = feature[0, :, 32 // scale : 64 // scale, 40 // scale : 72 // scale].flatten(1).numpy()
            expected += [inside.mean(axis=1), inside.std(axis=1)]
    vector = network(mix)["image_vector"][0]
    assert len(vector) == 256
    np.testing.assert_allclose(vector[:128], np.concatenate(expected), atol=1e-4)

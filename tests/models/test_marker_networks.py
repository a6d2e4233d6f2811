"""The marker networks beside KiNet: what each sees, answers and weighs, and their records."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from gliomark.models.kinet import SMALL, KiNetSettings, KiNetSize, build_kinet
from gliomark.models.marker_networks import (
    CentralNet,
    MarkerBaseline,
    build_marker_network,
    marker_network_record,
    marker_network_settings,
    start_from_imagenet,
)
from gliomark.study import GliomarkError
from gliomark.training.losses import branches_loss

TINY = KiNetSize(stem=8, widths=(8, 16, 16, 24), blocks=(1, 1, 1, 1))
RIVALS = ("ResNet-50", "ResNet-50, middle fusion", "ResNeSt-50", "CentralNet", "shared trunk")


@pytest.mark.parametrize("architecture", RIVALS)
def test_every_network_answers_with_a_vector_and_two_logits(architecture) -> None:
    network = build_marker_network(MarkerBaseline(architecture, size=TINY)).eval()
    output = network(torch.randn(3, 4, 96, 96))
    assert output["cat"].shape == (3, 2) and output["vector"].shape[0] == 3
    torch.testing.assert_close(network.cat_head(output["vector"]), output["cat"])


@pytest.mark.parametrize("channels", [(0,), (1,), (0, 1), (2, 3)])
@torch.no_grad()
def test_only_the_chosen_channels_are_seen(channels) -> None:
    torch.manual_seed(0)
    network = build_marker_network(MarkerBaseline("ResNet-50", channels, TINY)).eval()
    mix = torch.randn(2, 4, 64, 64)
    for channel in range(4):
        other = mix.clone()
        other[:, channel] += 1 + torch.randn(64, 64)
        same = torch.equal(network(other)["cat"], network(mix)["cat"])
        assert same is (channel not in channels)


@torch.no_grad()
def test_the_shared_trunk_reads_each_sequence_by_itself_with_the_same_weights() -> None:
    torch.manual_seed(0)
    network = build_marker_network(MarkerBaseline("shared trunk", size=TINY)).eval()
    mix = torch.randn(2, 4, 96, 96)
    vector, swapped = network(mix)["vector"], network(mix[:, [2, 3, 0, 1]])["vector"]
    half = vector.shape[1] // 2
    torch.testing.assert_close(vector, torch.cat([swapped[:, half:], swapped[:, :half]], dim=1))


def test_parameters_of_the_published_sizes() -> None:
    counts = {}
    with torch.device("meta"):
        for architecture in RIVALS:
            network = build_marker_network(MarkerBaseline(architecture))
            counts[architecture] = sum(p.numel() for p in network.parameters()) / 1e6
    # He et al. 25.6 with ImageNet's 1000 classes, 2.05 of them the last layer
    assert counts["ResNet-50"] == pytest.approx(23.5, abs=0.1)
    assert counts["ResNeSt-50"] == pytest.approx(25.4, abs=0.1)
    assert counts["shared trunk"] < 5, "the light one"
    assert counts["CentralNet"] > 3 * 25


@torch.no_grad()
def test_centralnet_fuses_by_its_weights() -> None:
    """Against the sums written out; the weights start uniform and there are five rows of them."""
    torch.manual_seed(0)
    network = build_marker_network(MarkerBaseline("CentralNet", size=TINY)).eval()
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
    torch.testing.assert_close(network(mix)["vector"], fused.mean(dim=(2, 3)))


def test_centralnet_learns_its_weights_and_every_branch_by_its_own_loss() -> None:
    network = build_marker_network(MarkerBaseline("CentralNet", size=TINY))
    output, target = network(torch.randn(4, 4, 64, 64)), torch.tensor([0, 1, 0, 1])
    loss = branches_loss(output, target)
    expected = sum(F.cross_entropy(output[head], target) for head in ("cat", "first", "second"))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert network.weights.grad is not None and (network.weights.grad[1:] != 0).all()


@torch.no_grad()
@pytest.mark.parametrize("merge_in", [True, False])
def test_kinets_answer_is_the_same_without_what_only_training_asks_for(merge_in) -> None:
    """The auxiliaries' heads and their stages past the last fusion are dropped, and nothing else can be."""
    torch.manual_seed(0)
    network = build_kinet(KiNetSettings(merge_in=merge_in, size=TINY)).eval()
    mix = torch.randn(2, 4, 64, 64)
    whole, short = network(mix), network.answer(mix)
    assert set(short) == {"vector", "cat"}
    assert torch.equal(short["cat"], whole["cat"]) and torch.equal(short["vector"], whole["vector"])
    for branch in (network.first, network.second):
        for step in branch.stages[2:]:
            step.register_forward_hook(lambda *_: pytest.fail("a dropped stage was run"))
    network.answer(mix)
    with pytest.raises(pytest.fail.Exception):
        network(mix)
    for branch in (network.first, network.second):
        for parameter in branch.stages[1].parameters():
            parameter.mul_(1.5)
    assert not torch.equal(network.answer(mix)["cat"], whole["cat"]), "the early stages cannot be dropped"


@pytest.mark.parametrize(
    "settings",
    [
        KiNetSettings(size=SMALL),
        KiNetSettings(merge_in=False),
        *(MarkerBaseline(a, (0, 1), SMALL) for a in RIVALS),
    ],
)
def test_a_cards_record_gives_the_settings_back(settings) -> None:
    assert marker_network_settings(json.loads(json.dumps(marker_network_record(settings)))) == settings


def test_a_card_without_an_architecture_is_kinets() -> None:
    record = marker_network_record(KiNetSettings(size=SMALL))
    assert marker_network_settings({k: v for k, v in record.items() if k != "architecture"}) == KiNetSettings(
        size=SMALL
    )


def test_unknown_and_unfitting_are_refused() -> None:
    with pytest.raises(GliomarkError, match="VGG"):
        build_marker_network(MarkerBaseline("VGG"))  # type: ignore[arg-type]
    with pytest.raises(GliomarkError, match="shared trunk"):
        start_from_imagenet(build_marker_network(MarkerBaseline("ResNet-50", size=TINY)))


def test_the_shared_trunk_starts_from_imagenet() -> None:
    torch.manual_seed(0)
    network = build_marker_network(MarkerBaseline("shared trunk", size=TINY))
    before = network.trunk.stages[3][0].layers[0].weight.clone()
    start_from_imagenet(network)
    assert not torch.equal(before, network.trunk.stages[3][0].layers[0].weight)

"""Grad-CAM locates the feature that determines the class: a square at a known position."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from gliomark.errors import GliomarkError
from gliomark.explanation.gradcam import compute_branch_map, describe_grad_cam
from gliomark.models.comparison.centralnet import CentralNetSettings
from gliomark.models.comparison.middle_fusion import MiddleFusionSettings
from gliomark.models.comparison.resnest50 import ResNeSt50Settings
from gliomark.models.comparison.resnet50 import ResNet50Settings
from gliomark.models.entries import NetworkSettings
from gliomark.models.network_io import build_mix_input
from gliomark.models.published.kinet import KiNetSettings, KiNetSize
from gliomark.models.registry import build_marker_network
from gliomark.training.augmentation import GENTLE_AUGMENTATION
from gliomark.training.markers import (
    LesionSliceDataset,
    create_marker_config,
    train_marker_network,
)

SIDE, SQUARE = 64, 12
TINY = KiNetSettings(size=KiNetSize(stem=8, widths=(16, 24, 32, 32), blocks=(1, 1, 1, 1)))


def list_branches(network: torch.nn.Module) -> tuple[str, ...]:
    return tuple(branch.name for branch in describe_grad_cam(network).branches)


def draw_pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise in four channels; the positive half has a bright square in all of them.

    Returns images ``(B, 4, H, W)``, labels ``(B,)`` and the square's mask ``(B, H, W)``.
    """
    random = torch.Generator().manual_seed(seed)
    mix = 0.3 * torch.randn(count, 4, SIDE, SIDE, generator=random)
    label, square_mask = torch.arange(count) % 2, torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for index in range(count):
        top, left = torch.randint(4, SIDE - SQUARE - 4, (2,), generator=random).tolist()
        square_mask[index, top : top + SQUARE, left : left + SQUARE] = label[index] == 1
    return mix + 1.5 * square_mask[:, None], label, square_mask


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A KiNet trained to detect the square with its final output and its auxiliary heads."""
    torch.manual_seed(0)
    network = build_marker_network(TINY)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for step in range(60):
        mix, label, _ = draw_pictures(16, step)
        output = network(mix)
        heads = (output["logits"], output["first_logits"], output["second_logits"], *output["stage_logits"])
        loss = sum((F.cross_entropy(head, label) for head in heads), torch.tensor(0.0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def train_network(network: torch.nn.Module, heads: tuple[str, ...], steps: int = 60) -> torch.nn.Module:
    """The network, trained to detect the square with the given heads."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for step in range(steps):
        mix, label, _ = draw_pictures(16, step)
        output = network(mix)
        loss = torch.stack([F.cross_entropy(output[head], label) for head in heads]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ResNet50Settings((0, 1), TINY.size),
        ResNeSt50Settings(size=TINY.size),
        CentralNetSettings(size=TINY.size),
    ],
    ids=lambda settings: type(settings).__name__,
)
def test_maps_of_comparison_networks_locate_the_square(settings: NetworkSettings) -> None:
    torch.manual_seed(0)
    network = build_marker_network(settings)
    central = isinstance(settings, CentralNetSettings)
    network = train_network(
        network, ("logits", "first_logits", "second_logits") if central else ("logits",), 80
    )
    mix, label, square_mask = draw_pictures(24, 999)
    with torch.no_grad():
        assert (network(mix)["logits"].argmax(dim=1) == label).float().mean() > 0.9, (
            "the square is not detected"
        )
    square = square_mask[label == 1]
    neighbourhood = F.max_pool2d(square[:, None].float(), 17, 1, 8)[:, 0] > 0
    shares = {}
    for branch in list_branches(network):
        found = compute_branch_map(network, mix.clone(), branch, 3)[label == 1]
        shares[branch] = float(
            (found * square).sum() / square.sum() - (found * ~neighbourhood).sum() / (~neighbourhood).sum()
        )
    # CentralNet may rely on a single branch
    assert max(shares.values()) > 0.2, shares


def create_lesion_dataset(count: int, seed: int) -> tuple[LesionSliceDataset, torch.Tensor]:
    """Lesions of noise in two sequences; the positive half has a bright square in the first sequence.

    Returns the data set of lesion slices and the square's mask ``(N, H, W)``.
    """
    random = torch.Generator().manual_seed(seed)
    image = 0.5 * torch.randn(count, 2, SIDE, SIDE, generator=random)
    lesion, square_mask = (torch.zeros(count, SIDE, SIDE, dtype=torch.bool) for _ in range(2))
    lesion[:, 12:52, 12:52] = True
    for index in range(1, count, 2):
        top, left = torch.randint(14, 40, (2,), generator=random).tolist()
        square_mask[index, top : top + 10, left : left + 10] = True
    image[:, 0] += 2.0 * square_mask
    numbers, names = torch.arange(count), tuple(str(n) for n in range(count))
    label = numbers % 2
    return LesionSliceDataset(image.half(), lesion.byte(), label, label.float(), numbers, names), square_mask


def test_the_map_of_lesion_pooled_features_locates_the_square_in_its_sequence(tmp_path) -> None:
    settings = replace(
        create_marker_config("pretrained"), augmentation=replace(GENTLE_AUGMENTATION, crop=SIDE)
    )
    network = train_marker_network(create_lesion_dataset(48, 0)[0], settings, tmp_path)
    dataset, square_mask = create_lesion_dataset(24, 1)
    mix = build_mix_input(*dataset.image.float().unbind(1), dataset.lesion)
    with torch.no_grad():
        assert (network(mix)["logits"].argmax(dim=1) == dataset.label).float().mean() > 0.9, (
            "the square is not detected"
        )
    is_positive = dataset.label == 1
    neighbourhood = F.max_pool2d(square_mask[is_positive][:, None].float(), 13, 1, 6)[:, 0] > 0
    maps = {b: compute_branch_map(network, mix.clone(), b, 1)[is_positive] for b in list_branches(network)}
    for branch in ("first", "both"):
        found = maps[branch]
        assert (found * square_mask[is_positive]).sum() / square_mask[is_positive].sum() > 5 * (
            found * ~neighbourhood
        ).sum() / (~neighbourhood).sum()
    second, lesion = maps["second"], dataset.lesion[is_positive] > 0
    assert second[square_mask[is_positive]].mean() < 2 * second[lesion].mean(), (
        "the second sequence has no square"
    )
    assert all(not found[~lesion].any() for found in maps.values()), "the map is not limited to the lesion"


def test_missing_stages_and_branches_are_refused() -> None:
    middle = build_marker_network(MiddleFusionSettings(size=TINY.size)).eval()
    mix, _, _ = draw_pictures(2, 0)
    with pytest.raises(GliomarkError, match="stage 3"):
        compute_branch_map(middle, mix, "whole", 2)
    assert compute_branch_map(middle, mix.clone(), "whole", 3).shape == (2, SIDE, SIDE)
    with pytest.raises(GliomarkError, match="no branch 'first'"):
        compute_branch_map(middle, mix, "first", 3)


@pytest.mark.parametrize("branch", ["first", "second", "master"])
def test_the_map_locates_the_square_that_determines_the_class(network: torch.nn.Module, branch) -> None:
    mix, label, square_mask = draw_pictures(24, 999)
    head = "logits" if branch == "master" else f"{branch}_logits"
    with torch.no_grad():
        assert (network(mix)[head].argmax(dim=1) == label).float().mean() > 0.9, "the square is not detected"
    found = compute_branch_map(network, mix, branch, stage=2)[label == 1]
    assert found.shape == (12, SIDE, SIDE) and found.min() >= 0 and found.max() <= 1
    square = square_mask[label == 1]
    # a feature pixel covers 8 image pixels: the peak is in the square or next to it
    neighbourhood = F.max_pool2d(square[:, None].float(), 17, 1, 8)[:, 0] > 0
    peaks = found.flatten(1).argmax(dim=1)
    assert neighbourhood.flatten(1).gather(1, peaks[:, None]).float().mean() > 0.9
    inside = (found * square).sum() / square.sum()
    outside = (found * ~neighbourhood).sum() / (~neighbourhood).sum()
    assert inside > 3 * outside


def test_every_stage_of_every_branch_has_a_map_and_the_network_is_unchanged(
    network: torch.nn.Module,
) -> None:
    mix, _, _ = draw_pictures(2, 5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    output = network(mix)["logits"].detach()
    assert list_branches(network) == ("first", "second", "master")
    for branch in list_branches(network):
        for stage in (1, 2, 3, 4):
            assert torch.isfinite(compute_branch_map(network, mix.clone(), branch, stage)).all()
    assert not any(part.training for part in network.modules())
    assert torch.equal(network(mix)["logits"], output), "the output of the network has changed"
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


def test_a_master_branch_without_a_first_stage_is_refused() -> None:
    network = build_marker_network(KiNetSettings(merge_in=False, size=TINY.size))
    with pytest.raises(GliomarkError, match="stage 2, 3 or 4"):
        compute_branch_map(network, draw_pictures(2, 0)[0], "master", 1)
    assert compute_branch_map(network, draw_pictures(2, 0)[0], "master", 2).shape == (2, SIDE, SIDE)

"""Tiles, rules and small components, with networks whose output is known at every pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.engines.torch_engine import TorchNetwork
from gliomark.errors import GliomarkError
from gliomark.inference.segmenter import (
    Segmenter,
    add_neighbour_slices,
    compute_theta,
    compute_tile_corners,
    predict_lesion_probability,
    remove_small_components,
)
from gliomark.models.comparison.unet import UNetSettings
from gliomark.models.network_io import LogitsOnly, downsample_by_averaging
from gliomark.models.published.mignet import MIGNet, MIGNetSettings, build_mignet, compute_central_theta
from gliomark.models.published.swin_unet import SwinSize
from gliomark.models.registry import build_segmentation_network
from gliomark.study import MRSequence, SliceStack

PAIR = (MRSequence.T1C, MRSequence.FLAIR)


class PixelMeanNetwork(nn.Module):
    """The log-odds is the mean of the channels."""

    def forward(self, image: Tensor, theta: Tensor) -> tuple[Tensor, None]:
        odds = image.mean(dim=1)
        return torch.stack([torch.zeros_like(odds), odds], dim=1), None


class ThetaNetwork(nn.Module):
    """The log-odds is a function of row and column of the template, as given by theta."""

    def forward(self, image: Tensor, theta: Tensor) -> tuple[Tensor, None]:
        grid = F.affine_grid(theta, [len(image), 1, *image.shape[-2:]], align_corners=False)
        odds = grid[..., 0] + 2 * grid[..., 1]
        return torch.stack([torch.zeros_like(odds), odds], dim=1), None


class CallCountingNetwork(nn.Module):
    """Each call returns another number."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, image: Tensor, theta: Tensor) -> tuple[Tensor, None]:
        self.calls += 1
        odds = torch.full((len(image), *image.shape[-2:]), float(self.calls))
        return torch.stack([torch.zeros_like(odds), odds], dim=1), None


def predict_probability(network: nn.Module, images: Tensor, *arguments: Any, **options: Any) -> np.ndarray:
    return predict_lesion_probability(
        TorchNetwork(LogitsOnly(network)), images.numpy(), *arguments, **options
    )


def create_segmenter(network: nn.Module, *arguments: Any, **options: Any) -> Segmenter:
    return Segmenter(TorchNetwork(LogitsOnly(network)), *arguments, **options)


def compute_square_theta(top: int, left: int, size: int) -> Tensor:
    """Compute theta of a square tile in a slice of 240 x 240 pixels."""
    return torch.from_numpy(compute_theta(range(top, top + size), range(left, left + size), 240, 240))


def add_neighbours(images: Tensor, count: int) -> Tensor:
    return torch.from_numpy(add_neighbour_slices(images.numpy(), count))


def draw_square(half: int, size: int = 240, slices: int = 3) -> np.ndarray:
    brain = np.zeros((slices, size, size), bool)
    brain[:, 120 - half : 120 + half, 120 - half : 120 + half] = True
    return brain


@pytest.fixture
def stack() -> SliceStack:
    random = np.random.default_rng(0)
    brain = draw_square(70)
    images = {name: random.normal(size=brain.shape).astype(np.float32) for name in PAIR}
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    return SliceStack("a", images, brain, affine, ("1", "2", "3"), (0, 1, 2))


def test_one_central_tile_is_used_if_the_brain_fits() -> None:
    assert compute_tile_corners(draw_square(96), 192) == [(24, 24)]
    assert compute_tile_corners(draw_square(112), 224) == [(8, 8)]
    assert compute_tile_corners(draw_square(120), 240) == [(0, 0)]


def test_four_corner_tiles_are_used_otherwise() -> None:
    assert set(compute_tile_corners(draw_square(113), 224)) == {(0, 0), (0, 16), (16, 0), (16, 16)}
    one_pixel_out = draw_square(96)
    one_pixel_out[1, 23, 120] = True
    corners = compute_tile_corners(one_pixel_out, 192)
    assert set(corners) == {(0, 0), (0, 48), (48, 0), (48, 48)}
    covered = np.zeros((240, 240), bool)
    for top, left in corners:
        covered[top : top + 192, left : left + 192] = True
    assert covered.all()


def test_theta_of_the_central_tile_is_the_default_of_the_network() -> None:
    torch.testing.assert_close(
        compute_square_theta(8, 8, 224), compute_central_theta(torch.zeros(1, 1, 224, 224))
    )


@pytest.mark.parametrize("half", [90, 110])
def test_theta_gives_the_position_of_a_tile_in_the_template(half: int) -> None:
    probability = predict_probability(ThetaNetwork(), torch.zeros(3, 1, 240, 240), draw_square(half), 192)
    coordinates = (2 * torch.arange(240) + 1) / 240 - 1
    odds = coordinates[None, :] + 2 * coordinates[:, None]
    inner = slice(24, 216) if half == 90 else slice(None)
    expected = torch.sigmoid(odds).numpy()[inner, inner]
    for one in probability:
        np.testing.assert_allclose(one[inner, inner], expected, atol=1e-5)


def test_tiles_and_batches_have_no_effect_on_the_result() -> None:
    torch.manual_seed(0)
    images = torch.randn(19, 2, 240, 240)
    tiled = predict_probability(PixelMeanNetwork(), images, draw_square(115, slices=19), 192)
    np.testing.assert_allclose(tiled, torch.sigmoid(images.mean(dim=1)).numpy(), atol=1e-5)


def test_logits_are_averaged_where_tiles_overlap() -> None:
    probability = predict_probability(
        CallCountingNetwork(), torch.zeros(1, 1, 240, 240), draw_square(115, slices=1), 192
    )[0]
    odds = np.log(probability / (1 - probability))
    np.testing.assert_allclose(odds[[0, 0, 239, 239], [0, 239, 0, 239]], [1, 2, 3, 4], atol=1e-4)
    np.testing.assert_allclose([odds[0, 120], odds[120, 0], odds[120, 120]], [1.5, 2, 2.5], atol=1e-4)


def test_pixels_outside_all_tiles_are_never_lesion() -> None:
    probability = predict_probability(
        PixelMeanNetwork(), torch.full((2, 1, 240, 240), 9.0), draw_square(50, slices=2), 192
    )
    assert probability.dtype == np.float32
    outside = np.ones((240, 240), bool)
    outside[24:216, 24:216] = False
    assert (probability[:, outside] == 0).all() and (probability[:, ~outside] > 0.99).all()


def test_pixels_outside_the_brain_are_never_lesion(stack: SliceStack) -> None:
    for name in PAIR:
        stack.images[name][:] = 9
    result = create_segmenter(PixelMeanNetwork(), PAIR, "union", 192).segment(stack)
    assert (result.probability[~stack.brain] == 0).all()
    np.testing.assert_array_equal(result.mask, stack.brain)


def test_union_is_the_union_of_the_sequences(stack: SliceStack) -> None:
    union = create_segmenter(PixelMeanNetwork(), PAIR, "union", 192).segment(stack)
    alone = [create_segmenter(PixelMeanNetwork(), (name,), "single", 192).segment(stack) for name in PAIR]
    assert all((union.probability >= one.probability).all() for one in alone)
    np.testing.assert_array_equal(union.mask, alone[0].mask | alone[1].mask)
    assert alone[0].mask.any() and (alone[0].mask != alone[1].mask).any()
    joint = create_segmenter(PixelMeanNetwork(), PAIR, "joint", 192).segment(stack)
    mean = (stack.images[PAIR[0]] + stack.images[PAIR[1]]) / 2
    np.testing.assert_array_equal(joint.mask, (mean >= 0) & stack.brain)
    assert len({joint.rule, union.rule, alone[0].rule}) == 3 and "T1C, FLAIR" in union.rule


def test_threshold_and_smallest_lesion_are_applied(stack: SliceStack) -> None:
    flair = stack.images[MRSequence.FLAIR]
    flair[:] = -9
    flair[0, 100:110, 100:110] = 0.5  # 100 voxels of 0.005 ml: 0.5 ml
    flair[2, 60:64, 60:64] = 2.0  # 0.08 ml
    only = (MRSequence.FLAIR,)

    def count_voxels(**settings) -> int:
        return int(
            create_segmenter(PixelMeanNetwork(), only, "single", 192, **settings).segment(stack).mask.sum()
        )

    assert count_voxels() == 116 and count_voxels(threshold=0.7) == 16
    assert count_voxels(min_lesion_ml=0.4) == 100 and count_voxels(min_lesion_ml=0.6) == 0


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(GliomarkError, match="majority"):
        create_segmenter(PixelMeanNetwork(), PAIR, "majority")


def test_corner_tiles_with_a_real_network() -> None:
    torch.manual_seed(0)
    size = SwinSize(embedding=8, depths=(1, 1, 1), heads=(1, 2, 2), patch=4)
    network = build_mignet(MIGNetSettings(size=size), torch.rand(240, 240)).eval()
    images, brain = torch.randn(2, 1, 240, 240), draw_square(113, slices=2)
    probability = predict_probability(network, images, brain, 224)
    corner = network(images[..., :224, :224], compute_square_theta(0, 0, 224).expand(2, -1, -1)).logits
    expected = corner.softmax(dim=1)[:, 1].detach().numpy()
    np.testing.assert_allclose(probability[:, :16, :16], expected[:, :16, :16], atol=1e-5)


def test_small_components_are_removed() -> None:
    mask = np.zeros((4, 20, 20), bool)
    mask[0, 2, 2:5] = True  # 3
    mask[1:3, 10, 10] = True  # 2 through slices, and one more by a corner: 3
    mask[3, 11, 11] = True
    mask[0, 15:17, 15:17] = True  # 4
    assert remove_small_components(mask, 4).sum() == 4
    np.testing.assert_array_equal(remove_small_components(mask, 3), mask)
    np.testing.assert_array_equal(remove_small_components(mask, 0), mask)
    assert (
        not remove_small_components(mask, 5).any()
        and not remove_small_components(np.zeros_like(mask), 0).any()
    )


def test_components_with_a_small_share_of_probability_are_removed() -> None:
    probability = np.zeros((3, 20, 20), np.float32)
    probability[0, 2:6, 2:6] = 0.6  # 9.6, the heaviest though the larger one follows
    probability[0, 10:13, 10:16] = 0.5  # 9.0
    probability[2, 2, 2:5] = 0.9  # 2.7
    kept = {
        share: remove_small_components(probability, 0, share).sum() for share in (0.0, 0.28, 0.29, 0.95, 1.0)
    }
    assert kept == {0.0: 37, 0.28: 37, 0.29: 34, 0.95: 16, 1.0: 16}
    assert not remove_small_components(np.zeros_like(probability), 0, 1.0).any()


# ---- neighbours, pooling, mirror images -----------------------------------------------------------------


def test_neighbour_slices_are_added_as_channels() -> None:
    images = torch.arange(8.0).reshape(4, 2, 1, 1)  # slice s: channels 2s and 2s + 1
    torch.testing.assert_close(add_neighbours(images, 0), images, atol=0, rtol=0)
    one = add_neighbours(images, 1)[..., 0, 0]
    assert one.tolist() == [
        # previous, current and next slice of the first channel, then of the second; the end slices are repeated
        [0, 0, 2, 1, 1, 3],
        [0, 2, 4, 1, 3, 5],
        [2, 4, 6, 3, 5, 7],
        [4, 6, 6, 5, 7, 7],
    ]
    two = add_neighbours(images, 2)[..., 0, 0]
    assert two[0].tolist() == [0, 0, 0, 2, 4, 1, 1, 1, 3, 5]
    assert two[3].tolist() == [2, 4, 6, 6, 6, 3, 5, 7, 7, 7]


def test_neighbours_of_a_single_slice_are_the_slice_itself() -> None:
    image = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(add_neighbours(image, 1), image.repeat_interleave(3, dim=1))
    assert add_neighbours(image[:0], 1).shape == (0, 6, 3, 3)


def build_small_mignet(inputs: int, symmetric: bool) -> MIGNet:
    """Build a small MIG-Net in which alpha has an effect, mirror-symmetric or not."""
    torch.manual_seed(0)
    size = SwinSize(embedding=8, depths=(1, 1), heads=(1, 2), patch=4)
    prior = torch.rand(240, 240)
    return build_mignet(
        MIGNetSettings(inputs, size=size), (prior + prior.flip(1)) / 2 if symmetric else prior
    ).eval()


def compute_expected_logits(
    network: nn.Module, images: Tensor, theta: Tensor, pool: int, tile: int
) -> Tensor:
    """Average over blocks, run the network, and upsample to all pixels."""
    count, channels = images.shape[:2]
    small = images.reshape(count, channels, tile // pool, pool, tile // pool, pool).mean(dim=(3, 5))
    logits = network(small, theta.expand(count, -1, -1))[0]
    return F.interpolate(logits, (tile, tile), mode="bilinear", align_corners=False)


@torch.no_grad()
@pytest.mark.parametrize("pool", [1, 2, 4])
def test_pooling_with_neighbours_equals_the_explicit_computation(stack: SliceStack, pool: int) -> None:
    network = build_small_mignet(inputs=6, symmetric=False)
    found = create_segmenter(network, PAIR, "joint", 192, pooling_factor=pool, neighbour_slices=1).segment(
        stack
    )
    both = torch.from_numpy(np.stack([stack.images[name] for name in PAIR], axis=1))
    inner = add_neighbours(both, 1)[..., 24:216, 24:216]
    odds = compute_expected_logits(network, inner, compute_square_theta(24, 24, 192), pool, 192)
    expected = np.zeros((3, 240, 240), np.float32)
    expected[:, 24:216, 24:216] = odds.softmax(dim=1)[:, 1].numpy()
    np.testing.assert_allclose(found.probability, np.where(stack.brain, expected, 0), atol=1e-5)


def test_averaging_over_one_and_a_half_pixels_keeps_two_of_every_three() -> None:
    row = torch.tensor([0.0, 2.0, 6.0, 1.0, 1.0, 5.0]).expand(1, 1, 6, 6)
    found = downsample_by_averaging(row, 1.5)
    assert found.shape == (1, 1, 4, 4) and found[0, 0, 0].tolist() == [1, 4, 1, 3]
    torch.testing.assert_close(downsample_by_averaging(row.mT, 1.5), found.mT, atol=0, rtol=0)
    torch.testing.assert_close(downsample_by_averaging(row, 1), row, atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("symmetric", [True, False])
def test_mirroring_is_the_mean_with_the_mirror_image(stack: SliceStack, symmetric: bool) -> None:
    """For the mirror image alpha is mirrored as well."""
    network, pool = build_small_mignet(inputs=1, symmetric=symmetric), 2
    images = torch.from_numpy(stack.images[PAIR[0]])[:, None]
    found = predict_probability(network, images, stack.brain, 192, pool, uses_mirroring=True)
    inner, theta = images[..., 24:216, 24:216], compute_square_theta(24, 24, 192)
    original = compute_expected_logits(network, inner, theta, pool, 192)
    # a mirrored map with the same theta equals the map with a mirrored theta
    network.guidance.alpha.copy_(network.guidance.alpha.flip(3))
    mirrored = compute_expected_logits(network, inner.flip(3), theta, pool, 192).flip(3)
    expected = ((original + mirrored) / 2).softmax(dim=1)[:, 1].numpy()
    np.testing.assert_allclose(found[:, 24:216, 24:216], expected, atol=1e-5)
    assert np.abs(expected - original.softmax(dim=1)[:, 1].numpy()).max() > 1e-3, "mirroring has no effect"


@torch.no_grad()
@pytest.mark.parametrize("half", [90, 113])
def test_alpha_is_sampled_mirrored_in_every_tile(half: int) -> None:
    """The mirror image of a tile has the same position in the template, with reversed columns."""
    images, brain = torch.zeros(1, 1, 240, 240), draw_square(half, slices=1)
    grids: list[Tensor] = []

    class RecordingNetwork(ThetaNetwork):
        def forward(self, image: Tensor, theta: Tensor) -> tuple[Tensor, None]:
            grids.append(F.affine_grid(theta, [len(theta), 1, *image.shape[-2:]], align_corners=False))
            return super().forward(image, theta)

    predict_probability(RecordingNetwork(), images, brain, 192, uses_mirroring=True)
    assert len(grids) == len(compute_tile_corners(brain, 192))
    for original, mirrored in grids:  # a tile and its mirror image are in one batch
        torch.testing.assert_close(mirrored, original.flip(1))


@torch.no_grad()
@pytest.mark.parametrize("half", [70, 113])
@pytest.mark.parametrize("name", ["MIG-Net", "U-Net"])
def test_a_mirrored_patient_gets_the_mirrored_prediction(name: str, half: int) -> None:
    """Exact with mirroring and a symmetric template; without mirroring the network is not symmetric."""
    torch.manual_seed(0)
    network: nn.Module = build_small_mignet(inputs=1, symmetric=True)
    if name == "U-Net":
        network = build_segmentation_network(UNetSettings(width=4)).eval()
    images, brain = torch.randn(2, 1, 240, 240), draw_square(half, slices=2)
    one, other = (
        [
            predict_probability(network, image_batch, brain, 192, 4, flips)
            for image_batch in (images, images.flip(3))
        ]
        for flips in (True, False)
    )
    np.testing.assert_allclose(one[1], one[0][:, :, ::-1], atol=1e-5)
    assert np.abs(other[1] - other[0][:, :, ::-1]).max() > 1e-3


def test_a_missing_sequence_is_zero_for_the_joint_rule(stack: SliceStack) -> None:
    images = {PAIR[0]: stack.images[PAIR[0]]}
    alone = SliceStack("a", images, stack.brain, stack.affine, stack.slice_names, stack.selected)
    found = create_segmenter(PixelMeanNetwork(), PAIR, "joint", 192).segment(alone)
    odds = stack.images[PAIR[0]] / 2  # the mean of the sequence and of zero
    expected = np.where(stack.brain, 1 / (1 + np.exp(-odds)), 0)
    np.testing.assert_allclose(found.probability, expected, atol=1e-5)
    united = create_segmenter(PixelMeanNetwork(), PAIR, "union", 192).segment(alone)
    single = create_segmenter(PixelMeanNetwork(), PAIR[:1], "single", 192).segment(alone)
    np.testing.assert_array_equal(united.probability, single.probability)

"""The window in which a network that takes any size sees a brain that is larger than a tile."""

from __future__ import annotations

import numpy as np
import pytest

from gliomark.inference.segmenter import (
    compute_theta,
    compute_windows,
    predict_lesion_probability,
)

SLICES = 9  # one batch that is full and one that is not
TILE = 192


def draw_brain(rows: tuple[int, int], columns: tuple[int, int], slices: int = SLICES) -> np.ndarray:
    """Draw a brain whose first slice shows only its upper left and whose last slice only its lower right pixel."""
    brain = np.zeros((slices, 240, 240), bool)
    brain[slices // 2, rows[0] : rows[1], columns[0] : columns[1]] = True
    brain[0, rows[0], columns[0]] = brain[-1, rows[1] - 1, columns[1] - 1] = True
    brain[slices // 2, rows[0], :] = brain[slices // 2, :, columns[0]] = False
    brain[slices // 2, rows[1] - 1, :] = brain[slices // 2, :, columns[1] - 1] = False
    return brain


LARGE_BRAINS = {
    "longer than the tile": ((20, 218), (50, 190)),
    "one pixel beyond it": ((23, 200), (50, 190)),
    "wider than the tile": ((60, 180), (10, 216)),
    "small but not in the middle": ((5, 60), (33, 140)),
    "at the upper left border": ((0, 150), (0, 90)),
    "at the lower right border": ((110, 240), (75, 240)),
    "the whole slice": ((0, 240), (0, 240)),
}
Brain = tuple[tuple[int, int], tuple[int, int]]


@pytest.mark.parametrize("pooling", [1.0, 1.2, 1.5, 2.0])
@pytest.mark.parametrize("brain", LARGE_BRAINS.values(), ids=LARGE_BRAINS.keys())
def test_a_window_contains_the_brain_and_the_tile(brain: Brain, pooling: float) -> None:
    (window,) = compute_windows(draw_brain(*brain), TILE, pooling, 32)
    assert window.pixels_per_sample == pytest.approx(pooling)
    sides = ((window.rows, window.sampled_rows), (window.columns, window.sampled_columns))
    for (pixels, samples), (first, end) in zip(sides, brain, strict=True):
        assert pixels.start <= min(first, 24) and pixels.stop >= max(end, 216)
        assert samples % 32 == 0 and samples * pooling <= len(pixels) < samples * pooling + 1
        assert (samples - 32) * pooling < 2 * max(120 - first, end - 120, 96), "a smaller window has room"
        assert abs(pixels.start + pixels.stop - 240) <= 1, "not in the middle of the slice"


@pytest.mark.parametrize("size_multiple", [None, 32])
@pytest.mark.parametrize("brain", [((24, 216), (24, 216)), ((100, 120), (30, 40)), ((30, 30), (30, 30))])
def test_a_brain_within_the_tile_is_seen_in_the_tile(brain: Brain, size_multiple: int | None) -> None:
    drawn = draw_brain(*brain) if brain[0][1] > brain[0][0] else np.zeros((SLICES, 240, 240), bool)
    (window,) = compute_windows(drawn, TILE, 1.2, size_multiple)
    assert (window.rows, window.columns) == (range(24, 216), range(24, 216))
    assert (window.sampled_rows, window.sampled_columns) == (160, 160)


def test_a_network_of_one_size_sees_a_larger_brain_in_four_tiles() -> None:
    windows = compute_windows(draw_brain(*LARGE_BRAINS["longer than the tile"]), TILE, 1.2, None)
    assert {(one.rows.start, one.columns.start) for one in windows} == {(0, 0), (0, 48), (48, 0), (48, 48)}
    assert {(one.sampled_rows, one.sampled_columns) for one in windows} == {(160, 160)}


class PixelNetwork:
    """The log-odds is the mean of the channels of a pixel; keeps its inputs."""

    def __init__(self) -> None:
        self.inputs: list[tuple[np.ndarray, np.ndarray]] = []

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        images, theta = inputs
        self.inputs.append((images.copy(), theta.copy()))
        odds = images.mean(axis=1)
        return (np.stack([np.zeros_like(odds), odds], axis=1),)


@pytest.mark.parametrize("uses_mirroring", [False, True])
@pytest.mark.parametrize("brain", LARGE_BRAINS.values(), ids=LARGE_BRAINS.keys())
def test_every_pixel_of_the_brain_is_predicted(brain: Brain, uses_mirroring: bool) -> None:
    network, drawn = PixelNetwork(), draw_brain(*brain)
    images = np.random.default_rng(0).normal(size=(SLICES, 2, 240, 240)).astype(np.float32)
    found = predict_lesion_probability(network, images, drawn, TILE, 1, uses_mirroring, 32)
    (window,) = compute_windows(drawn, TILE, 1, 32)
    seen = np.zeros((240, 240), bool)
    rows, columns = (slice(max(one.start, 0), one.stop) for one in (window.rows, window.columns))
    seen[rows, columns] = True
    assert found.dtype == np.float32 and seen[drawn.any(axis=0)].all()
    expected = 1 / (1 + np.exp(-images.mean(axis=1)))
    np.testing.assert_allclose(found[:, seen], expected[:, seen], atol=1e-5)
    assert (found[:, ~seen] == 0).all()


@pytest.mark.parametrize("pooling", [1.5, 2.0])
def test_a_smooth_image_is_predicted_at_the_position_of_its_pixels(pooling: float) -> None:
    """A ramp is unchanged by averaging and linear interpolation, but for the outermost samples."""
    ramp = (np.arange(240, dtype=np.float32)[:, None] + 3 * np.arange(240, dtype=np.float32)) / 300
    images = np.tile(ramp, (2, 1, 1, 1))
    found = predict_lesion_probability(
        PixelNetwork(), images, draw_brain((20, 218), (70, 170), 2), TILE, pooling, False, 32
    )
    # with 1.5, samples touch 2 pixels of 1.5: their mean deviates from the ramp by less than one pixel of it
    tolerance = 1e-5 if pooling == 2 else 0.25 * 4 / 300 / 2
    inner = (..., slice(20, 218), slice(70, 170))
    np.testing.assert_allclose(found[inner], (1 / (1 + np.exp(-images[:, 0])))[inner], atol=tolerance)


def test_beyond_the_slice_an_image_has_its_lowest_value() -> None:
    """As the background that preparation gives it, of each image of its own."""
    network, drawn = PixelNetwork(), draw_brain((0, 240), (0, 240))
    images = np.random.default_rng(0).normal(size=(SLICES, 2, 240, 240)).astype(np.float32)
    predict_lesion_probability(network, images, drawn, TILE, 1, False, 32)
    (window,) = compute_windows(drawn, TILE, 1, 32)
    assert window.rows.start < 0 and window.rows.stop > 240
    views = np.concatenate([one for one, _ in network.inputs])
    assert views.shape == (SLICES, 2, window.sampled_rows, window.sampled_columns)
    top, left = -window.rows.start, -window.columns.start
    np.testing.assert_allclose(views[..., top : top + 240, left : left + 240], images, atol=1e-6)
    outside = np.ones(views.shape[-2:], bool)
    outside[top : top + 240, left : left + 240] = False
    lowest = images.min(axis=(2, 3))
    np.testing.assert_allclose(
        views[..., outside], lowest[..., None].repeat(outside.sum(), axis=2), atol=1e-6
    )
    theta = compute_theta(window.rows, window.columns, 240, 240)
    for _, one in network.inputs:
        np.testing.assert_array_equal(one, theta.repeat(len(one), axis=0))

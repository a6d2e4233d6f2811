"""The window in which a network that takes any size sees the whole brain."""

from __future__ import annotations

import numpy as np
import pytest

from gliomark.inference.segmenter import (
    MARGIN_PIXELS,
    compute_brain_window,
    compute_theta,
    predict_lesion_probability,
)

SLICES = 9  # one batch that is full and one that is not


def draw_brain(rows: tuple[int, int], columns: tuple[int, int], slices: int = SLICES) -> np.ndarray:
    """Draw a brain whose first slice shows only its upper left and whose last slice only its lower right pixel."""
    brain = np.zeros((slices, 240, 240), bool)
    if rows[1] > rows[0]:
        brain[slices // 2, rows[0] : rows[1], columns[0] : columns[1]] = True
        brain[0, rows[0], columns[0]] = brain[-1, rows[1] - 1, columns[1] - 1] = True
        brain[slices // 2, rows[0], :] = brain[slices // 2, :, columns[0]] = False
        brain[slices // 2, rows[1] - 1, :] = brain[slices // 2, :, columns[1] - 1] = False
    return brain


BRAINS = {
    "in the middle": ((60, 180), (70, 170)),
    "not in the middle": ((20, 151), (33, 140)),
    "one pixel": ((100, 101), (37, 38)),
    "at the upper left border": ((0, 150), (0, 90)),
    "at the lower right border": ((110, 240), (75, 240)),
    "the whole slice": ((0, 240), (0, 240)),
}


@pytest.mark.parametrize("pooling", [1.0, 1.2, 1.5, 4.0])
@pytest.mark.parametrize("brain", BRAINS.values(), ids=BRAINS.keys())
def test_a_window_contains_the_brain_with_its_margin(
    brain: tuple[tuple[int, int], tuple[int, int]], pooling: float
) -> None:
    window = compute_brain_window(draw_brain(*brain), pooling, 32)
    assert window.pixels_per_sample == pooling
    sides = ((window.rows, window.sampled_rows), (window.columns, window.sampled_columns))
    for (pixels, samples), (first, end) in zip(sides, brain, strict=True):
        assert pixels.start <= first - MARGIN_PIXELS and pixels.stop >= end + MARGIN_PIXELS
        assert samples % 32 == 0
        assert samples * pooling <= len(pixels) < samples * pooling + 1
        assert (samples - 32) * pooling < end - first + 2 * MARGIN_PIXELS, "a smaller window has room"
        assert abs((pixels.start + pixels.stop) - (first + end)) <= 1, "not centred"


@pytest.mark.parametrize("pooling", [1.0, 1.5])
def test_without_a_brain_the_window_contains_the_slice(pooling: float) -> None:
    window = compute_brain_window(np.zeros((3, 240, 200), bool), pooling, 32)
    for pixels, side in ((window.rows, 240), (window.columns, 200)):
        assert pixels.start <= -MARGIN_PIXELS and pixels.stop >= side + MARGIN_PIXELS
        assert abs(pixels.start + pixels.stop - side) <= 1
    assert window.sampled_rows % 32 == window.sampled_columns % 32 == 0


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
@pytest.mark.parametrize("brain", BRAINS.values(), ids=BRAINS.keys())
def test_every_pixel_of_the_brain_is_predicted(
    brain: tuple[tuple[int, int], tuple[int, int]], uses_mirroring: bool
) -> None:
    network, drawn = PixelNetwork(), draw_brain(*brain)
    images = np.random.default_rng(0).normal(size=(SLICES, 2, 240, 240)).astype(np.float32)
    found = predict_lesion_probability(network, images, drawn, 192, 1, uses_mirroring, 32)
    window = compute_brain_window(drawn, 1, 32)
    seen = np.zeros((240, 240), bool)
    seen[max(window.rows.start, 0) : window.rows.stop, max(window.columns.start, 0) : window.columns.stop] = (
        True
    )
    assert found.dtype == np.float32 and seen[drawn.any(axis=0)].all()
    expected = 1 / (1 + np.exp(-images.mean(axis=1)))
    np.testing.assert_allclose(found[:, seen], expected[:, seen], atol=1e-5)
    assert (found[:, ~seen] == 0).all()


@pytest.mark.parametrize("pooling", [1.5, 4.0])
def test_a_smooth_image_is_predicted_at_the_position_of_its_pixels(pooling: float) -> None:
    """A ramp is unchanged by averaging and linear interpolation, but for the outermost samples."""
    ramp = (np.arange(240, dtype=np.float32)[:, None] + 3 * np.arange(240, dtype=np.float32)) / 300
    images = np.tile(ramp, (2, 1, 1, 1))
    tile = 192  # 192 / 1.5 and 192 / 4 are whole numbers
    found = predict_lesion_probability(
        PixelNetwork(), images, draw_brain((60, 180), (70, 170), 2), tile, pooling, False, 32
    )
    # with 1.5, samples touch 2 pixels of 1.5: their mean deviates from the ramp by less than one pixel of it
    tolerance = 1e-5 if pooling == 4 else 0.25 * 4 / 300 / 2
    inner = (..., slice(60, 180), slice(70, 170))
    np.testing.assert_allclose(found[inner], (1 / (1 + np.exp(-images[:, 0])))[inner], atol=tolerance)


def test_beyond_the_slice_an_image_has_its_lowest_value() -> None:
    """As the background that preparation gives it, of each image of its own."""
    network, drawn = PixelNetwork(), draw_brain((0, 240), (0, 240))
    images = np.random.default_rng(0).normal(size=(SLICES, 2, 240, 240)).astype(np.float32)
    predict_lesion_probability(network, images, drawn, 192, 1, False, 32)
    window = compute_brain_window(drawn, 1, 32)
    assert window.rows.start < 0 and window.rows.stop > 240
    views = np.concatenate([one for one, _ in network.inputs])
    assert views.shape == (SLICES, 2, window.sampled_rows, window.sampled_columns)
    top, left = -window.rows.start, -window.columns.start
    inside = np.zeros(views.shape[-2:], bool)
    inside[top : top + 240, left : left + 240] = True
    np.testing.assert_allclose(views[..., inside], images.reshape(SLICES, 2, -1), atol=1e-6)
    lowest = images.min(axis=(2, 3))[:, :, None]
    np.testing.assert_allclose(
        views[..., ~inside], np.broadcast_to(lowest, views[..., ~inside].shape), atol=1e-6
    )
    # the template is read at the position of the window, which is larger than the slice
    position = compute_theta(window.rows, window.columns, 240, 240)
    for _, theta in network.inputs:
        np.testing.assert_array_equal(theta, position.repeat(len(theta), axis=0))
    assert position[0, 0, 0] > 1

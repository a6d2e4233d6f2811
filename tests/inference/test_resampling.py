"""The matrices of resampling are PyTorch's interpolation by area and its bilinear one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gliomark.inference.resampling import build_averaging_matrix, build_bilinear_matrix, resample_axes

# pixels of a view, pixels of the network: pooling by 1.2, 1.5, 1 and 4, and 1.75
SIDES = [(192, 160), (192, 128), (224, 224), (192, 48), (224, 128)]


# in double precision: in single precision, PyTorch's positions have errors of 1e-5 of a pixel
def draw_images(rows: int, columns: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(rows).normal(size=(2, 3, rows, columns)).astype(np.float32))


@pytest.mark.parametrize(("pixels", "samples"), SIDES)
def test_averaging_is_interpolation_by_area(pixels: int, samples: int) -> None:
    """Rows and columns have different numbers, so that they cannot be exchanged."""
    images = draw_images(pixels, 2 * pixels)
    expected = F.interpolate(images.double(), (samples, 2 * samples), mode="area").numpy()
    step = pixels / samples
    found = resample_axes(
        images.numpy(),
        build_averaging_matrix(samples, pixels, step),
        build_averaging_matrix(2 * samples, 2 * pixels, step),
    )
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(("pixels", "samples"), SIDES)
def test_enlarging_is_bilinear_interpolation(pixels: int, samples: int) -> None:
    images = draw_images(samples, 2 * samples)
    expected = F.interpolate(
        images.double(), (pixels, 2 * pixels), mode="bilinear", align_corners=False
    ).numpy()
    step = pixels / samples
    found = resample_axes(
        images.numpy(),
        build_bilinear_matrix(pixels, samples, step),
        build_bilinear_matrix(2 * pixels, 2 * samples, step),
    )
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize(("pixels", "samples"), SIDES)
def test_a_constant_image_stays_constant(pixels: int, samples: int) -> None:
    for matrix in (
        build_averaging_matrix(samples, pixels, pixels / samples),
        build_bilinear_matrix(pixels, samples, pixels / samples),
    ):
        assert (matrix >= 0).all()
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("step", [1.0, 1.2, 1.5, 4.0])
def test_a_window_of_a_number_of_pixels_that_is_no_multiple_is_averaged(step: float) -> None:
    """The last sample of a window may lack a part of a pixel; it is the mean of the pixels that exist."""
    samples = 32
    pixels = int(np.ceil(samples * step - 1e-9))
    matrix = build_averaging_matrix(samples, pixels, step)
    assert matrix.shape == (samples, pixels) and (matrix.sum(axis=0) > 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    row = np.arange(pixels, dtype=np.float32)
    first, last = int(np.floor((samples - 1) * step + 1e-9)), pixels - 1
    assert (matrix @ row)[-1] == pytest.approx((first + last) / 2)

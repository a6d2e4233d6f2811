"""Resample slices for a network and its output back, as PyTorch's ``interpolate`` does, with one matrix per axis."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def resample_axes(images: FloatArray, row_matrix: FloatArray, column_matrix: FloatArray) -> FloatArray:
    """Apply a matrix to the rows and one to the columns of images ``(..., H, W)``: ``(..., h, w)``.

    row_matrix: ``(h, H)``. column_matrix: ``(w, W)``.
    """
    resampled: FloatArray = row_matrix @ (images @ column_matrix.T)
    return resampled


@lru_cache(maxsize=64)
def build_averaging_matrix(count: int, pixel_count: int, pixels_per_sample: float) -> FloatArray:
    """Build the matrix ``(count, pixel_count)`` that averages pixels, as interpolation by area does.

    Sample i is the mean of all pixels that it touches: from ``i * pixels_per_sample`` to the start of the next one,
    rounded outwards.
    """
    matrix = np.zeros((count, pixel_count), np.float32)
    for index in range(count):
        start = int(np.floor(index * pixels_per_sample + 1e-9))
        end = min(int(np.ceil((index + 1) * pixels_per_sample - 1e-9)), pixel_count)
        matrix[index, start:end] = 1 / (end - start)
    return matrix


@lru_cache(maxsize=64)
def build_bilinear_matrix(pixel_count: int, count: int, pixels_per_sample: float) -> FloatArray:
    """Build the matrix ``(pixel_count, count)`` that interpolates samples linearly at the centres of the pixels.

    Beyond the outermost samples their values are repeated.
    """
    position = (np.arange(pixel_count) + 0.5) / pixels_per_sample - 0.5
    position = position.clip(0, count - 1)
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, count - 1)
    share = (position - lower).astype(np.float32)
    matrix = np.zeros((pixel_count, count), np.float32)
    pixels = np.arange(pixel_count)
    np.add.at(matrix, (pixels, lower), 1 - share)
    np.add.at(matrix, (pixels, upper), share)
    return matrix

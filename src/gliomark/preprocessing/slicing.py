"""The common grid: axial slices of 240x240 at 1 mm, and the K equidistant ones among them."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.messages import message
from gliomark.study import GliomarkError

MIN_BRAIN_AREA_MM2 = 800.0


def create_slice_grid(
    brain: sitk.Image, size: int, pixel_mm: float, step_mm: float
) -> tuple[sitk.Image, list[int]]:
    """An empty grid centred on the brain, and the reference slices (0 = lowest) that it keeps.

    brain: uint8 0/1 on the reference's axial grid. Slices stay on acquired ones: between slices 6 mm
    apart the published 1 mm resampling only blurs, and a mask could not be carried back exactly. From
    finer volumes every n-th slice is taken, n the smallest that makes steps of at least ``step_mm``.
    Pixels are ``pixel_mm``, or larger by one factor for both axes where a brain exceeds the field.
    """
    mask = sitk.GetArrayViewFromImage(brain) > 0
    column_mm, row_mm, slice_mm = brain.GetSpacing()
    brain_slices = np.flatnonzero(mask.sum(axis=(1, 2)) * column_mm * row_mm >= MIN_BRAIN_AREA_MM2)
    if brain_slices.size == 0:
        raise GliomarkError(message("brain-in-no-slice"))
    stride = max(1, math.ceil(step_mm / slice_mm - 1e-6))
    slices = list(range(int(brain_slices[0]), int(brain_slices[-1]) + 1, stride))
    (top, bottom), (left, right) = (
        _find_extent(np.any(mask, axis=(0, 2))),
        _find_extent(np.any(mask, axis=(0, 1))),
    )
    extent_mm = max((bottom - top) * row_mm, (right - left) * column_mm)
    pixel_mm = max(pixel_mm, extent_mm / (size - 4))
    centre = brain.TransformContinuousIndexToPhysicalPoint(
        ((left + right) / 2, (top + bottom) / 2, slices[0])
    )
    grid = sitk.Image(size, size, len(slices), sitk.sitkUInt8)
    grid.SetSpacing((pixel_mm, pixel_mm, slice_mm * stride))
    grid.SetDirection(brain.GetDirection())
    middle = np.array(grid.TransformContinuousIndexToPhysicalPoint(((size - 1) / 2, (size - 1) / 2, 0.0)))
    grid.SetOrigin((np.array(centre) - middle).tolist())
    return grid, slices


def select_equidistant_slices(slice_count: int, selected_count: int) -> tuple[int, ...]:
    """K indices spread evenly from the first to the last of ``count`` slices (all, where count <= k)."""
    return tuple(
        sorted({round(i) for i in np.linspace(0, slice_count - 1, min(selected_count, slice_count))})
    )


def _find_extent(occupied: NDArray[np.bool_]) -> tuple[int, int]:
    indices = np.flatnonzero(occupied)
    return int(indices[0]), int(indices[-1])

"""Create the common grid of axial slices (240 x 240 pixels of 1 mm) and select K equidistant slices."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.messages import message

MIN_BRAIN_AREA_MM2 = 800.0


def create_slice_grid(
    brain: sitk.Image, size: int, pixel_mm: float, step_mm: float
) -> tuple[sitk.Image, list[int]]:
    """Create an empty grid centred on the brain, and list the reference slices that it keeps.

    Slices are kept as acquired: with a slice spacing of 6 mm, the published resampling to 1 mm would only blur, and
    masks could not be mapped back exactly. Of finer volumes every n-th slice is used, with the smallest n for which
    the spacing is at least ``step_mm``. Pixels are ``pixel_mm``, or larger in both axes if the brain exceeds the field
    of view (method.md, section 2, steps 4 and 5).

    Parameters
    ----------
    brain
        Brain mask, uint8 0 or 1, on the reference's axial grid.
    size
        Rows and columns of the grid.
    pixel_mm
        Minimum pixel spacing in mm.
    step_mm
        Minimum slice spacing in mm.

    Returns
    -------
    tuple[sitk.Image, list[int]]
        The grid, and the indices of its slices in the reference (0 is the most inferior).

    Raises
    ------
    InputError
        If no slice contains at least 800 mm2 of brain.
    """
    mask = sitk.GetArrayViewFromImage(brain) > 0
    column_mm, row_mm, slice_mm = brain.GetSpacing()
    brain_slices = np.flatnonzero(mask.sum(axis=(1, 2)) * column_mm * row_mm >= MIN_BRAIN_AREA_MM2)
    if brain_slices.size == 0:
        raise InputError(message("brain-in-no-slice"))
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
    """Select equidistant slice indices from the first to the last of ``slice_count`` slices.

    All of them if there are not more than ``selected_count`` (K of method.md, section 2, step 4).
    """
    return tuple(
        sorted({round(i) for i in np.linspace(0, slice_count - 1, min(selected_count, slice_count))})
    )


def _find_extent(occupied: NDArray[np.bool_]) -> tuple[int, int]:
    indices = np.flatnonzero(occupied)
    return int(indices[0]), int(indices[-1])

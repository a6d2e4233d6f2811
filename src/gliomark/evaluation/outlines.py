"""How far two outlines of one patient lie apart: overlap, surface distances, false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.evaluation.metrics import dice


@dataclass(frozen=True)
class OutlineScores:
    """One patient's outline against the drawn one.

    dice (eq. 3-9) and sensitivity over all slices, dice_per_lesion_slice their mean over the slices with a
    drawn lesion. hausdorff (eq. 3-11) and hausdorff_95: ``_mm`` between the surfaces in space, ``_pixels``
    between the outlines of one slice, the mean over the slices on which both are; nan where there is
    nothing to measure between. lesion_free: for every slice without a drawn lesion that shows brain, the
    share of its brain that was outlined.
    """

    dice: float
    dice_per_lesion_slice: float
    sensitivity: float
    hausdorff_pixels: float
    hausdorff_95_pixels: float
    hausdorff_mm: float
    hausdorff_95_mm: float
    lesion_free: tuple[float, ...]


def compare(
    truth: NDArray[np.bool_], mask: NDArray[np.bool_], brain: NDArray[np.bool_], spacing: Sequence[float]
) -> OutlineScores:
    """truth, mask and brain ``(slice, row, column)``; spacing: slice, row and column step in millimetres."""
    with_lesion = truth.any(axis=(1, 2))
    free = ~with_lesion & brain.any(axis=(1, 2))
    both = np.flatnonzero(with_lesion & mask.any(axis=(1, 2)))
    flat = [hausdorff(truth[i], mask[i], (1.0, 1.0)) for i in both]
    pixels = np.mean(flat, axis=0) if flat else (np.nan, np.nan)
    mm = hausdorff(truth, mask, spacing)
    lesion = int(truth.sum())
    per_slice = [dice(t, m) for t, m in zip(truth[with_lesion], mask[with_lesion], strict=True)]
    return OutlineScores(
        dice=dice(truth, mask),
        dice_per_lesion_slice=float(np.mean(per_slice)) if per_slice else float("nan"),
        sensitivity=int((truth & mask).sum()) / lesion if lesion else float("nan"),
        hausdorff_pixels=float(pixels[0]),
        hausdorff_95_pixels=float(pixels[1]),
        hausdorff_mm=mm[0],
        hausdorff_95_mm=mm[1],
        lesion_free=tuple(
            float((m & b).sum() / b.sum()) for m, b in zip(mask[free], brain[free], strict=True)
        ),
    )


def hausdorff(
    truth: NDArray[np.bool_], mask: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[float, float]:
    """Hausdorff distance (eq. 3-11) and its 95th percentile, in the unit of spacing, any number of axes.

    From every surface voxel of either mask to the other's surface; the larger of both directions'
    percentile. nan where a mask is empty.
    """
    if not truth.any() or not mask.any():
        return float("nan"), float("nan")
    box = ndimage.find_objects((truth | mask).astype(np.uint8))[0]
    # a border of nothing, so that what touches the box's side is surface there too
    first, second = (_surface(np.pad(one[box], 1)) for one in (truth, mask))
    there = ndimage.distance_transform_edt(~second, sampling=spacing)[first]
    back = ndimage.distance_transform_edt(~first, sampling=spacing)[second]
    return float(max(there.max(), back.max())), float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask)

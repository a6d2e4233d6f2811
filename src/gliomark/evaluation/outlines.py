"""How far two outlines of one patient lie apart: overlap, surface distances, false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.evaluation.metrics import dice


@dataclass(frozen=True)
class SegmentationScores:
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


def compute_segmentation_scores(
    truth: NDArray[np.bool_], mask: NDArray[np.bool_], brain: NDArray[np.bool_], spacing: Sequence[float]
) -> SegmentationScores:
    """truth, mask and brain ``(slice, row, column)``; spacing: slice, row and column step in millimetres."""
    with_lesion = truth.any(axis=(1, 2))
    is_lesion_free = ~with_lesion & brain.any(axis=(1, 2))
    both = np.flatnonzero(with_lesion & mask.any(axis=(1, 2)))
    slice_distances = [compute_hausdorff_distances(truth[i], mask[i], (1.0, 1.0)) for i in both]
    pixels = np.mean(slice_distances, axis=0) if slice_distances else (np.nan, np.nan)
    mm = compute_hausdorff_distances(truth, mask, spacing)
    lesion = int(truth.sum())
    per_slice = [dice(t, m) for t, m in zip(truth[with_lesion], mask[with_lesion], strict=True)]
    return SegmentationScores(
        dice=dice(truth, mask),
        dice_per_lesion_slice=float(np.mean(per_slice)) if per_slice else float("nan"),
        sensitivity=int((truth & mask).sum()) / lesion if lesion else float("nan"),
        hausdorff_pixels=float(pixels[0]),
        hausdorff_95_pixels=float(pixels[1]),
        hausdorff_mm=mm[0],
        hausdorff_95_mm=mm[1],
        lesion_free=tuple(
            float((m & b).sum() / b.sum())
            for m, b in zip(mask[is_lesion_free], brain[is_lesion_free], strict=True)
        ),
    )


def compute_hausdorff_distances(
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
    first, second = (_extract_surface(np.pad(one[box], 1)) for one in (truth, mask))
    first_to_second = ndimage.distance_transform_edt(~second, sampling=spacing)[first]
    second_to_first = ndimage.distance_transform_edt(~first, sampling=spacing)[second]
    return float(max(first_to_second.max(), second_to_first.max())), float(
        max(np.percentile(first_to_second, 95), np.percentile(second_to_first, 95))
    )


def _extract_surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask)

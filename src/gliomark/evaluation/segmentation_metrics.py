"""Compare two masks of one patient: overlap, surface distances, false-positive area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.evaluation.metrics import dice


@dataclass(frozen=True)
class SegmentationScores:
    """Metrics of one patient's mask against the reference mask; nan where undefined.

    Attributes
    ----------
    dice
        Dice coefficient over all slices (equation 3-9).
    dice_per_lesion_slice
        Mean Dice coefficient of the slices with a reference lesion.
    sensitivity
        Share of the reference voxels in the mask, over all slices.
    hausdorff_pixels, hausdorff_95_pixels
        Hausdorff distance (equation 3-11) and its 95th percentile within a slice, in pixels; mean over the
        slices in which neither mask is empty.
    hausdorff_mm, hausdorff_95_mm
        The same between the surfaces in 3-D, in mm.
    lesion_free
        For each slice with brain and without a reference lesion: share of the brain in the mask, 0 to 1.
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
    """Compute the metrics of a mask against the reference mask.

    Parameters
    ----------
    truth
        Reference mask ``(slice, row, column)``.
    mask
        Mask to evaluate, of the same shape.
    brain
        Brain mask of the same shape.
    spacing
        Distance between slices, rows and columns in mm.
    """
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
    """Return the Hausdorff distance (equation 3-11) and its 95th percentile, in the unit of spacing.

    truth and mask have the same shape, with any number of axes. Distances are measured from every surface voxel of
    each mask to the other's surface; the larger value of both directions is returned. nan if a mask is empty.
    """
    if not truth.any() or not mask.any():
        return float("nan"), float("nan")
    box = ndimage.find_objects((truth | mask).astype(np.uint8))[0]
    # padded, so that voxels at the side of the box count as surface
    first, second = (_extract_surface(np.pad(one[box], 1)) for one in (truth, mask))
    first_to_second = ndimage.distance_transform_edt(~second, sampling=spacing)[first]
    second_to_first = ndimage.distance_transform_edt(~first, sampling=spacing)[second]
    return float(max(first_to_second.max(), second_to_first.max())), float(
        max(np.percentile(first_to_second, 95), np.percentile(second_to_first, 95))
    )


def _extract_surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = mask & ~ndimage.binary_erosion(mask)
    return result

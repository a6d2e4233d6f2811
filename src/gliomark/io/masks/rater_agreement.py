"""Resample masks to one grid, to merge them or to compare raters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.evaluation.metrics import dice
from gliomark.geometry import to_simpleitk_image
from gliomark.io.masks.region_names import LesionMask
from gliomark.messages import message
from gliomark.study import MRSequence, Series

SequenceTransforms = Mapping[MRSequence, NDArray[np.float64]]


@dataclass(frozen=True)
class RaterAgreement:
    """Agreement of two raters over ``voxels`` voxels; dice and kappa are nan if undefined.

    kappa counts voxels outside both masks as agreement, so it depends on the region: the brain if given, else the whole
    grid. a_ml, b_ml, both_ml: volumes of the two masks and of their intersection in ml.
    """

    dice: float
    kappa: float
    voxels: int
    a_ml: float
    b_ml: float
    both_ml: float


def unite_masks(
    masks: Sequence[LesionMask], grid: Series, to_grid: SequenceTransforms | None = None
) -> Series:
    """Merge masks on one grid: resample each linearly, threshold at 0.5, and OR them.

    Parameters
    ----------
    masks
        The masks to merge, each on its own grid.
    grid
        The series whose grid the result has.
    to_grid
        Rigid transform ``(4, 4)`` of each sequence from its LPS mm to the grid's (``SliceStack.to_stack``). Masks of
        other or unknown sequences are assumed to be in the grid's coordinates.

    Returns
    -------
    Series
        0 and 1, ``(slice, row, column)``.

    Raises
    ------
    InputError
        If there is no mask.
    """
    if not masks:
        raise InputError(message("mask-none", folder=grid.source))
    image = np.zeros(grid.image.shape, dtype=bool)
    for mask in masks:
        matrix = (to_grid or {}).get(mask.sequence) if mask.sequence else None
        image |= _resample_mask(mask.series, grid, np.eye(4) if matrix is None else np.asarray(matrix))
    return Series(image.astype(np.float32), grid.affine, grid.slice_names, grid.source)


def compute_agreement(
    first: LesionMask,
    second: LesionMask,
    grid: Series | None = None,
    to_grid: SequenceTransforms | None = None,
    brain: NDArray[np.bool_] | None = None,
) -> RaterAgreement:
    """Compute Dice and Cohen's kappa of two raters' masks over ``grid``, or over ``brain`` on that grid.

    brain: ``(slice, row, column)``. Without a grid, that of ``first`` is used, extended to contain ``second``; kappa is
    then not meaningful if ``first`` was stored cropped to its lesion.
    """
    return _compare_masks(
        [first],
        [second],
        grid if grid is not None else _extend_grid(first.series, second.series),
        to_grid,
        brain,
    )


def compute_rater_agreement(
    masks: Sequence[LesionMask],
    grid: Series,
    to_grid: SequenceTransforms | None = None,
    brain: NDArray[np.bool_] | None = None,
) -> dict[str, RaterAgreement]:
    """Compute the agreement of every pair of raters after merging each rater's masks; keys are "rater 1, rater 2".

    brain: ``(slice, row, column)`` on the grid; kappa is computed over these voxels.
    """
    drawn: dict[str, list[LesionMask]] = defaultdict(list)
    for mask in masks:
        drawn[mask.rater].append(mask)
    named = sorted(rater for rater in drawn if rater)
    return {
        f"{one}, {other}": _compare_masks(drawn[one], drawn[other], grid, to_grid, brain)
        for one, other in combinations(named, 2)
    }


def _compare_masks(
    first: Sequence[LesionMask],
    second: Sequence[LesionMask],
    grid: Series,
    to_grid: SequenceTransforms | None,
    brain: NDArray[np.bool_] | None,
) -> RaterAgreement:
    one, other = (unite_masks(masks, grid, to_grid).image > 0 for masks in (first, second))
    region = np.ones(one.shape, dtype=bool) if brain is None else brain
    voxel_ml = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000.0
    return RaterAgreement(
        dice=dice(one, other),
        kappa=_compute_kappa(one[region], other[region]),
        voxels=int(region.sum()),
        a_ml=float(one.sum()) * voxel_ml,
        b_ml=float(other.sum()) * voxel_ml,
        both_ml=float((one & other).sum()) * voxel_ml,
    )


def _compute_kappa(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Compute Cohen's kappa of two masks; nan if both have one and the same label everywhere."""
    share_a, share_b = float(a.mean()), float(b.mean())
    chance = share_a * share_b + (1 - share_a) * (1 - share_b)
    return (float((a == b).mean()) - chance) / (1 - chance) if chance < 1 else float("nan")


def _resample_mask(mask: Series, grid: Series, to_grid: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Resample one mask to the grid, bool; ``to_grid`` transforms the mask's LPS mm to the grid's."""
    cropped = _crop_to_lesion(mask)
    if cropped is None:
        return np.zeros(grid.image.shape, dtype=bool)
    from_grid = np.linalg.inv(to_grid)  # ITK maps points of the target grid to the mask
    transform = sitk.AffineTransform(from_grid[:3, :3].ravel().tolist(), from_grid[:3, 3].tolist())
    target = to_simpleitk_image(np.zeros(grid.image.shape, dtype=np.uint8), grid.affine)
    resampled = sitk.Resample(
        to_simpleitk_image(*cropped), target, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32
    )
    # Slightly below one half, so that rounding does not decide on a voxel centre midway between two.
    return sitk.GetArrayFromImage(resampled) >= 0.5 - 1e-4


def _crop_to_lesion(mask: Series) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
    """Crop to the lesion's bounding box, padded with zeros so that interpolation also works at the mask's border."""
    index = np.argwhere(mask.image > 0)
    if not len(index):
        return None
    low, high = index.min(axis=0), index.max(axis=0) + 1
    box = mask.image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    affine = mask.affine.copy()
    affine[:3, 3] += mask.affine[:3, :3] @ (low[::-1] - 1.0)
    return np.pad(box, 1).astype(np.float32), affine


def _extend_grid(a: Series, b: Series) -> Series:
    """Extend the grid of ``a`` by whole voxels until it contains the lesion of ``b``."""
    size = np.array(a.image.shape[::-1])
    low, high = np.zeros(3, dtype=int), size.copy()
    at = np.argwhere(b.image > 0)[:, ::-1].T
    if at.size:
        points = b.affine[:3, :3] @ at + b.affine[:3, 3:]
        index = np.linalg.inv(a.affine)[:3] @ np.vstack([points, np.ones(points.shape[1])])
        low = np.minimum(low, np.floor(index.min(axis=1)).astype(int))
        high = np.maximum(high, np.ceil(index.max(axis=1)).astype(int) + 1)
    affine = a.affine.copy()
    affine[:3, 3] += a.affine[:3, :3] @ low
    shape = tuple((high - low)[::-1])
    names = tuple(f"{number:03d}" for number in range(1, shape[0] + 1))
    return Series(np.zeros(shape, dtype=np.float32), affine, names, a.source)

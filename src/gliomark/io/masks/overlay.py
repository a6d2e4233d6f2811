"""Masks brought onto one grid: OR-ed into one, or compared between raters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.evaluation.metrics import dice
from gliomark.geometry import to_simpleitk_image
from gliomark.io.masks.rules import LesionMask
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, Series

SequenceTransforms = Mapping[MRSequence, NDArray[np.float64]]


@dataclass(frozen=True)
class RaterAgreement:
    """How far two raters agree, over ``voxels`` voxels; dice and kappa are nan where they have no meaning.

    kappa counts the voxels outside both masks as agreed, so it depends on the region: the brain where it is
    given, else the whole grid. a_ml, b_ml, both_ml: volumes of the two masks and of what they share.
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
    """The OR of masks on one grid, 0 and 1: each resampled linearly, lesion at 0.5 and above.

    into: per sequence the rigid 4x4 from LPS mm of that series to the grid's (``SliceStack.to_stack``). A mask
    of a sequence that is not in it, or of an unknown one, is taken to lie in the grid's millimetres already.

    Raises: GliomarkError for no mask.
    """
    if not masks:
        raise GliomarkError(message("mask-none", folder=grid.source))
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
    """Dice and Cohen's kappa of two raters' masks over the voxels of ``grid``, or of ``brain`` on that grid.

    Without a grid: that of ``a``, grown where ``b`` reaches beyond it; kappa then means little if ``a`` was
    stored cut to its lesion.
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
    """Agreement of every two raters, each rater's masks OR-ed first; by "rater 1, rater 2"."""
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
    """Cohen's kappa of two masks; nan where both are the same throughout, one label alone."""
    share_a, share_b = float(a.mean()), float(b.mean())
    chance = share_a * share_b + (1 - share_a) * (1 - share_b)
    return (float((a == b).mean()) - chance) / (1 - chance) if chance < 1 else float("nan")


def _resample_mask(mask: Series, grid: Series, to_grid: NDArray[np.float64]) -> NDArray[np.bool_]:
    """One mask on the grid, bool; ``moved`` takes the mask's mm to the grid's."""
    cropped = _crop_to_lesion(mask)
    if cropped is None:
        return np.zeros(grid.image.shape, dtype=bool)
    from_grid = np.linalg.inv(to_grid)  # ITK asks where a point of the grid lies in the mask
    transform = sitk.AffineTransform(from_grid[:3, :3].ravel().tolist(), from_grid[:3, 3].tolist())
    target = to_simpleitk_image(np.zeros(grid.image.shape, dtype=np.uint8), grid.affine)
    resampled = sitk.Resample(
        to_simpleitk_image(*cropped), target, transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32
    )
    # a hair below one half: a voxel centre midway between two must not hang on the last bit
    return sitk.GetArrayFromImage(resampled) >= 0.5 - 1e-4


def _crop_to_lesion(mask: Series) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
    """The lesion's box with a rim of zeros, so that its edge fades also where the mask's grid ends."""
    index = np.argwhere(mask.image > 0)
    if not len(index):
        return None
    low, high = index.min(axis=0), index.max(axis=0) + 1
    box = mask.image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    affine = mask.affine.copy()
    affine[:3, 3] += mask.affine[:3, :3] @ (low[::-1] - 1.0)
    return np.pad(box, 1).astype(np.float32), affine


def _extend_grid(a: Series, b: Series) -> Series:
    """The grid of ``a``, extended by whole voxels until it holds the lesion of ``b``."""
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

"""Measure how well the sequences of a prepared patient are aligned with each other."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.study import MRSequence, SliceStack

HISTOGRAM_BINS = 16  # per axis of the joint histogram: 256 cells, well filled by the voxels of one block
MAX_SAMPLED_VOXELS = 40_000  # sampled from the brain: 5000 in each of the eight blocks
MAX_SHIFT_PIXELS = 10  # pixels (1 mm) by which a sequence is shifted along rows and columns
SHIFT_STEP_PIXELS = 2
# pixels: broader structures (coil shading, the whole tumour) say little about alignment
DETAIL_WINDOW_PIXELS = 15
MAX_MIRROR_SHIFT_PIXELS = 6  # pixels between the midplane of the head and that of the mask
BLOCK_COUNT = 8


def subsample_indices(indices: NDArray[np.int64], max_count: int) -> NDArray[np.int64]:
    """Sample at most ``max_count`` of indices ``(n,)``, with a fixed seed; a regular step could alias with rows."""
    if indices.size <= max_count:
        return indices
    return np.sort(np.random.default_rng(0).choice(indices, max_count, replace=False))


@dataclass(frozen=True, eq=False)
class _ImagePair:
    """Reference and moving sequence, cropped to the brain's bounding box and quantised.

    Arrays are ``(slice, row, column)`` with grey levels 0 to HISTOGRAM_BINS - 1, HISTOGRAM_BINS outside the brain.
    spacing: between slices, rows and columns, in mm.
    """

    fixed: NDArray[np.uint8]
    moving: NDArray[np.uint8]
    spacing: tuple[float, float, float] = field(default=(1.0, 1.0, 1.0))


def measure_alignment(stack: SliceStack, name: MRSequence, reference: MRSequence) -> dict[str, float | None]:
    """Measure the alignment of a registered sequence with the reference, and the gain by mirroring it."""
    if not stack.brain.any():
        return {"similarity": None, "misalignment_mm": None, "mirrored": None}
    grey_pair, detail_pair = (
        _create_image_pair(stack, name, reference, uses_detail=False),
        _create_image_pair(stack, name, reference, uses_detail=True),
    )
    return {
        "similarity": _compute_similarity(grey_pair.fixed, grey_pair.moving),
        "misalignment_mm": _estimate_misalignment_mm(detail_pair),
        "mirrored": _compute_mirror_gain(grey_pair),
    }


def measure_displacement(stack: SliceStack, name: MRSequence, reference: MRSequence) -> float:
    """Measure the displacement of a sequence relative to the reference, mm; 0 if the brain is too small to tell."""
    if not stack.brain.any():
        return 0.0
    displacement = _estimate_misalignment_mm(_create_image_pair(stack, name, reference, uses_detail=True))
    return 0.0 if displacement is None else displacement


def _create_image_pair(
    stack: SliceStack, name: MRSequence, reference: MRSequence, uses_detail: bool
) -> _ImagePair:
    """Create the image pair. detail: only structures finer than DETAIL_WINDOW_PIXELS, instead of grey values."""
    box = ndimage.find_objects(stack.brain.astype(np.uint8))[0]
    brain = stack.brain[box]
    column, row, step = np.linalg.norm(stack.affine[:3, :3], axis=0)
    images = [stack.images[which][box] for which in (reference, name)]
    levels = [
        _quantise_grey_levels(_subtract_local_mean(image, brain) if uses_detail else image, brain)
        for image in images
    ]
    return _ImagePair(levels[0], levels[1], (float(step), float(row), float(column)))


def _subtract_local_mean(image: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Subtract the local mean over the brain in a square of DETAIL_WINDOW_PIXELS, and clip extremes."""
    square = (1, DETAIL_WINDOW_PIXELS, DETAIL_WINDOW_PIXELS)
    share = ndimage.uniform_filter(brain.astype(np.float32), square)
    broad = ndimage.uniform_filter(np.where(brain, image, 0.0).astype(np.float32), square)
    fine = image - broad / np.maximum(share, 1e-3)
    values: NDArray[np.float32] = np.clip(fine, *np.percentile(fine[brain][::7], [2.0, 98.0]))
    return values


def _quantise_grey_levels(image: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Quantise evenly between the extremes in the brain (clipped by z-scoring); HISTOGRAM_BINS outside the brain."""
    values = image[brain]
    low, high = float(values.min()), float(values.max())
    scaled = (image - low) * (HISTOGRAM_BINS / max(high - low, 1e-6))
    levels: NDArray[np.uint8] = np.clip(scaled, 0, HISTOGRAM_BINS - 1).astype(np.uint8)
    levels[~brain] = HISTOGRAM_BINS
    return levels


def _estimate_misalignment_mm(pair: _ImagePair) -> float | None:
    """Estimate the shift to the best alignment in mm: the median over eight blocks.

    The value of the similarity depends on contrast and noise; the position of its maximum measures misalignment.
    Eight blocks (right and left, anterior and posterior, inferior and superior) are shifted separately, so that a
    rotation is detected. Only fine structures are used: coil shading and a large tumour would move the maximum.
    """
    in_plane_shifts = _find_in_plane_shifts(pair)
    if in_plane_shifts is None:
        return None
    slice_shifts_mm = (
        _find_through_plane_shifts(pair, np.rint(np.median(in_plane_shifts, axis=0))) * pair.spacing[0]
    )
    rows, columns = in_plane_shifts[:, 0] * pair.spacing[1], in_plane_shifts[:, 1] * pair.spacing[2]
    return float(np.median(np.sqrt(rows**2 + columns**2 + slice_shifts_mm**2)))


@dataclass(frozen=True, eq=False)
class _HistogramSamples:
    """Voxels that can be shifted without leaving the brain: flat indices ``(n,)`` and joint histogram rows ``(n,)``."""

    flat_indices: NDArray[np.int64]
    histogram_rows: NDArray[np.int64]

    def compute_similarity(self, moving: NDArray[np.uint8], offset: int) -> NDArray[np.float64]:
        """Compute the similarity of each block ``(8,)``, the flat moving sequence shifted by ``offset`` voxels."""
        counts = np.bincount(
            self.histogram_rows + moving[self.flat_indices + offset],
            minlength=BLOCK_COUNT * HISTOGRAM_BINS * HISTOGRAM_BINS,
        )
        return _compute_normalised_mutual_information(
            counts.reshape(BLOCK_COUNT, HISTOGRAM_BINS, HISTOGRAM_BINS).astype(float)
        )


def _sample_shiftable_voxels(pair: _ImagePair, max_shift: tuple[int, int, int]) -> _HistogramSamples | None:
    """Sample brain voxels that stay in the brain within ``reach`` along each axis; None if there are too few."""
    inside = (pair.fixed < HISTOGRAM_BINS).astype(np.uint8)
    for axis, distance in enumerate(max_shift):
        inside = ndimage.minimum_filter1d(inside, 2 * distance + 1, axis=axis, mode="constant")
    flat = subsample_indices(np.flatnonzero(inside), MAX_SAMPLED_VOXELS)
    if flat.size < 100 * BLOCK_COUNT:
        return None
    index = np.stack(np.unravel_index(flat, pair.fixed.shape), axis=1)
    block = (index >= np.median(index, axis=0)) @ np.array([4, 2, 1])
    return _HistogramSamples(flat, (block * HISTOGRAM_BINS + pair.fixed.ravel()[flat]) * HISTOGRAM_BINS)


def _find_in_plane_shifts(pair: _ImagePair) -> NDArray[np.float64] | None:
    """Find the shift (rows, columns) in pixels with the highest similarity in each block, ``(8, 2)``."""
    samples = _sample_shiftable_voxels(pair, (0, MAX_SHIFT_PIXELS, MAX_SHIFT_PIXELS))
    if samples is None:
        return None
    moving, width = pair.moving.ravel(), pair.fixed.shape[2]
    shifts = np.arange(-MAX_SHIFT_PIXELS, MAX_SHIFT_PIXELS + 1, SHIFT_STEP_PIXELS)
    surface = np.array([[samples.compute_similarity(moving, r * width + c) for c in shifts] for r in shifts])
    return (
        np.array([_find_peak(surface[..., block]) for block in range(BLOCK_COUNT)]) * SHIFT_STEP_PIXELS
        - MAX_SHIFT_PIXELS
    )


def _find_peak(surface: NDArray[np.float64]) -> tuple[float, float]:
    """Find row and column of the maximum, refined by a parabola through its neighbours."""
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    return row + _compute_vertex_offset(surface[:, column], int(row)), column + _compute_vertex_offset(
        surface[row], int(column)
    )


def _compute_vertex_offset(values: NDArray[np.float64], peak_index: int) -> float:
    if not 0 < peak_index < len(values) - 1:
        return 0.0
    before, at, after = values[peak_index - 1 : peak_index + 2]
    bend = before - 2.0 * at + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0


def _find_through_plane_shifts(pair: _ImagePair, in_plane_shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the shift in slices (-1 to 1) with the highest similarity in each block, ``(8,)``; 0 for too few slices.

    along: shift in rows and columns with the best alignment in the plane, applied first.
    """
    samples = _sample_shiftable_voxels(pair, (1, MAX_SHIFT_PIXELS, MAX_SHIFT_PIXELS))
    if samples is None:
        return np.zeros(BLOCK_COUNT)
    _, rows, width = pair.fixed.shape
    first = int(in_plane_shift[0]) * width + int(in_plane_shift[1])
    moving = pair.moving.ravel()
    below, at, above = (
        samples.compute_similarity(moving, step * rows * width + first) for step in (-1, 0, 1)
    )
    # between thick slices the peak is triangular, not parabolic: the steeper side gives the slope
    slope = np.maximum(at - np.minimum(below, above), 1e-9)
    return np.clip(0.5 * (above - below) / slope, -1.0, 1.0)


def _compute_mirror_gain(pair: _ImagePair) -> float | None:
    """Compute the gain in similarity by mirroring the sequence: above 0 it is probably flipped left to right.

    Sequences are compared with each other; if all of them are flipped, this cannot be detected.
    """
    own, flipped = [], []
    mirror = pair.moving[:, :, ::-1]
    for shift in range(-MAX_MIRROR_SHIFT_PIXELS, MAX_MIRROR_SHIFT_PIXELS + 1):
        own.append(_compute_shifted_similarity(pair.fixed, pair.moving, shift))
        flipped.append(_compute_shifted_similarity(pair.fixed, mirror, shift))
    return max(flipped) - max(own)


def _compute_shifted_similarity(fixed: NDArray[np.uint8], moving: NDArray[np.uint8], shift: int) -> float:
    """Compute the similarity with the moving sequence shifted by ``shift`` columns."""
    width = fixed.shape[2]
    left, right = max(0, -shift), width - max(0, shift)
    return _compute_similarity(fixed[:, ::3, left:right], moving[:, ::3, left + shift : right + shift])


def _compute_similarity(fixed: NDArray[np.uint8], moving: NDArray[np.uint8]) -> float:
    """Compute the normalised mutual information over voxels inside the brain in both images."""
    inside = (fixed < HISTOGRAM_BINS) & (moving < HISTOGRAM_BINS)
    cell = fixed[inside].astype(np.int64) * HISTOGRAM_BINS + moving[inside]
    return float(
        _compute_normalised_mutual_information(
            np.bincount(cell, minlength=HISTOGRAM_BINS * HISTOGRAM_BINS)
            .reshape(1, HISTOGRAM_BINS, HISTOGRAM_BINS)
            .astype(float)
        )[0]
    )


def _compute_normalised_mutual_information(joint_histograms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the normalised mutual information of each joint histogram: 0 for unrelated images, 1 for equivalent."""
    share = joint_histograms / np.maximum(joint_histograms.sum(axis=(1, 2), keepdims=True), 1.0)
    one, other = _compute_entropy(share.sum(axis=2)), _compute_entropy(share.sum(axis=1))
    both = _compute_entropy(share.reshape(len(share), -1))
    return 2.0 * (one + other - both) / np.maximum(one + other, 1e-12)


def _compute_entropy(share: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    return values

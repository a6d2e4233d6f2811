"""Statistics of a prepared patient that tell whether a model has been trained on images like these.

All of them are independent of the grey scale, and are computed on the slices that every cohort has (the K selected
ones), within the brain. They need no lesion mask, which would be wrong where the images are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.preprocessing.alignment import measure_displacement
from gliomark.study import MRSequence, SliceStack

FloatImage = NDArray[np.float32]
Statistics = dict[str, float]

QUANTILES = (2, 10, 25, 90, 98)  # per cent, of the grey values
DEPTHS_MM = (0, 3, 7, 12, 20, 30)  # lower ends of shells below the brain's surface
# limits of classes of tissue, by the rank of their grey value
RANK_EDGES = (0.0, 0.05, 0.15, 0.35, 0.65, 0.85, 0.95, 1.0)
TISSUE_SIGMA = 1.5  # pixels; smooths noise away, so that grey values are those of tissues
DETAIL_SIGMA, COARSE_SIGMA = 1.0, 2.0  # pixels; what is finer is detail: vessels, edges and noise
FLUID_SHARE = 5  # per cent of the brain, the darkest
INTERIOR_MM = 4.0  # nearer to the brain's surface detail depends on the brain mask
VOXEL_STEP = 3  # every third voxel is enough to rank tissues
MAX_SLICES = 10  # evenly from those with enough brain
MIN_AREA_SHARE = 0.5  # slices with less brain than this share of the largest slice are left out
NORMAL_IQR = 1.349  # interquartile range of a normal distribution in standard deviations
_TINY = 1e-6


@dataclass(frozen=True)
class PatientStatistics:
    """Statistics of one patient, from the functions of these names.

    images, geometry, lesion: numbers by name; lesion is None without a lesion. similarity: of the two sequences.
    """

    images: Statistics
    geometry: Statistics
    lesion: Statistics | None
    similarity: float


def measure_patient(
    stack: SliceStack, mask: NDArray[np.bool_], sequences: Sequence[MRSequence]
) -> PatientStatistics:
    """Measure a prepared patient.

    Parameters
    ----------
    stack
        The images ``(slice, row, column)``.
    mask
        The lesion, same shape; may be empty.
    sequences
        Two sequences of the stack, the reference last.
    """
    return PatientStatistics(
        images=measure_images(stack, sequences),
        geometry=measure_geometry(stack, sequences),
        lesion=measure_lesion(stack, mask, sequences) if mask.any() else None,
        similarity=measure_similarity(stack, sequences),
    )


@dataclass(frozen=True, eq=False)
class _BrainSlices:
    """The selected slices, cropped to the brain.

    tissue, detail, coarse_detail: smoothed grey values, and what smoothing by DETAIL_SIGMA and COARSE_SIGMA removes, by
    sequence, in robust standard deviations of the brain's tissue; brain, interior: masks; depth_mm: below the brain's
    surface in the slice.
    """

    tissue: Mapping[MRSequence, FloatImage]
    detail: Mapping[MRSequence, FloatImage]
    coarse_detail: Mapping[MRSequence, FloatImage]
    brain: NDArray[np.bool_]
    interior: NDArray[np.bool_]
    depth_mm: FloatImage


def measure_images(stack: SliceStack, sequences: Sequence[MRSequence]) -> Statistics:
    """Measure grey values, detail and the relation of the sequences.

    Parameters
    ----------
    stack
        A prepared patient; images ``(slice, row, column)``.
    sequences
        Two of its sequences, the reference last.

    Returns
    -------
    dict
        Numbers by name: ``<sequence>/<part>/...`` of one sequence, ``<one>+<other>/relation/...`` of both.
    """
    slices = _select_brain_slices(stack, sequences)
    statistics: Statistics = {}
    one, other = sequences
    for name, second in ((one, other), (other, one)):
        for part, measure in _PART_MEASURES.items():
            values = measure(slices, name, second)
            statistics |= {f"{name}/{part}/{key}": value for key, value in values.items()}
    relation = _measure_relation(slices, one, other)
    return statistics | {f"{one}+{other}/relation/{key}": value for key, value in relation.items()}


def list_parts(sequences: Sequence[str]) -> tuple[str, ...]:
    """List the parts of ``measure_images``, such as "T1C/grey", in their order."""
    own = [f"{name}/{part}" for name in sequences for part in _PART_MEASURES]
    return (*own, f"{sequences[0]}+{sequences[1]}/relation")


def measure_similarity(stack: SliceStack, sequences: Sequence[MRSequence]) -> float:
    """Measure the absolute correlation of two sequences in the brain: 1 for the same image, inverted or not."""
    first, second = (stack.images[name][stack.brain] for name in sequences)
    return float(abs(np.corrcoef(first, second)[0, 1]))


def measure_geometry(stack: SliceStack, sequences: Sequence[MRSequence]) -> Statistics:
    """Measure the brain's volume in ml, the slice spacing in mm and the displacement of the sequences in mm."""
    return {
        "brain_ml": float(stack.brain.sum()) * stack.voxel_volume_ml,
        "slice_mm": stack.spacing_mm[0],
        "displacement_mm": measure_displacement(stack, sequences[0], sequences[-1]),
    }


def measure_lesion(stack: SliceStack, mask: NDArray[np.bool_], sequences: Sequence[MRSequence]) -> Statistics:
    """Measure a lesion: volume, number of parts, place and grey values.

    Parameters
    ----------
    stack
        A prepared patient.
    mask
        The lesion ``(slice, row, column)``; not empty.
    sequences
        Its sequences, in whose robust standard deviations grey values are given.

    Returns
    -------
    dict
        ``volume_ml``; ``parts``: number of separate parts of at least 0.2 ml, at least 1; ``main_share``: share of the
        largest; ``surface_share``: share within 4 mm of the brain's surface in the slice; ``<sequence>_median`` and
        ``<sequence>_high`` (95th percentile).
    """
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    volumes_ml = np.bincount(labels.ravel(), minlength=count + 1)[1:] * stack.voxel_volume_ml
    shown = np.flatnonzero(mask.any(axis=(1, 2)))
    depth = _compute_depth_mm(stack.brain[shown], stack.spacing_mm[1])
    statistics = {
        "volume_ml": float(volumes_ml.sum()),
        "parts": max(1.0, float((volumes_ml >= 0.2).sum())),
        "main_share": float(volumes_ml.max() / volumes_ml.sum()),
        "surface_share": float((depth[mask[shown]] <= INTERIOR_MM).mean()),
    }
    for name in sequences:
        centre, spread = _compute_centre_and_spread(stack.images[name][stack.brain])
        values = (stack.images[name][mask] - centre) / spread
        statistics |= {
            f"{name}_median": float(np.median(values)),
            f"{name}_high": float(np.percentile(values, 95)),
        }
    return statistics


def _select_brain_slices(stack: SliceStack, sequences: Sequence[MRSequence]) -> _BrainSlices:
    index = np.array(stack.selected)
    areas = stack.brain[index].sum(axis=(1, 2))
    index = index[areas >= MIN_AREA_SHARE * areas.max()]
    if len(index) > MAX_SLICES:
        index = index[np.linspace(0, len(index) - 1, MAX_SLICES).round().astype(int)]
    shown = stack.brain[index]
    rows, columns = np.flatnonzero(shown.any(axis=(0, 2))), np.flatnonzero(shown.any(axis=(0, 1)))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    brain = shown[:, *box]
    # only the brain contributes to a smoothed pixel
    sigmas = (TISSUE_SIGMA, DETAIL_SIGMA, COARSE_SIGMA)
    weights = {sigma: np.maximum(_smooth(brain, sigma), 1e-3) for sigma in sigmas}
    tissue: dict[MRSequence, FloatImage] = {}
    detail: dict[MRSequence, FloatImage] = {}
    coarse_detail: dict[MRSequence, FloatImage] = {}
    for name in sequences:
        image = stack.images[name][index][:, *box]
        smooth, fine, coarse = (
            _smooth(np.where(brain, image, 0), sigma) / weight for sigma, weight in weights.items()
        )
        centre, spread = _compute_centre_and_spread(smooth[brain])
        tissue[name] = np.asarray((smooth - centre) / spread, np.float32)
        detail[name] = np.asarray((image - fine) / spread, np.float32)
        coarse_detail[name] = np.asarray((image - coarse) / spread, np.float32)
    depth_mm = _compute_depth_mm(brain, stack.spacing_mm[1])
    return _BrainSlices(tissue, detail, coarse_detail, brain, depth_mm > INTERIOR_MM, depth_mm)


def _smooth(image: NDArray[np.generic], sigma: float) -> FloatImage:
    """Smooth every slice. sigma: pixels."""
    smooth: FloatImage = ndimage.gaussian_filter(image.astype(np.float32), (0, sigma, sigma), truncate=3.0)
    return smooth


def compute_robust_scale(values: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the median of every column, and the standard deviation that belongs to its interquartile range.

    values: ``(n,)`` or ``(n, column)``.
    """
    low, centre, high = np.percentile(values, [25, 50, 75], axis=0)
    return centre, np.asarray(high - low, np.float64) / NORMAL_IQR


def _compute_centre_and_spread(values: NDArray[np.float32]) -> tuple[float, float]:
    """Compute the robust scale of grey values ``(n,)``; the spread is above 0."""
    centre, spread = compute_robust_scale(values)
    return float(centre), max(float(spread), _TINY)


def _compute_depth_mm(brain: NDArray[np.bool_], pixel_mm: float) -> FloatImage:
    """Compute the distance from the brain's surface in every slice, mm; on every second pixel, for speed."""
    padded = np.pad(brain, ((0, 0), (2, 2), (2, 2)))[:, ::2, ::2]
    depth = np.stack([ndimage.distance_transform_edt(one) for one in padded]).astype(np.float32)
    depth = depth.repeat(2, axis=1).repeat(2, axis=2)[:, 2:, 2:][:, : brain.shape[1], : brain.shape[2]]
    values: FloatImage = np.where(brain, np.maximum(2 * pixel_mm * depth, pixel_mm), 0)
    return values


def _measure_grey_values(slices: _BrainSlices, name: MRSequence, _: MRSequence) -> Statistics:
    """Measure quantiles, and the median at every depth below the surface."""
    image = slices.tissue[name]
    quantiles = np.percentile(image[slices.brain], QUANTILES)
    statistics = {f"quantile {q}": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)}
    for low, high in zip(DEPTHS_MM, (*DEPTHS_MM[1:], np.inf), strict=True):
        shell = (slices.depth_mm > low) & (slices.depth_mm <= high)
        statistics[f"depth {low}"] = float(np.median(image[shell])) if shell.any() else 0.0
    return statistics


def _measure_detail(slices: _BrainSlices, name: MRSequence, _: MRSequence) -> Statistics:
    """Measure amount, extremes and grain of detail, and the sharpness of edges between tissues."""
    detail, interior = slices.detail[name], slices.interior
    inside = detail[interior]
    low, high = np.percentile(inside, [2, 98])
    amount = float(np.median(np.abs(inside))) + _TINY
    row_step, column_step = np.gradient(slices.tissue[name], axis=(1, 2))
    edges = np.hypot(row_step, column_step)[interior]
    statistics = {
        "detail": float(np.log(amount)),
        "tails": float(np.log(max(high - low, _TINY) / amount)),
        "edges": float(np.log(edges.mean() + _TINY)),
        "sharp edges": float(np.log((np.percentile(edges, 98) + _TINY) / (np.median(edges) + _TINY))),
    }
    for lag in (1, 2, 3):
        statistics[f"grain {lag}"] = 0.5 * (
            _correlate(detail, detail, interior, lag, axis=1)
            + _correlate(detail, detail, interior, lag, axis=2)
        )
    return statistics


def _measure_bright_details(slices: _BrainSlices, name: MRSequence, other: MRSequence) -> Statistics:
    """Measure how bright the finest bright structures are: after contrast agent, vessels.

    In the rim of the brain and inside it, detail of two sizes; ratios to the dark structures and to the median. In
    fluid, which is dark on the other sequence: the brightest pixels, in robust standard deviations of the brain.
    """
    rim = slices.brain & ~slices.interior
    statistics = {}
    for size, detail in (("fine", slices.detail[name]), ("coarse", slices.coarse_detail[name])):
        for region, mask in (("rim", rim), ("inside", slices.interior)):
            values = detail[mask]
            low, high = np.percentile(values, [0.5, 99.5])
            amount = float(np.median(np.abs(values))) + _TINY
            statistics[f"{size} {region} to dark"] = float(np.log(max(high, _TINY) / max(-low, _TINY)))
            statistics[f"{size} {region}"] = float(np.log(max(high, _TINY) / amount))
    dark = slices.tissue[other] <= np.percentile(slices.tissue[other][slices.brain], FLUID_SHARE)
    within = slices.tissue[name][dark & slices.brain] + slices.detail[name][dark & slices.brain]
    statistics["fluid"] = float(np.percentile(within, 98))
    return statistics


def _measure_relation(slices: _BrainSlices, one: MRSequence, other: MRSequence) -> Statistics:
    """Measure the grey values of each sequence in the tissues that the other tells apart, and shared detail."""
    first, second = (slices.tissue[name][slices.interior][::VOXEL_STEP] for name in (one, other))
    statistics = {"shared detail": _correlate(slices.detail[one], slices.detail[other], slices.interior)}
    for shown, ranked, values, key in ((other, one, second, first), (one, other, first, second)):
        order = np.argsort(key)
        ends = np.round(np.array(RANK_EDGES) * len(order)).astype(int)
        for start, end, edge in zip(ends, ends[1:], RANK_EDGES, strict=False):
            statistics[f"{shown} where {ranked} {edge:g}"] = float(np.median(values[order[start:end]]))
    return statistics


_PART_MEASURES = {
    "grey": _measure_grey_values,
    "detail": _measure_detail,
    "vessels": _measure_bright_details,
}


def _correlate(
    first: FloatImage, second: FloatImage, mask: NDArray[np.bool_], lag: int = 0, axis: int = 1
) -> float:
    """Compute the correlation of two images within a mask, the second one displaced by ``lag`` pixels."""
    count = mask.shape[axis]
    near, far = (
        tuple(part if a == axis else slice(None) for a in range(mask.ndim))
        for part in (slice(0, count - lag), slice(lag, count))
    )
    both = mask[near] & mask[far]
    x, y = first[near][both], second[far][both]
    if len(x) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / max(float(np.sqrt((x @ x) * (y @ y))), _TINY))

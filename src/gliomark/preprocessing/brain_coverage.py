"""Measure how much of the brain each sequence covers, and which part is missing.

The brain mask comes from the sequence used for skull stripping. If that sequence ends within the brain and another one
extends further, the brain is extracted from the other one too, so that the missing share can be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.errors import GliomarkError
from gliomark.geometry import (
    apply_affine,
    compute_image_affine,
    compute_mask_points,
    compute_transform_matrix,
    invert_affine,
    is_inside_field_of_view,
)
from gliomark.messages import Message, message
from gliomark.study import MRSequence

# from this share on the brain counts as complete: the lowest slices differ between sequences
MIN_COMPLETE_SHARE = 0.95
_PROBE_DISTANCE_MM = 10.0
_MAX_POINTS = 50_000
# Mask area 12 mm from the end, as a share of the largest area. At the top, a complete brain narrows to less than half;
# at the bottom, images often end within the cerebellum. (A mask also narrows where the images end, but faster.)
_END_DISTANCE_MM, _MAX_TOP_AREA_SHARE, _MAX_BOTTOM_AREA_SHARE = 12.0, 0.75, 0.8

Points = NDArray[np.float64]
Images = Mapping[MRSequence, sitk.Image]
Matrices = Mapping[MRSequence, NDArray[np.float64]]


@dataclass(frozen=True)
class BrainCoverage:
    """How much of the brain the sequences cover.

    Attributes
    ----------
    shares
        Share of the brain by sequence, 0 to 1.
    examined_share
        Share that all sequences cover, 0 to 1; None if unknown.
    warnings
        Which sequence lacks which part; empty if the whole brain was examined.
    """

    shares: Mapping[MRSequence, float]
    examined_share: float | None
    warnings: tuple[Message, ...] = ()


def measure_brain_coverage(
    images: Images,
    brain: sitk.Image,
    brain_sequence: MRSequence,
    transforms: Mapping[MRSequence, sitk.Transform],
    find_brain: Callable[[sitk.Image], sitk.Image],
) -> BrainCoverage:
    """Measure how much of the brain the axial images cover.

    Parameters
    ----------
    images
        Axial images by sequence.
    brain
        Brain mask, 0 or 1, on the grid of ``brain_sequence``.
    brain_sequence
        The sequence from which the brain mask was extracted.
    transforms
        From points of the reference to points of each sequence, LPS mm.
    find_brain
        Extracts a brain mask from an image.
    """
    to_sequence = {name: compute_transform_matrix(transforms[name]) for name in images}
    longest_sequence = _find_longest_sequence(images, brain, brain_sequence, to_sequence)
    whole_brain, whole_brain_sequence = brain, brain_sequence
    if longest_sequence is not None:
        with suppress(
            GliomarkError
        ):  # extraction works best on T1; if it fails here, fall back to the first mask
            whole_brain, whole_brain_sequence = find_brain(images[longest_sequence]), longest_sequence
    points = apply_affine(invert_affine(to_sequence[whole_brain_sequence]), _sample_brain_points(whole_brain))
    shown = {
        name: _find_points_inside(images[name], apply_affine(to_sequence[name], points)) for name in images
    }
    shares = {name: float(inside.mean()) for name, inside in shown.items()}
    examined_share = float(np.logical_and.reduce(list(shown.values())).mean())
    warnings = [
        message(
            "brain-partly-shown",
            sequence=str(name),
            percent=100 * shares[name],
            part=_describe_missing_part(points, shown[name]),
        )
        for name in images
        if shares[name] < MIN_COMPLETE_SHARE
    ]
    if cut_ends := [end for end, is_cut in _find_cut_ends(whole_brain).items() if is_cut]:
        part = message(f"brain-{cut_ends[0]}" if len(cut_ends) == 1 else "brain-top-and-bottom")
        return BrainCoverage(shares, None, (*warnings, message("brain-cut", part=part)))
    return BrainCoverage(shares, examined_share, tuple(warnings))


def format_no_lesion_message(examined_share: float | None) -> Message:
    """Format the message for no lesion; it states if only a part of the brain was examined.

    examined_share: 0 to 1, None if unknown.
    """
    if examined_share is None:
        return message("no-lesion-in-part-shown")
    return (
        message("no-lesion-in-part", percent=100 * examined_share)
        if examined_share < MIN_COMPLETE_SHARE
        else message("no-lesion")
    )


def _find_cut_ends(brain: sitk.Image) -> dict[str, bool]:
    """Find the ends at which the brain is cut: it reaches the last slice and is still wide shortly before."""
    areas = sitk.GetArrayViewFromImage(brain).sum(axis=(1, 2)) / 1.0
    areas /= max(1.0, areas.max())
    inside = min(max(1, round(_END_DISTANCE_MM / brain.GetSpacing()[2])), len(areas) - 1)
    return {
        "top": bool(areas[-1] > 0.05 and areas[-1 - inside] > _MAX_TOP_AREA_SHARE),
        "bottom": bool(areas[0] > 0.05 and areas[inside] > _MAX_BOTTOM_AREA_SHARE),
    }


def _find_longest_sequence(
    images: Images, brain: sitk.Image, brain_sequence: MRSequence, to_sequence: Matrices
) -> MRSequence | None:
    """Find the sequence whose field of view extends furthest beyond a cut end of the brain; None if none does."""
    share_beyond: dict[MRSequence, float] = {}
    for end, towards in (("bottom", -1.0), ("top", 1.0)):
        points = _extract_end_points(brain, end)
        if not points.shape[1]:
            continue
        up = compute_image_affine(brain)[:3, 2:3] / np.linalg.norm(compute_image_affine(brain)[:3, 2])
        outside = apply_affine(
            invert_affine(to_sequence[brain_sequence]), points + towards * _PROBE_DISTANCE_MM * up
        )
        for name in images:
            if name != brain_sequence:
                share = float(
                    _find_points_inside(images[name], apply_affine(to_sequence[name], outside)).mean()
                )
                share_beyond[name] = share_beyond.get(name, 0.0) + share
    best = max(share_beyond, key=lambda name: share_beyond[name], default=None)
    return best if best is not None and share_beyond[best] > 0.5 else None


def _sample_brain_points(brain: sitk.Image) -> Points:
    """Sample evenly spaced brain voxels, LPS mm ``(3, n)``."""
    points = compute_mask_points(sitk.GetArrayViewFromImage(brain), compute_image_affine(brain))
    return points[:, :: max(1, points.shape[1] // _MAX_POINTS)]


def _extract_end_points(brain: sitk.Image, end: str) -> Points:
    """Return the brain voxels of the lowest or highest slice, LPS mm ``(3, n)``; empty if there are only a few."""
    index = brain.GetSize()[2] - 1 if end == "top" else 0
    mask = sitk.GetArrayViewFromImage(brain)
    if mask[index].sum() < 0.2 * mask.sum(axis=(1, 2)).max():
        return np.empty((3, 0))
    end_slice = np.zeros_like(mask)
    end_slice[index] = mask[index]
    return compute_mask_points(end_slice, compute_image_affine(brain))


def _find_points_inside(image: sitk.Image, points: Points) -> NDArray[np.bool_]:
    return is_inside_field_of_view(compute_image_affine(image), image.GetSize()[::-1], points)


def _describe_missing_part(points: Points, is_shown: NDArray[np.bool_]) -> Message:
    """Describe the position of the part that is not covered, relative to the covered part."""
    if not is_shown.any():
        return message("brain-all")
    centre = points[:, is_shown].mean(axis=1, keepdims=True)
    offsets = (points[:, ~is_shown] - centre) / points.std(axis=1, keepdims=True)
    axis = int(np.argmax(np.abs(offsets).mean(axis=1)))
    low, high = (("right", "left"), ("front", "back"), ("bottom", "top"))[axis]
    towards_high = float((offsets[axis] > 0).mean())
    if 0.1 < towards_high < 0.9:
        return message(f"brain-{high}-and-{low}")
    return message(f"brain-{high if towards_high >= 0.9 else low}")

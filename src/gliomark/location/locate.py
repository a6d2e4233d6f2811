"""Locate a lesion: register the patient to the atlas, and look up the lesion's voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gliomark.geometry import apply_affine, compute_mask_points, invert_affine
from gliomark.lesion_location import AreaDistance, LesionLocation, RegionShare, Side
from gliomark.location.atlas import AREAS, LEFT_AREAS, REGIONS, Atlas, load_atlas
from gliomark.location.template_registration import TemplateRegistration, register_to_template
from gliomark.messages import Message, message
from gliomark.study import SliceStack, Study

# Below, no location is given; measured values are in docs/explanation/location.md.
MIN_BRAIN_OVERLAP = 0.85
MAX_SCALE_RATIO = 2.2  # between the largest and the smallest of the three scale factors
MIN_EXAMINED_SHARE = 0.7  # of the brain that the images must show
LAYER_MM = 2.0  # thick slices are divided into layers of at most this height
OVERLAP_MM = 1.0  # nearer than a voxel of the atlas: the lesion and the area overlap
SIDES: tuple[Side, Side] = ("left", "right")
UNSIDED_REGIONS, UNSIDED_AREAS = ("corpus-callosum",), ("brain-stem",)


def locate_lesion(study: Study, stack: SliceStack, lesion: NDArray[np.bool_]) -> LesionLocation:
    """Find side, regions, and distances to eloquent areas of a lesion.

    What the images do not state is not given: neither the patient's side nor areas that exist on one side only if the
    orientation is assumed (pictures and some volumes), and no distance if the spacing is.

    Parameters
    ----------
    study
        The patient as read, which tells what is assumed.
    stack
        The prepared patient.
    lesion
        Boolean ``(slice, row, column)`` on the stack's grid, not empty.

    Returns
    -------
    LesionLocation
        With a refusal if the images do not show enough of the brain, or do not match the template.

    Raises
    ------
    ConfigurationError
        If the atlas is not installed; the message says how to install it.
    """
    atlas = load_atlas()
    is_side_stated = study.is_orientation_stated
    if stack.examined is None or stack.examined < MIN_EXAMINED_SHARE:
        return LesionLocation(message("location-brain-cut"), is_side_stated=is_side_stated)
    try:
        registration = register_to_template(stack, lesion)
    except RuntimeError:  # ITK's own message is too long to show
        return LesionLocation(message("location-not-registered"), is_side_stated=is_side_stated)
    if (refusal := _find_refusal(registration)) is not None:
        overlap = registration.brain_overlap
        return LesionLocation(refusal, is_side_stated=is_side_stated, brain_overlap=overlap)
    points = compute_lesion_points(stack, lesion)
    mni_points = apply_affine(registration.to_mni, points)
    distances = (
        () if study.spacing_assumed else _measure_distances(atlas, registration, points, is_side_stated)
    )
    return LesionLocation(
        left_share=float((mni_points[0] < 0).mean()),
        is_side_stated=is_side_stated,
        regions=measure_region_shares(atlas, mni_points, is_side_stated),
        distances=tuple(distances),
        brain_overlap=registration.brain_overlap,
    )


def compute_lesion_points(stack: SliceStack, lesion: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Compute points that fill a lesion evenly: LPS mm ``(3, n)``, thick slices in several layers."""
    count = math.ceil(stack.spacing_mm[0] / LAYER_MM - 1e-6)
    step = stack.affine[:3, 2:3]
    centres = compute_mask_points(lesion, stack.affine)
    return np.concatenate([centres + step * ((i + 0.5) / count - 0.5) for i in range(count)], axis=1)


def _find_refusal(registration: TemplateRegistration) -> Message | None:
    """Return why a registration cannot be trusted; None if it can."""
    scales = np.linalg.svd(registration.to_mni[:3, :3], compute_uv=False)
    if registration.brain_overlap < MIN_BRAIN_OVERLAP or scales[0] > MAX_SCALE_RATIO * scales[-1]:
        return message("location-not-registered")
    if registration.turned_similarity >= registration.similarity:
        return message("location-turned")
    return None


def measure_region_shares(
    atlas: Atlas, mni_points: NDArray[np.float64], has_sides: bool = True
) -> tuple[RegionShare, ...]:
    """Measure the shares of points ``(3, n)``, RAS mm of MNI152, in the regions, the largest first."""
    regions, is_left = atlas.find_regions(mni_points), mni_points[0] < 0
    shares: dict[tuple[str, Side | None], float] = {}
    for index, left in zip(*np.unique(np.stack([regions, is_left]), axis=1), strict=True):
        name = REGIONS[index]
        side = None if not has_sides or name in UNSIDED_REGIONS else SIDES[0 if left else 1]
        share = float(((regions == index) & (is_left == left)).mean())
        shares[name, side] = shares.get((name, side), 0.0) + share
    found = [RegionShare(name, side, share) for (name, side), share in shares.items()]
    return tuple(sorted(found, key=lambda one: -one.share))


def _measure_distances(
    atlas: Atlas, registration: TemplateRegistration, points: NDArray[np.float64], is_side_stated: bool
) -> Iterator[AreaDistance]:
    """Yield the distance of each area in the patient's millimetres; points: of the lesion, LPS ``(3, n)``."""
    tree, from_mni = cKDTree(points.T), invert_affine(registration.to_mni)
    for area in AREAS:
        if area in LEFT_AREAS and not is_side_stated:
            continue
        sides = SIDES[:1] if area in LEFT_AREAS or area in UNSIDED_AREAS else SIDES
        by_side = {
            side: float(tree.query(apply_affine(from_mni, atlas.find_area(area, side)).T)[0].min())
            for side in sides
        }
        side = min(by_side, key=lambda one: by_side[one])
        distance_mm = by_side[side] if by_side[side] >= OVERLAP_MM else 0.0
        is_sided = is_side_stated and area not in UNSIDED_AREAS
        yield AreaDistance(area, side if is_sided else None, distance_mm)

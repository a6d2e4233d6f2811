"""How much of the brain each sequence shows, and which part is missing.

The brain is taken from the sequence that the skull is stripped on. Where that one ends within the brain and another
sequence goes on, the brain is looked for in the other one as well, so that what is missing can be said in per cent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.geometry import affine_of, are_inside, inverse, matrix_of, move, points_of
from gliomark.messages import Message, message
from gliomark.study import GliomarkError, MRSequence

WHOLE = 0.95  # from this share on, a brain counts as shown: the lowest slices differ between sequences anyway
_BEYOND_MM = 10.0
_MOST_POINTS = 50_000
# Area 12 mm inside the last slice, as a share of the largest: a whole brain narrows to less than half within that
# at the top; at the bottom images often end within the cerebellum. (A mask narrows too where the images end, only
# faster.)
_INSIDE_MM, _CUT_ABOVE, _CUT_BELOW = 12.0, 0.75, 0.8

Points = NDArray[np.float64]
Images = Mapping[MRSequence, sitk.Image]
Matrices = Mapping[MRSequence, NDArray[np.float64]]


@dataclass(frozen=True)
class Coverage:
    """shares: by sequence, of the brain, 0 to 1; examined: of what all of them show, None where not known.

    warnings: which sequence lacks which part. Without one the whole brain was examined.
    """

    shares: Mapping[MRSequence, float]
    examined: float | None
    warnings: tuple[Message, ...] = ()


def measure_coverage(
    images: Images,
    brain: sitk.Image,
    found_in: MRSequence,
    transforms: Mapping[MRSequence, sitk.Transform],
    find_brain: Callable[[sitk.Image], sitk.Image],
) -> Coverage:
    """How much of the brain the axial ``images`` show.

    brain: 0/1 on the grid of ``found_in``; transforms: from points of the reference to points of each sequence.
    """
    to_own = {name: matrix_of(transforms[name]) for name in images}
    longer = _longest(images, brain, found_in, to_own)
    whole, of = brain, found_in
    if longer is not None:
        with suppress(GliomarkError):  # the method was made for T1; what is known from there is said
            whole, of = find_brain(images[longer]), longer
    points = move(inverse(to_own[of]), _some_points(whole))
    shown = {name: _inside(images[name], move(to_own[name], points)) for name in images}
    shares = {name: float(inside.mean()) for name, inside in shown.items()}
    examined = float(np.logical_and.reduce(list(shown.values())).mean())
    warnings = [
        message("brain-partly-shown", sequence=str(name), percent=100 * shares[name],
                part=_missing_part(points, shown[name]))
        for name in images if shares[name] < WHOLE
    ]  # fmt: skip
    if unseen := [end for end, is_cut in _cut_ends(whole).items() if is_cut]:
        part = message(f"brain-{unseen[0]}" if len(unseen) == 1 else "brain-top-and-bottom")
        return Coverage(shares, None, (*warnings, message("brain-cut", part=part)))
    return Coverage(shares, examined, tuple(warnings))


def no_lesion_message(examined: float | None) -> Message:
    """The sentence for no lesion, which must not be read as "there is none" where the brain was not all examined."""
    if examined is None:
        return message("no-lesion-in-part-shown")
    return message("no-lesion-in-part", percent=100 * examined) if examined < WHOLE else message("no-lesion")


def _cut_ends(brain: sitk.Image) -> dict[str, bool]:
    """Whether the brain reaches the lowest and the highest slice, and is still wide shortly before."""
    areas = sitk.GetArrayViewFromImage(brain).sum(axis=(1, 2)) / 1.0
    areas /= max(1.0, areas.max())
    inside = min(max(1, round(_INSIDE_MM / brain.GetSpacing()[2])), len(areas) - 1)
    return {
        "top": bool(areas[-1] > 0.05 and areas[-1 - inside] > _CUT_ABOVE),
        "bottom": bool(areas[0] > 0.05 and areas[inside] > _CUT_BELOW),
    }


def _longest(images: Images, brain: sitk.Image, found_in: MRSequence, to_own: Matrices) -> MRSequence | None:
    """The sequence whose field goes on farthest beyond an end that the brain reaches; None where none does."""
    beyond: dict[MRSequence, float] = {}
    for end, towards in (("bottom", -1.0), ("top", 1.0)):
        points = _end_points(brain, end)
        if not points.shape[1]:
            continue
        up = affine_of(brain)[:3, 2:3] / np.linalg.norm(affine_of(brain)[:3, 2])
        outside = move(inverse(to_own[found_in]), points + towards * _BEYOND_MM * up)
        for name in images:
            if name != found_in:
                share = float(_inside(images[name], move(to_own[name], outside)).mean())
                beyond[name] = beyond.get(name, 0.0) + share
    best = max(beyond, key=lambda name: beyond[name], default=None)
    return best if best is not None and beyond[best] > 0.5 else None


def _some_points(brain: sitk.Image) -> Points:
    """Places of evenly picked brain voxels."""
    points = points_of(sitk.GetArrayViewFromImage(brain), affine_of(brain))
    return points[:, :: max(1, points.shape[1] // _MOST_POINTS)]


def _end_points(brain: sitk.Image, end: str) -> Points:
    """LPS mm ``(3, n)`` of the brain's voxels in the lowest or highest slice, if those are not just a few."""
    at = brain.GetSize()[2] - 1 if end == "top" else 0
    mask = sitk.GetArrayViewFromImage(brain)
    if mask[at].sum() < 0.2 * mask.sum(axis=(1, 2)).max():
        return np.empty((3, 0))
    end_slice = np.zeros_like(mask)
    end_slice[at] = mask[at]
    return points_of(end_slice, affine_of(brain))


def _inside(image: sitk.Image, points: Points) -> NDArray[np.bool_]:
    return are_inside(affine_of(image), image.GetSize()[::-1], points)


def _missing_part(points: Points, shown: NDArray[np.bool_]) -> Message:
    """Where the part that is not shown lies, seen from the part that is."""
    if not shown.any():
        return message("brain-all")
    centre = points[:, shown].mean(axis=1, keepdims=True)
    away = (points[:, ~shown] - centre) / points.std(axis=1, keepdims=True)
    axis = int(np.argmax(np.abs(away).mean(axis=1)))
    low, high = (("right", "left"), ("front", "back"), ("bottom", "top"))[axis]
    towards_high = float((away[axis] > 0).mean())
    if 0.1 < towards_high < 0.9:
        return message(f"brain-{high}-and-{low}")
    return message(f"brain-{high if towards_high >= 0.9 else low}")

"""Check that a mask is at the position of its patient's images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gliomark.errors import InputError
from gliomark.geometry import (
    compute_mask_points,
    compute_max_displacement,
    is_inside_field_of_view,
    is_on_lattice,
)
from gliomark.messages import message
from gliomark.study import MRSequence, Series

# If a mask has the shape of a series but is this far from it, the mask's geometry is taken as lost: different
# sequences of one examination with equal shapes are closer to each other.
MAX_MASK_OFFSET_MM = 30.0


def check_mask_position(mask: Series, file: Path, series: Mapping[MRSequence, Series]) -> None:
    """Check that a mask lies within the series; an empty mask passes.

    Parameters
    ----------
    mask
        0 or 1, ``(slice, row, column)``.
    file
        The mask's file, for messages.
    series
        The patient's series.

    Raises
    ------
    InputError
        If only the mask or only the images state an orientation, if no voxel of the lesion is inside a series, or if
        the mask has the shape of a series but is more than ``MAX_MASK_OFFSET_MM`` away from it.
    """
    if not series or not mask.image.any():
        return
    comparable = {name: one for name, one in series.items() if one.is_oriented == mask.is_oriented}
    if not comparable:
        other_source = next(iter(series.values())).source
        oriented_file, unoriented_file = (file, other_source) if mask.is_oriented else (other_source, file)
        raise InputError(
            message("mask-oriented-and-not", mask=file, file=unoriented_file.name, other=oriented_file.name)
        )
    series = comparable
    if compute_share_inside(mask, series) == 0.0:
        raise InputError(message("mask-outside", file=file, sequences=", ".join(series)))
    if any(is_on_lattice(mask.affine, mask.image.shape, one.affine) for one in series.values()):
        return
    for name, one in series.items():
        if one.image.shape == mask.image.shape:
            distance_mm = compute_max_displacement(mask.affine, one.affine, mask.image.shape)
            if distance_mm > MAX_MASK_OFFSET_MM:
                raise InputError(message("mask-elsewhere", file=file, sequence=str(name), mm=distance_mm))


def compute_share_inside(
    mask: Series, series: Mapping[MRSequence, Series], drawn_on: MRSequence | None = None
) -> float:
    """Compute the share (0 to 1) of lesion voxels inside the series that the mask was drawn on.

    drawn_on: its sequence; if None or absent, the series that contains most lesion voxels is used.
    """
    points = compute_mask_points(mask.image > 0, mask.affine)
    compared = [series[drawn_on]] if drawn_on is not None and drawn_on in series else list(series.values())
    return max(
        (float(is_inside_field_of_view(one.affine, one.image.shape, points).mean()) for one in compared),
        default=1.0,
    )

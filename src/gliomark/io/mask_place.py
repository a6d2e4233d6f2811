"""Whether a mask lies where its patient's images do, and what to refuse where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gliomark.geometry import (
    compute_mask_points,
    compute_max_displacement,
    is_inside_field_of_view,
    is_on_lattice,
)
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, Series

# Of the same size as a series and so far from it, a mask has lost its place: other sequences of one examination with
# as many voxels lie nearer.
MAX_MASK_OFFSET_MM = 30.0


def check_mask_position(mask: Series, file: Path, series: Mapping[MRSequence, Series]) -> None:
    """Raise GliomarkError, naming the file, for a mask whose place is not stated, lost, or another patient's."""
    if not series or not mask.image.any():
        return
    comparable = {name: one for name, one in series.items() if one.is_oriented == mask.is_oriented}
    if not comparable:
        other_source = next(iter(series.values())).source
        oriented_file, unoriented_file = (file, other_source) if mask.is_oriented else (other_source, file)
        raise GliomarkError(
            message("mask-oriented-and-not", mask=file, file=unoriented_file.name, other=oriented_file.name)
        )
    series = comparable
    if compute_share_inside(mask, series) == 0.0:
        raise GliomarkError(message("mask-outside", file=file, sequences=", ".join(series)))
    if any(is_on_lattice(mask.affine, mask.image.shape, one.affine) for one in series.values()):
        return
    for name, one in series.items():
        if one.image.shape == mask.image.shape:
            distance_mm = compute_max_displacement(mask.affine, one.affine, mask.image.shape)
            if distance_mm > MAX_MASK_OFFSET_MM:
                raise GliomarkError(message("mask-elsewhere", file=file, sequence=str(name), mm=distance_mm))


def compute_share_inside(
    mask: Series, series: Mapping[MRSequence, Series], drawn_on: MRSequence | None = None
) -> float:
    """The share of lesion voxels inside the series that the mask was drawn on, else inside the one that holds most."""
    points = compute_mask_points(mask.image > 0, mask.affine)
    compared = [series[drawn_on]] if drawn_on is not None and drawn_on in series else list(series.values())
    return max(
        (float(is_inside_field_of_view(one.affine, one.image.shape, points).mean()) for one in compared),
        default=1.0,
    )

"""Whether a mask lies where its patient's images do, and what to refuse where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gliomark.geometry import are_inside, farthest_apart, points_of, share_lattice
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, Series

# Of the same size as a series and so far from it, a mask has lost its place: other sequences of one examination with
# as many voxels lie nearer.
ELSEWHERE_MM = 30.0


def check_mask_place(mask: Series, file: Path, series: Mapping[MRSequence, Series]) -> None:
    """Raise GliomarkError, naming the file, for a mask whose place is not stated, lost, or another patient's."""
    if not series or not mask.image.any():
        return
    alike = {name: one for name, one in series.items() if one.is_oriented == mask.is_oriented}
    if not alike:
        unlike = next(iter(series.values())).source
        stated, silent = (file, unlike) if mask.is_oriented else (unlike, file)
        raise GliomarkError(message("mask-oriented-and-not", mask=file, file=silent.name, other=stated.name))
    series = alike
    if inside_share(mask, series) == 0.0:
        raise GliomarkError(message("mask-outside", file=file, sequences=", ".join(series)))
    if any(share_lattice(mask.affine, mask.image.shape, one.affine) for one in series.values()):
        return
    for name, one in series.items():
        if one.image.shape == mask.image.shape:
            apart = farthest_apart(mask.affine, one.affine, mask.image.shape)
            if apart > ELSEWHERE_MM:
                raise GliomarkError(message("mask-elsewhere", file=file, sequence=str(name), mm=apart))


def inside_share(mask: Series, series: Mapping[MRSequence, Series], own: MRSequence | None = None) -> float:
    """The share of lesion voxels inside the series that the mask was drawn on, else inside the one that holds most."""
    points = points_of(mask.image > 0, mask.affine)
    asked = [series[own]] if own is not None and own in series else list(series.values())
    return max((float(are_inside(one.affine, one.image.shape, points).mean()) for one in asked), default=1.0)

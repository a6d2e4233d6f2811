"""Whether images can be laid on each other, and whether their millimetres can be those of a head.

Wrong units or a wrong step change every area and volume, and what the networks see, without any other sign.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.geometry import compute_field_of_view, compute_spacing
from gliomark.messages import Message, message
from gliomark.study import GliomarkError, Series

# A brain cut out tightly is 120 mm wide; a stack across it may be a slab. 512 voxels of 1 mm are padded images.
MIN_FIELD_OF_VIEW_MM = 100.0
MAX_FIELD_OF_VIEW_MM = 520.0
# Men of 2 m have 1.8 litres; the mask adds a few per cent. Brain and upper cord together are at most 170 mm high.
MAX_BRAIN_ML = 2200.0
MAX_BRAIN_EXTENT_MM = np.array([190.0, 220.0, 190.0])
SMALL_BRAIN_WARNING_ML = 700.0


def check_orientations_stated(series: Iterable[Series]) -> None:
    """Raise GliomarkError where some state an orientation and others do not: left and right may differ."""
    series = list(series)
    stated = [one.source.name for one in series if one.is_oriented]
    assumed = [one for one in series if not one.is_oriented]
    if stated and assumed:
        names = ", ".join(one.source.name for one in assumed)
        folder, other = assumed[0].source.parent, ", ".join(stated)
        raise GliomarkError(message("volumes-oriented-and-not", folder=folder, file=names, other=other))


def check_fields_of_view(series: Iterable[Series]) -> None:
    """Raise GliomarkError, naming the file, for a field of view that no image of a head has."""
    for one in series:
        field = np.sort(compute_field_of_view(one.affine, one.image.shape))
        if field[1] < MIN_FIELD_OF_VIEW_MM or field[2] > MAX_FIELD_OF_VIEW_MM:
            sizes = compute_field_of_view(one.affine, one.image.shape)
            raise GliomarkError(
                message(
                    "field-of-no-head",
                    file=one.source,
                    field=_format_lengths(sizes),
                    steps=_format_lengths(compute_spacing(one.affine)),
                )
            )


def check_brain_size(brain: sitk.Image, series: Series, is_cut: bool) -> tuple[Message, ...]:
    """What to warn of about a brain's size; brain: uint8 0/1, ``is_cut``: it goes on beyond the images.

    Raises: GliomarkError, naming the file that it was found in, for a size that no person's brain has.
    """
    mask = sitk.GetArrayViewFromImage(brain) > 0
    spacing = np.array(brain.GetSpacing())
    millilitres = float(mask.sum() * np.prod(spacing)) / 1000.0
    extent = _compute_extent(mask) * spacing
    if millilitres > MAX_BRAIN_ML or (extent > MAX_BRAIN_EXTENT_MM).any():
        raise GliomarkError(
            message(
                "brain-of-nobody",
                file=series.source,
                ml=millilitres,
                extent=_format_lengths(extent),
                steps=_format_lengths(compute_spacing(series.affine)),
            )
        )
    if millilitres < SMALL_BRAIN_WARNING_ML and not is_cut:
        return (
            message("brain-small", ml=millilitres, steps=_format_lengths(compute_spacing(series.affine))),
        )
    return ()


def _compute_extent(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Voxels from the first to the last 0.5 % of a mask, column, row, slice: stray voxels do not count."""
    extents = []
    for axis in (2, 1, 0):
        others = tuple({0, 1, 2} - {axis})
        reached = np.cumsum(mask.sum(axis=others)) / max(1, mask.sum())
        extents.append(int(np.searchsorted(reached, 0.995) - np.searchsorted(reached, 0.005)) + 1)
    return np.array(extents, dtype=np.float64)


def _format_lengths(millimetres: NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.3g}" for length in millimetres)

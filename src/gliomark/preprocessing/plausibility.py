"""Check that images have comparable orientations and that their dimensions are those of a head.

A wrong unit or spacing changes every area and volume and the input of the networks, and nothing else would show it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.geometry import compute_field_of_view, compute_spacing
from gliomark.messages import Message, message
from gliomark.study import Series

# A tightly cropped brain is 120 mm wide; the stack may be thin. Padded images have up to 512 voxels of 1 mm.
MIN_FIELD_OF_VIEW_MM = 100.0
MAX_FIELD_OF_VIEW_MM = 520.0
# A man of 2 m has a brain of 1.8 litres; the mask adds a few per cent. Brain with upper cord is at most 170 mm high.
MAX_BRAIN_ML = 2200.0
MAX_BRAIN_EXTENT_MM = np.array([190.0, 220.0, 190.0])
SMALL_BRAIN_WARNING_ML = 700.0


def check_orientations_stated(series: Iterable[Series]) -> None:
    """Check that either all series state an orientation or none: otherwise left and right may differ.

    Raises
    ------
    InputError
        If only some state one.
    """
    series = list(series)
    stated = [one.source.name for one in series if one.is_oriented]
    assumed = [one for one in series if not one.is_oriented]
    if stated and assumed:
        names = ", ".join(one.source.name for one in assumed)
        folder, other = assumed[0].source.parent, ", ".join(stated)
        raise InputError(message("volumes-oriented-and-not", folder=folder, file=names, other=other))


def check_fields_of_view(series: Iterable[Series]) -> None:
    """Check that the fields of view are those of a head: 100 mm to 520 mm.

    Raises
    ------
    InputError
        If one is too small or too large; the message names the file.
    """
    for one in series:
        field = np.sort(compute_field_of_view(one.affine, one.image.shape))
        if field[1] < MIN_FIELD_OF_VIEW_MM or field[2] > MAX_FIELD_OF_VIEW_MM:
            sizes = compute_field_of_view(one.affine, one.image.shape)
            raise InputError(
                message(
                    "field-of-no-head",
                    file=one.source,
                    field=_format_lengths(sizes),
                    steps=_format_lengths(compute_spacing(one.affine)),
                )
            )


def check_brain_size(brain: sitk.Image, series: Series, is_cut: bool) -> tuple[Message, ...]:
    """Check the size of the brain; return a warning if it is small.

    Parameters
    ----------
    brain
        Brain mask, uint8 0 or 1.
    series
        The series from which it was extracted.
    is_cut
        Whether the brain extends beyond the images.

    Raises
    ------
    InputError
        If the brain is larger than any human brain; the message names the file.
    """
    mask = sitk.GetArrayViewFromImage(brain) > 0
    spacing = np.array(brain.GetSpacing())
    millilitres = float(mask.sum() * np.prod(spacing)) / 1000.0
    extent = _compute_extent(mask) * spacing
    if millilitres > MAX_BRAIN_ML or (extent > MAX_BRAIN_EXTENT_MM).any():
        raise InputError(
            message(
                "brain-implausible",
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
    """Compute the extent in voxels (column, row, slice), without the outer 0.5 % so that stray voxels do not count."""
    extents = []
    for axis in (2, 1, 0):
        others = tuple({0, 1, 2} - {axis})
        reached = np.cumsum(mask.sum(axis=others)) / max(1, mask.sum())
        extents.append(int(np.searchsorted(reached, 0.995) - np.searchsorted(reached, 0.005)) + 1)
    return np.array(extents, dtype=np.float64)


def _format_lengths(millimetres: NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.3g}" for length in millimetres)

"""Whether images can be laid on each other, and whether their millimetres can be those of a head.

Wrong units or a wrong step change every area and volume, and what the networks see, without any other sign.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.geometry import field_of, steps_of
from gliomark.messages import Message, message
from gliomark.study import GliomarkError, Series

# A brain cut out tightly is 120 mm wide; a stack across it may be a slab. 512 voxels of 1 mm are padded images.
LEAST_FIELD_MM = 100.0
MOST_FIELD_MM = 520.0
# Men of 2 m have 1.8 litres; the mask adds a few per cent. Brain and upper cord together are at most 170 mm high.
MOST_BRAIN_ML = 2200.0
MOST_BRAIN_MM = np.array([190.0, 220.0, 190.0])
SMALL_BRAIN_ML = 700.0


def check_orientations(volumes: Iterable[Series]) -> None:
    """Raise GliomarkError where some state an orientation and others do not: left and right may differ."""
    volumes = list(volumes)
    stated = [one.source.name for one in volumes if one.is_oriented]
    assumed = [one for one in volumes if not one.is_oriented]
    if stated and assumed:
        names = ", ".join(one.source.name for one in assumed)
        folder, other = assumed[0].source.parent, ", ".join(stated)
        raise GliomarkError(message("volumes-oriented-and-not", folder=folder, file=names, other=other))


def check_fields(volumes: Iterable[Series]) -> None:
    """Raise GliomarkError, naming the file, for a field of view that no image of a head has."""
    for one in volumes:
        field = np.sort(field_of(one.affine, one.image.shape))
        if field[1] < LEAST_FIELD_MM or field[2] > MOST_FIELD_MM:
            sizes = field_of(one.affine, one.image.shape)
            raise GliomarkError(
                message("field-of-no-head", file=one.source, field=_shown(sizes), steps=_shown(steps_of(one.affine)))
            )  # fmt: skip


def check_brain(brain: sitk.Image, shown: Series, is_cut: bool) -> tuple[Message, ...]:
    """What to warn of about a brain's size; brain: uint8 0/1, ``is_cut``: it goes on beyond the images.

    Raises: GliomarkError, naming the file that it was found in, for a size that no person's brain has.
    """
    mask = sitk.GetArrayViewFromImage(brain) > 0
    steps = np.array(brain.GetSpacing())
    millilitres = float(mask.sum() * np.prod(steps)) / 1000.0
    extent = _extent(mask) * steps
    if millilitres > MOST_BRAIN_ML or (extent > MOST_BRAIN_MM).any():
        raise GliomarkError(
            message("brain-of-nobody", file=shown.source, ml=millilitres, extent=_shown(extent),
                    steps=_shown(steps_of(shown.affine)))
        )  # fmt: skip
    if millilitres < SMALL_BRAIN_ML and not is_cut:
        return (message("brain-small", ml=millilitres, steps=_shown(steps_of(shown.affine))),)
    return ()


def _extent(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Voxels from the first to the last 0.5 % of a mask, column, row, slice: stray voxels do not count."""
    extents = []
    for axis in (2, 1, 0):
        others = tuple({0, 1, 2} - {axis})
        reached = np.cumsum(mask.sum(axis=others)) / max(1, mask.sum())
        extents.append(int(np.searchsorted(reached, 0.995) - np.searchsorted(reached, 0.005)) + 1)
    return np.array(extents, dtype=np.float64)


def _shown(millimetres: NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.3g}" for length in millimetres)

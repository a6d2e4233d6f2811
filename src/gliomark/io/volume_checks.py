"""Checks and defaults that all readers of volume files share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.geometry import has_orthogonal_axes, is_valid_affine
from gliomark.messages import message


def check_scalar_3d(file: Path, is_scalar: bool, shape: tuple[int, ...]) -> None:
    """Check that a volume has one value per voxel and three axes longer than one voxel.

    Raises
    ------
    InputError
        If it has not.
    """
    if not is_scalar:
        raise InputError(message("volume-coloured", file=file))
    if len(shape) < 3 or any(extent != 1 for extent in shape[3:]) or 1 in shape[:3]:
        sizes = " x ".join(str(extent) for extent in shape)
        raise InputError(message("volume-not-3d", file=file, sizes=sizes))


def check_affine(file: Path, affine: NDArray[np.float64]) -> None:
    """Check that the axes are orthogonal; later steps rely on it for left and right and for millimetres.

    affine: ``(4, 4)``.

    Raises
    ------
    InputError
        If they are not, or the affine is not finite or has no volume.
    """
    if not is_valid_affine(affine):
        raise InputError(message("volume-form-unusable", file=file))
    if not has_orthogonal_axes(affine):
        raise InputError(message("volume-sheared", file=file))


def create_slice_names(slice_count: int) -> tuple[str, ...]:
    """Create the names ``001``, ``002``, ... for slices without names."""
    return tuple(f"{number:03d}" for number in range(1, slice_count + 1))

"""Compute the affine of a NIfTI volume from its sform, qform, spacing (pixdim) and units, with checks.

- A form is invalid if its code is 0, a value is not finite or its voxels have no volume; the other one is then used.
- If both are valid and differ only in position, the sform is used, with a note if they differ by more than 1 mm.
- If they differ in voxel size or in the direction of an axis, an error is raised: using the wrong one could mirror
  the patient or scale the lesion.
- If a form is declared but none is valid, an error is raised. If none is declared, columns are assumed to run to the
  left, rows to anterior and slices to superior, as in Analyze, with a note.
"""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.geometry import (
    LPS_TO_RAS,
    compute_directions,
    compute_max_displacement,
    compute_spacing,
    has_orthogonal_axes,
    is_valid_affine,
    set_nifti_space,
)
from gliomark.messages import message
from gliomark.study import NiftiSpace

_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # metre, millimetre, micrometre; any other code: millimetre
_POSITION_TOLERANCE_MM = 1.0  # rounding of single-precision quaternions causes tenths of a mm
_SPACING_TOLERANCE = 0.01


def read_raw_header(volume: nib.Nifti1Pair) -> Nifti1Header:
    """Read the header as stored; nibabel silently replaces a spacing of 0 by 1 and makes signs positive."""
    holder = volume.file_map.get("header") or volume.file_map["image"]
    with holder.get_prepare_fileobj("rb") as stream:
        return type(volume).header_class.from_fileobj(stream, check=False)


def compute_nifti_affine(
    file: Path, space: NiftiSpace, shape: tuple[int, ...], notes: list[str]
) -> tuple[NDArray[np.float64], bool]:
    """Compute the affine by the rule of this module.

    Parameters
    ----------
    file
        For messages.
    space
        What the header states.
    shape
        Of the image, ``(slice, row, column)``.
    notes
        Notes for the user are appended.

    Returns
    -------
    tuple[NDArray[np.float64], bool]
        The affine ``(4, 4)`` from ``(column, row, slice, 1)`` to LPS mm, and whether the file states an orientation.

    Raises
    ------
    InputError
        If a form is declared but invalid, sform and qform disagree in spacing or axes, or the spacing is invalid.
    """
    sform, qform = _find_sform(space), _find_qform(space)
    if sform is not None and qform is not None:
        _check_forms_agree(file, sform, qform, shape, notes)
    stated = sform if sform is not None else qform
    if stated is None and (space.sform_code or space.qform_code):
        raise InputError(message("volume-form-unusable", file=file))
    affine = stated if stated is not None else _assume_affine(file, space, shape, notes)
    if sform is not None and qform is None:
        _check_spacing(file, space, sform)
    affine = affine.copy()
    affine[:3] *= _MM_PER_UNIT.get(space.units & 7, 1.0)
    return LPS_TO_RAS @ affine, stated is not None


def _find_sform(space: NiftiSpace) -> NDArray[np.float64] | None:
    affine = np.array([*space.rows, (0.0, 0.0, 0.0, 1.0)], dtype=np.float64)
    return affine if space.sform_code > 0 and is_valid_affine(affine) else None


def _find_qform(space: NiftiSpace) -> NDArray[np.float64] | None:
    """Return the qform; None if a spacing is not positive or qfac is not -1, 0 or 1."""
    numbers = (*space.pixdim, *space.quaternion, *space.offset)
    if space.qform_code <= 0 or not all(map(math.isfinite, numbers)):
        return None
    if space.pixdim[0] not in (-1.0, 0.0, 1.0) or min(space.pixdim[1:]) <= 0:
        return None
    header = Nifti1Header()
    set_nifti_space(header, space)
    header["pixdim"][0] = space.pixdim[0] or 1.0  # NIfTI standard: 0 means 1
    try:
        affine = np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError):  # not a unit quaternion
        return None
    return affine if is_valid_affine(affine) else None


def _assume_affine(
    file: Path, space: NiftiSpace, shape: tuple[int, ...], notes: list[str]
) -> NDArray[np.float64]:
    """Assume the axes of Analyze for a file without a form; raise if its spacing is invalid."""
    spacing = np.abs(space.pixdim[1:])
    if not np.isfinite(spacing).all() or (spacing == 0).any():
        raise InputError(message("volume-steps", file=file, steps=_format_spacing(space.pixdim[1:])))
    notes.append(message("volume-unoriented", file=file.name))
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.asarray(shape[::-1]) - 1) / 2
    return affine


def _check_forms_agree(
    file: Path,
    sform: NDArray[np.float64],
    qform: NDArray[np.float64],
    shape: tuple[int, ...],
    notes: list[str],
) -> None:
    if not np.allclose(compute_spacing(sform), compute_spacing(qform), rtol=_SPACING_TOLERANCE):
        raise InputError(
            message(
                "volume-form-steps",
                file=file,
                one=_format_spacing(compute_spacing(sform)),
                other=_format_spacing(compute_spacing(qform)),
            )
        )
    same_way = np.diag(compute_directions(sform).T @ compute_directions(qform))
    if same_way.min() < math.cos(math.pi / 4):
        raise InputError(message("volume-form-axes", file=file))
    distance_mm = compute_max_displacement(sform, qform, shape)
    if distance_mm > _POSITION_TOLERANCE_MM:
        notes.append(message("volume-form-place", file=file.name, mm=distance_mm))


def _check_spacing(file: Path, space: NiftiSpace, sform: NDArray[np.float64]) -> None:
    """Raise if the spacing of a lone sform differs from pixdim: viewers use one or the other."""
    stated = np.abs(space.pixdim[1:])
    if not np.isfinite(stated).all() or (stated == 0).any() or not has_orthogonal_axes(sform):
        return
    if not np.allclose(stated, compute_spacing(sform), rtol=_SPACING_TOLERANCE):
        raise InputError(
            message(
                "volume-form-steps",
                file=file,
                one=_format_spacing(compute_spacing(sform)),
                other=_format_spacing(stated),
            )
        )


def _format_spacing(spacing: NDArray[np.float64] | tuple[float, ...]) -> str:
    return " x ".join(f"{step:.4g}" for step in spacing)

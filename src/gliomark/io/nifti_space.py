"""Where a NIfTI volume lies: its two forms (sform, qform), its steps (pixdim) and its units, each checked.

The rule. A form whose code is 0, that is not finite or that has no volume is unusable, and the other one counts.
Where both are usable and agree within a millimetre, either will do. Where they put the volume at another place,
the sform counts, with a note. Where they disagree about the size of a voxel or about which way an axis runs, the
file is refused: one of the two would mirror the patient or scale the lesion. Where neither is usable although one
is announced, it is refused; where none is announced, columns are taken to run to the left, rows to the front and
slices to the head, as in Analyze, with a note.
"""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

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
from gliomark.study import GliomarkError, NiftiSpace

_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # metre, millimetre, micrometre; any other code: millimetre
_POSITION_TOLERANCE_MM = 1.0  # quaternions in single precision are off by up to tenths
_SPACING_TOLERANCE = 0.01


def read_raw_header(volume: nib.Nifti1Pair) -> Nifti1Header:
    """The header as it stands in the file: nibabel silently makes steps of zero 1 and signs positive."""
    holder = volume.file_map.get("header") or volume.file_map["image"]
    with holder.get_prepare_fileobj("rb") as stream:
        return type(volume).header_class.from_fileobj(stream, check=False)


def compute_nifti_affine(
    file: Path, space: NiftiSpace, shape: tuple[int, ...], notes: list[str]
) -> tuple[NDArray[np.float64], bool]:
    """The affine to LPS mm by the module's rule, and whether the file states an orientation.

    shape: ``(slice, row, column)``. What a reader should know is added to ``notes``. Raises: GliomarkError.
    """
    sform, qform = _find_sform(space), _find_qform(space)
    if sform is not None and qform is not None:
        _check_forms_agree(file, sform, qform, shape, notes)
    stated = sform if sform is not None else qform
    if stated is None and (space.sform_code or space.qform_code):
        raise GliomarkError(message("volume-form-unusable", file=file))
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
    """The qform; unusable with a step that is not a positive number, or with another qfac than -1, 0 and 1."""
    numbers = (*space.pixdim, *space.quaternion, *space.offset)
    if space.qform_code <= 0 or not all(map(math.isfinite, numbers)):
        return None
    if space.pixdim[0] not in (-1.0, 0.0, 1.0) or min(space.pixdim[1:]) <= 0:
        return None
    header = Nifti1Header()
    set_nifti_space(header, space)
    header["pixdim"][0] = space.pixdim[0] or 1.0  # the standard: 0 counts as 1
    try:
        affine = np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError):  # no quaternion of length one
        return None
    return affine if is_valid_affine(affine) else None


def _assume_affine(
    file: Path, space: NiftiSpace, shape: tuple[int, ...], notes: list[str]
) -> NDArray[np.float64]:
    """Analyze's axes, for a file that announces no form; its steps must be numbers."""
    spacing = np.abs(space.pixdim[1:])
    if not np.isfinite(spacing).all() or (spacing == 0).any():
        raise GliomarkError(message("volume-steps", file=file, steps=_format_spacing(space.pixdim[1:])))
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
        raise GliomarkError(
            message(
                "volume-form-steps",
                file=file,
                one=_format_spacing(compute_spacing(sform)),
                other=_format_spacing(compute_spacing(qform)),
            )
        )
    same_way = np.diag(compute_directions(sform).T @ compute_directions(qform))
    if same_way.min() < math.cos(math.pi / 4):
        raise GliomarkError(message("volume-form-axes", file=file))
    distance_mm = compute_max_displacement(sform, qform, shape)
    if distance_mm > _POSITION_TOLERANCE_MM:
        notes.append(message("volume-form-place", file=file.name, mm=distance_mm))


def _check_spacing(file: Path, space: NiftiSpace, sform: NDArray[np.float64]) -> None:
    """An sform alone must have the steps that pixdim states, where it states any: viewers take one or the other."""
    stated = np.abs(space.pixdim[1:])
    if not np.isfinite(stated).all() or (stated == 0).any() or not has_orthogonal_axes(sform):
        return
    if not np.allclose(stated, compute_spacing(sform), rtol=_SPACING_TOLERANCE):
        raise GliomarkError(
            message(
                "volume-form-steps",
                file=file,
                one=_format_spacing(compute_spacing(sform)),
                other=_format_spacing(stated),
            )
        )


def _format_spacing(spacing: NDArray[np.float64] | tuple[float, ...]) -> str:
    return " x ".join(f"{step:.4g}" for step in spacing)

"""Grids in space: affines, what two grids have in common, and images on them for SimpleITK.

An affine is 4x4 and takes the index ``(column, row, slice, 1)`` to LPS mm (see ``study``).
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

from gliomark.study import NiftiSpace

Affine = NDArray[np.float64]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from DICOM's coordinates to NIfTI's, and back
_MAX_FORM_CODE = 5  # of NIfTI: 0 none, 1 scanner, 2 aligned, 3 Talairach, 4 MNI, 5 template


def compute_spacing(affine: Affine) -> NDArray[np.float64]:
    """Millimetres from column to column, row to row and slice to slice."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0), dtype=np.float64)


def compute_directions(affine: Affine) -> NDArray[np.float64]:
    """Unit vectors along columns, rows and slices, as the columns of a 3x3."""
    return np.asarray(affine[:3, :3] / compute_spacing(affine), dtype=np.float64)


def compute_field_of_view(affine: Affine, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Millimetres that an image ``(slice, row, column)`` extends along columns, rows and slices."""
    return compute_spacing(affine) * np.asarray(shape[::-1], dtype=np.float64)


def is_valid_affine(affine: Affine) -> bool:
    """Whether every entry is a number and no axis has a step of zero or lies in the plane of the others."""
    if not np.isfinite(affine).all() or (compute_spacing(affine) < 1e-6).any():
        return False
    return bool(abs(np.linalg.det(compute_directions(affine))) > 1e-3)


def has_orthogonal_axes(affine: Affine, tolerance: float = 0.01) -> bool:
    """Whether the axes of a usable affine stand at right angles to each other; tolerance: of their cosines."""
    directions = compute_directions(affine)
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() <= tolerance)


def compute_corner_indices(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Indices ``(3, 8)`` of the corner voxels of an image ``(slice, row, column)``: column, row, slice."""
    slices, rows, columns = shape
    ends = np.meshgrid([0, columns - 1], [0, rows - 1], [0, slices - 1], indexing="ij")
    return np.stack([end.ravel() for end in ends]).astype(np.float64)


def apply_affine(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """An affine applied to points ``(3, n)``."""
    return np.asarray(affine[:3, :3] @ points + affine[:3, 3:], dtype=np.float64)


def invert_affine(affine: Affine) -> Affine:
    """The affine that undoes a usable one."""
    return np.asarray(np.linalg.inv(affine), dtype=np.float64)


def is_inside_field_of_view(
    affine: Affine, shape: tuple[int, ...], points: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which points ``(3, n)``, LPS mm, lie in the field of an image ``(slice, row, column)``, edges included."""
    index, size = apply_affine(invert_affine(affine), points), np.array(shape[::-1])[:, None]
    return np.asarray(((index >= -0.5) & (index <= size - 0.5)).all(axis=0))


def compute_mask_points(mask: NDArray, affine: Affine) -> NDArray[np.float64]:
    """Places ``(3, n)``, LPS mm, of the voxels of a mask ``(slice, row, column)`` that are not 0."""
    return apply_affine(affine, np.argwhere(mask)[:, ::-1].T.astype(np.float64))


def compute_max_displacement(first_affine: Affine, second_affine: Affine, shape: tuple[int, ...]) -> float:
    """Millimetres between the places that two affines give to one corner voxel, at the corner where it is most."""
    corners = compute_corner_indices(shape)
    return float(
        np.linalg.norm(
            apply_affine(first_affine, corners) - apply_affine(second_affine, corners), axis=0
        ).max()
    )


def is_on_lattice(affine: Affine, shape: tuple[int, ...], lattice_affine: Affine) -> bool:
    """Whether all voxel centres of a mask of that shape are voxel centres of a grid, cut or turned as it may be."""
    lattice_from_image = invert_affine(lattice_affine) @ affine
    rotation = np.round(lattice_from_image[:3, :3])
    if not np.array_equal(rotation @ rotation.T, np.eye(3)):
        return False
    corners = apply_affine(lattice_from_image, compute_corner_indices(shape))
    return bool(np.abs(corners - np.round(corners)).max() < 0.1)


# ---- NIfTI, which uses RAS --------------------------------------------------------------------------


def read_nifti_space(header: Nifti1Header) -> NiftiSpace:
    """What a header states about its grid."""
    pixdim = [float(step) for step in header["pixdim"][:4]]
    return NiftiSpace(
        qform_code=_read_form_code(header["qform_code"]),
        sform_code=_read_form_code(header["sform_code"]),
        pixdim=(pixdim[0], pixdim[1], pixdim[2], pixdim[3]),
        quaternion=(float(header["quatern_b"]), float(header["quatern_c"]), float(header["quatern_d"])),
        offset=(float(header["qoffset_x"]), float(header["qoffset_y"]), float(header["qoffset_z"])),
        rows=tuple(tuple(float(v) for v in header[row]) for row in ("srow_x", "srow_y", "srow_z")),
        units=int(header["xyzt_units"]),
    )


def _read_form_code(header_value: object) -> int:
    """A form's code; one that means nothing (NIfTI-2 has room for any) is taken for none, as nibabel does."""
    code = int(str(header_value))
    return code if 0 <= code <= _MAX_FORM_CODE else 0


def set_nifti_space(header: Nifti1Header, space: NiftiSpace) -> None:
    """Make a header state a grid exactly as another one does."""
    header["pixdim"][:4] = space.pixdim
    header["qform_code"], header["sform_code"] = space.qform_code, space.sform_code
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = space.quaternion
    header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = space.offset
    header["srow_x"], header["srow_y"], header["srow_z"] = space.rows
    header["xyzt_units"] = space.units


# ---- SimpleITK, which uses LPS as well --------------------------------------------------------------


def to_simpleitk_image(array: NDArray, affine: Affine) -> sitk.Image:
    """An array ``(slice, row, column)`` and its affine as an image."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(compute_spacing(affine).tolist())
    # ITK's SVD fails on numbers too small to be normal
    image.SetDirection(compute_directions(affine).round(12).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def compute_image_affine(image: sitk.Image) -> Affine:
    """An image's affine."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


def compute_transform_matrix(transform: sitk.Transform) -> Affine:
    """An affine transform of points as a 4x4, whatever parameters it is written in."""
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis, point in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(transform.TransformPoint(point.tolist())) - matrix[:3, 3]
    return matrix

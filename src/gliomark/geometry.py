"""Geometry of image grids: affines, comparison of grids, and conversion to SimpleITK.

An affine is a ``(4, 4)`` matrix from the index ``(column, row, slice, 1)`` to LPS mm (see ``study``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.study import NiftiSpace

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

Affine = NDArray[np.float64]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # between DICOM's and NIfTI's coordinates, both directions
_MAX_FORM_CODE = 5  # NIfTI: 0 none, 1 scanner, 2 aligned, 3 Talairach, 4 MNI, 5 template


def compute_spacing(affine: Affine) -> NDArray[np.float64]:
    """Compute the spacing of columns, rows and slices in mm, ``(3,)``."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0), dtype=np.float64)


def compute_directions(affine: Affine) -> NDArray[np.float64]:
    """Compute the unit vectors along column, row and slice indices, as the columns of a ``(3, 3)`` matrix."""
    return np.asarray(affine[:3, :3] / compute_spacing(affine), dtype=np.float64)


def compute_field_of_view(affine: Affine, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Compute the extent of an image of shape ``(slice, row, column)`` along columns, rows and slices, mm ``(3,)``."""
    return compute_spacing(affine) * np.asarray(shape[::-1], dtype=np.float64)


def is_valid_affine(affine: Affine) -> bool:
    """Whether an affine ``(4, 4)`` is finite, has no spacing of zero and no axis in the plane of the others."""
    if not np.isfinite(affine).all() or (compute_spacing(affine) < 1e-6).any():
        return False
    return bool(abs(np.linalg.det(compute_directions(affine))) > 1e-3)


def has_orthogonal_axes(affine: Affine, tolerance: float = 0.01) -> bool:
    """Whether the axes of a valid affine ``(4, 4)`` are orthogonal; tolerance: maximum cosine between two axes."""
    directions = compute_directions(affine)
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() <= tolerance)


def compute_corner_indices(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Compute the indices (column, row, slice) of the corner voxels, ``(3, 8)``; shape: ``(slice, row, column)``."""
    slices, rows, columns = shape
    ends = np.meshgrid([0, columns - 1], [0, rows - 1], [0, slices - 1], indexing="ij")
    return np.stack([end.ravel() for end in ends]).astype(np.float64)


def apply_affine(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply an affine ``(4, 4)`` to points ``(3, n)``; returns ``(3, n)``."""
    return np.asarray(affine[:3, :3] @ points + affine[:3, 3:], dtype=np.float64)


def invert_affine(affine: Affine) -> Affine:
    """Invert a valid affine ``(4, 4)``."""
    return np.asarray(np.linalg.inv(affine), dtype=np.float64)


def is_inside_field_of_view(
    affine: Affine, shape: tuple[int, ...], points: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Test which points ``(3, n)`` in LPS mm lie in the field of view of an image, edges included.

    shape: ``(slice, row, column)``. Returns bool ``(n,)``.
    """
    index, size = apply_affine(invert_affine(affine), points), np.array(shape[::-1])[:, None]
    return np.asarray(((index >= -0.5) & (index <= size - 0.5)).all(axis=0))


def compute_mask_points(mask: NDArray[Any], affine: Affine) -> NDArray[np.float64]:
    """Compute the positions of non-zero voxels of a mask ``(slice, row, column)``, LPS mm ``(3, n)``."""
    return apply_affine(affine, np.argwhere(mask)[:, ::-1].T.astype(np.float64))


def compute_max_displacement(first_affine: Affine, second_affine: Affine, shape: tuple[int, ...]) -> float:
    """Compute the largest distance in mm between the positions of a corner voxel under two affines.

    shape: of the image, ``(slice, row, column)``.
    """
    corners = compute_corner_indices(shape)
    return float(
        np.linalg.norm(
            apply_affine(first_affine, corners) - apply_affine(second_affine, corners), axis=0
        ).max()
    )


def is_on_lattice(affine: Affine, shape: tuple[int, ...], lattice_affine: Affine) -> bool:
    """Whether all voxel centres of an image lie on the voxel centres of a grid.

    The image, of shape ``(slice, row, column)``, may be cropped, or its axes permuted or flipped.
    """
    lattice_from_image = invert_affine(lattice_affine) @ affine
    rotation = np.round(lattice_from_image[:3, :3])
    if not np.array_equal(rotation @ rotation.T, np.eye(3)):
        return False
    corners = apply_affine(lattice_from_image, compute_corner_indices(shape))
    return bool(np.abs(corners - np.round(corners)).max() < 0.1)


# ---- NIfTI (RAS) ------------------------------------------------------------------------------------


def read_nifti_space(header: Nifti1Header) -> NiftiSpace:
    """Read what a NIfTI header states about the geometry."""
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
    """Read a form code; undefined codes (possible in NIfTI-2) count as 0, as in nibabel."""
    code = int(str(header_value))
    return code if 0 <= code <= _MAX_FORM_CODE else 0


def set_nifti_space(header: Nifti1Header, space: NiftiSpace) -> None:
    """Write the geometry into a NIfTI header, exactly as it was read."""
    header["pixdim"][:4] = space.pixdim
    header["qform_code"], header["sform_code"] = space.qform_code, space.sform_code
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = space.quaternion
    header["qoffset_x"], header["qoffset_y"], header["qoffset_z"] = space.offset
    header["srow_x"], header["srow_y"], header["srow_z"] = space.rows
    header["xyzt_units"] = space.units


# ---- SimpleITK (LPS) --------------------------------------------------------------------------------


def to_simpleitk_image(array: NDArray[Any], affine: Affine) -> sitk.Image:
    """Convert an array ``(slice, row, column)`` with its affine ``(4, 4)`` to a SimpleITK image."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(compute_spacing(affine).tolist())
    # ITK's SVD fails on subnormal numbers
    image.SetDirection(compute_directions(affine).round(12).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def compute_image_affine(image: sitk.Image) -> Affine:
    """Compute the affine ``(4, 4)`` of an image, from ``(column, row, slice, 1)`` to LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


def compute_transform_matrix(transform: sitk.Transform) -> Affine:
    """Compute the ``(4, 4)`` matrix of an affine transform of points, for any parametrisation."""
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis, point in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(transform.TransformPoint(point.tolist())) - matrix[:3, 3]
    return matrix

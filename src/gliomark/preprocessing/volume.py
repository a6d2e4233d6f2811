"""Series to SimpleITK image and back; SimpleITK speaks LPS as ``study`` does."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.study import Series


def to_image(array: NDArray, affine: NDArray[np.float64]) -> sitk.Image:
    """Wrap a ``(slice, row, column)`` array and its index-to-LPS affine as an image."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    # ITK's SVD fails on numbers too small to be normal
    image.SetDirection((affine[:3, :3] / spacing).round(12).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def affine_of(image: sitk.Image) -> NDArray[np.float64]:
    """The 4x4 from index ``(column, row, slice)`` to LPS millimetres."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


def axial(series: Series) -> sitk.Image:
    """The series with its axes permuted and flipped to run nearest to left, back, head; no resampling."""
    return sitk.DICOMOrient(to_image(series.image, series.affine), "LPS")


def resample(
    image: sitk.Image,
    grid: sitk.Image,
    transform: sitk.Transform,
    outside: float,
    interpolator: int = sitk.sitkLinear,
) -> sitk.Image:
    """The image on another grid. transform takes points of the grid to points of the image."""
    return sitk.Resample(image, grid, transform, interpolator, outside, image.GetPixelID())


def matrix_of(transform: sitk.Transform) -> NDArray[np.float64]:
    """An affine transform of points as a 4x4, whatever parameters it is written in."""
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis, point in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(transform.TransformPoint(point.tolist())) - matrix[:3, 3]
    return matrix

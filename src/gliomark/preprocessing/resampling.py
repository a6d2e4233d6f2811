"""Reorient series to axial images, and resample images to another grid."""

from __future__ import annotations

import SimpleITK as sitk

from gliomark.geometry import compute_image_affine, compute_transform_matrix, to_simpleitk_image
from gliomark.study import Series

__all__ = [
    "compute_image_affine",
    "reorient_to_axial",
    "compute_transform_matrix",
    "resample",
    "to_simpleitk_image",
]


def reorient_to_axial(series: Series) -> sitk.Image:
    """Permute and flip the axes of a series so that they are closest to LPS; without resampling."""
    image: sitk.Image = sitk.DICOMOrient(to_simpleitk_image(series.image, series.affine), "LPS")
    return image


def resample(
    image: sitk.Image,
    grid: sitk.Image,
    transform: sitk.Transform,
    default_value: float,
    interpolator: int = sitk.sitkLinear,
) -> sitk.Image:
    """Resample an image to another grid.

    transform: from points of the grid to points of the image, LPS mm. default_value: outside the image.
    """
    return sitk.Resample(image, grid, transform, interpolator, default_value, image.GetPixelID())

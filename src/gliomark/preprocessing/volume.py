"""Series to images of axial slices, and images from one grid to another."""

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
    """The series with its axes permuted and flipped to run nearest to left, back, head; no resampling."""
    return sitk.DICOMOrient(to_simpleitk_image(series.image, series.affine), "LPS")


def resample(
    image: sitk.Image,
    grid: sitk.Image,
    transform: sitk.Transform,
    default_value: float,
    interpolator: int = sitk.sitkLinear,
) -> sitk.Image:
    """The image on another grid. transform takes points of the grid to points of the image."""
    return sitk.Resample(image, grid, transform, interpolator, default_value, image.GetPixelID())

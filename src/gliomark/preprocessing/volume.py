"""Series to images of axial slices, and images from one grid to another."""

from __future__ import annotations

import SimpleITK as sitk

from gliomark.geometry import affine_of, matrix_of, to_image
from gliomark.study import Series

__all__ = ["affine_of", "axial", "matrix_of", "resample", "to_image"]


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

"""Normalise grey values: clip outliers, z-score inside the brain (method.md, section 2, step 3)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.errors import InputError
from gliomark.messages import message

CLIP_PERCENTILES = (0.5, 99.5)


def clip_outliers(image: sitk.Image) -> sitk.Image:
    """Clip an image to its 0.5 to 99.5 percentiles, as float32; single outliers would stretch the histogram."""
    array = sitk.GetArrayViewFromImage(image)
    low, high = np.percentile(array, CLIP_PERCENTILES)
    if low == high:  # a small brain in a large background
        low, high = array.min(), array.max()
    result: sitk.Image = sitk.Clamp(image, sitk.sitkFloat32, float(low), float(high))
    return result


def normalise_z_score(
    image: NDArray[np.float32], brain: NDArray[np.bool_], sequence: str = "The image"
) -> NDArray[np.float32]:
    """Normalise to mean 0 and standard deviation 1 over the brain, after clipping to the 0.5 to 99.5 percentiles.

    Outside the brain the value is the brain's minimum, so that background differs from average brain
    (method.md, section 2, step 3).

    Parameters
    ----------
    image
        float32 ``(slice, row, column)``.
    brain
        bool ``(slice, row, column)``.
    sequence
        The sequence, for messages.

    Returns
    -------
    NDArray[np.float32]
        The normalised image ``(slice, row, column)``.

    Raises
    ------
    InputError
        If the image is constant in the brain.
    """
    inside = image[brain]
    low, high = np.percentile(inside, CLIP_PERCENTILES)
    clipped = np.clip(image, low, high)
    mean, standard_deviation = clipped[brain].mean(), clipped[brain].std()
    if not standard_deviation > 0:
        raise InputError(message("brain-of-one-grey", name=sequence))
    normalised = (clipped - mean) / standard_deviation
    normalised[~brain] = normalised[brain].min()
    values: NDArray[np.float32] = normalised.astype(np.float32)
    return values

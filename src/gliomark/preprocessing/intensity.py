"""Grey values made comparable: outliers clipped, z-score inside the brain (METHOD section 2, step 3)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.messages import message
from gliomark.study import GliomarkError

CLIP_PERCENTILES = (0.5, 99.5)


def clip_outliers(image: sitk.Image) -> sitk.Image:
    """The image as float32, clipped to its 0.5-99.5 percentiles: one wild voxel must not stretch a histogram."""
    array = sitk.GetArrayViewFromImage(image)
    low, high = np.percentile(array, CLIP_PERCENTILES)
    if low == high:  # a brain in a vast background
        low, high = array.min(), array.max()
    return sitk.Clamp(image, sitk.sitkFloat32, float(low), float(high))


def normalise_z_score(
    image: NDArray[np.float32], brain: NDArray[np.bool_], sequence: str = "The image"
) -> NDArray[np.float32]:
    """Mean 0 and deviation 1 over the brain's voxels, after clipping to the 0.5-99.5 percentiles.

    image, brain: ``(slice, row, column)``. Outside the brain the value is the brain's minimum, so that
    background is never mistaken for mean brain. name: the sequence. Raises GliomarkError for a constant image.
    """
    inside = image[brain]
    low, high = np.percentile(inside, CLIP_PERCENTILES)
    clipped = np.clip(image, low, high)
    mean, standard_deviation = clipped[brain].mean(), clipped[brain].std()
    if not standard_deviation > 0:
        raise GliomarkError(message("brain-of-one-grey", name=sequence))
    normalised = (clipped - mean) / standard_deviation
    normalised[~brain] = normalised[brain].min()
    return normalised.astype(np.float32)

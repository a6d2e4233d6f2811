"""Grey values made comparable: z-score inside the brain (METHOD section 2, step 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliomark.study import GliomarkError

CLIP_PERCENTILES = (0.5, 99.5)


def z_score(image: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean 0 and deviation 1 over the brain's voxels, after clipping to the 0.5-99.5 percentiles.

    image, brain: ``(slice, row, column)``. Outside the brain the value is the brain's minimum, so that
    background is never mistaken for mean brain. Raises GliomarkError for a constant image.
    """
    inside = image[brain]
    low, high = np.percentile(inside, CLIP_PERCENTILES)
    clipped = np.clip(image, low, high)
    mean, deviation = clipped[brain].mean(), clipped[brain].std()
    if not deviation > 0:
        raise GliomarkError(
            "The image has one single grey value inside the brain; check the exported series."
        )
    scored = (clipped - mean) / deviation
    scored[~brain] = scored[brain].min()
    return scored.astype(np.float32)

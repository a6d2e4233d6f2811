"""Sharpness of augmented training images relative to test images, with pixel averaging before or after augmentation.

    PYTHONPATH=src python benchmarks/view_sharpness.py COHORT results

gliomark 0.1 averaged first; now averaging comes last. Sharpness is the mean squared difference between neighbouring
pixels of the network's input in its central half, relative to that of the test image. Writes ``view_sharpness.csv``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from gliomark.cohort.store import Cohort
from gliomark.experiments.result_files import write_table
from gliomark.models.network_io import downsample_by_averaging
from gliomark.study import MRSequence
from gliomark.training.augmentation import (
    GENTLE_AUGMENTATION,
    Augmentation,
    draw_random_theta,
    draw_random_view,
    resample_view,
)
from gliomark.training.segmentation import INFERENCE_POOLING_FACTOR

PATIENTS, SLICES, DRAWS_PER_RECIPE = 12, 6, 8
RECIPES = {
    "published": (Augmentation(), 1.0),
    "small": (GENTLE_AUGMENTATION, 2.0),
    "quick": (GENTLE_AUGMENTATION, 4.0),
    "light": (replace(GENTLE_AUGMENTATION, zoom=0.2), 1.5),
}


def compute_detail(images: Tensor) -> float:
    """Compute the mean squared pixel difference in the central half of ``(B, 1, H, W)``, which always shows brain."""
    quarter = images.shape[-1] // 4
    inner = images[..., quarter:-quarter, quarter:-quarter]
    return float((inner.diff(dim=-1) ** 2).mean() + (inner.diff(dim=-2) ** 2).mean())


def keep_movement_only(augmentation: Augmentation) -> Augmentation:
    """Return an augmentation with geometric changes only, and shifts so small that the same brain is shown."""
    return replace(augmentation, noise=0.0, tone=0.0, shift=4)


def view_averaged_first(image: Tensor, augmentation: Augmentation, pool: float) -> Tensor:
    """Augment as in gliomark 0.1: slices averaged, then resampled, with shifts by any fraction of a pixel."""
    theta = draw_random_theta(len(image), augmentation, image.shape[-1])
    stray = 2 * torch.rand(len(image), 2) - 1
    theta[:, :, 2] = stray * augmentation.shift * 2 / image.shape[-1]
    return resample_view(downsample_by_averaging(image, pool), theta, round(augmentation.crop / pool))


def measure_sharpness(image: Tensor) -> pd.DataFrame:
    """Measure the sharpness for each recipe, one row each; image ``(B, 1, 240, 240)``."""
    rows = []
    for name, (augmentation, pool) in RECIPES.items():
        margin = (image.shape[-1] - augmentation.crop) // 2
        inner = slice(margin, image.shape[-1] - margin)
        central = image[..., inner, inner]
        test = compute_detail(downsample_by_averaging(central, pool))
        moving, empty = keep_movement_only(augmentation), torch.zeros(len(image), *image.shape[-2:])
        before = [compute_detail(view_averaged_first(image, moving, pool)) for _ in range(DRAWS_PER_RECIPE)]
        now = [
            compute_detail(draw_random_view(image, empty, moving, pool)[0]) for _ in range(DRAWS_PER_RECIPE)
        ]
        rows.append(
            {
                "recipe": name,
                "pool": pool,
                "averaged_first": sum(before) / DRAWS_PER_RECIPE / test,
                "averaged_last": sum(now) / DRAWS_PER_RECIPE / test,
                "test_at_read_pool": compute_detail(
                    downsample_by_averaging(central, INFERENCE_POOLING_FACTOR)
                )
                / test
                if name == "light"
                else 1.0,
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    cohort, results = Cohort(Path(sys.argv[1])), Path(sys.argv[2])
    torch.manual_seed(0)
    slices = []
    for patient in cohort.patient_ids[:: len(cohort.patient_ids) // PATIENTS]:
        stack = cohort.read_stack(patient, [MRSequence.FLAIR])
        middle = len(stack.brain) // 2
        rows = slice(middle - SLICES // 2, middle + SLICES // 2)
        slices.append(torch.from_numpy(stack.images[MRSequence.FLAIR][rows])[:, None])
    write_table(measure_sharpness(torch.cat(slices)), results / "view_sharpness.csv")

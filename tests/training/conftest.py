"""Training configurations that are small enough for the tiny cohort of ``tests/conftest.py``."""

from __future__ import annotations

import pytest
from tests.conftest import compute_lesion_corner

from gliomark.models.published.kinet import KiNetSettings, KiNetSize
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.published.swin_unet import SwinSize
from gliomark.training.augmentation import GENTLE_AUGMENTATION
from gliomark.training.markers import MarkerTrainingConfig
from gliomark.training.segmentation import SegmentationTrainingConfig


@pytest.fixture
def compute_lesion_centre():
    """Return a function from patient id to row and column of the lesion's centre."""

    def compute_centre(patient: str) -> tuple[int, int]:
        row, column = compute_lesion_corner(int(patient[1:]))
        return row + 5, column + 5

    return compute_centre


@pytest.fixture
def tiny_marker_training() -> MarkerTrainingConfig:
    size = KiNetSize(stem=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), pool=4)
    return MarkerTrainingConfig(
        KiNetSettings(size=size), GENTLE_AUGMENTATION, rate=1e-3, batch=4, epochs=1, slices_per_patient=1
    )


@pytest.fixture
def tiny_segmentation_training() -> SegmentationTrainingConfig:
    size = SwinSize(embedding=8, depths=(1, 1, 1), heads=(1, 2, 2), patch=4)
    network = MIGNetSettings(inputs=2, size=size)
    return SegmentationTrainingConfig(
        network,
        GENTLE_AUGMENTATION,
        pool=4,
        rate=1e-3,
        batch=4,
        epochs=1,
        validate_every=1,
        slices_per_patient=2,
    )

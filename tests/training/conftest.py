"""A cohort of 15 tiny patients, each known again by what is painted into the images, not by a label.

Pixel (0, 0) of every slice, outside the brain, holds the patient's own number: whatever a step was shown,
its images say whose they are. Every patient's lesion has a place of its own, so the FPG tells as well.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomark.cohort.store import Cohort, write_json, write_patient
from gliomark.models.kinet import KiNetSettings, KiNetSize
from gliomark.models.mignet import MIGNetSettings
from gliomark.models.swin_unet import SwinSize
from gliomark.study import MRSequence, SliceStack
from gliomark.training.augmentation import GENTLE
from gliomark.training.classification import MarkerTraining
from gliomark.training.segmentation import SegmentationTraining

COUNT, SLICES = 15, 4
PAIR = (MRSequence.T1C, MRSequence.FLAIR)


def lesion_corner(number: int) -> tuple[int, int]:
    """Row and column of patient 1, 2, ...'s own 10 x 10 lesion, in the left half of the picture."""
    return 50 + 30 * ((number - 1) // 4), 48 + 17 * ((number - 1) % 4)


def tiny_stack(number: int) -> SliceStack:
    random = np.random.default_rng(number)
    brain = np.zeros((SLICES, 240, 240), bool)
    brain[:, 30:210, 40:200] = True
    lesion = np.zeros_like(brain)
    row, column = lesion_corner(number)
    lesion[1:, row : row + 10, column : column + 10] = True
    images = {}
    for name in PAIR:
        grain = random.normal(size=(SLICES, 24, 24)).repeat(10, axis=1).repeat(10, axis=2)
        images[name] = np.where(brain, grain + 3 * lesion, -3).astype(np.float32)
        images[name][:, 0, 0] = number
    affine = np.diag([1.0, 1.0, 6.0, 1.0])
    names = tuple(f"{i + 1:03d}" for i in range(SLICES))
    return SliceStack(f"P{number:02d}", images, brain, affine, names, tuple(range(SLICES)), lesion)


@pytest.fixture(scope="session")
def tiny_cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort 队列")
    rows = ["id,age,sex,idh_mutant,who_grade"]
    for number in range(1, COUNT + 1):
        write_patient(folder, tiny_stack(number))
        rows.append(f"P{number:02d},{30 + 2 * number},{number // 2 % 2},{number % 2},{2 + number % 3}")
    (folder / "MetaMS.csv").write_text("\n".join(rows) + "\n", "utf-8")
    about = {"schema_version": 1, "sequences": list(PAIR), "settings": {"k": 20}}
    write_json(folder / "cohort.json", about)
    return folder


@pytest.fixture
def tiny_cohort(tiny_cohort_folder: Path) -> Cohort:
    return Cohort(tiny_cohort_folder)


@pytest.fixture
def lesion_middle():
    """patient id -> row and column of the middle of the lesion."""

    def middle(patient: str) -> tuple[int, int]:
        row, column = lesion_corner(int(patient[1:]))
        return row + 5, column + 5

    return middle


@pytest.fixture
def tiny_marker_training() -> MarkerTraining:
    size = KiNetSize(stem=8, widths=(8, 8, 8, 8), blocks=(1, 1, 1, 1), pool=4)
    return MarkerTraining(
        KiNetSettings(size=size), GENTLE, rate=1e-3, batch=4, epochs=1, slices_per_patient=1
    )


@pytest.fixture
def tiny_segmentation_training() -> SegmentationTraining:
    size = SwinSize(embedding=8, depths=(1, 1, 1), heads=(1, 2, 2), patch=4, pool=4)
    network = MIGNetSettings(inputs=2, size=size)
    return SegmentationTraining(network, replace(GENTLE), rate=1e-3, batch=4, epochs=1, slices_per_patient=2)

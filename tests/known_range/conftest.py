"""A small cohort of drawn heads: grey and white matter, ventricles, vessels and a lesion, each person different."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from tests.models.broken_weights import write_tiny

from gliomark.cohort.store import Cohort, write_json, write_patient
from gliomark.known_range import KnownRange, PatientStatistics, fit_known_range, measure_patient
from gliomark.known_range.statistics import measure_images
from gliomark.known_range.wrong_images import create_wrong_images
from gliomark.models.weights import Weights, load_weights
from gliomark.preprocessing.intensity import normalise_z_score
from gliomark.study import MRSequence, SliceStack

PAIR = (MRSequence.T1C, MRSequence.FLAIR)
SLICES = 4
# grey values: fluid, grey matter, white matter, vessel, lesion
SIGNALS = {
    "T1": (20, 60, 90, 15, 50),
    "T1C": (20, 60, 90, 190, 55),
    "T2": (240, 110, 80, 20, 180),
    "FLAIR": (10, 90, 75, 20, 160),
}


def draw_head(seed: int, names: tuple[str, ...] = PAIR, scale: float = 1.0) -> SliceStack:
    """Draw a head with the sequences ``names``; every person differs in shape, contrast, noise and lesion."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((240, 240)) - 119.5
    height, width = scale * rng.normal(85, 4), scale * rng.normal(65, 3)
    radius = np.hypot(rows / height, columns / width)
    brain = np.broadcast_to(radius < 1, (SLICES, 240, 240)).copy()
    folds = ndimage.gaussian_filter(rng.normal(size=brain.shape), (0, 3, 3))
    tissue = np.where(radius + 1.2 * folds < 0.85, 2, 1)  # white or grey matter
    tissue[(folds < np.percentile(folds, 4)) & (radius > 0.8)] = 0
    size = rng.uniform(0.15, 0.25)
    ventricles = np.hypot((np.abs(columns) - 12) / (60 * size), (rows + 5) / (160 * size)) < 1
    tissue[:, ventricles] = 0
    vessels = ndimage.gaussian_filter(rng.normal(size=brain.shape), (0, 1, 1))
    tissue[(vessels > np.percentile(vessels, 99.2)) & (radius > 0.7)] = 3
    centre = np.array([rng.uniform(-35, 35), rng.choice([-1, 1]) * rng.uniform(30, 38)]) * scale
    lesion = np.zeros_like(brain)
    lesion[1:-1] = np.hypot(rows - centre[0], columns - centre[1]) < scale * rng.uniform(9, 17)
    tissue[lesion] = 4
    images = {}
    for name in names:
        signal = np.array(SIGNALS[name]) * rng.normal(1, 0.05, 5)
        image = ndimage.gaussian_filter(signal[tissue].astype(float), (0, 0.8, 0.8))
        image += rng.normal(size=brain.shape) * rng.uniform(3, 4)
        images[MRSequence(name)] = normalise_z_score(image.astype(np.float32), brain, name)
    affine = np.diag([1.0, 1.0, 6.0 * scale, 1.0])
    slice_names = tuple(f"{i + 1:03d}" for i in range(SLICES))
    return SliceStack(f"P{seed}", images, brain, affine, slice_names, tuple(range(SLICES)), lesion)


@pytest.fixture(scope="session")
def training_stacks() -> list[SliceStack]:
    """Training patients, seeds 0 to 23."""
    return [draw_head(seed) for seed in range(24)]


@pytest.fixture(scope="session")
def cohort_statistics(training_stacks: list[SliceStack]) -> list[PatientStatistics]:
    return [measure_patient(stack, stack.reader_mask, PAIR) for stack in training_stacks]


@pytest.fixture(scope="session")
def known_range(cohort_statistics: list[PatientStatistics], training_stacks: list[SliceStack]) -> KnownRange:
    wrong: dict[str, list[dict[str, float]]] = {}
    for stack in training_stacks[::2]:
        for kind, altered in create_wrong_images(stack, PAIR):
            wrong.setdefault(kind, []).append(measure_images(altered, PAIR))
    fitted = fit_known_range(cohort_statistics, PAIR, wrong)
    assert fitted is not None
    return fitted


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory, training_stacks: list[SliceStack]) -> Cohort:
    """The training patients as a prepared cohort."""
    folder = tmp_path_factory.mktemp("cohort") / "drawn"
    for stack in training_stacks:
        write_patient(folder, stack)
    rows = [f"{stack.patient_id},50,0" for stack in training_stacks]
    (folder / "MetaMS.csv").write_text("\n".join(["id,age,sex", *rows]) + "\n", "utf-8")
    settings = {"k": 20, "size": 240, "pixel_mm": 1.0, "step_mm": 2.0}
    metadata = {"schema_version": 1, "sequences": ["T1C", "FLAIR"], "settings": settings}
    write_json(folder / "cohort.json", metadata)
    return Cohort(folder)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """A tiny model without a range."""
    return load_weights(write_tiny(tmp_path_factory.mktemp("weights") / "a.safetensors"))

"""A synthetic patient, as image files or volumes: an ellipsoidal brain with a lesion on the patient's left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from gliomark.prediction import Contributions, MarkerPrediction, ModelIdentity, Prediction, SliceScore
from gliomark.study import ClinicalData, MRSequence, Segmentation, Series, SliceStack, Study

SLICES, STEP = 7, 5.0
LESION_X, LESION_Y = 30.0, -15.0  # LPS: left and anterior


def _create_stack_and_segmentation() -> tuple[SliceStack, Segmentation]:
    affine = np.diag([1.0, 1.0, STEP, 1.0])
    affine[:3, 3] = (-119.5, -119.5, -STEP * (SLICES - 1) / 2)
    z, y, x = np.meshgrid(
        affine[2, 3] + STEP * np.arange(SLICES), np.arange(240) - 119.5, np.arange(240) - 119.5, indexing="ij"
    )
    brain = (x / 62) ** 2 + (y / 80) ** 2 + (z / 40) ** 2 < 1
    distance = np.sqrt((x - LESION_X) ** 2 + (y - LESION_Y) ** 2 + z**2)
    probability = (1 / (1 + np.exp((distance - 13) / 1.5))).astype(np.float32)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=brain.shape), (0, 4, 4)) * 8
    image = np.where(brain, noise + 3 * probability, -3).astype(np.float32)
    names = tuple(f"{index + 3:03d}" for index in range(SLICES))
    images = {MRSequence.T1C: -image, MRSequence.FLAIR: image}
    stack = SliceStack("P1", images, brain, affine, names, tuple(range(SLICES)))
    return stack, Segmentation(probability, probability >= 0.5, "union of T1C and FLAIR")


def _create_study(kind: str, patient_id: str) -> Study:
    """Pictures: 256x256 pixels of 0.9 mm, two more slices at each end. Volumes: slice spacing 1.25 mm, fewer pixels."""
    pixel, step, shape = (
        (0.9, STEP, (SLICES + 4, 256, 256)) if kind == "pictures" else (1.5, 1.25, (32, 150, 140))
    )
    affine = np.diag([pixel, pixel, step, 1.0])
    affine[:3, 3] = -0.5 * np.array([(shape[2] - 1) * pixel, (shape[1] - 1) * pixel, (shape[0] - 1) * step])
    names = tuple(f"{index + 1:03d}" for index in range(shape[0]))
    series = {
        name: Series(np.zeros(shape, np.float32), affine, names, Path("in"))
        for name in (MRSequence.FLAIR, MRSequence.T1C)
    }
    return Study(patient_id, series, Path("in"), kind, aligned=kind == "pictures", spacing_assumed=True)  # type: ignore[arg-type]


def _create_marker_prediction(marker: str, level: str, areas: dict[str, float]) -> MarkerPrediction:
    largest = max(areas, key=lambda name: areas[name])
    scores = tuple(
        SliceScore(name, area, 0.3 if name == largest else 0.12 + 0.1 * at, name == largest)
        for at, (name, area) in enumerate(areas.items())
    )
    return MarkerPrediction(
        marker,
        marker.upper(),
        0.3,
        level,
        f"what {marker} means",
        "large",
        0.5,
        "model",
        scores,
        "AUC 0.7",
        contributions=Contributions(-0.4, 1.25, -0.301, None),
        positive="mutant" if marker == "idh" else "high",
    )


@pytest.fixture(scope="session")
def make_prediction() -> Callable[..., Prediction]:
    """make_prediction(kind="pictures", **changes): a complete Prediction with fields replaced by ``changes``."""

    def make(kind: str = "pictures", **changes: Any) -> Prediction:
        stack, segmentation = _create_stack_and_segmentation()
        areas = {
            name: float(plane.sum())
            for name, plane in zip(stack.slice_names, segmentation.mask, strict=True)
            if plane.any()
        }
        patient_id = changes.get("patient_id", "P1")
        fields: dict[str, Any] = {
            "patient_id": patient_id,
            "clinical": ClinicalData(patient_id, 51.0, 1),
            "study": _create_study(kind, patient_id),
            "stack": stack,
            "segmentation": segmentation,
            "lesion_volume_ml": float(segmentation.mask.sum()) * stack.voxel_volume_ml,
            "lesion_areas_mm2": areas,
            "markers": (
                _create_marker_prediction("idh", "wild type", areas),
                _create_marker_prediction("ki67", "low", areas),
            ),
            "warnings": ("a warning",),
            "model": ModelIdentity(
                "demo", "ab" * 32, ("T1C", "FLAIR"), "cohort", "CC BY-NC-SA 4.0", "research"
            ),
            "software_version": "0.0.1",
            "seconds": 1.5,
        }
        return Prediction(**(fields | changes))

    return make

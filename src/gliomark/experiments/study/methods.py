"""What the report says of methods: preparation, de-identification, and the training of every network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from gliomark.cohort.store import Cohort
from gliomark.experiments.study.recipes import StudyRecipe
from gliomark.models.registry import find_marker_entry, find_segmentation_entry
from gliomark.training.augmentation import Augmentation
from gliomark.training.recipes import get_cohort_sequences


def describe_preparation(cohort: Cohort) -> str:
    """Describe how the images were prepared, with the cohort's settings."""
    settings, (first, reference) = cohort.preparation, get_cohort_sequences(cohort)
    return (
        f"{first} was aligned rigidly with {reference}. Both were skull-stripped and resampled to "
        f"{settings.size} × {settings.size} pixels of {settings.pixel_mm:g} mm (larger ones for a larger brain) in "
        f"slices at least {settings.step_mm:g} mm apart; intensities inside the brain are z-scores."
    )


def describe_de_identification(cohort: Cohort) -> str:
    """Describe what was done about identifying data, as the cohort states it; empty if it states nothing."""
    privacy: Mapping[str, str] = cohort.metadata.get("privacy") or {}
    return "; ".join(f"{name} {done}" for name, done in privacy.items())


def create_training_table(recipes: Sequence[StudyRecipe]) -> pd.DataFrame:
    """Create a row per recipe and stage: network, its start, and the settings of its training."""
    rows = []
    for recipe in recipes:
        outline, markers = recipe.segmentation.training, recipe.markers
        marker_entry = find_marker_entry(markers.network)
        is_frozen = marker_entry.has_frozen_features
        rows += [
            {
                "recipe": recipe.name,
                "stage": "segmentation",
                "network": find_segmentation_entry(outline.network).name,
                "starts from": _describe_start(outline.imagenet),
                "optimiser": outline.optimiser,
                "learning rate": f"{outline.rate:g}",
                "batch": str(outline.batch),
                "epochs": str(outline.epochs),
                "slices of a patient per epoch": str(outline.slices_per_patient),
                "augmentation": describe_augmentation(outline.augmentation),
            },
            {
                "recipe": recipe.name,
                "stage": "markers",
                "network": marker_entry.name,
                "starts from": _describe_start(markers.imagenet) + (", frozen" if is_frozen else ""),
                "optimiser": "none: linear probe" if is_frozen else "adam",
                "learning rate": "–" if is_frozen else f"{markers.rate:g}",
                "batch": "–" if is_frozen else str(markers.batch),
                "epochs": "–" if is_frozen else str(markers.epochs),
                "slices of a patient per epoch": "–" if is_frozen else str(markers.slices_per_patient),
                "augmentation": "mirror images" if is_frozen else describe_augmentation(markers.augmentation),
            },
        ]
    return pd.DataFrame(rows)


def _describe_start(uses_imagenet: bool) -> str:
    return "ImageNet weights" if uses_imagenet else "random weights"


def describe_augmentation(augmentation: Augmentation) -> str:
    """Describe the random views in words."""
    parts = [f"crops of {augmentation.crop} pixels shifted by up to {augmentation.shift}"]
    if augmentation.quarter_turns:
        parts.append("quarter turns")
    if augmentation.mirror:
        parts.append("mirroring")
    if augmentation.degrees:
        parts.append(f"rotation up to {augmentation.degrees:g}°")
    for name, value in (("zoom", augmentation.zoom), ("brightness and contrast", augmentation.tone)):
        if value:
            parts.append(f"{name} ± {value:g}")
    if augmentation.noise:
        parts.append(f"noise of standard deviation {augmentation.noise:g}")
    return ", ".join(parts)

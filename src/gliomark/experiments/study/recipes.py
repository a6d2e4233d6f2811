"""The recipes that a study trains: settings of the segmentation network and of the marker networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gliomark.experiments.markers.runs import MarkerRun
from gliomark.experiments.segmentation.procedure import SegmentationRun
from gliomark.experiments.segmentation.runs import SHIPPED_EPOCHS
from gliomark.models.entries import Recipe
from gliomark.training.markers import MarkerTrainingConfig, create_marker_config
from gliomark.training.segmentation import (
    INFERENCE_POOLING_FACTOR,
    MIN_COMPONENT_SHARE,
    create_segmentation_config,
)

SEGMENTATION_EPOCHS: Mapping[Recipe, int] = {"published": 200, "small": 60, "pretrained": SHIPPED_EPOCHS}


@dataclass(frozen=True)
class StudyRecipe:
    """A recipe by name: its segmentation run, of the same name, and the training of its marker networks."""

    name: str
    segmentation: SegmentationRun
    markers: MarkerTrainingConfig

    @property
    def marker_run(self) -> MarkerRun:
        """The marker networks as a run of the experiments."""
        return MarkerRun(self.name, self.markers, stacked=True)


def create_study_recipe(name: Recipe, sequence_count: int) -> StudyRecipe:
    """Create a recipe with the settings with which ``gliomark train`` trains it.

    sequence_count: number of sequences of the cohort, which the pretrained recipe joins in one input.
    """
    is_joint = name == "pretrained"
    epochs = SEGMENTATION_EPOCHS[name]
    training = create_segmentation_config(name, sequence_count if is_joint else 1, epochs)
    if is_joint:
        run = SegmentationRun(
            name,
            training,
            "joint",
            flips=True,
            smallest_share=MIN_COMPONENT_SHARE,
            read_pool=INFERENCE_POOLING_FACTOR,
        )
    else:
        run = SegmentationRun(name, training, "union")
    return StudyRecipe(name, run, create_marker_config(name))

"""What a study will take: its steps, with hours estimated from networks that are timed on this machine."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gliomark.cohort.folds import FOLD_COUNT
from gliomark.cohort.store import Cohort
from gliomark.experiments.study.fold_scores import MAX_FOLDS_LEFT_OUT, list_left_out_folds
from gliomark.experiments.study.recipes import StudyRecipe
from gliomark.experiments.study.training import StudyConfig
from gliomark.messages import Message, message
from gliomark.models.network_io import build_mix_input
from gliomark.models.registry import build_segmentation_network, find_marker_entry
from gliomark.training.markers import MarkerTrainingConfig, MarkerTrainingModule
from gliomark.training.recipes import read_labels_and_values
from gliomark.training.segmentation import SegmentationTrainingConfig

TIMED_SLICES = 4
SLICES_PER_PATIENT, LESION_SLICES_PER_PATIENT = 20, 8  # of a prepared patient
BACKWARD_FACTOR = 3.0  # a training step, in forward passes
VALIDATION_SHARE = 0.8  # of the training part is left when a recipe is chosen by its inner patients


@dataclass(frozen=True)
class PlannedStep:
    """A group of like trainings: its name, how many, and the expected seconds of all."""

    name: str
    count: int
    seconds: float


def plan_study(config: StudyConfig) -> list[PlannedStep]:
    """List the trainings of a study with their expected duration on one worker. Nothing is written.

    Raises
    ------
    CohortError
        If the cohort cannot be used, or lacks a marker's column.
    """
    cohort = Cohort(config.cohort_folder)
    outlined = sum(cohort.has_mask(patient) for patient in cohort.patient_ids)
    steps = [one for recipe in config.recipes for one in _plan_segmentation(recipe, outlined, config)]
    steps.append(max((_plan_final(recipe, outlined) for recipe in config.recipes), key=lambda s: s.seconds))
    for definition in config.markers:
        patients = len(read_labels_and_values(cohort, definition)[0])
        for recipe in config.recipes:
            step = _plan_marker(recipe, definition.title, patients)
            steps.append(step)
            if config.permutations:
                steps.append(_repeat_with_permuted_labels(step, config.permutations))
    return steps


def describe_plan(steps: Sequence[PlannedStep]) -> list[Message]:
    """Describe the steps, one a line, and their sum."""
    lines = [
        message("study-plan-step", name=step.name, count=step.count, hours=step.seconds / 3600)
        for step in steps
    ]
    total = sum(step.seconds for step in steps) / 3600
    return [*lines, message("study-plan-total", count=sum(step.count for step in steps), hours=total)]


def _plan_segmentation(recipe: StudyRecipe, patients: int, config: StudyConfig) -> list[PlannedStep]:
    share = 1 - 1 / FOLD_COUNT
    training = share * patients * _time_segmentation_training(recipe)
    inference = (
        patients * SLICES_PER_PATIENT * _time_segmentation(recipe) * (2 if recipe.segmentation.flips else 1)
    )
    # outlined to measure Dice, and once more to score markers
    steps = [PlannedStep(f"segmentation, {recipe.name}", FOLD_COUNT, FOLD_COUNT * training + 2 * inference)]
    if len(config.recipes) > 1:
        seconds = FOLD_COUNT * VALIDATION_SHARE * training + share * inference
        steps.append(PlannedStep(f"segmentation, {recipe.name}, inner patients", FOLD_COUNT, seconds))
    return steps


def _plan_final(recipe: StudyRecipe, patients: int) -> PlannedStep:
    return PlannedStep("segmentation, final network", 1, patients * _time_segmentation_training(recipe))


def _plan_marker(recipe: StudyRecipe, title: str, patients: int) -> PlannedStep:
    """Plan the networks that leave out none, one, two or three folds, and the vectors of the patients left out."""
    left_out_folds = list_left_out_folds()
    trained = sum(1 - len(left_out) / FOLD_COUNT for left_out in left_out_folds) * patients
    scored = sum(len(left_out) / FOLD_COUNT for left_out in left_out_folds) * MAX_FOLDS_LEFT_OUT * patients
    forward, training = _time_marker(recipe.markers), recipe.markers
    if find_marker_entry(training.network).has_frozen_features:
        slices = 2 * LESION_SLICES_PER_PATIENT * trained  # and their mirror images
    else:
        slices = BACKWARD_FACTOR * training.epochs * training.slices_per_patient * trained
    seconds = forward * (slices + LESION_SLICES_PER_PATIENT * scored)
    return PlannedStep(f"{title}, {recipe.name}", len(left_out_folds), seconds)


def _repeat_with_permuted_labels(step: PlannedStep, permutations: int) -> PlannedStep:
    """Plan the networks of a marker with permuted labels; none of them is trained on all patients."""
    return PlannedStep(
        f"{step.name}, permuted labels", permutations * (step.count - 1), permutations * step.seconds
    )


def _time_segmentation_training(recipe: StudyRecipe) -> float:
    """Estimate the seconds of training per patient."""
    training = recipe.segmentation.training
    return training.epochs * training.slices_per_patient * BACKWARD_FACTOR * _time_segmentation(recipe)


@functools.cache
def _time_segmentation(recipe: StudyRecipe) -> float:
    """Measure the seconds of a forward pass per slice, on random slices."""
    config: SegmentationTrainingConfig = recipe.segmentation.training
    network = build_segmentation_network(config.network, torch.rand(240, 240)).eval()
    side = config.view_size
    images = torch.rand(TIMED_SLICES, config.network.inputs, side, side)
    theta = torch.eye(2, 3).expand(TIMED_SLICES, -1, -1) * (config.augmentation.crop / 240)
    return _time_per_slice(network, images, theta)


def _time_marker(config: MarkerTrainingConfig) -> float:
    """Measure the seconds of a forward pass per slice, on random slices."""
    side = config.augmentation.crop
    network = MarkerTrainingModule(replace(config, imagenet=False)).network.eval()
    images = torch.rand(2, TIMED_SLICES, side, side)
    return _time_per_slice(
        network, build_mix_input(images[0], images[1], torch.ones(TIMED_SLICES, side, side))
    )


def _time_per_slice(network: torch.nn.Module, *inputs: torch.Tensor) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, arguments = network.to(device), [one.to(device) for one in inputs]

    def run() -> Any:
        with torch.inference_mode():
            network(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return _time_second_call(run) / TIMED_SLICES


def _time_second_call(call: Callable[[], Any]) -> float:
    """Return the seconds of the second call; the first one allocates memory."""
    call()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started

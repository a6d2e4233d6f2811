"""The trainings of a study in their order; every finished one is kept under ``STUDY/work`` and not repeated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from gliomark.cohort.folds import FOLD_COUNT, folds_excluding, load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import ConfigurationError
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.demonstration import train_final_segmentation_network
from gliomark.experiments.markers.cascade import CascadeProcedure, get_cascade_folder, load_cascade_labels
from gliomark.experiments.runner import complete_jobs
from gliomark.experiments.segmentation.procedure import (
    SegmentationFold,
    SegmentationProcedure,
    split_training_part,
)
from gliomark.experiments.study.checks import can_study_labels
from gliomark.experiments.study.fold_scores import FoldScoreProcedure, FoldScores, list_network_jobs
from gliomark.experiments.study.recipes import StudyRecipe
from gliomark.messages import message
from gliomark.models.weights import Weights
from gliomark.training.recipes import MarkerDefinition, TrainedMarker, read_labels_and_values, train_marker

MIN_PERMUTATIONS = 3  # for an interval of their mean


@dataclass(frozen=True)
class StudyConfig:
    """What a study consists of, and where it reads and writes.

    Attributes
    ----------
    cohort_folder, output_folder
        The prepared cohort; the folder of weights, predictions and report.
    markers
        The markers to be predicted.
    recipes
        The recipes; of several, the inner folds choose.
    different_persons
        Pairs of ids that look like one person and are known to be two.
    permutations
        How often every marker is studied with its labels permuted among the patients.
    workers, scheduler
        See ``training.job_runner.run_jobs``.
    notify
        Called with a message after every step.

    Raises
    ------
    ConfigurationError
        If markers or recipes are missing or repeated.
    """

    cohort_folder: Path
    output_folder: Path
    markers: tuple[MarkerDefinition, ...]
    recipes: tuple[StudyRecipe, ...]
    different_persons: frozenset[frozenset[str]] = frozenset()
    permutations: int = 0
    workers: int | None = 0
    scheduler: str | None = None
    notify: Callable[[str], None] = print

    def __post_init__(self) -> None:
        for names in ([one.name for one in self.markers], [one.name for one in self.recipes]):
            if not names or len(set(names)) < len(names):
                raise ConfigurationError(message("study-choices", names=", ".join(names) or "–"))

    @property
    def experiment(self) -> ExperimentConfig:
        """The configuration of the experiments whose procedures the study uses."""
        return ExperimentConfig(
            (self.cohort_folder,), self.output_folder, "study", self.workers, self.scheduler, self.notify
        )


@dataclass(frozen=True, eq=False)
class RecipeChoice:
    """The recipe of every fold, chosen without its patients, and that of the final model.

    inner_scores: by recipe, the score of every fold's training part; empty if there is a single recipe.
    """

    by_fold: tuple[StudyRecipe, ...]
    final: StudyRecipe
    inner_scores: Mapping[str, Sequence[float]]


@dataclass(frozen=True, eq=False)
class SegmentationStage:
    """Finished segmentation networks: every recipe's folds, the choice among them, and the final network."""

    folds: Mapping[str, Sequence[SegmentationFold]]
    choice: RecipeChoice
    final: Weights

    def tabulate_patients(self) -> pd.DataFrame:
        """Tabulate the scores of the test patients: a row per recipe and patient."""
        rows = [
            {"recipe": name, "fold": number, "is_chosen": self.choice.by_fold[number - 1].name == name, **row}
            for name, folds in self.folds.items()
            for number, fold in enumerate(folds, start=1)
            for row in fold.patients
        ]
        return pd.DataFrame(rows).rename(columns={"patient": "id"})


@dataclass(frozen=True, eq=False)
class MarkerScores:
    """Scores of a marker's test patients by every recipe's folds, and the recipe of each fold."""

    marker: str
    folds: Mapping[str, Sequence[FoldScores]]
    choice: RecipeChoice

    def tabulate(self) -> pd.DataFrame:
        """Tabulate the test patients: a row per recipe and patient; ``is_chosen``: of the recipe of the fold."""
        rows = [
            {
                "marker": self.marker,
                "recipe": name,
                "is_chosen": self.choice.by_fold[number].name == name,
                "calibration": fold.calibration,
                **row,
            }
            for name, folds in self.folds.items()
            for number, fold in enumerate(folds)
            for row in fold.patients
        ]
        return pd.DataFrame(rows).astype({"raw_probability": float, "probability": float})


@dataclass(frozen=True, eq=False)
class MarkerStage:
    """A marker that was studied: its scores, the final model, and the scores with permuted labels by seed."""

    scores: MarkerScores
    final: TrainedMarker
    permuted: Mapping[int, MarkerScores]


def choose_recipes(
    recipes: Sequence[StudyRecipe], inner_scores: Mapping[str, Sequence[float]]
) -> RecipeChoice:
    """Choose by the scores of the training parts: for every fold by its own, for the final model by their mean.

    inner_scores: one score per fold, by recipe; empty if there is a single recipe. Of equal recipes the first is
    chosen, and an undefined score loses.
    """
    if len(recipes) == 1:
        return RecipeChoice((recipes[0],) * FOLD_COUNT, recipes[0], {})
    scores = {name: np.nan_to_num(np.array(one, float), nan=-1.0) for name, one in inner_scores.items()}
    by_fold = tuple(
        max(recipes, key=lambda recipe: float(scores[recipe.name][number])) for number in range(FOLD_COUNT)
    )
    final = max(recipes, key=lambda recipe: float(scores[recipe.name].mean()))
    return RecipeChoice(by_fold, final, inner_scores)


def train_segmentation_stage(config: StudyConfig) -> SegmentationStage:
    """Train and test the segmentation networks of all folds, choose a recipe, and train the final network.

    Raises
    ------
    CohortError
        If the cohort cannot be used, or the work folder holds networks of another study.
    """
    folds = _complete_segmentation(config, SegmentationProcedure(), "")
    inner_dice: dict[str, Sequence[float]] = {}
    if len(config.recipes) > 1:
        inner_folds = _complete_segmentation(
            config, SegmentationProcedure(split_patients=split_training_part), ", inner patients"
        )
        inner_dice = {name: [_compute_mean_dice(one) for one in found] for name, found in inner_folds.items()}
    choice = choose_recipes(config.recipes, inner_dice)
    final = train_final_segmentation_network(choice.final.segmentation, config.experiment)
    return SegmentationStage(folds, choice, final)


def _complete_segmentation(
    config: StudyConfig, procedure: SegmentationProcedure, name_ending: str
) -> dict[str, list[SegmentationFold]]:
    """Complete the folds of every recipe; name_ending: of the runs, and so of their work folders."""
    experiment = config.experiment
    runs = {
        recipe.name: replace(recipe.segmentation, name=recipe.segmentation.name + name_ending)
        for recipe in config.recipes
    }
    jobs = procedure.list_jobs(list(runs.values()), FOLD_COUNT, experiment)
    finished = complete_jobs(jobs, procedure, experiment)
    return {
        name: [one.result for job, one in finished.items() if job.run == run] for name, run in runs.items()
    }


def _compute_mean_dice(fold: SegmentationFold) -> float:
    values = [row["dice"] for row in fold.patients if row["dice"] is not None]
    return float(np.mean(values)) if values else float("nan")


def train_marker_stage(
    config: StudyConfig, definition: MarkerDefinition, segmentation: SegmentationStage
) -> MarkerStage:
    """Train a marker's networks, score the test patients of all folds, choose a recipe, and fit the final model.

    Raises
    ------
    CohortError
        If a part of the folds has too few patients, or the work folder holds networks of another study.
    """
    scores = _score_folds(config, definition, segmentation)
    cohort = Cohort(config.cohort_folder)
    final = train_marker(
        cohort,
        folds_excluding(load_cohort_folds(cohort), None),
        definition,
        *read_labels_and_values(cohort, definition),
        scores.choice.final.markers,
        get_cascade_folder(config.experiment.work_folder),
    )
    seeds = list_permutation_seeds(cohort, definition, config.permutations)
    permuted = {seed: _score_folds(config, definition, segmentation, seed) for seed in seeds}
    return MarkerStage(scores, final, permuted)


def _score_folds(
    config: StudyConfig,
    definition: MarkerDefinition,
    segmentation: SegmentationStage,
    permutation_seed: int = 0,
) -> MarkerScores:
    """Train the networks of every recipe's folds, score their test patients, and choose a recipe."""
    experiment, runs = config.experiment, [recipe.marker_run for recipe in config.recipes]
    networks = list_network_jobs(runs, experiment, has_final=not permutation_seed)
    complete_jobs(networks, CascadeProcedure(definition, permutation_seed), experiment)
    outlines = tuple(recipe.segmentation for recipe in segmentation.choice.by_fold)
    procedure = FoldScoreProcedure(definition, outlines, permutation_seed)
    finished = complete_jobs(procedure.list_jobs(runs, FOLD_COUNT, experiment), procedure, experiment)
    folds = {run.name: [one.result for job, one in finished.items() if job.run == run] for run in runs}
    inner_auc = {name: [one.inner_auc for one in found] for name, found in folds.items()}
    return MarkerScores(definition.name, folds, choose_recipes(config.recipes, inner_auc))


def list_permutation_seeds(cohort: Cohort, definition: MarkerDefinition, count: int) -> list[int]:
    """List the first seeds, from 1, whose permutation leaves both classes when any three folds are left out."""
    folds, seeds = load_cohort_folds(cohort), itertools.count(1)
    suitable = (
        seed for seed in seeds if can_study_labels(load_cascade_labels(cohort, definition, seed)[0], folds)
    )
    return list(itertools.islice(suitable, count))

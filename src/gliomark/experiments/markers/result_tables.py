"""Rows of chapter 4's tables: statistics of the scores of named runs.

The patients of fold k are scored by models that were not trained on them. Statistics are computed over the test
patients of all folds together, with intervals by bootstrap over patients (whole patients are drawn, with all their
slices). The threshold of a fold maximises Youden's index over the patients of all other folds, each scored by
models that were not trained on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.evaluation.delong import compute_delong_test
from gliomark.evaluation.intervals import bootstrap_cluster_intervals
from gliomark.evaluation.metrics import auc, compute_threshold_metrics, compute_youden_threshold
from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers.procedure import MarkerNetwork, MarkerProcedure, load_marker_data
from gliomark.experiments.markers.runs import MarkerPreset, MarkerRun, ScoringMethod, get_marker_preset
from gliomark.experiments.markers.scoring import TrainedMarkerRuns, fuse_patient_scores, score_slices
from gliomark.experiments.runner import (
    ExperimentResult,
    PublishedValues,
    ResultRows,
    ResultTable,
    prepare_nothing,
)
from gliomark.study import MRSequence
from gliomark.training.recipes import MarkerDefinition, get_cohort_sequences
from gliomark.training.work_folder import to_config_record

MarkerResult: TypeAlias = ExperimentResult[MarkerRun, MarkerNetwork]
STATISTICS = ("accuracy", "sensitivity", "specificity", "auc", "kappa")


# ---- statistics ---------------------------------------------------------------------------------------


def apply_fold_thresholds(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with the threshold of their fold in a column ``threshold``.

    It maximises Youden's index on the scores of the other folds, which are out of fold and of all learning patients,
    or is 0.5 if these are all of one class. No score or label of the fold's own patients enters it, but the models that
    scored the other folds have seen these patients in training.
    """
    thresholds = {}
    for fold in scores["fold"].unique():
        others = scores[scores["fold"] != fold]
        both = others["label"].nunique() == 2
        thresholds[fold] = compute_youden_threshold(others["label"], others["probability"]) if both else 0.5
    return scores.assign(threshold=scores["fold"].map(thresholds))


def compute_statistics(scores: pd.DataFrame) -> dict[str, float]:
    """Compute accuracy, sensitivity, specificity, AUC and kappa with 95 % intervals.

    The first three are also given at a threshold of 0.5 (columns ``*_at_half``). majority_accuracy: the accuracy of
    always choosing the more frequent class.
    """

    def compute_sample_statistics(
        label: NDArray[Any], probability: NDArray[Any], threshold: NDArray[Any]
    ) -> Mapping[str, float]:
        at_threshold_values = compute_threshold_metrics(label, probability, threshold)
        at_half_values = {
            f"{name}_at_half": v
            for name, v in compute_threshold_metrics(label, probability, 0.5).items()
            if name != "kappa"
        }
        return {**at_threshold_values, "auc": auc(label, probability), **at_half_values}

    columns = [scores[name].to_numpy() for name in ("label", "probability", "threshold")]
    intervals = bootstrap_cluster_intervals(compute_sample_statistics, scores["patient"], *columns)
    positive_share = float(scores["label"].mean())
    row: dict[str, float] = {}
    for name in STATISTICS:
        one = intervals[name]
        row |= {name: one.value, f"{name}_low_95": one.lower, f"{name}_high_95": one.upper}
        if name == "accuracy":
            row["majority_accuracy"] = max(positive_share, 1 - positive_share)
    return row | {name: one.value for name, one in intervals.items() if name.endswith("_at_half")}


def summarise_scores(level: str, scores: pd.DataFrame) -> dict[str, float | str]:
    """Summarise scores in one table row: level, numbers of patients and rows, and the statistics."""
    patients = scores.drop_duplicates("patient")
    counts: dict[str, float | str] = {
        "level": level,
        "patients": len(patients),
        "positive": int(patients["label"].sum()),
        "rows": len(scores),
    }
    return counts | compute_statistics(apply_fold_thresholds(scores))


def compare_patient_auc(scores: pd.DataFrame, reference_scores: pd.DataFrame) -> dict[str, float]:
    """Compute the difference of two methods' AUC on their common patients, and p by DeLong's test."""
    one, other = (t.set_index("patient") for t in (scores, reference_scores))
    both = one.index.intersection(other.index)
    test = compute_delong_test(
        one.loc[both, "label"], one.loc[both, "probability"], other.loc[both, "probability"]
    )
    return {"auc_above_first": test.difference.value, "delong_p": test.p}


def summarise_method(slice_scores: pd.DataFrame) -> dict[str, float | str]:
    """Summarise a method at slice level, as published, with its AUC at patient level (near) in further columns."""
    near = summarise_scores("near", fuse_patient_scores(slice_scores, "near"))
    near_statistics = {f"near_{name}": near[name] for name in ("auc", "auc_low_95", "auc_high_95")}
    return {
        "reading": slice_scores["reading"].iloc[0],
        **summarise_scores("slice", slice_scores),
        **near_statistics,
    }


# ---- shared by all tables ---------------------------------------------------------------------------------


def load_trained_runs(
    result: MarkerResult,
    definition: MarkerDefinition,
    features: Mapping[str, NDArray[np.float64]] | None = None,
) -> TrainedMarkerRuns:
    """Load the data to score the finished networks; features: radiomics features ``(F,)`` by patient."""
    cohort, work_folder = result.config.cohort_folders[0], result.config.work_folder
    runs = {run.name: run for run in result.runs}
    return TrainedMarkerRuns(
        runs, definition, cohort, work_folder, load_marker_data(cohort, definition), features
    )


def tabulate_methods(methods: Sequence[ScoringMethod], trained_runs: TrainedMarkerRuns) -> ResultRows:
    """Score and summarise methods; the scores behind the rows are those of the slices."""
    scores = [score_slices(method, trained_runs) for method in methods]
    rows = pd.DataFrame([summarise_method(one) for one in scores])
    return create_result_rows(rows, pd.concat(scores, ignore_index=True))


def create_result_rows(rows: pd.DataFrame, slice_scores: pd.DataFrame) -> ResultRows:
    """Write the patients (near) beside the rows."""
    return ResultRows(rows, {"_patients": fuse_patient_scores(slice_scores, "near")}, slice_scores)


def create_marker_table(
    name: str,
    definition: MarkerDefinition,
    list_runs: Callable[[MarkerPreset, tuple[MRSequence, ...]], Sequence[MarkerRun]],
    create_rows: Callable[[MarkerResult], ResultRows],
    published: PublishedValues | None = None,
    prepare: Callable[[ExperimentConfig], None] = prepare_nothing,
    plots: tuple[Callable[[MarkerResult, ResultRows], Sequence[Path]], ...] = (),
) -> ResultTable[MarkerRun, MarkerNetwork]:
    """Create a table of one marker; marker, cohort and preset are columns of every row."""
    return ResultTable(
        name,
        MarkerProcedure(definition),
        lambda preset, sequences: list_runs(get_marker_preset(preset), sequences),
        create_rows,
        lambda result: _describe_run(result, definition),
        lambda result: _create_details(result, definition),
        lambda preset: get_marker_preset(preset).reductions,
        suffix=f"_{definition.name}",
        published=published,
        prepare=prepare,
        plots=plots,
    )


def _describe_run(result: MarkerResult, definition: MarkerDefinition) -> dict[str, Any]:
    """Columns of every row."""
    config = result.config
    cohort = Cohort(config.cohort_folders[0])
    return {
        "marker": definition.name,
        "cohort": config.cohort_names[0],
        "sequences": "+".join(get_cohort_sequences(cohort)),
        "folds": len(load_cohort_folds(cohort).folds),
        "preset": config.preset,
        "cuts": get_marker_preset(config.preset).reductions,
    }


def _create_details(result: MarkerResult, definition: MarkerDefinition) -> dict[str, Any]:
    """Create the entries of the run record: marker, runs, every network, and the patients of the folds."""
    data = load_marker_data(result.config.cohort_folders[0], definition)
    seed = result.runs[0].training.seed
    return {
        "definition": asdict(definition),
        "folds_sha256": data.folds.sha256,
        "trials": [{**asdict(run), "training": to_config_record(run.training)} for run in result.runs],
        "training_seconds": sum(finished.seconds for finished in result.finished.values()),
        "networks": [
            {"trial": job.run.name, "left_out": [index + 1 for index in job.excluded_folds]}
            | asdict(finished.result)
            | {"seconds": finished.seconds}
            for job, finished in result.finished.items()
        ],
        "splits": [asdict(data.split_fold(index, seed)) for index in range(len(data.folds.folds))],
    }


def format_plot_title(result: MarkerResult, definition: MarkerDefinition) -> str:
    """Format the title of a plot: marker, cohort and preset."""
    return f"{definition.title}, {result.config.cohort_names[0]}, preset {result.config.preset}"


def get_plot_path(result: MarkerResult, definition: MarkerDefinition, name: str) -> Path:
    """Return the path of a plot in the output folder."""
    return result.config.output_folder / f"{name}_{definition.name}.png"

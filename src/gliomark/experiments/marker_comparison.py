"""Variants of KiNet's second stage compared with radiomics and with age and sex alone, at patient level (near).

Each method is compared with the first by DeLong's test on their common patients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.markers.procedure import MarkerNetwork
from gliomark.experiments.markers.radiomics import compute_cohort_features
from gliomark.experiments.markers.result_tables import (
    MarkerResult,
    compare_patient_auc,
    create_marker_table,
    create_result_rows,
    load_trained_runs,
    summarise_scores,
)
from gliomark.experiments.markers.runs import (
    MarkerPreset,
    MarkerRun,
    list_comparison_methods,
    list_table_4_4_runs,
)
from gliomark.experiments.markers.scoring import fuse_patient_scores, score_slices
from gliomark.experiments.runner import ResultRows, ResultTable
from gliomark.study import MRSequence
from gliomark.training.recipes import MarkerDefinition


def compute_features(config: ExperimentConfig) -> dict[str, NDArray[np.float64]]:
    """Compute the radiomics features ``(F,)`` of every patient, or load them if they are already stored."""
    return compute_cohort_features(
        config.cohort_folders[0], config.work_folder, config.workers, config.notify
    )


def list_runs(preset: MarkerPreset, _: Sequence[MRSequence]) -> list[MarkerRun]:
    """List the runs of table 4-4 whose networks a method uses."""
    used_names = {name for method in list_comparison_methods() for name in method.run_names}
    return [run for run in list_table_4_4_runs(preset) if run.name in used_names]


def create_table(definition: MarkerDefinition) -> ResultTable[MarkerRun, MarkerNetwork]:
    """Create the table of a marker."""

    def create_rows(result: MarkerResult) -> ResultRows:
        trained_runs = load_trained_runs(result, definition, compute_features(result.config))
        methods = list_comparison_methods()
        slices = [score_slices(method, trained_runs) for method in methods]
        patients = [fuse_patient_scores(scores, "near") for scores in slices]
        rows = [
            {
                "reading": method.name,
                **summarise_scores("near", scores),
                **compare_patient_auc(scores, patients[0]),
            }
            for method, scores in zip(methods, patients, strict=True)
        ]
        return create_result_rows(pd.DataFrame(rows), pd.concat(slices, ignore_index=True))

    return create_marker_table("marker_comparison", definition, list_runs, create_rows, prepare=_prepare)


def _prepare(config: ExperimentConfig) -> None:
    """Compute the features before the training, which takes longer."""
    compute_features(config)

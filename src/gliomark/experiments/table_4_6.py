"""Table 4-6: slice level, and patient level by the fusion rules all, near and large, with figure 4-8."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gliomark.experiments.markers.plots import plot_figure_4_8
from gliomark.experiments.markers.procedure import MarkerNetwork
from gliomark.experiments.markers.result_tables import (
    STATISTICS,
    MarkerResult,
    create_marker_table,
    create_result_rows,
    format_plot_title,
    get_plot_path,
    load_trained_runs,
    summarise_scores,
)
from gliomark.experiments.markers.runs import KINET_WITH_LIGHTGBM, MarkerRun, list_table_4_4_runs
from gliomark.experiments.markers.scoring import fuse_patient_scores, score_slices
from gliomark.experiments.runner import PublishedValues, ResultRows, ResultTable
from gliomark.inference.fusion import FusionRule
from gliomark.training.recipes import MarkerDefinition

FUSION_RULES: tuple[FusionRule, ...] = ("all", "near", "large")
# from a private cohort with stained Ki-67
PUBLISHED = PublishedValues(
    key_column="level",
    columns=STATISTICS[:4],
    values={
        "slice": (0.752, 0.755, 0.749, 0.788),
        "all": (0.789, 0.809, 0.778, 0.824),
        "near": (0.821, 0.819, 0.810, 0.857),
        "large": (0.813, 0.827, 0.802, 0.840),
    },
    source="thesis, table 4-6",
)


def create_table(definition: MarkerDefinition) -> ResultTable[MarkerRun, MarkerNetwork]:
    """Create the table of a marker: one row per level."""

    def create_rows(result: MarkerResult) -> ResultRows:
        slices = score_slices(KINET_WITH_LIGHTGBM, load_trained_runs(result, definition))
        levels = {"slice": slices} | {str(rule): fuse_patient_scores(slices, rule) for rule in FUSION_RULES}
        rows = [
            {"reading": KINET_WITH_LIGHTGBM.name, **summarise_scores(level, scores)}
            for level, scores in levels.items()
        ]
        return create_result_rows(pd.DataFrame(rows), slices)

    def plot_figure(result: MarkerResult, created: ResultRows) -> list[Path]:
        tests = {str(rule): fuse_patient_scores(created.scores, rule) for rule in FUSION_RULES}
        title, path = (
            format_plot_title(result, definition),
            get_plot_path(result, definition, "figure_4_8"),
        )
        return [plot_figure_4_8(tests, title, path)]

    return create_marker_table(
        "table_4_6",
        definition,
        lambda preset, _: [
            run for run in list_table_4_4_runs(preset) if run.name in KINET_WITH_LIGHTGBM.run_names
        ],
        create_rows,
        PUBLISHED,
        plots=(plot_figure,),
    )

"""Table 3-1: segmentation by MIG-Net and its comparison networks, each compared with the best other one."""

from __future__ import annotations

from pathlib import Path

from gliomark.experiments.runner import PublishedValues, ResultRows, ResultTable
from gliomark.experiments.segmentation.plots import plot_segmentation_figures
from gliomark.experiments.segmentation.procedure import (
    SegmentationFold,
    SegmentationProcedure,
    SegmentationRun,
)
from gliomark.experiments.segmentation.result_tables import (
    SegmentationResult,
    create_details,
    create_result_rows,
    describe_run,
    tabulate_result,
    tabulate_runs,
)
from gliomark.experiments.segmentation.runs import (
    MIGNET,
    SWIN_UNET,
    describe_reductions,
    get_segmentation_preset,
    list_table_3_1_runs,
)

# Dice and Hausdorff distance in pixels, from another cohort
PUBLISHED = PublishedValues(
    key_column="trial",
    columns=("dice", "hausdorff"),
    values={
        "U-Net": (0.8316, 36.70),
        "TransUNet": (0.8484, 28.69),
        SWIN_UNET: (0.8692, 21.54),
        MIGNET: (0.9056, 15.34),
    },
    source="thesis, table 3-1",
    inserted_after="tested_on",
)


def create_rows(result: SegmentationResult) -> ResultRows:
    """Tabulate all runs, each compared with the best comparison network."""
    patients = tabulate_result(result)
    comparison_runs = [run.name for run in result.runs if run.name != MIGNET]
    rows = tabulate_runs(result.runs, patients, comparison_runs, result.config.cohort_names[0])
    return create_result_rows(result, rows, patients)


def plot_figures(result: SegmentationResult, rows: ResultRows) -> list[Path]:
    """Plot figures 3-1 and 3-8 and the learnt guidance."""
    config = result.config
    return plot_segmentation_figures(
        result.runs[-1], result.runs, config.cohort_folders[0], rows.scores, config.output_folder
    )


TABLE: ResultTable[SegmentationRun, SegmentationFold] = ResultTable(
    name="table_3_1",
    procedure=SegmentationProcedure(),
    list_runs=lambda preset, _: list_table_3_1_runs(get_segmentation_preset(preset)),
    create_rows=create_rows,
    describe_run=describe_run,
    create_details=create_details,
    describe_reductions=describe_reductions,
    published=PUBLISHED,
    plots=(plot_figures,),
)

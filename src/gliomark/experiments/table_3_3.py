"""Table 3-3: MIG-Net trained on one cohort, on the other and on both, tested on either.

The networks of fold k are tested on fold k of both cohorts, so that every patient is tested once per run. Cohorts that
are not trained on are tested by the networks of the first fold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from gliomark.errors import ConfigurationError
from gliomark.experiments.config import ExperimentConfig, get_cohort_name
from gliomark.experiments.runner import ResultRows, ResultTable
from gliomark.experiments.segmentation.plots import compute_mean_prior, plot_figure_3_1
from gliomark.experiments.segmentation.procedure import (
    SegmentationFold,
    SegmentationProcedure,
    SegmentationRun,
)
from gliomark.experiments.segmentation.result_tables import (
    SegmentationResult,
    check_compatible_cohorts,
    create_details,
    create_result_rows,
    describe_run,
    evaluate_test_only_cohorts,
    tabulate_result,
    tabulate_runs,
)
from gliomark.experiments.segmentation.runs import (
    MIGNET,
    describe_reductions,
    get_segmentation_preset,
    list_table_3_3_runs,
)

TRAINED_ON, TESTED_ON = ("own", "other", "both"), ("own", "other")
# Dice by the cohort trained on and the cohort tested on (thesis, table 3-3), from other cohorts
PUBLISHED_DICE = {
    ("own", "own"): 0.9056,
    ("own", "other"): 0.8623,
    ("other", "own"): 0.8264,
    ("other", "other"): 0.9373,
    ("both", "own"): 0.9120,
    ("both", "other"): 0.9208,
}


def check_cohorts(config: ExperimentConfig) -> None:
    """Check that there are two cohorts that can be compared.

    Raises
    ------
    ConfigurationError
        If the second cohort is missing.
    CohortError
        If two cohorts have the same name or different sequences, or a cohort has no masks.
    """
    if len(config.cohort_folders) != 2:
        raise ConfigurationError("Table 3-3 needs two cohorts; give the other one with --second-cohort.")
    check_compatible_cohorts(config, get_segmentation_preset(config.preset).rule)


def create_rows(result: SegmentationResult) -> ResultRows:
    """Tabulate every run on every tested cohort; MIG-Net of table 3-1 lends its networks and has no row."""
    config, runs = result.config, result.runs[1:]
    patients = tabulate_result(result)
    patients = pd.concat(
        [patients[patients["trial"] != MIGNET], *evaluate_test_only_cohorts(runs, config)], ignore_index=True
    )
    tested_names = [*config.cohort_names, *map(get_cohort_name, config.test_only_cohorts)]
    rows = pd.concat([tabulate_runs(runs, patients, (), name) for name in tested_names], ignore_index=True)
    trained_on = dict(zip([run.name for run in runs], TRAINED_ON, strict=True))
    tested_on = dict(zip(config.cohort_names, TESTED_ON, strict=True))
    published = [
        PUBLISHED_DICE.get((trained_on[run], tested_on.get(cohort, "")), np.nan)
        for run, cohort in zip(rows["trial"], rows["tested_on"], strict=True)
    ]
    rows.insert(2, "published_dice", published)
    return create_result_rows(result, rows, patients)


def plot_priors(result: SegmentationResult, _: ResultRows) -> list[Path]:
    """Plot the focus prior of both cohorts, as in figure 3-1."""
    own, _first, second, _both = result.runs
    priors = {
        cohort: compute_mean_prior([job for job in result.finished if job.run == run])
        for cohort, run in zip(result.config.cohort_names, (own, second), strict=True)
    }
    return [plot_figure_3_1(priors, result.config.output_folder / "figure_3_1_cohorts.png")]


TABLE: ResultTable[SegmentationRun, SegmentationFold] = ResultTable(
    name="table_3_3",
    # MIG-Net alone has the folds of table 3-1
    procedure=SegmentationProcedure(first_cohort_runs=(MIGNET,)),
    list_runs=lambda preset, _: list_table_3_3_runs(get_segmentation_preset(preset)),
    create_rows=create_rows,
    describe_run=describe_run,
    create_details=create_details,
    describe_reductions=describe_reductions,
    prepare=check_cohorts,
    plots=(plot_priors,),
)

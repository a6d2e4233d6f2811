"""Table 4-4: ResNet-50, ResNeSt-50, CentralNet, KiNet and lesion-pooled features, with figures 4-6 and 4-7."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gliomark.experiments.markers.plots import plot_figure_4_6, plot_figure_4_7
from gliomark.experiments.markers.procedure import MarkerNetwork
from gliomark.experiments.markers.result_tables import (
    STATISTICS,
    MarkerResult,
    create_marker_table,
    format_plot_title,
    get_plot_path,
    load_trained_runs,
    tabulate_methods,
)
from gliomark.experiments.markers.runs import (
    KINET_WITH_LIGHTGBM,
    MarkerRun,
    get_marker_preset,
    list_table_4_4_methods,
    list_table_4_4_runs,
)
from gliomark.experiments.runner import PublishedValues, ResultRows, ResultTable
from gliomark.training.losses import BMS_ALPHA, BMS_BETA
from gliomark.training.recipes import MarkerDefinition

# from a private cohort with stained Ki-67
PUBLISHED = PublishedValues(
    key_column="reading",
    columns=STATISTICS,
    values={
        "ResNet-50": (0.691, 0.693, 0.689, 0.724, 0.422),
        "ResNeSt-50": (0.724, 0.734, 0.715, 0.764, 0.451),
        "CentralNet": (0.725, 0.745, 0.705, 0.762, 0.450),
        KINET_WITH_LIGHTGBM.name: (0.752, 0.755, 0.749, 0.788, 0.472),
    },
    source="thesis, table 4-4",
)


# weights of the BMS loss: of the first sequence, the master and the second; of the master's stages and final output
LOSS_WEIGHT_COLUMNS = (
    "alpha_first",
    "alpha_master",
    "alpha_second",
    *(f"beta_{stage}" for stage in range(1, 5)),
    "beta_cat",
)


def compute_loss_weights(result: MarkerResult, run_name: str) -> tuple[float, ...]:
    """Return the weights of a run's BMS loss, learnt ones as the mean over folds; nan for another loss."""
    learnt = [finished.result.loss_weights for finished in result.list_finished(run_name)]
    rows = [(*weights["alpha"], *weights["beta"]) for weights in learnt if weights]
    if rows:
        return tuple(np.mean(rows, axis=0).tolist())
    (run,) = (run for run in result.runs if run.name == run_name)
    is_set = run.training.loss == "bms"
    return (*BMS_ALPHA, *BMS_BETA) if is_set else (np.nan,) * len(LOSS_WEIGHT_COLUMNS)


def create_table(definition: MarkerDefinition) -> ResultTable[MarkerRun, MarkerNetwork]:
    """Create the table of a marker."""

    def create_rows(result: MarkerResult) -> ResultRows:
        methods = list_table_4_4_methods(get_marker_preset(result.config.preset))
        created = tabulate_methods(methods, load_trained_runs(result, definition))
        created.rows["million_parameters"] = [
            result.list_finished(method.run_names[0])[0].result.million_parameters for method in methods
        ]
        created.rows[list(LOSS_WEIGHT_COLUMNS)] = [
            compute_loss_weights(result, method.run_names[0]) for method in methods
        ]
        return created

    def plot_figures(result: MarkerResult, created: ResultRows) -> list[Path]:
        networks = [finished.result for finished in result.finished.values()]
        weights = np.array([network.fusion_weights for network in networks if network.fusion_weights])
        title, slices = format_plot_title(result, definition), created.scores
        sequences = load_trained_runs(result, definition).sequences
        roc_path, weights_path = (
            get_plot_path(result, definition, name) for name in ("figure_4_6", "figure_4_7")
        )
        return [
            plot_figure_4_6(slices, title, roc_path),
            plot_figure_4_7(weights, title, sequences, weights_path),
        ]

    return create_marker_table(
        "table_4_4",
        definition,
        lambda preset, _: list_table_4_4_runs(preset),
        create_rows,
        PUBLISHED,
        plots=(plot_figures,),
    )

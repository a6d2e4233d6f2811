"""Table 4-2: ResNet-50 on one sequence, with the slice (IMG), the lesion alone (ROI) or both (MIX), and figure 4-2."""

from __future__ import annotations

from pathlib import Path

from gliomark.experiments.markers.plots import plot_figure_4_2
from gliomark.experiments.markers.procedure import MarkerNetwork
from gliomark.experiments.markers.result_tables import (
    STATISTICS,
    MarkerResult,
    create_marker_table,
    load_trained_runs,
    tabulate_methods,
)
from gliomark.experiments.markers.runs import (
    MarkerRun,
    ScoringMethod,
    format_input_name,
    list_table_4_2_runs,
)
from gliomark.experiments.runner import PublishedValues, ResultRows, ResultTable
from gliomark.study import MRSequence
from gliomark.training.recipes import MarkerDefinition

PUBLISHED_BY_INPUT = {
    "IMG": (0.616, 0.588, 0.505, 0.584),
    "ROI": (0.657, 0.627, 0.546, 0.632),
    "MIX": (0.678, 0.630, 0.637, 0.679),
}
# from a private cohort with stained Ki-67; the same for every sequence
PUBLISHED = PublishedValues(
    key_column="reading",
    columns=STATISTICS[:4],
    values={
        format_input_name(sequence, name): values
        for sequence in MRSequence
        for name, values in PUBLISHED_BY_INPUT.items()
    },
    source="thesis, table 4-2",
)
FIGURE_STAGE = 3


def create_table(definition: MarkerDefinition) -> ResultTable[MarkerRun, MarkerNetwork]:
    """Create the table of a marker: one method per run."""

    def create_rows(result: MarkerResult) -> ResultRows:
        methods = [ScoringMethod(run.name, (run.name,)) for run in result.runs]
        return tabulate_methods(methods, load_trained_runs(result, definition))

    def plot_figure(result: MarkerResult, _: ResultRows) -> list[Path]:
        trained_runs = load_trained_runs(result, definition)
        # the positive patient with the largest lesion
        areas = {
            p: max(inputs.slices.area_mm2)
            for p, inputs in trained_runs.data.lesion_slice_inputs.items()
            if inputs.label == 1
        }
        patient = max(areas, key=lambda name: areas[name])
        # the plot shows patient images, so it is kept in the work folder
        path = result.config.work_folder / f"figure_4_2_{definition.name}.png"
        return [plot_figure_4_2(trained_runs, patient, FIGURE_STAGE, path)]

    return create_marker_table(
        "table_4_2", definition, list_table_4_2_runs, create_rows, PUBLISHED, plots=(plot_figure,)
    )

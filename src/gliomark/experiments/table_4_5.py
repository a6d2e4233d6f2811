"""Table 4-5: ablation of KiNet's BMS loss, Merge-IN and clinical data."""

from __future__ import annotations

from gliomark.experiments.markers.procedure import MarkerNetwork
from gliomark.experiments.markers.result_tables import (
    MarkerResult,
    create_marker_table,
    load_trained_runs,
    tabulate_methods,
)
from gliomark.experiments.markers.runs import (
    ABLATION_SWITCHES,
    MarkerRun,
    list_table_4_5_methods,
    list_table_4_5_runs,
)
from gliomark.experiments.runner import PublishedValues, ResultRows, ResultTable
from gliomark.training.recipes import MarkerDefinition

# from a private cohort with stained Ki-67
PUBLISHED = PublishedValues(
    key_column="reading",
    columns=("accuracy", "auc"),
    values={
        "none": (0.735, 0.766),
        "metadata": (0.736, 0.768),
        "Merge-IN": (0.742, 0.773),
        "Merge-IN + metadata": (0.743, 0.774),
        "BMS": (0.746, 0.778),
        "BMS + metadata": (0.748, 0.781),
        "BMS + Merge-IN": (0.750, 0.785),
        "BMS + Merge-IN + metadata": (0.752, 0.788),
    },
    source="thesis, table 4-5",
)


def create_table(definition: MarkerDefinition) -> ResultTable[MarkerRun, MarkerNetwork]:
    """Create the table of a marker: a column for each switch."""

    def create_rows(result: MarkerResult) -> ResultRows:
        switches_by_method = list_table_4_5_methods()
        created = tabulate_methods(list(switches_by_method), load_trained_runs(result, definition))
        for number, name in enumerate(ABLATION_SWITCHES):
            created.rows.insert(
                1 + number, name, [switches[number] for switches in switches_by_method.values()]
            )
        return created

    return create_marker_table(
        "table_4_5", definition, lambda preset, _: list_table_4_5_runs(preset), create_rows, PUBLISHED
    )

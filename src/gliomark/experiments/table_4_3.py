"""Table 4-3: ResNet-50 on two sequences with early, late and middle fusion."""

from __future__ import annotations

from gliomark.experiments.markers.procedure import MarkerNetwork
from gliomark.experiments.markers.result_tables import (
    STATISTICS,
    MarkerResult,
    create_marker_table,
    load_trained_runs,
    tabulate_methods,
)
from gliomark.experiments.markers.runs import (
    EARLY_FUSION,
    LATE_FUSION,
    MIDDLE_FUSION,
    MarkerRun,
    list_table_4_3_methods,
    list_table_4_3_runs,
)
from gliomark.experiments.runner import PublishedValues, ResultRows, ResultTable
from gliomark.training.recipes import MarkerDefinition

# from a private cohort with stained Ki-67
PUBLISHED = PublishedValues(
    key_column="reading",
    columns=STATISTICS[:4],
    values={
        EARLY_FUSION: (0.682, 0.646, 0.641, 0.695),
        LATE_FUSION: (0.666, 0.635, 0.635, 0.682),
        MIDDLE_FUSION: (0.691, 0.693, 0.689, 0.724),
    },
    source="thesis, table 4-3",
)


def create_table(definition: MarkerDefinition) -> ResultTable[MarkerRun, MarkerNetwork]:
    """Create the table of a marker."""

    def create_rows(result: MarkerResult) -> ResultRows:
        trained_runs = load_trained_runs(result, definition)
        return tabulate_methods(list_table_4_3_methods(trained_runs.sequences), trained_runs)

    return create_marker_table("table_4_3", definition, list_table_4_3_runs, create_rows, PUBLISHED)

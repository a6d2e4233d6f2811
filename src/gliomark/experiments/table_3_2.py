"""Table 3-2: ablation of MIG-Net's focus prior graph, dual prior guidance and inverted attention gates.

Every combination of the three switches is a run, compared with the one without any of them.
"""

from __future__ import annotations

from gliomark.experiments.runner import PublishedValues, ResultRows, ResultTable
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
    ALL_SWITCHES_OFF,
    MIGNET,
    SWIN_UNET,
    describe_reductions,
    get_segmentation_preset,
    list_table_3_2_runs,
)

# Dice, from another cohort
PUBLISHED = PublishedValues(
    key_column="trial",
    columns=("dice",),
    values={
        SWIN_UNET: (0.8692,),
        "IAG": (0.8813,),
        "guidance": (0.8885,),
        "guidance + IAG": (0.8974,),
        "FPG": (0.8752,),
        "FPG + IAG": (0.8876,),
        "FPG + guidance": (0.8935,),
        MIGNET: (0.9056,),
    },
    source="thesis, table 3-2",
    inserted_after="tested_on",
)


def create_rows(result: SegmentationResult) -> ResultRows:
    """Tabulate all combinations with a column for each switch."""
    patients = tabulate_result(result)
    rows = tabulate_runs(result.runs, patients, [SWIN_UNET], result.config.cohort_names[0])
    for number, switch in enumerate(ALL_SWITCHES_OFF):
        rows.insert(1 + number, switch, [getattr(run.training.network, switch) for run in result.runs])
    return create_result_rows(result, rows, patients)


TABLE: ResultTable[SegmentationRun, SegmentationFold] = ResultTable(
    name="table_3_2",
    procedure=SegmentationProcedure(),
    list_runs=lambda preset, _: list_table_3_2_runs(get_segmentation_preset(preset)),
    create_rows=create_rows,
    describe_run=describe_run,
    create_details=create_details,
    describe_reductions=describe_reductions,
    published=PUBLISHED,
    count_folds=lambda preset: get_segmentation_preset(preset).ablation_folds,
)

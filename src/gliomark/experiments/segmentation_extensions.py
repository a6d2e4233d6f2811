"""Extensions of the published segmentation study: named changes of MIG-Net, each with its own row."""

from __future__ import annotations

from gliomark.experiments.runner import ResultRows, ResultTable
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
    describe_reductions,
    get_segmentation_preset,
    list_design_choice_runs,
    list_extension_runs,
)
from gliomark.study import MRSequence


def list_runs(preset_name: str, sequences: tuple[MRSequence, ...]) -> list[SegmentationRun]:
    """List the extensions, then the choices that the published text leaves open."""
    preset = get_segmentation_preset(preset_name)
    return [*list_extension_runs(preset, sequences), *list_design_choice_runs(preset)[1:]]


def create_rows(result: SegmentationResult) -> ResultRows:
    """Tabulate all runs, each compared with the first, with the rule by which sequences are combined."""
    patients, runs = tabulate_result(result), result.runs
    rows = tabulate_runs(runs, patients, [runs[0].name], result.config.cohort_names[0])
    rows.insert(1, "rule", [run.rule for run in runs])
    return create_result_rows(result, rows, patients)


TABLE: ResultTable[SegmentationRun, SegmentationFold] = ResultTable(
    name="segmentation_extensions",
    procedure=SegmentationProcedure(),
    list_runs=list_runs,
    create_rows=create_rows,
    describe_run=describe_run,
    create_details=create_details,
    describe_reductions=describe_reductions,
    count_folds=lambda preset: get_segmentation_preset(preset).extension_folds,
)

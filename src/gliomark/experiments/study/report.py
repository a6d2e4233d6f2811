"""Write a study's report and tables, in the order of TRIPOD+AI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gliomark.experiments.result_files import write_table
from gliomark.experiments.study.checks import Check
from gliomark.experiments.study.claims import list_claims
from gliomark.experiments.study.results import MarkerResult
from gliomark.files import atomic_write
from gliomark.reporting.evaluation_page import (
    create_evaluation_environment,
    flatten_row,
    render_evaluation_plots,
    write_evaluation,
)

REPORT_NAME = "report.html"


@dataclass(frozen=True, eq=False)
class StudyResults:
    """Everything that the report states.

    Attributes
    ----------
    cohort_name
        Name of the cohort.
    flow
        Patient flow: what, and how many.
    checks
        Checks of the data.
    patients, table_1, dice, predictions
        Tables: see ``results.tabulate_patients``, ``create_table_1``, ``summarise_dice``; the out-of-fold predictions
        of the chosen recipes.
    markers
        Results of the markers.
    recipes
        Names of the recipes.
    """

    cohort_name: str
    flow: tuple[tuple[str, int], ...]
    checks: tuple[Check, ...]
    patients: pd.DataFrame
    table_1: pd.DataFrame
    dice: pd.DataFrame
    predictions: pd.DataFrame
    markers: tuple[MarkerResult, ...]
    recipes: tuple[str, ...]


def write_report(results: StudyResults, folder: Path) -> Path:
    """Write ``report.html``, the tables as csv, and a folder per evaluated marker; the path of the report."""
    sections = [_create_section(result) for result in results.markers]
    page = (
        create_evaluation_environment()
        .get_template("study.html.j2")
        .render(results=results, sections=sections)
    )
    for name, table in _create_tables(results).items():
        write_table(table, folder / f"{name}.csv")
    for result in results.markers:
        if result.evaluation is not None:
            write_evaluation(result.evaluation, folder / result.counts.definition.name, result.shares)
    return atomic_write(folder / REPORT_NAME, page)


def _create_section(result: MarkerResult) -> dict[str, Any]:
    """Create what the page shows of a marker."""
    plots = [] if result.evaluation is None else render_evaluation_plots(result.evaluation)
    return {"result": result, "claims": list_claims(result), "plots": plots}


def _create_tables(results: StudyResults) -> dict[str, pd.DataFrame]:
    """Create the csv tables by file name; those without a row are left out."""
    tables = {
        "patient_flow": pd.DataFrame(results.flow, columns=["step", "patients"]),
        "patients": results.patients,
        "table_1": results.table_1,
        "dice": results.dice,
        "predictions": results.predictions,
        "baselines": _flatten_by_marker(results.markers, "baselines"),
        "recipes": _flatten_by_marker(results.markers, "recipes"),
        "subgroups": _flatten_by_marker(results.markers, "subgroups"),
        "permuted_labels": _flatten_by_marker(results.markers, "permuted"),
        "sample_size": pd.DataFrame(
            [
                {"marker": one.counts.definition.name, **flatten_row(size), "needed": size.patients}
                for one in results.markers
                for size in one.counts.sample_sizes
            ]
        ),
        "claims": pd.DataFrame(
            [
                {"marker": one.counts.definition.name, "claim": str(claim)}
                for one in results.markers
                for claim in list_claims(one)
            ]
        ),
    }
    return {name: table for name, table in tables.items() if len(table)}


def _flatten_by_marker(markers: Sequence[MarkerResult], name: str) -> pd.DataFrame:
    rows = [
        {"marker": one.counts.definition.name, **flatten_row(row)}
        for one in markers
        for row in getattr(one, name)
    ]
    return pd.DataFrame(rows).drop(columns="against_model", errors="ignore")

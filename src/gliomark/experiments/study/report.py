"""Write a study's report and tables, in the order of TRIPOD+AI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gliomark.experiments.result_files import get_versions, write_table
from gliomark.experiments.study.checks import Check
from gliomark.experiments.study.claim_checklist import ChecklistItem, list_checklist
from gliomark.experiments.study.claims import list_claims
from gliomark.experiments.study.methods import create_training_table
from gliomark.experiments.study.recipes import StudyRecipe
from gliomark.experiments.study.results import MarkerResult
from gliomark.files import atomic_write
from gliomark.reporting.evaluation_page import (
    create_evaluation_environment,
    flatten_row,
    render_evaluation_plots,
    write_evaluation,
)
from gliomark.reporting.page_pdf import render_page_as_pdf

REPORT_NAME, PDF_NAME, LATEX_NAME = "report.html", "report.pdf", "tables.tex"
# the tables of a publication, with their captions
LATEX_CAPTIONS: Mapping[str, str] = {
    "patient_flow": "Patient flow.",
    "table_1": "Characteristics of the patients.",
    "training": "Training of the networks.",
    "dice": "Dice of the test patients.",
    "operating_points": "Sensitivity and specificity at the thresholds chosen without the patient's fold.",
    "subgroups": "Subgroups.",
    "baselines": "Comparison with age and sex, and with the lesion volume.",
    "recipes": "Comparison of the recipes.",
    "permuted_labels": "The same procedure with permuted labels.",
    "sample_size": "Sample size by the criteria of Riley et al. (BMJ 2020;368:m441).",
    "claim_checklist": "Items of CLAIM (Mongan et al., Radiol Artif Intell 2020;2:e200029).",
}


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
        The recipes.
    preparation, de_identification
        Sentences on the images, and on identifying data; the latter may be empty.
    """

    cohort_name: str
    flow: tuple[tuple[str, int], ...]
    checks: tuple[Check, ...]
    patients: pd.DataFrame
    table_1: pd.DataFrame
    dice: pd.DataFrame
    predictions: pd.DataFrame
    markers: tuple[MarkerResult, ...]
    recipes: tuple[StudyRecipe, ...]
    preparation: str
    de_identification: str

    @property
    def checklist(self) -> list[ChecklistItem]:
        """Items of CLAIM, and where the report covers them."""
        is_evaluated = any(one.evaluation is not None for one in self.markers)
        return list_checklist(is_evaluated, bool(self.de_identification))


def write_report(results: StudyResults, folder: Path) -> Path:
    """Write the report as HTML and PDF, its tables as csv and LaTeX, and a folder per evaluated marker; its path."""
    page = _render_page(results)
    pdf = render_page_as_pdf(_render_page(results, is_text_drawn=True))
    tables = _create_tables(results)
    for name, table in tables.items():
        write_table(table, folder / f"{name}.csv")
    atomic_write(folder / LATEX_NAME, render_latex_tables(tables))
    for result in results.markers:
        if result.evaluation is not None:
            write_evaluation(result.evaluation, folder / result.counts.definition.name, result.shares)
    atomic_write(folder / PDF_NAME, pdf)
    return atomic_write(folder / REPORT_NAME, page)


def _render_page(results: StudyResults, is_text_drawn: bool = False) -> str:
    """Render the page; is_text_drawn: see ``plots.render_inline_svg``."""
    return (
        create_evaluation_environment()
        .get_template("study.html.j2")
        .render(
            results=results,
            sections=[_create_section(result, is_text_drawn) for result in results.markers],
            training=create_training_table(results.recipes),
            versions=get_versions(),
        )
    )


def _create_section(result: MarkerResult, is_text_drawn: bool) -> dict[str, Any]:
    """Create what the page shows of a marker."""
    plots = [] if result.evaluation is None else render_evaluation_plots(result.evaluation, is_text_drawn)
    return {"result": result, "claims": list_claims(result), "plots": plots}


def _create_tables(results: StudyResults) -> dict[str, pd.DataFrame]:
    """Create the csv tables by file name; those without a row are left out."""
    tables = {
        "patient_flow": pd.DataFrame(results.flow, columns=["step", "patients"]),
        "patients": results.patients,
        "table_1": results.table_1,
        "dice": results.dice,
        "predictions": results.predictions,
        "training": create_training_table(results.recipes),
        "operating_points": pd.DataFrame(
            [
                {"marker": one.counts.definition.name, **flatten_row(point)}
                for one in results.markers
                if one.evaluation is not None
                for point in one.evaluation.operating_points
            ]
        ),
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
        "claim_checklist": pd.DataFrame(results.checklist),
    }
    return {name: table for name, table in tables.items() if len(table)}


def _flatten_by_marker(markers: Sequence[MarkerResult], name: str) -> pd.DataFrame:
    rows = [
        {"marker": one.counts.definition.name, **flatten_row(row)}
        for one in markers
        for row in getattr(one, name)
    ]
    return pd.DataFrame(rows).drop(columns="against_model", errors="ignore")


def render_latex_tables(tables: Mapping[str, pd.DataFrame]) -> str:
    """Render the tables of a publication as LaTeX for the package ``booktabs``; tables: by name, others are ignored."""
    parts = ["% needs \\usepackage{booktabs}"]
    for name, caption in LATEX_CAPTIONS.items():
        if name in tables:
            style = tables[name].style.hide(axis="index").format(escape="latex", precision=3, na_rep="--")
            style = style.format_index(_to_latex_heading, axis="columns")
            label = f"tab:{name.replace('_', '-')}"
            parts.append(style.to_latex(hrules=True, caption=caption, label=label, position="htbp"))
    return "\n\n".join(parts)


def _to_latex_heading(name: str) -> str:
    return name.replace("_", " ").replace("%", r"\%").replace("&", r"\&")

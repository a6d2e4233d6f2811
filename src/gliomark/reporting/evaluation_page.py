"""Write the results of an evaluation: csv tables and an HTML page with plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from gliomark.evaluation.calibration import (
    CalibrationBin,
    Recalibration,
    compute_net_benefit,
)
from gliomark.evaluation.delong import DeLongTestResult
from gliomark.evaluation.evaluate import Evaluation, compute_proportion
from gliomark.evaluation.intervals import Interval
from gliomark.files import atomic_write, remove_leftovers
from gliomark.reporting.html_report import create_template_environment
from gliomark.reporting.page_pdf import render_page_as_pdf
from gliomark.reporting.plots import ACCENT_COLOUR, SECOND_COLOUR, render_inline_svg
from gliomark.tables import format_csv

DECISION_THRESHOLDS = np.linspace(0.01, 0.99, 99)


def write_evaluation(evaluation: Evaluation, out: Path, shares: Mapping[str, Interval] | None = None) -> Path:
    """Write the csv tables, ``evaluation.html`` and ``evaluation.pdf`` into a folder; the path of the HTML page.

    shares: further proportions with their intervals, by name, that the page lists.
    """
    tables = _create_tables(evaluation)
    template = create_evaluation_environment().get_template("evaluation.html.j2")
    page, printed_page = (
        template.render(
            evaluation=evaluation, plots=render_evaluation_plots(evaluation, drawn), shares=shares or {}
        )
        for drawn in (False, True)
    )
    pdf = render_page_as_pdf(printed_page)
    # only written once everything has been computed, so that no partial result remains
    remove_leftovers(out)
    for name, rows in tables.items():
        atomic_write(out / f"{name}.csv", _format_csv(rows))
    atomic_write(out / "evaluation.pdf", pdf)
    return atomic_write(out / "evaluation.html", page)


def create_evaluation_environment() -> Environment:
    """Create the template environment of this page and of others that include its tables."""
    return create_template_environment(
        {"interval": _format_interval, "cell": _format_interval_cell, "number": _format_number}
    )


def render_evaluation_plots(evaluation: Evaluation, is_text_drawn: bool = False) -> list[tuple[str, Markup]]:
    """Draw ROC curve, calibration and decision curve, each as caption and SVG.

    is_text_drawn: see ``plots.render_inline_svg``.
    """
    predictions = evaluation.predictions
    curve = _compute_decision_curve_rows(predictions.labels, predictions.probabilities)
    plots: dict[str, Callable[[Any], None]] = {
        "ROC curve": lambda axes: _draw_roc(axes, evaluation),
        "Calibration": lambda axes: _draw_calibration(axes, evaluation.calibration_bins),
        "Decision curve": lambda axes: _draw_decision_curve(axes, curve),
    }
    return [
        (caption, render_inline_svg(draw, is_text_drawn=is_text_drawn)) for caption, draw in plots.items()
    ]


def _create_tables(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Create the rows of the csv tables by file name."""
    label, probability = evaluation.predictions.labels, evaluation.predictions.probabilities
    tables: dict[str, list[dict[str, Any]]] = {
        "figures": [
            flatten_row(evaluation.overall_statistics),
            *map(flatten_row, evaluation.site_statistics),
        ],
        "operating_points": [flatten_row(point) for point in evaluation.operating_points],
        "calibration": [asdict(group) for group in evaluation.calibration_bins],
        "decision_curve": _compute_decision_curve_rows(label, probability),
    }
    if evaluation.comparison is not None:
        tables["comparison"] = [flatten_row(evaluation.comparison)]
    return tables


def flatten_row(row: Any) -> dict[str, Any]:
    """Convert a dataclass to one table row; an interval becomes three columns."""
    cells: dict[str, Any] = {}
    for name, value in vars(row).items():
        if isinstance(value, DeLongTestResult | Recalibration):
            cells |= flatten_row(value)
        elif isinstance(value, Interval):
            cells |= {name: value.value, f"{name}_low_95": value.lower, f"{name}_high_95": value.upper}
        else:
            cells[name] = value
    return cells


def _compute_decision_curve_rows(label: NDArray[Any], probability: NDArray[Any]) -> list[dict[str, float]]:
    model = compute_net_benefit(label, probability, DECISION_THRESHOLDS)
    treat_all = compute_net_benefit(label, np.ones(len(label)), DECISION_THRESHOLDS)
    return [
        {"threshold": t, "model": m, "treat_all": e, "treat_none": 0.0}
        for t, m, e in zip(DECISION_THRESHOLDS.tolist(), model.tolist(), treat_all.tolist(), strict=True)
    ]


def _format_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    header = list(rows[0])
    cells = [[row.get(name, "") for name in header] for row in rows]
    return format_csv([header, *([f"{c:.6g}" if isinstance(c, float) else c for c in row] for row in cells)])


def _format_number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def _format_interval(value: Interval) -> str:
    if value.value != value.value:
        return "–"
    if value.lower != value.lower:
        return _format_number(value.value)
    return f"{value.value:.3f} ({value.lower:.3f} to {value.upper:.3f})"


def _format_interval_cell(value: Interval) -> Markup:
    """Format a value with its interval below it as HTML."""
    below = "" if value.lower != value.lower else f"<small>{value.lower:.3f} to {value.upper:.3f}</small>"
    return Markup(_format_number(value.value) + below)


def _draw_roc(axes: Any, evaluation: Evaluation) -> None:
    false_positive_rate, true_positive_rate, _ = roc_curve(
        evaluation.predictions.labels, evaluation.predictions.probabilities
    )
    axes.plot([0, 1], [0, 1], color="#d9dfe3", lw=1)
    axes.plot(false_positive_rate, true_positive_rate, color=ACCENT_COLOUR, lw=1.6)
    for point in evaluation.operating_points:
        axes.plot(1 - point.specificity.value, point.sensitivity.value, "o", color=SECOND_COLOUR, ms=5)
        axes.annotate(
            point.name,
            (1 - point.specificity.value, point.sensitivity.value),
            (6, -9),
            textcoords="offset points",
        )
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.02))


def _draw_calibration(axes: Any, bins: Sequence[CalibrationBin]) -> None:
    axes.plot([0, 1], [0, 1], color="#d9dfe3", lw=1)
    observed_proportions = [
        compute_proportion(round(group.share * group.patients), group.patients) for group in bins
    ]
    observed_values = np.array([s.value for s in observed_proportions])
    interval_lengths = np.abs(
        np.array([[s.lower for s in observed_proportions], [s.upper for s in observed_proportions]])
        - observed_values
    )
    x = [group.probability for group in bins]
    axes.errorbar(
        x, observed_values, interval_lengths, fmt="o-", color=ACCENT_COLOUR, lw=1.2, ms=4, elinewidth=0.8
    )
    axes.set(xlabel="predicted probability", ylabel="observed proportion", xlim=(0, 1), ylim=(0, 1))


def _draw_decision_curve(axes: Any, rows: Sequence[Mapping[str, float]]) -> None:
    x = [row["threshold"] for row in rows]
    for name, colour in (("treat_none", "#9aa5ab"), ("treat_all", SECOND_COLOUR), ("model", ACCENT_COLOUR)):
        axes.plot(x, [row[name] for row in rows], color=colour, lw=1.4, label=name.replace("_", " "))
    highest = max(row["model"] for row in rows)
    axes.set(
        xlabel="threshold probability",
        ylabel="net benefit",
        xlim=(0, 1),
        ylim=(-0.25 * highest - 0.02, 1.15 * highest + 0.02),
    )
    axes.legend(frameon=False, fontsize=8)

"""``gliomark evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomark.cli.options import parse_pair


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(help="csv or xlsx, one row per patient: id, label, probability.")
    ],
    out: Annotated[Path, typer.Option(help="Output folder for tables and page.")],
    validation: Annotated[
        Path | None, typer.Option(help="Predictions of other patients, on which thresholds are chosen.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Predictions of another model for the same patients.")
    ] = None,
    id: Annotated[str, typer.Option(help="Column of the patient id.")] = "id",
    label: Annotated[str, typer.Option(help="Column of the reference label: 0 or 1, no or yes.")] = "label",
    probability: Annotated[str, typer.Option(help="Column of the probability.")] = "probability",
    site: Annotated[str | None, typer.Option(help="Column of the hospital.")] = None,
    predicted: Annotated[
        str | None,
        typer.Option(help="Column of the predicted class, if the probability refers to that class."),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE: use only these rows; repeatable.")
    ] = None,
) -> None:
    """Evaluate a table of predictions: AUC, operating points, calibration, net benefit, sites, two models."""
    from gliomark.evaluation.evaluate import PredictionColumns, evaluate_predictions, read_predictions
    from gliomark.reporting.evaluation_page import write_evaluation

    row_filters = tuple(parse_pair(text, "COLUMN=VALUE, such as task=IDH") for text in where or ())
    columns = PredictionColumns(id, label, probability, site, predicted, row_filters)
    validation_predictions = None if validation is None else read_predictions(validation, columns)
    comparison_predictions = None if against is None else read_predictions(against, columns)
    evaluation = evaluate_predictions(
        read_predictions(predictions, columns), validation_predictions, comparison_predictions
    )
    typer.echo(str(write_evaluation(evaluation, out)))

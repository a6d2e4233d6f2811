"""``gliomark evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomark.cli.options import (
    IdColumnOption,
    LabelColumnOption,
    PredictedColumnOption,
    ProbabilityColumnOption,
    RowFilterOption,
    parse_row_filters,
)
from gliomark.errors import ConfigurationError
from gliomark.messages import message


def evaluate(
    out: Annotated[Path, typer.Option(help="Output folder for tables and page.")],
    predictions: Annotated[
        Path | None, typer.Argument(help="csv or xlsx, one row per patient: id, label, probability.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --cohort, instead of a table: weights file or name of a model.")
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option(help="A prepared cohort; patients the model was trained on are left out.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Predictions of other patients, on which thresholds are chosen.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Predictions of another model for the same patients.")
    ] = None,
    id: IdColumnOption = "id",
    label: LabelColumnOption = "label",
    probability: ProbabilityColumnOption = "probability",
    site: Annotated[str | None, typer.Option(help="Column of the hospital.")] = None,
    predicted: PredictedColumnOption = None,
    where: RowFilterOption = None,
) -> None:
    """Evaluate a table of predictions, or a model on a cohort: AUC, operating points, calibration, net benefit."""
    if predictions is None or model is not None or cohort is not None:
        _check_no_table(predictions, validation, against, site, predicted, where)
        _evaluate_model(model, cohort, out)
        return
    from gliomark.evaluation.evaluate import PredictionColumns, evaluate_predictions, read_predictions
    from gliomark.reporting.evaluation_page import write_evaluation

    columns = PredictionColumns(id, label, probability, site, predicted, parse_row_filters(where))
    validation_predictions = None if validation is None else read_predictions(validation, columns)
    comparison_predictions = None if against is None else read_predictions(against, columns)
    evaluation = evaluate_predictions(
        read_predictions(predictions, columns), validation_predictions, comparison_predictions
    )
    typer.echo(str(write_evaluation(evaluation, out)))


def _check_no_table(*arguments_of_tables: object) -> None:
    if any(argument is not None for argument in arguments_of_tables):
        raise ConfigurationError(message("evaluate-what"))


def _evaluate_model(model: str | None, cohort: Path | None, out: Path) -> None:
    """Evaluate a model on a prepared cohort."""
    from gliomark.cohort.store import Cohort
    from gliomark.experiments.cohort_evaluation import (
        describe_cohort_evaluation,
        evaluate_on_cohort,
        write_cohort_evaluation,
    )
    from gliomark.model_loading import load_model

    if model is None or cohort is None:
        raise ConfigurationError(message("evaluate-what"))
    loaded = load_model(model)
    evaluation = evaluate_on_cohort(loaded, Cohort(cohort), lambda patient: typer.echo(patient, err=True))
    for line in describe_cohort_evaluation(evaluation):
        typer.echo(line)
    typer.echo(str(write_cohort_evaluation(evaluation, loaded, out)))

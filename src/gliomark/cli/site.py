"""``gliomark site``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomark.errors import ConfigurationError
from gliomark.messages import message

if TYPE_CHECKING:
    from gliomark.experiments.site_patients import SitePatients
    from gliomark.models.weights import Weights

app = typer.Typer(no_args_is_help=True, help="Check, recalibrate and monitor a model with your own patients.")

ModelOption = Annotated[str, typer.Option("--model", help="Name of a model, or a weights file.")]
MarkerOption = Annotated[str, typer.Option("--marker", help="Marker of the model, such as idh.")]
PredictionsOption = Annotated[
    Path,
    typer.Option("--predictions", help="csv or xlsx with id and the model's probability of each patient."),
]
PathologyOption = Annotated[
    Path | None,
    typer.Option(
        "--pathology",
        help="csv or xlsx with id and the marker in any usual wording; default: the first table.",
    ),
]
ProbabilityOption = Annotated[
    str | None,
    typer.Option(
        "--probability",
        help="Column of the probability before calibration of the patient level; default: MARKER_raw_probability, or "
        "MARKER_probability of a model without calibration.",
    ),
]


@app.command("check")
def check_site_command(
    model: ModelOption,
    marker: MarkerOption,
    predictions: PredictionsOption,
    out: Annotated[Path, typer.Option(help="Folder for tables and page.")],
    pathology: PathologyOption = None,
    probability: ProbabilityOption = None,
) -> None:
    """How well a model discriminates, is calibrated and covers the truth at this hospital."""
    from gliomark.experiments.site_adaptation import check_site, describe_site_check, write_site_check

    weights, patients = _read_patients(model, marker, predictions, pathology, probability)
    check = check_site(weights, marker, patients)
    for line in describe_site_check(check):
        typer.echo(line)
    typer.echo(str(write_site_check(check, out)))


@app.command("recalibrate")
def recalibrate_command(
    model: ModelOption,
    marker: MarkerOption,
    predictions: PredictionsOption,
    site: Annotated[str, typer.Option(help="Name of the hospital, kept in the weights file.")],
    person: Annotated[str, typer.Option(help="Who refits the model, kept in the weights file.")],
    out: Annotated[Path, typer.Option(help="The weights file to write.")],
    pathology: PathologyOption = None,
    probability: ProbabilityOption = None,
) -> None:
    """Refit calibration, threshold and limits to at least 30 patients, and write a new weights file."""
    from gliomark.experiments.site_adaptation import (
        RecalibrationRequest,
        describe_support,
        recalibrate,
        write_recalibrated,
    )

    weights, patients = _read_patients(model, marker, predictions, pathology, probability)
    card = recalibrate(weights, marker, patients, RecalibrationRequest(site, person))
    path = write_recalibrated(weights, marker, card, out)
    for line in describe_support(card):
        typer.echo(line)
    typer.echo(str(path))


@app.command("monitor")
def monitor_site_command(
    model: ModelOption,
    marker: MarkerOption,
    predictions: PredictionsOption,
    date: Annotated[str, typer.Option(help="Column of the date of the prediction.")],
    out: Annotated[Path, typer.Option(help="Folder for table and chart.")],
    pathology: PathologyOption = None,
    probability: ProbabilityOption = None,
    false_alarm_rate: Annotated[
        float, typer.Option(help="Probability of a false alarm within so many patients.")
    ] = 0.05,
    patients: Annotated[int, typer.Option(min=1, help="The patients to whom this rate refers.")] = 200,
) -> None:
    """CUSUM chart of observed minus expected over time, with an alarm."""
    from gliomark.evaluation.cusum import CusumSettings
    from gliomark.experiments.site_adaptation import describe_monitoring, monitor_site, write_monitoring

    settings = CusumSettings(false_alarm_rate, patients)
    weights, found = _read_patients(model, marker, predictions, pathology, probability, date)
    monitoring = monitor_site(weights, marker, found, settings)
    for line in describe_monitoring(monitoring):
        typer.echo(line)
    typer.echo(str(write_monitoring(monitoring, out)))


def _read_patients(
    model: str,
    marker: str,
    predictions: Path,
    pathology: Path | None,
    probability: str | None,
    date: str | None = None,
) -> tuple[Weights, SitePatients]:
    """Load the weights, without their networks, and read the patients."""
    from gliomark.experiments.site_patients import SiteTables, read_site_patients
    from gliomark.model_loading import load_weights_by_name

    weights = load_weights_by_name(model)
    if marker not in weights.card.markers:
        known = ", ".join(weights.card.markers) or "–"
        raise ConfigurationError(
            message("site-unknown-marker", model=weights.card.name, marker=marker, markers=known)
        )
    patients = read_site_patients(weights, marker, SiteTables(predictions, pathology, probability, date))
    for line in patients.describe_left_out():
        typer.echo(line)
    return weights, patients

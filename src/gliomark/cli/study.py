"""``gliomark study``."""

from __future__ import annotations

from typing import Annotated

import typer

from gliomark.cli.options import CohortOption, parse_pair
from gliomark.cli.progress import ProgressLine

app = typer.Typer(no_args_is_help=True, help="Plan a study on one's own cohort.")

DifferentPersonsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--different-persons",
        help="ID=ID: two patients who look like one person and are known to be two; repeatable.",
    ),
]


@app.command("check")
def check_study_command(
    cohort: CohortOption,
    marker: Annotated[
        list[str], typer.Option(help="Column of the clinical table, or column>=threshold; repeatable.")
    ],
    different_persons: DifferentPersonsOption = None,
) -> None:
    """Before any training: is one person in two folds under two ids, and are there enough patients?"""
    from gliomark.cohort.store import Cohort
    from gliomark.experiments.study.checks import check_before_training, describe_check
    from gliomark.training.recipes import parse_marker_definition

    pairs = [parse_pair(text, "ID=ID, such as P017=P052") for text in different_persons or ()]
    with ProgressLine() as progress:
        check = check_before_training(
            Cohort(cohort),
            [parse_marker_definition(text) for text in marker],
            [frozenset(pair) for pair in pairs],
            progress.count("comparing images"),
        )
    for line in describe_check(check):
        typer.echo(line)

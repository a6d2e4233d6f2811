"""``gliomark study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomark.cli.options import CohortOption, RecipeChoice, SchedulerOption, parse_pair
from gliomark.cli.progress import ProgressLine
from gliomark.errors import ConfigurationError
from gliomark.messages import message

app = typer.Typer(no_args_is_help=True, help="A study on one's own cohort.")

DifferentPersonsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--different-persons",
        help="ID=ID: two patients who look like one person and are known to be two; repeatable.",
    ),
]
MarkersOption = Annotated[
    list[str],
    typer.Option("--marker", help="Column of the clinical table, or column>=threshold; repeatable."),
]


@app.command("check")
def check_study_command(
    cohort: CohortOption,
    marker: MarkersOption,
    different_persons: DifferentPersonsOption = None,
) -> None:
    """Before any training: is one person in two folds under two ids, and are there enough patients?"""
    from gliomark.cohort.store import Cohort
    from gliomark.experiments.study.checks import check_before_training, describe_check
    from gliomark.training.recipes import parse_marker_definition

    with ProgressLine() as progress:
        check = check_before_training(
            Cohort(cohort),
            [parse_marker_definition(text) for text in marker],
            _parse_different_persons(different_persons),
            progress.count("comparing images"),
        )
    for line in describe_check(check):
        typer.echo(line)


@app.command("run")
def run_study_command(
    cohort: CohortOption,
    marker: MarkersOption,
    out: Annotated[Path, typer.Option(help="Folder for model, predictions and report.")],
    recipe: Annotated[
        list[RecipeChoice] | None,
        typer.Option(
            help="As in 'gliomark train'; repeatable: of several, the inner folds choose. Default: pretrained."
        ),
    ] = None,
    different_persons: DifferentPersonsOption = None,
    permutations: Annotated[
        int,
        typer.Option(
            min=0,
            help="Times to repeat the study of every marker with permuted labels, 0 or at least 3; the AUC must "
            "then be 0.5.",
        ),
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="State the trainings and the hours; write nothing.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes that train networks at the same time; 0: none.")
    ] = 0,
    scheduler: SchedulerOption = None,
) -> None:
    """Train a model in five nested folds, and report what may be claimed; run again to continue."""
    from gliomark.cohort.store import Cohort
    from gliomark.experiments.study.plan import describe_plan, plan_study
    from gliomark.experiments.study.recipes import create_study_recipe
    from gliomark.experiments.study.run import run_study
    from gliomark.experiments.study.training import MIN_PERMUTATIONS, StudyConfig
    from gliomark.training.recipes import get_cohort_sequences, parse_marker_definition

    _check_permutations(permutations, MIN_PERMUTATIONS)
    sequence_count = len(get_cohort_sequences(Cohort(cohort)))
    config = StudyConfig(
        cohort,
        out,
        tuple(parse_marker_definition(text) for text in marker),
        tuple(create_study_recipe(one.value, sequence_count) for one in recipe or [RecipeChoice.pretrained]),
        frozenset(_parse_different_persons(different_persons)),
        permutations,
        workers,
        scheduler,
        typer.echo,
    )
    if dry_run:
        for line in describe_plan(plan_study(config)):
            typer.echo(line)
        return
    typer.echo(str(run_study(config)))


def _check_permutations(count: int, least: int) -> None:
    """Raise ConfigurationError if so few permutations give no interval."""
    if 0 < count < least:
        raise ConfigurationError(message("study-few-permutations", count=count, least=least))


def _parse_different_persons(texts: list[str] | None) -> list[frozenset[str]]:
    return [frozenset(parse_pair(text, "ID=ID, such as P017=P052")) for text in texts or ()]

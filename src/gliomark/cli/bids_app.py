"""``gliomark-bids``: the command line of a BIDS App.

The contract of BIDS Apps (Gorgolewski et al. 2017, doi:10.1371/journal.pcbi.1005209) is a command
``APP BIDS_DIR OUTPUT_DIR LEVEL [--participant-label LABEL [LABEL ...]]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliomark.cli.options import (
    DeviceChoice,
    DeviceOption,
    FusionChoice,
    LanguageChoice,
    QuietOption,
    RequireSignedOption,
    TrustedKeyOption,
    VersionOption,
)
from gliomark.cli.progress import ProgressLine

if TYPE_CHECKING:
    from gliomark.batch import PredictionOptions, RunOptions
    from gliomark.batch.bids_app import BIDSDataset

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
LABEL_OPTION = "--participant-label"


class AnalysisLevel(StrEnum):
    """Levels of a BIDS App."""

    participant = "participant"
    group = "group"


@app.command()
def run_bids_app(
    bids_dir: Annotated[Path, typer.Argument(help="BIDS data set with dataset_description.json.")],
    output_dir: Annotated[Path, typer.Argument(help="BIDS derivative to create or complete.")],
    level: Annotated[
        AnalysisLevel,
        typer.Argument(help="participant: predict; group: collect the results in phenotype/gliomark.tsv."),
    ],
    participant_label: Annotated[
        list[str] | None,
        typer.Option(LABEL_OPTION, help="Participants to use, with or without sub-; default: all."),
    ] = None,
    model: Annotated[str, typer.Option(help="Name of a shipped model, or a weights file.")] = "demo",
    allow_missing_clinical: Annotated[
        bool, typer.Option("--allow-missing-clinical", help="Predict although age or sex is unknown.")
    ] = False,
    fusion: Annotated[
        FusionChoice, typer.Option(help="How slice probabilities are combined.")
    ] = FusionChoice.near,
    language: Annotated[LanguageChoice, typer.Option(help="Language of the report.")] = LanguageChoice.en,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also write the report as PDF.")] = False,
    device: DeviceOption = DeviceChoice.auto,
    quiet: QuietOption = False,
    require_signed: RequireSignedOption = False,
    trusted_key: TrustedKeyOption = None,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes that predict; default: this process alone.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip participants whose results are complete and up to date.")
    ] = False,
    version: VersionOption = False,
) -> None:
    """Predict the participants of a BIDS data set into a BIDS derivative. Research use only, not a medical device."""
    from gliomark.batch.bids_app import collect_participants, open_bids_dataset
    from gliomark.models.signatures import read_trust_policy

    dataset = open_bids_dataset(bids_dir, participant_label or ())
    if level is AnalysisLevel.group:
        typer.echo(str(collect_participants(dataset, output_dir)))
        return
    from gliomark.batch import PredictionOptions, RunOptions

    options = PredictionOptions(
        model=model,
        fusion_rule=fusion.value,
        language=language.value,
        allows_missing_clinical=allow_missing_clinical,
        writes_pdf=pdf,
        trust=read_trust_policy(trusted_key or (), require_signed),
        device=device.value,
    )
    _predict(dataset, output_dir, options, RunOptions(workers, None, resume), quiet)


def _predict(
    dataset: BIDSDataset,
    output_dir: Path,
    options: PredictionOptions,
    run_options: RunOptions,
    is_quiet: bool,
) -> None:
    """Predict the participants and print the results."""
    from gliomark.batch.bids_app import predict_participants
    from gliomark.cli.predict import show_report
    from gliomark.isolation import ReaderPool

    with ProgressLine(is_quiet) as progress, ReaderPool() as reader_pool:
        report = predict_participants(
            dataset,
            output_dir,
            options,
            run_options,
            reader_pool=reader_pool,
            report_step=partial(progress.show_step, language=options.language),
        )
    show_report(report, options.language, is_quiet, is_json=False)


def expand_labels(arguments: Sequence[str]) -> list[str]:
    """Repeat the option before each of its values, which Typer expects: ``--participant-label 01 02``.

    The spelling ``--participant_label`` of older BIDS Apps is accepted.
    """
    return list(_expand(arguments))


def _expand(arguments: Sequence[str]) -> Iterator[str]:
    is_label = False
    for argument in arguments:
        if argument.replace("_", "-") == LABEL_OPTION:
            is_label = True
        elif is_label and not argument.startswith("-"):
            yield from (LABEL_OPTION, argument)
        else:
            is_label = False
            yield argument

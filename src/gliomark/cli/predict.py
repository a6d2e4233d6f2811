"""``gliomark predict`` and ``gliomark explain``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gliomark.cli.options import (
    DeviceChoice,
    DeviceOption,
    FusionChoice,
    LanguageChoice,
    QuietOption,
    RequireSignedOption,
    TrustedKeyOption,
    YesNo,
)
from gliomark.cli.progress import ProgressLine

if TYPE_CHECKING:
    from gliomark.batch import BatchReport
    from gliomark.messages import Language


def predict(
    input: Annotated[Path, typer.Argument(help="One patient's folder, or a folder of patients.")],
    out: Annotated[Path, typer.Option(help="Output folder; one subfolder per patient.")],
    clinical: Annotated[Path | None, typer.Option(help="Table with the columns id, age and sex.")] = None,
    allow_missing_clinical: Annotated[
        bool, typer.Option("--allow-missing-clinical", help="Predict although age or sex is unknown.")
    ] = False,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Segmentation of the lesion to use instead of the network's: "
            "NIfTI, NRRD, MHA, DICOM SEG, RTSTRUCT; for a patient in pictures also a folder of mask pictures."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Name of a shipped model, or a weights file.")] = "demo",
    fusion: Annotated[
        FusionChoice, typer.Option(help="How slice probabilities are combined.")
    ] = FusionChoice.near,
    enhancing: Annotated[
        YesNo | None, typer.Option(help="Reader's finding: is an enhancing focus present?")
    ] = None,
    coverage: Annotated[
        float,
        typer.Option(
            help="Share of patients whose true level is not excluded; higher: more often 'cannot tell'."
        ),
    ] = 0.9,
    prevalence: Annotated[
        list[str] | None,
        typer.Option(
            help="Share of positive patients at your hospital, 0.3 or idh=0.3; repeat for other markers."
        ),
    ] = None,
    location: Annotated[
        bool,
        typer.Option(
            "--location",
            help="Also state side, lobes and distances to eloquent areas; needs gliomark[atlas].",
        ),
    ] = False,
    language: Annotated[
        LanguageChoice, typer.Option(help="Language of the report and the table.")
    ] = LanguageChoice.en,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also write the report as PDF.")] = False,
    dicom_out: Annotated[
        bool,
        typer.Option("--dicom-out", help="Also write the results as DICOM, if the images are DICOM."),
    ] = False,
    rtstruct: Annotated[
        bool,
        typer.Option(
            "--rtstruct",
            help="Also write the lesion's outline as DICOM structure set (RTSTRUCT), if the images are DICOM.",
        ),
    ] = False,
    device: DeviceOption = DeviceChoice.auto,
    quiet: QuietOption = False,
    print_json: Annotated[
        bool, typer.Option("--json", help="Print the predictions as JSON instead of the table.")
    ] = False,
    require_signed: RequireSignedOption = False,
    trusted_key: TrustedKeyOption = None,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes that predict; default: this process alone.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask scheduler whose workers predict, tcp://...")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip patients whose results are complete and up to date.")
    ] = False,
) -> None:
    """Segment the lesion and predict the markers of one or more patients."""
    from gliomark.isolation import ReaderPool
    from gliomark.models.signatures import read_trust_policy

    has_enhancing_focus = None if enhancing is None else enhancing is YesNo.yes
    trust = read_trust_policy(trusted_key or (), require_signed)
    # reader processes start while the networks' libraries are imported
    with ProgressLine(quiet) as progress, ReaderPool() as reader_pool:
        from gliomark.batch import PredictionOptions, RunOptions, predict_folder
        from gliomark.inference.levels import LevelOptions, parse_prevalence

        options = PredictionOptions(
            model=model,
            fusion_rule=fusion.value,
            has_enhancing_focus=has_enhancing_focus,
            language=language.value,
            allows_missing_clinical=allow_missing_clinical,
            writes_pdf=pdf,
            writes_dicom=dicom_out,
            writes_rtstruct=rtstruct,
            trust=trust,
            device=device.value,
            mask_file=mask,
            levels=LevelOptions(coverage, parse_prevalence(prevalence or ())),
            locates_lesion=location,
        )
        run_options = RunOptions(workers, scheduler, resume)
        report = predict_folder(
            input,
            clinical,
            out,
            options,
            run_options,
            reader_pool=reader_pool,
            report_step=partial(progress.show_step, language=language.value),
        )
    show_report(report, language.value, quiet, print_json)


def show_report(report: BatchReport, language: Language, is_quiet: bool, is_json: bool) -> None:
    """Print results and failures of a batch; the results are read from their files, one after the other.

    Raises
    ------
    Exit
        If a patient failed.
    """
    from gliomark.messages import message, render_message

    reasons = {one.patient_id: render_message(one.message, language) for one in report.failures}
    documents = map(read_document, report.result_folders)
    if report.skipped and not is_quiet:
        count = len(report.result_folders) + len(report.failures)
        skipped = message("batch-skipped", count=report.skipped, total=count)
        typer.echo(render_message(skipped, language), err=True)
    if is_json:
        print_json_document(documents, reasons)
    else:
        if report.result_folders and not is_quiet:
            from gliomark.cli.results_table import show_results

            show_results(documents, language)
        for folder in report.result_folders:
            typer.echo(str(folder / "report.html"))
    exit_after_failures(reasons)


def read_document(result_folder: Path) -> dict[str, Any]:
    """Read ``prediction.json`` of a patient, with messages that can be translated."""
    from gliomark.messages import restore_messages

    document = json.loads((result_folder / "prediction.json").read_text("utf-8"))
    restored: dict[str, Any] = restore_messages(document, document["messages"])
    return restored


def exit_after_failures(reasons: Mapping[str, str]) -> None:
    """Print why patients failed, if any did, and exit with status 1.

    Raises
    ------
    Exit
        If there is a failure.
    """
    for patient, reason in reasons.items():
        typer.echo(f"{patient}: {reason}", err=True)
    if reasons:
        raise typer.Exit(1)


def print_json_document(documents: Iterable[Mapping[str, Any]], reasons: Mapping[str, str]) -> None:
    """Print predictions (contents of ``prediction.json``) and failures, by patient, as one JSON document.

    Predictions are printed one by one, because thousands of them would fill the memory.
    """
    separator = "\n"
    typer.echo('{\n  "predictions": [', nl=False)
    for document in documents:
        typer.echo(separator + indent(_format_json(document), "    "), nl=False)
        separator = ",\n"
    failures = [{"patient_id": patient, "error": reason} for patient, reason in reasons.items()]
    typer.echo("\n  ],\n" + indent(f'"failures": {_format_json(failures)}', "  ") + "\n}")


def _format_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)


def explain(
    input: Annotated[Path, typer.Argument(help="One patient's folder.")],
    out: Annotated[Path, typer.Option(help="Output folder; the images go to a subfolder of the patient.")],
    model: Annotated[str, typer.Option(help="Name of a shipped model, or a weights file.")] = "demo",
    stage: Annotated[
        int, typer.Option(min=1, max=4, help="Network stage of the features: 1 finest, 4 coarsest.")
    ] = 3,
    device: DeviceOption = DeviceChoice.auto,
    quiet: QuietOption = False,
    require_signed: RequireSignedOption = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Show which pixels determine each marker's prediction: Grad-CAM of every branch on the slices used."""
    from gliomark.isolation import ReaderPool
    from gliomark.models.signatures import read_trust_policy

    trust = read_trust_policy(trusted_key or (), require_signed)
    with ProgressLine(quiet) as progress, ReaderPool() as reader_pool:
        from gliomark.explanation.explain import explain_patient

        paths = explain_patient(input, out, model, stage, reader_pool, trust, progress.show, device.value)
    for path in paths:
        typer.echo(str(path))

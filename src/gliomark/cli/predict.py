"""``gliomark predict`` and ``gliomark explain``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

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
            "NIfTI, NRRD, MHA, DICOM SEG, RTSTRUCT, or the mask folder of a patient in pictures."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Name of a shipped model, or a weights file.")] = "demo",
    fusion: Annotated[
        FusionChoice, typer.Option(help="How slice probabilities are combined.")
    ] = FusionChoice.near,
    enhancing: Annotated[
        YesNo | None, typer.Option(help="Reader's finding: is an enhancing focus present?")
    ] = None,
    language: Annotated[
        LanguageChoice, typer.Option(help="Language of the report and the table.")
    ] = LanguageChoice.en,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also write the report as PDF.")] = False,
    dicom_out: Annotated[
        bool,
        typer.Option("--dicom-out", help="Also write the results as DICOM, if the images are DICOM."),
    ] = False,
    device: DeviceOption = DeviceChoice.auto,
    quiet: QuietOption = False,
    print_json: Annotated[
        bool, typer.Option("--json", help="Print the predictions as JSON instead of the table.")
    ] = False,
    require_signed: RequireSignedOption = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Segment the lesion and predict the markers of one or more patients."""
    from gliomark.isolation import ReaderPool
    from gliomark.messages import render_message
    from gliomark.models.signatures import read_trust_policy

    has_enhancing_focus = None if enhancing is None else enhancing is YesNo.yes
    trust = read_trust_policy(trusted_key or (), require_signed)
    documents: list[dict[str, Any]] = []
    reports: list[str] = []
    # reader processes start while the networks' libraries are imported
    with ProgressLine(quiet) as progress, ReaderPool() as reader_pool:
        from gliomark.batch import BatchStep, PredictionOptions, predict_folder

        def show_step(step: BatchStep) -> None:
            progress.show(render_message(step.text, language.value), step.completed, step.total)

        options = PredictionOptions(
            model=model,
            fusion_rule=fusion.value,
            has_enhancing_focus=has_enhancing_focus,
            language=language.value,
            allows_missing_clinical=allow_missing_clinical,
            writes_pdf=pdf,
            writes_dicom=dicom_out,
            trust=trust,
            device=device.value,
            mask_file=mask,
        )
        failures = predict_folder(
            input,
            clinical,
            out,
            options,
            reports.append,
            reader_pool,
            show_step,
            lambda prediction: documents.append(prediction.to_dict()),
        )
    reasons = {one.patient_id: render_message(one.message, language.value) for one in failures}
    if print_json:
        typer.echo(format_json(documents, reasons))
    else:
        if documents and not quiet:
            from gliomark.cli.results_table import show_results

            show_results(documents, language.value)
        for report in reports:
            typer.echo(report)
    exit_after_failures(reasons)


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


def format_json(documents: Sequence[Mapping[str, Any]], reasons: Mapping[str, str]) -> str:
    """Format predictions (contents of ``prediction.json``) and failures, by patient, as one JSON document."""
    failures = [{"patient_id": patient, "error": reason} for patient, reason in reasons.items()]
    return json.dumps(
        {"predictions": documents, "failures": failures}, ensure_ascii=False, indent=2, allow_nan=False
    )


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

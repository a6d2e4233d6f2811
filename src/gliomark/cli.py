"""The command line; a room is imported only when its command runs."""

from __future__ import annotations

import os
import sys
import warnings
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from gliomark.study import GliomarkError, MRSequence

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False
)
cohort_app = typer.Typer(no_args_is_help=True, help="Build, check, describe, share or invent a cohort.")
train_app = typer.Typer(no_args_is_help=True, help="Train the networks on a cohort.")
experiment_app = typer.Typer(no_args_is_help=True, help="Reproduce the committed results.")
token_app = typer.Typer(no_args_is_help=True, help="Who may ask a server.")
models_app = typer.Typer(no_args_is_help=True, help="Look into weights files, sign them, check signatures.")
app.add_typer(cohort_app, name="cohort")
app.add_typer(train_app, name="train")
app.add_typer(experiment_app, name="experiment")
audit_app = typer.Typer(no_args_is_help=True, help="Read and verify a server's audit log.")
app.add_typer(token_app, name="token")
app.add_typer(audit_app, name="audit")
app.add_typer(models_app, name="models")


# which extra brings a module, where it is not "train"
EXTRA_BY_MODULE = {"PySide6": "client", "fastapi": "server", "sqlalchemy": "server", "uvicorn": "server"}


class FusionChoice(StrEnum):
    near = "near"
    all = "all"
    large = "large"


class YesNo(StrEnum):
    yes = "yes"
    no = "no"


class LanguageChoice(StrEnum):
    en = "en"
    zh = "zh"


class PhantomFormat(StrEnum):
    pictures = "pictures"
    nifti = "nifti"
    dicom = "dicom"


class ExportFormat(StrEnum):
    bids = "bids"
    nnunet = "nnunet"
    structured_pictures = "structured-pictures"


class Preset(StrEnum):
    published = "published"
    quick = "quick"


CohortOption = Annotated[Path, typer.Option("--cohort", help="A prepared cohort.")]
OutputFolderOption = Annotated[Path, typer.Option("--out", help="Where tables, figures and run records go.")]
PresetOption = Annotated[
    Preset, typer.Option("--preset", help="As published, or cut to hours on two CPU cores.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Processes; 0, or a GPU and no number: this one.")
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="A dask scheduler's address, tcp://...")
]

TrustedKeyOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--trusted-key",
        envvar="GLIOMARK_TRUSTED_KEY",
        help="Whose signature on a weights file counts: a public key's file; repeatable.",
    ),
]
RequireSignedOption = Annotated[
    bool,
    typer.Option(
        "--require-signed",
        envvar="GLIOMARK_REQUIRE_SIGNED",
        help="Load no weights but those signed with a --trusted-key.",
    ),
]

TestCohortsOption = Annotated[
    list[Path] | None, typer.Option(help="A prepared cohort that nobody trains on; repeatable.")
]


@app.callback()
def main() -> None:
    """gliomark predicts glioma markers from MRI before surgery. Research use only, not a medical device."""


@app.command()
def predict(
    input: Annotated[Path, typer.Argument(help="One patient's folder, or a folder of patients.")],
    out: Annotated[Path, typer.Option(help="Where the results go; one folder per patient.")],
    clinical: Annotated[Path | None, typer.Option(help="Table with the columns id, age, sex.")] = None,
    model: Annotated[str, typer.Option(help="A shipped model's name or a weights file.")] = "demo",
    fusion: Annotated[
        FusionChoice, typer.Option(help="How slices become the patient's answer.")
    ] = FusionChoice.near,
    enhancing: Annotated[
        YesNo | None, typer.Option(help="The reader's finding: is there an enhancing focus?")
    ] = None,
    language: Annotated[LanguageChoice, typer.Option(help="Language of the report.")] = LanguageChoice.en,
    without_clinical: Annotated[bool, typer.Option(help="Allow unknown age or sex.")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="The report as PDF as well.")] = False,
    dicom_out: Annotated[
        bool,
        typer.Option("--dicom-out", help="The results as DICOM as well, where the images came as DICOM."),
    ] = False,
    require_signed: RequireSignedOption = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Outline the lesion and predict the markers of one patient or many."""
    from gliomark.isolation import ReaderPool
    from gliomark.messages import render_message
    from gliomark.models.signatures import read_trust_policy

    has_enhancing_focus = None if enhancing is None else enhancing is YesNo.yes
    trust = read_trust_policy(trusted_key or (), require_signed)
    with ReaderPool() as reader_pool:  # it gets ready while the networks' libraries are loaded
        from gliomark.batch import PredictionOptions, predict_folder

        request = PredictionOptions(
            model, fusion.value, has_enhancing_focus, language.value, without_clinical, pdf, dicom_out, trust
        )
        failures = predict_folder(input, clinical, out, request, typer.echo, reader_pool)
    for failure in failures:
        typer.echo(f"{failure.patient_id}: {render_message(failure.message, language.value)}", err=True)
    if failures:
        raise typer.Exit(1)


@app.command()
def explain(
    input: Annotated[Path, typer.Argument(help="One patient's folder.")],
    out: Annotated[Path, typer.Option(help="Where the pictures go; a folder for the patient.")],
    model: Annotated[str, typer.Option(help="A shipped model's name or a weights file.")] = "demo",
    stage: Annotated[
        int, typer.Option(min=1, max=4, help="Features of which stage: 1 the finest, 4 the coarsest.")
    ] = 3,
    require_signed: RequireSignedOption = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """On which pixels each marker's answer rests: Grad-CAM of every branch on the deciding slices."""
    from gliomark.isolation import ReaderPool
    from gliomark.models.signatures import read_trust_policy

    trust = read_trust_policy(trusted_key or (), require_signed)
    with ReaderPool() as reader_pool:
        from gliomark.explain import explain_patient

        for path in explain_patient(input, out, model, stage, reader_pool, trust):
            typer.echo(str(path))


DataFolderOption = Annotated[
    Path, typer.Option("--data", help="The server's folder: images, results, records.")
]
DatabaseOption = Annotated[
    str, typer.Option("--database", help="A database URL; by default SQLite in the data folder.")
]


BYTES_PER_GIB = 1 << 30


def create_limit_option(minimum: float, help_text: str) -> Any:
    """An option of the server's that bounds what others may make it do."""
    return typer.Option(min=minimum, help=help_text)


@app.command()
def serve(
    data: DataFolderOption = Path("gliomark-data"),
    host: Annotated[
        str, typer.Option(help="Other than this machine's own needs tokens and TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    database: DatabaseOption = "",
    workers: Annotated[int, typer.Option(min=1, help="Processes that predict.")] = 1,
    model: Annotated[
        list[str] | None, typer.Option(help="demo, or NAME=FILE; the first is the default; repeatable.")
    ] = None,
    dicom_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Be a DICOM node too: what is pushed here is predicted."),
    ] = None,
    dicom_title: Annotated[str, typer.Option(help="Its AE title.")] = "GLIOMARK",
    dicom_peer: Annotated[
        list[str] | None, typer.Option(help="AE title that may push; without any, everybody; repeatable.")
    ] = None,
    dicom_quiet: Annotated[
        float, typer.Option(min=1, help="Seconds without an image after which a study is taken for whole.")
    ] = 10.0,
    send_to: Annotated[
        list[str] | None,
        typer.Option(help="Where results go: AET@host:port or a DICOMweb address; repeatable."),
    ] = None,
    language: Annotated[
        LanguageChoice, typer.Option(help="Of the reports that are sent.")
    ] = LanguageChoice.en,
    with_input: Annotated[
        bool,
        typer.Option(
            "--with-input",
            help="End when standard input does, and tell the address as JSON; for programs that start a server.",
        ),
    ] = False,
    connections: Annotated[int, create_limit_option(1, "HTTP connections open at once, in all.")] = 400,
    connections_each: Annotated[int, create_limit_option(1, "HTTP connections from one address.")] = 300,
    uploads: Annotated[int, create_limit_option(1, "Uploads received at once, in all.")] = 6,
    uploads_each: Annotated[int, create_limit_option(1, "Uploads received at once from one caller.")] = 4,
    upload_gb: Annotated[
        float, create_limit_option(0.001, "The largest upload, before and after unpacking.")
    ] = 2.0,
    associations: Annotated[int, create_limit_option(1, "DICOM associations at once, in all.")] = 20,
    associations_each: Annotated[int, create_limit_option(1, "DICOM associations from one address.")] = 12,
    object_gb: Annotated[float, create_limit_option(0.001, "The largest DICOM object.")] = 1.0,
    reserve_gb: Annotated[
        float, create_limit_option(0, "Space on the disk that is kept free; nothing is taken in below it.")
    ] = 1.0,
    job_minutes: Annotated[
        float, create_limit_option(0.1, "A job without progress for so long is ended.")
    ] = 15.0,
    require_signed: RequireSignedOption = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Predict over HTTP: upload, outline, correct, predict again, reports; everything is recorded."""
    from gliomark.models.signatures import read_trust_policy
    from gliomark.server.associations import AssociationLimits
    from gliomark.server.bodies import RequestLimits
    from gliomark.server.connections import ConnectionLimits
    from gliomark.server.dicom_node import DicomNodeConfig
    from gliomark.server.run import ServerConfig, run_server
    from gliomark.server.security import ServerAddress

    name_and_file_texts = [one if "=" in one else f"{one}={one}" for one in model or ["demo"]]
    models = dict(parse_pair(one, "demo or NAME=FILE") for one in name_and_file_texts)
    address = ServerAddress(host, port, tls_certificate, tls_key)
    dicom_node = None
    if dicom_port is not None:
        peers, destinations = tuple(dicom_peer or ()), tuple(send_to or ())
        association_limits = AssociationLimits(
            associations,
            associations_each,
            max_object_bytes=int(object_gb * BYTES_PER_GIB),
            min_free_disk_bytes=int(reserve_gb * BYTES_PER_GIB),
        )
        dicom_node = DicomNodeConfig(
            dicom_port,
            host,
            dicom_title,
            peers,
            destinations,
            dicom_quiet,
            language=language.value,
            association_limits=association_limits,
        )
    upload_limits = RequestLimits(
        int(upload_gb * BYTES_PER_GIB),
        max_uploads=uploads,
        max_uploads_per_caller=uploads_each,
        min_free_disk_bytes=int(reserve_gb * BYTES_PER_GIB),
    )
    settings = ServerConfig(
        data,
        address,
        database,
        workers,
        models,
        request_limits=upload_limits,
        connection_limits=ConnectionLimits(connections, connections_each),
        dicom_node_config=dicom_node,
        stops_with_stdin=with_input,
        job_stall_timeout_s=60 * job_minutes,
        trust=read_trust_policy(trusted_key or (), require_signed),
    )
    run_server(settings, notify=typer.echo)


@app.command()
def client(
    folder: Annotated[Path | None, typer.Argument(help="A patient's folder to open.")] = None,
    server: Annotated[
        str | None, typer.Option(help="A server's address for this once; else that of the settings.")
    ] = None,
) -> None:
    """Open the desktop program; unless its settings name a server, it starts one on this computer."""
    try:
        from gliomark.client.app import run_client
    except ModuleNotFoundError:
        raise
    except ImportError as error:  # Qt is there, the system's graphics libraries are not
        raise GliomarkError(
            f"Qt cannot be loaded ({error}); install what it needs, such as libegl1."
        ) from None

    raise typer.Exit(run_client(folder, server))


@token_app.command("add")
def add_token_command(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    role: Annotated[str, typer.Option(help="reader or admin.")] = "reader",
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
) -> None:
    """Make a token and show it, this once."""
    from gliomark.server.run import open_database

    typer.echo(open_database(data, database).add_token(name, role))


@token_app.command("list")
def list_tokens_command(
    data: DataFolderOption = Path("gliomark-data"), database: DatabaseOption = ""
) -> None:
    """Whose tokens there are, and their roles."""
    from gliomark.server.run import open_database

    for row in open_database(data, database).list_tokens():
        typer.echo(f"{row.name}\t{row.role}\t{row.created:%Y-%m-%d}")


@token_app.command("revoke")
def revoke_token_command(
    name: Annotated[str, typer.Argument(help="Whose it was.")],
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
) -> None:
    """Refuse it from now on."""
    from gliomark.server.run import open_database

    open_database(data, database).revoke_token(name)


@app.command()
def evaluate(
    predictions: Annotated[
        Path, typer.Argument(help="csv or xlsx, one row per patient: id, label, probability.")
    ],
    out: Annotated[Path, typer.Option(help="Where the tables and the page go.")],
    validation: Annotated[
        Path | None, typer.Option(help="Other patients' predictions, by whom thresholds are chosen.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another model's predictions of the same patients.")
    ] = None,
    id: Annotated[str, typer.Option(help="The column of the patient.")] = "id",
    label: Annotated[str, typer.Option(help="The column of the truth: 0 or 1, no or yes.")] = "label",
    probability: Annotated[str, typer.Option(help="The column of the probability.")] = "probability",
    site: Annotated[str | None, typer.Option(help="The column of the hospital.")] = None,
    predicted: Annotated[
        str | None,
        typer.Option(help="The column of the predicted class, if the probability is that class's."),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE: take these rows alone; repeatable.")
    ] = None,
) -> None:
    """Judge anybody's predictions: AUC, operating points, calibration, decision curve, sites, two models."""
    from gliomark.assessment import (
        PredictionColumns,
        evaluate_predictions,
        read_predictions,
        write_evaluation,
    )

    row_filters = tuple(parse_pair(text, "COLUMN=VALUE, such as task=IDH") for text in where or ())
    columns = PredictionColumns(id, label, probability, site, predicted, row_filters)
    validation_predictions = None if validation is None else read_predictions(validation, columns)
    comparison_predictions = None if against is None else read_predictions(against, columns)
    evaluation = evaluate_predictions(
        read_predictions(predictions, columns), validation_predictions, comparison_predictions
    )
    typer.echo(str(write_evaluation(evaluation, out)))


@cohort_app.command("build")
def build_cohort_command(
    root: Annotated[
        Path, typer.Argument(help="A disk of DICOM in any order, or folders of pictures or volumes.")
    ],
    labels: Annotated[Path, typer.Option(help="Table (csv or xlsx) with id, age, sex and the markers.")],
    out: Annotated[Path, typer.Option(help="The cohort; what identifies patients goes to OUT.private.")],
    sequences: Annotated[str, typer.Option(help="The pair, the reference last.")] = "T1C,T2",
    masks: Annotated[
        Path | None, typer.Option(help="Lesion masks drawn elsewhere: a folder per patient's id.")
    ] = None,
    series: Annotated[Path | None, typer.Option(help="An edited series.csv whose decisions rule.")] = None,
    ki67_threshold: Annotated[float, typer.Option(help="Percent from which Ki-67 is high.")] = 10.0,
    keep_ids: Annotated[bool, typer.Option(help="The ids are anonymous already: keep them.")] = False,
    without_masks: Annotated[bool, typer.Option(help="Keep patients whose lesion is not drawn.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes, all cores if not given; 0: within this one.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="A dask scheduler's address, tcp://...")] = None,
) -> None:
    """From DICOM, pictures or volumes to a prepared, quality-checked and described cohort."""
    from rich.progress import Progress

    from gliomark.cohort.build import BuildSettings, CohortSources, build_cohort
    from gliomark.cohort.describe import describe_cohort
    from gliomark.cohort.labels import LabelSettings
    from gliomark.cohort.quality_page import write_quality_pages

    settings = BuildSettings(
        sequences=parse_sequences(sequences),
        labels=LabelSettings(ki67_threshold=ki67_threshold),
        keep_ids=keep_ids,
        without_masks=without_masks,
    )
    with Progress() as progress_bar:
        task = progress_bar.add_task("patients", total=None)

        def update_progress(patient: str, done: int, of: int) -> None:
            progress_bar.update(task, completed=done, total=of, description=patient)

        report = build_cohort(
            CohortSources(root, labels, masks, series), out, settings, workers, scheduler, update_progress
        )
    for name, why in report.left_out.items():
        typer.echo(f"left out {name}: {why}", err=True)
    for note in report.notes:
        typer.echo(note, err=True)
    table, page = write_quality_pages(report.cohort)
    description_page = describe_cohort(report.cohort)
    typer.echo(
        f"{report.prepared} patients prepared, {report.reused} kept from before, {len(report.left_out)} left out"
    )
    typer.echo(f"{report.quarantined} series or files in quarantine, see {out}.private/quarantine.csv")
    typer.echo(f"What every series was taken for: {out}.private/series.csv")
    typer.echo(f"Check the patients: {page} (decisions in {table})")
    typer.echo(f"Description: {description_page}")


@cohort_app.command("check")
def check_cohort_command(cohort: Annotated[Path, typer.Argument(help="A prepared cohort.")]) -> None:
    """Write the quality pages anew, a person's decisions in qc.csv kept."""
    from gliomark.cohort.quality_page import write_quality_pages
    from gliomark.cohort.store import Cohort

    for path in write_quality_pages(Cohort(cohort)):
        typer.echo(str(path))


@cohort_app.command("describe")
def describe_cohort_command(
    cohort: Annotated[Path, typer.Argument(help="A prepared cohort.")],
    out: Annotated[Path | None, typer.Option(help="COHORT/describe if not given.")] = None,
) -> None:
    """Who is in it: table 2-1 and more as csv, a page with plots, and a datasheet."""
    from gliomark.cohort.describe import describe_cohort
    from gliomark.cohort.store import Cohort

    typer.echo(str(describe_cohort(Cohort(cohort), out)))


@cohort_app.command("export")
def export_cohort_command(
    cohort: Annotated[Path, typer.Argument(help="A prepared cohort.")],
    to: Annotated[ExportFormat, typer.Option(help="The layout.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
) -> None:
    """Write the cohort for other tools: BIDS derivatives, nnU-Net's dataset, or picture folders."""
    from gliomark.cohort.export import export_cohort
    from gliomark.cohort.store import Cohort

    typer.echo(str(export_cohort(Cohort(cohort), to.value, out)))


@cohort_app.command("anonymise")
def anonymise_dicom_command(
    root: Annotated[Path, typer.Argument(help="A folder of DICOM files, in any order.")],
    out: Annotated[Path, typer.Option(help="The clean files; the key goes to OUT.private.")],
    clean_descriptors: Annotated[
        bool, typer.Option(help="Keep one word of a series' description: T1, T1C, T2 or FLAIR.")
    ] = False,
) -> None:
    """Write clean DICOM by the basic confidentiality profile of DICOM PS3.15."""
    from gliomark.cohort.anonymise import anonymise_folder

    report = anonymise_folder(root, out, clean_descriptors=clean_descriptors)
    for path, why in report.left_out:
        typer.echo(f"left out {path}: {why}", err=True)
    written = f"{report.written_files} files written, {report.unchanged_files} there already, {len(report.left_out)} left out"
    typer.echo(f"{report.patients} patients: {written}")
    typer.echo(f"The key: {report.key_file}")
    for sentence in report.options_not_applied:
        typer.echo(sentence)


@cohort_app.command("phantom")
def generate_phantom_command(
    out: Annotated[Path, typer.Option(help="Where the patients go, with their table.")],
    patients: Annotated[int, typer.Option(min=1, help="How many patients.")] = 1,
    seed: Annotated[int, typer.Option(help="The first patient's seed.")] = 1,
    form: Annotated[
        PhantomFormat, typer.Option("--as", help="Pictures, NIfTI volumes, or a hospital's raw DICOM export.")
    ] = PhantomFormat.pictures,
    lesion_free: Annotated[
        bool, typer.Option(help="People without a lesion instead: empty masks, blank markers.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores if not given.")] = None,
) -> None:
    """Invent patients with a glioma whose markers cause what the images show, with a known best AUC."""
    import os

    from rich.progress import Progress

    from gliomark.cohort.phantom.hospital import write_hospital

    processes = min(patients, workers or os.cpu_count() or 1)
    with Progress(transient=True) as progress_bar:
        task = progress_bar.add_task("patients", total=patients)

        def update_progress(patient: str, done: int, of: int) -> None:
            progress_bar.update(task, completed=done, description=patient)

        report = write_hospital(
            range(seed, seed + patients),
            out,
            output_format=form.value,
            workers=processes,
            progress=update_progress,
            has_lesion=not lesion_free,
        )
    typer.echo(
        f"{report.patients} synthetic patients in {report.folder}; what only a phantom knows in truth/"
    )
    for marker, best in report.model_ceilings.items():
        typer.echo(str(best))
        if patients > 1:
            typer.echo(f"  on these patients: {report.cohort_ceilings[marker]}")


@train_app.command("segmentation")
def train_segmentation_command(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    out: Annotated[Path, typer.Option(help="The weights file to write.")],
    rule: Annotated[str, typer.Option(help="joint, union or single.")] = "union",
    size: Annotated[
        str,
        typer.Option(
            help="published; small, MIG-Net for the CPU; light, with --rule joint the demonstration weights' recipe."
        ),
    ] = "published",
    epochs: Annotated[int, typer.Option(min=1, help="At most this many.")] = 200,
) -> None:
    """Train the outline's network on everybody but the test patients."""
    from gliomark.training.recipes import run_segmentation_training

    typer.echo(str(run_segmentation_training(cohort, out, rule, size, epochs)))


@train_app.command("markers")
def train_markers_command(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    segmentation: Annotated[Path, typer.Option(help="Weights file from 'train segmentation'.")],
    out: Annotated[Path, typer.Option(help="The complete weights file to write.")],
    marker: Annotated[
        list[str], typer.Option(help="Column of the clinical table, or column>=threshold; repeatable.")
    ],
    size: Annotated[
        str,
        typer.Option(
            help="published; small, for the CPU; light, the demonstration weights' recipe, in minutes."
        ),
    ] = "published",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each KiNet; light has none.")] = 100,
) -> None:
    """Train KiNet and LightGBM for one marker or several, on out-of-fold vectors."""
    from gliomark.training.recipes import run_marker_training

    card = run_marker_training(cohort, segmentation, out, marker, size, epochs).card
    for one in card.markers.values():
        typer.echo(f"{one.title}: {one.validation_message}")
    typer.echo(str(out))


@experiment_app.command("demonstration")
def run_demonstration_command(
    cohort: Annotated[Path, typer.Option(help="The prepared TCGA-LGG cohort (T1C,FLAIR).")],
    out: Annotated[Path, typer.Option(help="Where weights, tables and run record go.")],
    also_test: TestCohortsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Retrain the demonstration weights and measure them on patients they never saw."""
    from gliomark.experiments.demonstration import run_demonstration
    from gliomark.experiments.segmentation.tables import ExperimentConfig
    from gliomark.experiments.segmentation.trials import SHIPPED_PRESET

    run_demonstration(
        ExperimentConfig((cohort,), out, SHIPPED_PRESET, workers, scheduler, typer.echo), also_test or ()
    )


@experiment_app.command("table-2-3")
def run_table_2_3_command(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    out: Annotated[Path, typer.Option(help="Where the tables and the run record go.")],
    preset: Annotated[
        Preset, typer.Option(help="As published, or cut to two hours on one core.")
    ] = Preset.published,
    weights: Annotated[
        list[str] | None, typer.Option(help="NETWORK=FILE: start from these weights; repeatable.")
    ] = None,
) -> None:
    """Is there a lesion in this slice? ResNet-50, DenseNet-121 and Xception, five folds by patient."""
    from gliomark.experiments.cohort.table_2_3 import run_table_2_3

    pairs = (parse_pair(text, "NETWORK=FILE, such as resnet50=weights.pt") for text in weights or ())
    files = {network: Path(file) for network, file in pairs}
    typer.echo(str(run_table_2_3(cohort, out, preset.value, files, notify=typer.echo)))


@experiment_app.command("table-3-1")
def run_table_3_1_command(
    cohort: CohortOption,
    out: OutputFolderOption,
    preset: PresetOption = Preset.published,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """The outline: MIG-Net against U-Net, TransUNet, Swin-UNet, Attention U-Net and nnU-Net, five folds."""
    from gliomark.experiments.place import ExperimentConfig
    from gliomark.experiments.segmentation.tables import run_table_3_1

    config = ExperimentConfig((cohort,), out, preset.value, workers, scheduler, typer.echo)
    typer.echo(str(run_table_3_1(config)))


@experiment_app.command("table-3-2")
def run_table_3_2_command(
    cohort: CohortOption,
    out: OutputFolderOption,
    preset: PresetOption = Preset.published,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """The outline: the focus prior graph, the guidance and the inverted gates, each on and off, five folds."""
    from gliomark.experiments.place import ExperimentConfig
    from gliomark.experiments.segmentation.tables import run_table_3_2

    config = ExperimentConfig((cohort,), out, preset.value, workers, scheduler, typer.echo)
    typer.echo(str(run_table_3_2(config)))


@experiment_app.command("table-3-3")
def run_table_3_3_command(
    cohort: CohortOption,
    second_cohort: Annotated[Path, typer.Option(help="The other prepared cohort, of the same sequences.")],
    out: OutputFolderOption,
    also_test: TestCohortsOption = None,
    preset: PresetOption = Preset.published,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """The outline across cohorts: MIG-Net trained on one, the other and both, tested on each, five folds."""
    from gliomark.experiments.place import ExperimentConfig
    from gliomark.experiments.segmentation.tables import run_table_3_3

    config = ExperimentConfig((cohort, second_cohort), out, preset.value, workers, scheduler, typer.echo)
    typer.echo(str(run_table_3_3(config, also_test or ())))


@experiment_app.command("segmentation-beyond")
def run_segmentation_extensions_command(
    cohort: CohortOption,
    out: OutputFolderOption,
    preset: PresetOption = Preset.published,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """The outline beyond the published study: joint input, neighbours, contrasts, a student, five folds."""
    from gliomark.experiments.place import ExperimentConfig
    from gliomark.experiments.segmentation.tables import run_segmentation_extensions

    config = ExperimentConfig((cohort,), out, preset.value, workers, scheduler, typer.echo)
    typer.echo(str(run_segmentation_extensions(config)))


# each table's command, its function and what `gliomark experiment --help` says of it
MARKER_TABLE_COMMANDS = {
    "table-4-2": (
        "tables.run_table_4_2",
        "The marker from one sequence: the slice, the lesion alone, both (MIX).",
    ),
    "table-4-3": (
        "tables.run_table_4_3",
        "The marker from two sequences: early, late and middle fusion.",
    ),
    "table-4-4": (
        "tables.run_table_4_4",
        "The marker by ResNet-50, ResNeSt-50, CentralNet, KiNet and a light KiNet.",
    ),
    "table-4-5": (
        "tables.run_table_4_5",
        "The marker: the BMS loss, Merge-IN and the metadata, each on and off.",
    ),
    "table-4-6": ("tables.run_table_4_6", "The marker per patient: All, Near and Large."),
    "marker-rivals": (
        "tables.run_rivals",
        "KiNet beside radiomics with LightGBM and beside age and sex alone.",
    ),
    "slice-leak": ("slice_leak.run", "A lesson: what a split by slices instead of by patients pretends."),
}


def create_marker_table_command(function_path: str):
    """The command of one of chapter 4's tables: five folds by patient, a table per marker."""

    def run_marker_table_command(
        cohort: CohortOption,
        out: OutputFolderOption,
        marker: Annotated[
            list[str], typer.Option(help="Column of the clinical table, or column>=threshold; repeatable.")
        ],
        preset: PresetOption = Preset.published,
        workers: WorkersOption = None,
        scheduler: SchedulerOption = None,
    ) -> None:
        from gliomark.experiments.place import ExperimentConfig
        from gliomark.training.recipes import parse_marker_definition

        module, name = function_path.split(".")
        run = getattr(import_module(f"gliomark.experiments.markers.{module}"), name)
        config = ExperimentConfig((cohort,), out, preset.value, workers, scheduler, typer.echo)
        for definition in map(parse_marker_definition, marker):
            typer.echo(str(run(config, definition)))

    return run_marker_table_command


for _name, (_function, _said) in MARKER_TABLE_COMMANDS.items():
    experiment_app.command(_name, help=_said)(create_marker_table_command(_function))


@experiment_app.command("feature-table")
def run_feature_table_command(
    table: Annotated[Path, typer.Argument(help="csv, one row per patient, radiomics computed elsewhere.")],
    out: OutputFolderOption,
    label: Annotated[str, typer.Option(help="The marker's column.")],
    positive: Annotated[str, typer.Option(help="Its positive value; every other one is negative.")],
    first_feature: Annotated[str, typer.Option(help="Features are the numeric columns from this one on.")],
    id: Annotated[str, typer.Option(help="The column of the patient.")] = "id",
    age: Annotated[str, typer.Option(help="The column of the age in years.")] = "age",
    sex: Annotated[str, typer.Option(help="The column of the sex: 0 or M, 1 or F.")] = "sex",
) -> None:
    """What published radiomics can tell: LightGBM on anybody's features, beside age and sex, five folds."""
    from gliomark.experiments.markers.feature_table import TableColumns, run_feature_table

    columns = TableColumns(id, label, positive, age, sex, first_feature)
    typer.echo(str(run_feature_table(table, columns, out, notify=typer.echo)))


@experiment_app.command("reader-finding")
def run_reader_finding_command(
    cohort: Annotated[Path, typer.Option(help="A cohort prepared for T1,T1C, with lesions drawn.")],
    out: OutputFolderOption,
) -> None:
    """How far "enhancing focus: yes or no" goes for IDH, enhancement judged by a rule."""
    from gliomark.experiments.markers.reader_finding import run_reader_finding

    typer.echo(str(run_reader_finding(cohort, out)))


@experiment_app.command("phantom-reach")
def run_phantom_reach_command(
    out: OutputFolderOption,
    marker: Annotated[str, typer.Option(help="ki67 or idh_mutant.")] = "ki67",
    patients: Annotated[
        list[int] | None, typer.Option(min=20, help="In a cohort; repeatable; 200, 500 and 2000 by default.")
    ] = None,
    cohorts: Annotated[int, typer.Option(min=2, help="How many cohorts of each size.")] = 200,
) -> None:
    """How near the phantom's ceiling so many patients let anybody come who sees the truth behind the images."""
    from gliomark.experiments.markers.phantom_reach import run_phantom_learning_curve

    typer.echo(
        str(run_phantom_learning_curve(marker, patients or [200, 500, 2000], cohorts, out, notify=typer.echo))
    )


@experiment_app.command("shuffled-labels")
def run_permuted_labels_command(
    cohort: CohortOption,
    demonstration: Annotated[Path, typer.Option(help="The --out of 'experiment demonstration'.")],
    out: OutputFolderOption,
    marker: Annotated[str, typer.Option(help="Column of the clinical table, or column>=threshold.")],
    shuffles: Annotated[int, typer.Option(min=1, help="How often the labels are dealt anew.")] = 10,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Does anything leak? The whole cascade with labels dealt to other patients: its AUC should be 0.5."""
    from gliomark.cohort.store import Cohort
    from gliomark.experiments.demonstration import create_marker_training
    from gliomark.experiments.markers.cascade import run_permuted_labels
    from gliomark.experiments.place import ExperimentConfig
    from gliomark.experiments.segmentation.tables import list_shipped_runs
    from gliomark.experiments.segmentation.trials import SHIPPED_PRESET
    from gliomark.training.recipes import parse_marker_definition

    config = ExperimentConfig((cohort,), out, SHIPPED_PRESET, workers, scheduler, typer.echo)
    trial, segmentation_folder = list_shipped_runs(Cohort(cohort))[-1], demonstration / "work"
    path = run_permuted_labels(
        parse_marker_definition(marker),
        trial,
        create_marker_training(),
        config,
        shuffles,
        segmentation_folder,
    )
    typer.echo(str(path))


@experiment_app.command("registration")
def run_registration_command(
    out: Annotated[Path, typer.Option(help="Where the table goes.")],
    patients: Annotated[int, typer.Option(min=1, help="How many synthetic patients.")] = 40,
    seed: Annotated[int, typer.Option(help="The first patient's seed.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """How well displaced sequences are brought together, on patients whose displacement is known."""
    from gliomark.experiments.cohort.registration import run_registration_accuracy

    typer.echo(str(run_registration_accuracy(patients, seed, out, workers, notify=typer.echo)))


@experiment_app.command("recognition")
def run_recognition_command(
    out: Annotated[Path, typer.Option(help="Where the confusion table goes.")],
    series: Annotated[Path | None, typer.Option(help="A folder of real series to add.")] = None,
) -> None:
    """Which sequence a series is: the confusion table over invented headers and real series."""
    from gliomark.experiments.cohort.recognition import run_series_recognition

    typer.echo(str(run_series_recognition(out, series, notify=typer.echo)))


@experiment_app.command("server-load")
def run_server_load_command(
    patients: Annotated[Path, typer.Option(help="A folder of patients, as 'predict' takes them.")],
    out: OutputFolderOption,
    count: Annotated[int, typer.Option(min=1, help="How many of them.")] = 20,
    clients: Annotated[int, typer.Option(min=1, help="How many ask at once.")] = 20,
    predictions: Annotated[int, typer.Option(min=1, help="How many they ask for in all.")] = 200,
    workers: Annotated[int, typer.Option(min=1, help="The server's --workers.")] = 1,
) -> None:
    """How soon the server answers one client, and whether it answers many rightly."""
    from gliomark.experiments.bedside.server_load import run_server_load

    typer.echo(str(run_server_load(patients, out, typer.echo, count, clients, predictions, workers)))


@experiment_app.command("kills")
def run_kills_command(
    out: OutputFolderOption,
    door: Annotated[str, typer.Option(help="predict, build, train, serve or all.")] = "all",
    times: Annotated[int, typer.Option(min=1, help="How often each is killed.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Draws the patients and the moments.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Attempts side by side.")] = 1,
) -> None:
    """kill -9 at random moments: is what runs again the same as if nothing had happened, and nothing left?"""
    from gliomark.experiments.bedside.kills import ENTRY_POINTS, run_kill_recovery

    typer.echo(
        str(
            run_kill_recovery(
                list(ENTRY_POINTS) if door == "all" else [door], times, seed, out, typer.echo, workers
            )
        )
    )


@experiment_app.command("server-poison")
def run_server_poison_command(
    out: OutputFolderOption,
    uploads: Annotated[int, typer.Option(min=5, help="How many, every fifth of them poison.")] = 100,
    clients: Annotated[int, typer.Option(min=1, help="How many send at once.")] = 20,
    patients: Annotated[int, typer.Option(min=1, help="Different good ones, synthetic.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="The server's --workers.")] = 2,
) -> None:
    """Whether the server answers the good rightly and refuses the rest where every fifth upload is poison."""
    from gliomark.experiments.bedside.server_poison import run_server_invalid_uploads

    typer.echo(str(run_server_invalid_uploads(out, typer.echo, uploads, clients, patients, workers)))


@experiment_app.command("server-idle")
def run_server_idle_command(
    out: OutputFolderOption,
    silent: Annotated[int, typer.Option(min=1, help="How many over HTTP, and as many over DICOM.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="For how long.")] = 120.0,
) -> None:
    """How soon the server serves a good client whom silent connections and associations surround."""
    from gliomark.experiments.bedside.server_idle import run_server_idle_connections

    typer.echo(str(run_server_idle_connections(out, typer.echo, silent, seconds)))


@experiment_app.command("click-to-result")
def run_click_to_result_command(
    patients: Annotated[Path, typer.Option(help="A folder of patients' folders.")],
    clinical: Annotated[Path, typer.Option(help="Table with the columns id, age, sex.")],
    out: OutputFolderOption,
    count: Annotated[int, typer.Option(min=1, help="How many of them.")] = 20,
) -> None:
    """How long one waits in the desktop client, from the click to the answer on the screen."""
    from gliomark.client.measure import measure_response_times

    typer.echo(str(measure_response_times(patients, clinical, out, count, typer.echo)))


@experiment_app.command("tables")
def write_tables_command(
    results: Annotated[Path, typer.Option(help="The folder with the csv files.")] = Path("results"),
    documents: Annotated[Path, typer.Option(help="Where README.md and MODEL_CARD.md are.")] = Path("."),
) -> None:
    """Write the tables of README.md and MODEL_CARD.md from the committed csv files."""
    from gliomark.experiments.documents import update_documents

    for path in update_documents(results, documents):
        typer.echo(str(path))


@audit_app.command("verify")
def verify_audit_log_command(
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
    expect: Annotated[
        str, typer.Option(metavar="HASH", help="A head noted earlier, which must be in the log.")
    ] = "",
) -> None:
    """Follow the log's hash chain; name the first line that was altered, removed, swapped or inserted."""
    from gliomark.server.audit_reading import describe_verification, open_existing_database, parse_sha256

    expected_hash = parse_sha256(expect) if expect else ""
    typer.echo(
        describe_verification(open_existing_database(data, database).verify_audit_chain(expected_hash))
    )


@audit_app.command("head")
def show_audit_head_command(
    data: DataFolderOption = Path("gliomark-data"), database: DatabaseOption = ""
) -> None:
    """Print the newest line's SHA-256, number and time (UTC), to be noted in another place."""
    from gliomark.server.audit_reading import format_head, open_existing_database

    typer.echo(format_head(open_existing_database(data, database).read_audit_head()))


@audit_app.command("show")
def show_audit_log_command(
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
    since: Annotated[str, typer.Option(help="Lines of this date or time (UTC) and later.")] = "",
    who: Annotated[str, typer.Option(help="Lines of this person or machine alone.")] = "",
    action: Annotated[str, typer.Option(help="Lines of this action alone, such as 'study viewed'.")] = "",
    subject: Annotated[str, typer.Option(help="Lines about this study or prediction alone.")] = "",
    out: Annotated[Path | None, typer.Option(help="A csv file; else they are printed.")] = None,
) -> None:
    """The log as csv, oldest line first; that it was read is recorded in it."""
    from gliomark.server.audit_reading import (
        iterate_csv_pages,
        open_existing_database,
        parse_utc_time,
        write_csv_pages,
    )
    from gliomark.server.records import AuditFilter

    since_time = parse_utc_time(since) if since else None
    audit_filter = AuditFilter(
        since=since_time, who=who or None, action=action or None, subject=subject or None
    )
    pages = iterate_csv_pages(open_existing_database(data, database), audit_filter)
    if out is not None:
        return write_csv_pages(pages, out)
    for page in pages:
        typer.echo(page, nl=False)


ModelArgument = Annotated[str, typer.Argument(help="A shipped model's name or a weights file.")]


@models_app.command("list")
def list_models_command() -> None:
    """The models that gliomark brings: name, file, markers."""
    from gliomark.models.shelf import SHIPPED_MODELS
    from gliomark.pipeline import load_weights_by_name

    for name in SHIPPED_MODELS:
        weights = load_weights_by_name(name)
        typer.echo(f"{name}\t{', '.join(weights.card.markers)}\t{weights.path}")


@models_app.command("show")
def show_model_command(
    model: ModelArgument,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """What a weights file says of itself, whether it loads, its SHA-256, and who signed it."""
    from gliomark.models.description import describe_as_json, describe_as_text
    from gliomark.models.signatures import read_trust_policy
    from gliomark.pipeline import build_model, load_weights_by_name

    weights = load_weights_by_name(model, read_trust_policy(trusted_key or ()))
    build_model(weights)
    typer.echo(describe_as_json(weights) if json else describe_as_text(weights))


@models_app.command("keygen")
def create_signing_key_command(
    name: Annotated[
        Path, typer.Argument(help="NAME.key and NAME.pub are made; neither is ever overwritten.")
    ],
    without_password: Annotated[
        bool, typer.Option("--without-password", help="Whoever has the file can sign.")
    ] = False,
) -> None:
    """Make a pair of keys: the secret one to sign weights with, the public one to give to those who load them."""
    from gliomark.models.signatures import create_key_pair

    password = "" if without_password else ask_password("Password of the new key", confirm=True)
    secret_key_path, public_key_path, key = create_key_pair(name, password)
    typer.echo(f"{secret_key_path}\n{public_key_path}\nkey {key}")


@models_app.command("sign")
def sign_model_command(
    model: ModelArgument,
    key: Annotated[Path, typer.Option(help="The secret key's file.")],
) -> None:
    """Sign a weights file that loads: its signature is put beside it, as FILE.minisig."""
    from gliomark.models.signatures import TrustPolicy, read_verified_content, sign_weights
    from gliomark.pipeline import build_model, load_weights_by_name

    weights = load_weights_by_name(model)
    build_model(weights)
    checked_file = read_verified_content(
        weights.path, TrustPolicy(pinned_hashes={str(weights.path): weights.file_sha256})
    )
    typer.echo(
        str(sign_weights(weights.path, checked_file, key, lambda: ask_password("Password of the key")))
    )


@models_app.command("verify")
def verify_model_command(
    model: ModelArgument,
    key: Annotated[list[Path], typer.Option(help="A public key's file; repeatable.")],
) -> None:
    """Whether a weights file is signed with one of these keys; status 1 where it is not."""
    from gliomark.models.shelf import resolve_weights_file
    from gliomark.models.signatures import (
        TrustPolicy,
        read_trust_policy,
        read_verified_content,
        verify_signature,
    )

    trust = read_trust_policy(key, is_signature_required=True)
    with resolve_weights_file(model) as path:
        signature = verify_signature(path, read_verified_content(path, TrustPolicy()).data, trust)
    typer.echo(f"{path}: signed with key {signature.key_id} ({' '.join(signature.comment.split())})")


def ask_password(prompt: str, confirm: bool = False) -> str:
    """From the environment variable GLIOMARK_KEY_PASSWORD, else typed without being shown."""
    password_from_environment = os.environ.get("GLIOMARK_KEY_PASSWORD")
    return (
        password_from_environment
        if password_from_environment
        else str(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm))
    )


def parse_pair(text: str, expected_form: str) -> tuple[str, str]:
    """``LEFT=RIGHT`` in two. form: what it must look like, in words. Raises GliomarkError where it does not."""
    left, separator, right = text.partition("=")
    if not separator or not left or not right:
        raise GliomarkError(f"'{text}' must be {expected_form}.")
    return left, right


def parse_sequences(text: str) -> tuple[MRSequence, ...]:
    """``T1C,T2`` as sequences. Raises GliomarkError on an unknown name."""
    names = [name.strip().upper() for name in text.split(",")]
    unknown = [name for name in names if name not in set(MRSequence)]
    if unknown or len(set(names)) != 2:
        raise GliomarkError(
            f"'{text}' must be two different sequences out of T1, T1C, T2, FLAIR, such as T1C,T2."
        )
    return tuple(MRSequence(name) for name in names)


def run_command_line() -> None:
    """The console entry point: what a user can mend is one sentence on standard error and status 1."""
    if not sys.warnoptions:
        # warnings of imaging libraries about odd headers would bury our one sentence
        warnings.simplefilter("ignore")
    try:
        app()
    except GliomarkError as error:
        typer.echo(f"gliomark: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        # a folder that cannot be written, a file that is not there, a full disk
        from gliomark.files import MESSAGE_CODE_BY_ERRNO, describe_os_error

        path_prefix = f"{error.filename}: " if error.filename else ""
        text = f"{path_prefix}{error.strerror or error}; check the path and its permissions."
        typer.echo(
            f"gliomark: {describe_os_error(error) if error.errno in MESSAGE_CODE_BY_ERRNO else text}",
            err=True,
        )
        sys.exit(1)
    except ModuleNotFoundError as error:
        extra = EXTRA_BY_MODULE.get(str(error.name).partition(".")[0], "train")
        typer.echo(
            f"gliomark: this command needs {error.name}, which is not installed; type: pip install 'gliomark[{extra}]'",
            err=True,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

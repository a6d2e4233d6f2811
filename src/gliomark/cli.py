"""The command line; packages are imported only when their command runs."""

from __future__ import annotations

import os
import sys
import warnings
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from gliomark.errors import ConfigurationError, GliomarkError
from gliomark.study import MRSequence

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False
)
cohort_app = typer.Typer(no_args_is_help=True, help="Build, check, describe, export or simulate a cohort.")
train_app = typer.Typer(no_args_is_help=True, help="Train networks on a prepared cohort.")
experiment_app = typer.Typer(no_args_is_help=True, help="Reproduce the committed results.")
token_app = typer.Typer(no_args_is_help=True, help="Manage API tokens.")
models_app = typer.Typer(no_args_is_help=True, help="Show, sign and verify weights files.")
app.add_typer(cohort_app, name="cohort")
app.add_typer(train_app, name="train")
app.add_typer(experiment_app, name="experiment")
audit_app = typer.Typer(no_args_is_help=True, help="Read and verify a server's audit log.")
app.add_typer(token_app, name="token")
app.add_typer(audit_app, name="audit")
app.add_typer(models_app, name="models")


# the extra that installs a module; "train" for all others
EXTRA_BY_MODULE = {"PySide6": "client", "fastapi": "server", "sqlalchemy": "server", "uvicorn": "server"}


class FusionChoice(StrEnum):
    """Values of --fusion."""

    near = "near"
    all = "all"
    large = "large"


class YesNo(StrEnum):
    """Values of --enhancing."""

    yes = "yes"
    no = "no"


class LanguageChoice(StrEnum):
    """Values of --language."""

    en = "en"
    zh = "zh"


class PhantomFormat(StrEnum):
    """Output formats of a synthetic cohort."""

    pictures = "pictures"
    nifti = "nifti"
    dicom = "dicom"


class ExportFormat(StrEnum):
    """Formats of an exported cohort."""

    bids = "bids"
    nnunet = "nnunet"
    structured_pictures = "structured-pictures"


class Preset(StrEnum):
    """Values of --preset."""

    published = "published"
    quick = "quick"


CohortOption = Annotated[Path, typer.Option("--cohort", help="A prepared cohort.")]
OutputFolderOption = Annotated[Path, typer.Option("--out", help="Folder for tables, plots and run records.")]
PresetOption = Annotated[
    Preset, typer.Option("--preset", help="published, or quick: reduced to hours on two CPU cores.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, help="Worker processes; 0 (default with a GPU): none.")
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", help="Address of a dask scheduler, tcp://...")
]

TrustedKeyOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--trusted-key",
        envvar="GLIOMARK_TRUSTED_KEY",
        help="Public key file; weights files signed with this key are trusted; repeatable.",
    ),
]
RequireSignedOption = Annotated[
    bool,
    typer.Option(
        "--require-signed",
        envvar="GLIOMARK_REQUIRE_SIGNED",
        help="Load only weights files signed with a --trusted-key.",
    ),
]

TestCohortsOption = Annotated[
    list[Path] | None, typer.Option(help="A prepared cohort used only for testing; repeatable.")
]


@app.callback()
def main() -> None:
    """Segment glioma on preoperative MRI and predict molecular markers. Research use only, not a medical device."""


@app.command()
def predict(
    input: Annotated[Path, typer.Argument(help="One patient's folder, or a folder of patients.")],
    out: Annotated[Path, typer.Option(help="Output folder; one subfolder per patient.")],
    clinical: Annotated[Path | None, typer.Option(help="Table with the columns id, age and sex.")] = None,
    model: Annotated[str, typer.Option(help="Name of a shipped model, or a weights file.")] = "demo",
    fusion: Annotated[
        FusionChoice, typer.Option(help="How slice probabilities are combined.")
    ] = FusionChoice.near,
    enhancing: Annotated[
        YesNo | None, typer.Option(help="Reader's finding: is an enhancing focus present?")
    ] = None,
    language: Annotated[LanguageChoice, typer.Option(help="Language of the report.")] = LanguageChoice.en,
    without_clinical: Annotated[bool, typer.Option(help="Allow unknown age or sex.")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also write the report as PDF.")] = False,
    dicom_out: Annotated[
        bool,
        typer.Option("--dicom-out", help="Also write the results as DICOM, if the images are DICOM."),
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
    with ReaderPool() as reader_pool:  # it starts while the networks' libraries are imported
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
    out: Annotated[Path, typer.Option(help="Output folder; the images go to a subfolder of the patient.")],
    model: Annotated[str, typer.Option(help="Name of a shipped model, or a weights file.")] = "demo",
    stage: Annotated[
        int, typer.Option(min=1, max=4, help="Network stage of the features: 1 finest, 4 coarsest.")
    ] = 3,
    require_signed: RequireSignedOption = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Show which pixels determine each marker's prediction: Grad-CAM of every branch on the slices used."""
    from gliomark.isolation import ReaderPool
    from gliomark.models.signatures import read_trust_policy

    trust = read_trust_policy(trusted_key or (), require_signed)
    with ReaderPool() as reader_pool:
        from gliomark.explain import explain_patient

        for path in explain_patient(input, out, model, stage, reader_pool, trust):
            typer.echo(str(path))


DataFolderOption = Annotated[
    Path, typer.Option("--data", help="Folder of the server: images, results, records.")
]
DatabaseOption = Annotated[
    str, typer.Option("--database", help="Database URL; default: SQLite in the data folder.")
]


BYTES_PER_GIB = 1 << 30


def create_limit_option(minimum: float, help_text: str) -> Any:
    """Create an option that limits the use of the server's resources."""
    return typer.Option(min=minimum, help=help_text)


@app.command()
def serve(
    data: DataFolderOption = Path("gliomark-data"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but a loopback address requires tokens and TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0: any free port.")] = 8765,
    tls_certificate: Annotated[Path | None, typer.Option(help="TLS certificate, PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="TLS private key, PEM file.")] = None,
    database: DatabaseOption = "",
    workers: Annotated[int, typer.Option(min=1, help="Number of prediction processes.")] = 1,
    model: Annotated[
        list[str] | None, typer.Option(help="demo or NAME=FILE; the first is the default; repeatable.")
    ] = None,
    dicom_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of a DICOM node; studies sent to it are predicted."),
    ] = None,
    dicom_title: Annotated[str, typer.Option(help="AE title of the DICOM node.")] = "GLIOMARK",
    dicom_peer: Annotated[
        list[str] | None, typer.Option(help="AE title that may send images; default: any; repeatable.")
    ] = None,
    dicom_quiet: Annotated[
        float,
        typer.Option(min=1, help="Seconds without a new image after which a study is considered complete."),
    ] = 10.0,
    send_to: Annotated[
        list[str] | None,
        typer.Option(help="Destination of DICOM results: AET@host:port or a DICOMweb address; repeatable."),
    ] = None,
    language: Annotated[
        LanguageChoice, typer.Option(help="Language of the reports that are sent.")
    ] = LanguageChoice.en,
    with_input: Annotated[
        bool,
        typer.Option(
            "--with-input",
            help="Exit when standard input closes and print the address as JSON (for programs that start a server).",
        ),
    ] = False,
    connections: Annotated[int, create_limit_option(1, "Maximum number of open HTTP connections.")] = 400,
    connections_each: Annotated[int, create_limit_option(1, "The same from one address.")] = 300,
    uploads: Annotated[int, create_limit_option(1, "Maximum number of simultaneous uploads.")] = 6,
    uploads_each: Annotated[int, create_limit_option(1, "The same from one caller.")] = 4,
    upload_gb: Annotated[
        float, create_limit_option(0.001, "Maximum upload size in GiB, packed and unpacked.")
    ] = 2.0,
    associations: Annotated[
        int, create_limit_option(1, "Maximum number of simultaneous DICOM associations.")
    ] = 20,
    associations_each: Annotated[int, create_limit_option(1, "The same from one address.")] = 12,
    object_gb: Annotated[float, create_limit_option(0.001, "Maximum size of a DICOM object in GiB.")] = 1.0,
    reserve_gb: Annotated[
        float, create_limit_option(0, "Free disk space in GiB below which no images are accepted.")
    ] = 1.0,
    job_minutes: Annotated[
        float, create_limit_option(0.1, "Minutes without progress after which a job is ended.")
    ] = 15.0,
    require_signed: RequireSignedOption = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Run the prediction server (HTTP, optionally DICOM); every action is recorded."""
    from gliomark.models.signatures import read_trust_policy
    from gliomark.server.associations import AssociationLimits
    from gliomark.server.body_limits import RequestLimits
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
    folder: Annotated[Path | None, typer.Argument(help="Patient folder to open.")] = None,
    server: Annotated[
        str | None, typer.Option(help="Server address for this session, instead of the one in the settings.")
    ] = None,
) -> None:
    """Open the desktop client; it starts a local server unless its settings name another."""
    try:
        from gliomark.client.app import run_client
    except ModuleNotFoundError:
        raise
    except ImportError as error:  # Qt is installed, but system graphics libraries are missing
        raise ConfigurationError(
            f"Qt cannot be loaded ({error}); install the libraries that it needs, such as libegl1."
        ) from None

    raise typer.Exit(run_client(folder, server))


@token_app.command("add")
def add_token_command(
    name: Annotated[str, typer.Argument(help="Name of the token's owner.")],
    role: Annotated[str, typer.Option(help="reader or admin.")] = "reader",
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
) -> None:
    """Create a token; it is shown only once."""
    from gliomark.server.run import open_database

    typer.echo(open_database(data, database).add_token(name, role))


@token_app.command("list")
def list_tokens_command(
    data: DataFolderOption = Path("gliomark-data"), database: DatabaseOption = ""
) -> None:
    """List tokens with owner, role and date."""
    from gliomark.server.run import open_database

    for row in open_database(data, database).list_tokens():
        typer.echo(f"{row.name}\t{row.role}\t{row.created:%Y-%m-%d}")


@token_app.command("revoke")
def revoke_token_command(
    name: Annotated[str, typer.Argument(help="Name of the token's owner.")],
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
) -> None:
    """Revoke a token."""
    from gliomark.server.run import open_database

    open_database(data, database).revoke_token(name)


@app.command()
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
        Path, typer.Argument(help="Folder of DICOM files in any order, or folders of pictures or volumes.")
    ],
    labels: Annotated[Path, typer.Option(help="Table (csv or xlsx) with id, age, sex and the markers.")],
    out: Annotated[Path, typer.Option(help="Cohort folder; identifying data goes to OUT.private.")],
    sequences: Annotated[str, typer.Option(help="Pair of sequences, the reference last.")] = "T1C,T2",
    masks: Annotated[
        Path | None, typer.Option(help="Folder of separate lesion masks, a subfolder per patient id.")
    ] = None,
    series: Annotated[Path | None, typer.Option(help="Edited series.csv, whose decisions are used.")] = None,
    ki67_threshold: Annotated[float, typer.Option(help="Ki-67 in per cent from which it is high.")] = 10.0,
    keep_ids: Annotated[bool, typer.Option(help="Keep the ids, which are already anonymous.")] = False,
    without_masks: Annotated[bool, typer.Option(help="Include patients without a lesion mask.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; default: all cores; 0: none.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler, tcp://...")] = None,
) -> None:
    """Build a prepared, quality-checked and described cohort from DICOM, pictures or volumes."""
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
        f"{report.prepared} patients prepared, {report.reused} unchanged, {len(report.left_out)} left out"
    )
    typer.echo(f"{report.quarantined} series or files in quarantine, see {out}.private/quarantine.csv")
    typer.echo(f"Classification of every series: {out}.private/series.csv")
    typer.echo(f"Quality pages: {page} (decisions in {table})")
    typer.echo(f"Description: {description_page}")


@cohort_app.command("check")
def check_cohort_command(cohort: Annotated[Path, typer.Argument(help="A prepared cohort.")]) -> None:
    """Rewrite the quality pages; decisions in qc.csv are kept."""
    from gliomark.cohort.quality_page import write_quality_pages
    from gliomark.cohort.store import Cohort

    for path in write_quality_pages(Cohort(cohort)):
        typer.echo(str(path))


@cohort_app.command("describe")
def describe_cohort_command(
    cohort: Annotated[Path, typer.Argument(help="A prepared cohort.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; default: COHORT/describe.")] = None,
) -> None:
    """Describe a cohort: table 2-1 and others as csv, a page with plots, and a datasheet."""
    from gliomark.cohort.describe import describe_cohort
    from gliomark.cohort.store import Cohort

    typer.echo(str(describe_cohort(Cohort(cohort), out)))


@cohort_app.command("export")
def export_cohort_command(
    cohort: Annotated[Path, typer.Argument(help="A prepared cohort.")],
    to: Annotated[ExportFormat, typer.Option(help="Output format.")],
    out: Annotated[Path, typer.Option(help="New folder to create.")],
) -> None:
    """Export a cohort for other tools: BIDS derivatives, nnU-Net data set, or picture folders."""
    from gliomark.cohort.export import export_cohort
    from gliomark.cohort.store import Cohort

    typer.echo(str(export_cohort(Cohort(cohort), to.value, out)))


@cohort_app.command("anonymise")
def anonymise_dicom_command(
    root: Annotated[Path, typer.Argument(help="A folder of DICOM files, in any order.")],
    out: Annotated[Path, typer.Option(help="Folder for the anonymised files; the key goes to OUT.private.")],
    clean_descriptors: Annotated[
        bool, typer.Option(help="Keep one word of each series description: T1, T1C, T2 or FLAIR.")
    ] = False,
) -> None:
    """Anonymise DICOM files by the Basic Application Level Confidentiality Profile of DICOM PS3.15."""
    from gliomark.cohort.anonymise import anonymise_folder

    report = anonymise_folder(root, out, clean_descriptors=clean_descriptors)
    for path, why in report.left_out:
        typer.echo(f"left out {path}: {why}", err=True)
    written = f"{report.written_files} files written, {report.unchanged_files} already present, {len(report.left_out)} left out"
    typer.echo(f"{report.patients} patients: {written}")
    typer.echo(f"Key: {report.key_file}")
    for sentence in report.options_not_applied:
        typer.echo(sentence)


@cohort_app.command("phantom")
def generate_phantom_command(
    out: Annotated[Path, typer.Option(help="Output folder for the patients and their table.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 1,
    seed: Annotated[int, typer.Option(help="Random seed of the first patient.")] = 1,
    form: Annotated[
        PhantomFormat,
        typer.Option("--as", help="Pictures, NIfTI volumes, or a raw DICOM export as from a hospital."),
    ] = PhantomFormat.pictures,
    lesion_free: Annotated[
        bool, typer.Option(help="Generate people without a lesion: empty masks, no markers.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: all cores.")] = None,
) -> None:
    """Generate synthetic patients with a known maximum AUC."""
    import os

    from rich.progress import Progress

    from gliomark.phantom.hospital import write_hospital

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
        f"{report.patients} synthetic patients in {report.folder}; the true parameters of each patient are in truth/"
    )
    for marker, best in report.model_ceilings.items():
        typer.echo(str(best))
        if patients > 1:
            typer.echo(f"  on these patients: {report.cohort_ceilings[marker]}")


@train_app.command("segmentation")
def train_segmentation_command(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    out: Annotated[Path, typer.Option(help="The weights file to write.")],
    rule: Annotated[str, typer.Option(help="How sequences are combined: joint, union or single.")] = "union",
    size: Annotated[
        str,
        typer.Option(
            help="published; small: MIG-Net for a CPU; light: pretrained (with --rule joint as the demo weights)."
        ),
    ] = "published",
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 200,
) -> None:
    """Train the segmentation network on all patients outside the test set."""
    from gliomark.training.recipes import run_segmentation_training

    typer.echo(str(run_segmentation_training(cohort, out, rule, size, epochs)))


@train_app.command("markers")
def train_markers_command(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    segmentation: Annotated[Path, typer.Option(help="Weights file from 'train segmentation'.")],
    out: Annotated[Path, typer.Option(help="Weights file to write, with segmentation and markers.")],
    marker: Annotated[
        list[str], typer.Option(help="Column of the clinical table, or column>=threshold; repeatable.")
    ],
    size: Annotated[
        str,
        typer.Option(
            help="published; small: for a CPU; light: pretrained, as the demo weights, trained in minutes."
        ),
    ] = "published",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each KiNet; not used by light.")] = 100,
) -> None:
    """Train KiNet, and LightGBM on out-of-fold vectors, for one or more markers."""
    from gliomark.training.recipes import run_marker_training

    card = run_marker_training(cohort, segmentation, out, marker, size, epochs).card
    for one in card.markers.values():
        typer.echo(f"{one.title}: {one.validation_message}")
    typer.echo(str(out))


@experiment_app.command("demonstration")
def run_demonstration_command(
    cohort: Annotated[Path, typer.Option(help="The prepared TCGA-LGG cohort (T1C,FLAIR).")],
    out: Annotated[Path, typer.Option(help="Folder for weights, tables and run record.")],
    also_test: TestCohortsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Retrain the demo weights and evaluate them on held-out patients."""
    from gliomark.experiments.demonstration import run_demonstration
    from gliomark.experiments.segmentation.result_tables import ExperimentConfig
    from gliomark.experiments.segmentation.runs import SHIPPED_PRESET

    run_demonstration(
        ExperimentConfig((cohort,), out, SHIPPED_PRESET, workers, scheduler, typer.echo), also_test or ()
    )


@experiment_app.command("table-2-3")
def run_table_2_3_command(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and run record.")],
    preset: Annotated[
        Preset, typer.Option(help="published, or quick: reduced to two hours on one core.")
    ] = Preset.published,
    weights: Annotated[
        list[str] | None, typer.Option(help="NETWORK=FILE: initial weights; repeatable.")
    ] = None,
) -> None:
    """Lesion detection per slice: ResNet-50, DenseNet-121 and Xception, five folds by patient."""
    from gliomark.experiments.table_2_3 import run_table_2_3

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
    """Segmentation: MIG-Net, U-Net, TransUNet, Swin-UNet, Attention U-Net and nnU-Net, five folds."""
    from gliomark.experiments.config import ExperimentConfig
    from gliomark.experiments.segmentation.result_tables import run_table_3_1

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
    """Segmentation ablation: focus prior graph, dual prior guidance and inverted attention gates, five folds."""
    from gliomark.experiments.config import ExperimentConfig
    from gliomark.experiments.segmentation.result_tables import run_table_3_2

    config = ExperimentConfig((cohort,), out, preset.value, workers, scheduler, typer.echo)
    typer.echo(str(run_table_3_2(config)))


@experiment_app.command("table-3-3")
def run_table_3_3_command(
    cohort: CohortOption,
    second_cohort: Annotated[Path, typer.Option(help="Second prepared cohort, with the same sequences.")],
    out: OutputFolderOption,
    also_test: TestCohortsOption = None,
    preset: PresetOption = Preset.published,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Segmentation across cohorts: MIG-Net trained on each and on both, tested on each, five folds."""
    from gliomark.experiments.config import ExperimentConfig
    from gliomark.experiments.segmentation.result_tables import run_table_3_3

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
    """Segmentation extensions: joint input, neighbouring slices, random contrast, distillation, five folds."""
    from gliomark.experiments.config import ExperimentConfig
    from gliomark.experiments.segmentation.result_tables import run_segmentation_extensions

    config = ExperimentConfig((cohort,), out, preset.value, workers, scheduler, typer.echo)
    typer.echo(str(run_segmentation_extensions(config)))


# command of each table, its function and its help text
MARKER_TABLE_COMMANDS = {
    "table-4-2": (
        "tables.run_table_4_2",
        "Markers from one sequence: slice (IMG), lesion only (ROI), both (MIX).",
    ),
    "table-4-3": (
        "tables.run_table_4_3",
        "Markers from two sequences: early, late and middle fusion.",
    ),
    "table-4-4": (
        "tables.run_table_4_4",
        "Markers by ResNet-50, ResNeSt-50, CentralNet, KiNet and lesion-pooled features.",
    ),
    "table-4-5": (
        "tables.run_table_4_5",
        "Marker ablation: BMS loss, Merge-IN and clinical data.",
    ),
    "table-4-6": ("tables.run_table_4_6", "Markers per patient: All, Near and Large."),
    "marker-rivals": (
        "tables.run_rivals",
        "KiNet compared with radiomics and LightGBM, and with age and sex only.",
    ),
    "slice-leak": ("slice_leak.run", "Overestimation when data are split by slice instead of by patient."),
}


def create_marker_table_command(function_path: str):
    """Create the command of one marker table: five folds by patient, one table per marker."""

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
        from gliomark.experiments.config import ExperimentConfig
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
    table: Annotated[Path, typer.Argument(help="csv with radiomics features, one row per patient.")],
    out: OutputFolderOption,
    label: Annotated[str, typer.Option(help="Column of the marker.")],
    positive: Annotated[str, typer.Option(help="Positive value of the marker; all others are negative.")],
    first_feature: Annotated[str, typer.Option(help="Features are the numeric columns from this one on.")],
    id: Annotated[str, typer.Option(help="Column of the patient id.")] = "id",
    age: Annotated[str, typer.Option(help="Column of the age in years.")] = "age",
    sex: Annotated[str, typer.Option(help="Column of the sex: 0 or M, 1 or F.")] = "sex",
) -> None:
    """LightGBM on a table of radiomics features, compared with age and sex, five folds."""
    from gliomark.experiments.markers.feature_table import TableColumns, run_feature_table

    columns = TableColumns(id, label, positive, age, sex, first_feature)
    typer.echo(str(run_feature_table(table, columns, out, notify=typer.echo)))


@experiment_app.command("reader-finding")
def run_reader_finding_command(
    cohort: Annotated[Path, typer.Option(help="Cohort prepared for T1,T1C, with lesion masks.")],
    out: OutputFolderOption,
) -> None:
    """Accuracy of the finding "enhancing focus: yes or no" for IDH, with enhancement detected by a rule."""
    from gliomark.experiments.markers.reader_finding import run_reader_finding

    typer.echo(str(run_reader_finding(cohort, out)))


@experiment_app.command("phantom-reach")
def run_phantom_reach_command(
    out: OutputFolderOption,
    marker: Annotated[str, typer.Option(help="ki67 or idh_mutant.")] = "ki67",
    patients: Annotated[
        list[int] | None,
        typer.Option(min=20, help="Patients in a cohort; repeatable; default: 200, 500 and 2000."),
    ] = None,
    cohorts: Annotated[int, typer.Option(min=2, help="Number of cohorts of each size.")] = 200,
) -> None:
    """Best AUC achievable by number of patients."""
    from gliomark.experiments.markers.phantom_learning_curve import run_phantom_learning_curve

    typer.echo(
        str(run_phantom_learning_curve(marker, patients or [200, 500, 2000], cohorts, out, notify=typer.echo))
    )


@experiment_app.command("shuffled-labels")
def run_permuted_labels_command(
    cohort: CohortOption,
    demonstration: Annotated[Path, typer.Option(help="Output folder of 'experiment demonstration'.")],
    out: OutputFolderOption,
    marker: Annotated[str, typer.Option(help="Column of the clinical table, or column>=threshold.")],
    shuffles: Annotated[int, typer.Option(min=1, help="Number of permutations.")] = 10,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Permutation test of the whole cascade: AUC should be 0.5."""
    from gliomark.cohort.store import Cohort
    from gliomark.experiments.config import ExperimentConfig
    from gliomark.experiments.demonstration import create_marker_training
    from gliomark.experiments.markers.cascade import run_permuted_labels
    from gliomark.experiments.segmentation.result_tables import list_shipped_runs
    from gliomark.experiments.segmentation.runs import SHIPPED_PRESET
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
    out: Annotated[Path, typer.Option(help="Folder for the table.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of synthetic patients.")] = 40,
    seed: Annotated[int, typer.Option(help="Random seed of the first patient.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
) -> None:
    """Registration accuracy on synthetic patients with known displacement."""
    from gliomark.experiments.registration_accuracy import run_registration_accuracy

    typer.echo(str(run_registration_accuracy(patients, seed, out, workers, notify=typer.echo)))


@experiment_app.command("recognition")
def run_recognition_command(
    out: Annotated[Path, typer.Option(help="Folder for the confusion table.")],
    series: Annotated[Path | None, typer.Option(help="Folder of real series to include.")] = None,
) -> None:
    """Sequence recognition: confusion table over synthetic headers and real series."""
    from gliomark.experiments.series_recognition import run_series_recognition

    typer.echo(str(run_series_recognition(out, series, notify=typer.echo)))


@experiment_app.command("server-load")
def run_server_load_command(
    patients: Annotated[Path, typer.Option(help="Folder of patients, as for 'predict'.")],
    out: OutputFolderOption,
    count: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 20,
    clients: Annotated[int, typer.Option(min=1, help="Number of simultaneous clients.")] = 20,
    predictions: Annotated[int, typer.Option(min=1, help="Total number of predictions.")] = 200,
    workers: Annotated[int, typer.Option(min=1, help="--workers of the server.")] = 1,
) -> None:
    """Response time of the server for one client, and correctness under load."""
    from gliomark.experiments.robustness.server_load import run_server_load

    typer.echo(str(run_server_load(patients, out, typer.echo, count, clients, predictions, workers)))


@experiment_app.command("kills")
def run_kills_command(
    out: OutputFolderOption,
    door: Annotated[str, typer.Option(help="predict, build, train, serve or all.")] = "all",
    times: Annotated[int, typer.Option(min=1, help="Number of kills of each command.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of patients and times.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Simultaneous attempts.")] = 1,
) -> None:
    """Recovery after kill -9 at random times: same results, no leftover files."""
    from gliomark.experiments.robustness.kill_recovery import ENTRY_POINTS, run_kill_recovery

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
    uploads: Annotated[int, typer.Option(min=5, help="Number of uploads; every fifth is invalid.")] = 100,
    clients: Annotated[int, typer.Option(min=1, help="Number of simultaneous clients.")] = 20,
    patients: Annotated[int, typer.Option(min=1, help="Number of valid synthetic patients.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="--workers of the server.")] = 2,
) -> None:
    """Correctness of the server when every fifth upload is invalid."""
    from gliomark.experiments.robustness.server_invalid_uploads import run_server_invalid_uploads

    typer.echo(str(run_server_invalid_uploads(out, typer.echo, uploads, clients, patients, workers)))


@experiment_app.command("server-idle")
def run_server_idle_command(
    out: OutputFolderOption,
    silent: Annotated[int, typer.Option(min=1, help="Number of idle HTTP and DICOM connections.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="Duration in seconds.")] = 120.0,
) -> None:
    """Response time of the server in the presence of many idle connections and associations."""
    from gliomark.experiments.robustness.server_idle_connections import run_server_idle_connections

    typer.echo(str(run_server_idle_connections(out, typer.echo, silent, seconds)))


@experiment_app.command("click-to-result")
def run_click_to_result_command(
    patients: Annotated[Path, typer.Option(help="Folder of patient folders.")],
    clinical: Annotated[Path, typer.Option(help="Table with the columns id, age and sex.")],
    out: OutputFolderOption,
    count: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 20,
) -> None:
    """Response time of the desktop client, from the click to the result on the screen."""
    from gliomark.client.response_time import measure_response_times

    typer.echo(str(measure_response_times(patients, clinical, out, count, typer.echo)))


@experiment_app.command("tables")
def write_tables_command(
    results: Annotated[Path, typer.Option(help="Folder of the csv files.")] = Path("results"),
    documents: Annotated[Path, typer.Option(help="Folder of README.md and MODEL_CARD.md.")] = Path("."),
) -> None:
    """Write the tables of README.md and MODEL_CARD.md from the committed csv files."""
    from gliomark.experiments.markdown_tables import update_documents

    for path in update_documents(results, documents):
        typer.echo(str(path))


@audit_app.command("verify")
def verify_audit_log_command(
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
    expect: Annotated[
        str, typer.Option(metavar="HASH", help="SHA-256 from 'audit head' that the log must contain.")
    ] = "",
) -> None:
    """Verify the log's hash chain; report the first line that was altered, removed, moved or inserted."""
    from gliomark.server.audit_export import describe_verification, open_existing_database, parse_sha256

    expected_hash = parse_sha256(expect) if expect else ""
    typer.echo(
        describe_verification(open_existing_database(data, database).verify_audit_chain(expected_hash))
    )


@audit_app.command("head")
def show_audit_head_command(
    data: DataFolderOption = Path("gliomark-data"), database: DatabaseOption = ""
) -> None:
    """Print SHA-256, number and time (UTC) of the newest line, to be stored outside the server."""
    from gliomark.server.audit_export import format_head, open_existing_database

    typer.echo(format_head(open_existing_database(data, database).read_audit_head()))


@audit_app.command("show")
def show_audit_log_command(
    data: DataFolderOption = Path("gliomark-data"),
    database: DatabaseOption = "",
    since: Annotated[str, typer.Option(help="Only lines from this date or time (UTC) on.")] = "",
    who: Annotated[str, typer.Option(help="Only lines of this person or machine.")] = "",
    action: Annotated[str, typer.Option(help="Only lines of this action, such as 'study viewed'.")] = "",
    subject: Annotated[str, typer.Option(help="Only lines about this study or prediction.")] = "",
    out: Annotated[Path | None, typer.Option(help="csv file to write; default: print.")] = None,
) -> None:
    """Print the log as csv, oldest line first; this access is itself recorded."""
    from gliomark.server.audit_export import (
        iterate_csv_pages,
        open_existing_database,
        parse_utc_time,
        write_csv_pages,
    )
    from gliomark.server.database import AuditFilter

    since_time = parse_utc_time(since) if since else None
    audit_filter = AuditFilter(
        since=since_time, who=who or None, action=action or None, subject=subject or None
    )
    pages = iterate_csv_pages(open_existing_database(data, database), audit_filter)
    if out is not None:
        return write_csv_pages(pages, out)
    for page in pages:
        typer.echo(page, nl=False)


ModelArgument = Annotated[str, typer.Argument(help="Name of a shipped model, or a weights file.")]


@models_app.command("list")
def list_models_command() -> None:
    """List the shipped models: name, markers, file."""
    from gliomark.models.shipped_weights import SHIPPED_MODELS
    from gliomark.pipeline import load_weights_by_name

    for name in SHIPPED_MODELS:
        weights = load_weights_by_name(name)
        typer.echo(f"{name}\t{', '.join(weights.card.markers)}\t{weights.path}")


@models_app.command("show")
def show_model_command(
    model: ModelArgument,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Load a weights file and show its model card, SHA-256 and signature."""
    from gliomark.models.signatures import read_trust_policy
    from gliomark.models.weights_description import describe_as_json, describe_as_text
    from gliomark.pipeline import build_model, load_weights_by_name

    weights = load_weights_by_name(model, read_trust_policy(trusted_key or ()))
    build_model(weights)
    typer.echo(describe_as_json(weights) if json else describe_as_text(weights))


@models_app.command("keygen")
def create_signing_key_command(
    name: Annotated[
        Path, typer.Argument(help="Creates NAME.key and NAME.pub; existing files are not overwritten.")
    ],
    without_password: Annotated[
        bool, typer.Option("--without-password", help="Create the key without a password.")
    ] = False,
) -> None:
    """Create a key pair: the secret key signs weights files, the public key verifies them."""
    from gliomark.models.signatures import create_key_pair

    password = "" if without_password else ask_password("Password of the new key", confirm=True)
    secret_key_path, public_key_path, key = create_key_pair(name, password)
    typer.echo(f"{secret_key_path}\n{public_key_path}\nkey {key}")


@models_app.command("sign")
def sign_model_command(
    model: ModelArgument,
    key: Annotated[Path, typer.Option(help="Secret key file.")],
) -> None:
    """Load and sign a weights file; the signature is written beside it as FILE.minisig."""
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
    key: Annotated[list[Path], typer.Option(help="Public key file; repeatable.")],
) -> None:
    """Verify that a weights file is signed with one of these keys; exit status 1 if it is not."""
    from gliomark.models.shipped_weights import resolve_weights_file
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
    """Return the password from the environment variable GLIOMARK_KEY_PASSWORD, otherwise prompt for it."""
    password_from_environment = os.environ.get("GLIOMARK_KEY_PASSWORD")
    return (
        password_from_environment
        if password_from_environment
        else str(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm))
    )


def parse_pair(text: str, expected_form: str) -> tuple[str, str]:
    """Parse ``LEFT=RIGHT`` into its two parts.

    expected_form: description of the valid form for the message.

    Raises
    ------
    ConfigurationError
        If the text does not have this form.
    """
    left, separator, right = text.partition("=")
    if not separator or not left or not right:
        raise ConfigurationError(f"'{text}' must be {expected_form}.")
    return left, right


def parse_sequences(text: str) -> tuple[MRSequence, ...]:
    """Parse a pair of sequences such as ``T1C,T2``.

    Raises
    ------
    ConfigurationError
        If the text is not two different known sequences.
    """
    names = [name.strip().upper() for name in text.split(",")]
    unknown = [name for name in names if name not in set(MRSequence)]
    if unknown or len(set(names)) != 2:
        raise ConfigurationError(
            f"'{text}' must be two different sequences of T1, T1C, T2 and FLAIR, such as T1C,T2."
        )
    return tuple(MRSequence(name) for name in names)


def run_command_line() -> None:
    """Run the command line; errors that a user can resolve are one sentence on standard error, with exit status 1."""
    if not sys.warnoptions:
        # warnings of imaging libraries about unusual headers would hide the message
        warnings.simplefilter("ignore")
    try:
        app()
    except GliomarkError as error:
        typer.echo(f"gliomark: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        # a folder that is not writable, a missing file, a full disk
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

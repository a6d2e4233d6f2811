"""The command line; a room is imported only when its command runs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from gliomark.study import GliomarkError, MRSequence

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False
)
cohort_app = typer.Typer(no_args_is_help=True, help="Build a training cohort.")
train_app = typer.Typer(no_args_is_help=True, help="Train the networks on a cohort.")
experiment_app = typer.Typer(no_args_is_help=True, help="Reproduce the committed results.")
app.add_typer(cohort_app, name="cohort")
app.add_typer(train_app, name="train")
app.add_typer(experiment_app, name="experiment")


class Fusion(StrEnum):
    near = "near"
    all = "all"
    large = "large"


class YesNo(StrEnum):
    yes = "yes"
    no = "no"


class Language(StrEnum):
    en = "en"
    zh = "zh"


class Form(StrEnum):
    pictures = "pictures"
    nifti = "nifti"


@app.callback()
def main() -> None:
    """gliomark predicts glioma markers from MRI before surgery. Research use only, not a medical device."""


@app.command()
def predict(
    input: Annotated[Path, typer.Argument(help="One patient's folder, or a folder of patients.")],
    out: Annotated[Path, typer.Option(help="Where the results go; one folder per patient.")],
    clinical: Annotated[Path | None, typer.Option(help="Table with the columns id, age, sex.")] = None,
    model: Annotated[str, typer.Option(help="A shipped model's name or a weights file.")] = "demo",
    fusion: Annotated[Fusion, typer.Option(help="How slices become the patient's answer.")] = Fusion.near,
    enhancing: Annotated[
        YesNo | None, typer.Option(help="The reader's finding: is there an enhancing focus?")
    ] = None,
    language: Annotated[Language, typer.Option(help="Language of the report.")] = Language.en,
    without_clinical: Annotated[bool, typer.Option(help="Allow unknown age or sex.")] = False,
) -> None:
    """Outline the lesion and predict the markers of one patient or many."""
    from gliomark.batch import Request, predict_folder

    finding: Literal["yes", "no"] | None = None if enhancing is None else enhancing.value
    request = Request(model, fusion.value, finding, language.value, without_clinical)
    failures = predict_folder(input, clinical, out, request, say=typer.echo)
    for failure in failures:
        typer.echo(f"{failure.patient_id}: {failure.message}", err=True)
    if failures:
        raise typer.Exit(1)


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="Where the patients go, with their clinical.csv.")],
    seed: Annotated[int, typer.Option(help="The first patient's seed.")] = 1,
    patients: Annotated[int, typer.Option(min=1, help="How many patients.")] = 1,
    form: Annotated[Form, typer.Option("--as", help="Picture folders or NIfTI volumes.")] = Form.pictures,
) -> None:
    """Make synthetic patients with a glioma, to try everything on."""
    from gliomark.cohort.phantom import phantom_study, write_clinical, write_nifti, write_pictures

    write: Callable = write_pictures if form is Form.pictures else write_nifti
    rows = []
    for number in range(seed, seed + patients):
        study, clinical = phantom_study(number)
        typer.echo(str(write(study, out)))
        rows.append(clinical)
    write_clinical(rows, out / "clinical.csv")


@cohort_app.command("build")
def cohort_build(
    root: Annotated[Path, typer.Argument(help="A folder of patients with images and lesion masks.")],
    labels: Annotated[Path, typer.Option(help="Table with id, age, sex and the markers.")],
    out: Annotated[Path, typer.Option(help="The prepared cohort.")],
    sequences: Annotated[str, typer.Option(help="The pair, the reference last.")] = "T1C,T2",
) -> None:
    """Prepare every patient once: one grid, brain only, normalised."""
    from gliomark.cohort.store import build_cohort

    def show(patient: str, done: int, of: int) -> None:
        typer.echo(f"{done}/{of} {patient}", err=True)

    cohort, left_out = build_cohort(root, labels, out, parse_sequences(sequences), progress=show)
    for patient, why in left_out.items():
        typer.echo(f"left out {patient}: {why}", err=True)
    typer.echo(f"{len(cohort.patient_ids)} patients in {out}")
    if not cohort.patient_ids:
        raise typer.Exit(1)


@train_app.command("segmentation")
def train_segmentation(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    out: Annotated[Path, typer.Option(help="The weights file to write.")],
    rule: Annotated[str, typer.Option(help="joint, union or single.")] = "union",
    size: Annotated[str, typer.Option(help="published, or small for the CPU.")] = "published",
    epochs: Annotated[int, typer.Option(min=1, help="At most this many.")] = 200,
) -> None:
    """Train MIG-Net on the training patients; the validation patients stop it."""
    from gliomark.training.recipes import segmentation_recipe

    typer.echo(str(segmentation_recipe(cohort, out, rule, size, epochs)))


@train_app.command("markers")
def train_markers(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    segmentation: Annotated[Path, typer.Option(help="Weights file from 'train segmentation'.")],
    out: Annotated[Path, typer.Option(help="The complete weights file to write.")],
    marker: Annotated[
        list[str], typer.Option(help="Column of the clinical table, or column>=threshold; repeatable.")
    ],
    size: Annotated[str, typer.Option(help="published, or small for the CPU.")] = "published",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each KiNet.")] = 100,
) -> None:
    """Train KiNet and LightGBM for one marker or several, on out-of-fold vectors."""
    from gliomark.training.recipes import markers_recipe

    typer.echo(str(markers_recipe(cohort, segmentation, out, marker, size, epochs)))


@experiment_app.command("demonstration")
def experiment_demonstration(
    cohort: Annotated[Path, typer.Option(help="The prepared TCGA-LGG cohort (T1C,FLAIR).")],
    out: Annotated[Path, typer.Option(help="Where weights, tables and run record go.")],
) -> None:
    """Retrain the demonstration weights and measure them on patients they never saw."""
    from gliomark.experiments.demonstration import run

    run(cohort, out, say=typer.echo)


@experiment_app.command("tables")
def experiment_tables(
    results: Annotated[Path, typer.Option(help="The folder with the csv files.")] = Path("results"),
    documents: Annotated[Path, typer.Option(help="Where README.md and MODEL_CARD.md are.")] = Path("."),
) -> None:
    """Write the tables of README.md and MODEL_CARD.md from the committed csv files."""
    from gliomark.experiments.tables import write_tables

    for path in write_tables(results, documents):
        typer.echo(str(path))


def parse_sequences(text: str) -> list[MRSequence]:
    """``T1C,T2`` as sequences. Raises GliomarkError on an unknown name."""
    names = [name.strip().upper() for name in text.split(",")]
    unknown = [name for name in names if name not in set(MRSequence)]
    if unknown or len(set(names)) != 2:
        raise GliomarkError(
            f"'{text}' must be two different sequences out of T1, T1C, T2, FLAIR, such as T1C,T2."
        )
    return [MRSequence(name) for name in names]


def run() -> None:
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
        # a folder that cannot be written, a file that is not there, a full disk: the system's word and the place
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(
            f"gliomark: {place}{error.strerror or error}; check the path and its permissions.", err=True
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

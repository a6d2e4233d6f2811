"""``gliomark cohort``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from gliomark.cli.options import ExportFormat, PhantomFormat, parse_sequences
from gliomark.cli.progress import ProgressLine
from gliomark.errors import ConfigurationError

if TYPE_CHECKING:
    from gliomark.phantom.hospital import HospitalReport, OutputFormat
    from gliomark.phantom.patient import PhantomSettings

app = typer.Typer(no_args_is_help=True, help="Build, check, describe, export or simulate a cohort.")


@app.command("build")
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
    keep_ids: Annotated[
        bool, typer.Option("--keep-ids", help="Keep the ids, which are already anonymous.")
    ] = False,
    allow_missing_masks: Annotated[
        bool, typer.Option("--allow-missing-masks", help="Include patients without a lesion mask.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; default: all cores, at most 8; 0: none.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler, tcp://...")] = None,
) -> None:
    """Build a prepared, quality-checked and described cohort from DICOM, pictures or volumes."""
    from gliomark.cohort.build import BuildSettings, CohortSources, build_cohort
    from gliomark.cohort.describe import describe_cohort
    from gliomark.cohort.labels import LabelSettings
    from gliomark.cohort.quality_page import write_quality_pages

    settings = BuildSettings(
        sequences=parse_sequences(sequences),
        labels=LabelSettings(ki67_threshold=ki67_threshold),
        keep_ids=keep_ids,
        without_masks=allow_missing_masks,
    )
    with ProgressLine() as progress:
        report = build_cohort(
            CohortSources(root, labels, masks, series),
            out,
            settings,
            workers,
            scheduler,
            progress.count("preparing patients"),
        )
        table, page = write_quality_pages(
            report.cohort, report_progress=progress.count("writing quality pages")
        )
        description_page = describe_cohort(
            report.cohort, report_progress=progress.count("describing the cohort")
        )
    for name, why in report.left_out.items():
        typer.echo(f"left out {name}: {why}", err=True)
    for note in report.notes:
        typer.echo(note, err=True)
    typer.echo(
        f"{report.prepared} patients prepared, {report.reused} unchanged, {len(report.left_out)} left out"
    )
    typer.echo(f"{report.quarantined} series or files in quarantine, see {out}.private/quarantine.csv")
    typer.echo(f"Classification of every series: {out}.private/series.csv")
    typer.echo(f"Quality pages: {page} (decisions in {table})")
    typer.echo(f"Description: {description_page}")


@app.command("check")
def check_cohort_command(cohort: Annotated[Path, typer.Argument(help="A prepared cohort.")]) -> None:
    """Rewrite the quality pages; decisions in qc.csv are kept."""
    from gliomark.cohort.quality_page import write_quality_pages
    from gliomark.cohort.store import Cohort

    with ProgressLine() as progress:
        paths = write_quality_pages(Cohort(cohort), report_progress=progress.count("writing quality pages"))
    for path in paths:
        typer.echo(str(path))


@app.command("describe")
def describe_cohort_command(
    cohort: Annotated[Path, typer.Argument(help="A prepared cohort.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; default: COHORT/describe.")] = None,
) -> None:
    """Describe a cohort: table 2-1 and others as csv, a page with plots, and a datasheet."""
    from gliomark.cohort.describe import describe_cohort
    from gliomark.cohort.store import Cohort

    with ProgressLine() as progress:
        folder = describe_cohort(Cohort(cohort), out, progress.count("describing the cohort"))
    typer.echo(str(folder))


@app.command("export")
def export_cohort_command(
    cohort: Annotated[Path, typer.Argument(help="A prepared cohort.")],
    to: Annotated[ExportFormat, typer.Option(help="Output format.")],
    out: Annotated[Path, typer.Option(help="New folder to create.")],
) -> None:
    """Export a cohort for other tools: BIDS derivatives, nnU-Net data set, or picture folders."""
    from gliomark.cohort.export import export_cohort
    from gliomark.cohort.store import Cohort

    with ProgressLine() as progress:
        folder = export_cohort(Cohort(cohort), to.value, out, progress.count("exporting"))
    typer.echo(str(folder))


@app.command("anonymise")
def anonymise_dicom_command(
    root: Annotated[Path, typer.Argument(help="A folder of DICOM files, in any order.")],
    out: Annotated[Path, typer.Option(help="Folder for the anonymised files; the key goes to OUT.private.")],
    clean_descriptors: Annotated[
        bool,
        typer.Option(
            "--clean-descriptors", help="Keep one word of each series description: T1, T1C, T2 or FLAIR."
        ),
    ] = False,
) -> None:
    """Anonymise DICOM files by the Basic Application Level Confidentiality Profile of DICOM PS3.15."""
    from gliomark.cohort.anonymise import anonymise_folder

    with ProgressLine() as progress:
        report = anonymise_folder(root, out, clean_descriptors=clean_descriptors, progress=progress.show)
    for path, why in report.left_out:
        typer.echo(f"left out {path}: {why}", err=True)
    counts = f"{report.written_files} files written, {report.unchanged_files} already present"
    typer.echo(f"{report.patients} patients: {counts}, {len(report.left_out)} left out")
    typer.echo(f"Key: {report.key_file}")
    for sentence in report.options_not_applied:
        typer.echo(sentence)


@app.command("phantom")
def generate_phantom_command(
    out: Annotated[Path, typer.Option(help="Output folder for the patients and their table.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 1,
    seed: Annotated[int, typer.Option(help="Random seed of the first patient.")] = 1,
    form: Annotated[
        PhantomFormat,
        typer.Option(
            "--as",
            help="Pictures, NIfTI volumes, a raw DICOM export as from a hospital, or a prepared cohort for training.",
        ),
    ] = PhantomFormat.pictures,
    sequences: Annotated[
        str | None,
        typer.Option(
            help="With '--as prepared': pair of sequences, the reference last.", show_default="T1C,T2"
        ),
    ] = None,
    test_patients: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With '--as prepared': number of last patients that are the test set; default: a random fifth.",
        ),
    ] = None,
    lesion_free: Annotated[
        bool, typer.Option("--lesion-free", help="Generate people without a lesion: empty masks, no markers.")
    ] = False,
    noise: Annotated[
        float,
        typer.Option(
            min=0, help="Standard deviation of the scanner's noise, relative to white matter on T1."
        ),
    ] = 0.03,
    case_mix: Annotated[
        Literal["surgical", "low-grade"],
        typer.Option(help="Types of glioma: as in a surgical series, or mostly of low grade."),
    ] = "surgical",
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: all cores.")] = None,
) -> None:
    """Generate synthetic patients with a known maximum AUC.

    A prepared cohort needs no 'cohort build'; an interrupted one is continued by the same command.
    """
    import os

    from gliomark.phantom.appearance import AppearanceSettings
    from gliomark.phantom.hospital import HospitalSettings, create_aligned_settings, write_hospital

    settings = HospitalSettings(noise_sigma=noise, appearance=AppearanceSettings(case_mix=case_mix))
    processes = min(patients, workers or os.cpu_count() or 1)
    seeds = range(seed, seed + patients)
    if form is PhantomFormat.prepared:
        imaging = create_aligned_settings(settings, has_lesion=not lesion_free)
        _generate_prepared_cohort(seeds, out, sequences or "T1C,T2", test_patients, imaging, processes)
        return
    _check_options_of_cohort(sequences, test_patients)
    with ProgressLine() as progress:
        report = write_hospital(
            seeds,
            out,
            settings,
            output_format=cast("OutputFormat", form.value),
            workers=processes,
            progress=progress.count("generating patients"),
            has_lesion=not lesion_free,
        )
    _print_hospital(report)


def _check_options_of_cohort(*options: object) -> None:
    if any(option is not None for option in options):
        raise ConfigurationError(
            "--sequences and --test-patients are options of a cohort: add '--as prepared'."
        )


def _generate_prepared_cohort(
    seeds: Sequence[int],
    out: Path,
    sequences: str,
    test_patients: int | None,
    imaging: PhantomSettings,
    processes: int,
) -> None:
    """Generate a prepared cohort of synthetic patients."""
    from gliomark.cohort.synthetic import SyntheticSettings, write_synthetic_cohort

    settings = SyntheticSettings(parse_sequences(sequences), test_patients, imaging)
    with ProgressLine() as progress:
        report = write_synthetic_cohort(
            seeds, out, settings, processes, progress.count("generating patients")
        )
    for note in report.notes:
        typer.echo(note, err=True)
    typer.echo(f"{report.generated} patients generated, {report.reused} unchanged")
    _print_hospital(report.hospital)


def _print_hospital(report: HospitalReport) -> None:
    """Print how many patients there are, and the best achievable AUC."""
    typer.echo(
        f"{report.patients} synthetic patients in {report.folder}; the true parameters of each patient are in truth/"
    )
    for marker, best in report.model_ceilings.items():
        typer.echo(str(best))
        if report.patients > 1:
            typer.echo(f"  on these patients: {report.cohort_ceilings[marker]}")

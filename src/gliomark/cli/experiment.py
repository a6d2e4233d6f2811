"""``gliomark experiment``: one command per committed result."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import typer

from gliomark.cli.options import (
    CohortOption,
    IdColumnOption,
    LabelColumnOption,
    OutputFolderOption,
    PredictedColumnOption,
    Preset,
    PresetOption,
    ProbabilityColumnOption,
    RowFilterOption,
    SchedulerOption,
    SeedsOption,
    TestCohortsOption,
    WorkersOption,
    parse_pair,
    parse_row_filters,
)

app = typer.Typer(no_args_is_help=True, help="Reproduce the committed results.")


@app.command("demonstration")
def run_demonstration_command(
    cohort: Annotated[Path, typer.Option(help="The prepared TCGA-LGG cohort (T1C,FLAIR).")],
    out: Annotated[Path, typer.Option(help="Folder for weights, tables and run record.")],
    also_test: TestCohortsOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Retrain the demo weights and evaluate them on held-out patients."""
    from gliomark.experiments.config import ExperimentConfig
    from gliomark.experiments.demonstration import run_demonstration
    from gliomark.experiments.segmentation.runs import SHIPPED_PRESET

    test_only = tuple(also_test or ())
    run_demonstration(
        ExperimentConfig((cohort,), out, SHIPPED_PRESET, workers, scheduler, typer.echo, test_only)
    )


@app.command("t2-outline")
def run_t2_outline_command(
    cohort: Annotated[Path, typer.Option(help="The prepared TCGA-LGG cohort (T1C,FLAIR).")],
    t2_cohort: Annotated[
        Path,
        typer.Option(help="Patients of the same cohort prepared for T1C,T2, with masks of the whole lesion."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for weights, tables and run record.")],
    model: Annotated[
        str,
        typer.Option(help="Model for T1C and FLAIR to which the network is added: a name or a weights file."),
    ] = "demo",
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Train the demo weights for T1C and T2 and evaluate them on held-out patients."""
    from gliomark.experiments.config import ExperimentConfig
    from gliomark.experiments.segmentation.runs import SHIPPED_PRESET
    from gliomark.experiments.t2_outline import run_t2_outline
    from gliomark.model_loading import load_weights_by_name

    cohorts = (cohort, t2_cohort)
    config = ExperimentConfig(cohorts, out, SHIPPED_PRESET, workers, scheduler, typer.echo)
    run_t2_outline(config, load_weights_by_name(model))


@app.command("synthetic-model")
def run_synthetic_model_command(
    cohort: Annotated[Path, typer.Option(help="A cohort from 'cohort phantom --as prepared'.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, tables and run record.")],
    patients: Annotated[
        list[int], typer.Option(min=10, help="Training patients of a model; repeatable, increasing.")
    ],
    segmentation_epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of MIG-Net with most patients; as many steps with fewer.")
    ] = 4,
    marker_epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of every marker network with most patients.")
    ] = 5,
    marker_recipe: Annotated[
        Literal["small", "pretrained"],
        typer.Option(help="Recipe of the marker networks; small: KiNet; pretrained: lesion-pooled features."),
    ] = "small",
) -> None:
    """Train the synthetic model and measure its learning curve against the best achievable AUC."""
    from gliomark.experiments.synthetic_model import SyntheticModelConfig, run_synthetic_model

    config = SyntheticModelConfig(tuple(patients), segmentation_epochs, marker_epochs, marker_recipe)
    typer.echo(str(run_synthetic_model(cohort, config, out, typer.echo)))


@app.command("table-2-3")
def run_table_2_3_command(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and run record.")],
    preset: Annotated[
        Preset, typer.Option(help="published, or quick: reduced to two hours on one core.")
    ] = Preset.published,
    weights: Annotated[
        list[str] | None, typer.Option(help="NETWORK=FILE: initial weights; repeatable.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes; 0: one fold after another, each with all cores.")
    ] = 0,
    scheduler: SchedulerOption = None,
) -> None:
    """Lesion detection per slice: ResNet-50, DenseNet-121 and Xception, five folds by patient."""
    from gliomark.experiments.config import ExperimentConfig
    from gliomark.experiments.table_2_3 import run_table_2_3

    pairs = (parse_pair(text, "NETWORK=FILE, such as resnet50=weights.pt") for text in weights or ())
    files = {network: Path(file) for network, file in pairs}
    config = ExperimentConfig((cohort,), out, preset.value, workers, scheduler, typer.echo)
    typer.echo(str(run_table_2_3(config, files).path))


@app.command("table-3-3")
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
    from gliomark.experiments.runner import run_experiment
    from gliomark.experiments.table_3_3 import TABLE

    cohorts, test_only = (cohort, second_cohort), tuple(also_test or ())
    config = ExperimentConfig(cohorts, out, preset.value, workers, scheduler, typer.echo, test_only)
    typer.echo(str(run_experiment(TABLE, config).path))


# help of the commands of the tables; the module of a table has the name of its command
SEGMENTATION_COMMANDS = {
    "table-3-1": "Segmentation: MIG-Net, U-Net, TransUNet, Swin-UNet, Attention U-Net and nnU-Net, five folds.",
    "table-3-2": "Segmentation ablation: focus prior graph, dual prior guidance and inverted attention gates, "
    "five folds.",
    "segmentation-extensions": "Segmentation extensions: joint input, neighbouring slices, random contrast, "
    "distillation, five folds.",
}
# one table per marker
MARKER_COMMANDS = {
    "table-4-2": "Markers from one sequence: slice (IMG), lesion only (ROI), both (MIX).",
    "table-4-3": "Markers from two sequences: early, late and middle fusion.",
    "table-4-4": "Markers by ResNet-50, ResNeSt-50, CentralNet, KiNet and lesion-pooled features.",
    "table-4-5": "Marker ablation: BMS loss, Merge-IN and clinical data.",
    "table-4-6": "Markers per patient: All, Near and Large.",
    "marker-comparison": "KiNet compared with radiomics and LightGBM, and with age and sex only.",
    "slice-leakage": "Overestimation when data are split by slice instead of by patient.",
}


def import_table_module(command: str) -> ModuleType:
    """Import the module of a table by the name of its command."""
    return import_module(f"gliomark.experiments.{command.replace('-', '_')}")


def create_segmentation_command(command: str) -> Callable[..., None]:
    """Create the command of one segmentation table."""

    def run_segmentation_table_command(
        cohort: CohortOption,
        out: OutputFolderOption,
        preset: PresetOption = Preset.published,
        seeds: SeedsOption = 1,
        workers: WorkersOption = None,
        scheduler: SchedulerOption = None,
    ) -> None:
        from gliomark.experiments.config import ExperimentConfig
        from gliomark.experiments.runner import run_experiment

        config = ExperimentConfig((cohort,), out, preset.value, workers, scheduler, typer.echo, seeds=seeds)
        typer.echo(str(run_experiment(import_table_module(command).TABLE, config).path))

    return run_segmentation_table_command


def create_marker_command(command: str) -> Callable[..., None]:
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
        from gliomark.experiments.runner import run_experiment
        from gliomark.training.recipes import parse_marker_definition

        config = ExperimentConfig((cohort,), out, preset.value, workers, scheduler, typer.echo)
        for definition in map(parse_marker_definition, marker):
            table = import_table_module(command).create_table(definition)
            typer.echo(str(run_experiment(table, config).path))

    return run_marker_table_command


for _command, _help in SEGMENTATION_COMMANDS.items():
    app.command(_command, help=_help)(create_segmentation_command(_command))
for _command, _help in MARKER_COMMANDS.items():
    app.command(_command, help=_help)(create_marker_command(_command))


@app.command("feature-table")
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


@app.command("reader-finding")
def run_reader_finding_command(
    cohort: Annotated[Path, typer.Option(help="Cohort prepared for T1,T1C, with lesion masks.")],
    out: OutputFolderOption,
) -> None:
    """Accuracy of the finding "enhancing focus: yes or no" for IDH, with enhancement detected by a rule."""
    from gliomark.experiments.markers.reader_finding import run_reader_finding

    typer.echo(str(run_reader_finding(cohort, out)))


@app.command("phantom-learning-curve")
def run_phantom_learning_curve_command(
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


@app.command("permuted-labels")
def run_permuted_labels_command(
    cohort: CohortOption,
    demonstration: Annotated[Path, typer.Option(help="Output folder of 'experiment demonstration'.")],
    out: OutputFolderOption,
    marker: Annotated[str, typer.Option(help="Column of the clinical table, or column>=threshold.")],
    permutations: Annotated[int, typer.Option(min=1, help="Number of permutations.")] = 10,
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
        permutations,
        segmentation_folder,
    )
    typer.echo(str(path))


@app.command("lesion-location")
def run_lesion_location_command(
    out: Annotated[Path, typer.Option(help="Folder for the tables.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of synthetic patients.")] = 20,
    seed: Annotated[int, typer.Option(help="Random seed of the first patient.")] = 1,
) -> None:
    """Location of the lesion on synthetic patients with known anatomy; needs the extra atlas."""
    from gliomark.experiments.lesion_location import run_lesion_location
    from gliomark.location import check_atlas

    check_atlas()
    typer.echo(str(run_lesion_location(patients, seed, out, notify=typer.echo)))


@app.command("registration-accuracy")
def run_registration_accuracy_command(
    out: Annotated[Path, typer.Option(help="Folder for the table.")],
    patients: Annotated[int, typer.Option(min=1, help="Number of synthetic patients.")] = 40,
    seed: Annotated[int, typer.Option(help="Random seed of the first patient.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
) -> None:
    """Registration accuracy on synthetic patients with known displacement."""
    from gliomark.experiments.registration_accuracy import run_registration_accuracy

    typer.echo(str(run_registration_accuracy(patients, seed, out, workers, notify=typer.echo)))


@app.command("series-recognition")
def run_series_recognition_command(
    out: Annotated[Path, typer.Option(help="Folder for the confusion table.")],
    series: Annotated[Path | None, typer.Option(help="Folder of real series to include.")] = None,
) -> None:
    """Sequence recognition: confusion table over synthetic headers and real series."""
    from gliomark.experiments.series_recognition import run_series_recognition

    typer.echo(str(run_series_recognition(out, series, notify=typer.echo)))


@app.command("robustness")
def run_robustness_command(
    cohort: Annotated[
        Path, typer.Option(help="Folder of patients as for 'predict': original images with lesion masks.")
    ],
    model: Annotated[str, typer.Option(help="Name of a model, or a weights file.")],
    out: OutputFolderOption,
    clinical: Annotated[Path | None, typer.Option(help="Table with the columns id, age and sex.")] = None,
    training_key: Annotated[
        Path | None, typer.Option(help="key.csv of the training cohort, if its build replaced the ids.")
    ] = None,
    trained_elsewhere: Annotated[
        bool, typer.Option("--trained-elsewhere", help="None of these patients was used for training.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0: none.")] = 0,
) -> None:
    """Dice and probabilities under noise, blur, artefacts, rotation, coarser voxels and weaker enhancement."""
    from gliomark.experiments.robustness.image_robustness import (
        RobustnessConfig,
        describe_robustness,
        run_robustness,
    )

    config = RobustnessConfig(cohort, model, out, clinical, training_key, trained_elsewhere, workers)
    path = run_robustness(config, lambda line: typer.echo(line, err=True))
    for line in describe_robustness(path):
        typer.echo(line)
    typer.echo(str(path))


@app.command("unusual-inputs")
def run_unusual_inputs_command(
    cohort: CohortOption,
    out: OutputFolderOption,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the original patients, or a cohort prepared alike, for further sequences."
        ),
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option(help="Another cohort with the same sequences, or COHORT=SOURCE; repeatable."),
    ] = None,
    altered: Annotated[
        int | None, typer.Option(min=1, help="Number of patients to alter into every kind; default: all.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Compare with the training patients of this model, not with the other folds."),
    ] = None,
    name: Annotated[str, typer.Option(help="Added to the names of the result files.")] = "",
) -> None:
    """What a model says of wrong images, other diseases and other cohorts, in five folds."""
    from gliomark.experiments.unusual_inputs.experiment import UnusualInputsConfig, run_unusual_inputs
    from gliomark.model_loading import load_weights_by_name

    pairs = [text.partition("=") for text in other or ()]
    others = tuple((Path(folder), Path(raw) if raw else None) for folder, _, raw in pairs)
    weights = load_weights_by_name(model) if model else None
    config = UnusualInputsConfig(cohort, source, others, altered, out, typer.echo, weights, name)
    typer.echo(str(run_unusual_inputs(config)))


@app.command("site-recalibration")
def run_site_recalibration_command(
    home: Annotated[Path, typer.Option(help="Predictions for patients of the model's own hospital.")],
    sites: Annotated[Path, typer.Option(help="Predictions for patients of other hospitals.")],
    out: OutputFolderOption,
    id: IdColumnOption = "id",
    label: LabelColumnOption = "label",
    probability: ProbabilityColumnOption = "probability",
    site: Annotated[
        str, typer.Option(help="Column of the hospital; blank: all patients are of one hospital.")
    ] = "site",
    predicted: PredictedColumnOption = None,
    where: RowFilterOption = None,
    local: Annotated[
        list[int] | None,
        typer.Option(min=30, help="Patients of each hospital to recalibrate on; repeatable. Default: half."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Random draws of these patients.")] = 50,
    name: Annotated[str, typer.Option(help="Added to the names of the result files.")] = "",
) -> None:
    """A model at other hospitals before and after recalibration on some of their patients."""
    from gliomark.evaluation.evaluate import PredictionColumns
    from gliomark.experiments.site_recalibration import run_site_recalibration

    columns = PredictionColumns(id, label, probability, site or None, predicted, parse_row_filters(where))
    typer.echo(str(run_site_recalibration(home, sites, columns, repeats, out, typer.echo, local or (), name)))


@app.command("conformal-coverage")
def run_conformal_coverage_command(
    predictions: Annotated[Path, typer.Option(help="Out-of-fold predictions, one row per patient.")],
    out: OutputFolderOption,
    name: Annotated[str, typer.Option(help="Ends the names of the files, such as idh.")],
    id: IdColumnOption = "id",
    label: LabelColumnOption = "label",
    probability: ProbabilityColumnOption = "probability",
    where: RowFilterOption = None,
    repeats: Annotated[int, typer.Option(min=1, help="Number of random halves.")] = 100,
) -> None:
    """Coverage of the stated levels, and how often the model cannot tell, over random halves of a cohort."""
    from gliomark.evaluation.evaluate import PredictionColumns
    from gliomark.experiments.conformal_coverage import run_conformal_coverage

    columns = PredictionColumns(id, label, probability, row_filters=parse_row_filters(where))
    typer.echo(str(run_conformal_coverage(predictions, columns, repeats, out, name)))


@app.command("server-load")
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


@app.command("kill-recovery")
def run_kill_recovery_command(
    out: OutputFolderOption,
    command: Annotated[str, typer.Option(help="predict, build, train, serve or all.")] = "all",
    times: Annotated[int, typer.Option(min=1, help="Number of kills of each command.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of patients and times.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Simultaneous attempts.")] = 1,
) -> None:
    """Recovery after kill -9 at random times: same results, no leftover files."""
    from gliomark.experiments.robustness.kill_recovery import ENTRY_POINTS, run_kill_recovery

    commands = list(ENTRY_POINTS) if command == "all" else [command]
    typer.echo(str(run_kill_recovery(commands, times, seed, out, typer.echo, workers)))


@app.command("server-invalid-uploads")
def run_server_invalid_uploads_command(
    out: OutputFolderOption,
    uploads: Annotated[int, typer.Option(min=5, help="Number of uploads; every fifth is invalid.")] = 100,
    clients: Annotated[int, typer.Option(min=1, help="Number of simultaneous clients.")] = 20,
    patients: Annotated[int, typer.Option(min=1, help="Number of valid synthetic patients.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="--workers of the server.")] = 2,
) -> None:
    """Correctness of the server when every fifth upload is invalid."""
    from gliomark.experiments.robustness.server_invalid_uploads import run_server_invalid_uploads

    typer.echo(str(run_server_invalid_uploads(out, typer.echo, uploads, clients, patients, workers)))


@app.command("server-idle-connections")
def run_server_idle_connections_command(
    out: OutputFolderOption,
    silent: Annotated[int, typer.Option(min=1, help="Number of idle HTTP and DICOM connections.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="Duration in seconds.")] = 120.0,
) -> None:
    """Response time of the server in the presence of many idle connections and associations."""
    from gliomark.experiments.robustness.server_idle_connections import run_server_idle_connections

    typer.echo(str(run_server_idle_connections(out, typer.echo, silent, seconds)))


@app.command("client-response-time")
def run_client_response_time_command(
    patients: Annotated[Path, typer.Option(help="Folder of patient folders.")],
    clinical: Annotated[Path, typer.Option(help="Table with the columns id, age and sex.")],
    out: OutputFolderOption,
    count: Annotated[int, typer.Option(min=1, help="Number of patients.")] = 20,
) -> None:
    """Response time of the desktop client, from the click to the result on the screen, and memory."""
    from gliomark.client.response_time import measure_response_times
    from gliomark.experiments.robustness.server_process import measure_resident_memory_mb

    typer.echo(
        str(measure_response_times(patients, clinical, out, count, typer.echo, measure_resident_memory_mb))
    )


@app.command("tables")
def write_tables_command(
    results: Annotated[Path, typer.Option(help="Folder of the csv files.")] = Path("results"),
    documents: Annotated[Path, typer.Option(help="Folder of README.md and MODEL_CARD.md.")] = Path("."),
) -> None:
    """Write the tables of README.md and MODEL_CARD.md from the committed csv files."""
    from gliomark.experiments.markdown_tables import update_documents

    for path in update_documents(results, documents):
        typer.echo(str(path))

"""``gliomark train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gliomark.cli.options import SchedulerOption
from gliomark.cli.progress import show_log

app = typer.Typer(no_args_is_help=True, help="Train networks on a prepared cohort.")

RecipeOption = Annotated[
    Literal["published", "small", "pretrained"],
    typer.Option(
        help="published: as in the thesis, for a GPU; small: for a CPU; pretrained: from ImageNet weights, in minutes, "
        "as the demo weights (segmentation: with --rule joint)."
    ),
]
NetworkOption = Annotated[
    str | None, typer.Option(help="Network, see 'gliomark models networks'; by default the recipe's own.")
]
DevicesOption = Annotated[
    int,
    typer.Option(
        "--devices",
        min=1,
        help="GPUs per node (processes without a GPU) over which every batch is split.",
    ),
]
NodesOption = Annotated[
    int, typer.Option("--nodes", min=1, help="Number of nodes; run the same command once on each.")
]


@app.command("segmentation")
def train_segmentation_command(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    out: Annotated[Path, typer.Option(help="The weights file to write.")],
    rule: Annotated[str, typer.Option(help="How sequences are combined: joint, union or single.")] = "union",
    network: NetworkOption = None,
    recipe: RecipeOption = "published",
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 200,
    devices: DevicesOption = 1,
    nodes: NodesOption = 1,
) -> None:
    """Train a segmentation network on all patients outside the test set."""
    from gliomark.training.processes import ProcessLayout
    from gliomark.training.recipes import run_segmentation_training

    layout = ProcessLayout(devices, nodes)
    with show_log("gliomark.training"):
        path = run_segmentation_training(cohort, out, rule, recipe, epochs, network, layout)
    typer.echo(str(path))


@app.command("markers")
def train_markers_command(
    cohort: Annotated[Path, typer.Option(help="A prepared cohort.")],
    segmentation: Annotated[Path, typer.Option(help="Weights file from 'train segmentation'.")],
    out: Annotated[Path, typer.Option(help="Weights file to write, with segmentation and markers.")],
    marker: Annotated[
        list[str], typer.Option(help="Column of the clinical table, or column>=threshold; repeatable.")
    ],
    network: NetworkOption = None,
    recipe: RecipeOption = "published",
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of each network; not used by lesion-pooled features.")
    ] = 100,
    devices: DevicesOption = 1,
    nodes: NodesOption = 1,
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes that train networks at the same time; 0: none.")
    ] = 0,
    scheduler: SchedulerOption = None,
) -> None:
    """Train marker networks, and LightGBM on out-of-fold vectors, for one or more markers."""
    from gliomark.training.processes import ProcessLayout
    from gliomark.training.recipes import TrainingDistribution, run_marker_training

    distribution = TrainingDistribution(ProcessLayout(devices, nodes), workers, scheduler)
    with show_log("gliomark.training"):
        weights = run_marker_training(
            cohort, segmentation, out, marker, recipe, epochs, network, distribution
        )
    if weights is None:  # node 0 shows the result
        return
    for one in weights.card.markers.values():
        typer.echo(f"{one.title}: {one.validation_message}")
    typer.echo(str(out))

"""Cost of each corrected error of gliomark 0.1: MIG-Net trained with this error alone, in the same folds.

    PYTHONPATH=src:. python benchmarks/corrected_errors.py COHORT OUT --seeds 1 --workers 2

Each error is put back for the duration of a training and its evaluation. Preset quick, the folds of table 3-2, of which
the networks without an error are reused if OUT is that table's folder; interrupted trainings continue. Writes
``corrected_errors.csv`` and ``corrected_errors_patients.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from gliomark.experiments.config import ExperimentConfig
from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.experiments.runner import ExperimentResult, complete_jobs
from gliomark.experiments.segmentation.procedure import (
    FoldJob,
    SegmentationFold,
    SegmentationProcedure,
    SegmentationRun,
)
from gliomark.experiments.segmentation.result_tables import (
    average_over_seeds,
    compare_paired_dice,
    describe_run,
    tabulate_result,
)
from gliomark.experiments.segmentation.runs import MIGNET, get_segmentation_preset, list_table_3_2_runs
from gliomark.models.network_io import downsample_by_averaging
from gliomark.models.published.mignet import DualPriorGuidance
from gliomark.models.published.swin_stage import SmallGridWindowAttention
from gliomark.models.published.swin_unet import SwinEncoder
from gliomark.training.augmentation import (
    Augmentation,
    draw_random_theta,
    perturb_intensities,
    resample_view,
)

PRESET = "quick"
NO_FPG = "guidance + IAG"  # the run of table 3-2 whose location map lost its prior
OLD_WINDOW = 7


def draw_view_of_averaged_slices(
    image: Tensor, lesion: Tensor, augmentation: Augmentation, pool: float = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw views of slices that are averaged first; as ``training.augmentation.draw_random_view``."""
    theta = draw_random_theta(len(image), augmentation, image.shape[-1]).to(image.device)
    averaged_lesion = downsample_by_averaging(lesion[:, None].float(), pool) >= 0.5
    averaged = torch.cat([downsample_by_averaging(image.float(), pool), averaged_lesion.float()], dim=1)
    view = resample_view(averaged, theta, round(augmentation.crop / pool))
    return perturb_intensities(view[:, :-1], augmentation), view[:, -1].round(), theta


def compute_bias_of_first_rows(attention: SmallGridWindowAttention) -> Tensor:
    """Compute the position bias of a smaller window from the first rows of the full window's index."""
    height, width = attention.window
    count = height * width
    bias = attention.relative_position_bias_table[
        attention.relative_position_index[:count, :count].reshape(-1)
    ]
    return rearrange(bias, "(n m) h -> h n m", n=count)


def sample_alpha_at_centres(guidance: DualPriorGuidance, bottleneck: Tensor, theta: Tensor) -> Tensor:
    """Sample alpha at the centre of every cell of the feature, ``(B, 1, h, w)``."""
    batch, _, height, width = bottleneck.shape
    grid = F.affine_grid(theta, [batch, 1, height, width], align_corners=False)
    alpha = guidance.alpha.expand(batch, -1, -1, -1)
    return F.grid_sample(alpha, grid.to(alpha.dtype), padding_mode="border", align_corners=False)


def encode_without_last_norm(encoder: SwinEncoder, image: Tensor) -> list[Tensor]:
    """Return the encoder's features, the last one not normalised."""
    features = [encoder.stages[0](encoder.embed(image))]
    for merge, stage in zip(encoder.merges, encoder.stages[1:], strict=True):
        features.append(stage(merge(features[-1])))
    return features


def perturb_one_sample_in_ten(image: Tensor, augmentation: Augmentation) -> Tensor:
    """Change brightness and contrast as now; noise of up to a tenth of the deviation on one sample in ten."""
    image = perturb_intensities(image, replace(augmentation, noise=0.0))
    level = (torch.rand(len(image), 1, 1, 1) < augmentation.noise) * 0.1 * torch.rand(len(image), 1, 1, 1)
    return image + level * torch.randn_like(image)


def ignore_prior(guidance: DualPriorGuidance, prior: Tensor) -> None:
    """Leave alpha at one everywhere."""


def keep_settings(run: SegmentationRun) -> SegmentationRun:
    """Return the run unchanged."""
    return run


def widen_windows(run: SegmentationRun) -> SegmentationRun:
    """Return the run with windows of 7, which divide none of its grids."""
    network = run.training.network
    network = replace(network, size=replace(network.size, window=OLD_WINDOW))
    return replace(run, training=replace(run.training, network=network))


def select_epoch_by_validation(run: SegmentationRun) -> SegmentationRun:
    """Return the run with the epoch chosen on validation patients, who are not trained on."""
    return replace(run, training=replace(run.training, validate_every=1))


@dataclass(frozen=True)
class CorrectedError:
    """An error of gliomark 0.1.

    replacements: the old code by the place where the new one is looked up; change: settings of the run that differ;
    base: the run of table 3-2 in which it occurred.
    """

    replacements: Mapping[tuple[Any, str], Any]
    change: Callable[[SegmentationRun], SegmentationRun] = keep_settings
    base: str = MIGNET


def list_errors() -> dict[str, CorrectedError]:
    """List the errors by name."""
    from gliomark.models.published import mignet, swin_unet
    from gliomark.training import augmentation, segmentation

    return {
        "slices averaged before the view is taken": CorrectedError(
            {(segmentation, "draw_random_view"): draw_view_of_averaged_slices}
        ),
        "batch normalisation": CorrectedError(
            {(module, "build_group_norm"): nn.BatchNorm2d for module in (mignet, swin_unet)}
        ),
        "windows of 7, biases of other pixels": CorrectedError(
            {(SmallGridWindowAttention, "_compute_position_bias"): compute_bias_of_first_rows}, widen_windows
        ),
        "alpha at one point of a cell": CorrectedError(
            {(DualPriorGuidance, "_resample_alpha"): sample_alpha_at_centres}
        ),
        "bottleneck not normalised": CorrectedError({(SwinEncoder, "forward"): encode_without_last_norm}),
        "epoch selected on validation patients": CorrectedError({}, select_epoch_by_validation),
        "noise on one sample in ten": CorrectedError(
            {(augmentation, "perturb_intensities"): perturb_one_sample_in_ten}
        ),
        "no prior in alpha without the FPG": CorrectedError(
            {(DualPriorGuidance, "initialise_alpha"): ignore_prior}, base=NO_FPG
        ),
    }


@contextmanager
def restore_error(error: CorrectedError | None) -> Iterator[None]:
    """Put an error back while the context lasts; None: none."""
    with ExitStack() as stack:
        for (owner, name), old in {} if error is None else error.replacements.items():
            stack.enter_context(patch.object(owner, name, old))
        yield


def format_run_name(error_name: str) -> str:
    """Name of the run with an error, and so of its work folder."""
    return f"error {error_name}"


@dataclass(frozen=True)
class ProcedureWithErrors(SegmentationProcedure):
    """Training and evaluation, with the error that the run is named after."""

    def execute(self, job: FoldJob, checkpoint_folder: Path) -> SegmentationFold:
        """Train and evaluate with the error of the run."""
        errors = {format_run_name(name): error for name, error in list_errors().items()}
        with restore_error(errors.get(job.run.row_name)):
            return super().execute(job, checkpoint_folder)


def list_runs() -> list[SegmentationRun]:
    """List the runs without an error, then one with each."""
    table_runs = {run.name: run for run in list_table_3_2_runs(get_segmentation_preset(PRESET))}
    errors = list_errors()
    bases = [table_runs[name] for name in dict.fromkeys(error.base for error in errors.values())]
    return bases + [
        replace(error.change(table_runs[error.base]), name=format_run_name(name))
        for name, error in errors.items()
    ]


def tabulate_costs(patients: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the Dice without and with each error, compared patient by patient, one row each."""
    by_run = {name: average_over_seeds(part) for name, part in patients.groupby("trial", sort=False)}
    rows = []
    for name, error in list_errors().items():
        now, before = by_run[error.base], by_run[format_run_name(name)]
        rows.append(
            {
                "error": name,
                "network": error.base,
                "patients": len(before),
                "seeds": patients["seed"].nunique(),
                "dice": now["dice"].mean(),
                "dice_with_error": before["dice"].mean(),
                **compare_paired_dice(now, before),
            }
        )
    return pd.DataFrame(rows)


def measure(cohort: Path, out: Path, seeds: int, folds: int, workers: int) -> Path:
    """Train what is missing and write the tables; path of the csv."""
    config = ExperimentConfig((cohort,), out, PRESET, workers, None, print, seeds=seeds)
    procedure, runs = ProcedureWithErrors(), list_runs()
    finished = complete_jobs(procedure.list_jobs(runs, folds, config), procedure, config)
    result = ExperimentResult(config, tuple(runs), finished)
    patients = tabulate_result(result)
    common = describe_run(result)
    tables = {"": tabulate_costs(patients).assign(**common), "_patients": patients}
    return write_result_files(
        out, "corrected_errors", tables, create_run_record("corrected_errors", **common)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", type=int, default=get_segmentation_preset(PRESET).ablation_folds)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    print(measure(arguments.cohort, arguments.out, arguments.seeds, arguments.folds, arguments.workers))

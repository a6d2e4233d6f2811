"""Plots of chapter 3: segmentations by all networks (3-8), focus prior and its weight (3-1), learnt guidance.

Figure 3-8 shows images of patients and is kept in the work folder; the others are aggregates over patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from gliomark.cohort.store import Cohort
from gliomark.experiments.result_files import save_figure
from gliomark.experiments.segmentation.procedure import (
    FoldJob,
    SegmentationRun,
    create_fold_job,
    create_run_segmenter,
    get_weights_path,
)
from gliomark.files import atomic_write
from gliomark.inference.segmenter import Segmenter
from gliomark.model_loading import build_segmenter
from gliomark.models.network_io import downsample_by_averaging
from gliomark.models.network_loading import load_segmentation_network
from gliomark.models.published.mignet import (
    MAX_ALPHA,
    InvertedAttentionGate,
    MIGNet,
    MIGNetSettings,
    build_mignet,
)
from gliomark.models.weights import Weights, load_weights
from gliomark.study import MRSequence, SliceStack
from gliomark.training.losses import compute_prior_weight

# true positive, false positive, false negative; distinguishable in greyscale and by colour-blind readers
OVERLAY_COLOURS = {
    "right": (0.10, 0.62, 0.47),
    "false positive": (0.99, 0.75, 0.15),
    "false negative": (0.80, 0.15, 0.60),
}
OVERLAY_OPACITY = 0.6


# ---- figure 3-8 -------------------------------------------------------------------------------------


def plot_figure_3_8(
    cohort: Cohort, patients: Sequence[str], segmenters: Mapping[str, Mapping[str, Segmenter]], path: Path
) -> Path:
    """Plot, in a row per patient and sequence, the slice with the largest lesion, its truth and every network's mask.

    segmenters: by patient and run name; no network may have been trained on that patient. Returns the path.
    """
    rows = [row for patient in patients for row in render_sequence_rows(cohort, patient, segmenters[patient])]
    size = (1.6 * len(rows[0]), 1.9 * len(rows) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    for number, axes in enumerate(figure.subplots(len(rows), len(rows[0]), squeeze=False)):
        for column, (axis, (title, picture)) in enumerate(zip(axes, rows[number].items(), strict=True)):
            axis.imshow(picture, interpolation="nearest")
            axis.set_axis_off()
            if number == 0 or column == 0:  # the first column names the sequence of the row
                axis.set_title(title, fontsize=9)
    squares = [Patch(color=colour, label=name) for name, colour in OVERLAY_COLOURS.items()]
    figure.legend(handles=squares, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return save_figure(figure, path)


def render_sequence_rows(
    cohort: Cohort, patient: str, segmenters: Mapping[str, Segmenter]
) -> list[dict[str, NDArray[np.float64]]]:
    """Render a patient's slice with the largest lesion: a row of pictures for each sequence that the networks read.

    A row has the image under the sequence's name, the truth, and the mask of every network, by run name, all RGB
    ``(row, column, 3)`` in [0, 1]. A network that reads the sequences as independent samples is shown with the mask of
    the row's sequence alone, a joint one with its only mask.
    """
    stack = cohort.read_stack(patient)
    slice_index = int(stack.reader_mask.sum(axis=(1, 2)).argmax())
    truth = stack.reader_mask[slice_index]
    read_sequences = next(iter(segmenters.values())).sequences
    rows = []
    for sequence in (name for name in read_sequences if name in stack.images):
        image = render_grey_slice(stack, sequence, slice_index)
        row = {str(sequence): image, "truth": overlay_errors(image, truth, truth)}
        for name, segmenter in segmenters.items():
            if segmenter.rule != "joint":
                segmenter = replace(segmenter, sequences=(sequence,), rule="single")
            row[name] = overlay_errors(image, truth, segmenter.segment(stack).mask[slice_index])
        rows.append({name: _crop_to_brain(picture, stack) for name, picture in row.items()})
    return rows


def render_grey_slice(stack: SliceStack, sequence: MRSequence, slice_index: int) -> NDArray[np.float64]:
    """Render a slice as RGB ``(row, column, 3)`` in [0, 1], with the grey values of the brain from black to white."""
    image = stack.images[sequence]
    low, high = np.percentile(image[stack.brain], [1, 99.5])
    scaled = np.clip((image[slice_index] - low) / (high - low), 0, 1) * stack.brain[slice_index]
    return np.repeat(scaled[..., None], 3, axis=-1)


def overlay_errors(
    rgb_image: NDArray[np.float64], reader_mask: NDArray[np.bool_], predicted_mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Overlay true positives, false positives and false negatives on an image.

    rgb_image: ``(row, column, 3)`` in [0, 1]; reader_mask, predicted_mask: ``(row, column)``.
    """
    result = rgb_image.copy()
    parts = (reader_mask & predicted_mask, predicted_mask & ~reader_mask, reader_mask & ~predicted_mask)
    for part, colour in zip(parts, OVERLAY_COLOURS.values(), strict=True):
        result[part] = (1 - OVERLAY_OPACITY) * result[part] + OVERLAY_OPACITY * np.array(colour)
    return result


def _crop_to_brain(rgb_image: NDArray[np.float64], stack: SliceStack) -> NDArray[np.float64]:
    rows, columns = (np.flatnonzero(stack.brain.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    return rgb_image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def select_typical_patients(patient_table: pd.DataFrame, run_name: str) -> list[str]:
    """Select the patients at the upper quartile, median, lower quartile and minimum of a run's Dice."""
    ranked = patient_table[patient_table["trial"] == run_name].sort_values("dice")["patient"].tolist()
    ranks = [round(share * (len(ranked) - 1)) for share in (0.75, 0.5, 0.25, 0.0)]
    return list(dict.fromkeys(ranked[rank] for rank in ranks))


def load_held_out_segmenters(patient: str, jobs: Sequence[FoldJob]) -> dict[str, Segmenter]:
    """Load, by run name, the networks that were not trained on the patient."""
    segmenters = {}
    for job in jobs:
        weights = load_weights(get_weights_path(job))
        if patient not in weights.card.training_patients:
            segmenters[job.run.name] = create_run_segmenter(job.run, weights)
    return segmenters


# ---- figure 3-1 -------------------------------------------------------------------------------------


def plot_figure_3_1(priors: Mapping[str, Tensor], path: Path) -> Path:
    """Plot the focus prior P of each cohort, its weight w(P) on the template, and w as a curve (eq. 3-2); the path.

    priors: ``(H, W)`` by cohort name.
    """
    figure = Figure(figsize=(8.5, 2.6 * len(priors)), layout="constrained")
    grid = figure.subplots(len(priors), 3, squeeze=False)
    for row, (name, prior) in zip(grid, priors.items(), strict=True):
        cohort_label = name if name.isascii() else "this cohort"  # the plot's font has no other characters
        for axis, title, values in (
            (row[0], f"P, {cohort_label}", prior),
            (row[1], "w(P)", compute_prior_weight(prior)),
        ):
            shown = axis.imshow(values.numpy(), cmap="viridis", vmin=0, vmax=1)
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
            figure.colorbar(shown, ax=axis, shrink=0.7)
        line = torch.linspace(0, 1, 201)
        row[2].plot(line, compute_prior_weight(line), color="black")
        row[2].set_xlabel("P", fontsize=8)
        row[2].set_ylabel("w(P)", fontsize=8)
        row[2].tick_params(labelsize=7)
    return save_figure(figure, path)


def compute_mean_prior(jobs: Sequence[FoldJob]) -> Tensor:
    """Compute the mean of the folds' priors, ``(H, W)``; each was built from the training patients of its fold."""
    return torch.stack([_load_prior(load_weights(get_weights_path(job))) for job in jobs]).mean(dim=0)


# ---- learnt guidance --------------------------------------------------------------------------------


def plot_guidance(jobs: Sequence[FoldJob], gates: pd.DataFrame, path: Path) -> Path:
    """Plot alpha before and after training (mean of folds), the difference, and the gates' coefficients; the path."""
    after, before = compute_mean_alphas(jobs)
    figure = Figure(figsize=(12, 2.9), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.2))
    for axis, title, values in ((axes[0], "alpha before", before), (axes[1], "alpha after", after)):
        shown = axis.imshow(values, cmap="viridis", vmin=0, vmax=MAX_ALPHA)
        axis.set_title(title, fontsize=9)
        figure.colorbar(shown, ax=axis, shrink=0.7)
    change = after - before
    largest_change = float(np.abs(change).max()) or 1.0
    shown = axes[2].imshow(change, cmap="RdBu_r", vmin=-largest_change, vmax=largest_change)
    axes[2].set_title("after - before", fontsize=9)
    figure.colorbar(shown, ax=axes[2], shrink=0.7)
    for axis in axes[:3]:
        axis.set_axis_off()
    means = gates.groupby(["level", "state", "tissue"])["coefficient"].mean().unstack(["state", "tissue"])
    styles = {"before": ":", "after": "-"}
    colours = {"lesion": OVERLAY_COLOURS["false negative"], "brain": "0.4"}
    for state, style in styles.items():
        for tissue, colour in colours.items():
            axes[3].plot(
                means.index, means[state, tissue], style, color=colour, marker="o", label=f"{tissue}, {state}"
            )
    axes[3].set_xticks(list(means.index))
    axes[3].set_xlabel("level (0 finest)", fontsize=8)
    axes[3].set_title("mean gate coefficient a", fontsize=9)
    axes[3].tick_params(labelsize=7)
    axes[3].legend(fontsize=7, frameon=False)
    return save_figure(figure, path)


def compute_mean_alphas(jobs: Sequence[FoldJob]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the mean alpha over folds, ``(H, W)``: after training, then before."""
    pairs = []
    for job in jobs:
        pairs.append([_get_alpha(network) for network in _load_trained_and_untrained(job)])
    after, before = np.mean(pairs, axis=0)
    return after, before


def _load_trained_and_untrained(job: FoldJob) -> tuple[MIGNet, MIGNet]:
    """Load the network of a fold, and create an untrained one with the same prior."""
    weights, settings = load_weights(get_weights_path(job)), job.run.training.network
    trained = load_segmentation_network(weights)
    assert isinstance(settings, MIGNetSettings) and isinstance(trained, MIGNet)  # the plots are about MIG-Net
    torch.manual_seed(job.run.training.seed)
    return trained, build_mignet(settings, _load_prior(weights)).eval()


def _load_prior(weights: Weights) -> Tensor:
    """Load the FPG ``(H, W)``, float32."""
    return torch.from_numpy(weights.tensors["prior"].astype(np.float32))


def _get_alpha(network: MIGNet) -> NDArray[np.float32]:
    assert network.guidance is not None
    values: NDArray[np.float32] = network.guidance.alpha.detach().numpy()[0, 0]
    return values


def compute_gate_coefficients(cohort: Cohort, job: FoldJob, patients: Sequence[str]) -> pd.DataFrame:
    """Compute the mean coefficient a (eq. 3-7) of every inverted gate, in the lesion and in the rest of the brain.

    On slices of the test patients, by the trained and by an untrained network; columns fold (from 1), level (0 for the
    finest skip connection), state, tissue, patient, coefficient.
    """
    segmenter, (trained, untrained) = (
        build_segmenter(load_weights(get_weights_path(job)), engine="torch"),
        _load_trained_and_untrained(job),
    )
    rows = []
    for patient in patients:
        stack = cohort.read_stack(patient, segmenter.sequences)
        lesion = torch.from_numpy(stack.reader_mask.astype(np.float32))[:, None]
        rest = torch.from_numpy((stack.brain & ~stack.reader_mask).astype(np.float32))[:, None]
        for state, network in (("before", untrained), ("after", trained)):
            for level, gate in enumerate(compute_gate_maps(network, segmenter, stack)):
                size = (gate.shape[-2], gate.shape[-1])
                shares = [torch.nn.functional.adaptive_avg_pool2d(t, size) for t in (lesion, rest)]
                for tissue, share in zip(("lesion", "brain"), shares, strict=True):
                    mean = float((gate * share).sum() / share.sum().clamp(min=1e-6))
                    rows.append((job.fold_index + 1, level, state, tissue, patient, mean))
    return pd.DataFrame(rows, columns=["fold", "level", "state", "tissue", "patient", "coefficient"])


def compute_gate_maps(network: MIGNet, segmenter: Segmenter, stack: SliceStack) -> list[Tensor]:
    """Compute the coefficients of each gate, averaged over channels: ``(slice, 1, h, w)``, from fine to coarse."""
    gate_maps: dict[int, Tensor] = {}
    handles = []
    for level, gate in enumerate(network.decoder.get_submodule("gates").children()):
        assert isinstance(gate, InvertedAttentionGate)

        def keep(_: object, __: object, answer: Tensor, level: int = level) -> None:
            gate_maps[level] = torch.sigmoid(answer).mean(dim=1, keepdim=True)

        handles.append(gate.psi.register_forward_hook(keep))
    images = downsample_by_averaging(
        torch.from_numpy(segmenter.build_inputs(stack)[0]), segmenter.pooling_factor
    )
    with torch.inference_mode():
        network(images, torch.eye(2, 3).expand(len(images), -1, -1))
    for handle in handles:
        handle.remove()
    return [gate_maps[level] for level in sorted(gate_maps)]


def plot_segmentation_figures(
    mignet_run: SegmentationRun,
    runs: Sequence[SegmentationRun],
    cohort_folder: Path,
    patient_table: pd.DataFrame,
    output_folder: Path,
) -> list[Path]:
    """Plot all figures of table 3-1 from its stored networks and write ``guidance_gates.csv``; paths of the plots.

    The networks are those of seed 0.
    """
    patient_table = patient_table[patient_table["seed"] == 0]
    cohort, work = Cohort(cohort_folder), output_folder / "work"
    folds = sorted(patient_table["fold"].unique())
    jobs = {t.name: [create_fold_job(t, int(k) - 1, (cohort_folder,), work) for k in folds] for t in runs}
    mignet_jobs = jobs[mignet_run.name]
    typical_patients = select_typical_patients(patient_table, mignet_run.name)
    networks = {
        p: load_held_out_segmenters(p, [job for one in jobs.values() for job in one])
        for p in typical_patients
    }
    tested = patient_table[patient_table["trial"] == mignet_run.name].groupby("fold")["patient"].agg(list)
    gates = pd.concat(
        [compute_gate_coefficients(cohort, job, tested[job.fold_index + 1]) for job in mignet_jobs]
    )
    means = gates.groupby(["level", "state", "tissue"], sort=False)["coefficient"].agg(["mean", "std"])
    table = means.reset_index().to_csv(index=False, float_format="%.4f", lineterminator="\n")
    atomic_write(output_folder / "guidance_gates.csv", table)
    name = cohort_folder.absolute().name
    return [
        plot_figure_3_8(cohort, typical_patients, networks, work / "figure_3_8.png"),
        plot_figure_3_1({name: compute_mean_prior(mignet_jobs)}, output_folder / "figure_3_1.png"),
        plot_guidance(mignet_jobs, gates, output_folder / "figure_guidance.png"),
    ]

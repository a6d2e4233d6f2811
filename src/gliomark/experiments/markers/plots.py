"""Plots of chapter 4: Grad-CAM (4-2), ROC curves (4-6), CentralNet's fusion weights (4-7), calibration (4-8).

Figure 4-2 shows images of a patient and is kept in the work folder; the others are aggregates over patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from gliomark.evaluation.calibration import compute_calibration_bins
from gliomark.evaluation.delong import compute_delong_interval
from gliomark.experiments.markers.runs import INPUT_CHANNELS, format_input_name
from gliomark.experiments.markers.scoring import TrainedMarkerRuns, fuse_patient_scores
from gliomark.experiments.result_files import save_figure
from gliomark.explanation.branch_maps import compute_slice_branch_maps
from gliomark.study import MRSequence

FALSE_POSITIVE_RATES = np.linspace(0, 1, 101)
BOOTSTRAP_RESAMPLES = 500


def plot_figure_4_2(trained_runs: TrainedMarkerRuns, patient: str, network_stage: int, path: Path) -> Path:
    """Plot Grad-CAM maps of table 4-2's networks on the slice of a test patient with the largest lesion; the path.

    One row per sequence: the slice with the reader's lesion contour, then IMG, ROI and MIX, by networks that were not
    trained on the patient. network_stage: stage of ResNet-50, from 1 (finest) to 4 (coarsest).
    """
    fold_index = next(n for n, fold in enumerate(trained_runs.data.folds.folds) if patient in fold)
    lesion_slices = trained_runs.data.lesion_slice_inputs[patient]
    row = int(np.argmax(lesion_slices.slices.area_mm2))
    only = lesion_slices.images[row : row + 1].float(), lesion_slices.lesion[row : row + 1].float()
    figure = Figure(
        figsize=(2.2 * (1 + len(INPUT_CHANNELS)), 2.3 * len(trained_runs.sequences)), layout="constrained"
    )
    grid = figure.subplots(len(trained_runs.sequences), 1 + len(INPUT_CHANNELS), squeeze=False)
    for line, sequence, image in zip(
        grid, trained_runs.sequences, lesion_slices.images[row].float().numpy(), strict=True
    ):
        line[0].contour(lesion_slices.lesion[row].numpy(), levels=[0.5], colors="#ffd60a", linewidths=0.8)
        line[0].set_title(f"{sequence}, lesion", fontsize=9)
        for axes, name in zip(line[1:], INPUT_CHANNELS, strict=True):
            axes.set_title(name, fontsize=9)
            network, crop = trained_runs.load_network(format_input_name(sequence, name), fold_index)
            maps = compute_slice_branch_maps(network, *only, crop, network_stage)
            axes.imshow(maps["whole"][0], cmap="inferno", vmin=0, vmax=1, alpha=0.55, zorder=2)
        for axes in line:
            axes.imshow(image, cmap="gray", vmin=image.min(), vmax=np.percentile(image, 99.7), zorder=1)
            axes.set_axis_off()
    return save_figure(figure, path)


def plot_figure_4_6(slice_scores: pd.DataFrame, title: str, path: Path) -> Path:
    """Plot the ROC curve of every scoring method at patient level (near), with a 95 % bootstrap band; the path.

    slice_scores: rows of the test patients of every method.
    """
    names = list(dict.fromkeys(slice_scores["reading"]))
    columns = 3
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.2 * lines + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    patient_scores = fuse_patient_scores(slice_scores, "near")
    for axes, name in zip(grid.flat, names, strict=False):
        own = patient_scores[patient_scores["reading"] == name]
        label, probability = own["label"].to_numpy(), own["probability"].to_numpy()
        low, high = _bootstrap_roc_band(label, probability)
        axes.fill_between(FALSE_POSITIVE_RATES, low, high, color="#0b5f78", alpha=0.18, linewidth=0)
        axes.plot(FALSE_POSITIVE_RATES, _interpolate_roc(label, probability), color="#0b5f78")
        area = compute_delong_interval(label, probability)
        _style_unit_axes(axes, f"{name}\nAUC {area.value:.2f} ({area.lower:.2f} to {area.upper:.2f})")
        axes.set_xlabel("1 - specificity")
        axes.set_ylabel("sensitivity")
    for axes in list(grid.flat)[len(names) :]:
        axes.axis("off")
    figure.suptitle(f"{title}: patient level (near), 95 % band", fontsize=10)
    return save_figure(figure, path)


def _interpolate_roc(label: NDArray[Any], probability: NDArray[Any]) -> NDArray[np.float64]:
    """Interpolate the sensitivity at ``FALSE_POSITIVE_RATES``."""
    false, true, _ = roc_curve(label, probability)
    values: NDArray[np.float64] = np.interp(FALSE_POSITIVE_RATES, false, true)
    return values


def _bootstrap_roc_band(label: NDArray[Any], probability: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    generator = np.random.default_rng(0)
    curves: list[NDArray[np.float64]] = []
    while len(curves) < BOOTSTRAP_RESAMPLES:
        drawn = generator.integers(0, len(label), len(label))
        if len(set(label[drawn].tolist())) == 2:
            curves.append(_interpolate_roc(label[drawn], probability[drawn]))
    low, high = np.percentile(curves, [2.5, 97.5], axis=0)
    return low, high


def plot_figure_4_7(
    fusion_weights: NDArray[np.float64], title: str, sequences: Sequence[MRSequence], path: Path
) -> Path:
    """Plot CentralNet's learnt share of each branch at the input and after every stage; the path.

    Bars are means over networks, with standard deviations. fusion_weights: ``(network, 5, 3)``, last axis central,
    first and second branch; shares are computed from absolute values.
    """
    size = np.abs(fusion_weights)
    share = size / size.sum(axis=2, keepdims=True)
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(fusion_weights.shape[1])
    for number, (name, colour) in enumerate(
        zip(("central", *sequences), ("#14181b", "#0b5f78", "#d08a3c"), strict=True)
    ):
        mean, standard_deviation = share[:, :, number].mean(axis=0), share[:, :, number].std(axis=0)
        axes.bar(
            positions + 0.27 * (number - 1),
            mean,
            0.25,
            yerr=standard_deviation,
            color=colour,
            label=name,
            capsize=2,
        )
    axes.set_xticks(positions, ["input", *(f"stage {n}" for n in positions[1:])])
    axes.set_ylabel("share of the fusion")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, ncols=3, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{title}: {len(fusion_weights)} CentralNets", fontsize=10)
    return save_figure(figure, path)


def plot_figure_4_8(scores_by_rule: Mapping[str, pd.DataFrame], title: str, path: Path) -> Path:
    """Plot the observed share of positives against the predicted probability, per fusion rule; the path.

    Patients are grouped into bins of equal size.
    """
    figure = Figure(figsize=(3.1 * len(scores_by_rule), 3.4), layout="constrained")
    for axes, (rule, own) in zip(
        figure.subplots(1, len(scores_by_rule), squeeze=False).flat, scores_by_rule.items(), strict=True
    ):
        bins = compute_calibration_bins(own["label"], own["probability"])
        axes.plot([0, 1], [0, 1], color="#9aa5ab", linewidth=0.8)
        axes.plot([b.probability for b in bins], [b.share for b in bins], "o-", color="#0b5f78", markersize=4)
        _style_unit_axes(axes, f"{rule.capitalize()}, {len(own)} patients")
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("observed share of positives")
    figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)


def _style_unit_axes(axes: Axes, title: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=9)

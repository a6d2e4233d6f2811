"""Figures of chapter 4: Grad-CAM (4-2), ROC curves (4-6), CentralNet's weights (4-7), calibration (4-8).

The first shows a patient's images and stays beside the work; the others are sums over patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from gliomark.evaluation.calibration import calibration_bins
from gliomark.evaluation.delong import delong
from gliomark.experiments.markers.readings import MarkerStudy, patient_answers
from gliomark.experiments.markers.trials import INPUTS, input_name
from gliomark.experiments.records import save_figure
from gliomark.explain import slice_maps
from gliomark.study import MRSequence

GRID = np.linspace(0, 1, 101)
RESAMPLES = 500


def figure_4_2(study: MarkerStudy, patient: str, stage: int, path: Path) -> Path:
    """A test patient's slice with the largest lesion, and where each network of table 4-2 finds the positive class.

    A row per sequence: the slice with the drawn lesion, then IMG, ROI and MIX, by networks that never saw the
    patient. stage: of ResNet-50, 1 the finest to 4 the coarsest.
    """
    number = next(n for n, fold in enumerate(study.data.folds.folds) if patient in fold)
    shown = study.data.shown[patient]
    row = int(np.argmax(shown.slices.area_mm2))
    only = shown.images[row : row + 1].float(), shown.lesion[row : row + 1].float()
    figure = Figure(figsize=(2.2 * (1 + len(INPUTS)), 2.3 * len(study.sequences)), layout="constrained")
    grid = figure.subplots(len(study.sequences), 1 + len(INPUTS), squeeze=False)
    for line, sequence, image in zip(grid, study.sequences, shown.images[row].float().numpy(), strict=True):
        line[0].contour(shown.lesion[row].numpy(), levels=[0.5], colors="#ffd60a", linewidths=0.8)
        line[0].set_title(f"{sequence}, lesion", fontsize=9)
        for axes, name in zip(line[1:], INPUTS, strict=True):
            axes.set_title(name, fontsize=9)
            network, crop = study.network(input_name(sequence, name), number)
            maps = slice_maps(network, *only, crop, stage)
            axes.imshow(maps["whole"][0], cmap="inferno", vmin=0, vmax=1, alpha=0.55, zorder=2)
        for axes in line:
            axes.imshow(image, cmap="gray", vmin=image.min(), vmax=np.percentile(image, 99.7), zorder=1)
            axes.set_axis_off()
    return save_figure(figure, path)


def figure_4_6(slices: pd.DataFrame, title: str, path: Path) -> Path:
    """Every reading's ROC curve at patient level (Near), with its 95 % band over patients.

    slices: the test patients' rows of every reading.
    """
    names = list(dict.fromkeys(slices["reading"]))
    columns = 3
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.2 * lines + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    answers = patient_answers(slices, "near")
    for axes, name in zip(grid.flat, names, strict=False):
        own = answers[answers["reading"] == name]
        label, probability = own["label"].to_numpy(), own["probability"].to_numpy()
        low, high = _band(label, probability)
        axes.fill_between(GRID, low, high, color="#0b5f78", alpha=0.18, linewidth=0)
        axes.plot(GRID, _curve(label, probability), color="#0b5f78")
        area = delong(label, probability)
        _square(axes, f"{name}\nAUC {area.value:.2f} ({area.low:.2f} to {area.high:.2f})")
        axes.set_xlabel("1 - specificity")
        axes.set_ylabel("sensitivity")
    for axes in list(grid.flat)[len(names) :]:
        axes.axis("off")
    figure.suptitle(f"{title}: patients by Near, 95 % band", fontsize=10)
    return save_figure(figure, path)


def _curve(label: NDArray, probability: NDArray) -> NDArray[np.float64]:
    """Sensitivity at the grid's false-positive rates."""
    false, true, _ = roc_curve(label, probability)
    return np.interp(GRID, false, true)


def _band(label: NDArray, probability: NDArray) -> tuple[NDArray, NDArray]:
    random = np.random.default_rng(0)
    curves: list[NDArray[np.float64]] = []
    while len(curves) < RESAMPLES:
        drawn = random.integers(0, len(label), len(label))
        if len(set(label[drawn].tolist())) == 2:
            curves.append(_curve(label[drawn], probability[drawn]))
    low, high = np.percentile(curves, [2.5, 97.5], axis=0)
    return low, high


def figure_4_7(weights: NDArray[np.float64], title: str, sequences: Sequence[MRSequence], path: Path) -> Path:
    """CentralNet's learnt share of each branch at the input and after every stage; mean and deviation over networks.

    weights: ``(network, 5, 3)``, columns central, first, second; shares are of the weights' absolute values.
    """
    size = np.abs(weights)
    share = size / size.sum(axis=2, keepdims=True)
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(weights.shape[1])
    for number, (name, colour) in enumerate(
        zip(("central", *sequences), ("#14181b", "#0b5f78", "#d08a3c"), strict=True)
    ):
        mean, deviation = share[:, :, number].mean(axis=0), share[:, :, number].std(axis=0)
        axes.bar(
            places + 0.27 * (number - 1), mean, 0.25, yerr=deviation, color=colour, label=name, capsize=2
        )
    axes.set_xticks(places, ["input", *(f"stage {n}" for n in places[1:])])
    axes.set_ylabel("share of the fusion")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, ncols=3, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{title}: {len(weights)} CentralNets", fontsize=10)
    return save_figure(figure, path)


def figure_4_8(answers: Mapping[str, pd.DataFrame], title: str, path: Path) -> Path:
    """Observed share of positives against the predicted probability, per fusion rule; patients in like-sized groups."""
    figure = Figure(figsize=(3.1 * len(answers), 3.4), layout="constrained")
    for axes, (rule, own) in zip(
        figure.subplots(1, len(answers), squeeze=False).flat, answers.items(), strict=True
    ):
        bins = calibration_bins(own["label"], own["probability"])
        axes.plot([0, 1], [0, 1], color="#9aa5ab", linewidth=0.8)
        axes.plot([b.probability for b in bins], [b.share for b in bins], "o-", color="#0b5f78", markersize=4)
        _square(axes, f"{rule.capitalize()}, {len(own)} patients")
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("share that is positive")
    figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)


def _square(axes: Axes, title: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=9)

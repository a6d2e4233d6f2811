"""Plot of the robustness of a model: Dice, and the change of the probabilities, by change and strength."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gliomark.reporting.plots import ACCENT_COLOUR, SECOND_COLOUR

COLUMNS = 5
MARKER_STYLES = ("--", ":", "-.")


def plot_robustness(strengths: pd.DataFrame, markers: pd.DataFrame) -> Figure:
    """Plot one panel per change, with the unchanged images as strength 0.

    Dice is the mean over the patients with its 95 % interval; a broken line per marker is the mean absolute change of
    its probability.

    Parameters
    ----------
    strengths, markers
        The tables of ``summarise_strengths`` and ``summarise_markers``; the first row of the former is the unchanged
        images.
    """
    names = list(dict.fromkeys(strengths["perturbation"]))[1:]
    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 2.3 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, name in zip(panels, names, strict=False):
        _plot_panel(axes, name, strengths, markers)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    return figure


def _plot_panel(axes: Axes, name: str, strengths: pd.DataFrame, markers: pd.DataFrame) -> None:
    unchanged = strengths.iloc[:1]
    rows = pd.concat([unchanged, strengths[strengths["perturbation"] == name]])
    low, high = rows["dice"] - rows["dice_low_95"], rows["dice_high_95"] - rows["dice"]
    axes.axhline(unchanged["dice"].iloc[0], color="#d9dfe3", lw=1)
    axes.errorbar(
        rows["strength"],
        rows["dice"],
        np.abs([low, high]),
        fmt="o-",
        color=ACCENT_COLOUR,
        lw=1.3,
        ms=3,
        elinewidth=0.8,
        label="Dice",
    )
    for style, (marker, part) in zip(MARKER_STYLES, markers.groupby("marker", sort=False), strict=False):
        changes = part[part["perturbation"].isin([unchanged["perturbation"].iloc[0], name])]
        axes.plot(
            changes["strength"],
            changes["absolute_change"],
            style,
            color=SECOND_COLOUR,
            lw=1.3,
            label=f"{marker}: mean absolute change of the probability",
        )
    settings = rows["setting"].iloc[[1, -1]] if len(rows) > 2 else rows["setting"].iloc[[1]]
    axes.set_title(f"{name}\n{' to '.join(settings)}".strip(), fontsize=8)
    axes.set(ylim=(0, 1), xlim=(-0.2, 5.2), xticks=range(6))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)

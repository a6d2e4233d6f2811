"""The figures of README.md and MODEL_CARD.md, written from ``results/*.csv`` and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from gliomark.study import GliomarkError

DOCUMENTS = ("README.md", "MODEL_CARD.md")
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
RULES = {
    "joint": "T1C and FLAIR as one input (shipped)",
    "union": "each alone, outlines united (as published)",
}
MARKERS = {"idh": "IDH", "proliferation": "proliferation proxy"}


def write_tables(results: Path, documents: Path) -> list[Path]:
    """Replace what stands between the two marks in each document; the documents written."""
    text = results_text(results)
    paths = [documents / name for name in DOCUMENTS]
    for path in paths:
        path.write_text(with_results(path.read_text("utf-8"), text, path), "utf-8")
    return paths


def with_results(document: str, text: str, path: Path) -> str:
    """The document with ``text`` between its marks. Raises GliomarkError where they are missing."""
    if BEGIN not in document or END not in document:
        raise GliomarkError(f"{path} has no place for results: put '{BEGIN}{END}' where they belong.")
    before, rest = document.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}"


def results_text(results: Path) -> str:
    """Both tables in Markdown."""
    segmentation = pd.read_csv(results / "segmentation.csv")
    markers = pd.read_csv(results / "markers.csv", keep_default_na=False, na_values=[""])
    record = json.loads((results / "run_record.json").read_text("utf-8"))
    return f"{_segmentation(segmentation)}\n\n{_epochs(record)}\n\n{_markers(markers)}"


def _epochs(record: dict) -> str:
    """How long each network was trained: rules of unlike training are no fair race."""
    joint, independent = (record["networks"][name]["epochs"] for name in ("joint", "independent"))
    return (
        f"The first row's network was trained for {joint} epochs, the one-sequence network behind the other rows for "
        f"{independent}: part of the difference may be training, not input."
    )


def _segmentation(table: pd.DataFrame) -> str:
    lines = [
        "Outline, Dice per patient over all prepared slices, on test patients (fixed split by patient):",
        "",
        "| input | patients | mean Dice (95 % interval) | median | worst |",
        "|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        mean = f"{r.mean_dice:.3f} ({r.low_95:.3f} to {r.high_95:.3f})"
        lines.append(
            f"| {RULES.get(r.rule, r.rule)} | {r.patients} | {mean} | {r.median_dice:.3f} | {r.worst_dice:.3f} |"
        )
    return "\n".join(lines)


def _markers(table: pd.DataFrame) -> str:
    lines = [
        "Markers, patient level, fusion Near:",
        "",
        "| marker | patients | outline | answer by | n (positive) | AUC (95 % interval) | accuracy at threshold |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in table[table["fusion"].isin(["near", "none"])].itertuples():
        area = f"{r.auc:.2f} ({r.low_95:.2f} to {r.high_95:.2f})"
        lines.append(
            f"| {MARKERS[r.marker]} | {r.part} | {r.outline} | {r.stage} | {r.patients} ({r.positive}) "
            f"| {area} | {r.accuracy:.2f} at {r.threshold:.2f} |"
        )
    return "\n".join(lines)

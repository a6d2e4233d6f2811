"""Tables of the measured speed, in Markdown, from the results of the programs in ``benchmarks/``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

WHOLE_COMMAND = "whole command"


def format_speed_results(results_folder: Path) -> str:
    """Format the time of a prediction, of a folder of patients, and of other software for the same patient."""
    tables = {
        name: pd.read_csv(results_folder / f"benchmark_{name}.csv")
        for name in ("warm", "cold", "batch", "alternative")
    }
    parts = (
        _format_warm(tables["warm"]),
        _format_cold(tables["cold"]),
        _format_batch(tables["batch"]),
        _format_alternative(tables["alternative"]),
    )
    return "\n\n".join(parts)


def _format_warm(table: pd.DataFrame) -> str:
    lines = [
        f"**Prepared patient to answer, models loaded.** {table['patient'][0]}, {table['slices'][0]} slices, median; "
        f"{_describe_machine(table)}. Published size: random weights, which cost the same.",
        "",
        "| networks | engine | seconds | processor seconds | times faster |",
        "|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        lines.append(
            f"| {r.networks} | {r.variant} | {r.seconds:.2f} | {r.processor_s:.2f} | {r.times_faster:.1f} |"
        )
    return "\n".join(lines)


def _format_cold(table: pd.DataFrame) -> str:
    lines = [
        f"**A whole `gliomark predict`,** from the start of the command to its end; {_describe_machine(table)}:",
        "",
        "| patient | stage | seconds | processor seconds | memory, MB |",
        "|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        memory = "" if pd.isna(r.memory_peak_mb) else f"{r.memory_peak_mb:.0f}"
        lines.append(f"| {r.patient} | {r.stage} | {r.seconds:.1f} | {r.processor_s:.1f} | {memory} |")
    return "\n".join(lines)


def _format_batch(table: pd.DataFrame) -> str:
    lines = [
        f"**A folder of synthetic patients,** `--workers N`; {_describe_machine(table)}. Memory of all processes: at "
        "most, and the mean of the second and of the last quarter of the run.",
        "",
        "| patients | workers | seconds | patients per minute | processor seconds | memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        quarters = f"{r.memory_second_quarter_mb:.0f}, {r.memory_last_quarter_mb:.0f}"
        lines.append(
            f"| {r.patients} | {r.workers} | {r.seconds:.0f} | {r.patients_per_minute:.1f} | {r.processor_s:.0f} "
            f"| {r.memory_peak_mb:.0f}; {quarters} |"
        )
    return "\n".join(lines)


def _format_alternative(table: pd.DataFrame) -> str:
    own = table[table["stage"] == WHOLE_COMMAND].iloc[0]
    stages = table[table["stage"] != WHOLE_COMMAND]
    seconds, processor_s = stages["seconds"].sum(), stages["processor_s"].sum()
    lines = [
        f"**Other software for the same patient,** {own.patient}, four sequences; {_describe_machine(table)}. "
        f"gliomark: {own.seconds:.0f} s, {own.processor_s:.0f} processor seconds. {stages['product'].iloc[0]} with "
        f"random weights: {seconds:.0f} s, {processor_s:.0f} processor seconds, of which",
        "",
        "| stage | seconds | processor seconds |",
        "|---|---|---|",
    ]
    lines += [f"| {r.stage} | {r.seconds:.1f} | {r.processor_s:.1f} |" for r in stages.itertuples()]
    return "\n".join(lines)


def _describe_machine(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return f"{first.processor}, {first.cores} cores"

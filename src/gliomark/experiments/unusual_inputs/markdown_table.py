"""Table of the comparison with the training patients, in Markdown, from ``results/unusual_inputs.csv``."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd


def format_unusual_inputs(results_folder: Path) -> str:
    """Format what the model says of every kind of patients."""
    table = pd.read_csv(results_folder / "unusual_inputs.csv")
    record = json.loads((results_folder / "unusual_inputs_run_record.json").read_text("utf-8"))
    lines = [
        f"{record['patients']} patients of {record['cohort']} with both sequences, in five folds; "
        f"{record['altered_patients']} of them, chosen at random, were altered. AUROC: of the distance, against "
        "`real`, the unaltered patients.",
        "",
        "| patients | should be | number | refused | unusual | in range | AUROC |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        auroc = "" if pd.isna(r.auroc) else f"{r.auroc:.2f}"
        lines.append(
            f"| {r.kind} | {r.expected} | {r.patients} | {r.refused} | {r.unusual} | {r.in_range} | {auroc} |"
        )
    return "\n".join(lines)

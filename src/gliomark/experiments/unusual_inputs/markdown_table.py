"""Tables of the comparison with the training patients, in Markdown, from ``results/unusual_inputs*.csv``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

SECOND_SCANNER = "unusual_inputs_second_scanner"


def format_unusual_inputs(results_folder: Path) -> str:
    """Format what a model says of every kind of patients: real ones, and drawn ones of another scanner."""
    table, record = _read_results(results_folder, "unusual_inputs")
    drawn, drawn_record = _read_results(results_folder, SECOND_SCANNER)
    return "\n".join(
        [
            f"{record['patients']} patients of {record['cohort']} with both sequences, in five folds; "
            f"{record['altered_patients']} of them, chosen at random, were altered. AUROC: of the distance, against "
            "`real`, the unaltered patients. Reasons: of the refused patients, those whose reason names a mistake that "
            "was made, one that was not made, or none.",
            "",
            *_format_rows(table),
            "",
            f"{drawn_record['patients']} synthetic patients of a second scanner with more noise, compared with the "
            f"training patients of the model {drawn_record['model']['name'].removeprefix('gliomark ')} "
            f"(`results/{SECOND_SCANNER}.csv`):",
            "",
            *_format_rows(drawn),
        ]
    )


def _read_results(results_folder: Path, stem: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    record = json.loads((results_folder / f"{stem}_run_record.json").read_text("utf-8"))
    return pd.read_csv(results_folder / f"{stem}.csv"), record


def _format_rows(table: pd.DataFrame) -> list[str]:
    lines = [
        "| patients | should be | number | refused | unusual | in range | AUROC | reasons: right, wrong, none |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        auroc = "" if pd.isna(r.auroc) else f"{r.auroc:.2f}"
        reasons = f"{r.named_right}, {r.named_wrong}, {r.named_none}" if r.refused else ""
        lines.append(
            f"| {r.kind} | {r.expected} | {r.patients} | {r.refused} | {r.unusual} | {r.in_range} | {auroc} "
            f"| {reasons} |"
        )
    return lines

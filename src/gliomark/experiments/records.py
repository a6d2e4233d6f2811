"""What every experiment keeps and writes: finished folds, tables whole or not at all, where it was made."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gliomark.study import GliomarkError


def kept_fold(path: Path, key: dict) -> dict | None:
    """The finished fold at ``path``, None if there is none.

    Raises GliomarkError where it, or the interrupted one beside it, is another run's.
    """
    kept = path if path.exists() else path.with_suffix("") / "key.json"
    if not kept.exists():
        return None
    record = json.loads(kept.read_text("utf-8"))
    if record["key"] != key:
        raise GliomarkError(
            f"{path.parent} holds a run with other settings, patients or weights; delete that folder to train anew."
        )
    return record if path.exists() else None


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write csv, four decimals (p values three figures).

    Probabilities and thresholds are written in full: rounded, some would tie, and a reader's AUC would not be ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for name in table.columns.intersection(["probability", "threshold"]):
        table = table.assign(**{name: table[name].map(repr)})
    if "wilcoxon_p" in table:
        table = table.assign(wilcoxon_p=table["wilcoxon_p"].map(lambda p: "" if np.isnan(p) else f"{p:.3g}"))
    table.to_csv(part, index=False, float_format="%.4f", lineterminator="\n")
    os.replace(part, path)


def commit() -> str:
    """The commit the code is of, "unknown" outside a checkout."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return done.stdout.strip() or "unknown"


def device() -> str:
    """What the experiment ran on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"

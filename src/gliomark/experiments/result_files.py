"""Files that every experiment writes: finished folds, tables, plots and run records."""

from __future__ import annotations

import json
import os
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gliomark.errors import CohortError
from gliomark.files import atomic_write
from gliomark.tables.csv_writer import escape_formula

DOTS_PER_INCH = 110
RECORDED_PACKAGES = (
    "gliomark",
    "torch",
    "monai",
    "lightning",
    "lightgbm",
    "numpy",
    "scipy",
    "scikit-learn",
    "SimpleITK",
)


def find_finished_fold(path: Path, key: dict) -> dict | None:
    """Read the record of a finished fold; None if there is none.

    key: settings, patients and hashes with which the fold must have been trained.

    Raises
    ------
    CohortError
        If the finished fold, or an interrupted one in the same folder, was made with another key.
    """
    existing_path = path if path.exists() else path.with_suffix("") / "key.json"
    if not existing_path.exists():
        return None
    record = json.loads(existing_path.read_text("utf-8"))
    if record["key"] != key:
        raise CohortError(
            f"{path.parent} holds a run with other settings, patients, images or weights; delete that folder to train "
            "again."
        )
    return record if path.exists() else None


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a csv file with four decimals (p values: three significant digits).

    Probabilities and thresholds are written with all digits: rounding could create ties and change an AUC computed
    from the file.
    """
    for name in table.columns.intersection(["probability", "threshold"]):
        table = table.assign(**{name: table[name].map(repr)})
    if "wilcoxon_p" in table:
        table = table.assign(wilcoxon_p=table["wilcoxon_p"].map(lambda p: "" if np.isnan(p) else f"{p:.3g}"))
    table = table.map(escape_formula).rename(columns=escape_formula)
    atomic_write(path, table.to_csv(index=False, float_format="%.4f", lineterminator="\n"))


def create_run_record(experiment_name: str, **details: object) -> dict:
    """Run record: date, commit, device, package versions and the given details."""
    return {
        "experiment": experiment_name,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": read_git_commit(),
        "device": describe_device(),
        **details,
        "versions": {package: version(package) for package in RECORDED_PACKAGES},
    }


def to_file_name(name: str) -> str:
    """Convert a name to lower-case letters, digits and hyphens, for a file or folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG file without version metadata, so that the same figure gives the same bytes; its path."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return atomic_write(path, content.getvalue())


def read_git_commit() -> str:
    """Return the git commit of the code, "unknown" outside a checkout."""
    completed = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return completed.stdout.strip() or "unknown"


def describe_device() -> str:
    """Return the name of the GPU, or the number of CPU cores."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"

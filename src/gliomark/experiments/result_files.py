"""Files that every experiment writes: tables, plots and run records."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gliomark.cohort.store import write_json
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


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a csv file with four decimals (p values: three significant digits).

    Probabilities and thresholds are written with all digits: rounding could create ties and change an AUC computed
    from the file.
    """
    for name in table.columns.intersection(["probability", "raw_probability", "threshold"]):
        table = table.assign(**{name: table[name].map(repr)})
    if "wilcoxon_p" in table:
        table = table.assign(wilcoxon_p=table["wilcoxon_p"].map(lambda p: "" if np.isnan(p) else f"{p:.3g}"))
    table = table.map(escape_formula).rename(columns=escape_formula)
    atomic_write(path, table.to_csv(index=False, float_format="%.4f", lineterminator="\n"))


def write_result_files(
    output_folder: Path, stem: str, tables: Mapping[str, pd.DataFrame], run_record: Mapping[str, object]
) -> Path:
    """Write the tables of an experiment, by the end of the file name (such as ``_patients``), and its run record.

    Returns the path of the main table, whose end is empty.
    """
    for ending, table in tables.items():
        write_table(table, output_folder / f"{stem}{ending}.csv")
    write_json(output_folder / f"{stem}_run_record.json", run_record)
    return output_folder / f"{stem}.csv"


def create_run_record(experiment_name: str, **details: object) -> dict[str, Any]:
    """Run record: date, commit, device, package versions and the given details."""
    return {
        "experiment": experiment_name,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": read_git_commit(),
        "device": describe_device(),
        **details,
        "versions": get_versions(),
    }


def get_versions() -> dict[str, str]:
    """Return the versions of the packages on which results depend."""
    return {package: version(package) for package in RECORDED_PACKAGES}


def to_file_name(name: str) -> str:
    """Convert a name to lower-case letters, digits and hyphens, for a file or folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def to_folder_name(marker: str) -> str:
    """Convert the name of a marker to a folder's name, which two markers do not share.

    A name of other than lower-case letters, digits and single hyphens gets a part of its hash.
    """
    plain = to_file_name(marker)
    return (
        plain if plain == marker else f"{plain}-{hashlib.sha256(marker.encode()).hexdigest()[:8]}".lstrip("-")
    )


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

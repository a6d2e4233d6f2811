"""Print the markers that were predicted for synthetic patients beside their true values.

    python scripts/show_truth.py PATIENTS RESULTS

PATIENTS: the folder that ``gliomark cohort phantom`` wrote; RESULTS: that of ``gliomark predict`` for them.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

TRUE_COLUMNS = {"ki67": "ki67", "idh": "idh_mutant"}  # of a marker in the clinical table


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    """Read the rows of a csv file by id."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def describe_marker(marker: dict[str, Any], labels: dict[str, str], truth: dict[str, str]) -> str:
    """Describe prediction, true value and the probability that is known from how the tumour was drawn."""
    column = TRUE_COLUMNS[marker["marker"]]
    value = f"{labels[column]} %" if column == "ki67" else ("wild type", "mutant")[int(labels[column])]
    probability = "none" if marker["probability"] is None else f"{marker['probability']:.2f}"
    return (
        f"{marker['title']}: predicted {marker['level'] or 'nothing'}, probability of {marker['positive']} "
        f"{probability}; true value {value}, best possible probability {float(truth[f'posterior_{column}']):.2f}"
    )


def main(patients: Path, results: Path) -> None:
    """Print a line per patient and marker."""
    labels, truth = read_rows(patients / "clinical.csv"), read_rows(patients / "truth" / "truth.csv")
    for path in sorted(results.glob("*/prediction.json")):
        document = json.loads(path.read_text("utf-8"))
        patient = document["patient_id"]
        for marker in document["markers"]:
            if marker["marker"] in TRUE_COLUMNS:
                print(f"{patient}: {describe_marker(marker, labels[patient], truth[patient])}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

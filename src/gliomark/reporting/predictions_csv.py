"""Write and read ``predictions.csv``, the table of all patients of a batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from gliomark.errors import InputError
from gliomark.files import atomic_write
from gliomark.messages import message
from gliomark.prediction import Prediction
from gliomark.tables import format_csv, read_table
from gliomark.tables.cell_text import clean_cell
from gliomark.tables.prediction_columns import MARKER_COLUMNS

TableRow: TypeAlias = Mapping[str, object]


@dataclass(frozen=True)
class FailedPatient:
    """A patient of a batch without a prediction; ``message`` gives the reason in one sentence."""

    patient_id: str
    message: str


def write_predictions_table(rows: Sequence[Prediction | FailedPatient], path: Path) -> None:
    """Write ``predictions.csv`` with one row per patient, in UTF-8 with a byte order mark for Excel.

    Existing rows of other patients are kept with their columns; a patient's new row replaces the older one.

    Raises
    ------
    FileWriteError
        If the file cannot be written, or is not a table of predictions.
    """
    write_table_rows(
        [
            create_failure_row(row) if isinstance(row, FailedPatient) else create_table_row(row.to_dict())
            for row in rows
        ],
        path,
    )


def write_table_rows(
    rows: Sequence[TableRow], path: Path, *, outdated_failures: Collection[str] = ()
) -> None:
    """Write rows as ``write_predictions_table`` does, so that their order is that of ``rows``.

    Parameters
    ----------
    rows
        From ``create_table_row`` and ``create_failure_row``. A prediction is preferred to a failure of the same id.
    path
        The table.
    outdated_failures
        Ids whose existing rows are removed if they state a failure.

    Raises
    ------
    FileWriteError
        If the file cannot be written, or is not a table of predictions.
    """
    columns, records = read_predictions_table(path)
    for name in map(clean_cell, outdated_failures):
        if records.get(name, {}).get("error"):
            del records[name]
    new_records: dict[str, TableRow] = {}
    for row in rows:
        name = clean_cell(str(row["id"]))  # as it is read back
        if not ("error" in row and name in new_records):
            new_records[name] = {**row, "id": name}
    # rows of this run take the places of their predecessors in their own order, not in that of completion
    order = iter(new_records)
    ids = [next(order) if name in new_records else name for name in {**records, **new_records}]
    sorted_records = [new_records.get(name) or records[name] for name in ids]
    names = dict.fromkeys(name for record in new_records.values() for name in record)
    new_columns = [name for name in names if name not in (*PATIENT_COLUMNS, "examination")]
    new_columns += ["examination"] if any("examination" in record for record in sorted_records) else []
    fixed_columns = ["id", *PATIENT_COLUMNS]
    columns = [
        "id",
        *dict.fromkeys(name for name in [*columns, *new_columns] if name not in fixed_columns),
        *PATIENT_COLUMNS,
    ]
    table: list[list[object]] = [
        [*columns],
        *([record.get(name, "") for name in columns] for record in sorted_records),
    ]
    atomic_write(path, format_csv(table), encoding="utf-8-sig")


def read_predictions_table(path: Path) -> tuple[list[str], dict[str, dict[str, object]]]:
    """Return the columns of an existing ``predictions.csv`` and its rows by id; both are empty without a file.

    Raises
    ------
    InputError
        If the file cannot be read.
    FileWriteError
        If the file was not written by ``write_predictions_table``.
    """
    if not path.exists() or path.stat().st_size == 0:
        return [], {}
    columns, records = read_table(path)
    # a table of an older version has no diameters
    required = {"id", *PATIENT_COLUMNS} - DIAMETER_COLUMNS.keys()
    missing = [name for name in ("id", *PATIENT_COLUMNS) if name in required and name not in columns]
    if missing:
        raise InputError(message("predictions-foreign", table=path, columns=", ".join(missing)))
    rows = [dict[str, object](zip(columns, record, strict=True)) for record in records]
    return columns, {str(row["id"]): row for row in rows}


DIAMETER_COLUMNS = {
    "lesion_longest_mm": "longest",
    "lesion_perpendicular_mm": "perpendicular",
    "lesion_longest_3d_mm": "longest_3d",
}


PATIENT_COLUMNS = ("lesion_volume_ml", *DIAMETER_COLUMNS, "warnings", "model", "sha256", "error")


def create_table_row(document: Mapping[str, Any]) -> TableRow:
    """Create a patient's row from the content of ``prediction.json``."""
    model, markers = document["model"], document["markers"]
    row: dict[str, object] = {
        "id": document["patient_id"],
        "lesion_volume_ml": document["lesion"]["volume_ml"],
        **_create_diameter_columns(document["lesion"]),
        "warnings": "; ".join((*document["warnings"], *(w for m in markers for w in m["warnings"]))),
        "model": model["name"],
        "sha256": model["sha256"],
    }
    if (examination := document["input"]["examination"]) is not None:
        date, number, count = (examination[name] for name in ("date", "number", "of"))
        row["examination"] = f"{date or 'undated'} ({number} of {count})"
    for marker in markers:
        row |= _create_marker_columns(marker)
    return row


def _create_diameter_columns(lesion: Mapping[str, Any]) -> TableRow:
    """Create the columns of the diameters; empty without a lesion and for a prediction of an older version."""
    diameters = lesion.get("diameters")
    return {
        column: None if diameters is None else diameters[name]["mm"]
        for column, name in DIAMETER_COLUMNS.items()
    }


def _create_marker_columns(marker: Mapping[str, Any]) -> TableRow:
    """Create the columns of a marker; a prediction of an older version has no calibration."""
    limits, calibration = marker.get("limits") or {}, marker.get("calibration") or {}
    values = {
        "raw_probability": None,
        **marker,
        "borderline": "yes" if marker["borderline"] else "no",
        "possible_levels": " or ".join(marker.get("possible_levels", ())),
        "coverage": limits.get("coverage"),
        "prevalence": calibration.get("prevalence"),
    }
    return {f"{marker['marker']}_{part}": values[part] for part in MARKER_COLUMNS}


def create_failure_row(failed_patient: FailedPatient) -> TableRow:
    """Create the row of a patient without a prediction."""
    return {"id": failed_patient.patient_id, "error": failed_patient.message}

"""Write and read ``predictions.csv``, the table of all patients of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import InputError
from gliomark.files import atomic_write
from gliomark.messages import message
from gliomark.prediction import Prediction, to_json_number
from gliomark.tables import format_csv, read_table


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
    columns, records = read_predictions_table(path)
    for row in rows:
        record = _create_failure_row(row) if isinstance(row, FailedPatient) else _create_table_row(row)
        records[str(record["id"])] = record
    markers = dict.fromkeys(m.marker for row in rows if isinstance(row, Prediction) for m in row.markers)
    new_columns = [f"{marker}_{part}" for marker in markers for part in MARKER_COLUMNS]
    new_columns += ["examination"] if any("examination" in record for record in records.values()) else []
    fixed_columns = ["id", *PATIENT_COLUMNS]
    columns = [
        "id",
        *dict.fromkeys(name for name in [*columns, *new_columns] if name not in fixed_columns),
        *PATIENT_COLUMNS,
    ]
    table: list[list[object]] = [
        [*columns],
        *([record.get(name, "") for name in columns] for record in records.values()),
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
    missing = [name for name in ("id", *PATIENT_COLUMNS) if name not in columns]
    if missing:
        raise InputError(message("predictions-foreign", table=path, columns=", ".join(missing)))
    rows = [dict[str, object](zip(columns, record, strict=True)) for record in records]
    return columns, {str(row["id"]): row for row in rows}


MARKER_COLUMNS = ("probability", "level", "borderline", "fusion", "decided_by")


PATIENT_COLUMNS = ("lesion_volume_ml", "warnings", "model", "sha256", "error")


def _create_table_row(prediction: Prediction) -> dict[str, object]:
    row: dict[str, object] = {
        "id": prediction.patient_id,
        "lesion_volume_ml": to_json_number(prediction.lesion_volume_ml),
        "warnings": "; ".join((*prediction.warnings, *(w for m in prediction.markers for w in m.warnings))),
        "model": prediction.model.name,
        "sha256": prediction.model.sha256,
    }
    if (examination := prediction.study.examination) is not None:
        row["examination"] = f"{examination.date or 'undated'} ({examination.number} of {examination.count})"
    for marker in prediction.markers:
        borderline = "yes" if marker.borderline else "no"
        values = (
            to_json_number(marker.probability),
            marker.level,
            borderline,
            marker.fusion,
            marker.decided_by,
        )
        row |= {f"{marker.marker}_{part}": value for part, value in zip(MARKER_COLUMNS, values, strict=True)}
    return row


def _create_failure_row(failed_patient: FailedPatient) -> dict[str, object]:
    return {"id": failed_patient.patient_id, "error": failed_patient.message}

"""Write the result files of one patient and the table of all patients, each completely or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import InputError
from gliomark.files import atomic_folder, atomic_write, convert_write_errors
from gliomark.isolation import ReadExecutor, run_in_this_process
from gliomark.messages import message
from gliomark.reporting.dicom import DICOM_FILES, write_dicom_results
from gliomark.reporting.html_report import render_contents_as_html
from gliomark.reporting.mask_files import write_masks
from gliomark.reporting.pdf_report import render_contents_as_pdf
from gliomark.reporting.prediction_json import create_prediction_document, to_json_number
from gliomark.reporting.report_contents import create_report_contents
from gliomark.reporting.report_texts import Language
from gliomark.study import Prediction
from gliomark.tables import format_csv, read_table

RESULT_FILES = frozenset(
    {"prediction.json", "report.html", "report.pdf", "masks", "segmentation.nii.gz", "dicom"}
    | {f"dicom/{name}" for name in DICOM_FILES}
)
FORBIDDEN_IN_FILE_NAMES = re.compile(
    r'[%<>:"/\\|?*\x00-\x1f]|^\.+|[. ]+$'
)  # forbidden on Windows, Linux or macOS


@dataclass(frozen=True)
class FailedPatient:
    """A patient of a batch without a prediction; ``message`` gives the reason in one sentence."""

    patient_id: str
    message: str


def write_prediction(
    prediction: Prediction,
    folder: Path | str,
    *,
    language: Language = "en",
    pdf: bool = False,
    dicom: bool = False,
    reader_pool: ReadExecutor = run_in_this_process,
) -> Path:
    """Write the result files of one patient into ``folder/<patient id>``.

    The folder appears at once; if anything fails, an earlier result stays unchanged.

    Parameters
    ----------
    prediction
        Result of ``predict``.
    folder
        Output folder; the patient's folder is created in it and replaces an earlier result.
    language
        Language of the reports: "en" or "zh".
    pdf
        Also write ``report.pdf``.
    dicom
        Also write the results as DICOM into the subfolder ``dicom``.
    reader_pool
        Runs the reading of the source DICOM headers; by default in this process.

    Returns
    -------
    Path
        The patient's folder with ``prediction.json``, ``report.html`` and the masks.

    Raises
    ------
    InputError
        If the patient id is empty, or DICOM is requested for images that were not read from DICOM.
    FileWriteError
        If the folder cannot be written, or contains files that are not a result of gliomark.
    """
    target = Path(folder) / encode_folder_name(prediction.patient_id)

    def write_files(partial: Path) -> None:
        document = create_prediction_document(prediction)
        text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
        (partial / "prediction.json").write_text(text + "\n", encoding="utf-8")
        contents = create_report_contents(prediction, document, language)
        (partial / "report.html").write_text(render_contents_as_html(contents, language), encoding="utf-8")
        write_masks(prediction, partial)
        pdf_bytes = render_contents_as_pdf(contents, language) if pdf or dicom else b""
        if pdf:
            (partial / "report.pdf").write_bytes(pdf_bytes)
        if dicom:
            (partial / "dicom").mkdir()
            source = prediction.study.source
            reader_pool(source, write_dicom_results, prediction, partial / "dicom", language, pdf_bytes)

    with convert_write_errors(target):
        _check_target_is_result(target)
    with atomic_folder(target) as partial_folder:
        write_files(partial_folder)
    return target


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


def encode_folder_name(patient_id: str) -> str:
    """Encode a patient id as a folder name; forbidden characters become %XX, so different ids stay different.

    Raises
    ------
    InputError
        If the id is empty.
    """
    if not patient_id.strip():
        raise InputError(message("id-empty"))
    return FORBIDDEN_IN_FILE_NAMES.sub(
        lambda found: "".join(f"%{ord(c):02X}" for c in found.group()), patient_id
    )


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


def _check_target_is_result(target: Path) -> None:
    """Check that the folder to be replaced contains an earlier result only, not the patient's images."""
    if not target.exists():
        return
    entries = [*target.glob("*"), *target.glob("dicom/*")] if target.is_dir() else [target]
    visible_entries = sorted(entry for entry in entries if not entry.name.startswith("."))
    foreign_entries = [
        entry for entry in visible_entries if entry.relative_to(target).as_posix() not in RESULT_FILES
    ]
    if foreign_entries:
        raise InputError(message("not-a-result", folder=str(target), file=foreign_entries[0].name))

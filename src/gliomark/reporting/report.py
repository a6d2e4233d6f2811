"""The files of one patient and the table of all: written whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomark.files import atomic_folder, atomic_write, writing
from gliomark.isolation import Reads, read_here
from gliomark.messages import message
from gliomark.reporting.contents import contents
from gliomark.reporting.dicom import DICOM_FILES, write_dicom_results
from gliomark.reporting.document import number, prediction_document
from gliomark.reporting.masks import write_masks
from gliomark.reporting.page import render_page
from gliomark.reporting.pdf import typeset
from gliomark.reporting.text import Language
from gliomark.study import GliomarkError, Prediction
from gliomark.tables import csv_text, read_records

WRITTEN = frozenset(
    {"prediction.json", "report.html", "report.pdf", "masks", "segmentation.nii.gz", "dicom"}
    | {f"dicom/{name}" for name in DICOM_FILES}
)
NOT_IN_A_NAME = re.compile(r'[%<>:"/\\|?*\x00-\x1f]|^\.+|[. ]+$')  # on any of the usual file systems


@dataclass(frozen=True)
class Failure:
    """A patient of a batch that could not be predicted; message says why in one sentence."""

    patient_id: str
    message: str


def write_prediction(
    prediction: Prediction,
    folder: Path | str,
    *,
    language: Language = "en",
    pdf: bool = False,
    dicom: bool = False,
    reading: Reads = read_here,
) -> Path:
    """Write ``folder/<patient id>/`` (prediction.json, report.html, masks) and return it.

    pdf: report.pdf as well. dicom: the results as DICOM as well, in ``dicom``; raises GliomarkError for a
    patient who did not come as DICOM; reading: where the source files' headers are read for it. All of it appears at
    once; where anything fails an older result stays as it was.
    """
    target = Path(folder) / folder_name(prediction.patient_id)

    def fill(partial: Path) -> None:
        document = prediction_document(prediction)
        text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
        (partial / "prediction.json").write_text(text + "\n", encoding="utf-8")
        shown = contents(prediction, document, language)
        (partial / "report.html").write_text(render_page(shown, language), encoding="utf-8")
        write_masks(prediction, partial)
        printed = typeset(shown, language) if pdf or dicom else b""
        if pdf:
            (partial / "report.pdf").write_bytes(printed)
        if dicom:
            (partial / "dicom").mkdir()
            source = prediction.study.source
            reading(source, write_dicom_results, prediction, partial / "dicom", language, printed)

    with writing(target):
        _refuse_to_replace_strangers(target)
    with atomic_folder(target) as part:
        fill(part)
    return target


def write_table(rows: Sequence[Prediction | Failure], path: Path) -> None:
    """``predictions.csv``, one row per patient; UTF-8 with a byte order mark, for Excel.

    Rows that the file has of other patients stay, with their columns; a patient's new row replaces the older one.

    Raises: GliomarkError where it cannot be written, or the file is no table of predictions.
    """
    columns, records = read_table(path)
    for row in rows:
        record = _failed_row(row) if isinstance(row, Failure) else _row(row)
        records[str(record["id"])] = record
    markers = dict.fromkeys(m.marker for row in rows if isinstance(row, Prediction) for m in row.markers)
    new = [f"{marker}_{part}" for marker in markers for part in MARKER_COLUMNS]
    new += ["examination"] if any("examination" in record for record in records.values()) else []
    own = ["id", *PATIENT_COLUMNS]
    columns = ["id", *dict.fromkeys(name for name in [*columns, *new] if name not in own), *PATIENT_COLUMNS]
    table: list[list[object]] = [
        [*columns],
        *([record.get(name, "") for name in columns] for record in records.values()),
    ]
    atomic_write(path, csv_text(table), encoding="utf-8-sig")


def read_table(path: Path) -> tuple[list[str], dict[str, dict[str, object]]]:
    """The columns of an earlier ``predictions.csv`` and its rows by id; both empty where there is none.

    Raises: GliomarkError where the file cannot be read or is not what ``write_table`` writes.
    """
    if not path.exists() or path.stat().st_size == 0:
        return [], {}
    columns, records = read_records(path)
    missing = [name for name in ("id", *PATIENT_COLUMNS) if name not in columns]
    if missing:
        raise GliomarkError(message("predictions-foreign", table=path, columns=", ".join(missing)))
    rows = [dict[str, object](zip(columns, record, strict=True)) for record in records]
    return columns, {str(row["id"]): row for row in rows}


def folder_name(patient_id: str) -> str:
    """The id as a folder's name: what no file system takes is written %XX, so two ids never meet in one."""
    if not patient_id.strip():
        raise GliomarkError(message("id-empty"))
    return NOT_IN_A_NAME.sub(lambda found: "".join(f"%{ord(c):02X}" for c in found.group()), patient_id)


MARKER_COLUMNS = ("probability", "level", "borderline", "fusion", "decided_by")
PATIENT_COLUMNS = ("lesion_volume_ml", "warnings", "model", "sha256", "error")


def _row(prediction: Prediction) -> dict[str, object]:
    row: dict[str, object] = {
        "id": prediction.patient_id,
        "lesion_volume_ml": number(prediction.lesion_volume_ml),
        "warnings": "; ".join((*prediction.warnings, *(w for m in prediction.markers for w in m.warnings))),
        "model": prediction.model.name,
        "sha256": prediction.model.sha256,
    }
    if (read := prediction.study.examination) is not None:
        row["examination"] = f"{read.date or 'undated'} ({read.number} of {read.count})"
    for marker in prediction.markers:
        borderline = "yes" if marker.borderline else "no"
        values = (number(marker.probability), marker.level, borderline, marker.fusion, marker.decided_by)
        row |= {f"{marker.marker}_{part}": value for part, value in zip(MARKER_COLUMNS, values, strict=True)}
    return row


def _failed_row(failure: Failure) -> dict[str, object]:
    return {"id": failure.patient_id, "error": failure.message}


def _refuse_to_replace_strangers(target: Path) -> None:
    """Writing replaces the whole folder: it may be an older result, never the patient's own images."""
    if not target.exists():
        return
    entries = [*target.glob("*"), *target.glob("dicom/*")] if target.is_dir() else [target]
    shown = sorted(entry for entry in entries if not entry.name.startswith("."))
    strangers = [entry for entry in shown if entry.relative_to(target).as_posix() not in WRITTEN]
    if strangers:
        raise GliomarkError(message("not-a-result", folder=str(target), file=strangers[0].name))

"""Recognise the results that an earlier run finished: ``<patient>/.request.json`` states what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cattrs

from gliomark.batch.options import PredictionOptions
from gliomark.files import iterate_files
from gliomark.io import list_patient_files
from gliomark.reporting import encode_folder_name
from gliomark.study import ClinicalData

REQUEST_NAME = ".request.json"
# errors of a record or document that is missing, damaged or of another version
RECORD_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError, cattrs.BaseValidationError)


@dataclass(frozen=True)
class RequestRecord:
    """What a patient's results were made from.

    key: see ``compute_request_key``; age and sex as used; files: names of the results.
    """

    key: str
    patient_id: str
    age: float | None
    sex: int | None
    files: tuple[str, ...]

    def agrees_with(self, clinical: ClinicalData) -> bool:
        """Whether age and sex are those that were used."""
        return (self.age, self.sex) == (clinical.age, clinical.sex)


def compute_request_key(
    folder: Path, options: PredictionOptions, weights_sha256: str, signature: str, software_version: str
) -> str:
    """Return the SHA-256 of everything that determines a patient's results, but for age and sex.

    Of the patient's files, it covers names, sizes and times of modification, not the contents, so that thousands of
    patients are compared in seconds.

    Raises
    ------
    OSError
        If the folder cannot be read.
    """
    request = {
        "weights": weights_sha256,
        "signature": signature,
        "version": software_version,
        "fusion": options.fusion_rule,
        "enhancing": options.has_enhancing_focus,
        "coverage": options.levels.coverage,
        "prevalence": dict(sorted(options.levels.prevalence.items())),
        "language": options.language,
        "location": options.locates_lesion,
        "formats": options.formats,
        "mask": None
        if options.mask_file is None
        else [_describe_file(file, options.mask_file.parent) for file in _list_mask_files(options.mask_file)],
        "patient": folder.name,
        "files": [_describe_file(file, folder) for file in list_patient_files(folder)],
    }
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()


def _list_mask_files(path: Path) -> list[Path]:
    return sorted(iterate_files(path)) if path.is_dir() else [path]


def _describe_file(file: Path, folder: Path) -> tuple[str, int, int]:
    """Return name, size and time of modification."""
    status = file.stat()
    name = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name
    return name, status.st_size, status.st_mtime_ns


def write_request(folder: Path, key: str, clinical: ClinicalData) -> None:
    """Write the record into a folder of results that is complete.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    record = RequestRecord(key, clinical.patient_id, clinical.age, clinical.sex, tuple(files))
    (folder / REQUEST_NAME).write_text(json.dumps(asdict(record), indent=1) + "\n", "utf-8")


def read_request(result_folder: Path) -> RequestRecord | None:
    """Read the record of a folder of results; None if there is none that can be used."""
    try:
        content = json.loads((result_folder / REQUEST_NAME).read_text("utf-8"))
        return cattrs.structure(content, RequestRecord)
    except RECORD_ERRORS:
        return None


def find_finished_results(output_folder: Path) -> dict[str, Path]:
    """Return the folders of results in an output folder, by the key of their record."""
    records = ((file.parent, read_request(file.parent)) for file in output_folder.glob(f"*/{REQUEST_NAME}"))
    return {
        record.key: folder
        for folder, record in records
        if record is not None and folder.name == encode_folder_name(record.patient_id)
    }


def read_finished_document(result_folder: Path, record: RequestRecord) -> Mapping[str, Any] | None:
    """Return the content of ``prediction.json``; None if a result file is missing or this one cannot be read."""
    try:
        if not all((result_folder / name).is_file() for name in record.files):
            return None
        document = json.loads((result_folder / "prediction.json").read_text("utf-8"))
        return document if document["patient_id"] == record.patient_id else None
    except RECORD_ERRORS:
        return None

"""Convert the data folder of an earlier version: pickled records, and the reader's masks of the first version."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from gliomark.errors import GliomarkError
from gliomark.server.database import Database
from gliomark.server.legacy_records import convert_pickle, has_pickle
from gliomark.server.study_store import StoredPrediction, StudyStore
from gliomark.study import Study

LOG = logging.getLogger("gliomark.server")


def convert_legacy_data(store: StudyStore, database: Database) -> None:
    """Convert all older records in the data folder.

    Failures are logged, and reported again when the study is requested.
    """
    converted_count = 0
    for folder in sorted(store.data_folder.glob("studies/*")):
        converted_count += _convert_study(folder) + _convert_correction(store, database, folder)
    if converted_count:
        database.add_audit_entry("server", "older data taken over", "", files=converted_count)


def _convert_study(study_folder: Path) -> int:
    """Convert the records of a study and return their number."""
    candidates = [(study_folder, "study"), (study_folder, "prepared")]
    candidates += [
        (prediction_folder, "prediction") for prediction_folder in sorted(study_folder.glob("predictions/*"))
    ]
    converted_count = 0
    for record_folder, name in candidates:
        if has_pickle(record_folder, name):
            try:
                convert_pickle(record_folder, name, _get_record_type(name))
                converted_count += 1
            except (GliomarkError, OSError) as error:
                LOG.error("study %s: %s", study_folder.name, error)
    return converted_count


def _get_record_type(name: str) -> type:
    from gliomark.pipeline import PreparedStudy

    record_types: dict[str, type] = {
        "study": Study,
        "prepared": PreparedStudy,
        "prediction": StoredPrediction,
    }
    return record_types[name]


def _convert_correction(store: StudyStore, database: Database, study_folder: Path) -> bool:
    """Store a reader's mask of the first version, which kept only one per study, under its hash."""
    file = study_folder / "corrected.png"
    study = database.find_study(study_folder.name) if file.is_file() else None
    if study is None:
        return False
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    kept = store.get_correction_path(study_folder.name, sha256)
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(content)
    if not study.correction:
        database.set_correction(study_folder.name, sha256, "server")
    file.unlink()
    return True

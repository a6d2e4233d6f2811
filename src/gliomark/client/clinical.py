"""The patient's row of a table: age and sex, read as every door of gliomark reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gliomark.messages import message
from gliomark.study import ClinicalData, GliomarkError
from gliomark.tables import CellError, read_clinical_table
from gliomark.tables import parse_age as read_age


def read_age_and_sex(path: Path, patient_id: str) -> ClinicalData:
    """One patient's row of a csv or xlsx, age and sex None where unknown.

    Raises GliomarkError where the table cannot be read, the patient has not exactly one row, or a cell is nonsense.
    """
    table = replace(read_clinical_table(path), source=Path(path.name))  # the window has no room for a path
    return table.get_row(patient_id, require_age_sex=False)


def parse_typed_age(text: str) -> float | None:
    """Years as they were typed, None for a blank field. Raises GliomarkError for anything else."""
    try:
        return read_age(text)
    except CellError as error:
        raise GliomarkError(message("age-typed", cell=text, reason=error.reason)) from None

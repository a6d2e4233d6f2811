"""Age and sex from a table or typed, read as in the command line and the server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gliomark.errors import InputError
from gliomark.messages import message
from gliomark.study import ClinicalData
from gliomark.tables import CellError, read_clinical_table
from gliomark.tables import parse_age as read_age


def read_age_and_sex(path: Path, patient_id: str) -> ClinicalData:
    """Read age (years) and sex of one patient from a csv or xlsx table; unknown values are None.

    Raises
    ------
    InputError
        If the table cannot be read, does not have exactly one row for the patient, or contains an invalid value.
    """
    table = replace(
        read_clinical_table(path), source=Path(path.name)
    )  # messages show the file name only: space is short
    return table.get_row(patient_id, require_age_sex=False)


def parse_typed_age(text: str) -> float | None:
    """Parse a typed age in years; None for an empty field.

    Raises
    ------
    InputError
        If the text is not a valid age.
    """
    try:
        return read_age(text)
    except CellError as error:
        raise InputError(message("age-typed", cell=text, reason=error.reason)) from None

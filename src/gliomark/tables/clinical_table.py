"""The clinical table: one row per patient with id, age, sex and optional other columns."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gliomark.errors import InputError
from gliomark.messages import message
from gliomark.study import ClinicalData
from gliomark.tables.age_sex import (
    AgeFormat,
    CellError,
    SexCoding,
    check_age_and_sex,
    detect_age_format,
    detect_sex_coding,
    parse_age,
    parse_sex,
)
from gliomark.tables.column_names import is_age_column, is_sex_column, select_id_column
from gliomark.tables.patient_ids import find_similar_ids, list_id_spellings
from gliomark.tables.table_reader import read_table

_MAX_SHOWN_IDS = 3


@dataclass(frozen=True)
class ClinicalTable:
    """A clinical table as text.

    Attributes
    ----------
    source
        The file that was read.
    rows
        One mapping per row, from ``id``, ``age``, ``sex`` and the lower-case names of other columns to the cell.
    age_format, sex_coding
        How these columns are parsed.
    """

    source: Path
    rows: tuple[Mapping[str, str], ...]
    age_format: AgeFormat = AgeFormat()
    sex_coding: SexCoding = field(default_factory=lambda: detect_sex_coding("sex", ()))

    @property
    def patient_ids(self) -> tuple[str, ...]:
        """The ids in the order of the table."""
        return tuple(row["id"] for row in self.rows)

    def get_row(self, patient_id: str, *, require_age_sex: bool = True) -> ClinicalData:
        """Return one patient's row with age in years and sex 0 (male) or 1 (female).

        Parameters
        ----------
        patient_id
            The id exactly as in the table; the table may omit the ``sub-`` of a BIDS subject.
        require_age_sex
            Whether a missing age or sex is an error.

        Raises
        ------
        InputError
            If there is no row (the message suggests similar ids) or rows differ, or if age or sex is missing although
            required, or invalid.
        """
        cells = self._get_cells(patient_id)
        age = self._parse_cell("age", cells, lambda text: parse_age(text, self.age_format), patient_id)
        sex = self._parse_cell("sex", cells, lambda text: parse_sex(text, self.sex_coding), patient_id)
        for name, value in (("age", age), ("sex", sex)):
            if value is None and require_age_sex:
                raise InputError(message(f"{name}-missing", patient=patient_id, table=self.source))
        others = {name: cell for name, cell in cells.items() if name not in {"id", "age", "sex"} and cell}
        return ClinicalData(patient_id, age, None if sex is None else int(sex), others)

    def _get_cells(self, patient_id: str) -> Mapping[str, str]:
        wanted = unicodedata.normalize("NFC", patient_id).strip()
        known = set(self.patient_ids)
        written = next((name for name in list_id_spellings(wanted) if name in known), wanted)
        found = [row for row in self.rows if row["id"] == written]
        if not found:
            raise InputError(
                format_missing_row_message(
                    patient_id, find_similar_ids(wanted, self.patient_ids), self.source
                )
            )
        if any(row != found[0] for row in found):
            raise InputError(message("row-repeated", patient=patient_id, count=len(found), table=self.source))
        return found[0]

    def _parse_cell(
        self, name: str, cells: Mapping[str, str], parse: Callable[[str], float | None], patient: str
    ) -> float | None:
        text = cells.get(name, "")
        try:
            return parse(text)
        except CellError as error:
            raise InputError(
                message(f"{name}-refused", cell=text, patient=patient, table=self.source, reason=error.reason)
            ) from None


def check_clinical_row(clinical: ClinicalData, patient_id: str) -> None:
    """Check that a row belongs to the patient and that its age and sex are possible.

    Raises
    ------
    InputError
        If the row is another patient's, or its age or sex is impossible.
    """
    one, other = (unicodedata.normalize("NFC", text).strip() for text in (clinical.patient_id, patient_id))
    if one not in list_id_spellings(other):
        raise InputError(message("row-of-another", row=clinical.patient_id, patient=patient_id))
    check_age_and_sex(clinical.age, clinical.sex)


def format_missing_row_message(patient: str, similar: list[str], table: Path) -> str:
    """Format the message for a patient without a row; similar: ids that were probably meant."""
    if not similar:
        return message("row-missing", patient=patient, table=table)
    shown = ", ".join(f"'{one}'" for one in similar[:_MAX_SHOWN_IDS])
    return message("row-missing-similar", patient=patient, table=table, similar=shown)


def read_clinical_table(path: Path | str, *, is_gliomark_table: bool = False) -> ClinicalTable:
    """Read a clinical table with the columns id, age and sex; usual names of hospitals are recognised.

    Parameters
    ----------
    path
        A csv or xlsx file (see ``read_table``).
    is_gliomark_table
        Whether gliomark wrote the table, so that sex 1 is certainly female.

    Returns
    -------
    ClinicalTable
        All rows as text, with the detected format of ages and coding of sexes.

    Raises
    ------
    InputError
        If the file cannot be opened or decoded or is not a table, has no id column or several, or two columns of the
        same name or meaning.

    Examples
    --------
    >>> table = gliomark.read_clinical_table("clinical.csv")
    >>> table.get_row("P001")
    ClinicalData(patient_id='P001', age=54.0, sex=1, columns={})
    """
    path = Path(path)
    header, records = read_table(path)
    name_counts = Counter(name.lower() for name in header if name)
    if repeated := sorted(name for name, count in name_counts.items() if count > 1):
        raise InputError(message("table-column-twice", table=path, column=repeated[0]))
    column_indices = {"id": select_id_column(path, header, records)}
    for name, is_column in (("age", is_age_column), ("sex", is_sex_column)):
        found = [
            index
            for index, column in enumerate(header)
            if index not in column_indices.values() and is_column(column)
        ]
        if len(found) > 1:
            shown = ", ".join(header[index] for index in found)
            raise InputError(message("table-two-meanings", table=path, columns=shown, meaning=name))
        if found:
            column_indices[name] = found[0]
    # a column of row numbers named "id" does not keep this name
    names = ["" if name in column_indices else name for name in map(str.lower, header)]
    for name, column_index in column_indices.items():
        names[column_index] = name
    rows = tuple(_map_row(names, record) for record in records)
    written = {name: header[index] for name, index in column_indices.items()}
    age_format = detect_age_format(written.get("age", "age"), (row.get("age", "") for row in rows))
    sex_coding = detect_sex_coding(
        written.get("sex", "sex"), (row.get("sex", "") for row in rows), is_gliomark_table=is_gliomark_table
    )
    return ClinicalTable(path, rows, age_format, sex_coding)


def _map_row(names: list[str], record: list[str]) -> Mapping[str, str]:
    return {name: cell for name, cell in zip(names, record, strict=True) if name}

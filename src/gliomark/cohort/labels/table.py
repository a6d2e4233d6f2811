"""Read a hospital's table of patients (csv or xlsx) as the cohort's labels, with standard column names and coding.

    age            years, 90 and above as 90          sex           0 male, 1 female
    ki67           percent of positive cells          ki67_high     1 at or above the threshold, else 0
    idh_mutant     1 mutant, 0 wild type              mgmt          1 methylated, 0 not
    who_grade      1 to 4                             codel_1p19q   1 codeleted, 0 not

Any other column is kept under its own name in lower case, unless it may identify a patient
(see ``identifying_columns``). Blank means unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from gliomark.cohort.labels import cell_encoding
from gliomark.cohort.labels.column_names import find_column_meaning, is_birth_date_column, parse_stated_codes
from gliomark.cohort.labels.identifying_columns import is_identifying_column
from gliomark.errors import ConfigurationError, InputError
from gliomark.files import atomic_write
from gliomark.messages import Message, message
from gliomark.tables import CellError, format_csv, read_table
from gliomark.tables.age_sex import detect_age_format, detect_sex_coding
from gliomark.tables.cell_text import clean_cell
from gliomark.tables.clinical_table import format_missing_row_message
from gliomark.tables.column_names import normalise_column_name, select_id_column
from gliomark.tables.patient_ids import find_similar_ids
from gliomark.tables.prediction_columns import list_prediction_columns

KNOWN_COLUMNS = ("age", "sex", "ki67", "ki67_high", "idh_mutant", "mgmt", "who_grade", "codel_1p19q")
MAX_EXACT_AGE = 89
_CELL_ENCODERS: Mapping[str, Callable[[str], str]] = {
    "ki67_high": cell_encoding.encode_ki67_level,
    "idh_mutant": cell_encoding.encode_idh,
    "mgmt": cell_encoding.encode_mgmt,
    "who_grade": cell_encoding.encode_who_grade,
    "codel_1p19q": cell_encoding.encode_1p19q,
}
_MAX_SHOWN_FAULTS = 3


@dataclass(frozen=True)
class LabelSettings:
    """Settings for reading the table.

    ki67_threshold: percentage from which Ki-67 is high. id_column: name of the column of ids if it is not
    recognised. keep: names of further columns to keep although they seem to identify patients.

    Raises
    ------
    ConfigurationError
        If the threshold is not a percentage above 0.
    """

    ki67_threshold: float = 10.0
    id_column: str = ""
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the threshold."""
        if not 0 < self.ki67_threshold <= 100:
            raise ConfigurationError(message("ki67-threshold", threshold=self.ki67_threshold))


@dataclass(frozen=True)
class LabelTable:
    """The labels of all patients.

    rows: cells by original id, all of ``columns`` (without the id), blank if unknown. notes: what was left out,
    averaged or contradictory, without patients' ids. birth_dates: YYYYMMDD by id if the table has them, for
    computing ages; personal data. conflicting_ids: ids with several rows that differ.
    """

    source: Path
    rows: Mapping[str, dict[str, str]] = field(repr=False)
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    birth_dates: Mapping[str, str] = field(default_factory=dict, repr=False)
    conflicting_ids: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """Original ids in the order of the table."""
        return tuple(self.rows)

    def find_row(self, original_id: str) -> dict[str, str] | None:
        """Return a patient's cells by column name; None if the table has no row.

        Case and leading zeros (which spreadsheets drop) are ignored if exactly one row matches.

        Raises
        ------
        InputError
            If the table has several different rows for the patient.
        """
        found = self._find_key(original_id)
        if found in self.conflicting_ids:
            raise InputError(message("labels-repeated", patient=found, table=self.source))
        return dict(self.rows[found]) if found is not None else None

    def get_birth_date(self, original_id: str) -> str:
        """Return the birth date YYYYMMDD; blank if the table has none."""
        return self.birth_dates.get(self._find_key(original_id) or "", "")

    def explain_missing_row(self, original_id: str) -> str:
        """Return the message for a patient without a row, listing rows with similar ids."""
        return format_missing_row_message(
            original_id, find_similar_ids(clean_cell(original_id), self.rows), self.source
        )

    def find_shared_rows(self, original_ids: Iterable[str]) -> dict[str, str]:
        """Return a message for each patient whose row also matches another patient, as well or better."""
        fitting: dict[str, list[str]] = {}
        for patient in original_ids:
            if (key := self._find_key(patient)) is not None:
                fitting.setdefault(key, []).append(patient)
        return {
            patient: message(
                "labels-two-patients",
                row=key,
                table=self.source,
                patient=patient,
                other=next(one for one in patients if one != patient),
            )
            for key, patients in fitting.items()
            for patient in patients
            if len(patients) > 1 and clean_cell(patient) != key
        }

    def _find_key(self, original_id: str) -> str | None:
        wanted = clean_cell(original_id)
        if wanted in self.rows:
            return wanted
        matching_keys = [key for key in self.rows if _normalise_id(key) == _normalise_id(wanted)]
        return matching_keys[0] if len(matching_keys) == 1 else None


def read_labels(path: Path, settings: LabelSettings = LabelSettings()) -> LabelTable:
    """Read a hospital's table of patients.

    Known columns get standard names and coding, see ``gliomark.cohort.labels``.

    Parameters
    ----------
    path
        The table, csv or xlsx.
    settings
        Ki-67 threshold, column of ids, and columns to keep.

    Raises
    ------
    InputError
        If the table cannot be read, has no id column or two columns of one meaning, or contains cells that are not
        understood or ambiguous; the message gives row and column.
    """
    header, records = read_table(Path(path))
    id_column_index = select_id_column(Path(path), header, records, settings.id_column)
    predicted = list_prediction_columns(header)
    header = ["" if name in predicted else name for name in header]
    records = [record for record in records if record[id_column_index]]
    ids = [record[id_column_index] for record in records]
    table = _TableReader(Path(path), header, records, ids)
    known, used = _encode_known_columns(table, id_column_index, settings)
    free, dropped = _select_free_columns(table, used | {id_column_index}, settings)
    columns = {**{name: known[name] for name in KNOWN_COLUMNS if name in known}, **free}
    table.check_faults()
    rows, repeated = _merge_rows(ids, columns)
    if dropped:
        table.notes.append(message("labels-left-out", columns=", ".join(dropped)))
    if repeated:
        table.notes.append(message("labels-rows-differ", count=len(repeated)))
    return LabelTable(
        Path(path), rows, tuple(columns), tuple(table.notes), _read_birth_dates(table), frozenset(repeated)
    )


def write_clinical_table(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write ``MetaMS.csv`` atomically: one row per patient, sorted by id.

    Columns are id, age, sex, known markers, then further columns; except id, age and sex only those that occur.
    """
    ordered = sorted(rows, key=lambda row: row["id"])
    present = dict.fromkeys(name for row in ordered for name in row)
    columns = ["id", "age", "sex", *(name for name in KNOWN_COLUMNS[2:] if name in present)]
    columns += [name for name in present if name not in columns]
    table = [columns, *([row.get(name, "") for name in columns] for row in ordered)]
    atomic_write(path, format_csv(table))


def compute_age(birth_date: str, study_date: str) -> float:
    """Compute the age in years (one decimal) on the day of a study, from two dates YYYYMMDD; at most 90.0 (HIPAA).

    Raises
    ------
    InputError
        If a date is invalid or the study is before the birth; the message does not contain the dates.
    """
    try:
        birth_day, study_day = (
            date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:]}") for text in (birth_date, study_date)
        )
    except ValueError:
        raise InputError(message("birth-no-date")) from None
    if study_day < birth_day:
        raise InputError(message("birth-after-study"))
    completed_years = (
        study_day.year
        - birth_day.year
        - ((study_day.month, study_day.day) < (birth_day.month, birth_day.day))
    )
    return (
        round((study_day - birth_day).days / 365.2425, 1)
        if completed_years <= MAX_EXACT_AGE
        else float(MAX_EXACT_AGE + 1)
    )


# ---- the table --------------------------------------------------------------------------------------


@dataclass
class _TableReader:
    """The table while it is read; notes and faults are collected."""

    path: Path
    header: Sequence[str]
    records: Sequence[Sequence[str]]
    ids: Sequence[str]
    notes: list[str] = field(default_factory=list)
    faults: list[Message] = field(default_factory=list)

    def get_column(self, column_index: int) -> list[str]:
        return [record[column_index] for record in self.records]

    def encode_column(self, column_index: int, encoder: Callable[[str], str]) -> list[str]:
        """Encode one column; a cell that is not understood is recorded as a fault and left blank."""
        encoded = []
        answers = {cell_encoding.normalise_cell(cell) for cell in self.get_column(column_index)}
        for cell, row_id in zip(self.get_column(column_index), self.ids, strict=True):
            try:
                encoded.append(encoder(_resolve_lone_sign(cell, answers)))
            except CellError as wrong:
                self.add_fault(column_index, row_id, cell, wrong.reason)
                encoded.append("")
        return encoded

    def add_fault(self, column_index: int, row_id: str, cell: str, reason: Message) -> None:
        self.faults.append(
            message("cell-fault", column=self.header[column_index], cell=cell, patient=row_id, reason=reason)
        )

    def check_faults(self) -> None:
        if not self.faults:
            return
        shown, more = self.faults[:_MAX_SHOWN_FAULTS], len(self.faults) - _MAX_SHOWN_FAULTS
        listed = shown[0]
        for fault in shown[1:]:
            listed = message("faults-joined", first=listed, second=fault)
        if more > 0:
            listed = message("faults-and-more", faults=listed, count=more)
        raise InputError(message("labels-faults", table=self.path, faults=listed))


def _resolve_lone_sign(cell: str, answers: set[str]) -> str:
    """Interpret a lone minus or 无: "no" if the column also has the opposite, otherwise empty or left unchanged."""
    plain = cell_encoding.normalise_cell(cell)
    if plain == "-":
        return "no" if any("+" in answer for answer in answers) else ""
    return "no" if plain == "无" and "有" in answers else cell


def _normalise_id(patient_id: str) -> str:
    plain = re.sub(r"\.0$", "", patient_id.casefold())
    return plain.lstrip("0") if plain.isdecimal() else plain


def _encode_known_columns(
    table: _TableReader, id_column_index: int, settings: LabelSettings
) -> tuple[dict[str, list[str]], set[int]]:
    """Encode the columns with a known meaning; return also their indices in the table."""
    column_indices: dict[str, list[int]] = {}
    for column_index, name in enumerate(table.header):
        if column_index != id_column_index and (meaning := find_column_meaning(name)):
            column_indices.setdefault(meaning, []).append(column_index)
    for meaning, found in column_indices.items():
        if len(found) > 1 and meaning != "idh_mutant":
            one, other = (table.header[at] for at in found[:2])
            raise InputError(
                message("labels-two-meanings", one=one, other=other, table=table.path, meaning=meaning)
            )
    encoded = {
        meaning: table.encode_column(found[0], _create_cell_encoder(table, meaning, found[0]))
        for meaning, found in column_indices.items()
        if meaning not in {"ki67", "idh_mutant"}
    }
    if "idh_mutant" in column_indices:
        encoded["idh_mutant"] = _combine_idh_columns(
            [
                table.encode_column(at, _create_cell_encoder(table, "idh_mutant", at))
                for at in column_indices["idh_mutant"]
            ]
        )
    if "ki67" in column_indices:
        encoded.update(
            _encode_ki67(table, column_indices["ki67"][0], settings.ki67_threshold, encoded.get("ki67_high"))
        )
    return encoded, {at for found in column_indices.values() for at in found}


def _create_cell_encoder(table: _TableReader, meaning: str, column_index: int) -> Callable[[str], str]:
    """Create the encoder of a column; age and sex are interpreted by the column's name and all its cells."""
    name, cells = table.header[column_index], table.get_column(column_index)
    if meaning == "age":
        form = detect_age_format(name, cells)
        return lambda cell: cell_encoding.encode_age(cell, form)
    if meaning == "sex":
        coding = detect_sex_coding(name, cells)
        return lambda cell: cell_encoding.encode_sex(cell, coding)
    encoder = _CELL_ENCODERS[meaning]
    if meaning == "mgmt" and not re.search(r"meth|甲基化", name.lower()):
        encoder = cell_encoding.encode_mgmt_refusing_stain
    return _create_coded_encoder(table, name, encoder)


def _create_coded_encoder(
    table: _TableReader, name: str, encoder: Callable[[str], str]
) -> Callable[[str], str]:
    """Apply the coding stated in the column's name, such as ``IDH (0=wt, 1=mutant)``. Raises InputError if unclear."""
    stated = parse_stated_codes(name)
    try:
        words = {cell_encoding.normalise_cell(word) for word in (stated or {}).values()}
        codes = {code: encoder(_resolve_lone_sign(word, words)) for code, word in (stated or {}).items()}
    except CellError:
        stated, codes = None, {}
    if stated is None:
        raise InputError(message("column-coding", column=name, table=table.path))

    def encode(cell: str) -> str:
        plain = re.sub(r"^(\d)\.0+$", r"\1", cell_encoding.normalise_cell(cell))
        agrees = len(codes) == 1 and codes == {
            code: code for code in codes
        }  # "(1=codeleted)" does not change 0
        if not codes or not plain.isdigit() or agrees:
            return encoder(cell)
        if plain not in codes:
            raise CellError("cell-code-unstated")
        return codes[plain]

    return encode


def _combine_idh_columns(columns: Sequence[Sequence[str]]) -> list[str]:
    """Combine IDH1 and IDH2: mutant if either is, wild type if one is and the other is not mutant."""
    return [max(cells) for cells in zip(*columns, strict=True)]


def _encode_ki67(
    table: _TableReader, column_index: int, threshold: float, stated: list[str] | None
) -> dict[str, list[str]]:
    """Encode Ki-67 as percentage and level; a column of only 0 and 1, or of words, gives only the level."""
    cells = table.get_column(column_index)
    if _is_level_column(table.header[column_index], cells):
        encoder = _create_cell_encoder(table, "ki67_high", column_index)
        return {"ki67_high": table.encode_column(column_index, encoder) if stated is None else stated}
    percents = _parse_percents(table, column_index)
    percent = [one.percent_text if one else "" for one in percents]
    level = [one.classify_level(threshold) if one else "" for one in percents]
    ranges = sum(one is not None and one.low != one.high and bool(one.percent_text) for one in percents)
    if ranges:
        table.notes.append(message("ki67-ranges", count=ranges))
    bounds = sum(one is not None and not one.percent_text for one in percents)
    if bounds:
        table.notes.append(message("ki67-bounds", count=bounds))
    if stated is not None:
        contradicting_count = sum(bool(a and b and a != b) for a, b in zip(level, stated, strict=True))
        if contradicting_count:
            table.notes.append(message("ki67-disagrees", count=contradicting_count, threshold=threshold))
        level = [
            computed_level or stated_level for computed_level, stated_level in zip(level, stated, strict=True)
        ]
    return {"ki67": percent, "ki67_high": level}


def _is_level_column(name: str, cells: Sequence[str]) -> bool:
    """Whether a column is 0 and 1 (and its name does not say percent), has stated codes, or words like high and low."""
    if parse_stated_codes(name) != {}:
        return True
    found = {cell_encoding.normalise_cell(cell) for cell in cells} - cell_encoding.BLANK_VALUES
    numbers = {re.sub(r"^([01])\.0+$", r"\1", cell) for cell in found}
    if not numbers or (numbers <= {"0", "1"} and _is_percent_column(name)):
        return False
    return numbers <= {"0", "1"} or all(re.search(r"high|low|高|低", cell) for cell in found)


def _is_percent_column(name: str) -> bool:
    return bool(re.search(r"%|％|percent|阳性率", name.lower()))


def _parse_percents(table: _TableReader, column_index: int) -> list[cell_encoding.Ki67Percent | None]:
    """Parse Ki-67 cells. 0.15 without a sign may be 15 % or 0.15 %: refused unless the column is clearly in percent."""
    percents: list[cell_encoding.Ki67Percent | None] = []
    for cell, row_id in zip(table.get_column(column_index), table.ids, strict=True):
        try:
            percents.append(cell_encoding.parse_ki67_percent(cell))
        except CellError as wrong:
            table.add_fault(column_index, row_id, cell, wrong.reason)
            percents.append(None)
    is_certainly_percent = _is_percent_column(table.header[column_index]) and any(
        one and one.lacks_percent_sign and one.low > 1 for one in percents
    )
    for one, cell, row_id in zip(percents, table.get_column(column_index), table.ids, strict=True):
        if one and one.is_possible_fraction and not is_certainly_percent:
            stated = one.low if one.open_end == "high" else one.high
            table.add_fault(
                column_index, row_id, cell, message("percent-or-share", high=100 * stated, low=stated)
            )
    return percents


def _select_free_columns(
    table: _TableReader, used_indices: set[int], settings: LabelSettings
) -> tuple[dict[str, list[str]], list[str]]:
    """Return further columns that may be kept, by name in lower case, and the names of those that are left out."""
    kept: dict[str, list[str]] = {}
    dropped: list[str] = []
    allowed = {normalise_column_name(name) for name in settings.keep}
    for column_index, name in enumerate(table.header):
        if column_index in used_indices or not name:
            continue
        cells = table.get_column(column_index)
        # birth dates are never kept, even on request
        if is_birth_date_column(name) or (
            normalise_column_name(name) not in allowed and is_identifying_column(name, cells, table.ids)
        ):
            dropped.append(name)
            continue
        if name.lower() in kept or name.lower() in (*KNOWN_COLUMNS, "id"):
            raise InputError(message("table-column-twice", table=table.path, column=name))
        kept[name.lower()] = cells
    return kept, dropped


def _merge_rows(
    ids: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict[str, str]], set[str]]:
    """Return rows by id (the first of several rows), and the ids whose rows differ."""
    rows: dict[str, dict[str, str]] = {}
    repeated: set[str] = set()
    for at, row_id in enumerate(ids):
        row = {name: cells[at] for name, cells in columns.items()}
        if rows.setdefault(row_id, row) != row:
            repeated.add(row_id)
    return rows, repeated


def _read_birth_dates(table: _TableReader) -> dict[str, str]:
    """Read birth dates as YYYYMMDD from complete dates in a column of birth dates."""
    column_index = next((at for at, name in enumerate(table.header) if is_birth_date_column(name)), None)
    if column_index is None:
        return {}
    found = {}
    for cell, row_id in zip(table.get_column(column_index), table.ids, strict=True):
        if parts := re.match(r"((?:19|20)\d\d)[-/.年]?(\d{1,2})[-/.月]?(\d{1,2})", cell):
            found[row_id] = f"{parts[1]}{int(parts[2]):02d}{int(parts[3]):02d}"
    return found

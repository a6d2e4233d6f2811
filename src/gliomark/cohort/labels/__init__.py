"""The hospital's table of patients, csv or xlsx, as the cohort's labels: known columns under one name and coding.

    age            years, 90 and above as 90          sex           0 male, 1 female
    ki67           percent of positive cells          ki67_high     1 at or above the threshold, else 0
    idh_mutant     1 mutant, 0 wild type              mgmt          1 methylated, 0 not
    who_grade      1 to 4                             codel_1p19q   1 codeleted, 0 not

Any other column is kept under its own name in lower case, unless it may tell who a patient is
(see ``privacy``). Blank means not known.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from gliomark.cohort.labels import values
from gliomark.cohort.labels.columns import BIRTH, MEANING, id_column, plain_name
from gliomark.cohort.labels.privacy import identifying
from gliomark.io.clinical import read_records
from gliomark.study import GliomarkError

KNOWN_COLUMNS = ("age", "sex", "ki67", "ki67_high", "idh_mutant", "mgmt", "who_grade", "codel_1p19q")
OLDEST = 89
_READERS: Mapping[str, Callable[[str], str]] = {
    "age": values.age, "sex": values.sex, "ki67_high": values.ki67_level, "idh_mutant": values.idh_mutant,
    "mgmt": values.mgmt, "who_grade": values.who_grade, "codel_1p19q": values.codel_1p19q,
}  # fmt: skip
_SHOWN_FAULTS = 3


@dataclass(frozen=True)
class LabelSettings:
    """ki67_threshold: percent from which Ki-67 counts as high. id_column: its name where guessing is wrong.

    keep: names of free columns that stay although they look as if they told who a patient is.
    """

    ki67_threshold: float = 10.0
    id_column: str = ""
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a threshold that is no percentage."""
        if not 0 < self.ki67_threshold <= 100:
            raise GliomarkError(
                f"The Ki-67 threshold {self.ki67_threshold:g} is no percentage: give one above 0 and up to 100."
            )


@dataclass(frozen=True)
class Labels:
    """rows: original id to its cells, every column of ``columns``, blank where not known, the id not among them.

    notes: what was left out, averaged or contradictory, without patients' ids. births: id to YYYYMMDD where
    the table gives it, for computing an age; personal data. repeated: ids with rows that differ.
    """

    source: Path
    rows: Mapping[str, dict[str, str]] = field(repr=False)
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    births: Mapping[str, str] = field(default_factory=dict, repr=False)
    repeated: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """Original ids in the table's order."""
        return tuple(self.rows)

    def row(self, original_id: str) -> dict[str, str] | None:
        """A patient's cells, None where the table has no row.

        Upper and lower case and leading zeros, which spreadsheets drop, may differ where one row fits.
        Raises: GliomarkError where the table has several rows for the patient that differ.
        """
        found = self._key(original_id)
        if found in self.repeated:
            raise GliomarkError(
                f"The patient {found} has several different rows in {self.source}: keep the one that belongs to "
                "the examination."
            )
        return dict(self.rows[found]) if found is not None else None

    def birth(self, original_id: str) -> str:
        """The birth date YYYYMMDD as the table gives it, blank where it gives none."""
        return self.births.get(self._key(original_id) or "", "")

    def _key(self, original_id: str) -> str | None:
        wanted = _text(original_id)
        if wanted in self.rows:
            return wanted
        alike = [key for key in self.rows if _loose(key) == _loose(wanted)]
        return alike[0] if len(alike) == 1 else None


def read_labels(path: Path, settings: LabelSettings = LabelSettings()) -> Labels:
    """Read the table; see the module's text for what becomes of its columns.

    Raises: GliomarkError for an unreadable table, no id column, two columns of one meaning, or cells that are
    not understood or could mean two things, named with row and column.
    """
    header, records = read_records(Path(path))
    at_id = id_column(Path(path), header, settings.id_column)
    records = [record for record in records if record[at_id]]
    ids = [_text(record[at_id]) for record in records]
    table = _Table(Path(path), header, records, ids)
    known, used = _known(table, at_id, settings)
    free, dropped = _free(table, used | {at_id}, settings)
    columns = {**{name: known[name] for name in KNOWN_COLUMNS if name in known}, **free}
    table.check()
    rows, repeated = _rows(ids, columns)
    if dropped:
        table.notes.append(f"Left out, because they may identify a patient: {', '.join(dropped)}.")
    if repeated:
        table.notes.append(f"{len(repeated)} patient(s) have several rows that differ.")
    return Labels(Path(path), rows, tuple(columns), tuple(table.notes), _births(table), frozenset(repeated))


def write_meta(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write ``MetaMS.csv``: a row per patient by id; id, age, sex, the known markers, then free columns.

    A column that no row has does not appear, but for id, age and sex. The file appears whole or not at all.
    """
    ordered = sorted(rows, key=lambda row: row["id"])
    present = dict.fromkeys(name for row in ordered for name in row)
    columns = ["id", "age", "sex", *(name for name in KNOWN_COLUMNS[2:] if name in present)]
    columns += [name for name in present if name not in columns]
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(ordered)
    os.replace(part, path)


def age_between(birth: str, study: str) -> float:
    """Age in years, one decimal, on the day of a study; both YYYYMMDD. From 90 on it is 90.0 (HIPAA's rule).

    Raises: GliomarkError for no date, or a study before the birth; the dates are not shown.
    """
    try:
        born, seen = (date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:]}") for text in (birth, study))
    except ValueError:
        raise GliomarkError(
            "A birth or study date is no date (YYYYMMDD): correct it, or give the age in the table."
        ) from None
    if seen < born:
        raise GliomarkError("A study is dated before the patient's birth: correct the dates.")
    whole = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    return round((seen - born).days / 365.2425, 1) if whole <= OLDEST else float(OLDEST + 1)


# ---- the table --------------------------------------------------------------------------------------


@dataclass
class _Table:
    """The table while it is read; notes and faults grow."""

    path: Path
    header: Sequence[str]
    records: Sequence[Sequence[str]]
    ids: Sequence[str]
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def cells(self, at: int) -> list[str]:
        return [record[at] for record in self.records]

    def read(self, at: int, reader: Callable[[str], str]) -> list[str]:
        """One column through a reader; what it does not understand becomes a fault, blank meanwhile."""
        read = []
        signs = any("+" in values.squeezed(cell) for cell in self.cells(at))
        for cell, row_id in zip(self.cells(at), self.ids, strict=True):
            # a lone minus is "negative" beside plus signs, else the usual mark of an empty cell
            lone = values.squeezed(cell) == "-" and not signs
            try:
                read.append("" if lone else reader(cell))
            except ValueError as wrong:
                self.fault(at, row_id, cell, str(wrong))
                read.append("")
        return read

    def fault(self, at: int, row_id: str, cell: str, wrong: str) -> None:
        self.faults.append(f"{self.header[at]} '{cell}' of {row_id} {wrong}")

    def check(self) -> None:
        if self.faults:
            shown = "; ".join(self.faults[:_SHOWN_FAULTS])
            more = len(self.faults) - _SHOWN_FAULTS
            rest = f" (and {more} more)" if more > 0 else ""
            raise GliomarkError(f"In {self.path}: {shown}{rest}.")


def _text(cell: str) -> str:
    return unicodedata.normalize("NFC", cell).strip()


def _loose(patient_id: str) -> str:
    plain = re.sub(r"\.0$", "", patient_id.casefold())
    return plain.lstrip("0") if plain.isdecimal() else plain


def _known(table: _Table, at_id: int, settings: LabelSettings) -> tuple[dict[str, list[str]], set[int]]:
    """The columns with a known meaning, read, and where they stand in the table."""
    places: dict[str, list[int]] = {}
    for at, name in enumerate(table.header):
        if at != at_id and (meaning := MEANING.get(plain_name(name))):
            places.setdefault(meaning, []).append(at)
    for meaning, found in places.items():
        if len(found) > 1 and meaning != "idh_mutant":
            one, other = (table.header[at] for at in found[:2])
            raise GliomarkError(f"Both {one} and {other} in {table.path} are {meaning}: keep one.")
    read = {
        meaning: table.read(found[0], _READERS[meaning])
        for meaning, found in places.items()
        if meaning not in {"ki67", "idh_mutant"}
    }
    if "idh_mutant" in places:
        read["idh_mutant"] = _any_mutant([table.read(at, values.idh_mutant) for at in places["idh_mutant"]])
    if "ki67" in places:
        read.update(_ki67(table, places["ki67"][0], settings.ki67_threshold, read.get("ki67_high")))
    return read, {at for found in places.values() for at in found}


def _any_mutant(columns: Sequence[Sequence[str]]) -> list[str]:
    """IDH1 and IDH2: mutant where one is, wild type where one is and none is mutant."""
    return [max(cells) for cells in zip(*columns, strict=True)]


def _ki67(table: _Table, at: int, threshold: float, stated: list[str] | None) -> dict[str, list[str]]:
    """The percent column and the level; a column of nothing but 0 and 1, or of words, is the level alone."""
    cells = table.cells(at)
    if _is_level(table.header[at], cells):
        return {"ki67_high": table.read(at, values.ki67_level)} if stated is None else {"ki67_high": stated}
    read = _percents(table, at)
    percent = [one.value if one else "" for one in read]
    level = [one.level(threshold) if one else "" for one in read]
    ranges = sum(one is not None and one.low != one.high and bool(one.value) for one in read)
    if ranges:
        table.notes.append(f"{ranges} Ki-67 range(s) are replaced by their mean.")
    bounds = sum(one is not None and not one.value for one in read)
    if bounds:
        table.notes.append(
            f"{bounds} Ki-67 value(s) are only a bound (as <5%): level where it follows, no percent."
        )
    if stated is not None:
        against = sum(bool(a and b and a != b) for a, b in zip(level, stated, strict=True))
        if against:
            table.notes.append(
                f"In {against} patient(s) the stated Ki-67 level disagrees with {threshold:g} %; the percent decides."
            )
        level = [mine or theirs for mine, theirs in zip(level, stated, strict=True)]
    return {"ki67": percent, "ki67_high": level}


def _is_level(name: str, cells: Sequence[str]) -> bool:
    """0 and 1 alone (unless the name speaks of percent), or words such as high and low."""
    found = {values.squeezed(cell) for cell in cells} - values.BLANKS
    numbers = {re.sub(r"^([01])\.0+$", r"\1", cell) for cell in found}
    if not numbers or (numbers <= {"0", "1"} and _says_percent(name)):
        return False
    return numbers <= {"0", "1"} or all(re.search(r"high|low|高|低", cell) for cell in found)


def _says_percent(name: str) -> bool:
    return bool(re.search(r"%|％|percent|阳性率", name.lower()))


def _percents(table: _Table, at: int) -> list[values.Percent | None]:
    """Ki-67 cell by cell. A bare 0.15 is 15 % or 0.15 %: refused unless the column is plainly in percent."""
    read: list[values.Percent | None] = []
    for cell, row_id in zip(table.cells(at), table.ids, strict=True):
        try:
            read.append(values.ki67_percent(cell))
        except ValueError as wrong:
            table.fault(at, row_id, cell, str(wrong))
            read.append(None)
    plainly = _says_percent(table.header[at]) and any(one and one.bare and one.low > 1 for one in read)
    for one, cell, row_id in zip(read, table.cells(at), table.ids, strict=True):
        if one and one.fraction and not plainly:
            table.fault(
                at, row_id, cell, f"may be {100 * one.low:g} % or {one.low:g} %: write it with a % sign"
            )
    return read


def _free(table: _Table, used: set[int], settings: LabelSettings) -> tuple[dict[str, list[str]], list[str]]:
    """Columns of no known meaning that may stay, by name in lower case, and the names of those that may not."""
    kept: dict[str, list[str]] = {}
    dropped: list[str] = []
    allowed = {plain_name(name) for name in settings.keep}
    for at, name in enumerate(table.header):
        if at in used or not name:
            continue
        cells = table.cells(at)
        # a birth date never stays, whatever is asked for
        if BIRTH.fullmatch(plain_name(name)) or (
            plain_name(name) not in allowed and identifying(name, cells, table.ids)
        ):
            dropped.append(name)
            continue
        if name.lower() in kept or name.lower() in (*KNOWN_COLUMNS, "id"):
            raise GliomarkError(f"{table.path} has the column {name} twice: keep one.")
        kept[name.lower()] = cells
    return kept, dropped


def _rows(
    ids: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict[str, str]], set[str]]:
    """Rows by id, the first where several agree or differ; the ids of those that differ."""
    rows: dict[str, dict[str, str]] = {}
    repeated: set[str] = set()
    for at, row_id in enumerate(ids):
        row = {name: cells[at] for name, cells in columns.items()}
        if rows.setdefault(row_id, row) != row:
            repeated.add(row_id)
    return rows, repeated


def _births(table: _Table) -> dict[str, str]:
    """Birth dates as YYYYMMDD, where a column of that meaning holds whole dates."""
    at = next((at for at, name in enumerate(table.header) if BIRTH.fullmatch(plain_name(name))), None)
    if at is None:
        return {}
    found = {}
    for cell, row_id in zip(table.cells(at), table.ids, strict=True):
        if parts := re.match(r"((?:19|20)\d\d)[-/.年]?(\d{1,2})[-/.月]?(\d{1,2})", cell):
            found[row_id] = f"{parts[1]}{int(parts[2]):02d}{int(parts[3]):02d}"
    return found

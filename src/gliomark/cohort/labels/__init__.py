"""The hospital's table of patients, csv or xlsx, as the cohort's labels: known columns under one name and coding.

    age            years, 90 and above as 90          sex           0 male, 1 female
    ki67           percent of positive cells          ki67_high     1 at or above the threshold, else 0
    idh_mutant     1 mutant, 0 wild type              mgmt          1 methylated, 0 not
    who_grade      1 to 4                             codel_1p19q   1 codeleted, 0 not

Any other column is kept under its own name in lower case, unless it may tell who a patient is
(see ``privacy``). Blank means not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from gliomark.cohort.labels import values
from gliomark.cohort.labels.columns import column_meaning, is_birth, stated_codes
from gliomark.cohort.labels.privacy import identifying
from gliomark.files import atomic_write
from gliomark.messages import Message, message
from gliomark.study import GliomarkError
from gliomark.tables import CellError, csv_text, read_records
from gliomark.tables.age_sex import age_form, sex_coding
from gliomark.tables.clinical import no_row
from gliomark.tables.headers import id_column, plain_name
from gliomark.tables.ids import similar_ids
from gliomark.tables.text import clean

KNOWN_COLUMNS = ("age", "sex", "ki67", "ki67_high", "idh_mutant", "mgmt", "who_grade", "codel_1p19q")
OLDEST = 89
_READERS: Mapping[str, Callable[[str], str]] = {
    "ki67_high": values.ki67_level, "idh_mutant": values.idh_mutant, "mgmt": values.mgmt,
    "who_grade": values.who_grade, "codel_1p19q": values.codel_1p19q,
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
            raise GliomarkError(message("ki67-threshold", threshold=self.ki67_threshold))


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
            raise GliomarkError(message("labels-repeated", patient=found, table=self.source))
        return dict(self.rows[found]) if found is not None else None

    def birth(self, original_id: str) -> str:
        """The birth date YYYYMMDD as the table gives it, blank where it gives none."""
        return self.births.get(self._key(original_id) or "", "")

    def why_missing(self, original_id: str) -> str:
        """The sentence for a patient whom no row fits, naming the rows that were probably meant."""
        return no_row(original_id, similar_ids(clean(original_id), self.rows), self.source)

    def shared_rows(self, original_ids: Iterable[str]) -> dict[str, str]:
        """Patients who would get the row that another fits as well or better, each with the sentence that says so."""
        fitting: dict[str, list[str]] = {}
        for patient in original_ids:
            if (key := self._key(patient)) is not None:
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
            if len(patients) > 1 and clean(patient) != key
        }

    def _key(self, original_id: str) -> str | None:
        wanted = clean(original_id)
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
    at_id = id_column(Path(path), header, records, settings.id_column)
    records = [record for record in records if record[at_id]]
    ids = [record[at_id] for record in records]
    table = _Table(Path(path), header, records, ids)
    known, used = _known(table, at_id, settings)
    free, dropped = _free(table, used | {at_id}, settings)
    columns = {**{name: known[name] for name in KNOWN_COLUMNS if name in known}, **free}
    table.check()
    rows, repeated = _rows(ids, columns)
    if dropped:
        table.notes.append(message("labels-left-out", columns=", ".join(dropped)))
    if repeated:
        table.notes.append(message("labels-rows-differ", count=len(repeated)))
    return Labels(Path(path), rows, tuple(columns), tuple(table.notes), _births(table), frozenset(repeated))


def write_meta(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write ``MetaMS.csv``: a row per patient by id; id, age, sex, the known markers, then free columns.

    A column that no row has does not appear, but for id, age and sex. The file appears whole or not at all.
    """
    ordered = sorted(rows, key=lambda row: row["id"])
    present = dict.fromkeys(name for row in ordered for name in row)
    columns = ["id", "age", "sex", *(name for name in KNOWN_COLUMNS[2:] if name in present)]
    columns += [name for name in present if name not in columns]
    table = [columns, *([row.get(name, "") for name in columns] for row in ordered)]
    atomic_write(path, csv_text(table))


def age_between(birth: str, study: str) -> float:
    """Age in years, one decimal, on the day of a study; both YYYYMMDD. From 90 on it is 90.0 (HIPAA's rule).

    Raises: GliomarkError for no date, or a study before the birth; the dates are not shown.
    """
    try:
        born, seen = (date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:]}") for text in (birth, study))
    except ValueError:
        raise GliomarkError(message("birth-no-date")) from None
    if seen < born:
        raise GliomarkError(message("birth-after-study"))
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
    faults: list[Message] = field(default_factory=list)

    def cells(self, at: int) -> list[str]:
        return [record[at] for record in self.records]

    def read(self, at: int, reader: Callable[[str], str]) -> list[str]:
        """One column through a reader; what it does not understand becomes a fault, blank meanwhile."""
        read = []
        answers = {values.squeezed(cell) for cell in self.cells(at)}
        for cell, row_id in zip(self.cells(at), self.ids, strict=True):
            try:
                read.append(reader(_lone_answer(cell, answers)))
            except CellError as wrong:
                self.fault(at, row_id, cell, wrong.reason)
                read.append("")
        return read

    def fault(self, at: int, row_id: str, cell: str, reason: Message) -> None:
        self.faults.append(
            message("cell-fault", column=self.header[at], cell=cell, patient=row_id, reason=reason)
        )

    def check(self) -> None:
        if not self.faults:
            return
        shown, more = self.faults[:_SHOWN_FAULTS], len(self.faults) - _SHOWN_FAULTS
        listed = shown[0]
        for fault in shown[1:]:
            listed = message("faults-joined", first=listed, second=fault)
        if more > 0:
            listed = message("faults-and-more", faults=listed, count=more)
        raise GliomarkError(message("labels-faults", table=self.path, faults=listed))


def _lone_answer(cell: str, answers: set[str]) -> str:
    """A lone minus or 无 is "negative" beside its opposite; else a minus marks an empty cell, and 无 is not sure."""
    plain = values.squeezed(cell)
    if plain == "-":
        return "no" if any("+" in answer for answer in answers) else ""
    return "no" if plain == "无" and "有" in answers else cell


def _loose(patient_id: str) -> str:
    plain = re.sub(r"\.0$", "", patient_id.casefold())
    return plain.lstrip("0") if plain.isdecimal() else plain


def _known(table: _Table, at_id: int, settings: LabelSettings) -> tuple[dict[str, list[str]], set[int]]:
    """The columns with a known meaning, read, and where they stand in the table."""
    places: dict[str, list[int]] = {}
    for at, name in enumerate(table.header):
        if at != at_id and (meaning := column_meaning(name)):
            places.setdefault(meaning, []).append(at)
    for meaning, found in places.items():
        if len(found) > 1 and meaning != "idh_mutant":
            one, other = (table.header[at] for at in found[:2])
            raise GliomarkError(
                message("labels-two-meanings", one=one, other=other, table=table.path, meaning=meaning)
            )
    read = {
        meaning: table.read(found[0], _reader(table, meaning, found[0]))
        for meaning, found in places.items()
        if meaning not in {"ki67", "idh_mutant"}
    }
    if "idh_mutant" in places:
        read["idh_mutant"] = _any_mutant(
            [table.read(at, _reader(table, "idh_mutant", at)) for at in places["idh_mutant"]]
        )
    if "ki67" in places:
        read.update(_ki67(table, places["ki67"][0], settings.ki67_threshold, read.get("ki67_high")))
    return read, {at for found in places.values() for at in found}


def _reader(table: _Table, meaning: str, at: int) -> Callable[[str], str]:
    """How the cells of a column are read; ages and sexes by its name and by all that stands in it."""
    name, cells = table.header[at], table.cells(at)
    if meaning == "age":
        form = age_form(name, cells)
        return lambda cell: values.age(cell, form)
    if meaning == "sex":
        coding = sex_coding(name, cells)
        return lambda cell: values.sex(cell, coding)
    reader = _READERS[meaning]
    if meaning == "mgmt" and not re.search(r"meth|甲基化", name.lower()):
        reader = values.mgmt_or_stain
    return _coded_reader(table, name, reader)


def _coded_reader(table: _Table, name: str, reader: Callable[[str], str]) -> Callable[[str], str]:
    """Obeys a coding that the column's name states, as ``IDH (0=wt, 1=mutant)``; refuses one it cannot read."""
    stated = stated_codes(name)
    try:
        words = {values.squeezed(word) for word in (stated or {}).values()}
        codes = {code: reader(_lone_answer(word, words)) for code, word in (stated or {}).items()}
    except CellError:
        stated, codes = None, {}
    if stated is None:
        raise GliomarkError(message("column-coding", column=name, table=table.path))

    def read(cell: str) -> str:
        plain = re.sub(r"^(\d)\.0+$", r"\1", values.squeezed(cell))
        agrees = len(codes) == 1 and codes == {
            code: code for code in codes
        }  # "(1=codeleted)" leaves 0 as it is
        if not codes or not plain.isdigit() or agrees:
            return reader(cell)
        if plain not in codes:
            raise CellError("cell-code-unstated")
        return codes[plain]

    return read


def _any_mutant(columns: Sequence[Sequence[str]]) -> list[str]:
    """IDH1 and IDH2: mutant where one is, wild type where one is and none is mutant."""
    return [max(cells) for cells in zip(*columns, strict=True)]


def _ki67(table: _Table, at: int, threshold: float, stated: list[str] | None) -> dict[str, list[str]]:
    """The percent column and the level; a column of nothing but 0 and 1, or of words, is the level alone."""
    cells = table.cells(at)
    if _is_level(table.header[at], cells):
        reader = _reader(table, "ki67_high", at)
        return {"ki67_high": table.read(at, reader) if stated is None else stated}
    read = _percents(table, at)
    percent = [one.value if one else "" for one in read]
    level = [one.level(threshold) if one else "" for one in read]
    ranges = sum(one is not None and one.low != one.high and bool(one.value) for one in read)
    if ranges:
        table.notes.append(message("ki67-ranges", count=ranges))
    bounds = sum(one is not None and not one.value for one in read)
    if bounds:
        table.notes.append(message("ki67-bounds", count=bounds))
    if stated is not None:
        against = sum(bool(a and b and a != b) for a, b in zip(level, stated, strict=True))
        if against:
            table.notes.append(message("ki67-disagrees", count=against, threshold=threshold))
        level = [mine or theirs for mine, theirs in zip(level, stated, strict=True)]
    return {"ki67": percent, "ki67_high": level}


def _is_level(name: str, cells: Sequence[str]) -> bool:
    """0 and 1 alone (unless the name speaks of percent), codes that the name states, or words such as high and low."""
    if stated_codes(name) != {}:
        return True
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
        except CellError as wrong:
            table.fault(at, row_id, cell, wrong.reason)
            read.append(None)
    plainly = _says_percent(table.header[at]) and any(one and one.bare and one.low > 1 for one in read)
    for one, cell, row_id in zip(read, table.cells(at), table.ids, strict=True):
        if one and one.is_fraction and not plainly:
            stated = one.low if one.open_at == "high" else one.high
            table.fault(at, row_id, cell, message("percent-or-share", high=100 * stated, low=stated))
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
        if is_birth(name) or (plain_name(name) not in allowed and identifying(name, cells, table.ids)):
            dropped.append(name)
            continue
        if name.lower() in kept or name.lower() in (*KNOWN_COLUMNS, "id"):
            raise GliomarkError(message("table-column-twice", table=table.path, column=name))
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
    at = next((at for at, name in enumerate(table.header) if is_birth(name)), None)
    if at is None:
        return {}
    found = {}
    for cell, row_id in zip(table.cells(at), table.ids, strict=True):
        if parts := re.match(r"((?:19|20)\d\d)[-/.年]?(\d{1,2})[-/.月]?(\d{1,2})", cell):
            found[row_id] = f"{parts[1]}{int(parts[2]):02d}{int(parts[3]):02d}"
    return found

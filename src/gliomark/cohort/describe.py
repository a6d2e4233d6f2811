"""What a paper says about its cohort: table 2-1 and more, as csv, as a page with plots, and a datasheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from gliomark.cohort.folds import is_split
from gliomark.cohort.store import Cohort, read_json
from gliomark.files import atomic_write
from gliomark.reporting.plots import ACCENT, INK, SECOND, inline_plot
from gliomark.study import Clinical, SliceStack
from gliomark.tables import csv_text

AGE_CUT = 45.0  # the published cohort's mean age
KI67_CUT = 10.0  # percent
MAP_SIZE = (150, 120)  # rows and columns of the lesion map: the brain's bounding box, longer front to back
MOST_LEVELS = 12  # a column with more different values is given as a number, or by its commonest values
MARKERS: Mapping[str, str] = {
    "idh_mutant": "IDH mutant",
    "ki67_high": "Ki-67 high",
    "mgmt": "MGMT methylated",
    "codel_1p19q": "1p/19q codeleted",
}
SCANNER = ("manufacturer", "model", "field_strength_t")
TIMES = ("repetition_ms", "echo_ms", "inversion_ms")


@dataclass(frozen=True, eq=False)
class Person:
    """One patient as the description sees them.

    markers: 0, 1 or None by name; lesion_ml and lesion_slices None without a mask; lesion_map: share 0 or 1
    of MAP_SIZE, whether any slice has a lesion there; brain_map: mean grey value of the middle slices, 0 to 1.
    """

    clinical: Clinical
    record: Mapping[str, Any]
    markers: Mapping[str, int | None]
    lesion_ml: float | None
    lesion_slices: int | None
    slices: int
    lesion_map: NDArray[np.float32] | None
    brain_map: NDArray[np.float32]


@dataclass(frozen=True)
class Line:
    """A line of the summary: a count (share of ``of``), or quantiles of ``n`` known values, ``of`` patients."""

    section: str
    variable: str
    level: str
    n: int
    of: int
    median: float | None = None
    q1: float | None = None
    q3: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def share(self) -> float | None:
        """n of ``of``; None for an empty whole."""
        return self.n / self.of if self.of else None


@dataclass(frozen=True)
class CodedLine:
    """A line of table 2-1: how many are coded 0 and 1, how many unknown."""

    characteristic: str
    zero: int
    one: int
    missing: int


def describe(cohort: Cohort, out: Path | None = None) -> Path:
    """Write ``table_2_1.csv``, ``summary.csv``, ``cohort.csv``, ``describe.html`` and ``datasheet.md``.

    out: the folder, COHORT/describe by default. Rejected patients are left out and counted. Returns the folder.
    """
    folder = out or cohort.folder / "describe"
    people = [_person(cohort, patient) for patient in cohort.patient_ids]
    table, lines = table_2_1(people), summary(people, _parts(cohort))
    facts = {
        "name": cohort.folder.name,
        "about": cohort.about,
        "n": len(people),
        "rejected": len(cohort.prepared_ids) - len(people),
        "table": table,
        "lines": lines,
        "sections": list(dict.fromkeys(line.section for line in lines)),
    }
    atomic_write(folder / "table_2_1.csv", _table_csv(table))
    atomic_write(folder / "summary.csv", _summary_csv(lines))
    atomic_write(folder / "cohort.csv", _cohort_csv(people))
    environment = _environment()
    page = environment.get_template("describe.html.j2").render(plots=_plots(people), **facts)
    atomic_write(folder / "describe.html", page)
    atomic_write(folder / "datasheet.md", environment.get_template("datasheet.md.j2").render(facts))
    return folder


# --- one patient ------------------------------------------------------------------------------------


def _person(cohort: Cohort, patient_id: str) -> Person:
    stack, clinical = cohort.stack(patient_id), cohort.clinical(patient_id)
    lesion = stack.lesion
    return Person(
        clinical=clinical,
        record=cohort.record(patient_id),
        markers=markers(clinical.columns),
        lesion_ml=None if lesion is None else float(lesion.sum()) * stack.voxel_volume_ml,
        lesion_slices=None if lesion is None else int(lesion.any(axis=(1, 2)).sum()),
        slices=len(stack.slice_names),
        lesion_map=None
        if lesion is None
        else (_boxed(stack, np.asarray(lesion.any(axis=0))) >= 0.5).astype(np.float32),
        brain_map=_brain_map(stack),
    )


def markers(columns: Mapping[str, str]) -> dict[str, int | None]:
    """Each of MARKERS as 0, 1 or None; Ki-67 from its percentage where no 0/1 column says it."""
    found = {name: _binary(columns.get(name)) for name in MARKERS}
    percent = _number(columns.get("ki67"))
    if found["ki67_high"] is None and percent is not None:
        found["ki67_high"] = int(percent >= KI67_CUT)
    return found


def _binary(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number in (0.0, 1.0) else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and np.isfinite(number) else None


def _boxed(stack: SliceStack, plane: NDArray[Any]) -> NDArray[np.float32]:
    """A ``(row, column)`` plane cut to the brain's box over all slices and brought to MAP_SIZE."""
    rows, columns = (np.flatnonzero(stack.brain.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    if rows.size == 0:
        return np.zeros(MAP_SIZE, np.float32)
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize(MAP_SIZE[::-1], Image.Resampling.BILINEAR, box=box), np.float32)


def _brain_map(stack: SliceStack) -> NDArray[np.float32]:
    """The reference sequence's middle slice, 0 (black) to 1."""
    middle = len(stack.slice_names) // 2
    image, brain = list(stack.images.values())[-1][middle], stack.brain[middle]
    if not brain.any():
        return np.zeros(MAP_SIZE, np.float32)
    low, high = np.percentile(image[brain], [1, 99])
    return _boxed(stack, np.where(brain, np.clip((image - low) / max(high - low, 1e-6), 0.05, 1), 0))


def _parts(cohort: Cohort) -> dict[str, list[str]]:
    """Split and folds by name, as ``folds.json`` has them now, rejected patients left out; empty without it."""
    path = cohort.folder / "folds.json"
    if not path.is_file():
        return {}
    drawn = read_json(path, is_split)
    parts = {name: drawn[name] for name in ("train", "validation", "test")}
    parts |= {f"fold {number}": fold for number, fold in enumerate(drawn.get("folds", []), start=1)}
    kept = set(cohort.patient_ids)
    return {name: [patient for patient in part if patient in kept] for name, part in parts.items()}


# --- counting ---------------------------------------------------------------------------------------


def table_2_1(people: Sequence[Person]) -> list[CodedLine]:
    """METHOD table 2-1: age at and above 45 (and the cohort's own mean), sex (1 female), and the markers."""
    ages = [person.clinical.age for person in people]
    known = [age for age in ages if age is not None]
    lines = [_coded(f"age >= {AGE_CUT:g} years", [None if a is None else int(a >= AGE_CUT) for a in ages])]
    if known:
        mean = float(np.mean(known))
        own = [None if age is None else int(age >= mean) for age in ages]
        lines.append(_coded(f"age >= {mean:.1f} years (this cohort's mean)", own))
    lines.append(_coded("sex (1 female)", [person.clinical.sex for person in people]))
    titles = {"ki67_high": f"Ki-67 (1 high, >= {KI67_CUT:g} % unless given as 0/1)"}
    for name, title in MARKERS.items():
        lines.append(_coded(titles.get(name, title), [person.markers[name] for person in people]))
    return lines


def _coded(characteristic: str, values: Sequence[int | None]) -> CodedLine:
    counts = Counter(values)
    return CodedLine(characteristic, counts[0], counts[1], counts[None])


def summary(people: Sequence[Person], parts: Mapping[str, Sequence[str]]) -> list[Line]:
    """Every line of the summary; parts: split and fold names to patient ids."""
    lines = [*_clinical_lines(people), *_lesion_lines(people), *_sequence_lines(people)]
    for sequence in _sequences(people):
        lines += _series_lines(people, sequence)
    return lines + _part_lines(people, parts)


def _clinical_lines(people: Sequence[Person]) -> list[Line]:
    of = len(people)
    lines = [_quantiles("patients", "age (years)", [person.clinical.age for person in people])]
    for title, code in (("male", 0), ("female", 1), ("missing", None)):
        lines.append(Line("patients", "sex", title, sum(p.clinical.sex == code for p in people), of))
    for name, title in MARKERS.items():
        values = [person.markers[name] for person in people]
        if any(value is not None for value in values):
            for level, value in (("yes", 1), ("no", 0), ("missing", None)):
                lines.append(Line("markers", title, level, values.count(value), of))
    for column in _free_columns(people):
        lines += _column_lines(column, [person.clinical.columns.get(column) for person in people])
    return lines


def _free_columns(people: Sequence[Person]) -> list[str]:
    """Columns of the clinical table that are not counted as a marker, in the table's order."""
    names = dict.fromkeys(name for person in people for name in person.clinical.columns)
    return [name for name in names if name not in MARKERS]


def _column_lines(column: str, cells: Sequence[str | None]) -> list[Line]:
    """Quantiles for many different numbers, else the count of each value."""
    numbers, known = [_number(cell) for cell in cells], [cell for cell in cells if cell]
    numeric = all(number is not None for cell, number in zip(cells, numbers, strict=True) if cell)
    if numeric and len(set(numbers) - {None}) > 5:
        return [_quantiles("further columns", column, numbers)]
    levels = Counter(f"{_number(cell):g}" if numeric else cell for cell in known).most_common()
    lines = [
        Line("further columns", column, str(level), n, len(cells))
        for level, n in sorted(levels[:MOST_LEVELS])
    ]
    if len(levels) > MOST_LEVELS:
        rest = sum(n for _, n in levels[MOST_LEVELS:])
        lines.append(
            Line("further columns", column, f"{len(levels) - MOST_LEVELS} other values", rest, len(cells))
        )
    return [*lines, Line("further columns", column, "missing", len(cells) - len(known), len(cells))]


def _lesion_lines(people: Sequence[Person]) -> list[Line]:
    without = sum(not person.lesion_slices for person in people)
    return [
        _quantiles("lesion", "volume (ml)", [person.lesion_ml for person in people]),
        _quantiles("lesion", "slices with lesion per patient", [person.lesion_slices for person in people]),
        _quantiles("lesion", "slices per patient", [person.slices for person in people]),
        Line("lesion", "no lesion drawn", "", without, len(people)),
    ]


def _sequences(people: Sequence[Person]) -> list[str]:
    return sorted({name for person in people for name in person.record["sequences"]})


def _sequence_lines(people: Sequence[Person]) -> list[Line]:
    return [
        Line("sequences", name, level, n, len(people))
        for name in _sequences(people)
        for present in [sum(name in person.record["sequences"] for person in people)]
        for level, n in (("present", present), ("missing", len(people) - present))
    ]


def _series_lines(people: Sequence[Person], sequence: str) -> list[Line]:
    """Scanner, times, spacing and matrix of one sequence, over the patients who have it."""
    found = [_series(person, sequence) for person in people if sequence in person.record["sequences"]]
    section, of = f"series {sequence}", len(found)
    scanners = Counter(_scanner(series) for series in found)
    matrices = Counter(_matrix(series) for series in found)
    lines = [Line(section, "scanner", name, n, of) for name, n in scanners.most_common()]
    lines += [Line(section, "matrix", name, n, of) for name, n in matrices.most_common()]
    for place, title in enumerate(("row step (mm)", "column step (mm)", "slice step (mm)")):
        lines.append(_quantiles(section, title, [_spacing(series, place) for series in found]))
    lines.append(_quantiles(section, "slices", [series.get("slices") for series in found]))
    return lines + [
        _quantiles(section, name.replace("_", " (") + ")", [s.get(name) for s in found]) for name in TIMES
    ]


def _series(person: Person, sequence: str) -> Mapping[str, Any]:
    return (person.record.get("series") or {}).get(sequence) or {}


def _scanner(series: Mapping[str, Any]) -> str:
    maker, model, field = (series.get(name) for name in SCANNER)
    words = [str(word) for word in (maker, model) if word] + ([f"{field:g} T"] if field else [])
    return " ".join(words) or "not stated"


def _matrix(series: Mapping[str, Any]) -> str:
    matrix = series.get("matrix")
    return f"{matrix[0]} x {matrix[1]}" if matrix else "not stated"


def _spacing(series: Mapping[str, Any], place: int) -> float | None:
    return (series.get("spacing_mm") or [None] * 3)[place]


def _part_lines(people: Sequence[Person], parts: Mapping[str, Sequence[str]]) -> list[Line]:
    """Size of each part, and the share of each marker in it (of those known)."""
    by_id = {person.clinical.patient_id: person for person in people}
    lines = []
    for part, patients in parts.items():
        lines.append(Line("split and folds", part, "patients", len(patients), len(people)))
        for name, title in MARKERS.items():
            known = [v for v in (by_id[patient].markers[name] for patient in patients) if v is not None]
            if known:
                lines.append(
                    Line("split and folds", part, f"{title} (of those known)", sum(known), len(known))
                )
    return lines


def _quantiles(section: str, variable: str, values: Iterable[float | None]) -> Line:
    """Median, quartiles and range of the known values."""
    everybody = list(values)
    known = [float(value) for value in everybody if value is not None]
    if not known:
        return Line(section, variable, "", 0, len(everybody))
    low, q1, median, q3, high = (float(q) for q in np.percentile(known, [0, 25, 50, 75, 100]))
    return Line(section, variable, "", len(known), len(everybody), median, q1, q3, low, high)


# --- tables as csv ----------------------------------------------------------------------------------


def _table_csv(table: Sequence[CodedLine]) -> str:
    rows = [["characteristic", "coded_0", "coded_1", "missing", "n", "share_1_of_known"]]
    for line in table:
        known = line.zero + line.one
        share = f"{line.one / known:.4f}" if known else ""
        rows.append([line.characteristic, *map(str, (line.zero, line.one, line.missing, known)), share])
    return _csv(rows)


def _summary_csv(lines: Sequence[Line]) -> str:
    rows: list[list[str]] = [
        ["section", "variable", "level", "n", "of", "share", *"median q1 q3 min max".split()]
    ]
    for line in lines:
        numbers = (line.share, line.median, line.q1, line.q3, line.low, line.high)
        shown = ["" if number is None else f"{number:.4g}" for number in numbers]
        rows.append([line.section, line.variable, line.level, str(line.n), str(line.of), *shown])
    return _csv(rows)


def _cohort_csv(people: Sequence[Person]) -> str:
    """One row per patient: the clinical table and what was measured."""
    columns = list(dict.fromkeys(name for person in people for name in person.clinical.columns))
    rows = [["id", "age", "sex", *columns, "sequences", "slices", "lesion_slices", "lesion_volume_ml"]]
    for person in people:
        clinical = person.clinical
        measured = (person.slices, person.lesion_slices, person.lesion_ml)
        cells = [clinical.patient_id, _plain(clinical.age), _plain(clinical.sex)]
        cells += [clinical.columns.get(name, "") for name in columns]
        rows.append([*cells, " ".join(person.record["sequences"]), *map(_plain, measured)])
    return _csv(rows)


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _csv(rows: Sequence[Sequence[str]]) -> str:
    return "\ufeff" + csv_text(rows)


# --- plots ------------------------------------------------------------------------------------------


def _plots(people: Sequence[Person]) -> list[tuple[str, Markup]]:
    """(caption, SVG) of every plot there is data for."""
    drawn = [_age_plot(people), _ki67_plot(people), _volume_plot(people), _map_plot(people)]
    drawn += [_spacing_plot(people), _pairs_plot(people)]
    return [plot for plot in drawn if plot is not None]


Plot = tuple[str, Markup] | None


def _age_plot(people: Sequence[Person]) -> Plot:
    groups = {
        title: [p.clinical.age for p in people if p.clinical.sex == code and p.clinical.age is not None]
        for title, code in (("male", 0), ("female", 1), ("sex unknown", None))
    }
    groups = {f"{title} (n = {len(ages)})": ages for title, ages in groups.items() if ages}
    if not groups:
        return None
    n = sum(map(len, groups.values()))

    def draw(axes: Any) -> None:
        colours = [ACCENT, SECOND, "#9aa5ab"][: len(groups)]
        axes.hist(
            list(groups.values()), bins=range(0, 101, 5), stacked=True, color=colours, label=list(groups)
        )
        axes.set(xlabel="age (years)", ylabel="patients", xlim=(10, 95))
        axes.legend(frameon=False, fontsize=8)

    return f"Age by sex, n = {n}", inline_plot(draw)


def _ki67_plot(people: Sequence[Person]) -> Plot:
    values = [v for v in (_number(p.clinical.columns.get("ki67")) for p in people) if v is not None]
    if not values:
        return None

    def draw(axes: Any) -> None:
        axes.hist(values, bins=range(0, 101, 5), color=ACCENT)
        axes.axvline(KI67_CUT, color=INK, linewidth=1, linestyle="--")
        axes.set(xlabel=f"Ki-67 (%), dashed: high from {KI67_CUT:g} %", ylabel="patients")

    return f"Ki-67, n = {len(values)}", inline_plot(draw)


def _volume_plot(people: Sequence[Person]) -> Plot:
    values = [person.lesion_ml for person in people if person.lesion_ml]
    if not values:
        return None

    def draw(axes: Any) -> None:
        axes.hist(values, bins=np.geomspace(min(values) * 0.99, max(values) * 1.01, 13), color=ACCENT)
        axes.set(xscale="log", xlabel="lesion volume (ml, logarithmic)", ylabel="patients")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")

    return f"Lesion volume, n = {len(values)}", inline_plot(draw)


def _spacing_plot(people: Sequence[Person]) -> Plot:
    points = {
        name: [s["spacing_mm"] for s in (_series(p, name) for p in people) if s.get("spacing_mm")]
        for name in _sequences(people)
    }
    points = {name: found for name, found in points.items() if found}
    if not points:
        return None

    def draw(axes: Any) -> None:
        jitter = np.random.default_rng(0)
        for number, (name, found) in enumerate(points.items()):
            rows, _, slices = np.array(found, float).T
            moved = slices + jitter.uniform(-0.06, 0.06, len(slices))
            colour = (ACCENT, SECOND, "#6d7f3c", "#8a5a83")[number % 4]
            axes.plot(
                rows, moved, "o", alpha=0.55, markersize=4, color=colour, label=f"{name} (n = {len(found)})"
            )
        axes.set(xlabel="pixel (mm)", ylabel="slice to slice (mm)")
        axes.legend(frameon=False, fontsize=8)

    return f"Spacing as acquired, n = {sum(map(len, points.values()))} series", inline_plot(draw)


def _map_plot(people: Sequence[Person]) -> Plot:
    maps = [p.lesion_map for p in people if p.lesion_map is not None and p.lesion_slices]
    if not maps:
        return None
    share, brain = np.mean(maps, axis=0), np.mean([p.brain_map for p in people], axis=0)

    def draw(axes: Any) -> None:
        axes.imshow(brain, cmap="gray", vmin=0, vmax=1.15 * float(brain.max() or 1))
        seen = np.ma.masked_less(100 * share, 0.5)
        image = axes.imshow(seen, cmap="inferno", alpha=0.62, vmin=0)
        axes.set(xticks=[], yticks=[], xlabel="patient's right on the left, front above")
        axes.figure.colorbar(image, ax=axes, label="patients with lesion (%)", shrink=0.85)
        axes.spines[:].set_visible(False)

    return f"Where lesions lie (any slice, brains brought to one box), n = {len(maps)}", inline_plot(draw)


def _pairs_plot(people: Sequence[Person]) -> Plot:
    names = [name for name in MARKERS if any(person.markers[name] is not None for person in people)]
    if len(names) < 2:
        return None
    cells = [[_pair(people, row, column) for column in names] for row in names]

    def draw(axes: Any) -> None:
        shares = np.array([[np.nan if not n else both / n for both, n in row] for row in cells])
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            both, n = cells[row][column]
            text = "–" if not n else f"{both}/{n}\n{share:.0%}"
            axes.text(
                column, row, text, ha="center", va="center", fontsize=8, color="white" if share > 0.6 else INK
            )
        titles = [MARKERS[name].replace(" ", "\n") for name in names]
        axes.set(xticks=range(len(names)), yticks=range(len(names)), xticklabels=titles, yticklabels=titles)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)

    return "Of patients with the row's marker, how many have the column's", inline_plot(draw)


def _pair(people: Sequence[Person], row: str, column: str) -> tuple[int, int]:
    """Of those with ``row`` who are known for ``column``: how many have it, and how many there are."""
    known = [p.markers[column] for p in people if p.markers[row] == 1 and p.markers[column] is not None]
    return sum(value or 0 for value in known), len(known)


def _environment() -> Environment:
    """Pages are escaped, the Markdown is not: ids and notes may hold any character."""
    environment = Environment(
        loader=PackageLoader("gliomark.cohort"),
        autoescape=lambda name: bool(name and name.endswith("html.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "figure": _plain_figure}
    return environment


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _plain_figure(value: float | None) -> str:
    """Three significant figures, never as a power of ten."""
    return "–" if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

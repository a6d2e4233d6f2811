"""Describe a cohort as a paper does: table 2-1 and further statistics as csv, a page with plots, and a datasheet."""

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

from gliomark.cohort.folds import is_valid_folds_record
from gliomark.cohort.store import (
    Cohort,
    ProgressCallback,
    ignore_progress,
    iterate_with_progress,
    read_json,
)
from gliomark.files import atomic_write
from gliomark.reporting.plots import ACCENT_COLOUR, SECOND_COLOUR, TEXT_COLOUR, render_inline_svg
from gliomark.study import ClinicalData, SliceStack
from gliomark.tables import format_csv

AGE_CUTOFF_YEARS = 45.0  # the published cohort's mean age
KI67_CUTOFF_PERCENT = 10.0  # percent
LESION_MAP_SHAPE = (
    150,
    120,
)  # (row, column) of the lesion map: the brain's bounding box, longer front to back
MAX_COLUMN_LEVELS = 12  # only the most common values of a text column are listed
MARKER_TITLES: Mapping[str, str] = {
    "idh_mutant": "IDH mutant",
    "ki67_high": "Ki-67 high",
    "mgmt": "MGMT methylated",
    "codel_1p19q": "1p/19q codeleted",
}
SCANNER_FIELDS = ("manufacturer", "model", "field_strength_t")
TIMING_FIELDS = ("repetition_ms", "echo_ms", "inversion_ms")


@dataclass(frozen=True, eq=False)
class PatientSummary:
    """Summary of one patient.

    record: the patient's JSON record. markers: 0, 1 or None by name. lesion_volume_ml, lesion_slice_count: None
    without a mask. lesion_map: ``(row, column)`` of LESION_MAP_SHAPE, 1 where any slice has a lesion, else 0.
    brain_map: the middle slice of the reference sequence in the same shape, grey values 0 to 1.
    """

    clinical: ClinicalData
    record: Mapping[str, Any]
    markers: Mapping[str, int | None]
    lesion_volume_ml: float | None
    lesion_slice_count: int | None
    slice_count: int
    lesion_map: NDArray[np.float32] | None
    brain_map: NDArray[np.float32]


@dataclass(frozen=True)
class SummaryLine:
    """A line of the summary: a count with its total, or quantiles of ``count`` known values of ``total`` patients."""

    section: str
    variable: str
    level: str
    count: int
    total: int
    median: float | None = None
    q1: float | None = None
    q3: float | None = None
    minimum: float | None = None
    maximum: float | None = None

    @property
    def share(self) -> float | None:
        """Proportion of the total, 0 to 1; None if the total is 0."""
        return self.count / self.total if self.total else None


@dataclass(frozen=True)
class BinaryCount:
    """A line of table 2-1: numbers of patients coded 0, coded 1 and unknown."""

    characteristic: str
    count_0: int
    count_1: int
    missing: int


def describe_cohort(
    cohort: Cohort, out: Path | None = None, report_progress: ProgressCallback = ignore_progress
) -> Path:
    """Write ``table_2_1.csv``, ``summary.csv``, ``cohort.csv``, ``describe.html`` and ``datasheet.md``.

    Rejected patients are left out and counted.

    Parameters
    ----------
    cohort
        The prepared cohort.
    out
        Folder for the files; default COHORT/describe.
    report_progress
        Called before each patient.

    Returns
    -------
    Path
        The folder.
    """
    folder = out or cohort.folder / "describe"
    patients = [
        _summarise_patient(cohort, patient)
        for patient in iterate_with_progress(cohort.patient_ids, report_progress)
    ]
    table, lines = create_table_2_1(patients), summarise_patients(patients, _read_split_parts(cohort))
    template_values = {
        "name": cohort.folder.name,
        "about": cohort.metadata,
        "n": len(patients),
        "rejected": len(cohort.prepared_ids) - len(patients),
        "table": table,
        "lines": lines,
        "sections": list(dict.fromkeys(line.section for line in lines)),
    }
    atomic_write(folder / "table_2_1.csv", _format_table_csv(table))
    atomic_write(folder / "summary.csv", _format_summary_csv(lines))
    atomic_write(folder / "cohort.csv", _format_cohort_csv(patients))
    environment = _create_template_environment()
    page = environment.get_template("describe.html.j2").render(plots=_draw_plots(patients), **template_values)
    atomic_write(folder / "describe.html", page)
    atomic_write(folder / "datasheet.md", environment.get_template("datasheet.md.j2").render(template_values))
    return folder


# --- one patient ------------------------------------------------------------------------------------


def _summarise_patient(cohort: Cohort, patient_id: str) -> PatientSummary:
    stack, clinical = cohort.read_stack(patient_id), cohort.get_clinical(patient_id)
    lesion = stack.lesion
    return PatientSummary(
        clinical=clinical,
        record=cohort.read_patient_record(patient_id),
        markers=parse_markers(clinical.columns),
        lesion_volume_ml=None if lesion is None else float(lesion.sum()) * stack.voxel_volume_ml,
        lesion_slice_count=None if lesion is None else int(lesion.any(axis=(1, 2)).sum()),
        slice_count=len(stack.slice_names),
        lesion_map=None
        if lesion is None
        else (_crop_to_brain(stack, np.asarray(lesion.any(axis=0))) >= 0.5).astype(np.float32),
        brain_map=_compute_brain_map(stack),
    )


def parse_markers(columns: Mapping[str, str]) -> dict[str, int | None]:
    """Parse each marker of a table row to 0, 1 or None; Ki-67 from its percentage if there is no 0/1 column."""
    found = {name: _parse_binary(columns.get(name)) for name in MARKER_TITLES}
    percent = _parse_number(columns.get("ki67"))
    if found["ki67_high"] is None and percent is not None:
        found["ki67_high"] = int(percent >= KI67_CUTOFF_PERCENT)
    return found


def _parse_binary(text: str | None) -> int | None:
    number = _parse_number(text)
    return int(number) if number in (0.0, 1.0) else None


def _parse_number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and np.isfinite(number) else None


def _crop_to_brain(stack: SliceStack, plane: NDArray[Any]) -> NDArray[np.float32]:
    """Crop a ``(row, column)`` plane to the brain's bounding box and resize it to LESION_MAP_SHAPE."""
    rows, columns = (np.flatnonzero(stack.brain.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    if rows.size == 0:
        return np.zeros(LESION_MAP_SHAPE, np.float32)
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize(LESION_MAP_SHAPE[::-1], Image.Resampling.BILINEAR, box=box), np.float32)


def _compute_brain_map(stack: SliceStack) -> NDArray[np.float32]:
    """Compute the middle slice of the reference sequence, ``(row, column)``, 0 (black) to 1."""
    middle = len(stack.slice_names) // 2
    image, brain = list(stack.images.values())[-1][middle], stack.brain[middle]
    if not brain.any():
        return np.zeros(LESION_MAP_SHAPE, np.float32)
    low, high = np.percentile(image[brain], [1, 99])
    return _crop_to_brain(stack, np.where(brain, np.clip((image - low) / max(high - low, 1e-6), 0.05, 1), 0))


def _read_split_parts(cohort: Cohort) -> dict[str, list[str]]:
    """Read split and folds from ``folds.json``, without rejected patients; empty if there is no such file."""
    path = cohort.folder / "folds.json"
    if not path.is_file():
        return {}
    drawn = read_json(path, is_valid_folds_record)
    parts = {name: drawn[name] for name in ("train", "validation", "test")}
    parts |= {f"fold {number}": fold for number, fold in enumerate(drawn.get("folds", []), start=1)}
    kept = set(cohort.patient_ids)
    return {name: [patient for patient in part if patient in kept] for name, part in parts.items()}


# --- counting ---------------------------------------------------------------------------------------


def create_table_2_1(patients: Sequence[PatientSummary]) -> list[BinaryCount]:
    """Create table 2-1 of method.md: age at or above 45 years and the cohort's mean, sex, and markers."""
    ages = [person.clinical.age for person in patients]
    known = [age for age in ages if age is not None]
    lines = [
        _count_coded(
            f"age >= {AGE_CUTOFF_YEARS:g} years",
            [None if a is None else int(a >= AGE_CUTOFF_YEARS) for a in ages],
        )
    ]
    if known:
        mean = float(np.mean(known))
        own = [None if age is None else int(age >= mean) for age in ages]
        lines.append(_count_coded(f"age >= {mean:.1f} years (this cohort's mean)", own))
    lines.append(_count_coded("sex (1 female)", [person.clinical.sex for person in patients]))
    titles = {"ki67_high": f"Ki-67 (1 high, >= {KI67_CUTOFF_PERCENT:g} % unless given as 0/1)"}
    for name, title in MARKER_TITLES.items():
        lines.append(_count_coded(titles.get(name, title), [person.markers[name] for person in patients]))
    return lines


def _count_coded(characteristic: str, values: Sequence[int | None]) -> BinaryCount:
    counts = Counter(values)
    return BinaryCount(characteristic, counts[0], counts[1], counts[None])


def summarise_patients(
    patients: Sequence[PatientSummary], parts: Mapping[str, Sequence[str]]
) -> list[SummaryLine]:
    """Create all lines of the summary. parts: patient ids by name of a split part or fold."""
    lines = [*_summarise_clinical(patients), *_summarise_lesions(patients), *_summarise_sequences(patients)]
    for sequence in _list_sequences(patients):
        lines += _summarise_series(patients, sequence)
    return lines + _summarise_split_parts(patients, parts)


def _summarise_clinical(patients: Sequence[PatientSummary]) -> list[SummaryLine]:
    of = len(patients)
    lines = [_compute_quantiles("patients", "age (years)", [person.clinical.age for person in patients])]
    for title, code in (("male", 0), ("female", 1), ("missing", None)):
        lines.append(SummaryLine("patients", "sex", title, sum(p.clinical.sex == code for p in patients), of))
    for name, title in MARKER_TITLES.items():
        values = [person.markers[name] for person in patients]
        if any(value is not None for value in values):
            for level, value in (("yes", 1), ("no", 0), ("missing", None)):
                lines.append(SummaryLine("markers", title, level, values.count(value), of))
    for column in _list_free_columns(patients):
        lines += _summarise_column(column, [person.clinical.columns.get(column) for person in patients])
    return lines


def _list_free_columns(patients: Sequence[PatientSummary]) -> list[str]:
    """List the columns of the clinical table that are not markers, in the table's order."""
    names = dict.fromkeys(name for person in patients for name in person.clinical.columns)
    return [name for name in names if name not in MARKER_TITLES]


def _summarise_column(column: str, cells: Sequence[str | None]) -> list[SummaryLine]:
    """Summarise a column: quantiles of a numeric column with more than 5 values, otherwise the count of each value."""
    numbers, known = [_parse_number(cell) for cell in cells], [cell for cell in cells if cell]
    numeric = all(number is not None for cell, number in zip(cells, numbers, strict=True) if cell)
    if numeric and len(set(numbers) - {None}) > 5:
        return [_compute_quantiles("further columns", column, numbers)]
    levels = Counter(f"{_parse_number(cell):g}" if numeric else cell for cell in known).most_common()
    lines = [
        SummaryLine("further columns", column, str(level), n, len(cells))
        for level, n in sorted(levels[:MAX_COLUMN_LEVELS])
    ]
    if len(levels) > MAX_COLUMN_LEVELS:
        rest = sum(n for _, n in levels[MAX_COLUMN_LEVELS:])
        lines.append(
            SummaryLine(
                "further columns", column, f"{len(levels) - MAX_COLUMN_LEVELS} other values", rest, len(cells)
            )
        )
    return [*lines, SummaryLine("further columns", column, "missing", len(cells) - len(known), len(cells))]


def _summarise_lesions(patients: Sequence[PatientSummary]) -> list[SummaryLine]:
    without = sum(not person.lesion_slice_count for person in patients)
    return [
        _compute_quantiles("lesion", "volume (ml)", [person.lesion_volume_ml for person in patients]),
        _compute_quantiles(
            "lesion", "slices with lesion per patient", [person.lesion_slice_count for person in patients]
        ),
        _compute_quantiles("lesion", "slices per patient", [person.slice_count for person in patients]),
        SummaryLine("lesion", "no lesion drawn", "", without, len(patients)),
    ]


def _list_sequences(patients: Sequence[PatientSummary]) -> list[str]:
    return sorted({name for person in patients for name in person.record["sequences"]})


def _summarise_sequences(patients: Sequence[PatientSummary]) -> list[SummaryLine]:
    return [
        SummaryLine("sequences", name, level, n, len(patients))
        for name in _list_sequences(patients)
        for present in [sum(name in person.record["sequences"] for person in patients)]
        for level, n in (("present", present), ("missing", len(patients) - present))
    ]


def _summarise_series(patients: Sequence[PatientSummary], sequence: str) -> list[SummaryLine]:
    """Summarise scanner, matrix, spacing and timing of one sequence, over the patients who have it."""
    found = [
        _get_series_record(person, sequence) for person in patients if sequence in person.record["sequences"]
    ]
    section, of = f"series {sequence}", len(found)
    scanners = Counter(format_scanner(series) for series in found)
    matrices = Counter(_format_matrix(series) for series in found)
    lines = [SummaryLine(section, "scanner", name, n, of) for name, n in scanners.most_common()]
    lines += [SummaryLine(section, "matrix", name, n, of) for name, n in matrices.most_common()]
    for axis, title in enumerate(("row step (mm)", "column step (mm)", "slice step (mm)")):
        lines.append(_compute_quantiles(section, title, [_get_spacing(series, axis) for series in found]))
    lines.append(_compute_quantiles(section, "slices", [series.get("slices") for series in found]))
    return lines + [
        _compute_quantiles(section, name.replace("_", " (") + ")", [s.get(name) for s in found])
        for name in TIMING_FIELDS
    ]


def _get_series_record(person: PatientSummary, sequence: str) -> Mapping[str, Any]:
    return (person.record.get("series") or {}).get(sequence) or {}


def format_scanner(series: Mapping[str, Any]) -> str:
    """Format manufacturer, model and field strength of a series' record; "not stated" if nothing is known."""
    maker, model, field = (series.get(name) for name in SCANNER_FIELDS)
    words = [str(word) for word in (maker, model) if word] + ([f"{field:g} T"] if field else [])
    return " ".join(words) or "not stated"


def _format_matrix(series: Mapping[str, Any]) -> str:
    matrix = series.get("matrix")
    return f"{matrix[0]} x {matrix[1]}" if matrix else "not stated"


def _get_spacing(series: Mapping[str, Any], axis: int) -> float | None:
    spacing_mm: float | None = (series.get("spacing_mm") or [None] * 3)[axis]
    return spacing_mm


def _summarise_split_parts(
    patients: Sequence[PatientSummary], parts: Mapping[str, Sequence[str]]
) -> list[SummaryLine]:
    """Summarise the size of each part and the proportion of each marker among patients with a known value."""
    by_id = {person.clinical.patient_id: person for person in patients}
    lines = []
    for part, part_ids in parts.items():
        lines.append(SummaryLine("split and folds", part, "patients", len(part_ids), len(patients)))
        for name, title in MARKER_TITLES.items():
            known = [v for v in (by_id[patient].markers[name] for patient in part_ids) if v is not None]
            if known:
                lines.append(
                    SummaryLine("split and folds", part, f"{title} (of those known)", sum(known), len(known))
                )
    return lines


def _compute_quantiles(section: str, variable: str, values: Iterable[float | None]) -> SummaryLine:
    """Compute median, quartiles and range of the known values."""
    all_values = list(values)
    known = [float(value) for value in all_values if value is not None]
    if not known:
        return SummaryLine(section, variable, "", 0, len(all_values))
    low, q1, median, q3, high = (float(q) for q in np.percentile(known, [0, 25, 50, 75, 100]))
    return SummaryLine(section, variable, "", len(known), len(all_values), median, q1, q3, low, high)


# --- tables as csv ----------------------------------------------------------------------------------


def _format_table_csv(table: Sequence[BinaryCount]) -> str:
    rows = [["characteristic", "coded_0", "coded_1", "missing", "n", "share_1_of_known"]]
    for line in table:
        known = line.count_0 + line.count_1
        share = f"{line.count_1 / known:.4f}" if known else ""
        rows.append(
            [line.characteristic, *map(str, (line.count_0, line.count_1, line.missing, known)), share]
        )
    return _format_csv(rows)


def _format_summary_csv(lines: Sequence[SummaryLine]) -> str:
    rows: list[list[str]] = [
        ["section", "variable", "level", "n", "of", "share", *"median q1 q3 min max".split()]
    ]
    for line in lines:
        numbers = (line.share, line.median, line.q1, line.q3, line.minimum, line.maximum)
        shown = ["" if number is None else f"{number:.4g}" for number in numbers]
        rows.append([line.section, line.variable, line.level, str(line.count), str(line.total), *shown])
    return _format_csv(rows)


def _format_cohort_csv(patients: Sequence[PatientSummary]) -> str:
    """Format one row per patient: the clinical table and measurements of the images."""
    columns = list(dict.fromkeys(name for person in patients for name in person.clinical.columns))
    rows = [["id", "age", "sex", *columns, "sequences", "slices", "lesion_slices", "lesion_volume_ml"]]
    for person in patients:
        clinical = person.clinical
        measured = (person.slice_count, person.lesion_slice_count, person.lesion_volume_ml)
        cells = [clinical.patient_id, _format_number(clinical.age), _format_number(clinical.sex)]
        cells += [clinical.columns.get(name, "") for name in columns]
        rows.append([*cells, " ".join(person.record["sequences"]), *map(_format_number, measured)])
    return _format_csv(rows)


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _format_csv(rows: Sequence[Sequence[str]]) -> str:
    return "\ufeff" + format_csv(rows)


# --- plots ------------------------------------------------------------------------------------------


def _draw_plots(patients: Sequence[PatientSummary]) -> list[tuple[str, Markup]]:
    """Draw every plot for which there are data, as (caption, SVG)."""
    drawn = [
        _draw_age_plot(patients),
        _draw_ki67_plot(patients),
        _draw_volume_plot(patients),
        _draw_lesion_map(patients),
    ]
    drawn += [_draw_spacing_plot(patients), _draw_marker_pairs(patients)]
    return [plot for plot in drawn if plot is not None]


CaptionedPlot = tuple[str, Markup] | None


def _draw_age_plot(patients: Sequence[PatientSummary]) -> CaptionedPlot:
    groups = {
        title: [p.clinical.age for p in patients if p.clinical.sex == code and p.clinical.age is not None]
        for title, code in (("male", 0), ("female", 1), ("sex unknown", None))
    }
    groups = {f"{title} (n = {len(ages)})": ages for title, ages in groups.items() if ages}
    if not groups:
        return None
    n = sum(map(len, groups.values()))

    def draw(axes: Any) -> None:
        colours = [ACCENT_COLOUR, SECOND_COLOUR, "#9aa5ab"][: len(groups)]
        axes.hist(
            list(groups.values()), bins=range(0, 101, 5), stacked=True, color=colours, label=list(groups)
        )
        axes.set(xlabel="age (years)", ylabel="patients", xlim=(10, 95))
        axes.legend(frameon=False, fontsize=8)

    return f"Age by sex, n = {n}", render_inline_svg(draw)


def _draw_ki67_plot(patients: Sequence[PatientSummary]) -> CaptionedPlot:
    values = [v for v in (_parse_number(p.clinical.columns.get("ki67")) for p in patients) if v is not None]
    if not values:
        return None

    def draw(axes: Any) -> None:
        axes.hist(values, bins=range(0, 101, 5), color=ACCENT_COLOUR)
        axes.axvline(KI67_CUTOFF_PERCENT, color=TEXT_COLOUR, linewidth=1, linestyle="--")
        axes.set(xlabel=f"Ki-67 (%), dashed line: cutoff {KI67_CUTOFF_PERCENT:g} %", ylabel="patients")

    return f"Ki-67, n = {len(values)}", render_inline_svg(draw)


def _draw_volume_plot(patients: Sequence[PatientSummary]) -> CaptionedPlot:
    values = [person.lesion_volume_ml for person in patients if person.lesion_volume_ml]
    if not values:
        return None

    def draw(axes: Any) -> None:
        axes.hist(values, bins=np.geomspace(min(values) * 0.99, max(values) * 1.01, 13), color=ACCENT_COLOUR)
        axes.set(xscale="log", xlabel="lesion volume (ml, logarithmic)", ylabel="patients")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")

    return f"Lesion volume, n = {len(values)}", render_inline_svg(draw)


def _draw_spacing_plot(patients: Sequence[PatientSummary]) -> CaptionedPlot:
    points = {
        name: [
            s["spacing_mm"] for s in (_get_series_record(p, name) for p in patients) if s.get("spacing_mm")
        ]
        for name in _list_sequences(patients)
    }
    points = {name: found for name, found in points.items() if found}
    if not points:
        return None

    def draw(axes: Any) -> None:
        jitter = np.random.default_rng(0)
        for number, (name, found) in enumerate(points.items()):
            rows, _, slices = np.array(found, float).T
            moved = slices + jitter.uniform(-0.06, 0.06, len(slices))
            colour = (ACCENT_COLOUR, SECOND_COLOUR, "#6d7f3c", "#8a5a83")[number % 4]
            axes.plot(
                rows, moved, "o", alpha=0.55, markersize=4, color=colour, label=f"{name} (n = {len(found)})"
            )
        axes.set(xlabel="pixel spacing (mm)", ylabel="slice spacing (mm)")
        axes.legend(frameon=False, fontsize=8)

    return f"Spacing as acquired, n = {sum(map(len, points.values()))} series", render_inline_svg(draw)


def _draw_lesion_map(patients: Sequence[PatientSummary]) -> CaptionedPlot:
    maps = [p.lesion_map for p in patients if p.lesion_map is not None and p.lesion_slice_count]
    if not maps:
        return None
    share, brain = np.mean(maps, axis=0), np.mean([p.brain_map for p in patients], axis=0)

    def draw(axes: Any) -> None:
        axes.imshow(brain, cmap="gray", vmin=0, vmax=1.15 * float(brain.max() or 1))
        seen = np.ma.masked_less(100 * share, 0.5)
        image = axes.imshow(seen, cmap="inferno", alpha=0.62, vmin=0)
        axes.set(xticks=[], yticks=[], xlabel="radiological convention, anterior at the top")
        axes.figure.colorbar(image, ax=axes, label="patients with lesion (%)", shrink=0.85)
        axes.spines[:].set_visible(False)

    return (
        f"Lesion frequency map (all slices projected, brains scaled to one box), n = {len(maps)}",
        render_inline_svg(draw),
    )


def _draw_marker_pairs(patients: Sequence[PatientSummary]) -> CaptionedPlot:
    names = [name for name in MARKER_TITLES if any(person.markers[name] is not None for person in patients)]
    if len(names) < 2:
        return None
    cells = [[_count_marker_pair(patients, row, column) for column in names] for row in names]

    def draw(axes: Any) -> None:
        shares = np.array([[np.nan if not n else both / n for both, n in row] for row in cells])
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            both, n = cells[row][column]
            text = "–" if not n else f"{both}/{n}\n{share:.0%}"
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share > 0.6 else TEXT_COLOUR,
            )
        titles = [MARKER_TITLES[name].replace(" ", "\n") for name in names]
        axes.set(xticks=range(len(names)), yticks=range(len(names)), xticklabels=titles, yticklabels=titles)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)

    return (
        "Co-occurrence of markers: proportion of the row's patients positive for the column",
        render_inline_svg(draw),
    )


def _count_marker_pair(patients: Sequence[PatientSummary], row: str, column: str) -> tuple[int, int]:
    """Count patients with marker ``row``: those positive for ``column``, and those in whom it is known."""
    known = [p.markers[column] for p in patients if p.markers[row] == 1 and p.markers[column] is not None]
    return sum(value or 0 for value in known), len(known)


def _create_template_environment() -> Environment:
    """Create the template environment: HTML is escaped, since ids and notes may contain any character; Markdown not."""
    environment = Environment(
        loader=PackageLoader("gliomark.cohort"),
        autoescape=lambda name: bool(name and name.endswith("html.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _format_percent, "figure": _format_significant}
    return environment


def _format_percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _format_significant(value: float | None) -> str:
    """Format with three significant digits, never as a power of ten."""
    return "–" if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

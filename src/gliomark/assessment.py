"""``gliomark evaluate``: anybody's predictions against the truth, as tables and one page.

One row per patient: id, label, probability, and a site if there is one. Where a threshold is chosen, it says on
whom; every figure has its 95 % interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from gliomark.evaluation.calibration import (
    Bin,
    Recalibration,
    brier,
    calibration_bins,
    expected_calibration_error,
    net_benefit,
    recalibration,
)
from gliomark.evaluation.delong import AreaTest, delong, delong_test
from gliomark.evaluation.intervals import UNDEFINED, Interval, bootstrap
from gliomark.evaluation.metrics import at_threshold, auc, youden_threshold
from gliomark.files import atomic_write, remove_leftovers
from gliomark.reporting.page import page_environment
from gliomark.reporting.plots import ACCENT, SECOND, inline_plot
from gliomark.study import GliomarkError
from gliomark.tables import csv_text, read_records

TARGET_SENSITIVITY = 0.9
THRESHOLDS = np.linspace(0.01, 0.99, 99)
YES = frozenset({"1", "1.0", "yes", "true", "positive"})
NO = frozenset({"0", "0.0", "no", "false", "negative"})


@dataclass(frozen=True)
class Columns:
    """Which column is what, as the table spells it.

    site: None where there is none. predicted: a column that names the predicted class, where the
    probability is that class's and not the positive one's. where: column to value, the rows to take.
    """

    id: str = "id"
    label: str = "label"
    probability: str = "probability"
    site: str | None = None
    predicted: str | None = None
    where: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Predictions:
    """label ``(N,)`` 0 or 1, probability ``(N,)`` of 1, site ``(N,)`` names or None; ids are unique."""

    source: str
    ids: tuple[str, ...]
    label: NDArray[np.int64]
    probability: NDArray[np.float64]
    site: tuple[str, ...] | None


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does. chosen_on: whose patients the threshold was chosen by, in words."""

    name: str
    chosen_on: str
    threshold: float
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval
    accuracy: Interval
    kappa: float


@dataclass(frozen=True)
class Figures:
    """A group of patients: ranking and calibration. auc: DeLong's interval; auc_bootstrap and brier: by bootstrap."""

    group: str
    patients: int
    positive: int
    auc: Interval
    auc_bootstrap: Interval
    brier: Interval
    calibration: Recalibration
    ece: float


@dataclass(frozen=True)
class Comparison:
    """Two tables on the patients that both have. first, second: their areas there."""

    against: str
    patients: int
    first: Interval
    second: Interval
    test: AreaTest


@dataclass(frozen=True, eq=False)
class Assessment:
    """All that is told of one table of predictions."""

    predictions: Predictions
    overall: Figures
    points: tuple[OperatingPoint, ...]
    bins: tuple[Bin, ...]
    sites: tuple[Figures, ...]
    comparison: Comparison | None


# ---- reading ----------------------------------------------------------------------------------------


def read_predictions(path: Path, columns: Columns) -> Predictions:
    """Read a csv or xlsx. Raises GliomarkError, naming the row, for what is no prediction."""
    header, records = read_records(path)
    for name in (columns.id, columns.label, columns.probability, columns.site, columns.predicted):
        _check_column(path, header, name)
    for name, _ in columns.where:
        _check_column(path, header, name)
    rows = [dict(zip(header, record, strict=True)) for record in records]
    rows = [row for row in rows if all(row[name] == value for name, value in columns.where)]
    if not rows:
        asked = " and ".join(f"{name}={value}" for name, value in columns.where)
        raise GliomarkError(
            f"{path} has no rows{f' with {asked}' if asked else ''}; nothing can be evaluated."
        )
    ids = tuple(row[columns.id] for row in rows)
    if not all(ids):
        raise GliomarkError(f"{path} has a row without an id, the {ids.index('') + 1}. of them; fill it in.")
    twice = [patient for patient, count in Counter(ids).items() if count > 1]
    if twice:
        raise GliomarkError(
            f"{path} has {twice[0]} in {Counter(ids)[twice[0]]} rows; give one row per patient (fuse slices first)."
        )
    label = np.array([_class(row[columns.label], f"{path}, {row[columns.id]}: the label") for row in rows])
    probability = np.array([_probability(row, columns, path) for row in rows])
    if len(set(label.tolist())) < 2:
        raise GliomarkError(f"{path}: all {len(rows)} patients have the label {label[0]}; both are needed.")
    site = None if columns.site is None else tuple(row[columns.site] or "not stated" for row in rows)
    return Predictions(path.name, ids, label, probability, site)


def _check_column(path: Path, header: Sequence[str], name: str | None) -> None:
    if name is None:
        return
    if name not in header:
        raise GliomarkError(
            f"{path} has no column {name} (columns: {', '.join(header)}); name the right one."
        )
    if header.count(name) > 1:
        raise GliomarkError(f"{path} has the column {name} twice; keep one.")


def _class(text: str, where: str) -> int:
    if text.lower() in YES:
        return 1
    if text.lower() in NO:
        return 0
    raise GliomarkError(f"{where} is '{text}'; it must be 0 or 1, or no or yes.")


def _probability(row: Mapping[str, str], columns: Columns, path: Path) -> float:
    where = f"{path}, {row[columns.id]}"
    try:
        value = float(row[columns.probability])
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise GliomarkError(
            f"{where}: the probability is '{row[columns.probability]}'; it must be a number from 0 to 1."
        )
    if columns.predicted is None:
        return value
    return value if _class(row[columns.predicted], f"{where}: the prediction") else 1 - value


# ---- judging ----------------------------------------------------------------------------------------


def assess(
    predictions: Predictions, validation: Predictions | None = None, against: Predictions | None = None
) -> Assessment:
    """Everything about the predictions.

    validation: other patients, by whom the thresholds are chosen; without them they are chosen by the same
    patients, and said to be. against: another model's predictions of the same patients.
    Raises GliomarkError where a validation patient is judged too, or the two models' labels disagree.
    """
    if validation is not None and (both := set(validation.ids) & set(predictions.ids)):
        raise GliomarkError(
            f"{min(both)} stands in both {validation.source} and {predictions.source}; thresholds must be chosen on "
            "other patients than are judged."
        )
    label, probability = predictions.label, predictions.probability
    sites = sorted(set(predictions.site or ()))
    return Assessment(
        predictions,
        figures("all", label, probability),
        operating_points(predictions, validation),
        tuple(calibration_bins(label, probability)),
        tuple(_site(predictions, site) for site in sites),
        None if against is None else compare(predictions, against),
    )


def figures(group: str, label: NDArray, probability: NDArray) -> Figures:
    """One group's figures."""

    def by_bootstrap(statistic) -> Interval:
        return Interval(*bootstrap(statistic, label, probability, resamples=1000))

    return Figures(
        group,
        len(label),
        int(label.sum()),
        delong(label, probability),
        by_bootstrap(auc),
        by_bootstrap(brier),
        recalibration(label, probability),
        expected_calibration_error(label, probability),
    )


def _site(predictions: Predictions, site: str) -> Figures:
    here = np.array([name == site for name in predictions.site or ()])
    return figures(site, predictions.label[here], predictions.probability[here])


def operating_points(
    predictions: Predictions, validation: Predictions | None = None
) -> tuple[OperatingPoint, ...]:
    """Youden's threshold, the one of sensitivity 0.9, and 0.5."""
    chosen = predictions if validation is None else validation
    said = "the same patients: optimistic" if validation is None else f"{validation.source}, other patients"
    cuts = {
        "Youden": (said, youden_threshold(chosen.label, chosen.probability)),
        f"sensitivity {TARGET_SENSITIVITY:g}": (said, sensitive_threshold(chosen.label, chosen.probability)),
        "0.5": ("nobody: fixed", 0.5),
    }
    return tuple(
        _point(name, chosen_on, cut, predictions.label, predictions.probability)
        for name, (chosen_on, cut) in cuts.items()
    )


def sensitive_threshold(label: NDArray, probability: NDArray, target: float = TARGET_SENSITIVITY) -> float:
    """The highest threshold at which at least the target share of the positive is found."""
    positive = np.sort(probability[label == 1])
    missed = int(np.floor(round((1 - target) * len(positive), 9)))
    return float(positive[missed])


def _point(
    name: str, chosen_on: str, threshold: float, label: NDArray, probability: NDArray
) -> OperatingPoint:
    answer, truth = probability >= threshold, label == 1
    tp, tn = int((answer & truth).sum()), int((~answer & ~truth).sum())
    return OperatingPoint(
        name,
        chosen_on,
        threshold,
        sensitivity=_share(tp, int(truth.sum())),
        specificity=_share(tn, int((~truth).sum())),
        ppv=_share(tp, int(answer.sum())),
        npv=_share(tn, int((~answer).sum())),
        accuracy=_share(tp + tn, len(truth)),
        kappa=at_threshold(label, probability, threshold)["kappa"],
    )


def _share(count: int, of: int) -> Interval:
    """A proportion with Wilson's interval; nan of nobody."""
    if of == 0:
        return UNDEFINED
    low, high = binomtest(count, of).proportion_ci(method="wilson")
    return Interval(count / of, float(low), float(high))


def compare(first: Predictions, second: Predictions) -> Comparison:
    """DeLong's test on the patients in both tables. Raises GliomarkError where their labels disagree."""
    other = {patient: place for place, patient in enumerate(second.ids)}
    shared = [(place, other[patient]) for place, patient in enumerate(first.ids) if patient in other]
    if not shared:
        raise GliomarkError(
            f"{first.source} and {second.source} have no patient in common; compare the same patients."
        )
    own, their = (np.array(places) for places in zip(*shared, strict=True))
    label = first.label[own]
    unlike = np.flatnonzero(label != second.label[their])
    if len(unlike):
        raise GliomarkError(
            f"{first.ids[own[unlike[0]]]} has the label {label[unlike[0]]} in {first.source} and another in "
            f"{second.source}; compare predictions of one truth."
        )
    if len(set(label.tolist())) < 2:
        raise GliomarkError(
            f"{first.source} and {second.source} have {len(label)} patients in common, all of the label {label[0]}; "
            "both labels are needed."
        )
    one, two = first.probability[own], second.probability[their]
    return Comparison(
        second.source, len(label), delong(label, one), delong(label, two), delong_test(label, one, two)
    )


# ---- writing ----------------------------------------------------------------------------------------


def write_assessment(found: Assessment, out: Path) -> Path:
    """csv tables and ``evaluation.html`` into a folder; the page's path."""
    label, probability = found.predictions.label, found.predictions.probability
    tables: dict[str, list[dict[str, Any]]] = {
        "figures": [_flat(found.overall), *map(_flat, found.sites)],
        "operating_points": [_flat(point) for point in found.points],
        "calibration": [asdict(group) for group in found.bins],
        "decision_curve": _decision_rows(label, probability),
    }
    if found.comparison is not None:
        tables["comparison"] = [_flat(found.comparison)]
    environment = page_environment({"interval": _interval, "cell": _cell, "number": _number})
    plots = [
        ("ROC curve", inline_plot(lambda axes: _draw_roc(axes, found))),
        ("Calibration", inline_plot(lambda axes: _draw_calibration(axes, found.bins))),
        ("Decision curve", inline_plot(lambda axes: _draw_decision(axes, tables["decision_curve"]))),
    ]
    page = environment.get_template("evaluation.html.j2").render(found=found, plots=plots)
    # written once all is made: nothing is left half-done
    remove_leftovers(out)
    for name, rows in tables.items():
        atomic_write(out / f"{name}.csv", _csv_text(rows))
    return atomic_write(out / "evaluation.html", page)


def _flat(row: Any) -> dict[str, Any]:
    """A dataclass as one row of a table; intervals become three columns."""
    cells: dict[str, Any] = {}
    for name, value in vars(row).items():
        if isinstance(value, AreaTest | Recalibration):
            cells |= _flat(value)
        elif isinstance(value, Interval):
            cells |= {name: value.value, f"{name}_low_95": value.low, f"{name}_high_95": value.high}
        else:
            cells[name] = value
    return cells


def _decision_rows(label: NDArray, probability: NDArray) -> list[dict[str, float]]:
    model = net_benefit(label, probability, THRESHOLDS)
    everybody = net_benefit(label, np.ones(len(label)), THRESHOLDS)
    return [
        {"threshold": t, "model": m, "everybody": e, "nobody": 0.0}
        for t, m, e in zip(THRESHOLDS.tolist(), model.tolist(), everybody.tolist(), strict=True)
    ]


def _csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    header = list(rows[0])
    cells = [[row.get(name, "") for name in header] for row in rows]
    return csv_text([header, *([f"{c:.6g}" if isinstance(c, float) else c for c in row] for row in cells)])


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def _interval(value: Interval) -> str:
    if value.value != value.value:
        return "–"
    if value.low != value.low:
        return _number(value.value)
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _cell(value: Interval) -> Markup:
    """The interval under its value."""
    below = "" if value.low != value.low else f"<small>{value.low:.3f} to {value.high:.3f}</small>"
    return Markup(_number(value.value) + below)


def _draw_roc(axes: Any, found: Assessment) -> None:
    false, true, _ = roc_curve(found.predictions.label, found.predictions.probability)
    axes.plot([0, 1], [0, 1], color="#d9dfe3", lw=1)
    axes.plot(false, true, color=ACCENT, lw=1.6)
    for point in found.points:
        axes.plot(1 - point.specificity.value, point.sensitivity.value, "o", color=SECOND, ms=5)
        axes.annotate(
            point.name,
            (1 - point.specificity.value, point.sensitivity.value),
            (6, -9),
            textcoords="offset points",
        )
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.02))


def _draw_calibration(axes: Any, bins: Sequence[Bin]) -> None:
    axes.plot([0, 1], [0, 1], color="#d9dfe3", lw=1)
    shares = [_share(round(group.share * group.patients), group.patients) for group in bins]
    middle = np.array([s.value for s in shares])
    reach = np.abs(np.array([[s.low for s in shares], [s.high for s in shares]]) - middle)
    x = [group.probability for group in bins]
    axes.errorbar(x, middle, reach, fmt="o-", color=ACCENT, lw=1.2, ms=4, elinewidth=0.8)
    axes.set(xlabel="predicted probability", ylabel="share that is positive", xlim=(0, 1), ylim=(0, 1))


def _draw_decision(axes: Any, rows: Sequence[Mapping[str, float]]) -> None:
    x = [row["threshold"] for row in rows]
    for name, colour in (("nobody", "#9aa5ab"), ("everybody", SECOND), ("model", ACCENT)):
        axes.plot(x, [row[name] for row in rows], color=colour, lw=1.4, label=name)
    highest = max(row["model"] for row in rows)
    axes.set(
        xlabel="probability at which one would act",
        ylabel="net benefit",
        xlim=(0, 1),
        ylim=(-0.25 * highest - 0.02, 1.15 * highest + 0.02),
    )
    axes.legend(frameon=False, fontsize=8)

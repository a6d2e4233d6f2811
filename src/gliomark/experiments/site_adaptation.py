"""A model at a hospital: check it, refit it to local patients, and watch it over time (``gliomark site``)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import beta

from gliomark.errors import ConfigurationError, InputError
from gliomark.evaluation.calibrators import MIN_PATIENTS_FOR_CURVED_MAPS
from gliomark.evaluation.cusum import Cusum, CusumSettings, compute_cusum
from gliomark.evaluation.evaluate import (
    TARGET_SENSITIVITY,
    Evaluation,
    PredictionTable,
    compute_level_shares,
    compute_proportion,
    evaluate_predictions,
    find_threshold_at_sensitivity,
)
from gliomark.evaluation.intervals import UNDEFINED_INTERVAL, Interval
from gliomark.evaluation.site import estimate_chance_error, fit_site_settings
from gliomark.experiments.result_files import save_figure
from gliomark.experiments.site_patients import SitePatients
from gliomark.files import atomic_write
from gliomark.inference.patient_calibration import (
    calibrate_probabilities,
    compute_level_limits,
    create_patient_calibration,
)
from gliomark.messages import Message, message
from gliomark.models.card import SiteRecalibration
from gliomark.models.patient_calibration import SCORE_DECIMALS
from gliomark.models.weights import MarkerCard, Weights, save_weights
from gliomark.reporting.evaluation_page import write_evaluation
from gliomark.reporting.plots import ACCENT_COLOUR, SECOND_COLOUR
from gliomark.study import CANNOT_TELL, DEFAULT_COVERAGE
from gliomark.tables import format_csv

# share of the patients from which it is said that the model was refitted on them; a few may agree by chance
MIN_REFIT_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class SiteCheck:
    """How a model does at a hospital.

    Attributes
    ----------
    evaluation
        Of the calibrated probabilities, at the model's threshold.
    chance_error
        Expected calibration error that right probabilities would have by chance on as many patients.
    coverage
        By level: share of the patients with this level whose result is this level or "cannot tell"; undefined without
        limits in the weights file.
    cannot_tell
        Share of all patients.
    refitted_on
        Number of these patients on whom the model was refitted, see ``count_refit_patients``; it makes the results
        optimistic.
    """

    evaluation: Evaluation
    chance_error: float
    coverage: dict[str, Interval]
    cannot_tell: Interval
    refitted_on: int


def check_site(weights: Weights, marker: str, patients: SitePatients) -> SiteCheck:
    """Evaluate a marker on a hospital's patients.

    Raises
    ------
    InputError
        If all patients have the same level.
    """
    card, labels = weights.card.markers[marker], patients.labels
    if len(set(labels.tolist())) < 2:
        raise InputError(message("site-one-level", patients=len(labels), marker=marker))
    calibrated = calibrate_probabilities(card.patient_calibration, patients.probabilities)
    table = PredictionTable(f"{weights.card.name}, {marker}", patients.ids, labels, calibrated, None)
    shares = _compute_shares(card, labels, calibrated)
    return SiteCheck(
        evaluate_predictions(table, model_threshold=card.threshold),
        estimate_chance_error(calibrated),
        {level: shares[level] for level in (card.positive, card.negative)},
        shares[CANNOT_TELL],
        count_refit_patients(card, patients, calibrated),
    )


def count_refit_patients(card: MarkerCard, patients: SitePatients, calibrated: NDArray[np.float64]) -> int:
    """Count the patients on whom a marker was refitted: all of the same tables, otherwise those of the same score.

    calibrated ``(n,)``: their calibrated probabilities. A patient of the refit is recognised by level and score, which
    the weights file keeps.
    """
    if not card.recalibrations or card.patient_calibration is None:
        return 0
    if patients.sha256 in {one.table_sha256 for one in card.recalibrations}:
        return len(patients.ids)
    known = card.patient_calibration
    return sum(
        (
            Counter(calibrated[patients.labels == label].round(SCORE_DECIMALS).tolist()) & Counter(scores)
        ).total()
        for label, scores in ((1, known.positive_scores), (0, known.negative_scores))
    )


def _describe_refit_patients(count: int, patients: int) -> list[str]:
    """Describe that a model was refitted on most of the patients; nothing otherwise."""
    if count == patients:
        return [message("site-same-patients")]
    if count >= MIN_REFIT_SHARE * patients:
        return [message("site-refitted-on-some", count=count, patients=patients)]
    return []


def _compute_shares(
    card: MarkerCard, labels: NDArray[np.int64], calibrated: NDArray[np.float64]
) -> dict[str, Interval]:
    """Compute the coverage of either level and the share of "cannot tell"; undefined without limits."""
    if card.patient_calibration is None:
        return dict.fromkeys((card.positive, card.negative, CANNOT_TELL), UNDEFINED_INTERVAL)
    limits = compute_level_limits(card.patient_calibration)
    levels = [limits.decide(one, card.positive, card.negative) for one in calibrated.tolist()]
    return compute_level_shares(levels, labels, card.positive, card.negative)


def write_site_check(check: SiteCheck, output_folder: Path) -> Path:
    """Write ``site_check.csv`` (quantity, value, 95 % interval), and tables and page of the evaluation; the page."""
    page = write_evaluation(check.evaluation, output_folder, _list_coverage(check))
    rows = [
        [name, *(_format(value) for value in (one.value, one.lower, one.upper))]
        for name, one in _list_quantities(check).items()
    ]
    table = [["quantity", "value", "low_95", "high_95"], *rows]
    atomic_write(output_folder / "site_check.csv", format_csv(table))
    return page


def describe_site_check(check: SiteCheck) -> list[str]:
    """Describe the results in lines for the terminal."""
    overall = check.evaluation.overall_statistics
    lines: list[str] = [
        message("site-checked", patients=overall.patients, positives=overall.positive),
        *(
            message("site-quantity", name=name, value=one.value, low=one.lower, high=one.upper)
            for name, one in _list_quantities(check).items()
            if np.isfinite(one.value)
        ),
    ]
    return lines + _describe_refit_patients(check.refitted_on, overall.patients)


def _list_coverage(check: SiteCheck) -> dict[str, Interval]:
    """List the coverage of either level and the share of "cannot tell"; nothing without limits."""
    if not np.isfinite(check.cannot_tell.value):
        return {}
    return {
        **{f"coverage, {level}": one for level, one in check.coverage.items()},
        CANNOT_TELL: check.cannot_tell,
    }


def _list_quantities(check: SiteCheck) -> dict[str, Interval]:
    overall, point = check.evaluation.overall_statistics, check.evaluation.operating_points[0]
    return {
        "AUC": overall.auc,
        "sensitivity": point.sensitivity,
        "specificity": point.specificity,
        "calibration slope": overall.calibration.slope,
        "calibration in the large": overall.calibration.in_the_large,
        "calibration error": _without_interval(overall.ece),
        "calibration error by chance": _without_interval(check.chance_error),
        **_list_coverage(check),
    }


def _without_interval(value: float) -> Interval:
    return replace(UNDEFINED_INTERVAL, value=value)


def _format(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


# ---- recalibration ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecalibrationRequest:
    """site: name of the hospital; person: who refits the model. Both are kept in the weights file."""

    site: str
    person: str


def recalibrate(
    weights: Weights, marker: str, patients: SitePatients, request: RecalibrationRequest
) -> MarkerCard:
    """Refit calibration, threshold and the limits of "cannot tell" of a marker to a hospital's patients.

    The networks and trees stay as they are. The threshold is that of a sensitivity of 0.9 in these patients.

    Returns
    -------
    MarkerCard
        With the history, one entry longer.

    Raises
    ------
    InputError
        If there are fewer than 30 patients or fewer than five of a level.
    ConfigurationError
        If the site or the person is not named.
    """
    if not request.site.strip() or not request.person.strip():
        raise ConfigurationError(message("site-unnamed"))
    card = weights.card.markers[marker]
    settings = fit_site_settings(patients.labels, patients.probabilities)
    calibration = create_patient_calibration(
        settings.calibrator, patients.labels, patients.probabilities, request.site
    )
    record = SiteRecalibration(
        site=request.site,
        person=request.person,
        date=datetime.now(UTC).date().isoformat(),
        patients=settings.patients,
        positives=settings.positives,
        table_sha256=patients.sha256,
        previous_sha256=weights.sha256,
    )
    return replace(
        card,
        # of the stored scores, which are rounded: a patient on the threshold stays positive
        threshold=find_threshold_at_sensitivity(*calibration.get_labels_and_scores(), TARGET_SENSITIVITY),
        patient_calibration=calibration,
        recalibrations=(*card.recalibrations, record),
    )


def write_recalibrated(weights: Weights, marker: str, card: MarkerCard, path: Path) -> Path:
    """Write a new weights file with another card of a marker; the networks are the same. Return its path.

    Raises
    ------
    ConfigurationError
        If the path is that of the model itself, which would lose the model from before.
    """
    if path.exists() and weights.path.exists() and path.samefile(weights.path):
        raise ConfigurationError(message("site-same-file", path=path))
    markers = {**weights.card.markers, marker: card}
    save_weights(path, replace(weights.card, markers=markers), dict(weights.tensors))
    return path


def describe_support(card: MarkerCard, coverage: float = DEFAULT_COVERAGE) -> list[Message]:
    """Describe what so few patients can and cannot support, from the card of ``recalibrate``."""
    record = card.recalibrations[-1]
    by_level = {
        card.positive: record.positives,
        card.negative: record.patients - record.positives,
    }
    lines = [message("site-refitted", site=record.site, patients=record.patients, positives=record.positives)]
    few = record.patients < MIN_PATIENTS_FOR_CURVED_MAPS
    lines.append(message("site-straight-maps" if few else "site-all-maps", patients=record.patients))
    sensitivity = compute_proportion(round(TARGET_SENSITIVITY * record.positives), record.positives)
    lines.append(message("site-sensitivity", low=sensitivity.lower, high=sensitivity.upper))
    for level, count in by_level.items():
        low, high = compute_coverage_range(count, coverage)
        lines.append(message("site-coverage", level=level, count=count, share=coverage, low=low, high=high))
    return lines


def compute_coverage_range(count: int, coverage: float = DEFAULT_COVERAGE) -> tuple[float, float]:
    """Compute the range in which the true coverage of conformal limits lies with a probability of 95 %.

    For limits from ``count`` patients of a class it follows a beta distribution (Vovk 2012). With too few patients for
    any limit, all are covered.
    """
    rank = int(np.ceil(round((count + 1) * coverage, 9)))
    if rank > count:
        return 1.0, 1.0
    low, high = beta.ppf([0.025, 0.975], rank, count + 1 - rank)
    return float(low), float(high)


# ---- monitoring -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SiteMonitoring:
    """patients: in order of time. probabilities ``(n,)``: calibrated. course: see ``Cusum``.

    refitted_on: as in ``SiteCheck``.
    """

    patients: SitePatients
    probabilities: NDArray[np.float64]
    settings: CusumSettings
    course: Cusum
    refitted_on: int = 0


def monitor_site(
    weights: Weights, marker: str, patients: SitePatients, settings: CusumSettings = CusumSettings()
) -> SiteMonitoring:
    """Compare what pathology found with the calibrated probabilities over time.

    Raises
    ------
    ConfigurationError
        If the patients have no dates.
    """
    if not patients.dates:
        raise ConfigurationError(message("site-no-dates"))
    card = weights.card.markers[marker]
    calibrated = calibrate_probabilities(card.patient_calibration, patients.probabilities)
    course = compute_cusum(patients.labels, calibrated, settings)
    return SiteMonitoring(
        patients, calibrated, settings, course, count_refit_patients(card, patients, calibrated)
    )


def write_monitoring(monitoring: SiteMonitoring, output_folder: Path) -> Path:
    """Write ``monitoring.csv``, a row per patient, and the chart ``monitoring.png``; the path of the table."""
    course, patients = monitoring.course, monitoring.patients
    alarms = {one.index: one.direction for one in course.alarms}
    header = "date,id,label,probability,observed_minus_expected,more,fewer,limit,alarm".split(",")
    rows: list[list[Any]] = [
        [
            patients.dates[at].isoformat(),
            patients.ids[at],
            int(patients.labels[at]),
            *(
                _format(value)
                for value in (
                    monitoring.probabilities[at],
                    course.observed_minus_expected[at],
                    course.more[at],
                    course.fewer[at],
                    course.limit,
                )
            ),
            alarms.get(at, ""),
        ]
        for at in range(len(patients.ids))
    ]
    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    _draw_chart(figure.subplots(), monitoring)
    save_figure(figure, output_folder / "monitoring.png")
    return atomic_write(output_folder / "monitoring.csv", format_csv([header, *rows]))


def describe_monitoring(monitoring: SiteMonitoring) -> list[str]:
    """Describe the results in lines for the terminal."""
    course, patients, settings = monitoring.course, monitoring.patients, monitoring.settings
    lines: list[str] = [
        message(
            "site-monitored",
            patients=len(patients.ids),
            observed=int(patients.labels.sum()),
            expected=float(monitoring.probabilities.sum()),
            rate=settings.false_alarm_rate,
            horizon=settings.horizon,
        ),
        *_describe_refit_patients(monitoring.refitted_on, len(patients.ids)),
    ]
    if not course.alarms:
        return [*lines, message("site-no-alarm")]
    return lines + [
        message(
            f"site-alarm-{one.direction}", date=patients.dates[one.index].isoformat(), number=one.index + 1
        )
        for one in course.alarms
    ]


def _draw_chart(axes: Axes, monitoring: SiteMonitoring) -> None:
    course, days = monitoring.course, np.array(monitoring.patients.dates, "datetime64[D]")
    for name, values, colour in (
        ("more", course.more, SECOND_COLOUR),
        ("fewer", course.fewer, ACCENT_COLOUR),
    ):
        axes.step(days, values, where="post", color=colour, lw=1.4, label=f"evidence for {name} than stated")
    axes.axhline(course.limit, color="#9aa5ab", lw=1, ls="--", label="alarm limit")
    for alarm in course.alarms:
        axes.plot(
            days[alarm.index], max(course.more[alarm.index], course.fewer[alarm.index]), "v", color="#b3261e"
        )
    axes.set(ylabel="CUSUM", ylim=(0, 1.25 * max(course.limit, course.more.max(), course.fewer.max())))
    other = axes.twinx()
    other.spines[["top"]].set_visible(False)
    other.plot(days, course.observed_minus_expected, color="#9aa5ab", lw=1)
    other.set_ylabel("observed − expected (grey)")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.tick_params(axis="x", labelrotation=30)

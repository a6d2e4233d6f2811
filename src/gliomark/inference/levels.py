"""Decide a marker's level from the patient's probability, and describe in words how it was decided."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gliomark.errors import ConfigurationError
from gliomark.evaluation.calibrators import check_prevalence
from gliomark.evaluation.conformal import check_coverage
from gliomark.inference.patient_calibration import calibrate_probabilities, compute_level_limits
from gliomark.messages import find_level_message, find_message_for_text, format_percent, message
from gliomark.models.card import MarkerCard, MarkerValidation
from gliomark.models.patient_calibration import PatientCalibration
from gliomark.prediction import CalibrationSummary, LevelLimits, MarkerPrediction
from gliomark.study import CANNOT_TELL, DEFAULT_COVERAGE

BORDERLINE_MARGIN = 0.05  # within this distance of the threshold a level is marked as borderline
ANY_MARKER = ""  # in ``LevelOptions``: the model's only marker


@dataclass(frozen=True)
class LevelOptions:
    """How the levels of a model with patient-level calibration are decided.

    Attributes
    ----------
    coverage
        Share of the patients of either class for whom the true level is among the possible ones.
    prevalence
        Share of positives among the patients to be predicted, by marker; ``ANY_MARKER`` for a model with one marker.
        Markers that are not named keep the share of their calibration.

    Raises
    ------
    ConfigurationError
        If a value is out of its range.
    """

    coverage: float = DEFAULT_COVERAGE
    prevalence: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_coverage(self.coverage)
        for share in self.prevalence.values():
            check_prevalence(share)

    def get_prevalence(self, marker: str) -> float | None:
        """Return the share of positives that is given for a marker; None if none is."""
        return self.prevalence.get(marker, self.prevalence.get(ANY_MARKER))


def parse_prevalence(texts: Sequence[str]) -> dict[str, float]:
    """Parse shares of positive patients: "0.3" of the model's only marker, or "idh=0.3".

    Raises
    ------
    ConfigurationError
        If a text is neither.
    """
    shares = {}
    for text in texts:
        name, has_name, share = text.rpartition("=")
        try:
            shares[name.strip() if has_name else ANY_MARKER] = float(share)
        except ValueError:
            raise ConfigurationError(message("prevalence-not-understood", given=text)) from None
    return shares


def check_level_options(options: LevelOptions, markers: Mapping[str, MarkerCard]) -> None:
    """Check that a model can follow the options.

    Parameters
    ----------
    options
        The options.
    markers
        Cards of the model's markers.

    Raises
    ------
    ConfigurationError
        If a prevalence is given for an unknown marker, for one without calibration, or without naming one of several;
        or a coverage without any calibration.
    """
    calibrated = [name for name, card in markers.items() if card.patient_calibration is not None]
    if options.coverage != DEFAULT_COVERAGE and not calibrated:
        raise ConfigurationError(message("coverage-without-calibration"))
    for name in options.prevalence:
        _check_prevalence_marker(name, markers, calibrated)


def _check_prevalence_marker(
    name: str, markers: Mapping[str, MarkerCard], calibrated: Collection[str]
) -> None:
    known = ", ".join(markers) or "–"
    if name == ANY_MARKER:
        if len(markers) != 1:
            raise ConfigurationError(message("prevalence-of-which-marker", known=known))
        (name,) = markers
    if name not in markers:
        raise ConfigurationError(message("prevalence-of-unknown-marker", name=name, known=known))
    if name not in calibrated:
        raise ConfigurationError(message("prevalence-without-calibration", name=name))


def decide_level(
    marker_prediction: MarkerPrediction, card: MarkerCard, levels: LevelOptions
) -> MarkerPrediction:
    """Decide the level of a prediction from its raw probability.

    The limits of the patient-level calibration decide; in older models, which have none, the threshold.

    Parameters
    ----------
    marker_prediction
        With ``raw_probability``.
    card
        Of a validated marker.
    levels
        Coverage and prevalence.
    """
    if card.patient_calibration is not None:
        return _decide_by_limits(marker_prediction, card, card.patient_calibration, levels)
    probability = marker_prediction.raw_probability
    assert card.validation is not None and probability is not None
    is_borderline = abs(probability - card.threshold) <= BORDERLINE_MARGIN
    return replace(
        marker_prediction,
        probability=probability,
        level=card.positive if probability >= card.threshold else card.negative,
        borderline=is_borderline,
        threshold=card.threshold,
        threshold_origin=_describe_threshold(card, card.validation),
        warnings=(message("borderline", margin=100 * BORDERLINE_MARGIN),) if is_borderline else (),
    )


def _decide_by_limits(
    marker_prediction: MarkerPrediction,
    card: MarkerCard,
    calibration: PatientCalibration,
    levels: LevelOptions,
) -> MarkerPrediction:
    """Calibrate the probability, and state a level or "cannot tell"."""
    raw = marker_prediction.raw_probability
    assert raw is not None
    prevalence = levels.get_prevalence(marker_prediction.marker)
    probability = float(calibrate_probabilities(calibration, raw, prevalence))
    limits = compute_level_limits(calibration, levels.coverage, prevalence)
    level = limits.decide(probability, card.positive, card.negative)
    words = {
        "positive": find_level_message(card.positive),
        "negative": find_level_message(card.negative),
    }
    summary = CalibrationSummary(
        calibration.method,
        calibration.cohort,
        calibration.prevalence,
        calibration.prevalence if prevalence is None else prevalence,
    )
    unsure = message("cannot-tell", probability=format_percent(probability), **words)
    return replace(
        marker_prediction,
        probability=probability,
        level=level,
        limits=limits,
        limits_in_words=describe_limits(limits, words),
        calibration=summary,
        calibration_in_words=describe_calibration(calibration, words["positive"], raw, prevalence),
        warnings=(unsure,) if level == CANNOT_TELL else (),
    )


def describe_limits(limits: LevelLimits, words: Mapping[str, str]) -> str:
    """Describe from which probability a level is stated, or that a class has too few patients for it.

    words: the names of the levels, "positive" and "negative".
    """
    is_negative_stated, is_positive_stated = limits.negative_below > 0, limits.positive_above < 1
    code = {
        (True, True): "limits",
        (False, True): "limits-positive-only",
        (True, False): "limits-negative-only",
        (False, False): "limits-none",
    }[is_negative_stated, is_positive_stated]
    return message(
        code,
        lower=format_percent(limits.negative_below),
        upper=format_percent(limits.positive_above),
        error=f"{100 * (1 - limits.coverage):.3g} %",
        coverage=f"{100 * limits.coverage:.3g} %",
        positives=limits.positives,
        negatives=limits.negatives,
        **words,
    )


def describe_calibration(
    calibration: PatientCalibration, positive: str, raw: float | None = None, prevalence: float | None = None
) -> str:
    """Describe a calibration and the share of positives for which it holds.

    Parameters
    ----------
    calibration
        From the weights file.
    positive
        Name of the positive level.
    raw
        A patient's probability before calibration, which is then stated; None: the calibration in general.
    prevalence
        Share of positives to which the probability was corrected.
    """
    share = format_percent(calibration.prevalence)
    basis = message("prevalence-of-calibration", share=share, positive=positive)
    if prevalence is not None:
        basis = message(
            "prevalence-corrected", prevalence=format_percent(prevalence), share=share, positive=positive
        )
    is_mapped, before = calibration.method != "none", ""
    if raw is None:
        pass
    elif is_mapped:
        before = message("probability-before-calibration", raw=format_percent(raw))
    elif prevalence is not None:
        before = message("probability-before-correction", raw=format_percent(raw))
    return message(
        "calibrated" if is_mapped else "calibration-unchanged",
        method=message(f"method-{calibration.method}"),
        patients=calibration.patients,
        cohort=find_message_for_text(calibration.cohort, "cohort-synthetic-test-set"),
        basis=basis,
        before=before,
    )


def _describe_threshold(card: MarkerCard, validation: MarkerValidation) -> str:
    return message(
        "threshold-origin",
        threshold=format_percent(card.threshold),
        positives=validation.positives,
        patients=validation.patients,
        share=format_percent(validation.positives / validation.patients),
        positive=find_level_message(card.positive),
        negative=find_level_message(card.negative),
    )

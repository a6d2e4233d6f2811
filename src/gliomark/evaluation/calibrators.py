"""Calibration maps: from a model's probability to one that means what it says on patients like those of the fit.

Every map is monotone, so that calibration never changes which of two patients has the higher probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from gliomark.errors import ConfigurationError
from gliomark.messages import message

DoubleArray = NDArray[np.float64]
# of isotonic calibration: change of the value beyond the centre of an outermost step, as a share of what is left to 0
# or 1
OUTER_SLOPE = 0.01
CalibrationMethod = Literal["none", "shift", "temperature", "platt", "beta", "isotonic"]
# from the fewest parameters to the most
CALIBRATION_METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)
MIN_PROBABILITY = 1e-6  # the logit of 0 and 1 is infinite
# with fewer patients, the maps with more than two parameters follow chance
MIN_PATIENTS_FOR_CURVED_MAPS = 100
STRAIGHT_MAPS = CALIBRATION_METHODS[: CALIBRATION_METHODS.index("beta")]
CROSS_VALIDATION_FOLDS = 5
CROSS_VALIDATION_REPEATS = 2


@dataclass(frozen=True)
class Calibrator:
    """A calibration map.

    Attributes
    ----------
    method
        "none"; "shift": b + z of the log-odds z, for another prevalence; "temperature": a z (Guo et al. 2017); "platt":
        a z + b (Platt 1999); "beta": a ln p - b ln(1 - p) + c (Kull et al. 2017); "isotonic": linear between the
        centres of the steps (Zadrozny and Elkan 2002).
    parameters
        (b), (a), (a, b), (a, b, c), or for "isotonic" all probabilities and then as many calibrated ones.
    """

    method: CalibrationMethod = "none"
    parameters: tuple[float, ...] = ()

    def apply(self, probability: ArrayLike) -> DoubleArray:
        """Return the calibrated probabilities of probabilities of any shape, all 0 to 1."""
        score = np.asarray(probability, float)
        if self.method == "none":
            return score
        if self.method == "isotonic":
            knots, values = np.split(np.asarray(self.parameters), 2)
            return np.asarray(np.interp(score, knots, values), float)
        return np.asarray(
            expit(_compute_features(self.method, score) @ np.array([*self.parameters, 1.0])), float
        )


def fit_calibrator(method: CalibrationMethod, label: ArrayLike, probability: ArrayLike) -> Calibrator:
    """Fit a calibration map by maximum likelihood.

    Parameters
    ----------
    method
        See ``Calibrator``.
    label, probability
        ``(n,)``: 0 or 1, and the model's probability of 1, of patients on whom the model was not trained.

    Raises
    ------
    ConfigurationError
        If the method is unknown.
    """
    if method not in CALIBRATION_METHODS:
        raise ConfigurationError(
            message("calibration-unknown", method=str(method), known=", ".join(CALIBRATION_METHODS))
        )
    truth, score = np.asarray(label, float), np.asarray(probability, float)
    if method == "none":
        return Calibrator()
    if method == "isotonic":
        return _fit_isotonic(truth, score)
    return Calibrator(method, _fit_logistic(method, truth, score))


def choose_calibrator(
    label: ArrayLike,
    probability: ArrayLike,
    methods: Sequence[CalibrationMethod] | None = None,
    seed: int = 0,
) -> Calibrator:
    """Choose the method with the lowest cross-validated log-loss, and fit it on all patients.

    Parameters
    ----------
    label, probability
        See ``fit_calibrator``.
    methods
        The candidates; of equal ones the first is chosen. None: all, but below 100 patients only those with at most two
        parameters.
    seed
        Seed of the folds, which are stratified by label and drawn twice.
    """
    truth, score = np.asarray(label, int), np.asarray(probability, float)
    if methods is None:
        methods = STRAIGHT_MAPS if len(truth) < MIN_PATIENTS_FOR_CURVED_MAPS else CALIBRATION_METHODS
    rng = np.random.default_rng(seed)
    held_out = {method: np.zeros(0) for method in methods}
    for _ in range(CROSS_VALIDATION_REPEATS):
        folds = _draw_stratified_folds(truth, rng)
        for fold in range(CROSS_VALIDATION_FOLDS):
            test = folds == fold
            for method in methods:
                calibrated = fit_calibrator(method, truth[~test], score[~test]).apply(score[test])
                losses = _compute_log_losses(truth[test], calibrated)
                held_out[method] = np.concatenate([held_out[method], losses])
    best = min(methods, key=lambda method: round(float(held_out[method].mean()), 6))
    return fit_calibrator(best, truth, score)


def compute_log_loss(label: ArrayLike, probability: ArrayLike) -> float:
    """Return the mean negative log-likelihood of labels 0 or 1 and probabilities of 1, both ``(n,)``."""
    return float(_compute_log_losses(np.asarray(label, float), np.asarray(probability, float)).mean())


def correct_prevalence(probability: ArrayLike, from_prevalence: float, to_prevalence: float) -> DoubleArray:
    """Return the probabilities for another share of positive patients (Saerens et al. 2002).

    Parameters
    ----------
    probability
        Calibrated probabilities of any shape.
    from_prevalence, to_prevalence
        Share of positives, above 0 and below 1, among the patients of the calibration and those to be predicted. Only
        the share may differ: patients of one class must look the same.

    Raises
    ------
    ConfigurationError
        If a share is not between 0 and 1.
    """
    for share in (from_prevalence, to_prevalence):
        check_prevalence(share)
    return np.asarray(
        expit(compute_log_odds(probability) + logit(to_prevalence) - logit(from_prevalence)),
        float,
    )


def check_prevalence(share: float) -> None:
    """Check that a share of positive patients is above 0 and below 1.

    Raises
    ------
    ConfigurationError
        If it is not.
    """
    if not 0 < share < 1:
        raise ConfigurationError(message("prevalence-range", share=share))


def compute_log_odds(probability: ArrayLike) -> DoubleArray:
    """Return the log-odds of probabilities of any shape; those of 0 and 1 are finite."""
    clipped = np.asarray(probability, float).clip(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.asarray(logit(clipped), float)


def _compute_features(method: CalibrationMethod, score: DoubleArray) -> DoubleArray:
    """Compute the factors of the parameters, and last that of 1, ``(..., k + 1)``."""
    log_odds, zeros, ones = compute_log_odds(score), np.zeros_like(score), np.ones_like(score)
    clipped = score.clip(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    columns = {
        "shift": (ones, log_odds),
        "temperature": (log_odds, zeros),
        "platt": (log_odds, ones, zeros),
        "beta": (np.log(clipped), -np.log1p(-clipped), ones, zeros),
    }
    return np.stack(columns[method], axis=-1)


def _fit_logistic(method: CalibrationMethod, truth: DoubleArray, score: DoubleArray) -> tuple[float, ...]:
    """Fit the parameters by maximum likelihood, slopes not below 0."""
    from scipy.optimize import minimize

    features = _compute_features(method, score)
    design, offset = features[:, :-1], features[:, -1]
    slopes = {"shift": 0, "temperature": 1, "platt": 1, "beta": 2}[method]
    count = design.shape[1]
    # a little weight on the unchanged probability keeps the parameters finite where the classes do not overlap
    start = np.array([1.0] * slopes + [0.0] * (count - slopes))
    penalty = 0.5 / max(len(truth), 1) * 0.01

    def compute_loss(parameters: DoubleArray) -> tuple[float, DoubleArray]:
        log_odds = design @ parameters + offset
        loss = float((np.logaddexp(0, log_odds) - truth * log_odds).mean())
        gradient = design.T @ (expit(log_odds) - truth) / len(truth)
        change = parameters - start
        return loss + penalty * float(change @ change), gradient + 2 * penalty * change

    bounds = [(0.0, None)] * slopes + [(None, None)] * (count - slopes)
    found = minimize(compute_loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-10})
    return tuple(map(float, found.x))


def _fit_isotonic(truth: DoubleArray, score: DoubleArray) -> Calibrator:
    """Fit steps and join their centres, so that patients on one step keep their order.

    Every step counts one patient of either class more, so that no probability is 0 or 1.
    """
    from scipy.optimize import isotonic_regression

    levels, group = np.unique(score, return_inverse=True)
    counts = np.bincount(group)
    shares = np.bincount(group, weights=truth) / counts
    fitted = isotonic_regression(shares, weights=counts).x.round(10)  # equal levels differ in the last digits
    steps, step = np.unique(fitted, return_inverse=True)
    sizes = np.bincount(step, weights=counts)
    centres = np.bincount(step, weights=counts * levels) / sizes
    values = np.maximum.accumulate((steps * sizes + 1) / (sizes + 2))
    # beyond the centres of the outermost steps their values hold; a small slope keeps the patients' order
    knots = np.concatenate([[0.0], centres, [1.0]])
    ends = values[0] * (1 - OUTER_SLOPE), values[-1] + OUTER_SLOPE * (1 - values[-1])
    return Calibrator("isotonic", (*map(float, knots), *map(float, [ends[0], *values, ends[1]])))


def _draw_stratified_folds(truth: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    folds = np.zeros(len(truth), int)
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(truth == label))
        folds[rows] = (np.arange(len(rows)) + rng.integers(CROSS_VALIDATION_FOLDS)) % CROSS_VALIDATION_FOLDS
    return folds


def _compute_log_losses(truth: ArrayLike, probability: DoubleArray) -> DoubleArray:
    label, score = np.asarray(truth, float), probability.clip(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.asarray(-(label * np.log(score) + (1 - label) * np.log1p(-score)))

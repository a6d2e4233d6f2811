"""Calibration of a marker and its limits of "cannot tell", from out-of-fold predictions of patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from gliomark.evaluation.calibrators import Calibrator, choose_calibrator
from gliomark.evaluation.metrics import compute_youden_threshold
from gliomark.evaluation.site import MIN_PATIENTS, MIN_PER_CLASS
from gliomark.inference.patient_calibration import create_patient_calibration
from gliomark.models.card import MarkerCard
from gliomark.models.patient_calibration import PatientCalibration


def calibrate_marker(
    label: ArrayLike, probability: ArrayLike, cohort: str, seed: int = 0
) -> PatientCalibration:
    """Choose the calibration of patient-level probabilities by cross-validated log-loss, and keep the patients' scores.

    With fewer than 30 patients, or fewer than five of a class, the probabilities are left as they are. Their scores are
    kept all the same: limits from so few say "cannot tell" more often.

    Parameters
    ----------
    label, probability
        ``(n,)``: 0 or 1, and the model's probability of 1 after fusion, of patients on whom it was not trained. Both
        labels must occur.
    cohort
        Name of the patients' cohort.
    seed
        Seed of the folds by which the calibration is chosen.
    """
    truth, score = np.asarray(label, int), np.asarray(probability, float)
    positives = int(truth.sum())
    fewest = min(positives, len(truth) - positives)
    is_enough = len(truth) >= MIN_PATIENTS and fewest >= MIN_PER_CLASS
    chosen = choose_calibrator(truth, score, seed=seed) if is_enough else Calibrator()
    return create_patient_calibration(chosen, truth, score, cohort)


def add_patient_calibration(card: MarkerCard, calibration: PatientCalibration) -> MarkerCard:
    """Return the card with the calibration, and Youden's threshold of the calibrated probabilities."""
    threshold = compute_youden_threshold(*calibration.get_labels_and_scores())
    return replace(card, patient_calibration=calibration, threshold=threshold)

"""Fit what a model knows to the patients of a prepared cohort, see ``known_range``."""

from __future__ import annotations

from collections.abc import Sequence

from gliomark.cohort.store import Cohort, ProgressCallback, ignore_progress, iterate_with_progress
from gliomark.known_range import (
    MIN_PATIENTS,
    KnownRange,
    PatientStatistics,
    fit_known_range,
    measure_patient,
)
from gliomark.known_range.statistics import Statistics, measure_images
from gliomark.known_range.wrong_images import create_wrong_images
from gliomark.study import MRSequence, SliceStack


def fit_cohort_range(
    cohort: Cohort,
    patients: Sequence[str],
    sequences: Sequence[MRSequence],
    report_progress: ProgressCallback = ignore_progress,
) -> KnownRange | None:
    """Fit the known range to patients of a cohort who have the sequences and a lesion mask.

    About three seconds per patient: each is also measured as every kind of wrong images.

    Parameters
    ----------
    cohort
        The prepared cohort.
    patients
        The patients on whom the model is trained; those who are not in the cohort, or lack a sequence or a lesion,
        are left out.
    sequences
        The model's pair, the reference last.
    report_progress
        Called before every patient, see ``cohort.store``.

    Returns
    -------
    KnownRange | None
        None if fewer than ``known_range.reference.MIN_PATIENTS`` patients remain.
    """
    chosen = sorted(set(patients) & set(cohort.patient_ids))
    if len(chosen) < MIN_PATIENTS:
        return None
    measured: list[PatientStatistics] = []
    wrong: dict[str, list[Statistics]] = {}
    for patient in iterate_with_progress(chosen, report_progress):
        if not set(sequences) <= set(cohort.get_sequences(patient)):
            continue
        stack = cohort.read_stack(patient, sequences)
        if stack.lesion is not None and stack.lesion.any():
            statistics, wrong_of_patient = measure_training_patient(stack, sequences)
            measured.append(statistics)
            for kind, one in wrong_of_patient.items():
                wrong.setdefault(kind, []).append(one)
    return fit_known_range(measured, sequences, wrong)


def measure_training_patient(
    stack: SliceStack, sequences: Sequence[MRSequence]
) -> tuple[PatientStatistics, dict[str, Statistics]]:
    """Measure a patient as it is, and the wrong images made of it by kind; the lesion is the reader's."""
    wrong = {
        kind: measure_images(altered, sequences) for kind, altered in create_wrong_images(stack, sequences)
    }
    return measure_patient(stack, stack.reader_mask, sequences), wrong

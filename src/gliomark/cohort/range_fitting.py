"""Fit what a model knows to the patients of a prepared cohort, see ``known_range``."""

from __future__ import annotations

from collections.abc import Sequence

from gliomark.cohort.store import Cohort, ProgressCallback, ignore_progress, iterate_with_progress
from gliomark.known_range import KnownRange, PatientStatistics, fit_known_range, measure_patient
from gliomark.known_range.statistics import Statistics, measure_images
from gliomark.known_range.wrong_images import create_wrong_images
from gliomark.study import MRSequence


def fit_cohort_range(
    cohort: Cohort,
    patients: Sequence[str],
    sequences: Sequence[MRSequence],
    report_progress: ProgressCallback = ignore_progress,
    unsuitable: Sequence[Cohort] = (),
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
    unsuitable
        Cohorts with the same sequences whose kind of patients the model must refuse, such as phantoms.

    Returns
    -------
    KnownRange | None
        None if fewer than ``known_range.reference.MIN_PATIENTS`` patients remain.
    """
    chosen = sorted(set(patients) & set(cohort.patient_ids))
    measured: list[PatientStatistics] = []
    wrong: dict[str, list[Statistics]] = {}
    for patient in iterate_with_progress(chosen, report_progress):
        if not set(sequences) <= set(cohort.get_sequences(patient)):
            continue
        stack = cohort.read_stack(patient, sequences)
        if stack.lesion is not None and stack.lesion.any():
            measured.append(measure_patient(stack, stack.lesion, sequences))
            for kind, altered in create_wrong_images(stack, sequences):
                wrong.setdefault(kind, []).append(measure_images(altered, sequences))
    for other in unsuitable:
        kind = f"cohort/{other.folder.name}"
        wrong[kind] = [measure_images(other.read_stack(p, sequences), sequences) for p in other.patient_ids]
    return fit_known_range(measured, sequences, wrong)

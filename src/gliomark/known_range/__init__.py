"""What a model has been trained on, and whether a patient is like that: in range, unusual, or refused."""

from gliomark.known_range.check import check_patient
from gliomark.known_range.reference import (
    KNOWN_RANGE_TENSOR,
    MIN_PATIENTS,
    KnownRange,
    fit_known_range,
    load_known_range,
)
from gliomark.known_range.statistics import PatientStatistics, measure_patient

__all__ = [
    "KNOWN_RANGE_TENSOR",
    "MIN_PATIENTS",
    "KnownRange",
    "PatientStatistics",
    "check_patient",
    "fit_known_range",
    "load_known_range",
    "measure_patient",
]

"""The study's checks before any training: no person in two folds, and how many patients a marker needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gliomark.cohort.duplicate_patients import (
    SimilarPair,
    find_similar_pairs,
    list_single_slice_patients,
    read_fingerprints,
    select_pairs_across,
)
from gliomark.cohort.folds import FOLD_COUNT, CohortFolds, folds_excluding, load_cohort_folds, split_fold
from gliomark.cohort.store import Cohort, ProgressCallback, ignore_progress
from gliomark.errors import CohortError
from gliomark.evaluation.sample_size import SampleSize, compute_sample_size
from gliomark.experiments.segmentation.procedure import SPLIT_SEED
from gliomark.messages import message
from gliomark.training.recipes import MarkerDefinition, can_cross_validate, read_labels_and_values

MAX_NAMED_PAIRS = 3
PARAMETER_COUNTS = (3, 10, 30)  # candidate parameters for which the sample size is stated


@dataclass(frozen=True)
class Check:
    """A check that the cohort passed, with what was found."""

    title: str
    finding: str


@dataclass(frozen=True)
class MarkerCounts:
    """Patients of a marker.

    Attributes
    ----------
    definition
        The marker.
    patients, positives
        Number of patients with a label and all sequences, and of positive ones.
    can_be_studied
        Whether both classes remain when any three folds are left out, as the calibration without the test fold needs.
    sample_sizes
        Patients needed, by number of candidate parameters.
    """

    definition: MarkerDefinition
    patients: int
    positives: int
    can_be_studied: bool
    sample_sizes: tuple[SampleSize, ...]


@dataclass(frozen=True)
class CohortCheck:
    """The checks of a cohort that passed, and the patients of every marker."""

    checks: tuple[Check, ...]
    markers: tuple[MarkerCounts, ...]


def check_before_training(
    cohort: Cohort,
    definitions: Sequence[MarkerDefinition],
    different_persons: Collection[frozenset[str]] = (),
    report_progress: ProgressCallback = ignore_progress,
) -> CohortCheck:
    """Check a cohort for leaks between its folds, and count the patients of every marker.

    different_persons: pairs of ids that look like one person and are known to be two.

    Raises
    ------
    CohortError
        If patients of different folds are probably one person, a patient is a single slice, or a marker has no column
        or one class only.
    """
    folds = load_cohort_folds(cohort)
    markers = tuple(count_marker_patients(cohort, definition, folds) for definition in definitions)
    return CohortCheck(tuple(check_cohort(cohort, folds, different_persons, report_progress)), markers)


def count_marker_patients(cohort: Cohort, definition: MarkerDefinition, folds: CohortFolds) -> MarkerCounts:
    """Count the patients of a marker and compute how many are needed.

    Raises
    ------
    CohortError
        If the cohort lacks the marker's column, or has one class only.
    """
    labels, _ = read_labels_and_values(cohort, definition)
    positives = sum(labels.values())
    sizes = tuple(compute_sample_size(positives / len(labels), count) for count in PARAMETER_COUNTS)
    return MarkerCounts(definition, len(labels), positives, can_study_labels(labels, folds), sizes)


def can_study_labels(labels: Mapping[str, int], folds: CohortFolds) -> bool:
    """Return whether patients of both classes remain when any three folds are left out; labels: 0 or 1 by patient."""
    training_parts = [folds_excluding(folds, number).restrict_to(labels) for number in range(FOLD_COUNT)]
    return all(can_cross_validate(part, labels) for part in training_parts)


def describe_check(check: CohortCheck) -> list[str]:
    """Describe the result in lines for the terminal."""
    lines: list[str] = [f"{one.title}: {one.finding}." for one in check.checks]
    for counts in check.markers:
        few, *_, many = counts.sample_sizes
        lines.append(
            message(
                "study-sample-size" if counts.can_be_studied else "study-too-few",
                marker=counts.definition.title,
                patients=counts.patients,
                positives=counts.positives,
                few=few.parameters,
                needed_few=few.patients,
                many=many.parameters,
                needed_many=many.patients,
            )
        )
    return lines


def check_cohort(
    cohort: Cohort,
    folds: CohortFolds,
    different_persons: Collection[frozenset[str]] = (),
    report_progress: ProgressCallback = ignore_progress,
) -> list[Check]:
    """Check that no person is in two folds under two ids, from the images.

    Raises
    ------
    CohortError
        If patients of different folds are probably one person, or a patient is a single slice.
    """
    patients = cohort.patient_ids
    fingerprints = read_fingerprints(cohort, patients, report_progress)
    if singles := list_single_slice_patients(fingerprints):
        names = ", ".join(singles[:MAX_NAMED_PAIRS])
        raise CohortError(message("study-single-slices", count=len(singles), patients=names))
    pairs = find_similar_pairs(fingerprints, {p: cohort.get_clinical(p) for p in patients})
    # without any alike pair no patient needs to be looked at again
    with_mask = [p for p in patients if cohort.has_mask(p)] if pairs else []
    for split in _list_splits(folds, with_mask):
        if across := select_pairs_across(pairs, split, different_persons):
            raise _create_leak_error(across)
    within = len(pairs) - len(select_pairs_across(pairs, folds.folds))
    known = len(pairs) - within
    return [
        Check("No patient id is in two folds", f"{len(patients)} patients in {len(folds.folds)} folds"),
        Check(
            "No person is in two folds under two ids",
            f"images of {len(patients) * (len(patients) - 1) // 2} pairs of patients compared; {within} alike pairs "
            f"within a fold, {known} pairs of different folds that were stated to be different persons",
        ),
        Check(
            "Every patient is a whole examination",
            f"at least {min(one.slice_count for one in fingerprints.values())} slices each",
        ),
    ]


def _list_splits(folds: CohortFolds, with_mask: Sequence[str]) -> list[tuple[Collection[str], ...]]:
    """List everything that divides patients: folds, folds and test set of ``train``, choice of a recipe in a fold."""
    inner = [split_fold(folds, number, with_mask, SPLIT_SEED) for number in range(len(folds.folds))]
    return [
        tuple(folds.folds),
        (*folds.development_folds, folds.test),
        *((one.training, one.validation, one.test) for one in inner),
    ]


def _create_leak_error(pairs: Sequence[SimilarPair]) -> CohortError:
    named = "; ".join(
        message(f"study-pair-{pair.sign}", first=pair.first, second=pair.second)
        for pair in pairs[:MAX_NAMED_PAIRS]
    )
    first = pairs[0]
    return CohortError(
        message("study-leak", count=len(pairs), pairs=named, option=f"{first.first}={first.second}")
    )

"""Training, validation and test patients: split once per cohort, by patient, and used by every stage."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from gliomark.cohort.store import Cohort, read_json
from gliomark.errors import CohortError
from gliomark.files import atomic_write

FOLD_COUNT = 5
VALIDATION_SHARE = 0.2  # of a fold's training part
MIN_COHORT_SIZE = 10
STRATIFICATION_COLUMNS = ("idh_mutant", "ki67_high", "who_grade")


@dataclass(frozen=True)
class CohortFolds:
    """The fixed 6:2:2 split, five folds of its development part, and five folds of all patients.

    development_folds: folds of the training and validation patients, for model selection without test patients.
    folds: folds of all patients, for the cross-validated tables; the last one is the test part.

    Raises
    ------
    CohortError
        If a patient is in two parts, or the folds do not cover exactly the patients of the split.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    development_folds: tuple[tuple[str, ...], ...]
    folds: tuple[tuple[str, ...], ...]
    seed: int

    def __post_init__(self) -> None:
        check_disjoint({"train": self.train, "validation": self.validation, "test": self.test})
        check_disjoint({f"fold {i}": fold for i, fold in enumerate(self.development_folds)})
        if {p for fold in self.development_folds for p in fold} != set(self.development):
            raise CohortError(
                "The folds do not cover exactly the training and validation patients; create them again."
            )
        check_disjoint({f"fold {i} of all": fold for i, fold in enumerate(self.folds)})
        if {p for fold in self.folds for p in fold} != {*self.development, *self.test}:
            raise CohortError("The five folds do not cover exactly the cohort's patients; create them again.")

    @property
    def development(self) -> tuple[str, ...]:
        """Training and validation patients, sorted."""
        return tuple(sorted(self.train + self.validation))

    def restrict_to(self, patients: Collection[str]) -> CohortFolds:
        """Return the folds restricted to these patients, each in the same fold as before."""

        def restrict_part(part: Sequence[str]) -> tuple[str, ...]:
            return tuple(p for p in part if p in patients)

        return CohortFolds(
            restrict_part(self.train),
            restrict_part(self.validation),
            restrict_part(self.test),
            tuple(map(restrict_part, self.development_folds)),
            tuple(map(restrict_part, self.folds)),
            self.seed,
        )

    @property
    def sha256(self) -> str:
        """SHA-256 of the assignment of patients to splits and folds, stored in every run record and weights file."""
        content = [self.train, self.validation, self.test, self.development_folds, self.folds]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class TrainingFolds:
    """Folds that a recipe is trained on, and the patients excluded from training.

    Raises
    ------
    CohortError
        If a patient is in two folds, or in a fold and excluded.
    """

    folds: tuple[tuple[str, ...], ...]
    excluded: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_disjoint(
            {f"fold {i + 1}": fold for i, fold in enumerate(self.folds)} | {"kept back": self.excluded}
        )

    @property
    def patients(self) -> tuple[str, ...]:
        """All patients of the training folds, sorted."""
        return tuple(sorted(p for fold in self.folds for p in fold))

    def restrict_to(self, patients: Collection[str]) -> TrainingFolds:
        """Return the folds restricted to these patients, without folds that become empty."""
        folds = (tuple(p for p in fold if p in patients) for fold in self.folds)
        return TrainingFolds(tuple(filter(None, folds)), self.excluded)


def folds_excluding(folds: CohortFolds, fold_index: int | None) -> TrainingFolds:
    """Return all five folds for training, or all except fold ``fold_index`` (from 0), whose patients are excluded."""
    rest = tuple(fold for n, fold in enumerate(folds.folds) if n != fold_index)
    return TrainingFolds(rest, () if fold_index is None else folds.folds[fold_index])


@dataclass(frozen=True)
class FoldSplit:
    """Training, validation and test patients of one fold.

    Raises
    ------
    CohortError
        If a patient is in two of them.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        check_disjoint(asdict(self))


def split_fold(folds: CohortFolds, fold_index: int, present: Collection[str], seed: int) -> FoldSplit:
    """Split the patients present for fold ``fold_index`` (from 0), the test part.

    A random 20 % of the other patients is the validation part, the rest is the training part.
    """
    test = [p for p in folds.folds[fold_index] if p in set(present)]
    rest = sorted(set(present) - set(folds.folds[fold_index]))
    order = np.random.default_rng([seed, fold_index]).permutation(len(rest))
    cut = max(1, round(VALIDATION_SHARE * len(rest)))
    validation, training = ([rest[i] for i in part] for part in (order[:cut], order[cut:]))
    return FoldSplit(tuple(sorted(training)), tuple(sorted(validation)), tuple(test))


def check_disjoint(parts: Mapping[str, Collection[str]]) -> None:
    """Check that no patient is in two of the parts.

    Raises
    ------
    CohortError
        If a patient is in two parts; the message gives the id and both parts.
    """
    seen: dict[str, str] = {}
    for name, patients in parts.items():
        for patient in patients:
            if patient in seen:
                raise CohortError(
                    f"Patient {patient} is in both '{seen[patient]}' and '{name}'; "
                    "results of such a split are invalid, create the folds again."
                )
            seen[patient] = name


def create_folds(
    strata: Mapping[str, str], seed: int = 0, test_patients: Collection[str] | None = None
) -> CohortFolds:
    """Create a random split and folds, stratified.

    Parameters
    ----------
    strata
        The stratum (a marker's value) by patient id.
    seed
        Random seed.
    test_patients
        The test set; None for a random fifth.

    Raises
    ------
    CohortError
        If there are fewer than ten patients, or the test set is empty or leaves too few patients for training.
    """
    patients = sorted(strata)
    if len(patients) < MIN_COHORT_SIZE:
        raise CohortError(
            f"{len(patients)} patients are too few for a split and folds: at least {MIN_COHORT_SIZE} are required."
        )
    if test_patients is None:
        fifths = _create_stratified_folds(patients, strata, seed)
    else:
        rest = sorted(set(patients) - set(test_patients))
        if not test_patients or len(rest) < FOLD_COUNT:
            raise CohortError(
                f"{len(test_patients)} test patients of {len(patients)} were requested: at least one is required, and "
                f"{FOLD_COUNT} patients for training."
            )
        rest_folds = _create_stratified_folds(rest, strata, seed, FOLD_COUNT - 1)
        fifths = (*rest_folds, tuple(sorted(test_patients)))
    development = sorted(p for fold in fifths[:4] for p in fold)
    return CohortFolds(
        train=tuple(sorted(p for fold in fifths[:3] for p in fold)),
        validation=fifths[3],
        test=fifths[4],
        development_folds=_create_stratified_folds(development, strata, seed + 1),
        folds=fifths,
        seed=seed,
    )


def create_folds_of_parts(parts: Sequence[Sequence[str]], test_patients: Collection[str]) -> CohortFolds:
    """Create the split and folds that another tool has defined.

    Parameters
    ----------
    parts
        The validation patients of its five folds.
    test_patients
        Its test set. If there is none, the last part is the test set, and the five parts are the folds of all
        patients; otherwise these are the first three, the last two together, and the test set.

    Raises
    ------
    CohortError
        If there are not five parts, or a patient is in two of them.
    """
    check_disjoint({f"fold {number}": part for number, part in enumerate(parts)})
    if len(parts) != FOLD_COUNT:
        raise CohortError(f"The split has {len(parts)} folds; {FOLD_COUNT} are required.")
    sorted_parts = tuple(tuple(sorted(part)) for part in parts)
    *first_parts, before_last, last = sorted_parts
    if test_patients:
        development, test = sorted_parts, tuple(sorted(test_patients))
        folds = (*first_parts, tuple(sorted((*before_last, *last))), test)
    else:
        development, test, folds = sorted_parts[:-1], last, sorted_parts
    return CohortFolds(
        train=tuple(sorted(p for part in development[:-1] for p in part)),
        validation=development[-1],
        test=test,
        development_folds=development,
        folds=folds,
        seed=0,
    )


def write_folds(path: Path, folds: CohortFolds) -> None:
    """Write folds, as ``load_or_create_folds`` reads them."""
    atomic_write(path, json.dumps(asdict(folds), indent=1) + "\n")


def _create_stratified_folds(
    patients: list[str], strata: Mapping[str, str], seed: int, count: int = FOLD_COUNT
) -> tuple[tuple[str, ...], ...]:
    labels = [strata[patient] for patient in patients]
    if max(Counter(labels).values()) < count:
        # stratification is impossible: every stratum is smaller than the number of folds
        labels = [""] * len(patients)
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    return tuple(tuple(patients[i] for i in index) for _, index in splitter.split(patients, labels))


def is_valid_folds_record(record: Mapping[str, Any]) -> bool:
    """Whether every part in a record of folds is a list of patient ids."""
    folds = [fold for name in ("development_folds", "folds") for fold in record.get(name, [])]
    parts = [*(record[name] for name in ("train", "validation", "test")), *folds]
    return all(isinstance(part, list) and all(isinstance(p, str) for p in part) for part in parts)


def load_or_create_folds(
    path: Path, strata: Mapping[str, str], seed: int = 0, test_patients: Collection[str] | None = None
) -> CohortFolds:
    """Load the folds from ``path``; if there is no such file, create them as ``create_folds`` does and write it.

    Raises
    ------
    CohortError
        If the file lists other patients, is damaged, or was written by an older gliomark.
    """
    if path.exists():
        record = read_json(path, is_valid_folds_record)
        known = {p for name in ("train", "validation", "test") for p in record[name]}
        if known ^ set(strata):
            raise CohortError(
                f"{path}: patients {', '.join(sorted(known ^ set(strata))[:5])} are in the cohort or in the folds but "
                "not in both; delete the file to create new folds."
            )
        if "folds" not in record:
            raise CohortError(
                f"{path} was written by an older gliomark: delete it to create the same split again."
            )
        return CohortFolds(
            train=tuple(record["train"]),
            validation=tuple(record["validation"]),
            test=tuple(record["test"]),
            development_folds=tuple(map(tuple, record["development_folds"])),
            folds=tuple(map(tuple, record["folds"])),
            seed=record["seed"],
        )
    folds = create_folds(strata, seed, test_patients)
    write_folds(path, folds)
    return folds


def has_outdated_folds(cohort: Cohort) -> bool:
    """Whether the folds on disk are of a different set of patients than the cohort has now."""
    path = cohort.folder / "folds.json"
    if not path.exists():
        return False
    record = read_json(path, is_valid_folds_record)
    return {p for name in ("train", "validation", "test") for p in record[name]} != set(cohort.prepared_ids)


def load_cohort_folds(cohort: Cohort, test_patients: Collection[str] | None = None) -> CohortFolds:
    """Load the cohort's folds, or create them and write ``folds.json``.

    They are stratified by marker and number of sequences. All prepared patients are assigned to folds; rejected
    patients are removed afterwards, so that no other patient changes fold. test_patients: the test set of new folds.
    """
    rows = {patient: cohort.get_clinical(patient).columns for patient in cohort.prepared_ids}
    marker = next(
        (name for name in STRATIFICATION_COLUMNS if any(row.get(name) for row in rows.values())), ""
    )
    strata = {p: f"{row.get(marker, '')}/{len(cohort.get_sequences(p))}" for p, row in rows.items()}
    folds = load_or_create_folds(cohort.folder / "folds.json", strata, test_patients=test_patients)
    return folds.restrict_to(cohort.patient_ids)

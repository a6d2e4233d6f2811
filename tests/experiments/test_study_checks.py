"""The study's check for one person under two ids looks at every split that a training uses."""

from __future__ import annotations

from itertools import combinations

import pytest

from gliomark.cohort.duplicate_patients import SimilarPair
from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort
from gliomark.errors import CohortError
from gliomark.experiments.study import checks


def find_fold(patient: str, folds: tuple[tuple[str, ...], ...]) -> int:
    return next((number for number, fold in enumerate(folds) if patient in fold), -1)


@pytest.mark.parametrize("is_stated", [False, True])
def test_a_person_on_both_sides_of_another_split_is_found(
    tiny_cohort: Cohort, monkeypatch: pytest.MonkeyPatch, is_stated: bool
) -> None:
    folds = load_cohort_folds(tiny_cohort)
    first, second = next(
        pair
        for pair in combinations(tiny_cohort.patient_ids, 2)
        if find_fold(pair[0], folds.folds) == find_fold(pair[1], folds.folds)
        and find_fold(pair[0], folds.development_folds) != find_fold(pair[1], folds.development_folds)
    )
    pair = SimilarPair(first, second, "same-image", 1.0)
    monkeypatch.setattr(checks, "find_similar_pairs", lambda *_: [pair])
    stated = [frozenset((first, second))] if is_stated else []
    if is_stated:
        assert len(checks.check_cohort(tiny_cohort, folds, stated)) == 3
    else:
        with pytest.raises(CohortError, match=f"{first}.*{second}"):
            checks.check_cohort(tiny_cohort, folds, stated)

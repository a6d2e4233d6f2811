"""Tests of split and folds: every patient is in exactly one part, and other splits are refused."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gliomark.cohort.folds import (
    CohortFolds,
    check_disjoint,
    create_folds,
    create_folds_of_parts,
    load_or_create_folds,
)
from gliomark.errors import CohortError, GliomarkError

STRATA = {f"P{i:03d}": "1" if i % 4 == 0 else "0" for i in range(100)}


def test_sizes_are_6_2_2_and_every_patient_occurs_once() -> None:
    folds = create_folds(STRATA)
    assert (len(folds.train), len(folds.validation), len(folds.test)) == (60, 20, 20)
    assert Counter(folds.train + folds.validation + folds.test) == Counter(list(STRATA))
    assert Counter(p for fold in folds.development_folds for p in fold) == Counter(
        folds.train + folds.validation
    )
    assert [len(fold) for fold in folds.development_folds] == [16] * 5
    assert folds.development == tuple(sorted(folds.train + folds.validation))


def test_parts_are_stratified() -> None:
    folds = create_folds(STRATA)
    for part in (folds.train, folds.validation, folds.test, *folds.development_folds):
        assert sum(STRATA[p] == "1" for p in part) / len(part) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("count", [1, 20, 95])
def test_a_given_test_set_is_the_last_fold_and_the_others_are_stratified(count: int) -> None:
    given = sorted(STRATA)[-count:]
    folds = create_folds(STRATA, test_patients=given)
    assert folds.test == folds.folds[4] == tuple(given) and folds.validation == folds.folds[3]
    assert folds.development == tuple(sorted(STRATA)[:-count])
    sizes = [len(fold) for fold in folds.folds[:4]]
    assert max(sizes) - min(sizes) <= 1
    positives = [sum(STRATA[p] == "1" for p in fold) for fold in folds.folds[:4]]
    assert max(positives) - min(positives) <= 1


@pytest.mark.parametrize("count", [0, 96, 100])
def test_a_test_set_that_leaves_an_empty_part_is_refused(count: int) -> None:
    with pytest.raises(GliomarkError, match=f"{count} test patients of 100"):
        create_folds(STRATA, test_patients=sorted(STRATA)[:count])


def test_folds_depend_on_the_seed_and_not_on_the_order() -> None:
    folds = create_folds(STRATA, seed=3)
    assert create_folds(dict(reversed(STRATA.items())), seed=3) == folds
    assert create_folds(STRATA, seed=4).test != folds.test
    assert create_folds(STRATA, seed=4).sha256 != folds.sha256


@pytest.mark.parametrize("part", ["development_folds", "folds"])
@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (2, 3), (0, 3)])
def test_the_hash_covers_every_fold(part, one, other) -> None:
    """Two patients are exchanged between two folds, the others unchanged."""
    folds = create_folds(STRATA)
    moved = [list(fold) for fold in getattr(folds, part)]
    moved[one][0], moved[other][0] = moved[other][0], moved[one][0]
    swapped = replace(folds, **{part: tuple(map(tuple, moved))})
    assert swapped.sha256 != folds.sha256
    assert (swapped.train, swapped.validation, swapped.test) == (folds.train, folds.validation, folds.test)


def test_folds_are_written_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    drawn = load_or_create_folds(path, STRATA, seed=1)
    before = path.read_bytes()
    read = load_or_create_folds(path, STRATA, seed=99)  # the file takes precedence over the seed
    assert read == drawn and read.sha256 == drawn.sha256 and read.seed == 1
    assert path.read_bytes() == before


def test_an_older_file_is_refused_and_redrawing_gives_the_same_split(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    drawn = load_or_create_folds(path, STRATA)
    record = {name: part for name, part in json.loads(path.read_text("utf-8")).items() if name != "folds"}
    path.write_text(json.dumps(record), "utf-8")
    with pytest.raises(GliomarkError, match="delete it"):
        load_or_create_folds(path, STRATA)
    path.unlink()
    assert load_or_create_folds(path, STRATA) == drawn


def test_another_cohort_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    load_or_create_folds(path, STRATA)
    with pytest.raises(GliomarkError, match="P100"):
        load_or_create_folds(path, {**STRATA, "P100": "0"})
    with pytest.raises(GliomarkError, match="P003"):
        load_or_create_folds(path, {p: s for p, s in STRATA.items() if p != "P003"})


# ---- a patient in two parts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"), [("train", "validation"), ("train", "test"), ("validation", "test")]
)
def test_a_patient_in_two_parts_is_refused(first: str, second: str) -> None:
    record = asdict(create_folds(STRATA))
    duplicate = record[first][0]
    record[second] = (*record[second], duplicate)
    with pytest.raises(GliomarkError, match=duplicate):
        CohortFolds(**record)


def test_a_patient_in_two_development_folds_is_refused() -> None:
    record = asdict(create_folds(STRATA))
    first, second, *rest = record["development_folds"]
    with pytest.raises(GliomarkError, match=first[0]):
        CohortFolds(**{**record, "development_folds": (first, (*second, first[0]), *rest)})


def test_a_patient_twice_in_one_part_is_refused() -> None:
    record = asdict(create_folds(STRATA))
    with pytest.raises(GliomarkError, match=record["test"][0]):
        CohortFolds(**{**record, "test": (*record["test"], record["test"][0])})


def test_a_test_patient_in_a_development_fold_is_refused() -> None:
    record = asdict(create_folds(STRATA))
    first, *rest = record["development_folds"]
    with pytest.raises(GliomarkError, match="cover exactly"):
        CohortFolds(**{**record, "development_folds": ((*first, record["test"][0]), *rest)})


def test_a_file_with_a_patient_in_two_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    load_or_create_folds(path, STRATA)
    record = json.loads(path.read_text("utf-8"))
    record["train"].append(record["test"][0])
    path.write_text(json.dumps(record), "utf-8")
    with pytest.raises(GliomarkError, match=record["test"][0]):
        load_or_create_folds(path, STRATA)


def test_five_folds_hold_every_patient_once_and_the_last_is_the_test_part() -> None:
    folds = create_folds(STRATA)
    assert Counter(p for fold in folds.folds for p in fold) == Counter(list(STRATA))
    assert [len(fold) for fold in folds.folds] == [20] * 5 and folds.folds[4] == folds.test
    first, second, *rest = folds.folds
    with pytest.raises(GliomarkError, match=first[0]):
        CohortFolds(**{**asdict(folds), "folds": (first, (*second, first[0]), *rest)})
    with pytest.raises(GliomarkError, match="five folds do not cover"):
        CohortFolds(**{**asdict(folds), "folds": (second, *rest)})


def test_leaving_out_patients_does_not_move_the_others() -> None:
    folds = create_folds(STRATA)
    removed = {folds.train[0], folds.test[1]}
    rest = folds.restrict_to(set(STRATA) - removed)
    assert rest.train == folds.train[1:] and rest.validation == folds.validation
    assert set(folds.test) - set(rest.test) == {folds.test[1]}
    assert all(
        set(restricted_fold) == set(fold) - removed
        for restricted_fold, fold in zip(rest.folds, folds.folds, strict=True)
    )


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(GliomarkError, match="9 patients are too few"):
        create_folds({f"P{number}": "" for number in range(9)})
    assert len(create_folds({f"P{number}": str(number) for number in range(10)}).test) == 2


def test_check_disjoint() -> None:
    check_disjoint({"a": ["1", "2"], "b": ["3"], "c": []})
    with pytest.raises(GliomarkError, match="Patient 2 is in both 'a' and 'c'"):
        check_disjoint({"a": ["1", "2"], "b": ["3"], "c": ["2"]})


@pytest.mark.parametrize("test_patients", [(), ("K", "L")])
def test_folds_of_another_tool_stay_together(test_patients: tuple[str, ...]) -> None:
    parts = [("B", "A"), ("C", "D"), ("E", "F"), ("G", "H"), ("I", "J")]
    folds = create_folds_of_parts(parts, test_patients)
    sorted_parts = (("A", "B"), ("C", "D"), ("E", "F"), ("G", "H"), ("I", "J"))
    if test_patients:
        assert folds.development_folds == sorted_parts and folds.test == ("K", "L")
        assert folds.folds == (*sorted_parts[:3], ("G", "H", "I", "J"), ("K", "L"))
        assert folds.validation == ("I", "J")
    else:
        assert folds.folds == sorted_parts and folds.test == ("I", "J")
        assert folds.development_folds == sorted_parts[:4] and folds.validation == ("G", "H")


@pytest.mark.parametrize(
    ("parts", "test_patients", "expected"),
    [
        ([("A",)] * 4, (), "Patient A is in both"),
        ([("A",), ("B",)], (), "has 2 folds; 5 are required"),
        ([("A",), ("B",), ("C",), ("D",), ("E",)], ("A",), "Patient A is in both"),
    ],
)
def test_unusable_folds_of_another_tool_are_refused(
    parts: list[tuple[str, ...]], test_patients: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(CohortError, match=expected):
        create_folds_of_parts(parts, test_patients)

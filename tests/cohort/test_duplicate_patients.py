"""One person under two ids, and one scan divided between two, are found from the images before any training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import create_tiny_stack
from tests.pipeline.conftest import reader_pool, run_command

from gliomark.cohort.duplicate_patients import create_fingerprint, find_similar_pairs, select_pairs_across
from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import Cohort, write_patient
from gliomark.errors import CohortError
from gliomark.experiments.study.checks import check_before_training, count_marker_patients
from gliomark.study import ClinicalData, SliceStack
from gliomark.training.recipes import MARKER_DEFINITIONS

__all__ = ["reader_pool", "run_command"]
IDH = MARKER_DEFINITIONS["idh"]


def select_slices(stack: SliceStack, patient: str, rows: slice) -> SliceStack:
    names = stack.slice_names[rows]
    return replace(
        stack,
        patient_id=patient,
        images={name: image[rows] for name, image in stack.images.items()},
        brain=stack.brain[rows],
        lesion=stack.lesion[rows],
        slice_names=names,
        selected=tuple(range(len(names))),
    )


def change_image(stack: SliceStack, change: str) -> SliceStack:
    """Return the images as another export of the same examination might hold them."""
    noise = np.random.default_rng(99).normal(0, 0.2, stack.brain.shape)

    def change_one(image: np.ndarray) -> np.ndarray:
        if change == "noise and scale":
            return (1.2 * image + 0.3 + noise * stack.brain).astype(np.float32)
        return np.roll(image, (3, -2), (1, 2)) if change == "shift" else image

    brain = np.roll(stack.brain, (3, -2), (1, 2)) if change == "shift" else stack.brain
    images = {name: change_one(image) for name, image in stack.images.items()}
    return replace(stack, patient_id="X", images=images, brain=brain)


@pytest.mark.parametrize("change", ["none", "noise and scale", "shift"])
def test_a_copy_is_found_and_no_one_else(change: str) -> None:
    stacks = [
        *(create_tiny_stack(number) for number in range(1, 7)),
        change_image(create_tiny_stack(3), change),
    ]
    clinical = {s.patient_id: ClinicalData(s.patient_id, 30.0 + n, n % 2) for n, s in enumerate(stacks)}
    pairs = find_similar_pairs({s.patient_id: create_fingerprint(s) for s in stacks}, clinical)
    assert [(pair.first, pair.second, pair.sign) for pair in pairs] == [("P03", "X", "same-image")]
    assert pairs[0].correlation > 0.95


def test_a_scan_divided_between_two_ids_is_found_by_grid_age_and_sex() -> None:
    stack = create_tiny_stack(3)
    halves = [select_slices(stack, name, slice(start, None, 2)) for name, start in (("A", 0), ("B", 1))]
    fingerprints = {one.patient_id: create_fingerprint(one) for one in (*halves, create_tiny_stack(4))}
    same = {name: ClinicalData(name, 36.0, 1) for name in fingerprints}
    assert [(p.first, p.second, p.sign) for p in find_similar_pairs(fingerprints, same)] == [
        ("A", "B", "same-scan")
    ]
    other_age = same | {"B": ClinicalData("B", 37.0, 1)}
    assert find_similar_pairs(fingerprints, other_age) == []


def test_pairs_of_one_fold_or_known_to_be_two_persons_are_no_leak() -> None:
    stacks = {"A": create_tiny_stack(1), "B": create_tiny_stack(1), "C": create_tiny_stack(2)}
    clinical = {name: ClinicalData(name, 40.0, 0) for name in stacks}
    pairs = find_similar_pairs({name: create_fingerprint(s) for name, s in stacks.items()}, clinical)
    assert len(select_pairs_across(pairs, [["A", "C"], ["B"]])) == 1
    assert select_pairs_across(pairs, [["A", "B"], ["C"]]) == []
    assert select_pairs_across(pairs, [["A", "C"], ["B"]], [frozenset("AB")]) == []


@pytest.fixture
def cohort_folder(tiny_cohort_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny cohort, without folds, to be changed."""
    return shutil.copytree(
        tiny_cohort_folder, tmp_path / "cohort", ignore=shutil.ignore_patterns("folds.json")
    )


def plant(folder: Path, *stacks: SliceStack) -> Cohort:
    """Add patients to a cohort, each with the clinical row of P03."""
    table = folder / "MetaMS.csv"
    row = next(line for line in table.read_text("utf-8").splitlines() if line.startswith("P03,"))
    for stack in stacks:
        write_patient(folder, stack)
        table.write_text(table.read_text("utf-8") + row.replace("P03", stack.patient_id) + "\n", "utf-8")
    return Cohort(folder)


def move_to_another_fold(folder: Path, patient: str) -> None:
    """Move a patient to another fold than P03's in ``folds.json``, unless it is in another one."""
    path = folder / "folds.json"
    record = json.loads(path.read_text("utf-8"))
    home = next(number for number, fold in enumerate(record["folds"]) if "P03" in fold)
    if patient in record["folds"][home]:
        record["folds"][home].remove(patient)
        record["folds"][(home + 1) % 4].append(patient)
        path.write_text(json.dumps(record), "utf-8")


def test_a_cohort_without_a_leak_passes(cohort_folder: Path) -> None:
    check = check_before_training(Cohort(cohort_folder), [IDH])
    assert len(check.checks) == 3
    (counts,) = check.markers
    assert (counts.patients, counts.positives, counts.can_be_studied) == (15, 8, True)
    assert [size.parameters for size in counts.sample_sizes] == [3, 10, 30]


@pytest.mark.parametrize(
    ("stacks", "words"),
    [
        ([change_image(create_tiny_stack(3), "noise and scale")], "P03 and X share a nearly identical image"),
        (
            [select_slices(create_tiny_stack(20), name, slice(n, None, 2)) for n, name in enumerate("YX")],
            "have fewer than three slices",
        ),
    ],
    ids=["twice under two ids", "slices under ids of their own"],
)
def test_a_planted_leak_is_refused(cohort_folder: Path, stacks: list[SliceStack], words: str) -> None:
    cohort = plant(cohort_folder, *stacks)
    load_cohort_folds(cohort)
    move_to_another_fold(cohort_folder, "X")
    with pytest.raises(CohortError, match=words):
        check_before_training(Cohort(cohort_folder), [IDH])


def test_the_command_says_what_was_found(run_command, cohort_folder: Path) -> None:
    arguments = ("study", "check", "--cohort", cohort_folder, "--marker", "idh")
    outcome = run_command(*arguments)
    assert outcome.status == 0, outcome.stderr
    assert "No person is in two folds under two ids" in outcome.stdout
    assert "IDH: 15 patients, 8 positive." in outcome.stdout and "Riley et al. 2020" in outcome.stdout
    plant(cohort_folder, change_image(create_tiny_stack(3), "none"))
    (cohort_folder / "folds.json").unlink()
    load_cohort_folds(Cohort(cohort_folder))
    move_to_another_fold(cohort_folder, "X")
    refused = run_command(*arguments)
    assert refused.status == 1 and "add --different-persons P03=X" in refused.stderr
    assert run_command(*arguments, "--different-persons", "X=P03").status == 0


def test_too_few_patients_of_a_class_are_reported(cohort_folder: Path) -> None:
    cohort = Cohort(cohort_folder)
    rare = replace(IDH, column="age_group", threshold=0.5)
    table = cohort_folder / "MetaMS.csv"
    lines = table.read_text("utf-8").splitlines()
    values = ["age_group", *(str(int(number < 2)) for number in range(len(lines) - 1))]
    table.write_text("\n".join(f"{line},{value}" for line, value in zip(lines, values, strict=True)), "utf-8")
    counts = count_marker_patients(Cohort(cohort_folder), rare, load_cohort_folds(cohort))
    assert (counts.positives, counts.can_be_studied) == (2, False)

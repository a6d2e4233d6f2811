"""Slices of an epoch, and the focus prior graph."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gliomark.errors import GliomarkError
from gliomark.study import ClinicalData, MRSequence
from gliomark.training.markers import (
    ClassBalancedSampler,
    load_lesion_slice_dataset,
    read_marker_labels,
    read_marker_values,
)
from gliomark.training.slice_dataset import (
    EpochSampler,
    SliceDataset,
    compute_focus_prior,
    get_high_grade_label,
    join_datasets,
    load_slice_dataset,
    parse_clinical_number,
)

PAIR = (MRSequence.T1C, MRSequence.FLAIR)
SLICES = 4  # per patient of the tiny cohort


def create_dataset(counts: list[int], lesions: list[int], scale: int = 1) -> SliceDataset:
    """Create slices; counts: slices per patient, the first ``lesions`` of which have a lesion of 4 x 4 pixels.

    scale: factor by which the 40 x 40 pixels are enlarged.
    """
    lesion, patient_index = [], []
    for index, (count, with_lesion) in enumerate(zip(counts, lesions, strict=True)):
        for number in range(count):
            mask = torch.zeros(40, 40, dtype=torch.uint8)
            mask[12:16, 4 + 8 * index : 8 + 8 * index] = number < with_lesion
            lesion.append(mask.repeat_interleave(scale, 0).repeat_interleave(scale, 1))
            patient_index.append(index)
    total = len(lesion)
    ids = tuple(str(i) for i in range(len(counts)))
    image = torch.zeros(total, 1, 40 * scale, 40 * scale, dtype=torch.float16)
    return SliceDataset(
        image, torch.stack(lesion), torch.zeros(total, dtype=torch.long), torch.tensor(patient_index), ids
    )


def test_the_prior_is_scaled_smooth_and_symmetric() -> None:
    prior = compute_focus_prior(create_dataset([4, 4], [4, 2], scale=6))
    assert prior.shape == (240, 240) and prior.min() == 0 and prior.max() == 1
    torch.testing.assert_close(prior, prior.flip(1))
    # the first patient's lesion begins in column 24; the prior is smoothed over nine pixels
    assert prior[80, 36] > prior[80, 20] > 0 and prior[80, 19] == 0 and prior[180, 36] == 0


def test_the_prior_of_pooled_slices_is_smoothed_over_the_same_distance() -> None:
    full, pooled = (compute_focus_prior(create_dataset([4, 4], [4, 2], scale)) for scale in (6, 2))
    assert pooled.shape == (80, 80)
    averaged = F.avg_pool2d(full[None], 3)[0]
    # 9 of 240 pixels or 3 of 80; without smoothing the edges would differ by a third
    torch.testing.assert_close(pooled, averaged / averaged.max(), atol=0.1, rtol=0)


def test_the_prior_weights_patients_not_slices() -> None:
    # a patient with 40 thin slices has the same weight as one with 4 thick slices
    torch.testing.assert_close(
        compute_focus_prior(create_dataset([40, 4], [20, 4])),
        compute_focus_prior(create_dataset([4, 4], [2, 4])),
    )


def test_the_prior_without_any_lesion_is_zero() -> None:
    assert not compute_focus_prior(create_dataset([3], [0])).any()


def test_an_epoch_draws_patients_equally_and_prefers_lesions() -> None:
    dataset = create_dataset([40, 4, 6], [10, 4, 0])
    sampler = EpochSampler(dataset, slices_per_patient=20, lesion_share=0.6)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 60
    assert Counter(int(dataset.patient[i]) for i in drawn) == {0: 20, 1: 20, 2: 20}
    assert sum(bool(dataset.lesion[i].any()) for i in drawn if dataset.patient[i] == 0) >= 12
    assert list(sampler) == drawn
    sampler.set_epoch(1)
    assert list(sampler) != drawn, "the second epoch has the same draws"


def test_datasets_of_joint_and_single_sequences(tiny_cohort) -> None:
    patients = ["P02", "P05"]
    joint, each = (load_slice_dataset(tiny_cohort, patients, PAIR, is_joint=j) for j in (True, False))
    assert joint.image.shape == (8, 2, 240, 240) and each.image.shape == (16, 1, 240, 240)
    assert joint.image.dtype == torch.float16 and joint.lesion.dtype == torch.uint8
    stack = tiny_cohort.read_stack("P05")
    for channel, name in enumerate(PAIR):
        np.testing.assert_array_equal(joint.image[4:, channel].float(), stack.images[name])
        np.testing.assert_array_equal(
            each.image[8 + 4 * channel : 12 + 4 * channel, 0].float(), stack.images[name]
        )
    for start in (8, 12):
        np.testing.assert_array_equal(each.lesion[start : start + 4] > 0, stack.lesion)
    assert joint.patient.tolist() == [0] * 4 + [1] * 4 and each.patient.tolist() == [0] * 8 + [1] * 8
    # who_grade is 2 + number % 3: P02 has grade 4, P05 too
    assert joint.grade.tolist() == [1] * 8


def test_a_lesion_dataset_holds_lesion_slices_with_the_label_of_the_patient(tiny_cohort) -> None:
    dataset = load_lesion_slice_dataset(tiny_cohort, {"P01": 1, "P04": 0, "P07": 1}, PAIR)
    assert dataset.image.shape == (9, 2, 240, 240)  # three of four slices
    assert (dataset.lesion.flatten(1).sum(dim=1) == 100).all()
    assert dataset.label.tolist() == [1] * 3 + [0] * 3 + [1] * 3
    assert dataset.value.tolist() == dataset.label.tolist()
    percent = load_lesion_slice_dataset(
        tiny_cohort, {"P01": 1, "P04": 0}, PAIR, {"P01": 25.0, "P04": 3.0, "P07": 8.0}
    )
    assert percent.value.tolist() == [25.0] * 3 + [3.0] * 3
    part = dataset.select_patients(["P07", "P01"])
    assert part.label.tolist() == [1] * 6 and part.image[:, 0, 0, 0].tolist() == [1] * 3 + [7] * 3
    assert len(dataset.select_patients([]).image) == 0


def test_the_balanced_sampler_draws_classes_equally(tiny_cohort) -> None:
    labels = {p: int(p == "P01") for p in tiny_cohort.patient_ids[:5]}
    dataset = load_lesion_slice_dataset(tiny_cohort, labels, PAIR)
    torch.manual_seed(0)
    sampler = ClassBalancedSampler(dataset, 40)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 200
    assert int(dataset.label[drawn].sum()) == 100
    assert min(Counter(dataset.patient[drawn].tolist()).values()) > 10
    assert [len(ClassBalancedSampler(dataset, 40, 0, limit)) for limit in (30, 200, 1000)] == [30, 200, 200]


def test_labels_and_values_are_read_from_the_table(tiny_cohort) -> None:
    labels = read_marker_labels(tiny_cohort, "idh_mutant", 0.5, PAIR)
    assert labels == {p: int(p[1:]) % 2 for p in tiny_cohort.patient_ids}
    assert read_marker_labels(tiny_cohort, "who_grade", 4, PAIR)["P02"] == 1
    values = read_marker_values(tiny_cohort, "who_grade", PAIR)
    assert read_marker_labels(tiny_cohort, "who_grade", 3.0, PAIR) == {
        p: int(v >= 3) for p, v in values.items()
    }
    assert values["P02"] == 4 and set(values.values()) == {2, 3, 4}
    assert parse_clinical_number("9.9", "ki67", "P") == 9.9 and parse_clinical_number("", "ki67", "P") is None
    with pytest.raises(GliomarkError, match="Patient P.*'high'.*ki67"):
        parse_clinical_number("high", "ki67", "P")
    for column, threshold, sentence in (
        ("idh_mutant", 2.0, "column 'idh_mutant' has only one class among the 15 patients"),
        (
            "idh_mutation_status",
            0.5,
            "no column 'idh_mutation_status' with values; did you mean 'idh_mutant'?",
        ),
        ("zzz", 0.5, "no column 'zzz' with values; it has idh_mutant, "),
    ):
        with pytest.raises(GliomarkError, match=re.escape(sentence)):
            read_marker_labels(tiny_cohort, column, threshold, PAIR)


def test_a_dataset_with_neighbours_holds_full_slices(tiny_cohort) -> None:
    """Channels: previous, current and next slice of T1C, then those of FLAIR."""
    stack = tiny_cohort.read_stack("P05")
    dataset = load_slice_dataset(tiny_cohort, ["P05"], PAIR, is_joint=True, neighbour_slices=1)
    count = len(stack.brain)
    assert dataset.image.shape == (count, 6, 240, 240) and dataset.lesion.shape == (count, 240, 240)
    for index in range(count):
        neighbours = [max(index - 1, 0), index, min(index + 1, count - 1)]
        for number, name in enumerate(PAIR):
            for offset, neighbour in enumerate(neighbours):
                np.testing.assert_array_equal(
                    dataset.image[index, 3 * number + offset].float(), stack.images[name][neighbour]
                )
    np.testing.assert_array_equal(dataset.lesion, stack.reader_mask)
    assert dataset.lesion[1].sum() == 100 and not dataset.lesion[0].any()


def test_neighbours_of_single_sequences_are_of_the_same_sequence(tiny_cohort) -> None:
    plain = load_slice_dataset(tiny_cohort, ["P02", "P05"], PAIR, is_joint=False)
    dataset = load_slice_dataset(tiny_cohort, ["P02", "P05"], PAIR, is_joint=False, neighbour_slices=1)
    assert dataset.image.shape == (16, 3, 240, 240)
    torch.testing.assert_close(dataset.image[:, 1:2], plain.image)
    for start in range(0, 16, SLICES):  # one sequence of one patient each
        sequence_slices = plain.image[start : start + SLICES, 0]
        torch.testing.assert_close(dataset.image[start : start + SLICES, 0], sequence_slices[[0, 0, 1, 2]])
        torch.testing.assert_close(dataset.image[start : start + SLICES, 2], sequence_slices[[1, 2, 3, 3]])


def test_a_missing_sequence_is_zero_or_gives_no_sample(tiny_cohort) -> None:
    absent = (MRSequence.T1C, MRSequence.T2)
    joint, each = (load_slice_dataset(tiny_cohort, ["P03"], absent, is_joint=j) for j in (True, False))
    assert joint.image.shape == (SLICES, 2, 240, 240) and each.image.shape == (SLICES, 1, 240, 240)
    assert joint.image[:, 0].any() and not joint.image[:, 1].any()


def test_joined_datasets_keep_patients_separate(tiny_cohort) -> None:
    first = load_slice_dataset(tiny_cohort, ["P01", "P02"], PAIR, is_joint=True)
    second = load_slice_dataset(tiny_cohort, ["P03"], PAIR, is_joint=True)
    both = join_datasets(first, second)
    assert both.patient_ids == ("P01", "P02", "P03")
    assert both.patient.tolist() == [0] * SLICES + [1] * SLICES + [2] * SLICES
    expected = load_slice_dataset(tiny_cohort, ["P01", "P02", "P03"], PAIR, is_joint=True)
    for name in ("image", "lesion", "grade", "patient"):
        torch.testing.assert_close(getattr(both, name), getattr(expected, name), atol=0, rtol=0)
    torch.testing.assert_close(compute_focus_prior(both), compute_focus_prior(expected))
    assert Counter(both.patient[list(EpochSampler(both, 5, 0.6))].tolist()) == {0: 5, 1: 5, 2: 5}


@pytest.mark.parametrize(
    ("grade", "label"), [("2", 0), ("3", 1), ("4.0", 1), ("", None), ("NA", None), ("nan", None)]
)
def test_an_unknown_grade_is_unknown(grade: str, label: int | None) -> None:
    assert get_high_grade_label(ClinicalData("P", None, None, {"who_grade": grade})) == label


@pytest.mark.parametrize("grade", ["III", "inf"])
def test_a_grade_that_is_no_number_is_refused(grade: str) -> None:
    with pytest.raises(GliomarkError, match=f"Patient P: '{grade}' in column 'who_grade' is not a number"):
        get_high_grade_label(ClinicalData("P", None, None, {"who_grade": grade}))

"""What a network is shown in an epoch, and the focus prior graph."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from gliomark.study import GliomarkError, MRSequence
from gliomark.training.classification import BalancedSampler, known_labels, load_lesion_bank, marker_label
from gliomark.training.segmentation import EpochSampler, SliceBank, focus_prior, load_bank

PAIR = (MRSequence.T1C, MRSequence.FLAIR)


def bank_of(counts: list[int], lesions: list[int]) -> SliceBank:
    """counts: slices per patient, the first ``lesions`` of which have a lesion of 4 x 4 in a corner."""
    lesion, owner = [], []
    for index, (count, with_lesion) in enumerate(zip(counts, lesions, strict=True)):
        for number in range(count):
            mask = torch.zeros(40, 40, dtype=torch.uint8)
            mask[12:16, 4 + 8 * index : 8 + 8 * index] = number < with_lesion
            lesion.append(mask)
            owner.append(index)
    total = len(lesion)
    ids = tuple(str(i) for i in range(len(counts)))
    image = torch.zeros(total, 1, 40, 40, dtype=torch.float16)
    return SliceBank(
        image, torch.stack(lesion), torch.zeros(total, dtype=torch.long), torch.tensor(owner), ids
    )


def test_prior_is_scaled_smooth_and_has_no_side() -> None:
    prior = focus_prior(bank_of([4, 4], [4, 2]))
    assert prior.shape == (40, 40) and prior.min() == 0 and prior.max() == 1
    torch.testing.assert_close(prior, prior.flip(1))
    assert prior[13, 6] > prior[13, 1] > 0 and prior[30, 6] == 0


def test_prior_weighs_patients_not_slices() -> None:
    # the one with 40 thin slices counts as the one with 4 thick ones
    torch.testing.assert_close(focus_prior(bank_of([40, 4], [20, 4])), focus_prior(bank_of([4, 4], [2, 4])))


def test_prior_without_any_lesion_is_zero() -> None:
    assert not focus_prior(bank_of([3], [0])).any()


def test_epoch_shows_every_patient_alike_and_prefers_lesions() -> None:
    bank = bank_of([40, 4, 6], [10, 4, 0])
    sampler = EpochSampler(bank, per_patient=20, lesion_share=0.6)
    torch.manual_seed(0)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 60
    assert Counter(int(bank.patient[i]) for i in drawn) == {0: 20, 1: 20, 2: 20}
    assert sum(bool(bank.lesion[i].any()) for i in drawn if bank.patient[i] == 0) >= 12
    assert list(sampler) != drawn, "drawn anew"


def test_bank_joint_and_independent(tiny_cohort) -> None:
    patients = ["P02", "P05"]
    joint, each = (load_bank(tiny_cohort, patients, PAIR, joint=j) for j in (True, False))
    assert joint.image.shape == (8, 2, 240, 240) and each.image.shape == (16, 1, 240, 240)
    assert joint.image.dtype == torch.float16 and joint.lesion.dtype == torch.uint8
    stack = tiny_cohort.stack("P05")
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


def test_lesion_bank_holds_lesion_slices_with_the_patients_label(tiny_cohort) -> None:
    bank = load_lesion_bank(tiny_cohort, {"P01": 1, "P04": 0, "P07": 1}, PAIR)
    assert bank.image.shape == (9, 2, 240, 240)  # three of four slices
    assert (bank.lesion.flatten(1).sum(dim=1) == 100).all()
    assert bank.label.tolist() == [1] * 3 + [0] * 3 + [1] * 3
    part = bank.of(["P07", "P01"])
    assert part.label.tolist() == [1] * 6 and part.image[:, 0, 0, 0].tolist() == [1] * 3 + [7] * 3
    assert len(bank.of([]).image) == 0


def test_balanced_sampler_draws_classes_alike(tiny_cohort) -> None:
    labels = {p: int(p == "P01") for p in tiny_cohort.patient_ids[:5]}
    bank = load_lesion_bank(tiny_cohort, labels, PAIR)
    torch.manual_seed(0)
    sampler = BalancedSampler(bank, 40)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 200
    assert int(bank.label[drawn].sum()) == 100
    assert min(Counter(bank.patient[drawn].tolist()).values()) > 10


def test_labels(tiny_cohort) -> None:
    labels = known_labels(tiny_cohort, "idh_mutant", 0.5, PAIR)
    assert labels == {p: int(p[1:]) % 2 for p in tiny_cohort.patient_ids}
    assert known_labels(tiny_cohort, "who_grade", 4, PAIR)["P02"] == 1
    assert marker_label("10", 10.0, "ki67", "P") == 1 and marker_label("9.9", 10.0, "ki67", "P") == 0
    assert marker_label("", 10.0, "ki67", "P") is None
    with pytest.raises(GliomarkError, match="Patient P.*'high'.*ki67"):
        marker_label("high", 10.0, "ki67", "P")
    for column, threshold in (("absent", 0.5), ("idh_mutant", 2.0)):
        with pytest.raises(GliomarkError, match="no two classes"):
            known_labels(tiny_cohort, column, threshold, PAIR)

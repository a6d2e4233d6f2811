"""A cohort's slices in memory, as segmentation trains on them, and the focus prior graph drawn from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gliomark.inference.segmenter import samples_of, with_neighbours
from gliomark.study import Clinical, MRSequence
from gliomark.training.draws import epoch_generator

if TYPE_CHECKING:  # a bank made elsewhere needs no DICOM library
    from gliomark.cohort.store import Cohort

HIGH_GRADE = 3
SMOOTHING = 9  # pixels of the 240-pixel slice


@dataclass(frozen=True, eq=False)
class SliceBank:
    """Slices in memory, at full resolution. image float16 ``(N, C, 240, 240)``, lesion uint8 ``(N, 240, 240)``,
    grade ``(N,)`` (-1 unknown), patient ``(N,)`` index into ``patient_ids``."""

    image: Tensor
    lesion: Tensor
    grade: Tensor
    patient: Tensor
    patient_ids: tuple[str, ...]


def load_bank(
    cohort: Cohort,
    patients: Sequence[str],
    sequences: Sequence[MRSequence],
    joint: bool,
    context: int = 0,
) -> SliceBank:
    """joint: the sequences are one sample's channels (an absent one is zero, the brain's mean); otherwise
    every sequence of a slice is a sample of its own. context: neighbouring slices on either side that are further
    channels."""
    images, lesions, grades, owners = [], [], [], []
    for index, patient in enumerate(patients):
        stack = cohort.stack(patient, sequences)
        lesion = torch.from_numpy(stack.drawn.astype(np.uint8))
        grade = high_grade(cohort.clinical(patient))
        for channels in samples_of(stack, sequences, joint):
            images.append(with_neighbours(channels.half(), context))
            lesions.append(lesion)
            grades.append(torch.full((len(lesion),), -1 if grade is None else grade))
            owners.append(torch.full((len(lesion),), index))
    return SliceBank(
        torch.cat(images), torch.cat(lesions), torch.cat(grades), torch.cat(owners), tuple(patients)
    )


def high_grade(clinical: Clinical) -> int | None:
    """1 for WHO grade 3 or 4, 0 for a lower one, None where it is unknown."""
    grade = clinical.columns.get("who_grade", "")
    return int(float(grade) >= HIGH_GRADE) if grade else None


def joined(first: SliceBank, second: SliceBank) -> SliceBank:
    """Two cohorts' slices as one bank."""
    return SliceBank(
        torch.cat([first.image, second.image]),
        torch.cat([first.lesion, second.lesion]),
        torch.cat([first.grade, second.grade]),
        torch.cat([first.patient, second.patient + len(first.patient_ids)]),
        first.patient_ids + second.patient_ids,
    )


def focus_prior(bank: SliceBank) -> Tensor:
    """FPG: P ``(side, side)``, the mean of the training patients' masks, smoothed, maximum scaled to 1.

    Slices lie on a grid centred on the brain's bounding box (``preprocessing.slicing``), which is the
    alignment; every patient weighs the same. Made mirror-symmetric: gliomas have no side.
    """
    count = len(bank.patient_ids)
    means = [bank.lesion[bank.patient == index].float().mean(dim=0) for index in range(count)]
    prior = torch.stack(means).mean(dim=0)
    half = round(SMOOTHING * len(prior) / 240 / 2 - 0.25)
    mirrored = ((prior + prior.flip(1)) / 2)[None]
    smooth = F.avg_pool2d(mirrored, 2 * half + 1, 1, half, count_include_pad=False)[0]
    return smooth / smooth.max().clamp(min=1e-6)


class EpochSampler(torch.utils.data.Sampler[int]):
    """The slices of an epoch, drawn anew each time: as many of every patient, lesion slices preferred."""

    def __init__(self, bank: SliceBank, per_patient: int, lesion_share: float, seed: int = 0) -> None:
        self.seed, self.epoch = seed, 0
        self.lesion_count = round(per_patient * lesion_share)
        self.per_patient = per_patient
        has_lesion = bank.lesion.flatten(1).amax(dim=1) > 0
        self.all = [torch.nonzero(bank.patient == i)[:, 0] for i in range(len(bank.patient_ids))]
        self.with_lesion = [index[has_lesion[index]] for index in self.all]

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer: what is drawn depends on seed and epoch alone."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.per_patient * len(self.all)

    def __iter__(self):
        generator = epoch_generator(self.seed, self.epoch)
        drawn = []
        for everything, lesion in zip(self.all, self.with_lesion, strict=True):
            preferred = lesion if len(lesion) else everything
            drawn.append(_draw(preferred, self.lesion_count, generator))
            drawn.append(_draw(everything, self.per_patient - self.lesion_count, generator))
        indices = torch.cat(drawn)
        return iter(indices[torch.randperm(len(indices), generator=generator)].tolist())


def _draw(index: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` of the index, each as often as possible before any comes again."""
    rounds = math.ceil(count / len(index))
    return torch.cat([index[torch.randperm(len(index), generator=generator)] for _ in range(rounds)])[:count]

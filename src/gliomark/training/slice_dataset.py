"""Load a cohort's slices into memory for segmentation training, and compute the focus prior graph from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gliomark.errors import CohortError
from gliomark.inference.segmenter import add_neighbour_slices, build_samples
from gliomark.study import ClinicalData, MRSequence
from gliomark.tables.cell_text import is_blank_cell
from gliomark.training.random_seeds import create_epoch_generator

if TYPE_CHECKING:  # not imported at run time: data sets from other sources need no DICOM library
    from gliomark.cohort.store import Cohort

MIN_HIGH_GRADE = 3  # WHO grade
PRIOR_SMOOTHING_PIXELS = 9  # pixels of the 240-pixel slice


@dataclass(frozen=True, eq=False)
class SliceDataset:
    """Slices in memory, at full resolution.

    image float16 ``(N, C, 240, 240)``; lesion mask uint8 ``(N, 240, 240)``; grade ``(N,)``: 1 high, 0 low, -1 unknown;
    synthesis_region uint8 ``(N, C / 2, 240, 240)``: where the second sequence becomes a synthetic T2, see
    ``synthetic_t2``; None: nowhere; draw_weight: whole number per patient, how many times as many slices of the patient
    are drawn per epoch; None: of every patient as many; patient ``(N,)``: index in ``patient_ids``.
    """

    image: Tensor
    lesion: Tensor
    grade: Tensor
    patient: Tensor
    patient_ids: tuple[str, ...]
    synthesis_region: Tensor | None = None
    draw_weight: Tensor | None = None


def load_slice_dataset(
    cohort: Cohort,
    patients: Sequence[str],
    sequences: Sequence[MRSequence],
    is_joint: bool,
    neighbour_slices: int = 0,
) -> SliceDataset:
    """Load the slices of patients.

    is_joint: the sequences are channels of one sample, a missing one being 0, the mean of the brain; otherwise every
    sequence of a slice is a separate sample. neighbour_slices: number of slices on either side that are added as
    channels.
    """
    images, lesions, grades, patient_indices = [], [], [], []
    for index, patient in enumerate(patients):
        stack = cohort.read_stack(patient, sequences)
        lesion = torch.from_numpy(stack.reader_mask.astype(np.uint8))
        grade = get_high_grade_label(cohort.get_clinical(patient))
        for channels in build_samples(stack, sequences, is_joint):
            images.append(
                torch.from_numpy(add_neighbour_slices(channels.astype(np.float16), neighbour_slices))
            )
            lesions.append(lesion)
            grades.append(torch.full((len(lesion),), -1 if grade is None else grade))
            patient_indices.append(torch.full((len(lesion),), index))
    return SliceDataset(
        concatenate_and_release(images),
        concatenate_and_release(lesions),
        torch.cat(grades),
        torch.cat(patient_indices),
        tuple(patients),
    )


def concatenate_and_release(parts: list[Tensor]) -> Tensor:
    """Concatenate tensors ``(n, ...)`` of one shape and type, and empty the list.

    Every part is released once it has been copied, so that the memory needed is hardly more than that of the result.
    """
    result = torch.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=parts[0].dtype)
    start = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        result[start : start + len(part)] = part
        start += len(part)
    return result


def parse_clinical_number(text: str, column: str, patient: str) -> float | None:
    """Parse the number in a clinical column; None if it is empty or states that the value is unknown.

    Raises
    ------
    CohortError
        If the text is not a finite number.
    """
    if is_blank_cell(text):
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CohortError(
            f"Patient {patient}: '{text}' in column '{column}' is not a number; enter 0, 1, a percentage or nothing."
        )
    return value


def get_high_grade_label(clinical: ClinicalData) -> int | None:
    """Return 1 for WHO grade 3 or 4, 0 for a lower grade, None if it is unknown.

    Raises CohortError if it is not a number.
    """
    grade = parse_clinical_number(clinical.columns.get("who_grade", ""), "who_grade", clinical.patient_id)
    return None if grade is None else int(grade >= MIN_HIGH_GRADE)


def join_datasets(first: SliceDataset, second: SliceDataset) -> SliceDataset:
    """Join the slices of two cohorts."""
    region = weight = None
    if first.synthesis_region is not None or second.synthesis_region is not None:
        region = torch.cat([get_synthesis_region(first), get_synthesis_region(second)])
    if first.draw_weight is not None or second.draw_weight is not None:
        weight = torch.cat([_get_draw_weight(first), _get_draw_weight(second)])
    return SliceDataset(
        torch.cat([first.image, second.image]),
        torch.cat([first.lesion, second.lesion]),
        torch.cat([first.grade, second.grade]),
        torch.cat([first.patient, second.patient + len(first.patient_ids)]),
        first.patient_ids + second.patient_ids,
        region,
        weight,
    )


def get_synthesis_region(slice_dataset: SliceDataset) -> Tensor:
    """Return the synthesis region ``(N, C / 2, 240, 240)``, 0 everywhere if nothing is synthesised."""
    if slice_dataset.synthesis_region is not None:
        return slice_dataset.synthesis_region
    count, channels, *shape = slice_dataset.image.shape
    return torch.zeros(count, channels // 2, *shape, dtype=torch.uint8)


def _get_draw_weight(slice_dataset: SliceDataset) -> Tensor:
    if slice_dataset.draw_weight is not None:
        return slice_dataset.draw_weight
    return torch.ones(len(slice_dataset.patient_ids), dtype=torch.long)


def compute_focus_prior(slice_dataset: SliceDataset) -> Tensor:
    """Compute the focus prior graph P ``(side, side)`` (method.md, section 3).

    It is the mean of the training patients' masks, smoothed and scaled to a maximum of 1; all patients have the same
    weight. The slices are aligned by their grid, which is centred on the bounding box of the brain
    (``preprocessing.slicing``). P is made mirror-symmetric, because gliomas occur on either side.
    """
    count = len(slice_dataset.patient_ids)
    means = [
        slice_dataset.lesion[slice_dataset.patient == index].float().mean(dim=0) for index in range(count)
    ]
    prior = torch.stack(means).mean(dim=0)
    half = round(PRIOR_SMOOTHING_PIXELS * len(prior) / 240 / 2 - 0.25)
    mirrored = ((prior + prior.flip(1)) / 2)[None]
    smooth = F.avg_pool2d(mirrored, 2 * half + 1, 1, half, count_include_pad=False)[0]
    return smooth / smooth.max().clamp(min=1e-6)


class EpochSampler(torch.utils.data.Sampler[int]):
    """Draws the slices of each epoch: the same number of every patient, with a given share of lesion slices.

    A patient with a draw weight has that many times as many.
    """

    def __init__(
        self, slice_dataset: SliceDataset, slices_per_patient: int, lesion_share: float, seed: int = 0
    ) -> None:
        self.seed, self.epoch = seed, 0
        self.slice_counts = [slices_per_patient * one for one in _get_draw_weight(slice_dataset).tolist()]
        self.lesion_share = lesion_share
        has_lesion = slice_dataset.lesion.flatten(1).amax(dim=1) > 0
        self.patient_rows = [
            torch.nonzero(slice_dataset.patient == i)[:, 0] for i in range(len(slice_dataset.patient_ids))
        ]
        self.lesion_rows = [index[has_lesion[index]] for index in self.patient_rows]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by the trainer. The draws depend only on seed and epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(self.slice_counts)

    def __iter__(self) -> Iterator[int]:
        generator = create_epoch_generator(self.seed, self.epoch)
        drawn = []
        for all_rows, lesion, count in zip(
            self.patient_rows, self.lesion_rows, self.slice_counts, strict=True
        ):
            lesion_count = round(count * self.lesion_share)
            preferred = lesion if len(lesion) else all_rows
            drawn.append(_draw_evenly(preferred, lesion_count, generator))
            drawn.append(_draw_evenly(all_rows, count - lesion_count, generator))
        indices = torch.cat(drawn)
        return iter(indices[torch.randperm(len(indices), generator=generator)].tolist())


def _draw_evenly(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` of the rows ``(n,)``; no row is repeated before all have been drawn."""
    rounds = math.ceil(count / len(rows))
    return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)])[:count]

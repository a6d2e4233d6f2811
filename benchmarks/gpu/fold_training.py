"""Concurrent training of several folds of one network on a GPU: the slices are in GPU memory, a step is a CUDA graph.

A ``FoldTrainer`` trains one network on one fold. Its whole schedule (slices, augmentations, learning rates) is drawn in
advance from seed and fold and is in GPU memory too: all networks see the same sequence of batches, and a step needs no
data from the CPU. Augmentation, losses and networks are those of the package. Without a GPU, the same steps are run as
ordinary calls, for the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from gpu.packed_cohort import PackedPatient
from torch import Tensor, nn

from gliomark.inference.segmenter import compute_theta, compute_tile_corners, remove_small_components
from gliomark.models.network_io import SegmentationOutput
from gliomark.models.registry import build_segmentation_network
from gliomark.training.augmentation import apply_view, draw_random_theta
from gliomark.training.segmentation import (
    SegmentationTrainingConfig,
    compute_training_loss,
    compute_warmup_cosine,
)
from gliomark.training.slice_dataset import EpochSampler, SliceDataset, compute_focus_prior

WARM_UP_STEPS = 3
NOISE_FIELDS = 256
READ_BATCH = 64
SMALLEST_LESION_ML = 0.5
THRESHOLD = 0.5


def build_slice_bank(patients: Sequence[PackedPatient], sequence: str) -> SliceDataset:
    """Build a slice bank of all slices of all patients, in CPU memory."""
    counts = torch.tensor([p.record.slices for p in patients])
    grades = torch.tensor([-1 if p.record.high_grade is None else p.record.high_grade for p in patients])
    return SliceDataset(
        torch.from_numpy(np.concatenate([p.images[sequence] for p in patients]))[:, None],
        torch.from_numpy(np.concatenate([p.lesion for p in patients]).astype(np.uint8)),
        grades.repeat_interleave(counts),
        torch.arange(len(patients)).repeat_interleave(counts),
        tuple(p.record.patient for p in patients),
    )


@dataclass(frozen=True, eq=False)
class TrainingFold:
    """Training patients of one fold.

    mask_bank: their masks (without images); rows ``(n,)``: positions of their slices in the whole bank; prior: focus
    prior ``(H, W)``.
    """

    mask_bank: SliceDataset
    rows: Tensor
    prior: Tensor


def build_training_fold(bank: SliceDataset, patients: Sequence[str]) -> TrainingFold:
    """Build the training data of a fold; the images stay in the whole bank."""
    chosen = torch.tensor([bank.patient_ids.index(p) for p in patients])
    rows = torch.nonzero(torch.isin(bank.patient, chosen))[:, 0]
    renumbered = torch.zeros(len(bank.patient_ids), dtype=torch.long)
    renumbered[chosen] = torch.arange(len(chosen))
    part = SliceDataset(
        bank.image[:1], bank.lesion[rows], bank.grade[rows], renumbered[bank.patient[rows]], tuple(patients)
    )
    return TrainingFold(part, rows, compute_focus_prior(part))


@dataclass(frozen=True, eq=False)
class TrainingSchedule:
    """Training schedule of one fold.

    rows of the bank ``(steps, B)``; thetas ``(steps, B, 2, 3)``; numbers of noise fields ``(steps, B)``; learning
    rates ``(steps,)``; focus prior ``(H, W)`` of the training patients.
    """

    rows: Tensor
    thetas: Tensor
    noise: Tensor
    rates: Tensor
    prior: Tensor


def draw_schedule(
    training_fold: TrainingFold, settings: SegmentationTrainingConfig, steps: int, seed: int, fold: int
) -> TrainingSchedule:
    """Draw a schedule from seed and fold alone, so that all networks see the same sequence of batches."""
    torch.manual_seed(1000 * seed + fold)
    sampler = EpochSampler(
        training_fold.mask_bank, settings.slices_per_patient, settings.lesion_share, 1000 * seed + fold
    )
    count, drawn = steps * settings.batch, []
    while len(drawn) < count:
        drawn += list(sampler)
        sampler.set_epoch(sampler.epoch + 1)
    side = training_fold.prior.shape[-1]
    thetas = draw_random_theta(count, settings.augmentation, side).unflatten(0, (steps, settings.batch))
    rates = [compute_warmup_cosine((step + 1) / steps, settings.warm_up) for step in range(steps)]
    return TrainingSchedule(
        training_fold.rows[torch.tensor(drawn[:count])].unflatten(0, (steps, settings.batch)),
        thetas,
        torch.randint(NOISE_FIELDS, (steps, settings.batch)),
        settings.rate * torch.tensor(rates),
        training_fold.prior,
    )


class FoldTrainer:
    """One network in training; call ``reset_to`` before a fold and ``run_next_step`` for each step."""

    def __init__(
        self,
        bank: SliceDataset,
        settings: SegmentationTrainingConfig,
        steps: int,
        device: torch.device,
        compiled: bool,
    ) -> None:
        self.bank, self.settings, self.device = bank, settings, device
        # noise is taken from fields drawn in advance
        self.augmentation = replace(settings.augmentation, noise=0.0)
        self.prior = torch.rand(bank.image.shape[-2:], device=device)
        self.network = build_segmentation_network(settings.network, self.prior.cpu()).to(device)
        self.forward: nn.Module = torch.compile(self.network) if compiled else self.network  # type: ignore[assignment]
        batch, kwargs = settings.batch, {"device": device}
        self.counter = torch.zeros(1, dtype=torch.long, **kwargs)
        self.rows = torch.zeros(steps, batch, dtype=torch.long, **kwargs)
        self.thetas = torch.eye(2, 3, **kwargs).expand(steps, batch, -1, -1).clone()
        self.noise = torch.zeros(steps, batch, dtype=torch.long, **kwargs)
        self.rates, self.losses = (torch.zeros(steps, **kwargs) for _ in range(2))
        self.fields = torch.zeros(
            NOISE_FIELDS, 1, settings.view_size, settings.view_size, dtype=torch.half, **kwargs
        )
        self.rate = torch.tensor(0.0, **kwargs)
        on_gpu = device.type == "cuda"
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.rate,
            weight_decay=settings.weight_decay,
            capturable=on_gpu,
            fused=on_gpu,
            foreach=None if on_gpu else False,
        )
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = torch.cuda.Stream() if on_gpu else None

    def reset_to(
        self, schedule: TrainingSchedule, untrained_network: nn.Module, noise_fields: Tensor
    ) -> None:
        """Reset to the start of another fold or seed, without reallocating any tensor.

        untrained_network: initial network of the seed; noise_fields: ``(NOISE_FIELDS, 1, side, side)``.
        """
        with torch.no_grad():
            for own_tensor, new in zip(
                self.network.state_dict().values(), untrained_network.state_dict().values(), strict=True
            ):
                own_tensor.copy_(new)
            for state in self.optimiser.state.values():
                for tensor in state.values():
                    tensor.zero_()
            steps = len(schedule.rows)
            self.rows[:steps], self.thetas[:steps] = (
                schedule.rows.to(self.device),
                schedule.thetas.to(self.device),
            )
            self.noise[:steps], self.rates[:steps] = (
                schedule.noise.to(self.device),
                schedule.rates.to(self.device),
            )
            self.fields.copy_(noise_fields)
            self.prior.copy_(schedule.prior)
            self.counter.zero_()
        guidance = getattr(self.network, "guidance", None)
        if guidance is not None:
            guidance.initialise_alpha(self.prior)
        self.network.train()

    def train_step(self) -> None:
        """Run the training step that the counter points to."""
        settings, step_index = self.settings, self.counter
        self.optimiser.zero_grad(set_to_none=True)
        rows, theta = self.rows[step_index][0], self.thetas[step_index][0]
        self.rate.copy_(self.rates[step_index][0])
        seen, target = apply_view(
            theta, self.bank.image[rows], self.bank.lesion[rows], self.augmentation, settings.pool
        )
        seen = seen + settings.augmentation.noise * self.fields[self.noise[step_index][0]]
        with torch.autocast(self.device.type, torch.bfloat16):
            output: SegmentationOutput = self.forward(seen, theta)
        grade = None if output.grade_logits is None else output.grade_logits.float()
        deeper = tuple(logits.float() for logits in output.deep_supervision_logits)
        output = SegmentationOutput(output.logits.float(), grade, deeper)
        loss = compute_training_loss(output, target, self.bank.grade[rows], theta, self.prior, settings)
        loss.backward()
        self.optimiser.step()
        self.losses.index_copy_(0, step_index, loss.detach()[None])
        self.counter += 1

    def capture_graph(self, uses_graph: bool) -> None:
        """Record the step as a CUDA graph after a few ordinary steps; call ``reset_to`` afterwards."""
        if self.stream is None or not uses_graph:
            self.train_step()
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UP_STEPS):
                self.train_step()
        torch.cuda.synchronize()
        self.optimiser.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.train_step()
        torch.cuda.synchronize()
        # free the memory of the ordinary steps; the graph has its own
        torch.cuda.empty_cache()

    def run_next_step(self) -> None:
        """Run the next step, by the CUDA graph if there is one."""
        if self.graph is None:
            self.train_step()
            return
        with torch.cuda.stream(self.stream):
            self.graph.replay()


def create_start(settings: SegmentationTrainingConfig, seed: int) -> tuple[nn.Module, Tensor]:
    """Create the untrained network and the noise fields of a seed, the same for every fold."""
    torch.manual_seed(seed)
    network = build_segmentation_network(settings.network)
    # seed again: the noise must not depend on the network's initialisation
    torch.manual_seed(seed)
    return network, torch.randn(NOISE_FIELDS, 1, settings.view_size, settings.view_size)


@torch.no_grad()
def predict_segmentations(
    lane: FoldTrainer, patients: Sequence[PackedPatient], sequence: str
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Segment patients in tiles, as in ``predict_lesion_probability``.

    Yields id, mask ``(slice, 240, 240)`` before small components are removed, and probability of a high grade (NaN
    without grading).
    """
    lane.network.eval()
    tile, device = lane.settings.augmentation.crop, lane.device
    for patient in patients:
        images = torch.from_numpy(patient.images[sequence]).to(device)[:, None].float()
        height, width = images.shape[-2:]
        logits = torch.zeros(len(images), 2, height, width, device=device)
        tile_count, grades = torch.zeros(height, width, device=device), []
        for top, left in compute_tile_corners(patient.brain, tile):
            window = (..., slice(top, top + tile), slice(left, left + tile))
            position = compute_theta(range(top, top + tile), range(left, left + tile), height, width)
            theta = torch.from_numpy(position).to(device)
            outline, grade = _predict_logits(lane, images[window], theta)
            logits[window] += outline
            tile_count[window] += 1
            grades += [] if grade is None else [grade.softmax(dim=1)[:, 1]]
        probability = (logits / tile_count.clamp(min=1)).softmax(dim=1)[:, 1]
        mask = (probability >= THRESHOLD) & (tile_count > 0) & torch.from_numpy(patient.brain).to(device)
        is_lesion_slice = torch.from_numpy(patient.lesion.any(axis=(1, 2))).to(device)
        high = float(torch.stack(grades).mean(dim=0)[is_lesion_slice].mean()) if grades else float("nan")
        yield patient.record.patient, mask.cpu().numpy(), high


def _predict_logits(lane: FoldTrainer, images: Tensor, theta: Tensor) -> tuple[Tensor, Tensor | None]:
    """Compute logits of segmentation and grade in single precision."""
    logits, grades = [], []
    for part in images.split(READ_BATCH):
        with torch.autocast(lane.device.type, torch.bfloat16):
            answer = lane.network(part, theta.expand(len(part), -1, -1))
        logits.append(answer.logits.float())
        grades += [] if answer.grade_logits is None else [answer.grade_logits.float()]
    return torch.cat(logits), torch.cat(grades) if grades else None


def remove_small_lesions(mask: np.ndarray, patient: PackedPatient) -> np.ndarray:
    """Remove components of less than 0.5 ml, as ``Segmenter`` does; mask ``(slice, 240, 240)``."""
    voxel_ml = float(np.prod(patient.record.spacing_mm)) / 1000
    return remove_small_components(mask.astype(np.float32), SMALLEST_LESION_ML / voxel_ml)

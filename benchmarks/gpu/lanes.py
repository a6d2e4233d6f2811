"""Training several folds of one network side by side on a GPU: the slices lie on it, a step is one CUDA graph.

A lane is one network on one fold. Its whole course (which slices, which views, which rate) is drawn beforehand from
the seed and the fold and lies on the GPU too, so that every network sees the same stream of batches, and a step needs
nothing from the processor. The views, losses and networks are the package's own. Without a GPU the same steps run
one by one, for the test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from gpu.pack import PackedPatient
from torch import Tensor, nn

from gliomark.inference.segmenter import tile_corners, tile_theta, without_specks
from gliomark.models.mignet import Outline
from gliomark.models.segmentation_networks import build_segmentation_network
from gliomark.training.augmentation import random_theta, seen_through
from gliomark.training.segmentation import SegmentationTraining, outline_loss, warm_cosine
from gliomark.training.slice_bank import EpochSampler, SliceBank, focus_prior

WARM_UP_STEPS = 3
NOISE_FIELDS = 256
READ_BATCH = 64
SMALLEST_LESION_ML = 0.5
THRESHOLD = 0.5


def bank_of(patients: Sequence[PackedPatient], sequence: str) -> SliceBank:
    """Every slice of every patient, in memory."""
    counts = torch.tensor([p.facts.slices for p in patients])
    grades = torch.tensor([-1 if p.facts.high_grade is None else p.facts.high_grade for p in patients])
    return SliceBank(
        torch.from_numpy(np.concatenate([p.images[sequence] for p in patients]))[:, None],
        torch.from_numpy(np.concatenate([p.lesion for p in patients]).astype(np.uint8)),
        grades.repeat_interleave(counts),
        torch.arange(len(patients)).repeat_interleave(counts),
        tuple(p.facts.patient for p in patients),
    )


@dataclass(frozen=True, eq=False)
class Learning:
    """The patients that one fold learns from: their slices' masks, where those lie in the whole bank, and the FPG."""

    part: SliceBank
    rows: Tensor
    prior: Tensor


def learning_of(bank: SliceBank, patients: Sequence[str]) -> Learning:
    """What a fold is drawn from; the images stay in the whole bank."""
    chosen = torch.tensor([bank.patient_ids.index(p) for p in patients])
    rows = torch.nonzero(torch.isin(bank.patient, chosen))[:, 0]
    renumbered = torch.zeros(len(bank.patient_ids), dtype=torch.long)
    renumbered[chosen] = torch.arange(len(chosen))
    part = SliceBank(
        bank.image[:1], bank.lesion[rows], bank.grade[rows], renumbered[bank.patient[rows]], tuple(patients)
    )
    return Learning(part, rows, focus_prior(part))


@dataclass(frozen=True, eq=False)
class Course:
    """What a lane is shown, step by step: rows of the bank ``(steps, B)``, thetas ``(steps, B, 2, 3)``, fields of
    noise ``(steps, B)``, rates ``(steps,)``; and the FPG of the training patients."""

    rows: Tensor
    thetas: Tensor
    noise: Tensor
    rates: Tensor
    prior: Tensor


def draw_course(
    learning: Learning, settings: SegmentationTraining, steps: int, seed: int, fold: int
) -> Course:
    """From the seed and the fold alone: whatever the network, the stream of batches is the same."""
    torch.manual_seed(1000 * seed + fold)
    sampler = EpochSampler(
        learning.part, settings.slices_per_patient, settings.lesion_share, 1000 * seed + fold
    )
    count, drawn = steps * settings.batch, []
    while len(drawn) < count:
        drawn += list(sampler)
        sampler.set_epoch(sampler.epoch + 1)
    side = learning.prior.shape[-1]
    thetas = random_theta(count, settings.augmentation, side).unflatten(0, (steps, settings.batch))
    rates = [warm_cosine((step + 1) / steps, settings.warm_up) for step in range(steps)]
    return Course(
        learning.rows[torch.tensor(drawn[:count])].unflatten(0, (steps, settings.batch)),
        thetas,
        torch.randint(NOISE_FIELDS, (steps, settings.batch)),
        settings.rate * torch.tensor(rates),
        learning.prior,
    )


class Lane:
    """One network in training; ``reset`` before a fold, ``step`` for each of its steps."""

    def __init__(
        self,
        bank: SliceBank,
        settings: SegmentationTraining,
        steps: int,
        device: torch.device,
        compiled: bool,
    ) -> None:
        self.bank, self.settings, self.device = bank, settings, device
        # the noise is drawn beforehand
        self.seen = replace(settings.augmentation, noise=0.0)
        self.prior = torch.rand(bank.image.shape[-2:], device=device)
        self.network = build_segmentation_network(settings.network, self.prior.cpu()).to(device)
        self.forward: nn.Module = torch.compile(self.network) if compiled else self.network  # type: ignore[assignment]
        batch, kwargs = settings.batch, {"device": device}
        self.counter = torch.zeros(1, dtype=torch.long, **kwargs)
        self.rows = torch.zeros(steps, batch, dtype=torch.long, **kwargs)
        self.thetas = torch.eye(2, 3, **kwargs).expand(steps, batch, -1, -1).clone()
        self.noise = torch.zeros(steps, batch, dtype=torch.long, **kwargs)
        self.rates, self.losses = (torch.zeros(steps, **kwargs) for _ in range(2))
        self.fields = torch.zeros(NOISE_FIELDS, 1, settings.side, settings.side, dtype=torch.half, **kwargs)
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

    def reset(self, course: Course, fresh: nn.Module, fields: Tensor) -> None:
        """To the start of another fold or seed, every tensor staying where it is. fresh: the seed's untrained network;
        fields: its noise ``(NOISE_FIELDS, 1, side, side)``."""
        with torch.no_grad():
            for own, new in zip(self.network.state_dict().values(), fresh.state_dict().values(), strict=True):
                own.copy_(new)
            for state in self.optimiser.state.values():
                for tensor in state.values():
                    tensor.zero_()
            steps = len(course.rows)
            self.rows[:steps], self.thetas[:steps] = (
                course.rows.to(self.device),
                course.thetas.to(self.device),
            )
            self.noise[:steps], self.rates[:steps] = (
                course.noise.to(self.device),
                course.rates.to(self.device),
            )
            self.fields.copy_(fields)
            self.prior.copy_(course.prior)
            self.counter.zero_()
        guidance = getattr(self.network, "guidance", None)
        if guidance is not None:
            guidance.start_from(self.prior)
        self.network.train()

    def step(self) -> None:
        """One step of the course, wherever the counter stands."""
        s, now = self.settings, self.counter
        self.optimiser.zero_grad(set_to_none=True)
        rows, theta = self.rows[now][0], self.thetas[now][0]
        self.rate.copy_(self.rates[now][0])
        seen, target = seen_through(theta, self.bank.image[rows], self.bank.lesion[rows], self.seen, s.pool)
        seen = seen + s.augmentation.noise * self.fields[self.noise[now][0]]
        with torch.autocast(self.device.type, torch.bfloat16):
            answer: Outline = self.forward(seen, theta)
        grade = None if answer.grade is None else answer.grade.float()
        deeper = tuple(one.float() for one in answer.deeper)
        answer = Outline(answer.logits.float(), grade, deeper)
        loss = outline_loss(answer, target, self.bank.grade[rows], theta, self.prior, s)
        loss.backward()
        self.optimiser.step()
        self.losses.index_copy_(0, now, loss.detach()[None])
        self.counter += 1

    def capture(self, as_graph: bool) -> None:
        """Record the step as a CUDA graph, after a few ordinary ones; call ``reset`` afterwards."""
        if self.stream is None or not as_graph:
            self.step()
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UP_STEPS):
                self.step()
        torch.cuda.synchronize()
        self.optimiser.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.step()
        torch.cuda.synchronize()
        # the ordinary steps' memory, which a graph has of its own
        torch.cuda.empty_cache()

    def go(self) -> None:
        """The next step, by the graph where there is one."""
        if self.graph is None:
            self.step()
            return
        with torch.cuda.stream(self.stream):
            self.graph.replay()


def start_of(settings: SegmentationTraining, seed: int) -> tuple[nn.Module, Tensor]:
    """A seed's untrained network and fields of noise, the same for every fold."""
    torch.manual_seed(seed)
    network = build_segmentation_network(settings.network)
    # whatever the network has drawn, its noise is every other network's
    torch.manual_seed(seed)
    return network, torch.randn(NOISE_FIELDS, 1, settings.side, settings.side)


@torch.no_grad()
def read(
    lane: Lane, patients: Sequence[PackedPatient], sequence: str
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Each patient's outline ``(slice, 240, 240)`` before small pieces are dropped, and the grading task's answer for
    them (nan without one), tiled as ``lesion_probability`` does."""
    lane.network.eval()
    tile, device = lane.settings.augmentation.crop, lane.device
    for patient in patients:
        images = torch.from_numpy(patient.images[sequence]).to(device)[:, None].float()
        height, width = images.shape[-2:]
        logits = torch.zeros(len(images), 2, height, width, device=device)
        seen, grades = torch.zeros(height, width, device=device), []
        for top, left in tile_corners(patient.brain, tile):
            place = (..., slice(top, top + tile), slice(left, left + tile))
            theta = tile_theta(top, left, tile, height, width).to(device)
            outline, grade = _answers(lane, images[place], theta)
            logits[place] += outline
            seen[place] += 1
            grades += [] if grade is None else [grade.softmax(dim=1)[:, 1]]
        probability = (logits / seen.clamp(min=1)).softmax(dim=1)[:, 1]
        mask = (probability >= THRESHOLD) & (seen > 0) & torch.from_numpy(patient.brain).to(device)
        drawn = torch.from_numpy(patient.lesion.any(axis=(1, 2))).to(device)
        high = float(torch.stack(grades).mean(dim=0)[drawn].mean()) if grades else float("nan")
        yield patient.facts.patient, mask.cpu().numpy(), high


def _answers(lane: Lane, images: Tensor, theta: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits of the outline and of the grade, in single precision."""
    logits, grades = [], []
    for part in images.split(READ_BATCH):
        with torch.autocast(lane.device.type, torch.bfloat16):
            answer = lane.network(part, theta.expand(len(part), -1, -1))
        logits.append(answer.logits.float())
        grades += [] if answer.grade is None else [answer.grade.float()]
    return torch.cat(logits), torch.cat(grades) if grades else None


def without_small_pieces(mask: np.ndarray, patient: PackedPatient) -> np.ndarray:
    """The outline as ``Segmenter`` gives it: pieces under half a millilitre are dropped."""
    voxel_ml = float(np.prod(patient.facts.spacing_mm)) / 1000
    return without_specks(mask.astype(np.float32), SMALLEST_LESION_ML / voxel_ml)

"""Training MIG-Net: the slices of a cohort's patients, the focus prior graph, one Lightning module."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from gliomark.cohort.store import Cohort
from gliomark.models.mignet import MIGNet, MIGNetSettings, build_mignet
from gliomark.models.swin_unet import SMALL
from gliomark.study import GliomarkError, MRSequence
from gliomark.training.augmentation import GENTLE, Augmentation, random_view, view
from gliomark.training.losses import GRADING_WEIGHT, grading_loss, prior_weight, segmentation_loss

HIGH_GRADE = 3


@dataclass(frozen=True)
class SegmentationTraining:
    """METHOD section 3: AdamW, 5e-4, cosine with warm-up, batch 16, at most 200 epochs.

    An epoch shows ``slices_per_patient`` random slices of every patient, ``lesion_share`` of them with
    lesion, so that a patient of 80 thin slices counts as one of 20 thick ones.
    """

    network: MIGNetSettings = field(default_factory=MIGNetSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    rate: float = 5e-4
    weight_decay: float = 0.01
    warm_up: float = 0.05
    batch: int = 16
    epochs: int = 200
    slices_per_patient: int = 20
    lesion_share: float = 0.6
    seed: int = 0


def small_training(inputs: int, epochs: int) -> SegmentationTraining:
    """The size that two CPU cores train in well under an hour."""
    network = MIGNetSettings(inputs=inputs, size=SMALL)
    return SegmentationTraining(network=network, augmentation=GENTLE, rate=1e-3, epochs=epochs)


@dataclass(frozen=True, eq=False)
class SliceBank:
    """Slices in memory. image float16 ``(N, C, 240, 240)``, lesion uint8 ``(N, 240, 240)``, grade
    ``(N,)`` (-1 unknown), patient ``(N,)`` index into ``patient_ids``."""

    image: Tensor
    lesion: Tensor
    grade: Tensor
    patient: Tensor
    patient_ids: tuple[str, ...]


def load_bank(
    cohort: Cohort, patients: Sequence[str], sequences: Sequence[MRSequence], joint: bool
) -> SliceBank:
    """joint: the sequences are one sample's channels (an absent one is zero, the brain's mean);
    otherwise every sequence of a slice is a sample of its own."""
    images, lesions, grades, owners = [], [], [], []
    for index, patient in enumerate(patients):
        stack = cohort.stack(patient)
        channels = [stack.images.get(name) for name in sequences]
        shape = stack.brain.shape
        if joint:
            samples = [np.stack([np.zeros(shape, np.float32) if c is None else c for c in channels], axis=1)]
        else:
            samples = [c[:, None] for c in channels if c is not None]
        grade = cohort.clinical(patient).columns.get("who_grade", "")
        for sample in samples:
            images.append(torch.from_numpy(sample).half())
            lesions.append(torch.from_numpy(stack.drawn.astype(np.uint8)))
            grades.append(torch.full(shape[:1], int(float(grade) >= HIGH_GRADE) if grade else -1))
            owners.append(torch.full(shape[:1], index))
    return SliceBank(
        torch.cat(images), torch.cat(lesions), torch.cat(grades), torch.cat(owners), tuple(patients)
    )


def focus_prior(bank: SliceBank) -> Tensor:
    """FPG: P ``(240, 240)``, the mean of the training patients' masks, smoothed, maximum scaled to 1.

    Slices lie on a grid centred on the brain's bounding box (``preprocessing.slicing``), which is the
    alignment; every patient weighs the same. Made mirror-symmetric: gliomas have no side.
    """
    count = len(bank.patient_ids)
    means = [bank.lesion[bank.patient == index].float().mean(dim=0) for index in range(count)]
    prior = torch.stack(means).mean(dim=0)
    smooth = F.avg_pool2d(((prior + prior.flip(1)) / 2)[None], 9, 1, 4, count_include_pad=False)[0]
    return smooth / smooth.max().clamp(min=1e-6)


class EpochSampler(torch.utils.data.Sampler[int]):
    """The slices of an epoch, drawn anew each time: as many of every patient, lesion slices preferred."""

    def __init__(self, bank: SliceBank, per_patient: int, lesion_share: float) -> None:
        self.lesion_count = round(per_patient * lesion_share)
        self.per_patient = per_patient
        has_lesion = bank.lesion.flatten(1).amax(dim=1) > 0
        self.all = [torch.nonzero(bank.patient == i)[:, 0] for i in range(len(bank.patient_ids))]
        self.with_lesion = [index[has_lesion[index]] for index in self.all]

    def __len__(self) -> int:
        return self.per_patient * len(self.all)

    def __iter__(self):
        drawn = []
        for everything, lesion in zip(self.all, self.with_lesion, strict=True):
            preferred = lesion if len(lesion) else everything
            drawn.append(_draw(preferred, self.lesion_count))
            drawn.append(_draw(everything, self.per_patient - self.lesion_count))
        indices = torch.cat(drawn)
        return iter(indices[torch.randperm(len(indices))].tolist())


def _draw(index: Tensor, count: int) -> Tensor:
    """``count`` of the index, each as often as possible before any comes again."""
    rounds = math.ceil(count / len(index))
    return torch.cat([index[torch.randperm(len(index))] for _ in range(rounds)])[:count]


class SegmentationTask(lightning.LightningModule):
    """MIG-Net, its two losses and its optimiser; the training loop is Lightning's."""

    prior: Tensor

    def __init__(self, settings: SegmentationTraining, prior: Tensor) -> None:
        super().__init__()
        self.settings = settings
        self.network = build_mignet(settings.network, prior)
        self.register_buffer("prior", prior)

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        image, lesion, grade = batch
        seen, target, theta = random_view(image, lesion, self.settings.augmentation)
        logits, grades = self.network(seen, theta)
        loss = segmentation_loss(logits, target, self._weight(theta) if self.settings.network.fpg else None)
        self.log("segmentation", loss, prog_bar=True)
        if grades is not None:
            loss = loss + GRADING_WEIGHT * grading_loss(grades, grade, target)
        return loss

    def _weight(self, theta: Tensor) -> Tensor:
        prior = self.prior.expand(len(theta), 1, -1, -1)
        return prior_weight(view(prior, theta, self.settings.augmentation.crop)[:, 0])

    def validation_step(self, batch: Sequence[Tensor], _: int) -> None:
        """Dice over all validation slices together, central view: what training is stopped by."""
        image, lesion = batch[0].float(), batch[1].float()
        crop = self.settings.augmentation.crop
        margin = (image.shape[-1] - crop) // 2
        inner = (..., slice(margin, margin + crop), slice(margin, margin + crop))
        mask = self.network(image[inner])[0].argmax(dim=1)
        self._validation += torch.stack([(mask * lesion[inner]).sum(), mask.sum() + lesion.sum()]).cpu()

    def on_validation_epoch_start(self) -> None:
        self._validation = torch.zeros(2)

    def on_validation_epoch_end(self) -> None:
        self.log("validation_dice", 2 * self._validation[0] / self._validation[1].clamp(min=1), prog_bar=True)

    def configure_optimizers(self):
        s = self.settings
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=s.rate, weight_decay=s.weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: _warm_cosine(step / steps, s.warm_up)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _warm_cosine(done: float, warm_up: float) -> float:
    """Share of the full rate after the share ``done`` of all steps."""
    return (
        done / warm_up
        if done < warm_up
        else 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm_up) / (1 - warm_up))))
    )


def train_segmentation(
    bank: SliceBank, settings: SegmentationTraining, work: Path, validation: SliceBank | None = None
) -> tuple[MIGNet, Tensor]:
    """Train and return the network and its FPG. ``work`` holds the checkpoints; an interrupted run goes on.

    With validation slices the epoch of the best validation Dice is returned, otherwise the last.
    """
    check_same_patients(work, bank.patient_ids)
    lightning.seed_everything(settings.seed, verbose=False)
    task = SegmentationTask(settings, focus_prior(bank))
    checkpoint = lightning.pytorch.callbacks.ModelCheckpoint(
        work, monitor="validation_dice" if validation else None, mode="max", save_last=True
    )
    trainer = make_trainer(settings.epochs, work, [checkpoint])
    trainer.fit(task, _loader(bank, settings), _plain_loader(validation), ckpt_path=last_checkpoint(work))
    if validation is not None and checkpoint.best_model_path:
        task.load_state_dict(torch.load(checkpoint.best_model_path, weights_only=False)["state_dict"])
    return task.network.eval(), task.prior


def make_trainer(epochs: int, work: Path, callbacks: list) -> lightning.Trainer:
    """One trainer for every network: any device, mixed precision where the hardware has it."""
    # its tips and device notices would drown the progress bar
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return lightning.Trainer(
        max_epochs=epochs,
        precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
        default_root_dir=work,
        callbacks=callbacks,
        logger=lightning.pytorch.loggers.CSVLogger(work, name="log", version=0),
        log_every_n_steps=20,
        enable_model_summary=False,
    )


def check_same_patients(work: Path, patients: Sequence[str]) -> None:
    """Raise GliomarkError where ``work`` holds a run on other patients: going on from it would leak them."""
    record = work / "patients.json"
    if not (work / "last.ckpt").exists():
        work.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(sorted(patients)), "utf-8")
    elif record.exists() and json.loads(record.read_text("utf-8")) != sorted(patients):
        raise GliomarkError(
            f"{work} holds a run that was trained on other patients; delete that folder to train anew."
        )


def last_checkpoint(work: Path) -> str | None:
    """Where an interrupted run goes on from; None where there is nothing yet."""
    last = work / "last.ckpt"
    return str(last) if last.exists() else None


def _loader(bank: SliceBank, settings: SegmentationTraining) -> DataLoader:
    dataset: Dataset = TensorDataset(bank.image, bank.lesion, bank.grade)
    sampler = EpochSampler(bank, settings.slices_per_patient, settings.lesion_share)
    return DataLoader(dataset, settings.batch, sampler=sampler, drop_last=True)


def _plain_loader(bank: SliceBank | None) -> DataLoader | None:
    return None if bank is None else DataLoader(TensorDataset(bank.image, bank.lesion, bank.grade), 32)

"""Training a segmentation network: one Lightning module for MIG-Net and its rivals alike."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from gliomark.inference.segmenter import averaged
from gliomark.models.mignet import MIGNetSettings, Outline
from gliomark.models.segmentation_baselines import BaselineSettings
from gliomark.models.segmentation_networks import (
    NetworkSettings,
    build_segmentation_network,
    start_from_imagenet,
)
from gliomark.models.swin_unet import SMALL
from gliomark.training.augmentation import GENTLE, Augmentation, random_view, view
from gliomark.training.checkpoints import LastCheckpoint, SeededBatches, WholeCheckpoints, last_checkpoint
from gliomark.training.losses import (
    deeply_supervised_loss,
    distillation_loss,
    grading_loss,
    prior_weight,
)
from gliomark.training.same_run import check_same_run
from gliomark.training.slice_bank import EpochSampler, SliceBank, focus_prior


@dataclass(frozen=True)
class SegmentationTraining:
    """METHOD section 3: AdamW, 5e-4, cosine with warm-up, batch 16, at most 200 epochs.

    An epoch shows ``slices_per_patient`` random slices of every patient, ``lesion_share`` of them with
    lesion, so that a patient of 80 thin slices counts as one of 20 thick ones. pool: views are averaged
    over pool x pool pixels; context: neighbouring slices on either side as further channels (0 as
    published). grading_weight: of the auxiliary task's loss, 0.5 as published. optimiser "sgd" is
    nnU-Net's: Nesterov momentum 0.99, the rate falling as (1 - done)^0.9.
    largest_gradient: norm at which a step's gradient is clipped, None never. validate_every: epochs; 0, nobody is
    kept back to validate: the falling rate ends the training, and the last weights are taken, where the best of a
    few validation patients would be chance's choice; patience: validations without a better one after which training
    ends. distillation: share of the loss
    that is agreement with a teacher. imagenet: start the encoder from ImageNet weights.
    """

    network: NetworkSettings = field(default_factory=MIGNetSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    pool: float = 1
    context: int = 0
    grading_weight: float = 0.5
    optimiser: Literal["adamw", "sgd"] = "adamw"
    rate: float = 5e-4
    weight_decay: float = 0.01
    warm_up: float = 0.05
    largest_gradient: float | None = None
    batch: int = 16
    epochs: int = 200
    validate_every: int = 0
    patience: int = 40
    slices_per_patient: int = 20
    lesion_share: float = 0.6
    distillation: float = 0.0
    imagenet: bool = False
    seed: int = 0

    @property
    def side(self) -> int:
        """Pixels along a view as the network sees it."""
        return round(self.augmentation.crop / self.pool)

    @property
    def weighted(self) -> bool:
        """Whether the FPG weighs the loss (MIG-Net with fpg on)."""
        return isinstance(self.network, MIGNetSettings) and self.network.fpg

    def parts(
        self, training: Sequence[str], validation: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The patients trained on and those who stop it: the latter too are trained on where nobody validates."""
        return (tuple(training), tuple(validation)) if self.validate_every else ((*training, *validation), ())


def small_training(inputs: int, epochs: int) -> SegmentationTraining:
    """The size that two CPU cores train in well under an hour."""
    network = MIGNetSettings(inputs=inputs, size=SMALL)
    return SegmentationTraining(
        network=network,
        augmentation=GENTLE,
        pool=2,
        rate=1e-3,
        epochs=epochs,
    )


def light_training(inputs: int, epochs: int) -> SegmentationTraining:
    """The demonstration weights' recipe, for small cohorts and two CPU cores: a U-Net whose encoder has seen
    ImageNet, pixels of 1.5 mm, the slices around as further channels, and everybody to learn from. inputs:
    sequences of one sample."""
    return SegmentationTraining(
        network=BaselineSettings("EfficientNet U-Net", 3 * inputs, 16),
        augmentation=replace(GENTLE, zoom=0.2, tone=0.3),
        pool=1.5,
        context=1,
        rate=1e-3,
        warm_up=0.1,
        largest_gradient=1.0,
        epochs=epochs,
        imagenet=True,
    )


# how the light recipe's network is read: a second focus is kept unless it is this much lighter than the first;
# finer pixels than it learnt from show a small lesion larger, which is found more often so
SMALLEST_SHARE, READ_POOL = 0.2, 1.2


@dataclass(frozen=True, eq=False)
class TrainedSegmentation:
    """A trained network in evaluation mode, its FPG, and how the training went.

    best_epoch: from 1, the one whose weights these are; waiting_share: of the training time, spent on
    waiting for slices; both speeds are of all epochs, those before an interruption too.
    """

    network: nn.Module
    prior: Tensor
    epochs: int
    best_epoch: int
    slices_per_second: float
    waiting_share: float


class SegmentationTask(lightning.LightningModule):
    """The network, its losses and its optimiser; the training loop is Lightning's."""

    prior: Tensor

    def __init__(
        self, settings: SegmentationTraining, prior: Tensor, teacher: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.network = build_segmentation_network(settings.network, prior)
        if settings.imagenet:
            start_from_imagenet(self.network)
        self.register_buffer("prior", prior)
        # in a list: not a part of what is trained or saved
        self.teacher = [] if teacher is None else [teacher.eval().requires_grad_(False)]

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        image, lesion, grade = batch
        s = self.settings
        seen, target, theta = random_view(image, lesion, s.augmentation, s.pool)
        answer: Outline = self.network(seen, theta)
        loss = outline_loss(answer, target, grade, theta, self.prior, s)
        self.log("loss", loss, prog_bar=True)
        for teacher in self.teacher:
            with torch.no_grad():
                taught = teacher.to(self.device)(seen, theta).logits
            loss = (1 - s.distillation) * loss + s.distillation * distillation_loss(answer.logits, taught)
        return loss

    def validation_step(self, batch: Sequence[Tensor], _: int) -> None:
        """Dice over all validation slices together, central view: what training is stopped by."""
        image, lesion = batch[0].float(), batch[1].float()
        side, crop, pool = image.shape[-1], self.settings.augmentation.crop, self.settings.pool
        margin = (side - crop) // 2
        inner = (..., slice(margin, margin + crop), slice(margin, margin + crop))
        theta = torch.eye(2, 3, device=image.device).expand(len(image), -1, -1) * (crop / side)
        mask = self.network(averaged(image[inner], pool), theta).logits.argmax(dim=1)
        whole, seen = ((averaged(one[:, None], pool)[:, 0] >= 0.5) for one in (lesion, lesion[inner]))
        self._validation += torch.stack([(mask * seen).sum(), mask.sum() + whole.sum()]).float().cpu()

    def on_validation_epoch_start(self) -> None:
        self._validation = torch.zeros(2)

    def on_validation_epoch_end(self) -> None:
        self.log("validation_dice", 2 * self._validation[0] / self._validation[1].clamp(min=1), prog_bar=True)

    def configure_optimizers(self):
        s = self.settings
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        optimiser: torch.optim.Optimizer
        if s.optimiser == "sgd":
            optimiser = torch.optim.SGD(
                self.network.parameters(), s.rate, momentum=0.99, nesterov=True, weight_decay=s.weight_decay
            )
        else:
            optimiser = torch.optim.AdamW(self.network.parameters(), lr=s.rate, weight_decay=s.weight_decay)

        def share(step: int) -> float:
            done = min(1.0, step / steps)
            return (1 - done) ** 0.9 if s.optimiser == "sgd" else warm_cosine(done, s.warm_up)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def outline_loss(
    answer: Outline,
    target: Tensor,
    grade: Tensor,
    theta: Tensor,
    prior: Tensor,
    settings: SegmentationTraining,
) -> Tensor:
    """What a step lowers: segmentation, weighed by the FPG where the settings say so, and the grading task.

    target ``(B, side, side)``; grade ``(B,)``, -1 unknown; theta ``(B, 2, 3)``; prior ``(H, W)``, the template's.
    """
    weight = None
    if settings.weighted:
        seen = view(prior.expand(len(theta), 1, -1, -1), theta, settings.augmentation.crop)
        weight = prior_weight(averaged(seen, settings.pool)[:, 0])
    loss = deeply_supervised_loss(answer.logits, answer.deeper, target, weight)
    if answer.grade is None:
        return loss
    return loss + settings.grading_weight * grading_loss(answer.grade, grade, target)


def warm_cosine(done: float, warm_up: float) -> float:
    """Share of the full rate after the share ``done`` of all steps."""
    return (
        done / warm_up
        if done < warm_up
        else 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm_up) / (1 - warm_up))))
    )


class Stopwatch(lightning.Callback):
    """Where the training time goes: slices, seconds in all, seconds between one step and the next.

    What it knows goes into the checkpoint, so that a run that was gone on from tells of all its epochs.
    """

    def __init__(self) -> None:
        self.slices, self.seconds, self.waiting, self._last = 0.0, 0.0, 0.0, 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._last = time.perf_counter()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        self.waiting += self._passed()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._passed()
        self.slices += len(batch[0])

    def state_dict(self) -> dict[str, float]:
        return {"slices": self.slices, "seconds": self.seconds, "waiting": self.waiting}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.slices, self.seconds, self.waiting = (state_dict[k] for k in ("slices", "seconds", "waiting"))

    def _passed(self) -> float:
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self.seconds += passed
        return passed


def train_segmentation(
    bank: SliceBank,
    settings: SegmentationTraining,
    work: Path,
    validation: SliceBank | None = None,
    teacher: nn.Module | None = None,
) -> TrainedSegmentation:
    """Train one network. ``work`` holds the checkpoints; an interrupted run goes on.

    The last weights are returned; with validation slices, those of the best validation Dice.
    bank and validation have neighbours as the settings say. teacher: a network of the same input, for
    distillation. Raises GliomarkError where ``work`` holds another run.
    """
    check_same_run(work, settings, bank, validation, teacher)
    lightning.seed_everything(settings.seed, verbose=False)
    task = SegmentationTask(settings, focus_prior(bank), teacher)
    stopwatch = Stopwatch()
    callbacks: list[lightning.Callback] = [stopwatch]
    best = best_checkpoint(work, "validation_dice", "max")
    if validation is not None:
        callbacks += [best, EarlyStopping("validation_dice", mode="max", patience=settings.patience)]
    trainer = make_trainer(settings.epochs, work, callbacks, settings.seed, settings)
    trainer.fit(task, _loader(bank, settings), _plain_loader(validation), ckpt_path=last_checkpoint(work))
    epoch = trainer.current_epoch
    if validation is not None and best.best_model_path:
        chosen = torch.load(best.best_model_path, map_location="cpu", weights_only=False)
        task.load_state_dict(chosen["state_dict"])
        epoch = chosen["epoch"] + 1
    seconds = max(stopwatch.seconds, 1e-9)
    speeds = (stopwatch.slices / seconds, stopwatch.waiting / seconds)
    return TrainedSegmentation(
        task.network.cpu().eval(), task.prior.cpu(), trainer.current_epoch, epoch, *speeds
    )


def make_trainer(
    epochs: int, work: Path, callbacks: list, seed: int, settings: SegmentationTraining | None = None
) -> lightning.Trainer:
    """One trainer for every network: any device, mixed precision where the hardware has it. It leaves a checkpoint in
    ``work`` after every epoch, and what it draws depends on seed, epoch and batch alone."""
    # its tips and device notices would drown the progress bar
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    return lightning.Trainer(
        max_epochs=epochs,
        precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
        default_root_dir=work,
        callbacks=[SeededBatches(seed), *callbacks, LastCheckpoint(work)],
        plugins=[WholeCheckpoints()],
        logger=lightning.pytorch.loggers.CSVLogger(work, name="log", version=0),
        log_every_n_steps=20,
        enable_model_summary=False,
        gradient_clip_val=None if settings is None else settings.largest_gradient,
        check_val_every_n_epoch=1 if settings is None else max(1, settings.validate_every),
    )


def best_checkpoint(work: Path, monitor: str, mode: str) -> ModelCheckpoint:
    """Keeps the weights of the best epoch by what is monitored."""
    return ModelCheckpoint(
        work, "best", monitor=monitor, mode=mode, save_weights_only=True, enable_version_counter=False
    )


def _loader(bank: SliceBank, settings: SegmentationTraining) -> DataLoader:
    dataset: Dataset = TensorDataset(bank.image, bank.lesion, bank.grade)
    sampler = EpochSampler(bank, settings.slices_per_patient, settings.lesion_share, settings.seed)
    return DataLoader(dataset, settings.batch, sampler=sampler, drop_last=True)


def _plain_loader(bank: SliceBank | None) -> DataLoader | None:
    return None if bank is None else DataLoader(TensorDataset(bank.image, bank.lesion, bank.grade), 32)

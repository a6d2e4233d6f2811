"""Train a segmentation network of the registry (method.md, section 3)."""

from __future__ import annotations

import logging
import math
import multiprocessing
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import lightning
import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, TensorDataset

from gliomark.errors import ConfigurationError
from gliomark.messages import message
from gliomark.models.entries import Recipe, SegmentationEntry, SegmentationSettings
from gliomark.models.network_io import SegmentationOutput, downsample_by_averaging
from gliomark.models.published.mignet import MIGNetSettings
from gliomark.models.registry import (
    build_segmentation_network,
    choose_segmentation_entry,
    find_segmentation_entry,
    load_pretrained_weights,
)
from gliomark.training.augmentation import GENTLE_AUGMENTATION, Augmentation, draw_random_view, resample_view
from gliomark.training.checkpoints import (
    AtomicCheckpointIO,
    BatchSeedingCallback,
    LastCheckpointCallback,
    find_last_checkpoint,
)
from gliomark.training.losses import (
    compute_prior_weight,
    deeply_supervised_loss,
    distillation_loss,
    grading_loss,
)
from gliomark.training.process_group import (
    BatchShareSampler,
    gather_batch,
    get_process_count,
    get_rank,
    is_distributed,
    share_object,
    synchronise_batch_norm,
)
from gliomark.training.processes import (
    ONE_PROCESS,
    ProcessLayout,
    check_layout,
    get_node,
    run_in_processes,
)
from gliomark.training.random_seeds import seed_batch
from gliomark.training.slice_dataset import EpochSampler, SliceDataset, compute_focus_prior
from gliomark.training.synthetic_t2 import replace_by_synthetic_t2
from gliomark.training.work_folder import check_work_folder


@dataclass(frozen=True)
class SegmentationTrainingConfig:
    """Configuration of a segmentation training. The defaults are those of method.md, section 3.

    AdamW, learning rate 5e-4, cosine schedule with warm-up, batches of 16, at most 200 epochs.

    Attributes
    ----------
    network
        Settings of the network.
    augmentation
        Random views of the slices.
    pool
        Views are averaged over pool x pool pixels.
    context
        Number of neighbouring slices on either side that are added as channels (0 as published).
    grading_weight
        Weight of the auxiliary task's loss (0.5).
    optimiser
        "adamw", or "sgd" as in nnU-Net: Nesterov momentum 0.99, learning rate proportional to (1 - progress)^0.9.
    rate
        Initial learning rate.
    warm_up
        Share of all steps in which the learning rate rises.
    largest_gradient
        Norm at which gradients are clipped; None: never.
    batch, epochs
        Batch size and number of epochs.
    validate_every
        Epochs between validations. 0: no validation; training runs for all epochs and returns the last weights,
        because with few validation patients the best epoch is a matter of chance.
    patience
        Number of validations without improvement after which training ends.
    slices_per_patient, lesion_share
        Random slices of every patient per epoch, and the share of them with lesion. All patients count the same,
        whatever their slice thickness.
    distillation
        Weight, 0 to 1, of the agreement with a teacher in the loss.
    imagenet
        Start from the pretrained weights of the network's entry.
    """

    network: SegmentationSettings = field(default_factory=MIGNetSettings)
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
    def view_size(self) -> int:
        """Side of a view in pixels after averaging."""
        return round(self.augmentation.crop / self.pool)

    @property
    def uses_prior_weight(self) -> bool:
        """Whether the FPG weights the loss (MIG-Net with fpg on)."""
        return find_segmentation_entry(self.network).uses_prior_weight(self.network)

    def split_patients(
        self, training: Sequence[str], validation: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return training and validation patients; without validation all of them are training patients."""
        return (tuple(training), tuple(validation)) if self.validate_every else ((*training, *validation), ())


# published: as in method.md, section 3; small: two CPU cores train MIG-Net in well under an hour; pretrained (demo
# weights): for small cohorts and two CPU cores, with pixels of 1.5 mm and neighbouring slices as channels
RECIPE_CONFIGS: Mapping[Recipe, SegmentationTrainingConfig] = {
    "published": SegmentationTrainingConfig(),
    "small": SegmentationTrainingConfig(augmentation=GENTLE_AUGMENTATION, pool=2, rate=1e-3),
    "pretrained": SegmentationTrainingConfig(
        augmentation=replace(GENTLE_AUGMENTATION, zoom=0.2, tone=0.3),
        pool=1.5,
        context=1,
        rate=1e-3,
        warm_up=0.1,
        largest_gradient=1.0,
        imagenet=True,
    ),
}


def create_segmentation_config(
    recipe: Recipe, sequence_count: int, epochs: int, entry: SegmentationEntry[Any] | None = None
) -> SegmentationTrainingConfig:
    """Create the configuration of a recipe for a network that has it; without an entry, the recipe's own network.

    sequence_count: number of sequences in one sample; every neighbouring slice adds as many channels.
    """
    config, entry = RECIPE_CONFIGS[recipe], entry or choose_segmentation_entry(recipe)
    inputs = sequence_count * (1 + 2 * config.context)
    return apply_training_defaults(
        replace(config, network=replace(entry.recipes[recipe], inputs=inputs), epochs=epochs), entry
    )


def apply_training_defaults(
    config: SegmentationTrainingConfig, entry: SegmentationEntry[Any]
) -> SegmentationTrainingConfig:
    """Return the configuration with what the network's entry prescribes, such as nnU-Net's optimiser."""
    prescribed = {name: value for name, value in asdict(entry.training).items() if value is not None}
    return replace(config, **prescribed)


# inference settings of the pretrained recipe: a second component is kept from this share of the largest one on; pixels
# finer than in training enlarge small lesions, which are then detected more often
MIN_COMPONENT_SHARE, INFERENCE_POOLING_FACTOR = 0.2, 1.2


@dataclass(frozen=True, eq=False)
class TrainedSegmentation:
    """A trained network in evaluation mode, its FPG ``(H, W)``, and statistics of the training.

    epochs: number of epochs run; best_epoch: epoch of the returned weights, counted from 1; waiting_share: share of the
    training time spent waiting for slices. Speed and waiting share include the epochs before an interruption.
    """

    network: nn.Module
    prior: Tensor
    epochs: int
    best_epoch: int
    slices_per_second: float
    waiting_share: float


class SegmentationTrainingModule(lightning.LightningModule):
    """Lightning module with the segmentation network, its losses, its optimiser and the FPG ``(H, W)``."""

    prior: Tensor

    def __init__(
        self, config: SegmentationTrainingConfig, prior: Tensor, teacher: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.network = build_segmentation_network(config.network, prior)
        if config.imagenet:
            load_pretrained_weights(self.network)
        self.register_buffer("prior", prior)
        # in a list, so that the teacher is neither trained nor saved
        self.teachers = [] if teacher is None else [teacher.eval().requires_grad_(False)]

    def training_step(self, batch: Sequence[Tensor], batch_index: int) -> Tensor:
        """Return the loss of random views of a batch: image ``(B, C, H, W)``, lesion ``(B, H, W)``, grade ``(B,)``.

        With a synthesis region ``(B, C / 2, H, W)`` the second sequence becomes a synthetic T2, drawn anew.
        """
        image, lesion, grade, *region = batch
        config = self.config
        if region:
            image = replace_by_synthetic_t2(image, region[0])
        view_image, target, theta = draw_random_view(image, lesion, config.augmentation, config.pool)
        seed_process(config.seed, self.current_epoch, batch_index)
        output: SegmentationOutput = gather_batch(self.network(view_image, theta))
        loss = compute_training_loss(
            output, *gather_batch((target, grade, theta)), prior=self.prior, config=config
        )
        self.log("loss", loss, prog_bar=True)
        for teacher in self.teachers:
            with torch.no_grad():
                teacher_logits = gather_batch(teacher.to(self.device)(view_image, theta).logits)
            loss = (1 - config.distillation) * loss + config.distillation * distillation_loss(
                output.logits, teacher_logits
            )
        return loss

    def validation_step(self, batch: Sequence[Tensor], _: int) -> None:
        """Count voxels of a batch for the Dice coefficient of all validation slices together, in the central view.

        batch: image ``(B, C, H, W)``, lesion ``(B, H, W)``, grade ``(B,)``.
        """
        image, lesion = batch[0].float(), batch[1].float()
        side, crop, pool = image.shape[-1], self.config.augmentation.crop, self.config.pool
        margin = (side - crop) // 2
        central_view = (..., slice(margin, margin + crop), slice(margin, margin + crop))
        theta = torch.eye(2, 3, device=image.device).expand(len(image), -1, -1) * (crop / side)
        mask = self.network(downsample_by_averaging(image[central_view], pool), theta).logits.argmax(dim=1)
        full_lesion, visible_lesion = (
            (downsample_by_averaging(one[:, None], pool)[:, 0] >= 0.5)
            for one in (lesion, lesion[central_view])
        )
        self._dice_counts += (
            torch.stack([(mask * visible_lesion).sum(), mask.sum() + full_lesion.sum()]).float().cpu()
        )

    def on_validation_epoch_start(self) -> None:
        """Reset the counts."""
        self._dice_counts = torch.zeros(2)

    def on_validation_epoch_end(self) -> None:
        """Log the Dice coefficient of the slices of all processes, by which training is stopped early."""
        counts = self.trainer.strategy.reduce(self._dice_counts.to(self.device), reduce_op="sum").cpu()
        self.log("validation_dice", 2 * counts[0] / counts[1].clamp(min=1), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimiser and its learning rate schedule."""
        config = self.config
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        optimiser: torch.optim.Optimizer
        if config.optimiser == "sgd":
            optimiser = torch.optim.SGD(
                self.network.parameters(),
                config.rate,
                momentum=0.99,
                nesterov=True,
                weight_decay=config.weight_decay,
            )
        else:
            optimiser = torch.optim.AdamW(
                self.network.parameters(), lr=config.rate, weight_decay=config.weight_decay
            )

        def compute_rate_share(step: int) -> float:
            done = min(1.0, step / steps)
            return (
                (1 - done) ** 0.9
                if config.optimiser == "sgd"
                else compute_warmup_cosine(done, config.warm_up)
            )

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, compute_rate_share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def compute_training_loss(
    output: SegmentationOutput,
    target: Tensor,
    grade: Tensor,
    theta: Tensor,
    prior: Tensor,
    config: SegmentationTrainingConfig,
) -> Tensor:
    """Compute the training loss: segmentation, weighted by the FPG if configured, plus grading.

    target ``(B, side, side)``; grade ``(B,)``, -1 if unknown; theta ``(B, 2, 3)``; prior ``(H, W)`` on the template.
    """
    weight = None
    if config.uses_prior_weight:
        prior_view = resample_view(prior.expand(len(theta), 1, -1, -1), theta, config.augmentation.crop)
        weight = compute_prior_weight(downsample_by_averaging(prior_view, config.pool)[:, 0])
    loss = deeply_supervised_loss(output.logits, output.deep_supervision_logits, target, weight)
    if output.grade_logits is None:
        return loss
    return loss + config.grading_weight * grading_loss(output.grade_logits, grade, target)


def compute_warmup_cosine(progress: float, warmup_share: float) -> float:
    """Return the learning rate, relative to its maximum, after the share ``progress`` of all steps."""
    return (
        progress / warmup_share
        if progress < warmup_share
        else 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup_share) / (1 - warmup_share))))
    )


class TrainingTimer(lightning.Callback):
    """Measures training time: number of slices, total seconds, and seconds waiting between two steps.

    Its state is part of the checkpoint, so that a resumed run reports all its epochs.
    """

    def __init__(self) -> None:
        self.slice_count, self.seconds, self.waiting_seconds, self._last_time = 0.0, 0.0, 0.0, 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the timer."""
        self._last_time = time.perf_counter()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Add the time since the last step to the waiting time."""
        self.waiting_seconds += self._measure_elapsed()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the time of the step and count its slices."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._measure_elapsed()
        self.slice_count += len(batch[0]) * trainer.world_size

    def state_dict(self) -> dict[str, float]:
        """Return the measurements for the checkpoint."""
        return {"slices": self.slice_count, "seconds": self.seconds, "waiting": self.waiting_seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the measurements from a checkpoint."""
        self.slice_count, self.seconds, self.waiting_seconds = (
            state_dict[k] for k in ("slices", "seconds", "waiting")
        )

    def _measure_elapsed(self) -> float:
        now = time.perf_counter()
        passed, self._last_time = now - self._last_time, now
        self.seconds += passed
        return passed


def train_segmentation_network(
    training_dataset: SliceDataset,
    config: SegmentationTrainingConfig,
    work_folder: Path,
    validation_dataset: SliceDataset | None = None,
    teacher: nn.Module | None = None,
    layout: ProcessLayout = ONE_PROCESS,
) -> TrainedSegmentation:
    """Train a segmentation network; an interrupted training is resumed.

    Parameters
    ----------
    training_dataset
        Slices of the training patients, with the neighbouring slices that the configuration requires.
    config
        Configuration of the training.
    work_folder
        Folder of the checkpoints.
    validation_dataset
        Slices of the validation patients.
    teacher
        A network with the same input, for distillation.
    layout
        Processes over which every batch is split. It has no effect on the result except rounding, so that an
        interrupted training may be resumed with another number of processes.

    Returns
    -------
    TrainedSegmentation
        With the last weights; with validation slices, those of the epoch with the best validation Dice.

    Raises
    ------
    CohortError
        If the work folder belongs to another run.
    ConfigurationError
        If the batches cannot be split over the processes.
    """
    check_layout(layout, config.batch)
    if validation_dataset is not None and len(validation_dataset.image) < layout.count:
        raise ConfigurationError(
            message(
                "training-few-validation-slices", slices=len(validation_dataset.image), count=layout.count
            )
        )
    if get_node(layout) == 0:
        check_work_folder(work_folder, config, training_dataset, validation_dataset, teacher)
    arguments = (training_dataset, config, work_folder, validation_dataset, teacher, layout)
    if layout.count == 1:
        return _fit_network(*arguments)
    state, prior, statistics = run_in_processes(_fit_network_as_process, arguments, layout)
    network = build_segmentation_network(config.network, prior)
    network.load_state_dict(state)
    return TrainedSegmentation(network.eval(), prior, *statistics)


def _fit_network(
    training_dataset: SliceDataset,
    config: SegmentationTrainingConfig,
    work_folder: Path,
    validation_dataset: SliceDataset | None,
    teacher: nn.Module | None,
    layout: ProcessLayout,
) -> TrainedSegmentation:
    """Train a network in this process, alone or together with the other processes of its group."""
    lightning.seed_everything(config.seed, verbose=False)
    module = SegmentationTrainingModule(config, compute_focus_prior(training_dataset), teacher)
    synchronise_batch_norm(module.network)
    timer = TrainingTimer()
    callbacks: list[lightning.Callback] = [timer]
    best_checkpoint_callback = create_best_checkpoint_callback(work_folder, "validation_dice", "max")
    if validation_dataset is not None:
        callbacks += [
            best_checkpoint_callback,
            EarlyStopping("validation_dice", mode="max", patience=config.patience),
        ]
    trainer = create_trainer(config.epochs, work_folder, callbacks, config.seed, config, layout)
    trainer.fit(
        module,
        _create_training_loader(training_dataset, config),
        _create_validation_loader(validation_dataset),
        ckpt_path=share_object(find_last_checkpoint(work_folder)),
    )
    epoch = trainer.current_epoch
    if validation_dataset is not None and best_checkpoint_callback.best_model_path:
        best_state = torch.load(
            best_checkpoint_callback.best_model_path, map_location="cpu", weights_only=False
        )
        module.load_state_dict(best_state["state_dict"])
        epoch = best_state["epoch"] + 1
    seconds = max(timer.seconds, 1e-9)
    speeds = (timer.slice_count / seconds, timer.waiting_seconds / seconds)
    return TrainedSegmentation(
        module.network.cpu().eval(), module.prior.cpu(), trainer.current_epoch, epoch, *speeds
    )


def _fit_network_as_process(
    *arguments: Any,
) -> tuple[dict[str, Tensor], Tensor, tuple[int, int, float, float]]:
    """Train a network in a process group; its weights, its FPG ``(H, W)`` and the statistics of the training."""
    trained = _fit_network(*arguments)
    statistics = (trained.epochs, trained.best_epoch, trained.slices_per_second, trained.waiting_share)
    return trained.network.state_dict(), trained.prior, statistics


def seed_process(seed: int, epoch: int, batch: int) -> None:
    """Seed what a network draws itself, such as dropout, differently in every process of a group."""
    if is_distributed():
        seed_batch(seed, epoch, batch, get_rank())


def create_trainer(
    epochs: int,
    work_folder: Path,
    callbacks: list[L.Callback],
    seed: int,
    config: SegmentationTrainingConfig | None = None,
    layout: ProcessLayout = ONE_PROCESS,
) -> lightning.Trainer:
    """Create the Lightning trainer of every network, for any device, with mixed precision on a GPU.

    It writes a checkpoint to the work folder after every epoch; random draws depend on seed, epoch and batch only.
    """
    # Lightning's tips and device notices would disrupt the progress bar
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    is_split = layout.count > 1
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu" if is_split and not torch.cuda.is_available() else "auto",
        devices=layout.devices,
        num_nodes=layout.nodes,
        # batch norm is synchronised; processes may have different numbers of validation batches
        strategy=DDPStrategy(broadcast_buffers=False, find_unused_parameters=True) if is_split else "auto",
        use_distributed_sampler=False,
        precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
        default_root_dir=work_folder,
        callbacks=[BatchSeedingCallback(seed), *callbacks, LastCheckpointCallback(work_folder)],
        # SLURM's variables may belong to a dask worker: processes.py alone decides what a process is
        plugins=[AtomicCheckpointIO(), LightningEnvironment()],
        logger=lightning.pytorch.loggers.CSVLogger(work_folder, name="log", version=0),
        log_every_n_steps=20,
        enable_model_summary=False,
        # workers would write over each other's progress
        enable_progress_bar=multiprocessing.parent_process() is None,
        gradient_clip_val=None if config is None else config.largest_gradient,
        check_val_every_n_epoch=1 if config is None else max(1, config.validate_every),
    )


def create_best_checkpoint_callback(work_folder: Path, monitor: str, mode: str) -> ModelCheckpoint:
    """Create the callback that keeps the weights of the epoch with the best monitored value."""
    return ModelCheckpoint(
        work_folder, "best", monitor=monitor, mode=mode, save_weights_only=True, enable_version_counter=False
    )


def _create_training_loader(
    training_dataset: SliceDataset, config: SegmentationTrainingConfig
) -> DataLoader[Any]:
    region = training_dataset.synthesis_region
    dataset: Dataset[Any] = TensorDataset(
        training_dataset.image,
        training_dataset.lesion,
        training_dataset.grade,
        *(() if region is None else (region,)),
    )
    sampler = EpochSampler(training_dataset, config.slices_per_patient, config.lesion_share, config.seed)
    return create_training_loader(dataset, sampler, config.batch)


def create_training_loader(dataset: Dataset[Any], sampler: Sampler[int], batch: int) -> DataLoader[Any]:
    """Create the loader of whole batches; in a process group it loads this process's share of every batch.

    It copies slices in memory, faster than a GPU uses them (``results/benchmark_training_data.csv``), and needs no
    processes of its own.
    """
    if is_distributed():
        return DataLoader(dataset, batch_sampler=BatchShareSampler(sampler, batch))
    return DataLoader(dataset, batch, sampler=sampler, drop_last=True)


def _create_validation_loader(validation_dataset: SliceDataset | None) -> DataLoader[Any] | None:
    if validation_dataset is None:
        return None
    dataset = TensorDataset(validation_dataset.image, validation_dataset.lesion, validation_dataset.grade)
    return DataLoader(Subset(dataset, range(get_rank(), len(dataset), get_process_count())), 32)

"""Checkpoints from which an interrupted training is resumed with the same result.

The last two checkpoints are kept, and damaged checkpoints are detected by checksum. Every random draw is a function of
seed, epoch and batch, so that no generator state has to be restored: a run that was killed at any moment ends with
bitwise the same weights as an uninterrupted one (on a CPU; a GPU sums in no fixed order).
"""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning
import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from gliomark.files import ZIP_ERRORS, atomic_write
from gliomark.training.random_seeds import seed_batch

LAST_CHECKPOINT_NAME, PREVIOUS_CHECKPOINT_NAME = "last.ckpt", "previous.ckpt"


class BatchSeedingCallback(lightning.Callback):
    """Seeds all generators before every batch, so that random draws depend on seed, epoch and batch only."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators for this batch."""
        seed_batch(self.seed, trainer.current_epoch, batch_idx)


class LastCheckpointCallback(Checkpoint):
    """Writes a checkpoint after every epoch and its validation.

    It must be the last callback, because the checkpoint contains the state of the others.
    """

    def __init__(self, work_folder: Path) -> None:
        self.path = work_folder / LAST_CHECKPOINT_NAME

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the checkpoint."""
        trainer.save_checkpoint(self.path)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically and keeps the previous one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; an existing last checkpoint becomes the previous one."""
        path = Path(path)
        content = serialise_checkpoint(checkpoint)
        if path.name == LAST_CHECKPOINT_NAME and path.exists():
            os.replace(path, path.with_name(PREVIOUS_CHECKPOINT_NAME))
        atomic_write(path, content)


def serialise_checkpoint(content: Any) -> bytes:
    """Serialise with ``torch.save``: a zip file with a checksum of every tensor."""
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def find_last_checkpoint(work_folder: Path) -> Path | None:
    """Return the last undamaged checkpoint: the last one, otherwise the previous one, otherwise None."""
    return next(
        (
            work_folder / name
            for name in (LAST_CHECKPOINT_NAME, PREVIOUS_CHECKPOINT_NAME)
            if is_checkpoint_complete(work_folder / name)
        ),
        None,
    )


def load_finished_state(work_folder: Path, epochs: int) -> dict[str, Any] | None:
    """Load the state of a module that was trained for all its epochs; None if the training is not finished."""
    path = find_last_checkpoint(work_folder)
    if path is None:
        return None
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state: dict[str, Any] = checkpoint["state_dict"]
    # the epochs are counted from 0
    return state if checkpoint["epoch"] + 1 >= epochs else None


def has_checkpoint(work_folder: Path) -> bool:
    """Whether the work folder contains a checkpoint, complete or damaged."""
    return (work_folder / LAST_CHECKPOINT_NAME).exists() or (work_folder / PREVIOUS_CHECKPOINT_NAME).exists()


def is_checkpoint_complete(path: Path) -> bool:
    """Whether the file exists, is complete, and all its checksums are correct."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except ZIP_ERRORS:
        return False

"""Going on after an interruption with the same result: every random draw is a function of seed, epoch and batch, and
two checkpoints are kept, each whole or noticed as damaged.

Nothing of the random generators' state has to be restored, so a run that was killed at any moment ends with the same
weights, bit for bit, as one that was not (on a CPU; a GPU adds up in no fixed order).
"""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from gliomark.files import ZIP_ERRORS, atomic_write
from gliomark.training.draws import seed_batch

LAST_CHECKPOINT_NAME, PREVIOUS_CHECKPOINT_NAME = "last.ckpt", "previous.ckpt"


class BatchSeedingCallback(lightning.Callback):
    """Before every batch all generators are seeded anew: augmentation and dropout depend on seed, epoch and batch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        seed_batch(self.seed, trainer.current_epoch, batch_idx)


class LastCheckpointCallback(Checkpoint):
    """After every epoch, its validation included, all that the next epoch needs. Comes last among the callbacks: what
    the others know goes into it."""

    def __init__(self, work_folder: Path) -> None:
        self.path = work_folder / LAST_CHECKPOINT_NAME

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints are written whole or not at all; the last but one stays beside the last."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None
    ) -> None:
        path = Path(path)
        content = serialise_checkpoint(checkpoint)
        if path.name == LAST_CHECKPOINT_NAME and path.exists():
            os.replace(path, path.with_name(PREVIOUS_CHECKPOINT_NAME))
        atomic_write(path, content)


def serialise_checkpoint(content: Any) -> bytes:
    """As ``torch.save`` writes it: a zip file with a checksum of every tensor."""
    buffer = BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def find_last_checkpoint(work_folder: Path) -> Path | None:
    """Where an interrupted run goes on from: the last checkpoint, or the one before if that is damaged; None where
    there is neither."""
    return next(
        (
            work_folder / name
            for name in (LAST_CHECKPOINT_NAME, PREVIOUS_CHECKPOINT_NAME)
            if is_checkpoint_complete(work_folder / name)
        ),
        None,
    )


def has_checkpoint(work_folder: Path) -> bool:
    """Whether a run has written one, whole or damaged."""
    return (work_folder / LAST_CHECKPOINT_NAME).exists() or (work_folder / PREVIOUS_CHECKPOINT_NAME).exists()


def is_checkpoint_complete(path: Path) -> bool:
    """Whether the file is there, ends where it should, and every checksum in it is right."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except ZIP_ERRORS:
        return False

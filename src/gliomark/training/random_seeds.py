"""Derive every random draw of a training from its seed, the epoch and the batch.

No generator state has to be stored, and a resumed training makes the same draws as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """Derive a seed below 2**63 from several numbers, such as the training's seed, the epoch and the batch."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def create_epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Create the generator with which a sampler draws the slices of an epoch."""
    return torch.Generator().manual_seed(derive_seed(seed, epoch))


def seed_batch(*parts: int) -> None:
    """Seed all generators for a batch, so that augmentation and dropout depend on seed, epoch and batch only.

    parts: the training's seed, the epoch, the batch; and the process for what differs between processes.
    """
    batch_seed = derive_seed(*parts)
    torch.manual_seed(batch_seed)
    np.random.seed(batch_seed % 2**32)
    random.seed(batch_seed)

"""Every random draw of a training as a function of its seed, the epoch and the batch.

So nothing of the generators' state has to be kept, and an interrupted training draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """A seed, below 2**63, from whatever decides a draw: the training's seed, the epoch, the batch."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def create_epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """What a sampler draws an epoch's slices with."""
    return torch.Generator().manual_seed(derive_seed(seed, epoch))


def seed_batch(seed: int, epoch: int, batch: int) -> None:
    """Seed all generators: what augmentation and dropout draw from now on is this batch's own."""
    batch_seed = derive_seed(seed, epoch, batch)
    torch.manual_seed(batch_seed)
    np.random.seed(batch_seed % 2**32)
    random.seed(batch_seed)

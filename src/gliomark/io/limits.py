"""Limits on what a header may claim, checked before a decoder sees the file or an array is allocated."""

from __future__ import annotations

import math
import stat
from collections.abc import Sequence
from pathlib import Path

from gliomark.messages import message
from gliomark.study import GliomarkError

MOST_VOXELS = 200e6  # 512 x 512 x 700
_MOST_DEFLATED = 1100  # deflate packs at most 1032 bytes into one
_PACKED_OVERHEAD = 1 << 16


def is_plain(path: Path) -> bool:
    """Whether a path is a regular file itself: no link, folder, pipe, socket or device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def check_voxels(file: Path, shape: Sequence[int]) -> None:
    """A packed file of a megabyte may unpack to many gigabytes. Raises: GliomarkError for too many voxels."""
    voxels = math.prod(int(length) for length in shape)
    if voxels > MOST_VOXELS:
        raise GliomarkError(message("volume-huge", file=file, millions=voxels / 1e6, most=MOST_VOXELS / 1e6))


def check_held(file: Path, needed: int, held: int, packed: bool = False) -> None:
    """Raises: GliomarkError where a file's data, gzip-packed or as they are, cannot hold the bytes it needs."""
    if needed > (held * _MOST_DEFLATED + _PACKED_OVERHEAD if packed else held):
        raise GliomarkError(message("volume-short", file=file, needed=needed, held=max(held, 0)))

"""Limits on what a header may claim, checked before a decoder sees the file or an array is allocated."""

from __future__ import annotations

import math
import stat
from collections.abc import Sequence
from pathlib import Path

from gliomark.messages import message
from gliomark.study import GliomarkError

MAX_VOXELS = 200e6  # 512 x 512 x 700
_MAX_DEFLATE_RATIO = 1100  # deflate packs at most 1032 bytes into one
_COMPRESSION_OVERHEAD_BYTES = 1 << 16


def is_regular_file(path: Path) -> bool:
    """Whether a path is a regular file itself: no link, folder, pipe, socket or device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def check_voxel_count(file: Path, shape: Sequence[int]) -> None:
    """A packed file of a megabyte may unpack to many gigabytes. Raises: GliomarkError for too many voxels."""
    voxels = math.prod(int(length) for length in shape)
    if voxels > MAX_VOXELS:
        raise GliomarkError(message("volume-huge", file=file, millions=voxels / 1e6, most=MAX_VOXELS / 1e6))


def check_data_length(
    file: Path, required_bytes: int, available_bytes: int, is_compressed: bool = False
) -> None:
    """Raises: GliomarkError where a file's data, gzip-packed or as they are, cannot hold the bytes it needs."""
    if required_bytes > (
        available_bytes * _MAX_DEFLATE_RATIO + _COMPRESSION_OVERHEAD_BYTES
        if is_compressed
        else available_bytes
    ):
        raise GliomarkError(
            message("volume-short", file=file, needed=required_bytes, held=max(available_bytes, 0))
        )

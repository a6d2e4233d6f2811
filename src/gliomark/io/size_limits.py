"""Limits on the sizes that a header states, checked before a decoder reads the file or allocates an array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gliomark.errors import InputError
from gliomark.messages import message

MAX_VOXELS = 200e6  # 512 x 512 x 700
_MAX_DEFLATE_RATIO = 1100  # deflate compresses by at most 1032 : 1
_COMPRESSION_OVERHEAD_BYTES = 1 << 16


def check_voxel_count(file: Path, shape: Sequence[int]) -> None:
    """Limit the voxel count: a small compressed file may expand to gigabytes.

    Raises
    ------
    InputError
        If the shape has more than ``MAX_VOXELS`` voxels.
    """
    voxels = math.prod(int(length) for length in shape)
    if voxels > MAX_VOXELS:
        raise InputError(message("volume-huge", file=file, millions=voxels / 1e6, most=MAX_VOXELS / 1e6))


def check_data_length(
    file: Path, required_bytes: int, available_bytes: int, is_compressed: bool = False
) -> None:
    """Check that a file is long enough for the data that its header states.

    Parameters
    ----------
    required_bytes
        Size of the values, uncompressed.
    available_bytes
        Size of the data in the file.
    is_compressed
        Whether the data are compressed with gzip.

    Raises
    ------
    InputError
        If the file is too short.
    """
    if required_bytes > (
        available_bytes * _MAX_DEFLATE_RATIO + _COMPRESSION_OVERHEAD_BYTES
        if is_compressed
        else available_bytes
    ):
        raise InputError(
            message("volume-short", file=file, needed=required_bytes, held=max(available_bytes, 0))
        )

"""Read a weights file once, so that the bytes that were verified are the bytes that are loaded."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from gliomark.errors import WeightsError
from gliomark.messages import message

HEADER_LENGTH = 8  # bytes at the start of a safetensors file that hold the length of its header
MAX_FILE_BYTES = 2**31  # the published networks with ten markers need 1.6e9
MAX_HEADER_BYTES = 2**24
# O_NONBLOCK: opening a named pipe must not wait for a writer; O_BINARY exists on Windows only
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_weights_bytes(path: Path) -> bytes:
    """Read the bytes of a weights file; the lengths of file and header are checked before the content is read.

    Raises
    ------
    WeightsError
        If the path is not a regular file, the file cannot be opened, is cut short, or is too large.
    """
    try:
        file = _open_regular_file(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        raise WeightsError(message("weights-absent", path=path)) from None
    except OSError as error:
        raise WeightsError(message("weights-not-opened", path=path, reason=error.strerror)) from None
    with file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(HEADER_LENGTH)
        header = int.from_bytes(start, "little")
        if len(start) < HEADER_LENGTH or header > size - HEADER_LENGTH:
            raise WeightsError(message("weights-cut", path=path, size=size))
        if size > MAX_FILE_BYTES or header > MAX_HEADER_BYTES:
            raise WeightsError(message("weights-too-large", path=path, size=size, header=header))
        file.seek(0)
        content = file.read(size)
    if len(content) != size:
        raise WeightsError(message("weights-cut", path=path, size=len(content)))
    return content


def read_small_file(path: Path, max_bytes: int = 2**16) -> bytes:
    """Read the bytes of a key or a signature.

    Raises
    ------
    OSError
        If there is no such file, or it has more than ``max_bytes`` bytes.
    """
    with _open_regular_file(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(0, "too large", str(path))
    return content


def _open_regular_file(path: Path) -> BinaryIO:
    """Open a regular file. Raises OSError, and IsADirectoryError for anything that is not a regular file."""
    descriptor = os.open(path, OPEN_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(0, "not a file", str(path))
    return os.fdopen(descriptor, "rb")

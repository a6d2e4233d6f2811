"""Open DICOM files; limit the inflated size of deflated files before pydicom reads them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gliomark.errors import InputError
from gliomark.messages import message

MAX_INFLATED_BYTES = 1 << 29
_SEARCHED_BYTES, _BLOCK_BYTES = 1 << 16, 1 << 20


class InflatedSizeError(InputError, ValueError):
    """A deflated file exceeds the size limit. Also a ValueError, so batch readers treat it as damaged."""


def read_dataset(file: Path, **options: Any) -> Dataset:
    """Read a file that may be DICOM with ``pydicom.dcmread``; options are passed on.

    Raises
    ------
    InflatedSizeError
        If a deflated file would inflate to more than ``MAX_INFLATED_BYTES``.
    """
    with file.open("rb") as stream:
        if DeflatedExplicitVRLittleEndian.encode() in stream.read(_SEARCHED_BYTES):
            _check_inflated_size(file, stream)
    return pydicom.dcmread(file, force=True, **options)


def _check_inflated_size(file: Path, stream: BinaryIO) -> None:
    stream.seek(0)
    read_preamble(stream, force=True)
    if _read_file_meta_info(stream).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    decompressor, bytes_left, unconsumed = zlib.decompressobj(-zlib.MAX_WBITS), MAX_INFLATED_BYTES, b""
    while not decompressor.eof and (unconsumed := unconsumed or stream.read(_BLOCK_BYTES)):
        bytes_left -= len(decompressor.decompress(unconsumed, _BLOCK_BYTES))
        unconsumed = decompressor.unconsumed_tail
        if bytes_left < 0:
            max_megabytes = MAX_INFLATED_BYTES / 1e6
            raise InflatedSizeError(message("dicom-inflated", file=file, megabytes=max_megabytes))

"""A DICOM file opened: what is deflated in it is measured before pydicom unpacks it whole."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gliomark.messages import message
from gliomark.study import GliomarkError

MOST_INFLATED_BYTES = 1 << 29
_START, _BLOCK = 1 << 16, 1 << 20


class InflatedError(GliomarkError, ValueError):
    """A deflated file of more than any image; to readers of many files one that is damaged."""


def read_dataset(file: Path, **options: Any) -> Dataset:
    """``pydicom.dcmread`` of any file that may be DICOM.

    Raises: InflatedError for a deflated file that unpacks to far more than an image; else what pydicom raises.
    """
    with file.open("rb") as stream:
        if DeflatedExplicitVRLittleEndian.encode() in stream.read(_START):
            _check_inflated(file, stream)
    return pydicom.dcmread(file, force=True, **options)


def _check_inflated(file: Path, stream: BinaryIO) -> None:
    stream.seek(0)
    read_preamble(stream, force=True)
    if _read_file_meta_info(stream).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    unpacker, left, rest = zlib.decompressobj(-zlib.MAX_WBITS), MOST_INFLATED_BYTES, b""
    while not unpacker.eof and (rest := rest or stream.read(_BLOCK)):
        left -= len(unpacker.decompress(rest, _BLOCK))
        rest = unpacker.unconsumed_tail
        if left < 0:
            most = MOST_INFLATED_BYTES / 1e6
            raise InflatedError(message("dicom-inflated", file=file, megabytes=most))

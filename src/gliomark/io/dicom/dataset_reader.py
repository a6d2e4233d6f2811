"""Open DICOM files in every transfer syntax that can be decoded; limit what a deflated file may inflate to."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info, read_partial, read_preamble
from pydicom.filereader import read_dataset as read_elements
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from gliomark.errors import InputError
from gliomark.messages import message

# Transfer syntaxes whose pixels can be decoded, in the order of preference: what need not be decoded, then lossless
DECODABLE_TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEGLosslessSV1,
    JPEGLossless,
    RLELossless,
    JPEG2000,
    HTJ2K,
    JPEGLSNearLossless,
    JPEGBaseline8Bit,
)
_HIGH_THROUGHPUT_JPEG_2000 = (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
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


def read_header_start(file: Path, max_bytes: int, stop_when: Callable[..., bool]) -> tuple[Dataset, int]:
    """Read the elements at the start of a file; only so many bytes are read, and inflated if it is deflated.

    stop_when: as in ``pydicom.filereader.read_partial``.

    Returns
    -------
    tuple[Dataset, int]
        The elements, and the number of bytes of the file after them (0 of a deflated file). Errors of pydicom are
        passed on.

    Raises
    ------
    ValueError
        If a deflated file cannot be inflated.
    """
    with file.open("rb") as stream:
        start = BytesIO(stream.read(max_bytes))
    read_preamble(start, force=True)
    meta = _read_file_meta_info(start)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        try:
            inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(start.read(), max_bytes)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        header = read_elements(
            BytesIO(inflated), is_implicit_VR=False, is_little_endian=True, stop_when=stop_when
        )
        header.file_meta = meta
        return header, 0
    start.seek(0)
    header = read_partial(start, stop_when=stop_when)
    return header, file.stat().st_size - start.tell()


def label_as_jpeg_2000(dataset: Dataset) -> None:
    """Label High-Throughput JPEG 2000 as JPEG 2000, in place and only for decoding.

    The decoders (OpenJPEG in GDCM and in Pillow) read both; pydicom passes only the latter on to them.
    """
    syntax: UID | None = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    if syntax in _HIGH_THROUGHPUT_JPEG_2000:
        dataset.file_meta.TransferSyntaxUID = JPEG2000 if syntax == HTJ2K else JPEG2000Lossless


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

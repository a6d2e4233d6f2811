"""Decompress volumes completely so that the checksum is verified.

nibabel stops at the last voxel, and ITK uses whatever it could decompress, so a damaged file would be read as an image.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

_BLOCK_BYTES = 1 << 20
_ALLOWED_EXTRA_BYTES = 64 << 20  # for a header before and other data after the values
_GZIP_OR_ZLIB_WBITS = 47  # zlib's wbits: detect the format from the first bytes
_GZIP_MAGIC = b"\x1f\x8b"
_META_DATA_FILE_FIELD = re.compile(
    rb"^ElementDataFile[ \t]*=[ \t]*([^\r\n]*?)[ \t]*\r?\n", re.IGNORECASE | re.MULTILINE
)
_NRRD_DATA_FILE_FIELD = re.compile(rb"^data ?file:[ \t]*([^\r\n]*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


def check_compressed_data(file: Path, required_bytes: int) -> None:
    """Decompress a NIfTI, MetaImage or NRRD file to verify its checksum. Uncompressed files are not checked.

    required_bytes: size of its values, uncompressed.

    Raises
    ------
    EOFError
        If the compressed stream is truncated or far longer than its header states.
    zlib.error, OSError
        If the stream is damaged or cannot be read.
    """
    compressed, max_bytes = _read_compressed_data(file), required_bytes + _ALLOWED_EXTRA_BYTES
    while compressed:
        compressed, max_bytes = _decompress_stream(compressed, max_bytes)


def _read_compressed_data(file: Path) -> bytes:
    """Read the compressed bytes of a file or of its data file; empty if nothing is compressed."""
    name = file.name.lower()
    if name.endswith(".gz"):
        return file.read_bytes()
    if name.endswith((".mha", ".mhd")):
        raw = file.read_bytes()
        found = _META_DATA_FILE_FIELD.search(raw)
        if found is None or not re.search(
            rb"^CompressedData[ \t]*=[ \t]*true", raw[: found.end()], re.I | re.M
        ):
            return b""
        return raw[found.end() :] if found[1].upper() == b"LOCAL" else _read_data_file(file, found[1])
    if name.endswith((".nrrd", ".nhdr")):
        header, _, values = re.sub(rb"\r\n\r\n", b"\n\n", file.read_bytes(), count=1).partition(b"\n\n")
        if not re.search(rb"^encoding:[ \t]*(?:gzip|gz)", header, re.I | re.M):
            return b""
        if re.search(rb"^(?:line|byte) ?skip:[ \t]*-?[1-9]", header, re.I | re.M):
            return b""
        found = _NRRD_DATA_FILE_FIELD.search(header)
        return _read_data_file(file, found[1]) if found else values
    return b""


def _read_data_file(file: Path, name: bytes) -> bytes:
    """Read the data file that a header names; empty for a list of files, which ITK combines."""
    data = file.parent / name.decode("utf-8", errors="replace")
    return data.read_bytes() if data.is_file() else b""


def _decompress_stream(compressed: bytes, max_bytes: int) -> tuple[bytes, int]:
    """Decompress one stream of at most ``max_bytes``; return the following stream, if any, and its limit."""
    unpacker, length, rest = zlib.decompressobj(_GZIP_OR_ZLIB_WBITS), 0, compressed
    while not unpacker.eof:
        block = unpacker.decompress(rest, _BLOCK_BYTES)
        length, rest = length + len(block), unpacker.unconsumed_tail
        if length > max_bytes or not (block or rest or unpacker.eof):
            raise EOFError
    trailing = unpacker.unused_data
    return (trailing if trailing.startswith(_GZIP_MAGIC) else b""), max_bytes - length

"""The binary header of a NIfTI file, checked before nibabel allocates what it claims."""

from __future__ import annotations

import gzip
import math
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from gliomark.io.limits import check_held, check_voxels, is_plain
from gliomark.messages import message
from gliomark.study import GliomarkError

_MOST_BEFORE_VALUES = 16 << 20  # header and extensions
_HEADER_OF_SIZE = {348: Nifti1Header, 540: Nifti2Header}


def check_nifti_header(file: Path) -> None:
    """Check a NIfTI header's size, kind and offset against the file's length.

    A header that is none is left to nibabel to refuse.

    Raises
    ------
    GliomarkError
        For a header that is not as long as NIfTI's, a size or an offset that cannot be right, more voxels than any
        image, more bytes than the file can hold, and for values that lie in a link or in anything but a plain file.
    OSError, EOFError, zlib.error, HeaderDataError
        Where the file cannot be read or unpacked, or its kind of numbers is not known.
    """
    packed, alone = file.name.lower().endswith(".gz"), not file.name.lower().endswith(".hdr")
    with gzip.open(file) if packed else file.open("rb") as stream:
        header = _header(file, stream)
        if header is None:
            return
        shape, offset = _shape(file, header), float(header["vox_offset"])
        if not 0 <= offset <= _MOST_BEFORE_VALUES:
            raise _impossible(file, "vox_offset", offset)
        if np.isinf(header["scl_slope"]):  # nibabel takes it for none; none is written as 0 or NaN
            raise GliomarkError(message("volume-scaling", file=file))
        if alone:
            _check_extensions(file, stream, header, int(offset))
    needed = int(offset) + math.prod(shape) * header.get_data_dtype().itemsize
    values = file if alone else _values_beside(file)
    check_held(file, needed, values.stat().st_size, values.name.lower().endswith(".gz"))


def _header(file: Path, stream: BufferedIOBase) -> Nifti1Header | None:
    """The header by its size, little or big endian; None where it is no NIfTI header but of a size of one (Analyze).

    Raises: GliomarkError for another size.
    """
    start = stream.read(4)
    sizes = {int.from_bytes(start, order) for order in ("little", "big")} & set(_HEADER_OF_SIZE)
    if not sizes:  # nibabel reads such a header by its other fields
        raise GliomarkError(message("volume-damaged", file=file))
    for size in sizes:
        binary = start + stream.read(size - 4)
        kind = _HEADER_OF_SIZE[size]
        at = 4 if size == 540 else 344
        if len(binary) == size and binary[at : at + 2] in (b"n+", b"ni"):
            return kind(binary, check=False)
    return None


def _shape(file: Path, header: Nifti1Header) -> tuple[int, ...]:
    """The lengths of the axes. Raises: GliomarkError for such as no image has."""
    dim = [int(length) for length in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise _impossible(file, "dim[0]", dim[0])
    shape = tuple(dim[1 : dim[0] + 1])
    if min(shape) < 1:
        raise _impossible(file, "dim", " ".join(map(str, shape)))
    check_voxels(file, shape)
    return shape


def _check_extensions(file: Path, stream: BufferedIOBase, header: Nifti1Header, offset: int) -> None:
    """Every extension before the values must end before them: nibabel reads as many bytes as it claims."""
    at = int(header.sizeof_hdr)
    flag = stream.read(4)
    if len(flag) < 4 or flag[0] == 0:
        return
    order = np.dtype(np.int32).newbyteorder(header.endianness)
    at += 4
    while at + 16 <= offset:
        start = stream.read(8)
        size = int(np.frombuffer(start[:4], order)[0]) if len(start) == 8 else 0
        if not 8 <= size <= offset - at:
            raise _impossible(file, "esize", size)
        stream.read(size - 8)
        at += size


def _values_beside(file: Path) -> Path:
    """The file of values beside a .hdr. Raises: GliomarkError where it is no plain file."""
    beside = file.with_suffix(".IMG" if file.suffix == ".HDR" else ".img")  # as nibabel has it
    if is_plain(beside):
        return beside
    code = "volume-data-outside" if beside.is_symlink() else "volume-data-missing"
    raise GliomarkError(message(code, file=file, data=beside.name))


def _impossible(file: Path, name: str, value: object) -> GliomarkError:
    return GliomarkError(message("volume-header", file=file, stated=f"{name}: {value}"))

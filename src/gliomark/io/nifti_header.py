"""Check the binary header of a NIfTI file before nibabel allocates the memory that it states."""

from __future__ import annotations

import gzip
import math
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from gliomark.errors import GliomarkError, InputError
from gliomark.io.folder_listing import is_regular_file
from gliomark.io.size_limits import check_data_length, check_voxel_count
from gliomark.messages import message

_MAX_DATA_OFFSET = 16 << 20  # header and extensions
_HEADER_CLASS_BY_SIZE = {348: Nifti1Header, 540: Nifti2Header}


def check_nifti_header(file: Path) -> None:
    """Check a NIfTI header's shape, data type and offset against the length of the file.

    Files with a header of the same size but another format (Analyze) are left to nibabel.

    Raises
    ------
    InputError
        If the header's size is not NIfTI's, a shape or offset is impossible, the shape has too many voxels or more
        data than the file can contain, or the data file is not a regular file.
    OSError, EOFError, zlib.error, HeaderDataError
        If the file cannot be read or decompressed, or its data type is unknown.
    """
    is_compressed, is_single_file = file.name.lower().endswith(".gz"), not file.name.lower().endswith(".hdr")
    with gzip.open(file) if is_compressed else file.open("rb") as stream:
        header = _read_header(file, stream)
        if header is None:
            return
        shape, offset = _read_shape(file, header), float(header["vox_offset"])
        if not 0 <= offset <= _MAX_DATA_OFFSET:
            raise _create_header_error(file, "vox_offset", offset)
        if np.isinf(header["scl_slope"]):  # nibabel ignores it; "no scaling" is written as 0 or NaN
            raise InputError(message("volume-scaling", file=file))
        if is_single_file:
            _check_extensions(file, stream, header, int(offset))
    required_bytes = int(offset) + math.prod(shape) * header.get_data_dtype().itemsize
    data_file = file if is_single_file else _locate_data_file(file)
    check_data_length(file, required_bytes, data_file.stat().st_size, data_file.name.lower().endswith(".gz"))


def _read_header(file: Path, stream: BufferedIOBase) -> Nifti1Header | None:
    """Read the header, little or big endian; None if it has the size of one but is not NIfTI (Analyze).

    Raise for any other size.
    """
    start = stream.read(4)
    sizes = {int.from_bytes(start, order) for order in ("little", "big")} & set(_HEADER_CLASS_BY_SIZE)
    if not sizes:  # nibabel would accept it by its other fields
        raise InputError(message("volume-damaged", file=file))
    for size in sizes:
        binary = start + stream.read(size - 4)
        kind = _HEADER_CLASS_BY_SIZE[size]
        index = 4 if size == 540 else 344
        if len(binary) == size and binary[index : index + 2] in (b"n+", b"ni"):
            return kind(binary, check=False)
    return None


def _read_shape(file: Path, header: Nifti1Header) -> tuple[int, ...]:
    """Read the shape; raise if it is impossible."""
    dim = [int(length) for length in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise _create_header_error(file, "dim[0]", dim[0])
    shape = tuple(dim[1 : dim[0] + 1])
    if min(shape) < 1:
        raise _create_header_error(file, "dim", " ".join(map(str, shape)))
    check_voxel_count(file, shape)
    return shape


def _check_extensions(file: Path, stream: BufferedIOBase, header: Nifti1Header, offset: int) -> None:
    """Check that every extension ends before the values: nibabel reads as many bytes as it states."""
    index = int(header.sizeof_hdr)
    flag = stream.read(4)
    if len(flag) < 4 or flag[0] == 0:
        return
    order = np.dtype(np.int32).newbyteorder(header.endianness)
    index += 4
    while index + 16 <= offset:
        start = stream.read(8)
        size = int(np.frombuffer(start[:4], order)[0]) if len(start) == 8 else 0
        if not 8 <= size <= offset - index:
            raise _create_header_error(file, "esize", size)
        stream.read(size - 8)
        index += size


def _locate_data_file(file: Path) -> Path:
    """Return the data file of a .hdr; raise unless it is a regular file."""
    data_file = file.with_suffix(".IMG" if file.suffix == ".HDR" else ".img")  # the same rule as nibabel's
    if is_regular_file(data_file):
        return data_file
    code = "volume-data-outside" if data_file.is_symlink() else "volume-data-missing"
    raise InputError(message(code, file=file, data=data_file.name))


def _create_header_error(file: Path, name: str, value: object) -> GliomarkError:
    return InputError(message("volume-header", file=file, stated=f"{name}: {value}"))

"""Check the text header of a MetaImage or NRRD file before ITK reads it.

ITK trusts these headers: an invalid number of dimensions ends the process, memory is allocated for any stated size,
and the header may point to any file on the system. The header is therefore parsed strictly first: each field once, a
size that the data can contain, and a data file inside the header's own folder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gliomark.errors import GliomarkError, InputError
from gliomark.io.size_limits import check_data_length, check_voxel_count
from gliomark.messages import message

MAX_HEADER_BYTES = 1 << 16
META_IMAGE_SUFFIXES = (".mha", ".mhd")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
_MAX_DIMENSIONS = 5  # more than 3 dimensions are reported after reading
_MAX_CHANNELS = 64
_MAX_LINE_LENGTH = 2000
_LOCAL_DATA_NAMES = ("LOCAL", "Local", "local")
_META_FIELD = re.compile(r"\s*([^=:]*[^=:\s])\s*=(.*)")
_META_TYPE_BYTES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}
_NRRD_TYPE_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4
    ),
    **dict.fromkeys(
        ("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8
    ),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t", "double"), 8),
    "float": 4,
}
_MAX_FIELD_LENGTH, _MAX_LONG_FIELD_LENGTH = (
    120,
    400,
)  # longer values overflow buffers for ITK's error messages
_NRRD_LONG_FIELDS = ("content", "spacedirections", "measurementframe", "spaceorigin", "spacings")
_NRRD_FIELDS = frozenset(
    "content number type blocksize dimension space spacedimension sizes spacings thicknesses axismins axismaxs "
    "spacedirections centers centerings kinds labels units min max oldmin oldmax datafile endian encoding lineskip "
    "byteskip sampleunits spaceunits spaceorigin measurementframe".split()
)
_GZIP_ENCODINGS = ("gzip", "gz")
_NRRD_ENCODINGS = ("raw", *_GZIP_ENCODINGS)  # not "text": an invalid number in it makes ITK end the process


@dataclass(frozen=True)
class _StatedData:
    """What a header states about its data.

    data_file: name of the data file, empty if header and data are in one file. offset: start of the values in bytes,
    from the end of the header or from the start of the data file. byte_count: bytes of all values, uncompressed.
    """

    data_file: str
    offset: int
    byte_count: int
    is_compressed: bool
    is_binary: bool


def check_itk_header(file: Path) -> int:
    """Check a MetaImage or NRRD header.

    Returns
    -------
    int
        The size of its values in bytes, uncompressed.

    Raises
    ------
    InputError
        If the file cannot be opened, the header has no end marker, contradicts itself or states more data than the
        file can contain, or if its data file is not a regular file inside the header's folder.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(MAX_HEADER_BYTES)
    except OSError as error:
        raise InputError(message("volume-unopened", file=file, reason=error.strerror or error)) from None
    parse_header = _parse_nrrd_header if file.name.lower().endswith(NRRD_SUFFIXES) else _parse_meta_header
    stated_data, end = parse_header(file, start)
    available_bytes = (
        _locate_data_file(file, stated_data.data_file).stat().st_size
        if stated_data.data_file
        else file.stat().st_size - end
    )
    if stated_data.is_binary:
        check_data_length(
            file, stated_data.byte_count, available_bytes - stated_data.offset, stated_data.is_compressed
        )
    return stated_data.byte_count


# ---- MetaImage --------------------------------------------------------------------------------------


def _parse_meta_header(file: Path, start: bytes) -> tuple[_StatedData, int]:
    """Parse the ``Key = value`` lines up to ElementDataFile; return the stated data and the end of the header."""
    found = re.search(rb"(?:^|[\r\n])[ \t]*ElementDataFile[ \t]*=[^\r\n]*(?:\r?\n|$)", start)
    if found is None:
        raise _create_header_end_error(file, start)
    fields: dict[str, str] = {}
    for line in filter(str.strip, re.split(r"[\r\n]+", start[: found.end()].decode("utf-8", "replace"))):
        match = _META_FIELD.fullmatch(line)
        if match is None or match[1].lower() in fields or len(line) > _MAX_LINE_LENGTH:
            raise _create_header_error(file, line)
        fields[match[1].lower()] = match[2].strip()
    sizes = _parse_sizes(file, fields, "NDims", "DimSize")
    kind = fields.get("elementtype", "")
    if kind not in _META_TYPE_BYTES and kind.removesuffix("_ARRAY") not in _META_TYPE_BYTES:
        raise _create_header_error(file, f"ElementType = {kind}")
    channels = _parse_count(file, fields, "ElementNumberOfChannels", 1, _MAX_CHANNELS, default=1)
    skipped = _parse_count(file, fields, "HeaderSize", -1, 1 << 40, default=0)
    data = fields["elementdatafile"]
    required_bytes = math.prod(sizes) * channels * _META_TYPE_BYTES[kind.removesuffix("_ARRAY")]
    packed = fields.get("compresseddata", "").lower() in ("true", "1")
    binary = fields.get("binarydata", "true").lower() in ("true", "1")
    stated_data = _StatedData(
        "" if data in _LOCAL_DATA_NAMES else data, max(skipped, 0), required_bytes, packed, binary
    )
    return stated_data, found.end()


# ---- NRRD -------------------------------------------------------------------------------------------


def _parse_nrrd_header(file: Path, start: bytes) -> tuple[_StatedData, int]:
    """Parse the ``key: value`` lines up to an empty line or the end of a detached header; return data and end."""
    if not start.startswith(b"NRRD"):
        raise InputError(message("volume-damaged", file=file))
    blank = re.search(rb"\r?\n\r?\n", start)
    if blank is None and len(start) == MAX_HEADER_BYTES:
        raise _create_header_end_error(file, start)
    end = blank.end() if blank else len(start)
    fields: dict[str, str] = {}
    for line in filter(str.strip, re.split(r"[\r\n]+", start[:end].decode("utf-8", "replace"))[1:]):
        key, colon, value = line.partition(":")
        if line.startswith("#") or (value.startswith("=") and len(line) <= _MAX_LINE_LENGTH):
            continue
        name = key.lower().replace(" ", "")
        longest = _MAX_LONG_FIELD_LENGTH if name in _NRRD_LONG_FIELDS else _MAX_FIELD_LENGTH
        if not colon or name in fields or name not in _NRRD_FIELDS or len(line) > longest:
            raise _create_header_error(file, line)
        fields[name] = value.strip()
    sizes = _parse_sizes(file, fields, "dimension", "sizes")
    kind = " ".join(fields.get("type", "").lower().split())
    if kind not in _NRRD_TYPE_BYTES:
        raise _create_header_error(file, f"type: {kind}")
    encoding = fields.get("encoding", "").lower()
    if encoding not in _NRRD_ENCODINGS:
        raise _create_header_error(file, f"encoding: {encoding}")
    lines = _parse_count(file, fields, "lineskip", 0, 1 << 40, default=0)
    skipped = _parse_count(file, fields, "byteskip", -1, 1 << 40, default=0)
    required_bytes = math.prod(sizes) * _NRRD_TYPE_BYTES[kind]
    is_size_known = encoding == "raw" or not lines
    data = fields.get("datafile", "")
    return _StatedData(
        data,
        max(skipped, 0) if encoding == "raw" else 0,
        required_bytes,
        encoding in _GZIP_ENCODINGS,
        is_size_known,
    ), end


# ---- both formats -----------------------------------------------------------------------------------


def _parse_sizes(file: Path, fields: Mapping[str, str], count_name: str, sizes_name: str) -> list[int]:
    """Parse the sizes of the axes; raise if their number is not the stated number of dimensions."""
    count = _parse_count(file, fields, count_name, 1, _MAX_DIMENSIONS)
    stated = fields.get(sizes_name.lower(), "")
    words = stated.split()
    if len(words) != count or not all(re.fullmatch(r"0*[1-9]\d{0,9}", word) for word in words):
        raise _create_header_error(file, f"{sizes_name}: {stated}")
    sizes = [int(word) for word in words]
    check_voxel_count(file, sizes)
    return sizes


def _parse_count(
    file: Path, fields: Mapping[str, str], name: str, minimum: int, maximum: int, default: int | None = None
) -> int:
    stated = fields.get(name.lower(), "" if default is None else str(default))
    if not re.fullmatch(r"-?\d{1,12}", stated) or not minimum <= int(stated) <= maximum:
        raise _create_header_error(file, f"{name}: {stated}")
    return int(stated)


def _locate_data_file(file: Path, name: str) -> Path:
    """Return the path of the data file; raise unless it is a regular file in the header's folder."""
    if re.match(r"LIST|list|List", name) or "%" in name:
        raise InputError(message("volume-data-list", file=file, data=name[:80]))
    folder = file.parent.resolve()
    data = file.parent / name
    inside = not re.match(r"[/\\]|[A-Za-z]:", name) and ".." not in re.split(r"[/\\]", name)
    if "\0" in name or not inside:
        raise InputError(message("volume-data-outside", file=file, data=name[:80]))
    try:
        resolved, found = data.resolve(), data.is_file()
    except OSError:  # the name is too long, or the links form a loop
        found, resolved = False, folder.joinpath(*Path(name).parts)
    if resolved != folder.joinpath(*Path(name).parts):
        raise InputError(message("volume-data-outside", file=file, data=name[:80]))
    if not found:
        raise InputError(message("volume-data-missing", file=file, data=name[:80]))
    return data


def _create_header_end_error(file: Path, start: bytes) -> GliomarkError:
    if len(start) < MAX_HEADER_BYTES:
        return InputError(message("volume-damaged", file=file))
    return InputError(message("volume-header-endless", file=file, most=MAX_HEADER_BYTES >> 10))


def _create_header_error(file: Path, stated: str) -> GliomarkError:
    shown = " ".join(stated.split())
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return InputError(message("volume-header", file=file, stated=shown))

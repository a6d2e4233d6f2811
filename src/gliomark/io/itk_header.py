"""The text header of a MetaImage or NRRD file, checked before ITK sees it.

ITK trusts these headers: an impossible number of dimensions ends the process, a size is allocated as stated, and a
data file may be any file of the machine. So each is read here first, strictly: every field once, a size that the
data can hold, and a data file inside the header's own folder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gliomark.io.limits import check_held, check_voxels
from gliomark.messages import message
from gliomark.study import GliomarkError

MOST_HEADER_BYTES = 1 << 16
NRRD_SUFFIXES = (".nrrd", ".nhdr")
_MOST_DIMENSIONS = 5  # of values that are no single volume: said so once they are read
_MOST_CHANNELS = 64
_LONGEST_LINE = 2000
_LOCAL = ("LOCAL", "Local", "local")
_META_LINE = re.compile(r"\s*([^=:]*[^=:\s])\s*=(.*)")
_META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip
_NRRD_BYTES = {
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
_LONGEST, _LONGEST_OF_LONG = 120, 400  # longer ones overflow the decoder's own messages
_NRRD_LONG = ("content", "spacedirections", "measurementframe", "spaceorigin", "spacings")
_NRRD_FIELDS = frozenset(
    "content number type blocksize dimension space spacedimension sizes spacings thicknesses axismins axismaxs "
    "spacedirections centers centerings kinds labels units min max oldmin oldmax datafile endian encoding lineskip "
    "byteskip sampleunits spaceunits spaceorigin measurementframe".split()
)
_GZIP = ("gzip", "gz")
_NRRD_ENCODINGS = ("raw", *_GZIP)  # of numbers as text, one that is no number ends the process within ITK


@dataclass(frozen=True)
class _Claim:
    """What a header claims. data: the data file's name, blank for the header's own file; start: where the values
    begin there, counted from the header's end in a file of its own; bytes: of all values as they are stored."""

    data: str
    start: int
    bytes: int
    packed: bool
    raw: bool


def check_itk_header(file: Path) -> int:
    """Check a MetaImage or NRRD header.

    Returns
    -------
    How many bytes its values take, unpacked.

    Raises
    ------
    GliomarkError
        For a header that does not end, contradicts itself or claims more than its data can hold, and for a data
        file that is not a plain file inside the header's folder.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(MOST_HEADER_BYTES)
    except OSError as error:
        raise GliomarkError(message("volume-unopened", file=file, reason=error.strerror or error)) from None
    read = _read_nrrd if file.name.lower().endswith(NRRD_SUFFIXES) else _read_meta
    claim, end = read(file, start)
    held = _data_file(file, claim.data).stat().st_size if claim.data else file.stat().st_size - end
    if claim.raw:
        check_held(file, claim.bytes, held - claim.start, claim.packed)
    return claim.bytes


# ---- MetaImage --------------------------------------------------------------------------------------


def _read_meta(file: Path, start: bytes) -> tuple[_Claim, int]:
    """The claim of ``Key = value`` lines, of which ElementDataFile is the last, and where they end."""
    found = re.search(rb"(?:^|[\r\n])[ \t]*ElementDataFile[ \t]*=[^\r\n]*(?:\r?\n|$)", start)
    if found is None:
        raise _endless(file, start)
    fields: dict[str, str] = {}
    for line in filter(str.strip, re.split(r"[\r\n]+", start[: found.end()].decode("utf-8", "replace"))):
        match = _META_LINE.fullmatch(line)
        if match is None or match[1].lower() in fields or len(line) > _LONGEST_LINE:
            raise _impossible(file, line)
        fields[match[1].lower()] = match[2].strip()
    sizes = _sizes(file, fields, "NDims", "DimSize")
    kind = fields.get("elementtype", "")
    if kind not in _META_BYTES and kind.removesuffix("_ARRAY") not in _META_BYTES:
        raise _impossible(file, f"ElementType = {kind}")
    channels = _count(file, fields, "ElementNumberOfChannels", 1, _MOST_CHANNELS, default=1)
    skipped = _count(file, fields, "HeaderSize", -1, 1 << 40, default=0)
    data = fields["elementdatafile"]
    needed = math.prod(sizes) * channels * _META_BYTES[kind.removesuffix("_ARRAY")]
    packed = fields.get("compresseddata", "").lower() in ("true", "1")
    binary = fields.get("binarydata", "true").lower() in ("true", "1")
    claim = _Claim("" if data in _LOCAL else data, max(skipped, 0), needed, packed, binary)
    return claim, found.end()


# ---- NRRD -------------------------------------------------------------------------------------------


def _read_nrrd(file: Path, start: bytes) -> tuple[_Claim, int]:
    """The claim of ``key: value`` lines up to the blank one or, of a header alone, the file's end."""
    if not start.startswith(b"NRRD"):
        raise GliomarkError(message("volume-damaged", file=file))
    blank = re.search(rb"\r?\n\r?\n", start)
    if blank is None and len(start) == MOST_HEADER_BYTES:
        raise _endless(file, start)
    end = blank.end() if blank else len(start)
    fields: dict[str, str] = {}
    for line in filter(str.strip, re.split(r"[\r\n]+", start[:end].decode("utf-8", "replace"))[1:]):
        key, colon, value = line.partition(":")
        if line.startswith("#") or (value.startswith("=") and len(line) <= _LONGEST_LINE):
            continue
        name = key.lower().replace(" ", "")
        longest = _LONGEST_OF_LONG if name in _NRRD_LONG else _LONGEST
        if not colon or name in fields or name not in _NRRD_FIELDS or len(line) > longest:
            raise _impossible(file, line)
        fields[name] = value.strip()
    sizes = _sizes(file, fields, "dimension", "sizes")
    kind = " ".join(fields.get("type", "").lower().split())
    if kind not in _NRRD_BYTES:
        raise _impossible(file, f"type: {kind}")
    encoding = fields.get("encoding", "").lower()
    if encoding not in _NRRD_ENCODINGS:
        raise _impossible(file, f"encoding: {encoding}")
    lines = _count(file, fields, "lineskip", 0, 1 << 40, default=0)
    skipped = _count(file, fields, "byteskip", -1, 1 << 40, default=0)
    needed = math.prod(sizes) * _NRRD_BYTES[kind]
    counted = encoding == "raw" or not lines
    data = fields.get("datafile", "")
    return _Claim(data, max(skipped, 0) if encoding == "raw" else 0, needed, encoding in _GZIP, counted), end


# ---- both -------------------------------------------------------------------------------------------


def _sizes(file: Path, fields: Mapping[str, str], count_name: str, sizes_name: str) -> list[int]:
    """The sizes along the axes, as many as the header says there are. Raises: GliomarkError."""
    count = _count(file, fields, count_name, 1, _MOST_DIMENSIONS)
    stated = fields.get(sizes_name.lower(), "")
    words = stated.split()
    if len(words) != count or not all(re.fullmatch(r"0*[1-9]\d{0,9}", word) for word in words):
        raise _impossible(file, f"{sizes_name}: {stated}")
    sizes = [int(word) for word in words]
    check_voxels(file, sizes)
    return sizes


def _count(
    file: Path, fields: Mapping[str, str], name: str, least: int, most: int, default: int | None = None
) -> int:
    stated = fields.get(name.lower(), "" if default is None else str(default))
    if not re.fullmatch(r"-?\d{1,12}", stated) or not least <= int(stated) <= most:
        raise _impossible(file, f"{name}: {stated}")
    return int(stated)


def _data_file(file: Path, name: str) -> Path:
    """The data file that a header names. Raises: GliomarkError unless it is a plain file in the header's folder."""
    if re.match(r"LIST|list|List", name) or "%" in name:
        raise GliomarkError(message("volume-data-list", file=file, data=name[:80]))
    folder = file.parent.resolve()
    data = file.parent / name
    inside = not re.match(r"[/\\]|[A-Za-z]:", name) and ".." not in re.split(r"[/\\]", name)
    if "\0" in name or not inside:
        raise GliomarkError(message("volume-data-outside", file=file, data=name[:80]))
    try:
        resolved, found = data.resolve(), data.is_file()
    except OSError:  # a name that is too long, or a circle of links
        found, resolved = False, folder.joinpath(*Path(name).parts)
    if resolved != folder.joinpath(*Path(name).parts):
        raise GliomarkError(message("volume-data-outside", file=file, data=name[:80]))
    if not found:
        raise GliomarkError(message("volume-data-missing", file=file, data=name[:80]))
    return data


def _endless(file: Path, start: bytes) -> GliomarkError:
    if len(start) < MOST_HEADER_BYTES:
        return GliomarkError(message("volume-damaged", file=file))
    return GliomarkError(message("volume-header-endless", file=file, most=MOST_HEADER_BYTES >> 10))


def _impossible(file: Path, stated: str) -> GliomarkError:
    shown = " ".join(stated.split())
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return GliomarkError(message("volume-header", file=file, stated=shown))

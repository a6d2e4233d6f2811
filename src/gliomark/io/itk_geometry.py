"""Read the geometry that the text header of a MetaImage or NRRD file states.

ITK reads both formats, but where a header omits something it silently assumes a spacing of 1 and LPS axes. This
module therefore parses the header itself. A missing or non-positive spacing is an error; axes that are missing, or
are stated in scanner instead of patient coordinates, are assumed with a note.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from gliomark.errors import InputError
from gliomark.messages import message

_MAX_HEADER_BYTES = 1 << 16
_PATIENT_SPACES = re.compile(
    r"((right|left)-anterior-superior|left-posterior-superior|ras|las|lps)(-time|t)?"
)
_MM_PER_UNIT = {
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(("m", "meter", "metre"), 1000.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(
        ("um", "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m", "micron", "micrometer", "micrometre"), 1e-3
    ),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
}
_UNSPECIFIED_UNITS = {"", "?", "???", "unknown", "none", "pixel", "voxel", "unitless"}  # read as mm
_NUMBER = re.compile(r"[^\s(),]+")


def read_itk_geometry(file: Path) -> tuple[bool, float]:
    """Read whether a MetaImage or NRRD file states a patient orientation, and its unit in mm.

    Returns
    -------
    tuple[bool, float]
        Whether the orientation is stated, and mm per unit of length.

    Raises
    ------
    InputError
        If the file cannot be opened, a spacing is missing, not finite or not positive, or its unit is unknown or
        differs between axes.
    """
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_HEADER_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        raise InputError(message("volume-unopened", file=file, reason=error.strerror or error)) from None
    if text.startswith("NRRD"):
        fields = _parse_nrrd_fields(text)
        spacing, is_oriented, unit = (
            _parse_nrrd_spacing(fields),
            _has_nrrd_orientation(fields),
            _parse_nrrd_unit(fields),
        )
    else:
        fields = _parse_meta_fields(text)
        spacing = _parse_numbers(fields.get("elementspacing", ""))
        is_oriented = bool(fields.keys() & {"transformmatrix", "rotation", "orientation"})
        unit = fields.get("distanceunits", "")
    if len(spacing) < 3 or not all(math.isfinite(step) and step > 0 for step in spacing[:3]):
        shown = " x ".join(f"{step:.4g}" for step in spacing) or "-"
        raise InputError(message("volume-steps", file=file, steps=shown))
    return is_oriented, _parse_mm_per_unit(file, unit)


def _parse_nrrd_unit(fields: Mapping[str, str]) -> str:
    """Return the unit of ``space units``, or of ``units`` if the header has no ``space``."""
    return fields.get("space units", "") or ("" if "space" in fields else fields.get("units", ""))


def _parse_mm_per_unit(file: Path, unit: str) -> float:
    """Return mm per unit; the header names it once or for each of three axes. 1 if it names none."""
    quoted = re.findall(r'"([^"]*)"', unit) or unit.split()
    names = [re.sub(r"s$", "", name.strip().lower()) for name in quoted[:3]] or [""]
    lengths = {1.0 if name in _UNSPECIFIED_UNITS else _MM_PER_UNIT.get(name, 0.0) for name in names}
    if len(lengths) != 1 or 0.0 in lengths:
        raise InputError(message("volume-unit", file=file, unit=unit))
    return lengths.pop()


def _parse_meta_fields(text: str) -> Mapping[str, str]:
    """Parse ``Key = value`` lines up to ElementDataFile, after which pixel data may follow."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if not equals:
            break
        fields.setdefault(key.strip().lower(), value.strip())
        if key.strip().lower() == "elementdatafile":
            break
    return fields


def _parse_nrrd_fields(text: str) -> Mapping[str, str]:
    """Parse ``key: value`` lines up to the empty line; ``key:=value`` pairs and comments are skipped."""
    fields: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _parse_nrrd_spacing(fields: Mapping[str, str]) -> list[float]:
    if "space directions" in fields:
        vectors = re.findall(r"\(([^)]*)\)", fields["space directions"])
        return [math.hypot(*_parse_numbers(vector)) for vector in vectors]
    return _parse_numbers(fields.get("spacings", ""))


def _has_nrrd_orientation(fields: Mapping[str, str]) -> bool:
    space = fields.get("space", "").strip().lower()
    return "space directions" in fields and _PATIENT_SPACES.fullmatch(space) is not None


def _parse_numbers(text: str) -> list[float]:
    """Parse the numbers in a text; words that are not numbers become NaN."""
    found = []
    for word in _NUMBER.findall(text):
        try:
            found.append(float(word))
        except ValueError:
            found.append(math.nan)
    return found

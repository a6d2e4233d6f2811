"""Describe which geometry attribute of a file is missing or invalid."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from gliomark.io.dicom.dataset_reader import read_dataset
from gliomark.io.dicom.header_metadata import find_functional_group, orthonormalise_orientation
from gliomark.messages import Message, message

_GEOMETRY_ATTRIBUTES: tuple[tuple[str, str, int], ...] = (
    ("ImagePositionPatient", "PlanePositionSequence", 3),
    ("ImageOrientationPatient", "PlaneOrientationSequence", 6),
    ("PixelSpacing", "PixelMeasuresSequence", 2),
)
_VALIDITY_CHECKS: dict[str, Callable[[Sequence[float]], bool]] = {
    "ImagePositionPatient": lambda position: True,
    "ImageOrientationPatient": lambda cosines: orthonormalise_orientation(tuple(cosines)) is not None,
    "PixelSpacing": lambda spacing: min(spacing) > 0,
}


def describe_geometry_problem(file: Path, frame_index: int | None) -> Message:
    """Return the error message for an image whose position, orientation or spacing is not usable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = read_dataset(file, stop_before_pixels=True)
    for keyword, group_keyword, count in _GEOMETRY_ATTRIBUTES:
        raw_values = _get_raw_values(header, frame_index or 0, keyword, group_keyword)
        if not raw_values:
            return message("dicom-place-missing", file=file, attribute=keyword)
        numbers = [_to_float(part) for part in raw_values]
        if (
            len(numbers) != count
            or not all(map(math.isfinite, numbers))
            or not _VALIDITY_CHECKS[keyword](numbers)
        ):
            return message(
                "dicom-place-wrong", file=file, attribute=keyword, value="\\".join(map(str, raw_values))[:80]
            )
    return message("dicom-place-missing", file=file, attribute="ImagePositionPatient")


def _get_raw_values(header: Dataset, frame_index: int, keyword: str, group_keyword: str) -> list[object]:
    """Return the values of an attribute as stored, of one frame or of the header."""
    holder = find_functional_group(header, frame_index, group_keyword) or header
    try:
        value = holder.get(keyword)
    except (ValueError, TypeError):  # raised by pydicom for text that is not a decimal
        raw = holder.get_item(keyword)
        return raw.value.decode("latin-1").strip().split("\\") if raw is not None and raw.value else []
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _to_float(part: object) -> float:
    try:
        return float(part)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan

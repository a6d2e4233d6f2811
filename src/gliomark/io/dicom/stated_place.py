"""Why an image's place is not usable: which attribute of which file is missing or wrong, for the message."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from gliomark.io.dicom.facts import group, unit
from gliomark.io.dicom.files import read_dataset
from gliomark.messages import Message, message

_PLACES: tuple[tuple[str, str, int], ...] = (
    ("ImagePositionPatient", "PlanePositionSequence", 3),
    ("ImageOrientationPatient", "PlaneOrientationSequence", 6),
    ("PixelSpacing", "PixelMeasuresSequence", 2),
)
_SOUND: dict[str, Callable[[Sequence[float]], bool]] = {
    "ImagePositionPatient": lambda position: True,
    "ImageOrientationPatient": lambda cosines: unit(tuple(cosines)) is not None,
    "PixelSpacing": lambda spacing: min(spacing) > 0,
}


def place_fault(file: Path, frame: int | None) -> Message:
    """The sentence for an image whose position, orientation or spacing could not be used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = read_dataset(file, stop_before_pixels=True)
    for keyword, sequence, count in _PLACES:
        written = _written(header, frame or 0, keyword, sequence)
        if not written:
            return message("dicom-place-missing", file=file, attribute=keyword)
        numbers = [_number(part) for part in written]
        if len(numbers) != count or not all(map(math.isfinite, numbers)) or not _SOUND[keyword](numbers):
            return message(
                "dicom-place-wrong", file=file, attribute=keyword, value="\\".join(map(str, written))[:80]
            )
    return message("dicom-place-missing", file=file, attribute="ImagePositionPatient")


def _written(header: Dataset, frame: int, keyword: str, sequence: str) -> list[object]:
    """An attribute's parts as they stand in the file, of one frame or of the header itself."""
    holder = group(header, frame, sequence) or header
    try:
        value = holder.get(keyword)
    except (ValueError, TypeError):  # no decimal at all
        raw = holder.get_item(keyword)
        return raw.value.decode("latin-1").strip().split("\\") if raw is not None and raw.value else []
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _number(part: object) -> float:
    try:
        return float(part)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan

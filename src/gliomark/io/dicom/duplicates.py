"""Two different images under one instance UID: nobody can say which of them is meant."""

from __future__ import annotations

import filecmp
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gliomark.io.dicom.files import read_dataset
from gliomark.io.dicom.instances import DAMAGE, Instance, can_hold_frames
from gliomark.isolation import ReadingEndedError, read_file

_SAME_PLACE = 2  # decimals of a millimetre


def clashes(instances: Iterable[Instance]) -> Mapping[Path, tuple[Path, Path]]:
    """File to two files of its examination that share its instance UID and show different images.

    A copy shows the same pixels at the same place, whatever else its header says or however it is compressed.
    """
    by_uid: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for instance in instances:
        if instance.sop_uid and instance.frames:
            by_uid[instance.study_uid, instance.sop_uid].append(instance)
    found: dict[Path, tuple[Path, Path]] = {}
    for alike in by_uid.values():
        if pair := _different(alike):
            found |= dict.fromkeys((instance.file for instance in alike), pair)
    return found


def _different(alike: Sequence[Instance]) -> tuple[Path, Path] | None:
    """The first file, and the first one that shows another image."""
    first, *others = sorted(alike, key=lambda one: str(one.file))
    for other in others:
        if filecmp.cmp(first.file, other.file, shallow=False):
            continue
        if _place(first) != _place(other) or _pixels(first.file) != _pixels(other.file):
            return first.file, other.file
    return None


def _place(instance: Instance) -> tuple[object, ...]:
    places = (frame.position for frame in instance.frames)
    rounded = tuple(None if p is None else tuple(round(v, _SAME_PLACE) + 0.0 for v in p) for p in places)
    return instance.rows, instance.columns, rounded


def _pixels(file: Path) -> str:
    try:
        return read_file(hash_of_image, file)
    except ReadingEndedError:
        return str(file)  # like no other


def hash_of_image(file: Path) -> str:
    """A hash of the decoded pixels; of those that cannot be decoded, of the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = read_dataset(file)
            if not can_hold_frames(dataset, len(dataset.get("PixelData") or b"")):
                raise ValueError
            content = dataset.pixel_array.tobytes()
    except (*DAMAGE, RuntimeError):
        content = file.read_bytes()
    return hashlib.sha256(content).hexdigest()

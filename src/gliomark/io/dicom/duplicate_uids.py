"""Find different images that share one SOP Instance UID."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gliomark.io.dicom.instances import Instance
from gliomark.io.dicom.pixel_hashes import hash_image_or_file
from gliomark.isolation import ReaderProcessError, run_file_reader

_POSITION_DECIMALS = 2  # decimals of a millimetre


def find_uid_conflicts(instances: Iterable[Instance]) -> Mapping[Path, tuple[Path, Path]]:
    """Map each affected file to a pair of files of its examination that share its SOP Instance UID but differ.

    Copies are not conflicts: files with the same pixels at the same position count as copies, even if other header
    values or the compression differ.
    """
    by_uid: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for instance in instances:
        if instance.sop_instance_uid and instance.frames:
            by_uid[instance.study_instance_uid, instance.sop_instance_uid].append(instance)
    found: dict[Path, tuple[Path, Path]] = {}
    for same_uid_instances in by_uid.values():
        if pair := _find_differing_pair(same_uid_instances):
            found |= dict.fromkeys((instance.file for instance in same_uid_instances), pair)
    return found


def _find_differing_pair(instances: Sequence[Instance]) -> tuple[Path, Path] | None:
    """Return the first file and the first other file with a different image, or None."""
    first, *others = sorted(instances, key=lambda one: str(one.file))
    for other in others:
        if filecmp.cmp(first.file, other.file, shallow=False):
            continue
        if _create_geometry_key(first) != _create_geometry_key(other) or _read_image_hash(
            first.file
        ) != _read_image_hash(other.file):
            return first.file, other.file
    return None


def _create_geometry_key(instance: Instance) -> tuple[object, ...]:
    positions = (frame.position for frame in instance.frames)
    rounded = tuple(
        None if p is None else tuple(round(v, _POSITION_DECIMALS) + 0.0 for v in p) for p in positions
    )
    return instance.rows, instance.columns, rounded


def _read_image_hash(file: Path) -> str:
    try:
        return run_file_reader(hash_image_or_file, file)
    except ReaderProcessError:
        return str(file)  # unreadable: use the path, so that it never equals another file

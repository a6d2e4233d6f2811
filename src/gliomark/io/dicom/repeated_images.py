"""Handle series that repeat slice positions: remove copies, split repetitions in time into one series each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from gliomark.io.dicom.instances import InstanceFrame
from gliomark.io.dicom.pixel_hashes import hash_pixel_data
from gliomark.isolation import ReaderProcessError, run_file_reader

MIN_TIME_SERIES_REPEATS = 4  # from this many images per position on, a series is a time series


def remove_copied_images(instance_frames: list[InstanceFrame]) -> list[InstanceFrame]:
    """Remove images with the same position and the same pixels as another, stored under a new SOP Instance UID.

    Time series, which repeat positions four or more times, are returned unchanged.
    """
    frames_by_position: dict[tuple[float, ...] | None, list[InstanceFrame]] = defaultdict(list)
    for instance_frame in sorted(
        instance_frames,
        key=lambda one: (one[0].instance_number, one[0].sop_instance_uid, one[1].frame_index or 0),
    ):
        frames_by_position[_round_position(instance_frame)].append(instance_frame)
    if max(len(pieces) for pieces in frames_by_position.values()) >= MIN_TIME_SERIES_REPEATS:
        return instance_frames
    kept = [
        piece
        for position, pieces in frames_by_position.items()
        for piece in _keep_distinct_images(position, pieces)
    ]
    return instance_frames if len(kept) == len(instance_frames) else kept


def _keep_distinct_images(
    position: tuple[float, ...] | None, instance_frames: list[InstanceFrame]
) -> list[InstanceFrame]:
    if position is None or len(instance_frames) == 1:
        return instance_frames
    return list(
        {compute_image_digest(piece) or id(piece): piece for piece in reversed(instance_frames)}.values()
    )[::-1]


def has_same_images(one: Sequence[InstanceFrame], other: Sequence[InstanceFrame]) -> bool:
    """Whether two series have identical pixels at identical positions, so that one is a copy of the other."""
    if len(one) != len(other):
        return False
    a, b = ({_round_position(piece): piece for piece in stack} for stack in (one, other))
    if set(a) != set(b) or None in a or len(a) != len(one):
        return False
    return all(
        (found := compute_image_digest(a[position])) and found == compute_image_digest(b[position])
        for position in a
    )


def compute_image_digest(instance_frame: InstanceFrame) -> str:
    """Return a digest of one image's pixels, size and rescale values; "" if it cannot be read."""
    instance, frame = instance_frame
    pixels = _read_pixel_hash(instance.file, instance.file.stat().st_mtime_ns)
    distinguishing_values = (
        instance.rows,
        instance.columns,
        frame.rescale_slope,
        frame.rescale_intercept,
        frame.frame_index,
    )
    return f"{pixels} {distinguishing_values}" if pixels else ""


@lru_cache(maxsize=4096)
def _read_pixel_hash(file: Path, modified_ns: int) -> str:
    try:
        return run_file_reader(hash_pixel_data, file)
    except ReaderProcessError:
        return ""


def split_by_time(instance_frames: list[InstanceFrame]) -> list[list[InstanceFrame]]:
    """Split images that repeat each position into one series per time point.

    The first temporal attribute is used for which no part repeats a position and one part has all positions. Otherwise,
    if every position occurs equally often, the first image of each position by InstanceNumber forms the first series,
    the second image the second, and so on. Irregular repetitions are not split.
    """
    counts = _count_positions(instance_frames)
    max_count = max(counts.values(), default=1)
    if max_count == 1:
        return [instance_frames]
    for key_index in range(max(len(frame.temporal_keys) for _, frame in instance_frames)):
        parts: dict[str, list[InstanceFrame]] = defaultdict(list)
        for instance_frame in instance_frames:
            parts[
                instance_frame[1].temporal_keys[key_index]
                if key_index < len(instance_frame[1].temporal_keys)
                else ""
            ].append(instance_frame)
        has_complete_part = any(len(part) == len(counts) for part in parts.values())
        if (
            len(parts) > 1
            and has_complete_part
            and all(max(_count_positions(part).values()) == 1 for part in parts.values())
        ):
            return [parts[moment] for moment in sorted(parts, key=_compute_temporal_sort_key)]
    if len(counts) > 1 and set(counts.values()) == {max_count}:
        return _split_by_repetition(instance_frames, max_count)
    return [instance_frames]


def _compute_temporal_sort_key(temporal_key: str) -> tuple[float, str]:
    try:
        return float(temporal_key), temporal_key
    except ValueError:
        return float("inf"), temporal_key


def _round_position(instance_frame: InstanceFrame) -> tuple[float, ...] | None:
    position = instance_frame[1].position
    return None if position is None else tuple(round(value, 2) + 0.0 for value in position)


def _count_positions(instance_frames: Sequence[InstanceFrame]) -> dict[tuple[float, ...] | None, int]:
    """Count the images at each position; an image without position counts as a position of its own."""
    counts: dict[tuple[float, ...] | None, int] = defaultdict(int)
    for index, instance_frame in enumerate(instance_frames):
        counts[_round_position(instance_frame) or (float(index), -1.0)] += 1
    return counts


def _split_by_repetition(
    instance_frames: list[InstanceFrame], repeat_count: int
) -> list[list[InstanceFrame]]:
    seen: dict[tuple[float, ...] | None, int] = defaultdict(int)
    parts: list[list[InstanceFrame]] = [[] for _ in range(repeat_count)]
    for instance_frame in sorted(
        instance_frames, key=lambda one: (one[0].instance_number, one[1].frame_index or 0)
    ):
        position = _round_position(instance_frame)
        parts[seen[position]].append(instance_frame)
        seen[position] += 1
    return parts

"""Stacks in which places come several times: copies are left out, repeats in time parted into a stack each."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pydicom.dataset import Dataset

from gliomark.io.dicom.files import read_dataset
from gliomark.io.dicom.instances import DAMAGE, Piece, can_hold_frames
from gliomark.isolation import ReadingEndedError, read_file

MANY_REPEATS = 4  # so many images of each place are a time series


def without_copies(stack: list[Piece]) -> list[Piece]:
    """The stack with one image for each place and its very pixels: copies under new instance UIDs are left out.

    Time series, whose places come four times and more, stay as they are.
    """
    places: dict[tuple[float, ...] | None, list[Piece]] = defaultdict(list)
    for piece in sorted(stack, key=lambda one: (one[0].order, one[0].sop_uid, one[1].number or 0)):
        places[_rounded(piece)].append(piece)
    if max(len(pieces) for pieces in places.values()) >= MANY_REPEATS:
        return stack
    kept = [piece for place, pieces in places.items() for piece in _distinct(place, pieces)]
    return stack if len(kept) == len(stack) else kept


def _distinct(place: tuple[float, ...] | None, pieces: list[Piece]) -> list[Piece]:
    if place is None or len(pieces) == 1:
        return pieces
    return list({pixel_digest(piece) or id(piece): piece for piece in reversed(pieces)}.values())[::-1]


def same_images(one: Sequence[Piece], other: Sequence[Piece]) -> bool:
    """Whether two stacks have the same pixels at the same places: one is a copy of the other."""
    if len(one) != len(other):
        return False
    a, b = ({_rounded(piece): piece for piece in stack} for stack in (one, other))
    if set(a) != set(b) or None in a or len(a) != len(one):
        return False
    return all((found := pixel_digest(a[place])) and found == pixel_digest(b[place]) for place in a)


def pixel_digest(piece: Piece) -> str:
    """What tells one image's pixels and their scaling from another's; blank where they cannot be read."""
    instance, frame = piece
    pixels = _digest_of_file(instance.file, instance.file.stat().st_mtime_ns)
    told = (instance.rows, instance.columns, frame.slope, frame.intercept, frame.number)
    return f"{pixels} {told}" if pixels else ""


@lru_cache(maxsize=4096)
def _digest_of_file(file: Path, changed: int) -> str:
    try:
        return read_file(hash_of_pixels, file)
    except ReadingEndedError:
        return ""


def hash_of_pixels(file: Path) -> str:
    """SHA-256 of a file's pixels as they are without compression; blank where they cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = read_dataset(file)
            if not can_hold_frames(dataset, file.stat().st_size):
                return ""
            syntax = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
            packed = syntax is not None and syntax.is_compressed
            pixels = dataset.pixel_array.tobytes() if packed else bytes(dataset.PixelData)
    except (*DAMAGE, RuntimeError):
        return ""
    return hashlib.sha256(pixels).hexdigest()


def by_time(stack: list[Piece]) -> list[list[Piece]]:
    """Part a stack in which every place comes several times, where the headers say which belongs together.

    A moment's tag parts it when no part repeats a place and one part has all places; else, where every place
    comes equally often, the first of each by InstanceNumber go together, then the second. Odd repeats stay in.
    """
    counts = _counts(stack)
    most = max(counts.values(), default=1)
    if most == 1:
        return [stack]
    for which in range(max(len(frame.moment) for _, frame in stack)):
        parts: dict[str, list[Piece]] = defaultdict(list)
        for piece in stack:
            parts[piece[1].moment[which] if which < len(piece[1].moment) else ""].append(piece)
        whole = any(len(part) == len(counts) for part in parts.values())
        if len(parts) > 1 and whole and all(max(_counts(part).values()) == 1 for part in parts.values()):
            return [parts[moment] for moment in sorted(parts, key=_counting)]
    if len(counts) > 1 and set(counts.values()) == {most}:
        return _by_turns(stack, most)
    return [stack]


def _counting(moment: str) -> tuple[float, str]:
    try:
        return float(moment), moment
    except ValueError:
        return float("inf"), moment


def _rounded(piece: Piece) -> tuple[float, ...] | None:
    position = piece[1].position
    return None if position is None else tuple(round(value, 2) + 0.0 for value in position)


def _counts(stack: Sequence[Piece]) -> dict[tuple[float, ...] | None, int]:
    """How often each place comes; images without a place count as one each."""
    counts: dict[tuple[float, ...] | None, int] = defaultdict(int)
    for at, piece in enumerate(stack):
        counts[_rounded(piece) or (float(at), -1.0)] += 1
    return counts


def _by_turns(stack: list[Piece], turns: int) -> list[list[Piece]]:
    seen: dict[tuple[float, ...] | None, int] = defaultdict(int)
    parts: list[list[Piece]] = [[] for _ in range(turns)]
    for piece in sorted(stack, key=lambda one: (one[0].order, one[1].number or 0)):
        place = _rounded(piece)
        parts[seen[place]].append(piece)
        seen[place] += 1
    return parts

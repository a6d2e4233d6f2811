"""Stacks in which every place was taken several times: parted into one stack per moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from gliomark.io.dicom.instances import Piece


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

"""The outline that is drawn on: a mask per slice, strokes with undo and redo, and its contour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, Signal

Mask = NDArray[np.bool_]
Point = tuple[float, float]
REMEMBERED = 200

# Marching squares: for each of the 16 patterns of a cell's corners (1 top left, 2 top right, 4 bottom right,
# 8 bottom left), which midpoints of the cell's sides (0 top, 1 right, 2 bottom, 3 left) are joined, from and to.
SIDES = np.array([(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)])
JOINED = {
    1: ((0, 3),), 2: ((1, 0),), 3: ((1, 3),), 4: ((2, 1),), 5: ((0, 3), (2, 1)), 6: ((2, 0),), 7: ((2, 3),),
    8: ((3, 2),), 9: ((0, 2),), 10: ((1, 0), (3, 2)), 11: ((1, 2),), 12: ((3, 1),), 13: ((0, 1),), 14: ((3, 0),),
}  # fmt: skip


def contour(mask: Mask) -> NDArray[np.float64]:
    """The border of a ``(row, column)`` mask as segments ``(n, 4)``: x1, y1, x2, y2 in pixels.

    (0, 0) is the first pixel's corner; the mask lies to the right of a segment, seen on the screen.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    cells = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, 1:] + 8 * padded[1:, :-1]
    # cell (r, c) has its corners at the centres of the pixels around it
    parts = [np.empty((0, 4))]
    for pattern, pairs in JOINED.items():
        row, column = np.nonzero(cells == pattern)
        corner = np.stack([column - 0.5, row - 0.5], axis=1)
        parts += [np.hstack([corner + SIDES[a], corner + SIDES[b]]) for a, b in pairs]
    return np.concatenate(parts)


def near_segment(shape: tuple[int, int], start: Point, end: Point, radius: float) -> Mask:
    """The pixels whose centre lies within ``radius`` pixels of a segment; points are (x, y)."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    point = np.stack([column + 0.5 - start[0], row + 0.5 - start[1]])
    along = np.array([end[0] - start[0], end[1] - start[1]])
    length = float(along @ along)
    share = np.clip(np.tensordot(along, point, 1) / length, 0, 1) if length else np.zeros(shape)
    nearest = along[:, None, None] * share
    return np.hypot(*(point - nearest)) <= radius


@dataclass(frozen=True, eq=False)
class Stroke:
    """One stroke on one slice: the slice's mask before and after."""

    index: int
    before: Mask
    after: Mask


class Outline(QObject):
    """The mask ``(slice, row, column)`` as it stands, and the way back."""

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.mask: Mask = np.zeros((0, 240, 240), bool)
        self._done: list[Stroke] = []
        self._undone: list[Stroke] = []
        self._before: Mask | None = None

    @property
    def edited(self) -> bool:
        """Whether strokes stand that the last ``load`` did not bring."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    def load(self, mask: Mask) -> None:
        """Take a mask as the new beginning; strokes are forgotten."""
        self.mask = mask.copy()
        self._done, self._undone, self._before = [], [], None
        self.changed.emit()

    def take(self, mask: Mask) -> None:
        """Change to a mask, as strokes that can be taken back."""
        for index in np.flatnonzero((mask != self.mask).any(axis=(1, 2))):
            self._done.append(Stroke(int(index), self.mask[index].copy(), mask[index].copy()))
            self.mask[index] = mask[index]
        self._done, self._undone, self._before = self._done[-REMEMBERED:], [], None
        self.changed.emit()

    def paint(self, index: int, start: Point, end: Point, radius: float, value: bool) -> None:
        """Brush (True) or erase along a segment; ``finish`` makes the strokes since then one step of undo."""
        if self._before is None:
            self._before = self.mask[index].copy()
        height, width = self.mask.shape[1:]
        self.mask[index][near_segment((height, width), start, end, radius)] = value
        self.changed.emit()

    def finish(self, index: int) -> None:
        """The button was let go."""
        if self._before is not None and (self._before != self.mask[index]).any():
            self._done = [*self._done[-REMEMBERED:], Stroke(index, self._before, self.mask[index].copy())]
            self._undone = []
        self._before = None
        self.changed.emit()

    def undo(self) -> int | None:
        """Take the last stroke back; the slice it was on, None where there is none."""
        if not self._done:
            return None
        stroke = self._done.pop()
        self._undone.append(stroke)
        return self._put(stroke.index, stroke.before)

    def redo(self) -> int | None:
        """Do the stroke again that was taken back last; its slice, None where there is none."""
        if not self._undone:
            return None
        stroke = self._undone.pop()
        self._done.append(stroke)
        return self._put(stroke.index, stroke.after)

    def _put(self, index: int, mask: Mask) -> int:
        self.mask[index] = mask
        self.changed.emit()
        return index

"""The outline that is drawn on: a mask per slice, strokes with undo and redo, and its contour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, Signal

Mask = NDArray[np.bool_]
Point = tuple[float, float]
MAXIMUM_UNDO_STEPS = 200

# Marching squares: for each of the 16 patterns of a cell's corners (1 top left, 2 top right, 4 bottom right,
# 8 bottom left), which midpoints of the cell's sides (0 top, 1 right, 2 bottom, 3 left) are joined, from and to.
CELL_SIDE_MIDPOINTS = np.array([(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)])
JOINED_SIDES = {
    1: ((0, 3),),
    2: ((1, 0),),
    3: ((1, 3),),
    4: ((2, 1),),
    5: ((0, 3), (2, 1)),
    6: ((2, 0),),
    7: ((2, 3),),
    8: ((3, 2),),
    9: ((0, 2),),
    10: ((1, 0), (3, 2)),
    11: ((1, 2),),
    12: ((3, 1),),
    13: ((0, 1),),
    14: ((3, 0),),
}


def compute_contour(mask: Mask) -> NDArray[np.float64]:
    """The border of a ``(row, column)`` mask as segments ``(n, 4)``: x1, y1, x2, y2 in pixels.

    (0, 0) is the first pixel's corner; the mask lies to the right of a segment, seen on the screen.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    cells = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, 1:] + 8 * padded[1:, :-1]
    # cell (r, c) has its corners at the centres of the pixels around it
    segments = [np.empty((0, 4))]
    for pattern, pairs in JOINED_SIDES.items():
        row, column = np.nonzero(cells == pattern)
        corner = np.stack([column - 0.5, row - 0.5], axis=1)
        segments += [
            np.hstack([corner + CELL_SIDE_MIDPOINTS[a], corner + CELL_SIDE_MIDPOINTS[b]]) for a, b in pairs
        ]
    return np.concatenate(segments)


def compute_stroke_mask(shape: tuple[int, int], start: Point, end: Point, radius: float) -> Mask:
    """The pixels whose centre lies within ``radius`` pixels of a segment; points are (x, y)."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    point = np.stack([column + 0.5 - start[0], row + 0.5 - start[1]])
    direction = np.array([end[0] - start[0], end[1] - start[1]])
    squared_length = float(direction @ direction)
    fraction = (
        np.clip(np.tensordot(direction, point, 1) / squared_length, 0, 1)
        if squared_length
        else np.zeros(shape)
    )
    nearest = direction[:, None, None] * fraction
    return np.hypot(*(point - nearest)) <= radius


@dataclass(frozen=True, eq=False)
class Stroke:
    """One stroke on one slice: the slice's mask before and after."""

    index: int
    mask_before: Mask
    mask_after: Mask


class MaskEditor(QObject):
    """The mask ``(slice, row, column)`` as it stands, and the way back."""

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.mask: Mask = np.zeros((0, 240, 240), bool)
        self._undo_stack: list[Stroke] = []
        self._redo_stack: list[Stroke] = []
        self._mask_before_stroke: Mask | None = None

    @property
    def is_edited(self) -> bool:
        """Whether strokes stand that the last ``load`` did not bring."""
        return bool(self._undo_stack)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo_stack)

    def load_mask(self, mask: Mask) -> None:
        """Take a mask as the new beginning; strokes are forgotten."""
        self.mask = mask.copy()
        self._undo_stack, self._redo_stack, self._mask_before_stroke = [], [], None
        self.changed.emit()

    def apply_mask(self, mask: Mask) -> None:
        """Change to a mask, as strokes that can be taken back."""
        for index in np.flatnonzero((mask != self.mask).any(axis=(1, 2))):
            self._undo_stack.append(Stroke(int(index), self.mask[index].copy(), mask[index].copy()))
            self.mask[index] = mask[index]
        self._undo_stack, self._redo_stack, self._mask_before_stroke = (
            self._undo_stack[-MAXIMUM_UNDO_STEPS:],
            [],
            None,
        )
        self.changed.emit()

    def paint_segment(self, index: int, start: Point, end: Point, radius: float, is_brush: bool) -> None:
        """Brush (True) or erase along a segment; ``finish`` makes the strokes since then one step of undo."""
        if self._mask_before_stroke is None:
            self._mask_before_stroke = self.mask[index].copy()
        height, width = self.mask.shape[1:]
        self.mask[index][compute_stroke_mask((height, width), start, end, radius)] = is_brush
        self.changed.emit()

    def finish_stroke(self, index: int) -> None:
        """The button was let go."""
        if self._mask_before_stroke is not None and (self._mask_before_stroke != self.mask[index]).any():
            self._undo_stack = [
                *self._undo_stack[-MAXIMUM_UNDO_STEPS:],
                Stroke(index, self._mask_before_stroke, self.mask[index].copy()),
            ]
            self._redo_stack = []
        self._mask_before_stroke = None
        self.changed.emit()

    def undo(self) -> int | None:
        """Take the last stroke back; the slice it was on, None where there is none."""
        if not self._undo_stack:
            return None
        stroke = self._undo_stack.pop()
        self._redo_stack.append(stroke)
        return self._restore_slice(stroke.index, stroke.mask_before)

    def redo(self) -> int | None:
        """Do the stroke again that was taken back last; its slice, None where there is none."""
        if not self._redo_stack:
            return None
        stroke = self._redo_stack.pop()
        self._undo_stack.append(stroke)
        return self._restore_slice(stroke.index, stroke.mask_after)

    def _restore_slice(self, index: int, mask: Mask) -> int:
        self.mask[index] = mask
        self.changed.emit()
        return index

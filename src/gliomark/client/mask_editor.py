"""The editable lesion mask: brush strokes and filled slices with undo and redo, and the contour of a slice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, Signal

from gliomark.client.shape_interpolation import Mask, interpolate_masks

Point = tuple[float, float]
MAXIMUM_UNDO_STEPS = 200

# Marching squares: for each pattern of a cell's corners (1 top left, 2 top right, 4 bottom right, 8 bottom left), the
# pairs of side midpoints (0 top, 1 right, 2 bottom, 3 left) that are joined.
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
    """Return the border of a mask ``(row, column)`` as line segments ``(n, 4)``: x1, y1, x2, y2 in pixels.

    (0, 0) is the upper left corner of the first pixel. On the screen the mask is to the right of each segment.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    cells = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, 1:] + 8 * padded[1:, :-1]
    # the corners of cell (r, c) are the centres of the four pixels around it
    segments = [np.empty((0, 4))]
    for pattern, pairs in JOINED_SIDES.items():
        row, column = np.nonzero(cells == pattern)
        corner = np.stack([column - 0.5, row - 0.5], axis=1)
        segments += [
            np.hstack([corner + CELL_SIDE_MIDPOINTS[a], corner + CELL_SIDE_MIDPOINTS[b]]) for a, b in pairs
        ]
    return np.concatenate(segments)


def compute_stroke_mask(shape: tuple[int, int], start: Point, end: Point, radius: float) -> Mask:
    """Return a mask ``(row, column)`` of the pixels whose centre is within ``radius`` pixels of a line segment.

    shape: rows and columns. start, end: (x, y) in pixels.
    """
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
    result: Mask = np.hypot(*(point - nearest)) <= radius
    return result


@dataclass(frozen=True, eq=False)
class SliceChange:
    """A changed slice with its mask ``(row, column)`` before and after."""

    index: int
    mask_before: Mask
    mask_after: Mask


@dataclass(frozen=True, eq=False)
class Step:
    """What is undone at once: the slice of a stroke, filled slices, or all slices of another mask.

    drawn_before, drawn_after: indices of the slices that had been drawn by hand.
    """

    changes: tuple[SliceChange, ...]
    drawn_before: frozenset[int]
    drawn_after: frozenset[int]


class MaskEditor(QObject):
    """The current mask ``(slice, row, column)`` with the undo and redo stacks."""

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.mask: Mask = np.zeros((0, 240, 240), bool)
        self._undo_stack: list[Step] = []
        self._redo_stack: list[Step] = []
        self._mask_before_stroke: Mask | None = None
        self._drawn_indices: frozenset[int] = frozenset()

    @property
    def drawn_indices(self) -> tuple[int, ...]:
        """Indices of the slices that were drawn by hand on the mask loaded or applied last, and show a lesion."""
        return tuple(index for index in sorted(self._drawn_indices) if self.mask[index].any())

    @property
    def is_edited(self) -> bool:
        """Whether the mask has been edited since the last ``load_mask``."""
        return bool(self._undo_stack)

    @property
    def can_redo(self) -> bool:
        """Whether an undone change can be repeated."""
        return bool(self._redo_stack)

    def load_mask(self, mask: Mask) -> None:
        """Set the mask ``(slice, row, column)`` and clear the undo and redo stacks."""
        self.mask = mask.copy()
        self._undo_stack, self._redo_stack, self._mask_before_stroke = [], [], None
        self._drawn_indices = frozenset()
        self.changed.emit()

    def apply_mask(self, mask: Mask) -> None:
        """Change to another mask ``(slice, row, column)``; one undo step."""
        self._change_to(mask, frozenset())

    def list_gaps(self) -> list[tuple[int, int]]:
        """Return the pairs of slices drawn by hand that show a lesion and have only undrawn slices between them."""
        drawn = sorted(self._drawn_indices)
        return [
            (lower, upper)
            for lower, upper in pairwise(drawn)
            if upper - lower > 1 and self.mask[lower].any() and self.mask[upper].any()
        ]

    def fill_gaps(self) -> None:
        """Replace the mask of all undrawn slices between drawn ones by interpolated shapes; one undo step.

        A slice keeps its mask if nothing results because the shapes beside it do not overlap.
        """
        filled = self.mask.copy()
        for lower, upper in self.list_gaps():
            between = interpolate_masks(self.mask[lower], self.mask[upper], upper - lower - 1)
            for index, mask in enumerate(between, lower + 1):
                filled[index] = mask if mask.any() else filled[index]
        self._change_to(filled, self._drawn_indices)

    def _change_to(self, mask: Mask, drawn_indices: frozenset[int]) -> None:
        changes = (
            SliceChange(int(index), self.mask[index].copy(), mask[index].copy())
            for index in np.flatnonzero((mask != self.mask).any(axis=(1, 2)))
        )
        self._add_step(changes, drawn_indices)
        self.mask, self._mask_before_stroke = mask.copy(), None
        self.changed.emit()

    def paint_segment(self, index: int, start: Point, end: Point, radius: float, is_brush: bool) -> None:
        """Add (``is_brush``) or erase along a line segment; ``finish_stroke`` makes all changes one undo step.

        start, end: (x, y) in pixels. radius: pixels.
        """
        if self._mask_before_stroke is None:
            self._mask_before_stroke = self.mask[index].copy()
        height, width = self.mask.shape[1:]
        self.mask[index][compute_stroke_mask((height, width), start, end, radius)] = is_brush
        self.changed.emit()

    def finish_stroke(self, index: int) -> None:
        """End the stroke on a slice and put it on the undo stack."""
        before = self._mask_before_stroke
        if before is not None and (before != self.mask[index]).any():
            self._add_step(
                [SliceChange(index, before, self.mask[index].copy())], self._drawn_indices | {index}
            )
        self._mask_before_stroke = None
        self.changed.emit()

    def abandon_stroke(self, index: int) -> None:
        """Restore the slice as it was before the stroke."""
        if self._mask_before_stroke is not None:
            self.mask[index] = self._mask_before_stroke
            self._mask_before_stroke = None
            self.changed.emit()

    def undo(self) -> int | None:
        """Undo the last change and return the index of its first slice; None without one."""
        if not self._undo_stack:
            return None
        step = self._undo_stack.pop()
        self._redo_stack.append(step)
        self._drawn_indices = step.drawn_before
        return self._restore({one.index: one.mask_before for one in step.changes})

    def redo(self) -> int | None:
        """Repeat the last undone change and return the index of its first slice; None without one."""
        if not self._redo_stack:
            return None
        step = self._redo_stack.pop()
        self._undo_stack.append(step)
        self._drawn_indices = step.drawn_after
        return self._restore({one.index: one.mask_after for one in step.changes})

    def _add_step(self, changes: Iterable[SliceChange], drawn_indices: frozenset[int]) -> None:
        if made_changes := tuple(changes):
            step = Step(made_changes, self._drawn_indices, drawn_indices)
            self._undo_stack = [*self._undo_stack, step][-MAXIMUM_UNDO_STEPS:]
            self._redo_stack = []
            self._drawn_indices = drawn_indices

    def _restore(self, masks: Mapping[int, Mask]) -> int:
        for index, mask in masks.items():
            self.mask[index] = mask
        self.changed.emit()
        return min(masks)

"""Lines that the user measures on the slices; they are drawn over the images and never part of the mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gliomark.client.mask_editor import Point


@dataclass(frozen=True)
class MeasuredLine:
    """A line on a slice. start, end: (x, y) in mm from the upper left corner of the image."""

    start: Point
    end: Point

    @property
    def length_mm(self) -> float:
        """Length in mm."""
        return math.dist(self.start, self.end)

    def compute_distance(self, point: Point) -> float:
        """Return the distance of a point (x, y) in mm from the nearest point of the line, in mm."""
        step_x, step_y = self.end[0] - self.start[0], self.end[1] - self.start[1]
        squared_length = step_x**2 + step_y**2
        along = (point[0] - self.start[0]) * step_x + (point[1] - self.start[1]) * step_y
        fraction = min(max(along / squared_length, 0.0), 1.0) if squared_length else 0.0
        return math.dist(point, (self.start[0] + fraction * step_x, self.start[1] + fraction * step_y))


class Measurements:
    """The lines of all slices of a patient, of which one may be selected and one be dragged."""

    def __init__(self) -> None:
        self._lines_by_slice: dict[int, list[MeasuredLine]] = {}
        self._selected: MeasuredLine | None = None
        self._fixed_end: Point | None = None  # of the line that is dragged
        self._dragged_index = 0
        self._lines_before_drag: list[MeasuredLine] = []

    @property
    def is_dragging(self) -> bool:
        """Whether an end of a line is being dragged."""
        return self._fixed_end is not None

    @property
    def selected(self) -> MeasuredLine | None:
        """The selected line."""
        return self._selected

    def list_lines(self, index: int) -> tuple[MeasuredLine, ...]:
        """Return the lines of a slice, the latest at the end."""
        return tuple(self._lines_by_slice.get(index, ()))

    def deselect(self) -> None:
        """Select no line."""
        self._selected = None

    def begin_drag(self, index: int, point: Point, tolerance_mm: float) -> None:
        """Take hold of the end of a line at a point of a slice, select the line there, or begin a new one.

        point: (x, y) in mm. tolerance_mm: how near the point has to be to an end or a line.
        """
        lines = self._lines_by_slice.setdefault(index, [])
        self._dragged_index, self._lines_before_drag = index, list(lines)
        nearest = min(lines, key=lambda line: line.compute_distance(point), default=None)
        if nearest is not None and nearest.compute_distance(point) <= tolerance_mm:
            self._selected = nearest
            free_end, fixed_end = sorted((nearest.start, nearest.end), key=lambda end: math.dist(end, point))
            if math.dist(free_end, point) <= tolerance_mm:
                self._fixed_end = fixed_end
            return
        self._fixed_end, self._selected = point, MeasuredLine(point, point)
        lines.append(self._selected)

    def drag_to(self, point: Point) -> None:
        """Move the end of the line that is dragged to a point (x, y) in mm."""
        if self._fixed_end is None or self._selected is None:
            return
        lines = self._lines_by_slice[self._dragged_index]
        moved = MeasuredLine(self._fixed_end, point)
        lines[lines.index(self._selected)] = moved
        self._selected = moved

    def finish_drag(self, minimum_mm: float) -> None:
        """End the drag; a line that is shorter than ``minimum_mm`` was a click and is not kept."""
        if self.is_dragging and self._selected is not None and self._selected.length_mm < minimum_mm:
            self.abandon_drag()
        self._fixed_end = None

    def abandon_drag(self) -> None:
        """Restore the lines as they were before the drag."""
        if self.is_dragging:
            self._lines_by_slice[self._dragged_index] = self._lines_before_drag
            self._fixed_end = self._selected = None

    def remove_line(self, index: int) -> None:
        """Remove the selected line of a slice; without one, the line drawn last."""
        lines = self._lines_by_slice.get(index, [])
        if lines:
            lines.remove(self._selected if self._selected in lines else lines[-1])
        self._selected = None

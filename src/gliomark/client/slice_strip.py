"""Slider over the slices that shows the lesion area of each and the slices used for the prediction."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QSlider, QWidget

from gliomark.client.theme import ACCENT, CARD, SEGMENTATION_COLOUR, TEXT

USED_SLICE_COLOUR = QColor("#f08c5a")


class SliceStrip(QSlider):
    """A slider with one cell per slice: a bar for the lesion area, a dot for a slice used for the prediction."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(Qt.Orientation.Horizontal, parent)
        self._lesion_areas: Sequence[float] = ()
        self._used_slice_indices: frozenset[int] = frozenset()
        self.setRange(0, 0)
        self.setPageStep(5)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Return the preferred size in pixels."""
        return QSize(300, 46)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Return the smallest size in pixels."""
        return QSize(180, 46)

    def mark_slices(self, lesion_areas: Sequence[float], used_slice_indices: frozenset[int]) -> None:
        """Set the lesion areas, one per slice, and the indices of the slices used for the prediction."""
        self._lesion_areas, self._used_slice_indices = lesion_areas, used_slice_indices
        self.update()

    def _compute_cell(self, index: int) -> QRectF:
        cell_width = self.width() / (self.maximum() + 1)
        return QRectF(index * cell_width, 0, cell_width, self.height())

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802
        """Paint all cells."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if not self.isEnabled():
            return
        largest = max([*self._lesion_areas, 1.0])
        for index in range(self.maximum() + 1):
            area = self._lesion_areas[index] if index < len(self._lesion_areas) else 0.0
            self._paint_cell(painter, index, area / largest)

    def _paint_cell(self, painter: QPainter, index: int, area_fraction: float) -> None:
        cell = self._compute_cell(index)
        inner = cell.adjusted(1, 12, -1, -2) if cell.width() > 4 else cell.adjusted(0, 12, 0, -2)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(CARD)
        painter.drawRoundedRect(inner, 2, 2)
        bar = inner.adjusted(0, inner.height() * (1 - area_fraction), 0, 0)
        is_used = index in self._used_slice_indices
        painter.setBrush(USED_SLICE_COLOUR if is_used else SEGMENTATION_COLOUR.darker(170))
        painter.drawRoundedRect(bar, 2, 2)
        if is_used:
            radius = min(3.5, cell.width() / 2)
            painter.drawEllipse(QRectF(cell.center().x() - radius, 2, 2 * radius, 2 * radius))
        if index == self.value():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(ACCENT if self.hasFocus() else TEXT, 2))
            painter.drawRoundedRect(inner.adjusted(0, -1, 0, 1), 3, 3)

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Select the slice under the mouse."""
        self._select_slice_at(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Select the slice under the mouse while the left button is down."""
        self._select_slice_at(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Suppress the slider's own handling."""
        event.accept()

    def _select_slice_at(self, event: QMouseEvent) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton:
            self.setValue(int(event.position().x() / self.width() * (self.maximum() + 1)))

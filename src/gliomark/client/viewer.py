"""One sequence's slice on the screen: grey values by window and level, outline and heat over it, strokes from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPoint, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFont,
    QImage,
    QMouseEvent,
    QPainter,
    QPainterPath,
    QPaintEvent,
    QPen,
    QTransform,
    QWheelEvent,
)
from PySide6.QtWidgets import QSizePolicy, QWidget

from gliomark.client.outline import Mask, contour
from gliomark.client.theme import BLACK, FAINT, OUTLINE, TEXT

Tool = Literal["none", "brush", "eraser"]
SCALE_MM = 20
# Grad-CAM from transparent blue over red to yellow, as (share, red, green, blue, alpha)
HEAT = np.array(
    [(0, 40, 20, 90, 0), (0.35, 120, 30, 130, 70), (0.65, 225, 75, 60, 150), (1, 255, 220, 90, 215)]
)


@dataclass(frozen=True)
class Window:
    """Grey values shown from black (low) to white (high), in the units of the prepared images."""

    low: float
    high: float

    def moved(self, right: float, up: float) -> Window:
        """Dragged: to the right widens by shares of itself, up raises the level (darker)."""
        width = max(0.02, (self.high - self.low) * (1 + right))
        level = (self.high + self.low) / 2 + up * (self.high - self.low)
        return Window(level - width / 2, level + width / 2)


def window_of(values: NDArray[np.float32], background: float) -> Window:
    """A window that shows the brain: its first to its 99.9th percentile."""
    brain = values[values > background + 1e-3]
    if not brain.size:
        return Window(background, background + 1)
    low, high = np.percentile(brain, (1, 99.9))
    return Window(float(low), float(max(high, low + 0.1)))


def shade(image: NDArray[np.float32], window: Window) -> QImage:
    """Float grey values as an 8-bit picture."""
    share = (image - window.low) / (window.high - window.low)
    grey = np.ascontiguousarray((np.clip(share, 0, 1) * 255).astype(np.uint8))
    return QImage(
        grey.data, grey.shape[1], grey.shape[0], grey.shape[1], QImage.Format.Format_Grayscale8
    ).copy()


def tint(heat: NDArray[np.uint8], opacity: float) -> QImage:
    """Heat 0 to 255 as a coloured picture, transparent where it is cold."""
    levels = np.arange(256) / 255
    table = np.stack([np.interp(levels, HEAT[:, 0], HEAT[:, i]) for i in (1, 2, 3, 4)], axis=1)
    table[:, 3] *= opacity
    rgba = np.ascontiguousarray(table.astype(np.uint8)[heat])
    height, width = heat.shape
    return QImage(rgba.data, width, height, 4 * width, QImage.Format.Format_RGBA8888).copy()


class SliceView(QWidget):
    """Shows what it is given; tells of strokes (in pixels of the image), of the wheel and of a new window."""

    stroked = Signal(QPointF, QPointF)
    stroke_ended = Signal()
    turned = Signal(int)
    windowed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = ""
        self.tool: Tool = "none"
        self.radius = 4.0
        self.window_level = Window(0, 1)
        self.waiting = ""
        self.crop = QRectF(0, 0, 240, 240)
        self._image: NDArray[np.float32] | None = None
        self._shaded: QImage | None = None
        self._heat: QImage | None = None
        self._border = QPainterPath()
        self._fill: QImage | None = None
        self._opacity = 1.0
        self._last: QPointF | None = None
        self._dragged: QPoint | None = None
        self._cursor: QPointF | None = None
        self.setMouseTracking(True)
        self.setMinimumSize(180, 220)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    # ---- what is shown ----------------------------------------------------------------------------------

    def show_image(self, image: NDArray[np.float32] | None) -> None:
        self._image = image
        self._shade()

    def show_window(self, window: Window) -> None:
        self.window_level = window
        self._shade()

    def show_outline(self, mask: Mask | None, opacity: float) -> None:
        """The line alone, so that the grey values stay as they are; while it is drawn on, faintly filled."""
        self._opacity = opacity
        self._border = QPainterPath() if mask is None else _path(contour(mask))
        self._fill = None if mask is None or self.tool == "none" else _filled(mask, opacity)
        self.update()

    def show_heat(self, heat: NDArray[np.uint8] | None, opacity: float) -> None:
        self._heat = None if heat is None else tint(heat, opacity)
        self.update()

    def show_tool(self, tool: Tool, radius: float) -> None:
        self.tool, self.radius = tool, radius
        self.setCursor(Qt.CursorShape.ArrowCursor if tool == "none" else Qt.CursorShape.CrossCursor)
        self.update()

    def _shade(self) -> None:
        self._shaded = None if self._image is None else shade(self._image, self.window_level)
        self.update()

    # ---- where it is ------------------------------------------------------------------------------------

    def to_screen(self) -> QTransform:
        """From the image's pixels to the widget's, the crop as large as fits, in the middle."""
        scale = min(self.width() / self.crop.width(), self.height() / self.crop.height())
        middle = self.crop.center()
        transform = QTransform.fromTranslate(self.width() / 2, self.height() / 2)
        return transform.scale(scale, scale).translate(-middle.x(), -middle.y())

    def to_image(self, point: QPointF) -> QPointF:
        inverse, _ = self.to_screen().inverted()
        return inverse.map(point)

    # ---- painting ---------------------------------------------------------------------------------------

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self)
        painter.fillRect(self.rect(), BLACK)
        painter.setRenderHints(QPainter.RenderHint.Antialiasing | QPainter.RenderHint.SmoothPixmapTransform)
        if self._shaded is None:
            painter.setPen(FAINT)
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, self.waiting)
        else:
            self._paint_picture(painter)
            self._paint_frame(painter)
        self._write(painter, 12, 24, self.title, bold=True)

    def _paint_picture(self, painter: QPainter) -> None:
        painter.setTransform(self.to_screen())
        whole = QRectF(0, 0, 240, 240)
        for layer in (self._shaded, self._heat, self._fill):
            if layer is not None:
                painter.drawImage(whole, layer)
        # dark under bright: the line is seen on any grey
        for colour, width in ((QColor(0, 0, 0, 150), 3.2), (OUTLINE, 1.6)):
            painter.setPen(_cosmetic(colour, width, self._opacity))
            painter.drawPath(self._border)
        if self.tool != "none" and self._cursor is not None:
            painter.setPen(_cosmetic(TEXT if self.tool == "brush" else QColor("#ff9a8a"), 1.4))
            painter.drawEllipse(self._cursor, self.radius, self.radius)
        painter.resetTransform()

    def _paint_frame(self, painter: QPainter) -> None:
        """Sides, scale bar and window, as radiologists expect them."""
        middle = self.height() // 2
        self._write(painter, 12, middle + 5, "R", bold=True)
        self._write(painter, self.width() - 24, middle + 5, "L", bold=True)
        length = SCALE_MM * self.to_screen().m11()
        right, bottom = self.width() - 14, self.height() - 14
        painter.setPen(QPen(FAINT, 2))
        painter.drawLine(QPointF(right - length, bottom), QPointF(right, bottom))
        self._write(painter, int(right - length), bottom - 6, f"{SCALE_MM} mm")
        window = self.window_level
        width, level = window.high - window.low, (window.high + window.low) / 2
        self._write(painter, 12, self.height() - 12, f"W {width:.1f}   L {level:.1f}")

    def _write(self, painter: QPainter, x: int, y: int, text: str, bold: bool = False) -> None:
        font = QFont(self.font())
        font.setBold(bold)
        font.setPixelSize(15 if bold else 12)
        painter.setFont(font)
        painter.setPen(TEXT if bold else FAINT)
        painter.drawText(x, y, text)

    # ---- hands ------------------------------------------------------------------------------------------

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802
        steps = event.angleDelta().y()
        if steps:
            self.turned.emit(1 if steps > 0 else -1)
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if self._image is None:
            return
        left = event.button() == Qt.MouseButton.LeftButton
        if left and self.tool != "none":
            self._last = self.to_image(event.position())
            self.stroked.emit(self._last, self._last)
        elif left or event.button() == Qt.MouseButton.RightButton:
            self._dragged = event.position().toPoint()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        self._cursor = self.to_image(event.position())
        if self._last is not None:
            self.stroked.emit(self._last, self._cursor)
            self._last = self._cursor
        elif self._dragged is not None:
            way = event.position().toPoint() - self._dragged
            self._dragged = event.position().toPoint()
            self.show_window(self.window_level.moved(way.x() / 200, way.y() / 300))
            self.windowed.emit()
        self.update()

    def mouseReleaseEvent(self, _: QMouseEvent) -> None:  # noqa: N802
        if self._last is not None:
            self._last = None
            self.stroke_ended.emit()
        self._dragged = None

    def leaveEvent(self, _: object) -> None:  # noqa: N802
        self._cursor = None
        self.update()


def _cosmetic(colour: QColor, width: float, opacity: float = 1.0) -> QPen:
    shown = QColor(colour)
    shown.setAlphaF(colour.alphaF() * opacity)
    pen = QPen(shown, width)
    pen.setCosmetic(True)
    pen.setCapStyle(Qt.PenCapStyle.RoundCap)
    return pen


def _path(segments: NDArray[np.float64]) -> QPainterPath:
    """Segments as one path, so that a translucent line does not darken where they meet."""
    path = QPainterPath()
    for x1, y1, x2, y2 in segments.tolist():
        path.moveTo(x1, y1)
        path.lineTo(x2, y2)
    return path


def _filled(mask: Mask, opacity: float) -> QImage:
    """A faint yellow over the lesion."""
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[mask] = (OUTLINE.red(), OUTLINE.green(), OUTLINE.blue(), int(32 * opacity))
    height, width = mask.shape
    return QImage(rgba.data, width, height, 4 * width, QImage.Format.Format_RGBA8888).copy()

"""View of one slice: grey values with window and level, outline, heatmap, measured lines, and brush strokes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetrics,
    QImage,
    QMouseEvent,
    QNativeGestureEvent,
    QPainter,
    QPainterPath,
    QPaintEvent,
    QPen,
    QTransform,
    QWheelEvent,
)
from PySide6.QtWidgets import QGestureEvent, QPinchGesture, QSizePolicy, QWidget

from gliomark.client.mask_editor import Point, compute_contour
from gliomark.client.measurement import MeasuredLine
from gliomark.client.shape_interpolation import Mask
from gliomark.client.theme import (
    ACCENT,
    BLACK,
    MUTED_TEXT,
    SECONDARY_TEXT,
    SEGMENTATION_COLOUR,
    TEXT,
    scale_to_text,
)

DrawingTool = Literal["none", "brush", "eraser", "measure"]
MASK_TOOLS: tuple[DrawingTool, ...] = ("brush", "eraser")
LINE_END_RADIUS, SELECTED_END_RADIUS = 2.5, 4.5
CROSSHAIR_GAP = 7  # from its middle to its lines, in pixels of the screen
CROSSHAIR_COLOUR = QColor(88, 184, 201, 150)
LENGTH_OFFSET = 8  # of a length from the end of its line, in pixels of the screen
SCALE_BAR_LENGTHS_MM = (20, 10, 5, 2, 1)
MAXIMUM_SCALE_BAR_FRACTION = 0.4  # of the view's width
MAXIMUM_ZOOM = 16.0
WHEEL_UNITS_PER_NOTCH, ZOOM_PER_NOTCH = 120, 1.2
# Heatmap colours from transparent blue over red to yellow: (value from 0 to 1, red, green, blue, alpha)
HEATMAP_COLOURS = np.array(
    [(0, 40, 20, 90, 0), (0.35, 120, 30, 130, 70), (0.65, 225, 75, 60, 150), (1, 255, 220, 90, 215)]
)


@dataclass(frozen=True)
class GreyWindow:
    """Grey values shown as black (low) and white (high), in units of the prepared images."""

    low: float
    high: float

    def adjust_by_drag(self, right: float, up: float) -> GreyWindow:
        """Return the window after dragging.

        Dragging right widens the window, dragging up raises the level (darker image); both as fractions of the width.
        """
        width = max(0.02, (self.high - self.low) * (1 + right))
        level = (self.high + self.low) / 2 + up * (self.high - self.low)
        return GreyWindow(level - width / 2, level + width / 2)


@dataclass(frozen=True)
class Zoom:
    """The part of the image that is shown.

    factor: magnification, from 1 for all of the brain. middle: (x, y) in image pixels shown in the middle of the view;
    None for the middle of the brain.
    """

    factor: float = 1.0
    middle: tuple[float, float] | None = None


def compute_grey_window(values: NDArray[np.float32], background: float) -> GreyWindow:
    """Return the window from the 1st to the 99.9th percentile of the brain.

    values: any shape; voxels at ``background`` are excluded.
    """
    brain = values[values > background + 1e-3]
    if not brain.size:
        return GreyWindow(background, background + 1)
    low, high = np.percentile(brain, (1, 99.9))
    return GreyWindow(float(low), float(max(high, low + 0.1)))


def render_grey_image(image: NDArray[np.float32], grey_window: GreyWindow) -> QImage:
    """Render grey values ``(row, column)`` as an 8-bit image."""
    scaled = (image - grey_window.low) / (grey_window.high - grey_window.low)
    grey = np.ascontiguousarray((np.clip(scaled, 0, 1) * 255).astype(np.uint8))
    return QImage(
        grey.data, grey.shape[1], grey.shape[0], grey.shape[1], QImage.Format.Format_Grayscale8
    ).copy()


def render_heatmap(heatmap: NDArray[np.uint8], opacity: float) -> QImage:
    """Render a heatmap ``(row, column)`` of 0 to 255 as a colour image; 0 is transparent. opacity: 0 to 1."""
    levels = np.arange(256) / 255
    colour_table = np.stack(
        [np.interp(levels, HEATMAP_COLOURS[:, 0], HEATMAP_COLOURS[:, i]) for i in (1, 2, 3, 4)], axis=1
    )
    colour_table[:, 3] *= opacity
    rgba = np.ascontiguousarray(colour_table.astype(np.uint8)[heatmap])
    height, width = heatmap.shape
    return QImage(rgba.data, width, height, 4 * width, QImage.Format.Format_RGBA8888).copy()


class SliceView(QWidget):
    """View of one slice; emits strokes of the tool (in image pixels), wheel turns, changes of grey window and zoom.

    ``pixel_size_mm``: width and height of an image pixel. ``edge_letters``: directions in the patient at the left,
    right, upper and lower edge. ``picks_position``: without a tool, the left button picks a position; otherwise it
    changes the grey window.
    """

    stroke_drawn = Signal(QPointF, QPointF)
    stroke_finished = Signal()
    stroke_abandoned = Signal()
    wheel_turned = Signal(int)
    grey_window_changed = Signal()
    zoom_changed = Signal(Zoom)
    position_picked = Signal(QPointF)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = ""
        self.tool: DrawingTool = "none"
        self.brush_radius = 4.0
        self.grey_window = GreyWindow(0, 1)
        self.waiting_text = ""
        self.crop = QRectF(0, 0, 240, 240)
        self.pixel_size_mm = (1.0, 1.0)
        self.edge_letters = ("R", "L", "", "")
        self.picks_position = False
        self.shows_grey_window = True
        self.zoom = Zoom()
        self._image: NDArray[np.float32] | None = None
        self._grey_image: QImage | None = None
        self._heatmap_image: QImage | None = None
        self._contour_path = QPainterPath()
        self._fill_image: QImage | None = None
        self._lines: Sequence[MeasuredLine] = ()
        self._selected_line: MeasuredLine | None = None
        self._length_format = "{}"
        self._opacity = 1.0
        self._stroke_position: QPointF | None = None
        self._drag_position: QPoint | None = None
        self._pan_position: QPointF | None = None
        self._crosshair: QPointF | None = None
        self._is_picking = False
        self._cursor_position: QPointF | None = None
        self.setMouseTracking(True)
        self.grabGesture(Qt.GestureType.PinchGesture)
        self.setMinimumSize(180, 220)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    # ---- contents ---------------------------------------------------------------------------------------

    def show_image(self, image: NDArray[np.float32] | None) -> None:
        """Show a slice ``(row, column)``; None shows the waiting text."""
        self._image = image
        self._update_grey_image()

    def show_grey_window(self, grey_window: GreyWindow) -> None:
        """Show the slice with this grey window."""
        self.grey_window = grey_window
        self._update_grey_image()

    def show_segmentation(self, mask: Mask | None, opacity: float) -> None:
        """Show a mask ``(row, column)`` as a contour, faintly filled while brush or eraser is selected.

        Without a fill the grey values of the lesion stay unchanged. opacity: 0 to 1.
        """
        self._opacity = opacity
        self._contour_path = QPainterPath() if mask is None else _create_path(compute_contour(mask))
        is_filled = mask is not None and self.tool in MASK_TOOLS
        self._fill_image = _create_fill_image(mask, opacity) if mask is not None and is_filled else None
        self.update()

    def show_lines(
        self, lines: Sequence[MeasuredLine], selected: MeasuredLine | None, length_format: str
    ) -> None:
        """Show measured lines. length_format: text with ``{}`` for the length in mm."""
        self._lines, self._selected_line, self._length_format = lines, selected, length_format
        self.update()

    def show_heatmap(self, heatmap: NDArray[np.uint8] | None, opacity: float) -> None:
        """Show a heatmap ``(row, column)`` of 0 to 255 over the slice; None hides it. opacity: 0 to 1."""
        self._heatmap_image = None if heatmap is None else render_heatmap(heatmap, opacity)
        self.update()

    def show_crosshair(self, position: QPointF | None) -> None:
        """Show a crosshair at a position in image pixels; None hides it."""
        self._crosshair = position
        self.update()

    def set_tool(self, tool: DrawingTool, brush_radius: float) -> None:
        """Set the drawing tool and the brush radius in image pixels."""
        self.tool, self.brush_radius = tool, brush_radius
        self.setCursor(Qt.CursorShape.ArrowCursor if tool == "none" else Qt.CursorShape.CrossCursor)
        self.update()

    def _update_grey_image(self) -> None:
        self._grey_image = None if self._image is None else render_grey_image(self._image, self.grey_window)
        self.update()

    # ---- coordinates ------------------------------------------------------------------------------------

    def compute_screen_transform(self) -> QTransform:
        """Return the transform from image to widget pixels: the crop at the largest size that fits, or zoomed."""
        pixel_width, pixel_height = self.pixel_size_mm
        fitted_scale = min(
            self.width() / (self.crop.width() * pixel_width),
            self.height() / (self.crop.height() * pixel_height),
        )
        scale, middle = fitted_scale * self.zoom.factor, self.crop.center()  # screen pixels per mm
        scale_x, scale_y = scale * pixel_width, scale * pixel_height
        if self.zoom.middle is not None:
            # half of what the view shows, so that none of it lies beyond the crop
            half_width, half_height = self.width() / scale_x / 2, self.height() / scale_y / 2
            middle = QPointF(
                _limit_middle(self.zoom.middle[0], self.crop.left(), self.crop.right(), half_width),
                _limit_middle(self.zoom.middle[1], self.crop.top(), self.crop.bottom(), half_height),
            )
        transform = QTransform.fromTranslate(self.width() / 2, self.height() / 2)
        return transform.scale(scale_x, scale_y).translate(-middle.x(), -middle.y())

    @property
    def pixels_per_mm(self) -> float:
        """Pixels of the screen per mm of the image."""
        return self.compute_screen_transform().m11() / self.pixel_size_mm[0]

    def to_millimetres(self, image_position: QPointF) -> Point:
        """Convert image pixels to (x, y) in mm from the upper left corner of the image."""
        return image_position.x() * self.pixel_size_mm[0], image_position.y() * self.pixel_size_mm[1]

    def _to_screen_position(self, point: Point) -> QPointF:
        """Convert (x, y) in mm to a widget position."""
        in_pixels = QPointF(point[0] / self.pixel_size_mm[0], point[1] / self.pixel_size_mm[1])
        return self.compute_screen_transform().map(in_pixels)

    def show_zoom(self, zoom: Zoom) -> None:
        """Show this part of the image."""
        self.zoom = zoom
        self.update()

    def zoom_at(self, screen_position: QPointF, factor: float) -> None:
        """Magnify by a factor; the image stays in place below a widget position, except at its borders."""
        fixed = self.to_image_position(screen_position)
        new_factor = min(max(self.zoom.factor * factor, 1.0), MAXIMUM_ZOOM)
        if new_factor == 1:
            self._change_zoom(Zoom())
            return
        shown_middle = self.to_image_position(QPointF(self.width() / 2, self.height() / 2))
        offset = (shown_middle - fixed) * (self.zoom.factor / new_factor)
        self._show_around(fixed + offset, new_factor)

    def _pan_by(self, screen_offset: QPointF) -> None:
        middle = QPointF(self.width() / 2, self.height() / 2)
        if self.zoom.factor > 1:
            self._show_around(self.to_image_position(middle - screen_offset), self.zoom.factor)

    def _show_around(self, middle: QPointF, factor: float) -> None:
        self._change_zoom(Zoom(factor, (middle.x(), middle.y())))

    def _change_zoom(self, zoom: Zoom) -> None:
        self.show_zoom(zoom)
        self.zoom_changed.emit(zoom)

    def to_image_position(self, screen_position: QPointF) -> QPointF:
        """Convert a widget position to image pixels."""
        inverse, _ = self.compute_screen_transform().inverted()
        return inverse.map(screen_position)

    # ---- painting ---------------------------------------------------------------------------------------

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802
        """Paint slice, overlays and annotations, or the waiting text."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), BLACK)
        painter.setRenderHints(QPainter.RenderHint.Antialiasing | QPainter.RenderHint.SmoothPixmapTransform)
        if self._grey_image is None:
            painter.setPen(MUTED_TEXT)
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, self.waiting_text)
        else:
            self._paint_image(painter)
            if self._crosshair is not None:
                self._paint_crosshair(painter, self.compute_screen_transform().map(self._crosshair))
            self._paint_annotations(painter)
            for line in self._lines:
                self._paint_line(painter, line)
        self._draw_text(painter, 12, scale_to_text(24), self.title, is_bold=True)

    def _paint_image(self, painter: QPainter) -> None:
        painter.setTransform(self.compute_screen_transform())
        assert self._image is not None
        image_rectangle = QRectF(0, 0, self._image.shape[1], self._image.shape[0])
        for layer in (self._grey_image, self._fill_image, self._heatmap_image):
            if layer is not None:
                painter.drawImage(image_rectangle, layer)
        # a dark line below the bright one keeps the contour visible on any grey value
        for colour, width in ((QColor(0, 0, 0, 150), 3.2), (SEGMENTATION_COLOUR, 1.6)):
            painter.setPen(_create_cosmetic_pen(colour, width, self._opacity))
            painter.drawPath(self._contour_path)
        if self.tool in MASK_TOOLS and self._cursor_position is not None:
            painter.setPen(_create_cosmetic_pen(TEXT if self.tool == "brush" else QColor("#ff9a8a"), 1.4))
            painter.drawEllipse(self._cursor_position, self.brush_radius, self.brush_radius)
        painter.resetTransform()

    def _paint_annotations(self, painter: QPainter) -> None:
        """Draw directions, scale bar and window/level in their usual positions."""
        centre, middle = self.width() // 2 - 5, self.height() // 2 + 5
        left, right_letter, upper, lower = self.edge_letters
        for letter, x, y in (
            (left, 12, middle),
            (right_letter, self.width() - scale_to_text(24), middle),
            (upper, centre, scale_to_text(24)),
            (lower, centre, self.height() - 12),
        ):
            self._draw_text(painter, x, y, letter, is_bold=True)
        length_mm = self.choose_scale_bar_mm()
        length = length_mm * self.pixels_per_mm
        right, bottom = self.width() - 14, self.height() - 14
        for pen in (QPen(BLACK, 4), QPen(MUTED_TEXT, 2)):
            painter.setPen(pen)
            painter.drawLine(QPointF(right - length, bottom), QPointF(right, bottom))
        text = f"{length_mm} mm"
        text_width = QFontMetrics(self._create_font(is_bold=False)).horizontalAdvance(text)
        self._draw_text(painter, int(right - max(length, text_width)), bottom - 6, text)
        if not self.shows_grey_window:
            return
        grey_window = self.grey_window
        width, level = grey_window.high - grey_window.low, (grey_window.high + grey_window.low) / 2
        magnification = f"   {self.zoom.factor:.1f}×" if self.zoom.factor > 1 else ""
        self._draw_text(painter, 12, self.height() - 12, f"W {width:.1f}   L {level:.1f}{magnification}")

    def _paint_crosshair(self, painter: QPainter, position: QPointF) -> None:
        """Draw the crosshair with a gap, so that what it points at stays visible."""
        x, y, gap = position.x(), position.y(), CROSSHAIR_GAP
        painter.setPen(QPen(CROSSHAIR_COLOUR, 1))
        painter.drawLine(QPointF(x, 0), QPointF(x, y - gap))
        painter.drawLine(QPointF(x, y + gap), QPointF(x, self.height()))
        painter.drawLine(QPointF(0, y), QPointF(x - gap, y))
        painter.drawLine(QPointF(x + gap, y), QPointF(self.width(), y))

    def _paint_line(self, painter: QPainter, line: MeasuredLine) -> None:
        """Draw a measured line with its ends, and its length beside the end drawn last."""
        start, end = self._to_screen_position(line.start), self._to_screen_position(line.end)
        is_selected = line is self._selected_line
        radius = SELECTED_END_RADIUS if is_selected else LINE_END_RADIUS
        colour = ACCENT if is_selected else TEXT
        for pen in (QPen(BLACK, 4), QPen(colour, 1.8)):
            painter.setPen(pen)
            painter.drawLine(start, end)
        painter.setPen(QPen(BLACK, 1))
        painter.setBrush(colour)
        for position in (start, end):
            painter.drawEllipse(position, radius, radius)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        self._draw_length(painter, start, end, self._length_format.format(f"{line.length_mm:.1f}"))

    def _draw_length(self, painter: QPainter, start: QPointF, end: QPointF, text: str) -> None:
        """Draw the length of a line beyond its end, where it does not cover the line, and within the view."""
        metrics = QFontMetrics(self._create_font(is_bold=True))
        width, ascent = metrics.horizontalAdvance(text), metrics.ascent()
        x = end.x() + (LENGTH_OFFSET if end.x() >= start.x() else -LENGTH_OFFSET - width)
        y = end.y() + (LENGTH_OFFSET + ascent if end.y() > start.y() else -LENGTH_OFFSET)
        x = min(max(x, 4.0), self.width() - width - 4.0)
        y = min(max(y, ascent + 4.0), self.height() - 6.0)
        self._draw_text(painter, int(x), int(y), text, is_bold=True)

    def choose_scale_bar_mm(self) -> int:
        """Return the length of the scale bar: the longest that leaves room beside it."""
        longest_mm = MAXIMUM_SCALE_BAR_FRACTION * self.width() / self.pixels_per_mm
        fitting = (length_mm for length_mm in SCALE_BAR_LENGTHS_MM if length_mm <= longest_mm)
        return next(fitting, SCALE_BAR_LENGTHS_MM[-1])

    def _draw_text(self, painter: QPainter, x: int, y: int, text: str, is_bold: bool = False) -> None:
        outline = QPainterPath()
        outline.addText(QPointF(x, y), self._create_font(is_bold), text)
        # a dark border keeps the text readable on bright tissue
        painter.strokePath(outline, QPen(BLACK, 2))
        painter.fillPath(outline, TEXT if is_bold else SECONDARY_TEXT)

    def _create_font(self, is_bold: bool) -> QFont:
        font = QFont(self.font())
        font.setBold(is_bold)
        font.setPixelSize(scale_to_text(15 if is_bold else 12))
        return font

    # ---- user actions -----------------------------------------------------------------------------------

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802
        """Zoom with Ctrl; otherwise emit the direction of the turn."""
        steps = event.angleDelta().y()
        if steps and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.zoom_at(event.position(), ZOOM_PER_NOTCH ** (steps / WHEEL_UNITS_PER_NOTCH))
        elif steps:
            self.wheel_turned.emit(1 if steps > 0 else -1)
        event.accept()

    def event(self, event: QEvent) -> bool:
        """Zoom with two fingers on a touchpad or a touchscreen."""
        if isinstance(event, QNativeGestureEvent):
            if event.gestureType() == Qt.NativeGestureType.ZoomNativeGesture:
                self.zoom_at(event.position(), 1 + event.value())
                return True
        elif isinstance(event, QGestureEvent):
            pinch = event.gesture(Qt.GestureType.PinchGesture)
            if isinstance(pinch, QPinchGesture) and pinch.state() != Qt.GestureState.GestureFinished:
                self.abandon_drag()
                self.zoom_at(QPointF(self.mapFromGlobal(pinch.centerPoint().toPoint())), pinch.scaleFactor())
                return True
        return super().event(event)

    def abandon_drag(self) -> None:
        """Undo what the stroke in progress has drawn; the first of two fingers arrives as the left mouse button."""
        if self._stroke_position is not None:
            self._stroke_position = None
            self.stroke_abandoned.emit()
        self._drag_position = self._pan_position = None
        self._is_picking = False

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Start a stroke of the tool, or a drag that moves the image or the crosshair or changes the grey window."""
        if self._image is None:
            return
        left = event.button() == Qt.MouseButton.LeftButton
        has_control = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
        if event.button() == Qt.MouseButton.MiddleButton or (left and has_control):
            self._pan_position = event.position()
        elif left and self.tool != "none":
            self._stroke_position = self.to_image_position(event.position())
            self.stroke_drawn.emit(self._stroke_position, self._stroke_position)
        elif left and self.picks_position:
            self._is_picking = True
            self.position_picked.emit(self.to_image_position(event.position()))
        elif left or event.button() == Qt.MouseButton.RightButton:
            self._drag_position = event.position().toPoint()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Continue the stroke or the drag."""
        self._cursor_position = self.to_image_position(event.position())
        if self._stroke_position is not None:
            self.stroke_drawn.emit(self._stroke_position, self._cursor_position)
            self._stroke_position = self._cursor_position
        elif self._is_picking:
            self.position_picked.emit(self._cursor_position)
        elif self._pan_position is not None:
            self._pan_by(event.position() - self._pan_position)
            self._pan_position = event.position()
        elif self._drag_position is not None:
            drag_offset = event.position().toPoint() - self._drag_position
            self._drag_position = event.position().toPoint()
            self.show_grey_window(
                self.grey_window.adjust_by_drag(drag_offset.x() / 200, drag_offset.y() / 300)
            )
            self.grey_window_changed.emit()
        self.update()

    def mouseReleaseEvent(self, _: QMouseEvent) -> None:  # noqa: N802
        """End the stroke or the drag."""
        if self._stroke_position is not None:
            self._stroke_position = None
            self.stroke_finished.emit()
        self._drag_position = self._pan_position = None
        self._is_picking = False

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Show all of the brain again; with a tool, draw as with a single click."""
        if event.button() == Qt.MouseButton.LeftButton and self.tool != "none":
            self.mousePressEvent(event)
        elif event.button() != Qt.MouseButton.RightButton:
            self._change_zoom(Zoom())

    def leaveEvent(self, _: object) -> None:  # noqa: N802
        """Hide the brush cursor."""
        self._cursor_position = None
        self.update()


def _limit_middle(middle: float, low: float, high: float, half_size: float) -> float:
    """Return the middle of an interval moved into low to high; their middle if the interval is longer."""
    if 2 * half_size >= high - low:
        return (low + high) / 2
    return min(max(middle, low + half_size), high - half_size)


def _create_cosmetic_pen(colour: QColor, width: float, opacity: float = 1.0) -> QPen:
    blended_colour = QColor(colour)
    blended_colour.setAlphaF(colour.alphaF() * opacity)
    pen = QPen(blended_colour, width)
    pen.setCosmetic(True)
    pen.setCapStyle(Qt.PenCapStyle.RoundCap)
    return pen


def _create_path(segments: NDArray[np.float64]) -> QPainterPath:
    """Join line segments ``(n, 4)`` into one path, so that a translucent line is not darker where they meet."""
    path = QPainterPath()
    for x1, y1, x2, y2 in segments.tolist():
        path.moveTo(x1, y1)
        path.lineTo(x2, y2)
    return path


def _create_fill_image(mask: Mask, opacity: float) -> QImage:
    """Create a faint yellow fill of the lesion."""
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    rgba[mask] = (
        SEGMENTATION_COLOUR.red(),
        SEGMENTATION_COLOUR.green(),
        SEGMENTATION_COLOUR.blue(),
        int(32 * opacity),
    )
    height, width = mask.shape
    return QImage(rgba.data, width, height, 4 * width, QImage.Format.Format_RGBA8888).copy()

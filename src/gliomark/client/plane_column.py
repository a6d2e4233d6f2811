"""Coronal and sagittal plane of a study, reformatted from its axial slices, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Signal
from PySide6.QtWidgets import QWidget

from gliomark.client.shape_interpolation import Mask
from gliomark.client.slice_view import GreyWindow, SliceView, Zoom
from gliomark.client.widgets import create_column

CORONAL_LETTERS, SAGITTAL_LETTERS = ("R", "L", "S", "I"), ("A", "P", "S", "I")
NO_LETTERS = ("", "", "", "")
MINIMUM_PLANE_SIZE = (130, 110)
MARGIN_MM = 8.0  # around the brain, as in the axial views


@dataclass(frozen=True)
class CrosshairPosition:
    """Where the three planes meet.

    x, y: column and row in pixels, from the upper left corner of an axial slice. index: of the slice.
    """

    x: float
    y: float
    index: int


def reformat_coronal(volume: NDArray[Any], row: int) -> NDArray[Any]:
    """Return the coronal plane ``(slice, column)`` of a volume ``(slice, row, column)``, the uppermost slice first."""
    return volume[::-1, row]


def reformat_sagittal(volume: NDArray[Any], column: int) -> NDArray[Any]:
    """Return the sagittal plane ``(slice, row)`` of a volume ``(slice, row, column)``, the uppermost slice first."""
    return volume[::-1, :, column]


class PlaneColumn(QWidget):
    """The coronal above the sagittal view.

    ``position_chosen``: the user has moved the crosshair. ``grey_window_changed``: window and level of a view.
    ``zoom_changed``: a view shows another part of its plane.
    """

    position_chosen = Signal(CrosshairPosition)
    grey_window_changed = Signal(GreyWindow)
    zoom_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.coronal_view, self.sagittal_view = SliceView(), SliceView()
        self.views = (self.coronal_view, self.sagittal_view)
        self._volume = np.zeros((0, 240, 240), np.float32)
        self._position = CrosshairPosition(0, 0, 0)
        self._mask: Mask | None = None
        self._heatmap: NDArray[np.uint8] | None = None
        self._opacity = self._heatmap_opacity = 1.0
        for view in self.views:
            view.setMinimumSize(*MINIMUM_PLANE_SIZE)
            view.picks_position = True
            view.shows_grey_window = False
            view.grey_window_changed.connect(partial(self._emit_grey_window, view))
            view.zoom_changed.connect(lambda _: self.zoom_changed.emit())
        self.coronal_view.position_picked.connect(self._move_in_coronal)
        self.sagittal_view.position_picked.connect(self._move_in_sagittal)
        self.coronal_view.wheel_turned.connect(lambda step: self._move_to(y=self._position.y + step))
        self.sagittal_view.wheel_turned.connect(lambda step: self._move_to(x=self._position.x + step))
        self.setLayout(create_column(*self.views, spacing=6))

    # ---- contents ---------------------------------------------------------------------------------------

    def set_geometry(
        self, spacing_mm: tuple[float, float, float], crop: QRectF, is_orientation_known: bool
    ) -> None:
        """Set spacing and directions of the planes.

        spacing_mm: of slices, rows and columns. crop: part of the axial slices that shows the brain, in pixels.
        """
        slice_mm, row_mm, column_mm = spacing_mm
        margin = MARGIN_MM / slice_mm
        height = len(self._volume) + 2 * margin
        self.coronal_view.pixel_size_mm, self.sagittal_view.pixel_size_mm = (
            (column_mm, slice_mm),
            (row_mm, slice_mm),
        )
        self.coronal_view.crop = QRectF(crop.left(), -margin, crop.width(), height)
        self.sagittal_view.crop = QRectF(crop.top(), -margin, crop.height(), height)
        self.coronal_view.edge_letters = CORONAL_LETTERS if is_orientation_known else NO_LETTERS
        self.sagittal_view.edge_letters = SAGITTAL_LETTERS if is_orientation_known else NO_LETTERS
        for view in self.views:
            view.update()

    def show_slices(self, slices: Sequence[NDArray[np.float32] | None], background: float) -> None:
        """Show the planes of axial slices ``(row, column)``; those not received yet are black."""
        blank = np.full((240, 240), background, np.float32)
        self._volume = np.stack([blank if one is None else one for one in slices])
        self._render_planes()

    def show_slice(self, index: int, image: NDArray[np.float32]) -> None:
        """Show one more axial slice ``(row, column)`` in the planes."""
        self._volume[index] = image
        self._render_planes()

    def show_position(self, position: CrosshairPosition) -> None:
        """Show the planes that meet at a position."""
        self._position = position
        self._render_planes()

    def show_segmentation(self, mask: Mask | None, opacity: float) -> None:
        """Show a mask ``(slice, row, column)`` as a contour; None hides it. opacity: 0 to 1."""
        self._mask, self._opacity = mask, opacity
        self._render_overlays()

    def show_heatmap(self, heatmap: NDArray[np.uint8] | None, opacity: float) -> None:
        """Show a heatmap ``(slice, row, column)`` of 0 to 255; None hides it. opacity: 0 to 1."""
        self._heatmap, self._heatmap_opacity = heatmap, opacity
        self._render_overlays()

    def show_grey_window(self, grey_window: GreyWindow) -> None:
        """Show both planes with this grey window."""
        for view in self.views:
            view.show_grey_window(grey_window)

    def show_zoom(self, zoom: Zoom) -> None:
        """Show this part of both planes."""
        for view in self.views:
            view.show_zoom(zoom)

    def set_texts(self, coronal: str, sagittal: str) -> None:
        """Set the titles of the planes."""
        for view, title in zip(self.views, (coronal, sagittal), strict=True):
            view.title = title
            view.setAccessibleName(title)
            view.update()

    # ---- rendering --------------------------------------------------------------------------------------

    def _render_planes(self) -> None:
        if not len(self._volume):
            return
        row, column = int(self._position.y), int(self._position.x)
        self.coronal_view.show_image(reformat_coronal(self._volume, row))
        self.sagittal_view.show_image(reformat_sagittal(self._volume, column))
        height = len(self._volume) - self._position.index - 0.5
        self.coronal_view.show_crosshair(QPointF(self._position.x, height))
        self.sagittal_view.show_crosshair(QPointF(self._position.y, height))
        self._render_overlays()

    def _render_overlays(self) -> None:
        row, column = int(self._position.y), int(self._position.x)
        for view, reformat, index in (
            (self.coronal_view, reformat_coronal, row),
            (self.sagittal_view, reformat_sagittal, column),
        ):
            view.show_segmentation(None if self._mask is None else reformat(self._mask, index), self._opacity)
            heatmap = None if self._heatmap is None else reformat(self._heatmap, index)
            view.show_heatmap(heatmap, self._heatmap_opacity)

    # ---- user actions -----------------------------------------------------------------------------------

    def _move_in_coronal(self, point: QPointF) -> None:
        self._move_to(x=point.x(), height=point.y())

    def _move_in_sagittal(self, point: QPointF) -> None:
        self._move_to(y=point.x(), height=point.y())

    def _move_to(self, x: float | None = None, y: float | None = None, height: float | None = None) -> None:
        """Move to a column, a row, and a height, which is counted in slices from the top; None stays."""
        slice_count, rows, columns = self._volume.shape
        position = self._position
        if x is not None:
            position = replace(position, x=limit_to_pixels(x, columns))
        if y is not None:
            position = replace(position, y=limit_to_pixels(y, rows))
        if height is not None:
            position = replace(position, index=slice_count - 1 - int(limit_to_pixels(height, slice_count)))
        self.position_chosen.emit(position)

    def _emit_grey_window(self, view: SliceView) -> None:
        self.grey_window_changed.emit(view.grey_window)


def limit_to_pixels(position: float, count: int) -> float:
    """Return a position moved into the first to the last of ``count`` pixels."""
    return min(max(position, 0.5), count - 0.5)

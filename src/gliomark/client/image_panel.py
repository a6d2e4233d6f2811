"""Central panel: two sequences side by side, scrolled together, and the tools to correct the outline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QKeyEvent, QResizeEvent
from PySide6.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QWidget,
)

from gliomark.client.image_toolbar import ImageToolbar
from gliomark.client.mask_editor import MaskEditor
from gliomark.client.measurement import Measurements
from gliomark.client.plane_column import CrosshairPosition, PlaneColumn, limit_to_pixels
from gliomark.client.shape_interpolation import Mask
from gliomark.client.slice_strip import SliceStrip
from gliomark.client.slice_view import (
    DrawingTool,
    GreyWindow,
    SliceView,
    Zoom,
    compute_grey_window,
)
from gliomark.client.state import ClientState
from gliomark.client.theme import scale_to_text
from gliomark.client.widgets import (
    create_button,
    create_column,
    create_frame,
    create_label,
    create_row,
    create_tool_button,
    name_widget,
)

SLICES_PER_PAGE = 5
HINT_HEIGHT, SLICE_BAR_HEIGHT = 36, 162  # pixels
CROP_MARGIN_PIXELS = 8
HEATMAP_OPACITY = 0.85
AXIAL_SIDES = ("R", "L")  # radiological convention, also for pictures
LINE_TOLERANCE = 8  # distance at which a measured line is caught, in pixels of the screen
MINIMUM_LINE_LENGTH = 4  # of a measured line, in pixels of the screen
MASK_FILE_PATTERNS = "*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.dcm *.png *.bmp *.tif *.tiff *.jpg *.jpeg"
SLICE_STEP_BY_KEY = {
    Qt.Key.Key_Left: -1,
    Qt.Key.Key_Down: -1,
    Qt.Key.Key_Right: 1,
    Qt.Key.Key_Up: 1,
    Qt.Key.Key_PageDown: -SLICES_PER_PAGE,
    Qt.Key.Key_PageUp: SLICES_PER_PAGE,
    Qt.Key.Key_Home: -(10**6),
    Qt.Key.Key_End: 10**6,
}


class ImagePanel(QWidget):
    """Panel with the slices of a study and the drawing tools.

    ``prediction_requested``: predict with the user's outline. ``revert_requested``: restore the model's outline.
    ``supplied_mask_requested``: load the mask supplied with the images. ``mask_files_chosen``: load the mask in these
    files of another program. ``planes_toggled``: show or hide the other planes from now on.
    """

    prediction_requested = Signal()
    revert_requested = Signal()
    supplied_mask_requested = Signal()
    mask_files_chosen = Signal(list)
    planes_toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.mask_editor = MaskEditor(self)
        self.mask_editor.changed.connect(self._update_segmentation)
        self.measurements = Measurements()
        self._slices: dict[str, list[NDArray[np.float32] | None]] = {}
        self._lowest_grey: dict[str, float] = {}
        self._heatmap: NDArray[np.uint8] | None = None
        self._state = ClientState()
        self._missing_input = ""
        self._study_id = ""
        self.views = (SliceView(), SliceView())
        self._shown_sequences = ["", ""]
        self.sequence_boxes = tuple(QComboBox(view) for view in self.views)
        for number, box in enumerate(self.sequence_boxes):
            box.move(8, 8)
            box.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            box.activated.connect(partial(self._show_chosen_sequence, number))
        self.planes = PlaneColumn()
        self._crosshair: tuple[float, float] | None = None  # (x, y) in pixels; None until the user moves it
        self.placeholder = create_label("blank")
        self.placeholder.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.toolbar = ImageToolbar(self)
        self._connect_toolbar()
        self._create_slice_controls()
        self._lay_out()
        for view in self.views:
            view.wheel_turned.connect(self.step_slices)
            view.zoom_changed.connect(self.show_zoom)
            view.stroke_drawn.connect(partial(self._draw_stroke, view))
            view.stroke_abandoned.connect(self._abandon_stroke)
            view.stroke_finished.connect(partial(self._finish_stroke, view))
        self.views[0].position_picked.connect(
            lambda point: self._move_crosshair(CrosshairPosition(point.x(), point.y(), self.index))
        )
        self.views[0].grey_window_changed.connect(
            lambda: self.planes.show_grey_window(self.views[0].grey_window)
        )
        self.planes.position_chosen.connect(self._move_crosshair)
        self.planes.grey_window_changed.connect(self._show_grey_window)
        self.planes.zoom_changed.connect(self._update_reset_button)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    # ---- widgets ----------------------------------------------------------------------------------------

    def _connect_toolbar(self) -> None:
        self.toolbar.contrast_reset.connect(self._reset_grey_windows)
        self.toolbar.zoom_reset.connect(self._reset_zoom)
        self.toolbar.planes_toggled.connect(self._toggle_planes)
        self.toolbar.outline_changed.connect(self._update_segmentation)
        self.toolbar.tool_clicked.connect(self._use_tool)
        self.toolbar.brush_size_changed.connect(self._update_view_tools)
        self.toolbar.filling_requested.connect(self.mask_editor.fill_gaps)
        self.toolbar.undo_requested.connect(lambda: self._show_slice_at(self.mask_editor.undo()))
        self.toolbar.redo_requested.connect(lambda: self._show_slice_at(self.mask_editor.redo()))

    def _create_slice_controls(self) -> None:
        self.previous_button = create_tool_button(lambda: self.step_slices(-1), "previous")
        self.next_button = create_tool_button(lambda: self.step_slices(1), "next")
        self.slice_strip = SliceStrip()
        self.slice_strip.valueChanged.connect(self._show_slice)
        self.position_label = create_label("soft", wraps=False)
        self.position_label.setMinimumWidth(scale_to_text(150))
        self.position_label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.hint_label = create_label("faint")
        self.predict_button = create_button(self.prediction_requested.emit, "primary")
        self.revert_button = create_button(self.revert_requested.emit)
        self.supplied_mask_button = create_button(self.supplied_mask_requested.emit)
        self.mask_file_button = create_button(self._choose_mask_files)

    def _lay_out(self) -> None:
        views_layout = QHBoxLayout()
        views_layout.setSpacing(6)
        views_layout.addWidget(self.placeholder, 1)
        for view in self.views:
            views_layout.addWidget(view, 3)
        views_layout.addWidget(self.planes, 2)
        slice_row = create_row(self.previous_button, self.slice_strip, self.next_button, self.position_label)
        action_row = create_row(
            None, self.mask_file_button, self.supplied_mask_button, self.revert_button, self.predict_button
        )
        slice_bar = create_frame("bar", create_column(slice_row, self.hint_label, action_row, spacing=6), 10)
        # as high as with any hint and button, so that the images do not move when the first stroke is drawn
        self.hint_label.setMinimumHeight(scale_to_text(HINT_HEIGHT))
        slice_bar.setMinimumHeight(scale_to_text(SLICE_BAR_HEIGHT))
        panel_layout = create_column(self.toolbar, views_layout, slice_bar, spacing=6)
        panel_layout.setStretch(1, 1)
        self.setLayout(panel_layout)

    # ---- public interface -------------------------------------------------------------------------------

    def render_state(self, state: ClientState, missing_input: str = "") -> None:
        """Update texts, marked slices and enabled controls; a new study clears the views.

        missing_input: message stating which input is missing for a prediction.
        """
        self._state, self._missing_input = state, missing_input
        self._load_study(state)
        self._retranslate_ui()
        self.slice_strip.mark_slices(state.list_lesion_areas(), state.collect_used_slice_indices())
        is_ready = state.is_study_ready
        self.slice_strip.setEnabled(is_ready)
        self.toolbar.enable_tools(
            is_ready=is_ready,
            can_measure=self._get_spacing_mm() is not None,
            can_show_planes=self._has_planes,
        )
        self.placeholder.setVisible(not is_ready)
        self._arrange_views()

    @property
    def _has_planes(self) -> bool:
        """Whether the study has several slices of known spacing."""
        return self._get_spacing_mm() is not None and self.slice_strip.maximum() > 0

    @property
    def shows_planes(self) -> bool:
        """Whether the coronal and sagittal planes are shown beside one axial view."""
        return self.toolbar.planes_toggle.isChecked() and self._has_planes

    def _arrange_views(self) -> None:
        """Show both axial views, or one of them beside the other planes; a hidden sequence can be chosen in a box."""
        is_ready, shows_planes = self._state.is_study_ready, self.shows_planes
        shown_views = self.views[:1] if shows_planes else self.views
        for view, box, sequence in zip(self.views, self.sequence_boxes, self._shown_sequences, strict=True):
            view.setVisible(is_ready and bool(sequence) and view in shown_views)
            view.picks_position = shows_planes
            box.setVisible(len(self._slices) > len(shown_views))
        self.views[0].edge_letters = (
            *AXIAL_SIDES,
            *(("A", "P") if self._is_orientation_known() else ("", "")),
        )
        self.planes.setVisible(is_ready and shows_planes)
        self._show_planes()
        self._show_slice()

    def _toggle_planes(self) -> None:
        if not self.shows_planes and 0 < len(self._slices) <= len(self.views):
            # both are shown again, and there is no box to choose them
            self.sequence_boxes[0].setCurrentIndex(0)
            self._show_chosen_sequence(0, 0)
        self._arrange_views()
        self._update_reset_button()
        self.planes_toggled.emit(self.toolbar.planes_toggle.isChecked())

    def _show_planes(self) -> None:
        """Show the sequence of the first view in the other planes."""
        spacing_mm, sequence = self._get_spacing_mm(), self._shown_sequences[0]
        if self.shows_planes and spacing_mm is not None and sequence in self._slices:
            self.planes.show_slices(self._slices[sequence], self._lowest_grey[sequence])
            self.planes.set_geometry(spacing_mm, self.views[0].crop, self._is_orientation_known())
            self.planes.show_grey_window(self.views[0].grey_window)

    def _locate_crosshair(self) -> tuple[float, float]:
        """Return where the crosshair is: the user's choice, or else the middle of the lesion, or of the brain."""
        if self._crosshair is not None:
            return self._crosshair
        if self.mask_editor.mask.any():
            rows, columns = (self.mask_editor.mask.sum(axis=axes) for axes in ((0, 2), (0, 1)))
            positions = np.arange(240) + 0.5
            return float(np.average(positions, weights=columns)), float(np.average(positions, weights=rows))
        centre = self.views[0].crop.center()
        return centre.x(), centre.y()

    def _move_crosshair(self, position: CrosshairPosition) -> None:
        self._crosshair = limit_to_pixels(position.x, 240), limit_to_pixels(position.y, 240)
        if position.index == self.index:
            self._show_slice()
        self.slice_strip.setValue(position.index)

    def _show_crosshair(self) -> None:
        if not self.shows_planes:
            self.views[0].show_crosshair(None)
            return
        x, y = self._locate_crosshair()
        self.views[0].show_crosshair(QPointF(x, y))
        self.planes.show_position(CrosshairPosition(x, y, self.index))

    def set_slice(self, sequence: str, index: int, image: NDArray[np.float32]) -> None:
        """Add one prepared slice ``(row, column)``; the first and the last of a sequence set window and crop."""
        slices = self._slices[sequence]
        is_first = all(one is None for one in slices)
        slices[index] = image
        if is_first or all(one is not None for one in slices):
            for view_index, shown_sequence in enumerate(self._shown_sequences):
                if shown_sequence == sequence:
                    self._reset_grey_window(view_index)
            self._crop_to_brain()
            self._show_planes()
        elif self.shows_planes and sequence == self._shown_sequences[0]:
            self.planes.show_slice(index, image)
        if index == self.index:
            self._show_slice()

    def set_heatmap(self, heatmap: NDArray[np.uint8] | None) -> None:
        """Show a Grad-CAM heatmap ``(slice, 240, 240)`` over the images; None hides it."""
        self._heatmap = heatmap
        self._show_slice()

    def show_zoom(self, zoom: Zoom) -> None:
        """Show this part of the image in both views."""
        for view in self.views:
            view.show_zoom(zoom)
        self._update_reset_button()

    def _reset_zoom(self) -> None:
        self.planes.show_zoom(Zoom())
        self.show_zoom(Zoom())

    def _update_reset_button(self) -> None:
        shown_views = (*self.views, *self.planes.views) if self.shows_planes else self.views
        self.toolbar.reset_zoom_button.setEnabled(any(view.zoom != Zoom() for view in shown_views))

    def show_nearest_slice(self, slice_indices: frozenset[int]) -> None:
        """Show the nearest of these slices, unless one of them is shown already."""
        if slice_indices and self.index not in slice_indices:
            self.slice_strip.setValue(min(slice_indices, key=lambda index: abs(index - self.index)))

    def step_slices(self, offset: int) -> None:
        """Move by a number of slices, up to the first or last."""
        self.slice_strip.setValue(max(0, min(self.slice_strip.maximum(), self.index + offset)))

    @property
    def is_user_segmentation(self) -> bool:
        """Whether the outline shown was drawn or edited by the user."""
        return self.mask_editor.is_edited or self._is_result_from_user_segmentation()

    @property
    def index(self) -> int:
        """Index of the slice shown."""
        return self.slice_strip.value()

    # ---- rendering --------------------------------------------------------------------------------------

    def _load_study(self, state: ClientState) -> None:
        study = state.study if state.is_study_ready else None
        study_id = study["id"] if study else ""
        if study_id == self._study_id:
            return
        self._study_id = study_id
        count = study["shape"][0] if study else 0
        sequences = list(study["sequences"]) if study else []
        self._slices = {sequence: [None] * count for sequence in sequences}
        self._lowest_grey = (
            {sequence: float(study["grey"][sequence]["low"]) for sequence in sequences} if study else {}
        )
        self._shown_sequences = [*sequences, "", ""][: len(self.views)]
        for box, shown_sequence in zip(self.sequence_boxes, self._shown_sequences, strict=True):
            box.clear()
            box.addItems(sequences)
            box.setCurrentText(shown_sequence)
        self._heatmap = None
        self.measurements = Measurements()
        _, row_mm, column_mm = self._get_spacing_mm() or (1.0, 1.0, 1.0)
        for view in self.views:
            view.pixel_size_mm = column_mm, row_mm
        self._crosshair = None
        self.toolbar.select_tool("none")
        self._reset_zoom()
        self.mask_editor.load_mask(np.zeros((count, 240, 240), bool))
        self.slice_strip.setRange(0, max(0, count - 1))
        self.slice_strip.setValue(count // 2)

    def _get_spacing_mm(self) -> tuple[float, float, float] | None:
        """Return the spacing of slices, rows and columns in mm; None if the server does not state it."""
        spacing = self._state.study and self._state.study.get("spacing_mm")
        return (float(spacing[0]), float(spacing[1]), float(spacing[2])) if spacing else None

    def _show_lines(self) -> None:
        length_format = "≈ {} mm" if self._is_spacing_assumed() else "{} mm"
        for view in self.views:
            view.show_lines(
                self.measurements.list_lines(self.index), self.measurements.selected, length_format
            )
        self.hint_label.setText(self._format_hint())

    def _is_spacing_assumed(self) -> bool:
        return bool(self._state.study and self._state.study.get("spacing_assumed"))

    def _is_orientation_known(self) -> bool:
        return bool(self._state.study and self._state.study.get("orientation_stated"))

    def _show_slice(self) -> None:
        names = self._state.study["slice_names"] if self._state.is_study_ready and self._state.study else []
        for view, box, sequence in zip(self.views, self.sequence_boxes, self._shown_sequences, strict=True):
            slices = self._slices.get(sequence, [])
            view.title = "" if box.isVisibleTo(view) else self._format_view_title(sequence)
            view.show_image(slices[self.index] if slices else None)
            has_heatmap = self._heatmap is not None and self.index < len(self._heatmap)
            view.show_heatmap(
                self._heatmap[self.index] if self._heatmap is not None and has_heatmap else None,
                HEATMAP_OPACITY,
            )
        self.previous_button.setEnabled(bool(names) and self.index > 0)
        self.next_button.setEnabled(bool(names) and self.index < self.slice_strip.maximum())
        self.position_label.setText(self._format_slice_position(names))
        self._show_lines()
        self._show_crosshair()
        self._update_segmentation()

    def _update_segmentation(self) -> None:
        mask: Mask | None = None
        if self.toolbar.shows_outline and self.index < len(self.mask_editor.mask):
            mask = self.mask_editor.mask[self.index]
        if self._crosshair is None:
            self._show_crosshair()
        for view in self.views:
            view.show_segmentation(mask, self.toolbar.opacity)
        if self.shows_planes:
            shown_mask = self.mask_editor.mask if self.toolbar.shows_outline else None
            self.planes.show_segmentation(shown_mask, self.toolbar.opacity)
            self.planes.show_heatmap(self._heatmap, HEATMAP_OPACITY)
        is_idle = self._state.is_study_ready and self._state.task is None
        self.hint_label.setText(self._format_hint())
        self.toolbar.undo_button.setEnabled(self.mask_editor.is_edited)
        self.toolbar.redo_button.setEnabled(self.mask_editor.can_redo)
        self.toolbar.fill_button.setEnabled(is_idle and bool(self.mask_editor.list_gaps()))
        self.toolbar.fill_button.setToolTip(self._explain_filling())
        self.predict_button.setEnabled(is_idle and not self._missing_input)
        for outline_button in (self.revert_button, self.supplied_mask_button, self.mask_file_button):
            outline_button.setEnabled(is_idle)
        self._show_outline_buttons()

    def _show_outline_buttons(self) -> None:
        """Show the buttons that fit the outline; hide first, because the panel never becomes narrower by itself."""
        can_load_mask = self._state.is_study_ready and not self.is_user_segmentation
        visibility = {
            self.predict_button: self.mask_editor.is_edited,
            self.revert_button: self.is_user_segmentation,
            self.supplied_mask_button: can_load_mask and bool(self._state.supplied_mask_name),
            self.mask_file_button: can_load_mask,
        }
        for outline_button, is_visible in sorted(visibility.items(), key=lambda item: item[1]):
            outline_button.setVisible(is_visible)

    def _is_result_from_user_segmentation(self) -> bool:
        return self._state.job is not None and self._state.job["request"].get("outline") == "corrected"

    # ---- user actions -----------------------------------------------------------------------------------

    def _choose_mask_files(self) -> None:
        """Let the user choose a mask of another program: one file, or the mask pictures of the slices."""
        masks = self.tr("Masks") + f" ({MASK_FILE_PATTERNS})"
        names, _ = QFileDialog.getOpenFileNames(
            self, self.tr("Open a mask"), "", ";;".join([masks, self.tr("All files") + " (*)"])
        )
        if names:
            self.mask_files_chosen.emit([Path(name) for name in names])

    def _show_chosen_sequence(self, view_index: int, sequence_index: int) -> None:
        self._shown_sequences[view_index] = list(self._slices)[sequence_index]
        self._reset_grey_window(view_index)
        self._show_planes()
        self._show_slice()

    def _use_tool(self, clicked_tool: DrawingTool) -> None:
        if clicked_tool != "measure":
            self.measurements.deselect()
        self._update_view_tools()
        self._show_lines()
        self._update_segmentation()

    def _update_view_tools(self) -> None:
        for view in self.views:
            view.set_tool(self.toolbar.tool, self.toolbar.brush_size)

    def _draw_stroke(self, view: SliceView, start: QPointF, end: QPointF) -> None:
        """Paint a part of a brush stroke, or begin or continue a measured line."""
        if self.toolbar.tool == "measure":
            if start == end and not self.measurements.is_dragging:
                tolerance_mm = LINE_TOLERANCE / view.pixels_per_mm
                self.measurements.begin_drag(self.index, view.to_millimetres(start), tolerance_mm)
            else:
                self.measurements.drag_to(view.to_millimetres(end))
            self._show_lines()
        elif self._state.task is None:
            self._crosshair = (
                self._locate_crosshair()
            )  # does not follow the middle of the lesion while it is drawn
            points = (start.x(), start.y()), (end.x(), end.y())
            self.mask_editor.paint_segment(
                self.index,
                *points,
                self.toolbar.brush_size,
                self.toolbar.tool == "brush",
            )

    def _finish_stroke(self, view: SliceView) -> None:
        self.measurements.finish_drag(MINIMUM_LINE_LENGTH / view.pixels_per_mm)
        self._show_lines()
        self.mask_editor.finish_stroke(self.index)

    def _abandon_stroke(self) -> None:
        self.measurements.abandon_drag()
        self._show_lines()
        self.mask_editor.abandon_stroke(self.index)

    def _show_slice_at(self, index: int | None) -> None:
        if index is not None:
            self.slice_strip.setValue(index)

    def _reset_grey_windows(self) -> None:
        for view_index in range(len(self.views)):
            self._reset_grey_window(view_index)

    def _reset_grey_window(self, view_index: int) -> None:
        sequence = self._shown_sequences[view_index]
        received_slices = [one for one in self._slices.get(sequence, ()) if one is not None]
        grey_window = (
            compute_grey_window(np.stack(received_slices), self._lowest_grey[sequence])
            if received_slices
            else GreyWindow(0, 1)
        )
        self.views[view_index].show_grey_window(grey_window)
        if view_index == 0:
            self.planes.show_grey_window(grey_window)

    def _show_grey_window(self, grey_window: GreyWindow) -> None:
        """Show the first view and the planes, which have the same sequence, with this grey window."""
        self.views[0].show_grey_window(grey_window)
        self.planes.show_grey_window(grey_window)

    def _crop_to_brain(self) -> None:
        """Crop both views to the brain on all slices received so far."""
        brain_pixels = np.zeros((240, 240), bool)
        for sequence, slices in self._slices.items():
            for one in slices:
                if one is not None:
                    brain_pixels |= one > self._lowest_grey[sequence] + 1e-3
        rows, columns = np.flatnonzero(brain_pixels.any(axis=1)), np.flatnonzero(brain_pixels.any(axis=0))
        if not rows.size:
            return
        box = QRectF(columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        for view in self.views:
            view.crop = box.adjusted(
                -CROP_MARGIN_PIXELS, -CROP_MARGIN_PIXELS, CROP_MARGIN_PIXELS, CROP_MARGIN_PIXELS
            )

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        """Fit the toolbar to the new width."""
        super().resizeEvent(event)
        self.toolbar.fit_texts(self.width())

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        """Handle the keys that change the slice or the measured lines."""
        if not self.handle_key(event):
            super().keyPressEvent(event)

    def handle_key(self, event: QKeyEvent) -> bool:
        """Change the slice or the measured lines if the key is one for this; return whether it is."""
        if self.toolbar.tool == "measure" and self._handle_measuring_key(event.key()):
            return True
        offset = SLICE_STEP_BY_KEY.get(Qt.Key(event.key()))
        if offset is not None and self._state.is_study_ready:
            self.step_slices(offset)
        return offset is not None

    def _handle_measuring_key(self, key: int) -> bool:
        """Remove a measured line, or go back one step: end the drag, deselect the line, put the tool away."""
        if key in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.measurements.remove_line(self.index)
        elif key != Qt.Key.Key_Escape:
            return False
        elif self.measurements.is_dragging:
            for view in self.views:
                view.abandon_drag()
        elif self.measurements.selected is not None:
            self.measurements.deselect()
        else:
            self.toolbar.measure_button.click()
        self._show_lines()
        return True

    # ---- texts ------------------------------------------------------------------------------------------

    def _retranslate_toolbar(self) -> None:
        has_no_study = not self._state.is_study_ready
        self.toolbar.retranslate(
            can_measure=has_no_study or self._get_spacing_mm() is not None,
            can_show_planes=has_no_study or self._has_planes,
        )
        self.toolbar.fill_button.setToolTip(self._explain_filling())
        self.toolbar.fit_texts(self.width())

    def _retranslate_ui(self) -> None:
        self._retranslate_toolbar()
        self.planes.set_texts(self.tr("Coronal"), self.tr("Sagittal"))
        name_widget(self.previous_button, self.tr("Previous slice"))
        name_widget(self.next_button, self.tr("Next slice"))
        self.slice_strip.setAccessibleName(self.tr("Slice"))
        self.slice_strip.setToolTip(
            self.tr("Bars: lesion area on each slice. Orange with a dot: slices used for the prediction.")
        )
        self.predict_button.setText(self.tr("Predict again with my outline"))
        self.revert_button.setText(self.tr("Back to the model's outline"))
        self.mask_file_button.setText(self.tr("Open a mask…"))
        self.mask_file_button.setToolTip(
            self.tr("Load a mask of another program: NIfTI, DICOM SEG, RTSTRUCT, or pictures of the slices")
        )
        self.supplied_mask_button.setText(self.tr("Use the mask in the folder"))
        self.supplied_mask_button.setToolTip(
            self.tr("{} was supplied with the images. Check it before you predict with it.").format(
                self._state.supplied_mask_name
            )
        )
        for view in (*self.views, *self.planes.views):
            view.waiting_text = self.tr("loading")
        for box in self.sequence_boxes:
            box.setAccessibleName(self.tr("Sequence"))
            for index, sequence in enumerate(self._slices):
                box.setItemText(index, self._format_view_title(sequence))
            box.adjustSize()
        self.placeholder.setText(
            self.tr("The images appear here once they are prepared.")
            if self._state.task
            else self.tr("Drop a patient's folder here to begin.")
        )

    def _format_view_title(self, sequence: str) -> str:
        """Return the title of a view; a substitute keeps its own name and states which sequence it replaces."""
        missing = {
            shown_sequence: missing_sequence
            for missing_sequence, shown_sequence in self._state.get_substitutes().items()
        }
        return (
            self.tr("{} (in place of {})").format(sequence, missing[sequence])
            if sequence in missing
            else sequence
        )

    def _format_slice_position(self, slice_names: Sequence[str]) -> str:
        if not slice_names:
            return ""
        return self.tr("Slice {}  ({} of {})").format(
            slice_names[self.index], self.index + 1, len(slice_names)
        )

    def _format_hint(self) -> str:
        if not self._state.is_study_ready:
            return ""
        if self.toolbar.tool == "measure":
            return self._format_measuring_hint()
        if self._heatmap is not None:
            return self.tr(
                "Coloured: pixels that raise the probability of the positive class, on slices used for the prediction."
            )
        if self.mask_editor.is_edited:
            return "\n".join(filter(None, (self.tr("You have changed the outline."), self._missing_input)))
        if self._is_result_from_user_segmentation():
            return self.tr("Your outline is shown.")
        if self.shows_planes:
            return self._format_planes_hint()
        paging = self.tr("Slice: wheel or arrow keys. Window and level: drag with the right button.")
        return paging + "\n" + self.tr("Zoom: Ctrl and wheel. Move: drag with the middle button.")

    def _explain_filling(self) -> str:
        """Return what the button fills, or why there is nothing to fill."""
        if self.mask_editor.list_gaps():
            return self.tr(
                "Replace the outline on the undrawn slices between those that you have corrected by interpolated shapes"
            )
        if len(self.mask_editor.drawn_indices) < 2:
            return self.tr(
                "Nothing to fill: correct the outline on two slices first; the slices between them can then be filled"
            )
        return self.tr(
            "Nothing to fill: there is no undrawn slice between two corrected slices that show the lesion"
        )

    def _format_measuring_hint(self) -> str:
        hint = self.tr(
            "Drag a line to measure it; drag its ends to change it. Delete removes it, Escape ends measuring."
        )
        return "\n".join(filter(None, (hint, self._format_spacing_note())))

    def _format_planes_hint(self) -> str:
        hint = self.tr("Click or drag in an image to move the other planes. Window and level: right button.")
        return "\n".join(filter(None, (hint, self._format_spacing_note())))

    def _format_spacing_note(self) -> str:
        if not self._is_spacing_assumed():
            return ""
        return self.tr(
            "Pixel size and slice spacing of image files are unknown: lengths and proportions are estimates."
        )

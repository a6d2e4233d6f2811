"""The bar above the images: contrast, zoom, planes, measuring, the outline and the tools to correct it."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QFrame, QSizePolicy, QSlider, QToolButton, QWidget

from gliomark.client.slice_view import MASK_TOOLS, DrawingTool
from gliomark.client.widgets import create_label, create_row, create_tool_button, name_widget

MINIMUM_WIDTH = 592
TOOL_GAP, TOOL_GROUP_GAP = 4, 4  # pixels; a group is separated by both
MARGIN = 8
SLIDER_WIDTH = 60
ICON_WITH_TEXT = Qt.ToolButtonStyle.ToolButtonTextBesideIcon


class ImageToolbar(QFrame):
    """Buttons and sliders, with as many texts as fit. It decides which tool is selected, and nothing else.

    ``contrast_reset``, ``zoom_reset``, ``planes_toggled``, ``filling_requested``, ``undo_requested``,
    ``redo_requested``: the button was clicked. ``outline_changed``: the outline is shown in another way.
    ``tool_clicked``: the tool of this name was selected or put away. ``brush_size_changed``: another size.
    """

    contrast_reset = Signal()
    zoom_reset = Signal()
    planes_toggled = Signal()
    filling_requested = Signal()
    undo_requested = Signal()
    redo_requested = Signal()
    outline_changed = Signal()
    tool_clicked = Signal(str)
    brush_size_changed = Signal()

    def __init__(self, shortcut_parent: QWidget) -> None:
        """Create the bar; its keys work in ``shortcut_parent``."""
        super().__init__()
        self.setObjectName("bar")
        self._create_buttons()
        self._create_shortcuts(shortcut_parent)
        self._opacity_label, self._brush_size_label = (
            create_label("faint", wraps=False),
            create_label("faint", wraps=False),
        )
        self._row = create_row(
            self.reset_contrast_button,
            self.reset_zoom_button,
            TOOL_GROUP_GAP,
            self.planes_toggle,
            self.measure_button,
            TOOL_GROUP_GAP,
            self.segmentation_toggle,
            self._opacity_label,
            self.opacity_slider,
            TOOL_GROUP_GAP,
            self.brush_button,
            self.eraser_button,
            self._brush_size_label,
            self.brush_size_slider,
            self.fill_button,
            TOOL_GROUP_GAP,
            self.undo_button,
            self.redo_button,
            None,
            spacing=TOOL_GAP,
        )
        self._row.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        self.setLayout(self._row)
        # may become narrower than its texts; the buttons then show icons only
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMinimumWidth(MINIMUM_WIDTH)

    def _create_buttons(self) -> None:
        self.reset_contrast_button = create_tool_button(self.contrast_reset.emit, "window", shows_text=True)
        self.reset_zoom_button = create_tool_button(self.zoom_reset.emit, "fit")
        self.reset_zoom_button.setEnabled(False)
        self.planes_toggle = create_tool_button(
            self.planes_toggled.emit, "planes", is_checkable=True, shows_text=True
        )
        self.segmentation_toggle = create_tool_button(
            self.outline_changed.emit, "outline", is_checkable=True, shows_text=True
        )
        self.segmentation_toggle.setChecked(True)
        self.opacity_slider = _create_slider(10, 100, 85)
        self.opacity_slider.valueChanged.connect(lambda _: self.outline_changed.emit())
        self.measure_button = self._create_drawing_button("measure")
        self.brush_button = self._create_drawing_button("brush")
        self.eraser_button = self._create_drawing_button("eraser")
        self._tool_buttons: dict[DrawingTool, QToolButton] = {
            "brush": self.brush_button,
            "eraser": self.eraser_button,
            "measure": self.measure_button,
        }
        self.brush_size_slider = _create_slider(1, 25, 5)
        self.brush_size_slider.valueChanged.connect(lambda _: self.brush_size_changed.emit())
        self.fill_button = create_tool_button(self.filling_requested.emit, "fill", shows_text=True)
        self.undo_button = create_tool_button(self.undo_requested.emit, "undo")
        self.redo_button = create_tool_button(self.redo_requested.emit, "redo")

    def _create_drawing_button(self, tool: DrawingTool) -> QToolButton:
        return create_tool_button(partial(self.select_tool, tool), tool, is_checkable=True, shows_text=True)

    def _create_shortcuts(self, parent: QWidget) -> None:
        QShortcut(QKeySequence.StandardKey.Undo, parent, self.undo_button.click)
        QShortcut(QKeySequence.StandardKey.Redo, parent, self.redo_button.click)
        QShortcut(QKeySequence("M"), parent, self.measure_button.click)
        QShortcut(QKeySequence("P"), parent, self.planes_toggle.click)
        for key, change in (("[", -1), ("]", 1)):
            QShortcut(QKeySequence(key), parent, partial(self._change_brush_size, change))

    # ---- what is selected -------------------------------------------------------------------------------

    @property
    def tool(self) -> DrawingTool:
        """The selected tool."""
        checked = (tool for tool, tool_button in self._tool_buttons.items() if tool_button.isChecked())
        return next(checked, "none")

    @property
    def brush_size(self) -> float:
        """Diameter of brush and eraser in pixels."""
        return float(self.brush_size_slider.value())

    @property
    def shows_outline(self) -> bool:
        """Whether the outline is shown."""
        return self.segmentation_toggle.isChecked()

    @property
    def opacity(self) -> float:
        """Opacity of the outline, up to 1."""
        return self.opacity_slider.value() / 100

    def select_tool(self, chosen_tool: DrawingTool) -> None:
        """Select a tool; clicking the selected one deselects it."""
        for tool, tool_button in self._tool_buttons.items():
            tool_button.setChecked(tool_button.isChecked() and tool == chosen_tool)
        if chosen_tool in MASK_TOOLS:
            self.segmentation_toggle.setChecked(True)
        self.tool_clicked.emit(chosen_tool)

    def _change_brush_size(self, change: int) -> None:
        self.brush_size_slider.setValue(self.brush_size_slider.value() + change)

    # ---- what is possible -------------------------------------------------------------------------------

    def enable_tools(self, *, is_ready: bool, can_measure: bool, can_show_planes: bool) -> None:
        """Enable what a prepared study allows; undo, redo and filling depend on the outline."""
        for tool in (
            self.reset_contrast_button,
            self.segmentation_toggle,
            self.opacity_slider,
            self.brush_button,
            self.eraser_button,
            self.brush_size_slider,
        ):
            tool.setEnabled(is_ready)
        self.measure_button.setEnabled(is_ready and can_measure)
        self.planes_toggle.setEnabled(can_show_planes)

    # ---- texts ------------------------------------------------------------------------------------------

    def retranslate(self, *, can_measure: bool, can_show_planes: bool) -> None:
        """Set all texts but the explanation of filling; those of measuring and planes say why they are impossible."""
        self.reset_contrast_button.setText(self.tr("Reset contrast"))
        self.reset_contrast_button.setToolTip(
            self.tr("Restore the initial window and level. Drag with the right mouse button to change them.")
        )
        self.segmentation_toggle.setText(self.tr("Outline"))
        self.segmentation_toggle.setToolTip(self.tr("Show or hide the lesion outline"))
        self._opacity_label.setText(self.tr("Opacity"))
        name_widget(self.opacity_slider, self.tr("Opacity of the outline"))
        self.brush_button.setText(self.tr("Brush"))
        self.brush_button.setToolTip(self.tr("Add to the outline"))
        self.eraser_button.setText(self.tr("Eraser"))
        self.eraser_button.setToolTip(self.tr("Erase from the outline"))
        self.measure_button.setText(self.tr("Measure"))
        self.measure_button.setToolTip(
            self.tr("Measure a length in mm: drag a line on the slice (M)")
            if can_measure
            else self.tr("The server does not state the pixel size of this study")
        )
        self.planes_toggle.setText(self.tr("Three planes"))
        self.planes_toggle.setToolTip(
            self.tr("Show or hide the coronal and sagittal plane beside the axial one (P)")
            if can_show_planes
            else self.tr("The other planes need several slices of known spacing")
        )
        self.fill_button.setText(self.tr("Fill slices between"))
        self._brush_size_label.setText(self.tr("Size"))
        self.brush_size_slider.setToolTip(self.tr("Size of brush and eraser; keys [ and ]"))
        self.brush_size_slider.setAccessibleName(self.tr("Size of brush and eraser"))
        name_widget(self.reset_zoom_button, self.tr("Show all of the brain again (double click)"))
        name_widget(self.undo_button, self.tr("Undo the last stroke"))
        name_widget(self.redo_button, self.tr("Redo the stroke"))

    def fit_texts(self, width: int) -> None:
        """Show as many texts as fit into a width in pixels."""
        for show_button_texts, show_slider_labels in ((True, True), (True, False), (False, False)):
            for tool_button in (
                self.reset_contrast_button,
                self.planes_toggle,
                self.segmentation_toggle,
                *self._tool_buttons.values(),
                self.fill_button,
            ):
                tool_button.setToolButtonStyle(
                    ICON_WITH_TEXT if show_button_texts else Qt.ToolButtonStyle.ToolButtonIconOnly
                )
            for slider_label in (self._opacity_label, self._brush_size_label):
                slider_label.setVisible(show_slider_labels)
            self._row.invalidate()
            if show_button_texts and show_slider_labels:  # the height stays the same without them
                self.setFixedHeight(self._row.sizeHint().height())
            if self._row.sizeHint().width() <= width:
                return


def _create_slider(minimum: int, maximum: int, value: int) -> QSlider:
    slider = QSlider(Qt.Orientation.Horizontal)
    slider.setRange(minimum, maximum)
    slider.setValue(value)
    slider.setFixedWidth(SLIDER_WIDTH)
    slider.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return slider

"""The middle of the window: both sequences side by side, paged together, and the tools to correct the outline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QSizePolicy, QSlider, QWidget

from gliomark.client.outline import Mask, Outline
from gliomark.client.state import State
from gliomark.client.strip import SliceStrip
from gliomark.client.viewer import SliceView, Tool, Window, window_of
from gliomark.client.widgets import button, column, framed, label, row, tool

PAGE = 5
NARROWEST = 520
WORDED = Qt.ToolButtonStyle.ToolButtonTextBesideIcon
MARGIN = 8
KEYS = {
    Qt.Key.Key_Left: -1,
    Qt.Key.Key_Down: -1,
    Qt.Key.Key_Right: 1,
    Qt.Key.Key_Up: 1,
    Qt.Key.Key_PageDown: -PAGE,
    Qt.Key.Key_PageUp: PAGE,
    Qt.Key.Key_Home: -(10**6),
    Qt.Key.Key_End: 10**6,
}


class Images(QWidget):
    """Shows a study's slices; tells when the doctor's own outline should be used or dropped."""

    outlined = Signal()
    reverted = Signal()
    found_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.outline = Outline(self)
        self.outline.changed.connect(self._show_outline)
        self._slices: dict[str, list[NDArray[np.float32] | None]] = {}
        self._low: dict[str, float] = {}
        self._heat: NDArray[np.uint8] | None = None
        self._state = State()
        self._study_id = ""
        self.views = (SliceView(), SliceView())
        self.blank = label("blank")
        self.blank.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._make_tools()
        self._make_pages()
        self._lay_out()
        for view in self.views:
            view.turned.connect(self.step)
            view.stroked.connect(self._stroke)
            view.stroke_ended.connect(lambda: self.outline.finish(self.index))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    # ---- making -----------------------------------------------------------------------------------------

    def _make_tools(self) -> None:
        self.reset = tool(self._reset_windows, "window", worded=True)
        self.show_outline = tool(self._show_outline, "outline", checkable=True, worded=True)
        self.show_outline.setChecked(True)
        self.opacity = _slider(10, 100, 85)
        self.opacity.valueChanged.connect(self._show_outline)
        self.brush = tool(lambda: self._choose("brush"), "brush", checkable=True, worded=True)
        self.eraser = tool(lambda: self._choose("eraser"), "eraser", checkable=True, worded=True)
        self.brush_size = _slider(1, 25, 5)
        self.brush_size.valueChanged.connect(self._show_tool)
        self.undo = tool(lambda: self._go_to(self.outline.undo()), "undo")
        self.redo = tool(lambda: self._go_to(self.outline.redo()), "redo")
        QShortcut(QKeySequence.StandardKey.Undo, self, self.undo.click)
        QShortcut(QKeySequence.StandardKey.Redo, self, self.redo.click)
        QShortcut(QKeySequence("["), self, lambda: self.brush_size.setValue(self.brush_size.value() - 1))
        QShortcut(QKeySequence("]"), self, lambda: self.brush_size.setValue(self.brush_size.value() + 1))
        self._tools = QButtonGroup(self)
        self._tools.setExclusive(False)
        self._tools.addButton(self.brush)
        self._tools.addButton(self.eraser)

    def _make_pages(self) -> None:
        self.previous = tool(lambda: self.step(-1), "previous")
        self.next = tool(lambda: self.step(1), "next")
        self.strip = SliceStrip()
        self.strip.valueChanged.connect(self._show_slice)
        self.place = label("soft", wrap=False)
        self.place.setMinimumWidth(140)
        self.place.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.hint = label("faint")
        self.use = button(self.outlined.emit, "primary")
        self.back = button(self.reverted.emit)
        self.found = button(self.found_asked.emit)

    def _lay_out(self) -> None:
        self._opacity_word, self._size_word = label("faint", wrap=False), label("faint", wrap=False)
        tools = row(
            self.reset, 10, self.show_outline, self._opacity_word, self.opacity, 10,
            self.brush, self.eraser, self._size_word, self.brush_size, 10, self.undo, self.redo, None, spacing=6,
        )  # fmt: skip
        pictures = QHBoxLayout()
        pictures.setSpacing(6)
        pictures.addWidget(self.blank, 1)
        for view in self.views:
            pictures.addWidget(view, 1)
        pages = row(self.previous, self.strip, self.next, self.place)
        below = row(self.hint, self.found, self.back, self.use)
        below.setStretch(0, 1)
        self._bar = tools
        bar = framed("bar", tools, 8)
        # may be narrower than its words: then the buttons do without them
        bar.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        bar.setMinimumWidth(NARROWEST)
        under = framed("bar", column(pages, below), 10)
        under.setMinimumHeight(122)
        whole = column(bar, pictures, under, spacing=6)
        whole.setStretch(1, 1)
        self.setLayout(whole)

    # ---- from outside -----------------------------------------------------------------------------------

    def render_state(self, state: State) -> None:
        """Texts, marks and what may be pressed; a new study empties the views."""
        self._state = state
        self._take_study(state)
        self._word()
        self.strip.mark(state.areas(), state.deciding())
        ready = state.ready
        for part in (
            self.reset,
            self.show_outline,
            self.opacity,
            self.brush,
            self.eraser,
            self.brush_size,
            self.strip,
        ):
            part.setEnabled(ready)
        self.blank.setVisible(not ready)
        for view in self.views:
            view.setVisible(ready)
        self._show_slice()

    def put_slice(self, sequence: str, index: int, image: NDArray[np.float32]) -> None:
        """One prepared slice has arrived; the first and the last of a sequence set window and crop."""
        slices = self._slices[sequence]
        first = all(one is None for one in slices)
        slices[index] = image
        if first or all(one is not None for one in slices):
            self._reset_window(list(self._slices).index(sequence))
            self._crop()
        if index == self.index:
            self._show_slice()

    def put_heat(self, heat: NDArray[np.uint8] | None) -> None:
        """Grad-CAM ``(slice, 240, 240)`` over the images, or None for none."""
        self._heat = heat
        self._show_slice()

    def show_nearest(self, indices: frozenset[int]) -> None:
        """Go to one of these slices unless one is shown."""
        if indices and self.index not in indices:
            self.strip.setValue(min(indices, key=lambda index: abs(index - self.index)))

    def step(self, by: int) -> None:
        self.strip.setValue(max(0, min(self.strip.maximum(), self.index + by)))

    @property
    def own_outline(self) -> bool:
        """Whether what is shown is the doctor's outline, not the model's."""
        return self.outline.edited or self._on_own_outline()

    @property
    def index(self) -> int:
        return self.strip.value()

    # ---- drawing what is -------------------------------------------------------------------------------

    def _take_study(self, state: State) -> None:
        study = state.study if state.ready else None
        study_id = study["id"] if study else ""
        if study_id == self._study_id:
            return
        self._study_id = study_id
        count = study["shape"][0] if study else 0
        sequences = list(study["sequences"]) if study else []
        self._slices = {sequence: [None] * count for sequence in sequences}
        self._low = (
            {sequence: float(study["grey"][sequence]["low"]) for sequence in sequences} if study else {}
        )
        self._heat = None
        self._choose("none")
        self.outline.load(np.zeros((count, 240, 240), bool))
        self.strip.setRange(0, max(0, count - 1))
        self.strip.setValue(count // 2)

    def _show_slice(self) -> None:
        names = self._state.study["slice_names"] if self._state.ready and self._state.study else []
        for view, sequence in zip(self.views, self._sequences(), strict=True):
            slices = self._slices.get(sequence, [])
            view.title = self._title(sequence)
            view.show_image(slices[self.index] if slices else None)
            shown = self._heat is not None and self.index < len(self._heat)
            view.show_heat(self._heat[self.index] if self._heat is not None and shown else None, 0.85)
        self.previous.setEnabled(bool(names) and self.index > 0)
        self.next.setEnabled(bool(names) and self.index < self.strip.maximum())
        self.place.setText(self._place(names))
        self._show_outline()

    def _sequences(self) -> tuple[str, str]:
        first, second, *_ = [*self._slices, "", ""]
        return first, second

    def _show_outline(self) -> None:
        mask: Mask | None = None
        if self.show_outline.isChecked() and self.index < len(self.outline.mask):
            mask = self.outline.mask[self.index]
        for view in self.views:
            view.show_outline(mask, self.opacity.value() / 100)
        idle = self._state.ready and self._state.task is None
        self.hint.setText(self._hint())
        self.undo.setEnabled(self.outline.edited)
        self.redo.setEnabled(self.outline.can_redo)
        self.use.setVisible(self.outline.edited)
        self.use.setEnabled(idle)
        self.back.setVisible(self.own_outline)
        self.back.setEnabled(idle)
        self.found.setVisible(self._state.ready and bool(self._state.found_outline) and not self.own_outline)
        self.found.setEnabled(idle)

    def _on_own_outline(self) -> bool:
        return self._state.job is not None and self._state.job["request"].get("outline") == "corrected"

    # ---- hands ------------------------------------------------------------------------------------------

    def _choose(self, chosen: Tool) -> None:
        """A tool pressed again is put away."""
        for made, name in ((self.brush, "brush"), (self.eraser, "eraser")):
            made.setChecked(made.isChecked() and name == chosen)
        if chosen != "none":
            self.show_outline.setChecked(True)
        self._show_tool()
        self._show_outline()

    def _tool(self) -> Tool:
        return "brush" if self.brush.isChecked() else "eraser" if self.eraser.isChecked() else "none"

    def _show_tool(self) -> None:
        for view in self.views:
            view.show_tool(self._tool(), float(self.brush_size.value()))

    def _stroke(self, start: QPointF, end: QPointF) -> None:
        if self._state.task is None:
            points = (start.x(), start.y()), (end.x(), end.y())
            self.outline.paint(self.index, *points, float(self.brush_size.value()), self._tool() == "brush")

    def _go_to(self, index: int | None) -> None:
        if index is not None:
            self.strip.setValue(index)

    def _reset_windows(self) -> None:
        for number in range(len(self._slices)):
            self._reset_window(number)

    def _reset_window(self, number: int) -> None:
        sequence = self._sequences()[number]
        arrived = [one for one in self._slices[sequence] if one is not None]
        shown = window_of(np.stack(arrived), self._low[sequence]) if arrived else Window(0, 1)
        self.views[number].show_window(shown)

    def _crop(self) -> None:
        """The smallest window that holds the brain on every slice that has come, the same for both views."""
        seen = np.zeros((240, 240), bool)
        for sequence, slices in self._slices.items():
            for one in slices:
                if one is not None:
                    seen |= one > self._low[sequence] + 1e-3
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        if not rows.size:
            return
        box = QRectF(columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        for view in self.views:
            view.crop = box.adjusted(-MARGIN, -MARGIN, MARGIN, MARGIN)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        self._fit_bar()

    def _fit_bar(self) -> None:
        """As many words in the bar as there is room for."""
        for names, labels in ((True, True), (True, False), (False, False)):
            for made in (self.reset, self.show_outline, self.brush, self.eraser):
                made.setToolButtonStyle(WORDED if names else Qt.ToolButtonStyle.ToolButtonIconOnly)
            for word in (self._opacity_word, self._size_word):
                word.setVisible(labels)
            self._bar.invalidate()
            if self._bar.sizeHint().width() <= self.width():
                return

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        if not self.turn(event):
            super().keyPressEvent(event)

    def turn(self, event: QKeyEvent) -> bool:
        """Page by a key; whether it was one for paging."""
        by = KEYS.get(Qt.Key(event.key()))
        if by is not None and self._state.ready:
            self.step(by)
        return by is not None

    # ---- words ------------------------------------------------------------------------------------------

    def _word(self) -> None:
        self.reset.setText(self.tr("Reset contrast"))
        self.reset.setToolTip(
            self.tr("Back to the first contrast. Drag with the right mouse button to change it.")
        )
        self.show_outline.setText(self.tr("Outline"))
        self.show_outline.setToolTip(self.tr("Show or hide the lesion's outline"))
        self._opacity_word.setText(self.tr("Opacity"))
        self.opacity.setToolTip(self.tr("Opacity of the outline"))
        self.opacity.setAccessibleName(self.tr("Opacity of the outline"))
        self.brush.setText(self.tr("Brush"))
        self.brush.setToolTip(self.tr("Add to the outline"))
        self.eraser.setText(self.tr("Eraser"))
        self.eraser.setToolTip(self.tr("Take away from the outline"))
        self._size_word.setText(self.tr("Size"))
        self.brush_size.setToolTip(self.tr("Size of brush and eraser; keys [ and ]"))
        self.brush_size.setAccessibleName(self.tr("Size of brush and eraser"))
        for made, words in (
            (self.undo, self.tr("Undo the last stroke")),
            (self.redo, self.tr("Redo the stroke")),
            (self.previous, self.tr("Previous slice")),
            (self.next, self.tr("Next slice")),
        ):
            made.setToolTip(words)
            made.setAccessibleName(words)
        self._fit_bar()
        self.strip.setAccessibleName(self.tr("Slice"))
        self.strip.setToolTip(
            self.tr(
                "Bars: size of the lesion on each slice. Orange with a dot: slices the prediction is based on."
            )
        )
        self.use.setText(self.tr("Predict again with my outline"))
        self.back.setText(self.tr("Back to the model's outline"))
        self.found.setText(self.tr("Use the mask in the folder"))
        self.found.setToolTip(
            self.tr("{} came with the images. Look at it, then predict with it.").format(
                self._state.found_outline
            )
        )
        for view in self.views:
            view.waiting = self.tr("loading")
        self.blank.setText(
            self.tr("The images appear here when they are prepared.")
            if self._state.task
            else self.tr("Drop a patient's folder here to begin.")
        )

    def _title(self, sequence: str) -> str:
        """What is in sight: an image in the place of a missing one never goes by that one's name."""
        missing = {shown: wanted for wanted, shown in self._state.stand_ins().items()}
        return self.tr("{} (no {})").format(sequence, missing[sequence]) if sequence in missing else sequence

    def _place(self, names: Sequence[str]) -> str:
        if not names:
            return ""
        return self.tr("Slice {}  ({} of {})").format(names[self.index], self.index + 1, len(names))

    def _hint(self) -> str:
        if not self._state.ready:
            return ""
        if self._heat is not None:
            return self.tr(
                "Coloured: pixels that speak for the positive class, on the slices the prediction is based on."
            )
        if self.outline.edited:
            return self.tr("You have changed the outline.")
        if self._on_own_outline():
            return self.tr("This is your outline.")
        return self.tr("Page with the wheel or the arrow keys. Drag with the right button for contrast.")


def _slider(low: int, high: int, value: int) -> QSlider:
    made = QSlider(Qt.Orientation.Horizontal)
    made.setRange(low, high)
    made.setValue(value)
    made.setFixedWidth(76)
    made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return made

"""Small widgets and layouts shared by the panels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtWidgets import (
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gliomark.client.theme import load_icon, scale_to_text

Layout = TypeVar("Layout", QHBoxLayout, QVBoxLayout)


def create_label(object_name: str = "", wraps: bool = True) -> QLabel:
    """Create a label without text; object_name: its name in the style sheet."""
    new_label = QLabel()
    new_label.setObjectName(object_name)
    new_label.setWordWrap(wraps)
    new_label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return new_label


def create_button(
    on_click: Callable[[], object], object_name: str = "", icon_name: str = "", is_checkable: bool = False
) -> QPushButton:
    """Create a push button without text; object_name: its name in the style sheet."""
    new_button = QPushButton()
    new_button.setObjectName(object_name)
    new_button.setCheckable(is_checkable)
    if icon_name:
        new_button.setIcon(load_icon(icon_name))
        new_button.setIconSize(QSize(scale_to_text(18), scale_to_text(18)))
    new_button.clicked.connect(lambda _: on_click())
    return new_button


def create_tool_button(
    on_click: Callable[[], object], icon_name: str, is_checkable: bool = False, shows_text: bool = False
) -> QToolButton:
    """Create a toolbar button; clicking it does not take the keyboard focus from the images."""
    new_button = QToolButton()
    new_button.setIcon(load_icon(icon_name))
    new_button.setIconSize(QSize(18, 18))
    new_button.setCheckable(is_checkable)
    new_button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    if shows_text:
        new_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    new_button.clicked.connect(lambda _: on_click())
    return new_button


def name_widget(widget: QWidget, name: str) -> None:
    """Name a widget that shows no text, in its tool tip and for screen readers."""
    widget.setToolTip(name)
    widget.setAccessibleName(name)


def create_row(*items: QWidget | int | None, spacing: int = 8) -> QHBoxLayout:
    """Lay out items side by side; None is a stretch, a number a gap in pixels."""
    return _fill_layout(QHBoxLayout(), items, spacing)


def create_column(*items: QWidget | QLayout | int | None, spacing: int = 8) -> QVBoxLayout:
    """Lay out items below each other; None is a stretch, a number a gap in pixels."""
    return _fill_layout(QVBoxLayout(), items, spacing)


def _fill_layout(layout: Layout, items: Iterable[QWidget | QLayout | int | None], spacing: int) -> Layout:
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for part in items:
        if part is None:
            layout.addStretch(1)
        elif isinstance(part, int):
            layout.addSpacing(part)
        elif isinstance(part, QLayout):
            layout.addLayout(part)
        else:
            layout.addWidget(part)
    return layout


def create_frame(object_name: str, layout: QLayout, margin: int = 14) -> QFrame:
    """Put a layout into a frame; object_name: its name in the style sheet. margin: pixels."""
    frame = QFrame()
    frame.setObjectName(object_name)
    layout.setContentsMargins(margin, margin, margin, margin)
    frame.setLayout(layout)
    return frame


class FittedScrollArea(QScrollArea):
    """A scroll area that is as high as its content if there is room."""

    def sizeHint(self) -> QSize:  # noqa: N802
        """Return the size of the content."""
        inner = self.widget()
        layout = inner.layout() if inner else None
        if layout is None:
            return QSize()
        # the content's height depends on the available width because texts wrap
        return QSize(layout.sizeHint().width(), layout.totalHeightForWidth(self.viewport().width()))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Take the new height when the content's layout has changed, as with another language."""
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)


def create_scroll_area(content: QWidget) -> FittedScrollArea:
    """Create an area that scrolls vertically only."""
    area = FittedScrollArea()
    area.setWidgetResizable(True)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    area.setWidget(content)
    return area


class SegmentedControl(QWidget):
    """A row of buttons for a few values, exactly one of which is selected."""

    changed = Signal()

    def __init__(self, values: tuple[object, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._button_group = QButtonGroup(self)
        self._values = values
        self.buttons = [QPushButton() for _ in values]
        for number, segment_button in enumerate(self.buttons):
            segment_button.setCheckable(True)
            segment_button.setObjectName("segment")
            segment_button.setSizePolicy(QSizePolicy.Policy.MinimumExpanding, QSizePolicy.Policy.Fixed)
            self._button_group.addButton(segment_button, number)
        self.setLayout(create_row(*self.buttons, spacing=4))
        self.buttons[-1].setChecked(True)
        self._button_group.idClicked.connect(lambda _: self.changed.emit())

    @property
    def value(self) -> object:
        """The selected value."""
        return self._values[self._button_group.checkedId()]

    def select_value(self, value: object) -> None:
        """Select a value."""
        self.buttons[self._values.index(value)].setChecked(True)

    def set_texts(self, accessible_name: str, *texts: str) -> None:
        """Set the texts of the buttons; accessible_name: what is chosen, for screen readers."""
        for segment_button, word in zip(self.buttons, texts, strict=True):
            segment_button.setText(word)
            segment_button.setAccessibleName(f"{accessible_name}: {word}")

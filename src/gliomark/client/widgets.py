"""Small parts that several panels are made of."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt, Signal
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

from gliomark.client.theme import icon


def label(style: str = "", wrap: bool = True) -> QLabel:
    """A label without text yet; style is the sheet's name for it."""
    made = QLabel()
    made.setObjectName(style)
    made.setWordWrap(wrap)
    made.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return made


def button(
    pressed: Callable[[], object], style: str = "", picture: str = "", checkable: bool = False
) -> QPushButton:
    made = QPushButton()
    made.setObjectName(style)
    made.setCheckable(checkable)
    if picture:
        made.setIcon(icon(picture))
        made.setIconSize(QSize(18, 18))
    made.clicked.connect(lambda _: pressed())
    return made


def tool(
    pressed: Callable[[], object], picture: str, checkable: bool = False, worded: bool = False
) -> QToolButton:
    """A button of the images' bar; the mouse leaves the keyboard with the images."""
    made = QToolButton()
    made.setIcon(icon(picture))
    made.setIconSize(QSize(18, 18))
    made.setCheckable(checkable)
    made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    if worded:
        made.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    made.clicked.connect(lambda _: pressed())
    return made


def row(*parts: QWidget | int | None, spacing: int = 8) -> QHBoxLayout:
    """Side by side; None is a stretch, a number a gap in pixels."""
    return _filled(QHBoxLayout(), parts, spacing)


def column(*parts: QWidget | QLayout | int | None, spacing: int = 8) -> QVBoxLayout:
    """Below each other; None is a stretch, a number a gap in pixels."""
    return _filled(QVBoxLayout(), parts, spacing)


def _filled(layout, parts, spacing: int):
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for part in parts:
        if part is None:
            layout.addStretch(1)
        elif isinstance(part, int):
            layout.addSpacing(part)
        elif isinstance(part, QLayout):
            layout.addLayout(part)
        else:
            layout.addWidget(part)
    return layout


def framed(style: str, layout: QLayout, margin: int = 14) -> QFrame:
    """A layout on a ground of its own."""
    frame = QFrame()
    frame.setObjectName(style)
    layout.setContentsMargins(margin, margin, margin, margin)
    frame.setLayout(layout)
    return frame


class Scrolled(QScrollArea):
    """As high as what is in it, less where there is no room."""

    def sizeHint(self) -> QSize:  # noqa: N802
        inner = self.widget()
        layout = inner.layout() if inner else None
        if layout is None:
            return QSize()
        # lines are broken at the width there is
        return QSize(layout.sizeHint().width(), layout.totalHeightForWidth(self.viewport().width()))


def scrolled(inner: QWidget) -> Scrolled:
    """Vertically scrolled, never sideways."""
    area = Scrolled()
    area.setWidgetResizable(True)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    area.setWidget(inner)
    return area


class Segments(QWidget):
    """One of a few answers, all of them in sight."""

    changed = Signal()

    def __init__(self, values: tuple[object, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._group = QButtonGroup(self)
        self._values = values
        self.buttons = [QPushButton() for _ in values]
        for number, made in enumerate(self.buttons):
            made.setCheckable(True)
            made.setObjectName("segment")
            made.setSizePolicy(QSizePolicy.Policy.MinimumExpanding, QSizePolicy.Policy.Fixed)
            self._group.addButton(made, number)
        self.setLayout(row(*self.buttons, spacing=4))
        self.buttons[-1].setChecked(True)
        self._group.idClicked.connect(lambda _: self.changed.emit())

    @property
    def value(self) -> object:
        return self._values[self._group.checkedId()]

    def choose(self, value: object) -> None:
        self.buttons[self._values.index(value)].setChecked(True)

    def name(self, about: str, *words: str) -> None:
        """The words on the buttons; about: what they answer, for who cannot see it."""
        for made, word in zip(self.buttons, words, strict=True):
            made.setText(word)
            made.setAccessibleName(f"{about}: {word}")

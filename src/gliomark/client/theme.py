"""Theme of the client: dark and low in contrast, so that the eyes stay adapted to the images."""

from __future__ import annotations

import re
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFont, QFontInfo, QIcon, QPainter, QPalette, QPixmap
from PySide6.QtWidgets import QApplication

BLACK = QColor("#06080a")
BACKGROUND = QColor("#12171b")
PANEL = QColor("#1a2126")
CARD = QColor("#222b31")
BORDER = QColor("#34414a")
TEXT = QColor("#e8eef1")
SECONDARY_TEXT = QColor("#a9b8c1")
MUTED_TEXT = QColor("#82939d")
ACCENT = QColor("#58b8c9")
SEGMENTATION_COLOUR = QColor("#ffd54a")
WARNING = QColor("#e9b35c")

TEXT_SIZE = 14  # pixels, of texts without a size of their own
FONT_FAMILIES = [
    *("Segoe UI", "SF Pro Text", "Inter", "Noto Sans", "Liberation Sans"),
    *("Microsoft YaHei UI", "PingFang SC", "Noto Sans CJK SC", "WenQuanYi Micro Hei"),
]
ICONS_FOLDER = Path(__file__).with_name("icons")
CHECK_ICON = (ICONS_FOLDER / "check.svg").as_posix()

# lengths that grow with the texts are written scaled(pixels)
STYLE_SHEET = f"""
* {{ color: {TEXT.name()}; }}
QMainWindow, QDialog, QMessageBox {{ background: {BACKGROUND.name()}; }}
QToolTip {{ background: {CARD.name()}; border: 1px solid {BORDER.name()}; padding: 4px 6px; }}
QFrame#panel {{ background: {PANEL.name()}; }}
QScrollArea, QScrollArea > QWidget > QWidget {{ background: {PANEL.name()}; border: none; }}
QFrame#card {{ background: {CARD.name()}; border-radius: 8px; }}
QFrame#bar {{ background: {PANEL.name()}; border: none; }}
QFrame#banner {{ background: #4a2a2a; border: none; }}
QLabel#brand {{ font-size: scaled(17); font-weight: 600; color: {ACCENT.name()}; }}
QLabel#heading {{ font-size: scaled(15); font-weight: 600; }}
QLabel#level {{ font-size: scaled(25); font-weight: 600; }}
QLabel#soft {{ color: {SECONDARY_TEXT.name()}; }}
QLabel#faint {{ color: {MUTED_TEXT.name()}; font-size: scaled(12); }}
QLabel#warn {{ color: {WARNING.name()}; }}
QLabel#tag {{ background: #3a4a33; border-radius: 4px; padding: 2px 7px; font-size: scaled(12); }}
QLabel#number {{ background: {BORDER.name()}; border-radius: scaled(12); font-weight: 600; }}
QLabel#number[done="true"] {{ background: {ACCENT.name()}; color: #0a2026; }}
QPushButton, QToolButton {{
    background: {CARD.name()}; border: 1px solid {BORDER.name()}; border-radius: 6px; padding: 6px 12px;
}}
QFrame#card QPushButton, QFrame#card QToolButton {{ background: #2b363d; }}
QToolButton {{ padding: 5px 8px; }}
QToolButton::menu-indicator, QPushButton::menu-indicator {{ image: none; width: 0; }}
QPushButton#segment {{ padding: 6px 7px; }}
QPushButton#icon {{ padding: 6px 8px; }}
QLabel#blank {{ background: {BLACK.name()}; color: {SECONDARY_TEXT.name()}; font-size: scaled(16); padding: 40px; }}
QPushButton:hover, QToolButton:hover {{ border-color: {ACCENT.name()}; }}
QPushButton:focus, QToolButton:focus, QLineEdit:focus, QComboBox:focus {{ border-color: {ACCENT.name()}; }}
QPushButton:pressed, QToolButton:pressed {{ background: {BORDER.name()}; }}
QPushButton:checked, QToolButton:checked, QFrame#card QPushButton:checked {{
    background: #24505a; border-color: {ACCENT.name()};
}}
QPushButton:disabled, QToolButton:disabled {{ color: #5d6b74; border-color: #2a343b; }}
QPushButton#primary {{
    background: {ACCENT.name()}; color: #06222a; border: none; font-size: scaled(15); font-weight: 600;
    padding: 10px 16px;
}}
QPushButton#primary:hover {{ background: #74cbdb; }}
QPushButton#primary:focus {{ border: 2px solid white; padding: 8px 14px; }}
QPushButton#primary:disabled, QFrame#card QPushButton#primary:disabled {{ background: #2b363d; color: #6c7b84; }}
QFrame#card QPushButton#primary {{ background: {ACCENT.name()}; }}
QPushButton#plain, QToolButton#plain {{ background: transparent; border-color: transparent; }}
QPushButton#plain:hover, QToolButton#plain:hover, QPushButton#plain:focus, QToolButton#plain:focus {{
    border-color: {BORDER.name()};
}}
QLineEdit, QComboBox {{
    background: #161c20; border: 1px solid {BORDER.name()}; border-radius: 6px; padding: 5px 8px;
    selection-background-color: #24505a;
}}
QLineEdit:disabled {{ color: #5d6b74; }}
QComboBox QAbstractItemView, QMenu {{ background: {CARD.name()}; border: 1px solid {BORDER.name()}; padding: 4px; }}
QTreeView {{ background: #161c20; border: 1px solid {BORDER.name()}; border-radius: 6px; }}
QTreeView::item {{ padding: 5px 4px; }}
QTreeView::item:selected {{ background: #24505a; }}
QHeaderView::section {{ background: {CARD.name()}; color: {SECONDARY_TEXT.name()}; border: none; padding: 5px 8px; }}
QMenu::item {{ padding: 6px 20px; border-radius: 4px; }}
QMenu::item:selected {{ background: #24505a; }}
QMenu::item:disabled {{ color: #5d6b74; }}
QCheckBox, QRadioButton {{ spacing: 8px; }}
QCheckBox::indicator {{
    width: scaled(15); height: scaled(15); border: 1px solid {MUTED_TEXT.name()}; border-radius: 3px;
    background: #161c20;
}}
QCheckBox::indicator:checked {{
    background: {ACCENT.name()}; border-color: {ACCENT.name()}; image: url("{CHECK_ICON}");
}}
QRadioButton::indicator {{
    width: scaled(13); height: scaled(13); border: 1px solid {MUTED_TEXT.name()}; border-radius: scaled(7);
    background: #161c20;
}}
QRadioButton::indicator:checked {{
    width: scaled(7); height: scaled(7); background: #161c20; border: scaled(4) solid {ACCENT.name()};
    border-radius: scaled(7);
}}
QCheckBox:focus {{ color: {ACCENT.name()}; }}
QProgressBar {{ background: #161c20; border: none; border-radius: 3px; max-height: 6px; min-height: 6px; }}
QProgressBar::chunk {{ background: {ACCENT.name()}; border-radius: 3px; }}
QSlider::groove:horizontal {{ height: 4px; background: {BORDER.name()}; border-radius: 2px; }}
QSlider::handle:horizontal {{ width: 14px; margin: -5px 0; border-radius: 7px; background: {SECONDARY_TEXT.name()}; }}
QSlider::handle:horizontal:hover, QSlider::handle:horizontal:focus {{ background: {ACCENT.name()}; }}
QSlider::handle:horizontal:disabled {{ background: #46545d; }}
QScrollBar:vertical {{ background: transparent; width: 10px; margin: 0; }}
QScrollBar::handle:vertical {{ background: {BORDER.name()}; border-radius: 5px; min-height: 30px; }}
QScrollBar::add-line, QScrollBar::sub-line {{ height: 0; }}
QSplitter::handle {{ background: {BACKGROUND.name()}; }}
"""


def apply_theme(app: QApplication) -> None:
    """Apply style, palette, font and style sheet to the application.

    Texts have the size of the system's font where it is larger than the client's own.
    """
    text_size = max(TEXT_SIZE, QFontInfo(QApplication.font()).pixelSize())
    app.setStyle("Fusion")
    palette = QPalette(BACKGROUND)
    for role, colour in (
        (QPalette.ColorRole.Window, BACKGROUND),
        (QPalette.ColorRole.Base, PANEL),
        (QPalette.ColorRole.Text, TEXT),
        (QPalette.ColorRole.WindowText, TEXT),
        (QPalette.ColorRole.ButtonText, TEXT),
        (QPalette.ColorRole.PlaceholderText, MUTED_TEXT),
        (QPalette.ColorRole.Highlight, QColor("#24505a")),
        (QPalette.ColorRole.Link, ACCENT),
    ):
        palette.setColor(role, colour)
    app.setPalette(palette)
    font = QFont()
    font.setFamilies(FONT_FAMILIES)
    font.setPixelSize(text_size)
    app.setFont(font)
    app.setStyleSheet(
        re.sub(r"scaled\((\d+)\)", lambda match: f"{scale_to_text(int(match[1]))}px", STYLE_SHEET)
    )


def scale_to_text(pixels: int) -> int:
    """Scale a length, given in pixels for the client's own text size, to the size that texts have."""
    return round(pixels * max(1.0, QApplication.font().pixelSize() / TEXT_SIZE))


def load_icon(icon_name: str) -> QIcon:
    """Load an icon by its file name without extension; it is drawn faint on a disabled button."""
    normal_pixmap = QIcon(str(ICONS_FOLDER / f"{icon_name}.svg")).pixmap(48, 48)
    disabled_pixmap = QPixmap(normal_pixmap.size())
    disabled_pixmap.setDevicePixelRatio(normal_pixmap.devicePixelRatio())
    disabled_pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(disabled_pixmap)
    painter.setOpacity(0.35)
    painter.drawPixmap(0, 0, normal_pixmap)
    painter.end()
    loaded_icon = QIcon(normal_pixmap)
    loaded_icon.addPixmap(disabled_pixmap, QIcon.Mode.Disabled)
    return loaded_icon

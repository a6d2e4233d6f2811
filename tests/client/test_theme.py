"""The client's texts have the size of the system's font, and nothing is cut off at 1366 x 768."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QApplication, QLabel, QScrollArea
from shiboken6 import delete

from gliomark.client.main_window import MainWindow
from gliomark.client.settings import UserSettings
from gliomark.client.theme import TEXT_SIZE, apply_theme, scale_to_text


def set_font_size(app: QApplication, pixels: int) -> None:
    font = QFont()
    font.setPixelSize(pixels)
    app.setFont(font)


@pytest.fixture
def window_of_font_size(app: QApplication, request: pytest.FixtureRequest) -> Iterator[MainWindow]:
    """A window of 1366 x 728 pixels, started with a font of the system of so many pixels."""
    set_font_size(app, request.param)
    apply_theme(app)
    window = MainWindow(UserSettings())
    window.resize(1366, 728)  # without the bar of the desktop
    window.show()
    yield window
    window.close()
    delete(window)  # the theme is applied again to every widget that is left
    set_font_size(app, TEXT_SIZE)
    apply_theme(app)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("window_of_font_size", "text_size", "heading_size"),
    [(21, 21, 22), (18, 18, 19), (14, 14, 15), (9, 14, 15)],
    indirect=["window_of_font_size"],
)
def test_texts_have_the_size_of_the_systems_font(
    app: QApplication, window_of_font_size: MainWindow, text_size: int, heading_size: int
) -> None:
    labels = window_of_font_size.findChildren(QLabel)
    sizes = {label.objectName(): label.font().pixelSize() for label in labels}
    assert sizes["soft"] == text_size and sizes["heading"] == heading_size
    assert scale_to_text(100) == round(100 * text_size / 14)


@pytest.mark.sample(6)
@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("window_of_font_size", [21, 18, 14], indirect=True)
def test_no_text_is_cut_off(
    app: QApplication, window_of_font_size: MainWindow, language: str, tmp_path: Path
) -> None:
    window = window_of_font_size
    window.settings.remember_folder(tmp_path)  # every button of the first step is shown
    window.session._update_state(patient_folder=tmp_path)
    window.switch_language(language)
    for _ in range(5):  # the layout settles step by step
        app.processEvents()
    assert window.width() == 1366 and window.height() == 728
    areas = [area for area in window.findChildren(QScrollArea) if area.isVisible()]
    assert len(areas) >= 2
    for area in areas:
        assert area.widget().minimumSizeHint().width() <= area.viewport().width()

"""Widgets shared by the panels."""

from __future__ import annotations

from PySide6.QtWidgets import QApplication, QWidget

from gliomark.client.widgets import create_column, create_label, create_scroll_area


def test_a_scroll_area_grows_with_its_text(app: QApplication) -> None:
    """As when the language is switched: there is room below, so nothing needs to be scrolled."""
    label, content, panel = create_label(), QWidget(), QWidget()
    label.setText("short")
    content.setLayout(create_column(label, None))
    area = create_scroll_area(content)
    layout = create_column(area, create_label(), None)
    panel.setLayout(layout)
    panel.resize(200, 600)
    panel.show()
    app.processEvents()
    before = area.height()
    label.setText("a much longer text " * 20)
    for _ in range(5):
        app.processEvents()
    assert area.height() > before + 100
    assert area.verticalScrollBar().maximum() == 0
    panel.close()

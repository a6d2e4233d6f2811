"""Lengths measured on the slices, with a study's document and slices, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from shiboken6 import delete
from tests.client.test_image_panel import (
    LEFT,
    MIDDLE,
    NO_MODIFIER,
    create_state,
    drag,
    pinch_with_fingers,
    show_study,
)

from gliomark.client.image_panel import ImagePanel
from gliomark.client.language import use_language
from gliomark.client.measurement import MeasuredLine, Measurements
from gliomark.client.slice_view import SliceView, Zoom

PIXEL_MM = 0.8


@pytest.fixture
def panel(app: QApplication) -> Iterator[ImagePanel]:
    """A wide and low window, whose views are not square, with the measuring tool selected."""
    panel = ImagePanel()
    panel.resize(1100, 600)
    panel.show()
    show_study(panel, "T1C", "FLAIR", id="measured", spacing_mm=[5.0, PIXEL_MM, PIXEL_MM])
    app.processEvents()
    panel.toolbar.measure_button.click()
    yield panel
    delete(panel)  # the theme is applied again to every widget that is left


def to_screen(view: SliceView, x: float, y: float) -> QPoint:
    """Convert image pixels to the nearest position of the widget."""
    return view.compute_screen_transform().map(QPointF(x, y)).toPoint()


def measure(view: SliceView, start: tuple[float, float], end: tuple[float, float]) -> None:
    drag(view, LEFT, to_screen(view, *start), to_screen(view, *end))


def list_lengths(panel: ImagePanel) -> list[float]:
    return [line.length_mm for line in panel.measurements.list_lines(panel.index)]


# ---- the length -------------------------------------------------------------------------------------


@pytest.mark.sample(4)
@pytest.mark.parametrize("zoom", [1.0, 1.7, 4.0])
@pytest.mark.parametrize("is_moved", [False, True], ids=["", "moved"])
@pytest.mark.parametrize(
    ("start", "end"), [((100, 120), (140, 120)), ((120, 100), (120, 130)), ((105, 100), (135, 140))]
)
def test_a_line_has_its_length_in_the_patient(
    panel: ImagePanel, zoom: float, is_moved: bool, start: tuple[float, float], end: tuple[float, float]
) -> None:
    view = panel.views[0]
    assert view.width() != view.height()
    panel.show_zoom(Zoom(zoom, (120, 120)) if zoom > 1 else Zoom())
    if is_moved:
        drag(view, MIDDLE, QPoint(150, 200), QPoint(162, 190))
        assert zoom == 1 or view.zoom.middle != (120, 120)
    measure(view, start, end)
    true_length = PIXEL_MM * float(np.hypot(end[0] - start[0], end[1] - start[1]))
    one_screen_pixel = 1 / view.pixels_per_mm
    assert list_lengths(panel) == [pytest.approx(true_length, abs=1.5 * one_screen_pixel)]
    before = list_lengths(panel)
    panel.show_zoom(Zoom(3.0, (110, 110)))
    panel.resize(900, 700)
    assert list_lengths(panel) == before, "neither zoom nor size of the window changes a length"


@pytest.mark.parametrize(
    ("pixel_size", "end", "length"),
    [((0.5, 2.0), (30, 10), 10.0), ((0.5, 2.0), (10, 20), 20.0), ((3.0, 4.0), (11, 11), 5.0)],
)
def test_pixels_need_not_be_square(
    app: QApplication, pixel_size: tuple[float, float], end: tuple[float, float], length: float
) -> None:
    view = SliceView()
    view.pixel_size_mm = pixel_size
    ends = view.to_millimetres(QPointF(10, 10)), view.to_millimetres(QPointF(*end))
    assert MeasuredLine(*ends).length_mm == pytest.approx(length)
    view.resize(400, 300)
    transform = view.compute_screen_transform()
    assert transform.m22() / transform.m11() == pytest.approx(pixel_size[1] / pixel_size[0])


def test_the_scale_bar_counts_the_pixel_size(panel: ImagePanel) -> None:
    view = panel.views[0]
    assert view.pixels_per_mm == pytest.approx(view.compute_screen_transform().m11() / PIXEL_MM)


def test_the_line_and_its_length_are_drawn_in_both_views_and_not_in_the_mask(panel: ImagePanel) -> None:
    before = [view.grab().toImage() for view in panel.views]
    measure(panel.views[0], (80, 100), (160, 100))
    for view, without_line in zip(panel.views, before, strict=True):
        assert view._length_format.format("64.0") == "64.0 mm"
        picture, middle = view.grab().toImage(), to_screen(view, 120, 100)
        assert picture.pixelColor(middle) != without_line.pixelColor(middle)
    assert not panel.mask_editor.mask.any() and not panel.mask_editor.is_edited


# ---- several lines ----------------------------------------------------------------------------------


def test_lines_are_kept_on_their_slices_until_another_patient_is_opened(panel: ImagePanel) -> None:
    view = panel.views[1]
    measure(view, (80, 100), (120, 100))
    measure(view, (80, 140), (130, 140))
    panel.step_slices(1)
    assert list_lengths(panel) == []
    measure(view, (90, 80), (90, 110))
    panel.step_slices(-1)
    assert list_lengths(panel) == pytest.approx([32, 40], abs=0.5)
    panel.render_state(create_state("T1C", "FLAIR", id="measured", spacing_mm=[5.0, PIXEL_MM, PIXEL_MM]))
    assert len(list_lengths(panel)) == 2, "the same patient"
    show_study(panel, "T1C", "FLAIR", id="another")
    assert all(not panel.measurements.list_lines(index) for index in range(3))
    assert not panel.toolbar.measure_button.isChecked()


@pytest.mark.parametrize("key", [Qt.Key.Key_Delete, Qt.Key.Key_Backspace])
def test_the_selected_line_is_removed_or_the_last_one(panel: ImagePanel, key: Qt.Key) -> None:
    view = panel.views[0]
    for y in (80, 110, 140):
        measure(view, (80, y), (80 + y / 2, y))
    QTest.mouseClick(view, LEFT, NO_MODIFIER, to_screen(view, 90, 80))
    QTest.keyClick(panel, key)
    assert list_lengths(panel) == pytest.approx([44, 56], abs=0.5)
    QTest.keyClick(panel, key)
    assert list_lengths(panel) == pytest.approx([44], abs=0.5)
    for _ in range(2):
        QTest.keyClick(panel, key)
    assert list_lengths(panel) == []


def test_the_end_of_a_line_can_be_moved(panel: ImagePanel) -> None:
    view = panel.views[0]
    measure(view, (80, 100), (120, 100))
    measure(view, (120, 100), (160, 100))
    assert list_lengths(panel) == pytest.approx([64], abs=0.5)
    measure(view, (80, 100), (130, 100))
    assert list_lengths(panel) == pytest.approx([24], abs=0.5)


def test_a_click_measures_nothing(panel: ImagePanel) -> None:
    view = panel.views[0]
    QTest.mouseClick(view, LEFT, NO_MODIFIER, to_screen(view, 100, 100))
    QTest.mouseDClick(view, LEFT, NO_MODIFIER, to_screen(view, 100, 100))
    QTest.mouseRelease(view, LEFT, NO_MODIFIER, to_screen(view, 100, 100))
    assert list_lengths(panel) == [] and panel.measurements.selected is None


def test_two_fingers_zoom_and_measure_nothing(panel: ImagePanel) -> None:
    view = panel.views[0]
    pinch_with_fingers(view, QPointF(view.width() / 2, view.height() / 2), 2.0)
    assert view.zoom.factor > 1.5 and list_lengths(panel) == []


# ---- keys and words ---------------------------------------------------------------------------------


def test_escape_goes_back_one_step_at_a_time(panel: ImagePanel) -> None:
    view = panel.views[0]
    measure(view, (80, 100), (120, 100))
    QTest.mousePress(view, LEFT, NO_MODIFIER, to_screen(view, 80, 150))
    QTest.mouseMove(view, to_screen(view, 120, 150))
    assert len(list_lengths(panel)) == 2
    QTest.keyClick(panel, Qt.Key.Key_Escape)
    QTest.mouseMove(view, to_screen(view, 140, 150))
    QTest.mouseRelease(view, LEFT, NO_MODIFIER, to_screen(view, 140, 150))
    assert list_lengths(panel) == pytest.approx([32], abs=0.5), "the line in progress is gone"
    QTest.mouseClick(view, LEFT, NO_MODIFIER, to_screen(view, 100, 100))
    assert panel.measurements.selected is not None
    QTest.keyClick(panel, Qt.Key.Key_Escape)
    assert panel.measurements.selected is None and panel.toolbar.measure_button.isChecked()
    QTest.keyClick(panel, Qt.Key.Key_Escape)
    assert not panel.toolbar.measure_button.isChecked()
    assert list_lengths(panel) == pytest.approx([32], abs=0.5)


def test_the_key_m_selects_the_tool_and_the_brush_puts_it_away(panel: ImagePanel, app: QApplication) -> None:
    panel.activateWindow()
    app.processEvents()
    QTest.keyClick(panel, Qt.Key.Key_M)
    assert not panel.toolbar.measure_button.isChecked()
    QTest.keyClick(panel, Qt.Key.Key_M)
    assert panel.toolbar.measure_button.isChecked()
    panel.toolbar.brush_button.click()
    assert not panel.toolbar.measure_button.isChecked() and panel.views[0].tool == "brush"
    QTest.keyClick(panel, Qt.Key.Key_Delete)
    measure(panel.views[0], (100, 100), (110, 100))
    assert list_lengths(panel) == [] and panel.mask_editor.is_edited


@pytest.mark.parametrize(
    ("fields", "drawn", "hint"),
    [
        ({"spacing_assumed": False}, "64.0 mm", ""),
        ({}, "64.0 mm", ""),
        ({"spacing_assumed": True}, "≈ 64.0 mm", "lengths and proportions are estimates"),
    ],
    ids=["stated", "not known", "assumed"],
)
def test_an_assumed_pixel_size_is_stated(
    panel: ImagePanel, fields: dict[str, Any], drawn: str, hint: str
) -> None:
    show_study(panel, "T1C", "FLAIR", id="other", **fields)
    panel.toolbar.measure_button.click()
    assert panel.views[0]._length_format.format("64.0") == drawn
    assert ("lengths and proportions are estimates" in panel.hint_label.text()) == bool(hint)
    if hint:
        use_language("zh")
        panel.render_state(create_state("T1C", "FLAIR", id="other", **fields))
        assert "估计值" in panel.hint_label.text()


def test_nothing_is_measured_without_a_pixel_size(panel: ImagePanel) -> None:
    show_study(panel, "T1C", "FLAIR", id="older server", spacing_mm=None)
    assert not panel.toolbar.measure_button.isEnabled()
    assert "does not state the pixel size" in panel.toolbar.measure_button.toolTip()


def test_the_distance_to_a_line_is_that_to_its_nearest_point() -> None:
    line = MeasuredLine((0, 0), (10, 0))
    for point, distance in (((5, 3), 3), ((13, 4), 5), ((-3, -4), 5), ((10, 0), 0)):
        assert line.compute_distance(point) == pytest.approx(distance)
    assert MeasuredLine((1, 1), (1, 1)).compute_distance((4, 5)) == 5


def test_moving_without_a_drag_changes_nothing() -> None:
    measurements = Measurements()
    measurements.drag_to((3, 4))
    measurements.finish_drag(1)
    measurements.remove_line(0)
    assert measurements.list_lines(0) == () and not measurements.is_dragging

"""Zoom, sequences and overlays of the image panel, with a study's document and slices, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QInputDevice, QNativeGestureEvent, QPointingDevice, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from shiboken6 import delete

from gliomark.client.image_panel import ImagePanel
from gliomark.client.slice_view import MAXIMUM_ZOOM, SliceView, Zoom
from gliomark.client.state import ClientState

CONTROL, NO_MODIFIER = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.NoModifier
LEFT, MIDDLE = Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton


def create_state(*sequences: str, **fields: Any) -> ClientState:
    study: dict[str, Any] = {
        "id": "-".join(sequences),
        "state": "ready",
        "sequences": list(sequences),
        "slice_names": ["001", "002", "003"],
        "shape": [3, 240, 240],
        "spacing_mm": [6.0, 1.0, 1.0],
        "grey": {sequence: {"low": 0.0, "high": 4.0} for sequence in sequences},
        "model": "",
    } | fields
    return ClientState(server_status="ready", study=study)


def show_study(panel: ImagePanel, *sequences: str, **fields: Any) -> None:
    """Show a study with a rectangular brain; each sequence is brighter than the one before."""
    panel.render_state(create_state(*sequences, **fields))
    image = np.zeros((240, 240), np.float32)
    image[30:210, 50:190] = np.linspace(0.5, 1, 140, dtype=np.float32)
    for number, sequence in enumerate(sequences):
        for index in range(3):
            panel.set_slice(sequence, index, image * (number + 1))


@pytest.fixture
def panel(app: QApplication) -> Iterator[ImagePanel]:
    panel = ImagePanel()
    panel.resize(900, 740)
    panel.show()
    show_study(panel, "T1C", "FLAIR")
    app.processEvents()
    yield panel
    delete(panel)  # the theme is applied again to every widget that is left


def turn_wheel(
    view: SliceView, position: QPointF, units: int, modifier: Qt.KeyboardModifier = CONTROL
) -> None:
    no_button, phase = Qt.MouseButton.NoButton, Qt.ScrollPhase.NoScrollPhase
    position_on_screen = QPointF(view.mapToGlobal(position.toPoint()))
    turned = QPoint(0, units)
    event = QWheelEvent(position, position_on_screen, QPoint(), turned, no_button, modifier, phase, False)
    QApplication.sendEvent(view, event)


def pinch(view: SliceView, position: QPointF, scale_change: float) -> None:
    pad = QPointingDevice(
        "touchpad",
        1,
        QInputDevice.DeviceType.TouchPad,
        QPointingDevice.PointerType.Finger,
        QInputDevice.Capability.Position,
        2,
        0,
    )
    kind = Qt.NativeGestureType.ZoomNativeGesture
    on_screen = QPointF(view.mapToGlobal(position.toPoint()))
    event = QNativeGestureEvent(kind, pad, 2, position, position, on_screen, scale_change, QPointF())
    QApplication.sendEvent(view, event)


def pinch_with_fingers(view: SliceView, position: QPointF, factor: float) -> None:
    """Two fingers on a touchscreen are moved apart."""
    screen, middle = QTest.createTouchDevice(), position.toPoint()
    distances = np.linspace(60, 60 * factor, 30)
    for step in range(len(distances) + 1):
        touch = QTest.touchEvent(view, screen)
        act = touch.press if step == 0 else touch.release if step == len(distances) else touch.move
        half = round(distances[min(step, len(distances) - 1)] / 2)
        for finger, x in ((0, middle.x() - half), (1, middle.x() + half)):
            act(finger, QPoint(x, middle.y()), view)
        touch.commit()


def drag(
    view: SliceView, button: Qt.MouseButton, start: QPoint, end: QPoint, modifier: Any = NO_MODIFIER
) -> None:
    QTest.mousePress(view, button, modifier, start)
    QTest.mouseMove(view, end)
    QTest.mouseRelease(view, button, modifier, end)


# ---- zoom -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zoom_in", "factor"),
    [
        (lambda view, at: turn_wheel(view, at, 120), 1.2),
        (lambda view, at: turn_wheel(view, at, 480), 1.2**4),
        (lambda view, at: turn_wheel(view, at, 30), 1.2**0.25),  # a touchpad's small steps
        (lambda view, at: pinch(view, at, 0.5), 1.5),
    ],
    ids=["wheel", "fast wheel", "touchpad", "pinch"],
)
def test_both_views_zoom_to_the_cursor(panel: ImagePanel, zoom_in: Any, factor: float) -> None:
    view, other = panel.views
    scale, cursor = (
        view.compute_screen_transform().m11(),
        QPointF(view.width() / 2 + 30, view.height() / 2 - 20),
    )
    below_cursor, index = view.to_image_position(cursor), panel.index
    zoom_in(view, cursor)
    assert view.compute_screen_transform().m11() == pytest.approx(factor * scale)
    after = view.to_image_position(cursor)
    shown = view.width() / scale / factor, view.height() / scale / factor
    if shown[0] < view.crop.width():  # otherwise the brain stays in the middle
        assert after.x() == pytest.approx(below_cursor.x())
    if shown[1] < view.crop.height():
        assert after.y() == pytest.approx(below_cursor.y())
    assert (shown[0] < view.crop.width()) or factor < 1.2
    assert other.compute_screen_transform() == view.compute_screen_transform()
    assert panel.index == index, "the slice does not change"


def test_two_fingers_on_a_touchscreen_zoom_and_do_not_draw(panel: ImagePanel) -> None:
    view = panel.views[0]
    panel.toolbar.brush_button.click()
    grey_window, scale = view.grey_window, view.compute_screen_transform().m11()
    pinch_with_fingers(view, QPointF(view.width() / 2, view.height() / 2), 2.0)
    assert view.compute_screen_transform().m11() == pytest.approx(2 * scale, rel=0.1)
    assert view.grey_window == grey_window
    assert not panel.mask_editor.mask.any() and not panel.mask_editor.is_edited


def test_zooming_stays_between_all_of_the_brain_and_the_maximum(panel: ImagePanel) -> None:
    view = panel.views[0]
    fitted, corner = view.compute_screen_transform(), QPointF(2, 2)
    assert not panel.toolbar.reset_zoom_button.isEnabled()
    turn_wheel(view, corner, -1200)
    assert view.compute_screen_transform() == fitted and view.zoom == Zoom()
    turn_wheel(view, corner, 120 * 100)
    assert view.zoom.factor == MAXIMUM_ZOOM
    shown = view.to_image_position(QPointF(0, 0))
    assert shown.x() >= view.crop.left() - 1e-6 and shown.y() >= view.crop.top() - 1e-6
    turn_wheel(view, corner, 120, NO_MODIFIER)
    assert view.zoom.factor == MAXIMUM_ZOOM and panel.index == 2, "the wheel alone changes the slice"
    turn_wheel(view, corner, -120 * 100)
    assert view.compute_screen_transform() == fitted


@pytest.mark.parametrize("reset", ["button", "double click", "another study"])
def test_the_zoom_is_reset(panel: ImagePanel, reset: str) -> None:
    view = panel.views[0]
    fitted = view.compute_screen_transform()
    turn_wheel(view, QPointF(100, 100), 600)
    assert panel.toolbar.reset_zoom_button.isEnabled()
    if reset == "button":
        panel.toolbar.reset_zoom_button.click()
    elif reset == "double click":
        QTest.mouseDClick(panel.views[1], LEFT, pos=QPoint(50, 50))
    else:
        show_study(panel, "FLAIR", "T1C")
    assert view.compute_screen_transform() == panel.views[1].compute_screen_transform() == fitted
    assert not panel.toolbar.reset_zoom_button.isEnabled()


@pytest.mark.parametrize(("button", "modifier"), [(MIDDLE, NO_MODIFIER), (LEFT, CONTROL)])
@pytest.mark.parametrize("has_brush", [False, True])
def test_dragging_moves_the_image_and_nothing_else(
    panel: ImagePanel, button: Qt.MouseButton, modifier: Qt.KeyboardModifier, has_brush: bool
) -> None:
    view = panel.views[0]
    if has_brush:
        panel.toolbar.brush_button.click()
    grey_window, start, end = view.grey_window, QPoint(150, 200), QPoint(190, 170)
    drag(view, button, start, end, modifier)
    assert view.zoom == Zoom(), "all of the brain is shown, so there is nothing to move"
    turn_wheel(view, QPointF(view.width() / 2, view.height() / 2), 960)
    below_cursor = view.to_image_position(QPointF(start))
    drag(view, button, start, end, modifier)
    moved = view.to_image_position(QPointF(end))
    assert (moved.x(), moved.y()) == pytest.approx((below_cursor.x(), below_cursor.y()))
    drag(view, button, QPoint(0, 0), QPoint(5000, 5000), modifier)
    corner = view.to_image_position(QPointF(0, 0))
    assert (corner.x(), corner.y()) == pytest.approx((view.crop.left(), view.crop.top()))
    assert view.grey_window == grey_window and not panel.mask_editor.mask.any()


@pytest.mark.parametrize("wheel_units", [0, 360, 1200])
def test_the_brush_draws_below_the_cursor_at_any_zoom(panel: ImagePanel, wheel_units: int) -> None:
    view = panel.views[1]
    turn_wheel(view, QPointF(view.width() / 2 + 40, view.height() / 2 + 30), wheel_units)
    panel.toolbar.brush_button.click()
    panel.toolbar.brush_size_slider.setValue(4)
    cursor = QPoint(view.width() // 2 + 20, view.height() // 2 - 10)
    centre = view.to_image_position(QPointF(cursor))
    drag(view, LEFT, cursor, cursor)
    rows, columns = np.nonzero(panel.mask_editor.mask[panel.index])
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((centre.x(), centre.y()), abs=0.5)
    assert len(rows) == pytest.approx(np.pi * 4**2, rel=0.1), "the brush has its size in the image"
    panel.toolbar.undo_button.click()
    assert not panel.mask_editor.mask.any()


def test_the_scale_bar_has_the_length_it_states(panel: ImagePanel) -> None:
    view, lengths = panel.views[0], set()
    view.show_image(np.zeros((240, 240), np.float32))
    for _ in range(6):
        scale = view.compute_screen_transform().m11()  # pixels of the screen per mm: the grid has 1 mm
        length_mm = view.choose_scale_bar_mm()
        lengths.add(length_mm)
        assert 0.1 * view.width() < length_mm * scale <= 0.4 * view.width()
        picture = view.grab().toImage()
        row = [picture.pixelColor(x, view.height() - 14).lightness() for x in range(view.width())]
        drawn = np.flatnonzero(np.array(row[view.width() // 2 :]) > 40)
        assert np.ptp(drawn) == pytest.approx(length_mm * scale, abs=3)
        turn_wheel(view, QPointF(view.width() / 2, view.height() / 2), 360)
    assert lengths == {20, 10, 5, 2}


# ---- sequences and overlays -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sequences",
    [("T1C",), ("T1C", "FLAIR"), ("T1C", "FLAIR", "T2"), ("T1", "T1C", "T2", "FLAIR")],
    ids="-".join,
)
def test_all_sequences_of_the_model_can_be_shown(panel: ImagePanel, sequences: tuple[str, ...]) -> None:
    show_study(panel, *sequences)
    shown = [view for view in panel.views if view.isVisible()]
    assert len(shown) == min(2, len(sequences))
    for number, view in enumerate(shown):
        box = panel.sequence_boxes[number]
        assert box.isVisible() == (len(sequences) > 2) and (view.title == "") == box.isVisible()
        assert (view.title or box.currentText()) == sequences[number]
        for index, sequence in enumerate(sequences if box.isVisible() else sequences[number : number + 1]):
            if box.isVisible():
                box.setCurrentIndex(index)
                box.activated.emit(index)
            assert view._image is panel._slices[sequence][panel.index]
            brightness = sequences.index(sequence) + 1
            assert view.grey_window.high == pytest.approx(brightness, rel=0.01), "each has its own contrast"
    panel.step_slices(1)
    for view in shown:
        assert any(view._image is slices[panel.index] for slices in panel._slices.values())
    panel.toolbar.reset_contrast_button.click()


def test_grad_cam_is_not_covered_by_the_fill_of_the_lesion(panel: ImagePanel) -> None:
    view = panel.views[0]
    heatmap, mask = np.zeros((3, 240, 240), np.uint8), np.zeros((3, 240, 240), bool)
    heatmap[:, 100:140, 100:140] = 255
    mask[:, 80:160, 80:160] = True
    centre = view.compute_screen_transform().map(QPointF(120, 120)).toPoint()
    panel.set_heatmap(heatmap)
    without_fill = view.grab().toImage().pixelColor(centre)
    panel.mask_editor.load_mask(mask)
    panel.toolbar.brush_button.click()  # fills the lesion
    with_fill = view.grab().toImage().pixelColor(centre)
    beside = view.compute_screen_transform().map(QPointF(90, 90)).toPoint()
    filled = view.grab().toImage().pixelColor(beside)
    assert filled.red() - filled.blue() > 15, "the fill is drawn"
    for channel in ("red", "green", "blue"):
        # the heatmap's most opaque colour lets a sixth of the fill through
        assert getattr(with_fill, channel)() == pytest.approx(getattr(without_fill, channel)(), abs=8)


def test_an_outline_is_predicted_with_only_if_nothing_is_missing(panel: ImagePanel) -> None:
    state = create_state("T1C", "FLAIR")
    view = panel.views[0]
    panel.toolbar.brush_button.click()
    drag(
        view,
        LEFT,
        QPoint(view.width() // 2, view.height() // 2),
        QPoint(view.width() // 2, view.height() // 2),
    )
    for missing_input in ("", "Enter age and sex"):
        panel.render_state(state, missing_input)
        assert panel.predict_button.isVisible() and panel.predict_button.isEnabled() == (not missing_input)
        assert panel.hint_label.text().endswith(missing_input or "You have changed the outline.")

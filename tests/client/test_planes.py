"""Three planes of a study in the image panel, with a study's document and slices, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from shiboken6 import delete
from tests.client.test_image_panel import (
    LEFT,
    MIDDLE,
    NO_MODIFIER,
    create_state,
    drag,
    show_study,
    turn_wheel,
)

from gliomark.client.image_panel import ImagePanel
from gliomark.client.language import use_language
from gliomark.client.mask_editor import compute_contour
from gliomark.client.plane_column import reformat_coronal, reformat_sagittal
from gliomark.client.settings import UserSettings
from gliomark.client.slice_view import GreyWindow, SliceView, Zoom

COUNT, SLICE_MM, PIXEL_MM = 20, 6.0, 0.9
ROW, COLUMN, INDEX = 80, 150, 14  # of a bright voxel
FIELDS: dict[str, Any] = {
    "id": "volume",
    "slice_names": [f"{index:03d}" for index in range(COUNT)],
    "shape": [COUNT, 240, 240],
    "spacing_mm": [SLICE_MM, PIXEL_MM, PIXEL_MM],
    "orientation_stated": True,
}


def create_volume() -> np.ndarray:
    """A box-shaped brain with one bright voxel in front of, left of and above the middle."""
    volume = np.zeros((COUNT, 240, 240), np.float32)
    volume[:, 30:210, 50:190] = 1
    volume[INDEX, ROW, COLUMN] = 4
    return volume


def show_volume(panel: ImagePanel, *sequences: str, **fields: Any) -> None:
    panel.render_state(create_state(*sequences, **(FIELDS | fields)))
    for number, sequence in enumerate(sequences):
        for index, image in enumerate(create_volume()):
            panel.set_slice(sequence, index, image * (number + 1))


@pytest.fixture
def panel(app: QApplication) -> Iterator[ImagePanel]:
    panel = ImagePanel()
    panel.resize(684, 668)  # as in a window of 1366 x 768
    panel.show()
    show_volume(panel, "T1C", "FLAIR")
    panel.toolbar.planes_toggle.click()
    for _ in range(5):
        app.processEvents()
    yield panel
    delete(panel)  # the theme is applied again to every widget that is left


def click(view: SliceView, x: float, y: float) -> None:
    """Click at a position in image pixels."""
    position = view.compute_screen_transform().map(QPointF(x, y)).toPoint()
    QTest.mouseClick(view, LEFT, NO_MODIFIER, position)


def get_position(panel: ImagePanel) -> tuple[int, int, int]:
    """Return slice, row and column of the crosshair."""
    x, y = panel._locate_crosshair()
    return panel.index, int(y), int(x)


def find_brightest(view: SliceView) -> tuple[int, int]:
    row, column = np.unravel_index(np.argmax(view._image), view._image.shape)
    assert view._image.max() == 4
    return int(row), int(column)


# ---- geometry ---------------------------------------------------------------------------------------


def test_the_planes_cut_the_volume_with_the_uppermost_slice_first() -> None:
    volume = np.random.default_rng(0).random((5, 7, 9))
    coronal, sagittal = reformat_coronal(volume, 3), reformat_sagittal(volume, 4)
    assert coronal.shape == (5, 9) and sagittal.shape == (5, 7)
    for index in range(5):
        np.testing.assert_array_equal(coronal[4 - index], volume[index, 3])
        np.testing.assert_array_equal(sagittal[4 - index], volume[index, :, 4])


@pytest.mark.parametrize("slice_mm", [0.9, 2.0, 6.0])
def test_the_planes_are_as_high_as_the_brain(panel: ImagePanel, slice_mm: float) -> None:
    """A length in mm is as long upwards as it is sideways."""
    show_volume(panel, "T1C", "FLAIR", id="other", spacing_mm=[slice_mm, PIXEL_MM, PIXEL_MM])
    for view in panel.planes.views:
        transform = view.compute_screen_transform()
        assert transform.m22() / slice_mm == pytest.approx(transform.m11() / PIXEL_MM)
        assert view.pixels_per_mm == pytest.approx(transform.m11() / PIXEL_MM)
        brain = transform.mapRect(view.crop)
        assert view.rect().adjusted(-1, -1, 1, 1).contains(brain.toAlignedRect().adjusted(1, 1, -1, -1))
        whole = view.crop.height() * slice_mm
        assert whole == pytest.approx(COUNT * slice_mm + 16), "all slices and a margin of 8 mm"


@pytest.mark.parametrize(
    ("fields", "letters"),
    [
        ({}, (("R", "L", "A", "P"), ("R", "L", "S", "I"), ("A", "P", "S", "I"))),
        ({"orientation_stated": False}, (("R", "L", "", ""), ("",) * 4, ("",) * 4)),
        ({"orientation_stated": None}, (("R", "L", "", ""), ("",) * 4, ("",) * 4)),
    ],
    ids=["stated", "assumed", "older server"],
)
def test_directions_are_named_only_where_the_files_state_them(
    panel: ImagePanel, fields: dict[str, Any], letters: tuple[tuple[str, ...], ...]
) -> None:
    show_volume(panel, "T1C", "FLAIR", id="other", **fields)
    assert tuple(view.edge_letters for view in (panel.views[0], *panel.planes.views)) == letters


# ---- the crosshair ----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["axial", "coronal", "sagittal"])
def test_a_click_in_any_plane_moves_the_others(panel: ImagePanel, start: str) -> None:
    axial, coronal, sagittal = panel.views[0], *panel.planes.views
    height = COUNT - 1 - INDEX
    if start == "axial":
        panel.slice_strip.setValue(INDEX)
        click(axial, COLUMN + 0.5, ROW + 0.5)
    elif start == "coronal":
        click(axial, 100, ROW + 0.5)
        click(coronal, COLUMN + 0.5, height + 0.5)
    else:
        click(axial, COLUMN + 0.5, 60)
        click(sagittal, ROW + 0.5, height + 0.5)
    assert get_position(panel) == (INDEX, ROW, COLUMN)
    assert find_brightest(axial) == (ROW, COLUMN)
    assert find_brightest(coronal) == (height, COLUMN)
    assert find_brightest(sagittal) == (height, ROW)
    for view, expected in (
        (axial, (COLUMN, ROW)),
        (coronal, (COLUMN, height)),
        (sagittal, (ROW, height)),
    ):
        crosshair = view._crosshair
        assert (int(crosshair.x()), int(crosshair.y())) == expected


def test_dragging_moves_the_crosshair_and_keeps_the_contrast(panel: ImagePanel) -> None:
    axial, coronal = panel.views[0], panel.planes.coronal_view
    grey_window = axial.grey_window
    to_screen = axial.compute_screen_transform()
    start, end = to_screen.map(QPointF(100, 100)).toPoint(), to_screen.map(QPointF(130, 90)).toPoint()
    drag(axial, LEFT, start, end)
    assert get_position(panel)[1:] == pytest.approx((90, 130), abs=1)
    drag(coronal, LEFT, QPoint(30, 80), QPoint(5000, -5000))
    assert get_position(panel)[::2] == (COUNT - 1, 239), "it stays within the images"
    assert axial.grey_window == coronal.grey_window == grey_window


def test_the_wheel_pages_each_plane(panel: ImagePanel) -> None:
    click(panel.views[0], 100.5, 90.5)
    index = panel.index
    centre = QPointF(60, 60)
    turn_wheel(panel.planes.coronal_view, centre, 120, NO_MODIFIER)
    turn_wheel(panel.planes.sagittal_view, centre, -120, NO_MODIFIER)
    turn_wheel(panel.views[0], centre, 120, NO_MODIFIER)
    assert get_position(panel) == (index + 1, 91, 99)


def test_the_crosshair_begins_in_the_middle_of_the_lesion_and_stays_while_it_is_drawn(
    panel: ImagePanel,
) -> None:
    mask = np.zeros((COUNT, 240, 240), bool)
    mask[8:12, 100:121, 60:71] = True
    panel.mask_editor.load_mask(mask)
    assert get_position(panel)[1:] == (110, 65)
    assert panel.planes._position.y == 110.5, "also without another action"
    panel.toolbar.brush_button.click()
    axial = panel.views[0]
    drag(axial, LEFT, *[axial.compute_screen_transform().map(QPointF(180, 180)).toPoint()] * 2)
    assert panel.mask_editor.is_edited and get_position(panel)[1:] == (110, 65)


# ---- what the planes show ---------------------------------------------------------------------------


def test_outline_and_heatmap_are_shown_in_all_planes(panel: ImagePanel) -> None:
    mask = np.zeros((COUNT, 240, 240), bool)
    mask[8:12, 100:121, 60:71] = True
    panel.mask_editor.load_mask(mask)
    coronal, sagittal = panel.planes.views
    for view, expected in ((coronal, mask[::-1, 110]), (sagittal, mask[::-1, :, 65])):
        assert view._contour_path.elementCount() == 2 * len(compute_contour(expected)) > 0
        box = view._contour_path.boundingRect()
        assert (box.top(), box.bottom()) == (COUNT - 12, COUNT - 8)
    panel.toolbar.segmentation_toggle.click()
    assert coronal._contour_path.isEmpty() and sagittal._contour_path.isEmpty()
    heatmap = np.zeros((COUNT, 240, 240), np.uint8)
    heatmap[10, 110, 65] = 255
    panel.set_heatmap(heatmap)
    for view, x in ((coronal, 65), (sagittal, 110)):
        assert view._heatmap_image.pixelColor(x, COUNT - 11).alpha() > 150
        assert view._heatmap_image.pixelColor(x, COUNT - 10).alpha() == 0
    panel.set_heatmap(None)
    assert coronal._heatmap_image is None


def test_the_planes_show_the_sequence_and_contrast_of_the_axial_view(panel: ImagePanel) -> None:
    box, axial = panel.sequence_boxes[0], panel.views[0]
    assert box.isVisible() and not panel.views[1].isVisible()
    assert [box.itemText(number) for number in range(box.count())] == ["T1C", "FLAIR"]
    box.setCurrentIndex(1)
    box.activated.emit(1)
    for view in (axial, *panel.planes.views):
        assert view.grey_window.high == pytest.approx(2.1)  # of a uniform brain
    assert panel.planes.coronal_view._image.max() == pytest.approx(2)
    axial.show_grey_window(GreyWindow(0, 9))
    axial.grey_window_changed.emit()
    assert panel.planes.coronal_view.grey_window == GreyWindow(0, 9)
    panel.planes.coronal_view.show_grey_window(GreyWindow(1, 5))
    panel.planes.coronal_view.grey_window_changed.emit()
    assert axial.grey_window == panel.planes.sagittal_view.grey_window == GreyWindow(1, 5)
    panel.toolbar.planes_toggle.click()
    assert [view.title for view in panel.views] == ["T1C", "FLAIR"], "both sequences again"
    assert axial.grey_window.high == pytest.approx(1.1)


def test_slices_appear_in_the_planes_as_they_arrive(panel: ImagePanel) -> None:
    panel.render_state(create_state("T1C", "FLAIR", **(FIELDS | {"id": "arriving"})))
    coronal = panel.planes.coronal_view
    assert not coronal._image.any()
    panel.set_slice("T1C", 3, create_volume()[3])
    assert coronal._image[COUNT - 1 - 3].any() and not np.delete(coronal._image, COUNT - 1 - 3, 0).any()


def test_all_planes_are_shown_whole_again(panel: ImagePanel) -> None:
    sagittal = panel.planes.sagittal_view
    turn_wheel(sagittal, QPointF(80, 80), 480)
    assert sagittal.zoom.factor > 2 and panel.toolbar.reset_zoom_button.isEnabled()
    assert panel.views[0].zoom == panel.planes.coronal_view.zoom == Zoom()
    drag(sagittal, MIDDLE, QPoint(80, 80), QPoint(90, 80))
    panel.toolbar.reset_zoom_button.click()
    assert sagittal.zoom == Zoom() and not panel.toolbar.reset_zoom_button.isEnabled()


# ---- the switch -------------------------------------------------------------------------------------


def test_the_planes_can_be_hidden(panel: ImagePanel) -> None:
    assert panel.planes.isVisible()
    panel.toolbar.planes_toggle.click()
    assert not panel.planes.isVisible() and all(view.isVisible() for view in panel.views)
    assert panel.views[0]._crosshair is None and not panel.views[0].picks_position
    grey_window = panel.views[0].grey_window
    drag(panel.views[0], LEFT, QPoint(50, 50), QPoint(90, 50))
    assert panel.views[0].grey_window != grey_window, "the left button changes the contrast again"


@pytest.mark.parametrize(
    "fields",
    [{"shape": [1, 240, 240], "slice_names": ["1"]}, {"spacing_mm": None}],
    ids=["one slice", "older server"],
)
def test_one_slice_or_unknown_spacing_has_no_other_planes(panel: ImagePanel, fields: dict[str, Any]) -> None:
    panel.render_state(create_state("T1C", "FLAIR", **(FIELDS | {"id": "other"} | fields)))
    assert not panel.toolbar.planes_toggle.isEnabled() and not panel.planes.isVisible()
    assert "several slices of known spacing" in panel.toolbar.planes_toggle.toolTip()
    assert all(view.isVisible() for view in panel.views)
    show_volume(panel, "T1C", "FLAIR")
    assert panel.planes.isVisible(), "the switch stays as it was"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_is_cut_off_in_a_small_window(panel: ImagePanel, app: QApplication, language: Any) -> None:
    use_language(language)
    panel.render_state(create_state("T1C", "FLAIR", **(FIELDS | {"spacing_assumed": True})))
    for _ in range(5):
        app.processEvents()
    assert (panel.width(), panel.height()) == (684, 668)
    shown = (
        panel.views[0],
        *panel.planes.views,
        panel.slice_strip,
        panel.hint_label,
        *panel.toolbar._tool_buttons.values(),
    )
    for part in shown:
        corner = part.mapTo(panel, QPoint(0, 0))
        assert panel.rect().contains(part.rect().translated(corner)), part
        assert part.width() >= part.minimumSizeHint().width()
    titles = [view.title for view in panel.planes.views]
    assert titles == (["Coronal", "Sagittal"] if language == "en" else ["冠状位", "矢状位"])
    assert ("estimates" if language == "en" else "估计值") in panel.hint_label.text()


def test_the_switch_is_remembered() -> None:
    settings = UserSettings()
    assert settings.shows_planes is False
    settings.shows_planes = True
    assert UserSettings().shows_planes is True
    settings.shows_planes = False
    assert UserSettings().shows_planes is False


def test_a_study_of_two_axial_views_is_unchanged(app: QApplication) -> None:
    panel = ImagePanel()
    panel.show()
    show_study(panel, "T1C", "FLAIR")
    assert not panel.planes.isVisible() and all(view.isVisible() for view in panel.views)
    assert not any(box.isVisible() for box in panel.sequence_boxes)
    delete(panel)

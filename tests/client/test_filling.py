"""Slices between corrected ones are filled with interpolated shapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from PySide6.QtWidgets import QApplication
from shiboken6 import delete
from tests.client.test_image_panel import create_state, show_study

from gliomark.client import mask_editor
from gliomark.client.image_panel import ImagePanel
from gliomark.client.language import use_language
from gliomark.client.mask_editor import MaskEditor, compute_stroke_mask
from gliomark.client.shape_interpolation import Mask, compute_signed_distance, interpolate_masks
from gliomark.client.state import ClientState, Task

SIZE = 90
NOTHING = np.zeros((SIZE, SIZE), bool)


def create_disc(radius: float, x: float = 45.0, y: float = 45.0) -> Mask:
    return compute_stroke_mask((SIZE, SIZE), (x, y), (x, y), radius)


def compute_radius(mask: Mask) -> float:
    return float(np.sqrt(mask.sum() / np.pi))


def create_editor(slice_count: int, mask: Mask = NOTHING) -> MaskEditor:
    editor = MaskEditor()
    editor.load_mask(np.stack([mask] * slice_count))
    return editor


def draw(editor: MaskEditor, index: int, radius: float, x: float = 45.0, y: float = 45.0) -> None:
    editor.paint_segment(index, (x, y), (x, y), radius, True)
    editor.finish_stroke(index)


def erase(editor: MaskEditor, index: int) -> None:
    editor.paint_segment(index, (0.0, 45.0), (90.0, 45.0), 90.0, False)
    editor.finish_stroke(index)


# ---- the shapes -------------------------------------------------------------------------------------


def test_the_signed_distance_is_that_of_every_pair_of_pixels() -> None:
    mask = (
        create_disc(9, 12, 30)
        | create_disc(4, 70, 50)
        | (np.random.default_rng(0).random((SIZE, SIZE)) > 0.999)
    )
    mask = mask[:60, :80]
    mask[20:30, :3] = True  # up to the border of the image
    padded = np.pad(mask, 1)
    inside, outside = np.argwhere(padded), np.argwhere(~padded)
    found = compute_signed_distance(mask)
    for row, column in ((30, 12), (0, 0), (25, 0), (59, 79), (50, 70), (45, 45), (20, 2)):
        others = outside if mask[row, column] else inside
        nearest = np.hypot(*(others - (row + 1, column + 1)).T).min() - 0.5
        assert found[row, column] == pytest.approx(nearest if mask[row, column] else -nearest)
    np.testing.assert_array_equal(found > 0, mask)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    "shape",
    [
        create_disc(12),
        create_disc(20) & ~create_disc(8),
        create_disc(7, 3, 45),
        create_disc(6, 20) | create_disc(9, 70),
    ],
    ids=["disc", "ring", "cut by the border", "two lesions"],
)
def test_between_equal_shapes_is_the_same_shape(shape: Mask, count: int) -> None:
    between = interpolate_masks(shape, shape, count)
    assert len(between) == count
    for mask in between:
        np.testing.assert_array_equal(mask, shape)


@pytest.mark.parametrize(("lower", "upper"), [(10, 20), (20, 10), (5, 30)])
def test_a_disc_grows_evenly(lower: float, upper: float) -> None:
    count = 4
    between = interpolate_masks(create_disc(lower), create_disc(upper), count)
    expected = np.linspace(lower, upper, count + 2)[1:-1]
    assert [compute_radius(mask) for mask in between] == pytest.approx(list(expected), abs=0.5)
    for mask in between:
        rows, columns = np.nonzero(mask)
        assert (rows.mean(), columns.mean()) == pytest.approx((44.5, 44.5), abs=0.5)
    (middle,) = interpolate_masks(create_disc(10), create_disc(20), 1)
    assert compute_radius(middle) == pytest.approx(15, abs=0.5)


def test_an_overlapping_disc_moves(count: int = 3) -> None:
    between = interpolate_masks(create_disc(15, 40), create_disc(15, 48), count)
    centres = [float(np.nonzero(mask)[1].mean()) for mask in between]
    assert centres == pytest.approx([41.5, 43.5, 45.5], abs=0.6)


def test_two_lesions_are_interpolated_separately() -> None:
    lower, upper = create_disc(6, 20) | create_disc(14, 65), create_disc(12, 20) | create_disc(8, 65)
    (middle,) = interpolate_masks(lower, upper, 1)
    assert compute_radius(middle[:, :40]) == pytest.approx(9, abs=0.5)
    assert compute_radius(middle[:, 40:]) == pytest.approx(11, abs=0.5)
    assert not middle[:, 34:48].any()


@pytest.mark.parametrize(("lower", "upper"), [(NOTHING, create_disc(5)), (create_disc(5), NOTHING)])
def test_an_empty_slice_has_no_shape(lower: Mask, upper: Mask) -> None:
    with pytest.raises(ValueError, match="empty"):
        interpolate_masks(lower, upper, 1)


# ---- the slices -------------------------------------------------------------------------------------


def test_the_model_s_outline_is_replaced_only_between_corrected_slices() -> None:
    model = create_disc(25, 30)
    editor = create_editor(9, model)
    for index in (2, 6):
        erase(editor, index)
        draw(editor, index, 12)
    assert editor.drawn_indices == (2, 6) and editor.list_gaps() == [(2, 6)]
    editor.fill_gaps()
    for index in (0, 1, 7, 8):
        np.testing.assert_array_equal(editor.mask[index], model)
    for index in range(2, 7):
        np.testing.assert_array_equal(editor.mask[index], create_disc(12))
    before = editor.mask.copy()
    assert editor.undo() == 3, "all slices in one step"
    for index in (3, 4, 5):
        np.testing.assert_array_equal(editor.mask[index], model)
    np.testing.assert_array_equal(editor.mask[2], create_disc(12))
    assert editor.redo() == 3
    np.testing.assert_array_equal(editor.mask, before)


def test_a_filled_slice_is_no_end_until_it_is_drawn() -> None:
    editor = create_editor(9)
    draw(editor, 0, 10)
    draw(editor, 8, 20)
    editor.fill_gaps()
    assert editor.list_gaps() == [(0, 8)] and compute_radius(editor.mask[4]) == pytest.approx(15, abs=0.5)
    draw(editor, 4, 25)
    assert editor.list_gaps() == [(0, 4), (4, 8)]
    editor.fill_gaps()
    assert compute_radius(editor.mask[2]) == pytest.approx(17.5, abs=0.5)
    assert compute_radius(editor.mask[6]) == pytest.approx(22.5, abs=0.5)
    editor.undo()
    editor.undo()
    assert editor.list_gaps() == [(0, 8)], "the stroke on slice 4 is undone"
    editor.redo()
    assert editor.list_gaps() == [(0, 4), (4, 8)]


def test_a_slice_that_was_erased_ends_the_lesion() -> None:
    editor = create_editor(7, create_disc(10))
    erase(editor, 3)
    draw(editor, 0, 15)
    draw(editor, 6, 15)
    assert editor.drawn_indices == (0, 6) and editor.list_gaps() == []
    editor.fill_gaps()
    assert not editor.mask[3].any()
    np.testing.assert_array_equal(editor.mask[2], create_disc(10))


def test_slices_keep_their_outline_where_the_shapes_do_not_overlap() -> None:
    editor = create_editor(4, create_disc(4))
    for index, x in ((0, 10.0), (3, 80.0)):
        erase(editor, index)
        draw(editor, index, 5, x)
    editor.fill_gaps()
    for index in (1, 2):
        np.testing.assert_array_equal(editor.mask[index], create_disc(4))


@pytest.mark.parametrize("change", ["loaded", "applied"])
def test_another_mask_has_no_slices_drawn_by_hand(change: str) -> None:
    editor = create_editor(5)
    draw(editor, 0, 10)
    draw(editor, 4, 10)
    other = np.stack([create_disc(20)] * 5)
    if change == "loaded":
        editor.load_mask(other)
    else:
        editor.apply_mask(other)
    assert editor.list_gaps() == []
    editor.fill_gaps()
    np.testing.assert_array_equal(editor.mask, other)
    if change == "applied":
        editor.undo()
        assert editor.list_gaps() == [(0, 4)]


def test_slices_drawn_before_the_oldest_undo_step_are_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_editor, "MAXIMUM_UNDO_STEPS", 3)
    editor = create_editor(9)
    for index in (0, 4, 8):
        for radius in (5, 10):
            draw(editor, index, radius)
    assert editor.list_gaps() == [(0, 4), (4, 8)]


# ---- the button -------------------------------------------------------------------------------------


@pytest.fixture
def panel(app: QApplication) -> Iterator[ImagePanel]:
    panel = ImagePanel()
    panel.show()
    show_study(panel, "T1C", "FLAIR")
    yield panel
    delete(panel)  # the theme is applied again to every widget that is left


def draw_on(panel: ImagePanel, index: int) -> None:
    panel.mask_editor.paint_segment(index, (120.0, 120.0), (120.0, 120.0), 10, True)
    panel.mask_editor.finish_stroke(index)


@pytest.mark.parametrize(
    ("drawn", "reason", "chinese"),
    [
        ((), "on two slices first", "请先修改两个层面"),
        ((1,), "on two slices first", "请先修改两个层面"),
        ((0, 1), "no undrawn slice between", "没有未修改的层面"),
        ((0, 1, 2), "no undrawn slice between", "没有未修改的层面"),
        ((0, 2), "", "用插值所得的形状替换"),
    ],
)
def test_the_button_says_why_there_is_nothing_to_fill(
    panel: ImagePanel, drawn: tuple[int, ...], reason: str, chinese: str
) -> None:
    for index in drawn:
        draw_on(panel, index)
    assert panel.toolbar.fill_button.isEnabled() == (not reason)
    assert (reason or "interpolated shapes") in panel.toolbar.fill_button.toolTip()
    use_language("zh")
    panel.render_state(create_state("T1C", "FLAIR"))
    assert chinese in panel.toolbar.fill_button.toolTip()


def test_the_button_fills_and_undo_restores(panel: ImagePanel) -> None:
    draw_on(panel, 0)
    draw_on(panel, 2)
    panel.toolbar.fill_button.click()
    np.testing.assert_array_equal(panel.mask_editor.mask[1], panel.mask_editor.mask[0])
    panel.toolbar.undo_button.click()
    assert not panel.mask_editor.mask[1].any() and panel.index == 1
    busy = create_state("T1C", "FLAIR")
    panel.render_state(ClientState(server_status="ready", study=busy.study, task=Task("predicting")))
    assert not panel.toolbar.fill_button.isEnabled(), "the outline is not changed while it is predicted with"

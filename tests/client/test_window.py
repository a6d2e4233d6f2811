"""The four steps, the correction of the outline and the errors, in the window with a running server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QImage, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QFileDialog,
    QLabel,
    QLineEdit,
    QMessageBox,
    QWidget,
)

from gliomark.client.language import format_local_time, translate_message
from gliomark.client.main_window import MainWindow
from gliomark.client.png import encode_mask
from gliomark.client.response_time import TIMEOUT_S, is_idle, wait_until
from gliomark.client.result_panel import MarkerCard
from gliomark.client.settings import LevelFields, ServerDialog, UserSettings
from gliomark.client.study_list import StudyListDialog
from gliomark.files import encode_png
from gliomark.messages import describe_level, format_percent

# not translated into Chinese: names, units, file formats, keys, the button for English
NAMES = re.compile(
    r"gliomark|English|mask|T1C|T1c|T1|FLAIR|IDH\d?|Grad-CAM|AUC|TCGA-LGG|xlsx|csv|id|age|sex|HTML|PDF|DICOM|zip"
    r"|NIfTI|PACS|SEG|RTSTRUCT|clinical|https?://\S+|demonstration|[0-9a-f]{12}|W|L|R|mm|ml|UTF-8|GB18030|Ctrl|Delete|Esc|M|P"
)


# of a marker whose weights have no patient-level calibration
UNCALIBRATED = {
    "limits": None,
    "limits_in_words": "",
    "calibration": None,
    "calibration_in_words": "",
    "threshold": 0.6,
}


def find_cards(window: MainWindow) -> dict[str, MarkerCard]:
    return {card.marker: card for card in window.result_panel.findChildren(MarkerCard) if not card.isHidden()}


def draw_stroke(window: MainWindow, number: int, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Draw with the left button in one of the views; points are pixels of the image."""
    view = window.image_panel.views[number]
    first, last = (view.compute_screen_transform().map(QPointF(*point)).toPoint() for point in (start, end))
    QTest.mousePress(view, Qt.MouseButton.LeftButton, pos=first)
    for fraction in np.linspace(0, 1, 12):
        QTest.mouseMove(view, first + (last - first) * float(fraction))
    QTest.mouseRelease(view, Qt.MouseButton.LeftButton, pos=last)


# ---- the four steps ---------------------------------------------------------------------------------


def test_the_patient_is_found_from_a_sequence_folder(
    restored_window: MainWindow, phantom_folder: Path
) -> None:
    state = restored_window.session.state
    assert state.patient_folder == phantom_folder and state.patient_id == "患者 7"
    assert restored_window.input_panel.patient_label.text() == "患者 7"
    assert restored_window.input_panel.status_label.text() == f"T1C, FLAIR · {state.study['shape'][0]} slices"
    assert restored_window.settings.recent_folders[0] == phantom_folder


def test_the_table_fills_in_age_and_sex(restored_window: MainWindow) -> None:
    assert (
        restored_window.input_panel.age_field.text() == "49"
        and restored_window.input_panel.sex_control.value == 1
    )
    assert restored_window.input_panel.table_label.text() == "From clinical.csv"
    assert restored_window.session.state.job["request"]["age"] == 49


def test_all_fields_of_a_prediction_are_shown(restored_window: MainWindow) -> None:
    """Every marker of prediction.json is shown with level, probability, limits, slices and validation."""
    markers = restored_window.session.state.prediction["markers"]
    shown = find_cards(restored_window)
    assert list(shown) == [marker["marker"] for marker in markers] == ["idh"]
    for marker in markers:
        card = shown[marker["marker"]]
        assert card.title_label.text() == marker["title"]
        assert card.level_label.text() == describe_level(marker["level"], marker["borderline"], "en")
        assert card.percent_label.text() == format_percent(marker["probability"])
        assert card.probability_bar.probability == marker["probability"] and card.probability_bar.marks == (
            marker["limits"]["negative_below"],
            marker["limits"]["positive_above"],
        )
        assert card.limits_label.text() == marker["limits_in_words"]
        assert card.calibration_label.text() == marker["calibration_in_words"]
        assert marker["performance"] in card.performance_label.text()
        assert re.findall(r">(\d+)</a>", card.slices_label.text()) == marker["slices_used"]
        assert card.warnings_label.text() == "\n".join(marker["warnings"])
        assert card.reader_tag.isHidden()
    assert shown["idh"].question_label.text() == "Probability of “mutant”"
    assert "IDH1 or IDH2 is mutated" in shown["idh"].definition_label.text()
    assert (
        "49 years · female · enhancing focus: not stated · the model's outline"
        in restored_window.result_panel.inputs_label.text()
    )


def test_the_range_over_slices_is_written_and_drawn(restored_window: MainWindow) -> None:
    marker = restored_window.session.state.prediction["markers"][0]
    probabilities = [score["probability"] for score in marker["slices"]]
    assert marker["probability_range"] == [min(probabilities), max(probabilities)] and min(
        probabilities
    ) < max(probabilities)
    card = find_cards(restored_window)["idh"]
    low, high = (f"{100 * fraction:.0f} %" for fraction in marker["probability_range"])
    assert card.range_label.text() == f"Range across lesion slices: {low} to {high} (before calibration)"
    assert card.range_label.text() in card.probability_bar.accessibleName()
    assert "Not a confidence interval" in card.probability_bar.toolTip() == card.range_label.toolTip()
    assert find_range_bracket(card) is None, "not on the scale of the calibrated bar"
    restored_window.switch_language("zh")
    wait_until(lambda: card.range_label.text() == f"各病灶层面的概率范围：{low} 至 {high}（校准前）")
    restored_window.switch_language("en")
    card.render_marker(marker | UNCALIBRATED, restored_window.session.state)
    assert card.range_label.text() == f"Range across lesion slices: {low} to {high}"
    assert card.probability_bar.marks_text == "threshold 60 %" and card.limits_label.isHidden()
    width = card.probability_bar.width()
    left, right = find_range_bracket(card)
    assert (left / width, right / width) == pytest.approx(marker["probability_range"], abs=0.02)
    card.render_marker(marker, restored_window.session.state)


@pytest.mark.parametrize("older", [False, True])
def test_no_range_is_shown_for_one_slice_or_an_older_prediction(
    restored_window: MainWindow, older: bool
) -> None:
    state, card = restored_window.session.state, find_cards(restored_window)["idh"]
    marker = dict(state.prediction["markers"][0]) | UNCALIBRATED
    slice_range = marker.pop("probability_range")
    card.render_marker(marker if older else marker | {"probability_range": None}, state)
    assert (
        card.range_label.isHidden()
        and find_range_bracket(card) is None
        and card.probability_bar.toolTip() == ""
    )
    card.render_marker(marker | {"probability_range": [0.3, 0.3]}, state)
    assert card.range_label.text() == "30 % on every lesion slice" and find_range_bracket(card) is None
    card.render_marker(marker | {"probability_range": slice_range}, state)
    assert card.range_label.isVisible() and find_range_bracket(card)
    card.render_marker(state.prediction["markers"][0], state)


def find_range_bracket(card: MarkerCard) -> tuple[int, int] | None:
    """Find first and last column of the bracket above the bar; None without one."""
    row = card.probability_bar.grab().toImage().convertToFormat(QImage.Format.Format_Grayscale8)
    grey = np.array([row.pixelColor(x, 1).value() for x in range(row.width())])
    drawn = np.flatnonzero(grey > 100)
    return (int(drawn[0]), int(drawn[-1])) if drawn.size else None


def test_the_outline_is_on_the_lesion(restored_window: MainWindow) -> None:
    """Slices, masks and areas have the correct order and orientation: FLAIR is bright inside the outline."""
    images, state = restored_window.image_panel, restored_window.session.state
    flair, mask = np.stack(images._slices["FLAIR"]), images.mask_editor.mask
    brain = flair > state.study["grey"]["FLAIR"]["low"] + 1e-3
    assert flair[mask].mean() > flair[brain & ~mask].mean() + 1
    assert mask.sum(axis=(1, 2)).tolist() == pytest.approx(state.list_lesion_areas(), rel=0.01)
    assert state.collect_used_slice_indices() <= set(np.flatnonzero(mask.any(axis=(1, 2))))


def test_the_location_of_the_lesion_is_stated_on_request(restored_window: MainWindow) -> None:
    steps, result = restored_window.input_panel, restored_window.result_panel
    if not restored_window.session.state.can_locate_lesion:
        pytest.skip("the atlas is not installed")
    assert not restored_window.session.state.prediction.get("location")
    steps.location_box.click()
    assert not result.stale_label.isHidden()
    steps.predict_button.click()
    wait_until(lambda: is_idle(restored_window))
    location = restored_window.session.state.prediction["location"]
    assert translate_message(location["summary"]) in result.lesion_label.text()
    assert result.stale_label.isHidden()
    steps.location_box.click()
    steps.predict_button.click()
    wait_until(lambda: is_idle(restored_window))
    assert not restored_window.session.state.prediction.get("location")


def test_the_readers_finding_decides_idh_and_is_named(restored_window: MainWindow) -> None:
    model_probability = restored_window.session.state.prediction["markers"][0]["probability"]
    restored_window.input_panel.enhancing_control.buttons[1].click()  # no
    assert not restored_window.result_panel.stale_label.isHidden()
    restored_window.input_panel.predict_button.click()
    wait_until(lambda: is_idle(restored_window))
    card = find_cards(restored_window)["idh"]
    assert card.level_label.text() == "mutant" and not card.reader_tag.isHidden()
    assert card.reader_tag.text() == "from the reader's finding"
    assert card.question_label.text() == "For comparison, the model's probability of “mutant”"
    assert card.probability_bar.probability == model_probability and card.probability_bar.is_muted
    assert restored_window.result_panel.stale_label.isHidden()
    assert (
        "Accuracy of the reader's finding" in card.performance_label.text()
        and "55 of 86" in card.performance_label.text()
    )


def test_a_prediction_requires_age_and_sex(restored_window: MainWindow) -> None:
    steps = restored_window.input_panel
    steps.age_field.setText("")
    steps.input_changed.emit()
    assert not steps.predict_button.isEnabled() and "Enter age and sex" in steps.missing_input_label.text()
    steps.age_field.setText("forty")
    steps.input_changed.emit()
    assert not steps.predict_button.isEnabled() and "The age forty is not" in steps.missing_input_label.text()
    steps.age_field.setText("")
    steps.without_clinical_box.setChecked(True)
    assert steps.predict_button.isEnabled() and steps.prediction_request["without_clinical"] is True
    steps.without_clinical_box.setChecked(False)
    steps.age_field.setText("49")
    steps.input_changed.emit()
    assert steps.predict_button.isEnabled()


def test_a_cancelled_prediction_keeps_the_earlier_result(restored_window: MainWindow) -> None:
    before = restored_window.session.state.job["id"]
    restored_window.input_panel.predict_button.click()
    wait_until(lambda: restored_window.session.state.running_job_id)
    restored_window.input_panel.cancel_button.click()
    wait_until(lambda: is_idle(restored_window))
    assert restored_window.session.state.job["id"] == before and restored_window.session.state.error is None
    assert (
        restored_window.input_panel.predict_button.isVisible()
        and restored_window.input_panel.predict_button.isEnabled()
    )


# ---- viewing ---------------------------------------------------------------------------------------


def test_paging_moves_both_views(restored_window: MainWindow, qtbot) -> None:
    images = restored_window.image_panel
    last = images.slice_strip.maximum()
    images.setFocus()
    images.slice_strip.setValue(3)
    for key, expected in (
        (Qt.Key.Key_Right, 4),
        (Qt.Key.Key_Up, 5),
        (Qt.Key.Key_Left, 4),
        (Qt.Key.Key_Down, 3),
        (Qt.Key.Key_PageUp, 8),
        (Qt.Key.Key_PageDown, 3),
        (Qt.Key.Key_End, last),
        (Qt.Key.Key_Right, last),
        (Qt.Key.Key_Home, 0),
    ):
        qtbot.keyClick(images, key)
        assert images.index == expected
    assert not images.previous_button.isEnabled() and images.next_button.isEnabled()
    images.next_button.click()
    position = QPointF(50, 50)
    wheel_event = QWheelEvent(
        position,
        position,
        QPoint(),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(images.views[1], wheel_event)
    assert images.index == 2
    qtbot.mouseClick(
        images.slice_strip, Qt.MouseButton.LeftButton, pos=QPoint(images.slice_strip.width() - 2, 20)
    )
    assert images.index == last
    for view, name in zip(images.views, ("T1C", "FLAIR"), strict=True):
        np.testing.assert_array_equal(view._image, images._slices[name][last])
    assert f"({last + 1} of {last + 1})" in images.position_label.text()


def test_keys_in_a_text_field_do_not_change_the_slice(restored_window: MainWindow, qtbot) -> None:
    restored_window.image_panel.slice_strip.setValue(5)
    restored_window.input_panel.age_field.setFocus()
    qtbot.keyClick(restored_window.input_panel.age_field, Qt.Key.Key_Home)
    qtbot.keyClick(restored_window.input_panel.age_field, Qt.Key.Key_Left)
    assert restored_window.image_panel.index == 5


def test_contrast_is_changed_by_dragging_and_can_be_reset(restored_window: MainWindow) -> None:
    view = restored_window.image_panel.views[0]
    before = view.grey_window
    for button in (Qt.MouseButton.RightButton, Qt.MouseButton.LeftButton):
        QTest.mousePress(view, button, pos=QPoint(100, 100))
        QTest.mouseMove(view, QPoint(150, 70))
        QTest.mouseRelease(view, button, pos=QPoint(150, 70))
        assert view.grey_window.high - view.grey_window.low > 1.2 * (before.high - before.low)
        restored_window.image_panel.toolbar.reset_contrast_button.click()
        assert view.grey_window == before


def test_the_outline_can_be_hidden_and_made_transparent(restored_window: MainWindow) -> None:
    images = restored_window.image_panel
    images.slice_strip.setValue(int(np.argmax(restored_window.session.state.list_lesion_areas())))

    def count_yellow_pixels() -> int:
        picture = images.views[1].grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
        raw = np.frombuffer(picture.constBits(), np.uint8).reshape(picture.height(), -1)
        pixels = raw[:, : 3 * picture.width()].reshape(picture.height(), -1, 3).astype(int)
        return int(((pixels[..., 0] - pixels[..., 2]) > 100).sum())

    images.toolbar.opacity_slider.setValue(100)
    bright = count_yellow_pixels()
    images.toolbar.opacity_slider.setValue(30)
    faint = count_yellow_pixels()
    images.toolbar.segmentation_toggle.click()
    hidden = count_yellow_pixels()
    images.toolbar.segmentation_toggle.click()
    images.toolbar.opacity_slider.setValue(85)
    assert bright > 100 and faint < bright / 2 and hidden == 0


@pytest.mark.slow
def test_grad_cam_is_shown_only_on_deciding_slices(restored_window: MainWindow) -> None:
    restored_window.image_panel.slice_strip.setValue(0)
    card = find_cards(restored_window)["idh"]
    card.heatmap_button.click()
    wait_until(lambda: restored_window.image_panel._heatmap is not None)
    deciding = restored_window.session.state.collect_used_slice_indices("idh")
    heat = restored_window.image_panel._heatmap
    assert set(np.flatnonzero(heat.any(axis=(1, 2)))) <= deciding and heat.max() == 255
    assert restored_window.image_panel.index in deciding and card.heatmap_button.text() == "Hide Grad-CAM"
    card.heatmap_button.click()
    assert restored_window.image_panel._heatmap is None and restored_window.session.state.heatmap_marker == ""


def test_slices_of_a_prediction_are_links(restored_window: MainWindow) -> None:
    card = find_cards(restored_window)["idh"]
    links = re.findall(r'href="(\d+)"', card.slices_label.text())
    card.slices_label.linkActivated.emit(links[1])
    names = restored_window.session.state.study["slice_names"]
    assert (
        names[restored_window.image_panel.index]
        == restored_window.session.state.prediction["markers"][0]["slices_used"][1]
    )


# ---- correction -------------------------------------------------------------------------------------


def test_the_outline_can_be_corrected_and_reverted(restored_window: MainWindow) -> None:
    images, session = restored_window.image_panel, restored_window.session
    model_mask, volume = images.mask_editor.mask.copy(), session.state.prediction["lesion"]["volume_ml"]
    images.slice_strip.setValue(int(np.argmax(session.state.list_lesion_areas())))
    index = images.index
    images.toolbar.brush_button.click()
    draw_stroke(restored_window, 0, (80, 60), (110, 60))
    images.toolbar.eraser_button.click()
    draw_stroke(restored_window, 1, (105, 60), (112, 60))
    assert not images.toolbar.brush_button.isChecked()
    drawn = images.mask_editor.mask.copy()
    images.toolbar.undo_button.click()
    assert images.mask_editor.mask.sum() > drawn.sum()
    images.toolbar.redo_button.click()
    np.testing.assert_array_equal(images.mask_editor.mask, drawn)
    changed = drawn.sum() - model_mask.sum()
    assert changed > 100 and (drawn != model_mask).any(axis=(1, 2)).nonzero()[0].tolist() == [index]
    assert images.predict_button.isVisible() and images.hint_label.text() == "You have changed the outline."
    images.predict_button.click()
    wait_until(lambda: is_idle(restored_window))
    assert session.state.error is None
    assert session.state.job["request"]["outline"] == "corrected"
    voxel_volume_ml = float(np.prod(session.state.study["spacing_mm"])) / 1000
    assert session.state.prediction["lesion"]["volume_ml"] == pytest.approx(
        volume + changed * voxel_volume_ml, abs=0.01
    )
    np.testing.assert_array_equal(images.mask_editor.mask, drawn)
    assert (
        not images.predict_button.isVisible()
        and "your outline" in restored_window.result_panel.inputs_label.text()
    )
    images.revert_button.click()
    wait_until(lambda: is_idle(restored_window))
    np.testing.assert_array_equal(images.mask_editor.mask, model_mask)
    assert session.state.job["request"]["outline"] == "model" and not images.revert_button.isVisible()


def test_strokes_are_discarded_only_after_a_question(
    restored_window: MainWindow, phantom_folder: Path, monkeypatch
) -> None:
    questions = []

    def answer_no(*arguments: object) -> QMessageBox.StandardButton:
        questions.append(arguments[2])
        return QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", answer_no)
    restored_window.image_panel.toolbar.brush_button.click()
    draw_stroke(restored_window, 0, (80, 60), (90, 60))
    drawn = restored_window.image_panel.mask_editor.mask.copy()
    restored_window.open_patient(phantom_folder)
    assert not restored_window.close() and restored_window.isVisible()
    assert len(questions) == 2 and "Discard your changes?" in str(questions[0])
    np.testing.assert_array_equal(restored_window.image_panel.mask_editor.mask, drawn)


def test_strokes_can_be_reverted(restored_window: MainWindow) -> None:
    model_mask = restored_window.image_panel.mask_editor.mask.copy()
    restored_window.image_panel.toolbar.eraser_button.click()
    restored_window.image_panel.slice_strip.setValue(
        int(np.argmax(restored_window.session.state.list_lesion_areas()))
    )
    draw_stroke(restored_window, 0, (100, 60), (160, 110))
    assert restored_window.image_panel.revert_button.isVisible()
    restored_window.image_panel.revert_button.click()
    wait_until(lambda: is_idle(restored_window))
    np.testing.assert_array_equal(restored_window.image_panel.mask_editor.mask, model_mask)
    assert not restored_window.image_panel.mask_editor.is_edited


def test_a_mask_of_another_program_is_loaded_and_can_be_undone(
    restored_window: MainWindow, phantom_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    """Two mask pictures, a rectangle in the upper right: anterior, on the patient's left."""
    images = restored_window.image_panel
    model_mask = images.mask_editor.mask.copy()
    picture = np.zeros((128, 128), np.uint8)
    picture[40:52, 76:92] = 255
    slices = sorted(next(folder for folder in phantom_folder.iterdir() if folder.is_dir()).iterdir())
    files = [tmp_path / f"{slices[index].stem}.png" for index in (9, 10)]
    for file in files:
        file.write_bytes(encode_png(picture))
    chosen = [str(file) for file in files]
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: (chosen, ""))
    images.mask_file_button.click()
    wait_until(lambda: images.mask_editor.is_edited)
    mask = images.mask_editor.mask
    rows, columns = (np.nonzero(mask.any(axis=0).any(axis=axis))[0] for axis in (1, 0))
    assert 2 <= mask.any(axis=(1, 2)).sum() <= 3
    assert len(rows) == pytest.approx(12 * 1.88, abs=2) and len(columns) == pytest.approx(16 * 1.88, abs=2)
    assert rows.mean() < 120 < columns.mean()
    images.toolbar.undo_button.click()
    assert not images.mask_editor.is_edited
    np.testing.assert_array_equal(images.mask_editor.mask, model_mask)


def test_a_file_that_is_no_mask_is_reported(restored_window: MainWindow, tmp_path: Path, monkeypatch) -> None:
    images = restored_window.image_panel
    model_mask = images.mask_editor.mask.copy()
    (tmp_path / "notes.txt").write_text("no mask")
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: ([str(tmp_path / "notes.txt")], ""))
    images.mask_file_button.click()
    session = restored_window.session
    wait_until(lambda: session.state.error is not None)
    assert "is not a segmentation" in str(session.state.error)
    np.testing.assert_array_equal(images.mask_editor.mask, model_mask)


# ---- earlier patients -------------------------------------------------------------------------------


def open_study_list(window: MainWindow) -> StudyListDialog:
    dialog = StudyListDialog(window.session, window)
    wait_until(lambda: is_idle(window))
    return dialog


def select_study(dialog: StudyListDialog, study_id: str) -> None:
    ids = [study["id"] for study in dialog._studies]
    dialog.table.setCurrentItem(dialog.table.topLevelItem(ids.index(study_id)))
    assert dialog.selected_id == study_id


def test_an_earlier_patient_is_reopened_with_the_corrected_outline(
    restored_window: MainWindow, second_connected_window: MainWindow, monkeypatch
) -> None:
    images, session = restored_window.image_panel, restored_window.session
    study_id, model_mask = session.state.study["id"], images.mask_editor.mask.copy()
    images.toolbar.brush_button.click()
    draw_stroke(restored_window, 0, (80, 60), (110, 60))
    drawn = images.mask_editor.mask.copy()
    images.predict_button.click()
    wait_until(lambda: is_idle(restored_window))
    window = second_connected_window

    def choose(dialog: StudyListDialog) -> int:
        wait_until(lambda: is_idle(window))
        select_study(dialog, study_id)
        row = dialog.table.selectedItems()[0]
        created = next(study["created"] for study in dialog._studies if study["id"] == study_id)
        assert [row.text(n) for n in range(3)] == ["患者 7", format_local_time(created), "corrected outline"]
        dialog.open_button.click()
        return dialog.result()

    monkeypatch.setattr(StudyListDialog, "exec", choose)
    window.input_panel.age_field.setText("20")  # replaced by the study
    window.input_panel.studies_button.click()
    wait_until(lambda: is_idle(window) and window.session.state.job is not None)
    assert window.session.state.job["id"] == session.state.job["id"]
    np.testing.assert_array_equal(window.image_panel.mask_editor.mask, drawn)
    assert window.image_panel.is_user_segmentation and not window.image_panel.mask_editor.is_edited
    assert window.input_panel.patient_label.text() == "患者 7" and window.input_panel.age_field.text() == "49"
    assert window.input_panel.sex_control.value == 1 and window.result_panel.stale_label.isHidden()
    for name in ("T1C", "FLAIR"):
        for mine, other in zip(window.image_panel._slices[name], images._slices[name], strict=True):
            np.testing.assert_array_equal(mine, other)

    newer = drawn.copy()
    newer[:, :10] = True
    received: list[object] = []
    put = session._http_client.send_request
    put("PUT", f"/api/studies/{study_id}/mask.png", encode_mask(newer), received.append, received.append)
    wait_until(lambda: received)
    window.input_panel.studies_button.click()
    wait_until(lambda: is_idle(window) and window.image_panel.mask_editor.is_edited)
    np.testing.assert_array_equal(window.image_panel.mask_editor.mask, newer)
    assert window.image_panel.predict_button.isVisible() and window.image_panel.predict_button.isEnabled()
    window.image_panel.toolbar.undo_button.click()
    np.testing.assert_array_equal(window.image_panel.mask_editor.mask, drawn)

    window.image_panel.revert_button.click()
    wait_until(lambda: is_idle(window))
    np.testing.assert_array_equal(window.image_panel.mask_editor.mask, model_mask)
    window.close()


def test_a_study_is_removed_only_after_a_question(
    second_connected_window: MainWindow, connected_window: MainWindow, phantom_folder: Path, monkeypatch
) -> None:
    window = second_connected_window
    window.open_patient(phantom_folder)
    wait_until(lambda: is_idle(window) and window.session.state.is_study_ready)
    study_id = window.session.state.study["id"]
    dialog, other_dialog = open_study_list(window), open_study_list(connected_window)
    assert dialog.selected_id == study_id, "the newest is selected"
    assert dialog.open_button.isDefault() and not dialog.remove_button.autoDefault()
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.Yes]
    questions: list[str] = []

    def answer(*arguments: Any) -> QMessageBox.StandardButton:
        questions.append(arguments[2])
        return answers.pop(0)

    monkeypatch.setattr(QMessageBox, "question", answer)
    for is_removed in (False, True):
        select_study(dialog, study_id)
        dialog.remove_button.click()
        wait_until(lambda: is_idle(window))
        assert (study_id not in [study["id"] for study in window.session.state.studies]) == is_removed
        assert window.session.state.is_study_ready != is_removed
    assert "predictions of 患者 7 from the server" in questions[0]
    assert not window.input_panel.patient_label.isVisible() and window.image_panel.placeholder.isVisible()
    select_study(other_dialog, study_id)  # still in the list of the other window
    other_dialog.remove_button.click()
    wait_until(lambda: is_idle(connected_window))
    assert other_dialog.error_label.isVisibleTo(other_dialog) and other_dialog.error_label.text()
    connected_window.session.dismiss_error()
    dialog.search_field.setText("no such id")
    wait_until(lambda: is_idle(window))
    assert dialog.table.topLevelItemCount() == 0 and not dialog.message_label.isVisibleTo(dialog)
    assert not dialog.open_button.isEnabled() and not dialog.remove_button.isEnabled()
    dialog.search_field.setText("患者")
    wait_until(lambda: is_idle(window))
    assert dialog.table.topLevelItemCount() >= 1
    for one in (dialog, other_dialog, window):
        one.close()


# ---- saving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("language, word", [("en", "Research use only"), ("zh", "仅供科研使用")])
def test_an_html_report_is_saved(
    restored_window: MainWindow, tmp_path: Path, monkeypatch, language: str, word: str
) -> None:
    target = tmp_path / "报告.html"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    restored_window.switch_language(language)
    restored_window.save_report("report.html")
    wait_until(target.exists)
    assert word in target.read_text("utf-8") and "患者 7" in target.read_text("utf-8")
    wait_until(lambda: str(target) in restored_window.server_label.text())


def test_a_pdf_report_is_saved(restored_window: MainWindow, tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "report.pdf"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    restored_window.save_report("report.pdf")
    wait_until(target.exists)
    assert target.read_bytes().startswith(b"%PDF") and target.stat().st_size > 20_000
    assert (
        not restored_window.result_panel.save_button.menu().actions()[-1].isEnabled()
    )  # image files have no DICOM results


def test_a_report_that_cannot_be_saved_is_reported(
    restored_window: MainWindow, tmp_path: Path, monkeypatch
) -> None:
    target = tmp_path / "nowhere" / "report.html"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    restored_window.save_report("report.html")
    wait_until(lambda: restored_window.session.state.error)
    assert restored_window.error_label.text() == f"{target} could not be saved. Choose another folder."
    assert restored_window.error_banner.isVisible() and not restored_window.retry_button.isVisible()
    restored_window.dismiss_button.click()
    assert not restored_window.error_banner.isVisible()


# ---- language ---------------------------------------------------------------------------------------


def list_texts(window: QWidget) -> list[str]:
    """List all texts, tool tips and accessible names of a window, without those of its dialogs."""
    found = []
    for part in (one for one in window.findChildren(QWidget) if one.window() is window):
        if isinstance(part, QLabel | QAbstractButton | QLineEdit):
            found += [part.text(), getattr(part, "placeholderText", str)()]
        found += [part.toolTip(), part.accessibleName()]
    return [re.sub(r"<[^>]*>", "", text) for text in found if text]


def read_level(window: MainWindow) -> dict[str, Any]:
    marker = window.session.state.prediction["markers"][0]
    return {"level": marker["level"], "is_borderline": marker["borderline"]}


def test_switching_the_language_translates_all_texts(restored_window: MainWindow) -> None:
    english = [text for text in list_texts(restored_window) if text != "中文"]
    assert not any(
        "\u4e00" <= character <= "\u9fff" for text in english for character in text.replace("患者 7", "")
    )
    restored_window.chinese_button.click()
    wait_until(lambda: restored_window.research_notice_label.text().startswith("仅"))
    remaining = {text: NAMES.sub("", text) for text in list_texts(restored_window)}
    assert [text for text, untranslated in remaining.items() if re.search("[A-Za-z]", untranslated)] == []
    assert find_cards(restored_window)["idh"].level_label.text() == describe_level(
        **read_level(restored_window), language="zh"
    )
    assert restored_window.research_notice_label.text() == "仅供科研使用，不是医疗器械。"
    dialog = ServerDialog("", "")
    assert [t for t in list_texts(dialog) if re.search("[A-Za-z]", NAMES.sub("", t))] == []
    restored_window.english_button.click()
    wait_until(lambda: restored_window.research_notice_label.text().startswith("R"))
    assert [text for text in list_texts(restored_window) if text != "中文"] == english


def test_coverage_and_prevalence_of_the_settings_are_predicted_with(restored_window: MainWindow) -> None:
    window = restored_window
    before = window.session.state.prediction["markers"][0]
    assert before["limits"]["coverage"] == 0.9
    fields = LevelFields(window.session.state.models[0]["markers"], 0.9, {"other": 0.2})
    share = fields.share_fields["idh"]
    assert share.text() == f"as in calibration, {100 * before['calibration']['prevalence']:.0f} %"
    assert fields.entered_levels == (0.9, {"other": 0.2})
    fields.coverage_field.setValue(80)
    share.setValue(30)
    assert fields.entered_levels == (0.8, {"other": 0.2, "idh": 0.3})
    window.settings.set_levels(*fields.entered_levels)
    assert (window.settings.coverage, window.settings.prevalence) == fields.entered_levels
    try:
        window._render_panels()
        assert not window.result_panel.stale_label.isHidden()
        window.input_panel.predict_button.click()
        wait_until(lambda: is_idle(window))
        assert window.result_panel.stale_label.isHidden()
        request = window.session.state.job["request"]
        assert (request["coverage"], request["prevalence"]) == (0.8, {"idh": 0.3})
        after = window.session.state.prediction["markers"][0]
        assert after["limits"]["coverage"] == 0.8 and after["calibration"]["prevalence"] == 0.3
        assert after["raw_probability"] == before["raw_probability"]
        assert after["probability"] < before["probability"]
        assert "share of 30 % mutant" in find_cards(window)["idh"].calibration_label.text()
    finally:
        window.settings.set_levels(0.9, {})
        window.input_panel.predict_button.click()
        wait_until(lambda: is_idle(window))
    assert window.session.state.prediction["markers"][0]["probability"] == before["probability"]


@pytest.mark.parametrize("stored", ["", "[", "[1]", '{"idh": 2}', '{"idh": "a"}', "null"])
def test_damaged_level_settings_are_ignored(open_window, stored: str) -> None:
    settings = UserSettings()
    settings._write_value("levels/coverage", stored)
    settings._write_value("levels/prevalence", stored)
    assert (settings.coverage, settings.prevalence) == (0.9, {})
    settings.set_levels(0.9, {})


def test_the_research_notice_is_always_visible(restored_window: MainWindow) -> None:
    assert restored_window.research_notice_label.isVisible()
    assert restored_window.research_notice_label.text() == "Research use only. Not a medical device."


# ---- pathology --------------------------------------------------------------------------------------


def test_pathology_is_recorded_and_shown_in_both_languages(restored_window: MainWindow) -> None:
    window = restored_window
    form = find_cards(window)["idh"].pathology_form
    assert form.entries_label.isHidden() and form.level_box.isHidden() and form.toggle_button.isVisible()
    for level, note in (("wild type", ""), ("mutant", "R132H, 第二次")):
        form.toggle_button.click()
        assert form.level_box.isVisible() and not form.record_button.isEnabled(), "no level is chosen"
        assert [form.level_box.itemData(n) for n in range(form.level_box.count())] == [
            "",
            "mutant",
            "wild type",
        ]
        form.level_box.setCurrentIndex(form.level_box.findData(level))
        form.note_field.setText(note)
        form.record_button.click()
        wait_until(lambda: is_idle(window))
        assert window.session.state.error is None and form.level_box.isHidden()
    recorded = window.session.state.pathology
    assert [(entry["marker"], entry["value"], entry["note"]) for entry in recorded] == [
        ("idh", "mutant", "R132H, 第二次"),
        ("idh", "wild type", ""),
    ]
    times = [format_local_time(entry["created"]) for entry in recorded]
    assert form.entries_label.text().splitlines() == [
        f"mutant, recorded on {times[0]} · R132H, 第二次",
        f"wild type, recorded on {times[1]}",
    ]
    window.switch_language("zh")
    wait_until(lambda: "突变型，记录于" in form.entries_label.text())
    window.switch_language("en")
    window.session._show_job(window.session.state.job)  # as when the prediction is shown again
    wait_until(lambda: is_idle(window))
    assert window.session.state.pathology == recorded


# ---- errors -----------------------------------------------------------------------------------------


def test_a_wrong_token_can_be_corrected(open_window, server, phantom_folder: Path) -> None:
    window = open_window()
    window.session.connect_to_server(server.address, "wrong")
    wait_until(lambda: window.session.state.error)
    assert (
        "rejected the access token" in window.error_label.text() and window.error_settings_button.isVisible()
    )
    window.open_patient(phantom_folder)  # waits for the server
    assert window.session.state.task.kind == "waiting"
    window.session.connect_to_server(server.address, server.token)
    wait_until(lambda: window.session.state.study is not None)
    assert not window.error_banner.isVisible() and window.session.state.patient_folder == phantom_folder
    window.input_panel.cancel_preparation_button.click()
    assert window.session.state.patient_folder is None and window.session.state.study is None
    window.close()


def test_an_unreachable_server_is_reported(open_window) -> None:
    window = open_window()
    window.session.connect_to_server("http://127.0.0.1:9", "")
    wait_until(lambda: window.session.state.error)
    assert window.error_label.text().startswith("The server at http://127.0.0.1:9 does not respond")
    assert window.retry_button.isVisible() and "not reachable" in window.server_label.text()
    window.retry_button.click()
    wait_until(lambda: window.session.state.error)
    window.close()


def test_a_folder_without_images_is_refused(
    connected_window: MainWindow, open_window, server, tmp_path: Path
) -> None:
    window = open_window()
    window.session.connect_to_server(server.address, server.token)
    (tmp_path / "空").mkdir()
    (tmp_path / "空" / "letter.txt").write_text("no image")
    window.open_patient(tmp_path / "空")
    wait_until(lambda: window.session.state.error)
    assert (
        "no images of a patient" in window.error_label.text() and "Traceback" not in window.error_label.text()
    )
    assert window.session.state.task is None and window.input_panel.choose_folder_button.isEnabled()
    window.switch_language("zh")
    wait_until(lambda: "空 中没有患者影像" in window.error_label.text())
    window.switch_language("en")
    window.open_patient(tmp_path / "nowhere")
    assert "does not exist" in window.error_label.text()
    window.close()


def test_a_missing_row_in_the_table_is_reported(
    restored_window: MainWindow, tmp_path: Path, phantom_folder: Path
) -> None:
    table = tmp_path / "other.csv"
    table.write_text("id,age,sex\nother,50,1\n", "utf-8")
    steps = restored_window.input_panel
    steps.open_path(table)
    error_label = steps.table_error_label
    assert error_label.isVisible() and "no row in" in error_label.text() and "other.csv" in error_label.text()
    assert not steps.predict_button.isEnabled()
    restored_window.switch_language("zh")
    wait_until(lambda: "没有患者 患者 7" in error_label.text() and "other.csv" in error_label.text())
    restored_window.switch_language("en")
    steps.open_path(phantom_folder.parent / "clinical.csv")
    assert steps.table_error_label.isHidden() and steps.predict_button.isEnabled()


def test_closing_during_preparation_cancels_it(open_window, server, phantom_folder: Path) -> None:
    window = open_window()
    window.session.connect_to_server(server.address, server.token)
    window.open_patient(phantom_folder)
    wait_until(lambda: window.session.state.study is not None)
    window.close()
    assert window.session.pending_call_count == 0 and window.session.state.patient_folder is None
    wait_until(lambda: True)


# ---- a real patient ---------------------------------------------------------------------------------


def test_a_real_patient_is_predicted(second_connected_window: MainWindow, shared: Path) -> None:
    cohort = shared / "cohorts" / "tcga-lgg"
    window = second_connected_window
    window.open_patient(cohort / "TCGA-CS-4941" / "T1C")
    wait_until(lambda: is_idle(window) and window.session.state.is_study_ready, 2 * TIMEOUT_S)
    window.input_panel.open_path(cohort / "clinical.csv")
    assert window.session.state.patient_id == "TCGA-CS-4941" and window.input_panel.age_field.text()
    window.input_panel.predict_button.click()
    wait_until(lambda: is_idle(window))
    assert window.session.state.prediction["lesion"]["volume_ml"] > 1
    assert find_cards(window)["idh"].level_label.text() in ("mutant", "wild type")


@pytest.fixture
def second_connected_window(open_window, server) -> MainWindow:
    window = open_window()
    window.session.connect_to_server(server.address, server.token)
    return window

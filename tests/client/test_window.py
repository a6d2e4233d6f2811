"""The four steps, the correction loop and the trouble, in the real window before the real server."""

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

from gliomark.client.measure import TIMEOUT_S, is_idle, wait_until
from gliomark.client.result import MarkerCard
from gliomark.client.settings import ServerDialog
from gliomark.client.window import MainWindow
from gliomark.messages import describe_level, format_percent

# what stays as it is in Chinese: names, units, file forms, the switch to English
NAMES = re.compile(
    r"gliomark|English|mask|T1C|T1c|T1|FLAIR|IDH\d?|Grad-CAM|AUC|TCGA-LGG|xlsx|csv|id|age|sex|HTML|PDF|DICOM|zip"
    r"|clinical|https?://\S+|demonstration|[0-9a-f]{12}|W|L|R|mm|UTF-8|GB18030"
)


def cards(window: MainWindow) -> dict[str, MarkerCard]:
    return {card.marker: card for card in window.result_panel.findChildren(MarkerCard) if not card.isHidden()}


def stroke(window: MainWindow, number: int, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Draw with the left button in one of the views; points are pixels of the image."""
    view = window.image_panel.views[number]
    first, last = (view.compute_screen_transform().map(QPointF(*point)).toPoint() for point in (start, end))
    QTest.mousePress(view, Qt.MouseButton.LeftButton, pos=first)
    for share in np.linspace(0, 1, 12):
        QTest.mouseMove(view, first + (last - first) * float(share))
    QTest.mouseRelease(view, Qt.MouseButton.LeftButton, pos=last)


# ---- the four steps ---------------------------------------------------------------------------------


def test_patient_is_found_around_the_picked_folder(answered: MainWindow, phantom: Path) -> None:
    state = answered.session.state
    assert state.patient_folder == phantom and state.patient_id == "患者 7"
    assert answered.input_panel.patient_label.text() == "患者 7"
    assert answered.input_panel.status_label.text() == f"T1C, FLAIR · {state.study['shape'][0]} slices"
    assert answered.settings.recent_folders[0] == phantom


def test_table_fills_age_and_sex(answered: MainWindow) -> None:
    assert answered.input_panel.age_field.text() == "49" and answered.input_panel.sex_control.value == 1
    assert answered.input_panel.table_label.text() == "From clinical.csv"
    assert answered.session.state.job["request"]["age"] == 49


def test_answer_says_all_of_it(answered: MainWindow) -> None:
    """Every marker of prediction.json, with level, probability, threshold, slices and worth."""
    markers = answered.session.state.prediction["markers"]
    shown = cards(answered)
    assert list(shown) == [marker["marker"] for marker in markers] == ["idh"]
    for marker in markers:
        card = shown[marker["marker"]]
        assert card.title_label.text() == marker["title"]
        assert card.level_label.text() == describe_level(marker["level"], marker["borderline"], "en")
        assert card.percent_label.text() == format_percent(marker["probability"])
        assert (
            card.probability_bar.probability == marker["probability"]
            and card.probability_bar.threshold == marker["threshold"]
        )
        assert marker["performance"] in card.performance_label.text()
        assert re.findall(r">(\d+)</a>", card.slices_label.text()) == marker["slices_used"]
        assert card.warnings_label.text() == "\n".join(marker["warnings"])
        assert card.reader_tag.isHidden()
    assert shown["idh"].question_label.text() == "Probability of “mutant”"
    assert "IDH1 or IDH2 is mutated" in shown["idh"].definition_label.text()
    assert (
        "49 years · female · enhancing focus: not stated · the model's outline"
        in answered.result_panel.inputs_label.text()
    )


def test_range_over_the_slices_is_said_and_drawn(answered: MainWindow) -> None:
    answer = answered.session.state.prediction["markers"][0]
    every = [score["probability"] for score in answer["slices"]]
    assert answer["probability_range"] == [min(every), max(every)] and min(every) < max(every)
    card = cards(answered)["idh"]
    low, high = (f"{100 * share:.0f} %" for share in answer["probability_range"])
    assert card.range_label.text() == f"Range over the lesion's slices: {low} to {high}"
    assert card.range_label.text() in card.probability_bar.accessibleName()
    assert "Not a confidence interval" in card.probability_bar.toolTip() == card.range_label.toolTip()
    wide = card.probability_bar.width()
    left, right = bracket(card)
    assert (left / wide, right / wide) == pytest.approx(answer["probability_range"], abs=0.02)
    answered.switch_language("zh")
    wait_until(lambda: card.range_label.text() == f"各病灶层面的范围：{low} 至 {high}")


@pytest.mark.parametrize("older", [False, True])
def test_no_range_of_one_slice_or_of_an_older_answer(answered: MainWindow, older: bool) -> None:
    state, card = answered.session.state, cards(answered)["idh"]
    answer = dict(state.prediction["markers"][0])
    shown = answer.pop("probability_range")
    card.render_marker(answer if older else answer | {"probability_range": None}, state)
    assert card.range_label.isHidden() and bracket(card) is None and card.probability_bar.toolTip() == ""
    card.render_marker(answer | {"probability_range": [0.3, 0.3]}, state)
    assert card.range_label.text() == "30 % on each of the lesion's slices" and bracket(card) is None
    card.render_marker(answer | {"probability_range": shown}, state)
    assert card.range_label.isVisible() and bracket(card)


def bracket(card: MarkerCard) -> tuple[int, int] | None:
    """First and last column that is drawn above the bar."""
    row = card.probability_bar.grab().toImage().convertToFormat(QImage.Format.Format_Grayscale8)
    grey = np.array([row.pixelColor(x, 1).value() for x in range(row.width())])
    drawn = np.flatnonzero(grey > 100)
    return (int(drawn[0]), int(drawn[-1])) if drawn.size else None


def test_outline_lies_on_the_lesion(answered: MainWindow) -> None:
    """Slices, masks and areas have come the right way round: FLAIR is bright where the outline is."""
    images, state = answered.image_panel, answered.session.state
    flair, mask = np.stack(images._slices["FLAIR"]), images.mask_editor.mask
    brain = flair > state.study["grey"]["FLAIR"]["low"] + 1e-3
    assert flair[mask].mean() > flair[brain & ~mask].mean() + 1
    assert mask.sum(axis=(1, 2)).tolist() == pytest.approx(state.list_lesion_areas(), rel=0.01)
    assert state.collect_used_slice_indices() <= set(np.flatnonzero(mask.any(axis=(1, 2))))


def test_finding_decides_idh_and_says_so(answered: MainWindow) -> None:
    own = answered.session.state.prediction["markers"][0]["probability"]
    answered.input_panel.enhancing_control.buttons[1].click()  # no
    assert not answered.result_panel.stale_label.isHidden()
    answered.input_panel.predict_button.click()
    wait_until(lambda: is_idle(answered))
    card = cards(answered)["idh"]
    assert card.level_label.text() == "mutant" and not card.reader_tag.isHidden()
    assert card.reader_tag.text() == "from the reader's finding"
    assert card.question_label.text() == "For comparison, the model's probability of “mutant”"
    assert card.probability_bar.probability == own and card.probability_bar.is_muted
    assert answered.result_panel.stale_label.isHidden()
    assert (
        "How reliable the finding is" in card.performance_label.text()
        and "55 of 86" in card.performance_label.text()
    )


def test_prediction_waits_for_age_and_sex(answered: MainWindow) -> None:
    steps = answered.input_panel
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


def test_cancelled_prediction_leaves_the_answer(answered: MainWindow) -> None:
    before = answered.session.state.job["id"]
    answered.input_panel.predict_button.click()
    wait_until(lambda: answered.session.state.running_job_id)
    answered.input_panel.cancel_button.click()
    wait_until(lambda: is_idle(answered))
    assert answered.session.state.job["id"] == before and answered.session.state.error is None
    assert answered.input_panel.predict_button.isVisible() and answered.input_panel.predict_button.isEnabled()


# ---- looking ----------------------------------------------------------------------------------------


def test_paging_moves_both_views(answered: MainWindow, qtbot) -> None:
    images = answered.image_panel
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
    at = QPointF(50, 50)
    turn = QWheelEvent(
        at,
        at,
        QPoint(),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(images.views[1], turn)
    assert images.index == 2
    qtbot.mouseClick(
        images.slice_strip, Qt.MouseButton.LeftButton, pos=QPoint(images.slice_strip.width() - 2, 20)
    )
    assert images.index == last
    for view, name in zip(images.views, ("T1C", "FLAIR"), strict=True):
        np.testing.assert_array_equal(view._image, images._slices[name][last])
    assert f"({last + 1} of {last + 1})" in images.position_label.text()


def test_keys_of_a_text_field_stay_in_it(answered: MainWindow, qtbot) -> None:
    answered.image_panel.slice_strip.setValue(5)
    answered.input_panel.age_field.setFocus()
    qtbot.keyClick(answered.input_panel.age_field, Qt.Key.Key_Home)
    qtbot.keyClick(answered.input_panel.age_field, Qt.Key.Key_Left)
    assert answered.image_panel.index == 5


def test_contrast_by_dragging_and_back(answered: MainWindow) -> None:
    view = answered.image_panel.views[0]
    before = view.grey_window
    for button in (Qt.MouseButton.RightButton, Qt.MouseButton.LeftButton):
        QTest.mousePress(view, button, pos=QPoint(100, 100))
        QTest.mouseMove(view, QPoint(150, 70))
        QTest.mouseRelease(view, button, pos=QPoint(150, 70))
        assert view.grey_window.high - view.grey_window.low > 1.2 * (before.high - before.low)
        answered.image_panel.reset_contrast_button.click()
        assert view.grey_window == before


def test_outline_can_be_hidden_and_thinned(answered: MainWindow) -> None:
    images = answered.image_panel
    images.slice_strip.setValue(int(np.argmax(answered.session.state.list_lesion_areas())))

    def yellow() -> int:
        picture = images.views[1].grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
        raw = np.frombuffer(picture.constBits(), np.uint8).reshape(picture.height(), -1)
        pixels = raw[:, : 3 * picture.width()].reshape(picture.height(), -1, 3).astype(int)
        return int(((pixels[..., 0] - pixels[..., 2]) > 100).sum())

    images.opacity_slider.setValue(100)
    bright = yellow()
    images.opacity_slider.setValue(30)
    faint = yellow()
    images.segmentation_toggle.click()
    hidden = yellow()
    images.segmentation_toggle.click()
    images.opacity_slider.setValue(85)
    assert bright > 100 and faint < bright / 2 and hidden == 0


def test_grad_cam_only_on_slices_that_decided(answered: MainWindow) -> None:
    answered.image_panel.slice_strip.setValue(0)
    card = cards(answered)["idh"]
    card.heatmap_button.click()
    wait_until(lambda: answered.image_panel._heatmap is not None)
    deciding = answered.session.state.collect_used_slice_indices("idh")
    heat = answered.image_panel._heatmap
    assert set(np.flatnonzero(heat.any(axis=(1, 2)))) <= deciding and heat.max() == 255
    assert answered.image_panel.index in deciding and card.heatmap_button.text() == "Hide Grad-CAM"
    card.heatmap_button.click()
    assert answered.image_panel._heatmap is None and answered.session.state.heatmap_marker == ""


def test_slices_of_the_answer_are_links(answered: MainWindow) -> None:
    card = cards(answered)["idh"]
    links = re.findall(r'href="(\d+)"', card.slices_label.text())
    card.slices_label.linkActivated.emit(links[1])
    names = answered.session.state.study["slice_names"]
    assert (
        names[answered.image_panel.index] == answered.session.state.prediction["markers"][0]["slices_used"][1]
    )


# ---- correcting -------------------------------------------------------------------------------------


def test_own_outline_and_back(answered: MainWindow) -> None:
    images, session = answered.image_panel, answered.session
    of_model, volume = images.mask_editor.mask.copy(), session.state.prediction["lesion"]["volume_ml"]
    images.slice_strip.setValue(int(np.argmax(session.state.list_lesion_areas())))
    index = images.index
    images.brush_button.click()
    stroke(answered, 0, (80, 60), (110, 60))
    images.eraser_button.click()
    stroke(answered, 1, (105, 60), (112, 60))
    assert not images.brush_button.isChecked()
    drawn = images.mask_editor.mask.copy()
    images.undo_button.click()
    assert images.mask_editor.mask.sum() > drawn.sum()
    images.redo_button.click()
    np.testing.assert_array_equal(images.mask_editor.mask, drawn)
    changed = drawn.sum() - of_model.sum()
    assert changed > 100 and (drawn != of_model).any(axis=(1, 2)).nonzero()[0].tolist() == [index]
    assert images.predict_button.isVisible() and images.hint_label.text() == "You have changed the outline."
    images.predict_button.click()
    wait_until(lambda: is_idle(answered))
    assert session.state.error is None
    assert session.state.job["request"]["outline"] == "corrected"
    millilitres = float(np.prod(session.state.study["spacing_mm"])) / 1000
    assert session.state.prediction["lesion"]["volume_ml"] == pytest.approx(
        volume + changed * millilitres, abs=0.01
    )
    np.testing.assert_array_equal(images.mask_editor.mask, drawn)
    assert (
        not images.predict_button.isVisible()
        and "your own outline" in answered.result_panel.inputs_label.text()
    )
    images.revert_button.click()
    wait_until(lambda: is_idle(answered))
    np.testing.assert_array_equal(images.mask_editor.mask, of_model)
    assert session.state.job["request"]["outline"] == "model" and not images.revert_button.isVisible()


def test_strokes_are_not_lost_unasked(answered: MainWindow, phantom: Path, monkeypatch) -> None:
    asked = []

    def no(*words: object) -> QMessageBox.StandardButton:
        asked.append(words[2])
        return QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", no)
    answered.image_panel.brush_button.click()
    stroke(answered, 0, (80, 60), (90, 60))
    drawn = answered.image_panel.mask_editor.mask.copy()
    answered.open_patient(phantom)
    assert not answered.close() and answered.isVisible()
    assert len(asked) == 2 and "Throw your changes away?" in str(asked[0])
    np.testing.assert_array_equal(answered.image_panel.mask_editor.mask, drawn)


def test_strokes_can_be_given_up(answered: MainWindow) -> None:
    of_model = answered.image_panel.mask_editor.mask.copy()
    answered.image_panel.eraser_button.click()
    answered.image_panel.slice_strip.setValue(int(np.argmax(answered.session.state.list_lesion_areas())))
    stroke(answered, 0, (100, 60), (160, 110))
    assert answered.image_panel.revert_button.isVisible()
    answered.image_panel.revert_button.click()
    wait_until(lambda: is_idle(answered))
    np.testing.assert_array_equal(answered.image_panel.mask_editor.mask, of_model)
    assert not answered.image_panel.mask_editor.is_edited


# ---- saving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("language, word", [("en", "Research use only"), ("zh", "仅供科研使用")])
def test_report_is_saved(answered: MainWindow, tmp_path: Path, monkeypatch, language: str, word: str) -> None:
    target = tmp_path / "报告.html"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    answered.switch_language(language)
    answered.save_report("report.html")
    wait_until(target.exists)
    assert word in target.read_text("utf-8") and "患者 7" in target.read_text("utf-8")
    wait_until(lambda: str(target) in answered.server_label.text())


def test_pdf_is_saved(answered: MainWindow, tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "report.pdf"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    answered.save_report("report.pdf")
    wait_until(target.exists)
    assert target.read_bytes().startswith(b"%PDF") and target.stat().st_size > 20_000
    assert (
        not answered.result_panel.save_button.menu().actions()[-1].isEnabled()
    )  # pictures have no DICOM results


def test_report_that_cannot_be_written(answered: MainWindow, tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "nowhere" / "report.html"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    answered.save_report("report.html")
    wait_until(lambda: answered.session.state.error)
    assert answered.error_label.text() == f"{target} could not be written: choose another place."
    assert answered.error_banner.isVisible() and not answered.retry_button.isVisible()
    answered.dismiss_button.click()
    assert not answered.error_banner.isVisible()


# ---- language ---------------------------------------------------------------------------------------


def words_in(window: QWidget) -> list[str]:
    """Every text that can be seen, read aloud or hovered."""
    found = []
    for part in window.findChildren(QWidget):
        if isinstance(part, QLabel | QAbstractButton | QLineEdit):
            found += [part.text(), getattr(part, "placeholderText", str)()]
        found += [part.toolTip(), part.accessibleName()]
    return [re.sub(r"<[^>]*>", "", text) for text in found if text]


def level_of(window: MainWindow) -> dict[str, Any]:
    answer = window.session.state.prediction["markers"][0]
    return {"level": answer["level"], "is_borderline": answer["borderline"]}


def test_language_is_switched_at_once(answered: MainWindow) -> None:
    english = [text for text in words_in(answered) if text != "中文"]
    assert not any("\u4e00" <= sign <= "\u9fff" for text in english for sign in text.replace("患者 7", ""))
    answered.chinese_button.click()
    wait_until(lambda: answered.research_notice_label.text().startswith("仅"))
    left = {text: NAMES.sub("", text) for text in words_in(answered)}
    assert [text for text, rest in left.items() if re.search("[A-Za-z]", rest)] == []
    assert cards(answered)["idh"].level_label.text() == describe_level(**level_of(answered), language="zh")
    assert answered.research_notice_label.text() == "仅供科研使用，不是医疗器械。"
    dialog = ServerDialog("", "")
    assert [t for t in words_in(dialog) if re.search("[A-Za-z]", NAMES.sub("", t))] == []
    answered.english_button.click()
    wait_until(lambda: answered.research_notice_label.text().startswith("R"))
    assert [text for text in words_in(answered) if text != "中文"] == english


def test_caution_is_always_there(answered: MainWindow) -> None:
    assert answered.research_notice_label.isVisible()
    assert answered.research_notice_label.text() == "Research use only. Not a medical device."


# ---- trouble ----------------------------------------------------------------------------------------


def test_wrong_token_then_the_right_one(open_window, server, phantom: Path) -> None:
    window = open_window()
    window.session.connect_to(server.address, "wrong")
    wait_until(lambda: window.session.state.trouble)
    assert "does not accept the access token" in window.sentence.text() and window.mend.isVisible()
    window.open(phantom)  # waits for the server
    assert window.session.state.task.doing == "waiting"
    window.session.connect_to(server.address, server.token)
    wait_until(lambda: window.session.state.study is not None)
    assert not window.banner.isVisible() and window.session.state.folder == phantom
    window.steps.give_up.click()
    assert window.session.state.folder is None and window.session.state.study is None
    window.close()


def test_nobody_at_the_address(open_window) -> None:
    window = open_window()
    window.session.connect_to("http://127.0.0.1:9", "")
    wait_until(lambda: window.session.state.trouble)
    assert window.sentence.text().startswith("The server at http://127.0.0.1:9 does not answer")
    assert window.again.isVisible() and "not reached" in window.server.text()
    window.again.click()
    wait_until(lambda: window.session.state.trouble)
    window.close()


def test_folder_without_images(connected: MainWindow, open_window, server, tmp_path: Path) -> None:
    window = open_window()
    window.session.connect_to(server.address, server.token)
    (tmp_path / "空").mkdir()
    (tmp_path / "空" / "letter.txt").write_text("no image")
    window.open(tmp_path / "空")
    wait_until(lambda: window.session.state.trouble)
    assert "holds no patient's images" in window.sentence.text() and "Traceback" not in window.sentence.text()
    assert window.session.state.task is None and window.steps.choose.isEnabled()
    window.switch_language("zh")
    wait_until(lambda: "空 中没有患者图像" in window.sentence.text())
    window.switch_language("en")
    window.open(tmp_path / "nowhere")
    assert "does not exist" in window.sentence.text()
    window.close()


def test_missing_row_can_be_typed_instead(answered: MainWindow, tmp_path: Path, phantom: Path) -> None:
    table = tmp_path / "other.csv"
    table.write_text("id,age,sex\nsomebody,50,1\n", "utf-8")
    steps = answered.input_panel
    steps.open_path(table)
    problem = steps.table_error_label
    assert problem.isVisible() and "no row in" in problem.text() and "other.csv" in problem.text()
    assert not steps.predict_button.isEnabled()
    answered.switch_language("zh")
    wait_until(lambda: "没有患者 患者 7" in problem.text() and "other.csv" in problem.text())
    answered.switch_language("en")
    steps.open_path(phantom.parent / "clinical.csv")
    assert steps.table_error_label.isHidden() and steps.predict_button.isEnabled()


def test_closing_in_the_middle_is_safe(open_window, server, phantom: Path) -> None:
    window = open_window()
    window.session.connect_to(server.address, server.token)
    window.open(phantom)
    wait_until(lambda: window.session.state.study is not None)
    window.close()
    assert window.session.waiting_for == 0 and window.session.state.folder is None
    wait_until(lambda: True)


# ---- a real patient ---------------------------------------------------------------------------------


def test_real_patient(connected_again: MainWindow, shared: Path) -> None:
    cohort = shared / "cohorts" / "tcga-lgg"
    window = connected_again
    window.open_patient(cohort / "TCGA-CS-4941" / "T1C")
    wait_until(lambda: is_idle(window) and window.session.state.is_study_ready, 2 * TIMEOUT_S)
    window.input_panel.open_path(cohort / "clinical.csv")
    assert window.session.state.patient_id == "TCGA-CS-4941" and window.input_panel.age_field.text()
    window.input_panel.predict_button.click()
    wait_until(lambda: is_idle(window))
    assert window.session.state.prediction["lesion"]["volume_ml"] > 1
    assert cards(window)["idh"].level_label.text() in ("mutant", "wild type")


@pytest.fixture
def connected_again(open_window, server) -> MainWindow:
    window = open_window()
    window.session.connect_to(server.address, server.token)
    return window

"""Widgets shared by the panels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication, QWidget

from gliomark.client.input_panel import InputPanel
from gliomark.client.state import ClientState, restore_document
from gliomark.client.widgets import create_column, create_label, create_scroll_area
from gliomark.messages import collect_message_records, message


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


def test_the_patient_step_names_the_sequences_of_the_outline(app: QApplication) -> None:
    notes = [
        message("outline-by-second-network", missing="FLAIR", used="T1C + T2"),
        message("mask-files"),
    ]
    document = {
        "state": "ready",
        "sequences": ["T1C", "T2"],
        "shape": [2, 240, 240],
        "notes": [str(note) for note in notes],
        "messages": collect_message_records(notes),
    }
    panel = InputPanel()
    for study, words in (
        (document, "FLAIR is missing; the lesion was outlined on T1C + T2"),
        ({**document, "notes": []}, ""),
        ({**document, "notes": [], "stand_ins": {"FLAIR": "T2"}}, "T2 is used in its place"),
    ):
        panel.render_state(ClientState(study=restore_document(study)))
        text = panel.substitute_label.text()
        assert words in text and bool(text) == bool(words) and str(notes[1]) not in text
        assert panel.substitute_label.isHidden() == (not words)


def test_input_typed_before_the_first_patient_is_kept_and_cleared_for_the_next(app: QApplication) -> None:
    panel = InputPanel()
    panel.render_state(ClientState())
    panel.age_field.setText("61")
    panel.sex_control.select_value(0)
    panel.enhancing_control.select_value("no")
    for folder, age, sex, enhancing in (
        (Path("first"), "61", 0, "no"),
        (None, "61", 0, "no"),  # while the folder is sent again
        (Path("first"), "61", 0, "no"),
        (Path("second"), "", None, None),
    ):
        panel.render_state(ClientState(patient_folder=folder))
        assert (panel.age_field.text(), panel.sex_control.value) == (age, sex)
        assert panel.enhancing_control.value == enhancing


@pytest.mark.parametrize(
    ("study", "kind", "is_offered"),
    [
        ({"has_dicom_images": True}, "volumes", True),
        ({"has_dicom_images": False}, "volumes", False),  # NIfTI
        ({"has_dicom_images": False}, "pictures", False),
        ({"has_dicom_images": None}, "volumes", True),  # prepared by an earlier version
        ({}, "volumes", True),  # on an older server
        ({}, "pictures", False),
    ],
)
def test_dicom_results_are_offered_for_dicom_studies(
    study: dict[str, Any], kind: str, is_offered: bool
) -> None:
    job = {"result": {"input": {"kind": kind}}}
    assert ClientState(study=study, job=job).can_save_dicom == is_offered
    assert not ClientState(study=study).can_save_dicom


@pytest.mark.parametrize(
    ("models", "is_offered"),
    [
        ((), False),  # not known yet
        (
            ({"name": "one", "title": "One", "markers": []},),
            False,
        ),  # an older server, which would refuse the field
        (({"name": "one", "title": "One", "markers": [], "can_locate_lesion": False},), False),
        (({"name": "one", "title": "One", "markers": [], "can_locate_lesion": True},), True),
    ],
)
def test_the_location_is_requested_only_where_the_server_can_state_it(
    app: QApplication, models: tuple[dict[str, Any], ...], is_offered: bool
) -> None:
    panel = InputPanel()
    panel.render_state(ClientState(models=models))
    assert panel.location_box.isHidden() == (not is_offered)
    assert "location" not in panel.prediction_request
    panel.location_box.setChecked(True)
    assert panel.prediction_request.get("location") == (True if is_offered else None)
    panel.restore_request({"age": 40, "sex": 1, "location": False})
    assert "location" not in panel.prediction_request
    panel.restore_request({"age": 40, "sex": 1, "location": True})
    assert panel.location_box.isChecked()

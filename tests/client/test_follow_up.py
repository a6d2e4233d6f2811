"""Two examinations of a patient, side by side: outlines, volumes and their change, from a real server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PySide6.QtWidgets import QApplication
from scipy import ndimage
from tests.client.conftest import ServerAccess

from gliomark.client.examination import ExaminationColumn
from gliomark.client.follow_up import FollowUpDialog, describe_change, list_obstacles
from gliomark.client.http_client import HttpClient
from gliomark.client.language import use_language
from gliomark.client.main_window import MainWindow
from gliomark.client.png import encode_mask
from gliomark.client.response_time import is_idle, wait_until
from gliomark.client.study_list import StudyListDialog
from gliomark.phantom import PhantomSettings, create_phantom, write_nifti

COARSE = PhantomSettings(spacing_mm=(1.88, 1.88), matrix=128, slice_count=20, sublayers=1)
RADIUS, GROWTH = 10, 2  # pixels


def wait_for_state(client: httpx.Client, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while (document := client.get(path).json())["state"] not in ("ready", "done", "failed"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return document


@pytest.fixture(scope="module")
def examinations(
    server: ServerAccess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[tuple[str, np.ndarray]]]:
    """Ids and outlines of two studies: a ball, and the same one 2 pixels larger; a third has no prediction."""
    folder = write_nifti(create_phantom(7, COARSE).study, tmp_path_factory.mktemp("follow-up"))
    found = []
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=server.address, headers=headers, timeout=60) as client:
        for growth in (0, GROWTH, None):
            files = [
                ("files", (f"P9/{path.name}", path.read_bytes())) for path in sorted(folder.rglob("*.nii*"))
            ]
            study = client.post("/api/studies", files=files).raise_for_status().json()["id"]
            shape = wait_for_state(client, f"/api/studies/{study}")["shape"]
            mask = np.zeros(shape, bool)
            if growth is not None:
                seed = np.ones(shape[1:], bool)
                seed[110, 90] = False
                mask[8:12] = ndimage.distance_transform_edt(seed) <= RADIUS + growth
                client.put(f"/api/studies/{study}/mask.png", content=encode_mask(mask)).raise_for_status()
                request = {"age": 49, "sex": 1, "outline": "corrected"}
                job = client.post(f"/api/studies/{study}/predictions", json=request).raise_for_status().json()
                assert wait_for_state(client, f"/api/predictions/{job['id']}")["state"] == "done"
            found.append((study, mask))
        yield found


def open_follow_up(server: ServerAccess, ids: tuple[str, str]) -> FollowUpDialog:
    studies = [{"id": study, "created": f"2026-01-0{number}"} for number, study in enumerate(ids, 1)]
    dialog = FollowUpDialog(HttpClient(server.address, server.token), studies[::-1])
    dialog.show()
    wait_until(lambda: dialog.note_label.isVisible() or bool(dialog.change_label.text()), 60)
    wait_until(lambda: all(column._slices for column in dialog.columns), 60)
    return dialog


def test_two_examinations_are_shown_side_by_side(
    app: QApplication, server: ServerAccess, examinations
) -> None:
    (first, small), (second, large), _ = examinations
    dialog = open_follow_up(server, (first, second))
    assert not dialog.note_label.isVisible() and not dialog.error_label.isVisible()
    for column, mask in zip(dialog.columns, (small, large), strict=True):
        np.testing.assert_array_equal(column.lesion_mask, mask)
        assert 8 <= column.slider.value() < 12 and "P9" in column.heading_label.text()
        assert column.view.title == dialog.sequence_box.currentText() == "FLAIR"
        assert {name for name, _ in column._slices} == {"FLAIR"}  # nothing else was fetched
        spacing = column.study["spacing_mm"]
        assert column.view.pixel_size_mm == (spacing[2], spacing[1])
        assert column.lesion["volume_ml"] == pytest.approx(mask.sum() * np.prod(spacing) / 1000, rel=1e-3)
    volumes = [mask.sum() * np.prod(dialog.columns[0].study["spacing_mm"]) / 1000 for mask in (small, large)]
    share = 100 * (large.sum() / small.sum() - 1)
    assert dialog.change_label.text().split("\n")[0] == (
        f"Volume: {volumes[0]:.1f} ml → {volumes[1]:.1f} ml ({volumes[1] - volumes[0]:+.1f} ml, {share:+.0f} %)"
    )
    assert (
        dialog.change_label.text().split("\n")[1] == "Longest diameter in a slice: 21 mm → 25 mm"
    )  # with the pixels at both ends
    if folder := os.environ.get("GLIOMARK_SCREENSHOTS"):
        dialog.grab().save(f"{folder}/follow-up.png")
    dialog.sequence_box.setCurrentText("T1C")
    dialog.columns[0].slider.setValue(0)
    wait_until(lambda: ("T1C", 0) in dialog.columns[0]._slices, 60)
    assert dialog.columns[0].view._image is dialog.columns[0]._slices["T1C", 0]
    dialog.done(0)


def test_missing_predictions_are_named(app: QApplication, server: ServerAccess, examinations) -> None:
    (first, _), _, (third, _) = examinations
    dialog = open_follow_up(server, (first, third))
    assert dialog.note_label.text() == "Predict for both examinations to compare the lesion."
    assert dialog.change_label.text() == "" and dialog.columns[1].lesion_mask is None
    dialog.done(0)


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({}, []),
        ({"patient": "P10"}, ["The patient ids differ, P9 and P10"]),
        ({"spacing_assumed": True}, ["Image files do not state the pixel size"]),
        ({"sha256": "b"}, ["different models"]),
        ({"patient": "P10", "sha256": "b"}, ["The patient ids differ", "different models"]),
    ],
)
def test_obstacles_are_listed(app: QApplication, changes: dict[str, Any], sentences: list[str]) -> None:
    columns = []
    for change in ({}, changes):
        column = ExaminationColumn(HttpClient("http://127.0.0.1:1"), "x")
        column.close_calls()
        column.study = {"patient_id": change.get("patient", "P9")}
        result = {
            "input": {"spacing_assumed": change.get("spacing_assumed", False)},
            "model": {"sha256": change.get("sha256", "a")},
        }
        column.job = {"result": result}
        columns.append(column)
    found = list_obstacles(columns)
    assert len(found) == len(sentences)
    assert all(sentence in text for sentence, text in zip(sentences, found, strict=True))


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (10.0, 15.0, "Volume: 10.0 ml → 15.0 ml (+5.0 ml, +50 %)"),
        (10.0, 0.0, "Volume: 10.0 ml → 0.0 ml (-10.0 ml, -100 %)"),
        (0.0, 3.0, "Volume: 0.0 ml → 3.0 ml (+3.0 ml)"),
    ],
)
def test_a_change_is_described(app: QApplication, first: float, second: float, text: str) -> None:
    assert describe_change([{"volume_ml": first}, {"volume_ml": second}]) == text


def test_two_studies_of_the_list_are_compared(
    app: QApplication,
    server: ServerAccess,
    open_window: Callable[[], MainWindow],
    examinations,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    window = open_window()
    window.session.connect_to_server(server.address, server.token)
    wait_until(lambda: window.session.state.server_status == "ready")
    dialog = StudyListDialog(window.session, window)
    wait_until(lambda: is_idle(window))
    shown: list[FollowUpDialog] = []
    monkeypatch.setattr(FollowUpDialog, "exec", lambda dialog: shown.append(dialog) or 0)
    assert not dialog.compare_button.isEnabled()
    for study, _ in examinations[:2]:
        ids = [one["id"] for one in dialog._studies]
        dialog.table.topLevelItem(ids.index(study)).setSelected(True)
    dialog.table.topLevelItem(0).setSelected(False)  # the latest, chosen at first, has no prediction
    assert dialog.compare_button.isEnabled() and not dialog.open_button.isEnabled()
    dialog.compare_button.click()
    assert [column._study_id for column in shown[0].columns] == [study for study, _ in examinations[:2]]
    shown[0].done(0)
    dialog.reject()


def test_texts_follow_the_language(app: QApplication) -> None:
    use_language("zh")
    assert describe_change([{"volume_ml": 1.0}, {"volume_ml": 2.0}]).startswith("体积：1.0 ml → 2.0 ml")

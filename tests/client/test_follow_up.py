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
UNKNOWN_DATE = "The date of an examination is not known: the one that was received first is on the left."
SAME_DATE = "Both examinations are of the same date: check that they are not the same, and which was first."


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
    assert dialog.note_label.text() == UNKNOWN_DATE and not dialog.error_label.isVisible()
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
    predict_first = "Predict for both examinations to compare the lesion."
    assert dialog.note_label.text().split("\n") == [predict_first, UNKNOWN_DATE]
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
        ({"used": ["T2", "T1C"]}, ["outlined on different sequences, FLAIR, T1C and T2, T1C: sizes"]),
        ({"outline": "0a"}, []),
        ({"sha256": "b", "outline": "0a"}, ["different models"]),
        ({"is_predicted": False}, ["Predict for both examinations"]),
    ],
)
def test_obstacles_are_listed(app: QApplication, changes: dict[str, Any], sentences: list[str]) -> None:
    columns = [create_column(**change) for change in ({}, changes)]
    found = list_obstacles(columns)
    assert len(found) == len(sentences)
    assert all(sentence in text for sentence, text in zip(sentences, found, strict=True))


def test_outlines_of_a_reader_are_compared_whatever_the_models(app: QApplication) -> None:
    columns = [create_column(outline="0a"), create_column(outline="0b", sha256="b", used=["T2"])]
    assert list_obstacles(columns) == []


def create_column(**changes: Any) -> ExaminationColumn:
    column = ExaminationColumn(HttpClient("http://127.0.0.1:1"), "x")
    fill_column(column, **changes)
    return column


def fill_column(
    column: ExaminationColumn,
    patient: str = "P9",
    date: str | None = None,
    volume_ml: float = 1.0,
    spacing_assumed: bool = False,
    sha256: str = "a",
    used: list[str] | None = None,
    outline: str = "",
    sequences: tuple[str, ...] = ("T1C",),
    is_predicted: bool = True,
) -> None:
    """Give a column what the server would send, without slices."""
    column.close_calls()
    column.study = {
        "patient_id": patient,
        "created": "2026-01-01T08:00:00",
        "sequences": sequences,
        "shape": [1, 2, 2],
        "slice_names": ["001"],
        "grey": dict.fromkeys(sequences, {"low": 0.0, "high": 1.0}),
    }
    result = {
        "input": {
            "spacing_assumed": spacing_assumed,
            "examination": date and {"date": date, "number": 1, "of": 1},
        },
        "model": {"sha256": sha256},
        "sequences": {"used": used or ["FLAIR", "T1C"]},
        "lesion": {"volume_ml": volume_ml, "diameters": None},
    }
    column.job = {"result": result, "outline_sha256": outline} if is_predicted else None
    column._finish_loading()


@pytest.mark.parametrize(
    ("dates", "volumes", "note"),
    [
        (("20240601", "20250601"), "10.0 ml → 15.0 ml (+5.0 ml, +50 %)", ""),
        (("20250601", "20240601"), "15.0 ml → 10.0 ml (-5.0 ml, -33 %)", ""),  # the later was received first
        (("20240601", "20240601"), "10.0 ml → 15.0 ml (+5.0 ml, +50 %)", SAME_DATE),
        (("20240601", None), "10.0 ml → 15.0 ml (+5.0 ml, +50 %)", UNKNOWN_DATE),
        ((None, None), "10.0 ml → 15.0 ml (+5.0 ml, +50 %)", UNKNOWN_DATE),
    ],
)
def test_the_earlier_examination_is_on_the_left(
    app: QApplication, dates: tuple[str | None, str | None], volumes: str, note: str
) -> None:
    """By the dates of examination, whichever was received first; if they are not known, that is stated."""
    dialog = open_dialog_of(*({"date": date, "volume_ml": 10.0 + 5 * at} for at, date in enumerate(dates)))
    assert dialog.change_label.text() == f"Volume: {volumes}"
    assert dialog.note_label.text() == note
    shown = [dialog._views_layout.itemAt(at).widget() for at in range(2)]
    assert shown == dialog.columns
    headings = [column.heading_label.text() for column in shown]
    for date, heading in zip(sorted(dates) if all(dates) else dates, headings, strict=True):
        assert heading.startswith(
            f"P9 · examined on {date[:4]}-06-01" if date else "P9 · received 2026-01-01 "
        )
    dialog.done(0)


@pytest.mark.parametrize(
    ("sequences", "shown"),
    [
        ((("FLAIR", "T1C"), ("T2", "FLAIR", "T1C")), ["T1C", "T1C"]),
        ((("T1C", "FLAIR"), ("T1C", "T2")), ["T1C", "T1C"]),
        ((("T1C", "FLAIR"), ("T2",)), ["FLAIR", "T2"]),  # none in both: each its own
    ],
)
def test_a_sequence_is_shown_whatever_was_acquired(
    app: QApplication, sequences: tuple[tuple[str, ...], tuple[str, ...]], shown: list[str]
) -> None:
    dialog = open_dialog_of(*({"sequences": one} for one in sequences))
    assert [column.view.title for column in dialog.columns] == shown
    assert (dialog.sequence_box.count() > 0) == (shown[0] == shown[1])
    dialog.done(0)


def open_dialog_of(*changes: dict[str, Any]) -> FollowUpDialog:
    studies = [{"id": f"s{number}", "created": f"2026-01-0{number}"} for number in (1, 2)]
    dialog = FollowUpDialog(HttpClient("http://127.0.0.1:1"), studies)
    for column, change in zip(tuple(dialog.columns), changes, strict=True):
        fill_column(column, **change)
    return dialog


def test_a_slice_that_is_being_fetched_is_not_requested_again(app: QApplication) -> None:
    column = create_column()
    column.show_sequence("T1C")
    column.show_sequence("T1C")
    assert len(column._replies) == 1
    column.close_calls()
    assert column._requested_slices == set()  # so that it can be requested again


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

"""The client fetches a study from a PACS: a real Orthanc over DIMSE and DICOMweb, and archives that misbehave."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication
from tests.io.test_dicom import FLAIR, T1C, write_series
from tests.orthanc import Orthanc, run_orthanc
from tests.pacs.test_fetch import FIND, GET, Archive, run_archive

from gliomark.client.fetch_dialog import FetchDialog
from gliomark.client.main_window import MainWindow
from gliomark.client.pacs_fetch import PacsAccess
from gliomark.client.response_time import wait_until
from gliomark.client.settings import UserSettings

STUDY = {"StudyInstanceUID": "1.2.3.20", "PatientID": "P_8", "AccessionNumber": "B1", "StudyDate": "20240601"}
OTHER_PATIENT = STUDY | {"StudyInstanceUID": "1.2.3.22", "PatientID": "Q_1", "AccessionNumber": "B2"}
EARLIER = STUDY | {"StudyInstanceUID": "1.2.3.21", "AccessionNumber": "B2", "StudyDate": "20230501"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An archive with two studies of one patient, and one of another with the accession number of the first."""
    folder = tmp_path_factory.mktemp("archive")
    write_series(folder / "images" / "T1C", **T1C, **STUDY)
    write_series(folder / "images" / "FLAIR", **FLAIR, **EARLIER)
    write_series(folder / "images" / "other", (0,), **T1C, **OTHER_PATIENT)
    modalities = {"client": ["GLIOMARK", "127.0.0.1", 1]}
    with run_orthanc(folder / "orthanc", DicomModalities=modalities) as orthanc:
        orthanc.store(folder / "images")
        yield orthanc


@pytest.fixture
def dialog(app: QApplication, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FetchDialog]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = UserSettings()
    settings.pacs = PacsAccess()
    with ExitStack() as fetched_files:
        dialog = FetchDialog(settings, fetched_files)
        dialog.show()
        yield dialog
        dialog.done(0)
    assert list(tmp_path.iterdir()) == []


def run_fetch(dialog: FetchDialog) -> None:
    dialog.fetch_button.click()
    assert dialog.progress_bar.isVisible() and not dialog.fetch_button.isEnabled()
    assert wait_until(lambda: not dialog.progress_bar.isVisible(), 60) is None


@pytest.mark.parametrize("is_dicomweb", [False, True])
def test_a_study_is_fetched_by_accession_number(
    dialog: FetchDialog, archive: Orthanc, tmp_path: Path, is_dicomweb: bool
) -> None:
    assert not dialog.fetch_button.isEnabled()
    dialog.address_field.setText(archive.web if is_dicomweb else f"ARCHIVE@127.0.0.1:{archive.dicom_port}")
    assert not dialog.fetch_button.isEnabled()
    dialog.accession_field.setText(" B1 ")
    run_fetch(dialog)
    assert dialog.result() == dialog.DialogCode.Accepted
    assert dialog.folder is not None and dialog.folder.name == "B1" and dialog.folder.is_relative_to(tmp_path)
    assert len(list(dialog.folder.iterdir())) == len(list((tmp_path / dialog.folder).iterdir())) > 0
    assert UserSettings().pacs.address == dialog.address_field.text()


def test_one_of_several_studies_is_chosen(dialog: FetchDialog, archive: Orthanc) -> None:
    dialog.address_field.setText(archive.web)
    dialog.patient_field.setText("P_8")
    run_fetch(dialog)
    assert not dialog.error_label.isVisible(), dialog.error_label.text()
    rows = [dialog.studies_table.topLevelItem(index) for index in range(2)]
    assert [[row.text(at) for at in (0, 2, 3)] for row in rows] == [
        ["20230501", "B2", "P_8"],
        ["20240601", "B1", "P_8"],
    ]
    assert rows[1].isSelected() and dialog.choice_label.isVisible() and dialog.folder is None
    rows[1].setSelected(False)
    assert not dialog.fetch_button.isEnabled()
    rows[0].setSelected(True)
    run_fetch(dialog)
    assert dialog.folder is not None and dialog.folder.name == "P-8"
    assert len(list(dialog.folder.iterdir())) == 6
    dialog.patient_field.setText("P_9")
    assert not dialog.studies_table.isVisible()


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("access", "accession", "sentence"),
    [
        ({}, "B9", "has no study that fits"),
        ({}, "*", "write the number or id in full"),
        ({"address": "http://127.0.0.1:1/dicom-web"}, "B1", "127.0.0.1:1"),
        ({"ae_title": "A TITLE THAT IS TOO LONG"}, "B1", "AE title"),
        ({"receive_port": "70000"}, "B1", "receive-port"),
    ],
)
def test_the_error_is_shown(
    dialog: FetchDialog,
    archive: Orthanc,
    access: dict[str, str],
    accession: str,
    sentence: str,
    tmp_path: Path,
) -> None:
    dialog.address_field.setText(access.get("address", f"ARCHIVE@127.0.0.1:{archive.dicom_port}"))
    dialog.ae_title_field.setText(access.get("ae_title", "GLIOMARK"))
    dialog.port_field.setText(access.get("receive_port", ""))
    dialog.accession_field.setText(accession)
    run_fetch(dialog)
    assert sentence in dialog.error_label.text() and dialog.error_label.isVisible()
    assert "Traceback" not in dialog.error_label.text() and "gliomark:" not in dialog.error_label.text()
    assert dialog.folder is None and not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert dialog.fetch_button.isEnabled()


def test_the_error_follows_the_language(
    dialog: FetchDialog, archive: Orthanc, open_window: Callable[[], MainWindow]
) -> None:
    dialog.address_field.setText(archive.web)
    dialog.accession_field.setText("B9")
    run_fetch(dialog)
    open_window().switch_language("zh")
    QApplication.processEvents()
    assert "没有" in dialog.error_label.text() and dialog.windowTitle() == "从 PACS 获取"


def test_of_two_patients_with_one_accession_number_none_is_chosen_first(
    dialog: FetchDialog, archive: Orthanc
) -> None:
    dialog.address_field.setText(archive.web)
    dialog.accession_field.setText("B2")
    run_fetch(dialog)
    rows = [dialog.studies_table.topLevelItem(index) for index in range(2)]
    assert [row.text(3) for row in rows] == ["P_8", "Q_1"]
    assert not any(row.isSelected() for row in rows) and not dialog.fetch_button.isEnabled()
    rows[1].setSelected(True)
    assert dialog.fetch_button.isEnabled() and dialog._selected_uid == "1.2.3.22"


class StallingArchive(Archive):
    """An archive that sends two images and then nothing until it is released."""

    is_sending, is_released = False, threading.Event()

    def send(self, event: Any) -> Iterator[Any]:
        for number, one in enumerate(super().send(event)):
            if number == 3:
                self.is_sending = True
                self.is_released.wait(60)
                return
            yield one


@pytest.mark.parametrize("is_killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_interrupted_fetch_leaves_nothing(dialog: FetchDialog, tmp_path: Path, is_killed: bool) -> None:
    """The dialog is closed, or the process killed, while images arrive."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        files = write_series(Path(folder), **T1C, **STUDY)
        archive = StallingArchive(files, files)
        archive.is_released.clear()
        with run_archive(archive, FIND, GET) as address:
            dialog.address_field.setText(address)
            dialog.accession_field.setText("B1")
            dialog.fetch_button.click()
            assert wait_until(lambda: archive.is_sending, 60) is None
            process = dialog._fetch._process.processId()
            assert len(list(tmp_path.rglob("*.dcm"))) == 2
            if is_killed:
                os.kill(process, signal.SIGKILL)
                wait_until(lambda: not dialog.progress_bar.isVisible(), 60)
                assert dialog.error_label.text() == (
                    "Fetching ended before it was complete, and nothing was kept; try again."
                )
            dialog.close_button.click()
            archive.is_released.set()
    assert dialog.folder is None and not dialog._fetch.is_running
    assert not list(tmp_path.rglob("*.dcm"))
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_folder_that_cannot_be_made_is_reported(dialog: FetchDialog, tmp_path: Path) -> None:
    tempfile.tempdir = str(tmp_path / "missing")
    dialog.address_field.setText("http://127.0.0.1:1/dicom-web")
    dialog.accession_field.setText("B1")
    dialog.fetch_button.click()
    assert dialog.error_label.text().startswith("Could not write") and dialog.error_label.isVisible()
    assert dialog.fetch_button.isEnabled() and not dialog._fetch.is_running


@pytest.mark.parametrize("patient_id", ["P_8/../..", "病" * 64, "x" * 300, "--out=y"])
def test_any_patient_id_names_a_folder(dialog: FetchDialog, patient_id: str, tmp_path: Path) -> None:
    dialog.address_field.setText("http://127.0.0.1:1/dicom-web")
    dialog.patient_field.setText(patient_id)
    dialog.fetch_button.click()
    arguments = dialog._fetch._process.arguments()
    (folder,) = (Path(one.removeprefix("--out=")) for one in arguments if one.startswith("--out="))
    assert folder.parent.parent == tmp_path and f"--patient-id={patient_id}" in arguments
    folder.mkdir()


def test_a_password_is_neither_stored_nor_an_argument(dialog: FetchDialog) -> None:
    dialog.address_field.setText("https://127.0.0.1:1/dicom-web")
    dialog.accession_field.setText("B1")
    dialog.user_field.setText("reader")
    assert not dialog.fetch_button.isEnabled()  # a user without a password
    dialog.password_field.setText("a secret")
    dialog.fetch_button.click()
    process = dialog._fetch._process
    assert "--user=reader" in process.arguments() and "a secret" not in " ".join(process.arguments())
    assert process.processEnvironment().value("GLIOMARK_PACS_PASSWORD") == "a secret"
    wait_until(lambda: not dialog.progress_bar.isVisible(), 60)
    settings = UserSettings()
    assert settings.pacs.user == "reader"
    assert "a secret" not in Path(settings._ini_file.fileName()).read_text("utf-8")


def test_the_fetched_study_is_opened_and_its_files_are_removed_with_the_window(
    open_window: Callable[[], MainWindow], archive: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = open_window()
    window.settings.pacs = PacsAccess()
    opened: list[Path] = []
    monkeypatch.setattr(window.session, "open_patient", lambda folder, model: opened.append(folder))

    def fill_in(dialog: FetchDialog) -> int:
        dialog.show()
        dialog.address_field.setText(archive.web)
        dialog.accession_field.setText("B1")
        run_fetch(dialog)
        return dialog.result()

    monkeypatch.setattr(FetchDialog, "exec", fill_in)
    window.input_panel.fetch_button.click()
    assert [folder.name for folder in opened] == ["B1"] and len(list(opened[0].iterdir())) > 0
    assert opened[0] not in window.settings.recent_folders
    window.close()
    assert not opened[0].exists()

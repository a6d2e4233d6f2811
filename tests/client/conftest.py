"""Fixtures: the client window with a running server, the demonstration weights and a synthetic patient.

The user's settings are neither read nor written.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
try:
    from PySide6.QtCore import QSettings
    from PySide6.QtWidgets import QApplication
    from shiboken6 import delete

    from gliomark.client.language import use_language
    from gliomark.client.main_window import MainWindow
    from gliomark.client.response_time import is_idle, wait_until
    from gliomark.client.settings import UserSettings
    from gliomark.client.theme import apply_theme
except ImportError:
    collect_ignore_glob = ["test_*.py"]

TOKEN = "token of the tests"


@dataclass(frozen=True)
class ServerAccess:
    """A running ``gliomark serve``."""

    address: str
    token: str = TOKEN


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient's folder ``患者 7`` with four sequences, and ``clinical.csv`` beside it: 49 years, female."""
    from gliomark.phantom import PhantomSettings, create_phantom, write_pictures

    root = tmp_path_factory.mktemp("病例")
    coarse = PhantomSettings(spacing_mm=(1.88, 1.88), matrix=128, slice_count=20, sublayers=1)
    folder = write_pictures(create_phantom(7, coarse).study, root).rename(root / "患者 7")
    (root / "clinical.csv").write_bytes("id,age,sex,备注\n患者 7,49,女,随访\nother,60,0,\n".encode("gb18030"))
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAccess]:
    """One server for all tests, on a free port."""
    data = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "gliomark", "serve", "--data", str(data), "--port", "0"]
    process = subprocess.Popen(
        command,
        env=os.environ | {"GLIOMARK_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found, "the server did not start"
    yield ServerAccess(found[0])
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module", autouse=True)
def isolated_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the settings and the local server's data in temporary folders of the module."""
    home = tmp_path_factory.mktemp("home")
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(home / "settings"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        yield


@pytest.fixture(scope="session")
def themed_app(qapp: QApplication) -> QApplication:
    """The application with the theme, applied once: every time costs as much as there are widgets."""
    apply_theme(qapp)
    return qapp


@pytest.fixture
def app(themed_app: QApplication) -> Iterator[QApplication]:
    """The application with the theme, in English."""
    use_language("en")
    yield themed_app
    use_language("en")


@pytest.fixture(scope="module")
def open_window(themed_app: QApplication) -> Iterator[Callable[[], MainWindow]]:
    """Function that opens a window in English without a server; the windows are deleted after the module."""
    windows: list[MainWindow] = []

    def create_window() -> MainWindow:
        settings = UserSettings()
        settings.language = "en"
        use_language("en")
        windows.append(MainWindow(settings))
        windows[-1].resize(1480, 900)
        windows[-1].show()
        return windows[-1]

    yield create_window
    for window in windows:
        window.close()
        delete(window)


@pytest.fixture(scope="module")
def connected_window(open_window: Callable[[], MainWindow], server: ServerAccess) -> MainWindow:
    """A window connected to the server."""
    window = open_window()
    window.session.connect_to_server(server.address, server.token)
    wait_until(lambda: window.session.state.server_status == "ready")
    return window


@pytest.fixture(scope="module")
def predicted_window(connected_window: MainWindow, phantom_folder: Path) -> MainWindow:
    """The window with the phantom, opened by its T1C folder, and its prediction."""
    connected_window.open_patient(phantom_folder / "T1C")
    wait_until(lambda: is_idle(connected_window) and connected_window.session.state.is_study_ready)
    connected_window.input_panel.open_path(phantom_folder.parent / "clinical.csv")
    connected_window.input_panel.predict_button.click()
    wait_until(lambda: is_idle(connected_window))
    return connected_window


@pytest.fixture
def restored_window(predicted_window: MainWindow) -> Iterator[MainWindow]:
    """The window with a prediction, restored to its initial state after each test."""
    yield predicted_window
    predicted_window.switch_language("en")
    predicted_window.session.dismiss_error()
    predicted_window.session.show_heatmap("")
    for tool in (
        predicted_window.image_panel.toolbar.brush_button,
        predicted_window.image_panel.toolbar.eraser_button,
    ):
        if tool.isChecked():
            tool.click()
    predicted_window.input_panel.enhancing_control.select_value(None)
    if predicted_window.image_panel.is_user_segmentation:
        predicted_window.image_panel.revert_button.click()
    wait_until(lambda: is_idle(predicted_window))
    if predicted_window.session.state.job["request"]["enhancing"]:
        predicted_window.input_panel.predict_button.click()
        wait_until(lambda: is_idle(predicted_window))

"""The real window before a real server with the real demonstration weights, on a synthetic patient.

Nothing of the user's own settings is read or written.
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

    from gliomark.client.language import use_language
    from gliomark.client.measure import is_idle, wait_until
    from gliomark.client.settings import UserSettings
    from gliomark.client.theme import apply_theme
    from gliomark.client.window import MainWindow
except ImportError:
    collect_ignore_glob = ["test_*.py"]

TOKEN = "the tests' own token"


@dataclass(frozen=True)
class ServerAccess:
    """A running ``gliomark serve``."""

    address: str
    token: str = TOKEN


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient's folder ``患者 7`` with four sequences, and ``clinical.csv`` beside it: 49 years, female."""
    from gliomark.cohort.phantom import PhantomSettings, create_phantom, write_pictures

    root = tmp_path_factory.mktemp("病例")
    coarse = PhantomSettings(spacing_mm=(1.88, 1.88), matrix=128, slice_count=20, sublayers=1)
    folder = write_pictures(create_phantom(7, coarse).study, root).rename(root / "患者 7")
    (root / "clinical.csv").write_bytes("id,age,sex,备注\n患者 7,49,女,随访\nother,60,0,\n".encode("gb18030"))
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAccess]:
    """One server for all tests, on a port of its own."""
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
    """Settings and the local server's data in folders of the module's own."""
    home = tmp_path_factory.mktemp("home")
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(home / "settings"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        yield


@pytest.fixture
def app(qapp: QApplication) -> Iterator[QApplication]:
    """The application as the user sees it, in English."""
    apply_theme(qapp)
    use_language("en")
    yield qapp
    use_language("en")


@pytest.fixture(scope="module")
def open_window(qapp: QApplication) -> Iterator[Callable[[], MainWindow]]:
    """A window in English, before no server yet; closed when the module is done."""
    windows: list[MainWindow] = []

    def create_window() -> MainWindow:
        apply_theme(qapp)
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


@pytest.fixture(scope="module")
def connected_window(open_window: Callable[[], MainWindow], server: ServerAccess) -> MainWindow:
    """A window before the server."""
    window = open_window()
    window.session.connect_to_server(server.address, server.token)
    wait_until(lambda: window.session.state.server_status == "ready")
    return window


@pytest.fixture(scope="module")
def predicted_window(connected: MainWindow, phantom: Path) -> MainWindow:
    """The window with the phantom, picked by its T1C folder, and the model's answer."""
    connected.open_patient(phantom / "T1C")
    wait_until(lambda: is_idle(connected) and connected.session.state.is_study_ready)
    connected.input_panel.open_path(phantom.parent / "clinical.csv")
    connected.input_panel.predict_button.click()
    wait_until(lambda: is_idle(connected))
    return connected


@pytest.fixture
def restored_window(desk: MainWindow) -> Iterator[MainWindow]:
    """``desk`` as it was, whatever the last test did."""
    yield desk
    desk.switch_language("en")
    desk.session.dismiss_error()
    desk.session.show_heatmap("")
    for tool in (desk.image_panel.brush_button, desk.image_panel.eraser_button):
        if tool.isChecked():
            tool.click()
    desk.input_panel.enhancing_control.select_value(None)
    if desk.image_panel.is_user_segmentation:
        desk.image_panel.revert_button.click()
    wait_until(lambda: is_idle(desk))
    if desk.session.state.job["request"]["enhancing"]:
        desk.input_panel.predict_button.click()
        wait_until(lambda: is_idle(desk))

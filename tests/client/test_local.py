"""The server that the client starts itself: ready, killed in the middle, started again, gone at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QProcess

from gliomark.client.app import SCREENS
from gliomark.client.measure import settled, until
from gliomark.client.window import MainWindow


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_local_server_killed_in_the_middle_goes_on(
    open_window: Callable[[], MainWindow], phantom: Path
) -> None:
    window = open_window()
    window.open(phantom)  # before there is a server
    window.start()
    until(lambda: window.session.state.ready)
    window.steps.choose_path(phantom.parent / "clinical.csv")
    until(lambda: settled(window))
    window.steps.predict.click()
    until(lambda: window.session.state.running)
    window.session.local.process.kill()
    until(lambda: window.session.state.trouble)
    until(lambda: window.session.state.server == "gone")
    assert window.sentence.text() == "The local server has stopped unexpectedly; it can be started again."
    assert window.session.state.ready and window.images.strip.isEnabled()  # the images can still be looked at
    window.again.click()
    until(lambda: window.session.state.job is not None and settled(window))
    assert not window.banner.isVisible() and window.session.state.result["lesion"]["found"]
    process_id = window.session.local.process.processId()
    window.close()
    assert window.session.local.process.state() == QProcess.ProcessState.NotRunning and not alive(process_id)


def test_two_clients_have_a_server_and_a_folder_each(open_window: Callable[[], MainWindow]) -> None:
    first, second = open_window(), open_window()
    for window in (first, second):
        window.start()
        until(lambda window=window: window.session.state.server == "ready")
    folders = [window.session.local.process.arguments()[4] for window in (first, second)]
    assert len(set(folders)) == 2 and all(Path(folder, "gliomark.db").exists() for folder in folders)
    for window in (first, second):
        window.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_without_a_screen_one_sentence() -> None:
    bare = {name: value for name, value in os.environ.items() if name not in SCREENS}
    command = [sys.executable, "-m", "gliomark", "client"]
    done = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "gliomark: There is no screen here; start 'gliomark client' on a desktop.\n"


def test_the_program_starts_and_ends(phantom: Path, tmp_path: Path) -> None:
    """The command itself, before a server that is not there, ended from outside."""
    own = {"XDG_CONFIG_HOME": str(tmp_path), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-m", "gliomark", "client", str(phantom), "--server", "http://127.0.0.1:9"]
    process = subprocess.Popen(command, env=os.environ | own, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / "gliomark" / "client.ini"
    try:
        until(kept.exists)  # the folder is remembered once the window stands
        process.terminate()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in said
    assert "recent" in kept.read_text("utf-8") and kept.stat().st_mode & 0o077 == 0


def test_local_server_that_cannot_start(open_window: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without gliomark's server: its own last words, in one sentence, and the way to the settings."""
    window = open_window()
    monkeypatch.setattr(sys, "executable", "/usr/bin/false" if Path("/usr/bin/false").exists() else "false")
    window.start()
    until(lambda: window.session.state.trouble)
    assert window.sentence.text().startswith("The local server could not be started (")
    assert window.mend.isVisible() and window.again.isVisible()
    monkeypatch.setattr(sys, "executable", "no such program")
    window.again.click()
    until(lambda: window.session.state.trouble)
    assert window.sentence.text().startswith("The local server could not be started (")
    window.close()

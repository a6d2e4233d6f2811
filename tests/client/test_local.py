"""The local server of the client: start, crash during a prediction, restart and end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PySide6.QtCore import QProcess

from gliomark.client.app import DISPLAY_VARIABLES
from gliomark.client.local_server import parse_address
from gliomark.client.main_window import MainWindow
from gliomark.client.response_time import is_idle, wait_until


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_local_server_killed_in_the_middle_goes_on(
    open_window: Callable[[], MainWindow], phantom_folder: Path
) -> None:
    window = open_window()
    window.open_patient(phantom_folder)  # before the server is started
    window.connect_server()
    wait_until(lambda: window.session.state.is_study_ready)
    window.input_panel.open_path(phantom_folder.parent / "clinical.csv")
    wait_until(lambda: is_idle(window))
    window.input_panel.predict_button.click()
    wait_until(lambda: window.session.state.running_job_id)
    window.session.local_server.process.kill()
    wait_until(lambda: window.session.state.error)
    wait_until(lambda: window.session.state.server_status == "gone")
    assert window.error_label.text() == "The local server has stopped unexpectedly. Try again to restart it."
    assert (
        window.session.state.is_study_ready and window.image_panel.slice_strip.isEnabled()
    )  # the images can still be viewed
    window.retry_button.click()
    wait_until(lambda: window.session.state.job is not None and is_idle(window))
    assert not window.error_banner.isVisible() and window.session.state.prediction["lesion"]["found"]
    process_id = window.session.local_server.process.processId()
    window.close()
    assert window.session.local_server.process.state() == QProcess.ProcessState.NotRunning and not alive(
        process_id
    )


@pytest.fixture
def impostor() -> Iterator[list[bytes]]:
    """Another user's program that listens on many ports and responds like a server; records what it receives."""
    heard: list[bytes] = []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            heard.append(self.path.encode() + str(self.headers).encode())
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "ok", "version": "0"}')

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Answering) for _ in range(20)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield heard
    for server in servers:
        server.shutdown()
        server.server_close()


def test_only_the_port_that_its_own_child_told_is_asked(
    open_window: Callable[[], MainWindow], impostor: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token (environment) and port (pipe) are not passed in the command line, which all users can read."""
    window = open_window()
    window.connect_server()
    wait_until(lambda: window.session.state.server_status == "ready")
    local = window.session.local_server
    command = Path(f"/proc/{local.process.processId()}/cmdline").read_bytes().split(b"\0")
    assert command[command.index(b"--port") + 1] == b"0"
    assert local._token and local._token.encode() not in b" ".join(command)
    told = urlsplit(local._http_client.address)
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True).stdout
    own = [line for line in listening.splitlines() if f"pid={local.process.processId()}," in line]
    assert not listening or any(line.split()[3].endswith(f":{told.port}") for line in own)
    assert not impostor, "a foreign program received a request"
    local.process.kill()
    wait_until(lambda: window.session.state.server_status == "gone")
    assert local._http_client is None or window.session.state.server_status == "gone"
    window.close()
    assert not impostor


@pytest.mark.parametrize(
    ("words", "address"),
    [
        (
            b'gliomark listens on http://127.0.0.1:1\n{"address": "http://127.0.0.1:2"}\n',
            "http://127.0.0.1:2",
        ),
        (b'{"address": "http://127.0.0.1:2"}', ""),  # line not complete
        (b"gliomark listens on http://127.0.0.1:1\n", ""),
        (b'{"address": "http://evil.example:2"}\n', ""),
        (b'{"address": 2}\n[1]\n7\n{}\n', ""),
        (b"\xff\xfe\n" + b"x" * 10_000, ""),
    ],
)
def test_the_address_is_taken_from_its_own_line_alone(words: bytes, address: str) -> None:
    assert parse_address(words) == address


def test_two_clients_have_a_server_and_a_folder_each(open_window: Callable[[], MainWindow]) -> None:
    first, second = open_window(), open_window()
    for window in (first, second):
        window.connect_server()
        wait_until(lambda window=window: window.session.state.server_status == "ready")
    folders = [window.session.local_server.process.arguments()[4] for window in (first, second)]
    assert len(set(folders)) == 2 and all(Path(folder, "gliomark.db").exists() for folder in folders)
    for window in (first, second):
        window.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_without_a_screen_one_sentence() -> None:
    bare = {name: value for name, value in os.environ.items() if name not in DISPLAY_VARIABLES}
    command = [sys.executable, "-m", "gliomark", "client"]
    done = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "gliomark: No display is available; start 'gliomark client' on a desktop.\n"


def test_the_program_starts_and_ends(phantom_folder: Path, tmp_path: Path) -> None:
    """The command with an unreachable server, ended by a signal."""
    own = {"XDG_CONFIG_HOME": str(tmp_path), "QT_QPA_PLATFORM": "offscreen"}
    command = [
        sys.executable,
        "-m",
        "gliomark",
        "client",
        str(phantom_folder),
        "--server",
        "http://127.0.0.1:9",
    ]
    process = subprocess.Popen(command, env=os.environ | own, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / "gliomark" / "client.ini"
    try:
        wait_until(kept.exists)  # the folder is stored once the window is open
        process.terminate()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in said
    assert "recent" in kept.read_text("utf-8") and kept.stat().st_mode & 0o077 == 0


def test_local_server_that_cannot_start(open_window: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gliomark's server the message contains the last line of the process and offers the settings."""
    window = open_window()
    monkeypatch.setattr(sys, "executable", "/usr/bin/false" if Path("/usr/bin/false").exists() else "false")
    window.connect_server()
    wait_until(lambda: window.session.state.error)
    assert window.error_label.text().startswith("The local server could not be started (")
    assert window.error_settings_button.isVisible() and window.retry_button.isVisible()
    monkeypatch.setattr(sys, "executable", "no such program")
    window.retry_button.click()
    wait_until(lambda: window.session.state.error)
    assert window.error_label.text().startswith("The local server could not be started (")
    window.close()

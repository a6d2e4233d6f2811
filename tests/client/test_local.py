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


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_work_continues_after_the_local_server_was_killed(
    open_window: Callable[[], MainWindow], phantom_folder: Path
) -> None:
    window = open_window()
    window.connect_server()
    steps = window.input_panel
    assert steps.choose_folder_button.isVisible() and steps.choose_folder_button.isEnabled()
    assert steps.age_field.isEnabled() and steps.sex_control.isEnabled()
    assert steps.status_label.text().startswith("The models are loading. You can already choose")
    steps.age_field.setText("33")
    window.open_patient(phantom_folder)
    assert window.session.state.task.kind == "waiting"
    assert steps.status_label.text().startswith("The models are loading. The images are sent as soon as")
    assert steps.choose_folder_button.isVisible() and steps.choose_folder_button.isEnabled()
    wait_until(lambda: window.session.state.is_study_ready)
    assert steps.age_field.text() == "33" and not steps.preparation_bar.isVisible()
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
    assert window.session.local_server.process.state() == QProcess.ProcessState.NotRunning and not is_alive(
        process_id
    )


@pytest.fixture
def impostor() -> Iterator[list[bytes]]:
    """Another user's program that listens on many ports and responds like a server; records what it receives."""
    received: list[bytes] = []

    class RequestHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            received.append(self.path.encode() + str(self.headers).encode())
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "ok", "version": "0"}')

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), RequestHandler) for _ in range(20)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield received
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_only_the_port_reported_by_the_local_server_is_contacted(
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
    address = urlsplit(local._http_client.address)
    listeners = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True).stdout
    lines = [line for line in listeners.splitlines() if f"pid={local.process.processId()}," in line]
    assert not listeners or any(line.split()[3].endswith(f":{address.port}") for line in lines)
    assert not impostor, "a foreign program received a request"
    local.process.kill()
    wait_until(lambda: window.session.state.server_status == "gone")
    assert local._http_client is None or window.session.state.server_status == "gone"
    window.close()
    assert not impostor


@pytest.mark.parametrize(
    ("output", "address"),
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
def test_the_address_is_read_from_a_complete_json_line(output: bytes, address: str) -> None:
    assert parse_address(output) == address


@pytest.mark.slow
def test_each_client_has_its_own_server_and_folder(open_window: Callable[[], MainWindow]) -> None:
    first, second = open_window(), open_window()
    for window in (first, second):
        window.connect_server()
        wait_until(lambda window=window: window.session.state.server_status == "ready")
    folders = [window.session.local_server.process.arguments()[4] for window in (first, second)]
    assert len(set(folders)) == 2 and all(Path(folder, "gliomark.db").exists() for folder in folders)
    for window in (first, second):
        window.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_a_missing_display_is_reported_in_one_sentence() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in DISPLAY_VARIABLES}
    command = [sys.executable, "-m", "gliomark", "client"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "gliomark: No display is available; start 'gliomark client' on a desktop.\n"


def test_the_program_starts_and_ends(phantom_folder: Path, tmp_path: Path) -> None:
    """The command with an unreachable server, ended by a signal."""
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "QT_QPA_PLATFORM": "offscreen"}
    command = [
        sys.executable,
        "-m",
        "gliomark",
        "client",
        str(phantom_folder),
        "--server",
        "http://127.0.0.1:9",
    ]
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)
    settings_file = tmp_path / "gliomark" / "client.ini"
    try:
        wait_until(settings_file.exists)  # the folder is stored once the window is open
        process.terminate()
        _, error_text = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in error_text
    assert "recent" in settings_file.read_text("utf-8") and settings_file.stat().st_mode & 0o077 == 0


def test_a_local_server_that_cannot_start_is_reported(
    open_window: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
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

"""The local server that the client starts and stops.

It listens on a free port and reports the address on its standard output, so another user's program on a guessed port
never receives the token.
"""

from __future__ import annotations

import json
import secrets
import sys

from PySide6.QtCore import (
    QDir,
    QFileInfo,
    QLockFile,
    QObject,
    QProcess,
    QProcessEnvironment,
    QStandardPaths,
    QTimer,
    Signal,
)
from PySide6.QtNetwork import QNetworkReply

from gliomark.client import errors
from gliomark.client.errors import ErrorMessage
from gliomark.client.http_client import HttpClient, abort_reply

POLL_INTERVAL_MS = 300
START_TIMEOUT_MS = 120_000
STOP_TIMEOUT_MS = 5_000
STUDY_MEMORY_MB = 100  # about three studies of pictures; the last study is always kept
STDERR_LIMIT = 4_000
STDOUT_LIMIT = 4_000  # bytes of standard output in which the address is expected
MAXIMUM_CLIENTS = 20


class LocalServer(QObject):
    """``gliomark serve`` as a child process on a free port of the loopback interface.

    ``ready`` carries address and token; ``failed`` carries the error message.
    """

    ready = Signal(str, str)
    failed = Signal(ErrorMessage)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.process = QProcess(self)
        self.process.readyReadStandardOutput.connect(self._read_stdout)
        self.process.readyReadStandardError.connect(self._read_stderr)
        self.process.finished.connect(self._handle_exit)
        self.process.errorOccurred.connect(self._handle_start_error)
        self._poll_timer = QTimer(self, interval=POLL_INTERVAL_MS)
        self._poll_timer.timeout.connect(self._poll_health)
        self._http_client: HttpClient | None = None
        self._reply: QNetworkReply | None = None
        self._waited_ms = 0
        self._is_reachable = False
        self._token = ""
        self._stderr = ""
        self._stdout = b""
        self._folder_lock: QLockFile | None = None
        self._data_folder = ""

    @property
    def is_running(self) -> bool:
        """Whether the server process is running."""
        return self.process.state() != QProcess.ProcessState.NotRunning

    def start(self) -> None:
        """Start the server; ``ready`` is emitted once it responds, ``failed`` if it does not."""
        self._waited_ms, self._is_reachable, self._stderr, self._stdout = 0, False, "", b""
        self._http_client, self._reply = None, None
        # the token keeps other users of this computer out
        self._token = secrets.token_urlsafe(24)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("GLIOMARK_TOKEN", self._token)
        self.process.setProcessEnvironment(environment)
        command = ["-m", "gliomark", "serve", "--data", self._claim_data_folder()]
        command += ["--host", "127.0.0.1", "--port", "0"]
        command += ["--study-memory", str(STUDY_MEMORY_MB)]
        command += ["--with-input"]  # the server exits with this program, even if this program crashes
        self.process.start(sys.executable, command)
        self._poll_timer.start()

    def _claim_data_folder(self) -> str:
        """Lock and return a data folder for the server; each client open on this computer uses its own."""
        if (
            self._folder_lock is not None and self._folder_lock.isLocked()
        ):  # restart after a crash: keep the studies
            return self._data_folder
        default_folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.AppLocalDataLocation)
        QDir().mkpath(QFileInfo(default_folder).path())
        for number in range(1, MAXIMUM_CLIENTS):
            folder = default_folder if number == 1 else f"{default_folder}-{number}"
            self._folder_lock = QLockFile(f"{folder}.lock")
            self._folder_lock.setStaleLockTime(0)
            if self._folder_lock.tryLock(0):
                self._data_folder = folder
                return folder
        return default_folder  # the server reports the error

    def stop(self) -> None:
        """Stop the server and wait until it has exited; ``failed`` is not emitted."""
        self._poll_timer.stop()
        if self._reply is not None:
            abort_reply(self._reply)
            self._reply = None
        self.process.blockSignals(True)
        if self.is_running:
            self.process.terminate()
            if not self.process.waitForFinished(STOP_TIMEOUT_MS):
                self.process.kill()
                self.process.waitForFinished(STOP_TIMEOUT_MS)
        self.process.blockSignals(False)
        if self._folder_lock is not None:
            self._folder_lock.unlock()

    def _poll_health(self) -> None:
        self._waited_ms += POLL_INTERVAL_MS
        if self._waited_ms > START_TIMEOUT_MS:
            self.stop()
            self.failed.emit(ErrorMessage(errors.LOCAL_SERVER_NOT_STARTED, ("120 s",), "settings"))
        elif self._http_client is not None and self._reply is None:
            self._reply = self._http_client.get_json(
                "/api/health", self._handle_healthy, self._handle_not_ready
            )

    def _handle_healthy(self, _: object) -> None:
        self._reply = None
        self._poll_timer.stop()
        self._is_reachable = True
        if self._http_client is not None:
            self.ready.emit(self._http_client.address, self._token)

    def _handle_not_ready(self, _: ErrorMessage) -> None:
        self._reply = None

    def _handle_exit(self) -> None:
        self._poll_timer.stop()
        if self._is_reachable:
            self.failed.emit(ErrorMessage(errors.LOCAL_SERVER_STOPPED))
            return
        self._read_stderr()
        lines = self._stderr.strip().splitlines()
        last_line = lines[-1] if lines else str(self.process.exitCode())
        self.failed.emit(ErrorMessage(errors.LOCAL_SERVER_NOT_STARTED, (last_line,), "settings"))

    def _read_stdout(self) -> None:
        """Collect standard output until it contains the address; later output is discarded."""
        received = bytes(self.process.readAllStandardOutput().data())
        if self._http_client is None:
            self._stdout = (self._stdout + received)[:STDOUT_LIMIT]
            if address := parse_address(self._stdout):
                self._http_client = HttpClient(address, parent=self)

    def _read_stderr(self) -> None:
        """Keep the last 4,000 characters of standard error for the error message."""
        received = bytes(self.process.readAllStandardError().data()).decode("utf-8", "replace")
        self._stderr = (self._stderr + received)[-STDERR_LIMIT:]

    def _handle_start_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._poll_timer.stop()
            self.failed.emit(
                ErrorMessage(errors.LOCAL_SERVER_NOT_STARTED, (self.process.errorString(),), "settings")
            )


def parse_address(stdout: bytes) -> str:
    """Return the address from the line ``{"address": ...}`` of the server's output; empty until it is complete."""
    for line in stdout.split(b"\n")[:-1]:
        try:
            address = json.loads(line)["address"]
        except (ValueError, TypeError, KeyError):
            continue
        if isinstance(address, str) and address.startswith("http://127.0.0.1:"):
            return address
    return ""

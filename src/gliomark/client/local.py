"""The server on this computer that the client starts and stops itself.

It listens on a port that the system gives it and tells that through the pipe from its standard output, which nobody
else can write to: a program of another user that waits on some port is never asked, and never given the token.
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

from gliomark.client import trouble
from gliomark.client.remote import HttpClient, abort_reply
from gliomark.client.trouble import ErrorMessage

POLL_INTERVAL_MS = 300
START_TIMEOUT_MS = 120_000
STOP_TIMEOUT_MS = 5_000
STDERR_LIMIT = 4_000
STDOUT_LIMIT = 4_000  # in which it tells its address
MAXIMUM_CLIENTS = 20


class LocalServer(QObject):
    """``gliomark serve`` as a child process on a free loopback port."""

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
        return self.process.state() != QProcess.ProcessState.NotRunning

    def start(self) -> None:
        """Start it; ``ready`` gives its address and token once it answers, ``failed`` says why not."""
        self._waited_ms, self._is_reachable, self._stderr, self._stdout = 0, False, "", b""
        self._http_client, self._reply = None, None
        # nobody else on this computer may ask it
        self._token = secrets.token_urlsafe(24)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("GLIOMARK_TOKEN", self._token)
        self.process.setProcessEnvironment(environment)
        command = ["-m", "gliomark", "serve", "--data", self._claim_data_folder()]
        command += ["--host", "127.0.0.1", "--port", "0"]
        command += ["--with-input"]  # it ends with this program, however that ends
        self.process.start(sys.executable, command)
        self._poll_timer.start()

    def _claim_data_folder(self) -> str:
        """The server's data folder; another one for each further client that is open on this computer."""
        if (
            self._folder_lock is not None and self._folder_lock.isLocked()
        ):  # its server has died; its studies are there
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
        return default_folder  # its server will say what is wrong

    def stop(self) -> None:
        """End it and wait for that; silent."""
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
            self.failed.emit(ErrorMessage(trouble.LOCAL_SERVER_NOT_STARTED, ("120 s",), "settings"))
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
            self.failed.emit(ErrorMessage(trouble.LOCAL_SERVER_STOPPED))
            return
        self._read_stderr()
        lines = self._stderr.strip().splitlines()
        last_line = lines[-1] if lines else str(self.process.exitCode())
        self.failed.emit(ErrorMessage(trouble.LOCAL_SERVER_NOT_STARTED, (last_line,), "settings"))

    def _read_stdout(self) -> None:
        """Keep what it says until that holds its address; nothing is asked before, and nothing is read after."""
        received = bytes(self.process.readAllStandardOutput().data())
        if self._http_client is None:
            self._stdout = (self._stdout + received)[:STDOUT_LIMIT]
            if address := parse_address(self._stdout):
                self._http_client = HttpClient(address, parent=self)

    def _read_stderr(self) -> None:
        """Keep its last words; a log that nobody reads would fill the memory."""
        received = bytes(self.process.readAllStandardError().data()).decode("utf-8", "replace")
        self._stderr = (self._stderr + received)[-STDERR_LIMIT:]

    def _handle_start_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._poll_timer.stop()
            self.failed.emit(
                ErrorMessage(trouble.LOCAL_SERVER_NOT_STARTED, (self.process.errorString(),), "settings")
            )


def parse_address(stdout: bytes) -> str:
    """The address in ``{"address": ...}``, a line of its own; empty while there is none."""
    for line in stdout.split(b"\n")[:-1]:
        try:
            address = json.loads(line)["address"]
        except (ValueError, TypeError, KeyError):
            continue
        if isinstance(address, str) and address.startswith("http://127.0.0.1:"):
            return address
    return ""

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
from gliomark.client.remote import Remote, drop
from gliomark.client.trouble import Trouble

ASK_EVERY_MS = 300
GIVE_UP_MS = 120_000
END_MS = 5_000
LAST_WORDS = 4_000
FIRST_WORDS = 4_000  # in which it tells its address
MOST_OPEN = 20


class LocalServer(QObject):
    """``gliomark serve`` as a child process on a free loopback port."""

    ready = Signal(str, str)
    failed = Signal(Trouble)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.process = QProcess(self)
        self.process.readyReadStandardOutput.connect(self._hear_address)
        self.process.readyReadStandardError.connect(self._listen)
        self.process.finished.connect(self._ended)
        self.process.errorOccurred.connect(self._not_started)
        self._asking = QTimer(self, interval=ASK_EVERY_MS)
        self._asking.timeout.connect(self._ask)
        self._remote: Remote | None = None
        self._reply: QNetworkReply | None = None
        self._waited = 0
        self._answered = False
        self._token = ""
        self._said = ""
        self._told = b""
        self._lock: QLockFile | None = None
        self._folder = ""

    @property
    def running(self) -> bool:
        return self.process.state() != QProcess.ProcessState.NotRunning

    def start(self) -> None:
        """Start it; ``ready`` gives its address and token once it answers, ``failed`` says why not."""
        self._waited, self._answered, self._said, self._told = 0, False, "", b""
        self._remote, self._reply = None, None
        # nobody else on this computer may ask it
        self._token = secrets.token_urlsafe(24)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("GLIOMARK_TOKEN", self._token)
        self.process.setProcessEnvironment(environment)
        command = ["-m", "gliomark", "serve", "--data", self._own_folder()]
        command += ["--host", "127.0.0.1", "--port", "0"]
        command += ["--with-input"]  # it ends with this program, however that ends
        self.process.start(sys.executable, command)
        self._asking.start()

    def _own_folder(self) -> str:
        """The server's data folder; another one for each further client that is open on this computer."""
        if self._lock is not None and self._lock.isLocked():  # its server has died; its studies are there
            return self._folder
        usual = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.AppLocalDataLocation)
        QDir().mkpath(QFileInfo(usual).path())
        for number in range(1, MOST_OPEN):
            folder = usual if number == 1 else f"{usual}-{number}"
            self._lock = QLockFile(f"{folder}.lock")
            self._lock.setStaleLockTime(0)
            if self._lock.tryLock(0):
                self._folder = folder
                return folder
        return usual  # its server will say what is wrong

    def stop(self) -> None:
        """End it and wait for that; silent."""
        self._asking.stop()
        if self._reply is not None:
            drop(self._reply)
            self._reply = None
        self.process.blockSignals(True)
        if self.running:
            self.process.terminate()
            if not self.process.waitForFinished(END_MS):
                self.process.kill()
                self.process.waitForFinished(END_MS)
        self.process.blockSignals(False)
        if self._lock is not None:
            self._lock.unlock()

    def _ask(self) -> None:
        self._waited += ASK_EVERY_MS
        if self._waited > GIVE_UP_MS:
            self.stop()
            self.failed.emit(Trouble(trouble.NO_LOCAL, ("120 s",), "settings"))
        elif self._remote is not None and self._reply is None:
            self._reply = self._remote.read_json("/api/health", self._healthy, self._not_yet)

    def _healthy(self, _: object) -> None:
        self._reply = None
        self._asking.stop()
        self._answered = True
        if self._remote is not None:
            self.ready.emit(self._remote.address, self._token)

    def _not_yet(self, _: Trouble) -> None:
        self._reply = None

    def _ended(self) -> None:
        self._asking.stop()
        if self._answered:
            self.failed.emit(Trouble(trouble.LOCAL_GONE))
            return
        self._listen()
        lines = self._said.strip().splitlines()
        last = lines[-1] if lines else str(self.process.exitCode())
        self.failed.emit(Trouble(trouble.NO_LOCAL, (last,), "settings"))

    def _hear_address(self) -> None:
        """Keep what it says until that holds its address; nothing is asked before, and nothing is read after."""
        heard = bytes(self.process.readAllStandardOutput().data())
        if self._remote is None:
            self._told = (self._told + heard)[:FIRST_WORDS]
            if address := told_address(self._told):
                self._remote = Remote(address, parent=self)

    def _listen(self) -> None:
        """Keep its last words; a log that nobody reads would fill the memory."""
        heard = bytes(self.process.readAllStandardError().data()).decode("utf-8", "replace")
        self._said = (self._said + heard)[-LAST_WORDS:]

    def _not_started(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._asking.stop()
            self.failed.emit(Trouble(trouble.NO_LOCAL, (self.process.errorString(),), "settings"))


def told_address(words: bytes) -> str:
    """The address in ``{"address": ...}``, a line of its own; empty while there is none."""
    for line in words.split(b"\n")[:-1]:
        try:
            address = json.loads(line)["address"]
        except (ValueError, TypeError, KeyError):
            continue
        if isinstance(address, str) and address.startswith("http://127.0.0.1:"):
            return address
    return ""

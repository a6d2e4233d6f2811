"""A study fetched from a PACS by ``gliomark fetch``, run as a child process that can be stopped at any time."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QProcess, QProcessEnvironment, Signal

from gliomark.client import errors
from gliomark.client.errors import ErrorMessage
from gliomark.client.state import Json
from gliomark.messages import from_message_record, message

STOP_TIMEOUT_MS = 5_000


@dataclass(frozen=True)
class PacsAccess:
    """How a PACS is reached.

    address: ``AET@host:port``, or the address of a DICOMweb service. ae_title, receive_port: of this computer as
    registered in the PACS; "" without a port. user: of a DICOMweb service.
    """

    address: str = ""
    ae_title: str = "GLIOMARK"
    receive_port: str = ""
    user: str = ""

    def list_arguments(self) -> list[str]:
        """List the arguments of ``gliomark fetch``; those left blank are absent."""
        options = {
            "--pacs": self.address,
            "--ae-title": self.ae_title,
            "--receive-port": self.receive_port,
            "--user": self.user,
        }
        return [f"{name}={value}" for name, value in options.items() if value]


class PacsFetch(QObject):
    """One study at a time. ``fetched`` carries its folder, ``choice_needed`` several studies, ``failed`` the error."""

    fetched = Signal(object)
    choice_needed = Signal(object)
    failed = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._process = QProcess(self)
        self._process.finished.connect(self._handle_exit)
        self._process.errorOccurred.connect(self._handle_start_error)

    @property
    def is_running(self) -> bool:
        """Whether a study is being fetched."""
        return self._process.state() != QProcess.ProcessState.NotRunning

    def start(self, access: PacsAccess, password: str, query: Mapping[str, str], folder: Path) -> None:
        """Fetch a study into a new folder.

        query: values of ``gliomark fetch --accession, --patient-id, --study-uid`` by option; blank ones are left out.
        """
        environment = QProcessEnvironment.systemEnvironment()
        if password:  # never on the command line, which other users can see
            environment.insert("GLIOMARK_PACS_PASSWORD", password)
        self._process.setProcessEnvironment(environment)
        wanted = [f"{name}={value}" for name, value in query.items() if value]
        arguments = [
            "-m",
            "gliomark",
            "fetch",
            *access.list_arguments(),
            *wanted,
            f"--out={folder}",
            "--json",
        ]
        self._process.start(sys.executable, arguments)
        self._process.closeWriteChannel()  # a question for a password would wait forever

    def stop(self) -> None:
        """Stop fetching; no signal follows. Unfinished files may be left beside the folder."""
        self._process.blockSignals(True)
        if self.is_running:
            self._process.terminate()
            if not self._process.waitForFinished(STOP_TIMEOUT_MS):
                self._process.kill()
                self._process.waitForFinished(STOP_TIMEOUT_MS)
        self._process.blockSignals(False)

    def _handle_exit(self) -> None:
        answer = _parse_answer(bytes(self._process.readAllStandardOutput().data()))
        if answer.get("studies"):
            self.choice_needed.emit(tuple(answer["studies"]))
        elif "error" in answer:
            text = from_message_record(answer["error"])
            self.failed.emit(ErrorMessage(errors.PLAIN_TEXT, (text,), None))
        elif "folder" in answer:
            self.fetched.emit(Path(answer["folder"]))
        else:  # it did not start, because an option is not valid or a package is missing; or it was killed
            lines = bytes(self._process.readAllStandardError().data()).decode("utf-8", "replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            text = last.removeprefix("gliomark: ") or message("pacs-fetch-ended")
            self.failed.emit(ErrorMessage(errors.PLAIN_TEXT, (text,), None))

    def _handle_start_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self.failed.emit(ErrorMessage(errors.PLAIN_TEXT, (self._process.errorString(),), None))


def _parse_answer(output: bytes) -> Json:
    """Return the JSON object on the last line of the output; empty without one."""
    try:
        answer: Any = json.loads(output.strip().split(b"\n")[-1])
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}

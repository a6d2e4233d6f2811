"""Server with DICOM node, started by the command line, and the requests of attackers and of ordinary clients."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import httpx
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, _config
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from tests.battery.command_line import find_files

REQUEST_TIMEOUT_S = 50.0
PREDICTION_TIMEOUT_S = 180.0  # a healthy study on a busy machine
START_TIMEOUT_S = 180.0
# files of the server itself; all others in its folder belong to studies
SERVER_FILES_PATTERN = re.compile(r"gliomark\.db|lock|incoming/|taken/|arriving/|.*set.aside|workers/|logs/")


@dataclass(frozen=True)
class Reply:
    """Reply of the server.

    status: HTTP or DIMSE status, 0 if the connection was closed or rejected; text: body, or entry of the audit log.
    """

    status: int
    text: str
    refused: bool


class LiveServer(httpx.Client):
    """Running server and HTTP client. healthy_folder: folder of healthy inputs."""

    def __init__(self, folder: Path, ground: Path) -> None:
        self.data, self.log_file, self.healthy_folder = folder / "data", folder / "server.log", ground
        words = ["serve", "--data", str(self.data), "--port", "0", "--dicom-port", "0", "--dicom-quiet", "1"]
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "gliomark", *words],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        address = self._wait_for_log_match(r"listens on (\S+)")
        self.dicom_port = int(self._wait_for_log_match(r"DICOM node GLIOMARK on port (\d+)"))
        super().__init__(base_url=address, timeout=REQUEST_TIMEOUT_S)
        self._wait_until(lambda: self.get("/api/health").json()["status"] == "ok", START_TIMEOUT_S)

    def _wait_for_log_match(self, pattern: str) -> str:
        found: list[str] = []
        self._wait_until(
            lambda: found.extend(re.findall(pattern, self.log_file.read_text())) or bool(found),
            START_TIMEOUT_S,
        )
        return found[0]

    def _wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and self.process.poll() is None:
            if ready():
                return
            time.sleep(0.1)
        raise RuntimeError(f"the server did not start: {self.log_file.read_text()[-2000:]}")

    def stop(self) -> None:
        self.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def is_healthy(self) -> bool:
        """Whether the server promptly reports that it is healthy."""
        try:
            return self.get("/api/health", timeout=10).json()["status"] == "ok"
        except (httpx.HTTPError, ValueError):
            return False

    def find_study_files(self) -> set[str]:
        """List the files of studies in the server's folder."""
        return {name for name in find_files(self.data) if not SERVER_FILES_PATTERN.match(name)}

    # ---- HTTP ---------------------------------------------------------------------------------------

    def to_reply(self, response: httpx.Response) -> Reply:
        return Reply(response.status_code, response.text[:20_000], response.status_code >= 400)

    def send_request(self, method: str, path: str, **words: Any) -> Reply:
        try:
            return self.to_reply(self.request(method, path, **words))
        except httpx.HTTPError as error:
            return Reply(0, type(error).__name__, True)

    def upload(self, files: Iterable[tuple[str, bytes]], **fields: str) -> Reply:
        """Upload a study; a study that is accepted but cannot be prepared counts as rejected."""
        parts = [("files", (name, content)) for name, content in files]
        sent = self.send_request("POST", "/api/studies", files=parts, data=fields)
        return sent if sent.refused else self.wait_until_prepared(json.loads(sent.text)["id"])

    def wait_until_prepared(self, study: str) -> Reply:
        document = self.wait_for_state(f"/api/studies/{study}", ("ready", "failed"))
        if document["state"] == "failed":  # a failed study is kept until its owner deletes it
            self.delete(f"/api/studies/{study}").raise_for_status()
        return Reply(201, json.dumps(document), document["state"] == "failed")

    def wait_for_state(self, path: str, states: tuple[str, ...]) -> dict[str, Any]:
        deadline = time.monotonic() + PREDICTION_TIMEOUT_S
        while time.monotonic() < deadline:
            document: dict[str, Any] = self.get(path).raise_for_status().json()
            if document["state"] in states:
                return document
            time.sleep(0.1)
        raise TimeoutError(path)

    def get_healthy_study(self) -> str:
        """Return the id of the healthy patient's study, which is uploaded in the first call."""
        if not hasattr(self, "_study"):
            files = [
                (f"P001/{f.name}", f.read_bytes())
                for f in sorted((self.healthy_folder / "volumes/P001").iterdir())
            ]
            reply = self.upload(files)
            assert not reply.refused, reply.text
            self._study = json.loads(reply.text)["id"]
        return str(self._study)

    def get_healthy_prediction(self) -> str:
        if not hasattr(self, "_prediction"):
            response = self.post(
                f"/api/studies/{self.get_healthy_study()}/predictions", json={"age": 50, "sex": 0}
            )
            self._prediction = self.wait_for_state(
                f"/api/predictions/{response.json()['id']}", ("done", "failed")
            )["id"]
        return str(self._prediction)

    # ---- raw bytes ----------------------------------------------------------------------------------

    def send_bytes(self, content: bytes, port: int = 0, seconds: float = 20.0) -> Reply:
        """Send bytes to a port; everything received until the connection is closed."""
        answer = b""
        with socket.create_connection(
            ("127.0.0.1", port or self.base_url.port), timeout=seconds
        ) as connection:
            try:
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                while len(answer) < 100_000 and (piece := connection.recv(65536)):
                    answer += piece
            except TimeoutError:
                return Reply(0, "still open", False)
            except OSError:
                pass  # connection reset by the server
        status = re.match(rb"HTTP/1\.1 (\d+)", answer)
        return Reply(
            int(status[1]) if status else 0, answer.decode("latin-1"), not status or int(status[1]) >= 400
        )

    # ---- DICOM --------------------------------------------------------------------------------------

    def send_echo(self) -> bool:
        entity = AE("TEST")
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", self.dicom_port, ae_title="GLIOMARK")
        if not association.is_established:
            return False
        status = association.send_c_echo()
        association.release()
        return bool(status) and status.Status == 0

    def send_objects(self, objects: Iterable[Dataset]) -> list[int]:
        """Send objects by C-STORE; their statuses, -1 for no response."""
        entity = AE("TEST")
        entity.dimse_timeout = 30
        entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", self.dicom_port, ae_title="GLIOMARK")
        answers = []
        for one in objects:
            answer = association.send_c_store(one) if association.is_established else Dataset()
            answers.append(answer.Status if "Status" in answer else -1)
        if association.is_established:
            association.release()
        return answers

    def send_file(self, content: bytes) -> int:
        """Send a file by C-STORE without decoding its data set; the status."""
        _config.STORE_SEND_CHUNKED_DATASET = True
        with NamedTemporaryFile(suffix=".dcm") as file:
            file.write(content)
            file.flush()
            entity = AE("TEST")
            entity.dimse_timeout = 30
            entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
            association = entity.associate("127.0.0.1", self.dicom_port, ae_title="GLIOMARK")
            answer = association.send_c_store(file.name) if association.is_established else Dataset()
            if association.is_established:
                association.release()
        return answer.Status if "Status" in answer else -1

    def read_healthy_slices(self) -> list[Dataset]:
        return [dcmread(file) for file in sorted((self.healthy_folder / "classic/P001").rglob("*.dcm"))]

    def wait_for_pushed_outcome(self, since: int) -> Reply:
        """Wait for the audit log's entry on a study pushed after an entry: failed, quarantined or predicted."""
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while time.monotonic() < deadline:
            for row in self.read_pushed_lines():
                failed = "failed" in row["action"] or "aside" in row["action"]
                if row["number"] > since and (failed or row["action"] == "predict done"):
                    return Reply(0, json.dumps(row), failed)
            time.sleep(0.2)
        return Reply(0, "no entry in the audit log", False)

    def find_newest_line(self) -> int:
        """Return the number of the newest audit log entry about pushed studies."""
        return max((row["number"] for row in self.read_pushed_lines()), default=0)

    def read_pushed_lines(self) -> list[dict[str, Any]]:
        """Return the newest audit log entries of the DICOM node, newest first."""
        rows: list[dict[str, Any]] = self.get("/api/audit", params={"who": "DICOM node"}).json()
        return rows

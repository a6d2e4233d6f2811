"""Start a server as a user does, and send it the requests of a client."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gliomark.errors import ExperimentError

MEGABYTE = 1 << 20
TIMEOUT_S = 1800.0
PREDICTION_REQUEST = {"without_clinical": True}
COMPARED_KEYS = ("patient_id", "markers", "lesion")


@dataclass(frozen=True)
class RunningServer:
    """A running server.

    client: HTTP client with the server's token; process_id: id of the server process; dicom_port: port of the DICOM
    node, 0 without one.
    """

    client: httpx.Client
    process_id: int
    dicom_port: int = 0


@contextmanager
def start_server(data: Path, *options: str, log_path: Path | None = None) -> Iterator[RunningServer]:
    """Run a server and wait until its models are loaded.

    options: further options of ``gliomark serve``; log_path: file for its log lines, which are discarded if None.

    Raises
    ------
    ExperimentError
        If the server does not start.
    """
    token = secrets.token_urlsafe(16)
    command = [
        sys.executable,
        "-m",
        "gliomark",
        "serve",
        "--data",
        str(data),
        "--port",
        "0",
        "--with-input",
        *options,
    ]
    with (log_path or Path(os.devnull)).open("ab") as log_file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # the server stops when this pipe closes, even if this process is killed
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            env=os.environ | {"GLIOMARK_TOKEN": token},
        )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1:]
        if not address or not process.stdout.readline():
            raise ExperimentError("The server did not start; run 'gliomark serve' and read its messages.")
        port = int(process.stdout.readline().split()[-1]) if "--dicom-port" in options else 0
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=address[0], headers=headers, timeout=TIMEOUT_S, limits=limits) as client:
            while client.get("/api/health").json()["status"] != "ok":
                time.sleep(0.1)
            yield RunningServer(client, process.pid, port)
    finally:
        process.terminate()
        process.wait()


def read_patient_files(folder: Path) -> dict[str, bytes]:
    """Read a patient's files; content by upload name (patient folder and relative path)."""
    return {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def send_files(client: httpx.Client, files: Mapping[str, bytes]) -> httpx.Response:
    """Upload files; retry while the server answers 503 (no free upload slot)."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        response = client.post("/api/studies", files=[("files", file) for file in files.items()])
        if response.status_code != 503 or time.monotonic() > deadline:
            return response
        time.sleep(0.2)


def upload_study(client: httpx.Client, folder: Path) -> str:
    """Upload a patient and wait until the study is ready; its id.

    Raises
    ------
    ExperimentError
        If the server rejects the files or cannot prepare them.
    """
    response = send_files(client, read_patient_files(folder))
    if response.status_code != 201:
        raise ExperimentError(f"{folder}: {response.json()['detail']}")
    id = str(response.json()["id"])
    study = wait_until_finished(client, f"/api/studies/{id}", ("ready", "failed"))
    if study["state"] == "failed":
        raise ExperimentError(f"{folder}: {study['error']}")
    return id


@dataclass(frozen=True)
class ServerPrediction:
    """A prediction received over HTTP; seconds: time from the request to the result."""

    study_id: str
    state: str
    result: dict[str, Any] | None
    seconds: float

    def has_same_result(self, other: ServerPrediction) -> bool:
        """Whether both are predictions of the same patient with the same markers and lesion."""
        if self.result is None or other.result is None:
            return False
        return all(self.result[part] == other.result[part] for part in COMPARED_KEYS)


def request_prediction(client: httpx.Client, study_id: str) -> ServerPrediction:
    """Request a prediction and wait until it is finished."""
    started = time.perf_counter()
    job = (
        client.post(f"/api/studies/{study_id}/predictions", json=PREDICTION_REQUEST).raise_for_status().json()
    )
    finished_job = wait_until_finished(
        client, f"/api/predictions/{job['id']}", ("done", "failed", "cancelled")
    )
    return ServerPrediction(
        study_id, finished_job["state"], finished_job["result"], time.perf_counter() - started
    )


def wait_until_finished(client: httpx.Client, path: str, states: Sequence[str]) -> dict[str, Any]:
    """Poll a study or prediction until it has one of the states; its last document.

    Raises
    ------
    ExperimentError
        If it has none of them after ``TIMEOUT_S`` seconds.
    """
    deadline, pause = time.monotonic() + TIMEOUT_S, 0.05
    while time.monotonic() < deadline:
        document: dict[str, Any] = client.get(path).raise_for_status().json()
        if document["state"] in states:
            return document
        time.sleep(pause)
        pause = min(0.5, 1.1 * pause)
    raise ExperimentError(f"{path} was not finished after {TIMEOUT_S:.0f} seconds.")


def measure_resident_memory_mb(process_id: int) -> float:
    """Measure the resident memory of a process and all its descendants, in MB, from ``/proc``."""
    total, pending_ids = 0.0, [process_id]
    while pending_ids:
        process_folder = Path(f"/proc/{pending_ids.pop()}")
        try:
            pages = int((process_folder / "statm").read_text().split()[1])
            total += pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
            for task in (process_folder / "task").iterdir():
                pending_ids += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # the process has ended meanwhile
            continue
    return total


@contextmanager
def monitor_memory(process_id: int, memory_mb: list[float]) -> Iterator[None]:
    """Append the memory of a process and its descendants, in MB, to ``memory_mb`` every second."""
    stop_event = threading.Event()

    def record_memory() -> None:
        while not stop_event.wait(1.0):
            memory_mb.append(measure_resident_memory_mb(process_id))

    watcher = threading.Thread(target=record_memory, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop_event.set()
        watcher.join()

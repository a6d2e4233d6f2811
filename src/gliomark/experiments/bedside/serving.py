"""A real server, started as a user starts it, and what a client does with it."""

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

from gliomark.study import GliomarkError

MEGABYTE = 1 << 20
LONGEST_S = 1800.0
ASKED = {"without_clinical": True}
COMPARED = ("patient_id", "markers", "lesion")


@dataclass(frozen=True)
class Served:
    """client: with the server's token; process: its number; dicom_port: 0 where it is no DICOM node."""

    client: httpx.Client
    process: int
    dicom_port: int = 0


@contextmanager
def served(data: Path, *words: str, log: Path | None = None) -> Iterator[Served]:
    """A server with its models loaded. words: its further options; log: where its own lines go."""
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
        *words,
    ]
    with (log or Path(os.devnull)).open("ab") as told:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # it ends with this process, however that ends
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            env=os.environ | {"GLIOMARK_TOKEN": token},
        )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1:]
        if not address or not process.stdout.readline():
            raise GliomarkError("The server did not start; try 'gliomark serve' by itself.")
        port = int(process.stdout.readline().split()[-1]) if "--dicom-port" in words else 0
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=address[0], headers=headers, timeout=LONGEST_S, limits=limits) as client:
            while client.get("/api/health").json()["status"] != "ok":
                time.sleep(0.1)
            yield Served(client, process.pid, port)
    finally:
        process.terminate()
        process.wait()


def files_of(folder: Path) -> dict[str, bytes]:
    """A patient's files by the names they are sent under."""
    return {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def send(client: httpx.Client, files: Mapping[str, bytes]) -> httpx.Response:
    """An upload; sent again where the server says that it has no place for it now."""
    ends = time.monotonic() + LONGEST_S
    while True:
        answer = client.post("/api/studies", files=[("files", file) for file in files.items()])
        if answer.status_code != 503 or time.monotonic() > ends:
            return answer
        time.sleep(0.2)


def upload(client: httpx.Client, folder: Path) -> str:
    """The study's id, once it is ready. Raises GliomarkError where the server refuses it."""
    sent = send(client, files_of(folder))
    if sent.status_code != 201:
        raise GliomarkError(f"{folder}: {sent.json()['detail']}")
    id = str(sent.json()["id"])
    study = until_over(client, f"/api/studies/{id}", ("ready", "failed"))
    if study["state"] == "failed":
        raise GliomarkError(f"{folder}: {study['error']}")
    return id


@dataclass(frozen=True)
class Answer:
    """A prediction over HTTP: whose, what, and seconds from asking to the answer."""

    study: str
    state: str
    result: dict[str, Any] | None
    seconds: float

    def is_as(self, other: Answer) -> bool:
        """Whether both say the same of the same patient."""
        if self.result is None or other.result is None:
            return False
        return all(self.result[part] == other.result[part] for part in COMPARED)


def ask(client: httpx.Client, study: str) -> Answer:
    """Predict and wait for the answer."""
    started = time.perf_counter()
    job = client.post(f"/api/studies/{study}/predictions", json=ASKED).raise_for_status().json()
    over = until_over(client, f"/api/predictions/{job['id']}", ("done", "failed", "cancelled"))
    return Answer(study, over["state"], over["result"], time.perf_counter() - started)


def until_over(client: httpx.Client, path: str, states: Sequence[str]) -> dict[str, Any]:
    ends, pause = time.monotonic() + LONGEST_S, 0.05
    while time.monotonic() < ends:
        document: dict[str, Any] = client.get(path).raise_for_status().json()
        if document["state"] in states:
            return document
        time.sleep(pause)
        pause = min(0.5, 1.1 * pause)
    raise GliomarkError(f"{path} was not over after {LONGEST_S:.0f} seconds.")


def resident_mb(process: int) -> float:
    """Of a process and all below it, from /proc."""
    total, waiting = 0.0, [process]
    while waiting:
        one = Path(f"/proc/{waiting.pop()}")
        try:
            pages = int((one / "statm").read_text().split()[1])
            total += pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
            for task in (one / "task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # it ended meanwhile
            continue
    return total


@contextmanager
def watched(process: int, memory: list[float]) -> Iterator[None]:
    """Memory, every second."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(1.0):
            memory.append(resident_mb(process))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()

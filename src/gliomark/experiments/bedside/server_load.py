"""A real server under load: twenty clients at once, every answer compared with the one given alone.

The server is started as a user starts it. Each patient is uploaded and predicted alone, the time from asking to the
answer taken; then all clients ask at once. An answer that differs from its patient's own is mixed up; memory is the
resident set of the server and its workers.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from gliomark.cohort.store import write_json
from gliomark.experiments.records import run_record, write_table
from gliomark.files import scratch_folder
from gliomark.io import find_patients
from gliomark.study import GliomarkError

NAME = "server_load"
COMPARED = ("patient_id", "markers", "lesion")
MEGABYTE = 1 << 20
LONGEST_S = 1800.0
ASKED = {"without_clinical": True}


@dataclass(frozen=True)
class Answer:
    """A prediction over HTTP: whose, what, and seconds from asking to the answer."""

    study: str
    state: str
    result: dict[str, Any] | None
    seconds: float


@contextmanager
def served(data: Path, workers: int) -> Iterator[tuple[httpx.Client, int]]:
    """A server with its models loaded, and its process."""
    token = secrets.token_urlsafe(16)
    words = [
        sys.executable,
        "-m",
        "gliomark",
        "serve",
        "--data",
        str(data),
        "--port",
        "0",
        "--workers",
        str(workers),
    ]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"GLIOMARK_TOKEN": token},
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1:]
        if not address:
            raise GliomarkError("The server did not start; try 'gliomark serve' by itself.")
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=address[0], headers=headers, timeout=LONGEST_S, limits=limits) as client:
            while client.get("/api/health").json()["status"] != "ok":
                time.sleep(0.1)
            yield client, process.pid
    finally:
        process.terminate()
        process.wait()


def upload(client: httpx.Client, folder: Path) -> str:
    """The study's id, once it is ready. Raises GliomarkError where the server refuses it."""
    files = [
        ("files", (f"{folder.name}/{path.relative_to(folder).as_posix()}", path.read_bytes()))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    sent = client.post("/api/studies", files=files)
    if sent.status_code != 201:
        raise GliomarkError(f"{folder}: {sent.json()['detail']}")
    id = str(sent.json()["id"])
    study = _until_over(client, f"/api/studies/{id}", ("ready", "failed"))
    if study["state"] == "failed":
        raise GliomarkError(f"{folder}: {study['error']}")
    return id


def _taken(client: httpx.Client, patients: Path, say: Callable[[str], None]) -> Iterator[str]:
    """Studies that the server could prepare; ``say`` is told of the others."""
    for folder in find_patients(patients):
        try:
            yield upload(client, folder)
        except GliomarkError as error:
            say(str(error))


def ask(client: httpx.Client, study: str) -> Answer:
    """Predict and wait for the answer."""
    started = time.perf_counter()
    job = client.post(f"/api/studies/{study}/predictions", json=ASKED).raise_for_status().json()
    over = _until_over(client, f"/api/predictions/{job['id']}", ("done", "failed", "cancelled"))
    return Answer(study, over["state"], over["result"], time.perf_counter() - started)


def _until_over(client: httpx.Client, path: str, states: Sequence[str]) -> dict[str, Any]:
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


def run(
    patients: Path,
    out: Path,
    say: Callable[[str], None],
    count: int,
    clients: int,
    predictions: int,
    workers: int,
) -> Path:
    """Write ``server_load.csv``, its predictions and its record under ``out``; the table's path.

    A patient whom the server refuses (a sequence is missing) is passed over. Raises GliomarkError where all are.
    """
    rows: list[dict[str, Any]] = []
    memory: list[float] = []
    with scratch_folder() as data, served(data, workers) as (client, process):
        studies = list(islice(_taken(client, patients, say), count))
        if not studies:
            raise GliomarkError(
                f"The server could take none of the patients in {patients}; see what it says."
            )
        say(f"{len(studies)} patients prepared")
        ask(client, studies[0])  # warm
        alone = {study: ask(client, study) for study in studies}
        rows += [_row("alone", answer, alone[study]) for study, answer in alone.items()]
        say(f"alone: worst {max(answer.seconds for answer in alone.values()):.2f} s")
        memory.append(resident_mb(process))
        asked = [studies[number % len(studies)] for number in range(predictions)]
        with ThreadPoolExecutor(clients) as pool, _watched(process, memory):
            answers = list(pool.map(lambda study: ask(client, study), asked))
        memory.append(resident_mb(process))
    rows += [_row(f"{clients} at once", answer, alone[answer.study]) for answer in answers]
    every = pd.DataFrame(rows)
    table = pd.DataFrame([_summary(str(name), group) for name, group in every.groupby("asked", sort=False)])
    table[["memory_before_mb", "memory_after_mb", "memory_most_mb"]] = [memory[0], memory[-1], max(memory)]
    write_table(table.assign(workers=workers), out / f"{NAME}.csv")
    write_table(every, out / f"{NAME}_predictions.csv")
    record = run_record(
        NAME, patients=len(studies), clients=clients, predictions=predictions, workers=workers
    )
    write_json(out / f"{NAME}_run_record.json", record)
    return out / f"{NAME}.csv"


def _row(asked: str, answer: Answer, own: Answer) -> dict[str, Any]:
    lost = answer.result is None or own.result is None
    mixed = not lost and any(answer.result[part] != own.result[part] for part in COMPARED)  # type: ignore[index]
    return {"asked": asked, "seconds": answer.seconds, "lost": int(lost), "mixed_up": int(mixed)}


def _summary(asked: str, group: pd.DataFrame) -> dict[str, Any]:
    seconds = group["seconds"]
    return {
        "asked": asked,
        "predictions": len(group),
        "lost": int(group["lost"].sum()),
        "mixed_up": int(group["mixed_up"].sum()),
        "median_s": seconds.median(),
        "p95_s": float(np.percentile(seconds, 95)),
        "worst_s": seconds.max(),
    }


@contextmanager
def _watched(process: int, memory: list[float]) -> Iterator[None]:
    """Memory, every second."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(1.0):
            memory.append(resident_mb(process))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    yield
    over.set()
    watcher.join()

"""A real server among whose uploads every fifth is poison: are the good ones answered, is the poison refused?

Synthetic patients are uploaded and predicted alone first. Then twenty clients send uploads, every fifth of another
poisonous kind, and predict what was taken; each answer is compared with its patient's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import httpx
import pandas as pd

from gliomark.cohort.phantom import PhantomSettings, make_phantom, write_pictures
from gliomark.cohort.store import write_json
from gliomark.experiments.bedside.poison import KINDS, Files
from gliomark.experiments.bedside.serving import (
    Answer,
    Served,
    ask,
    files_of,
    resident_mb,
    send,
    served,
    until_over,
    watched,
)
from gliomark.experiments.records import run_record, write_table
from gliomark.files import scratch_folder

NAME = "server_poison"
COARSE = PhantomSettings(spacing_mm=(1.88, 1.88), matrix=128, slices=20, sublayers=1)
FIRST_SEED = 11
EVERY = 5


@dataclass(frozen=True)
class Sent:
    """An upload and what became of it. kind: of the poison, ``good`` otherwise; right: answered as alone, or refused in
    a sentence; said: the refusal's code, or what went wrong."""

    kind: str
    status: int
    right: bool
    said: str
    seconds: float


def predict(client: httpx.Client, files: Files) -> Answer:
    """Upload a good patient and wait for the answer."""
    started = perf_counter()
    sent = send(client, files)
    sent.raise_for_status()
    study = str(sent.json()["id"])
    until_over(client, f"/api/studies/{study}", ("ready", "failed"))
    answer = ask(client, study)
    return Answer(study, answer.state, answer.result, perf_counter() - started)


def send_good(client: httpx.Client, files: Files, alone: Answer) -> Sent:
    started = perf_counter()
    try:
        answer = predict(client, files)
    except httpx.HTTPError as error:
        return Sent("good", 0, False, f"{type(error).__name__}: {error}", perf_counter() - started)
    said = "" if answer.is_as(alone) else f"{answer.state}, other than alone"
    return Sent("good", 201, not said, said, answer.seconds)


def send_poison(client: httpx.Client, kind: str, files: Files) -> Sent:
    """Right where it is refused in one sentence that is known by its code."""
    started = perf_counter()
    try:
        sent = send(client, files)
    except httpx.HTTPError as error:
        return Sent(kind, 0, False, f"{type(error).__name__}: {error}", perf_counter() - started)
    told: dict[str, Any] = sent.json()
    sentence, code = str(told.get("detail", "")), str(told.get("code", ""))
    is_sentence = bool(sentence.strip() and code) and "\n" not in sentence and "Traceback" not in sentence
    right = 400 <= sent.status_code < 500 and is_sentence
    return Sent(kind, sent.status_code, right, code or sentence, perf_counter() - started)


def exchange(
    server: Served, patients: Sequence[Files], uploads: int, clients: int, say: Callable[[str], None]
) -> tuple[list[Sent], list[Sent], list[float]]:
    """What was sent alone, what together, and the memory of all the server's processes: before, during, after.

    Before: once so many had been sent at once already, since a server starts its processes when it needs them.
    """
    client, kinds = server.client, list(KINDS)
    alone = [predict(client, files) for files in patients]
    first = [Sent("good", 201, answer.state == "done", "", answer.seconds) for answer in alone]
    say(f"alone: median {median(answer.seconds for answer in alone):.1f} s")

    def one(number: int) -> Sent:
        files = patients[number % len(patients)]
        if number % EVERY:
            return send_good(client, files, alone[number % len(patients)])
        kind = kinds[number // EVERY % len(kinds)]
        return send_poison(client, kind, KINDS[kind](files))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))
        memory = [resident_mb(server.process)]
        with watched(server.process, memory):
            together = list(pool.map(one, range(uploads)))
    memory.append(resident_mb(server.process))
    return first, together, memory


def run(
    out: Path, say: Callable[[str], None], uploads: int, clients: int, patients: int, workers: int
) -> Path:
    """Write ``server_poison.csv``, its uploads and its record under ``out``; the table's path."""
    with scratch_folder() as root:
        made = [
            files_of(write_pictures(make_phantom(FIRST_SEED + number, COARSE).study, root / "patients"))
            for number in range(patients)
        ]
        say(f"{patients} synthetic patients made")
        words = ("--workers", str(workers), "--uploads", str(clients), "--uploads-each", str(clients))
        with served(root / "data", *words) as server:
            first, together, memory = exchange(server, made, uploads, clients, say)
            health = server.client.get("/api/health").json()["status"]
    rows = [_row("alone", "good", first)]
    rows += [
        _row(
            f"{clients} at once", kind, [one for one in together if (one.kind == "good") is (kind == "good")]
        )
        for kind in ("good", "poison")
    ]
    table = pd.DataFrame(rows).assign(
        health=health,
        memory_before_mb=memory[0],
        memory_after_mb=memory[-1],
        memory_most_mb=max(memory),
    )
    write_table(table, out / f"{NAME}.csv")
    write_table(pd.DataFrame([vars(one) for one in together]), out / f"{NAME}_uploads.csv")
    settings = {"uploads": uploads, "clients": clients, "patients": patients, "workers": workers}
    write_json(out / f"{NAME}_run_record.json", run_record(NAME, **settings))
    return out / f"{NAME}.csv"


def _row(asked: str, kind: str, sent: Sequence[Sent]) -> dict[str, Any]:
    return {
        "asked": asked,
        "kind": kind,
        "uploads": len(sent),
        "kinds": len({one.kind for one in sent}),
        "right": sum(one.right for one in sent),
        "wrong": sum(not one.right for one in sent),
        "median_s": median([one.seconds for one in sent]),
        "worst_s": max(one.seconds for one in sent),
    }

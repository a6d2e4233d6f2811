"""A real server under load: twenty clients at once, every answer compared with the one given alone.

The server is started as a user starts it. Each patient is uploaded and predicted alone, the time from asking to the
answer taken; then all clients ask at once. An answer that differs from its patient's own is mixed up; memory is the
resident set of the server and its workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from gliomark.cohort.store import write_json
from gliomark.experiments.bedside.serving import Answer, ask, resident_mb, served, upload, watched
from gliomark.experiments.records import run_record, write_table
from gliomark.files import scratch_folder
from gliomark.io import find_patients
from gliomark.study import GliomarkError

NAME = "server_load"


def _taken(client: httpx.Client, patients: Path, say: Callable[[str], None]) -> Iterator[str]:
    """Studies that the server could prepare; ``say`` is told of the others."""
    for folder in find_patients(patients):
        try:
            yield upload(client, folder)
        except GliomarkError as error:
            say(str(error))


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
    with scratch_folder() as data, served(data, "--workers", str(workers)) as server:
        client, process = server.client, server.process
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
        with ThreadPoolExecutor(clients) as pool, watched(process, memory):
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
    mixed = not lost and not answer.is_as(own)
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

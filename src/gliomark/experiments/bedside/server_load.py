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
from gliomark.experiments.bedside.serving import (
    ServerPrediction,
    measure_resident_memory_mb,
    monitor_memory,
    request_prediction,
    start_server,
    upload_study,
)
from gliomark.experiments.records import create_run_record, write_table
from gliomark.files import scratch_folder
from gliomark.io import find_patients
from gliomark.study import GliomarkError

EXPERIMENT_NAME = "server_load"


def _upload_accepted_patients(
    client: httpx.Client, patients_folder: Path, notify: Callable[[str], None]
) -> Iterator[str]:
    """Studies that the server could prepare; ``say`` is told of the others."""
    for folder in find_patients(patients_folder):
        try:
            yield upload_study(client, folder)
        except GliomarkError as error:
            notify(str(error))


def run_server_load(
    patients_folder: Path,
    output_folder: Path,
    notify: Callable[[str], None],
    patient_count: int,
    client_count: int,
    prediction_count: int,
    workers: int,
) -> Path:
    """Write ``server_load.csv``, its predictions and its record under ``out``; the table's path.

    A patient whom the server refuses (a sequence is missing) is passed over. Raises GliomarkError where all are.
    """
    rows: list[dict[str, Any]] = []
    memory: list[float] = []
    with scratch_folder() as data, start_server(data, "--workers", str(workers)) as server:
        client, process = server.client, server.process_id
        studies = list(islice(_upload_accepted_patients(client, patients_folder, notify), patient_count))
        if not studies:
            raise GliomarkError(
                f"The server could take none of the patients in {patients_folder}; see what it says."
            )
        notify(f"{len(studies)} patients prepared")
        request_prediction(client, studies[0])  # warm
        reference_answers = {study: request_prediction(client, study) for study in studies}
        rows += [
            _create_row("alone", answer, reference_answers[study])
            for study, answer in reference_answers.items()
        ]
        notify(f"alone: worst {max(answer.seconds for answer in reference_answers.values()):.2f} s")
        memory.append(measure_resident_memory_mb(process))
        requested_studies = [studies[number % len(studies)] for number in range(prediction_count)]
        with ThreadPoolExecutor(client_count) as pool, monitor_memory(process, memory):
            answers = list(pool.map(lambda study: request_prediction(client, study), requested_studies))
        memory.append(measure_resident_memory_mb(process))
    rows += [
        _create_row(f"{client_count} at once", answer, reference_answers[answer.study_id])
        for answer in answers
    ]
    all_predictions = pd.DataFrame(rows)
    table = pd.DataFrame(
        [
            _summarise_predictions(str(name), group)
            for name, group in all_predictions.groupby("asked", sort=False)
        ]
    )
    table[["memory_before_mb", "memory_after_mb", "memory_most_mb"]] = [memory[0], memory[-1], max(memory)]
    write_table(table.assign(workers=workers), output_folder / f"{EXPERIMENT_NAME}.csv")
    write_table(all_predictions, output_folder / f"{EXPERIMENT_NAME}_predictions.csv")
    record = create_run_record(
        EXPERIMENT_NAME,
        patients=len(studies),
        clients=client_count,
        predictions=prediction_count,
        workers=workers,
    )
    write_json(output_folder / f"{EXPERIMENT_NAME}_run_record.json", record)
    return output_folder / f"{EXPERIMENT_NAME}.csv"


def _create_row(scenario: str, answer: ServerPrediction, reference: ServerPrediction) -> dict[str, Any]:
    is_lost = answer.result is None or reference.result is None
    is_mixed_up = not is_lost and not answer.has_same_result(reference)
    return {"asked": scenario, "seconds": answer.seconds, "lost": int(is_lost), "mixed_up": int(is_mixed_up)}


def _summarise_predictions(scenario: str, group: pd.DataFrame) -> dict[str, Any]:
    seconds = group["seconds"]
    return {
        "asked": scenario,
        "predictions": len(group),
        "lost": int(group["lost"].sum()),
        "mixed_up": int(group["mixed_up"].sum()),
        "median_s": seconds.median(),
        "p95_s": float(np.percentile(seconds, 95)),
        "worst_s": seconds.max(),
    }

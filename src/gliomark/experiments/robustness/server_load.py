"""Server under load: many clients at once, every prediction compared with that of the same patient alone.

The server is started as a user starts it. Each patient is uploaded and predicted alone, and the time from the request
to the result is measured; then all clients send requests at once. A result that differs from the reference of its
patient counts as mixed up. Memory is the resident set size of the server and its workers.
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
from gliomark.errors import ExperimentError, GliomarkError
from gliomark.experiments.result_files import create_run_record, write_table
from gliomark.experiments.robustness.server_process import (
    ServerPrediction,
    measure_resident_memory_mb,
    monitor_memory,
    request_prediction,
    start_server,
    upload_study,
)
from gliomark.files import scratch_folder
from gliomark.io import find_patients

EXPERIMENT_NAME = "server_load"


def _upload_accepted_patients(
    client: httpx.Client, patients_folder: Path, notify: Callable[[str], None]
) -> Iterator[str]:
    """Upload patients; yield the ids of the studies that the server prepared and report the others to ``notify``."""
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
    """Write ``server_load.csv``, its predictions and its run record; the path of the table.

    A patient whom the server rejects (for example because a sequence is missing) is skipped.

    Parameters
    ----------
    patients_folder
        Folder of patients.
    output_folder
        Folder of the results.
    notify
        Called with a message after every step.
    patient_count
        Number of patients used, at most.
    client_count
        Number of clients that send requests at once.
    prediction_count
        Number of predictions they request in total.
    workers
        Number of prediction processes of the server.

    Raises
    ------
    ExperimentError
        If the server rejects every patient or does not answer.
    """
    rows: list[dict[str, Any]] = []
    memory: list[float] = []
    with scratch_folder() as data, start_server(data, "--workers", str(workers)) as server:
        client, process = server.client, server.process_id
        studies = list(islice(_upload_accepted_patients(client, patients_folder, notify), patient_count))
        if not studies:
            raise ExperimentError(
                f"The server accepted none of the patients in {patients_folder}; see the messages above."
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

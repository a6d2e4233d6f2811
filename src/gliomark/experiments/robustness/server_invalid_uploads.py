"""Server test in which every fifth upload is invalid.

Valid uploads must be predicted correctly, invalid ones rejected with a message. Synthetic patients are first uploaded
and predicted alone, as a reference. Then many clients upload at once, every fifth upload being invalid in another
way, and request predictions of the accepted ones; each prediction is compared with the reference of its patient.
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

from gliomark.cohort.store import write_json
from gliomark.experiments.result_files import create_run_record, write_table
from gliomark.experiments.robustness.invalid_uploads import INVALID_UPLOADS, UploadFiles
from gliomark.experiments.robustness.server_process import (
    RunningServer,
    ServerPrediction,
    measure_resident_memory_mb,
    monitor_memory,
    read_patient_files,
    request_prediction,
    send_files,
    start_server,
    wait_until_finished,
)
from gliomark.files import scratch_folder
from gliomark.phantom import PhantomSettings, create_phantom, write_pictures

EXPERIMENT_NAME = "server_invalid_uploads"
COARSE_PHANTOM = PhantomSettings(spacing_mm=(1.88, 1.88), matrix=128, slice_count=20, sublayers=1)
FIRST_SEED = 11
INVALID_UPLOAD_INTERVAL = 5


@dataclass(frozen=True)
class UploadOutcome:
    """An upload and its outcome.

    kind: kind of invalid upload, "good" for a valid one; status: HTTP status, 0 without a response; right: prediction
    equals the reference, or rejected with a message and a code; reply_code: code of the rejection, or the error;
    seconds: duration.
    """

    kind: str
    status: int
    right: bool
    reply_code: str
    seconds: float


def upload_and_predict(client: httpx.Client, files: UploadFiles) -> ServerPrediction:
    """Upload a valid patient and wait for the prediction.

    Raises
    ------
    httpx.HTTPStatusError
        If the server rejects the upload.
    """
    started = perf_counter()
    response = send_files(client, files)
    response.raise_for_status()
    study = str(response.json()["id"])
    wait_until_finished(client, f"/api/studies/{study}", ("ready", "failed"))
    answer = request_prediction(client, study)
    return ServerPrediction(study, answer.state, answer.result, perf_counter() - started)


def send_valid_upload(client: httpx.Client, files: UploadFiles, reference: ServerPrediction) -> UploadOutcome:
    """Upload and predict a valid patient; right if the prediction equals the reference."""
    started = perf_counter()
    try:
        answer = upload_and_predict(client, files)
    except httpx.HTTPError as error:
        return UploadOutcome("good", 0, False, f"{type(error).__name__}: {error}", perf_counter() - started)
    failure = "" if answer.has_same_result(reference) else f"{answer.state}, differs from the reference"
    return UploadOutcome("good", 201, not failure, failure, answer.seconds)


def send_invalid_upload(client: httpx.Client, kind: str, files: UploadFiles) -> UploadOutcome:
    """Send an invalid upload; right if it is rejected with a one-line message and a message code."""
    started = perf_counter()
    try:
        response = send_files(client, files)
    except httpx.HTTPError as error:
        return UploadOutcome(kind, 0, False, f"{type(error).__name__}: {error}", perf_counter() - started)
    response_body: dict[str, Any] = response.json()
    sentence, code = str(response_body.get("detail", "")), str(response_body.get("code", ""))
    is_sentence = bool(sentence.strip() and code) and "\n" not in sentence and "Traceback" not in sentence
    is_refused = 400 <= response.status_code < 500 and is_sentence
    return UploadOutcome(kind, response.status_code, is_refused, code or sentence, perf_counter() - started)


def exchange_uploads(
    server: RunningServer,
    patients: Sequence[UploadFiles],
    upload_count: int,
    client_count: int,
    notify: Callable[[str], None],
) -> tuple[list[UploadOutcome], list[UploadOutcome], list[float]]:
    """Send uploads alone and concurrently.

    Returns
    -------
    tuple
        Outcomes of the reference uploads, outcomes of the concurrent uploads, and memory in MB of all server
        processes before, during and after the latter. The first memory value is measured after one round of
        concurrent uploads, because the server starts its processes on demand.
    """
    client, kinds = server.client, list(INVALID_UPLOADS)
    reference_answers = [upload_and_predict(client, files) for files in patients]
    reference_outcomes = [
        UploadOutcome("good", 201, answer.state == "done", "", answer.seconds) for answer in reference_answers
    ]
    notify(f"each alone: median {median(answer.seconds for answer in reference_answers):.1f} s")

    def send_upload(number: int) -> UploadOutcome:
        files = patients[number % len(patients)]
        if number % INVALID_UPLOAD_INTERVAL:
            return send_valid_upload(client, files, reference_answers[number % len(patients)])
        kind = kinds[number // INVALID_UPLOAD_INTERVAL % len(kinds)]
        return send_invalid_upload(client, kind, INVALID_UPLOADS[kind](files))

    with ThreadPoolExecutor(client_count) as pool:
        list(pool.map(send_upload, range(client_count)))
        memory = [measure_resident_memory_mb(server.process_id)]
        with monitor_memory(server.process_id, memory):
            concurrent_outcomes = list(pool.map(send_upload, range(upload_count)))
    memory.append(measure_resident_memory_mb(server.process_id))
    return reference_outcomes, concurrent_outcomes, memory


def run_server_invalid_uploads(
    output_folder: Path,
    notify: Callable[[str], None],
    upload_count: int,
    client_count: int,
    patient_count: int,
    workers: int,
) -> Path:
    """Write ``server_invalid_uploads.csv``, its uploads and its run record; the path of the table.

    upload_count: number of concurrent uploads in total; client_count: number of clients; patient_count: number of
    synthetic patients; workers: number of prediction processes of the server.
    """
    with scratch_folder() as root:
        patient_files = [
            read_patient_files(
                write_pictures(create_phantom(FIRST_SEED + number, COARSE_PHANTOM).study, root / "patients")
            )
            for number in range(patient_count)
        ]
        notify(f"{patient_count} synthetic patients generated")
        server_options = (
            "--workers",
            str(workers),
            "--uploads",
            str(client_count),
            "--uploads-each",
            str(client_count),
        )
        with start_server(root / "data", *server_options) as server:
            reference_outcomes, concurrent_outcomes, memory = exchange_uploads(
                server, patient_files, upload_count, client_count, notify
            )
            health = server.client.get("/api/health").json()["status"]
    rows = [_summarise_uploads("alone", "good", reference_outcomes)]
    rows += [
        _summarise_uploads(
            f"{client_count} at once",
            kind,
            [one for one in concurrent_outcomes if (one.kind == "good") is (kind == "good")],
        )
        for kind in ("good", "poison")
    ]
    table = pd.DataFrame(rows).assign(
        health=health,
        memory_before_mb=memory[0],
        memory_after_mb=memory[-1],
        memory_most_mb=max(memory),
    )
    write_table(table, output_folder / f"{EXPERIMENT_NAME}.csv")
    write_table(
        pd.DataFrame([vars(one) for one in concurrent_outcomes]),
        output_folder / f"{EXPERIMENT_NAME}_uploads.csv",
    )
    settings = {
        "uploads": upload_count,
        "clients": client_count,
        "patients": patient_count,
        "workers": workers,
    }
    write_json(
        output_folder / f"{EXPERIMENT_NAME}_run_record.json", create_run_record(EXPERIMENT_NAME, **settings)
    )
    return output_folder / f"{EXPERIMENT_NAME}.csv"


def _summarise_uploads(scenario: str, kind: str, outcomes: Sequence[UploadOutcome]) -> dict[str, Any]:
    return {
        "asked": scenario,
        "kind": kind,
        "uploads": len(outcomes),
        "kinds": len({one.kind for one in outcomes}),
        "right": sum(one.right for one in outcomes),
        "wrong": sum(not one.right for one in outcomes),
        "median_s": median([one.seconds for one in outcomes]),
        "worst_s": max(one.seconds for one in outcomes),
    }

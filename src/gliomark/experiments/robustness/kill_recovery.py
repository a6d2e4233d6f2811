"""Checks that a command interrupted by kill -9 gives identical results when rerun and leaves no files or processes.

Every entry point is run as its real command on a few synthetic patients: first without interruption, then
``kill_count`` times until it is killed, each time followed by a complete rerun. Every second kill hits the whole
process group. The others hit only the main process, as the kernel does when memory runs out, which reveals orphaned
processes. The uninterrupted run is divided into ``kill_count`` equal intervals, and one random moment is drawn in
each. The SHA-256 hashes of all files that the entry point writes are compared.

Excluded from the comparison: ``created`` and ``seconds`` of a prediction (in ``prediction.json`` and in the HTML
report); the server's database, its lock and ``prepared.*`` (durations, and matrices of a multithreaded registration,
which differ by 1e-12 between any two runs; slices, segmentation and prediction are compared); and the ``.work`` folder
of a training, whose log covers only the last call (the trained weights are compared).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from gliomark.cohort.store import write_json, write_patient
from gliomark.errors import ExperimentError
from gliomark.experiments.result_files import create_run_record, write_table
from gliomark.experiments.runner import find_finished_record
from gliomark.files import atomic_write, remove_path
from gliomark.phantom.hospital import write_hospital
from gliomark.study import MRSequence, SliceStack

EXPERIMENT_NAME = "kill_recovery"
# environment variable of all processes of an attempt; identifies its orphans
ATTEMPT_VARIABLE = "GLIOMARK_KILLS"
# With several threads, ITK adds partial sums in the order they finish: the last digits would depend on the load.
ONE_THREAD_ENVIRONMENT = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
EXCLUDED_FILES = re.compile(r"(^|/)(gliomark\.db[^/]*|lock|prepared\.[^/]*)$|\.work/")
HASHED_FILE_NAME = re.compile(r"\.[0-9a-f]{16}\.npz$")
TIME_PATTERNS = (
    (re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC"), b"TIME"),
    (re.compile(rb">[\d.]+ s<"), b">SECONDS<"),
)
RUN_DEPENDENT_KEYS = ("created", "seconds")
POLL_INTERVAL_S, ORPHAN_GRACE_S, TIMEOUT_S = 0.02, 10.0, 1800.0
PATIENT_COUNT, EPOCH_COUNT = 2, 2
TRAINING_PATIENT_COUNT = 10


@dataclass(frozen=True)
class KillResult:
    """One kill and the result of the rerun.

    moment_s: time of the kill, in seconds after the start; of_s: duration of the uninterrupted run in seconds;
    process: "main" or "group"; running: activity at the time of the kill; written: number of files finished by then,
    out of those of the uninterrupted run; equal: 1 if every result equals that of the uninterrupted run; different,
    leftovers: file names; orphans: number of processes that outlived both runs; seconds: duration of the rerun.
    """

    door: str
    number: int
    moment_s: float
    of_s: float
    process: str
    running: str
    written: str
    exit: int
    equal: int
    different: str
    leftovers: str
    orphans: int
    seconds: float


@dataclass(frozen=True)
class Attempt:
    """Folder and identifier of one run of an entry point."""

    folder: Path
    attempt_id: str

    @staticmethod
    def create_fresh(folder: Path) -> Attempt:
        """Create an attempt in an empty folder; existing content is removed."""
        remove_path(folder)
        (folder / "tmp").mkdir(parents=True)
        return Attempt(folder, secrets.token_hex(8))

    @property
    def output_folder(self) -> Path:
        """Folder of the results."""
        return self.folder / "out"

    @property
    def temporary_folder(self) -> Path:
        """Folder for temporary files (``TMPDIR`` of the command)."""
        return self.folder / "tmp"

    def start_command(self, arguments: Sequence[str], **popen_options: Any) -> subprocess.Popen[str]:
        """Start a gliomark command in its own process group; its output is appended to ``command.log``."""
        environment = (
            os.environ
            | ONE_THREAD_ENVIRONMENT
            | {ATTEMPT_VARIABLE: self.attempt_id, "TMPDIR": str(self.temporary_folder)}
        )
        with (self.folder / "command.log").open("ab") as log:
            default_options: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": log,
                "stderr": log,
                "start_new_session": True,
            }
            command = [sys.executable, "-m", "gliomark", *arguments]
            return subprocess.Popen(command, env=environment, **(default_options | popen_options))


class ProcessKilledError(Exception):
    """Raised when the process was killed at the scheduled time."""


class KillSchedule:
    """Time at which an attempt is killed.

    kill_after_s: seconds after the start, None for never; kills_group: whether all processes of the group are killed;
    activity: current step of the command.
    """

    def __init__(self, kill_after_s: float | None = None, kills_group: bool = False) -> None:
        self.kill_after_s, self.kills_group, self.activity = kill_after_s, kills_group, "starting"
        self.started = time.monotonic()

    def wait_for_exit(
        self, process: subprocess.Popen[str], is_finished: Callable[[], bool] = lambda: False
    ) -> int | None:
        """Wait for the end of a process; its exit status, or None as soon as ``is_finished`` returns True.

        Raises
        ------
        ProcessKilledError
            If the scheduled time came first; the process has then been killed.
        """
        while (status := process.poll()) is None and not is_finished():
            if self.kill_after_s is not None and time.monotonic() - self.started >= self.kill_after_s:
                os.killpg(process.pid, signal.SIGKILL) if self.kills_group else process.kill()
                process.wait()
                raise ProcessKilledError
            time.sleep(POLL_INTERVAL_S)
        return status


EntryPoint = Callable[
    [Path, Attempt, KillSchedule], int
]  # inputs folder, attempt, kill schedule -> exit status

# ---- entry points -----------------------------------------------------------------------------------


def run_predict(inputs_folder: Path, attempt: Attempt, schedule: KillSchedule) -> int:
    """Predict a folder of patients; the exit status."""
    return _run_commands(
        attempt,
        schedule,
        [
            [
                "predict",
                *_get_patient_arguments(inputs_folder, "--clinical"),
                "--out",
                str(attempt.output_folder),
            ]
        ],
    )


def run_cohort_build(inputs_folder: Path, attempt: Attempt, schedule: KillSchedule) -> int:
    """Build a cohort from the same patients; the exit status."""
    out = str(attempt.output_folder / "cohort")
    arguments = [
        *_get_patient_arguments(inputs_folder, "--labels"),
        "--sequences",
        "T1C,FLAIR",
        "--workers",
        "1",
    ]
    return _run_commands(attempt, schedule, [["cohort", "build", *arguments, "--out", out]])


def run_training(inputs_folder: Path, attempt: Attempt, schedule: KillSchedule) -> int:
    """Train a segmentation network, then a marker network; the exit status."""
    cohort, outline = (
        ["--cohort", str(inputs_folder / "cohort")],
        str(attempt.output_folder / "outline.safetensors"),
    )
    size = ["--rule", "joint", "--recipe", "small", "--epochs", str(EPOCH_COUNT)]
    marker = [
        "--marker",
        "idh_mutant",
        "--recipe",
        "pretrained",
        "--out",
        str(attempt.output_folder / "model.safetensors"),
    ]
    return _run_commands(
        attempt,
        schedule,
        [
            ["train", "segmentation", *cohort, *size, "--out", outline],
            ["train", "markers", *cohort, "--segmentation", outline, *marker],
        ],
    )


def _get_patient_arguments(inputs_folder: Path, table_option: str) -> list[str]:
    return [str(inputs_folder / "few" / "nifti"), table_option, str(inputs_folder / "few" / "clinical.csv")]


def _run_commands(attempt: Attempt, schedule: KillSchedule, commands: Sequence[Sequence[str]]) -> int:
    """Run commands one after the other, as a user would repeat them after an interruption."""
    for arguments in commands:
        schedule.activity = " ".join(word for word in arguments[:2] if not word.startswith("/"))
        if status := schedule.wait_for_exit(attempt.start_command(arguments)):
            return status
    return 0


def run_server(inputs_folder: Path, attempt: Attempt, schedule: KillSchedule) -> int:
    """Run a server whose client requests a prediction; the exit status.

    After a restart, the client repeats every request that was not answered. Any exception of the client is raised
    again here.
    """
    arguments = ["serve", "--data", str(attempt.output_folder), "--port", "0"]
    process = attempt.start_command(arguments, stdout=subprocess.PIPE, text=True)
    errors: list[BaseException] = []
    client = threading.Thread(
        target=_request_prediction, args=(process, inputs_folder, attempt, schedule, errors), daemon=True
    )
    client.start()
    try:
        schedule.wait_for_exit(process, lambda: not client.is_alive())
    finally:
        process.terminate()
        status = process.wait()
        client.join(
            None if schedule.kill_after_s is None else 1.0
        )  # children of a killed server may hold its pipe open
    if errors:
        raise errors[0]
    return max(status, 0)


def _request_prediction(
    process: subprocess.Popen[str],
    inputs_folder: Path,
    attempt: Attempt,
    schedule: KillSchedule,
    errors: list[BaseException],
) -> None:
    """Upload a patient, request a prediction and store it. The ids are kept in a file that outlives the server."""
    ids_path = attempt.folder / "client.json"
    ids: dict[str, str] = json.loads(ids_path.read_text("utf-8")) if ids_path.exists() else {}
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=TIMEOUT_S) as client:
            _wait_until(
                client, "/api/health", lambda reply: reply["status"] == "ok", schedule, "loading the models"
            )
            if "study" not in ids:
                schedule.activity = "uploading"
                ids["study"] = _upload_patient(client, inputs_folder)
                write_json(ids_path, ids)
            path = f"/api/studies/{ids['study']}"
            _wait_until(
                client, path, lambda reply: reply["state"] in ("ready", "failed"), schedule, "preparing"
            )
            if "job" not in ids:
                response = client.post(f"{path}/predictions", json={"without_clinical": True})
                ids["job"] = response.raise_for_status().json()["id"]
                write_json(ids_path, ids)
            path = f"/api/predictions/{ids['job']}"
            status = _wait_until(
                client, path, lambda reply: reply["state"] in ("done", "failed"), schedule, "predicting"
            )
            mask = client.get(f"{path}/mask.png").raise_for_status().content
        write_json(attempt.output_folder / "answer.json", _remove_run_dependent(status["result"] or status))
        atomic_write(attempt.output_folder / "answer.png", mask)
    except (httpx.HTTPError, IndexError):  # the server was killed
        if schedule.kill_after_s is None:
            errors.append(
                ExperimentError(f"The server stopped unexpectedly; see {attempt.folder}/command.log.")
            )
    except BaseException as error:
        errors.append(error)


def _upload_patient(client: httpx.Client, inputs_folder: Path) -> str:
    patient = sorted((inputs_folder / "few" / "nifti").iterdir())[0]
    files = [
        ("files", (f"{patient.name}/{path.name}", path.read_bytes())) for path in sorted(patient.iterdir())
    ]
    return str(client.post("/api/studies", files=files).raise_for_status().json()["id"])


def _wait_until(
    client: httpx.Client,
    path: str,
    is_finished: Callable[[dict[str, Any]], bool],
    schedule: KillSchedule,
    activity: str,
) -> dict[str, Any]:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        status: dict[str, Any] = client.get(path).raise_for_status().json()
        schedule.activity = f"{activity} {status.get('step', '')}".strip()
        if is_finished(status):
            return status
        time.sleep(0.1)
    raise ExperimentError(f"{path} was not finished after {TIMEOUT_S:.0f} seconds.")


ENTRY_POINTS: Mapping[str, EntryPoint] = {
    "predict": run_predict,
    "build": run_cohort_build,
    "train": run_training,
    "serve": run_server,
}

# ---- comparison of outputs --------------------------------------------------------------------------


def hash_outputs(attempt: Attempt) -> dict[str, str]:
    """Hash by name of everything in the output and temporary folders; "" for folders and excluded files.

    Of a server's studies, only the one that its client uploaded is listed, with its ids replaced by constant names.
    Folders of studies that are not in the database are listed unchanged, so that they appear as leftovers.
    """
    hash_by_name: dict[str, str] = {}
    for root in (attempt.output_folder, attempt.temporary_folder):
        for path in sorted(root.rglob("*")):
            name = path.relative_to(attempt.folder).as_posix()
            compared = path.is_file() and not EXCLUDED_FILES.search(name)
            hash_by_name[name] = _compute_sha256(path) if compared else ""
    return _normalise_server_files(attempt, hash_by_name)


def _normalise_server_files(attempt: Attempt, hash_by_name: Mapping[str, str]) -> dict[str, str]:
    ids_path, database = attempt.folder / "client.json", attempt.output_folder / "gliomark.db"
    if not ids_path.exists() or not database.exists():
        return dict(hash_by_name)
    ids: dict[str, str] = json.loads(ids_path.read_text("utf-8"))
    with closing(sqlite3.connect(database)) as records:
        others = {row[0] for row in records.execute("SELECT id FROM studies")} - {ids.get("study")}
    kept = {name: sha for name, sha in hash_by_name.items() if others.isdisjoint(name.split("/"))}
    for word, id in ids.items():
        kept = {name.replace(id, word): sha for name, sha in kept.items()}
    normalised: dict[str, str] = {}
    for name, sha in kept.items():
        short = HASHED_FILE_NAME.sub(".npz", name)
        normalised[name if short in normalised else short] = sha  # a second file appears as a leftover
    return normalised


def _compute_sha256(path: Path) -> str:
    content = path.read_bytes()
    if path.name == "prediction.json":
        content = json.dumps(_remove_run_dependent(json.loads(content))).encode()
    elif path.suffix == ".html":
        for pattern, word in TIME_PATTERNS:
            content = pattern.sub(word, content)
    return hashlib.sha256(content).hexdigest()


def _remove_run_dependent(document: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the fields that differ between runs, such as the time of creation."""
    return {
        name: _remove_run_dependent(value) if name == "record" else value
        for name, value in document.items()
        if name not in RUN_DEPENDENT_KEYS
    }


def list_attempt_processes(attempt_id: str) -> list[int]:
    """List the ids of all running processes that an attempt started, directly or indirectly (Linux)."""
    process_ids = []
    for process_folder in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = f"{ATTEMPT_VARIABLE}={attempt_id}".encode() in (
                process_folder / "environ"
            ).read_bytes().split(b"\0")
        except OSError:  # the process has ended or belongs to another user
            continue
        process_ids += [int(process_folder.name)] if is_ours else []
    return process_ids


def kill_orphans(attempt_id: str) -> int:
    """Wait ``ORPHAN_GRACE_S`` seconds for an attempt's processes to end, kill the rest; the number killed."""
    deadline = time.monotonic() + ORPHAN_GRACE_S
    while (orphan_ids := list_attempt_processes(attempt_id)) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
    for process in orphan_ids:
        os.kill(process, signal.SIGKILL)
    return len(orphan_ids)


# ---- experiment -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UninterruptedRun:
    """Reference run of an entry point without interruption: duration in seconds and file hashes."""

    seconds: float
    written: dict[str, str]


def run_kill_recovery(
    entry_points: Sequence[str],
    kill_count: int,
    seed: int,
    output_folder: Path,
    notify: Callable[[str], None],
    concurrent_attempts: int = 1,
) -> Path:
    """Write ``kill_recovery.csv`` and its run record; the path of the table.

    Finished attempts are kept in ``work/kills`` below the output folder and are not repeated.

    Parameters
    ----------
    entry_points
        Names in ``ENTRY_POINTS``.
    kill_count
        Number of kills per entry point.
    seed
        Seed for the kill times and the synthetic patients.
    output_folder
        Folder of the results.
    notify
        Called with a message after every attempt.
    concurrent_attempts
        Number of attempts that run at the same time.

    Raises
    ------
    ConfigurationError
        If an entry point is unknown.
    ExperimentError
        If an entry point fails or is not reproducible without interruption, or if the server does not answer.
    CohortError
        If the output folder holds attempts with another seed or number of kills.
    """
    unknown = [name for name in entry_points if name not in ENTRY_POINTS]
    if unknown:
        raise ExperimentError(
            f"The entry point '{unknown[0]}' is unknown; use one of {', '.join(ENTRY_POINTS)}."
        )
    work = output_folder / "work" / EXPERIMENT_NAME
    inputs = _create_inputs(work / "inputs", seed)

    def run_attempt(job: tuple[str, int]) -> KillResult:
        door, number = job
        record, key = work / f"{door}_{number}.json", {"seed": seed, "times": kill_count}
        finished_record = find_finished_record(record, key)
        if finished_record is not None:
            return KillResult(**finished_record["killed"])
        killed = kill_and_rerun(door, number, kill_count, seed, uninterrupted[door], inputs, work / door)
        write_json(record, {"key": key, "killed": asdict(killed)})
        notify(_describe_kill(killed, kill_count))
        return killed

    with ThreadPoolExecutor(concurrent_attempts) as pool:
        uninterrupted_runs = pool.map(
            lambda door: _run_uninterrupted(door, inputs, work, notify), entry_points
        )
        uninterrupted = dict(zip(entry_points, uninterrupted_runs, strict=True))
        rows = list(
            pool.map(
                run_attempt, [(door, number) for door in entry_points for number in range(1, kill_count + 1)]
            )
        )
    table = pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(KillResult)])
    write_table(table, output_folder / f"{EXPERIMENT_NAME}.csv")
    record_details = {
        "doors": list(entry_points),
        "times": kill_count,
        "seed": seed,
        "seconds": round(float(table["seconds"].sum())),
    }
    excluded = {"not_compared": EXCLUDED_FILES.pattern, "without": list(RUN_DEPENDENT_KEYS)}
    write_json(
        output_folder / f"{EXPERIMENT_NAME}_run_record.json",
        create_run_record(EXPERIMENT_NAME, **record_details, **excluded),
    )
    return output_folder / f"{EXPERIMENT_NAME}.csv"


def _run_uninterrupted(
    entry_point: str, inputs_folder: Path, work_folder: Path, notify: Callable[[str], None]
) -> UninterruptedRun:
    """Run twice without interruption to exclude output that is not reproducible. Raises ExperimentError."""
    path = work_folder / f"{entry_point}.json"
    if not path.exists():
        both = [
            _run_once(
                entry_point, inputs_folder, Attempt.create_fresh(work_folder / entry_point / "unbroken")
            )
            for _ in range(2)
        ]
        if different := _list_differences(both[0].written, both[1].written):
            raise ExperimentError(
                f"{entry_point} is not reproducible even without interruption; files that differ: {different}."
            )
        write_json(path, asdict(both[1]))
        notify(
            f"{entry_point}: {both[1].seconds:.1f} s without interruption, {len(both[1].written)} files and folders"
        )
    return UninterruptedRun(**json.loads(path.read_text("utf-8")))


def _run_once(entry_point: str, inputs_folder: Path, attempt: Attempt) -> UninterruptedRun:
    started = time.monotonic()
    if status := ENTRY_POINTS[entry_point](inputs_folder, attempt, KillSchedule()):
        raise ExperimentError(
            f"{entry_point} failed with exit status {status} without interruption; see {attempt.folder}/command.log."
        )
    return UninterruptedRun(time.monotonic() - started, hash_outputs(attempt))


def kill_and_rerun(
    entry_point: str,
    attempt_number: int,
    kill_count: int,
    seed: int,
    uninterrupted: UninterruptedRun,
    inputs_folder: Path,
    work_folder: Path,
) -> KillResult:
    """Kill at a random moment in interval ``attempt_number`` of ``kill_count``, rerun and compare the results.

    uninterrupted: the reference. The attempt's folder is removed unless something differs.
    """
    drawn = np.random.default_rng([seed, list(ENTRY_POINTS).index(entry_point), attempt_number]).random()
    kill_after_s, group = (
        uninterrupted.seconds * (attempt_number - 1 + drawn) / kill_count,
        attempt_number % 2 == 0,
    )
    while True:
        attempt, stop = (
            Attempt.create_fresh(work_folder / str(attempt_number)),
            KillSchedule(kill_after_s, group),
        )
        try:
            ENTRY_POINTS[entry_point](inputs_folder, attempt, stop)
        except ProcessKilledError:
            break
        kill_after_s *= 0.8  # the run finished before the kill: try again earlier
    hashes_at_kill = hash_outputs(attempt)
    finished_files = sum(hashes_at_kill.get(name) == sha for name, sha in uninterrupted.written.items())
    started, rerun = time.monotonic(), Attempt(attempt.folder, secrets.token_hex(8))
    status = ENTRY_POINTS[entry_point](inputs_folder, rerun, KillSchedule())
    seconds = time.monotonic() - started
    orphans, rerun_hashes = (
        kill_orphans(attempt.attempt_id) + kill_orphans(rerun.attempt_id),
        hash_outputs(rerun),
    )
    different = _list_differences(uninterrupted.written, rerun_hashes)
    leftovers = sorted(set(rerun_hashes) - set(uninterrupted.written))
    if not (status or different or leftovers or orphans):
        remove_path(attempt.folder)
    return KillResult(
        door=entry_point,
        number=attempt_number,
        moment_s=kill_after_s,
        of_s=uninterrupted.seconds,
        process="group" if group else "main",
        running=stop.activity,
        written=f"{finished_files} of {len(uninterrupted.written)}",
        exit=status,
        equal=int(not different and status == 0),
        different=different,
        leftovers=" ".join(leftovers),
        orphans=orphans,
        seconds=seconds,
    )


def _list_differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Names of the files that are missing or differ, separated by spaces."""
    return " ".join(name for name, sha in expected.items() if sha and found.get(name) != sha)


def _describe_kill(killed: KillResult, kill_count: int) -> str:
    end = "identical" if killed.equal else f"exit status {killed.exit}, files that differ: {killed.different}"
    more = [f"leftover files: {killed.leftovers}"] * bool(killed.leftovers)
    more += [f"{killed.orphans} orphaned processes"] * bool(killed.orphans)
    at = (
        f"{killed.moment_s:.1f} of {killed.of_s:.1f} s ({killed.running}, {killed.process}, {killed.written})"
    )
    return f"{killed.door} {killed.number}/{kill_count}: killed at {at}; {'; '.join([end, *more])}"


# ---- inputs -----------------------------------------------------------------------------------------


def _create_inputs(folder: Path, seed: int) -> Path:
    """Create a few synthetic patients for prediction and cohort building, and a tiny cohort for training."""
    if not (folder / "few").exists():
        write_hospital(range(seed, seed + PATIENT_COUNT), folder / "few", output_format="nifti", workers=1)
    if not (folder / "cohort" / "cohort.json").exists():
        _write_tiny_cohort(folder / "cohort")
    return folder


def _write_tiny_cohort(folder: Path) -> None:
    """Write patients of four noise slices, each patient with a bright lesion."""
    pair = (MRSequence.T1C, MRSequence.FLAIR)
    rows = ["id,age,sex,idh_mutant"]
    for number in range(1, TRAINING_PATIENT_COUNT + 1):
        random = np.random.default_rng(number)
        brain, lesion = np.zeros((2, 4, 240, 240), bool)
        brain[:, 30:210, 40:200] = True
        row, column = random.integers(60, 160, 2)
        lesion[1:, row : row + 12, column : column + 12] = True
        grain = random.normal(size=(2, 4, 24, 24)).repeat(10, axis=2).repeat(10, axis=3)
        images = {
            n: np.where(brain, g + 3 * lesion, -3).astype(np.float32)
            for n, g in zip(pair, grain, strict=True)
        }
        names = tuple(f"{index:03d}" for index in range(1, 5))
        affine = np.diag([1.0, 1.0, 6.0, 1.0])
        write_patient(
            folder, SliceStack(f"P{number:02d}", images, brain, affine, names, (0, 1, 2, 3), lesion)
        )
        rows.append(f"P{number:02d},{30 + number},{number // 2 % 2},{number % 2}")
    atomic_write(folder / "MetaMS.csv", "\n".join(rows) + "\n")
    description = {"schema_version": 1, "sequences": [str(name) for name in pair], "settings": {"k": 20}}
    write_json(folder / "cohort.json", description)

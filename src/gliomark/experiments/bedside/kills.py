"""``kill -9`` at random moments: does what is run again end as if nothing had happened, and is anything left over?

Every door is run by its real command as a user runs it, on a few synthetic patients: once to the end, then ``times``
times until it is killed and once more to the end. Half of the kills hit the main process alone, as the kernel's do
when memory runs out, so that orphans show; the other half everything it has started. The moments are drawn one in
each of ``times`` equal parts of the unbroken run. Compared are the SHA-256 of every file that the door writes.

Not compared, by name: ``created`` and ``seconds`` of a prediction (``prediction.json`` and its page), the server's
database, lock and ``prepared.*`` (seconds, and matrices of a registration on several threads, which differ by 1e-12
between any two runs; its slices, outline and answer are compared), and of a training its ``.work`` folder (its weights
are), whose log tells of the last call alone.
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

from gliomark.cohort.phantom.hospital import write_hospital
from gliomark.cohort.store import write_json, write_patient
from gliomark.experiments.records import create_run_record, find_finished_fold, write_table
from gliomark.files import atomic_write, remove_path
from gliomark.study import GliomarkError, MRSequence, SliceStack

EXPERIMENT_NAME = "kills"
ATTEMPT_VARIABLE = (
    "GLIOMARK_KILLS"  # in the environment of everything that an attempt starts: orphans are known by it
)
# ITK adds up the pieces of several threads as they come, so that the last digits depend on the machine's load
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
TRAINING_PATIENT_COUNT = 10  # of the cohort that is trained on


@dataclass(frozen=True)
class KillResult:
    """One kill and what came of it.

    moment_s, of_s: seconds after the start, and of the unbroken run; process: "main" or "group"; running: what was
    being done; written: files there by then, of the unbroken run's; equal: 1 where every result is the unbroken one's;
    different, leftovers: names; orphans: processes that outlived both runs; seconds: of the run after the kill.
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
    """Where an attempt at a door works: ``out`` is what it writes, ``temporary`` what it takes for scratch."""

    folder: Path
    attempt_id: str

    @staticmethod
    def create_fresh(folder: Path) -> Attempt:
        """Whatever was there is removed."""
        remove_path(folder)
        (folder / "tmp").mkdir(parents=True)
        return Attempt(folder, secrets.token_hex(8))

    @property
    def output_folder(self) -> Path:
        return self.folder / "out"

    @property
    def temporary_folder(self) -> Path:
        return self.folder / "tmp"

    def start_command(self, arguments: Sequence[str], **popen_options: Any) -> subprocess.Popen:
        """A gliomark command in a process group of its own; what it says on standard error is kept."""
        environment = (
            os.environ
            | ONE_THREAD_ENVIRONMENT
            | {ATTEMPT_VARIABLE: self.attempt_id, "TMPDIR": str(self.temporary_folder)}
        )
        with (self.folder / "said.log").open("ab") as log:
            default_options: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": log,
                "stderr": log,
                "start_new_session": True,
            }
            command = [sys.executable, "-m", "gliomark", *arguments]
            return subprocess.Popen(command, env=environment, **(default_options | popen_options))


class ProcessKilledError(Exception):
    """The moment of the kill came."""


class KillSchedule:
    """The one moment at which an attempt is killed. at: seconds after the start, None for never; group: everything
    that it has started dies too; doing: what is being done."""

    def __init__(self, kill_after_s: float | None = None, kills_group: bool = False) -> None:
        self.kill_after_s, self.kills_group, self.activity = kill_after_s, kills_group, "starting"
        self.started = time.monotonic()

    def wait_for_exit(
        self, process: subprocess.Popen, is_finished: Callable[[], bool] = lambda: False
    ) -> int | None:
        """The exit status, or None once ``is_over``. Raises CutError where the moment came first."""
        while (status := process.poll()) is None and not is_finished():
            if self.kill_after_s is not None and time.monotonic() - self.started >= self.kill_after_s:
                os.killpg(process.pid, signal.SIGKILL) if self.kills_group else process.kill()
                process.wait()
                raise ProcessKilledError
            time.sleep(POLL_INTERVAL_S)
        return status


EntryPoint = Callable[[Path, Attempt, KillSchedule], int]  # the inputs, where, until when; the exit status

# ---- the doors --------------------------------------------------------------------------------------


def run_predict(inputs_folder: Path, attempt: Attempt, schedule: KillSchedule) -> int:
    """A batch of patients."""
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
    """The same patients prepared as a cohort."""
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
    """The outline's network, then a marker's."""
    cohort, outline = (
        ["--cohort", str(inputs_folder / "cohort")],
        str(attempt.output_folder / "outline.safetensors"),
    )
    size = ["--rule", "joint", "--size", "small", "--epochs", str(EPOCH_COUNT)]
    marker = [
        "--marker",
        "idh_mutant",
        "--size",
        "light",
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
    """One after the other, as a user would type them again after an interruption."""
    for arguments in commands:
        schedule.activity = " ".join(word for word in arguments[:2] if not word.startswith("/"))
        if status := schedule.wait_for_exit(attempt.start_command(arguments)):
            return status
    return 0


def run_server(inputs_folder: Path, attempt: Attempt, schedule: KillSchedule) -> int:
    """A server that is asked for a prediction; its client asks again for whatever it got no answer to."""
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
        )  # what a killed server started may hold its pipe
    if errors:
        raise errors[0]
    return max(status, 0)


def _request_prediction(
    process: subprocess.Popen,
    inputs_folder: Path,
    attempt: Attempt,
    schedule: KillSchedule,
    errors: list[BaseException],
) -> None:
    """The client's side: upload, wait, ask, wait, keep the answer. What it knows outlives the server."""
    ids_path = attempt.folder / "client.json"
    ids: dict[str, str] = json.loads(ids_path.read_text("utf-8")) if ids_path.exists() else {}
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=TIMEOUT_S) as client:
            _wait_until(
                client, "/api/health", lambda told: told["status"] == "ok", schedule, "loading the models"
            )
            if "study" not in ids:
                schedule.activity = "uploading"
                ids["study"] = _upload_patient(client, inputs_folder)
                write_json(ids_path, ids)
            path = f"/api/studies/{ids['study']}"
            _wait_until(
                client, path, lambda told: told["state"] in ("ready", "failed"), schedule, "preparing"
            )
            if "job" not in ids:
                response = client.post(f"{path}/predictions", json={"without_clinical": True})
                ids["job"] = response.raise_for_status().json()["id"]
                write_json(ids_path, ids)
            path = f"/api/predictions/{ids['job']}"
            status = _wait_until(
                client, path, lambda told: told["state"] in ("done", "failed"), schedule, "predicting"
            )
            mask = client.get(f"{path}/mask.png").raise_for_status().content
        write_json(attempt.output_folder / "answer.json", _remove_run_dependent(status["result"] or status))
        atomic_write(attempt.output_folder / "answer.png", mask)
    except (httpx.HTTPError, IndexError):  # the server was killed
        if schedule.kill_after_s is None:
            errors.append(GliomarkError(f"The server went away by itself: see {attempt.folder}/said.log."))
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
    raise GliomarkError(f"{path} was not over after {TIMEOUT_S:.0f} seconds.")


ENTRY_POINTS: Mapping[str, EntryPoint] = {
    "predict": run_predict,
    "build": run_cohort_build,
    "train": run_training,
    "serve": run_server,
}

# ---- what is compared -------------------------------------------------------------------------------


def hash_outputs(attempt: Attempt) -> dict[str, str]:
    """Everything that lies in the results and in scratch: name to hash, blank for folders and what is not compared.

    Of a server's studies only those its client knows, under names that are the same in every run; a study that the
    database does not know either is told as it is.
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
        normalised[name if short in normalised else short] = sha  # a second one is left over, and told
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
    """Without what tells of the run and not of the patient."""
    return {
        name: _remove_run_dependent(value) if name == "record" else value
        for name, value in document.items()
        if name not in RUN_DEPENDENT_KEYS
    }


def list_attempt_processes(attempt_id: str) -> list[int]:
    """Living processes that an attempt has started, however far down."""
    process_ids = []
    for process_folder in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = f"{ATTEMPT_VARIABLE}={attempt_id}".encode() in (
                process_folder / "environ"
            ).read_bytes().split(b"\0")
        except OSError:  # it has ended, or is not ours
            continue
        process_ids += [int(process_folder.name)] if is_ours else []
    return process_ids


def kill_orphans(attempt_id: str) -> int:
    """How many processes are still there after a while; they are ended."""
    deadline = time.monotonic() + ORPHAN_GRACE_S
    while (orphan_ids := list_attempt_processes(attempt_id)) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
    for process in orphan_ids:
        os.kill(process, signal.SIGKILL)
    return len(orphan_ids)


# ---- the experiment ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class UninterruptedRun:
    """A door gone through without a kill: how long it took, and what it wrote."""

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
    """Write ``kills.csv`` and its record under ``out``; the table's path. at_once: attempts side by side.

    What is finished lies in ``out/work/kills`` and is not done again. Raises GliomarkError for a door nobody knows, or
    where one does not give the same twice without any kill.
    """
    unknown = [name for name in entry_points if name not in ENTRY_POINTS]
    if unknown:
        raise GliomarkError(
            f"The door '{unknown[0]}' is unknown; it must be one of {', '.join(ENTRY_POINTS)}."
        )
    work = output_folder / "work" / EXPERIMENT_NAME
    inputs = _create_inputs(work / "inputs", seed)

    def run_attempt(job: tuple[str, int]) -> KillResult:
        door, number = job
        record, key = work / f"{door}_{number}.json", {"seed": seed, "times": kill_count}
        finished_record = find_finished_fold(record, key)
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
    """Gone through twice: what differs then is no kill's doing. Raises GliomarkError where something does."""
    path = work_folder / f"{entry_point}.json"
    if not path.exists():
        both = [
            _run_once(
                entry_point, inputs_folder, Attempt.create_fresh(work_folder / entry_point / "unbroken")
            )
            for _ in range(2)
        ]
        if different := _list_differences(both[0].written, both[1].written):
            raise GliomarkError(f"{entry_point} gives something else every time: {different}.")
        write_json(path, asdict(both[1]))
        notify(f"{entry_point}: {both[1].seconds:.1f} s unbroken, {len(both[1].written)} files and folders")
    return UninterruptedRun(**json.loads(path.read_text("utf-8")))


def _run_once(entry_point: str, inputs_folder: Path, attempt: Attempt) -> UninterruptedRun:
    started = time.monotonic()
    if status := ENTRY_POINTS[entry_point](inputs_folder, attempt, KillSchedule()):
        raise GliomarkError(f"{entry_point} ended with {status} unbroken: see {attempt.folder}/said.log.")
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
    """Kill at a random moment of the ``number``-th of ``times`` equal parts, run again, compare."""
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
        kill_after_s *= 0.8  # it was over before
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
    """What is missing or not the same, by name."""
    return " ".join(name for name, sha in expected.items() if sha and found.get(name) != sha)


def _describe_kill(killed: KillResult, kill_count: int) -> str:
    end = "the same" if killed.equal else f"exit {killed.exit}, different: {killed.different}"
    more = [f"left over: {killed.leftovers}"] * bool(killed.leftovers)
    more += [f"{killed.orphans} orphans"] * bool(killed.orphans)
    at = (
        f"{killed.moment_s:.1f} of {killed.of_s:.1f} s ({killed.running}, {killed.process}, {killed.written})"
    )
    return f"{killed.door} {killed.number}/{kill_count}: killed at {at}; {'; '.join([end, *more])}"


# ---- what the doors are given -----------------------------------------------------------------------


def _create_inputs(folder: Path, seed: int) -> Path:
    """A few synthetic patients to be predicted and prepared, and a tiny cohort to be trained on."""
    if not (folder / "few").exists():
        write_hospital(range(seed, seed + PATIENT_COUNT), folder / "few", output_format="nifti", workers=1)
    if not (folder / "cohort" / "cohort.json").exists():
        _write_tiny_cohort(folder / "cohort")
    return folder


def _write_tiny_cohort(folder: Path) -> None:
    """Patients of four slices of grain, each with a bright lesion."""
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

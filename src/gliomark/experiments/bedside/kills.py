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
from gliomark.experiments.records import kept_fold, run_record, write_table
from gliomark.files import atomic_write, remove
from gliomark.study import GliomarkError, MRSequence, SliceStack

NAME = "kills"
MARK = "GLIOMARK_KILLS"  # in the environment of everything that an attempt starts: orphans are known by it
# ITK adds up the pieces of several threads as they come, so that the last digits depend on the machine's load
ONE_THREAD = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
NOT_COMPARED = re.compile(r"(^|/)(gliomark\.db[^/]*|lock|prepared\.[^/]*)$|\.work/")
HASHED_NAME = re.compile(r"\.[0-9a-f]{16}\.npz$")
TIMES = ((re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC"), b"TIME"), (re.compile(rb">[\d.]+ s<"), b">SECONDS<"))
RUN_DEPENDENT = ("created", "seconds")
LOOK_S, ENDING_S, LONGEST_S = 0.02, 10.0, 1800.0
PATIENTS, EPOCHS = 2, 2
LEARNERS = 10  # of the cohort that is trained on


@dataclass(frozen=True)
class Killed:
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
    mark: str

    @staticmethod
    def fresh(folder: Path) -> Attempt:
        """Whatever was there is removed."""
        remove(folder)
        (folder / "tmp").mkdir(parents=True)
        return Attempt(folder, secrets.token_hex(8))

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def start(self, words: Sequence[str], **options: Any) -> subprocess.Popen:
        """A gliomark command in a process group of its own; what it says on standard error is kept."""
        environment = os.environ | ONE_THREAD | {MARK: self.mark, "TMPDIR": str(self.temporary)}
        with (self.folder / "said.log").open("ab") as log:
            given: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": log,
                "stderr": log,
                "start_new_session": True,
            }
            command = [sys.executable, "-m", "gliomark", *words]
            return subprocess.Popen(command, env=environment, **(given | options))


class CutError(Exception):
    """The moment of the kill came."""


class Stop:
    """The one moment at which an attempt is killed. at: seconds after the start, None for never; group: everything
    that it has started dies too; doing: what is being done."""

    def __init__(self, at: float | None = None, group: bool = False) -> None:
        self.at, self.group, self.doing = at, group, "starting"
        self.started = time.monotonic()

    def watch(self, process: subprocess.Popen, is_over: Callable[[], bool] = lambda: False) -> int | None:
        """The exit status, or None once ``is_over``. Raises CutError where the moment came first."""
        while (status := process.poll()) is None and not is_over():
            if self.at is not None and time.monotonic() - self.started >= self.at:
                os.killpg(process.pid, signal.SIGKILL) if self.group else process.kill()
                process.wait()
                raise CutError
            time.sleep(LOOK_S)
        return status


Door = Callable[[Path, Attempt, Stop], int]  # the inputs, where, until when; the exit status

# ---- the doors --------------------------------------------------------------------------------------


def predict_door(inputs: Path, attempt: Attempt, stop: Stop) -> int:
    """A batch of patients."""
    return _run(attempt, stop, [["predict", *_patients(inputs, "--clinical"), "--out", str(attempt.out)]])


def build_door(inputs: Path, attempt: Attempt, stop: Stop) -> int:
    """The same patients prepared as a cohort."""
    out = str(attempt.out / "cohort")
    given = [*_patients(inputs, "--labels"), "--sequences", "T1C,FLAIR", "--workers", "1"]
    return _run(attempt, stop, [["cohort", "build", *given, "--out", out]])


def train_door(inputs: Path, attempt: Attempt, stop: Stop) -> int:
    """The outline's network, then a marker's."""
    cohort, outline = ["--cohort", str(inputs / "cohort")], str(attempt.out / "outline.safetensors")
    size = ["--rule", "joint", "--size", "small", "--epochs", str(EPOCHS)]
    marker = ["--marker", "idh_mutant", "--size", "light", "--out", str(attempt.out / "model.safetensors")]
    return _run(
        attempt,
        stop,
        [
            ["train", "segmentation", *cohort, *size, "--out", outline],
            ["train", "markers", *cohort, "--segmentation", outline, *marker],
        ],
    )


def _patients(inputs: Path, table: str) -> list[str]:
    return [str(inputs / "few" / "nifti"), table, str(inputs / "few" / "clinical.csv")]


def _run(attempt: Attempt, stop: Stop, commands: Sequence[Sequence[str]]) -> int:
    """One after the other, as a user would type them again after an interruption."""
    for words in commands:
        stop.doing = " ".join(word for word in words[:2] if not word.startswith("/"))
        if status := stop.watch(attempt.start(words)):
            return status
    return 0


def serve_door(inputs: Path, attempt: Attempt, stop: Stop) -> int:
    """A server that is asked for a prediction; its client asks again for whatever it got no answer to."""
    words = ["serve", "--data", str(attempt.out), "--port", "0"]
    process = attempt.start(words, stdout=subprocess.PIPE, text=True)
    failed: list[BaseException] = []
    client = threading.Thread(target=_ask, args=(process, inputs, attempt, stop, failed), daemon=True)
    client.start()
    try:
        stop.watch(process, lambda: not client.is_alive())
    finally:
        process.terminate()
        status = process.wait()
        client.join(None if stop.at is None else 1.0)  # what a killed server started may hold its pipe
    if failed:
        raise failed[0]
    return max(status, 0)


def _ask(
    process: subprocess.Popen, inputs: Path, attempt: Attempt, stop: Stop, failed: list[BaseException]
) -> None:
    """The client's side: upload, wait, ask, wait, keep the answer. What it knows outlives the server."""
    known = attempt.folder / "client.json"
    ids: dict[str, str] = json.loads(known.read_text("utf-8")) if known.exists() else {}
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=LONGEST_S) as client:
            _until(client, "/api/health", lambda told: told["status"] == "ok", stop, "loading the models")
            if "study" not in ids:
                stop.doing = "uploading"
                ids["study"] = _upload(client, inputs)
                write_json(known, ids)
            path = f"/api/studies/{ids['study']}"
            _until(client, path, lambda told: told["state"] in ("ready", "failed"), stop, "preparing")
            if "job" not in ids:
                asked = client.post(f"{path}/predictions", json={"without_clinical": True})
                ids["job"] = asked.raise_for_status().json()["id"]
                write_json(known, ids)
            path = f"/api/predictions/{ids['job']}"
            told = _until(client, path, lambda told: told["state"] in ("done", "failed"), stop, "predicting")
            mask = client.get(f"{path}/mask.png").raise_for_status().content
        write_json(attempt.out / "answer.json", _lasting(told["result"] or told))
        atomic_write(attempt.out / "answer.png", mask)
    except (httpx.HTTPError, IndexError):  # the server was killed
        if stop.at is None:
            failed.append(GliomarkError(f"The server went away by itself: see {attempt.folder}/said.log."))
    except BaseException as error:
        failed.append(error)


def _upload(client: httpx.Client, inputs: Path) -> str:
    patient = sorted((inputs / "few" / "nifti").iterdir())[0]
    files = [
        ("files", (f"{patient.name}/{path.name}", path.read_bytes())) for path in sorted(patient.iterdir())
    ]
    return str(client.post("/api/studies", files=files).raise_for_status().json()["id"])


def _until(
    client: httpx.Client, path: str, is_over: Callable[[dict[str, Any]], bool], stop: Stop, doing: str
) -> dict[str, Any]:
    ends = time.monotonic() + LONGEST_S
    while time.monotonic() < ends:
        told: dict[str, Any] = client.get(path).raise_for_status().json()
        stop.doing = f"{doing} {told.get('step', '')}".strip()
        if is_over(told):
            return told
        time.sleep(0.1)
    raise GliomarkError(f"{path} was not over after {LONGEST_S:.0f} seconds.")


DOORS: Mapping[str, Door] = {
    "predict": predict_door,
    "build": build_door,
    "train": train_door,
    "serve": serve_door,
}

# ---- what is compared -------------------------------------------------------------------------------


def written(attempt: Attempt) -> dict[str, str]:
    """Everything that lies in the results and in scratch: name to hash, blank for folders and what is not compared.

    Of a server's studies only those its client knows, under names that are the same in every run; a study that the
    database does not know either is told as it is.
    """
    found: dict[str, str] = {}
    for root in (attempt.out, attempt.temporary):
        for path in sorted(root.rglob("*")):
            name = path.relative_to(attempt.folder).as_posix()
            compared = path.is_file() and not NOT_COMPARED.search(name)
            found[name] = _sha256(path) if compared else ""
    return _of_the_client(attempt, found)


def _of_the_client(attempt: Attempt, found: Mapping[str, str]) -> dict[str, str]:
    known, database = attempt.folder / "client.json", attempt.out / "gliomark.db"
    if not known.exists() or not database.exists():
        return dict(found)
    ids: dict[str, str] = json.loads(known.read_text("utf-8"))
    with closing(sqlite3.connect(database)) as records:
        others = {row[0] for row in records.execute("SELECT id FROM studies")} - {ids.get("study")}
    kept = {name: sha for name, sha in found.items() if others.isdisjoint(name.split("/"))}
    for word, id in ids.items():
        kept = {name.replace(id, word): sha for name, sha in kept.items()}
    plain: dict[str, str] = {}
    for name, sha in kept.items():
        short = HASHED_NAME.sub(".npz", name)
        plain[name if short in plain else short] = sha  # a second one is left over, and told
    return plain


def _sha256(path: Path) -> str:
    content = path.read_bytes()
    if path.name == "prediction.json":
        content = json.dumps(_lasting(json.loads(content))).encode()
    elif path.suffix == ".html":
        for pattern, word in TIMES:
            content = pattern.sub(word, content)
    return hashlib.sha256(content).hexdigest()


def _lasting(document: Mapping[str, Any]) -> dict[str, Any]:
    """Without what tells of the run and not of the patient."""
    return {
        name: _lasting(value) if name == "record" else value
        for name, value in document.items()
        if name not in RUN_DEPENDENT
    }


def marked_processes(mark: str) -> list[int]:
    """Living processes that an attempt has started, however far down."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = f"{MARK}={mark}".encode() in (place / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is not ours
            continue
        found += [int(place.name)] if is_ours else []
    return found


def end_orphans(mark: str) -> int:
    """How many processes are still there after a while; they are ended."""
    ends = time.monotonic() + ENDING_S
    while (living := marked_processes(mark)) and time.monotonic() < ends:
        time.sleep(LOOK_S)
    for process in living:
        os.kill(process, signal.SIGKILL)
    return len(living)


# ---- the experiment ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unbroken:
    """A door gone through without a kill: how long it took, and what it wrote."""

    seconds: float
    written: dict[str, str]


def run(
    doors: Sequence[str], times: int, seed: int, out: Path, say: Callable[[str], None], at_once: int = 1
) -> Path:
    """Write ``kills.csv`` and its record under ``out``; the table's path. at_once: attempts side by side.

    What is finished lies in ``out/work/kills`` and is not done again. Raises GliomarkError for a door nobody knows, or
    where one does not give the same twice without any kill.
    """
    unknown = [name for name in doors if name not in DOORS]
    if unknown:
        raise GliomarkError(f"The door '{unknown[0]}' is unknown; it must be one of {', '.join(DOORS)}.")
    work = out / "work" / NAME
    inputs = _inputs(work / "inputs", seed)

    def one(job: tuple[str, int]) -> Killed:
        door, number = job
        record, key = work / f"{door}_{number}.json", {"seed": seed, "times": times}
        kept = kept_fold(record, key)
        if kept is not None:
            return Killed(**kept["killed"])
        killed = kill_once(door, number, times, seed, unbroken[door], inputs, work / door)
        write_json(record, {"key": key, "killed": asdict(killed)})
        say(_words(killed, times))
        return killed

    with ThreadPoolExecutor(at_once) as pool:
        alone = pool.map(lambda door: _unbroken(door, inputs, work, say), doors)
        unbroken = dict(zip(doors, alone, strict=True))
        rows = list(pool.map(one, [(door, number) for door in doors for number in range(1, times + 1)]))
    table = pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(Killed)])
    write_table(table, out / f"{NAME}.csv")
    told = {
        "doors": list(doors),
        "times": times,
        "seed": seed,
        "seconds": round(float(table["seconds"].sum())),
    }
    excluded = {"not_compared": NOT_COMPARED.pattern, "without": list(RUN_DEPENDENT)}
    write_json(out / f"{NAME}_run_record.json", run_record(NAME, **told, **excluded))
    return out / f"{NAME}.csv"


def _unbroken(door: str, inputs: Path, work: Path, say: Callable[[str], None]) -> Unbroken:
    """Gone through twice: what differs then is no kill's doing. Raises GliomarkError where something does."""
    path = work / f"{door}.json"
    if not path.exists():
        both = [_go_through(door, inputs, Attempt.fresh(work / door / "unbroken")) for _ in range(2)]
        if different := _different(both[0].written, both[1].written):
            raise GliomarkError(f"{door} gives something else every time: {different}.")
        write_json(path, asdict(both[1]))
        say(f"{door}: {both[1].seconds:.1f} s unbroken, {len(both[1].written)} files and folders")
    return Unbroken(**json.loads(path.read_text("utf-8")))


def _go_through(door: str, inputs: Path, attempt: Attempt) -> Unbroken:
    started = time.monotonic()
    if status := DOORS[door](inputs, attempt, Stop()):
        raise GliomarkError(f"{door} ended with {status} unbroken: see {attempt.folder}/said.log.")
    return Unbroken(time.monotonic() - started, written(attempt))


def kill_once(
    door: str, number: int, times: int, seed: int, unbroken: Unbroken, inputs: Path, work: Path
) -> Killed:
    """Kill at a random moment of the ``number``-th of ``times`` equal parts, run again, compare."""
    drawn = np.random.default_rng([seed, list(DOORS).index(door), number]).random()
    moment, group = unbroken.seconds * (number - 1 + drawn) / times, number % 2 == 0
    while True:
        attempt, stop = Attempt.fresh(work / str(number)), Stop(moment, group)
        try:
            DOORS[door](inputs, attempt, stop)
        except CutError:
            break
        moment *= 0.8  # it was over before
    by_then = written(attempt)
    before = sum(by_then.get(name) == sha for name, sha in unbroken.written.items())
    started, again = time.monotonic(), Attempt(attempt.folder, secrets.token_hex(8))
    status = DOORS[door](inputs, again, Stop())
    seconds = time.monotonic() - started
    orphans, found = end_orphans(attempt.mark) + end_orphans(again.mark), written(again)
    different = _different(unbroken.written, found)
    leftovers = sorted(set(found) - set(unbroken.written))
    if not (status or different or leftovers or orphans):
        remove(attempt.folder)
    return Killed(
        door=door,
        number=number,
        moment_s=moment,
        of_s=unbroken.seconds,
        process="group" if group else "main",
        running=stop.doing,
        written=f"{before} of {len(unbroken.written)}",
        exit=status,
        equal=int(not different and status == 0),
        different=different,
        leftovers=" ".join(leftovers),
        orphans=orphans,
        seconds=seconds,
    )


def _different(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What is missing or not the same, by name."""
    return " ".join(name for name, sha in expected.items() if sha and found.get(name) != sha)


def _words(killed: Killed, times: int) -> str:
    end = "the same" if killed.equal else f"exit {killed.exit}, different: {killed.different}"
    more = [f"left over: {killed.leftovers}"] * bool(killed.leftovers)
    more += [f"{killed.orphans} orphans"] * bool(killed.orphans)
    at = (
        f"{killed.moment_s:.1f} of {killed.of_s:.1f} s ({killed.running}, {killed.process}, {killed.written})"
    )
    return f"{killed.door} {killed.number}/{times}: killed at {at}; {'; '.join([end, *more])}"


# ---- what the doors are given -----------------------------------------------------------------------


def _inputs(folder: Path, seed: int) -> Path:
    """A few synthetic patients to be predicted and prepared, and a tiny cohort to be trained on."""
    if not (folder / "few").exists():
        write_hospital(range(seed, seed + PATIENTS), folder / "few", form="nifti", workers=1)
    if not (folder / "cohort" / "cohort.json").exists():
        _write_tiny_cohort(folder / "cohort")
    return folder


def _write_tiny_cohort(folder: Path) -> None:
    """Patients of four slices of grain, each with a bright lesion."""
    pair = (MRSequence.T1C, MRSequence.FLAIR)
    rows = ["id,age,sex,idh_mutant"]
    for number in range(1, LEARNERS + 1):
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
    about = {"schema_version": 1, "sequences": [str(name) for name in pair], "settings": {"k": 20}}
    write_json(folder / "cohort.json", about)

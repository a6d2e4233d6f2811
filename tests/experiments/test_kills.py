"""Kills of real commands (only by `make kills`), and tests of the kill experiment itself (in every test run)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from gliomark.errors import GliomarkError
from gliomark.experiments.robustness import kill_recovery
from gliomark.experiments.robustness.kill_recovery import (
    ENTRY_POINTS,
    Attempt,
    KillSchedule,
    ProcessKilledError,
    run_kill_recovery,
)
from gliomark.files import atomic_write, remove_leftovers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are listed from /proc")
SLEEPER = "import time; print('ready', flush=True); time.sleep(600)"


@pytest.mark.kills
@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_outputs_are_the_same_after_every_kill(tmp_path: Path, entry_point: str) -> None:
    table = pd.read_csv(run_kill_recovery([entry_point], 2, 1, tmp_path, print), keep_default_na=False)
    assert table["equal"].tolist() == [1, 1], table["different"].tolist()
    assert table["exit"].tolist() == [0, 0] and table["orphans"].tolist() == [0, 0]
    assert table["leftovers"].tolist() == ["", ""]
    assert table["process"].tolist() == ["main", "group"]


def test_an_unknown_entry_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GliomarkError, match="predict, build, train, serve"):
        run_kill_recovery(["window"], 1, 1, tmp_path, print)


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return Attempt.create_fresh(tmp_path / "attempt")


def test_the_process_is_killed_on_time_and_orphans_are_found(attempt: Attempt) -> None:
    """Only the main process is killed; its child survives and is found by its environment."""
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", child],
        env=os.environ | {kill_recovery.ATTEMPT_VARIABLE: attempt.attempt_id},
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline().strip() == "ready"
    with pytest.raises(ProcessKilledError):
        KillSchedule(0.0).wait_for_exit(process)
    assert process.returncode == -signal.SIGKILL
    (orphan,) = kill_recovery.list_attempt_processes(attempt.attempt_id)
    assert orphan != process.pid
    os.kill(orphan, signal.SIGKILL)


def test_outputs_are_compared_without_times(attempt: Attempt) -> None:
    """Times are excluded, everything else is compared; folders and temporary files are listed too."""
    for seconds, name in ((1.5, "one"), (2.5, "two")):
        text = f'{{"created": "{name}", "seconds": {seconds}, "patient_id": "P1"}}'
        atomic_write(attempt.output_folder / name / "prediction.json", text)
        atomic_write(
            attempt.output_folder / name / "report.html",
            f"<dd>2026-11-26 12:0{int(seconds)} UTC</dd><dd>{seconds} s</dd>",
        )
    atomic_write(attempt.output_folder / "a.work" / "last.ckpt", "x")
    (attempt.temporary_folder / "left").mkdir()
    found = kill_recovery.hash_outputs(attempt)
    assert found["out/one/prediction.json"] == found["out/two/prediction.json"]
    assert found["out/one/report.html"] == found["out/two/report.html"] != ""
    assert found["out/a.work/last.ckpt"] == "" and "tmp/left" in found
    changed = found | {"out/one/report.html": "other"}
    assert kill_recovery._list_differences(found, changed) == "out/one/report.html"
    assert kill_recovery._list_differences(found, {}) == " ".join(name for name, sha in found.items() if sha)


@pytest.mark.parametrize("kill_group", [False, True], ids=["main", "group"])
def test_a_writer_that_is_killed_leaves_the_older_file(attempt: Attempt, kill_group: bool) -> None:
    """Whenever the writing process is killed, the file is one of the two versions, complete."""
    path = attempt.output_folder / "result"
    program = (
        "import sys; from pathlib import Path; from gliomark.files import atomic_write\n"
        "while True:\n    for letter in 'ab': atomic_write(Path(sys.argv[1]), letter * 300_000, is_durable=False)"
    )
    for moment in (0.0, 0.01, 0.02, 0.03):
        process = subprocess.Popen([sys.executable, "-c", program, str(path)], start_new_session=True)
        while not path.exists():
            assert process.poll() is None
        with pytest.raises(ProcessKilledError):
            KillSchedule(moment, kill_group).wait_for_exit(process)
        assert path.read_bytes() in (b"a" * 300_000, b"b" * 300_000)
        remove_leftovers(attempt.output_folder)
        assert os.listdir(attempt.output_folder) == ["result"]
        path.unlink()

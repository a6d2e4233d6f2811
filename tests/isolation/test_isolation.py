"""Files read in a reader process cannot harm the program: real crashes, hangs and bombs, then a valid patient."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.isolation import hostile

from gliomark.errors import GliomarkError
from gliomark.files import TEMPORARY_PREFIX
from gliomark.io import find_patients, read_study
from gliomark.isolation import ReaderLimits, ReaderPool, ReaderProcessError
from gliomark.messages import Message, render_message
from gliomark.study import MRSequence

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of POSIX")
COMMAND = (sys.executable, "-P", hostile.__file__)
TIGHT = ReaderLimits(
    max_memory_bytes=5 << 28, timeout_s=20, stall_timeout_s=5, max_open_files=64, max_result_bytes=64 << 20
)


@pytest.fixture(scope="module")
def reading() -> Iterator[ReaderPool]:
    with ReaderPool(1, TIGHT, COMMAND) as processes:
        yield processes


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """Write a patient folder with pictures and one more file."""
    (tmp_path / "P1" / "FLAIR").mkdir(parents=True)
    for number in range(3):
        pixels = np.full((32, 32), 10, np.uint8)
        pixels[8:20, 8 : 20 + number] = 100
        Image.fromarray(pixels).save(tmp_path / "P1" / "FLAIR" / f"{number:03d}.png")
    (tmp_path / "P1" / "bad.dcm").write_bytes(b"bad")
    os.mkfifo(tmp_path / "P1" / "pipe")
    return tmp_path / "P1"


HARM = {
    "segfault": (hostile.cause_segfault, "reading-crashed", ("signal 11", "bad.dcm")),
    "exit": (hostile.exit_process, "reading-crashed", ("status 3",)),
    "memory in steps": (hostile.fill_memory_in_steps, "reading-memory", ("bad.dcm", "1.34 GB")),
    "memory at once": (hostile.fill_memory_at_once, "reading-memory", ()),
    "spin": (hostile.loop_forever, "reading-slow", ("bad.dcm",)),
    "spin in C": (hostile.block_in_c, "reading-slow", ("bad.dcm",)),
    "a pipe without a writer": (hostile.wait_for_fifo, "reading-slow", ("pipe",)),
    "closed pipe": (hostile.close_pipe, "reading-crashed", ()),
    "garbage": (hostile.write_garbage_answer, "reading-crashed", ("could not be interpreted",)),
    "a line without end": (hostile.write_endless_answer, "reading-crashed", ("could not be interpreted",)),
    "giant answer": (hostile.return_large_answer, None, ()),
}


@pytest.mark.parametrize("kind", HARM)
def test_harm_costs_one_sentence_and_the_next_patient_is_read(
    kind: str, reading: ReaderPool, patient: Path
) -> None:
    function, code, words = HARM[kind]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises((GliomarkError, OSError)) as raised:
        reading(patient, function, patient)
    assert time.monotonic() - started < 30
    if code is not None:
        assert isinstance(raised.value, ReaderProcessError)
        sentence = raised.value.message
        assert isinstance(sentence, Message) and sentence.code == code
        assert str(patient) in sentence and all(word in sentence for word in words), sentence
        assert str(patient) in render_message(sentence, "zh")
    good = reading(patient, read_study, patient)
    np.testing.assert_array_equal(
        good.series[MRSequence.FLAIR].image, read_study(patient).series[MRSequence.FLAIR].image
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < max(before, 2 << 20) + (64 << 10)


def test_what_crashed_once_is_tried_once_more(reading: ReaderPool, patient: Path) -> None:
    assert reading(patient, hostile.crash_once, patient) == "second try"


@pytest.mark.parametrize(
    ("function", "answer"),
    [(hostile.print_much, "printed"), (hostile.read_slowly, "read all"), (hostile.get_token, "none")],
)
def test_what_is_no_harm_is_answered(
    function: Callable[[Path], str], answer: str, patient: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Printed text does not disturb the result, slow progress is accepted, and the server's token is not passed on."""
    monkeypatch.setenv("GLIOMARK_TOKEN", "secret")
    with ReaderPool(1, ReaderLimits(timeout_s=60, stall_timeout_s=2), COMMAND) as processes:
        assert processes(patient, function, patient) == answer


def test_refusals_and_errors_come_back_as_they_were(reading: ReaderPool, patient: Path) -> None:
    with pytest.raises(GliomarkError) as refused:
        reading(patient, hostile.raise_gliomark_error, patient)
    assert refused.value.message.code == "folder-empty"
    with pytest.raises(ValueError, match="UnicodeDecodeError: .*not text"):
        reading(patient, hostile.raise_unicode_error, patient)
    with pytest.raises(OSError, match="Too many open files"):
        reading(patient, hostile.open_many, patient)
    with pytest.raises(TypeError):
        reading(patient, hostile.return_wrong_type, patient)


def test_only_named_functions_run(patient: Path) -> None:
    with ReaderPool(1) as processes, pytest.raises(OSError, match="_unnamed"):
        processes(patient, _unnamed, patient)


def _unnamed(folder: Path) -> str:
    return str(folder)


def test_a_process_is_used_again_until_it_is_worn_out(patient: Path) -> None:
    limits = ReaderLimits(max_calls=3)
    with ReaderPool(1, limits, COMMAND) as processes:
        ids = [processes(patient, hostile.get_process_id, patient) for _ in range(7)]
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4] == ids[5] != ids[6]


def test_a_process_answers_for_its_own_memory_alone(patient: Path) -> None:
    """The memory of the parent process does not count."""
    swollen = 512 << 20
    assert np.ones(swollen + (64 << 20), np.uint8).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 > swollen
    with ReaderPool(1, ReaderLimits(restart_above_bytes=swollen), COMMAND) as processes:
        first, second = (processes(patient, hostile.get_process_id, patient) for _ in range(2))
    assert first == second


def test_nothing_is_left(patient: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    with ReaderPool(1, TIGHT, COMMAND) as processes:
        processes(patient, find_patients, patient)
        with pytest.raises(ReaderProcessError):
            processes(patient, hostile.cause_segfault, patient)
        (one,) = place.iterdir()
        assert one.stat().st_mode & 0o777 == 0o700
    assert not any(place.iterdir())


PARENT = """
import sys
from pathlib import Path
from tests.isolation import hostile
from gliomark.isolation import ReaderPool
processes = ReaderPool(1, command=(sys.executable, "-P", hostile.__file__))
processes(Path(sys.argv[1]), getattr(hostile, sys.argv[2]), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("doing", ["start_child_process", "block_in_c", "loop_forever"])
def test_no_child_outlives_a_killed_parent(doing: str, patient: Path, tmp_path: Path) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    environment = os.environ | {"TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(patient), doing], env=environment)
    _until(
        lambda: (
            any(b"bad.dcm" in file.read_bytes() for file in place.glob("*/*/at"))
            or (patient / "pid").exists()
        )
    )
    children = _below(parent.pid)
    assert len(children) == (2 if doing == "start_child_process" else 1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _until(lambda: not any(_is_alive(one) for one in children))
    assert len(list(place.glob(f"{TEMPORARY_PREFIX}*"))) == 1
    monkey = ReaderPool(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tempfile.tempdir", str(place))
        with monkey:
            monkey(patient, find_patients, patient)
    assert not any(place.iterdir()), "the next run removes what the killed one left"


def _until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.05)


def _below(pid: int) -> list[int]:
    """List all descendants of a process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text("utf-8").rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [grandchild for child in found for grandchild in _below(child)]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("value", "fits"), [("2.5", True), ("", True), ("0", False), ("much", False), ("nan", False)]
)
def test_limits_are_settings(value: str, fits: bool) -> None:
    environment = {"GLIOMARK_READING_GB": value}
    if not fits:
        with pytest.raises(GliomarkError, match="GLIOMARK_READING_GB"):
            ReaderLimits.from_environment(environment)
        return
    usual = ReaderLimits().max_memory_bytes
    assert ReaderLimits.from_environment(environment).max_memory_bytes == (
        int(2.5 * (1 << 30)) if value else usual
    )

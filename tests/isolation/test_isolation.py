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
def reader_pool() -> Iterator[ReaderPool]:
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


HARMFUL_FUNCTIONS = {
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


@pytest.mark.parametrize("kind", HARMFUL_FUNCTIONS)
def test_a_harmful_file_gives_one_sentence_and_the_next_patient_is_read(
    kind: str, reader_pool: ReaderPool, patient: Path
) -> None:
    function, code, expected_words = HARMFUL_FUNCTIONS[kind]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises((GliomarkError, OSError)) as raised:
        reader_pool(patient, function, patient)
    assert time.monotonic() - started < 30
    if code is not None:
        assert isinstance(raised.value, ReaderProcessError)
        sentence = raised.value.message
        assert isinstance(sentence, Message) and sentence.code == code
        assert str(patient) in sentence and all(word in sentence for word in expected_words), sentence
        assert str(patient) in render_message(sentence, "zh")
    loaded_study = reader_pool(patient, read_study, patient)
    np.testing.assert_array_equal(
        loaded_study.series[MRSequence.FLAIR].image, read_study(patient).series[MRSequence.FLAIR].image
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < max(before, 2 << 20) + (64 << 10)


def test_a_crashed_call_is_tried_once_more(reader_pool: ReaderPool, patient: Path) -> None:
    assert reader_pool(patient, hostile.crash_once, patient) == "second try"


@pytest.mark.parametrize(
    ("function", "answer"),
    [(hostile.print_much, "printed"), (hostile.read_slowly, "read all"), (hostile.get_token, "none")],
)
def test_harmless_functions_return_their_result(
    function: Callable[[Path], str], answer: str, patient: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Printed text does not disturb the result, slow progress is accepted, and the server's token is not passed on."""
    monkeypatch.setenv("GLIOMARK_TOKEN", "secret")
    with ReaderPool(1, ReaderLimits(timeout_s=60, stall_timeout_s=2), COMMAND) as processes:
        assert processes(patient, function, patient) == answer


def test_refusals_and_errors_are_returned_unchanged(reader_pool: ReaderPool, patient: Path) -> None:
    with pytest.raises(GliomarkError) as refused:
        reader_pool(patient, hostile.raise_gliomark_error, patient)
    assert refused.value.message.code == "folder-empty"
    with pytest.raises(ValueError, match="UnicodeDecodeError: .*not text"):
        reader_pool(patient, hostile.raise_unicode_error, patient)
    with pytest.raises(OSError, match="Too many open files"):
        reader_pool(patient, hostile.open_many, patient)
    with pytest.raises(TypeError):
        reader_pool(patient, hostile.return_wrong_type, patient)


def test_only_allowed_functions_run(patient: Path) -> None:
    with ReaderPool(1) as processes, pytest.raises(OSError, match="_unnamed"):
        processes(patient, _unnamed, patient)


def _unnamed(folder: Path) -> str:
    return str(folder)


def test_a_process_is_reused_up_to_its_maximum_number_of_calls(patient: Path) -> None:
    limits = ReaderLimits(max_calls=3)
    with ReaderPool(1, limits, COMMAND) as processes:
        ids = [processes(patient, hostile.get_process_id, patient) for _ in range(7)]
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4] == ids[5] != ids[6]


def test_only_the_memory_of_the_process_itself_counts(patient: Path) -> None:
    """The memory of the parent process does not count."""
    parent_bytes = 512 << 20
    assert np.ones(parent_bytes + (64 << 20), np.uint8).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 > parent_bytes
    with ReaderPool(1, ReaderLimits(restart_above_bytes=parent_bytes), COMMAND) as processes:
        first, second = (processes(patient, hostile.get_process_id, patient) for _ in range(2))
    assert first == second


def test_no_temporary_files_are_left(patient: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary_folder = tmp_path / "temporary"
    temporary_folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary_folder))
    with ReaderPool(1, TIGHT, COMMAND) as processes:
        processes(patient, find_patients, patient)
        with pytest.raises(ReaderProcessError):
            processes(patient, hostile.cause_segfault, patient)
        (process_folder,) = temporary_folder.iterdir()
        assert process_folder.stat().st_mode & 0o777 == 0o700
    assert not any(temporary_folder.iterdir())


PARENT = """
import sys
from pathlib import Path
from tests.isolation import hostile
from gliomark.isolation import ReaderPool
processes = ReaderPool(1, command=(sys.executable, "-P", hostile.__file__))
processes(Path(sys.argv[1]), getattr(hostile, sys.argv[2]), Path(sys.argv[1]))
"""


@pytest.mark.sample(3)
@pytest.mark.parametrize("function_name", ["start_child_process", "block_in_c", "loop_forever"])
def test_no_child_outlives_a_killed_parent(function_name: str, patient: Path, tmp_path: Path) -> None:
    temporary_folder = tmp_path / "temporary"
    temporary_folder.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary_folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(patient), function_name], env=environment)
    _wait_until(
        lambda: (
            any(b"bad.dcm" in file.read_bytes() for file in temporary_folder.glob("*/*/at"))
            or (patient / "pid").exists()
        )
    )
    children = _list_descendants(parent.pid)
    assert len(children) == (2 if function_name == "start_child_process" else 1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _wait_until(lambda: not any(_is_alive(one) for one in children))
    assert len(list(temporary_folder.glob(f"{TEMPORARY_PREFIX}*"))) == 1
    reader_pool = ReaderPool(1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("tempfile.tempdir", str(temporary_folder))
        with reader_pool:
            reader_pool(patient, find_patients, patient)
    assert not any(temporary_folder.iterdir()), "the next run removes what the killed one left"


def _wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _list_descendants(pid: int) -> list[int]:
    """List all descendants of a process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text("utf-8").rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [grandchild for child in found for grandchild in _list_descendants(child)]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("value", "is_valid"), [("2.5", True), ("", True), ("0", False), ("much", False), ("nan", False)]
)
def test_limits_are_read_from_the_environment(value: str, is_valid: bool) -> None:
    environment = {"GLIOMARK_READING_GB": value}
    if not is_valid:
        with pytest.raises(GliomarkError, match="GLIOMARK_READING_GB"):
            ReaderLimits.from_environment(environment)
        return
    default = ReaderLimits().max_memory_bytes
    assert ReaderLimits.from_environment(environment).max_memory_bytes == (
        int(2.5 * (1 << 30)) if value else default
    )

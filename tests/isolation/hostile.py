"""The reading process with a few more functions: what a hostile file could make a library do, done for real.

``python -P hostile.py [poison] LIMITS``; the tests alone start it. With ``poison`` a folder that holds a file of that
name, and a DICOM file that says POISON, end the process as a broken decoder does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.io.dicom import Instance
from gliomark.isolation import child
from gliomark.messages import message
from gliomark.study import GliomarkError, MRSequence, Study

original_functions = types.SimpleNamespace()  # the real functions, where others stand in for them


def cause_segfault(folder: Path) -> str:
    """Reads a file, then writes where nothing may be written."""
    (folder / "bad.dcm").read_bytes()
    ctypes.memset(8, 1, 1)
    return "not reached"


def crash_once(folder: Path) -> str:
    """The first try alone ends the process."""
    mark = folder / "tried"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return "second try"


def exit_process(folder: Path) -> str:
    os._exit(3)


def fill_memory_in_steps(folder: Path) -> str:
    """Memory that is really used, in steps, as an unpacked bomb takes it."""
    (folder / "bad.dcm").read_bytes()
    arrays = [np.ones(1 << 24) for _ in range(1000)]
    return str(len(arrays))


def fill_memory_at_once(folder: Path) -> str:
    return str(np.ones(1 << 36).sum())


def loop_forever(folder: Path) -> str:
    (folder / "bad.dcm").read_bytes()
    while True:
        pass


def block_in_c(folder: Path) -> str:
    """No other thread of the process runs meanwhile."""
    (folder / "bad.dcm").read_bytes()
    ctypes.PyDLL(None).sleep(3600)
    return "not reached"


def wait_for_fifo(folder: Path) -> str:
    return (folder / "pipe").read_text("utf-8")


def open_many(folder: Path) -> str:
    open_files = [(folder / "bad.dcm").open("rb") for _ in range(10_000)]
    return str(len(open_files))


def read_slowly(folder: Path) -> str:
    """Slow, but a file after the other."""
    for _ in range(6):
        (folder / "bad.dcm").read_bytes()
        time.sleep(0.5)
    return "read all"


def close_pipe(folder: Path) -> str:
    """The pipe to the parent goes, the process stays."""
    os.closerange(3, 64)
    time.sleep(3600)
    return "not reached"


def write_garbage_answer(folder: Path) -> str:
    pipe_descriptors = [file for file in range(3, 64) if _is_pipe(file)]
    for file in pipe_descriptors:
        with _ignored():
            os.write(file, b'{"ended": ["well"]}\n')
    return "too late"


def write_endless_answer(folder: Path) -> str:
    for file in (file for file in range(3, 64) if _is_pipe(file)):
        with _ignored():
            for _ in range(64):
                os.write(file, b"a" * (1 << 16))
    return "too late"


def return_large_answer(folder: Path) -> NDArray[np.uint8]:
    return np.zeros(1 << 28, np.uint8)


def return_wrong_type(folder: Path) -> str:
    return folder  # type: ignore[return-value]


def raise_gliomark_error(folder: Path) -> str:
    raise GliomarkError(message("folder-empty", folder=folder))


def raise_unicode_error(folder: Path) -> str:
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "not text")


def print_much(folder: Path) -> str:
    """Libraries print on both outputs, past their buffers."""
    os.write(1, b"out " * (1 << 16))
    os.write(2, b"err " * (1 << 16))
    return "printed"


def start_child_process(folder: Path) -> str:
    """A child of the child, which must go with it."""
    if (child_id := os.fork()) == 0:
        time.sleep(3600)
    (folder / "pid").write_text(str(child_id), "utf-8")
    while True:
        time.sleep(1)


def get_process_id(folder: Path) -> int:
    return os.getpid()


def get_token(folder: Path) -> str:
    return os.environ.get("GLIOMARK_TOKEN", "none")


def read_study(path: Path, needed: Sequence[MRSequence] = ()) -> Study:
    """``gliomark.io.read_study``; a folder that holds a file ``poison`` ends the process."""
    if (path / "poison").exists():
        (path / "poison").read_bytes()
        ctypes.memset(8, 1, 1)
    return original_functions.read_study(path, needed=needed)


def read_instance(file: Path) -> Instance:
    """``gliomark.io.dicom.read_instance``; a file that says POISON ends the process."""
    from gliomark.io.dicom.instances import read_instance as read

    if b"POISON" in file.read_bytes():
        ctypes.memset(8, 1, 1)
    return read(file)


class _ignored:  # noqa: N801 - reads as contextlib's
    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, *_: object) -> bool:
        return kind is None or issubclass(kind, OSError)  # type: ignore[arg-type]


def _is_pipe(file: int) -> bool:
    try:
        return "pipe:" in os.readlink(f"/proc/self/fd/{file}")
    except OSError:
        return False


if __name__ == "__main__":
    # under the name that the tests, which import this file, give their questions
    module = sys.modules["tests.isolation.hostile"] = sys.modules["__main__"]
    for package in ("tests", "tests.isolation"):
        sys.modules.setdefault(package, types.ModuleType(package))
    own = [one for one in vars(module).values() if getattr(one, "__module__", "") == "__main__"]
    names = [one.__name__ for one in own if callable(one)]
    child.ALLOWED_FUNCTIONS |= {f"tests.isolation.hostile:{name}" for name in names}
    if "poison" in sys.argv:
        sys.argv.remove("poison")
        import gliomark.io
        import gliomark.server.intake

        original_functions = types.SimpleNamespace(read_study=gliomark.io.read_study)
        gliomark.io.read_study = gliomark.server.intake.read_study = read_study  # type: ignore[assignment]
        gliomark.io.dicom.read_instance = read_instance
    child.main()

"""The reader process with additional functions that really do what a malicious file could make a library do.

Usage (only by the tests): ``python -P hostile.py [poison] LIMITS``. With ``poison``, a folder with a file of that name
or a DICOM file that contains POISON crashes the process, like a broken decoder.
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

from gliomark.errors import GliomarkError
from gliomark.io.dicom import Instance
from gliomark.isolation import child
from gliomark.messages import message
from gliomark.study import MRSequence, Study

original_functions = types.SimpleNamespace()  # the original functions, which the functions below replace


def cause_segfault(folder: Path) -> str:
    """Read a file, then write to an invalid address."""
    (folder / "bad.dcm").read_bytes()
    ctypes.memset(8, 1, 1)
    return "not reached"


def crash_once(folder: Path) -> str:
    """Crash the process in the first attempt only."""
    marker_file = folder / "tried"
    if not marker_file.exists():
        marker_file.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return "second try"


def exit_process(folder: Path) -> str:
    os._exit(3)


def fill_memory_in_steps(folder: Path) -> str:
    """Allocate and use memory in steps, like a decompression bomb."""
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
    """Block all other threads of the process."""
    (folder / "bad.dcm").read_bytes()
    ctypes.PyDLL(None).sleep(3600)
    return "not reached"


def wait_for_fifo(folder: Path) -> str:
    return (folder / "pipe").read_text("utf-8")


def open_many(folder: Path) -> str:
    open_files = [(folder / "bad.dcm").open("rb") for _ in range(10_000)]
    return str(len(open_files))


def read_slowly(folder: Path) -> str:
    """Read slowly, one file after the other."""
    for _ in range(6):
        (folder / "bad.dcm").read_bytes()
        time.sleep(0.5)
    return "read all"


def close_pipe(folder: Path) -> str:
    """Close the pipe to the parent but keep running."""
    os.closerange(3, 64)
    time.sleep(3600)
    return "not reached"


def write_garbage_answer(folder: Path) -> str:
    pipe_descriptors = [file for file in range(3, 64) if _is_pipe(file)]
    for file in pipe_descriptors:
        with _IgnoreOSError():
            os.write(file, b'{"ended": ["well"]}\n')
    return "too late"


def write_endless_answer(folder: Path) -> str:
    for file in (file for file in range(3, 64) if _is_pipe(file)):
        with _IgnoreOSError():
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
    """Print more than the buffers hold to stdout and stderr, as libraries do."""
    os.write(1, b"out " * (1 << 16))
    os.write(2, b"err " * (1 << 16))
    return "printed"


def start_child_process(folder: Path) -> str:
    """Start a child of the reader process, which must end with it."""
    if (child_id := os.fork()) == 0:
        time.sleep(3600)
    (folder / "pid").write_text(str(child_id), "utf-8")
    while True:
        time.sleep(1)


def get_process_id(folder: Path) -> int:
    return os.getpid()


def get_token(folder: Path) -> str:
    return os.environ.get("GLIOMARK_TOKEN", "none")


def read_study(path: Path, required_sequences: Sequence[MRSequence] = ()) -> Study:
    """``gliomark.io.read_study``, but a folder with a file ``poison`` crashes the process."""
    if (path / "poison").exists():
        (path / "poison").read_bytes()
        ctypes.memset(8, 1, 1)
    return original_functions.read_study(path, required_sequences=required_sequences)


def read_instance(file: Path) -> Instance:
    """``gliomark.io.dicom.instances.read_instance``, but a file that contains POISON crashes the process."""
    from gliomark.io.dicom.instances import read_instance as read

    if b"POISON" in file.read_bytes():
        ctypes.memset(8, 1, 1)
    return read(file)


class _IgnoreOSError:
    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, *_: object) -> bool:
        return kind is None or issubclass(kind, OSError)  # type: ignore[arg-type]


def _is_pipe(file: int) -> bool:
    try:
        return "pipe:" in os.readlink(f"/proc/self/fd/{file}")
    except OSError:
        return False


if __name__ == "__main__":
    # the name by which the tests, which import this file, request its functions
    module = sys.modules["tests.isolation.hostile"] = sys.modules["__main__"]
    for package in ("tests", "tests.isolation"):
        sys.modules.setdefault(package, types.ModuleType(package))
    functions = [one for one in vars(module).values() if getattr(one, "__module__", "") == "__main__"]
    names = [one.__name__ for one in functions if callable(one)]
    child.ALLOWED_FUNCTIONS |= {f"tests.isolation.hostile:{name}" for name in names}
    if "poison" in sys.argv:
        sys.argv.remove("poison")
        import gliomark.io.dicom.reader
        import gliomark.io.study_reader
        import gliomark.server.study_import

        original_functions = types.SimpleNamespace(read_study=gliomark.io.study_reader.read_study)
        gliomark.io.study_reader.read_study = read_study  # type: ignore[assignment]
        gliomark.server.study_import.read_study = read_study  # type: ignore[assignment]
        gliomark.io.dicom.reader.read_instance = read_instance
    child.main()

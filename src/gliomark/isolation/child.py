"""The reading process itself: ``python -P -m gliomark.isolation.child LIMITS``, started by ``process`` alone.

It gets questions on standard input, from the program that started it (pickled: they are trusted), and tells on standard
output how each ended; answers are files. It ends when its parent does.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, get_type_hints

from gliomark.isolation.answers import write_answer
from gliomark.isolation.limits import Limits, most_memory_bytes
from gliomark.messages import to_record
from gliomark.study import UNFORESEEN, GliomarkError

# The only functions that run here.
ALLOWED = frozenset({
    "gliomark.cohort.anonymise:clean_files",
    "gliomark.cohort.anonymise:find_files",
    "gliomark.io:read_study",
    "gliomark.io:find_patients",
    "gliomark.found_outline:outline_among",
    "gliomark.io.dicom:read_headers",
    "gliomark.io.dicom.duplicates:hash_of_image",
    "gliomark.io.dicom.repeats:hash_of_pixels",
    "gliomark.io.dicom.volume:read_series",
    "gliomark.io.masks:read_masks_on",
    "gliomark.reporting.dicom:write_dicom_results",
    "gliomark.reporting.dicom.sources:require_dicom",
    "gliomark.server.intake:asked_of",
    "gliomark.server.intake:take_in",
})  # fmt: skip
READY = ("gliomark.found_outline", "gliomark.server.intake")  # imported before the first question
IS_READY = "ready"  # told then
AT = "at"  # the file in an answer's folder that tells which file is being read
AT_BYTES = 4096
REASON = 400  # characters of a library's own words


@dataclass(frozen=True)
class Question:
    """function: ``module:name``; folder: where the answer goes; directory: that relative paths start from."""

    function: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    folder: Path
    directory: str


class _Place:
    """Which file is being read: the last that Python opened and that is not part of the program itself. That it opens
    its own files, to import them, is progress all the same."""

    def __init__(self) -> None:
        self._file, self._count, self._path = -1, 0, ""
        self._own = tuple({sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), "/proc/", "/sys/"})
        sys.addaudithook(self._heard)

    def begin(self, folder: Path) -> None:
        self._path = ""
        self._file = os.open(folder / AT, os.O_RDWR | os.O_CREAT, 0o600)

    def end(self) -> None:
        file, self._file = self._file, -1
        os.close(file)

    def _heard(self, event: str, told: tuple[Any, ...]) -> None:
        if event != "open" or self._file < 0 or not isinstance(told[0], str | os.PathLike):
            return
        path = os.fspath(told[0])
        if isinstance(path, str) and not path.startswith(self._own):
            self._path = path
        self._count += 1
        line = f"{self._count}\n{self._path}".encode(errors="surrogateescape")[:AT_BYTES]
        os.pwrite(self._file, line.ljust(AT_BYTES, b"\0"), 0)


def main() -> None:
    """Answer one question after the other until standard input ends."""
    limits = Limits(**json.loads(sys.argv[1]))
    questions, told = _take_over()
    limits.impose()
    _die_first()
    for module in READY:
        import_module(module)
    place = _Place()
    _tell(told, {"ended": IS_READY})
    for count in range(1, limits.calls + 1):
        question: Question = questions.get()
        limits.allow_time()
        outcome = _answer(question, place)
        again = count < limits.calls and most_memory_bytes() < limits.swollen_bytes
        _tell(told, outcome | {"again": again})
        if not again:
            return


def _take_over() -> tuple[queue.SimpleQueue[Question], BinaryIO]:
    """Standard input and output are kept for the parent; what a library prints goes where errors go."""
    asked, told = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    questions: queue.SimpleQueue[Question] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked, questions), daemon=True).start()
    if len(sys.argv) > 2:
        _end_with(int(sys.argv[2]))
    return questions, told


def _listen(asked: BinaryIO, questions: queue.SimpleQueue[Question]) -> None:
    while True:
        try:
            questions.put(pickle.load(asked))  # noqa: S301 - from the program that started this process
        except (EOFError, OSError):
            os._exit(0)


def _end_with(lifeline: int) -> None:
    """Have the system end this process, and all it started, when the pipe's other end closes: when the parent dies.

    Also where a library neither returns nor lets another thread run.
    """
    if sys.platform != "linux":
        return
    import fcntl

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _die_first() -> None:
    """Where the whole machine runs out of memory, this process is the one to go."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _answer(question: Question, place: _Place) -> dict[str, Any]:
    """Do what was asked; how it ended, in the parent's words (``pool``)."""
    try:
        os.chdir(question.directory)
        function = _allowed(question.function)
        place.begin(question.folder)
        try:
            value = function(*question.arguments, **question.named)
        finally:
            place.end()
        write_answer(question.folder, value, get_type_hints(function)["return"])
        return {"ended": "well"}
    except GliomarkError as error:
        return {"ended": "refused", "sentence": to_record(error.message)}
    except MemoryError:
        return {"ended": "memory"}
    except Exception as error:
        known = next((one for one in UNFORESEEN if isinstance(error, one)), RuntimeError)
        own = "" if type(error) is known else f"{type(error).__name__}: "
        return {
            "ended": "raised",
            "kind": known.__name__,
            "reason": (own + " ".join(str(error).split()))[:REASON],
        }


def _allowed(name: str) -> Callable[..., Any]:
    if name not in ALLOWED:
        raise PermissionError(name)
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found


def _tell(told: BinaryIO, outcome: dict[str, Any]) -> None:
    told.write(json.dumps(outcome).encode() + b"\n")


if __name__ == "__main__":
    main()

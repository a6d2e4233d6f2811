"""One reading process, as its parent sees it: started, asked, watched, ended with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gliomark.isolation.child import AT, AT_BYTES, IS_READY, Question
from gliomark.isolation.limits import Limits

COMMAND = (sys.executable, "-P", "-m", "gliomark.isolation.child")
LONGEST_LINE = 1 << 20
TAIL_BYTES = 2000
LOOK_S = 0.25
STARTING_S = 120.0
# one thread: a reader waits for the disk, and every further thread takes address space
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
SECRETS = ("GLIOMARK_TOKEN",)
OUT_OF_MEMORY = (b"bad_alloc", b"MemoryError", b"Cannot allocate memory", b"Failed to allocate memory")

End = Literal["well", "refused", "raised", "memory", "time", "crash", "garbled"]


@dataclass(frozen=True)
class Outcome:
    """How a question ended. told: the process's own words; status: its exit status, negative for a signal; file: the
    one that was being read, blank where that is not known."""

    ended: End
    told: dict[str, Any]
    status: int = 0
    file: str = ""


class ReadingProcess:
    """A child that answers one question at a time. Starting it does not wait until it is ready."""

    def __init__(self, limits: Limits, command: Sequence[str] = COMMAND) -> None:
        self.limits, self.is_usable = limits, True
        self._tail, self._is_ready = b"", False
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        arguments, lifelines = [*command, json.dumps(asdict(limits))], list[int]()
        self._lifeline = -1
        if os.name == "posix":
            theirs, self._lifeline = os.pipe()
            arguments.append(str(theirs))
            lifelines.append(theirs)
        kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            arguments,
            bufsize=0,
            env=kept | ENVIRONMENT,
            pass_fds=lifelines,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for one in lifelines:
            os.close(one)
        for read in (self._read_lines, self._read_tail):
            threading.Thread(target=read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, question: Question) -> Outcome:
        """How it ended; the process is gone unless ``is_usable`` still says so."""
        try:
            outcome = self._outcome(question)
        except BaseException:
            self.end()
            raise
        if not outcome.told.get("again"):
            self.end()
        return outcome

    def end(self) -> None:
        """Kill it and whatever it started."""
        if not self.is_usable:
            return
        self.is_usable = False
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _outcome(self, question: Question) -> Outcome:
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(pickle.dumps(question))
        except OSError:
            return self._died(question)
        if not self._is_ready and not self._becomes_ready():
            return self._died(question)
        started = moved = time.monotonic()
        before = b""
        while True:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=LOOK_S)
                return self._understood(line, question) if line else self._died(question)
            now, place = time.monotonic(), _place(question.folder)
            moved, before = (moved, before) if place == before else (now, place)
            if now - started > self.limits.seconds or now - moved > self.limits.stalled_s:
                return Outcome("time", {}, file=_file(place))

    def _becomes_ready(self) -> bool:
        """Wait until it has imported what it needs, which is nobody's fault however long it takes."""
        with contextlib.suppress(queue.Empty, ValueError, TypeError, KeyError):
            self._is_ready = json.loads(self._lines.get(timeout=STARTING_S))["ended"] == IS_READY
        return self._is_ready

    def _understood(self, line: bytes, question: Question) -> Outcome:
        file = _file(_place(question.folder))
        try:
            told = json.loads(line)
            if told["ended"] in ("well", "refused", "raised", "memory"):
                return Outcome(told["ended"], told, file=file)
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        return Outcome("garbled", {}, file=file)

    def _died(self, question: Question) -> Outcome:
        """Why a process ended by itself, or closed its pipe; it is killed where it lives on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        status, file = self._process.poll(), _file(_place(question.folder))
        if status == -getattr(signal, "SIGXCPU", 0):
            return Outcome("time", {}, file=file)
        is_memory = any(words in self._tail for words in OUT_OF_MEMORY)
        return Outcome("memory" if is_memory else "crash", {}, status or 0, file)

    def _read_lines(self) -> None:
        """What the process tells, line by line; an empty one at its end."""
        pipe, rest = self._process.stdout, b""
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):
            while len(rest) < LONGEST_LINE and (piece := pipe.read(1 << 16)):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    self._lines.put(line or b"?")
        self._lines.put(b"?" if len(rest) >= LONGEST_LINE else b"")  # a line without end is no answer either
        pipe.close()

    def _read_tail(self) -> None:
        """The last of what it and its libraries print."""
        pipe = self._process.stderr
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):
            while piece := pipe.read(1 << 16):
                self._tail = (self._tail + piece)[-TAIL_BYTES:]
        pipe.close()


def _place(folder: Path) -> bytes:
    """What the process wrote about its place, which changes with every file; nothing where it wrote none."""
    try:
        with (folder / AT).open("rb") as file:
            return file.read(AT_BYTES)
    except OSError:
        return b""


def _file(place: bytes) -> str:
    """The file's path; made harmless, as nobody knows who wrote it."""
    path = place.partition(b"\n")[2].rstrip(b"\0").decode(errors="replace")
    return "".join(sign if sign.isprintable() else "?" for sign in path)

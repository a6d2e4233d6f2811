"""The parent's side of one reader process: start it, send requests, watch it, and kill it with its children."""

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

from gliomark.isolation.child import PROGRESS_BYTES, PROGRESS_FILE, READY_REPLY, ReadRequest
from gliomark.isolation.reader_limits import ReaderLimits

READER_COMMAND = (sys.executable, "-P", "-m", "gliomark.isolation.child")
MAX_LINE_BYTES = 1 << 20
STDERR_TAIL_BYTES = 2000
POLL_INTERVAL_S = 0.25
STARTUP_TIMEOUT_S = 120.0
# one thread: readers mostly wait for the disk, and each thread needs address space
CHILD_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
SECRET_VARIABLES = ("GLIOMARK_TOKEN",)
OUT_OF_MEMORY_TEXTS = (b"bad_alloc", b"MemoryError", b"Cannot allocate memory", b"Failed to allocate memory")

ReadOutcomeKind = Literal["well", "refused", "raised", "memory", "time", "crash", "garbled"]


@dataclass(frozen=True)
class ReadOutcome:
    """The outcome of a request.

    Attributes
    ----------
    kind
        How it ended.
    reply
        The reply of the process; empty if there was none.
    exit_status
        Its exit status; negative for a signal.
    file
        The file being read; empty if unknown.
    """

    kind: ReadOutcomeKind
    reply: dict[str, Any]
    exit_status: int = 0
    file: str = ""


class ReaderProcess:
    """A child process that runs one request at a time. Creating it does not wait until it is ready."""

    def __init__(self, limits: ReaderLimits, command: Sequence[str] = READER_COMMAND) -> None:
        self.limits, self.is_usable = limits, True
        self._stderr_tail, self._is_ready = b"", False
        self._stdout_lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        arguments, lifelines = [*command, json.dumps(asdict(limits))], list[int]()
        self._lifeline = -1
        if os.name == "posix":
            child_end, self._lifeline = os.pipe()
            arguments.append(str(child_end))
            lifelines.append(child_end)
        environment = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            arguments,
            bufsize=0,
            env=environment | CHILD_ENVIRONMENT,
            pass_fds=lifelines,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for one in lifelines:
            os.close(one)
        for target in (self._read_stdout_lines, self._read_stderr_tail):
            threading.Thread(target=target, daemon=True).start()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def run_request(self, request: ReadRequest) -> ReadOutcome:
        """Run a request and return its outcome; afterwards ``is_usable`` shows whether the process still runs."""
        try:
            outcome = self._wait_for_outcome(request)
        except BaseException:
            self.kill()
            raise
        if not outcome.reply.get("again"):
            self.kill()
        return outcome

    def kill(self) -> None:
        """Kill the process and all processes that it started."""
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

    def _wait_for_outcome(self, request: ReadRequest) -> ReadOutcome:
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(pickle.dumps(request))
        except OSError:
            return self._diagnose_exit(request)
        if not self._is_ready and not self._wait_until_ready():
            return self._diagnose_exit(request)
        started_at = progressed_at = time.monotonic()
        previous_progress = b""
        while True:
            with contextlib.suppress(queue.Empty):
                line = self._stdout_lines.get(timeout=POLL_INTERVAL_S)
                return self._parse_reply(line, request) if line else self._diagnose_exit(request)
            now, progress = time.monotonic(), _read_progress(request.result_folder)
            progressed_at, previous_progress = (
                (progressed_at, previous_progress) if progress == previous_progress else (now, progress)
            )
            if now - started_at > self.limits.timeout_s or now - progressed_at > self.limits.stall_timeout_s:
                return ReadOutcome("time", {}, file=_parse_progress_path(progress))

    def _wait_until_ready(self) -> bool:
        """Wait for the start-up imports; this time does not count against the limits."""
        with contextlib.suppress(queue.Empty, ValueError, TypeError, KeyError):
            self._is_ready = (
                json.loads(self._stdout_lines.get(timeout=STARTUP_TIMEOUT_S))["ended"] == READY_REPLY
            )
        return self._is_ready

    def _parse_reply(self, line: bytes, request: ReadRequest) -> ReadOutcome:
        file = _parse_progress_path(_read_progress(request.result_folder))
        try:
            reply = json.loads(line)
            if reply["ended"] in ("well", "refused", "raised", "memory"):
                return ReadOutcome(reply["ended"], reply, file=file)
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        return ReadOutcome("garbled", {}, file=file)

    def _diagnose_exit(self, request: ReadRequest) -> ReadOutcome:
        """Determine why a process exited or closed its pipe; the caller kills it if it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        status, file = self._process.poll(), _parse_progress_path(_read_progress(request.result_folder))
        if status == -getattr(signal, "SIGXCPU", 0):
            return ReadOutcome("time", {}, file=file)
        is_out_of_memory = any(text in self._stderr_tail for text in OUT_OF_MEMORY_TEXTS)
        return ReadOutcome("memory" if is_out_of_memory else "crash", {}, status or 0, file)

    def _read_stdout_lines(self) -> None:
        """Read the replies of the process line by line; an empty line marks the end."""
        pipe, remainder = self._process.stdout, b""
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):
            while len(remainder) < MAX_LINE_BYTES and (chunk := pipe.read(1 << 16)):
                *lines, remainder = (remainder + chunk).split(b"\n")
                for line in lines:
                    self._stdout_lines.put(line or b"?")
        self._stdout_lines.put(
            b"?" if len(remainder) >= MAX_LINE_BYTES else b""
        )  # a line without an end is not a valid reply
        pipe.close()

    def _read_stderr_tail(self) -> None:
        """Read standard error and keep its last part."""
        pipe = self._process.stderr
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):
            while chunk := pipe.read(1 << 16):
                self._stderr_tail = (self._stderr_tail + chunk)[-STDERR_TAIL_BYTES:]
        pipe.close()


def _read_progress(result_folder: Path) -> bytes:
    """Read the progress record, which changes with every opened file; empty if there is none."""
    try:
        with (result_folder / PROGRESS_FILE).open("rb") as file:
            return file.read(PROGRESS_BYTES)
    except OSError:
        return b""


def _parse_progress_path(progress: bytes) -> str:
    """Parse the file's path; unprintable characters are replaced, because the record is not trusted."""
    path = progress.partition(b"\n")[2].rstrip(b"\0").decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in path)

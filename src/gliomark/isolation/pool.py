"""Several reading processes, used in turn; where the answer of one goes, and what is said where there is none."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from gliomark.isolation.answers import read_result
from gliomark.isolation.child import ReadRequest
from gliomark.isolation.folders import ResultFolders
from gliomark.isolation.limits import ReaderLimits
from gliomark.isolation.process import READER_COMMAND, ReaderProcess, ReadOutcome
from gliomark.isolation.reads import ReaderProcessError
from gliomark.messages import Message, from_message_record, message
from gliomark.study import DATA_ERRORS, GliomarkError

P = ParamSpec("P")
T = TypeVar("T")
LOG = logging.getLogger("gliomark.isolation")

MAX_ATTEMPTS = 2  # of what ended its process: the first may have been the machine's fault
ERRORS_BY_NAME = {one.__name__: one for one in DATA_ERRORS}


class ReaderPool:
    """At most ``count`` processes, started when they are needed, the first by ``start``; a context manager that ends
    them. command: what is started."""

    def __init__(
        self,
        process_count: int = 1,
        limits: ReaderLimits | None = None,
        command: Sequence[str] = READER_COMMAND,
    ) -> None:
        self.limits, self.command = limits or ReaderLimits.from_environment(), command
        self._slots, self._lock = threading.Semaphore(process_count), threading.Lock()
        self._idle_processes: list[ReaderProcess] = []
        self._result_folders = ResultFolders()

    def __enter__(self) -> ReaderPool:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Have a process ready; it gets ready while the caller does something else."""
        with self._lock:
            if not self._idle_processes:
                self._idle_processes.append(ReaderProcess(self.limits, self.command))

    def close(self) -> None:
        """End those that wait for work, and remove what they wrote."""
        with self._lock:
            idle, self._idle_processes = self._idle_processes, []
        for one in idle:
            one.kill()
        self._result_folders.close()

    def __call__(self, source_path: Path, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function`` of these arguments, done in a reading process; its answer, of the type it is annotated with.

        subject: the patient's folder or file, for the sentence where reading ends the process.

        Raises
        ------
        ReadingEndedError
            Where it crashed twice, took too much memory or too long, or its answer is not of that type.
        GliomarkError, or one of ``UNFORESEEN``
            As the function raised it.
        """
        result_type = get_type_hints(function)["return"]
        function_name = f"{function.__module__}:{function.__qualname__}"
        with self._slots:
            for _ in range(MAX_ATTEMPTS):
                with self._result_folders.create_folder() as folder:
                    outcome = self._send_request(
                        ReadRequest(function_name, args, kwargs, folder, os.getcwd())
                    )
                    if outcome.kind == "well":
                        return self._read_result(result_type, folder, source_path, outcome)
                if outcome.kind != "crash":
                    break
            raise self._create_error(outcome, source_path)

    def _send_request(self, request: ReadRequest) -> ReadOutcome:
        with self._lock:
            process = (
                self._idle_processes.pop()
                if self._idle_processes
                else ReaderProcess(self.limits, self.command)
            )
        outcome = process.run_request(request)
        if process.is_usable:
            with self._lock:
                self._idle_processes.append(process)
        else:
            self.start()  # a fresh one, ready when the next patient comes
        return outcome

    def _read_result(self, result_type: Any, folder: Path, source_path: Path, outcome: ReadOutcome) -> Any:
        size = sum(file.lstat().st_size for file in folder.iterdir())
        try:
            if size > self.limits.max_result_bytes:
                raise GliomarkError("longer than allowed")
            return read_result(folder, result_type)
        except GliomarkError as error:
            LOG.error("an answer was not understood: %s", error)
            raise self._create_error(ReadOutcome("garbled", {}, file=outcome.file), source_path) from None

    def _create_error(self, outcome: ReadOutcome, source_path: Path) -> Exception:
        """What is raised for an outcome that is no answer."""
        reply = outcome.reply
        if outcome.kind == "refused":
            return GliomarkError(from_message_record(reply["sentence"]))
        if outcome.kind == "raised":
            return ERRORS_BY_NAME.get(str(reply.get("kind")), RuntimeError)(str(reply.get("reason")))
        parameters = {"subject": source_path, "file": _describe_file(source_path, outcome.file)}
        if outcome.kind == "memory":
            error_message = message(
                "reading-memory", **parameters, gigabytes=self.limits.max_memory_bytes / 1e9
            )
        elif outcome.kind == "time":
            error_message = message("reading-slow", **parameters)
        else:
            cause = (
                message("reading-ended-garbled")
                if outcome.kind == "garbled"
                else _describe_exit_status(outcome.exit_status)
            )
            error_message = message("reading-crashed", **parameters, how=cause)
        return ReaderProcessError(error_message, outcome.file)


def _describe_file(source_path: Path, file: str) -> str | Path:
    """The file as its patient's folder names it, or that none is known."""
    if not file:
        return message("reading-no-file")
    try:
        return Path(file).relative_to(source_path)
    except ValueError:
        return Path(file).name


def _describe_exit_status(status: int) -> Message:
    if status >= 0:
        return message("reading-ended-status", status=status)
    return message("reading-ended-signal", signal=-status)

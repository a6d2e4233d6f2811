"""A pool of reader processes: runs functions, reads their results, and creates the errors if there is none."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar, get_type_hints

from gliomark.errors import DATA_ERRORS, ERROR_KINDS, GliomarkError, InputError
from gliomark.isolation.child import ReadRequest
from gliomark.isolation.executor import ReaderProcessError
from gliomark.isolation.reader_limits import ReaderLimits
from gliomark.isolation.reader_process import READER_COMMAND, ReaderProcess, ReadOutcome
from gliomark.isolation.result_files import read_result
from gliomark.isolation.result_folders import ResultFolders
from gliomark.messages import Message, from_message_record, message

P = ParamSpec("P")
T = TypeVar("T")
LOG = logging.getLogger("gliomark.isolation")

MAX_ATTEMPTS = 2  # after a crash: the first may have had another cause than the file
ERRORS_BY_NAME = {one.__name__: one for one in DATA_ERRORS}


class ReaderPool:
    """At most ``process_count`` reader processes, started on demand; a context manager that kills them at exit.

    Parameters
    ----------
    process_count
        Maximum number of processes that run at the same time.
    limits
        Limits of each process; by default from environment variables.
    command
        Command that starts a reader process.
    """

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
        """Start one process in advance; the caller does not wait until it is ready."""
        with self._lock:
            if not self._idle_processes:
                self._idle_processes.append(ReaderProcess(self.limits, self.command))

    def close(self) -> None:
        """Kill idle processes and remove the result folders."""
        with self._lock:
            idle, self._idle_processes = self._idle_processes, []
        for one in idle:
            one.kill()
        self._result_folders.close()

    def __call__(self, source_path: Path, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` with these arguments in a reader process, and return its result.

        Parameters
        ----------
        source_path
            The patient's folder or file, for messages.
        function
            One of ``ALLOWED_FUNCTIONS``; its result must have the annotated type.
        *args, **kwargs
            Arguments of the function.

        Raises
        ------
        ReaderProcessError
            If it crashed twice or exceeded the memory or time limit, or its result does not have that type.
        GliomarkError, or one of ``DATA_ERRORS``
            As raised by the function.
        """
        result_type: type[T] = get_type_hints(function)["return"]
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
            self.start()  # a replacement, ready for the next patient
        return outcome

    def _read_result(self, result_type: type[T], folder: Path, source_path: Path, outcome: ReadOutcome) -> T:
        size = sum(file.lstat().st_size for file in folder.iterdir())
        try:
            if size > self.limits.max_result_bytes:
                raise InputError("larger than allowed")
            return read_result(folder, result_type)
        except GliomarkError as error:
            LOG.error("invalid result of a reader process: %s", error)
            raise self._create_error(ReadOutcome("garbled", {}, file=outcome.file), source_path) from None

    def _create_error(self, outcome: ReadOutcome, source_path: Path) -> Exception:
        """Create the error for an outcome without a result."""
        reply = outcome.reply
        if outcome.kind == "refused":
            kind = ERROR_KINDS.get(str(reply.get("kind")), InputError)
            return kind(from_message_record(reply["sentence"]))
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
    """Describe the file relative to the patient's folder, or that it is unknown."""
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

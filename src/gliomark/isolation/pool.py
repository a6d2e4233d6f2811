"""Several reading processes, used in turn; where the answer of one goes, and what is said where there is none."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from gliomark.isolation.answers import read_answer
from gliomark.isolation.child import Question
from gliomark.isolation.folders import AnswerFolders
from gliomark.isolation.limits import Limits
from gliomark.isolation.process import COMMAND, Outcome, ReadingProcess
from gliomark.isolation.reads import ReadingEndedError
from gliomark.messages import Message, from_record, message
from gliomark.study import UNFORESEEN, GliomarkError

P = ParamSpec("P")
T = TypeVar("T")
LOG = logging.getLogger("gliomark.isolation")

TRIES = 2  # of what ended its process: the first may have been the machine's fault
RAISED = {one.__name__: one for one in UNFORESEEN}


class ReadingProcesses:
    """At most ``count`` processes, started when they are needed, the first by ``start``; a context manager that ends
    them. command: what is started."""

    def __init__(
        self, count: int = 1, limits: Limits | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        self.limits, self.command = limits or Limits.from_environment(), command
        self._places, self._lock = threading.Semaphore(count), threading.Lock()
        self._idle: list[ReadingProcess] = []
        self._folders = AnswerFolders()

    def __enter__(self) -> ReadingProcesses:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Have a process ready; it gets ready while the caller does something else."""
        with self._lock:
            if not self._idle:
                self._idle.append(ReadingProcess(self.limits, self.command))

    def close(self) -> None:
        """End those that wait for work, and remove what they wrote."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            one.end()
        self._folders.close()

    def __call__(self, subject: Path, function: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """``function`` of these arguments, done in a reading process; its answer, of the type it is annotated with.

        subject: the patient's folder or file, for the sentence where reading ends the process.

        Raises
        ------
        ReadingEndedError
            Where it crashed twice, took too much memory or too long, or its answer is not of that type.
        GliomarkError, or one of ``UNFORESEEN``
            As the function raised it.
        """
        kind = get_type_hints(function)["return"]
        name = f"{function.__module__}:{function.__qualname__}"
        with self._places:
            for _ in range(TRIES):
                with self._folders.one() as folder:
                    outcome = self._asked(Question(name, given, named, folder, os.getcwd()))
                    if outcome.ended == "well":
                        return self._answer(kind, folder, subject, outcome)
                if outcome.ended != "crash":
                    break
            raise self._error(outcome, subject)

    def _asked(self, question: Question) -> Outcome:
        with self._lock:
            process = self._idle.pop() if self._idle else ReadingProcess(self.limits, self.command)
        outcome = process.ask(question)
        if process.is_usable:
            with self._lock:
                self._idle.append(process)
        else:
            self.start()  # a fresh one, ready when the next patient comes
        return outcome

    def _answer(self, kind: Any, folder: Path, subject: Path, outcome: Outcome) -> Any:
        size = sum(file.lstat().st_size for file in folder.iterdir())
        try:
            if size > self.limits.answer_bytes:
                raise GliomarkError("longer than allowed")
            return read_answer(folder, kind)
        except GliomarkError as error:
            LOG.error("an answer was not understood: %s", error)
            raise self._error(Outcome("garbled", {}, file=outcome.file), subject) from None

    def _error(self, outcome: Outcome, subject: Path) -> Exception:
        """What is raised for an outcome that is no answer."""
        told = outcome.told
        if outcome.ended == "refused":
            return GliomarkError(from_record(told["sentence"]))
        if outcome.ended == "raised":
            return RAISED.get(str(told.get("kind")), RuntimeError)(str(told.get("reason")))
        where = {"subject": subject, "file": _within(subject, outcome.file)}
        if outcome.ended == "memory":
            sentence = message("reading-memory", **where, gigabytes=self.limits.memory_bytes / 1e9)
        elif outcome.ended == "time":
            sentence = message("reading-slow", **where)
        else:
            how = message("reading-ended-garbled") if outcome.ended == "garbled" else _how(outcome.status)
            sentence = message("reading-crashed", **where, how=how)
        return ReadingEndedError(sentence, outcome.file)


def _within(subject: Path, file: str) -> str | Path:
    """The file as its patient's folder names it, or that none is known."""
    if not file:
        return message("reading-no-file")
    try:
        return Path(file).relative_to(subject)
    except ValueError:
        return Path(file).name


def _how(status: int) -> Message:
    if status >= 0:
        return message("reading-ended-status", status=status)
    return message("reading-ended-signal", signal=-status)

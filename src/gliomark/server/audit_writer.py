"""Views and refusals on their way into the audit log: no call waits for the database, and no line is dropped silently.

One thread writes what has come, many lines in one transaction. The queue is bounded: where the database does not
answer for so long that it is full, what would have to be recorded is not answered either.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, Full, Queue
from typing import Any

from gliomark.server.records import AuditEntry, Database

LOG = logging.getLogger("gliomark.server")
MAX_QUEUED_LINES = 10_000  # lines
MAX_BATCH_LINES = 500
POLL_INTERVAL_S = 1.0
RETRY_PAUSE_S = 0.5  # before a database that did not answer is asked again
STOP_TIMEOUT_S = 10.0  # for the last lines when the server stops
MAX_REFUSAL_KINDS = 20  # of refusals told apart in one minute
MAX_REMEMBERED_VIEWS = 100_000  # views remembered, so that each is recorded once an hour
MAX_TEXT_LENGTH = 200  # characters
OTHER_CALLERS = "others"


@dataclass(frozen=True)
class Refusal:
    """A call or an association that was refused. address: of who asked; who: where that is known."""

    action: str
    address: str
    reason: str
    who: str = "unknown"
    subject: str = ""


class AuditWriter:
    """Started by ``start``; ``stop`` returns once everything is written. What comes while it is stopped is written
    at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: Queue[AuditEntry] = Queue(MAX_QUEUED_LINES)
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._seen_views: set[str] = set()
        self._current_hour = ""
        self._current_minute = 0
        self._stop_deadline = 0.0  # of writing, once the server stops and the database does not answer
        self._repeat_counts: dict[Refusal, int] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run_writer, daemon=True, name="audit writer")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            with self._lock:
                self._thread = None
                while batch := self._take_batch():
                    self._write_batch(batch)

    def record_view(
        self, who: str, action: str, subject: str, detail: Mapping[str, Any], every_time: bool = False
    ) -> bool:
        """Somebody saw something: recorded once per person, action, subject and hour, or each time.

        False where it could not be taken, and must not be shown.
        """
        now = datetime.now(UTC)
        key = json.dumps([who, action, subject, detail], sort_keys=True)
        with self._lock:
            if (
                self._current_hour != (hour := f"{now:%Y-%m-%d %H}")
                or len(self._seen_views) > MAX_REMEMBERED_VIEWS
            ):
                self._current_hour, self._seen_views = hour, set()
            if key in self._seen_views and not every_time:
                return True
            if not self._enqueue_entry(AuditEntry(who, action, subject, detail, now)):
                return False
            self._seen_views.add(key)
        return True

    def record_refusal(self, refusal: Refusal) -> None:
        """Somebody was refused: the first time in a minute is recorded at once, the rest of the minute as a number, so
        that whoever tries for hours adds two lines a minute."""
        with self._lock:
            self._record_repeated_refusals()
            if refusal not in self._repeat_counts and len(self._repeat_counts) >= MAX_REFUSAL_KINDS:
                refusal = Refusal(refusal.action, OTHER_CALLERS, OTHER_CALLERS, OTHER_CALLERS)
            if refusal in self._repeat_counts:
                self._repeat_counts[refusal] += 1
            else:
                self._repeat_counts[refusal] = 0 if self._enqueue_entry(_create_entry(refusal, 1)) else 1

    def _record_repeated_refusals(self, is_forced: bool = False) -> None:
        """Record how often what was refused in the last minute was refused again; the lock is held."""
        if self._current_minute == (minute := int(time.time() // 60)) and not is_forced:
            return
        self._current_minute = minute
        for refusal, count in list(self._repeat_counts.items()):
            if not count or self._enqueue_entry(_create_entry(refusal, count)):
                del self._repeat_counts[refusal]

    def _enqueue_entry(self, entry: AuditEntry) -> bool:
        if self._thread is None:
            self._database.add_audit_entries([entry])
            return True
        try:
            self._queue.put_nowait(entry)
        except Full:
            return False
        return True

    def _run_writer(self) -> None:
        while not self._stopping.is_set():
            self._write_batch(self._take_batch())
            with self._lock:
                self._record_repeated_refusals()
        with self._lock:
            self._record_repeated_refusals(is_forced=True)

    def _take_batch(self) -> list[AuditEntry]:
        """What has come, at most so many; nothing after a while in which nothing came."""
        batch: list[AuditEntry] = []
        try:
            batch.append(self._queue.get(timeout=0.0 if self._stopping.is_set() else POLL_INTERVAL_S))
            while len(batch) < MAX_BATCH_LINES:
                batch.append(self._queue.get_nowait())
        except Empty:
            pass
        return batch

    def _write_batch(self, batch: list[AuditEntry]) -> None:
        """Until the database has it; when the server stops, until the last seconds are over."""
        last_error = ""
        while batch:
            try:
                self._database.add_audit_entries(batch)
                return
            except Exception as error:  # whatever it was, this thread must not end
                if last_error != type(error).__name__:
                    last_error = type(error).__name__
                    LOG.error("the audit log waits for the database: %s", last_error)
            if not self._stopping.wait(RETRY_PAUSE_S):
                continue
            self._stop_deadline = self._stop_deadline or time.monotonic() + STOP_TIMEOUT_S
            if time.monotonic() > self._stop_deadline:
                LOG.error("%d lines of the audit log are lost: the database did not answer", len(batch))
                return
            time.sleep(RETRY_PAUSE_S)


def _create_entry(refusal: Refusal, count: int) -> AuditEntry:
    detail = {"address": refusal.address, "reason": refusal.reason, "count": count}
    sanitized = {
        name: _sanitize_text(value) if isinstance(value, str) else value for name, value in detail.items()
    }
    return AuditEntry(
        _sanitize_text(refusal.who),
        refusal.action,
        _sanitize_text(refusal.subject),
        sanitized,
        datetime.now(UTC),
    )


def _sanitize_text(text: str) -> str:
    """What a stranger calls himself, as any database takes it."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_TEXT_LENGTH])

"""Write views and refusals to the audit log in the background, so that no request waits for the database.

One thread writes the queued lines, many in one transaction. The queue is bounded: when the database has been
unavailable for so long that the queue is full, requests that must be recorded are refused.
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

from gliomark.server.database import AuditEntry, Database

LOG = logging.getLogger("gliomark.server")
MAX_QUEUED_LINES = 10_000  # lines in the queue
MAX_BATCH_LINES = 500
POLL_INTERVAL_S = 1.0
RETRY_PAUSE_S = 0.5  # between two attempts to reach the database
STOP_TIMEOUT_S = 10.0  # for the last lines when the server stops
MAX_REFUSAL_KINDS = 20  # different refusals counted separately in one minute
MAX_REMEMBERED_VIEWS = 100_000  # views remembered in order to record each once an hour
MAX_TEXT_LENGTH = 200  # characters of a text from a caller
OTHER_CALLERS = "others"


@dataclass(frozen=True)
class Refusal:
    """A refused request or association.

    Attributes
    ----------
    address
        Network address of the caller.
    who
        Name of the caller, if known.
    """

    action: str
    address: str
    reason: str
    who: str = "unknown"
    subject: str = ""


class AuditWriter:
    """Background writer of the audit log; while it is not running, lines are written directly."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: Queue[AuditEntry] = Queue(MAX_QUEUED_LINES)
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._seen_views: set[str] = set()
        self._current_hour = ""
        self._current_minute = 0
        # deadline for the last lines if the database is unavailable when the server stops
        self._stop_deadline = 0.0
        self._repeat_counts: dict[Refusal, int] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run_writer, daemon=True, name="audit writer")
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after writing all queued lines."""
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
        """Record a view once per caller, action, subject and hour, or every time.

        Returns
        -------
        bool
            False if the queue is full; the data must not be shown then.
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
        """Record a refusal at once, and its repetitions within the same minute as one count.

        Repeated attempts thus add at most two lines a minute.
        """
        with self._lock:
            self._record_repeated_refusals()
            if refusal not in self._repeat_counts and len(self._repeat_counts) >= MAX_REFUSAL_KINDS:
                refusal = Refusal(refusal.action, OTHER_CALLERS, OTHER_CALLERS, OTHER_CALLERS)
            if refusal in self._repeat_counts:
                self._repeat_counts[refusal] += 1
            else:
                self._repeat_counts[refusal] = 0 if self._enqueue_entry(_create_entry(refusal, 1)) else 1

    def _record_repeated_refusals(self, is_forced: bool = False) -> None:
        """Record how often the refusals of the last minute were repeated. The caller holds the lock."""
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
        """Return the queued lines, up to the batch limit; empty if none arrives within the poll interval."""
        batch: list[AuditEntry] = []
        try:
            batch.append(self._queue.get(timeout=0.0 if self._stopping.is_set() else POLL_INTERVAL_S))
            while len(batch) < MAX_BATCH_LINES:
                batch.append(self._queue.get_nowait())
        except Empty:
            pass
        return batch

    def _write_batch(self, batch: list[AuditEntry]) -> None:
        """Retry until the lines are written; while the server is stopping, until the stop timeout."""
        last_error = ""
        while batch:
            try:
                self._database.add_audit_entries(batch)
                return
            except Exception as error:  # the thread must survive any error
                if last_error != type(error).__name__:
                    last_error = type(error).__name__
                    LOG.error("audit log waits for the database: %s", last_error)
            if not self._stopping.wait(RETRY_PAUSE_S):
                continue
            self._stop_deadline = self._stop_deadline or time.monotonic() + STOP_TIMEOUT_S
            if time.monotonic() > self._stop_deadline:
                LOG.error("%d lines of the audit log are lost: the database was unavailable", len(batch))
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
    """Shorten a text from a caller and replace unprintable characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:MAX_TEXT_LENGTH])

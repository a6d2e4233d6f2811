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

from gliomark.server.records import Entry, Records

LOG = logging.getLogger("gliomark.server")
WAITING = 10_000  # lines
BATCH = 500
TICK_S = 1.0
PAUSE_S = 0.5  # before a database that did not answer is asked again
LAST_S = 10.0  # for the last lines when the server stops
MOST_KINDS = 20  # of refusals told apart in one minute
MOST_SEEN = 100_000  # views remembered, so that each is recorded once an hour
LONGEST = 200  # characters
OTHERS = "others"


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

    def __init__(self, records: Records) -> None:
        self._records = records
        self._queue: Queue[Entry] = Queue(WAITING)
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._seen: set[str] = set()
        self._hour = ""
        self._minute = 0
        self._ends = 0.0  # of writing, once the server stops and the database does not answer
        self._again: dict[Refusal, int] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True, name="audit writer")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            with self._lock:
                self._thread = None
                while batch := self._batch():
                    self._write(batch)

    def view(
        self, who: str, action: str, subject: str, detail: Mapping[str, Any], each: bool = False
    ) -> bool:
        """Somebody saw something: recorded once per person, action, subject and hour, or each time.

        False where it could not be taken, and must not be shown.
        """
        now = datetime.now(UTC)
        key = json.dumps([who, action, subject, detail], sort_keys=True)
        with self._lock:
            if self._hour != (hour := f"{now:%Y-%m-%d %H}") or len(self._seen) > MOST_SEEN:
                self._hour, self._seen = hour, set()
            if key in self._seen and not each:
                return True
            if not self._put(Entry(who, action, subject, detail, now)):
                return False
            self._seen.add(key)
        return True

    def refuse(self, refusal: Refusal) -> None:
        """Somebody was refused: the first time in a minute is recorded at once, the rest of the minute as a number, so
        that whoever tries for hours adds two lines a minute."""
        with self._lock:
            self._tell_repeated()
            if refusal not in self._again and len(self._again) >= MOST_KINDS:
                refusal = Refusal(refusal.action, OTHERS, OTHERS, OTHERS)
            if refusal in self._again:
                self._again[refusal] += 1
            else:
                self._again[refusal] = 0 if self._put(_entry(refusal, 1)) else 1

    def _tell_repeated(self, at_once: bool = False) -> None:
        """Record how often what was refused in the last minute was refused again; the lock is held."""
        if self._minute == (minute := int(time.time() // 60)) and not at_once:
            return
        self._minute = minute
        for refusal, count in list(self._again.items()):
            if not count or self._put(_entry(refusal, count)):
                del self._again[refusal]

    def _put(self, entry: Entry) -> bool:
        if self._thread is None:
            self._records.log_all([entry])
            return True
        try:
            self._queue.put_nowait(entry)
        except Full:
            return False
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._write(self._batch())
            with self._lock:
                self._tell_repeated()
        with self._lock:
            self._tell_repeated(at_once=True)

    def _batch(self) -> list[Entry]:
        """What has come, at most so many; nothing after a while in which nothing came."""
        batch: list[Entry] = []
        try:
            batch.append(self._queue.get(timeout=0.0 if self._stopping.is_set() else TICK_S))
            while len(batch) < BATCH:
                batch.append(self._queue.get_nowait())
        except Empty:
            pass
        return batch

    def _write(self, batch: list[Entry]) -> None:
        """Until the database has it; when the server stops, until the last seconds are over."""
        failed = ""
        while batch:
            try:
                self._records.log_all(batch)
                return
            except Exception as error:  # whatever it was, this thread must not end
                if failed != type(error).__name__:
                    failed = type(error).__name__
                    LOG.error("the audit log waits for the database: %s", failed)
            if not self._stopping.wait(PAUSE_S):
                continue
            self._ends = self._ends or time.monotonic() + LAST_S
            if time.monotonic() > self._ends:
                LOG.error("%d lines of the audit log are lost: the database did not answer", len(batch))
                return
            time.sleep(PAUSE_S)


def _entry(refusal: Refusal, count: int) -> Entry:
    told = {"address": refusal.address, "reason": refusal.reason, "count": count}
    plain = {name: _plain(value) if isinstance(value, str) else value for name, value in told.items()}
    return Entry(_plain(refusal.who), refusal.action, _plain(refusal.subject), plain, datetime.now(UTC))


def _plain(text: str) -> str:
    """What a stranger calls himself, as any database takes it."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:LONGEST])

"""Server-sent events: send a document whenever it changes, until it is final.

One task reads all followed rows from the database together, so that open streams hold no thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from anyio import to_thread
from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Receive, Scope, Send

from gliomark.messages import message
from gliomark.server.body_limits import RequestLimits
from gliomark.server.database import FINAL_STATES, Database, JobRow, StudyRow, WatchedTable

LOG = logging.getLogger("gliomark.server")
POLL_INTERVAL_S = 0.15  # between two reads of the database
KEEPALIVE_INTERVAL_S = 15.0  # between two comments that keep the connection open
Row = TypeVar("Row", StudyRow, JobRow)


class RowWatcher:
    """Reads the followed rows for all open streams. Used only in the event loop."""

    def __init__(self, database: Database, limits: RequestLimits) -> None:
        self.limits = limits
        self._database = database
        self._streams_by_caller: Counter[str] = Counter()
        self._followers_by_row: Counter[tuple[WatchedTable, str]] = Counter()
        self._rows: dict[tuple[WatchedTable, str], StudyRow | JobRow | None] = {}
        self._next_read = asyncio.Event()
        self._poll_task: asyncio.Task[None] | None = None

    @contextmanager
    def acquire_slot(self, caller_name: str) -> Iterator[None]:
        """Hold a slot for one stream of a caller.

        Raises
        ------
        HTTPException
            503 if this caller, or all together, have too many streams.
        """
        if (
            self._streams_by_caller[caller_name] >= self.limits.max_streams_per_caller
            or self._streams_by_caller.total() >= self.limits.max_streams
        ):
            raise HTTPException(503, message("streams-too-many"), headers={"Retry-After": "10"})
        self._streams_by_caller[caller_name] += 1
        try:
            yield
        finally:
            self._streams_by_caller -= Counter({caller_name: 1})

    async def follow_row(self, table: type[Row], row_id: str) -> AsyncIterator[Row | None]:
        """Yield the row after every read of the database; None, the last item, if it does not exist any more."""
        key = (table, row_id)
        self._followers_by_row[key] += 1
        if self._poll_task is None or self._poll_task.done():
            self._poll_task = asyncio.create_task(self._poll_rows())
        try:
            while True:
                await self._next_read.wait()
                if key not in self._rows:  # it was added after the read had started
                    continue
                row = self._rows[key]
                yield row  # type: ignore[misc]
                if row is None:
                    return
        finally:
            self._followers_by_row -= Counter({key: 1})

    async def wait_for_job(self, job_id: str) -> JobRow | None:
        """Return a job once it has ended; None if it does not exist."""
        async for row in self.follow_row(JobRow, job_id):
            if row is None or row.state in FINAL_STATES:
                return row
        return None

    async def _poll_rows(self) -> None:
        """Read all followed rows repeatedly while there are any."""
        while self._followers_by_row:
            keys = list(self._followers_by_row)
            try:
                rows = await to_thread.run_sync(self._database.find_rows, keys)
            except SQLAlchemyError as error:
                LOG.error("database unavailable: %s", type(error).__name__)
            else:
                self._rows = dict.fromkeys(keys) | rows
                finished_read, self._next_read = self._next_read, asyncio.Event()
                finished_read.set()
            await asyncio.sleep(POLL_INTERVAL_S)


class EventStreamResponse(StreamingResponse):
    """An event stream that holds its slot while it is open."""

    def __init__(self, lines: AsyncIterator[str], slot: AbstractContextManager[None]) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._slot = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._slot:
            await super().__call__(scope, receive, send)


def create_event_stream(
    row_watcher: RowWatcher,
    caller_name: str,
    table: type[Row],
    row_id: str,
    create_response: Callable[[Row], BaseModel],
    is_over: Callable[[Row], bool],
) -> EventStreamResponse:
    """Stream ``create_response(row)`` at every change until the row is final.

    The stream also ends when the caller disconnects or the maximum duration is over.

    Raises
    ------
    HTTPException
        503 when the stream is opened, if there are too many.
    """

    async def iterate_events() -> AsyncIterator[str]:
        deadline, last_state, last_sent_at = (
            time.monotonic() + row_watcher.limits.max_stream_s,
            None,
            time.monotonic(),
        )
        async for row in row_watcher.follow_row(table, row_id):
            now = time.monotonic()
            state = None if row is None else (row.state, row.step, row.progress, row.error)
            if row is not None and state != last_state:
                last_state, last_sent_at = state, now
                yield f"data: {create_response(row).model_dump_json()}\n\n"
            elif now - last_sent_at > KEEPALIVE_INTERVAL_S:
                last_sent_at = now
                yield ": keep-alive\n\n"
            if row is None or is_over(row) or now > deadline:
                return

    return EventStreamResponse(iterate_events(), row_watcher.acquire_slot(caller_name))

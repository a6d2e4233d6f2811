"""Server-sent events: a document whenever it changed, until it will not any more.

However many follow, the database is read once for all of them, by one thread at a time: nobody who only waits holds a
thread that others need.
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
from gliomark.server.bodies import RequestLimits
from gliomark.server.records import Database, JobRow, StudyRow, WatchedTable

LOG = logging.getLogger("gliomark.server")
POLL_INTERVAL_S = 0.15  # between two looks
KEEPALIVE_INTERVAL_S = 15.0  # after which a comment says that the line is still open
Row = TypeVar("Row", StudyRow, JobRow)


class RowWatcher:
    """What somebody waits for. Used in the event loop alone."""

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
        """Raises HTTPException 503 where this caller, or all together, wait for too much already."""
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
        """The row at every look; None once there is none, and that is the last."""
        key = (table, row_id)
        self._followers_by_row[key] += 1
        if self._poll_task is None or self._poll_task.done():
            self._poll_task = asyncio.create_task(self._poll_rows())
        try:
            while True:
                await self._next_read.wait()
                if key not in self._rows:  # it was asked for after the look had begun
                    continue
                row = self._rows[key]
                yield row  # type: ignore[misc]
                if row is None:
                    return
        finally:
            self._followers_by_row -= Counter({key: 1})

    async def _poll_rows(self) -> None:
        """For everybody, as long as anybody waits."""
        while self._followers_by_row:
            keys = list(self._followers_by_row)
            try:
                rows = await to_thread.run_sync(self._database.find_rows, keys)
            except SQLAlchemyError as error:
                LOG.error("the database does not answer: %s", type(error).__name__)
            else:
                self._rows = dict.fromkeys(keys) | rows
                finished_read, self._next_read = self._next_read, asyncio.Event()
                finished_read.set()
            await asyncio.sleep(POLL_INTERVAL_S)


class EventStreamResponse(StreamingResponse):
    """An event stream that has its place as long as it is open."""

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
    """``document`` of a row whenever it changed, until it is over, the caller hangs up or the time is up."""

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
                yield ": still here\n\n"
            if row is None or is_over(row) or now > deadline:
                return

    return EventStreamResponse(iterate_events(), row_watcher.acquire_slot(caller_name))

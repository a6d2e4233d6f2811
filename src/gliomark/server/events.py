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
from gliomark.server.bodies import Limits
from gliomark.server.records import Followed, JobRow, Records, StudyRow

LOG = logging.getLogger("gliomark.server")
LOOK_S = 0.15  # between two looks
ALIVE_S = 15.0  # after which a comment says that the line is still open
Row = TypeVar("Row", StudyRow, JobRow)


class Watch:
    """What somebody waits for. Used in the event loop alone."""

    def __init__(self, records: Records, limits: Limits) -> None:
        self.limits = limits
        self._records = records
        self._waiting: Counter[str] = Counter()
        self._wanted: Counter[tuple[Followed, str]] = Counter()
        self._rows: dict[tuple[Followed, str], StudyRow | JobRow | None] = {}
        self._turn = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    @contextmanager
    def place(self, who: str) -> Iterator[None]:
        """Raises HTTPException 503 where this caller, or all together, wait for too much already."""
        if self._waiting[who] >= self.limits.own_streams or self._waiting.total() >= self.limits.streams:
            raise HTTPException(503, message("streams-too-many"), headers={"Retry-After": "10"})
        self._waiting[who] += 1
        try:
            yield
        finally:
            self._waiting -= Counter({who: 1})

    async def follow(self, table: type[Row], id: str) -> AsyncIterator[Row | None]:
        """The row at every look; None once there is none, and that is the last."""
        wanted = (table, id)
        self._wanted[wanted] += 1
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        try:
            while True:
                await self._turn.wait()
                if wanted not in self._rows:  # it was asked for after the look had begun
                    continue
                row = self._rows[wanted]
                yield row  # type: ignore[misc]
                if row is None:
                    return
        finally:
            self._wanted -= Counter({wanted: 1})

    async def _read(self) -> None:
        """For everybody, as long as anybody waits."""
        while self._wanted:
            asked = list(self._wanted)
            try:
                found = await to_thread.run_sync(self._records.rows, asked)
            except SQLAlchemyError as error:
                LOG.error("the database does not answer: %s", type(error).__name__)
            else:
                self._rows = dict.fromkeys(asked) | found
                turn, self._turn = self._turn, asyncio.Event()
                turn.set()
            await asyncio.sleep(LOOK_S)


class EventStream(StreamingResponse):
    """An event stream that has its place as long as it is open."""

    def __init__(self, lines: AsyncIterator[str], place: AbstractContextManager[None]) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


def stream(
    watch: Watch,
    who: str,
    table: type[Row],
    id: str,
    document: Callable[[Row], BaseModel],
    is_over: Callable[[Row], bool],
) -> EventStream:
    """``document`` of a row whenever it changed, until it is over, the caller hangs up or the time is up."""

    async def lines() -> AsyncIterator[str]:
        ends, last, told = time.monotonic() + watch.limits.stream_s, None, time.monotonic()
        async for row in watch.follow(table, id):
            now = time.monotonic()
            state = None if row is None else (row.state, row.step, row.progress, row.error)
            if row is not None and state != last:
                last, told = state, now
                yield f"data: {document(row).model_dump_json()}\n\n"
            elif now - told > ALIVE_S:
                told = now
                yield ": still here\n\n"
            if row is None or is_over(row) or now > ends:
                return

    return EventStream(lines(), watch.place(who))

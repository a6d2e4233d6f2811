"""Server-sent events: a document whenever it changed, until it will not any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from anyio import to_thread
from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

Document = TypeVar("Document", bound=BaseModel)
LOOK_S = 0.15  # between two looks


def stream(now: Callable[[], Document], over: Callable[[Document], bool]) -> StreamingResponse:
    """now: reads the document; it may raise HTTPException once it is gone, which ends the stream."""

    async def lines() -> AsyncIterator[str]:
        last = ""
        while True:
            try:
                document = await to_thread.run_sync(now)
            except HTTPException:
                return
            if (text := document.model_dump_json()) != last:
                last = text
                yield f"data: {text}\n\n"
            if over(document):
                return
            await asyncio.sleep(LOOK_S)

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

"""Bodies of requests within limits: of size, of silence, and of how many come at once."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass

from anyio import fail_after
from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gliomark.messages import message as sentence
from gliomark.server.problems import answer_problem

LARGE = re.compile(r"POST /api/studies|PUT /api/studies/[^/]+/mask\.png")


@dataclass(frozen=True)
class Limits:
    """bytes: of an upload, packed and unpacked; files: in it; at_once: uploads being received; silence_s: between two
    pieces of a body; slowest: bytes per second after the first minute."""

    bytes: int = 2 << 30
    files: int = 20_000
    at_once: int = 4
    silence_s: float = 30.0
    slowest: float = 20_000.0
    mask_bytes: int = 64 << 20
    other_bytes: int = 64 << 10


class Inlet:
    """So many uploads at once and no more; entering raises HTTPException 503 where all places are taken."""

    def __init__(self, places: int) -> None:
        self._places = threading.Semaphore(places)

    def __enter__(self) -> None:
        if not self._places.acquire(blocking=False):
            raise HTTPException(503, sentence("uploads-too-many"), headers={"Retry-After": "60"})

    def __exit__(self, *_: object) -> None:
        self._places.release()


def guarded(receive: Receive, declared: str | None, most: int, limits: Limits) -> Receive:
    """The same body, refused as soon as it is too large, silent or too slow."""
    too_large = HTTPException(413, sentence("body-too-large", megabytes=f"{most / 1e6:.3g}"))
    if declared is not None and (not declared.isdigit() or int(declared) > most):
        raise too_large if declared.isdigit() else HTTPException(400, sentence("content-length-unfit"))
    started, got, over = time.monotonic(), 0, False

    async def receive_guarded() -> Message:
        nonlocal got, over
        if over:
            return await receive()  # the line's end, which may be long in coming
        try:
            with fail_after(limits.silence_s):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, sentence("upload-silent")) from None
        if message["type"] == "http.disconnect":
            raise HTTPException(408, sentence("upload-broken-off"))
        over = not message.get("more_body", False)
        got += len(message.get("body", b""))
        if got > most:
            raise too_large
        if time.monotonic() - started > 60 + got / limits.slowest:
            raise HTTPException(408, sentence("upload-slow"))
        return message

    return receive_guarded


class SmallBodies:
    """ASGI: every body is small but an upload's and an outline's, which have limits of their own. It stands before
    the application, which reads bodies before it asks who sends them."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not LARGE.fullmatch(f"{scope['method']} {scope['path']}"):
            declared = Headers(scope=scope).get("content-length")
            try:
                receive = guarded(receive, declared, self.limits.other_bytes, self.limits)
            except HTTPException as error:
                await answer_problem(error.detail, error.status_code)(scope, receive, send)
                return
        await self.app(scope, receive, send)

"""Bodies of requests within limits: of size, of silence, and of how many come at once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from anyio import CancelScope, move_on_after
from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gliomark.messages import message as sentence
from gliomark.server.problems import answer_problem

LARGE = re.compile(r"POST /api/studies|PUT /api/studies/[^/]+/mask\.png")
STILL_S = 1.0  # without a piece an upload stands still, and whoever waits gets its place


@dataclass(frozen=True)
class Limits:
    """bytes: of an upload, packed and unpacked; files: in it; at_once: uploads being received; each: of them one
    caller's; silence_s: between two pieces of a body; slowest: bytes per second after the first minute; longest_s: that
    any body may take; reserve: bytes of the disk that stay free; streams: event streams open at once; own_streams: of
    them one caller's; stream_s: that one may last."""

    bytes: int = 2 << 30
    files: int = 20_000
    at_once: int = 6
    each: int = 4
    silence_s: float = 30.0
    slowest: float = 100_000.0
    longest_s: float = 3600.0
    mask_bytes: int = 64 << 20
    other_bytes: int = 64 << 10
    reserve: int = 1 << 30
    streams: int = 64
    own_streams: int = 16
    stream_s: float = 1800.0


@dataclass(eq=False)
class Place:
    """An upload that is being received. heard: when its last piece came; whole: it is all here; lost: another upload
    has its place."""

    who: str
    began: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    got: int = 0
    whole: bool = False
    lost: bool = False
    waiting: CancelScope | None = None

    def stands_still(self, now: float, slowest: float) -> bool:
        """Whether it keeps a place from others for nothing."""
        if self.whole or self.waiting is None:  # it is this server that takes its time
            return False
        return now - self.heard > STILL_S or now - self.began > 2 * STILL_S + self.got / slowest

    def give_up(self) -> None:
        self.lost = True
        if self.waiting is not None:
            self.waiting.cancel()


class Inlet:
    """So many uploads at once and no more, and of one caller fewer than that. Used in the event loop alone."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken: list[Place] = []

    @contextmanager
    def place(self, who: str) -> Iterator[Place]:
        """A place; where all are taken, that of an upload that stands still. Raises HTTPException 503 without any."""
        own = [one for one in self._taken if one.who == who]
        for taken, most in ((own, self._limits.each), (self._taken, self._limits.at_once)):
            if len(taken) >= most:
                self._clear_one(taken)
        place = Place(who)
        self._taken.append(place)
        try:
            yield place
        finally:
            self._taken = [one for one in self._taken if one is not place]

    def _clear_one(self, taken: list[Place]) -> None:
        now = time.monotonic()
        still = [one for one in taken if one.stands_still(now, self._limits.slowest)]
        if not still:
            raise HTTPException(503, sentence("uploads-too-many"), headers={"Retry-After": "60"})
        longest = min(still, key=lambda one: one.heard)
        self._taken = [one for one in self._taken if one is not longest]
        longest.give_up()


def guarded(
    receive: Receive, declared: str | None, most: int, limits: Limits, place: Place | None = None
) -> Receive:
    """The same body, refused as soon as it is too large, silent or too slow, or has lost its place."""
    too_large = HTTPException(413, sentence("body-too-large", megabytes=f"{most / 1e6:.3g}"))
    if declared is not None and (not declared.isdigit() or int(declared) > most):
        raise too_large if declared.isdigit() else HTTPException(400, sentence("content-length-unfit"))
    place = place or Place("")
    # what has been promised may take so long, however steadily it crawls
    ends = place.began + min(limits.longest_s, 60 + int(declared or most) / limits.slowest)

    async def receive_guarded() -> Message:
        if place.whole:
            return await receive()  # the line's end, which may be long in coming
        message: Message | None = None
        with move_on_after(limits.silence_s) as place.waiting:
            message = await receive()
        place.waiting = None
        if message is None and not place.lost:
            raise HTTPException(408, sentence("upload-silent"))
        if message is not None and message["type"] == "http.disconnect":
            raise HTTPException(408, sentence("upload-broken-off"))
        if message is None or place.lost:
            raise HTTPException(408, sentence("upload-slow"))
        place.heard = time.monotonic()
        place.whole = not message.get("more_body", False)
        place.got += len(message.get("body", b""))
        if place.got > most:
            raise too_large
        if place.heard > min(ends, place.began + 60 + place.got / limits.slowest):
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

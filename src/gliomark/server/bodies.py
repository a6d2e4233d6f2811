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
from gliomark.server.problems import create_error_response

LARGE_BODY_ROUTES = re.compile(r"POST /api/studies|PUT /api/studies/[^/]+/mask\.png")
STALL_TIMEOUT_S = 1.0  # without a piece an upload stands still, and whoever waits gets its place


@dataclass(frozen=True)
class RequestLimits:
    """bytes: of an upload, packed and unpacked; files: in it; at_once: uploads being received; each: of them one
    caller's; silence_s: between two pieces of a body; slowest: bytes per second after the first minute; longest_s: that
    any body may take; reserve: bytes of the disk that stay free; streams: event streams open at once; own_streams: of
    them one caller's; stream_s: that one may last."""

    max_upload_bytes: int = 2 << 30
    max_upload_files: int = 20_000
    max_uploads: int = 6
    max_uploads_per_caller: int = 4
    silence_timeout_s: float = 30.0
    min_bytes_per_s: float = 100_000.0
    max_body_s: float = 3600.0
    max_mask_bytes: int = 64 << 20
    max_other_body_bytes: int = 64 << 10
    min_free_disk_bytes: int = 1 << 30
    max_streams: int = 64
    max_streams_per_caller: int = 16
    max_stream_s: float = 1800.0


@dataclass(eq=False)
class UploadSlot:
    """An upload that is being received. heard: when its last piece came; whole: it is all here; lost: another upload
    has its place."""

    caller_name: str
    started_at: float = field(default_factory=time.monotonic)
    last_received_at: float = field(default_factory=time.monotonic)
    received_bytes: int = 0
    is_complete: bool = False
    is_revoked: bool = False
    receive_scope: CancelScope | None = None

    def is_stalled(self, now: float, min_bytes_per_s: float) -> bool:
        """Whether it keeps a place from others for nothing."""
        if self.is_complete or self.receive_scope is None:  # it is this server that takes its time
            return False
        return (
            now - self.last_received_at > STALL_TIMEOUT_S
            or now - self.started_at > 2 * STALL_TIMEOUT_S + self.received_bytes / min_bytes_per_s
        )

    def revoke(self) -> None:
        self.is_revoked = True
        if self.receive_scope is not None:
            self.receive_scope.cancel()


class UploadSlots:
    """So many uploads at once and no more, and of one caller fewer than that. Used in the event loop alone."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._occupied: list[UploadSlot] = []

    @contextmanager
    def acquire_slot(self, caller_name: str) -> Iterator[UploadSlot]:
        """A place; where all are taken, that of an upload that stands still. Raises HTTPException 503 without any."""
        caller_slots = [one for one in self._occupied if one.caller_name == caller_name]
        for slots, maximum in (
            (caller_slots, self._limits.max_uploads_per_caller),
            (self._occupied, self._limits.max_uploads),
        ):
            if len(slots) >= maximum:
                self._revoke_stalled_slot(slots)
        slot = UploadSlot(caller_name)
        self._occupied.append(slot)
        try:
            yield slot
        finally:
            self._occupied = [one for one in self._occupied if one is not slot]

    def _revoke_stalled_slot(self, slots: list[UploadSlot]) -> None:
        now = time.monotonic()
        stalled = [one for one in slots if one.is_stalled(now, self._limits.min_bytes_per_s)]
        if not stalled:
            raise HTTPException(503, sentence("uploads-too-many"), headers={"Retry-After": "60"})
        longest_stalled = min(stalled, key=lambda one: one.last_received_at)
        self._occupied = [one for one in self._occupied if one is not longest_stalled]
        longest_stalled.revoke()


def limit_body(
    receive: Receive,
    declared_length: str | None,
    max_bytes: int,
    limits: RequestLimits,
    slot: UploadSlot | None = None,
) -> Receive:
    """The same body, refused as soon as it is too large, silent or too slow, or has lost its place."""
    too_large = HTTPException(413, sentence("body-too-large", megabytes=f"{max_bytes / 1e6:.3g}"))
    if declared_length is not None and (not declared_length.isdigit() or int(declared_length) > max_bytes):
        raise too_large if declared_length.isdigit() else HTTPException(400, sentence("content-length-unfit"))
    slot = slot or UploadSlot("")
    # what has been promised may take so long, however steadily it crawls
    deadline = slot.started_at + min(
        limits.max_body_s, 60 + int(declared_length or max_bytes) / limits.min_bytes_per_s
    )

    async def receive_limited() -> Message:
        if slot.is_complete:
            return await receive()  # the line's end, which may be long in coming
        asgi_message: Message | None = None
        with move_on_after(limits.silence_timeout_s) as slot.receive_scope:
            asgi_message = await receive()
        slot.receive_scope = None
        if asgi_message is None and not slot.is_revoked:
            raise HTTPException(408, sentence("upload-silent"))
        if asgi_message is not None and asgi_message["type"] == "http.disconnect":
            raise HTTPException(408, sentence("upload-broken-off"))
        if asgi_message is None or slot.is_revoked:
            raise HTTPException(408, sentence("upload-slow"))
        slot.last_received_at = time.monotonic()
        slot.is_complete = not asgi_message.get("more_body", False)
        slot.received_bytes += len(asgi_message.get("body", b""))
        if slot.received_bytes > max_bytes:
            raise too_large
        if slot.last_received_at > min(
            deadline, slot.started_at + 60 + slot.received_bytes / limits.min_bytes_per_s
        ):
            raise HTTPException(408, sentence("upload-slow"))
        return asgi_message

    return receive_limited


class BodyLimitMiddleware:
    """ASGI: every body is small but an upload's and an outline's, which have limits of their own. It stands before
    the application, which reads bodies before it asks who sends them."""

    def __init__(self, app: ASGIApp, limits: RequestLimits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not LARGE_BODY_ROUTES.fullmatch(f"{scope['method']} {scope['path']}"):
            declared_length = Headers(scope=scope).get("content-length")
            try:
                receive = limit_body(receive, declared_length, self.limits.max_other_body_bytes, self.limits)
            except HTTPException as error:
                await create_error_response(error.detail, error.status_code)(scope, receive, send)
                return
        await self.app(scope, receive, send)

"""Limits for request bodies: size, silence, rate, and number of simultaneous uploads."""

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
from gliomark.server.error_responses import create_error_response

LARGE_BODY_ROUTES = re.compile(
    r"POST /api/studies|PUT /api/studies/[^/]+/mask(?:\.png)?|PUT /datastore/(?:image|label)?"
)
STALL_TIMEOUT_S = 1.0  # an upload that has received nothing for so long may lose its slot to another


@dataclass(frozen=True)
class RequestLimits:
    """Limits of the HTTP server.

    Attributes
    ----------
    max_upload_bytes
        Size of an upload, both packed and unpacked.
    max_upload_files
        Files in an upload.
    max_uploads
        Uploads being received.
    max_uploads_per_caller
        Uploads being received from one caller.
    silence_timeout_s
        Time between two chunks of a body.
    min_bytes_per_s
        Minimum rate of a body after the first minute.
    max_body_s
        Duration of receiving any body.
    max_mask_bytes
        Size of an uploaded mask.
    max_other_body_bytes
        Size of any other body.
    min_free_disk_bytes
        Disk space that is kept free.
    max_streams
        Open event streams.
    max_streams_per_caller
        Open event streams of one caller.
    max_stream_s
        Duration of an event stream.
    """

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
    """A slot for an upload that is being received.

    Attributes
    ----------
    caller_name
        Name of the caller.
    started_at, last_received_at
        Monotonic time in seconds.
    received_bytes
        Bytes received so far.
    is_complete
        Whether the whole body has arrived.
    is_revoked
        Whether the slot was given to another upload.
    receive_scope
        Cancel scope while the server waits for the next chunk, else None.
    """

    caller_name: str
    started_at: float = field(default_factory=time.monotonic)
    last_received_at: float = field(default_factory=time.monotonic)
    received_bytes: int = 0
    is_complete: bool = False
    is_revoked: bool = False
    receive_scope: CancelScope | None = None

    def is_stalled(self, now: float, min_bytes_per_s: float) -> bool:
        """Whether the upload has stalled or is below the minimum rate, so that its slot may be reassigned."""
        if self.is_complete or self.receive_scope is None:  # the server is busy, not the sender
            return False
        return (
            now - self.last_received_at > STALL_TIMEOUT_S
            or now - self.started_at > 2 * STALL_TIMEOUT_S + self.received_bytes / min_bytes_per_s
        )

    def revoke(self) -> None:
        """Take the slot away and stop waiting for the upload's next chunk."""
        self.is_revoked = True
        if self.receive_scope is not None:
            self.receive_scope.cancel()


class UploadSlots:
    """A limited number of upload slots, in total and per caller. Used only in the event loop."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._occupied: list[UploadSlot] = []

    @contextmanager
    def acquire_slot(self, caller_name: str) -> Iterator[UploadSlot]:
        """Hold a slot for an upload; if all are taken, one whose upload has stalled is revoked.

        Raises
        ------
        HTTPException
            503 if no upload has stalled.
        """
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
    """Return a receive function that raises for a body that is too large, silent or slow, or has lost its slot.

    Parameters
    ----------
    receive
        The receive function of the ASGI server.
    declared_length
        Value of the header ``Content-Length``, if any.
    max_bytes
        Size limit of this body.
    slot
        The slot of an upload; None for small bodies.

    Raises
    ------
    HTTPException
        413 for a declared length above the limit, 400 for an invalid one. The returned function raises 413 above the
        limit and 408 for a body that is silent, slow or broken off.
    """
    too_large = HTTPException(413, sentence("body-too-large", megabytes=f"{max_bytes / 1e6:.3g}"))
    if declared_length is not None and (not declared_length.isdigit() or int(declared_length) > max_bytes):
        raise too_large if declared_length.isdigit() else HTTPException(400, sentence("content-length-unfit"))
    slot = slot or UploadSlot("")
    # the deadline follows from the declared length at the minimum rate, even for a steady upload
    deadline = slot.started_at + min(
        limits.max_body_s, 60 + int(declared_length or max_bytes) / limits.min_bytes_per_s
    )

    async def receive_limited() -> Message:
        if slot.is_complete:
            return await receive()  # the disconnect event, which may arrive much later
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
    """ASGI middleware that limits all bodies but uploads and masks, which have their own limits.

    It runs before the application, which reads bodies before it authenticates the caller.
    """

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

"""Upload slots: a stalled upload loses its slot, and one caller cannot hold all slots or one of them for hours."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import anyio
import pytest
from fastapi import HTTPException
from starlette.types import Message

from gliomark.server import body_limits
from gliomark.server.body_limits import RequestLimits, UploadSlot, UploadSlots, limit_body

FEW = RequestLimits(max_uploads=3, max_uploads_per_caller=2, silence_timeout_s=5.0, min_bytes_per_s=1000.0)


def check_is_refused(status: int, do: Callable[[], object]) -> None:
    with pytest.raises(HTTPException) as error:
        do()
    assert error.value.status_code == status


def test_one_caller_cannot_hold_all_slots() -> None:
    slots = UploadSlots(FEW)
    with ExitStack() as stack:
        for caller in ("A", "A", "B"):
            stack.enter_context(slots.acquire_slot(caller))
        for caller in ("A", "C"):
            check_is_refused(503, lambda caller=caller: slots.acquire_slot(caller).__enter__())
    with slots.acquire_slot("C"):
        pass


@pytest.mark.parametrize(
    ("waiting", "is_complete", "silent_s", "age_s", "received", "is_revoked"),
    [
        (True, False, 3.0, 3.0, 10**6, True),
        (True, False, 0.0, 60.0, 100, True),
        (True, False, 0.0, 1.0, 0, False),
        (True, False, 0.0, 60.0, 10**6, False),
        (True, True, 60.0, 60.0, 100, False),
        (False, False, 60.0, 60.0, 100, False),
    ],
    ids="silent,crawls,young,fast,being read,being written".split(","),
)
def test_a_stalled_upload_loses_its_slot(
    waiting: bool, is_complete: bool, silent_s: float, age_s: float, received: int, is_revoked: bool
) -> None:
    async def acquire_slots() -> None:
        slots, now = UploadSlots(RequestLimits(max_uploads=1, min_bytes_per_s=1000.0)), time.monotonic()
        with slots.acquire_slot("A") as slot:
            slot.started_at, slot.last_received_at, slot.received_bytes, slot.is_complete = (
                now - age_s,
                now - silent_s,
                received,
                is_complete,
            )
            slot.receive_scope = anyio.CancelScope() if waiting else None
            if not is_revoked:
                check_is_refused(503, lambda: slots.acquire_slot("B").__enter__())
            else:
                for _ in range(2):
                    with slots.acquire_slot("B"):
                        pass
            assert slot.is_revoked is is_revoked

    anyio.run(acquire_slots)


async def receive_body(
    limits: RequestLimits, slot: UploadSlot, chunks: list[bytes], pause_s: float, declared: str | None
) -> int:
    """Receive a body that arrives in these chunks, and return its size."""

    async def receive() -> Message:
        await anyio.sleep(pause_s)
        return {"type": "http.request", "body": chunks.pop(0) if chunks else b"", "more_body": True}

    get = limit_body(receive, declared, 10**9, limits, slot)
    while chunks:
        await get()
    return slot.received_bytes


def test_a_revoked_slot_ends_the_upload_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "STALL_TIMEOUT_S", 0.1)
    slots = UploadSlots(RequestLimits(max_uploads=1, silence_timeout_s=60.0))

    async def measure_upload_seconds() -> float:
        started = time.monotonic()
        with slots.acquire_slot("A") as slot:
            async with anyio.create_task_group() as tasks:

                async def upload_as_other_caller() -> None:
                    await anyio.sleep(0.3)
                    with slots.acquire_slot("B"):
                        assert slot.is_revoked

                tasks.start_soon(upload_as_other_caller)
                with pytest.raises(HTTPException) as error:
                    await receive_body(slots._limits, slot, [b"x"], 30, None)
                assert error.value.status_code == 408
        return time.monotonic() - started

    assert anyio.run(measure_upload_seconds) < 5


@pytest.mark.parametrize(
    ("age_s", "received", "declared", "is_late"),
    [
        (3700.0, 10**8, None, True),
        (3700.0, 10**8, "900000000", True),
        (1000.0, 10**8, "100000", True),
        (200.0, 10**6, "900000000", True),
        (200.0, 10**8, "900000000", False),
        (50.0, 10, None, False),
    ],
    ids="hours,hours though promised,longer than promised,crawls,fast,first minute".split(","),
)
def test_a_slow_body_is_refused(age_s: float, received: int, declared: str | None, is_late: bool) -> None:
    slot = UploadSlot("A", started_at=time.monotonic() - age_s, received_bytes=received)
    receive_all = lambda: anyio.run(receive_body, RequestLimits(), slot, [b"more"], 0.0, declared)  # noqa: E731
    if is_late:
        check_is_refused(408, receive_all)
    else:
        assert receive_all() == received + 4

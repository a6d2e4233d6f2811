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


def refused(status: int, do: Callable[[], object]) -> None:
    with pytest.raises(HTTPException) as error:
        do()
    assert error.value.status_code == status


def test_one_caller_cannot_have_all_places() -> None:
    inlet = UploadSlots(FEW)
    with ExitStack() as places:
        for who in ("A", "A", "B"):
            places.enter_context(inlet.acquire_slot(who))
        for who in ("A", "C"):
            refused(503, lambda who=who: inlet.acquire_slot(who).__enter__())
    with inlet.acquire_slot("C"):
        pass


@pytest.mark.parametrize(
    ("waiting", "whole", "silent_s", "age_s", "got", "loses"),
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
def test_who_loses_a_place(
    waiting: bool, whole: bool, silent_s: float, age_s: float, got: int, loses: bool
) -> None:
    async def try_it() -> None:
        inlet, now = UploadSlots(RequestLimits(max_uploads=1, min_bytes_per_s=1000.0)), time.monotonic()
        with inlet.acquire_slot("A") as place:
            place.started_at, place.last_received_at, place.received_bytes, place.is_complete = (
                now - age_s,
                now - silent_s,
                got,
                whole,
            )
            place.receive_scope = anyio.CancelScope() if waiting else None
            if not loses:
                refused(503, lambda: inlet.acquire_slot("B").__enter__())
            else:
                for _ in range(2):
                    with inlet.acquire_slot("B"):
                        pass
            assert place.is_revoked is loses

    anyio.run(try_it)


async def receiving(
    limits: RequestLimits, place: UploadSlot, pieces: list[bytes], pause_s: float, declared: str | None
) -> int:
    """The receive function of a body that arrives in these chunks."""

    async def receive() -> Message:
        await anyio.sleep(pause_s)
        return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": True}

    get = limit_body(receive, declared, 10**9, limits, place)
    while pieces:
        await get()
    return place.received_bytes


def test_a_place_that_is_lost_ends_the_upload_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "STALL_TIMEOUT_S", 0.1)
    inlet = UploadSlots(RequestLimits(max_uploads=1, silence_timeout_s=60.0))

    async def all_of_it() -> float:
        started = time.monotonic()
        with inlet.acquire_slot("A") as place:
            async with anyio.create_task_group() as tasks:

                async def newcomer() -> None:
                    await anyio.sleep(0.3)
                    with inlet.acquire_slot("B"):
                        assert place.is_revoked

                tasks.start_soon(newcomer)
                with pytest.raises(HTTPException) as error:
                    await receiving(inlet._limits, place, [b"x"], 30, None)
                assert error.value.status_code == 408
        return time.monotonic() - started

    assert anyio.run(all_of_it) < 5


@pytest.mark.parametrize(
    ("age_s", "got", "declared", "is_late"),
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
def test_how_long_a_body_may_take(age_s: float, got: int, declared: str | None, is_late: bool) -> None:
    place = UploadSlot("A", started_at=time.monotonic() - age_s, received_bytes=got)
    ask = lambda: anyio.run(receiving, RequestLimits(), place, [b"more"], 0.0, declared)  # noqa: E731
    if is_late:
        refused(408, ask)
    else:
        assert ask() == got + 4

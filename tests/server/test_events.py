"""Event streams: many of them share one read of the database, their number is limited, and they end with the
client."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace

import httpx
import pytest
from anyio import to_thread
from fastapi import FastAPI, HTTPException, Request
from tests.server.conftest import create_test_database

from gliomark.server.app import _handle_http_error
from gliomark.server.audit_writer import AuditWriter
from gliomark.server.body_limits import RequestLimits
from gliomark.server.connections import ConnectionLimits, HttpServer
from gliomark.server.database import FINAL_STATES, Database, JobRow, StudyRow
from gliomark.server.events import RowWatcher, create_event_stream
from gliomark.server.run import open_database
from gliomark.server.schemas import create_job_response, create_study_response

FEW = RequestLimits(max_streams=50, max_streams_per_caller=45, max_stream_s=4.0)


@dataclass
class Streaming:
    """A server with nothing but event streams; looks: how often the database was read for them."""

    url: str
    records: Database
    looks: list[int]

    def open(self, path: str, who: str = "me") -> httpx.Response:
        line = self.client.stream("GET", f"{self.url}/{path}", headers={"who": who})
        return self.lines.enter_context(line)

    def __enter__(self) -> Streaming:
        self.lines = ExitStack()
        self.client = self.lines.enter_context(
            httpx.Client(timeout=30, limits=httpx.Limits(max_connections=None))
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streaming]:
    records = open_database(tmp_path_factory.mktemp("streams"), create_test_database())
    looks: list[int] = []
    rows = records.find_rows
    records.find_rows = lambda asked: (looks.append(len(list(asked))), rows(asked))[1]  # type: ignore[method-assign]
    watch, app = RowWatcher(records, FEW), FastAPI()
    app.exception_handler(HTTPException)(_handle_http_error)
    app.state.server = SimpleNamespace(audit_writer=AuditWriter(records))

    @app.get("/studies/{id}")
    def study(id: str, request: Request) -> object:
        return create_event_stream(
            watch,
            request.headers["who"],
            StudyRow,
            id,
            create_study_response,
            lambda row: row.state != "preparing",
        )

    @app.get("/jobs/{id}")
    def job(id: str, request: Request) -> object:
        return create_event_stream(
            watch,
            request.headers["who"],
            JobRow,
            id,
            create_job_response,
            lambda row: row.state in FINAL_STATES,
        )

    @app.get("/threads")
    async def threads() -> float:
        return to_thread.current_default_thread_limiter().available_tokens

    web = HttpServer(app, socket.create_server(("127.0.0.1", 0)), ConnectionLimits())
    thread = threading.Thread(target=web.run_until_stopped, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.01)
    yield Streaming(f"http://127.0.0.1:{web.port}", records, looks)
    web.should_exit = True
    thread.join(20)


@pytest.fixture
def streaming(served: Streaming) -> Iterator[Streaming]:
    with served:
        yield served


def told(line: httpx.Response) -> list[str]:
    return [json.loads(text[5:])["state"] for text in line.iter_lines() if text.startswith("data:")]


def new_study(records: Database, id: str) -> str:
    """Add a study and return the id of its running job."""
    records.add_study(id, "P", "tiny", "0", "me")
    found = records.claim_next_job()
    assert found is not None
    return found[0].id


def test_all_streams_share_one_look(streaming: Streaming) -> None:
    job = new_study(streaming.records, "shared")
    lines = [streaming.open("studies/shared") for _ in range(20)] + [
        streaming.open(f"jobs/{job}") for _ in range(20)
    ]
    started = time.monotonic()
    streaming.looks.clear()
    time.sleep(1.0)
    assert len(streaming.looks) <= (time.monotonic() - started) / 0.15 + 1
    assert set(streaming.looks) == {2}, "forty streams, two rows"
    assert streaming.client.get(f"{streaming.url}/threads").json() >= 38, "they hold no threads"
    streaming.records.fail_job(job, "FLAIR is missing.")
    assert all(states == ["preparing", "failed"] or states == ["failed"] for states in map(told, lines[:20]))
    assert all(states[-1] == "failed" for states in map(told, lines[20:]))


def test_one_caller_cannot_have_all_streams(streaming: Streaming) -> None:
    new_study(streaming.records, "bounded")
    for _ in range(FEW.max_streams_per_caller):
        assert streaming.open("studies/bounded", "A").status_code == 200
    refused = streaming.open("studies/bounded", "A")
    assert refused.status_code == 503 and json.loads(refused.read())["code"] == "streams-too-many"
    for _ in range(FEW.max_streams - FEW.max_streams_per_caller):
        assert streaming.open("studies/bounded", "B").status_code == 200
    assert streaming.open("studies/bounded", "C").status_code == 503


def test_a_stream_ends_when_the_caller_hangs_up(streaming: Streaming) -> None:
    new_study(streaming.records, "hung up")
    for _ in range(3):
        with streaming:
            for _ in range(FEW.max_streams_per_caller):
                assert streaming.open("studies/hung up", "D").status_code == 200
        time.sleep(0.5)
        streaming.lines = ExitStack()
        streaming.client = httpx.Client(timeout=30)
    time.sleep(0.5)
    streaming.looks.clear()
    time.sleep(0.6)
    assert not streaming.looks, "nobody listens, nothing is read"


def test_a_stream_does_not_last_for_ever(streaming: Streaming) -> None:
    new_study(streaming.records, "long")
    started = time.monotonic()
    assert told(streaming.open("studies/long")) == ["preparing"]
    assert FEW.max_stream_s - 1 < time.monotonic() - started < FEW.max_stream_s + 10


def test_what_does_not_exist_ends_at_once(streaming: Streaming) -> None:
    assert told(streaming.open("studies/none")) == []

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
class StreamServer:
    """A server with nothing but event streams; read_row_counts: rows per read of the database."""

    url: str
    records: Database
    read_row_counts: list[int]

    def open(self, path: str, caller: str = "me") -> httpx.Response:
        stream = self.client.stream("GET", f"{self.url}/{path}", headers={"who": caller})
        return self.stack.enter_context(stream)

    def __enter__(self) -> StreamServer:
        self.stack = ExitStack()
        self.client = self.stack.enter_context(
            httpx.Client(timeout=30, limits=httpx.Limits(max_connections=None))
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()


@pytest.fixture(scope="module")
def stream_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamServer]:
    records = open_database(tmp_path_factory.mktemp("streams"), create_test_database())
    read_row_counts: list[int] = []
    rows = records.find_rows
    records.find_rows = lambda keys: (read_row_counts.append(len(list(keys))), rows(keys))[1]  # type: ignore[method-assign]
    watch, app = RowWatcher(records, FEW), FastAPI()
    app.exception_handler(HTTPException)(_handle_http_error)
    app.state.server = SimpleNamespace(audit_writer=AuditWriter(records))

    @app.get("/studies/{id}")
    def stream_study(id: str, request: Request) -> object:
        return create_event_stream(
            watch,
            request.headers["who"],
            StudyRow,
            id,
            create_study_response,
            lambda row: row.state != "preparing",
        )

    @app.get("/jobs/{id}")
    def stream_job(id: str, request: Request) -> object:
        return create_event_stream(
            watch,
            request.headers["who"],
            JobRow,
            id,
            create_job_response,
            lambda row: row.state in FINAL_STATES,
        )

    @app.get("/threads")
    async def count_free_threads() -> float:
        return to_thread.current_default_thread_limiter().available_tokens

    web = HttpServer(app, socket.create_server(("127.0.0.1", 0)), ConnectionLimits())
    thread = threading.Thread(target=web.run_until_stopped, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.01)
    yield StreamServer(f"http://127.0.0.1:{web.port}", records, read_row_counts)
    web.should_exit = True
    thread.join(20)


@pytest.fixture
def client_of_streams(stream_server: StreamServer) -> Iterator[StreamServer]:
    with stream_server:
        yield stream_server


def read_states(response: httpx.Response) -> list[str]:
    return [json.loads(text[5:])["state"] for text in response.iter_lines() if text.startswith("data:")]


def add_study_with_job(records: Database, id: str) -> str:
    """Add a study and return the id of its running job."""
    records.add_study(id, "P", "tiny", "0", "me")
    found = records.claim_next_job()
    assert found is not None
    return found[0].id


def test_all_streams_share_one_read_of_the_database(client_of_streams: StreamServer) -> None:
    job = add_study_with_job(client_of_streams.records, "shared")
    responses = [client_of_streams.open("studies/shared") for _ in range(20)] + [
        client_of_streams.open(f"jobs/{job}") for _ in range(20)
    ]
    started = time.monotonic()
    client_of_streams.read_row_counts.clear()
    time.sleep(1.0)
    assert len(client_of_streams.read_row_counts) <= (time.monotonic() - started) / 0.15 + 1
    assert set(client_of_streams.read_row_counts) == {2}, "forty streams read two rows"
    assert client_of_streams.client.get(f"{client_of_streams.url}/threads").json() >= 38, (
        "streams hold no threads"
    )
    client_of_streams.records.fail_job(job, "FLAIR is missing.")
    assert all(
        states == ["preparing", "failed"] or states == ["failed"]
        for states in map(read_states, responses[:20])
    )
    assert all(states[-1] == "failed" for states in map(read_states, responses[20:]))


def test_one_caller_cannot_hold_all_streams(client_of_streams: StreamServer) -> None:
    add_study_with_job(client_of_streams.records, "bounded")
    for _ in range(FEW.max_streams_per_caller):
        assert client_of_streams.open("studies/bounded", "A").status_code == 200
    refused = client_of_streams.open("studies/bounded", "A")
    assert refused.status_code == 503 and json.loads(refused.read())["code"] == "streams-too-many"
    for _ in range(FEW.max_streams - FEW.max_streams_per_caller):
        assert client_of_streams.open("studies/bounded", "B").status_code == 200
    assert client_of_streams.open("studies/bounded", "C").status_code == 503


def test_a_stream_ends_when_its_caller_disconnects(client_of_streams: StreamServer) -> None:
    add_study_with_job(client_of_streams.records, "hung up")
    for _ in range(3):
        with client_of_streams:
            for _ in range(FEW.max_streams_per_caller):
                assert client_of_streams.open("studies/hung up", "D").status_code == 200
        time.sleep(0.5)
        client_of_streams.stack = ExitStack()
        client_of_streams.client = httpx.Client(timeout=30)
    time.sleep(0.5)
    client_of_streams.read_row_counts.clear()
    time.sleep(0.6)
    assert not client_of_streams.read_row_counts, "nothing is read without a client"


def test_the_duration_of_a_stream_is_limited(client_of_streams: StreamServer) -> None:
    add_study_with_job(client_of_streams.records, "long")
    started = time.monotonic()
    assert read_states(client_of_streams.open("studies/long")) == ["preparing"]
    assert FEW.max_stream_s - 1 < time.monotonic() - started < FEW.max_stream_s + 10


def test_a_stream_of_an_unknown_study_ends_at_once(client_of_streams: StreamServer) -> None:
    assert read_states(client_of_streams.open("studies/none")) == []

"""HTTP connections that send nothing, too little or too slowly, over real sockets, beside valid requests."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from gliomark.server.connections import ConnectionLimits, HttpServer

QUICK = ConnectionLimits(
    max_connections=12,
    max_connections_per_address=10,
    header_timeout_s=0.6,
    idle_timeout_s=1.0,
    unread_timeout_s=0.8,
    min_bytes_per_s=20_000.0,
)
LONG = 20.0  # margin for the end of a connection on a busy machine


@contextmanager
def run_http_server(limits: ConnectionLimits, **options: object) -> Iterator[HttpServer]:
    app = FastAPI()

    @app.get("/hello")
    async def send_hello() -> str:
        return "hello"

    @app.get("/large")
    async def send_large_response() -> StreamingResponse:
        async def generate_chunks() -> AsyncIterator[bytes]:
            for _ in range(400):
                yield bytes(1 << 16)

        return StreamingResponse(generate_chunks())

    @app.post("/body")
    async def count_body_bytes(request: Request) -> int:
        return len(await request.body())

    web = HttpServer(app, socket.create_server(("127.0.0.1", 0)), limits, **options)
    thread = threading.Thread(target=web.run_until_stopped, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.01)
    yield web
    web.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def web() -> Iterator[HttpServer]:
    with run_http_server(QUICK) as one:
        yield one


def connect(web: HttpServer, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", web.port), timeout=LONG)
    connection.sendall(sent)
    return connection


def measure_seconds_until_end(connection: socket.socket) -> float:
    started = time.monotonic()
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - started


HEAD = b"GET /hello HTTP/1.1\r\nHost: x\r\n"
COMPLETE_REQUEST = HEAD + b"\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        HEAD,
        COMPLETE_REQUEST,
        COMPLETE_REQUEST + HEAD,
        b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf",
        b"POST /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff",
    ],
    ids="nothing,a letter,half a header,idle after,half a second header,an unread body,half a chunk".split(
        ","
    ),
)
def test_a_silent_connection_is_closed(web: HttpServer, sent: bytes) -> None:
    with connect(web, sent) as connection:
        assert 0.3 < measure_seconds_until_end(connection) < 10


def test_a_header_sent_byte_by_byte_is_ended(web: HttpServer) -> None:
    with connect(web) as connection:
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < LONG:
                connection.sendall(b"X")
                time.sleep(0.05)
        assert time.monotonic() - started < 10


def test_a_long_header_is_refused_at_once(web: HttpServer) -> None:
    with connect(web, b"GET /hello HTTP/1.1\r\nX: " + b"x" * (64 << 10)) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_an_unread_response_is_abandoned(web: HttpServer) -> None:
    with connect(web, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deadline = time.monotonic() + LONG
        while len(web.connections) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not len(web.connections)


def test_a_large_response_arrives_complete(web: HttpServer) -> None:
    assert len(httpx.get(f"http://127.0.0.1:{web.port}/large", timeout=LONG).content) == 400 << 16


def test_a_slow_reader_gets_the_complete_response(web: HttpServer) -> None:
    with connect(web, b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as connection:
        received_bytes = 0
        while chunk := connection.recv(1 << 20):
            received_bytes += len(chunk)
            time.sleep(0.05)
    assert received_bytes > 400 << 16


@pytest.mark.parametrize(
    "sent",
    [b"", HEAD, COMPLETE_REQUEST, b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"],
    ids="nothing,half a header,idle after,half a body".split(","),
)
def test_silent_connections_do_not_block_valid_requests(sent: bytes) -> None:
    """Many more silent connections than slots, from one address."""
    long_timeouts = ConnectionLimits(
        max_connections=12,
        max_connections_per_address=10,
        header_timeout_s=60,
        idle_timeout_s=60,
        unread_timeout_s=60,
    )
    with run_http_server(long_timeouts) as web, ExitStack() as connections:
        for _ in range(40):
            connections.enter_context(connect(web, sent))
        assert len(web.connections) <= long_timeouts.max_connections_per_address
        time.sleep(1.1)  # very young connections are not replaced
        for _ in range(5):
            started = time.monotonic()
            assert httpx.get(f"http://127.0.0.1:{web.port}/hello", timeout=LONG).json() == "hello"
            assert time.monotonic() - started < 2
        assert len(web.connections) <= long_timeouts.max_connections_per_address


def test_a_connection_being_answered_keeps_its_slot() -> None:
    """A large response is read slowly while many silent connections are opened."""
    with (
        run_http_server(
            ConnectionLimits(max_connections=6, max_connections_per_address=6, header_timeout_s=60)
        ) as web,
        ExitStack() as connections,
    ):
        reader = connections.enter_context(
            connect(web, b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        )
        received_bytes = len(reader.recv(1 << 16))
        for _ in range(3):
            time.sleep(1.1)
            for _ in range(8):
                connections.enter_context(connect(web))
            received_bytes += len(reader.recv(1 << 20))
        while chunk := reader.recv(1 << 20):
            received_bytes += len(chunk)
    assert received_bytes > 400 << 16


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the server, with its key in the same file."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split()
    subprocess.run([*command, "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half a hello"])
def test_unfinished_tls_handshakes_do_not_block_valid_requests(certificate: Path, sent: bytes) -> None:
    tls = {"ssl_certfile": certificate, "ssl_keyfile": certificate}
    with run_http_server(QUICK, **tls) as web, ExitStack() as connections:
        silent = [connections.enter_context(connect(web, sent)) for _ in range(30)]
        assert len(web.connections) <= QUICK.max_connections_per_address
        time.sleep(0.8)
        tls_context = ssl.create_default_context(cafile=f"{certificate}.crt")
        started = time.monotonic()
        answer = httpx.get(f"https://localhost:{web.port}/hello", verify=tls_context, timeout=LONG)
        assert answer.json() == "hello" and time.monotonic() - started < 5
        assert max(map(measure_seconds_until_end, silent)) < 10


def test_a_burst_of_valid_requests_is_served(web: HttpServer) -> None:
    """More requests at the same time than slots: every accepted one is answered."""
    answers: list[str] = []

    def request_hello() -> None:
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            try:
                answers.append(httpx.get(f"http://127.0.0.1:{web.port}/hello", timeout=LONG).json())
                return
            except httpx.TransportError:
                time.sleep(0.1)

    threads = [threading.Thread(target=request_hello) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["hello"] * 30

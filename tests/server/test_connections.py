"""HTTP connections that send nothing, too little or too slowly, over real sockets, beside valid requests."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
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
def listening(limits: ConnectionLimits, **told: object) -> Iterator[HttpServer]:
    app = FastAPI()

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.get("/large")
    async def large() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(400):
                yield bytes(1 << 16)

        return StreamingResponse(pieces())

    @app.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    web = HttpServer(app, socket.create_server(("127.0.0.1", 0)), limits, **told)
    thread = threading.Thread(target=web.run_until_stopped, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.01)
    yield web
    web.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def web() -> Iterator[HttpServer]:
    with listening(QUICK) as one:
        yield one


def reach(web: HttpServer, sent: bytes = b"") -> socket.socket:
    line = socket.create_connection(("127.0.0.1", web.port), timeout=LONG)
    line.sendall(sent)
    return line


def seconds_until_end(line: socket.socket) -> float:
    started = time.monotonic()
    try:
        while line.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - started


HEAD = b"GET /hello HTTP/1.1\r\nHost: x\r\n"
WHOLE = HEAD + b"\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        HEAD,
        WHOLE,
        WHOLE + HEAD,
        b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf",
        b"POST /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff",
    ],
    ids="nothing,a letter,half a header,idle after,half a second header,"
    "a body nobody wants,half a chunk".split(","),
)
def test_a_silent_connection_is_closed(web: HttpServer, sent: bytes) -> None:
    with reach(web, sent) as line:
        assert 0.3 < seconds_until_end(line) < 10


def test_a_header_that_trickles_is_closed(web: HttpServer) -> None:
    with reach(web) as line:
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < LONG:
                line.sendall(b"X")
                time.sleep(0.05)
        assert time.monotonic() - started < 10


def test_a_long_header_is_refused_at_once(web: HttpServer) -> None:
    with reach(web, b"GET /hello HTTP/1.1\r\nX: " + b"x" * (64 << 10)) as line:
        assert line.recv(100).startswith(b"HTTP/1.1 400")


def test_an_answer_that_nobody_reads_is_given_up(web: HttpServer) -> None:
    with reach(web, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n") as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ends = time.monotonic() + LONG
        while len(web.connections) and time.monotonic() < ends:
            time.sleep(0.05)
        assert not len(web.connections)


def test_a_large_answer_that_is_read_comes_whole(web: HttpServer) -> None:
    assert len(httpx.get(f"http://127.0.0.1:{web.port}/large", timeout=LONG).content) == 400 << 16


def test_who_reads_with_pauses_gets_everything(web: HttpServer) -> None:
    with reach(web, b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as line:
        got = 0
        while piece := line.recv(1 << 20):
            got += len(piece)
            time.sleep(0.05)
    assert got > 400 << 16


@pytest.mark.parametrize(
    "sent",
    [b"", HEAD, WHOLE, b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"],
    ids="nothing,half a header,idle after,half a body".split(","),
)
def test_silent_ones_keep_nobody_out(sent: bytes) -> None:
    """Many more silent connections than slots, from one address."""
    patient = ConnectionLimits(
        max_connections=12,
        max_connections_per_address=10,
        header_timeout_s=60,
        idle_timeout_s=60,
        unread_timeout_s=60,
    )
    with listening(patient) as web, ExitStack() as lines:
        for _ in range(40):
            lines.enter_context(reach(web, sent))
        assert len(web.connections) <= patient.max_connections_per_address
        time.sleep(1.1)  # very young connections are not replaced
        for _ in range(5):
            started = time.monotonic()
            assert httpx.get(f"http://127.0.0.1:{web.port}/hello", timeout=LONG).json() == "hello"
            assert time.monotonic() - started < 2
        assert len(web.connections) <= patient.max_connections_per_address


def test_what_is_being_answered_keeps_its_place() -> None:
    """A large response is read slowly while many silent connections are opened."""
    with (
        listening(
            ConnectionLimits(max_connections=6, max_connections_per_address=6, header_timeout_s=60)
        ) as web,
        ExitStack() as lines,
    ):
        reader = lines.enter_context(
            reach(web, b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        )
        got = len(reader.recv(1 << 16))
        for _ in range(3):
            time.sleep(1.1)
            for _ in range(8):
                lines.enter_context(reach(web))
            got += len(reader.recv(1 << 20))
        while piece := reader.recv(1 << 20):
            got += len(piece)
    assert got > 400 << 16


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the server, with its key in the same file."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split()
    subprocess.run([*words, "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half a hello"])
def test_a_tls_handshake_that_never_ends(certificate: Path, sent: bytes) -> None:
    tls = {"ssl_certfile": certificate, "ssl_keyfile": certificate}
    with listening(QUICK, **tls) as web, ExitStack() as lines:
        silent = [lines.enter_context(reach(web, sent)) for _ in range(30)]
        assert len(web.connections) <= QUICK.max_connections_per_address
        time.sleep(0.8)
        trusting = ssl.create_default_context(cafile=f"{certificate}.crt")
        started = time.monotonic()
        answer = httpx.get(f"https://localhost:{web.port}/hello", verify=trusting, timeout=LONG)
        assert answer.json() == "hello" and time.monotonic() - started < 5
        assert max(map(seconds_until_end, silent)) < 10


def test_a_burst_of_good_ones_is_served(web: HttpServer) -> None:
    """More requests at the same time than slots: every accepted one is answered."""
    answers: list[str] = []

    def ask() -> None:
        ends = time.monotonic() + LONG
        while time.monotonic() < ends:
            try:
                answers.append(httpx.get(f"http://127.0.0.1:{web.port}/hello", timeout=LONG).json())
                return
            except httpx.TransportError:
                time.sleep(0.1)

    asking: list[Callable[[], None]] = [ask] * 30
    threads = [threading.Thread(target=one) for one in asking]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["hello"] * 30

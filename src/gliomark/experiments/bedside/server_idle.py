"""A real server that silent connections and silent DICOM associations surround: how soon is a good client served?

Every silent one that the server ends comes back at once, so that so many are there all the time.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gliomark.cohort.phantom import make_phantom, write_pictures
from gliomark.cohort.store import write_json
from gliomark.experiments.bedside.poison import Files
from gliomark.experiments.bedside.server_poison import COARSE, FIRST_SEED
from gliomark.experiments.bedside.serving import Served, files_of, resident_mb, send, served
from gliomark.experiments.records import run_record, write_table
from gliomark.files import scratch_folder

NAME = "server_idle"
AGAIN_S = 0.2  # after which a silent one that was ended comes back
BETWEEN_S = 1.0  # between two calls of the good client


def request_of(title: str) -> bytes:
    """A whole A-ASSOCIATE-RQ, taken from pynetdicom as it calls a listener of ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        entity = AE(title)
        entity.acse_timeout = 0.5
        entity.add_requested_context(Verification)
        entity.add_requested_context(MRImageStorage, ImplicitVRLittleEndian)
        asking = threading.Thread(target=entity.associate, args=listener.getsockname())
        asking.start()
        line, _ = listener.accept()
        asked = line.recv(1 << 16)
        line.close()
        asking.join()
    return asked


@dataclass(frozen=True)
class Silent:
    """What one of them says before it falls silent, and to which port. reads: whether it takes what is answered."""

    kind: str
    port: int
    says: bytes
    reads: bool = True


def silent_ones(http: int, dicom: int, token: str, count: int) -> list[Silent]:
    """count over HTTP and count over DICOM, an equal share of each kind."""
    large = b"GET /api/docs/files/swagger-ui-bundle.js HTTP/1.1\r\n"
    head = f"Host: 127.0.0.1:{http}\r\n".encode()
    known = b"Authorization: " + token.encode() + b"\r\n"
    body = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n--x"
    web = [
        Silent("HTTP, idle", http, b""),
        Silent("HTTP, half a header", http, b"GET /api/health HTTP/1.1\r\n" + head),
        Silent("HTTP, half a body", http, b"POST /api/studies HTTP/1.1\r\n" + head + body),
        Silent("HTTP, half a body, with a token", http, b"POST /api/studies HTTP/1.1\r\n" + head + known + body),
        Silent("HTTP, slow reader", http, (large + head + b"\r\n") * 9, reads=False),
    ]  # fmt: skip
    asked = request_of("SILENT")
    pushed = [
        Silent("DICOM, connected", dicom, b""),
        Silent("DICOM, half a request", dicom, asked[: len(asked) // 2]),
        Silent("DICOM, associated", dicom, asked),
        Silent(
            "DICOM, associated, half an object", dicom, asked + struct.pack(">BxL", 4, 16_000) + bytes(1000)
        ),
    ]
    return [kinds[number % len(kinds)] for kinds in (web, pushed) for number in range(count)]


class Crowd:
    """Silent connections that come back when they are ended. came: how often, by kind."""

    def __init__(self, silent: list[Silent]) -> None:
        self._selector, self._over = selectors.DefaultSelector(), threading.Event()
        self._later: list[tuple[float, Silent]] = [(0.0, one) for one in silent]
        self.came: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._live, daemon=True)

    @property
    def open(self) -> int:
        return len(self._selector.get_map())

    @contextmanager
    def there(self) -> Iterator[Crowd]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()

    def _live(self) -> None:
        while not self._over.is_set():
            now = time.monotonic()
            due = [one for when, one in self._later if when <= now]
            self._later = [(when, one) for when, one in self._later if when > now]
            for one in due:
                self._come(one)
            for key, _ in self._selector.select(0.05):
                self._hear(key.fileobj, key.data)  # type: ignore[arg-type]
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]

    def _come(self, one: Silent) -> None:
        self.came[one.kind] += 1
        try:
            line = socket.create_connection(("127.0.0.1", one.port), timeout=5)
            if not one.reads:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.sendall(one.says)
            line.setblocking(False)
            # who does not read hears of its end as soon as it writes; a hang-up is seen all the same
            self._selector.register(line, selectors.EVENT_READ, one)
        except OSError:
            self._later.append((time.monotonic() + AGAIN_S, one))

    def _hear(self, line: socket.socket, one: Silent) -> None:
        try:
            heard = line.recv(1 << 16) if one.reads else line.recv(1, socket.MSG_PEEK)
        except OSError:
            heard = b""
        if heard and not one.reads:
            time.sleep(0.001)  # it stays readable: that is its kind of silence
            heard = b"" if _has_ended(line) else heard
        if not heard:
            self._selector.unregister(line)
            line.close()
            self._later.append((time.monotonic() + AGAIN_S, one))


def _has_ended(line: socket.socket) -> bool:
    """Whether the other side has gone, although there is still something to be read."""
    return line.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 or _tcp_state(line) != ESTABLISHED


ESTABLISHED = 1


def _tcp_state(line: socket.socket) -> int:
    return (
        line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if hasattr(socket, "TCP_INFO")
        else ESTABLISHED
    )


def good_calls(server: Served, patient: Files) -> dict[str, Callable[[], bool]]:
    """What a good client asks, each answering whether it was served."""
    port = server.dicom_port

    def upload() -> bool:
        sent = send(server.client, patient)
        taken = sent.status_code == 201
        return taken and server.client.delete(f"/api/studies/{sent.json()['id']}").status_code == 204

    def echo() -> bool:
        entity = AE("GOOD")
        entity.acse_timeout = entity.dimse_timeout = 10
        entity.add_requested_context(Verification)
        line = entity.associate("127.0.0.1", port, ae_title="GLIOMARK")
        served = line.is_established and line.send_c_echo().get("Status") == 0
        line.release()
        return bool(served)

    return {
        "GET /api/health": lambda: server.client.get("/api/health").json()["status"] == "ok",
        "GET /api/predictions": lambda: server.client.get("/api/predictions").status_code == 200,
        "POST /api/studies": upload,
        "C-ECHO": echo,
    }


def measure(calls: dict[str, Callable[[], bool]], asked: str, seconds: float) -> list[dict[str, Any]]:
    """Each call in turn, until so many seconds are over."""
    rows, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        for name, call in calls.items():
            started = time.perf_counter()
            try:
                served = call()
            except Exception:  # whatever it was, the good client was not served
                served = False
            rows.append(
                {
                    "asked": asked,
                    "call": name,
                    "served": int(served),
                    "seconds": time.perf_counter() - started,
                }
            )
        time.sleep(BETWEEN_S)
    return rows


def run(out: Path, say: Callable[[str], None], count: int, seconds: float) -> Path:
    """Write ``server_idle.csv``, its calls and its record under ``out``; the table's path."""
    with scratch_folder() as root:
        patient = files_of(write_pictures(make_phantom(FIRST_SEED, COARSE).study, root / "patients"))
        with served(root / "data", "--dicom-port", "0") as server:
            calls = good_calls(server, patient)
            measure(calls, "warm", 1)
            rows = measure(calls, "alone", min(20.0, seconds))
            memory = [resident_mb(server.process)]
            port = int(server.client.base_url.port or 0)
            token = server.client.headers["Authorization"]
            with Crowd(silent_ones(port, server.dicom_port, token, count)).there() as crowd:
                time.sleep(2.0)
                say(f"{crowd.open} silent connections are open")
                rows += measure(calls, f"among {2 * count} silent ones", seconds)
                still = crowd.open
            memory.append(resident_mb(server.process))
    every = pd.DataFrame(rows)
    groups = every.groupby(["asked", "call"], sort=False)
    table = pd.DataFrame([_summary(str(asked), str(call), group) for (asked, call), group in groups])
    table = table.assign(open_at_the_end=still, memory_before_mb=memory[0], memory_after_mb=memory[1])
    write_table(table, out / f"{NAME}.csv")
    write_table(every, out / f"{NAME}_calls.csv")
    record = run_record(NAME, silent=count, seconds=seconds, came=dict(crowd.came))
    write_json(out / f"{NAME}_run_record.json", record)
    return out / f"{NAME}.csv"


def _summary(asked: str, call: str, group: pd.DataFrame) -> dict[str, Any]:
    seconds = group["seconds"]
    return {
        "asked": asked,
        "call": call,
        "calls": len(group),
        "unserved": int((1 - group["served"]).sum()),
        "median_s": seconds.median(),
        "p95_s": float(np.percentile(seconds, 95)),
        "worst_s": seconds.max(),
    }

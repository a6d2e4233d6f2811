"""Response time of a server for one active client while many idle HTTP connections and DICOM associations are open.

Every idle connection that the server closes is opened again after a short delay, which keeps their number constant.
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

from gliomark.cohort.store import write_json
from gliomark.experiments.result_files import create_run_record, write_table
from gliomark.experiments.robustness.invalid_uploads import UploadFiles
from gliomark.experiments.robustness.server_invalid_uploads import COARSE_PHANTOM, FIRST_SEED
from gliomark.experiments.robustness.server_process import (
    RunningServer,
    measure_resident_memory_mb,
    read_patient_files,
    send_files,
    start_server,
)
from gliomark.files import scratch_folder
from gliomark.phantom import create_phantom, write_pictures

EXPERIMENT_NAME = "server_idle_connections"
RECONNECT_DELAY_S = 0.2  # delay before a closed idle connection is opened again
CALL_INTERVAL_S = 1.0  # pause of the active client between two rounds of calls


def capture_association_request(ae_title: str) -> bytes:
    """Capture the A-ASSOCIATE-RQ that pynetdicom sends, with a local listener; the bytes of the request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        entity = AE(ae_title)
        entity.acse_timeout = 0.5
        entity.add_requested_context(Verification)
        entity.add_requested_context(MRImageStorage, ImplicitVRLittleEndian)
        requestor_thread = threading.Thread(target=entity.associate, args=listener.getsockname())
        requestor_thread.start()
        connection, _ = listener.accept()
        request = connection.recv(1 << 16)
        connection.close()
        requestor_thread.join()
    return request


@dataclass(frozen=True)
class SilentConnection:
    """Bytes an idle connection sends before it stops, and its port.

    reads_response: whether it reads the server's response.
    """

    kind: str
    port: int
    payload: bytes
    reads_response: bool = True


def create_silent_connections(
    http_port: int, dicom_port: int, authorization: str, count: int
) -> list[SilentConnection]:
    """Create ``count`` HTTP and ``count`` DICOM connections, every kind about equally often."""
    large = b"GET /api/docs/files/swagger-ui-bundle.js HTTP/1.1\r\n"
    head = f"Host: 127.0.0.1:{http_port}\r\n".encode()
    authorization_header = b"Authorization: " + authorization.encode() + b"\r\n"
    body = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n--x"
    http_kinds = [
        SilentConnection("HTTP, idle", http_port, b""),
        SilentConnection("HTTP, half a header", http_port, b"GET /api/health HTTP/1.1\r\n" + head),
        SilentConnection("HTTP, half a body", http_port, b"POST /api/studies HTTP/1.1\r\n" + head + body),
        SilentConnection(
            "HTTP, half a body, with a token",
            http_port,
            b"POST /api/studies HTTP/1.1\r\n" + head + authorization_header + body,
        ),
        SilentConnection("HTTP, slow reader", http_port, (large + head + b"\r\n") * 9, reads_response=False),
    ]
    request = capture_association_request("SILENT")
    dicom_kinds = [
        SilentConnection("DICOM, connected", dicom_port, b""),
        SilentConnection("DICOM, half a request", dicom_port, request[: len(request) // 2]),
        SilentConnection("DICOM, associated", dicom_port, request),
        SilentConnection(
            "DICOM, associated, half an object",
            dicom_port,
            request + struct.pack(">BxL", 4, 16_000) + bytes(1000),
        ),
    ]
    return [kinds[number % len(kinds)] for kinds in (http_kinds, dicom_kinds) for number in range(count)]


class SilentConnectionPool:
    """Idle connections that are opened again when the server closes them.

    connection_counts: number of connections opened so far, by kind.
    """

    def __init__(self, silent: list[SilentConnection]) -> None:
        self._selector, self._stop_event = selectors.DefaultSelector(), threading.Event()
        self._reconnections: list[tuple[float, SilentConnection]] = [(0.0, one) for one in silent]
        self.connection_counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._maintain_connections, daemon=True)

    @property
    def open_count(self) -> int:
        """Number of connections that are open now."""
        return len(self._selector.get_map())

    @contextmanager
    def keep_open(self) -> Iterator[SilentConnectionPool]:
        """Keep the connections open inside the ``with`` block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop_event.set()
            self._thread.join()

    def _maintain_connections(self) -> None:
        while not self._stop_event.is_set():
            now = time.monotonic()
            due = [one for when, one in self._reconnections if when <= now]
            self._reconnections = [(when, one) for when, one in self._reconnections if when > now]
            for one in due:
                self._connect(one)
            for key, _ in self._selector.select(0.05):
                self._receive(key.fileobj, key.data)  # type: ignore[arg-type]
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]

    def _connect(self, connection: SilentConnection) -> None:
        self.connection_counts[connection.kind] += 1
        try:
            client_socket = socket.create_connection(("127.0.0.1", connection.port), timeout=5)
            if not connection.reads_response:
                client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client_socket.sendall(connection.payload)
            client_socket.setblocking(False)
            # A connection that does not read still becomes readable when the server closes it.
            self._selector.register(client_socket, selectors.EVENT_READ, connection)
        except OSError:
            self._reconnections.append((time.monotonic() + RECONNECT_DELAY_S, connection))

    def _receive(self, client_socket: socket.socket, connection: SilentConnection) -> None:
        try:
            received = (
                client_socket.recv(1 << 16)
                if connection.reads_response
                else client_socket.recv(1, socket.MSG_PEEK)
            )
        except OSError:
            received = b""
        if received and not connection.reads_response:
            time.sleep(0.001)  # unread data keeps the socket readable, so poll slowly
            received = b"" if _is_closed(client_socket) else received
        if not received:
            self._selector.unregister(client_socket)
            client_socket.close()
            self._reconnections.append((time.monotonic() + RECONNECT_DELAY_S, connection))


def _is_closed(client_socket: socket.socket) -> bool:
    """Whether the server has closed the connection, although unread data remain."""
    return (
        client_socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        or _read_tcp_state(client_socket) != TCP_ESTABLISHED
    )


TCP_ESTABLISHED = 1


def _read_tcp_state(client_socket: socket.socket) -> int:
    return (
        client_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if hasattr(socket, "TCP_INFO")
        else TCP_ESTABLISHED
    )


def create_client_calls(server: RunningServer, patient: UploadFiles) -> dict[str, Callable[[], bool]]:
    """Create the calls of the active client, by name; each returns whether the server served it."""
    port = server.dicom_port

    def upload_study() -> bool:
        response = send_files(server.client, patient)
        is_accepted = response.status_code == 201
        return (
            is_accepted and server.client.delete(f"/api/studies/{response.json()['id']}").status_code == 204
        )

    def send_echo() -> bool:
        entity = AE("GOOD")
        entity.acse_timeout = entity.dimse_timeout = 10
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", port, ae_title="GLIOMARK")
        served = association.is_established and association.send_c_echo().get("Status") == 0
        association.release()
        return bool(served)

    return {
        "GET /api/health": lambda: server.client.get("/api/health").json()["status"] == "ok",
        "GET /api/predictions": lambda: server.client.get("/api/predictions").status_code == 200,
        "POST /api/studies": upload_study,
        "C-ECHO": send_echo,
    }


def measure_calls(
    calls: dict[str, Callable[[], bool]], scenario: str, seconds: float
) -> list[dict[str, Any]]:
    """Repeat all calls in turn for the given number of seconds; one row per call."""
    rows, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        for name, call in calls.items():
            started = time.perf_counter()
            try:
                served = call()
            except Exception:  # any failure counts as not served
                served = False
            rows.append(
                {
                    "asked": scenario,
                    "call": name,
                    "served": int(served),
                    "seconds": time.perf_counter() - started,
                }
            )
        time.sleep(CALL_INTERVAL_S)
    return rows


def run_server_idle_connections(
    output_folder: Path, notify: Callable[[str], None], silent_count: int, seconds: float
) -> Path:
    """Write ``server_idle_connections.csv``, its calls and its run record; the path of the table.

    silent_count: number of idle connections for each of HTTP and DICOM; seconds: duration of the measurement.
    """
    with scratch_folder() as root:
        patient = read_patient_files(
            write_pictures(create_phantom(FIRST_SEED, COARSE_PHANTOM).study, root / "patients")
        )
        with start_server(root / "data", "--dicom-port", "0") as server:
            calls = create_client_calls(server, patient)
            measure_calls(calls, "warm", 1)
            rows = measure_calls(calls, "alone", min(20.0, seconds))
            memory = [measure_resident_memory_mb(server.process_id)]
            port = int(server.client.base_url.port or 0)
            token = server.client.headers["Authorization"]
            with SilentConnectionPool(
                create_silent_connections(port, server.dicom_port, token, silent_count)
            ).keep_open() as crowd:
                time.sleep(2.0)
                notify(f"{crowd.open_count} idle connections are open")
                rows += measure_calls(calls, f"among {2 * silent_count} silent ones", seconds)
                open_at_end = crowd.open_count
            memory.append(measure_resident_memory_mb(server.process_id))
    all_calls = pd.DataFrame(rows)
    groups = all_calls.groupby(["asked", "call"], sort=False)
    table = pd.DataFrame([_summarise_calls(str(asked), str(call), group) for (asked, call), group in groups])
    table = table.assign(open_at_the_end=open_at_end, memory_before_mb=memory[0], memory_after_mb=memory[1])
    write_table(table, output_folder / f"{EXPERIMENT_NAME}.csv")
    write_table(all_calls, output_folder / f"{EXPERIMENT_NAME}_calls.csv")
    record = create_run_record(
        EXPERIMENT_NAME, silent=silent_count, seconds=seconds, connections=dict(crowd.connection_counts)
    )
    write_json(output_folder / f"{EXPERIMENT_NAME}_run_record.json", record)
    return output_folder / f"{EXPERIMENT_NAME}.csv"


def _summarise_calls(scenario: str, call: str, group: pd.DataFrame) -> dict[str, Any]:
    seconds = group["seconds"]
    return {
        "asked": scenario,
        "call": call,
        "calls": len(group),
        "unserved": int((1 - group["served"]).sum()),
        "median_s": seconds.median(),
        "p95_s": float(np.percentile(seconds, 95)),
        "worst_s": seconds.max(),
    }

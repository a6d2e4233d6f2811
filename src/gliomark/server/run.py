"""``gliomark serve`` put together: records, store, workers, gate, and uvicorn on one socket."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from gliomark.isolation import ReadingProcesses
from gliomark.messages import message
from gliomark.models.shelf import weights_file
from gliomark.models.signatures import Trust, read_checked
from gliomark.server.app import create_app
from gliomark.server.audit_writer import AuditWriter
from gliomark.server.bodies import Inlet, Limits
from gliomark.server.connections import ConnectionLimits, Web
from gliomark.server.context import Server
from gliomark.server.dicom_node import DicomNode, Node
from gliomark.server.events import Watch
from gliomark.server.jobs import STUCK_S, Workers
from gliomark.server.older import take_over_all
from gliomark.server.records import Records, connect
from gliomark.server.security import Address, Gate, check_address
from gliomark.server.store import Store
from gliomark.study import GliomarkError

SECRET = "GLIOMARK_TOKEN"  # noqa: S105 - the name of an environment variable, not a token
WAIT_S = 20.0  # for a server that is still ending


@dataclass(frozen=True)
class Settings:
    """What the command line asked for. database: a URL, by default SQLite in the data folder; models: name to
    weights file or shipped name; trust: whose weights are loaded; node: to be a DICOM node as well; with_input:
    to end when standard input does, as it does when whoever started the server has died, and to tell the address as
    data; stuck_s: for so long a job may make no progress."""

    data: Path
    address: Address = Address()
    database: str = ""
    workers: int = 1
    models: Mapping[str, str] | None = None
    limits: Limits = Limits()
    connections: ConnectionLimits = ConnectionLimits()
    node: Node | None = None
    with_input: bool = False
    stuck_s: float = STUCK_S
    trust: Trust = Trust()


def open_records(data: Path, database: str) -> Records:
    """The records in the data folder or at the URL. Raises GliomarkError where they cannot be opened."""
    store = Store.at(data)
    return Records(connect(database or f"sqlite:///{store.folder.absolute() / 'gliomark.db'}"))


def make_server(settings: Settings) -> Server:
    """All parts, nothing started. Raises GliomarkError for what the user can mend."""
    records = open_records(settings.data, settings.database)
    secret = os.environ.get(SECRET) or None
    check_address(settings.address, records, secret)
    models = dict(settings.models or {"demo": "demo"})
    for name, file in models.items():
        if file != "demo" and not Path(file).is_file():
            raise GliomarkError(message("model-file-missing", file=file, model=name))
    folder = settings.data.absolute()
    trust = pinned(models, settings.trust)
    workers = Workers(records, folder, models, settings.workers, settings.stuck_s, trust)
    gate = Gate(records, settings.address.loopback, secret)
    limits = settings.limits
    inlet, watch = Inlet(limits), Watch(records, limits)
    reading = ReadingProcesses(limits.at_once + 1)  # a process for every upload and for the DICOM node
    audit = AuditWriter(records)
    return Server(records, Store(folder), workers, gate, models, limits, inlet, reading, watch, audit)


def pinned(models: Mapping[str, str], trust: Trust) -> Trust:
    """Where signatures are demanded: the same, and each file must stay what it is now, when a worker loads it.

    Raises GliomarkError for a file that is not signed by a trusted key.
    """
    if not trust.keys:
        return trust
    hashes = {}
    for name in models.values():
        with weights_file(name) as path:
            hashes[str(path)] = read_checked(path, trust).sha256
    return replace(trust, pinned=hashes)


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Listen until stopped, alone in the data folder. port 0 takes a free one; ``say`` is told the address."""
    server, address = make_server(settings), settings.address
    lock = _alone(settings.data)  # held as long as this function runs
    server.recover()
    take_over_all(server.store, server.records)
    _log_discreetly()
    try:
        bound = socket.create_server((address.host, address.port), family=_family(address.host))
    except OSError as error:
        raise GliomarkError(
            message("port-taken", port=address.port, host=address.host, reason=str(error.strerror or error))
        ) from None
    tls = {"ssl_certfile": address.certificate, "ssl_keyfile": address.key}
    web = Web(create_app(server), bound, settings.connections, **tls)
    server.workers.on_broken = lambda: setattr(web, "should_exit", True)
    at = f"{'https' if address.certificate else 'http'}://{address.host}:{web.port}"
    say(f"gliomark listens on {at}")
    if settings.with_input:
        say(json.dumps({"address": at}))
        threading.Thread(target=_end_with_input, args=(web,), daemon=True).start()
    node = None if settings.node is None else DicomNode(server, settings.node)
    if node is not None:
        node.start()
        say(f"DICOM node {node.node.title} on port {node.port}")
    try:
        web.listen()
    finally:
        if node is not None:
            node.stop()
        lock.release()
    if server.workers.broken:
        raise GliomarkError(server.workers.broken)


def _alone(data: Path) -> FileLock:
    """The data folder's lock. Raises GliomarkError where another server holds it."""
    lock = FileLock(data / "lock")
    try:
        lock.acquire(timeout=WAIT_S)
    except Timeout:
        raise GliomarkError(message("data-folder-taken", folder=str(data))) from None
    return lock


def _log_discreetly() -> None:
    """Of the libraries only what is wrong, and no traceback: both hold UIDs, ids and paths."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("gliomark").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(_without_traceback)
    logging.getLogger("uvicorn.error").setLevel(
        logging.ERROR
    )  # a line for every bad request would fill the disk
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


def _end_with_input(web: Web) -> None:
    sys.stdin.buffer.read()
    web.should_exit = True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET

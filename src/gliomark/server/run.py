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

from gliomark.isolation import ReaderPool
from gliomark.messages import message
from gliomark.models.shelf import resolve_weights_file
from gliomark.models.signatures import TrustPolicy, read_verified_content
from gliomark.server.app import create_app
from gliomark.server.audit_writer import AuditWriter
from gliomark.server.bodies import RequestLimits, UploadSlots
from gliomark.server.connections import ConnectionLimits, HttpServer
from gliomark.server.context import Server
from gliomark.server.dicom_node import DicomNode, DicomNodeConfig
from gliomark.server.events import RowWatcher
from gliomark.server.jobs import JOB_STALL_TIMEOUT_S, WorkerPool
from gliomark.server.older import convert_legacy_data
from gliomark.server.records import Database, connect_database
from gliomark.server.security import Authenticator, ServerAddress, check_address
from gliomark.server.store import StudyStore
from gliomark.study import GliomarkError

TOKEN_VARIABLE = "GLIOMARK_TOKEN"  # noqa: S105 - the name of an environment variable, not a token
LOCK_TIMEOUT_S = 20.0  # for a server that is still ending


@dataclass(frozen=True)
class ServerConfig:
    """What the command line asked for. database: a URL, by default SQLite in the data folder; models: name to
    weights file or shipped name; trust: whose weights are loaded; node: to be a DICOM node as well; with_input:
    to end when standard input does, as it does when whoever started the server has died, and to tell the address as
    data; stuck_s: for so long a job may make no progress."""

    data_folder: Path
    address: ServerAddress = ServerAddress()
    database_url: str = ""
    worker_count: int = 1
    model_files: Mapping[str, str] | None = None
    request_limits: RequestLimits = RequestLimits()
    connection_limits: ConnectionLimits = ConnectionLimits()
    dicom_node_config: DicomNodeConfig | None = None
    stops_with_stdin: bool = False
    job_stall_timeout_s: float = JOB_STALL_TIMEOUT_S
    trust: TrustPolicy = TrustPolicy()


def open_database(data_folder: Path, database_url: str) -> Database:
    """The records in the data folder or at the URL. Raises GliomarkError where they cannot be opened."""
    store = StudyStore.from_folder(data_folder)
    return Database(
        connect_database(database_url or f"sqlite:///{store.data_folder.absolute() / 'gliomark.db'}")
    )


def create_server(config: ServerConfig) -> Server:
    """All parts, nothing started. Raises GliomarkError for what the user can mend."""
    database = open_database(config.data_folder, config.database_url)
    startup_token = os.environ.get(TOKEN_VARIABLE) or None
    check_address(config.address, database, startup_token)
    model_files = dict(config.model_files or {"demo": "demo"})
    for name, weights in model_files.items():
        if weights != "demo" and not Path(weights).is_file():
            raise GliomarkError(message("model-file-missing", file=weights, model=name))
    folder = config.data_folder.absolute()
    trust = pin_weights(model_files, config.trust)
    worker_pool = WorkerPool(
        database, folder, model_files, config.worker_count, config.job_stall_timeout_s, trust
    )
    authenticator = Authenticator(database, config.address.is_loopback, startup_token)
    request_limits = config.request_limits
    upload_slots, row_watcher = UploadSlots(request_limits), RowWatcher(database, request_limits)
    reader_pool = ReaderPool(
        request_limits.max_uploads + 1
    )  # a process for every upload and for the DICOM node
    audit_writer = AuditWriter(database)
    return Server(
        database,
        StudyStore(folder),
        worker_pool,
        authenticator,
        model_files,
        request_limits,
        upload_slots,
        reader_pool,
        row_watcher,
        audit_writer,
    )


def pin_weights(model_files: Mapping[str, str], trust: TrustPolicy) -> TrustPolicy:
    """Where signatures are demanded: the same, and each file must stay what it is now, when a worker loads it.

    Raises GliomarkError for a file that is not signed by a trusted key.
    """
    if not trust.public_keys:
        return trust
    hashes = {}
    for name in model_files.values():
        with resolve_weights_file(name) as path:
            hashes[str(path)] = read_verified_content(path, trust).sha256
    return replace(trust, pinned=hashes)


def run_server(config: ServerConfig, notify: Callable[[str], None]) -> None:
    """Listen until stopped, alone in the data folder. port 0 takes a free one; ``say`` is told the address."""
    server, address = create_server(config), config.address
    lock = _lock_data_folder(config.data_folder)  # held as long as this function runs
    server.recover_interrupted_studies()
    convert_legacy_data(server.store, server.database)
    _configure_logging()
    try:
        bound_socket = socket.create_server(
            (address.host, address.port), family=_get_address_family(address.host)
        )
    except OSError as error:
        raise GliomarkError(
            message("port-taken", port=address.port, host=address.host, reason=str(error.strerror or error))
        ) from None
    tls = {"ssl_certfile": address.certificate, "ssl_keyfile": address.key}
    http_server = HttpServer(create_app(server), bound_socket, config.connection_limits, **tls)
    server.worker_pool.on_startup_error = lambda: setattr(http_server, "should_exit", True)
    url = f"{'https' if address.certificate else 'http'}://{address.host}:{http_server.port}"
    notify(f"gliomark listens on {url}")
    if config.stops_with_stdin:
        notify(json.dumps({"address": url}))
        threading.Thread(target=_stop_with_stdin, args=(http_server,), daemon=True).start()
    node = None if config.dicom_node_config is None else DicomNode(server, config.dicom_node_config)
    if node is not None:
        node.start()
        notify(f"DICOM node {node.config.ae_title} on port {node.port}")
    try:
        http_server.run_until_stopped()
    finally:
        if node is not None:
            node.stop()
        lock.release()
    if server.worker_pool.startup_error:
        raise GliomarkError(server.worker_pool.startup_error)


def _lock_data_folder(data_folder: Path) -> FileLock:
    """The data folder's lock. Raises GliomarkError where another server holds it."""
    lock = FileLock(data_folder / "lock")
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        raise GliomarkError(message("data-folder-taken", folder=str(data_folder))) from None
    return lock


def _configure_logging() -> None:
    """Of the libraries only what is wrong, and no traceback: both hold UIDs, ids and paths."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("gliomark").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(_remove_traceback)
    logging.getLogger("uvicorn.error").setLevel(
        logging.ERROR
    )  # a line for every bad request would fill the disk
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def _remove_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


def _stop_with_stdin(http_server: HttpServer) -> None:
    sys.stdin.buffer.read()
    http_server.should_exit = True


def _get_address_family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET

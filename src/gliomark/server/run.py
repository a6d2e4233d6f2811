"""``gliomark serve``: create the server's parts from the configuration and run uvicorn on one socket."""

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

from gliomark.errors import ConfigurationError
from gliomark.isolation import ReaderPool
from gliomark.messages import message
from gliomark.models.shipped_weights import SHIPPED_MODELS, resolve_weights_file
from gliomark.models.signatures import TrustPolicy, read_verified_content
from gliomark.server.app import create_app
from gliomark.server.audit_writer import AuditWriter
from gliomark.server.body_limits import RequestLimits, UploadSlots
from gliomark.server.connections import ConnectionLimits, HttpServer
from gliomark.server.database import Database, connect_database
from gliomark.server.dependencies import Server
from gliomark.server.dicom_node import DicomNode, DicomNodeConfig
from gliomark.server.events import RowWatcher
from gliomark.server.legacy_data import convert_legacy_data
from gliomark.server.security import Authenticator, ServerAddress, check_address
from gliomark.server.study_store import StudyStore
from gliomark.server.worker import STUDY_MEMORY_MB
from gliomark.server.worker_pool import JOB_STALL_TIMEOUT_S, WorkerPool

TOKEN_VARIABLE = "GLIOMARK_TOKEN"  # noqa: S105 - the name of an environment variable, not a token
LOCK_TIMEOUT_S = 20.0  # longest wait for a previous server that is still ending


@dataclass(frozen=True)
class ServerConfig:
    """Configuration of the server.

    Attributes
    ----------
    data_folder
        Folder of all images, results and, by default, the database.
    address
        Where to listen, with or without TLS.
    database_url
        Database URL; empty for SQLite in the data folder.
    worker_count
        Worker processes.
    model_files
        Model name to weights file or shipped name; the first is the default.
    request_limits
        Limits of requests and uploads.
    connection_limits
        Limits of HTTP connections.
    dicom_node_config
        Configuration of the DICOM node; None for no node.
    stops_with_stdin
        Whether to stop when standard input closes, because the program that started the server has ended, and to
        print the address as JSON.
    job_stall_timeout_s
        A worker that reports no progress for so long is killed.
    trust
        Keys whose signatures are accepted on weights files.
    device
        Where the networks compute, see ``Model.to_device``.
    study_memory_mb
        Memory of every worker for the last studies, in MB.
    """

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
    device: str = "cpu"
    study_memory_mb: float = STUDY_MEMORY_MB


def open_database(data_folder: Path, database_url: str) -> Database:
    """Open the database in the data folder or at the URL.

    Raises
    ------
    ConfigurationError
        If the folder or database cannot be opened.
    """
    store = StudyStore.from_folder(data_folder)
    return Database(
        connect_database(database_url or f"sqlite:///{store.data_folder.absolute() / 'gliomark.db'}")
    )


def create_server(config: ServerConfig) -> Server:
    """Create all parts of a server without starting them.

    Raises
    ------
    ConfigurationError
        If the address, database or data folder cannot be used or a weights file is missing.
    WeightsError
        If a weights file is not signed by a trusted key.
    """
    database = open_database(config.data_folder, config.database_url)
    startup_token = os.environ.get(TOKEN_VARIABLE) or None
    check_address(config.address, database, startup_token)
    model_files = dict(config.model_files or {"demo": "demo"})
    for name, weights in model_files.items():
        if weights not in SHIPPED_MODELS and not Path(weights).is_file():
            raise ConfigurationError(message("model-file-missing", file=weights, model=name))
    folder = config.data_folder.absolute()
    trust = pin_weights(model_files, config.trust)
    worker_pool = WorkerPool(
        database,
        folder,
        model_files,
        config.worker_count,
        config.job_stall_timeout_s,
        trust,
        config.device,
        config.study_memory_mb,
    )
    authenticator = Authenticator(database, config.address.is_loopback, startup_token)
    request_limits = config.request_limits
    upload_slots, row_watcher = UploadSlots(request_limits), RowWatcher(database, request_limits)
    reader_pool = ReaderPool(
        request_limits.max_uploads + 1
    )  # one process for every upload and one for the DICOM node
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
    """Require that each weights file keeps its present hash until a worker loads it, if signatures are required.

    Raises
    ------
    WeightsError
        If a file is not signed by a trusted key.
    """
    if not trust.public_keys:
        return trust
    hashes = {}
    for name in model_files.values():
        with resolve_weights_file(name) as path:
            hashes[str(path)] = read_verified_content(path, trust).sha256
    return replace(trust, pinned_hashes=hashes)


def run_server(config: ServerConfig, notify: Callable[[str], None]) -> None:
    """Run the server until it is stopped; only one may use the data folder.

    Parameters
    ----------
    config
        The configuration; port 0 selects a free port.
    notify
        Called with lines for standard output, such as the address.

    Raises
    ------
    ConfigurationError
        If the port or the data folder is in use, or the workers cannot load the models.
    """
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
        raise ConfigurationError(
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
        raise ConfigurationError(server.worker_pool.startup_error)


def _lock_data_folder(data_folder: Path) -> FileLock:
    """Lock the data folder.

    Raises
    ------
    ConfigurationError
        If another server holds the lock.
    """
    lock = FileLock(data_folder / "lock")
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        raise ConfigurationError(message("data-folder-taken", folder=str(data_folder))) from None
    return lock


def _configure_logging() -> None:
    """Set up logging: only errors of libraries and no tracebacks, which contain UIDs, ids and paths."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("gliomark").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").addFilter(_remove_traceback)
    logging.getLogger("uvicorn.error").setLevel(
        logging.ERROR
    )  # a warning for every invalid request would fill the disk
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def _remove_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


def _stop_with_stdin(http_server: HttpServer) -> None:
    sys.stdin.buffer.read()
    http_server.should_exit = True


def _get_address_family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET

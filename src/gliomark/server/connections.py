"""HTTP connections within limits; when all slots are taken, the one idle longest is closed.

uvicorn limits only the time between two requests. Here a connection also has limited time to send the header of a
request (including the TLS handshake) and to read its response. When all slots are taken, a new connection replaces
the one that has been waiting longest without sending a request, so that silent connections cannot block others.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

LOG = logging.getLogger("gliomark.server")
MAX_HEADER_BYTES = 16 << 10  # bytes of a request's header
TICKS_PER_SWEEP = 5  # uvicorn has ten ticks a second
CLOSE_TIMEOUT_S = 5.0  # for the last bytes of a response when the connection is being closed
WRITE_BUFFER_DRAIN_BYTES = 48 << 10  # bytes between the low and high marks of asyncio's write buffer
MIN_CONNECTION_AGE_S = 1.0  # a younger connection is not replaced


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of the HTTP listener.

    Attributes
    ----------
    max_connections
        Open connections.
    max_connections_per_address
        Open connections from one network address.
    header_timeout_s
        Time until the header of a request is complete.
    idle_timeout_s
        Time between a response and the next request.
    unread_timeout_s
        Time in which the client reads nothing of a pending response.
    min_bytes_per_s
        Minimum rate at which a response is read after the first minute.
    """

    max_connections: int = 400
    max_connections_per_address: int = 300
    header_timeout_s: float = 10.0
    idle_timeout_s: float = 10.0
    unread_timeout_s: float = 20.0
    min_bytes_per_s: float = 20_000.0


@dataclass(eq=False)
class HttpConnection:
    """An accepted connection. Times are monotonic, in seconds; 0 stands for none.

    Attributes
    ----------
    protocol
        None until TLS is negotiated.
    waiting_since
        Start of waiting for a request; 0 while one is being answered.
    last_received_at
        When data last arrived.
    response_count
        Responses sent.
    closing_since
        Start of closing.
    unread_bytes
        Bytes of the response that were unread at the last check.
    last_drained_at
        When they last became fewer.
    unread_since
        Since when there are unread bytes.
    drained_bytes
        Bytes of the response that the client has read.
    """

    client_socket: socket.socket
    address: str
    protocol: BoundedHttpProtocol | None = None
    waiting_since: float = field(default_factory=time.monotonic)
    last_received_at: float = field(default_factory=time.monotonic)
    response_count: int = 0
    closing_since: float = 0.0
    unread_bytes: int = 0
    last_drained_at: float = 0.0
    unread_since: float = 0.0
    drained_bytes: int = 0

    def abort(self) -> None:
        """Close the connection immediately; unsent data are dropped."""
        if self.protocol is not None:
            self.protocol.transport.abort()
            return
        with suppress(OSError):  # during a TLS handshake: asyncio sees the end of the connection
            self.client_socket.shutdown(socket.SHUT_RDWR)

    def update_unread(self, now: float) -> None:
        """Update how much of the response is unread."""
        pending = 0 if self.protocol is None else self.protocol.transport.get_write_buffer_size()
        if not pending:
            self.unread_bytes, self.unread_since, self.drained_bytes = 0, 0.0, 0
            return
        if not self.unread_since:
            self.unread_since = self.last_drained_at = now
        elif pending != self.unread_bytes:
            self.drained_bytes += max(0, self.unread_bytes - pending)
            self.last_drained_at = now
        self.unread_bytes = pending

    @property
    def eviction_rank(self) -> tuple[int, float]:
        """Order of closing, lowest first: group, and time since which the connection has been idle.

        Group 0 waits for a request; group 1 is transferring a body or response; in group 2 a request is being
        processed, and the connection is never closed for another.
        """
        if self.unread_since:
            return 1, self.last_drained_at
        if self.waiting_since:
            return 0, self.waiting_since
        if self.protocol is not None and self.protocol.is_receiving:
            return 1, self.last_received_at
        return 2, self.last_received_at


class HttpConnections:
    """All open connections, kept within limits. Used only in the event loop."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open: dict[Any, HttpConnection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit_connection(self, client_socket: socket.socket, peer_name: Any) -> bool:
        """Add a connection, if necessary in place of another.

        Parameters
        ----------
        client_socket
            The accepted socket.
        peer_name
            Address and port of the peer.

        Returns
        -------
        bool
            False if there is no slot.
        """
        address = str(peer_name[0]) if isinstance(peer_name, tuple) else ""
        self._remove_closed()
        connections_of_address = [one for one in self._open.values() if one.address == address]
        if len(connections_of_address) >= self.limits.max_connections_per_address and not self._evict_one(
            connections_of_address
        ):
            return False
        if len(self._open) >= self.limits.max_connections and not self._evict_one(list(self._open.values())):
            return False
        self._open[peer_name] = HttpConnection(client_socket, address)
        return True

    def get_or_add_connection(self, peer_name: Any, client_socket: Any) -> HttpConnection:
        """Return the connection of a peer; added here if another listener accepted it."""
        return self._open.setdefault(peer_name, HttpConnection(client_socket, str(peer_name)))

    def remove_connection(self, peer_name: Any) -> None:
        """Remove the connection of a peer."""
        self._open.pop(peer_name, None)

    def abort_expired(self) -> None:
        """Close connections that have exceeded a time limit."""
        self._remove_closed()
        now = time.monotonic()
        expired = [one for one in self._open.values() if self._is_expired(one, now)]
        for one in expired:
            one.abort()
        if expired:
            LOG.info("%d silent or slow connections closed", len(expired))

    def _is_expired(self, connection: HttpConnection, now: float) -> bool:
        limits = self.limits
        connection.update_unread(now)
        if connection.unread_since:
            too_slow = now - connection.unread_since > 60 + connection.drained_bytes / limits.min_bytes_per_s
            return too_slow or now - connection.last_drained_at > limits.unread_timeout_s
        if connection.protocol is not None and connection.protocol.transport.is_closing():
            connection.closing_since = connection.closing_since or now
            return now - connection.closing_since > CLOSE_TIMEOUT_S
        return bool(connection.waiting_since) and now - connection.waiting_since > limits.header_timeout_s + (
            limits.idle_timeout_s if connection.response_count else 0.0
        )

    def _evict_one(self, candidates: list[HttpConnection]) -> bool:
        first = min(candidates, key=lambda one: one.eviction_rank)
        if first.eviction_rank[0] == 2 or time.monotonic() - first.eviction_rank[1] < min(
            MIN_CONNECTION_AGE_S, self.limits.header_timeout_s
        ):
            return False
        first.abort()
        self._open = {name: one for name, one in self._open.items() if one is not first}
        return True

    def _remove_closed(self) -> None:
        self._open = {name: one for name, one in self._open.items() if one.client_socket.fileno() >= 0}


class Listener(socket.socket):
    """A listening socket that checks each new connection against the limits before TLS and HTTP."""

    connections: HttpConnections

    @staticmethod
    def from_socket(bound_socket: socket.socket, connections: HttpConnections) -> Listener:
        """Return a listener that takes over a bound socket, which must not be used afterwards."""
        listener = Listener(
            bound_socket.family, bound_socket.type, bound_socket.proto, fileno=bound_socket.detach()
        )
        listener.connections = connections
        return listener

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection.

        Raises
        ------
        ConnectionAbortedError
            If there is no slot; asyncio ignores this error.
        """
        client_socket, peer_name = super().accept()
        if not self.connections.admit_connection(client_socket, peer_name):
            client_socket.close()
            raise ConnectionAbortedError
        return client_socket, peer_name


class BoundedHttpProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol that also records the state of its connection."""

    def __init__(self, *args: Any, connections: HttpConnections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = connections

    @property
    def is_receiving(self) -> bool:
        """Whether a request body is being received."""
        return self.cycle is not None and not self.cycle.response_complete and self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Attach this protocol to its connection."""
        self._peer_name = transport.get_extra_info("peername")
        self._connection = self._connections.get_or_add_connection(
            self._peer_name, transport.get_extra_info("socket")
        )
        self._connection.protocol = self
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection."""
        self._connections.remove_connection(self._peer_name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Record the time and pass the data on."""
        self._connection.last_received_at = time.monotonic()
        super().data_received(data)

    def handle_events(self) -> None:
        """Process received data; the connection no longer waits once a request is complete."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._connection.waiting_since = 0.0

    def on_response_complete(self) -> None:
        """Record that the connection waits for its next request."""
        self._connection.waiting_since = time.monotonic()
        self._connection.response_count += 1
        super().on_response_complete()

    def resume_writing(self) -> None:
        """Count the bytes that the client has read."""
        self._connection.drained_bytes += WRITE_BUFFER_DRAIN_BYTES
        super().resume_writing()


class HttpServer(uvicorn.Server):
    """uvicorn on one bound socket, with limited connections."""

    def __init__(
        self, app: Any, bound_socket: socket.socket, limits: ConnectionLimits, **config_options: Any
    ) -> None:
        self.connections = HttpConnections(limits)
        self._listener = Listener.from_socket(bound_socket, self.connections)
        self.port: int = self._listener.getsockname()[1]

        def create_protocol(*args: Any, **kwargs: Any) -> BoundedHttpProtocol:
            return BoundedHttpProtocol(*args, connections=self.connections, **kwargs)

        super().__init__(
            uvicorn.Config(
                app,
                http=create_protocol,  # type: ignore[arg-type]
                ws="none",
                loop="asyncio",  # other loops do not call the socket's accept()
                access_log=False,  # its lines would contain patient ids; the application logs its own
                log_level="error",
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                timeout_keep_alive=int(max(1, limits.idle_timeout_s)),
                timeout_graceful_shutdown=5,
                **config_options,
            )
        )

    def run_until_stopped(self) -> None:
        """Serve until the server is stopped."""
        self.run(sockets=[self._listener])

    async def on_tick(self, counter: int) -> bool:
        """Close expired connections every few ticks."""
        if counter % TICKS_PER_SWEEP == 0:
            self.connections.abort_expired()
        return await super().on_tick(counter)

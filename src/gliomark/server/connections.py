"""Open HTTP connections within limits: how many, how long they may stay silent, and who goes when there are too many.

uvicorn bounds the time between two requests and nothing else. Here a connection has so long to send the lines of a
request (a TLS handshake included) and to read its answer. Where every place is taken, the newcomer gets the place of
the connection that has owed a request for longest, so that silent ones cannot keep anybody out.
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
LONGEST_HEADERS = 16 << 10  # bytes of a request's lines
SWEEP_TICKS = 5  # of uvicorn's ten a second
LEAVING_S = 5.0  # for an answer's last bytes once the connection is closed
LOW_TO_HIGH = 48 << 10  # bytes read between two pauses of asyncio's writing
YOUNG_S = 1.0  # so young a connection keeps its place


@dataclass(frozen=True)
class ConnectionLimits:
    """most: connections open at once; each: of one address; header_s: until a request's lines are whole;
    idle_s: between an answer and the next request; unread_s: that an answer may lie unread; slowest: bytes per second
    that an answer is read with after the first minute."""

    most: int = 400
    each: int = 300
    header_s: float = 10.0
    idle_s: float = 10.0
    unread_s: float = 20.0
    slowest: float = 20_000.0


@dataclass(eq=False)
class Connection:
    """One that was accepted.

    protocol: None until TLS is agreed; waits: since when it owes a request, 0 while one is being answered; heard: when
    it last sent something; answers: that it was given; closed: since when it is being closed; pending: bytes of its
    answer that lay unread at the last look, moved: when they last became fewer, unread: since when there are any, 0
    while there are none; read: bytes of them that it has taken.
    """

    line: socket.socket
    address: str
    protocol: BoundedProtocol | None = None
    waits: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    answers: int = 0
    closed: float = 0.0
    pending: int = 0
    moved: float = 0.0
    unread: float = 0.0
    read: int = 0

    def end(self) -> None:
        """Now, whatever is still to be sent."""
        if self.protocol is not None:
            self.protocol.transport.abort()
            return
        with suppress(OSError):  # in the middle of a TLS handshake: asyncio sees the line's end
            self.line.shutdown(socket.SHUT_RDWR)

    def look(self, now: float) -> None:
        """How much of its answer lies unread."""
        pending = 0 if self.protocol is None else self.protocol.transport.get_write_buffer_size()
        if not pending:
            self.pending, self.unread, self.read = 0, 0.0, 0
            return
        if not self.unread:
            self.unread = self.moved = now
        elif pending != self.pending:
            self.read += max(0, self.pending - pending)
            self.moved = now
        self.pending = pending

    @property
    def rank(self) -> tuple[int, float]:
        """The lowest is the first to go: who owes a request longest, then whose body or answer stands still longest."""
        if self.unread:
            return 1, self.moved
        if self.waits:
            return 0, self.waits
        if self.protocol is not None and self.protocol.receiving:
            return 1, self.heard
        return 2, self.heard


class Connections:
    """All open ones, kept within limits. Everything happens in the event loop's thread."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open: dict[Any, Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, line: socket.socket, name: Any) -> bool:
        """Whether there is a place for it, if need be another's. name: the peer's address and port."""
        address = str(name[0]) if isinstance(name, tuple) else ""
        self._forget_closed()
        own = [one for one in self._open.values() if one.address == address]
        if len(own) >= self.limits.each and not self._make_room(own):
            return False
        if len(self._open) >= self.limits.most and not self._make_room(list(self._open.values())):
            return False
        self._open[name] = Connection(line, address)
        return True

    def of(self, name: Any, line: Any) -> Connection:
        """The connection that a protocol was made for; a new one where the listener is not ours."""
        return self._open.setdefault(name, Connection(line, str(name)))

    def left(self, name: Any) -> None:
        self._open.pop(name, None)

    def sweep(self) -> None:
        """End those that are over their time."""
        self._forget_closed()
        now = time.monotonic()
        late = [one for one in self._open.values() if self._is_late(one, now)]
        for one in late:
            one.end()
        if late:
            LOG.info("%d silent or slow connections closed", len(late))

    def _is_late(self, one: Connection, now: float) -> bool:
        limits = self.limits
        one.look(now)
        if one.unread:
            too_slow = now - one.unread > 60 + one.read / limits.slowest
            return too_slow or now - one.moved > limits.unread_s
        if one.protocol is not None and one.protocol.transport.is_closing():
            one.closed = one.closed or now
            return now - one.closed > LEAVING_S
        return bool(one.waits) and now - one.waits > limits.header_s + (limits.idle_s if one.answers else 0.0)

    def _make_room(self, among: list[Connection]) -> bool:
        first = min(among, key=lambda one: one.rank)
        if first.rank[0] == 2 or time.monotonic() - first.rank[1] < min(YOUNG_S, self.limits.header_s):
            return False
        first.end()
        self._open = {name: one for name, one in self._open.items() if one is not first}
        return True

    def _forget_closed(self) -> None:
        self._open = {name: one for name, one in self._open.items() if one.line.fileno() >= 0}


class Listener(socket.socket):
    """A listening socket that asks ``connections`` about everybody who comes, before TLS and before HTTP."""

    connections: Connections

    @staticmethod
    def over(bound: socket.socket, connections: Connections) -> Listener:
        """The same socket; ``bound`` is used up."""
        listener = Listener(bound.family, bound.type, bound.proto, fileno=bound.detach())
        listener.connections = connections
        return listener

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises ConnectionAbortedError, which asyncio passes over, where there is no place."""
        line, name = super().accept()
        if not self.connections.admit(line, name):
            line.close()
            raise ConnectionAbortedError
        return line, name


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 that tells its connection how far it is."""

    def __init__(self, *told: Any, connections: Connections, **named: Any) -> None:
        super().__init__(*told, **named)
        self._connections = connections

    @property
    def receiving(self) -> bool:
        """Whether a request's body is on its way."""
        return self.cycle is not None and not self.cycle.response_complete and self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._name = transport.get_extra_info("peername")
        self._of = self._connections.of(self._name, transport.get_extra_info("socket"))
        self._of.protocol = self
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.left(self._name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._of.heard = time.monotonic()
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._of.waits = 0.0

    def on_response_complete(self) -> None:
        self._of.waits = time.monotonic()
        self._of.answers += 1
        super().on_response_complete()

    def resume_writing(self) -> None:
        self._of.read += LOW_TO_HIGH
        super().resume_writing()


class Web(uvicorn.Server):
    """uvicorn on one bound socket, its connections within limits."""

    def __init__(self, app: Any, bound: socket.socket, limits: ConnectionLimits, **told: Any) -> None:
        self.open = Connections(limits)
        self._listener = Listener.over(bound, self.open)
        self.port: int = self._listener.getsockname()[1]

        def protocol(*given: Any, **named: Any) -> BoundedProtocol:
            return BoundedProtocol(*given, connections=self.open, **named)

        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,  # type: ignore[arg-type]
                ws="none",
                loop="asyncio",  # others accept connections without asking the socket
                access_log=False,  # its lines would hold patients' ids; the application writes its own
                log_level="error",
                h11_max_incomplete_event_size=LONGEST_HEADERS,
                timeout_keep_alive=int(max(1, limits.idle_s)),
                timeout_graceful_shutdown=5,
                **told,
            )
        )

    def listen(self) -> None:
        """Until it is told to stop."""
        self.run(sockets=[self._listener])

    async def on_tick(self, counter: int) -> bool:
        if counter % SWEEP_TICKS == 0:
            self.open.sweep()
        return await super().on_tick(counter)

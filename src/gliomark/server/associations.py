"""DICOM associations within limits, for a pynetdicom listener on an open port.

pynetdicom starts two threads for every connection, waits without a timeout in the middle of a message, accepts any
PDU length and keeps an object in memory until it is complete. Here a connection waits without a thread until its
A-ASSOCIATE-RQ has arrived. The number of associations is limited; when all slots are taken, the one that has been
silent longest is closed for a new caller, immediately if that caller has been served before. The length of a PDU is
checked before it is received within a time limit, and objects are written to disk as they arrive.
"""

from __future__ import annotations

import logging
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from tempfile import NamedTemporaryFile
from typing import Any

from pydicom.filewriter import write_file_meta_info
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, N_EVENT_REPORT_RQ, DIMSEMessage
from pynetdicom.dsutils import create_file_meta
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from gliomark.files import has_free_space

LOG = logging.getLogger("gliomark.server.dicom")
PDU_HEADER = struct.Struct(">BxL")
ASSOCIATE_RQ, P_DATA_TF = 0x01, 0x04
MAX_OTHER_PDU_BYTES = 4  # bytes of a release or abort PDU
LIMIT_EXCEEDED_REJECTION = bytes.fromhex(
    "03000000000400020302"
)  # A-ASSOCIATE-RJ: transient, local limit exceeded
MAX_COMMAND_BYTES = 64 << 10
MAX_REPORT_BYTES = 1 << 20  # of a storage commitment, which is kept in memory
MAX_UNANSWERED_MESSAGES = 4  # messages that may arrive before the current one is answered
POLL_INTERVAL_S = 0.05
ACTIVE_PERIOD_S = 0.25  # a connection that has been silent for longer is polled less often
MAX_KNOWN_CALLERS = 1000  # peers that have been served and are remembered
CALLING_AE_TITLE_BYTES = slice(26, 42)  # in an A-ASSOCIATE-RQ
CHUNK_BYTES = 64 << 10
PEEK = 4 << 10  # bytes of a request to wait for; bounds the cost of looking at it again
DISK_CHECK_INTERVAL_BYTES = 16 << 20  # bytes of an object between two checks of the free disk space


@dataclass(frozen=True)
class AssociationLimits:
    """Limits of the DICOM listener.

    Attributes
    ----------
    max_associations
        Open associations.
    max_associations_per_address
        Open associations from one network address.
    max_waiting_connections
        Connections that have not sent a complete request yet.
    pdu_timeout_s
        Time until the request is complete, and maximum duration of receiving any PDU.
    network_timeout_s
        Maximum silence of an association.
    evictable_after_s
        Silence after which an association may be closed for a new caller.
    max_associate_request_bytes
        Size of an A-ASSOCIATE-RQ.
    max_object_bytes
        Size of one object.
    min_bytes_per_s
        Minimum rate of an object after the first minute.
    max_pending_studies
        Studies being received.
    max_images_per_study
        Objects in one study.
    max_study_bytes
        Size of one study.
    min_free_disk_bytes
        Disk space that is kept free.
    """

    max_associations: int = 20
    max_associations_per_address: int = 12
    max_waiting_connections: int = 100
    pdu_timeout_s: float = 10.0
    network_timeout_s: float = 60.0
    evictable_after_s: float = 1.0
    max_associate_request_bytes: int = 1 << 20
    max_object_bytes: int = 1 << 30
    min_bytes_per_s: float = 20_000.0
    max_pending_studies: int = 200
    max_images_per_study: int = 20_000
    max_study_bytes: int = 16 << 30
    min_free_disk_bytes: int = 1 << 30


Peer = tuple[str, bytes]  # address, calling AE title


@dataclass(eq=False)
class AssociationSlot:
    """A slot for one association.

    Attributes
    ----------
    peer
        Address and calling AE title.
    is_known
        Whether this peer has been served before.
    association
        None until pynetdicom has created it.
    opened_at, last_active_at
        Monotonic time in seconds; the last PDU received or response sent.
    is_busy
        Whether the last message is being answered.
    answered_count
        Messages answered so far.
    """

    client_socket: socket.socket
    peer: Peer
    is_known: bool
    association: Association | None = None
    opened_at: float = field(default_factory=time.monotonic)
    last_active_at: float = field(default_factory=time.monotonic)
    is_busy: bool = False
    answered_count: int = 0

    def is_in_use(self, startup_s: float) -> bool:
        """Whether the association's thread is running, or the slot was taken less than ``startup_s`` seconds ago."""
        if self.association is None or self.association.ident is None:
            return time.monotonic() - self.opened_at < startup_s
        return self.association.is_alive()

    def close_socket(self) -> None:
        """Shut the socket down; the association's threads then end."""
        with suppress(OSError):
            self.client_socket.shutdown(socket.SHUT_RDWR)


class AssociationSlots:
    """A limited number of association slots."""

    def __init__(self, limits: AssociationLimits) -> None:
        self._limits = limits
        self._occupied: list[AssociationSlot] = []
        self._known_callers: dict[Peer, None] = {}
        self._lock = threading.Lock()

    def acquire_slot(self, client_socket: socket.socket, peer: Peer) -> AssociationSlot | None:
        """Return a slot, if necessary that of the association that has been silent longest; None if none is idle."""
        limits, is_caller_known = self._limits, peer in self._known_callers
        self._occupied = [one for one in self._occupied if one.is_in_use(limits.pdu_timeout_s)]
        slots_of_address = [one for one in self._occupied if one.peer[0] == peer[0]]
        if len(slots_of_address) >= limits.max_associations_per_address and not self._evict_idle_slot(
            slots_of_address, is_caller_known
        ):
            return None
        if len(self._occupied) >= limits.max_associations and not self._evict_idle_slot(
            self._occupied, is_caller_known
        ):
            return None
        slot = AssociationSlot(client_socket, peer, is_caller_known)
        self._occupied.append(slot)
        return slot

    def remember(self, peer: Peer) -> None:
        """Mark a peer as served and forget the oldest one above the limit. May be called from any thread."""
        with self._lock:
            self._known_callers.pop(peer, None)
            self._known_callers[peer] = None
            if len(self._known_callers) > MAX_KNOWN_CALLERS:
                del self._known_callers[next(iter(self._known_callers))]

    def _evict_idle_slot(self, candidates: list[AssociationSlot], is_caller_known: bool) -> bool:
        now, limits = time.monotonic(), self._limits

        def is_idle(slot: AssociationSlot) -> bool:
            if slot.is_busy:
                return False
            if not slot.answered_count and (
                now - slot.opened_at > limits.pdu_timeout_s or (is_caller_known and not slot.is_known)
            ):
                return True
            return now - slot.last_active_at > limits.evictable_after_s

        idle = [one for one in candidates if is_idle(one)]
        if not idle:
            return False
        first = min(idle, key=lambda one: (one.answered_count > 0, one.last_active_at))
        self._occupied = [one for one in self._occupied if one is not first]
        first.close_socket()
        return True


class BoundedAssociationSocket(AssociationSocket):
    """A socket that refuses PDUs that are too long or take too long."""

    def __init__(self, association: Association, slot: AssociationSlot, limits: AssociationLimits) -> None:
        super().__init__(association, client_socket=slot.client_socket)
        self._slot, self._limits = slot, limits
        self._is_in_body, self._deadline, self.has_ended = False, 0.0, False

    @property
    def ready(self) -> bool:
        """Whether data can be read.

        pynetdicom polls every millisecond; a connection that has been quiet waits in ``select`` instead.
        """
        if self.socket is not None and time.monotonic() - self._slot.last_active_at > ACTIVE_PERIOD_S:
            with suppress(OSError, ValueError):
                select.select([self.socket], [], [], POLL_INTERVAL_S)
        return super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Receive exactly ``nr_bytes`` bytes, or none if the PDU is late or too long, which ends the association."""
        if not self._is_in_body:
            self._deadline = time.monotonic() + self._limits.pdu_timeout_s
        received = bytearray()
        while len(received) < nr_bytes:
            remaining_s = self._deadline - time.monotonic()
            chunk = (
                b""
                if self.has_ended or remaining_s <= 0
                else self._receive_chunk(nr_bytes - len(received), remaining_s)
            )
            if not chunk:
                return bytearray()
            received += chunk
        if not self._is_in_body and not self._is_pdu_allowed(*PDU_HEADER.unpack(received)):
            self.end_association("PDU too long")
            return bytearray()
        self._is_in_body = not self._is_in_body
        self._slot.last_active_at = time.monotonic()
        return received

    def _receive_chunk(self, count: int, seconds: float) -> bytes:
        try:
            assert self.socket is not None
            self.socket.settimeout(seconds)
            return self.socket.recv(min(CHUNK_BYTES, count))
        except OSError:
            return b""

    def _is_pdu_allowed(self, pdu_type: int, length: int) -> bool:
        if pdu_type == P_DATA_TF:
            return length <= (self.assoc.acceptor.maximum_length or 0)
        return length <= (
            self._limits.max_associate_request_bytes if pdu_type == ASSOCIATE_RQ else MAX_OTHER_PDU_BYTES
        )

    def send(self, bytestream: bytes) -> None:
        """Send bytes; an association whose peer does not read the responses ends."""
        if self.socket is not None:
            self.socket.settimeout(self._limits.pdu_timeout_s)
        super().send(bytestream)

    def _shutdown_socket(self) -> None:
        """Close the socket and wake the association's thread, which would otherwise wait until its timeout."""
        super()._shutdown_socket()
        user_queue: Queue[Any] = self.assoc.dul.to_user_queue
        if self.assoc.requestor.primitive is None and user_queue.empty():
            user_queue.put(None)  # the same value as after the timeout

    def end_association(self, reason: str) -> None:
        """End the association and log the reason."""
        LOG.info("association ended: %s", reason)
        self.has_ended = True
        self._slot.close_socket()


class BoundedNegotiation(ACSE):
    """Association negotiation in which an unexpected request ends the association, not pynetdicom's thread."""

    def negotiate_association(self) -> None:
        """Negotiate; end the association on any error."""
        try:
            super().negotiate_association()
        except Exception as error:
            _line_of(self.dul).end_association(f"invalid request: {type(error).__name__}")
            self.assoc.kill()


class BoundedStates(StateMachine):
    """State machine in which an unexpected PDU or a closed peer ends the association, not pynetdicom's thread."""

    def do_action(self, event: str) -> None:
        """Run the action of an event; end the association on any error."""
        try:
            super().do_action(event)
        except Exception as error:
            _line_of(self.dul).end_association(f"{event} in {self.current_state}: {type(error).__name__}")
            self.dul.kill_dul()


def _line_of(provider: DULServiceProvider) -> BoundedAssociationSocket:
    line = provider.socket
    assert isinstance(line, BoundedAssociationSocket)
    return line


class DiscardedFile:
    """Stands for an object's file when the disk is full: data are discarded.

    The sender gets status 0xA700 once the whole object has arrived.
    """

    name = ""

    def __init__(self) -> None:
        self.file = self

    def write(self, _: bytes) -> None:
        """Discard the bytes."""
        pass

    flush = close = lambda _: None


class BoundedDimseProvider(DIMSEServiceProvider):
    """DIMSE messages of limited size and number; their objects are written to files as they arrive."""

    def __init__(
        self, association: Association, slot: AssociationSlot, association_server: BoundedAssociationServer
    ) -> None:
        super().__init__(association)
        self._slot, self._limits, self._object_folder, self._slots = (
            slot,
            association_server.limits,
            association_server.object_folder,
            association_server.slots,
        )
        self._message_bytes, self._message_started_at, self._bytes_at_disk_check = 0, 0.0, 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Pass each fragment to pynetdicom; end the association if a limit is exceeded or on any error."""
        for context, data in primitive.presentation_data_value_list:
            try:
                reason = self._find_refusal_reason(data)
                if not reason:
                    primitive_part = P_DATA()
                    primitive_part.presentation_data_value_list = [[context, bytes(data)]]  # type: ignore[list-item]
                    super().receive_primitive(primitive_part)
                    reason = self._handle_fragment(context)
            except Exception as error:  # no input may end pynetdicom's thread
                reason = type(error).__name__
            if reason:
                _line_of(self.dul).end_association(reason)
                return

    def _find_refusal_reason(self, fragment: bytes) -> str:
        """Return why this fragment is refused, or an empty string."""
        now, limits = time.monotonic(), self._limits
        if self.message is None:
            self._message_bytes, self._message_started_at, self._bytes_at_disk_check = 0, now, 0
        self._message_bytes += len(fragment)
        if not fragment:
            return "empty fragment"
        if self._message_bytes > (MAX_COMMAND_BYTES if fragment[0] & 1 else limits.max_object_bytes):
            return "object too large"
        return (
            "object too slow"
            if now - self._message_started_at > 60 + self._message_bytes / limits.min_bytes_per_s
            else ""
        )

    def _handle_fragment(self, context_id: int) -> str:
        """Process a fragment that was received; return why the association must end, or an empty string.

        Counts waiting messages, opens the file of a new object and checks the free disk space.
        """
        message = self.message
        if message is None:
            self._slot.is_busy = True
            return "too many unanswered messages" if self.msg_queue.qsize() > MAX_UNANSWERED_MESSAGES else ""
        if type(message) is DIMSEMessage:
            return ""
        if isinstance(message, N_EVENT_REPORT_RQ):
            return "report too large" if self._message_bytes > MAX_REPORT_BYTES else ""
        if not isinstance(message, C_STORE_RQ):
            return "unsupported message"
        if message._data_set_file is None:
            message._data_set_file = self._open_object_file(message, context_id)
        elif self._message_bytes - self._bytes_at_disk_check > DISK_CHECK_INTERVAL_BYTES:
            self._bytes_at_disk_check = self._message_bytes
            if not has_free_space(self._object_folder, self._limits.min_free_disk_bytes):
                discard_object_file(message._data_set_file)
                message._data_set_file = DiscardedFile()  # type: ignore[assignment]
        return ""

    def _open_object_file(self, message: C_STORE_RQ, context_id: int) -> Any:
        """Open an object's file as pynetdicom does with STORE_RECV_CHUNKED_DATASET, but in our own folder."""
        if not has_free_space(self._object_folder, self._limits.min_free_disk_bytes):
            return DiscardedFile()
        file = NamedTemporaryFile(delete=False, dir=self._object_folder, suffix=".part")  # noqa: SIM115 - pynetdicom's
        file.write(b"\0" * 128 + b"DICM")
        command_set = message.command_set
        syntax = self.assoc._accepted_cx[context_id].transfer_syntax[0]
        meta = create_file_meta(
            sop_class_uid=command_set.AffectedSOPClassUID,
            sop_instance_uid=command_set.AffectedSOPInstanceUID,
            transfer_syntax=syntax,
        )
        write_file_meta_info(file, meta)  # type: ignore[arg-type]
        return file

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message; waits longer on a quiet connection, which pynetdicom polls every millisecond."""
        if block or time.monotonic() - self._slot.last_active_at <= ACTIVE_PERIOD_S:
            return super().get_msg(block)
        with suppress(Empty):
            return self.msg_queue.get(timeout=POLL_INTERVAL_S)
        return None, None

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a response and remember the peer as served."""
        super().send_msg(primitive, context_id)
        self._slot.is_busy, self._slot.last_active_at = False, time.monotonic()
        self._slot.answered_count += 1
        self._slots.remember(self._slot.peer)

    def discard_unfinished_files(self) -> None:
        """Remove the files of objects that were incomplete or unanswered when the connection closed."""
        if self.message is not None:
            discard_object_file(self.message._data_set_file)
        while not self.msg_queue.empty():
            _, unanswered = self.msg_queue.get_nowait()
            discard_object_file(getattr(unanswered, "_dataset_file", None))


def discard_object_file(file: Any) -> None:
    """Close and remove an object's file."""
    if file is not None and file.name:
        file.close()
        Path(file.name).unlink(missing_ok=True)


class BoundedRequestHandler(RequestHandler):
    """Creates associations whose socket and messages are limited."""

    server: BoundedAssociationServer

    def _create_association(self) -> Association:
        association, slot = super()._create_association(), self.server.pop_slot(self.request)
        association.dul.event_queue.get_nowait()  # the new socket queues this event again
        association.dul.socket = BoundedAssociationSocket(association, slot, self.server.limits)
        association.dul.state_machine = BoundedStates(association.dul)
        association.acse = BoundedNegotiation(association)
        association.dimse = BoundedDimseProvider(association, slot, self.server)
        slot.association = association
        return association


class BoundedAssociationServer(ThreadedAssociationServer):
    """pynetdicom's listener; one thread watches all connections until their request has arrived."""

    def __init__(self, *args: Any, limits: AssociationLimits, folder: Path, **kwargs: Any) -> None:
        self.limits, self.object_folder = limits, folder
        self._waiting_connections: dict[socket.socket, tuple[float, Any]] = {}
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self.slots, self._slots_by_socket = AssociationSlots(limits), dict[socket.socket, AssociationSlot]()
        super().__init__(*args, **kwargs | {"request_handler": BoundedRequestHandler})
        self._waiter = threading.Thread(target=self._watch_waiting_connections, daemon=True)
        self._waiter.start()

    def pop_slot(self, client_socket: socket.socket) -> AssociationSlot:
        """Return the slot of a socket and remove it from the list."""
        return self._slots_by_socket.pop(client_socket)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Add a connection to the waiting ones; above the limit, close the one that has waited longest."""
        with self._lock:
            if len(self._waiting_connections) >= self.limits.max_waiting_connections:
                longest_waiting = min(
                    self._waiting_connections, key=lambda line: self._waiting_connections[line][0]
                )
                del self._waiting_connections[longest_waiting]
                longest_waiting.close()
            self._waiting_connections[request] = (time.monotonic(), client_address)

    def shutdown(self) -> None:
        """Stop watching and listening."""
        self._stopping.set()
        self._waiter.join()  # it starts the threads that socketserver joins
        super().shutdown()

    def _watch_waiting_connections(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                waiting = dict(self._waiting_connections)
            readable = self._select_readable(list(waiting))
            requests = {
                line: request for line in readable if (request := self._peek_request(line)) is not None
            }
            if len(requests) < len(readable):
                self._stopping.wait(POLL_INTERVAL_S / 2)  # an incomplete request stays readable; do not spin
            latest_start = time.monotonic() - self.limits.pdu_timeout_s
            for client_socket, (since, address) in waiting.items():
                if client_socket in requests or since < latest_start:
                    with self._lock:
                        is_here = self._waiting_connections.pop(client_socket, None) is not None
                    if client_socket in requests and is_here:
                        self._start_association(
                            client_socket,
                            (str(address[0]), requests[client_socket][CALLING_AE_TITLE_BYTES]),
                            address,
                        )
                    else:
                        client_socket.close()

    def _select_readable(self, sockets: list[socket.socket]) -> list[socket.socket]:
        if not sockets:
            self._stopping.wait(POLL_INTERVAL_S / 2)
            return []
        try:
            return select.select(sockets, [], [], POLL_INTERVAL_S / 2)[0]
        except (OSError, ValueError):  # one was closed meanwhile by process_request
            return []

    def _peek_request(self, client_socket: socket.socket) -> bytes | None:
        """Peek at a request; return its start once it is complete, very long or invalid, None until then."""
        try:
            client_socket.setblocking(False)
            received = client_socket.recv(PEEK, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        if not received:
            return b""
        if len(received) < PDU_HEADER.size:
            return None
        pdu_type, length = PDU_HEADER.unpack_from(received)
        is_whole = len(received) >= min(PDU_HEADER.size + length, PEEK)
        return (
            received
            if is_whole or pdu_type != ASSOCIATE_RQ or length > self.limits.max_associate_request_bytes
            else None
        )

    def _start_association(self, client_socket: socket.socket, peer: Peer, address: Any) -> None:
        """Pass the connection to pynetdicom, or reject it if there is no slot."""
        slot = self.slots.acquire_slot(client_socket, peer)
        if slot is None:
            with suppress(OSError):
                client_socket.send(LIMIT_EXCEEDED_REJECTION)
            client_socket.close()
            return
        client_socket.setblocking(True)
        self._slots_by_socket[client_socket] = slot
        super().process_request(client_socket, address)

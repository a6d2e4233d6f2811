"""DICOM associations within limits: pynetdicom's listener for a port that anybody may reach.

pynetdicom starts two threads for every connection, waits without end in the middle of a message, receives whatever
length a PDU claims and keeps an object in memory until it is whole. Here a connection waits without a thread until its
request is there; places are counted, and where all are taken the newcomer gets the place of who has been silent for
longest, at once if it has been served before; a PDU's length is checked before it is received, in bounded time; and
objects go to disk as they come.
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
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dsutils import create_file_meta
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from gliomark.files import has_room

LOG = logging.getLogger("gliomark.server.dicom")
HEADER = struct.Struct(">BxL")
ASSOCIATE_RQ, P_DATA_TF = 0x01, 0x04
LONGEST_OTHER = 4  # bytes of a PDU that releases or aborts
NO_PLACE = bytes.fromhex("03000000000400020302")  # A-ASSOCIATE-RJ: transient, local limit exceeded
LONGEST_COMMAND = 64 << 10
MOST_UNANSWERED = 4  # messages that came before the one at work was answered
LOOK_S = 0.05
QUIET_S = 0.25  # after that a line is looked at less often
MOST_KNOWN = 1000  # peers that have been served
CALLING_TITLE = slice(26, 42)  # in an A-ASSOCIATE-RQ
CHUNK = 64 << 10
PEEK = 4 << 10  # bytes of a request that are waited for; looking again costs nothing more, however long it is
ROOM_EVERY = 16 << 20  # bytes of an object between two looks at the disk


@dataclass(frozen=True)
class AssociationLimits:
    """most: associations at once; each: of one address; waiting: connections that have sent nothing yet; first_s: until
    they send something, and that any PDU may take; silence_s: of an association; still_s: silent for so long it gives
    its place to another; longest_request, object_bytes: of an A-ASSOCIATE-RQ and of one object; slowest: bytes per
    second of an object after the first minute; studies, images, study_bytes: arriving studies, objects and bytes in
    each; reserve: bytes of the disk that stay free."""

    most: int = 20
    each: int = 12
    waiting: int = 100
    first_s: float = 10.0
    silence_s: float = 60.0
    still_s: float = 1.0
    longest_request: int = 1 << 20
    object_bytes: int = 1 << 30
    slowest: float = 20_000.0
    studies: int = 200
    images: int = 20_000
    study_bytes: int = 16 << 30
    reserve: int = 1 << 30


Peer = tuple[str, bytes]  # address, calling AE title


@dataclass(eq=False)
class Seat:
    """An association's place. peer: who called; known: it has been served before; heard: when a
    PDU last came or an answer went; working: its last message is being answered; answered: how many messages were."""

    line: socket.socket
    peer: Peer
    known: bool
    association: Association | None = None
    since: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    working: bool = False
    answered: int = 0

    def is_taken(self, seconds: float) -> bool:
        """Whether its thread is at work, or will be within so many seconds."""
        if self.association is None or self.association.ident is None:
            return time.monotonic() - self.since < seconds
        return self.association.is_alive()

    def hang_up(self) -> None:
        """Its threads see the line's end and go."""
        with suppress(OSError):
            self.line.shutdown(socket.SHUT_RDWR)


class Seats:
    """So many associations and no more."""

    def __init__(self, limits: AssociationLimits) -> None:
        self._limits = limits
        self._taken: list[Seat] = []
        self._known: dict[Peer, None] = {}
        self._lock = threading.Lock()

    def take(self, line: socket.socket, peer: Peer) -> Seat | None:
        """A place; where all are taken, that of who has been silent for longest. None where nobody was."""
        limits, known = self._limits, peer in self._known
        self._taken = [one for one in self._taken if one.is_taken(limits.first_s)]
        own = [one for one in self._taken if one.peer[0] == peer[0]]
        if len(own) >= limits.each and not self._clear_one(own, known):
            return None
        if len(self._taken) >= limits.most and not self._clear_one(self._taken, known):
            return None
        seat = Seat(line, peer, known)
        self._taken.append(seat)
        return seat

    def remember(self, peer: Peer) -> None:
        """It has been served; who was longest ago is forgotten where too many are known. From any thread."""
        with self._lock:
            self._known.pop(peer, None)
            self._known[peer] = None
            if len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]

    def _clear_one(self, among: list[Seat], for_known: bool) -> bool:
        now, limits = time.monotonic(), self._limits

        def is_idle(one: Seat) -> bool:
            if one.working:
                return False
            if not one.answered and (now - one.since > limits.first_s or (for_known and not one.known)):
                return True
            return now - one.heard > limits.still_s

        idle = [one for one in among if is_idle(one)]
        if not idle:
            return False
        first = min(idle, key=lambda one: (one.answered > 0, one.heard))
        self._taken = [one for one in self._taken if one is not first]
        first.hang_up()
        return True


class BoundedSocket(AssociationSocket):
    """A line that takes no PDU longer than was agreed, and none that takes too long."""

    def __init__(self, association: Association, seat: Seat, limits: AssociationLimits) -> None:
        super().__init__(association, client_socket=seat.line)
        self._seat, self._limits = seat, limits
        self._in_body, self._ends, self.ended = False, 0.0, False

    @property
    def ready(self) -> bool:
        """pynetdicom looks a thousand times a second, which a quiet line is not worth."""
        if self.socket is not None and time.monotonic() - self._seat.heard > QUIET_S:
            with suppress(OSError, ValueError):
                select.select([self.socket], [], [], LOOK_S)
        return super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """So many bytes; nothing where they do not come in time or the PDU is too long, which ends the association."""
        if not self._in_body:
            self._ends = time.monotonic() + self._limits.first_s
        whole = bytearray()
        while len(whole) < nr_bytes:
            left = self._ends - time.monotonic()
            piece = b"" if self.ended or left <= 0 else self._piece(nr_bytes - len(whole), left)
            if not piece:
                return bytearray()
            whole += piece
        if not self._in_body and not self._may_come(*HEADER.unpack(whole)):
            self.hang_up("a PDU that is too long")
            return bytearray()
        self._in_body = not self._in_body
        self._seat.heard = time.monotonic()
        return whole

    def _piece(self, count: int, seconds: float) -> bytes:
        try:
            assert self.socket is not None
            self.socket.settimeout(seconds)
            return self.socket.recv(min(CHUNK, count))
        except OSError:
            return b""

    def _may_come(self, kind: int, length: int) -> bool:
        if kind == P_DATA_TF:
            return length <= (self.assoc.acceptor.maximum_length or 0)
        return length <= (self._limits.longest_request if kind == ASSOCIATE_RQ else LONGEST_OTHER)

    def send(self, bytestream: bytes) -> None:
        """Answers that nobody reads end the association too."""
        if self.socket is not None:
            self.socket.settimeout(self._limits.first_s)
        super().send(bytestream)

    def _shutdown_socket(self) -> None:
        """However the line ends; the association's thread would wait its whole time for a request that cannot come."""
        super()._shutdown_socket()
        heard: Queue[Any] = self.assoc.dul.to_user_queue
        if self.assoc.requestor.primitive is None and heard.empty():
            heard.put(None)  # what it gets where that time is over

    def hang_up(self, why: str) -> None:
        LOG.info("association ended: %s", why)
        self.ended = True
        self._seat.hang_up()


class BoundedNegotiation(ACSE):
    """Whatever was asked, pynetdicom's thread must not end over it."""

    def negotiate_association(self) -> None:
        try:
            super().negotiate_association()
        except Exception as error:
            _line_of(self.dul).hang_up(f"a request that is not understood: {type(error).__name__}")
            self.assoc.kill()


class BoundedStates(StateMachine):
    """A PDU that comes when none may, or an answer to who has gone, ends the association and not its thread."""

    def do_action(self, event: str) -> None:
        try:
            super().do_action(event)
        except Exception as error:
            _line_of(self.dul).hang_up(f"{event} in {self.current_state}: {type(error).__name__}")
            self.dul.kill_dul()


def _line_of(provider: DULServiceProvider) -> BoundedSocket:
    line = provider.socket
    assert isinstance(line, BoundedSocket)
    return line


class Nowhere:
    """Takes the place of an object's file where the disk has no room: the sender is told once all has come."""

    name = ""

    def __init__(self) -> None:
        self.file = self

    def write(self, _: bytes) -> None:
        pass

    flush = close = lambda _: None


class BoundedMessages(DIMSEServiceProvider):
    """Messages of bounded size and number, their objects in files of ``folder`` from the first byte on."""

    def __init__(self, association: Association, seat: Seat, server: BoundedServer) -> None:
        super().__init__(association)
        self._seat, self._limits, self._folder, self._seats = seat, server.limits, server.folder, server.seats
        self._size, self._began, self._looked = 0, 0.0, 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        for context, data in primitive.presentation_data_value_list:
            try:
                why = self._refuse(data)
                if not why:
                    one = P_DATA()
                    one.presentation_data_value_list = [[context, bytes(data)]]  # type: ignore[list-item]
                    super().receive_primitive(one)
                    why = self._follow(context)
            except Exception as error:  # whatever was sent, pynetdicom's thread must not end over it
                why = type(error).__name__
            if why:
                _line_of(self.dul).hang_up(why)
                return

    def _refuse(self, data: bytes) -> str:
        """Why this fragment is not taken; nothing where it is."""
        now, limits = time.monotonic(), self._limits
        if self.message is None:
            self._size, self._began, self._looked = 0, now, 0
        self._size += len(data)
        if not data:
            return "an empty fragment"
        if self._size > (LONGEST_COMMAND if data[0] & 1 else limits.object_bytes):
            return "an object that is too large"
        return "an object that is too slow" if now - self._began > 60 + self._size / limits.slowest else ""

    def _follow(self, context: int) -> str:
        """What has to be done after a fragment: count what waits, open an object's file, look after the disk."""
        message = self.message
        if message is None:
            self._seat.working = True
            return "too many messages at once" if self.msg_queue.qsize() > MOST_UNANSWERED else ""
        if type(message) is DIMSEMessage:
            return ""
        if not isinstance(message, C_STORE_RQ):
            return "a message that is not served here"
        if message._data_set_file is None:
            message._data_set_file = self._open(message, context)
        elif self._size - self._looked > ROOM_EVERY:
            self._looked = self._size
            if not has_room(self._folder, self._limits.reserve):
                discard(message._data_set_file)
                message._data_set_file = Nowhere()  # type: ignore[assignment]
        return ""

    def _open(self, message: C_STORE_RQ, context: int) -> Any:
        """As pynetdicom does where it is told to keep objects in files, but in a folder of ours."""
        if not has_room(self._folder, self._limits.reserve):
            return Nowhere()
        file = NamedTemporaryFile(delete=False, dir=self._folder, suffix=".part")  # noqa: SIM115 - pynetdicom's
        file.write(b"\0" * 128 + b"DICM")
        told = message.command_set
        syntax = self.assoc._accepted_cx[context].transfer_syntax[0]
        meta = create_file_meta(
            sop_class_uid=told.AffectedSOPClassUID,
            sop_instance_uid=told.AffectedSOPInstanceUID,
            transfer_syntax=syntax,
        )
        write_file_meta_info(file, meta)  # type: ignore[arg-type]
        return file

    def get_msg(self, block: bool = False) -> Any:
        """pynetdicom asks a thousand times a second, which a quiet line is not worth."""
        if block or time.monotonic() - self._seat.heard <= QUIET_S:
            return super().get_msg(block)
        with suppress(Empty):
            return self.msg_queue.get(timeout=LOOK_S)
        return None, None

    def send_msg(self, primitive: Any, context_id: int) -> None:
        super().send_msg(primitive, context_id)
        self._seat.working, self._seat.heard = False, time.monotonic()
        self._seat.answered += 1
        self._seats.remember(self._seat.peer)

    def forget(self) -> None:
        """The files of what was not whole, or not answered, when the line ended."""
        if self.message is not None:
            discard(self.message._data_set_file)
        while not self.msg_queue.empty():
            _, unanswered = self.msg_queue.get_nowait()
            discard(getattr(unanswered, "_dataset_file", None))


def discard(file: Any) -> None:
    """An object's file that nobody will ask for."""
    if file is not None and file.name:
        file.close()
        Path(file.name).unlink(missing_ok=True)


class BoundedHandler(RequestHandler):
    """An association whose line and messages are bounded."""

    server: BoundedServer

    def _create_association(self) -> Association:
        association, seat = super()._create_association(), self.server.seat_of(self.request)
        association.dul.event_queue.get_nowait()  # the other line announces itself again
        association.dul.socket = BoundedSocket(association, seat, self.server.limits)
        association.dul.state_machine = BoundedStates(association.dul)
        association.acse = BoundedNegotiation(association)
        association.dimse = BoundedMessages(association, seat, self.server)
        seat.association = association
        return association


class BoundedServer(ThreadedAssociationServer):
    """pynetdicom's listener, whose connections wait in one thread until they say something."""

    def __init__(self, *told: Any, limits: AssociationLimits, folder: Path, **named: Any) -> None:
        self.limits, self.folder = limits, folder
        self._waiting: dict[socket.socket, tuple[float, Any]] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self.seats, self._seated = Seats(limits), dict[socket.socket, Seat]()
        super().__init__(*told, **named | {"request_handler": BoundedHandler})
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def seat_of(self, line: socket.socket) -> Seat:
        return self._seated.pop(line)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Who comes waits; where too many do, who has waited longest goes."""
        with self._lock:
            if len(self._waiting) >= self.limits.waiting:
                longest = min(self._waiting, key=lambda line: self._waiting[line][0])
                del self._waiting[longest]
                longest.close()
            self._waiting[request] = (time.monotonic(), client_address)

    def shutdown(self) -> None:
        self._over.set()
        self._waiter.join()  # it starts the threads that socketserver waits for
        super().shutdown()

    def _wait(self) -> None:
        while not self._over.is_set():
            with self._lock:
                waiting = dict(self._waiting)
            readable = self._readable(list(waiting))
            begun = {line: asked for line in readable if (asked := self._request(line)) is not None}
            if len(begun) < len(readable):
                self._over.wait(LOOK_S / 2)  # what is not whole stays readable without saying more
            late = time.monotonic() - self.limits.first_s
            for line, (since, address) in waiting.items():
                if line in begun or since < late:
                    with self._lock:
                        is_here = self._waiting.pop(line, None) is not None
                    if line in begun and is_here:
                        self._seat(line, (str(address[0]), begun[line][CALLING_TITLE]), address)
                    else:
                        line.close()

    def _readable(self, lines: list[socket.socket]) -> list[socket.socket]:
        if not lines:
            self._over.wait(LOOK_S / 2)
            return []
        try:
            return select.select(lines, [], [], LOOK_S / 2)[0]
        except (OSError, ValueError):  # one was closed meanwhile to make room
            return []

    def _request(self, line: socket.socket) -> bytes | None:
        """The beginning of what has come, once it is a whole or a long request or cannot be one; None until then."""
        try:
            line.setblocking(False)
            heard = line.recv(PEEK, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        if not heard:
            return b""
        if len(heard) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(heard)
        is_whole = len(heard) >= min(HEADER.size + length, PEEK)
        return heard if is_whole or kind != ASSOCIATE_RQ or length > self.limits.longest_request else None

    def _seat(self, line: socket.socket, peer: Peer, address: Any) -> None:
        """Let pynetdicom have it, or tell it that there is no place."""
        seat = self.seats.take(line, peer)
        if seat is None:
            with suppress(OSError):
                line.send(NO_PLACE)
            line.close()
            return
        line.setblocking(True)
        self._seated[line] = seat
        super().process_request(line, address)

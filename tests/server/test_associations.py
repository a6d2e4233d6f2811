"""DICOM connections that send nothing, declare too much or never end, over real sockets, beside a valid sender."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification

from gliomark.server import associations
from gliomark.server.associations import AssociationLimits, BoundedAssociationServer, discard_object_file

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
QUICK = AssociationLimits(
    max_associations=4,
    max_associations_per_address=4,
    max_waiting_connections=6,
    pdu_timeout_s=0.6,
    network_timeout_s=1.5,
    evictable_after_s=0.2,
    max_object_bytes=4 << 20,
    min_free_disk_bytes=1 << 20,
)
MAX_PDU = 16_382


class Node:
    """A listener that stores received objects: bytes by SOP Instance UID."""

    def __init__(self, folder: Path, limits: AssociationLimits) -> None:
        self.kept: dict[str, bytes] = {}
        self.folder = folder
        entity = AE("NODE")
        entity.acse_timeout, entity.network_timeout = limits.pdu_timeout_s, limits.network_timeout_s
        entity.maximum_associations = 100
        for kind in (Verification, MRImageStorage):
            entity.add_supported_context(kind)
        handlers = [
            (evt.EVT_C_STORE, self.store_object),
            (evt.EVT_CONN_CLOSE, lambda e: e.assoc.dimse.discard_unfinished_files()),
        ]
        self.server = entity.make_server(
            ("127.0.0.1", 0),
            evt_handlers=handlers,
            server_class=BoundedAssociationServer,
            limits=limits,
            folder=folder,
        )
        entity._servers.append(self.server)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.port = self.server.server_address[1]

    def store_object(self, event: evt.Event) -> int:
        file = event.request._dataset_file
        if not file.name:
            return 0xA700
        file.close()
        self.kept[event.request.AffectedSOPInstanceUID] = Path(file.name).read_bytes()
        return 0


@contextmanager
def run_node(folder: Path, **other: float) -> Iterator[Node]:
    node = Node(folder, replace(QUICK, **other))
    yield node
    node.server.shutdown()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with run_node(tmp_path) as one:
        yield one


def connect(node: Node, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", node.port), timeout=20)
    connection.sendall(sent)
    return connection


def associate(node: Node, title: str = "SENDER") -> Association:
    entity = AE(title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    entity.add_requested_context(Verification)
    entity.add_requested_context(MRImageStorage, ImplicitVRLittleEndian)
    return entity.associate("127.0.0.1", node.port)


def create_image(size: int = 100_000) -> Dataset:
    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID, one.StudyInstanceUID = MRImageStorage, generate_uid(), "1.2.3"
    one.BitsAllocated, one.PixelRepresentation = 8, 0
    one.PixelData = bytes(range(250)) * (size // 250)
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return one


def is_served(node: Node, within: float = 2.0) -> bool:
    """Whether a valid sender is accepted and its image stored unchanged."""
    started, one = time.monotonic(), create_image()
    association = associate(node)
    while association.is_rejected and time.monotonic() - started < within:  # a transient rejection: try again
        time.sleep(0.1)
        association = associate(node)
    assert association.is_established and association.send_c_echo().Status == 0
    assert association.send_c_store(one).Status == 0
    seconds = time.monotonic() - started
    association.release()
    (node.folder / "kept.dcm").write_bytes(node.kept[one.SOPInstanceUID])
    assert dcmread(node.folder / "kept.dcm").PixelData == one.PixelData
    (node.folder / "kept.dcm").unlink()
    assert seconds < within
    return True


def wait_for_end_of_association(node: Node, title: str) -> None:
    deadline = time.monotonic() + 10
    while any(one.requestor.ae_title.strip() == title for one in node.server.active_associations):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def measure_seconds_until_end(connection: socket.socket) -> float:
    started = time.monotonic()
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - started


def record_request() -> bytes:
    """A complete A-ASSOCIATE-RQ as written by pynetdicom."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        entity = AE("SENDER")
        entity.acse_timeout = 0.5
        entity.add_requested_context(Verification)
        entity.add_requested_context(MRImageStorage, ImplicitVRLittleEndian)
        thread = threading.Thread(target=entity.associate, args=listener.getsockname())
        thread.start()
        connection, _ = listener.accept()
        received.append(connection.recv(1 << 16))
        connection.close()
        thread.join()
    return received[0]


RQ = record_request()
# ten presentation contexts without an abstract syntax
NOTHING = RQ[6:74] + bytes.fromhex("20000004 03000000") * 10
NO_SYNTAX = struct.pack(">BxL", 1, len(NOTHING)) + NOTHING


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x01",
        RQ[:6],
        RQ[:-10],
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">BxL", 1, 0xFFFFFFFF),
        struct.pack(">BxL", 1, (1 << 20) + 1),
        struct.pack(">BxL", 4, 100),
        RQ + struct.pack(">BxL", 4, 0xFFFFFFFF),
        RQ + struct.pack(">BxL", 4, MAX_PDU + 1),
        RQ + struct.pack(">BxL", 4, 1000) + b"half",
        RQ + struct.pack(">BxL", 5, 100_000),
        RQ + struct.pack(">BxLLBB", 4, 6, 2, 1, 3),
        RQ + struct.pack(">BxLL", 4, 4, 0),
        RQ + b"\xff" * 100,
        NO_SYNTAX,
        RQ,
    ],
    ids="nothing,a byte,a head,half a request,http,4 GB request,request over 1 MB,data first,4 GB data,"
    "data over the limit,half data,long release,empty command,empty fragment,noise,empty contexts,silent after".split(
        ","
    ),
)
def test_an_invalid_conversation_is_ended(node: Node, sent: bytes) -> None:
    with connect(node, sent) as connection:
        assert measure_seconds_until_end(connection) < 8
    assert is_served(node)


@pytest.mark.parametrize(
    "sent",
    [
        RQ[:6],
        RQ[:-10],
        struct.pack(">BxL", 1, 0),
        RQ[:6] + bytes(4) + RQ[10:],
        struct.pack(">BxL", 99, 4) + bytes(4),
        struct.pack(">BxL", 4, 6) + bytes(6),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids="a head,half a request,empty request,protocol version 0,unknown,data first,http".split(","),
)
def test_a_closed_connection_frees_its_slot(tmp_path: Path, sent: bytes) -> None:
    """A closed connection frees its slot long before the request timeout, whatever was sent before."""
    with run_node(tmp_path, pdu_timeout_s=30, evictable_after_s=30) as node:
        for _ in range(8):
            with connect(node, sent) as connection:
                connection.shutdown(socket.SHUT_WR)
                time.sleep(0.1)
        assert is_served(node)


def test_a_request_sent_byte_by_byte_is_ended(node: Node) -> None:
    with connect(node) as connection:
        started = time.monotonic()
        with pytest.raises(OSError):
            for byte in RQ:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - started < 8


@pytest.mark.parametrize("sent", [b"", RQ[:20], RQ], ids=["nothing", "half a request", "associated"])
def test_silent_connections_do_not_block_a_valid_sender(tmp_path: Path, sent: bytes) -> None:
    """Many more silent connections than slots, from the same address as the valid sender."""
    with run_node(tmp_path, pdu_timeout_s=30, network_timeout_s=60) as node, ExitStack() as connections:
        for _ in range(20):
            connections.enter_context(connect(node, sent))
        time.sleep(0.5)
        for _ in range(3):
            assert is_served(node)


def test_a_known_sender_gets_a_slot_at_once(tmp_path: Path) -> None:
    """Silent associations from the same address hold all slots; a known peer gets one at once, an unknown one must
    wait."""
    silent = RQ.replace(b"SENDER".ljust(16), b"SILENT".ljust(16))
    with (
        run_node(tmp_path, pdu_timeout_s=30, network_timeout_s=60, evictable_after_s=30) as node,
        ExitStack() as connections,
    ):
        assert is_served(node)
        wait_for_end_of_association(
            node, "SENDER"
        )  # otherwise its slot is freed after the silent senders' requests
        for _ in range(2):
            for _ in range(8):
                connections.enter_context(connect(node, silent))
            time.sleep(0.5)
            assert associate(node, "STRANGER").is_rejected
            assert is_served(node, 0.5)
            wait_for_end_of_association(node, "SENDER")


def test_an_active_sender_keeps_its_slot_when_a_known_sender_connects(tmp_path: Path) -> None:
    with run_node(tmp_path, pdu_timeout_s=30, network_timeout_s=60, evictable_after_s=30) as node:
        good = [associate(node) for _ in range(4)]
        assert all(one.send_c_echo().Status == 0 for one in good)
        assert associate(node).is_rejected
        assert all(one.send_c_store(create_image()).Status == 0 for one in good)
        for one in good:
            one.release()


def test_a_sender_of_a_valid_message_stays_connected(tmp_path: Path) -> None:
    with run_node(tmp_path, network_timeout_s=60) as node, ExitStack() as connections:
        good = associate(node)
        assert good.send_c_echo().Status == 0
        for _ in range(10):
            connections.enter_context(connect(node, RQ))
            time.sleep(0.1)
        assert good.send_c_store(create_image()).Status == 0
        good.release()


def test_a_new_sender_is_rejected_as_transient_while_all_slots_are_busy(tmp_path: Path) -> None:
    with run_node(tmp_path, evictable_after_s=60, pdu_timeout_s=30) as node, ExitStack() as connections:
        for _ in range(QUICK.max_associations):
            connections.enter_context(connect(node, RQ))
        time.sleep(0.3)
        refused = associate(node)
        assert (
            refused.is_rejected and refused.acceptor.primitive.result == 2
        )  # rejected-transient: it may try again


def check_violation_ends_association(node: Node, feed: Callable[[Association], None]) -> None:
    """Let a sender violate C-STORE; its connection must end and the next sender be served."""
    association = associate(node)
    assert association.is_established
    feed(association)
    deadline = time.monotonic() + 10
    while association.is_established and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not association.is_established
    assert is_served(node)
    deadline = time.monotonic() + 5
    while list(node.folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(node.folder.iterdir()), "no incomplete object is left"


def send_raw(association: Association, context: int, control: int, data: bytes) -> None:
    body = struct.pack(">LBB", len(data) + 2, context, control) + data
    association.dul.socket.send(struct.pack(">BxL", 4, len(body)) + body)


def encode_store_command(association: Association) -> tuple[int, bytes]:
    """The command set of a C-STORE-RQ as sent over the network."""
    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dsutils import encode

    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 1, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = MRImageStorage, "1.2.3.4"
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    message.command_set.CommandDataSetType = 1
    message.command_set.CommandGroupLength = 0
    context = next(
        one.context_id for one in association.accepted_contexts if one.abstract_syntax == MRImageStorage
    )
    return context, encode(message.command_set, True, True)


def send_endless_object(association: Association) -> None:
    context, command = encode_store_command(association)
    send_raw(association, context, 3, command)
    for _ in range(2000):
        if not association.is_established:
            return
        send_raw(association, context, 0, bytes(16_000))


def send_endless_command(association: Association) -> None:
    context, command = encode_store_command(association)
    for _ in range(100):
        send_raw(association, context, 1, bytes(2) + command)


def send_half_an_object(association: Association) -> None:
    context, command = encode_store_command(association)
    send_raw(association, context, 3, command)
    send_raw(association, context, 0, bytes(10_000))


def send_without_command(association: Association) -> None:
    context, _ = encode_store_command(association)
    send_raw(association, context, 3, bytes.fromhex("00000001020000000000"))


def send_query(association: Association) -> None:
    """C-FIND, which is not supported, with a data set that pynetdicom would keep in memory."""
    context, command = encode_store_command(association)
    send_raw(
        association,
        context,
        3,
        command.replace(
            b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x00", b"\x00\x00\x00\x01\x02\x00\x00\x00\x20\x00"
        ),
    )
    for _ in range(10):
        send_raw(association, context, 0, bytes(16_000))


@pytest.mark.parametrize(
    "feed",
    [send_endless_object, send_endless_command, send_half_an_object, send_without_command, send_query],
    ids=lambda f: f.__name__,
)
def test_invalid_messages_end_the_association(node: Node, feed: Callable[[Association], None]) -> None:
    check_violation_ends_association(node, feed)


def test_unfinished_objects_are_kept_on_disk_not_in_memory(tmp_path: Path) -> None:
    with run_node(tmp_path) as node:
        association = associate(node)
        context, command = encode_store_command(association)
        send_raw(association, context, 3, command)
        for _ in range(20):
            send_raw(association, context, 0, bytes(16_000))
        deadline = time.monotonic() + 5
        while (
            not any(file.stat().st_size > 300_000 for file in tmp_path.iterdir())
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        assert any(file.stat().st_size > 300_000 for file in tmp_path.iterdir())
        association.abort()


def test_a_full_disk_is_reported_and_the_association_stays_open(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    association = associate(node)
    monkeypatch.setattr(associations, "has_free_space", lambda *_: False)
    assert association.send_c_store(create_image()).Status == 0xA700
    monkeypatch.undo()
    assert association.send_c_store(create_image()).Status == 0
    association.release()


def test_an_object_is_refused_when_the_disk_fills_during_its_transfer(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    association, seen = associate(node), list[int]()
    monkeypatch.setattr(associations, "DISK_CHECK_INTERVAL_BYTES", 1 << 20)
    monkeypatch.setattr(associations, "has_free_space", lambda *_: (seen.append(0), len(seen) < 3)[1])
    assert association.send_c_store(create_image(3 << 20)).Status == 0xA700
    association.release()
    assert not list(node.folder.iterdir())


def test_discarding_a_file_twice_is_harmless(tmp_path: Path) -> None:
    with (tmp_path / "one").open("wb") as file:
        discard_object_file(file)
    discard_object_file(file)
    discard_object_file(None)
    assert not list(tmp_path.iterdir())

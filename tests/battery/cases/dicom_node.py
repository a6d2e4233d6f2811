"""Cases for the DICOM node: objects with false headers, interrupted connections, malformed PDUs."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from pydicom import Dataset
from pydicom.filewriter import dcmwrite
from tests.battery.cases.dicom import insert_nested_sequence, insert_private_element, set_tags
from tests.battery.cases_and_results import Case, expect_answer, expect_refusal
from tests.battery.changes import truncate_bytes
from tests.battery.dicom_objects import create_uid
from tests.battery.live_server import LiveServer, Reply

DOOR = "DICOM node"
REFUSED = ("49152", "42752", "-1 ")  # 0xC000, 0xA700, no answer


def create_pushed_object_case(
    name: str, kind: str, change_bytes: Callable[[bytes], bytes], *says: str
) -> Case:
    """Create a case with one object of its own study, its bytes changed; rejected on arrival or when it is prepared."""

    def push_object(live: LiveServer) -> Reply:
        one = live.read_healthy_slices()[3]
        one.StudyInstanceUID = create_uid("node", name)
        content = io.BytesIO()
        dcmwrite(content, one, enforce_file_format=True)
        since = live.find_newest_line()
        status = live.send_file(change_bytes(content.getvalue()))
        if status != 0:
            return Reply(status, "refused by its status", True)
        return live.wait_for_pushed_outcome(since)

    return expect_refusal(DOOR, f"object {name}", kind, push_object, *(says or ("failed",)), *REFUSED)


OBJECTS = [
    create_pushed_object_case("claiming 10^9 frames", "bomb", set_tags(NumberOfFrames=10**9)),
    create_pushed_object_case("claiming 2^31 frames", "bomb", set_tags(NumberOfFrames=2**31 - 1)),
    create_pushed_object_case("claiming -5 frames", "impossible dimensions", set_tags(NumberOfFrames=-5)),
    create_pushed_object_case("claiming 65535 squared", "bomb", set_tags(Rows=65535, Columns=65535)),
    create_pushed_object_case("without pixels", "missing part", set_tags(PixelData=None)),
    create_pushed_object_case("without a study", "missing part", set_tags(StudyInstanceUID=None)),
    create_pushed_object_case("without an instance", "missing part", set_tags(SOPInstanceUID=None)),
    create_pushed_object_case("with sequences 10 000 deep", "nested", insert_nested_sequence(10_000)),
    create_pushed_object_case("with a private tag of 100 MB", "huge", insert_private_element(100 << 20)),
    create_pushed_object_case(
        "with a private tag that claims 4 GB", "length lie", insert_private_element(10, 0xFFFFFFF0)
    ),
    create_pushed_object_case("of 7 bits", "bits", set_tags(BitsAllocated=7)),
    create_pushed_object_case("of 20 bits in 16", "bits", set_tags(BitsStored=20, HighBit=19)),
    create_pushed_object_case(
        "in colour", "colour", set_tags(SamplesPerPixel=3, PhotometricInterpretation="RGB")
    ),
    create_pushed_object_case("at no place", "missing part", set_tags(ImagePositionPatient=None)),
    create_pushed_object_case("of CT", "another kind", set_tags(Modality="CT")),
    create_pushed_object_case(
        "whose id leads out", "names", set_tags(PatientID="../../evil", StudyInstanceUID="../../evil")
    ),
    create_pushed_object_case("whose id holds control signs", "names", set_tags(PatientID="P\x07\x1b[2J")),
    create_pushed_object_case("alone in its study", "wrong number of slices", lambda c: c),
    create_pushed_object_case("cut short", "truncation", truncate_bytes(0.6)),
]


def create_pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BxL", kind, len(body) if length is None else length) + body


def create_pdu_item(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BxH", kind, len(body) if length is None else length) + body


ASSOCIATE = (
    struct.pack(">HH", 1, 0)
    + b"GLIOMARK".ljust(16)
    + b"EVIL".ljust(16)
    + bytes(32)
    + create_pdu_item(0x10, b"1.2.840.10008.3.1.1.1")
    + create_pdu_item(
        0x20,
        bytes([1, 0, 0, 0])
        + create_pdu_item(0x30, b"1.2.840.10008.1.1")
        + create_pdu_item(0x40, b"1.2.840.10008.1.2"),
    )
    + create_pdu_item(0x50, create_pdu_item(0x51, struct.pack(">L", 16384)))
)


def create_bytes_case(name: str, kind: str, content: bytes) -> Case:
    """Create a case that sends bytes to the port of the node, which must close the connection within seconds."""

    def send_bytes(live: LiveServer) -> Reply:
        reply = live.send_bytes(content, live.dicom_port)
        return Reply(0, f"closed {reply.text[:40]!r}", reply.text != "still open")

    return expect_refusal(DOOR, f"line with {name}", kind, send_bytes, "0 closed")


LINES = [
    create_bytes_case("nothing", "truncation", b""),
    create_bytes_case("chance", "noise", bytes(range(256)) * 30),
    create_bytes_case("HTTP", "another format", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    create_bytes_case("half a PDU", "truncation", create_pdu(1, ASSOCIATE)[:40]),
    create_bytes_case("a PDU that claims 4 GB", "length lie", create_pdu(1, ASSOCIATE, 0xFFFFFFFF)),
    create_bytes_case("a PDU that claims a gigabyte", "length lie", create_pdu(1, ASSOCIATE, 1 << 30)),
    create_bytes_case("a PDU of no length", "length lie", create_pdu(1, b"")),
    create_bytes_case("an unknown PDU", "wrong magic", create_pdu(99, bytes(40))),
    create_bytes_case("data before an association", "wrong magic", create_pdu(4, bytes(40))),
    create_bytes_case("a release before an association", "wrong magic", create_pdu(5, bytes(4))),
    create_bytes_case("an abort of 4 GB", "length lie", create_pdu(7, bytes(4), 0xFFFFFFFF)),
    create_bytes_case(
        "an item that claims 65535 bytes",
        "length lie",
        create_pdu(1, ASSOCIATE[:68] + create_pdu_item(0x10, b"1.2", 0xFFFF)),
    ),
    create_bytes_case(
        "10 000 contexts",
        "huge",
        create_pdu(1, ASSOCIATE + create_pdu_item(0x20, bytes([3, 0, 0, 0])) * 10_000),
    ),
    create_bytes_case(
        "a name of 60 000 bytes",
        "huge",
        create_pdu(1, ASSOCIATE[:68] + create_pdu_item(0x10, b"1." * 30_000)),
    ),
    create_bytes_case("a protocol version of 0", "header lie", create_pdu(1, bytes(4) + ASSOCIATE[4:])),
    create_bytes_case(
        "an association and data that claim 4 GB",
        "length lie",
        create_pdu(1, ASSOCIATE) + create_pdu(4, bytes(6), 0xFFFFFFF0),
    ),
    create_bytes_case(
        "an association and a value that lies",
        "length lie",
        create_pdu(1, ASSOCIATE) + create_pdu(4, struct.pack(">LBB", 0xFFFFFF, 1, 3) + bytes(20)),
    ),
    create_bytes_case(
        "an association and a command of chance",
        "noise",
        create_pdu(1, ASSOCIATE) + create_pdu(4, struct.pack(">LBB", 42, 1, 3) + bytes(range(40))),
    ),
    create_bytes_case("an association asked twice", "duplicates", create_pdu(1, ASSOCIATE) * 2),
]


def push_study(live: LiveServer, change: Callable[[int, Dataset], object], name: str) -> Reply:
    """Send the healthy patient as a new study with each image changed; the entry of the audit log."""
    images = live.read_healthy_slices()
    for at, one in enumerate(images):
        one.StudyInstanceUID = create_uid("node", "odd", name)
        change(at, one)
    since = live.find_newest_line()
    answers = live.send_objects(images)
    if set(answers) != {0}:
        return Reply(next(one for one in answers if one), "an image was refused", True)
    return live.wait_for_pushed_outcome(since)


ODD = [
    expect_answer(
        DOOR,
        f"study {name}",
        "odd but healthy",
        lambda live, c=change, n=name: push_study(live, c, n),
        lambda reply: "" if "predict done" in reply.text else reply.text,
    )
    for name, change in {
        "as it is": lambda at, one: None,
        "with Chinese names": lambda at, one: setattr(one, "PatientName", "王^小明"),
        "without age and sex": lambda at, one: (one.__delattr__("PatientAge"), one.__delattr__("PatientSex")),
    }.items()
]

CASES = [*OBJECTS, *LINES, *ODD]

"""The DICOM node's door: objects that claim too much, lines that break off, PDUs that lie."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from pydicom import Dataset
from pydicom.filewriter import dcmwrite
from tests.battery.case import Case, answered, refused
from tests.battery.cases.dicom import nested, private, tags
from tests.battery.dicom import uid
from tests.battery.kit import cut
from tests.battery.live import Live, Reply

DOOR = "DICOM node"
REFUSED = ("49152", "42752", "-1 ")  # 0xC000, 0xA700, no answer


def pushed(name: str, kind: str, how: Callable[[bytes], bytes], *says: str) -> Case:
    """One object of a study of its own, its bytes changed; refused at once, or once the study has come."""

    def attack(live: Live) -> Reply:
        one = live.slices()[3]
        one.StudyInstanceUID = uid("node", name)
        content = io.BytesIO()
        dcmwrite(content, one, enforce_file_format=True)
        since = live.newest_line()
        status = live.store_file(how(content.getvalue()))
        if status != 0:
            return Reply(status, "refused by its status", True)
        return live.told_of_pushed(since)

    return refused(DOOR, f"object {name}", kind, attack, *(says or ("failed",)), *REFUSED)


OBJECTS = [
    pushed("claiming 10^9 frames", "bomb", tags(NumberOfFrames=10**9)),
    pushed("claiming 2^31 frames", "bomb", tags(NumberOfFrames=2**31 - 1)),
    pushed("claiming -5 frames", "impossible dimensions", tags(NumberOfFrames=-5)),
    pushed("claiming 65535 squared", "bomb", tags(Rows=65535, Columns=65535)),
    pushed("without pixels", "missing part", tags(PixelData=None)),
    pushed("without a study", "missing part", tags(StudyInstanceUID=None)),
    pushed("without an instance", "missing part", tags(SOPInstanceUID=None)),
    pushed("with sequences 10 000 deep", "nested", nested(10_000)),
    pushed("with a private tag of 100 MB", "huge", private(100 << 20)),
    pushed("with a private tag that claims 4 GB", "length lie", private(10, 0xFFFFFFF0)),
    pushed("of 7 bits", "bits", tags(BitsAllocated=7)),
    pushed("of 20 bits in 16", "bits", tags(BitsStored=20, HighBit=19)),
    pushed("in colour", "colour", tags(SamplesPerPixel=3, PhotometricInterpretation="RGB")),
    pushed("at no place", "missing part", tags(ImagePositionPatient=None)),
    pushed("of CT", "another kind", tags(Modality="CT")),
    pushed("whose id leads out", "names", tags(PatientID="../../evil", StudyInstanceUID="../../evil")),
    pushed("whose id holds control signs", "names", tags(PatientID="P\x07\x1b[2J")),
    pushed("alone in its study", "wrong number of slices", lambda c: c),
    pushed("cut short", "truncation", cut(0.6)),
]  # fmt: skip


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BxL", kind, len(body) if length is None else length) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BxH", kind, len(body) if length is None else length) + body


ASSOCIATE = (
    struct.pack(">HH", 1, 0) + b"GLIOMARK".ljust(16) + b"EVIL".ljust(16) + bytes(32)
    + item(0x10, b"1.2.840.10008.3.1.1.1")
    + item(0x20, bytes([1, 0, 0, 0]) + item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2"))
    + item(0x50, item(0x51, struct.pack(">L", 16384)))
)  # fmt: skip


def line(name: str, kind: str, content: bytes) -> Case:
    """Bytes into the node's port: the line must be closed within seconds."""

    def attack(live: Live) -> Reply:
        reply = live.raw(content, live.dicom_port)
        return Reply(0, f"closed {reply.text[:40]!r}", reply.text != "still open")

    return refused(DOOR, f"line with {name}", kind, attack, "0 closed")


LINES = [
    line("nothing", "truncation", b""),
    line("chance", "noise", bytes(range(256)) * 30),
    line("HTTP", "another format", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    line("half a PDU", "truncation", pdu(1, ASSOCIATE)[:40]),
    line("a PDU that claims 4 GB", "length lie", pdu(1, ASSOCIATE, 0xFFFFFFFF)),
    line("a PDU that claims a gigabyte", "length lie", pdu(1, ASSOCIATE, 1 << 30)),
    line("a PDU of no length", "length lie", pdu(1, b"")),
    line("an unknown PDU", "wrong magic", pdu(99, bytes(40))),
    line("data before an association", "wrong magic", pdu(4, bytes(40))),
    line("a release before an association", "wrong magic", pdu(5, bytes(4))),
    line("an abort of 4 GB", "length lie", pdu(7, bytes(4), 0xFFFFFFFF)),
    line("an item that claims 65535 bytes", "length lie", pdu(1, ASSOCIATE[:68] + item(0x10, b"1.2", 0xFFFF))),
    line("10 000 contexts", "huge", pdu(1, ASSOCIATE + item(0x20, bytes([3, 0, 0, 0])) * 10_000)),
    line("a name of 60 000 bytes", "huge", pdu(1, ASSOCIATE[:68] + item(0x10, b"1." * 30_000))),
    line("a protocol version of 0", "header lie", pdu(1, bytes(4) + ASSOCIATE[4:])),
    line("an association and data that claim 4 GB", "length lie", pdu(1, ASSOCIATE) + pdu(4, bytes(6), 0xFFFFFFF0)),
    line("an association and a value that lies", "length lie",
         pdu(1, ASSOCIATE) + pdu(4, struct.pack(">LBB", 0xFFFFFF, 1, 3) + bytes(20))),
    line("an association and a command of chance", "noise",
         pdu(1, ASSOCIATE) + pdu(4, struct.pack(">LBB", 42, 1, 3) + bytes(range(40)))),
    line("an association asked twice", "duplicates", pdu(1, ASSOCIATE) * 2),
]  # fmt: skip


def whole_study(live: Live, change: Callable[[int, Dataset], object], name: str) -> Reply:
    """The healthy patient as a study of its own, each image changed; what the log says of it."""
    images = live.slices()
    for at, one in enumerate(images):
        one.StudyInstanceUID = uid("node", "odd", name)
        change(at, one)
    since = live.newest_line()
    answers = live.store(images)
    if set(answers) != {0}:
        return Reply(next(one for one in answers if one), "an image was refused", True)
    return live.told_of_pushed(since)


ODD = [
    answered(DOOR, f"study {name}", "odd but healthy", lambda live, c=change, n=name: whole_study(live, c, n),
             lambda reply: "" if "predict done" in reply.text else reply.text)
    for name, change in {
        "as it is": lambda at, one: None,
        "with Chinese names": lambda at, one: setattr(one, "PatientName", "王^小明"),
        "without age and sex": lambda at, one: (one.__delattr__("PatientAge"), one.__delattr__("PatientSex")),
    }.items()
]  # fmt: skip

CASES = [*OBJECTS, *LINES, *ODD]

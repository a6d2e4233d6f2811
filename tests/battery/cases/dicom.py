"""DICOM cases, classic and enhanced: false, missing or contradictory headers, truncated objects, unusual valid ones."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from tests.battery.cases_and_results import Case, expect_answer, expect_refusal
from tests.battery.changes import (
    BytesChange,
    FolderChange,
    change_files,
    compare_with_healthy_answer,
    copy_file,
    copy_patient,
    corrupt_bytes,
    delete_files,
    link_file,
    replace_content,
    truncate_bytes,
    write_file,
)
from tests.battery.dicom_objects import create_uid, find_object_files, write_object

DOOR = "predict"
ONE, ALL = "FLAIR/009.dcm", "FLAIR/*.dcm"
FRAMES = "FLAIR.dcm"
Edit = Callable[[FileDataset], object]
UNREADABLE = (
    "dicom-damaged",
    "dicom-undecodable",
    "dicom-frames",
    "dicom-size",
    "dicom-not-uniform",
    "dicom-destroyed",
)
SERIES_LOST = (
    *UNREADABLE,
    "reading-crashed",
    "dicom-lut",
    "have the same slice position",
    "dicom-uneven",
    "dicom-no-sequence",
    "missing",
)


def edit_object(edit_dataset: Edit) -> BytesChange:
    """Read the object, change it and write it in explicit VR little endian."""

    def change(content: bytes) -> bytes:
        one = pydicom.dcmread(io.BytesIO(content))
        edit_dataset(one)
        new = io.BytesIO()
        form = {"implicit_vr": False, "little_endian": True}
        pydicom.dcmwrite(new, one, **form, force_encoding=True)
        return new.getvalue()

    return change


def set_tags(**values: Any) -> BytesChange:
    """Change elements; the value None deletes one."""

    def change(one: FileDataset) -> None:
        for name, value in values.items():
            if value is None:
                one.pop(name, None)
            else:
                setattr(one, name, value)

    return edit_object(change)


def set_raw_value(name: str, text: bytes) -> BytesChange:
    """Replace the bytes of an element by others of any length, with the same VR."""

    def change(content: bytes) -> bytes:
        tag = pydicom.tag.Tag(name)
        head = struct.pack("<HH", tag.group, tag.element)
        at = content.find(head, 132)
        assert at > 0, f"{name} is not there"
        length = struct.unpack_from("<H", content, at + 6)[0]
        return content[: at + 6] + struct.pack("<H", len(text)) + text + content[at + 8 + length :]

    return change


def create_series_case(name: str, kind: str, change: FolderChange, *says: str) -> Case:
    return expect_refusal(DOOR, f"DICOM {name}", kind, copy_patient("classic", change), *says)


def create_enhanced_case(name: str, kind: str, how: BytesChange, *says: str) -> Case:
    return expect_refusal(
        DOOR, f"enhanced DICOM {name}", kind, copy_patient("enhanced", change_files(FRAMES, how)), *says
    )


def set_tags_everywhere(**values: Any) -> FolderChange:
    """Change tags of all FLAIR objects."""
    return change_files(ALL, set_tags(**values))


def insert_before_pixels(content: bytes, more: bytes) -> bytes:
    """Insert bytes before the pixel data."""
    at = content.find(struct.pack("<HH", 0x7FE0, 0x0010), 132)
    return content[:at] + more + content[at:]


def insert_nested_sequence(levels: int) -> BytesChange:
    """Insert nested private sequences of undefined length."""
    start = struct.pack("<HH2sHI", 0x0029, 0x1010, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return lambda content: insert_before_pixels(content, start * levels + end * levels)


def insert_private_element(size: int, stated: int | None = None) -> BytesChange:
    head = struct.pack("<HH2sHI", 0x0029, 0x1020, b"OB", 0, size if stated is None else stated)
    return lambda content: insert_before_pixels(content, head + bytes(size))


CUTS = (
    [
        create_series_case(
            f"whose every FLAIR is cut after {kept:g}",
            "truncation",
            change_files(ALL, truncate_bytes(kept)),
            *SERIES_LOST,
        )
        for kept in (0.0, 100, 131, 140, 400, 0.5, 0.999)
    ]
    + [
        create_enhanced_case(f"cut after {kept:g}", "truncation", truncate_bytes(kept), *SERIES_LOST)
        for kept in (0.0, 140, 600, 0.5, 0.999)
    ]
    + [
        create_series_case(
            f"of which one is cut after {kept:g}",
            "truncation",
            change_files(ONE, truncate_bytes(kept)),
            *SERIES_LOST,
        )
        for kept in (0.0, 200, 0.5, 0.99)
    ]
    + [
        create_series_case(
            f"with chance in every FLAIR's header, {seed}",
            "noise",
            change_files(ALL, lambda c, seed=seed: corrupt_bytes(seed, 0.2)(c[:900]) + c[900:]),
            *SERIES_LOST,
            "dicom",
            "series",
            "FLAIR",
        )
        for seed in range(3)
    ]
)

FRAME_BOMBS = (
    [
        create_series_case(
            f"claiming {count} frames",
            "bomb",
            set_tags_everywhere(NumberOfFrames=count),
            "dicom-frames",
            *SERIES_LOST,
        )
        for count in (10**9, 2**31 - 1, 500, -5)
    ]
    + [
        create_enhanced_case(
            f"claiming {count} frames", "bomb", set_tags(NumberOfFrames=count), "dicom-frames", *SERIES_LOST
        )
        for count in (10**9, 19, 0, 17)
    ]
    + [
        create_series_case(
            "claiming a billion frames of one pixel",
            "bomb",
            set_tags_everywhere(NumberOfFrames=10**9, Rows=1, Columns=1),
            "dicom-frames",
            *SERIES_LOST,
        ),
        create_series_case(
            "claiming 65535 x 65535",
            "bomb",
            set_tags_everywhere(Rows=65535, Columns=65535),
            "dicom-frames",
            *SERIES_LOST,
        ),
        create_series_case("of no rows", "impossible dimensions", set_tags_everywhere(Rows=0), *SERIES_LOST),
        create_series_case("without Rows", "missing part", set_tags_everywhere(Rows=None), *SERIES_LOST),
        create_series_case(
            "without pixels", "missing part", set_tags_everywhere(PixelData=None), *SERIES_LOST
        ),
        create_series_case(
            "with half its pixels",
            "pixel length",
            change_files(ALL, edit_object(lambda d: halve_pixels(d))),
            *SERIES_LOST,
        ),
        create_series_case(
            "with twice its columns",
            "pixel length",
            set_tags_everywhere(Columns=176),
            "dicom-frames",
            *SERIES_LOST,
        ),
    ]
)


def halve_pixels(one: FileDataset) -> None:
    one.PixelData = one.PixelData[: len(one.PixelData) // 2]


BITS = [
    create_series_case(
        "of 20 bits in 16", "bits", set_tags_everywhere(BitsStored=20, HighBit=19), "dicom-bits"
    ),
    create_series_case(
        "whose high bit is 3", "bits", set_tags_everywhere(BitsStored=12, HighBit=3), "dicom-bits"
    ),
    create_series_case(
        "of values beyond its bits", "bits", set_tags_everywhere(BitsStored=3, HighBit=2), "dicom-bits-beyond"
    ),
    create_series_case(
        "of 7 bits allocated", "bits", set_tags_everywhere(BitsAllocated=7), "dicom-bits", *SERIES_LOST
    ),
    create_series_case(
        "of 64 bits allocated", "bits", set_tags_everywhere(BitsAllocated=64), "dicom-bits", *SERIES_LOST
    ),
    create_series_case(
        "in colour",
        "colour",
        set_tags_everywhere(PhotometricInterpretation="RGB", SamplesPerPixel=3),
        "dicom-coloured",
        "colour",
        *SERIES_LOST,
    ),
    create_series_case(
        "by a palette",
        "colour",
        set_tags_everywhere(PhotometricInterpretation="PALETTE COLOR"),
        "dicom-photometric",
        "colour",
        *SERIES_LOST,
    ),
    create_series_case(
        "of an unknown kind of grey",
        "colour",
        set_tags_everywhere(PhotometricInterpretation="MONOCHROME9"),
        "dicom-photometric",
        *SERIES_LOST,
    ),
    create_series_case(
        "of 9 samples a pixel by planes",
        "colour",
        set_tags_everywhere(SamplesPerPixel=9, PlanarConfiguration=1),
        "dicom-photometric",
        "dicom-coloured",
        "colour",
        *SERIES_LOST,
    ),
]


def create_raw_slope(text: str) -> pydicom.dataelem.RawDataElement:
    tag = pydicom.tag.Tag("RescaleSlope")
    return pydicom.dataelem.RawDataElement(tag, "DS", len(text), text.encode(), 0, False, True)


POSITIONS = [
    create_series_case(
        "at places of no numbers",
        "NaN and inf",
        change_files(ALL, set_raw_value("ImagePositionPatient", b"nan\\nan\\nan ")),
        "dicom-place-missing",
        "dicom-place-wrong",
        *SERIES_LOST,
    ),
    create_series_case(
        "at places beyond numbers",
        "NaN and inf",
        change_files(ALL, set_raw_value("ImagePositionPatient", b"1e999\\0\\0 ")),
        "dicom-place-missing",
        "dicom-place-wrong",
        *SERIES_LOST,
    ),
    create_series_case(
        "at two coordinates",
        "VR lie",
        change_files(ALL, set_raw_value("ImagePositionPatient", b"0\\0 ")),
        "dicom-place-missing",
        "dicom-place-wrong",
        *SERIES_LOST,
    ),
    create_series_case(
        "without places",
        "missing part",
        set_tags_everywhere(ImagePositionPatient=None),
        "dicom-place-missing",
    ),
    create_series_case(
        "without directions",
        "missing part",
        set_tags_everywhere(ImageOrientationPatient=None),
        "dicom-place-missing",
        "dicom-place-wrong",
    ),
    create_series_case(
        "with directions of zeros",
        "singular affine",
        set_tags_everywhere(ImageOrientationPatient=[0] * 6),
        "dicom-place-wrong",
        "dicom-place-missing",
    ),
    create_series_case(
        "with parallel directions",
        "singular affine",
        set_tags_everywhere(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
        "dicom-place-wrong",
        "dicom-place-missing",
    ),
    create_series_case(
        "with a spacing of 0",
        "spacing",
        set_tags_everywhere(PixelSpacing=[0, 0]),
        "dicom-place-wrong",
        "dicom-place-missing",
    ),
    create_series_case(
        "with a negative spacing",
        "spacing",
        set_tags_everywhere(PixelSpacing=[-2.5, -2.5]),
        "dicom-place-wrong",
        "dicom-place-missing",
    ),
    create_series_case(
        "with a spacing of no number",
        "spacing",
        change_files(ALL, set_raw_value("PixelSpacing", b"nan\\nan ")),
        "dicom-place-wrong",
        "dicom-place-missing",
        *SERIES_LOST,
    ),
    create_series_case(
        "with a huge spacing",
        "spacing",
        set_tags_everywhere(PixelSpacing=[1e9, 1e9]),
        "dicom-place-wrong",
        "field-of-no-head",
        "dicom-place-missing",
    ),
    create_series_case(
        "all at one place",
        "duplicates",
        set_tags_everywhere(ImagePositionPatient=[0, 0, 0]),
        "dicom-one-place",
        *SERIES_LOST,
    ),
    create_series_case(
        "of one slice",
        "wrong number of slices",
        delete_files("FLAIR/0[01][!9].dcm"),
        "dicom-single-image",
        *SERIES_LOST,
    ),
    create_series_case(
        "with one uid for every image",
        "duplicates",
        set_tags_everywhere(SOPInstanceUID="1.2.3"),
        "dicom-duplicate-uid",
        "dicom-repeats",
        *SERIES_LOST,
    ),
]

PATIENTS = [
    create_series_case(
        "of which FLAIR has another id",
        "mixed patients",
        set_tags_everywhere(PatientID="P002"),
        "dicom-two-ids",
        "sequence-missing",
    ),
    create_series_case(
        "of which FLAIR has another name",
        "mixed patients",
        set_tags_everywhere(PatientName="Other^Person"),
        "dicom-two-names",
    ),
    create_series_case(
        "of which FLAIR was born otherwise",
        "mixed patients",
        change_files(
            "*/*.dcm", lambda c: set_tags(PatientBirthDate="19600101" if b"flair" in c else "19700202")(c)
        ),
        "dicom-two-birth-dates",
    ),
    create_series_case(
        "without MR",
        "another kind",
        change_files("*/*.dcm", set_tags(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")),
        "dicom-no-mr",
        "dicom-no-sequence",
    ),
    create_series_case(
        "whose series are unknown",
        "missing part",
        change_files(
            "*/*.dcm",
            set_tags(
                SeriesDescription=None,
                RepetitionTime=None,
                EchoTime=None,
                InversionTime=None,
                ContrastBolusAgent=None,
            ),
        ),
        "dicom-no-sequence",
    ),
    create_series_case("without FLAIR", "missing part", delete_files("FLAIR"), "sequence-missing"),
]

SHAPES = [
    expect_refusal(
        DOOR,
        "DICOM with a damaged copy of an image",
        "truncation",
        copy_patient("classic", copy_file(ONE, "x.dcm"), change_files("x.dcm", truncate_bytes(0.5))),
        "dicom-duplicate-uid",
    ),
    create_series_case(
        "with sequences 10 000 deep",
        "nested",
        change_files(ALL, insert_nested_sequence(10_000)),
        *SERIES_LOST,
    ),
    create_series_case(
        "with sequences 500 000 deep",
        "nested",
        change_files(ALL, insert_nested_sequence(500_000)),
        *SERIES_LOST,
    ),
    create_series_case(
        "whose sequence does not end",
        "truncation",
        change_files(
            ALL, lambda c: insert_before_pixels(c, struct.pack("<HH2sHI", 0x29, 0x1010, b"SQ", 0, 0xFFFFFFFF))
        ),
        *SERIES_LOST,
    ),
    create_series_case(
        "with a private tag that claims 4 GB",
        "length lie",
        change_files(ALL, insert_private_element(10, 0xFFFFFFF0)),
        *SERIES_LOST,
    ),
    create_series_case(
        "with a group that goes backwards",
        "VR lie",
        change_files(ALL, lambda c: c[:132] + struct.pack("<HH2sH", 0x7FE0, 0x10, b"ZZ", 3) + c[132:]),
        *SERIES_LOST,
    ),
    create_series_case(
        "with half its columns stated", "pixel length", set_tags_everywhere(Columns=44), *SERIES_LOST
    ),
    create_series_case("with a row less stated", "pixel length", set_tags_everywhere(Rows=70), *SERIES_LOST),
    create_series_case(
        "with pixels of unknown length",
        "encapsulation",
        change_files(ALL, edit_object(lambda d: encapsulate_pixels(d))),
        *SERIES_LOST,
    ),
    create_series_case(
        "called RLE without frames",
        "encapsulation",
        change_files(ALL, edit_object(lambda d: set_encapsulated_pixels(d, RLELossless, []))),
        *SERIES_LOST,
    ),
    create_series_case(
        "called RLE with a frame of zeros",
        "encapsulation",
        change_files(ALL, edit_object(lambda d: set_encapsulated_pixels(d, RLELossless, [bytes(70)]))),
        *SERIES_LOST,
    ),
    create_series_case(
        "called RLE with 4 billion segments",
        "encapsulation",
        change_files(
            ALL, edit_object(lambda d: set_encapsulated_pixels(d, RLELossless, [b"\xff" * 64 + bytes(6)]))
        ),
        *SERIES_LOST,
    ),
    create_series_case(
        "called JPEG 2000 claiming 65535 squared",
        "bomb",
        change_files(
            ALL,
            edit_object(
                lambda d: set_encapsulated_pixels(d, JPEG2000Lossless, [create_jpeg2000_header(65535, 65535)])
            ),
        ),
        *SERIES_LOST,
    ),
    create_series_case(
        "called JPEG 2000 of 4 billion squared",
        "bomb",
        change_files(
            ALL,
            edit_object(
                lambda d: set_encapsulated_pixels(
                    d, JPEG2000Lossless, [create_jpeg2000_header(2**32 - 1, 2**32 - 1)]
                )
            ),
        ),
        *SERIES_LOST,
    ),
    create_series_case(
        "called JPEG with chance in it",
        "encapsulation",
        change_files(
            ALL,
            edit_object(
                lambda d: set_encapsulated_pixels(d, JPEGLosslessSV1, [b"\xff\xd8" + bytes(range(200))])
            ),
        ),
        *SERIES_LOST,
    ),
    create_series_case(
        "called JPEG-LS claiming 65535 squared",
        "bomb",
        change_files(
            ALL,
            edit_object(
                lambda d: set_encapsulated_pixels(
                    d,
                    JPEGLSLossless,
                    [
                        b"\xff\xd8\xff\xf7\0\x0b\x10\xff\xff\xff\xff\x01\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\0\0"
                        + bytes(99)
                    ],
                )
            ),
        ),
        *SERIES_LOST,
    ),
    create_series_case(
        "in an unknown syntax",
        "encapsulation",
        change_files(
            ALL, edit_object(lambda d: set_encapsulated_pixels(d, pydicom.uid.UID("1.2.3.4"), [b"x"]))
        ),
        *SERIES_LOST,
    ),
    create_series_case(
        "whose deflated content is a bomb",
        "bomb",
        change_files(ONE, lambda c: create_deflated_bomb(c)),
        *SERIES_LOST,
    ),
    create_series_case(
        "whose deflated content is cut",
        "truncation",
        change_files(ALL, lambda c: deflate_object(c)[:700]),
        *SERIES_LOST,
    ),
    create_series_case(
        "all of zeros behind the first words",
        "another format",
        change_files(ALL, replace_content(bytes(128) + b"DICM" + bytes(4000))),
        *SERIES_LOST,
    ),
    create_series_case(
        "all texts called .dcm",
        "another format",
        change_files(ALL, replace_content(b"not an image\n" * 90)),
        *SERIES_LOST,
    ),
    create_enhanced_case(
        "whose shared groups are missing",
        "missing part",
        set_tags(SharedFunctionalGroupsSequence=None),
        *SERIES_LOST,
        "dicom-place-missing",
        "dicom-place-wrong",
    ),
    create_enhanced_case(
        "of fewer frame groups than frames",
        "header lie",
        edit_object(lambda d: d.PerFrameFunctionalGroupsSequence.pop()),
        *SERIES_LOST,
        "dicom-place-missing",
        "dicom-place-wrong",
    ),
    create_enhanced_case(
        "whose frames are all at one place",
        "duplicates",
        edit_object(
            lambda d: [
                setattr(f.PlanePositionSequence[0], "ImagePositionPatient", [0, 0, 0])
                for f in d.PerFrameFunctionalGroupsSequence
            ]
        ),
        "dicom-one-place",
        *SERIES_LOST,
    ),
    create_enhanced_case(
        "of which one place is no number",
        "NaN and inf",
        lambda c: (
            c.replace(b"\\70.0", b"\\nan ", 1)
            if b"\\70.0" in c
            else edit_object(
                lambda d: setattr(d.PerFrameFunctionalGroupsSequence[3], "PlanePositionSequence", [])
            )(c)
        ),
        "dicom-place-missing",
        "dicom-place-wrong",
        *SERIES_LOST,
    ),
]


def encapsulate_pixels(one: FileDataset) -> None:
    """Encapsulate the pixel data although the transfer syntax is uncompressed."""
    one.PixelData = encapsulate([one.PixelData])
    one["PixelData"].is_undefined_length = True


def set_encapsulated_pixels(one: FileDataset, syntax: pydicom.uid.UID, pieces: list[bytes]) -> None:
    one.file_meta.TransferSyntaxUID = syntax
    one.PixelData = encapsulate(pieces) if pieces else struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True


def create_jpeg2000_header(width: int, height: int) -> bytes:
    """Start of a JPEG 2000 codestream."""
    sizes = struct.pack(">HHIIIIIIIIH", 41, 0, width, height, 0, 0, width, height, 0, 0, 1) + b"\x0f\x01\x01"
    coding = b"\xff\x52\0\x0c\0\0\0\x01\0\x05\x04\x04\0\x01"
    return (
        b"\xff\x4f\xff\x51"
        + sizes
        + coding
        + b"\xff\x5c\0\x13\x40"
        + bytes(16)
        + b"\xff\x90\0\x0a"
        + bytes(8)
    )


def deflate_object(content: bytes) -> bytes:
    one = pydicom.dcmread(io.BytesIO(content))
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    new = io.BytesIO()
    pydicom.dcmwrite(new, one, implicit_vr=False, little_endian=True, force_encoding=True)
    return new.getvalue()


def create_deflated_bomb(content: bytes) -> bytes:
    """Insert a private element of half a gigabyte of zeros, deflated to half a megabyte."""
    one = pydicom.dcmread(io.BytesIO(content))
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    new, plain = io.BytesIO(), io.BytesIO()
    pydicom.dcmwrite(new, keep_file_meta(one), implicit_vr=False, little_endian=True, force_encoding=True)
    one.pop("PixelData")
    pydicom.filewriter.write_dataset(create_plain_writer(plain), one)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = 1 << 29
    pieces = [packer.compress(plain.getvalue() + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, size))]
    pieces += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    head = new.getvalue()
    start = head[: 132 + 12 + struct.unpack_from("<I", head, 140)[0]]
    return start + b"".join(pieces) + packer.flush()


def keep_file_meta(one: FileDataset) -> FileDataset:
    return FileDataset("", Dataset(), file_meta=one.file_meta, preamble=one.preamble)


def create_plain_writer(stream: io.BytesIO) -> pydicom.filebase.DicomIO:
    writer = pydicom.filebase.DicomIO(stream)
    writer.is_implicit_VR, writer.is_little_endian = False, True
    return writer


def insert_long_uid(content: bytes) -> bytes:
    """Replace SOPInstanceUID by a UN element with a 32-bit length."""
    tag = pydicom.tag.Tag("SOPInstanceUID")
    head = struct.pack("<HH", tag.group, tag.element)
    at = content.find(head, 132 + 12 + struct.unpack_from("<I", content, 140)[0])
    length = struct.unpack_from("<H", content, at + 6)[0]
    long = head + struct.pack("<2sHI", b"UN", 0, 1 << 20) + b"1." * (1 << 19)
    return content[:at] + long + content[at + 8 + length :]


def create_healthy_case(name: str, *changes: FolderChange, form: str = "classic", near: float = 0.03) -> Case:
    label = "enhanced DICOM" if form == "enhanced" else "DICOM"
    return expect_answer(
        DOOR,
        f"{label} {name}",
        "odd but healthy",
        copy_patient(form, *changes),
        compare_with_healthy_answer(form, tolerance=near),
    )


def change_syntax(syntax: pydicom.uid.UID) -> FolderChange:
    def change(folder: Path) -> None:
        for file in find_object_files(folder):
            one = pydicom.dcmread(file)
            if syntax.is_encapsulated:
                one.compress(syntax, generate_instance_uid=False)
                one.save_as(file, enforce_file_format=True)
            else:
                one.file_meta.TransferSyntaxUID = syntax
                write_object(one, file)

    return change


def rename_to_numbers(folder: Path) -> None:
    """Move all files to one folder, numbered in reverse order and without suffix."""
    for number, file in enumerate(reversed(find_object_files(folder))):
        file.rename(folder / f"IM{number:05d}")


def invert_greys(one: FileDataset) -> None:
    stored = np.frombuffer(one.PixelData, "<u2")
    one.PixelData, one.PhotometricInterpretation = (65535 - stored).astype("<u2").tobytes(), "MONOCHROME1"


def remove_preamble(content: bytes) -> bytes:
    return content[132:]


ODD = [
    create_healthy_case("in implicit VR", change_syntax(ImplicitVRLittleEndian)),
    create_healthy_case("lacking a slice in the middle", delete_files(ONE), near=0.2),
    create_healthy_case("with UIDs of a megabyte", change_files(ALL, lambda c: insert_long_uid(c))),
    create_healthy_case("of 0 bits stored, in 16", set_tags_everywhere(BitsStored=0)),
    *[
        create_healthy_case(
            f"scaled by {text}",
            change_files(
                ALL,
                edit_object(
                    lambda d, text=text: (
                        setattr(d, "RescaleIntercept", "0"),
                        d.__setitem__("RescaleSlope", create_raw_slope(text)),
                    )
                ),
            ),
        )
        for text in ("nan", "0", "many")
    ],
    create_healthy_case("in big endian", change_syntax(ExplicitVRBigEndian)),
    create_healthy_case("deflated", change_files("*/*.dcm", deflate_object)),
    create_healthy_case("in RLE", change_syntax(RLELossless)),
    create_healthy_case("as MONOCHROME1", change_files("*/*.dcm", edit_object(invert_greys))),
    create_healthy_case("called by numbers in one folder", rename_to_numbers),
    create_healthy_case("without preambles", change_files("*/*.dcm", remove_preamble)),
    create_healthy_case("with every image twice", copy_file("FLAIR", "again")),
    create_healthy_case(
        "with private data of 100 kB", change_files("*/*.dcm", insert_private_element(100_000))
    ),
    create_healthy_case(
        "beside a DICOMDIR that names itself",
        write_file("DICOMDIR", bytes(128) + b"DICM" + bytes(300)),
        link_file("loop", "."),
    ),
    create_healthy_case(
        "with a wrong character set",
        change_files("*/*.dcm", set_tags(SpecificCharacterSet="ISO 2022 IR 999")),
    ),
    create_healthy_case("with another series of colours", lambda folder: add_coloured_series(folder)),
    create_healthy_case("in implicit VR", change_syntax(ImplicitVRLittleEndian), form="enhanced"),
    create_healthy_case("with a localizer beside it", lambda folder: add_localizer(folder), form="enhanced"),
]


def add_coloured_series(folder: Path) -> None:
    for at, file in enumerate(find_object_files(folder / "FLAIR")[:3]):
        one = pydicom.dcmread(file)
        one.SeriesInstanceUID, one.SOPInstanceUID = create_uid("colours"), create_uid("colours", at)
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
        one.BitsAllocated, one.BitsStored, one.HighBit = 8, 8, 7
        one.PixelData = bytes(one.Rows * one.Columns * 3)
        write_object(one, folder / "colours" / file.name)


def add_localizer(folder: Path) -> None:
    one = pydicom.dcmread(folder / "FLAIR.dcm")
    one.SeriesDescription, one.ImageType = "localizer", ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    one.SeriesInstanceUID, one.SOPInstanceUID = create_uid("localizer"), create_uid("localizer", 1)
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    write_object(one, folder / "localizer.dcm")


CASES = [*CUTS, *FRAME_BOMBS, *BITS, *POSITIONS, *PATIENTS, *SHAPES, *ODD]

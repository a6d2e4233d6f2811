"""DICOM, classic and enhanced: objects that claim, hide, contradict or end early, and odd healthy ones."""

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
from tests.battery.case import Case, answered, refused
from tests.battery.dicom import objects, uid, write
from tests.battery.kit import (
    Bytes,
    Change,
    copy,
    cut,
    instead_of_all,
    link,
    noise,
    on,
    patient,
    put,
    same_answer,
    take_away,
)

DOOR = "predict"
ONE, ALL = "FLAIR/009.dcm", "FLAIR/*.dcm"
FRAMES = "FLAIR.dcm"
Edit = Callable[[FileDataset], object]
UNREADABLE = (
    "dicom-damaged", "dicom-undecodable", "dicom-frames", "dicom-size", "dicom-not-uniform", "dicom-destroyed",
)  # fmt: skip
LOST = (
    *UNREADABLE, "reading-crashed", "dicom-lut", "show the same place", "dicom-uneven", "dicom-no-sequence", "missing",
)  # fmt: skip


def edit(how: Edit) -> Bytes:
    """The object read, changed and written again in explicit VR, little endian."""

    def change(content: bytes) -> bytes:
        one = pydicom.dcmread(io.BytesIO(content))
        how(one)
        new = io.BytesIO()
        form = {"implicit_vr": False, "little_endian": True}
        pydicom.dcmwrite(new, one, **form, force_encoding=True)
        return new.getvalue()

    return change


def tags(**values: Any) -> Bytes:
    """Elements with other values; None takes one away."""

    def change(one: FileDataset) -> None:
        for name, value in values.items():
            if value is None:
                one.pop(name, None)
            else:
                setattr(one, name, value)

    return edit(change)


def raw(name: str, text: bytes) -> Bytes:
    """An element's bytes replaced by others of any length, its VR kept."""

    def change(content: bytes) -> bytes:
        tag = pydicom.tag.Tag(name)
        head = struct.pack("<HH", tag.group, tag.element)
        at = content.find(head, 132)
        assert at > 0, f"{name} is not there"
        length = struct.unpack_from("<H", content, at + 6)[0]
        return content[: at + 6] + struct.pack("<H", len(text)) + text + content[at + 8 + length :]

    return change


def series(name: str, kind: str, change: Change, *says: str) -> Case:
    return refused(DOOR, f"DICOM {name}", kind, patient("classic", change), *says)


def frames(name: str, kind: str, how: Bytes, *says: str) -> Case:
    return refused(DOOR, f"enhanced DICOM {name}", kind, patient("enhanced", on(FRAMES, how)), *says)


def claim(**values: Any) -> Change:
    """The tags of every FLAIR object."""
    return on(ALL, tags(**values))


def dataset_end(content: bytes, more: bytes) -> bytes:
    """Bytes before the pixels."""
    at = content.find(struct.pack("<HH", 0x7FE0, 0x0010), 132)
    return content[:at] + more + content[at:]


def nested(levels: int) -> Bytes:
    """A private sequence of undefined length within itself."""
    start = struct.pack("<HH2sHI", 0x0029, 0x1010, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return lambda content: dataset_end(content, start * levels + end * levels)


def private(size: int, stated: int | None = None) -> Bytes:
    head = struct.pack("<HH2sHI", 0x0029, 0x1020, b"OB", 0, size if stated is None else stated)
    return lambda content: dataset_end(content, head + bytes(size))


CUTS = [
    series(f"whose every FLAIR is cut after {kept:g}", "truncation", on(ALL, cut(kept)), *LOST)
    for kept in (0.0, 100, 131, 140, 400, 0.5, 0.999)
] + [
    frames(f"cut after {kept:g}", "truncation", cut(kept), *LOST) for kept in (0.0, 140, 600, 0.5, 0.999)
] + [
    series(f"of which one is cut after {kept:g}", "truncation", on(ONE, cut(kept)), *LOST)
    for kept in (0.0, 200, 0.5, 0.99)
] + [
    series(f"with chance in every FLAIR's header, {seed}", "noise",
           on(ALL, lambda c, seed=seed: noise(seed, 0.2)(c[:900]) + c[900:]), *LOST, "dicom", "series", "FLAIR")
    for seed in range(3)
]  # fmt: skip

FRAME_BOMBS = [
    series(f"claiming {count} frames", "bomb", claim(NumberOfFrames=count), "dicom-frames", *LOST)
    for count in (10**9, 2**31 - 1, 500, -5)
] + [
    frames(f"claiming {count} frames", "bomb", tags(NumberOfFrames=count), "dicom-frames", *LOST)
    for count in (10**9, 19, 0, 17)
] + [
    series("claiming a billion frames of one pixel", "bomb", claim(NumberOfFrames=10**9, Rows=1, Columns=1),
           "dicom-frames", *LOST),
    series("claiming 65535 x 65535", "bomb", claim(Rows=65535, Columns=65535), "dicom-frames", *LOST),
    series("of no rows", "impossible dimensions", claim(Rows=0), *LOST),
    series("without Rows", "missing part", claim(Rows=None), *LOST),
    series("without pixels", "missing part", claim(PixelData=None), *LOST),
    series("with half its pixels", "pixel length", on(ALL, edit(lambda d: half_pixels(d))), *LOST),
    series("with twice its columns", "pixel length", claim(Columns=176), "dicom-frames", *LOST),
]  # fmt: skip


def half_pixels(one: FileDataset) -> None:
    one.PixelData = one.PixelData[: len(one.PixelData) // 2]


BITS = [
    series("of 20 bits in 16", "bits", claim(BitsStored=20, HighBit=19), "dicom-bits"),
    series("whose high bit is 3", "bits", claim(BitsStored=12, HighBit=3), "dicom-bits"),
    series("of values beyond its bits", "bits", claim(BitsStored=3, HighBit=2), "dicom-bits-beyond"),
    series("of 7 bits allocated", "bits", claim(BitsAllocated=7), "dicom-bits", *LOST),
    series("of 64 bits allocated", "bits", claim(BitsAllocated=64), "dicom-bits", *LOST),
    series("in colour", "colour", claim(PhotometricInterpretation="RGB", SamplesPerPixel=3), "dicom-coloured",
           "colour", *LOST),
    series("by a palette", "colour", claim(PhotometricInterpretation="PALETTE COLOR"), "dicom-photometric",
           "colour", *LOST),
    series("of an unknown kind of grey", "colour", claim(PhotometricInterpretation="MONOCHROME9"),
           "dicom-photometric", *LOST),
    series("of 9 samples a pixel by planes", "colour", claim(SamplesPerPixel=9, PlanarConfiguration=1),
           "dicom-photometric", "dicom-coloured", "colour", *LOST),
]  # fmt: skip


def slope(text: str) -> pydicom.dataelem.RawDataElement:
    tag = pydicom.tag.Tag("RescaleSlope")
    return pydicom.dataelem.RawDataElement(tag, "DS", len(text), text.encode(), 0, False, True)


PLACES = [
    series("at places of no numbers", "NaN and inf", on(ALL, raw("ImagePositionPatient", b"nan\\nan\\nan ")),
           "dicom-place-missing", "dicom-place-wrong", *LOST),
    series("at places beyond numbers", "NaN and inf", on(ALL, raw("ImagePositionPatient", b"1e999\\0\\0 ")),
           "dicom-place-missing", "dicom-place-wrong", *LOST),
    series("at two coordinates", "VR lie", on(ALL, raw("ImagePositionPatient", b"0\\0 ")), "dicom-place-missing",
           "dicom-place-wrong", *LOST),
    series("without places", "missing part", claim(ImagePositionPatient=None), "dicom-place-missing"),
    series("without directions", "missing part", claim(ImageOrientationPatient=None), "dicom-place-missing",
           "dicom-place-wrong"),
    series("with directions of zeros", "singular affine", claim(ImageOrientationPatient=[0] * 6),
           "dicom-place-wrong", "dicom-place-missing"),
    series("with parallel directions", "singular affine", claim(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
           "dicom-place-wrong", "dicom-place-missing"),
    series("with a spacing of 0", "spacing", claim(PixelSpacing=[0, 0]), "dicom-place-wrong", "dicom-place-missing"),
    series("with a negative spacing", "spacing", claim(PixelSpacing=[-2.5, -2.5]), "dicom-place-wrong",
           "dicom-place-missing"),
    series("with a spacing of no number", "spacing", on(ALL, raw("PixelSpacing", b"nan\\nan ")), "dicom-place-wrong",
           "dicom-place-missing", *LOST),
    series("with a huge spacing", "spacing", claim(PixelSpacing=[1e9, 1e9]), "dicom-place-wrong",
           "field-of-no-head", "dicom-place-missing"),
    series("all at one place", "duplicates", claim(ImagePositionPatient=[0, 0, 0]), "dicom-one-place", *LOST),
    series("of one slice", "wrong number of slices", take_away("FLAIR/0[01][!9].dcm"), "dicom-single-image", *LOST),
    series("with one uid for every image", "duplicates", claim(SOPInstanceUID="1.2.3"), "dicom-duplicate-uid",
           "dicom-repeats", *LOST),
]  # fmt: skip

PEOPLE = [
    series("of which FLAIR has another id", "mixed patients", claim(PatientID="P002"), "dicom-two-ids",
           "sequence-missing"),
    series("of which FLAIR has another name", "mixed patients", claim(PatientName="Other^Person"),
           "dicom-two-names"),
    series("of which FLAIR was born otherwise", "mixed patients", on("*/*.dcm", lambda c: tags(
        PatientBirthDate="19600101" if b"flair" in c else "19700202")(c)), "dicom-two-birth-dates"),
    series("without MR", "another kind", on("*/*.dcm", tags(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")),
           "dicom-no-mr", "dicom-no-sequence"),
    series("whose series are unknown", "missing part", on("*/*.dcm", tags(
        SeriesDescription=None, RepetitionTime=None, EchoTime=None, InversionTime=None, ContrastBolusAgent=None)),
        "dicom-no-sequence"),
    series("without FLAIR", "missing part", take_away("FLAIR"), "sequence-missing"),
]  # fmt: skip

SHAPES = [
    refused(DOOR, "DICOM with a damaged copy of an image", "truncation",
            patient("classic", copy(ONE, "x.dcm"), on("x.dcm", cut(0.5))), "dicom-duplicate-uid"),
    series("with sequences 10 000 deep", "nested", on(ALL, nested(10_000)), *LOST),
    series("with sequences 500 000 deep", "nested", on(ALL, nested(500_000)), *LOST),
    series("whose sequence does not end", "truncation",
           on(ALL, lambda c: dataset_end(c, struct.pack("<HH2sHI", 0x29, 0x1010, b"SQ", 0, 0xFFFFFFFF))), *LOST),
    series("with a private tag that claims 4 GB", "length lie", on(ALL, private(10, 0xFFFFFFF0)), *LOST),
    series("with a group that goes backwards", "VR lie",
           on(ALL, lambda c: c[:132] + struct.pack("<HH2sH", 0x7FE0, 0x10, b"ZZ", 3) + c[132:]), *LOST),
    series("with half its columns stated", "pixel length", claim(Columns=44), *LOST),
    series("with a row less stated", "pixel length", claim(Rows=70), *LOST),
    series("with pixels of unknown length", "encapsulation", on(ALL, edit(lambda d: loose_pixels(d))), *LOST),
    series("called RLE without frames", "encapsulation", on(ALL, edit(lambda d: pack(d, RLELossless, []))), *LOST),
    series("called RLE with a frame of zeros", "encapsulation",
           on(ALL, edit(lambda d: pack(d, RLELossless, [bytes(70)]))), *LOST),
    series("called RLE with 4 billion segments", "encapsulation",
           on(ALL, edit(lambda d: pack(d, RLELossless, [b"\xff" * 64 + bytes(6)]))), *LOST),
    series("called JPEG 2000 claiming 65535 squared", "bomb",
           on(ALL, edit(lambda d: pack(d, JPEG2000Lossless, [j2k(65535, 65535)]))), *LOST),
    series("called JPEG 2000 of 4 billion squared", "bomb",
           on(ALL, edit(lambda d: pack(d, JPEG2000Lossless, [j2k(2**32 - 1, 2**32 - 1)]))), *LOST),
    series("called JPEG with chance in it", "encapsulation",
           on(ALL, edit(lambda d: pack(d, JPEGLosslessSV1, [b"\xff\xd8" + bytes(range(200))]))), *LOST),
    series("called JPEG-LS claiming 65535 squared", "bomb", on(ALL, edit(lambda d: pack(d, JPEGLSLossless, [
        b"\xff\xd8\xff\xf7\0\x0b\x10\xff\xff\xff\xff\x01\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\0\0" + bytes(99)]))),
        *LOST),
    series("in an unknown syntax", "encapsulation",
           on(ALL, edit(lambda d: pack(d, pydicom.uid.UID("1.2.3.4"), [b"x"]))), *LOST),
    series("whose deflated content is a bomb", "bomb", on(ONE, lambda c: deflated_bomb(c)), *LOST),
    series("whose deflated content is cut", "truncation", on(ALL, lambda c: deflated(c)[:700]), *LOST),
    series("all of zeros behind the first words", "another format", on(ALL, instead_of_all(
        bytes(128) + b"DICM" + bytes(4000))), *LOST),
    series("all texts called .dcm", "another format", on(ALL, instead_of_all(b"not an image\n" * 90)), *LOST),
    frames("whose shared groups are missing", "missing part", tags(SharedFunctionalGroupsSequence=None), *LOST,
           "dicom-place-missing", "dicom-place-wrong"),
    frames("of fewer frame groups than frames", "header lie", edit(
        lambda d: d.PerFrameFunctionalGroupsSequence.pop()), *LOST, "dicom-place-missing", "dicom-place-wrong"),
    frames("whose frames are all at one place", "duplicates", edit(lambda d: [
        setattr(f.PlanePositionSequence[0], "ImagePositionPatient", [0, 0, 0])
        for f in d.PerFrameFunctionalGroupsSequence]), "dicom-one-place", *LOST),
    frames("of which one place is no number", "NaN and inf", lambda c: c.replace(b"\\70.0", b"\\nan ", 1)
           if b"\\70.0" in c else edit(lambda d: setattr(
               d.PerFrameFunctionalGroupsSequence[3], "PlanePositionSequence", []))(c),
           "dicom-place-missing", "dicom-place-wrong", *LOST),
]  # fmt: skip


def loose_pixels(one: FileDataset) -> None:
    """Uncompressed syntax, encapsulated pixels."""
    one.PixelData = encapsulate([one.PixelData])
    one["PixelData"].is_undefined_length = True


def pack(one: FileDataset, syntax: pydicom.uid.UID, pieces: list[bytes]) -> None:
    one.file_meta.TransferSyntaxUID = syntax
    one.PixelData = encapsulate(pieces) if pieces else struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True


def j2k(width: int, height: int) -> bytes:
    """A JPEG 2000 codestream's first words."""
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


def deflated(content: bytes) -> bytes:
    one = pydicom.dcmread(io.BytesIO(content))
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    new = io.BytesIO()
    pydicom.dcmwrite(new, one, implicit_vr=False, little_endian=True, force_encoding=True)
    return new.getvalue()


def deflated_bomb(content: bytes) -> bytes:
    """Deflated to half a megabyte: a private element of half a gigabyte of zeros."""
    one = pydicom.dcmread(io.BytesIO(content))
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    new, plain = io.BytesIO(), io.BytesIO()
    pydicom.dcmwrite(new, meta_alone(one), implicit_vr=False, little_endian=True, force_encoding=True)
    one.pop("PixelData")
    pydicom.filewriter.write_dataset(plain_writer(plain), one)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = 1 << 29
    pieces = [packer.compress(plain.getvalue() + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, size))]
    pieces += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    head = new.getvalue()
    start = head[: 132 + 12 + struct.unpack_from("<I", head, 140)[0]]
    return start + b"".join(pieces) + packer.flush()


def meta_alone(one: FileDataset) -> FileDataset:
    return FileDataset("", Dataset(), file_meta=one.file_meta, preamble=one.preamble)


def plain_writer(stream: io.BytesIO) -> pydicom.filebase.DicomIO:
    writer = pydicom.filebase.DicomIO(stream)
    writer.is_implicit_VR, writer.is_little_endian = False, True
    return writer


def long_uid(content: bytes) -> bytes:
    """SOPInstanceUID as UN with a length of 32 bits."""
    tag = pydicom.tag.Tag("SOPInstanceUID")
    head = struct.pack("<HH", tag.group, tag.element)
    at = content.find(head, 132 + 12 + struct.unpack_from("<I", content, 140)[0])
    length = struct.unpack_from("<H", content, at + 6)[0]
    long = head + struct.pack("<2sHI", b"UN", 0, 1 << 20) + b"1." * (1 << 19)
    return content[:at] + long + content[at + 8 + length :]


def odd(name: str, *changes: Change, form: str = "classic", near: float = 0.03) -> Case:
    label = "enhanced DICOM" if form == "enhanced" else "DICOM"
    return answered(
        DOOR, f"{label} {name}", "odd but healthy", patient(form, *changes), same_answer(form, near=near)
    )


def as_syntax(syntax: pydicom.uid.UID) -> Change:
    def change(folder: Path) -> None:
        for file in objects(folder):
            one = pydicom.dcmread(file)
            if syntax.is_encapsulated:
                one.compress(syntax, generate_instance_uid=False)
                one.save_as(file, enforce_file_format=True)
            else:
                one.file_meta.TransferSyntaxUID = syntax
                write(one, file)

    return change


def renamed(folder: Path) -> None:
    """Names of numbers without an ending, in the opposite order, all in one folder."""
    for number, file in enumerate(reversed(objects(folder))):
        file.rename(folder / f"IM{number:05d}")


def inverted(one: FileDataset) -> None:
    stored = np.frombuffer(one.PixelData, "<u2")
    one.PixelData, one.PhotometricInterpretation = (65535 - stored).astype("<u2").tobytes(), "MONOCHROME1"


def without_preamble(content: bytes) -> bytes:
    return content[132:]


ODD = [
    odd("in implicit VR", as_syntax(ImplicitVRLittleEndian)),
    odd("lacking a slice in the middle", take_away(ONE), near=0.2),
    odd("with UIDs of a megabyte", on(ALL, lambda c: long_uid(c))),
    odd("of 0 bits stored, in 16", claim(BitsStored=0)),
    *[odd(f"scaled by {text}", on(ALL, edit(lambda d, text=text: (
        setattr(d, "RescaleIntercept", "0"), d.__setitem__("RescaleSlope", slope(text))))))
      for text in ("nan", "0", "many")],
    odd("in big endian", as_syntax(ExplicitVRBigEndian)),
    odd("deflated", on("*/*.dcm", deflated)),
    odd("in RLE", as_syntax(RLELossless)),
    odd("as MONOCHROME1", on("*/*.dcm", edit(inverted))),
    odd("called by numbers in one folder", renamed),
    odd("without preambles", on("*/*.dcm", without_preamble)),
    odd("with every image twice", copy("FLAIR", "again")),
    odd("with private data of 100 kB", on("*/*.dcm", private(100_000))),
    odd("beside a DICOMDIR that names itself", put("DICOMDIR", bytes(128) + b"DICM" + bytes(300)), link("loop", ".")),
    odd("with a wrong character set", on("*/*.dcm", tags(SpecificCharacterSet="ISO 2022 IR 999"))),
    odd("with another series of colours", lambda folder: coloured_series(folder)),
    odd("in implicit VR", as_syntax(ImplicitVRLittleEndian), form="enhanced"),
    odd("with a localizer beside it", lambda folder: localizer(folder), form="enhanced"),
]  # fmt: skip


def coloured_series(folder: Path) -> None:
    for at, file in enumerate(objects(folder / "FLAIR")[:3]):
        one = pydicom.dcmread(file)
        one.SeriesInstanceUID, one.SOPInstanceUID = uid("colours"), uid("colours", at)
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
        one.BitsAllocated, one.BitsStored, one.HighBit = 8, 8, 7
        one.PixelData = bytes(one.Rows * one.Columns * 3)
        write(one, folder / "colours" / file.name)


def localizer(folder: Path) -> None:
    one = pydicom.dcmread(folder / "FLAIR.dcm")
    one.SeriesDescription, one.ImageType = "localizer", ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    one.SeriesInstanceUID, one.SOPInstanceUID = uid("localizer"), uid("localizer", 1)
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    write(one, folder / "localizer.dcm")


CASES = [*CUTS, *FRAME_BOMBS, *BITS, *PLACES, *PEOPLE, *SHAPES, *ODD]

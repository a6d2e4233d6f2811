"""Pictures: bombs, other formats under a picture's name, headers that lie, slices that do not fit together."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tests.battery.case import Case, answered, refused
from tests.battery.kit import (
    Bytes,
    Change,
    copy,
    cut,
    instead_of_all,
    noise,
    on,
    overwrite,
    patient,
    put,
    rename,
    same_answer,
    take_away,
)

DOOR = "predict"
ONE, ALL = "FLAIR/009.png", "FLAIR/*.png"


def picture(name: str, kind: str, change: Change, *says: str) -> Case:
    return refused(DOOR, f"pictures {name}", kind, patient("pictures", change), *says)


def pixels(how: Callable[[np.ndarray], np.ndarray], kind: str = "PNG", **options: object) -> Bytes:
    """The picture drawn anew."""

    def change(content: bytes) -> bytes:
        new = io.BytesIO()
        Image.fromarray(how(np.asarray(Image.open(io.BytesIO(content))))).save(new, kind, **options)
        return new.getvalue()

    return change


def as_kind(kind: str, pattern: str = "*/*.png", how: Bytes = lambda content: content) -> Change:
    """Every picture of this pattern saved in another format, under that format's suffix, and damaged."""

    def change(folder: Path) -> None:
        for file in sorted(folder.glob(pattern)):
            new = io.BytesIO()
            options = {"quality": 98} if kind == "JPEG" else {}
            Image.open(file).save(new, kind, **options)
            file.unlink()
            file.with_suffix(f".{kind.lower()}").write_bytes(how(new.getvalue()))

    return change


def png(width: int, height: int, data: bytes, bits: int = 8, colour: int = 0) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def tiff(width: int, height: int, **more: int) -> bytes:
    """A TIFF of one strip that claims this size; more: tag_<number> to value."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: width * height}
    tags |= {int(name[4:]): value for name, value in more.items()}
    body = struct.pack("<H", len(tags))
    body += b"".join(
        struct.pack("<HHII", tag, 4, 1, value & 0xFFFFFFFF) for tag, value in sorted(tags.items())
    )
    return b"II*\0" + struct.pack("<I", 8) + body + bytes(4)


def bmp(width: int, height: int, data: bytes = b"") -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, 0, 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(data), 0, 0, 54 + 1024) + info + data


def jpeg_claiming(size: bytes) -> Bytes:
    """The JPEG's start of frame with another height and width."""

    def change(content: bytes) -> bytes:
        at = next(content.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if content.find(mark) >= 0)
        return overwrite(at + 5, size)(content)

    return change


JP2 = (
    b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 \0\0\0\0jp2 \0\0\0\x2djp2h\0\0\0\x16ihdr\0\0\xff\xff\0\0\xff\xff\0\x01"
    b"\x07\x07\0\0\0\0\0\x0fcolr\x01\0\0\0\0\0\x11\0\0\0\0jp2c\xff\x4f\xff\x51"
)
OTHERS = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 88 88\n/x {x} def x\nshowpage\n",
    "PostScript that reads a file": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 88 88\n(/etc/passwd)(r)file\n",
    "PDF": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='88' height='88'><image href='/etc/passwd'/></svg>",
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "EMF": struct.pack("<II", 1, 88) + bytes(32) + b" EMF" + bytes(60),
    "JPEG 2000": JP2,
    "GIF": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(20),
    "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 1, 65535, 65535, 8, 1) + bytes(20),
    "FITS": b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800),
    "ICNS": b"icns" + struct.pack(">I", 1 << 30) + bytes(40),
    "WebP": b"RIFF\x20\0\0\0WEBPVP8 " + bytes(24),
    "XBM": b"#define a_width 88\n#define a_height 88\nstatic char a_bits[] = { 0 };\n",
    "XPM": b"/* XPM */\nstatic char *a[] = {\n\"88 88 1 1\",\n};\n",
    "HTML": b"<html><script>alert(1)</script></html>",
    "DICOM": bytes(128) + b"DICM" + bytes(200),
    "ELF": b"\x7fELF" + bytes(200),
    "nothing": b"",
}  # fmt: skip


def in_place(suffix: str, content: bytes) -> Change:
    """One slice replaced by other bytes under another suffix."""

    def change(folder: Path) -> None:
        (folder / ONE).unlink()
        (folder / ONE).with_suffix(f".{suffix}").write_bytes(content)

    return change


FAKES = [
    picture(f"of which one is {name} called .{suffix}", "another format", in_place(suffix, OTHERS[name]),
            "picture-damaged")
    for suffix, names in {
        "png": tuple(OTHERS), "jpg": ("PostScript", "SVG", "GIF"), "tif": ("PostScript", "PDF"), "bmp": ("WMF",),
    }.items()
    for name in names
] + [
    picture("all of them PostScript", "another format", on("*/*.png", instead_of_all(OTHERS["PostScript"])),
            "picture-damaged"),
]  # fmt: skip

BOMBS = [
    picture("claiming 100000 x 100000 as PNG", "bomb", put(ONE, lambda: png(100_000, 100_000, zeros(1 << 20))),
            "picture-huge", "picture-size-differs"),
    picture("of 30000 x 30000 zeros as PNG", "bomb", put(ONE, lambda: png(30_000, 30_000, zeros(900 << 20))),
            "picture-huge"),
    picture("claiming 2 billion squared as PNG", "bomb", put(ONE, lambda: png(2**31 - 1, 2**31 - 1, b"")),
            "picture-huge", "picture-damaged"),
    picture("of no width as PNG", "impossible dimensions", put(ONE, lambda: png(0, 88, b"")), "picture-damaged"),
    picture("whose PNG text unpacks to a gigabyte", "bomb", on(ONE, lambda c: with_text(c)), "picture-damaged"),
    picture("claiming 60000 x 60000 as TIFF", "bomb", in_place("tif", tiff(60_000, 60_000)), "picture-huge"),
    picture("claiming 2 billion squared as TIFF", "bomb", in_place("tif", tiff(2**31 - 1, 2**31 - 1)),
            "picture-huge", "picture-damaged"),
    picture("whose TIFF strip lies behind its end", "header lie", in_place("tif", tiff(88, 88, tag_273=1 << 30)),
            "picture-damaged"),
    picture("whose TIFF has 60000 samples a pixel", "header lie", in_place("tif", tiff(88, 88, tag_277=60_000)),
            "picture-damaged"),
    picture("whose TIFF has an unknown packing", "header lie", in_place("tif", tiff(88, 88, tag_259=32_000)),
            "picture-damaged"),
    picture("whose TIFF's pages go in a circle", "loop", in_place("tif", tiff(88, 88)[:-4] + struct.pack("<I", 8)),
            "picture-damaged", "picture-several"),
    picture("claiming 60000 x 60000 as BMP", "bomb", in_place("bmp", bmp(60_000, 60_000)), "picture-huge",
            "picture-damaged"),
    picture("of negative width as BMP", "impossible dimensions", in_place("bmp", bmp(-88, 88)), "picture-damaged",
            "picture-huge"),
    picture("claiming 65535 x 65535 as JPEG", "bomb", as_kind("JPEG", ONE, jpeg_claiming(b"\xff\xff\xff\xff")),
            "picture-huge"),
    picture("of no height as JPEG", "impossible dimensions", as_kind("JPEG", ONE, jpeg_claiming(bytes(4))),
            "picture-damaged"),
]  # fmt: skip


def with_text(content: bytes) -> bytes:
    """A PNG with a packed text before its pixels, which unpacks to a gigabyte."""
    body = b"Comment\0\0" + zeros(1 << 30)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return content[:33] + chunk + content[33:]


CUTS = [
    picture(f"cut after {kept:g} as {kind}", "truncation", as_kind(kind, "FLAIR/009.png", cut(kept)), "picture-damaged")
    for kind in ("PNG", "JPEG", "TIFF", "BMP")
    for kept in (0.0, 10, 0.5, 0.97)
] + [
    picture(f"with chance in its bytes, {seed}", "noise", on(ONE, noise(seed, 0.02, 33)), "picture-damaged")
    for seed in range(2)
]  # fmt: skip

STACKS = [
    picture("of zeros", "constant image", on(ALL, pixels(np.zeros_like)), "grey-constant"),
    picture("of one grey", "constant image", on(ALL, pixels(lambda p: np.full_like(p, 90))), "grey-constant"),
    picture("in colour", "colour", on(ALL, pixels(lambda p: np.stack([p, p // 2, p // 3], -1))), "picture-coloured"),
    picture("as negatives", "inverted", on(ALL, pixels(lambda p: 255 - p)), "grey-inverted"),
    picture("of which one is a negative", "inverted", on(ONE, pixels(lambda p: 255 - p)), "grey-inverted-slices",
            "grey-inverted"),
    picture("of which one is larger", "wrong grid", on(ONE, pixels(lambda p: np.pad(p, 10))), "picture-size-differs"),
    picture("whose FLAIR is larger", "wrong grid", on(ALL, pixels(lambda p: np.pad(p, 10))), "picture-sizes-differ"),
    picture("of which one has 16 bits", "wrong grid", on(ONE, pixels(lambda p: p.astype(np.uint16) * 200)),
            "picture-depths-differ"),
    picture("of NaN", "NaN and inf", lambda folder: floats(folder, np.nan),
            "grey-no-numbers"),
    picture("of which FLAIR lacks one", "wrong number of slices", take_away(ONE), "picture-names-differ"),
    picture("of which FLAIR has one more", "wrong number of slices", copy(ONE, "FLAIR/099.png"),
            "picture-names-differ"),
    picture("of one slice", "wrong number of slices", take_away("*/0[!9]*.png"), "slice", "brain"),
    picture("with two folders of FLAIR", "mixed patients", copy("FLAIR", "t2 flair 2"), "picture-two-folders"),
    picture("with one slice twice", "duplicates", copy(ONE, "FLAIR/009.jpg"), "picture-twice"),
    picture("with one number twice", "duplicates", copy(ONE, "FLAIR/9.png"), "picture-one-number",
            "picture-names-differ"),
    picture("without FLAIR", "missing part", take_away("FLAIR"), "sequence-missing"),
    picture("with an empty folder FLAIR", "missing part", take_away(ALL), "picture-folder-empty", "sequence-missing"),
    picture("loose in one folder", "missing part", lambda folder: loosen(folder), "pictures-loose"),
    picture("marked to be turned", "header lie",
            on("FLAIR/*.png", pixels(lambda p: p, exif=bytes.fromhex(
                "45786966000049492a0008000000010012010300010000000600000000000000"))), "picture-turned"),
]  # fmt: skip


def floats(folder: Path, value: float) -> None:
    for file in sorted(folder.glob(ALL)):
        grey = np.asarray(Image.open(file)).astype(np.float32) * 0 + value
        Image.fromarray(grey).save(file.with_suffix(".tif"))
        file.unlink()


def loosen(folder: Path) -> None:
    for file in sorted(folder.glob("*/*.png")):
        file.rename(folder / f"{file.parent.name}-{file.name}")
    take_away("T1C")(folder)
    take_away("FLAIR")(folder)


def odd(name: str, *changes: Change, near: float = 0.03) -> Case:
    wrong = same_answer("pictures", near=near)
    return answered(DOOR, f"pictures {name}", "odd but healthy", patient("pictures", *changes), wrong)


ODD = [
    odd("as TIFF", as_kind("TIFF")),
    odd("as BMP", as_kind("BMP")),
    odd("as JPEG", as_kind("JPEG"), near=0.06),
    odd("as grey RGB", on("*/*.png", pixels(lambda p: np.stack([p] * 3, -1)))),
    odd("of 16 bits", on("*/*.png", pixels(lambda p: p.astype(np.uint16) * 257))),
    odd("in folders called t1ce and T2-FLAIR", rename("T1C", "t1ce"), rename("FLAIR", "T2-FLAIR")),
    odd("called by words", lambda folder: [f.rename(f.with_name(f"切片 {int(f.stem)}.png"))
                                           for f in sorted(folder.glob("*/*.png"))]),
    odd("beside Thumbs.db and hidden files", put("FLAIR/Thumbs.db", b"\xd0\xcf\x11\xe0" + bytes(400)),
        put("FLAIR/._009.png", b"\0\5\x16\7"), put(".DS_Store", b"\0\0\0\1Bud1")),
    odd("called .png that are JPEG", on("*/*.png", pixels(lambda p: p, "JPEG", quality=98)), near=0.06),
    odd("that go on behind their end", on("*/*.png", lambda c: c + b"PK\x03\x04" + bytes(99))),
]  # fmt: skip

CASES = [*FAKES, *BOMBS, *CUTS, *STACKS, *ODD]

"""Image files: decompression bombs, other formats with an image suffix, false headers, inconsistent slices."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
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
    overwrite_bytes,
    rename_file,
    replace_content,
    truncate_bytes,
    write_file,
)

DOOR = "predict"
ONE, ALL = "FLAIR/009.png", "FLAIR/*.png"


def create_picture_case(name: str, kind: str, change: FolderChange, *says: str) -> Case:
    return expect_refusal(DOOR, f"pictures {name}", kind, copy_patient("pictures", change), *says)


def change_pixels(
    change_picture: Callable[[np.ndarray], np.ndarray], kind: str = "PNG", **options: object
) -> BytesChange:
    """Change the pixels of an image file."""

    def change(content: bytes) -> bytes:
        new = io.BytesIO()
        Image.fromarray(change_picture(np.asarray(Image.open(io.BytesIO(content))))).save(
            new, kind, **options
        )
        return new.getvalue()

    return change


def save_as_format(
    kind: str, pattern: str = "*/*.png", how: BytesChange = lambda content: content
) -> FolderChange:
    """Save all images of this pattern in another format with its suffix, and change their bytes."""

    def change(folder: Path) -> None:
        for file in sorted(folder.glob(pattern)):
            new = io.BytesIO()
            options = {"quality": 98} if kind == "JPEG" else {}
            Image.open(file).save(new, kind, **options)
            file.unlink()
            file.with_suffix(f".{kind.lower()}").write_bytes(how(new.getvalue()))

    return change


def create_png(width: int, height: int, data: bytes, bits: int = 8, colour: int = 0) -> bytes:
    def pack_chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + pack_chunk(b"IHDR", header)
        + pack_chunk(b"IDAT", data)
        + pack_chunk(b"IEND", b"")
    )


def compress_zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def create_tiff(width: int, height: int, **more: int) -> bytes:
    """TIFF of one strip with this size in its header; more: further tags as tag_<number>."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: width * height}
    tags |= {int(name[4:]): value for name, value in more.items()}
    body = struct.pack("<H", len(tags))
    body += b"".join(
        struct.pack("<HHII", tag, 4, 1, value & 0xFFFFFFFF) for tag, value in sorted(tags.items())
    )
    return b"II*\0" + struct.pack("<I", 8) + body + bytes(4)


def create_bmp(width: int, height: int, data: bytes = b"") -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, 0, 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(data), 0, 0, 54 + 1024) + info + data


def set_jpeg_size(size: bytes) -> BytesChange:
    """Replace height and width in the start-of-frame segment of a JPEG."""

    def change(content: bytes) -> bytes:
        at = next(content.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if content.find(mark) >= 0)
        return overwrite_bytes(at + 5, size)(content)

    return change


JP2 = (
    b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 \0\0\0\0jp2 \0\0\0\x2djp2h\0\0\0\x16ihdr\0\0\xff\xff\0\0\xff\xff\0\x01"
    b"\x07\x07\0\0\0\0\0\x0fcolr\x01\0\0\0\0\0\x11\0\0\0\0jp2c\xff\x4f\xff\x51"
)
OTHER_FORMATS = {
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
    "XPM": b'/* XPM */\nstatic char *a[] = {\n"88 88 1 1",\n};\n',
    "HTML": b"<html><script>alert(1)</script></html>",
    "DICOM": bytes(128) + b"DICM" + bytes(200),
    "ELF": b"\x7fELF" + bytes(200),
    "nothing": b"",
}


def replace_slice(suffix: str, content: bytes) -> FolderChange:
    """Replace one slice by other bytes with another suffix."""

    def change(folder: Path) -> None:
        (folder / ONE).unlink()
        (folder / ONE).with_suffix(f".{suffix}").write_bytes(content)

    return change


FAKES = [
    create_picture_case(
        f"of which one is {name} called .{suffix}",
        "another format",
        replace_slice(suffix, OTHER_FORMATS[name]),
        "picture-damaged",
    )
    for suffix, names in {
        "png": tuple(OTHER_FORMATS),
        "jpg": ("PostScript", "SVG", "GIF"),
        "tif": ("PostScript", "PDF"),
        "bmp": ("WMF",),
    }.items()
    for name in names
] + [
    create_picture_case(
        "all of them PostScript",
        "another format",
        change_files("*/*.png", replace_content(OTHER_FORMATS["PostScript"])),
        "picture-damaged",
    ),
]

BOMBS = [
    create_picture_case(
        "claiming 100000 x 100000 as PNG",
        "bomb",
        write_file(ONE, lambda: create_png(100_000, 100_000, compress_zeros(1 << 20))),
        "picture-huge",
        "picture-size-differs",
    ),
    create_picture_case(
        "of 30000 x 30000 zeros as PNG",
        "bomb",
        write_file(ONE, lambda: create_png(30_000, 30_000, compress_zeros(900 << 20))),
        "picture-huge",
    ),
    create_picture_case(
        "claiming 2 billion squared as PNG",
        "bomb",
        write_file(ONE, lambda: create_png(2**31 - 1, 2**31 - 1, b"")),
        "picture-huge",
        "picture-damaged",
    ),
    create_picture_case(
        "of no width as PNG",
        "impossible dimensions",
        write_file(ONE, lambda: create_png(0, 88, b"")),
        "picture-damaged",
    ),
    create_picture_case(
        "whose PNG text unpacks to a gigabyte",
        "bomb",
        change_files(ONE, lambda c: add_huge_text(c)),
        "picture-damaged",
    ),
    create_picture_case(
        "claiming 60000 x 60000 as TIFF",
        "bomb",
        replace_slice("tif", create_tiff(60_000, 60_000)),
        "picture-huge",
    ),
    create_picture_case(
        "claiming 2 billion squared as TIFF",
        "bomb",
        replace_slice("tif", create_tiff(2**31 - 1, 2**31 - 1)),
        "picture-huge",
        "picture-damaged",
    ),
    create_picture_case(
        "whose TIFF strip lies behind its end",
        "header lie",
        replace_slice("tif", create_tiff(88, 88, tag_273=1 << 30)),
        "picture-damaged",
    ),
    create_picture_case(
        "whose TIFF has 60000 samples a pixel",
        "header lie",
        replace_slice("tif", create_tiff(88, 88, tag_277=60_000)),
        "picture-damaged",
    ),
    create_picture_case(
        "whose TIFF has an unknown packing",
        "header lie",
        replace_slice("tif", create_tiff(88, 88, tag_259=32_000)),
        "picture-damaged",
    ),
    create_picture_case(
        "whose TIFF's pages go in a circle",
        "loop",
        replace_slice("tif", create_tiff(88, 88)[:-4] + struct.pack("<I", 8)),
        "picture-damaged",
        "picture-several",
    ),
    create_picture_case(
        "claiming 60000 x 60000 as BMP",
        "bomb",
        replace_slice("bmp", create_bmp(60_000, 60_000)),
        "picture-huge",
        "picture-damaged",
    ),
    create_picture_case(
        "of negative width as BMP",
        "impossible dimensions",
        replace_slice("bmp", create_bmp(-88, 88)),
        "picture-damaged",
        "picture-huge",
    ),
    create_picture_case(
        "claiming 65535 x 65535 as JPEG",
        "bomb",
        save_as_format("JPEG", ONE, set_jpeg_size(b"\xff\xff\xff\xff")),
        "picture-huge",
    ),
    create_picture_case(
        "of no height as JPEG",
        "impossible dimensions",
        save_as_format("JPEG", ONE, set_jpeg_size(bytes(4))),
        "picture-damaged",
    ),
]


def add_huge_text(content: bytes) -> bytes:
    """Insert before the pixels of a PNG a compressed text that expands to a gigabyte."""
    body = b"Comment\0\0" + compress_zeros(1 << 30)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return content[:33] + chunk + content[33:]


CUTS = [
    create_picture_case(
        f"cut after {kept:g} as {kind}",
        "truncation",
        save_as_format(kind, "FLAIR/009.png", truncate_bytes(kept)),
        "picture-damaged",
    )
    for kind in ("PNG", "JPEG", "TIFF", "BMP")
    for kept in (0.0, 10, 0.5, 0.97)
] + [
    create_picture_case(
        f"with chance in its bytes, {seed}",
        "noise",
        change_files(ONE, corrupt_bytes(seed, 0.02, 33)),
        "picture-damaged",
    )
    for seed in range(2)
]

STACKS = [
    create_picture_case(
        "of zeros", "constant image", change_files(ALL, change_pixels(np.zeros_like)), "grey-constant"
    ),
    create_picture_case(
        "of one grey",
        "constant image",
        change_files(ALL, change_pixels(lambda p: np.full_like(p, 90))),
        "grey-constant",
    ),
    create_picture_case(
        "in colour",
        "colour",
        change_files(ALL, change_pixels(lambda p: np.stack([p, p // 2, p // 3], -1))),
        "picture-coloured",
    ),
    create_picture_case(
        "as negatives", "inverted", change_files(ALL, change_pixels(lambda p: 255 - p)), "grey-inverted"
    ),
    create_picture_case(
        "of which one is a negative",
        "inverted",
        change_files(ONE, change_pixels(lambda p: 255 - p)),
        "grey-inverted-slices",
        "grey-inverted",
    ),
    create_picture_case(
        "of which one is larger",
        "wrong grid",
        change_files(ONE, change_pixels(lambda p: np.pad(p, 10))),
        "picture-size-differs",
    ),
    create_picture_case(
        "whose FLAIR is larger",
        "wrong grid",
        change_files(ALL, change_pixels(lambda p: np.pad(p, 10))),
        "picture-sizes-differ",
    ),
    create_picture_case(
        "of which one has 16 bits",
        "wrong grid",
        change_files(ONE, change_pixels(lambda p: p.astype(np.uint16) * 200)),
        "picture-depths-differ",
    ),
    create_picture_case(
        "of NaN", "NaN and inf", lambda folder: write_float_pictures(folder, np.nan), "grey-no-numbers"
    ),
    create_picture_case(
        "of which FLAIR lacks one", "wrong number of slices", delete_files(ONE), "picture-names-differ"
    ),
    create_picture_case(
        "of which FLAIR has one more",
        "wrong number of slices",
        copy_file(ONE, "FLAIR/099.png"),
        "picture-names-differ",
    ),
    create_picture_case(
        "of one slice", "wrong number of slices", delete_files("*/0[!9]*.png"), "slice", "brain"
    ),
    create_picture_case(
        "with two folders of FLAIR", "mixed patients", copy_file("FLAIR", "t2 flair 2"), "picture-two-folders"
    ),
    create_picture_case(
        "with one slice twice", "duplicates", copy_file(ONE, "FLAIR/009.jpg"), "picture-twice"
    ),
    create_picture_case(
        "with one number twice",
        "duplicates",
        copy_file(ONE, "FLAIR/9.png"),
        "picture-one-number",
        "picture-names-differ",
    ),
    create_picture_case("without FLAIR", "missing part", delete_files("FLAIR"), "sequence-missing"),
    create_picture_case(
        "with an empty folder FLAIR",
        "missing part",
        delete_files(ALL),
        "picture-folder-empty",
        "sequence-missing",
    ),
    create_picture_case(
        "loose in one folder", "missing part", lambda folder: move_to_one_folder(folder), "pictures-loose"
    ),
    create_picture_case(
        "marked to be turned",
        "header lie",
        change_files(
            "FLAIR/*.png",
            change_pixels(
                lambda p: p,
                exif=bytes.fromhex("45786966000049492a0008000000010012010300010000000600000000000000"),
            ),
        ),
        "picture-turned",
    ),
]


def write_float_pictures(folder: Path, value: float) -> None:
    for file in sorted(folder.glob(ALL)):
        grey = np.asarray(Image.open(file)).astype(np.float32) * 0 + value
        Image.fromarray(grey).save(file.with_suffix(".tif"))
        file.unlink()


def move_to_one_folder(folder: Path) -> None:
    for file in sorted(folder.glob("*/*.png")):
        file.rename(folder / f"{file.parent.name}-{file.name}")
    delete_files("T1C")(folder)
    delete_files("FLAIR")(folder)


def create_healthy_case(name: str, *changes: FolderChange, near: float = 0.03) -> Case:
    wrong = compare_with_healthy_answer("pictures", tolerance=near)
    return expect_answer(
        DOOR, f"pictures {name}", "odd but healthy", copy_patient("pictures", *changes), wrong
    )


ODD = [
    create_healthy_case("as TIFF", save_as_format("TIFF")),
    create_healthy_case("as BMP", save_as_format("BMP")),
    create_healthy_case("as JPEG", save_as_format("JPEG"), near=0.06),
    create_healthy_case(
        "as grey RGB", change_files("*/*.png", change_pixels(lambda p: np.stack([p] * 3, -1)))
    ),
    create_healthy_case(
        "of 16 bits", change_files("*/*.png", change_pixels(lambda p: p.astype(np.uint16) * 257))
    ),
    create_healthy_case(
        "in folders called t1ce and T2-FLAIR", rename_file("T1C", "t1ce"), rename_file("FLAIR", "T2-FLAIR")
    ),
    create_healthy_case(
        "called by words",
        lambda folder: [
            f.rename(f.with_name(f"切片 {int(f.stem)}.png")) for f in sorted(folder.glob("*/*.png"))
        ],
    ),
    create_healthy_case(
        "beside Thumbs.db and hidden files",
        write_file("FLAIR/Thumbs.db", b"\xd0\xcf\x11\xe0" + bytes(400)),
        write_file("FLAIR/._009.png", b"\0\5\x16\7"),
        write_file(".DS_Store", b"\0\0\0\1Bud1"),
    ),
    create_healthy_case(
        "called .png that are JPEG",
        change_files("*/*.png", change_pixels(lambda p: p, "JPEG", quality=98)),
        near=0.06,
    ),
    create_healthy_case(
        "that go on behind their end", change_files("*/*.png", lambda c: c + b"PK\x03\x04" + bytes(99))
    ),
]

CASES = [*FAKES, *BOMBS, *CUTS, *STACKS, *ODD]

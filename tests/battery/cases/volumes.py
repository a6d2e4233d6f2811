"""NIfTI, MetaImage and NRRD volumes: headers that lie, data that is not there, and odd healthy ones."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
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
    unpacked,
)

DOOR = "predict"
T1C, FLAIR = "T1C.nii.gz", "FLAIR.nii.gz"
AT = {
    "sizeof_hdr": (0, "<i"), "dim": (40, "<8h"), "datatype": (70, "<h"), "bitpix": (72, "<h"), "pixdim": (76, "<8f"),
    "vox_offset": (108, "<f"), "scl_slope": (112, "<f"), "scl_inter": (116, "<f"), "xyzt_units": (123, "<B"),
    "qform_code": (252, "<h"), "sform_code": (254, "<h"), "srow_x": (280, "<4f"), "srow_y": (296, "<4f"),
    "srow_z": (312, "<4f"), "magic": (344, "4s"),
}  # fmt: skip


def header(**fields: Any) -> Bytes:
    """Fields of a packed NIfTI header overwritten; a tuple begins at the field's first value."""

    def change(content: bytes) -> bytes:
        for name, value in fields.items():
            at, form = AT[name]
            values = value if isinstance(value, tuple) else (value,)
            kind = form if form == "4s" else f"<{len(values)}{form[-1]}"
            content = overwrite(at, struct.pack(kind, *values))(content)
        return content

    return unpacked(change)


def voxels(how: Callable[[np.ndarray], np.ndarray], kind: str = "") -> Bytes:
    """The values changed, the header kept; kind: as which numbers they are stored then."""

    def change(content: bytes) -> bytes:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        values = how(np.asanyarray(image.dataobj).astype(kind or image.get_data_dtype()))
        new = nib.Nifti1Image(values, image.affine, image.header)
        new.set_data_dtype(values.dtype)
        return gzip.compress(new.to_bytes(), 1)

    return change


def at_the_middle(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[tuple(n // 2 for n in values.shape)] = value
        return values

    return change


def as_itk(suffix: str, how: Bytes = lambda content: content, packed: bool = False) -> Change:
    """Both volumes in another format, FLAIR's file changed."""

    def change(folder: Path) -> None:
        for name in ("T1C", "FLAIR"):
            image = sitk.ReadImage(str(folder / f"{name}.nii.gz"))
            sitk.WriteImage(image, str(folder / f"{name}{suffix}"), packed)
            (folder / f"{name}.nii.gz").unlink()
        on(f"FLAIR{suffix}", how)(folder)

    return change


def line(key: bytes, value: bytes) -> Bytes:
    """A line of a text header with another value, or a further one before the last."""

    def change(content: bytes) -> bytes:
        meta = not content.startswith(b"NRRD")
        start = content.find(key + (b" =" if meta else b":"))
        new = key + (b" = " if meta else b": ") + value
        if start < 0:
            before = content.find(b"ElementDataFile") if meta else content.find(b"\n\n") + 1
            return content[:before] + new + b"\n" + content[before:]
        return content[:start] + new + content[content.find(b"\n", start) :]

    return change


def volume(name: str, kind: str, how: Bytes, *says: str, file: str = FLAIR) -> Case:
    return refused(DOOR, f"NIfTI {name}", kind, patient("volumes", on(file, how)), *says)


def itk(name: str, kind: str, suffix: str, how: Bytes, *says: str, packed: bool = False) -> Case:
    label = {".m": "MetaImage", ".n": "NRRD"}[suffix[:2]]
    return refused(DOOR, f"{label} {name}", kind, patient("volumes", as_itk(suffix, how, packed)), *says)


DAMAGED = ("volume-damaged", "volume-short", "volume-header")
NAN, INF = float("nan"), float("inf")

CUTS = [
    volume(f"cut after {kept:g} of its bytes", "truncation", cut(kept), *DAMAGED)
    for kept in (0.0, 1, 2, 10, 100, 348, 0.1, 0.5, 0.9, 0.999)
]
UNPACKED_CUTS = [
    volume(f"whose packed content ends after {kept:g}", "truncation", unpacked(cut(kept)), *DAMAGED)
    for kept in (0.0, 100, 347, 352, 400, 0.5, 0.999)
]

HEADERS = [
    volume("of no dimension", "impossible dimensions", header(dim=0), "volume-header"),
    volume("of nine dimensions", "impossible dimensions", header(dim=9), "volume-header"),
    volume("of minus three dimensions", "impossible dimensions", header(dim=-3), "volume-header"),
    volume("with a negative size", "impossible dimensions", header(dim=(3, 88, -88, 18)), "volume-header"),
    volume("with a size of 0", "impossible dimensions", header(dim=(3, 88, 0, 18)), "volume-header"),
    volume("claiming 32767 cubed", "impossible dimensions", header(dim=(3, 32767, 32767, 32767)), "volume-huge"),
    volume("claiming seven times 32767", "impossible dimensions", header(dim=(7, *[32767] * 7)), "volume-huge"),
    volume("claiming 500 cubed", "impossible dimensions", header(dim=(3, 500, 500, 500)), "volume-short"),
    volume("of four dimensions", "impossible dimensions", header(dim=(4, 88, 88, 9, 2)), "volume-not-3d"),
    volume("of two dimensions", "wrong number of slices", header(dim=(2, 88, 88, 1)), "volume-not-3d", "slice"),
    volume("of unknown numbers", "header lie", header(datatype=9999), *DAMAGED),
    volume("of type 0", "header lie", header(datatype=0), *DAMAGED),
    volume("of colours", "header lie", header(datatype=128, dim=(3, 88, 88, 6)), "volume-coloured"),
    volume("of complex numbers", "header lie", header(datatype=32, dim=(3, 88, 88, 4)), "volume-coloured"),
    volume("whose values begin at infinity", "header lie", header(vox_offset=INF), "volume-header"),
    volume("whose values begin at no number", "header lie", header(vox_offset=NAN), "volume-header"),
    volume("whose values begin before it", "header lie", header(vox_offset=-400.0), "volume-header"),
    volume("whose values begin behind its end", "header lie", header(vox_offset=2e9), "volume-header"),
    volume("with another header size", "wrong magic", header(sizeof_hdr=999), *DAMAGED, "volume-analyze"),
    volume("with header size -1", "wrong magic", header(sizeof_hdr=-1), *DAMAGED, "volume-analyze"),
    volume("with an infinite scaling", "NaN and inf", header(scl_slope=INF), "volume-scaling"),
    volume("with an infinite intercept", "NaN and inf", header(scl_slope=1.0, scl_inter=INF), "volume-scaling"),
    volume("with steps of no number", "spacing", header(pixdim=(1, NAN, NAN, NAN), sform_code=0, qform_code=0),
           "volume-steps", "volume-form-unusable"),
    volume("with infinite steps", "spacing", header(pixdim=(1, INF, INF, INF), sform_code=0, qform_code=0),
           "volume-steps", "volume-form-unusable"),
    volume("with huge steps", "spacing", header(pixdim=(1, 1e30, 1e30, 1e30), sform_code=0, qform_code=0),
           "volume-steps", "field-of-no-head", "volumes-oriented-and-not"),
    volume("with steps of 0 and no form", "spacing", header(pixdim=(1, 0, 0, 0), sform_code=0, qform_code=0),
           "volume-steps", "volume-form-unusable"),
    volume("with a pixel of 0.001 mm", "spacing", header(srow_x=(-0.001, 0, 0, 0), srow_y=(0, -0.001, 0, 0),
           qform_code=0), "volume-steps", "volume-form-steps", "field-of-no-head"),
    volume("with a singular form", "singular affine", header(srow_x=(1, 0, 0, 0), srow_y=(1, 0, 0, 0), qform_code=0),
           "volume-form-unusable", "volume-steps", "volume-form-steps", "volume-sheared"),
    volume("with a form of zeros alone", "singular affine", header(srow_x=(0, 0, 0, 0), srow_y=(0, 0, 0, 0),
           srow_z=(0, 0, 0, 0), qform_code=0), "volume-form-unusable", "volume-steps"),
    volume("with a form of no numbers", "singular affine", header(srow_x=(NAN,) * 4, qform_code=0),
           "volume-form-unusable", "volume-steps"),
    volume("with an infinite place", "singular affine", header(srow_x=(-2.5, 0, 0, INF), qform_code=0),
           "volume-form-unusable"),
    volume("with a sheared form", "singular affine", header(srow_x=(-2.5, 2.0, 0, 0), qform_code=0),
           "volume-sheared", "volume-form-steps"),
]  # fmt: skip

VALUES = [
    volume("of zeros", "constant image", voxels(np.zeros_like), "grey-constant"),
    volume("of one grey", "constant image", voxels(lambda v: np.full_like(v, 77)), "grey-constant"),
    volume("of no numbers", "NaN and inf", voxels(lambda v: np.full_like(v, NAN), "f4"), "grey-no-numbers"),
    volume("of infinities", "NaN and inf", voxels(lambda v: np.full_like(v, INF), "f4"), "grey-no-numbers"),
    volume("with no number in the brain", "NaN and inf", voxels(at_the_middle(NAN), "f4"), "voxels-missing"),
    volume("with an infinity in the brain", "NaN and inf", voxels(at_the_middle(-INF), "f4"), "voxels-missing"),
    volume("of one slice", "wrong number of slices", voxels(lambda v: v[:, :, :1]), "slice", "brain"),
    volume("of two slices", "wrong number of slices", voxels(lambda v: v[:, :, 8:10]), "slice", "brain"),
    volume("of one column", "wrong number of slices", voxels(lambda v: v[:1]), "brain", "field-of-no-head", "slice"),
    volume("turned into a negative", "inverted", voxels(lambda v: v.max() - v), "grey-inverted"),
    volume("of noise alone, as T1C is", "no brain",
           voxels(lambda v: np.random.default_rng(1).integers(0, 9, v.shape).astype(v.dtype)), "brain", "grey",
           file="*.nii.gz"),
    volume("with a damaged checksum", "truncation", lambda c: c[:-6] + bytes(6), "volume-damaged"),
    volume("with a second stream that is damaged", "truncation", lambda c: c + b"\x1f\x8b\x08" + bytes(9),
           "volume-damaged"),
]  # fmt: skip
NOISE = [
    volume(f"with chance in its packed bytes, {seed}", "noise", noise(seed, start=20), *DAMAGED)
    for seed in range(3)
]

BOMBS = [
    volume("that unpacks to a gigabyte of zeros", "bomb",
           instead_of_all(lambda: gzip_bomb(1 << 30)), *DAMAGED, "volume-analyze"),
    volume("followed by a gigabyte of zeros", "bomb",
           lambda c: gzip.compress(gzip.decompress(c), 1) + gzip_bomb(1 << 30), "volume-damaged"),
    volume("of a gigabyte within its own stream", "bomb", lambda c: gzip_bomb(1 << 30, gzip.decompress(c)),
           "volume-damaged"),
]  # fmt: skip


def gzip_bomb(size: int, start: bytes = b"") -> bytes:
    """A gzip stream of ``start`` and so many zeros, made without holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(start)] + [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join(pieces) + packer.flush()


FAKES = [
    refused(DOOR, f"{what} called .{suffix}", "another format", patient("volumes", take_away(FLAIR),
            put(f"FLAIR.{suffix}", content)), *DAMAGED, "volume-analyze")
    for suffix in ("nii", "nii.gz", "mha", "nrrd", "hdr")
    for what, content in {
        "a text": b"not an image\n" * 50, "nothing": b"", "a zip": b"PK\x03\x04" + bytes(400),
        "JSON": b'{"NDims": [[[[' * 40,
    }.items()
]  # fmt: skip

META = [
    itk("with 2.8 million digits of NDims", "impossible dimensions", ".mha",
        line(b"NDims", b"9" * 2_800_000), "volume-header-endless", "volume-header", "volume-damaged"),
    itk("with NDims 77000", "impossible dimensions", ".mha", line(b"NDims", b"77000"), "volume-header"),
    itk("with NDims -1", "impossible dimensions", ".mha", line(b"NDims", b"-1"), "volume-header"),
    itk("with NDims 2147483647", "impossible dimensions", ".mha", line(b"NDims", b"2147483647"), "volume-header"),
    itk("with NDims 0", "impossible dimensions", ".mha", line(b"NDims", b"0"), "volume-header"),
    itk("with a line of 70 kB", "impossible dimensions", ".mha", line(b"Comment", b"x" * 70_000),
        "volume-header-endless", "volume-header"),
    itk("with fewer sizes than dimensions", "impossible dimensions", ".mha", line(b"DimSize", b"88 88"),
        "volume-header"),
    itk("with a size of 4 billion", "impossible dimensions", ".mha", line(b"DimSize", b"88 88 4000000000"),
        "volume-huge"),
    itk("with a negative size", "impossible dimensions", ".mha", line(b"DimSize", b"88 -88 18"), "volume-header"),
    itk("with more voxels than bytes", "header lie", ".mha", line(b"DimSize", b"88 88 99"), "volume-short"),
    itk("with a million channels", "header lie", ".mha", line(b"ElementNumberOfChannels", b"1000000"),
        "volume-header"),
    itk("of an unknown type", "header lie", ".mha", line(b"ElementType", b"MET_DREAM"), "volume-header"),
    itk("with spacing of no number", "spacing", ".mha", line(b"ElementSpacing", b"nan nan nan"), "volume-steps",
        "volume-damaged"),
    itk("with negative spacing", "spacing", ".mha", line(b"ElementSpacing", b"-2 -2 -2"), "volume-steps"),
    itk("with spacing 0", "spacing", ".mha", line(b"ElementSpacing", b"0 0 0"), "volume-steps", "volume-damaged"),
    itk("with a singular matrix", "singular affine", ".mha", line(b"TransformMatrix", b"1 0 0 1 0 0 0 0 1"),
        "volume-form-unusable", "volume-steps", "volume-sheared", "volume-damaged"),
    itk("with a matrix of no numbers", "singular affine", ".mha", line(b"TransformMatrix", b"nan " * 9),
        "volume-form-unusable", "volume-damaged", "volume-steps"),
    itk("cut in the middle", "truncation", ".mha", cut(0.5), "volume-short"),
    itk("packed and cut", "truncation", ".mha", cut(0.7), "volume-damaged", packed=True),
    itk("packed and damaged", "noise", ".mha", noise(3, start=600), *DAMAGED, packed=True),
    itk("that names /etc/passwd", "names another file", ".mhd", line(b"ElementDataFile", b"/etc/passwd"),
        "volume-data-outside"),
    itk("that names a file above", "names another file", ".mhd", line(b"ElementDataFile", b"../../other.raw"),
        "volume-data-outside"),
    itk("that names a URL", "names another file", ".mhd", line(b"ElementDataFile", b"http://127.0.0.1/x.raw"),
        "volume-data-missing", "volume-data-outside"),
    itk("that names C:\\", "names another file", ".mhd", line(b"ElementDataFile", b"C:\\windows\\x.raw"),
        "volume-data-outside"),
    itk("that names nothing there", "names another file", ".mhd", line(b"ElementDataFile", b"gone.raw"),
        "volume-data-missing"),
    itk("that names itself", "names another file", ".mhd", line(b"ElementDataFile", b"FLAIR.mhd"),
        "volume-short", "volume-damaged"),
    itk("that names a list", "names another file", ".mhd", line(b"ElementDataFile", b"LIST\na.raw\nb.raw"),
        "volume-data-list"),
    itk("that names a pattern", "names another file", ".mhd", line(b"ElementDataFile", b"%d.raw 1 18 1"),
        "volume-data-list"),
]  # fmt: skip

NRRD = [
    itk("of dimension 999", "impossible dimensions", ".nrrd", line(b"dimension", b"999"), "volume-header"),
    itk("of dimension 17", "impossible dimensions", ".nrrd", line(b"dimension", b"17"), "volume-header"),
    itk("with a size of 0", "impossible dimensions", ".nrrd", line(b"sizes", b"88 0 18"), "volume-header"),
    itk("of 2 billion cubed", "impossible dimensions", ".nrrd", line(b"sizes", b"2000000000 " * 3), "volume-huge"),
    itk("with more voxels than bytes", "header lie", ".nrrd", line(b"sizes", b"88 88 99"), "volume-short"),
    itk("of blocks", "header lie", ".nrrd", line(b"type", b"block"), "volume-header"),
    itk("in hex", "header lie", ".nrrd", line(b"encoding", b"hex"), "volume-header"),
    itk("in text of no numbers", "header lie", ".nrrd", line(b"encoding", b"ascii"), "volume-header"),
    itk("in bzip2 that is none", "header lie", ".nrrd", line(b"encoding", b"bzip2"), "volume-header"),
    itk("with directions of no number", "singular affine", ".nrrd",
        line(b"space directions", b"(nan,0,0) (0,1,0) (0,0,1)"), "volume-form-unusable", "volume-steps",
        "volume-damaged"),
    itk("with singular directions", "singular affine", ".nrrd",
        line(b"space directions", b"(1,0,0) (1,0,0) (0,0,1)"), "volume-form-unusable", "volume-steps",
        "volume-sheared", "volume-damaged"),
    itk("with a number beyond numbers", "spacing", ".nrrd",
        line(b"space directions", b"(1e999,0,0) (0,1,0) (0,0,1)"), "volume-form-unusable", "volume-steps",
        "volume-damaged"),
    itk("with an unknown unit", "spacing", ".nrrd", line(b"space units", b'"ell" "ell" "ell"'), "volume-unit"),
    itk("that skips all its bytes", "header lie", ".nrrd", line(b"byte skip", b"99999999"), "volume-short"),
    itk("that skips backwards", "header lie", ".nrrd", line(b"byte skip", b"-9"), "volume-header"),
    itk("that names /etc/passwd", "names another file", ".nhdr", line(b"data file", b"/etc/passwd"),
        "volume-data-outside"),
    itk("that names a URL", "names another file", ".nhdr", line(b"data file", b"file:///etc/passwd"),
        "volume-data-outside", "volume-data-missing"),
    itk("cut in the middle", "truncation", ".nrrd", cut(0.6), "volume-short", "volume-damaged"),
    itk("with another first word", "wrong magic", ".nrrd", overwrite(0, b"DRRN0004"), "volume-damaged"),
    itk("packed and cut", "truncation", ".nrrd", cut(0.8), "volume-damaged", "volume-short", packed=True),
]  # fmt: skip


def big_endian(content: bytes) -> bytes:
    image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    new = nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header.as_byteswapped(">"))
    return gzip.compress(new.to_bytes(), 1)


def second_version(folder: Path) -> None:
    image = nib.load(folder / FLAIR)
    nib.save(nib.Nifti2Image(np.asanyarray(image.dataobj), image.affine), folder / "new.nii.gz")
    (folder / "new.nii.gz").replace(folder / FLAIR)


def turned(folder: Path) -> None:
    """FLAIR stored with its axes in another order, and from the other sides."""
    image = nib.load(folder / FLAIR)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(("S", "A", "R"))
    )
    nib.save(image.as_reoriented(turn), folder / "new.nii.gz")
    (folder / "new.nii.gz").replace(folder / FLAIR)


def odd(name: str, *changes: Change) -> Case:
    return answered(
        DOOR, f"volumes {name}", "odd but healthy", patient("volumes", *changes), same_answer("volumes")
    )


ODD = [
    odd("whose FLAIR is big endian", on(FLAIR, big_endian)),
    odd("whose FLAIR is NIfTI-2", second_version),
    odd("whose FLAIR is turned", turned),
    odd("as floating point", on("*.gz", voxels(lambda v: v, "f4"))),
    odd("whose unit is not known", on(FLAIR, header(xyzt_units=7))),
    odd("whose scaling is not written", on(FLAIR, header(scl_slope=NAN, scl_inter=NAN))),
    odd("with NaN outside the head", on(FLAIR, voxels(lambda v: np.where(v > 0, v, NAN), "f4"))),
    odd("as MetaImage", as_itk(".mha")),
    odd("as MetaImage of two files", as_itk(".mhd")),
    odd("as packed NRRD", as_itk(".nrrd", packed=True)),
    odd("unpacked", *[instead for name in ("T1C", "FLAIR") for instead in (
        lambda folder, name=name: (folder / f"{name}.nii").write_bytes(
            gzip.decompress((folder / f"{name}.nii.gz").read_bytes())),
        take_away(f"{name}.nii.gz"))]),
    odd("with long names beside strange files", rename(FLAIR, f"{'x' * 180} flair.nii.gz"),
        put("notes\n\u202e.txt", "nothing"), put(".hidden", b"\0" * 100)),
    odd("beside a damaged T2 that nobody needs", copy(FLAIR, "T2.nii.gz"), on("T2.nii.gz", cut(0.5))),
]  # fmt: skip

CASES = [*CUTS, *UNPACKED_CUTS, *HEADERS, *VALUES, *NOISE, *BOMBS, *FAKES, *META, *NRRD, *ODD]

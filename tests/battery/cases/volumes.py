"""NIfTI, MetaImage and NRRD volumes: false headers, missing data, and unusual valid files."""

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
from tests.battery.cases_and_results import Case, expect_answer, expect_refusal
from tests.battery.changes import (
    BytesChange,
    FolderChange,
    change_files,
    change_unpacked,
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
T1C, FLAIR = "T1C.nii.gz", "FLAIR.nii.gz"
NIFTI_FIELDS = {
    "sizeof_hdr": (0, "<i"),
    "dim": (40, "<8h"),
    "datatype": (70, "<h"),
    "bitpix": (72, "<h"),
    "pixdim": (76, "<8f"),
    "vox_offset": (108, "<f"),
    "scl_slope": (112, "<f"),
    "scl_inter": (116, "<f"),
    "xyzt_units": (123, "<B"),
    "qform_code": (252, "<h"),
    "sform_code": (254, "<h"),
    "srow_x": (280, "<4f"),
    "srow_y": (296, "<4f"),
    "srow_z": (312, "<4f"),
    "magic": (344, "4s"),
}


def set_header_fields(**fields: Any) -> BytesChange:
    """Overwrite fields of a compressed NIfTI header; a tuple replaces the first values of a field."""

    def change(content: bytes) -> bytes:
        for name, value in fields.items():
            at, form = NIFTI_FIELDS[name]
            values = value if isinstance(value, tuple) else (value,)
            kind = form if form == "4s" else f"<{len(values)}{form[-1]}"
            content = overwrite_bytes(at, struct.pack(kind, *values))(content)
        return content

    return change_unpacked(change)


def change_voxels(change_values: Callable[[np.ndarray], np.ndarray], kind: str = "") -> BytesChange:
    """Change the voxel values and keep the header; kind: data type in which they are stored."""

    def change(content: bytes) -> bytes:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        values = change_values(np.asanyarray(image.dataobj).astype(kind or image.get_data_dtype()))
        new = nib.Nifti1Image(values, image.affine, image.header)
        new.set_data_dtype(values.dtype)
        return gzip.compress(new.to_bytes(), 1)

    return change


def set_middle_voxel(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[tuple(n // 2 for n in values.shape)] = value
        return values

    return change


def save_with_itk(
    suffix: str, change_bytes: BytesChange = lambda content: content, packed: bool = False
) -> FolderChange:
    """Convert both volumes to another format and change the bytes of the FLAIR file."""

    def change(folder: Path) -> None:
        for name in ("T1C", "FLAIR"):
            image = sitk.ReadImage(str(folder / f"{name}.nii.gz"))
            sitk.WriteImage(image, str(folder / f"{name}{suffix}"), packed)
            (folder / f"{name}.nii.gz").unlink()
        change_files(f"FLAIR{suffix}", change_bytes)(folder)

    return change


def set_header_line(key: bytes, value: bytes) -> BytesChange:
    """Replace a line of a text header, or insert it before the last one."""

    def change(content: bytes) -> bytes:
        meta = not content.startswith(b"NRRD")
        start = content.find(key + (b" =" if meta else b":"))
        new = key + (b" = " if meta else b": ") + value
        if start < 0:
            before = content.find(b"ElementDataFile") if meta else content.find(b"\n\n") + 1
            return content[:before] + new + b"\n" + content[before:]
        return content[:start] + new + content[content.find(b"\n", start) :]

    return change


def create_nifti_case(name: str, kind: str, change_bytes: BytesChange, *says: str, file: str = FLAIR) -> Case:
    return expect_refusal(
        DOOR, f"NIfTI {name}", kind, copy_patient("volumes", change_files(file, change_bytes)), *says
    )


def create_itk_case(
    name: str, kind: str, suffix: str, change_bytes: BytesChange, *says: str, packed: bool = False
) -> Case:
    label = {".m": "MetaImage", ".n": "NRRD"}[suffix[:2]]
    return expect_refusal(
        DOOR,
        f"{label} {name}",
        kind,
        copy_patient("volumes", save_with_itk(suffix, change_bytes, packed)),
        *says,
    )


DAMAGED = ("volume-damaged", "volume-short", "volume-header")
NAN, INF = float("nan"), float("inf")

CUTS = [
    create_nifti_case(f"cut after {kept:g} of its bytes", "truncation", truncate_bytes(kept), *DAMAGED)
    for kept in (0.0, 1, 2, 10, 100, 348, 0.1, 0.5, 0.9, 0.999)
]
UNPACKED_CUTS = [
    create_nifti_case(
        f"whose packed content ends after {kept:g}",
        "truncation",
        change_unpacked(truncate_bytes(kept)),
        *DAMAGED,
    )
    for kept in (0.0, 100, 347, 352, 400, 0.5, 0.999)
]

HEADERS = [
    create_nifti_case("of no dimension", "impossible dimensions", set_header_fields(dim=0), "volume-header"),
    create_nifti_case(
        "of nine dimensions", "impossible dimensions", set_header_fields(dim=9), "volume-header"
    ),
    create_nifti_case(
        "of minus three dimensions", "impossible dimensions", set_header_fields(dim=-3), "volume-header"
    ),
    create_nifti_case(
        "with a negative size",
        "impossible dimensions",
        set_header_fields(dim=(3, 88, -88, 18)),
        "volume-header",
    ),
    create_nifti_case(
        "with a size of 0", "impossible dimensions", set_header_fields(dim=(3, 88, 0, 18)), "volume-header"
    ),
    create_nifti_case(
        "claiming 32767 cubed",
        "impossible dimensions",
        set_header_fields(dim=(3, 32767, 32767, 32767)),
        "volume-huge",
    ),
    create_nifti_case(
        "claiming seven times 32767",
        "impossible dimensions",
        set_header_fields(dim=(7, *[32767] * 7)),
        "volume-huge",
    ),
    create_nifti_case(
        "claiming 500 cubed",
        "impossible dimensions",
        set_header_fields(dim=(3, 500, 500, 500)),
        "volume-short",
    ),
    create_nifti_case(
        "of four dimensions",
        "impossible dimensions",
        set_header_fields(dim=(4, 88, 88, 9, 2)),
        "volume-not-3d",
    ),
    create_nifti_case(
        "of two dimensions",
        "wrong number of slices",
        set_header_fields(dim=(2, 88, 88, 1)),
        "volume-not-3d",
        "slice",
    ),
    create_nifti_case("of unknown numbers", "header lie", set_header_fields(datatype=9999), *DAMAGED),
    create_nifti_case("of type 0", "header lie", set_header_fields(datatype=0), *DAMAGED),
    create_nifti_case(
        "of colours", "header lie", set_header_fields(datatype=128, dim=(3, 88, 88, 6)), "volume-coloured"
    ),
    create_nifti_case(
        "of complex numbers",
        "header lie",
        set_header_fields(datatype=32, dim=(3, 88, 88, 4)),
        "volume-coloured",
    ),
    create_nifti_case(
        "whose values begin at infinity", "header lie", set_header_fields(vox_offset=INF), "volume-header"
    ),
    create_nifti_case(
        "whose values begin at no number", "header lie", set_header_fields(vox_offset=NAN), "volume-header"
    ),
    create_nifti_case(
        "whose values begin before it", "header lie", set_header_fields(vox_offset=-400.0), "volume-header"
    ),
    create_nifti_case(
        "whose values begin behind its end", "header lie", set_header_fields(vox_offset=2e9), "volume-header"
    ),
    create_nifti_case(
        "with another header size",
        "wrong magic",
        set_header_fields(sizeof_hdr=999),
        *DAMAGED,
        "volume-analyze",
    ),
    create_nifti_case(
        "with header size -1", "wrong magic", set_header_fields(sizeof_hdr=-1), *DAMAGED, "volume-analyze"
    ),
    create_nifti_case(
        "with an infinite scaling", "NaN and inf", set_header_fields(scl_slope=INF), "volume-scaling"
    ),
    create_nifti_case(
        "with an infinite intercept",
        "NaN and inf",
        set_header_fields(scl_slope=1.0, scl_inter=INF),
        "volume-scaling",
    ),
    create_nifti_case(
        "with steps of no number",
        "spacing",
        set_header_fields(pixdim=(1, NAN, NAN, NAN), sform_code=0, qform_code=0),
        "volume-steps",
        "volume-form-unusable",
    ),
    create_nifti_case(
        "with infinite steps",
        "spacing",
        set_header_fields(pixdim=(1, INF, INF, INF), sform_code=0, qform_code=0),
        "volume-steps",
        "volume-form-unusable",
    ),
    create_nifti_case(
        "with huge steps",
        "spacing",
        set_header_fields(pixdim=(1, 1e30, 1e30, 1e30), sform_code=0, qform_code=0),
        "volume-steps",
        "field-of-no-head",
        "volumes-oriented-and-not",
    ),
    create_nifti_case(
        "with steps of 0 and no form",
        "spacing",
        set_header_fields(pixdim=(1, 0, 0, 0), sform_code=0, qform_code=0),
        "volume-steps",
        "volume-form-unusable",
    ),
    create_nifti_case(
        "with a pixel of 0.001 mm",
        "spacing",
        set_header_fields(srow_x=(-0.001, 0, 0, 0), srow_y=(0, -0.001, 0, 0), qform_code=0),
        "volume-steps",
        "volume-form-steps",
        "field-of-no-head",
    ),
    create_nifti_case(
        "with a singular form",
        "singular affine",
        set_header_fields(srow_x=(1, 0, 0, 0), srow_y=(1, 0, 0, 0), qform_code=0),
        "volume-form-unusable",
        "volume-steps",
        "volume-form-steps",
        "volume-sheared",
    ),
    create_nifti_case(
        "with a form of zeros alone",
        "singular affine",
        set_header_fields(srow_x=(0, 0, 0, 0), srow_y=(0, 0, 0, 0), srow_z=(0, 0, 0, 0), qform_code=0),
        "volume-form-unusable",
        "volume-steps",
    ),
    create_nifti_case(
        "with a form of no numbers",
        "singular affine",
        set_header_fields(srow_x=(NAN,) * 4, qform_code=0),
        "volume-form-unusable",
        "volume-steps",
    ),
    create_nifti_case(
        "with an infinite place",
        "singular affine",
        set_header_fields(srow_x=(-2.5, 0, 0, INF), qform_code=0),
        "volume-form-unusable",
    ),
    create_nifti_case(
        "with a sheared form",
        "singular affine",
        set_header_fields(srow_x=(-2.5, 2.0, 0, 0), qform_code=0),
        "volume-sheared",
        "volume-form-steps",
    ),
]

VALUES = [
    create_nifti_case("of zeros", "constant image", change_voxels(np.zeros_like), "grey-constant"),
    create_nifti_case(
        "of one grey", "constant image", change_voxels(lambda v: np.full_like(v, 77)), "grey-constant"
    ),
    create_nifti_case(
        "of no numbers", "NaN and inf", change_voxels(lambda v: np.full_like(v, NAN), "f4"), "grey-no-numbers"
    ),
    create_nifti_case(
        "of infinities", "NaN and inf", change_voxels(lambda v: np.full_like(v, INF), "f4"), "grey-no-numbers"
    ),
    create_nifti_case(
        "with no number in the brain",
        "NaN and inf",
        change_voxels(set_middle_voxel(NAN), "f4"),
        "voxels-missing",
    ),
    create_nifti_case(
        "with an infinity in the brain",
        "NaN and inf",
        change_voxels(set_middle_voxel(-INF), "f4"),
        "voxels-missing",
    ),
    create_nifti_case(
        "of one slice", "wrong number of slices", change_voxels(lambda v: v[:, :, :1]), "slice", "brain"
    ),
    create_nifti_case(
        "of two slices", "wrong number of slices", change_voxels(lambda v: v[:, :, 8:10]), "slice", "brain"
    ),
    create_nifti_case(
        "of one column",
        "wrong number of slices",
        change_voxels(lambda v: v[:1]),
        "brain",
        "field-of-no-head",
        "slice",
    ),
    create_nifti_case(
        "turned into a negative", "inverted", change_voxels(lambda v: v.max() - v), "grey-inverted"
    ),
    create_nifti_case(
        "of noise alone, as T1C is",
        "no brain",
        change_voxels(lambda v: np.random.default_rng(1).integers(0, 9, v.shape).astype(v.dtype)),
        "brain",
        "grey",
        file="*.nii.gz",
    ),
    create_nifti_case("with a damaged checksum", "truncation", lambda c: c[:-6] + bytes(6), "volume-damaged"),
    create_nifti_case(
        "with a second stream that is damaged",
        "truncation",
        lambda c: c + b"\x1f\x8b\x08" + bytes(9),
        "volume-damaged",
    ),
]
NOISE = [
    create_nifti_case(
        f"with chance in its packed bytes, {seed}", "noise", corrupt_bytes(seed, start=20), *DAMAGED
    )
    for seed in range(3)
]

BOMBS = [
    create_nifti_case(
        "that unpacks to a gigabyte of zeros",
        "bomb",
        replace_content(lambda: create_gzip_bomb(1 << 30)),
        *DAMAGED,
        "volume-analyze",
    ),
    create_nifti_case(
        "followed by a gigabyte of zeros",
        "bomb",
        lambda c: gzip.compress(gzip.decompress(c), 1) + create_gzip_bomb(1 << 30),
        "volume-damaged",
    ),
    create_nifti_case(
        "of a gigabyte within its own stream",
        "bomb",
        lambda c: create_gzip_bomb(1 << 30, gzip.decompress(c)),
        "volume-damaged",
    ),
]


def create_gzip_bomb(size: int, start: bytes = b"") -> bytes:
    """Gzip stream of ``start`` and ``size`` zeros, created without holding them in memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(start)] + [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join(pieces) + packer.flush()


FAKES = [
    expect_refusal(
        DOOR,
        f"{what} called .{suffix}",
        "another format",
        copy_patient("volumes", delete_files(FLAIR), write_file(f"FLAIR.{suffix}", content)),
        *DAMAGED,
        "volume-analyze",
    )
    for suffix in ("nii", "nii.gz", "mha", "nrrd", "hdr")
    for what, content in {
        "a text": b"not an image\n" * 50,
        "nothing": b"",
        "a zip": b"PK\x03\x04" + bytes(400),
        "JSON": b'{"NDims": [[[[' * 40,
    }.items()
]

META = [
    create_itk_case(
        "with 2.8 million digits of NDims",
        "impossible dimensions",
        ".mha",
        set_header_line(b"NDims", b"9" * 2_800_000),
        "volume-header-endless",
        "volume-header",
        "volume-damaged",
    ),
    create_itk_case(
        "with NDims 77000",
        "impossible dimensions",
        ".mha",
        set_header_line(b"NDims", b"77000"),
        "volume-header",
    ),
    create_itk_case(
        "with NDims -1", "impossible dimensions", ".mha", set_header_line(b"NDims", b"-1"), "volume-header"
    ),
    create_itk_case(
        "with NDims 2147483647",
        "impossible dimensions",
        ".mha",
        set_header_line(b"NDims", b"2147483647"),
        "volume-header",
    ),
    create_itk_case(
        "with NDims 0", "impossible dimensions", ".mha", set_header_line(b"NDims", b"0"), "volume-header"
    ),
    create_itk_case(
        "with a line of 70 kB",
        "impossible dimensions",
        ".mha",
        set_header_line(b"Comment", b"x" * 70_000),
        "volume-header-endless",
        "volume-header",
    ),
    create_itk_case(
        "with fewer sizes than dimensions",
        "impossible dimensions",
        ".mha",
        set_header_line(b"DimSize", b"88 88"),
        "volume-header",
    ),
    create_itk_case(
        "with a size of 4 billion",
        "impossible dimensions",
        ".mha",
        set_header_line(b"DimSize", b"88 88 4000000000"),
        "volume-huge",
    ),
    create_itk_case(
        "with a negative size",
        "impossible dimensions",
        ".mha",
        set_header_line(b"DimSize", b"88 -88 18"),
        "volume-header",
    ),
    create_itk_case(
        "with more voxels than bytes",
        "header lie",
        ".mha",
        set_header_line(b"DimSize", b"88 88 99"),
        "volume-short",
    ),
    create_itk_case(
        "with a million channels",
        "header lie",
        ".mha",
        set_header_line(b"ElementNumberOfChannels", b"1000000"),
        "volume-header",
    ),
    create_itk_case(
        "of an unknown type",
        "header lie",
        ".mha",
        set_header_line(b"ElementType", b"MET_DREAM"),
        "volume-header",
    ),
    create_itk_case(
        "with spacing of no number",
        "spacing",
        ".mha",
        set_header_line(b"ElementSpacing", b"nan nan nan"),
        "volume-steps",
        "volume-damaged",
    ),
    create_itk_case(
        "with negative spacing",
        "spacing",
        ".mha",
        set_header_line(b"ElementSpacing", b"-2 -2 -2"),
        "volume-steps",
    ),
    create_itk_case(
        "with spacing 0",
        "spacing",
        ".mha",
        set_header_line(b"ElementSpacing", b"0 0 0"),
        "volume-steps",
        "volume-damaged",
    ),
    create_itk_case(
        "with a singular matrix",
        "singular affine",
        ".mha",
        set_header_line(b"TransformMatrix", b"1 0 0 1 0 0 0 0 1"),
        "volume-form-unusable",
        "volume-steps",
        "volume-sheared",
        "volume-damaged",
    ),
    create_itk_case(
        "with a matrix of no numbers",
        "singular affine",
        ".mha",
        set_header_line(b"TransformMatrix", b"nan " * 9),
        "volume-form-unusable",
        "volume-damaged",
        "volume-steps",
    ),
    create_itk_case("cut in the middle", "truncation", ".mha", truncate_bytes(0.5), "volume-short"),
    create_itk_case(
        "packed and cut", "truncation", ".mha", truncate_bytes(0.7), "volume-damaged", packed=True
    ),
    create_itk_case(
        "packed and damaged", "noise", ".mha", corrupt_bytes(3, start=600), *DAMAGED, packed=True
    ),
    create_itk_case(
        "that names /etc/passwd",
        "names another file",
        ".mhd",
        set_header_line(b"ElementDataFile", b"/etc/passwd"),
        "volume-data-outside",
    ),
    create_itk_case(
        "that names a file above",
        "names another file",
        ".mhd",
        set_header_line(b"ElementDataFile", b"../../other.raw"),
        "volume-data-outside",
    ),
    create_itk_case(
        "that names a URL",
        "names another file",
        ".mhd",
        set_header_line(b"ElementDataFile", b"http://127.0.0.1/x.raw"),
        "volume-data-missing",
        "volume-data-outside",
    ),
    create_itk_case(
        "that names C:\\",
        "names another file",
        ".mhd",
        set_header_line(b"ElementDataFile", b"C:\\windows\\x.raw"),
        "volume-data-outside",
    ),
    create_itk_case(
        "that names nothing there",
        "names another file",
        ".mhd",
        set_header_line(b"ElementDataFile", b"gone.raw"),
        "volume-data-missing",
    ),
    create_itk_case(
        "that names itself",
        "names another file",
        ".mhd",
        set_header_line(b"ElementDataFile", b"FLAIR.mhd"),
        "volume-short",
        "volume-damaged",
    ),
    create_itk_case(
        "that names a list",
        "names another file",
        ".mhd",
        set_header_line(b"ElementDataFile", b"LIST\na.raw\nb.raw"),
        "volume-data-list",
    ),
    create_itk_case(
        "that names a pattern",
        "names another file",
        ".mhd",
        set_header_line(b"ElementDataFile", b"%d.raw 1 18 1"),
        "volume-data-list",
    ),
]

NRRD = [
    create_itk_case(
        "of dimension 999",
        "impossible dimensions",
        ".nrrd",
        set_header_line(b"dimension", b"999"),
        "volume-header",
    ),
    create_itk_case(
        "of dimension 17",
        "impossible dimensions",
        ".nrrd",
        set_header_line(b"dimension", b"17"),
        "volume-header",
    ),
    create_itk_case(
        "with a size of 0",
        "impossible dimensions",
        ".nrrd",
        set_header_line(b"sizes", b"88 0 18"),
        "volume-header",
    ),
    create_itk_case(
        "of 2 billion cubed",
        "impossible dimensions",
        ".nrrd",
        set_header_line(b"sizes", b"2000000000 " * 3),
        "volume-huge",
    ),
    create_itk_case(
        "with more voxels than bytes",
        "header lie",
        ".nrrd",
        set_header_line(b"sizes", b"88 88 99"),
        "volume-short",
    ),
    create_itk_case("of blocks", "header lie", ".nrrd", set_header_line(b"type", b"block"), "volume-header"),
    create_itk_case("in hex", "header lie", ".nrrd", set_header_line(b"encoding", b"hex"), "volume-header"),
    create_itk_case(
        "in text of no numbers",
        "header lie",
        ".nrrd",
        set_header_line(b"encoding", b"ascii"),
        "volume-header",
    ),
    create_itk_case(
        "in bzip2 that is none",
        "header lie",
        ".nrrd",
        set_header_line(b"encoding", b"bzip2"),
        "volume-header",
    ),
    create_itk_case(
        "with directions of no number",
        "singular affine",
        ".nrrd",
        set_header_line(b"space directions", b"(nan,0,0) (0,1,0) (0,0,1)"),
        "volume-form-unusable",
        "volume-steps",
        "volume-damaged",
    ),
    create_itk_case(
        "with singular directions",
        "singular affine",
        ".nrrd",
        set_header_line(b"space directions", b"(1,0,0) (1,0,0) (0,0,1)"),
        "volume-form-unusable",
        "volume-steps",
        "volume-sheared",
        "volume-damaged",
    ),
    create_itk_case(
        "with a number beyond numbers",
        "spacing",
        ".nrrd",
        set_header_line(b"space directions", b"(1e999,0,0) (0,1,0) (0,0,1)"),
        "volume-form-unusable",
        "volume-steps",
        "volume-damaged",
    ),
    create_itk_case(
        "with an unknown unit",
        "spacing",
        ".nrrd",
        set_header_line(b"space units", b'"ell" "ell" "ell"'),
        "volume-unit",
    ),
    create_itk_case(
        "that skips all its bytes",
        "header lie",
        ".nrrd",
        set_header_line(b"byte skip", b"99999999"),
        "volume-short",
    ),
    create_itk_case(
        "that skips backwards", "header lie", ".nrrd", set_header_line(b"byte skip", b"-9"), "volume-header"
    ),
    create_itk_case(
        "that names /etc/passwd",
        "names another file",
        ".nhdr",
        set_header_line(b"data file", b"/etc/passwd"),
        "volume-data-outside",
    ),
    create_itk_case(
        "that names a URL",
        "names another file",
        ".nhdr",
        set_header_line(b"data file", b"file:///etc/passwd"),
        "volume-data-outside",
        "volume-data-missing",
    ),
    create_itk_case(
        "cut in the middle", "truncation", ".nrrd", truncate_bytes(0.6), "volume-short", "volume-damaged"
    ),
    create_itk_case(
        "with another first word", "wrong magic", ".nrrd", overwrite_bytes(0, b"DRRN0004"), "volume-damaged"
    ),
    create_itk_case(
        "packed and cut",
        "truncation",
        ".nrrd",
        truncate_bytes(0.8),
        "volume-damaged",
        "volume-short",
        packed=True,
    ),
]


def swap_byte_order(content: bytes) -> bytes:
    image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    new = nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header.as_byteswapped(">"))
    return gzip.compress(new.to_bytes(), 1)


def save_as_nifti2(folder: Path) -> None:
    image = nib.load(folder / FLAIR)
    nib.save(nib.Nifti2Image(np.asanyarray(image.dataobj), image.affine), folder / "new.nii.gz")
    (folder / "new.nii.gz").replace(folder / FLAIR)


def reorient_flair(folder: Path) -> None:
    """Store FLAIR with permuted and flipped axes."""
    image = nib.load(folder / FLAIR)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(("S", "A", "R"))
    )
    nib.save(image.as_reoriented(turn), folder / "new.nii.gz")
    (folder / "new.nii.gz").replace(folder / FLAIR)


def create_healthy_case(name: str, *changes: FolderChange) -> Case:
    return expect_answer(
        DOOR,
        f"volumes {name}",
        "odd but healthy",
        copy_patient("volumes", *changes),
        compare_with_healthy_answer("volumes"),
    )


ODD = [
    create_healthy_case("whose FLAIR is big endian", change_files(FLAIR, swap_byte_order)),
    create_healthy_case("whose FLAIR is NIfTI-2", save_as_nifti2),
    create_healthy_case("whose FLAIR is turned", reorient_flair),
    create_healthy_case("as floating point", change_files("*.gz", change_voxels(lambda v: v, "f4"))),
    create_healthy_case("whose unit is not known", change_files(FLAIR, set_header_fields(xyzt_units=7))),
    create_healthy_case(
        "whose scaling is not written", change_files(FLAIR, set_header_fields(scl_slope=NAN, scl_inter=NAN))
    ),
    create_healthy_case(
        "with NaN outside the head",
        change_files(FLAIR, change_voxels(lambda v: np.where(v > 0, v, NAN), "f4")),
    ),
    create_healthy_case("as MetaImage", save_with_itk(".mha")),
    create_healthy_case("as MetaImage of two files", save_with_itk(".mhd")),
    create_healthy_case("as packed NRRD", save_with_itk(".nrrd", packed=True)),
    create_healthy_case(
        "unpacked",
        *[
            instead
            for name in ("T1C", "FLAIR")
            for instead in (
                lambda folder, name=name: (folder / f"{name}.nii").write_bytes(
                    gzip.decompress((folder / f"{name}.nii.gz").read_bytes())
                ),
                delete_files(f"{name}.nii.gz"),
            )
        ],
    ),
    create_healthy_case(
        "with long names beside strange files",
        rename_file(FLAIR, f"{'x' * 180} flair.nii.gz"),
        write_file("notes\n\u202e.txt", "nothing"),
        write_file(".hidden", b"\0" * 100),
    ),
    create_healthy_case(
        "beside a damaged T2 that nobody needs",
        copy_file(FLAIR, "T2.nii.gz"),
        change_files("T2.nii.gz", truncate_bytes(0.5)),
    ),
]

CASES = [*CUTS, *UNPACKED_CUTS, *HEADERS, *VALUES, *NOISE, *BOMBS, *FAKES, *META, *NRRD, *ODD]

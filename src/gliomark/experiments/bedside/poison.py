"""Uploads that must be refused: one builder for each kind, from the files of a good patient or from nothing."""

from __future__ import annotations

import gzip
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

Files = dict[str, bytes]
PAIR = ("T1C", "FLAIR")


def _both(name: str, content: bytes) -> Files:
    """The same content for every sequence; ``{}`` in the name stands for the sequence."""
    return {f"P/{name.format(sequence)}": content for sequence in PAIR}


def _meta_image(dimensions: str, file: str = "LOCAL") -> bytes:
    head = f"ObjectType = Image\nNDims = {dimensions}\nDimSize = 64 64 9\nElementType = MET_SHORT\n"
    return f"{head}ElementDataFile = {file}\n".encode() + bytes(77_000)


def _nrrd(file: str) -> bytes:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 64 64 9\nendian: little\nencoding: raw\n"
    return f"{head}data file: {file}\n\n".encode()


def _nifti(shape: tuple[int, int, int], content: bytes) -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 4, 16)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 5, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    head[344:348] = b"n+1\0"
    return bytes(head) + content


def _png(width: int, height: int, content: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(content))
        + chunk(b"IEND", b"")
    )


def _dicom(**claims: int) -> Files:
    files = {}
    for number, sequence in enumerate(PAIR):
        one = Dataset()
        one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID = generate_uid(), generate_uid()
        one.PatientID, one.Modality, one.SeriesDescription = "P", "MR", sequence
        one.SeriesNumber, one.Rows, one.Columns = number, 64, 64
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 15, 0, 1
        one.PhotometricInterpretation, one.PixelData = "MONOCHROME2", bytes(8192)
        for name, value in claims.items():
            setattr(one, name, value)
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        whole = BytesIO()
        dcmwrite(whole, one, enforce_file_format=True)
        files[f"P/{sequence}.dcm"] = whole.getvalue()
    return files


def _zip(entries: Files, link: bool = False) -> Files:
    whole = BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            if link:
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, content)
    return {"sent.zip": whole.getvalue()}


def _cut(good: Files) -> Files:
    return {name: content[: len(content) // 2] for name, content in good.items()}


def _twice(good: Files) -> Files:
    return {f"{patient}/{name}": content for patient in "AB" for name, content in good.items()}


SCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n{ } loop\nshowpage\n%%EOF\n".ljust(80)
KINDS: dict[str, Callable[[Files], Files]] = {
    "MetaImage of 99 dimensions": lambda _: _both("{}.mha", _meta_image("99")),
    "MetaImage of 4294967295 dimensions": lambda _: _both("{}.mha", _meta_image("4294967295")),
    "MetaImage header names another file": lambda _: _both("{}.mhd", _meta_image("3", "/etc/passwd")),
    "NRRD header names another file": lambda _: _both("{}.nrrd", _nrrd("/etc/passwd")),
    "NRRD header leads out of the folder": lambda _: _both("{}.nhdr", _nrrd("../../../gliomark.db")),
    "PostScript called png": lambda _: _both("{}/1.png", SCRIPT) | _both("{}/2.png", SCRIPT),
    "DICOM claims 10^9 frames": lambda _: _dicom(NumberOfFrames=10**9),
    "DICOM claims 65535 rows and columns": lambda _: _dicom(Rows=65535, Columns=65535),
    "zip leads out of the folder": lambda _: _zip({"../../outside.png": b"x"}),
    "zip holds a link": lambda _: _zip({"P/T1C/1.png": b"/etc/passwd"}, link=True),
    "zip unpacks to too much": lambda _: _zip({f"P/T1C/{n}.png": bytes(300 << 20) for n in range(8)}),
    "gzip unpacks to too much": lambda _: _both("{}.nii.gz", gzip.compress(_nifti((2000, 2000, 2000), bytes(1 << 20)))),
    "NIfTI is shorter than it says": lambda _: _both("{}.nii", _nifti((64, 64, 20), bytes(100))),
    "NIfTI of negative size": lambda _: _both("{}.nii", _nifti((-64, 64, 20), bytes(10_000))),
    "png of 4 thousand million pixels": lambda _: _both("{}/1.png", _png(65_000, 65_000)),
    "png is noise": lambda _: _both("{}/1.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40),
    "pictures are cut": _cut,
    "files are empty": lambda good: dict.fromkeys(good, b""),
    "name leads out of the folder": lambda good: {"../../" + next(iter(good)): b"x"},
    "two patients": _twice,
}  # fmt: skip

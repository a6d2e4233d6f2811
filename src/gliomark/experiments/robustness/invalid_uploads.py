"""Invalid uploads that the server must reject: one function per kind, given the files of a valid patient."""

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

UploadFiles = dict[str, bytes]
SEQUENCE_NAMES = ("T1C", "FLAIR")


def _create_for_each_sequence(name: str, content: bytes) -> UploadFiles:
    """Create files of the same content for every sequence; ``{}`` in the name is replaced by the sequence."""
    return {f"P/{name.format(sequence)}": content for sequence in SEQUENCE_NAMES}


def _create_meta_image(dimension_count: str, data_file: str = "LOCAL") -> bytes:
    head = f"ObjectType = Image\nNDims = {dimension_count}\nDimSize = 64 64 9\nElementType = MET_SHORT\n"
    return f"{head}ElementDataFile = {data_file}\n".encode() + bytes(77_000)


def _create_nrrd_header(data_file: str) -> bytes:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 64 64 9\nendian: little\nencoding: raw\n"
    return f"{head}data file: {data_file}\n\n".encode()


def _create_nifti(shape: tuple[int, int, int], content: bytes) -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 4, 16)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 5, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    head[344:348] = b"n+1\0"
    return bytes(head) + content


def _create_png(width: int, height: int, content: bytes = b"") -> bytes:
    def create_chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + create_chunk(b"IHDR", head)
        + create_chunk(b"IDAT", zlib.compress(content))
        + create_chunk(b"IEND", b"")
    )


def _create_dicom_files(**header_values: int) -> UploadFiles:
    files = {}
    for number, sequence in enumerate(SEQUENCE_NAMES):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
        dataset.PatientID, dataset.Modality, dataset.SeriesDescription = "P", "MR", sequence
        dataset.SeriesNumber, dataset.Rows, dataset.Columns = number, 64, 64
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
        dataset.PhotometricInterpretation, dataset.PixelData = "MONOCHROME2", bytes(8192)
        for name, value in header_values.items():
            setattr(dataset, name, value)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        buffer = BytesIO()
        dcmwrite(buffer, dataset, enforce_file_format=True)
        files[f"P/{sequence}.dcm"] = buffer.getvalue()
    return files


def _create_zip(entries: UploadFiles, is_symlink: bool = False) -> UploadFiles:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            if is_symlink:
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, content)
    return {"sent.zip": buffer.getvalue()}


def _truncate_files(valid_files: UploadFiles) -> UploadFiles:
    return {name: content[: len(content) // 2] for name, content in valid_files.items()}


def _duplicate_patient(valid_files: UploadFiles) -> UploadFiles:
    return {f"{patient}/{name}": content for patient in "AB" for name, content in valid_files.items()}


POSTSCRIPT_FILE = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n{ } loop\nshowpage\n%%EOF\n".ljust(80)
INVALID_UPLOADS: dict[str, Callable[[UploadFiles], UploadFiles]] = {
    "MetaImage of 99 dimensions": lambda _: _create_for_each_sequence("{}.mha", _create_meta_image("99")),
    "MetaImage of 4294967295 dimensions": lambda _: _create_for_each_sequence(
        "{}.mha", _create_meta_image("4294967295")
    ),
    "MetaImage header names another file": lambda _: _create_for_each_sequence(
        "{}.mhd", _create_meta_image("3", "/etc/passwd")
    ),
    "NRRD header names another file": lambda _: _create_for_each_sequence(
        "{}.nrrd", _create_nrrd_header("/etc/passwd")
    ),
    "NRRD header leads out of the folder": lambda _: _create_for_each_sequence(
        "{}.nhdr", _create_nrrd_header("../../../gliomark.db")
    ),
    "PostScript called png": lambda _: (
        _create_for_each_sequence("{}/1.png", POSTSCRIPT_FILE)
        | _create_for_each_sequence("{}/2.png", POSTSCRIPT_FILE)
    ),
    "DICOM claims 10^9 frames": lambda _: _create_dicom_files(NumberOfFrames=10**9),
    "DICOM claims 65535 rows and columns": lambda _: _create_dicom_files(Rows=65535, Columns=65535),
    "zip leads out of the folder": lambda _: _create_zip({"../../outside.png": b"x"}),
    "zip holds a link": lambda _: _create_zip({"P/T1C/1.png": b"/etc/passwd"}, is_symlink=True),
    "zip unpacks to too much": lambda _: _create_zip({f"P/T1C/{n}.png": bytes(300 << 20) for n in range(8)}),
    "gzip unpacks to too much": lambda _: _create_for_each_sequence(
        "{}.nii.gz", gzip.compress(_create_nifti((2000, 2000, 2000), bytes(1 << 20)))
    ),
    "NIfTI is shorter than it says": lambda _: _create_for_each_sequence(
        "{}.nii", _create_nifti((64, 64, 20), bytes(100))
    ),
    "NIfTI of negative size": lambda _: _create_for_each_sequence(
        "{}.nii", _create_nifti((-64, 64, 20), bytes(10_000))
    ),
    "png of 4 thousand million pixels": lambda _: _create_for_each_sequence(
        "{}/1.png", _create_png(65_000, 65_000)
    ),
    "png is noise": lambda _: _create_for_each_sequence(
        "{}/1.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
    ),
    "pictures are cut": _truncate_files,
    "files are empty": lambda good: dict.fromkeys(good, b""),
    "name leads out of the folder": lambda good: {"../../" + next(iter(good)): b"x"},
    "two patients": _duplicate_patient,
}

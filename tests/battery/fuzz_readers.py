"""The readers that are fuzzed: for each its healthy inputs, and how one input is read."""

from __future__ import annotations

import io
import json
import shutil
import socket
import threading
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from fastapi import HTTPException
from openpyxl import Workbook
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.filewriter import dcmwrite
from pydicom.uid import MRImageStorage
from pynetdicom import AE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from tests.battery.cases.node import ASSOCIATE, pdu
from tests.battery.dicom import PHYSICS, blank, enhanced, set_pixels
from tests.models.broken_weights import packed, tiny

from gliomark.io import read_clinical, read_study
from gliomark.models.weights import load_weights
from gliomark.server.associations import AssociationLimits, BoundedServer
from gliomark.server.uploads import Inbox, Limits, unpack
from gliomark.stored import read_record, write_record
from gliomark.study import Clinical, GliomarkError, MRSequence, Series

REFUSALS = (GliomarkError, HTTPException)  # what a reader may say of a bad input
SHAPE = (6, 16, 16)


@dataclass(frozen=True)
class Reader:
    """healthy: inputs that are read; read: one input, in a folder of its own that is empty."""

    healthy: Callable[[], Sequence[bytes]]
    read: Callable[[bytes, Path], object]


@cache
def image() -> np.ndarray:
    """A round head ``(slice, row, column)`` on nothing."""
    z, y, x = np.indices(SHAPE)
    inside = (y - 8) ** 2 + (x - 8) ** 2 < 30
    return np.where(inside, 60 + 9 * x + 5 * z + y, 0).astype(np.int16)


def volume(suffix: str, packed: bool = False) -> Callable[[], Sequence[bytes]]:
    def make() -> Sequence[bytes]:
        if suffix == ".nii":
            volume = nib.Nifti1Image(image().T, np.diag([14.0, 14, 25, 1]))
            volume.header.set_xyzt_units("mm")
            return [volume.to_bytes(), nib.Nifti2Image(image().T, np.diag([14.0, 14, 25, 1])).to_bytes()]
        one, file = sitk.GetImageFromArray(image()), Path(f"seed{suffix}").absolute()
        one.SetSpacing((14, 14, 25))
        sitk.WriteImage(one, str(file), packed)
        return [file.read_bytes()]

    return make


def volume_in(suffix: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> object:
        (folder / f"FLAIR{suffix}").write_bytes(content)
        return read_study(folder)

    return read


def dicom_objects() -> Sequence[bytes]:
    series = Series(image().astype(np.float32), np.diag([14.0, 14, 25, 1]), tuple("012345"), Path("x"))
    one = blank(MRImageStorage, "fuzz", 2)
    for tag, value in PHYSICS[MRSequence.FLAIR].items():
        setattr(one, tag, value)
    one.ImageOrientationPatient, one.PixelSpacing = [1, 0, 0, 0, 1, 0], [14, 14]
    one.ImagePositionPatient, one.FrameOfReferenceUID = [0, 0, 50], "1.2.3"
    set_pixels(one, image()[2])
    contents = []
    for dataset in (one, enhanced(series, MRSequence.FLAIR, "1.2.3")):
        content = io.BytesIO()
        dcmwrite(content, dataset, enforce_file_format=True)
        contents.append(content.getvalue())
    return contents


def read_dicom(content: bytes, folder: Path) -> object:
    """Among two healthy slices of its series."""
    for at in (1, 3):
        one = io.BytesIO(dicom_objects_once()[0])
        dataset = dcmread(one)
        dataset.ImagePositionPatient = [0, 0, 25 * at]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{at}"
        set_pixels(dataset, image()[at])
        dataset.save_as(folder / f"{at}.dcm", enforce_file_format=True)
    (folder / "2.dcm").write_bytes(content)
    return read_study(folder)


dicom_objects_once = cache(dicom_objects)


def pictures() -> Sequence[bytes]:
    contents = []
    for kind in ("PNG", "TIFF", "JPEG", "BMP"):
        content = io.BytesIO()
        Image.fromarray(image()[2].astype(np.uint8)).save(content, kind)
        contents.append(content.getvalue())
    return contents


def read_pictures(content: bytes, folder: Path) -> object:
    (folder / "FLAIR").mkdir()
    for at in (1, 3):
        Image.fromarray(image()[at].astype(np.uint8)).save(folder / "FLAIR" / f"{at}.png")
    (folder / "FLAIR" / "2.png").write_bytes(content)
    return read_study(folder)


def csv_tables() -> Sequence[bytes]:
    text = 'id,age,sex,note\nP001,50,M,x\nP002,45岁,女,"a, b"\n'
    others = [text.encode("utf-16"), text.replace(",", ";").encode("gb18030"), b"sep=;\nid;age;sex\na;1;F\n"]
    return [text.encode(), *others]


def workbooks() -> Sequence[bytes]:
    book, content = Workbook(), io.BytesIO()
    for row in (("id", "age", "sex"), ("P001", 50, "M"), ("P002", 45.5, "F")):
        book.active.append(row)
    book.save(content)
    loose = io.BytesIO()  # unpacked, so that chance reaches the XML
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(loose, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return [content.getvalue(), loose.getvalue()]


def table_in(suffix: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> object:
        file = folder / f"clinical{suffix}"
        file.write_bytes(content)
        return read_clinical(file).row("P001")

    return read


def zips() -> Sequence[bytes]:
    contents = []
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", packing) as archive:
            archive.writestr("P001/a.dcm", bytes(300))
            archive.writestr("P001/b/c.txt", b"hello")
        contents.append(content.getvalue())
    return contents


def read_zip(content: bytes, folder: Path) -> object:
    file = folder / "sent.zip"
    file.write_bytes(content)
    return unpack(file, Inbox(folder / "inbox", Limits(bytes=10 << 20, files=50)))


def cards() -> Sequence[bytes]:
    return [json.dumps(tiny()[0]).encode()]


def read_card(content: bytes, folder: Path) -> object:
    """A card of any content, with a hash that is right."""
    file = folder / "model.safetensors"
    file.write_bytes(packed(content.decode("utf-8", "replace"), tiny()[1]))
    return load_weights(file)


def weights_files() -> Sequence[bytes]:
    card, tensors = tiny()
    return [packed(json.dumps(card), tensors)]


def read_weights(content: bytes, folder: Path) -> object:
    file = folder / "model.safetensors"
    file.write_bytes(content)
    return load_weights(file)


def records() -> Sequence[bytes]:
    folder = Path("records")
    folder.mkdir(exist_ok=True)
    write_record(folder, "clinical", Clinical("P001", 50.0, 0, {"note": "x"}))
    return [(folder / "clinical.json").read_bytes()]


def read_stored(content: bytes, folder: Path) -> object:
    (folder / "clinical.json").write_bytes(content)
    return read_record(folder, "clinical", Clinical)


# ---- DICOM's lines ----------------------------------------------------------------------------------


@cache
def node() -> int:
    """The port of our own listener in this process."""
    entity = AE("GLIOMARK")
    entity.add_supported_context(Verification)
    folder = Path("arriving").absolute()
    folder.mkdir(exist_ok=True)
    limits = AssociationLimits(first_s=0.5, silence_s=1.0, each=100, most=100)
    listener = entity.make_server(("127.0.0.1", 0), server_class=BoundedServer, limits=limits, folder=folder)
    entity._servers.append(listener)
    threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
    return int(listener.server_address[1])


def lines() -> Sequence[bytes]:
    command = Dataset()
    command.AffectedSOPClassUID, command.CommandField, command.MessageID = "1.2.840.10008.1.1", 0x30, 1
    command.CommandDataSetType, command.CommandGroupLength = 0x0101, 66
    body = encode(command, True, True) or b""
    echo = pdu(4, (len(body) + 2).to_bytes(4, "big") + b"\x01\x03" + body)
    return [pdu(1, ASSOCIATE), pdu(1, ASSOCIATE) + echo + pdu(5, bytes(4))]


def send_line(content: bytes, folder: Path) -> object:
    """Whatever is sent, the line ends within seconds, and the listener answers the next one."""
    with socket.create_connection(("127.0.0.1", node()), timeout=5) as line, suppress(ConnectionError):
        line.sendall(content)
        line.shutdown(socket.SHUT_WR)
        while line.recv(65536):
            pass
    return None


READERS: dict[str, Reader] = {
    "NIfTI": Reader(volume(".nii"), volume_in(".nii")),
    "MetaImage": Reader(volume(".mha"), volume_in(".mha")),
    "NRRD": Reader(volume(".nrrd"), volume_in(".nrrd")),
    "DICOM": Reader(dicom_objects, read_dicom),
    "pictures": Reader(pictures, read_pictures),
    "csv": Reader(csv_tables, table_in(".csv")),
    "xlsx": Reader(workbooks, table_in(".xlsx")),
    "zip": Reader(zips, read_zip),
    "weights card": Reader(cards, read_card),
    "weights file": Reader(weights_files, read_weights),
    "stored records": Reader(records, read_stored),
    "DICOM lines": Reader(lines, send_line),
}


def read_one(reader: Reader, content: bytes, place: Path) -> str:
    """Read an input; what went wrong, or nothing where it was read or refused in a sentence."""
    place.mkdir()
    try:
        reader.read(content, place)
    except REFUSALS:
        return ""
    except Exception as error:
        where = error.__traceback__
        while where and where.tb_next:
            where = where.tb_next
        at = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else ""
        return f"{type(error).__name__} at {at}"
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return ""

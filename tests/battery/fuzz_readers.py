"""Readers that are fuzzed: healthy inputs of each, and a function that reads one input."""

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
from tests.battery.cases.dicom_node import ASSOCIATE, create_pdu
from tests.battery.dicom_objects import PHYSICS, create_blank_object, create_enhanced_object, set_pixels
from tests.models.broken_weights import copy_tiny_model, pack_weights

from gliomark.errors import GliomarkError
from gliomark.io import read_clinical_table, read_study
from gliomark.models.weights import load_weights
from gliomark.record_files import read_record, write_record
from gliomark.server.associations import AssociationLimits, BoundedAssociationServer
from gliomark.server.uploads import RequestLimits, UploadWriter, unpack_zip
from gliomark.study import ClinicalData, MRSequence, Series

REFUSAL_ERRORS = (GliomarkError, HTTPException)  # exceptions that a reader may raise for a bad input
SHAPE = (6, 16, 16)


@dataclass(frozen=True)
class FuzzedReader:
    """A reader to be fuzzed. healthy: creates valid inputs; read: reads one input in an empty folder."""

    create_inputs: Callable[[], Sequence[bytes]]
    read: Callable[[bytes, Path], object]


@cache
def create_image() -> np.ndarray:
    """Round head on black background, ``(slice, row, column)``."""
    z, y, x = np.indices(SHAPE)
    inside = (y - 8) ** 2 + (x - 8) ** 2 < 30
    return np.where(inside, 60 + 9 * x + 5 * z + y, 0).astype(np.int16)


def create_volumes(suffix: str, packed: bool = False) -> Callable[[], Sequence[bytes]]:
    def create_contents() -> Sequence[bytes]:
        if suffix == ".nii":
            volume = nib.Nifti1Image(create_image().T, np.diag([14.0, 14, 25, 1]))
            volume.header.set_xyzt_units("mm")
            return [
                volume.to_bytes(),
                nib.Nifti2Image(create_image().T, np.diag([14.0, 14, 25, 1])).to_bytes(),
            ]
        image_object, file = sitk.GetImageFromArray(create_image()), Path(f"seed{suffix}").absolute()
        image_object.SetSpacing((14, 14, 25))
        sitk.WriteImage(image_object, str(file), packed)
        return [file.read_bytes()]

    return create_contents


def create_volume_reader(suffix: str) -> Callable[[bytes, Path], object]:
    def read_volume(content: bytes, folder: Path) -> object:
        (folder / f"FLAIR{suffix}").write_bytes(content)
        return read_study(folder)

    return read_volume


def create_dicom_objects() -> Sequence[bytes]:
    series = Series(create_image().astype(np.float32), np.diag([14.0, 14, 25, 1]), tuple("012345"), Path("x"))
    flair_dataset = create_blank_object(MRImageStorage, "fuzz", 2)
    for tag, value in PHYSICS[MRSequence.FLAIR].items():
        setattr(flair_dataset, tag, value)
    flair_dataset.ImageOrientationPatient, flair_dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [14, 14]
    flair_dataset.ImagePositionPatient, flair_dataset.FrameOfReferenceUID = [0, 0, 50], "1.2.3"
    set_pixels(flair_dataset, create_image()[2])
    contents = []
    for dataset in (flair_dataset, create_enhanced_object(series, MRSequence.FLAIR, "1.2.3")):
        content = io.BytesIO()
        dcmwrite(content, dataset, enforce_file_format=True)
        contents.append(content.getvalue())
    return contents


def read_dicom(content: bytes, folder: Path) -> object:
    """Read a DICOM object together with two healthy slices of its series."""
    for at in (1, 3):
        one = io.BytesIO(create_dicom_objects_once()[0])
        dataset = dcmread(one)
        dataset.ImagePositionPatient = [0, 0, 25 * at]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{at}"
        set_pixels(dataset, create_image()[at])
        dataset.save_as(folder / f"{at}.dcm", enforce_file_format=True)
    (folder / "2.dcm").write_bytes(content)
    return read_study(folder)


create_dicom_objects_once = cache(create_dicom_objects)


def create_pictures() -> Sequence[bytes]:
    contents = []
    for kind in ("PNG", "TIFF", "JPEG", "BMP"):
        content = io.BytesIO()
        Image.fromarray(create_image()[2].astype(np.uint8)).save(content, kind)
        contents.append(content.getvalue())
    return contents


def read_pictures(content: bytes, folder: Path) -> object:
    (folder / "FLAIR").mkdir()
    for at in (1, 3):
        Image.fromarray(create_image()[at].astype(np.uint8)).save(folder / "FLAIR" / f"{at}.png")
    (folder / "FLAIR" / "2.png").write_bytes(content)
    return read_study(folder)


def create_csv_tables() -> Sequence[bytes]:
    text = 'id,age,sex,note\nP001,50,M,x\nP002,45岁,女,"a, b"\n'
    others = [text.encode("utf-16"), text.replace(",", ";").encode("gb18030"), b"sep=;\nid;age;sex\na;1;F\n"]
    return [text.encode(), *others]


def create_workbooks() -> Sequence[bytes]:
    book, content = Workbook(), io.BytesIO()
    for row in (("id", "age", "sex"), ("P001", 50, "M"), ("P002", 45.5, "F")):
        book.active.append(row)
    book.save(content)
    stored_content = io.BytesIO()  # uncompressed, so that random changes affect the XML
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(stored_content, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return [content.getvalue(), stored_content.getvalue()]


def create_table_reader(suffix: str) -> Callable[[bytes, Path], object]:
    def read_table(content: bytes, folder: Path) -> object:
        file = folder / f"clinical{suffix}"
        file.write_bytes(content)
        return read_clinical_table(file).get_row("P001")

    return read_table


def create_zips() -> Sequence[bytes]:
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
    return unpack_zip(
        file, UploadWriter(folder / "inbox", RequestLimits(max_upload_bytes=10 << 20, max_upload_files=50))
    )


def create_cards() -> Sequence[bytes]:
    return [json.dumps(copy_tiny_model()[0]).encode()]


def read_card(content: bytes, folder: Path) -> object:
    """Load weights whose card has this content and a valid hash."""
    file = folder / "model.safetensors"
    file.write_bytes(pack_weights(content.decode("utf-8", "replace"), copy_tiny_model()[1]))
    return load_weights(file)


def create_weights_files() -> Sequence[bytes]:
    card, tensors = copy_tiny_model()
    return [pack_weights(json.dumps(card), tensors)]


def read_weights(content: bytes, folder: Path) -> object:
    file = folder / "model.safetensors"
    file.write_bytes(content)
    return load_weights(file)


def create_records() -> Sequence[bytes]:
    folder = Path("records")
    folder.mkdir(exist_ok=True)
    write_record(folder, "clinical", ClinicalData("P001", 50.0, 0, {"note": "x"}))
    return [(folder / "clinical.json").read_bytes()]


def read_stored(content: bytes, folder: Path) -> object:
    (folder / "clinical.json").write_bytes(content)
    return read_record(folder, "clinical", ClinicalData)


# ---- DICOM connections ------------------------------------------------------------------------------


@cache
def start_dicom_listener() -> int:
    """Start a listener in this process; its port."""
    entity = AE("GLIOMARK")
    entity.add_supported_context(Verification)
    folder = Path("arriving").absolute()
    folder.mkdir(exist_ok=True)
    limits = AssociationLimits(
        pdu_timeout_s=0.5, network_timeout_s=1.0, max_associations_per_address=100, max_associations=100
    )
    listener = entity.make_server(
        ("127.0.0.1", 0), server_class=BoundedAssociationServer, limits=limits, folder=folder
    )
    entity._servers.append(listener)
    threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
    return int(listener.server_address[1])


def create_dicom_messages() -> Sequence[bytes]:
    command = Dataset()
    command.AffectedSOPClassUID, command.CommandField, command.MessageID = "1.2.840.10008.1.1", 0x30, 1
    command.CommandDataSetType, command.CommandGroupLength = 0x0101, 66
    body = encode(command, True, True) or b""
    echo = create_pdu(4, (len(body) + 2).to_bytes(4, "big") + b"\x01\x03" + body)
    return [create_pdu(1, ASSOCIATE), create_pdu(1, ASSOCIATE) + echo + create_pdu(5, bytes(4))]


def send_dicom_bytes(content: bytes, folder: Path) -> object:
    """Send bytes to the listener, which must close the connection within seconds and accept the next one."""
    with (
        socket.create_connection(("127.0.0.1", start_dicom_listener()), timeout=5) as connection,
        suppress(ConnectionError),
    ):
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    return None


READERS: dict[str, FuzzedReader] = {
    "NIfTI": FuzzedReader(create_volumes(".nii"), create_volume_reader(".nii")),
    "MetaImage": FuzzedReader(create_volumes(".mha"), create_volume_reader(".mha")),
    "NRRD": FuzzedReader(create_volumes(".nrrd"), create_volume_reader(".nrrd")),
    "DICOM": FuzzedReader(create_dicom_objects, read_dicom),
    "pictures": FuzzedReader(create_pictures, read_pictures),
    "csv": FuzzedReader(create_csv_tables, create_table_reader(".csv")),
    "xlsx": FuzzedReader(create_workbooks, create_table_reader(".xlsx")),
    "zip": FuzzedReader(create_zips, read_zip),
    "weights card": FuzzedReader(create_cards, read_card),
    "weights file": FuzzedReader(create_weights_files, read_weights),
    "stored records": FuzzedReader(create_records, read_stored),
    "DICOM lines": FuzzedReader(create_dicom_messages, send_dicom_bytes),
}


def try_to_read(reader: FuzzedReader, content: bytes, folder: Path) -> str:
    """Read an input; the unexpected exception and its line, or "" if it was read or properly rejected."""
    folder.mkdir()
    try:
        reader.read(content, folder)
    except REFUSAL_ERRORS:
        return ""
    except Exception as error:
        where = error.__traceback__
        while where and where.tb_next:
            where = where.tb_next
        at = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else ""
        return f"{type(error).__name__} at {at}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ""

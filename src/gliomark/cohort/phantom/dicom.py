"""A scanned synthetic patient as raw DICOM, as a hospital's archive hands it out.

Every name, number and date is made up; they are there so that anonymisation has something to remove.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from gliomark.cohort.phantom.scanned import HospitalPatient
from gliomark.study import MRSequence, Series

# Family and given names, once in letters and once in characters.
_FAMILIES = (("Zhang", "张"), ("Wang", "王"), ("Li", "李"), ("Chen", "陈"), ("Yang", "杨"), ("Zhou", "周"))
_GIVEN = (
    ("Wei", "伟"),
    ("Fang", "芳"),
    ("Min", "敏"),
    ("Jun", "军"),
    ("Xiulan", "秀兰"),
    ("Jianguo", "建国"),
)
_DOCTORS = ("Liu^Yang", "Huang^Lei", "Zhao^Qiang", "Xu^Jing")
_HOSPITALS = ("Synthetic First Hospital", "Synthetic People's Hospital", "Synthetic University Hospital")


@dataclass(frozen=True)
class _Protocol:
    """A sequence's timing in ms as ranges, and its technique."""

    repetition: tuple[float, float]
    echo: tuple[float, float]
    inversion: tuple[float, float] | None
    technique: tuple[str, ...]


_SPIN_ECHO_T1 = _Protocol((420, 680), (8, 14), None, ("SE",))
_PROTOCOLS = {
    MRSequence.T1: _SPIN_ECHO_T1,
    MRSequence.T1C: _SPIN_ECHO_T1,
    MRSequence.T2: _Protocol((3600, 6000), (90, 112), None, ("SE",)),
    MRSequence.FLAIR: _Protocol((8000, 9500), (88, 140), (2000, 2500), ("SE", "IR")),
}


@dataclass(frozen=True)
class Vendor:
    """A scanner: names as its makers write them, and what its technologists call the four sequences."""

    manufacturer: str
    model: str
    field_t: float
    names: dict[MRSequence, str]
    software: str
    t1_inversion: bool = False  # whether T1 is prepared by an inversion ("T1 FLAIR")


def _names(*names: str) -> dict[MRSequence, str]:
    return dict(zip(MRSequence, names, strict=True))


_VENDORS = (
    Vendor(
        "GE MEDICAL SYSTEMS",
        "SIGNA Pioneer",
        3.0,
        _names("Ax T1 FLAIR", "Ax T1 FLAIR+C", "OAx T2 FSE", "Ax T2 FLAIR"),
        "LX\\MR29.1",
        t1_inversion=True,
    ),
    Vendor(
        "GE MEDICAL SYSTEMS",
        "Optima MR360",
        1.5,
        _names("AX T1", "AX T1+C", "AX T2 PROP", "AX T2 FLAIR"),
        "24\\LX\\MR",
    ),
    Vendor(
        "SIEMENS",
        "Skyra",
        3.0,
        _names("t1_se_tra", "t1_se_tra_CE", "t2_tse_tra_320", "t2_tirm_tra_dark-fluid"),
        "syngo MR E11",
    ),
    Vendor(
        "Siemens Healthineers",
        "MAGNETOM Aera",
        1.5,
        _names("T1_TRA平扫", "T1_TRA增强", "T2_TRA", "T2_TRA压水"),
        "syngo MR XA20",
    ),
    Vendor(
        "Philips Medical Systems",
        "Ingenia",
        3.0,
        _names("T1W_SE", "T1W_SE+C", "T2W_TSE", "T2W_FLAIR"),
        "5.7.1\\5.7.1.2",
    ),
    Vendor(
        "UIH",
        "uMR 770",
        3.0,
        _names("横断位 T1", "横断位 T1 增强", "横断位 T2", "横断位 T2 FLAIR"),
        "R002",
    ),
)


class Export:
    """One patient's examination on its way to files: who they are, and how their files are written."""

    def __init__(self, patient: HospitalPatient) -> None:
        self.patient = patient
        self.chance = np.random.default_rng([patient.seed, 30])
        self.vendor = _VENDORS[self.chance.integers(len(_VENDORS))]
        self.syntax = str(self.chance.choice(patient.settings.transfer_syntaxes))
        self.bare = bool(self.syntax == "implicit" and self.chance.random() < 0.5)  # no preamble
        self.flat = bool(self.chance.random() < 0.3)  # all series in one folder
        self.suffix = str(self.chance.choice(["", "", ".dcm"]))
        self.identity = self._identity()
        self.series_count = 0

    def _identity(self) -> Dataset:
        """Patient, study and equipment: what every file of the examination repeats."""
        chance, row, vendor = self.chance, self.patient.clinical, self.vendor
        (family, family_sign), (given, given_sign) = (
            names[chance.integers(len(names))] for names in (_FAMILIES, _GIVEN)
        )
        day = date(2015, 1, 1) + timedelta(days=int(chance.integers(365 * 8)))
        birth = day - timedelta(days=int(365.25 * (row.age or 50) + 1 + chance.integers(363)))
        identity = Dataset()
        style = chance.choice(["letters", "characters", "number"], p=[0.4, 0.45, 0.15])
        chinese = style == "characters" or any(not name.isascii() for name in vendor.names.values())
        identity.SpecificCharacterSet = "GB18030" if chinese else "ISO_IR 100"
        identity.PatientName = {
            "letters": f"{family}^{given}",
            "characters": f"{family}^{given}={family_sign}^{given_sign}",
            "number": str(chance.integers(10**7, 10**8)),
        }[str(style)]
        identity.PatientID = row.patient_id
        identity.PatientBirthDate = birth.strftime("%Y%m%d")
        identity.PatientSex = "" if row.sex is None else "MF"[row.sex]
        identity.PatientAge = f"{int(row.age or 0):03d}Y"
        identity.PatientWeight = str(chance.integers(45, 95))
        identity.StudyInstanceUID = self.uid("study")
        identity.StudyDate = day.strftime("%Y%m%d")
        identity.StudyTime = f"{chance.integers(7, 19):02d}{chance.integers(60):02d}{chance.integers(60):02d}"
        identity.StudyID = str(chance.integers(1000, 99999))
        identity.AccessionNumber = f"MR{chance.integers(10**6, 10**7)}"
        identity.StudyDescription = "头颅MRI平扫+增强" if chinese else "MR BRAIN W/WO CONTRAST"
        identity.ReferringPhysicianName = str(chance.choice(_DOCTORS))
        identity.OperatorsName = str(chance.choice(_DOCTORS))
        identity.InstitutionName = str(chance.choice(_HOSPITALS))
        identity.InstitutionAddress = "1 Example Road"
        identity.StationName = f"MRC{chance.integers(10000, 99999)}"
        identity.Manufacturer, identity.ManufacturerModelName = vendor.manufacturer, vendor.model
        identity.DeviceSerialNumber = str(chance.integers(10**4, 10**6))
        identity.SoftwareVersions = vendor.software.split("\\")
        return identity

    def uid(self, *parts: object) -> str:
        """A unique identifier that the seed determines."""
        return str(generate_uid(entropy_srcs=["gliomark hospital", str(self.patient.seed), *map(str, parts)]))

    def open_series(self, description: str, modality: str = "MR") -> Dataset:
        """The header that the files of a new series share."""
        self.series_count += 1
        header = Dataset()
        header.update(self.identity)
        header.Modality = modality
        header.SeriesInstanceUID = self.uid("series", self.series_count)
        header.FrameOfReferenceUID = self.uid("frame")
        header.PositionReferenceIndicator = ""
        header.SeriesNumber = self.series_count
        header.SeriesDescription = description
        header.SeriesDate = header.AcquisitionDate = header.ContentDate = header.StudyDate
        minutes = int(header.StudyTime[:2]) * 60 + int(header.StudyTime[2:4]) + 4 * self.series_count
        clock = f"{minutes // 60 % 24:02d}{minutes % 60:02d}{header.StudyTime[4:]}"
        header.SeriesTime = header.AcquisitionTime = header.ContentTime = clock
        if modality == "MR":
            header.BodyPartExamined, header.PatientPosition = "HEAD", "HFS"
            header.MagneticFieldStrength = str(self.vendor.field_t)
        return header


def acquired(export: Export, name: MRSequence) -> Iterator[Dataset]:
    """One of the four sequences, slice by slice."""
    protocol, chance = _PROTOCOLS[name], export.chance
    header = export.open_series(export.vendor.names[name])
    header.ProtocolName = header.SeriesDescription
    header.ImageType = [
        "ORIGINAL",
        "PRIMARY",
        *(("M", "ND") if "iemens" in export.vendor.manufacturer.lower() else ("OTHER",)),
    ]
    inverted = name in (MRSequence.T1, MRSequence.T1C) and export.vendor.t1_inversion
    times = _Protocol((1800, 2300), (8, 24), (750, 860), ("SE", "IR")) if inverted else protocol
    header.ScanningSequence = list(times.technique)
    header.SequenceVariant, header.ScanOptions, header.MRAcquisitionType = "SK", "", "2D"
    header.RepetitionTime = f"{chance.uniform(*times.repetition):.1f}"
    header.EchoTime = f"{chance.uniform(*times.echo):.2f}"
    if times.inversion:
        header.InversionTime = f"{chance.uniform(*times.inversion):.1f}"
    header.EchoTrainLength, header.FlipAngle = int(chance.integers(1, 18)), "90"
    if name == MRSequence.T1C:
        header.ContrastBolusAgent = str(chance.choice(["Gd-DTPA", "Gadovist", "MultiHance 15ml"]))
    yield from slices(export, header, patient_series(export.patient, name))


def patient_series(patient: HospitalPatient, name: MRSequence) -> Series:
    """One series of the patient's study."""
    return patient.study.series[name]


def slices(export: Export, header: Dataset, series: Series) -> Iterator[Dataset]:
    """A header's files for a volume on its grid."""
    step_mm = float(np.linalg.norm(series.affine[:3, 2]))
    for number, image in enumerate(series.image):
        yield picture(export, header, image, series.affine, number, step_mm)


def picture(
    export: Export,
    header: Dataset,
    image: NDArray[np.floating],
    affine: NDArray[np.float64],
    number: int,
    step_mm: float,
) -> Dataset:
    """One MR image ``(row, column)``: slice ``number`` of the grid that ``affine`` places."""
    file = Dataset()
    file.update(header)
    file.SOPClassUID = MRImageStorage
    file.SOPInstanceUID = export.uid(header.SeriesInstanceUID, number, header.get("InstanceNumber", ""))
    file.InstanceNumber = int(header.get("InstanceNumber", 0)) + number + 1
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    file.SliceThickness = f"{min(step_mm, round(step_mm * 0.93 * 2) / 2):.2f}"
    file.SpacingBetweenSlices = f"{step_mm:.4f}"
    file.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
    turned = (affine[:3, :3] / spacing).T
    file.ImageOrientationPatient = [f"{value:.9f}" for value in (*turned[0], *turned[1])]
    place = affine[:3, 3] + number * affine[:3, 2]
    file.ImagePositionPatient = [f"{value:.6f}" for value in place]
    file.SliceLocation = f"{place @ turned[2]:.4f}"
    set_pixels(file, np.rint(np.clip(image, 0, 32767)).astype(np.uint16))
    return file


def set_pixels(file: Dataset, image: NDArray[np.unsignedinteger]) -> None:
    """Grey pixels ``(row, column)`` of 8 or 16 bits and the tags that describe them."""
    bits = 8 * image.itemsize
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = image.shape
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = bits, bits, bits - 1, 0
    file.SmallestImagePixelValue, file.LargestImagePixelValue = int(image.min()), int(image.max())
    file.WindowCenter, file.WindowWidth = str(int(image.max()) // 2 + 1), str(int(image.max()) + 1)
    file.PixelData = image.tobytes()
    file["PixelData"].VR = "OW" if bits == 16 else "OB"


def write_series(export: Export, files: list[Dataset], root: Path) -> None:
    """A series' files in no order: neither the folder's name nor the files' tells what they are."""
    folder = root if export.flat else root / f"{int(export.uid(files[0].SeriesInstanceUID)[-7:]):06X}"
    folder.mkdir(parents=True, exist_ok=True)
    taken = {path.name for path in folder.iterdir()}
    for place, file in zip(export.chance.permutation(len(files)), files, strict=True):
        name = f"IM{len(taken) + int(place):04d}{export.suffix}"
        _write(export, file, folder / name)


def _write(export: Export, file: Dataset, path: Path) -> None:
    """One file in the patient's transfer syntax, without preamble where the archive writes none."""
    rle = export.syntax == "rle" and file.get("SOPClassUID") == MRImageStorage
    syntax = ImplicitVRLittleEndian if export.syntax == "implicit" else ExplicitVRLittleEndian
    file.file_meta = FileMetaDataset()
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.file_meta.TransferSyntaxUID = syntax
    if rle:
        file.compress(RLELossless, generate_instance_uid=False)
    if export.bare and file.SOPClassUID == MRImageStorage:
        del file.file_meta
        dcmwrite(path, file, implicit_vr=True, little_endian=True, enforce_file_format=False)
    else:
        dcmwrite(path, file, enforce_file_format=True)

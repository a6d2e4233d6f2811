"""Export a scanned synthetic patient as raw DICOM, like a hospital's archive.

All names, numbers and dates are invented; they serve to test de-identification.
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

from gliomark.phantom.hospital_patient import HospitalPatient
from gliomark.study import MRSequence, Series

# Family and given names in Latin letters and Chinese characters.
_FAMILY_NAMES = (
    ("Zhang", "张"),
    ("Wang", "王"),
    ("Li", "李"),
    ("Chen", "陈"),
    ("Yang", "杨"),
    ("Zhou", "周"),
)
_GIVEN_NAMES = (
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
    """Ranges of a sequence's timing in ms, and its technique."""

    repetition_ms: tuple[float, float]
    echo_ms: tuple[float, float]
    inversion_ms: tuple[float, float] | None
    technique: tuple[str, ...]


_SPIN_ECHO_T1 = _Protocol((420, 680), (8, 14), None, ("SE",))
_PROTOCOLS = {
    MRSequence.T1: _SPIN_ECHO_T1,
    MRSequence.T1C: _SPIN_ECHO_T1,
    MRSequence.T2: _Protocol((3600, 6000), (90, 112), None, ("SE",)),
    MRSequence.FLAIR: _Protocol((8000, 9500), (88, 140), (2000, 2500), ("SE", "IR")),
}


@dataclass(frozen=True)
class Scanner:
    """A scanner: manufacturer and model as in DICOM headers, and its names of the four sequences."""

    manufacturer: str
    model: str
    field_strength_t: float
    sequence_names: dict[MRSequence, str]
    software_version: str
    has_inverted_t1: bool = False  # whether T1 has an inversion pulse ("T1 FLAIR")


def _map_sequence_names(*names: str) -> dict[MRSequence, str]:
    return dict(zip(MRSequence, names, strict=True))


_SCANNERS = (
    Scanner(
        "GE MEDICAL SYSTEMS",
        "SIGNA Pioneer",
        3.0,
        _map_sequence_names("Ax T1 FLAIR", "Ax T1 FLAIR+C", "OAx T2 FSE", "Ax T2 FLAIR"),
        "LX\\MR29.1",
        has_inverted_t1=True,
    ),
    Scanner(
        "GE MEDICAL SYSTEMS",
        "Optima MR360",
        1.5,
        _map_sequence_names("AX T1", "AX T1+C", "AX T2 PROP", "AX T2 FLAIR"),
        "24\\LX\\MR",
    ),
    Scanner(
        "SIEMENS",
        "Skyra",
        3.0,
        _map_sequence_names("t1_se_tra", "t1_se_tra_CE", "t2_tse_tra_320", "t2_tirm_tra_dark-fluid"),
        "syngo MR E11",
    ),
    Scanner(
        "Siemens Healthineers",
        "MAGNETOM Aera",
        1.5,
        _map_sequence_names("T1_TRA平扫", "T1_TRA增强", "T2_TRA", "T2_TRA压水"),
        "syngo MR XA20",
    ),
    Scanner(
        "Philips Medical Systems",
        "Ingenia",
        3.0,
        _map_sequence_names("T1W_SE", "T1W_SE+C", "T2W_TSE", "T2W_FLAIR"),
        "5.7.1\\5.7.1.2",
    ),
    Scanner(
        "UIH",
        "uMR 770",
        3.0,
        _map_sequence_names("横断位 T1", "横断位 T1 增强", "横断位 T2", "横断位 T2 FLAIR"),
        "R002",
    ),
)


class DicomExport:
    """Export of one patient's examination: identity, scanner and format of the files."""

    def __init__(self, patient: HospitalPatient) -> None:
        self.patient = patient
        self.rng = np.random.default_rng([patient.seed, 30])
        self.scanner = _SCANNERS[self.rng.integers(len(_SCANNERS))]
        self.transfer_syntax = str(self.rng.choice(patient.settings.transfer_syntaxes))
        self.lacks_preamble = bool(
            self.transfer_syntax == "implicit" and self.rng.random() < 0.5
        )  # no preamble
        self.uses_single_folder = bool(self.rng.random() < 0.3)  # all series in one folder
        self.file_suffix = str(self.rng.choice(["", "", ".dcm"]))
        self.identity = self._create_identity()
        self.series_count = 0

    def _create_identity(self) -> Dataset:
        """Create the patient, study and equipment attributes common to all files of the examination."""
        rng, row, scanner = self.rng, self.patient.clinical, self.scanner
        (family, family_sign), (given, given_sign) = (
            names[rng.integers(len(names))] for names in (_FAMILY_NAMES, _GIVEN_NAMES)
        )
        study_day = date(2015, 1, 1) + timedelta(days=int(rng.integers(365 * 8)))
        birth = study_day - timedelta(days=int(365.25 * (row.age or 50) + 1 + rng.integers(363)))
        identity = Dataset()
        style = rng.choice(["letters", "characters", "number"], p=[0.4, 0.45, 0.15])
        uses_chinese = style == "characters" or any(
            not name.isascii() for name in scanner.sequence_names.values()
        )
        identity.SpecificCharacterSet = "GB18030" if uses_chinese else "ISO_IR 100"
        identity.PatientName = {
            "letters": f"{family}^{given}",
            "characters": f"{family}^{given}={family_sign}^{given_sign}",
            "number": str(rng.integers(10**7, 10**8)),
        }[str(style)]
        identity.PatientID = row.patient_id
        identity.PatientBirthDate = birth.strftime("%Y%m%d")
        identity.PatientSex = "" if row.sex is None else "MF"[row.sex]
        identity.PatientAge = f"{int(row.age or 0):03d}Y"
        identity.PatientWeight = str(rng.integers(45, 95))
        identity.StudyInstanceUID = self.create_uid("study")
        identity.StudyDate = study_day.strftime("%Y%m%d")
        identity.StudyTime = f"{rng.integers(7, 19):02d}{rng.integers(60):02d}{rng.integers(60):02d}"
        identity.StudyID = str(rng.integers(1000, 99999))
        identity.AccessionNumber = f"MR{rng.integers(10**6, 10**7)}"
        identity.StudyDescription = "头颅MRI平扫+增强" if uses_chinese else "MR BRAIN W/WO CONTRAST"
        identity.ReferringPhysicianName = str(rng.choice(_DOCTORS))
        identity.OperatorsName = str(rng.choice(_DOCTORS))
        identity.InstitutionName = str(rng.choice(_HOSPITALS))
        identity.InstitutionAddress = "1 Example Road"
        identity.StationName = f"MRC{rng.integers(10000, 99999)}"
        identity.Manufacturer, identity.ManufacturerModelName = scanner.manufacturer, scanner.model
        identity.DeviceSerialNumber = str(rng.integers(10**4, 10**6))
        identity.SoftwareVersions = scanner.software_version.split("\\")
        return identity

    def create_uid(self, *parts: object) -> str:
        """Create a UID determined by the seed and ``parts``."""
        return str(generate_uid(entropy_srcs=["gliomark hospital", str(self.patient.seed), *map(str, parts)]))

    def create_series_header(self, description: str, modality: str = "MR") -> Dataset:
        """Create the header common to all files of a new series."""
        self.series_count += 1
        header = Dataset()
        header.update(self.identity)
        header.Modality = modality
        header.SeriesInstanceUID = self.create_uid("series", self.series_count)
        header.FrameOfReferenceUID = self.create_uid("frame")
        header.PositionReferenceIndicator = ""
        header.SeriesNumber = self.series_count
        header.SeriesDescription = description
        header.SeriesDate = header.AcquisitionDate = header.ContentDate = header.StudyDate
        minutes = int(header.StudyTime[:2]) * 60 + int(header.StudyTime[2:4]) + 4 * self.series_count
        clock = f"{minutes // 60 % 24:02d}{minutes % 60:02d}{header.StudyTime[4:]}"
        header.SeriesTime = header.AcquisitionTime = header.ContentTime = clock
        if modality == "MR":
            header.BodyPartExamined, header.PatientPosition = "HEAD", "HFS"
            header.MagneticFieldStrength = str(self.scanner.field_strength_t)
        return header


def create_acquired_slices(export: DicomExport, name: MRSequence) -> Iterator[Dataset]:
    """Create the files of one of the four sequences, one per slice."""
    protocol, rng = _PROTOCOLS[name], export.rng
    header = export.create_series_header(export.scanner.sequence_names[name])
    header.ProtocolName = header.SeriesDescription
    header.ImageType = [
        "ORIGINAL",
        "PRIMARY",
        *(("M", "ND") if "iemens" in export.scanner.manufacturer.lower() else ("OTHER",)),
    ]
    inverted = name in (MRSequence.T1, MRSequence.T1C) and export.scanner.has_inverted_t1
    times = _Protocol((1800, 2300), (8, 24), (750, 860), ("SE", "IR")) if inverted else protocol
    header.ScanningSequence = list(times.technique)
    header.SequenceVariant, header.ScanOptions, header.MRAcquisitionType = "SK", "", "2D"
    header.RepetitionTime = f"{rng.uniform(*times.repetition_ms):.1f}"
    header.EchoTime = f"{rng.uniform(*times.echo_ms):.2f}"
    if times.inversion_ms:
        header.InversionTime = f"{rng.uniform(*times.inversion_ms):.1f}"
    header.EchoTrainLength, header.FlipAngle = int(rng.integers(1, 18)), "90"
    if name == MRSequence.T1C:
        header.ContrastBolusAgent = str(rng.choice(["Gd-DTPA", "Gadovist", "MultiHance 15ml"]))
    yield from create_slices(export, header, get_series(export.patient, name))


def get_series(patient: HospitalPatient, name: MRSequence) -> Series:
    """Return one series of the patient's study."""
    return patient.study.series[name]


def create_slices(export: DicomExport, header: Dataset, series: Series) -> Iterator[Dataset]:
    """Create the files of a series from a header and a volume ``(slice, row, column)``."""
    step_mm = float(np.linalg.norm(series.affine[:3, 2]))
    for slice_index, image in enumerate(series.image):
        yield create_slice_image(export, header, image, series.affine, slice_index, step_mm)


def create_slice_image(
    export: DicomExport,
    header: Dataset,
    image: NDArray[np.floating],
    affine: NDArray[np.float64],
    slice_index: int,
    step_mm: float,
) -> Dataset:
    """Create one MR image ``(row, column)``: slice ``slice_index`` of the grid defined by ``affine``; spacing in mm."""
    file = Dataset()
    file.update(header)
    file.SOPClassUID = MRImageStorage
    file.SOPInstanceUID = export.create_uid(
        header.SeriesInstanceUID, slice_index, header.get("InstanceNumber", "")
    )
    file.InstanceNumber = int(header.get("InstanceNumber", 0)) + slice_index + 1
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    file.SliceThickness = f"{min(step_mm, round(step_mm * 0.93 * 2) / 2):.2f}"
    file.SpacingBetweenSlices = f"{step_mm:.4f}"
    file.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
    orientation = (affine[:3, :3] / spacing).T
    file.ImageOrientationPatient = [f"{value:.9f}" for value in (*orientation[0], *orientation[1])]
    position = affine[:3, 3] + slice_index * affine[:3, 2]
    file.ImagePositionPatient = [f"{value:.6f}" for value in position]
    file.SliceLocation = f"{position @ orientation[2]:.4f}"
    set_pixels(file, np.rint(np.clip(image, 0, 32767)).astype(np.uint16))
    return file


def set_pixels(file: Dataset, image: NDArray[np.unsignedinteger]) -> None:
    """Set grey pixels ``(row, column)`` of 8 or 16 bits and the attributes that describe them."""
    bits = 8 * image.itemsize
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = image.shape
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = bits, bits, bits - 1, 0
    file.SmallestImagePixelValue, file.LargestImagePixelValue = int(image.min()), int(image.max())
    file.WindowCenter, file.WindowWidth = str(int(image.max()) // 2 + 1), str(int(image.max()) + 1)
    file.PixelData = image.tobytes()
    file["PixelData"].VR = "OW" if bits == 16 else "OB"


def write_series(export: DicomExport, files: list[Dataset], root: Path) -> None:
    """Write the files of a series in random order, with meaningless names of folder and files."""
    folder = (
        root
        if export.uses_single_folder
        else root / f"{int(export.create_uid(files[0].SeriesInstanceUID)[-7:]):06X}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    taken = {path.name for path in folder.iterdir()}
    for file_index, file in zip(export.rng.permutation(len(files)), files, strict=True):
        name = f"IM{len(taken) + int(file_index):04d}{export.file_suffix}"
        _write_file(export, file, folder / name)


def _write_file(export: DicomExport, file: Dataset, path: Path) -> None:
    """Write one file in the patient's transfer syntax, without a preamble if the archive writes none."""
    rle = export.transfer_syntax == "rle" and file.get("SOPClassUID") == MRImageStorage
    syntax = ImplicitVRLittleEndian if export.transfer_syntax == "implicit" else ExplicitVRLittleEndian
    file.file_meta = FileMetaDataset()
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.file_meta.TransferSyntaxUID = syntax
    if rle:
        file.compress(RLELossless, generate_instance_uid=False)
    if export.lacks_preamble and file.SOPClassUID == MRImageStorage:
        del file.file_meta
        dcmwrite(path, file, implicit_vr=True, little_endian=True, enforce_file_format=False)
    else:
        dcmwrite(path, file, enforce_file_format=True)

"""A synthetic patient as DICOM: classic and enhanced objects that the cases damage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from gliomark.study import MRSequence, Series, Study

PHYSICS = {
    MRSequence.T1C: {"RepetitionTime": 500, "EchoTime": 10, "ContrastBolusAgent": "Gd", "SeriesDescription": "t1 ce"},
    MRSequence.FLAIR: {
        "RepetitionTime": 9000, "EchoTime": 110, "InversionTime": 2500, "SeriesDescription": "t2 flair",
    },
}  # fmt: skip


def uid(*words: object) -> UID:
    return generate_uid(entropy_srcs=[str(word) for word in words])


def blank(
    sop_class: UID, *words: object, syntax: UID = ExplicitVRLittleEndian, patient: str = "P001"
) -> FileDataset:
    """An MR object without pixels. words: what its UID is made of."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid(*words)
    one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    one.SpecificCharacterSet, one.SOPClassUID, one.SOPInstanceUID = "ISO_IR 192", sop_class, uid(*words)
    one.Modality, one.PatientID, one.PatientName, one.StudyDate = "MR", patient, "Phantom^Seven", "20200101"
    one.PatientAge, one.PatientSex = "050Y", "M"
    one.StudyInstanceUID, one.SeriesInstanceUID = uid("study", patient), uid("series", *words[:1])
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    return one


def classic(series: Series, sequence: MRSequence, frame: str, patient: str = "P001") -> Iterator[FileDataset]:
    """One object a slice."""
    column, row, step = series.affine[:3, :3].T
    for at, plane in enumerate(series.image):
        one = blank(MRImageStorage, sequence.value, at, patient, patient=patient)
        one.FrameOfReferenceUID, one.InstanceNumber = frame, at + 1
        for tag, value in PHYSICS[sequence].items():
            setattr(one, tag, value)
        one.ImageOrientationPatient = [*unit(column), *unit(row)]
        one.PixelSpacing = [float(np.linalg.norm(row)), float(np.linalg.norm(column))]
        one.ImagePositionPatient = [float(f"{v:.6f}") for v in series.affine[:3, 3] + at * step]
        one.SliceThickness = float(np.linalg.norm(step))
        set_pixels(one, plane)
        yield one


def enhanced(series: Series, sequence: MRSequence, frame: str, patient: str = "P001") -> FileDataset:
    """All slices in one object."""
    column, row, step = series.affine[:3, :3].T
    one = blank(EnhancedMRImageStorage, sequence.value, "frames", patient, patient=patient)
    physics = PHYSICS[sequence]
    one.FrameOfReferenceUID, one.NumberOfFrames = frame, len(series.image)
    one.SeriesDescription, one.ContrastBolusAgent = (
        physics["SeriesDescription"],
        physics.get("ContrastBolusAgent", ""),
    )
    timing = item(RepetitionTime=physics["RepetitionTime"])
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[*unit(column), *unit(row)])],
        PixelMeasuresSequence=[item(
            PixelSpacing=[float(np.linalg.norm(row)), float(np.linalg.norm(column))],
            SliceThickness=float(np.linalg.norm(step)),
        )],
        MRTimingAndRelatedParametersSequence=[timing],
        MREchoSequence=[item(EffectiveEchoTime=float(physics["EchoTime"]))],
    )  # fmt: skip
    if "InversionTime" in physics:
        shared.MRModifierSequence = [
            item(InversionRecovery="YES", InversionTimes=[float(physics["InversionTime"])])
        ]
    one.SharedFunctionalGroupsSequence = [shared]
    places = [series.affine[:3, 3] + at * step for at in range(len(series.image))]
    one.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[float(f"{v:.6f}") for v in place])])
        for place in places
    ]
    set_pixels(one, series.image)
    return one


def set_pixels(one: Dataset, image: np.ndarray) -> None:
    """Grey values ``([frame,] row, column)`` as unsigned 16 bits, little endian."""
    one.Rows, one.Columns = image.shape[-2:]
    one.PixelData = np.rint(image).astype("<u2").tobytes()
    one["PixelData"].VR = "OW"


def item(**tags: Any) -> Dataset:
    one = Dataset()
    for tag, value in tags.items():
        setattr(one, tag, value)
    return one


def unit(vector: np.ndarray) -> list[float]:
    return [float(f"{v:.8f}") for v in vector / np.linalg.norm(vector)]


def write(one: FileDataset, file: Path) -> Path:
    """As its transfer syntax has it, whatever its elements say."""
    file.parent.mkdir(parents=True, exist_ok=True)
    syntax = one.file_meta.TransferSyntaxUID
    if syntax == ExplicitVRBigEndian and "PixelData" in one:
        one.PixelData = np.frombuffer(one.PixelData, "<u2").astype(">u2").tobytes()
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    pydicom.dcmwrite(file, one, implicit_vr=implicit, little_endian=little, force_encoding=True)
    return file


def write_classic(study: Study, folder: Path, frame: str) -> None:
    for sequence, series in study.series.items():
        for at, one in enumerate(classic(series, sequence, frame)):
            write(one, folder / sequence.value / f"{at:03d}.dcm")


def write_enhanced(study: Study, folder: Path, frame: str) -> None:
    for sequence, series in study.series.items():
        write(enhanced(series, sequence, frame), folder / f"{sequence.value}.dcm")


def objects(folder: Path) -> Sequence[Path]:
    return sorted(folder.rglob("*.dcm"))

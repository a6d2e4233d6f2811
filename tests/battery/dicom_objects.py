"""Synthetic patient as classic and enhanced DICOM objects, which the cases damage."""

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
    MRSequence.T1C: {
        "RepetitionTime": 500,
        "EchoTime": 10,
        "ContrastBolusAgent": "Gd",
        "SeriesDescription": "t1 ce",
    },
    MRSequence.FLAIR: {
        "RepetitionTime": 9000,
        "EchoTime": 110,
        "InversionTime": 2500,
        "SeriesDescription": "t2 flair",
    },
}


def create_uid(*words: object) -> UID:
    return generate_uid(entropy_srcs=[str(word) for word in words])


def create_blank_object(
    sop_class: UID, *words: object, syntax: UID = ExplicitVRLittleEndian, patient: str = "P001"
) -> FileDataset:
    """Create an MR object without pixels. words: determine its UID."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, create_uid(*words)
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet, dataset.SOPClassUID, dataset.SOPInstanceUID = (
        "ISO_IR 192",
        sop_class,
        create_uid(*words),
    )
    dataset.Modality, dataset.PatientID, dataset.PatientName, dataset.StudyDate = (
        "MR",
        patient,
        "Phantom^Seven",
        "20200101",
    )
    dataset.PatientAge, dataset.PatientSex = "050Y", "M"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
        create_uid("study", patient),
        create_uid("series", *words[:1]),
    )
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    return dataset


def create_classic_objects(
    series: Series, sequence: MRSequence, frame: str, patient: str = "P001"
) -> Iterator[FileDataset]:
    """Create one object per slice."""
    column, row, step = series.affine[:3, :3].T
    for at, plane in enumerate(series.image):
        dataset = create_blank_object(MRImageStorage, sequence.value, at, patient, patient=patient)
        dataset.FrameOfReferenceUID, dataset.InstanceNumber = frame, at + 1
        for tag, value in PHYSICS[sequence].items():
            setattr(dataset, tag, value)
        dataset.ImageOrientationPatient = [*normalise_vector(column), *normalise_vector(row)]
        dataset.PixelSpacing = [float(np.linalg.norm(row)), float(np.linalg.norm(column))]
        dataset.ImagePositionPatient = [float(f"{v:.6f}") for v in series.affine[:3, 3] + at * step]
        dataset.SliceThickness = float(np.linalg.norm(step))
        set_pixels(dataset, plane)
        yield dataset


def create_enhanced_object(
    series: Series, sequence: MRSequence, frame: str, patient: str = "P001"
) -> FileDataset:
    """Create one object with all slices."""
    column, row, step = series.affine[:3, :3].T
    dataset = create_blank_object(EnhancedMRImageStorage, sequence.value, "frames", patient, patient=patient)
    physics = PHYSICS[sequence]
    dataset.FrameOfReferenceUID, dataset.NumberOfFrames = frame, len(series.image)
    dataset.SeriesDescription, dataset.ContrastBolusAgent = (
        physics["SeriesDescription"],
        physics.get("ContrastBolusAgent", ""),
    )
    timing = create_sequence_item(RepetitionTime=physics["RepetitionTime"])
    shared = create_sequence_item(
        PlaneOrientationSequence=[
            create_sequence_item(ImageOrientationPatient=[*normalise_vector(column), *normalise_vector(row)])
        ],
        PixelMeasuresSequence=[
            create_sequence_item(
                PixelSpacing=[float(np.linalg.norm(row)), float(np.linalg.norm(column))],
                SliceThickness=float(np.linalg.norm(step)),
            )
        ],
        MRTimingAndRelatedParametersSequence=[timing],
        MREchoSequence=[create_sequence_item(EffectiveEchoTime=float(physics["EchoTime"]))],
    )
    if "InversionTime" in physics:
        shared.MRModifierSequence = [
            create_sequence_item(InversionRecovery="YES", InversionTimes=[float(physics["InversionTime"])])
        ]
    dataset.SharedFunctionalGroupsSequence = [shared]
    positions = [series.affine[:3, 3] + at * step for at in range(len(series.image))]
    dataset.PerFrameFunctionalGroupsSequence = [
        create_sequence_item(
            PlanePositionSequence=[
                create_sequence_item(ImagePositionPatient=[float(f"{v:.6f}") for v in position])
            ]
        )
        for position in positions
    ]
    set_pixels(dataset, series.image)
    return dataset


def set_pixels(dataset: Dataset, image: np.ndarray) -> None:
    """Set the pixel data, ``([frame,] row, column)``, as unsigned 16-bit little endian."""
    dataset.Rows, dataset.Columns = image.shape[-2:]
    dataset.PixelData = np.rint(image).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def create_sequence_item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return dataset


def normalise_vector(vector: np.ndarray) -> list[float]:
    return [float(f"{v:.8f}") for v in vector / np.linalg.norm(vector)]


def write_object(dataset: FileDataset, file: Path) -> Path:
    """Write an object in its transfer syntax, regardless of its elements."""
    file.parent.mkdir(parents=True, exist_ok=True)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == ExplicitVRBigEndian and "PixelData" in dataset:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    pydicom.dcmwrite(file, dataset, implicit_vr=implicit, little_endian=little, force_encoding=True)
    return file


def write_classic(study: Study, folder: Path, frame: str) -> None:
    for sequence, series in study.series.items():
        for at, one in enumerate(create_classic_objects(series, sequence, frame)):
            write_object(one, folder / sequence.value / f"{at:03d}.dcm")


def write_enhanced(study: Study, folder: Path, frame: str) -> None:
    for sequence, series in study.series.items():
        write_object(create_enhanced_object(series, sequence, frame), folder / f"{sequence.value}.dcm")


def find_object_files(folder: Path) -> Sequence[Path]:
    return sorted(folder.rglob("*.dcm"))

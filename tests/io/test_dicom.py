"""DICOM: geometry with shuffled files, choice of series, enhanced files, and bad folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
    generate_uid,
)

from gliomark.io import find_patients, read_study
from gliomark.io.dicom import sequence_of
from gliomark.study import GliomarkError, MRSequence

T1C = {
    "SeriesDescription": "t1 mprage",
    "RepetitionTime": 500,
    "EchoTime": 10,
    "ContrastBolusAgent": "Gadovist",
}
T2 = {"SeriesDescription": "t2 tse", "RepetitionTime": 4000, "EchoTime": 95}
# Columns grow to the left, rows to the back, tilted by 20 degrees about the left-right axis.
TILT = np.deg2rad(20)
ROW, COLUMN = np.array([1.0, 0, 0]), np.array([0.0, np.cos(TILT), np.sin(TILT)])
NORMAL = np.cross(ROW, COLUMN)
ORIGIN = np.array([-20.0, -30, 5])


def blank(file: Path, **tags: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = MRImageStorage, generate_uid(), "MR"
    dataset.PatientID, dataset.PatientName, dataset.StudyInstanceUID = "P-7", "Doe^Jane", "1.2.3"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return dataset


def save(dataset: FileDataset, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(file, enforce_file_format=True)


def plane(number: int) -> np.ndarray:
    """12 rows, 10 columns; slice 4 carries a bright block towards high columns and low rows."""
    pixels = np.full((12, 10), 5, np.uint16)
    if number == 4:
        pixels[1:3, 7:9] = 500
    return pixels


def write_series(folder: Path, numbers: tuple[int, ...] = tuple(range(6)), **tags: Any) -> list[Path]:
    """Slices 3 mm apart, written with file names and instance numbers in REVERSED order."""
    files, uid = [], generate_uid()
    for number in numbers:
        file = folder / f"IM{99 - number}"
        dataset = blank(file, SeriesInstanceUID=uid, InstanceNumber=99 - number, Rows=12, Columns=10)
        dataset.ImageOrientationPatient = [float(f"{v:.8f}") for v in (*ROW, *COLUMN)]
        dataset.ImagePositionPatient = [float(f"{v:.6f}") for v in ORIGIN + 3.0 * number * NORMAL]
        dataset.PixelSpacing = [2.0, 1.5]  # between rows, between columns
        dataset.PixelData = plane(number).tobytes()
        for tag, value in tags.items():
            setattr(dataset, tag, value)
        save(dataset, file)
        files.append(file)
    return files


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    folder = tmp_path / "患者 03"
    write_series(folder / "a", **T1C)
    write_series(folder / "b", **T2)
    return folder


def test_left_stays_left_with_files_in_reversed_order(patient: Path):
    series = read_study(patient).series[MRSequence.T1C]
    assert series.image.shape == (6, 12, 10)
    at = np.argwhere(series.image > 100).mean(axis=0)[::-1]
    place = (series.affine @ np.append(at, 1))[:3]
    expected = ORIGIN + 1.5 * 7.5 * ROW + 2.0 * 1.5 * COLUMN + 3.0 * 4 * NORMAL
    np.testing.assert_allclose(place, expected, atol=1e-4)
    assert np.linalg.det(series.affine[:3, :3]) > 0


def test_study_fields(patient: Path):
    study = read_study(patient)
    assert (study.patient_id, study.kind, study.aligned) == ("P-7", "volumes", False)
    assert list(study.series) == [MRSequence.T1C, MRSequence.T2]
    assert study.series[MRSequence.T2].slice_names[:2] == ("001", "002")


def test_blank_patient_id_means_folder_name(tmp_path: Path):
    write_series(tmp_path / "患者 04" / "x", PatientID="", **T2)
    assert read_study(tmp_path / "患者 04").patient_id == "患者 04"


def test_rescale_is_applied(tmp_path: Path):
    write_series(tmp_path, RescaleSlope=2, RescaleIntercept=-3, **T2)
    assert read_study(tmp_path).series[MRSequence.T2].image.max() == 997


def test_files_without_preamble(tmp_path: Path):
    for file in write_series(tmp_path, **T2):
        file.write_bytes(file.read_bytes()[132:])
    assert read_study(tmp_path).series[MRSequence.T2].image.shape == (6, 12, 10)


def test_the_series_with_most_slices_is_read_and_noted(patient: Path):
    write_series(patient / "c", tuple(range(4)), **(T2 | {"SeriesDescription": "t2 short"}))
    study = read_study(patient)
    assert study.series[MRSequence.T2].source.name == "b"
    assert any("2 series look like T2" in note for note in study.notes)


def test_a_file_copied_twice_counts_once(tmp_path: Path):
    files = write_series(tmp_path, **T2)
    (tmp_path / "copy").write_bytes(files[2].read_bytes())
    assert read_study(tmp_path).series[MRSequence.T2].image.shape == (6, 12, 10)


def test_two_examinations_are_noted(tmp_path: Path):
    write_series(tmp_path / "a", **T1C)
    write_series(tmp_path / "b", **(T2 | {"StudyInstanceUID": "1.2.4"}))
    assert any("2 different examinations" in note for note in read_study(tmp_path).notes)


@pytest.mark.parametrize("tags, sequence", [
    (T1C, "T1C"), (T2, "T2"),
    ({"RepetitionTime": 500, "EchoTime": 10}, "T1"),
    ({"RepetitionTime": 500, "EchoTime": 10, "SeriesDescription": "T1 +C"}, "T1C"),
    ({"RepetitionTime": 500, "EchoTime": 10, "SeriesDescription": "T1 pre", "ContrastBolusAgent": "GAD"},
     "T1"),
    ({"RepetitionTime": 2000, "EchoTime": 3, "InversionTime": 900, "ScanningSequence": ["GR", "IR"]}, "T1"),
    ({"RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500}, "FLAIR"),
    ({"RepetitionTime": 9000, "EchoTime": 120, "SeriesDescription": "Ax FLAIR"}, "FLAIR"),
    ({"RepetitionTime": 3000, "EchoTime": 90, "SeriesDescription": "T1 mislabelled"}, "T2"),
    ({"RepetitionTime": 2300, "EchoTime": 22}, None),
    ({"RepetitionTime": 600, "EchoTime": 20, "ScanningSequence": "GR"}, None),
    ({"RepetitionTime": 5000, "EchoTime": 90, "ScanningSequence": "EP"}, None),
    ({"SeriesDescription": "3D_AX_T1_postcontrast"}, "T1C"), ({"SeriesDescription": "3D_AX_T2_SPACE"}, "T2"),
    ({"SeriesDescription": "localizer", "RepetitionTime": 20, "EchoTime": 5}, None),
    ({"SeriesDescription": "TOF", "RepetitionTime": 22, "EchoTime": 4, "ScanningSequence": "GR"}, None),
    ({"SeriesDescription": "knee"}, None),
])  # fmt: skip
def test_sequence_from_physics_then_words(tags: dict[str, Any], sequence: str | None):
    header = Dataset()
    for tag, value in tags.items():
        setattr(header, tag, value)
    assert sequence_of(header) == sequence


def item(**tags: Any) -> Sequence:
    dataset = Dataset()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return Sequence([dataset])


def test_enhanced_multi_frame(tmp_path: Path):
    """Frames are stored from head to neck; the shared groups hold orientation, spacing and timing."""
    dataset = blank(tmp_path / "e", SOPClassUID=EnhancedMRImageStorage, Rows=12, Columns=10, NumberOfFrames=6)
    dataset.SeriesInstanceUID, dataset.SeriesDescription = generate_uid(), "protocol 5"
    dataset.SharedFunctionalGroupsSequence = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=item(PixelSpacing=[2.0, 1.5]),
        PixelValueTransformationSequence=item(RescaleSlope=2, RescaleIntercept=0),
        MRTimingAndRelatedParametersSequence=item(RepetitionTime=9000),
        MREchoSequence=item(EffectiveEchoTime=120.0),
        MRModifierSequence=item(InversionTimes=[2500.0]),
    )
    frames = [
        item(PlanePositionSequence=item(ImagePositionPatient=[0, 0, 3 * number]))[0]
        for number in range(5, -1, -1)
    ]
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.PixelData = np.stack([plane(number) for number in range(5, -1, -1)]).tobytes()
    save(dataset, tmp_path / "e" / "frames.dcm")
    series = read_study(tmp_path).series[MRSequence.FLAIR]
    at = np.argwhere(series.image == 1000).mean(axis=0)[::-1]
    np.testing.assert_allclose((series.affine @ np.append(at, 1))[:3], [1.5 * 7.5, 3.0, 12.0])


# ---- bad input --------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize("other, what", [
    ({"PatientID": "P-8"}, "ids"),
    ({"PatientID": "", "PatientName": "Roe^Ann"}, "names"),
])  # fmt: skip
def test_two_patients_in_one_folder(tmp_path: Path, other: dict[str, str], what: str):
    write_series(tmp_path / "p" / "a", **T1C)
    write_series(tmp_path / "p" / "b", **(T2 | other))
    message = refusal(tmp_path / "p")
    assert "two patients" in message and f"different {what}" in message and "Roe" not in message


def test_missing_slice(tmp_path: Path):
    write_series(tmp_path, (0, 1, 2, 4, 5), **T2)
    message = refusal(tmp_path)
    assert "3.00 mm apart but 6.00 mm between IM97 and IM95" in message


def test_repeated_place(tmp_path: Path):
    write_series(tmp_path, (0, 1, 2, 3), SeriesInstanceUID="1.5", **T2)
    for file in write_series(tmp_path / "again", (2,), SeriesInstanceUID="1.5", **T2):
        assert file.exists()
    assert "same place" in refusal(tmp_path)


def test_slices_of_different_size(tmp_path: Path):
    write_series(tmp_path, **T2)
    dataset = pydicom.dcmread(tmp_path / "IM97")
    dataset.Rows, dataset.PixelData = 6, dataset.PixelData[:120]
    dataset.save_as(tmp_path / "IM97")
    assert "differ in size" in refusal(tmp_path)


def test_pixels_cut_short(tmp_path: Path):
    write_series(tmp_path, **T2)
    cut = tmp_path / "IM97"
    cut.write_bytes(cut.read_bytes()[:-40])
    message = refusal(tmp_path)
    assert "IM97 cannot be decoded" in message and "cut short" in message


def test_unknown_compression(tmp_path: Path):
    for file in write_series(tmp_path, **T2):
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7not a picture"])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(file)
    message = refusal(tmp_path)
    assert "JPEG-LS" in message and "uncompressed" in message


def test_no_position(tmp_path: Path):
    for file in write_series(tmp_path, **T2):
        dataset = pydicom.dcmread(file)
        del dataset.ImagePositionPatient
        dataset.save_as(file)
    assert "does not state position" in refusal(tmp_path)


def test_all_black_series(tmp_path: Path):
    write_series(tmp_path, PixelData=bytes(240), **T2)
    assert "black" in refusal(tmp_path)


def test_no_sequence_of_ours(tmp_path: Path):
    write_series(tmp_path, RepetitionTime=2300, EchoTime=22, SeriesDescription="FSE PD")
    message = refusal(tmp_path)
    assert "None of the MR series" in message and "FSE PD" in message


def test_no_mr_at_all(tmp_path: Path):
    write_series(tmp_path, SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT")
    assert "found CT" in refusal(tmp_path)


# ---- cohorts and real patients ----------------------------------------------------------------------


def test_cohort_of_dicom_patients(tmp_path: Path):
    for name in ("P1", "P2"):
        write_series(tmp_path / name / "a", **(T1C | {"PatientID": name}))
        write_series(tmp_path / name / "b", **(T2 | {"PatientID": name}))
    assert find_patients(tmp_path) == [tmp_path / "P1", tmp_path / "P2"]
    assert find_patients(tmp_path / "P1") == [tmp_path / "P1"]


def test_single_patient_cohort(tmp_path: Path):
    write_series(tmp_path / "P1" / "a", **T2)
    assert find_patients(tmp_path) == [tmp_path / "P1"]


def test_real_oblique_patient_agrees_with_itk(shared: Path):
    study = read_study(shared / "patients/ReMIND-022-dicom")
    assert study.patient_id == "ReMIND-022"
    assert {name: series.image.shape for name, series in study.series.items()} == {
        MRSequence.T1C: (176, 256, 248), MRSequence.T2: (192, 256, 256),
    }  # fmt: skip
    series = study.series[MRSequence.T2]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series.source)))
    image = reader.Execute()
    for index in ([0, 0, 0], [200, 30, 150]):
        place = image.TransformIndexToPhysicalPoint(index)
        column, row, slice_ = np.rint(np.linalg.inv(series.affine) @ [*place, 1])[:3].astype(int)
        assert series.image[slice_, row, column] == image[tuple(index)]


def test_real_enhanced_and_unusable_series(shared: Path):
    study = read_study(shared / "series/siemens-xa30-enhanced-multiframe-T1")
    assert study.series[MRSequence.T1].image.shape == (96, 128, 128)
    assert "FSE PD AXIAL OBL" in refusal(shared / "series/ge-PD-20-slices")

"""DICOM: geometry with files in any order, choice of series, enhanced files, and invalid folders."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)
from tests.io.transfer_syntaxes import TOLERANCE_BY_SYNTAX, recode_pixels

from gliomark.errors import GliomarkError
from gliomark.io import find_patients, read_study
from gliomark.io.dicom import (
    DECODABLE_TRANSFER_SYNTAXES,
    DicomSeries,
    choose_series,
    describe_contrast_ambiguity,
    explain_choice,
    find_dicom_files,
    group_series,
    read_instance,
    read_series,
)
from gliomark.io.dicom.pixel_hashes import hash_image_or_file
from gliomark.io.dicom.series_recognition import recognise_series_from_header
from gliomark.study import MRSequence

T1C = {
    "SeriesDescription": "t1 mprage",
    "RepetitionTime": 500,
    "EchoTime": 10,
    "ContrastBolusAgent": "Gadovist",
}
T2 = {"SeriesDescription": "t2 tse", "RepetitionTime": 4000, "EchoTime": 95}
FLAIR = {"SeriesDescription": "t2 flair", "RepetitionTime": 9000, "EchoTime": 110, "InversionTime": 2500}
# Columns increase to the left, rows to posterior, rotated by 20 degrees about the left-right axis.
TILT = np.deg2rad(20)
ROW, COLUMN = np.array([1.0, 0, 0]), np.array([0.0, np.cos(TILT), np.sin(TILT)])
NORMAL = np.cross(ROW, COLUMN)
ORIGIN = np.array([-20.0, -30, 5])


def create_blank_dataset(file: Path, **tags: Any) -> FileDataset:
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


def draw_plane(number: int) -> np.ndarray:
    """12 rows, 10 columns; slice 4 has a bright block at high columns and low rows."""
    pixels = np.full((12, 10), 5, np.uint16)
    if number == 4:
        pixels[1:3, 7:9] = 500
    return pixels


def write_series(folder: Path, numbers: tuple[int, ...] = tuple(range(6)), **tags: Any) -> list[Path]:
    """Write slices 3 mm apart, with file names and instance numbers in REVERSED order."""
    files, uid = [], generate_uid()
    for number in numbers:
        file = folder / f"IM{99 - number}"
        dataset = create_blank_dataset(
            file, SeriesInstanceUID=uid, InstanceNumber=99 - number, Rows=12, Columns=10
        )
        dataset.ImageOrientationPatient = [float(f"{v:.8f}") for v in (*ROW, *COLUMN)]
        dataset.ImagePositionPatient = [float(f"{v:.6f}") for v in ORIGIN + 3.0 * number * NORMAL]
        dataset.PixelSpacing = [2.0, 1.5]  # between rows, between columns
        dataset.PixelData = draw_plane(number).tobytes()
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
    position = (series.affine @ np.append(at, 1))[:3]
    expected = ORIGIN + 1.5 * 7.5 * ROW + 2.0 * 1.5 * COLUMN + 3.0 * 4 * NORMAL
    np.testing.assert_allclose(position, expected, atol=1e-4)
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
    assert any("2 series were recognised as T2" in note for note in study.notes)


def test_a_file_copied_twice_counts_once(tmp_path: Path):
    files = write_series(tmp_path, **T2)
    (tmp_path / "copy").write_bytes(files[2].read_bytes())
    assert read_study(tmp_path).series[MRSequence.T2].image.shape == (6, 12, 10)


def test_sequences_of_two_examinations_are_not_mixed(tmp_path: Path):
    write_series(tmp_path / "a", **T1C)
    write_series(tmp_path / "b", **(T2 | {"StudyInstanceUID": "1.2.4"}))
    assert "different examinations are not combined" in get_error_message(tmp_path)


@pytest.mark.parametrize(
    "tags, sequence",
    [
        (T1C, "T1C"),
        (T2, "T2"),
        ({"RepetitionTime": 500, "EchoTime": 10}, "T1"),
        ({"RepetitionTime": 500, "EchoTime": 10, "SeriesDescription": "T1 +C"}, "T1C"),
        (
            {
                "RepetitionTime": 500,
                "EchoTime": 10,
                "SeriesDescription": "T1 pre",
                "ContrastBolusAgent": "GAD",
            },
            "T1",
        ),
        (
            {"RepetitionTime": 2000, "EchoTime": 3, "InversionTime": 900, "ScanningSequence": ["GR", "IR"]},
            "T1",
        ),
        ({"RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500}, "FLAIR"),
        ({"RepetitionTime": 9000, "EchoTime": 120, "SeriesDescription": "Ax FLAIR"}, "FLAIR"),
        ({"RepetitionTime": 3000, "EchoTime": 90, "SeriesDescription": "T1 mislabelled"}, "T2"),
        ({"RepetitionTime": 2300, "EchoTime": 22}, None),
        ({"RepetitionTime": 600, "EchoTime": 20, "ScanningSequence": "GR"}, None),
        ({"RepetitionTime": 5000, "EchoTime": 90, "ScanningSequence": "EP"}, None),
        ({"SeriesDescription": "3D_AX_T1_postcontrast"}, "T1C"),
        ({"SeriesDescription": "3D_AX_T2_SPACE"}, "T2"),
        ({"SeriesDescription": "localizer", "RepetitionTime": 20, "EchoTime": 5}, None),
        ({"SeriesDescription": "TOF", "RepetitionTime": 22, "EchoTime": 4, "ScanningSequence": "GR"}, None),
        ({"SeriesDescription": "knee"}, None),
    ],
)
def test_sequence_from_physics_then_words(tags: dict[str, Any], sequence: str | None):
    header = Dataset()
    for tag, value in tags.items():
        setattr(header, tag, value)
    assert recognise_series_from_header(header, 20).sequence == sequence


def create_sequence_item(**tags: Any) -> Sequence:
    dataset = Dataset()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return Sequence([dataset])


def test_enhanced_multi_frame(tmp_path: Path):
    """Frames are stored from head to neck; the shared groups hold orientation, spacing and timing."""
    dataset = create_blank_dataset(
        tmp_path / "e", SOPClassUID=EnhancedMRImageStorage, Rows=12, Columns=10, NumberOfFrames=6
    )
    dataset.SeriesInstanceUID, dataset.SeriesDescription = generate_uid(), "protocol 5"
    dataset.SharedFunctionalGroupsSequence = create_sequence_item(
        PlaneOrientationSequence=create_sequence_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=create_sequence_item(PixelSpacing=[2.0, 1.5]),
        PixelValueTransformationSequence=create_sequence_item(RescaleSlope=2, RescaleIntercept=0),
        MRTimingAndRelatedParametersSequence=create_sequence_item(RepetitionTime=9000),
        MREchoSequence=create_sequence_item(EffectiveEchoTime=120.0),
        MRModifierSequence=create_sequence_item(InversionTimes=[2500.0]),
    )
    frames = [
        create_sequence_item(
            PlanePositionSequence=create_sequence_item(ImagePositionPatient=[0, 0, 3 * number])
        )[0]
        for number in range(5, -1, -1)
    ]
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.PixelData = np.stack([draw_plane(number) for number in range(5, -1, -1)]).tobytes()
    save(dataset, tmp_path / "e" / "frames.dcm")
    series = read_study(tmp_path).series[MRSequence.FLAIR]
    at = np.argwhere(series.image == 1000).mean(axis=0)[::-1]
    np.testing.assert_allclose((series.affine @ np.append(at, 1))[:3], [1.5 * 7.5, 3.0, 12.0])


# ---- invalid input ----------------------------------------------------------------------------------


def get_error_message(path: Path) -> str:
    with pytest.raises(GliomarkError) as caught:
        read_study(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize(
    "other, what",
    [
        ({"PatientID": "P-8"}, "ids"),
        ({"PatientID": "", "PatientName": "Roe^Ann"}, "names"),
    ],
)
def test_two_patients_in_one_folder_are_refused(tmp_path: Path, other: dict[str, str], what: str):
    write_series(tmp_path / "p" / "a", **T1C)
    write_series(tmp_path / "p" / "b", **(T2 | other))
    message = get_error_message(tmp_path / "p")
    assert "two patients" in message and f"different patient {what}" in message and "Roe" not in message


def test_a_single_missing_slice_is_interpolated_and_noted(tmp_path: Path):
    write_series(tmp_path, (0, 1, 2, 4, 5), **T2)
    study = read_study(tmp_path)
    series = study.series[MRSequence.T2]
    assert series.image.shape == (6, 12, 10)
    np.testing.assert_allclose(series.image[3], (draw_plane(2).astype(float) + draw_plane(4)) / 2, atol=1e-3)
    np.testing.assert_array_equal(series.image[4], draw_plane(4))
    np.testing.assert_allclose(series.affine[:3, 2], 3.0 * NORMAL, atol=1e-5)
    assert [(image.file.name, image.fractional_index) for image in series.source_images] == [
        (f"IM{99 - number}", number) for number in (0, 1, 2, 4, 5)
    ]
    assert "T2: slice 4 of 6 was missing and was interpolated from its neighbours." in study.notes


def test_two_single_missing_slices_far_apart_are_interpolated(tmp_path: Path):
    write_series(tmp_path, (0, 1, 3, 4, 5, 6, 8, 9), **T2)
    study = read_study(tmp_path)
    assert study.series[MRSequence.T2].image.shape == (10, 12, 10)
    assert any("slice 3 and 8 of 10 was missing" in note for note in study.notes)


@pytest.mark.parametrize(
    "numbers, gap",
    [
        ((0, 1, 2, 5, 6, 7), "9.00 mm between IM97 and IM94"),  # two adjacent slices
        ((0, 1, 3, 5, 6, 7, 8), "6.00 mm between IM98 and IM96"),  # one present slice between them
        ((0, 1, 3, 4, 5, 7, 8, 9, 11, 12), "6.00 mm between IM98 and IM96"),  # three missing slices
    ],
)
def test_more_missing_slices_are_refused(tmp_path: Path, numbers: tuple[int, ...], gap: str):
    write_series(tmp_path, numbers, **T2)
    message = get_error_message(tmp_path)
    assert "3.00 mm but " + gap in message and "missing" in message


def shift(file: Path, millimetres: float, value: int | None = None) -> None:
    """Move a slice along the normal and fill it with one value."""
    dataset = pydicom.dcmread(file)
    moved = np.asarray(dataset.ImagePositionPatient, float) + millimetres * NORMAL
    dataset.ImagePositionPatient = [float(f"{part:.6f}") for part in moved]
    if value is not None:
        dataset.PixelData = np.full((12, 10), value, np.uint16).tobytes()
    dataset.save_as(file)


def test_unevenly_spaced_slices_are_resampled_to_an_even_grid(tmp_path: Path):
    """Grey values that are linear along the normal stay exactly linear."""
    positions = np.array([0, 3.0, 6.6, 9.0, 11.5, 15])
    for file, number, position in zip(write_series(tmp_path, **T2), range(6), positions, strict=True):
        shift(file, position - 3 * number, round(100 * position))
    study = read_study(tmp_path)
    image, sources = study.series[MRSequence.T2].image, study.series[MRSequence.T2].source_images
    np.testing.assert_allclose([one.fractional_index for one in sources], positions / 3.0, atol=1e-5)
    np.testing.assert_allclose(image[:, 5, 5], 300.0 * np.arange(6), atol=1e-2)
    assert any("uneven (by up to 0.60 mm)" in note for note in study.notes)


def test_slices_far_off_an_even_grid_are_refused(tmp_path: Path):
    files = write_series(tmp_path, **T2)
    shift(files[3], 1.2)
    assert "misplaced" in get_error_message(tmp_path)


def test_positions_with_one_decimal_are_even(tmp_path: Path):
    for number, file in enumerate(write_series(tmp_path, **T2)):
        shift(file, 0.05 * (-1) ** number)
    study = read_study(tmp_path)
    assert study.series[MRSequence.T2].image[4].max() == 500 and not study.notes


def test_a_repeated_slice_position_with_the_same_pixels_counts_once_and_is_noted(tmp_path: Path):
    write_series(tmp_path, (1, 2, 3, 4), SeriesInstanceUID="1.5", **T2)
    write_series(tmp_path / "again", (2,), SeriesInstanceUID="1.5", **T2)
    study = read_study(tmp_path)
    assert study.series[MRSequence.T2].image.shape == (4, 12, 10)
    assert any("1 duplicate images were ignored" in note for note in study.notes)


def test_a_repeated_slice_position_with_different_pixels_is_refused(tmp_path: Path):
    write_series(tmp_path, (0, 1, 2, 3), SeriesInstanceUID="1.5", **T2)
    (file,) = write_series(tmp_path / "again", (2,), SeriesInstanceUID="1.5", **T2)
    shift(file, 0, 77)
    assert "same slice position but different pixels" in get_error_message(tmp_path)


def test_a_slice_of_another_size_forms_a_separate_stack(tmp_path: Path):
    """The other five still form a series with one missing slice, which a note states."""
    write_series(tmp_path, **T2)
    dataset = pydicom.dcmread(tmp_path / "IM97")
    dataset.Rows, dataset.PixelData = 6, dataset.PixelData[:120]
    dataset.save_as(tmp_path / "IM97")
    study = read_study(tmp_path)
    assert study.series[MRSequence.T2].image.shape == (6, 12, 10)
    assert any("2 stacks of slices share" in note for note in study.notes)
    assert any("slice 3 of 6 was missing" in note for note in study.notes)


def test_truncated_pixels_are_refused(tmp_path: Path):
    write_series(tmp_path, **T2)
    cut = tmp_path / "IM97"
    cut.write_bytes(cut.read_bytes()[:-40])
    message = get_error_message(tmp_path)
    assert "IM97 cannot be decoded" in message and "truncated" in message


@pytest.mark.parametrize("kept", [-40, 300, 0], ids=["pixels", "header", "empty"])
def test_a_damaged_series_that_is_not_needed_is_skipped(patient: Path, kept: int):
    write_series(patient / "c", **FLAIR)
    lost = patient / "b" / "IM97"
    lost.write_bytes(lost.read_bytes()[:kept])
    study = read_study(patient)
    assert set(study.series) == {MRSequence.T1C, MRSequence.FLAIR}
    assert any("T2 was not used" in note and "IM97" in note for note in study.notes)
    with pytest.raises(GliomarkError, match="IM97"):
        read_study(patient, required_sequences=(MRSequence.T1C, MRSequence.T2))


@pytest.mark.parametrize("lost", ["IM99", "IM94", "IM96"])
@pytest.mark.parametrize("content", [b"", bytes(9000)], ids=["empty", "zeros"])
def test_a_destroyed_slice_is_named(patient: Path, lost: str, content: bytes):
    (patient / "a" / lost).write_bytes(content)
    assert lost in get_error_message(patient)


@pytest.mark.parametrize("name", ["IM93", "IM100", "IM11"])
def test_a_non_dicom_file_named_like_a_slice_is_noted(patient: Path, name: str):
    (patient / "a" / name).write_text("<html>404 Not Found</html>")
    study = read_study(patient)
    assert len(study.series[MRSequence.T1C].image) == 6
    assert any(name in note and "compare the number of slices" in note for note in study.notes)


def test_unknown_compression_is_refused(tmp_path: Path):
    for file in write_series(tmp_path, **T2):
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xf7not a picture"])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(file)
    message = get_error_message(tmp_path)
    assert "JPEG-LS" in message and "uncompressed" in message


def test_slices_without_a_position_are_refused(tmp_path: Path):
    for file in write_series(tmp_path, **T2):
        dataset = pydicom.dcmread(file)
        del dataset.ImagePositionPatient
        dataset.save_as(file)
    assert "lacks ImagePositionPatient" in get_error_message(tmp_path)


def test_an_all_black_series_is_refused(tmp_path: Path):
    write_series(tmp_path, PixelData=bytes(240), **T2)
    assert "black" in get_error_message(tmp_path)


def test_a_folder_without_supported_sequences_is_refused(tmp_path: Path):
    write_series(tmp_path, RepetitionTime=2300, EchoTime=22, SeriesDescription="FSE PD")
    message = get_error_message(tmp_path)
    assert "None of the MR series" in message and "FSE PD" in message


def test_a_folder_without_mr_images_is_refused(tmp_path: Path):
    write_series(tmp_path, SOPClassUID="1.2.840.10008.5.1.4.1.1.2", Modality="CT")
    assert "found CT" in get_error_message(tmp_path)


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
        MRSequence.T1C: (176, 256, 248),
        MRSequence.T2: (192, 256, 256),
    }
    series = study.series[MRSequence.T2]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series.source)))
    image = reader.Execute()
    for index in ([0, 0, 0], [200, 30, 150]):
        position = image.TransformIndexToPhysicalPoint(index)
        column, row, slice_ = np.rint(np.linalg.inv(series.affine) @ [*position, 1])[:3].astype(int)
        assert series.image[slice_, row, column] == image[tuple(index)]


def test_real_enhanced_and_unusable_series(shared: Path):
    study = read_study(shared / "series/siemens-xa30-enhanced-multiframe-T1")
    assert study.series[MRSequence.T1].image.shape == (96, 128, 128)
    assert "FSE PD AXIAL OBL" in get_error_message(shared / "series/ge-PD-20-slices")


# ---- series that share a UID ------------------------------------------------------------------------


def group_files(path: Path) -> tuple[DicomSeries, ...]:
    return group_series(read_instance(file) for file in find_dicom_files(path))


TURNED = [float(f"{v:.8f}") for v in (*COLUMN, *NORMAL)]


@pytest.mark.parametrize(
    "other",
    [
        {"PatientID": "P-8"},
        {"PatientBirthDate": "19500101"},
        {"StudyInstanceUID": "1.2.9"},
        {"EchoTime": 20},
        {"ImageOrientationPatient": TURNED},
        {"PixelSpacing": [1.0, 1.0]},
        {"ContrastBolusAgent": "GAD"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
    ],
)
def test_two_series_that_share_a_uid_are_separated(tmp_path: Path, other: dict[str, Any]):
    write_series(tmp_path / "a", SeriesInstanceUID="1.5", **T2)
    write_series(tmp_path / "b", SeriesInstanceUID="1.5", **(T2 | other))
    found = group_files(tmp_path)
    assert [one.series_key for one in found] == ["1.5#1", "1.5#2"] and [one.image_count for one in found] == [
        6,
        6,
    ]
    assert {one.first_instance.file.parent.name for one in found} == {"a", "b"}
    for one in found:
        assert len({instance.file.parent for instance in one.instances}) == 1


def test_grouping_does_not_depend_on_file_order(tmp_path: Path):
    write_series(tmp_path / "a", SeriesInstanceUID="1.5", **T2)
    write_series(tmp_path / "b", SeriesInstanceUID="1.5", **(T2 | {"EchoTime": 20}))
    instances = [read_instance(file) for file in find_dicom_files(tmp_path)]
    forward, backward = group_series(instances), group_series(instances[::-1])
    assert [(one.series_key, one.instances) for one in forward] == [
        (one.series_key, one.instances) for one in backward
    ]


@pytest.mark.parametrize("tag", ["TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber"])
def test_repeated_acquisitions_are_separated_by_their_headers(tmp_path: Path, tag: str):
    write_series(tmp_path / "a", SeriesInstanceUID="1.5", **T2)
    for number, file in enumerate(write_series(tmp_path / "b", SeriesInstanceUID="1.5", **T2)):
        shift(file, 0, 901 if number == 0 else 900)
        dataset = pydicom.dcmread(file)
        setattr(dataset, tag, 300 - number if tag == "InstanceNumber" else 2)
        dataset.save_as(file)
    found = group_files(tmp_path)
    assert [one.image_count for one in found] == [6, 6]
    images = [read_series(one)[0].image for one in found]
    assert sorted(float(np.median(image)) for image in images) == [5, 900]
    assert any("2 stacks of slices share" in note for note in read_series(found[0])[1])


def test_repeated_acquisitions_with_the_same_contrast_agent_are_not_recognised_as_t1c(tmp_path: Path):
    for at in (1, 2):
        for file in write_series(tmp_path / str(at), SeriesInstanceUID="1.5", AcquisitionNumber=at, **T1C):
            shift(file, 0, 100 * at)
    assert [one.recognition.kind for one in group_files(tmp_path)] == ["unknown", "unknown"]


def test_many_repeats_are_a_time_series(tmp_path: Path):
    for at in range(5):
        write_series(
            tmp_path / str(at), (0, 1, 2), SeriesInstanceUID="1.5", TemporalPositionIdentifier=at, **T1C
        )
    assert {one.recognition.kind for one in group_files(tmp_path)} == {"perfusion"}


def test_dual_echo_gives_the_late_echo_as_t2(tmp_path: Path):
    for echo in (15, 95):
        write_series(
            tmp_path / str(echo), SeriesInstanceUID="1.5", **(T2 | {"EchoTime": echo}), ScanningSequence="SE"
        )
    assert {one.acquisition_parameters["echo_ms"]: one.recognition.kind for one in group_files(tmp_path)} == {
        15: "PD",
        95: "T2",
    }


def test_one_diffusion_image_makes_the_whole_series_dwi(tmp_path: Path):
    write_series(tmp_path / "b0", SeriesInstanceUID="1.5", **T2)
    write_series(tmp_path / "b1", SeriesInstanceUID="1.5", DiffusionBValue=1000.0, **T2)
    assert {one.recognition.kind for one in group_files(tmp_path)} == {"DWI"}


def test_a_three_plane_scout_is_a_localiser(tmp_path: Path):
    turns = ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1])
    for at, turn in enumerate(turns):
        for file in write_series(tmp_path / str(at), (0, 1, 2), SeriesInstanceUID="1.5", **T2):
            dataset = pydicom.dcmread(file)
            dataset.ImageOrientationPatient = turn
            dataset.save_as(file)
    assert {one.recognition.kind for one in group_files(tmp_path)} == {"localiser"}


# ---- choice of series -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "better, worse, rule",
    [
        ({}, {"ImageType": ["DERIVED", "SECONDARY", "MPR"], "numbers": range(40)}, "is an original"),
        ({}, {"numbers": (0, 1, 2, 4, 5, 6, 7, 8)}, "has no missing slices"),
        ({"numbers": range(12)}, {"numbers": range(6)}, "covers more of the head"),
        ({"numbers": range(8)}, {"numbers": range(7)}, "has more slices"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM"]}, {}, "is intensity-normalised"),
        (
            {"AcquisitionDate": "20200102", "AcquisitionTime": "101500"},
            {"AcquisitionDate": "20200102", "AcquisitionTime": "101400"},
            "was acquired later",
        ),
    ],
)
def test_the_best_candidate_is_chosen_by_the_stated_rule(
    tmp_path: Path, better: dict[str, Any], worse: dict[str, Any], rule: str
):
    for name, tags in (("worse", worse), ("better", better)):
        tags = dict(tags)
        write_series(tmp_path / name, tuple(tags.pop("numbers", range(6))), **(T2 | tags))
    found = group_files(tmp_path)
    chosen = choose_series(found)[MRSequence.T2]
    assert chosen.first_instance.file.parent.name == "better"
    (other,) = (one for one in found if one is not chosen)
    assert rule in explain_choice(chosen, other)
    assert choose_series(found[::-1])[MRSequence.T2] is chosen


def test_the_examination_with_most_sequences_is_read(tmp_path: Path):
    write_series(tmp_path / "old T2", tuple(range(9)), StudyInstanceUID="1.1", **T2)
    write_series(tmp_path / "new T2", StudyInstanceUID="1.2", **T2)
    write_series(tmp_path / "new T1C", StudyInstanceUID="1.2", **T1C)
    study = read_study(tmp_path)
    assert study.series[MRSequence.T2].source.name == "new T2"
    assert not any("different examinations" in note for note in study.notes)


def test_two_t1_series_without_contrast_information_are_reported_as_ambiguous(tmp_path: Path):
    plain = T1C | {"ContrastBolusAgent": ""}
    write_series(tmp_path / "a", AcquisitionTime="100000", **plain)
    assert describe_contrast_ambiguity(group_files(tmp_path)) == ""
    for number, file in enumerate(write_series(tmp_path / "b", AcquisitionTime="101500", **plain)):
        shift(file, 0, 77 + number)
    assert "2 T1 series" in describe_contrast_ambiguity(group_files(tmp_path))
    assert any("contrast-enhanced" in note for note in read_study(tmp_path).notes)
    write_series(tmp_path / "c", AcquisitionTime="102000", **T1C)
    assert describe_contrast_ambiguity(group_files(tmp_path)) == ""


def test_series_fields_are_read_from_headers(tmp_path: Path):
    write_series(
        tmp_path,
        PatientBirthDate="1950.03.07",
        PatientSex="f",
        StudyDate="20200102",
        Manufacturer="UIH",
        ManufacturerModelName="uMR 790",
        MagneticFieldStrength=3,
        **T2,
    )
    (one,) = group_files(tmp_path)
    fields = (
        one.patient_id,
        one.patient_name,
        one.birth_date,
        one.sex,
        one.study_date,
        one.study_instance_uid,
    )
    assert fields == ("P-7", "Doe^Jane", "19500307", "F", "20200102", "1.2.3")
    assert (one.plane, one.image_count, one.spacing_mm) == ("axial", 6, (2.0, 1.5, 3.0))
    assert one.acquisition_parameters == {
        "manufacturer": "UIH",
        "model": "uMR 790",
        "field_strength_t": 3.0,
        "repetition_ms": 4000.0,
        "echo_ms": 95.0,
        "inversion_ms": None,
        "spacing_mm": [2.0, 1.5, 3.0],
        "matrix": [12, 10],
        "slices": 6,
    }
    assert json.loads(json.dumps(one.acquisition_parameters)) == one.acquisition_parameters


# ---- encodings --------------------------------------------------------------------------------------


def test_every_decodable_transfer_syntax_is_tested():
    assert set(TOLERANCE_BY_SYNTAX) == set(DECODABLE_TRANSFER_SYNTAXES)


@pytest.mark.parametrize("syntax", TOLERANCE_BY_SYNTAX, ids=lambda syntax: syntax.keyword)
def test_every_transfer_syntax_is_decoded(tmp_path: Path, syntax: UID):
    for file in write_series(tmp_path, RescaleSlope=2, RescaleIntercept=1, **T2):
        recode_pixels(file, syntax)
    planes = [draw_plane(number) for number in range(6)]
    if syntax == JPEGBaseline8Bit:
        planes = [plane.astype(np.uint8) for plane in planes]
    image = read_study(tmp_path).series[MRSequence.T2].image
    tolerance = 2 * TOLERANCE_BY_SYNTAX[syntax]
    np.testing.assert_allclose(image, np.stack(planes) * 2.0 + 1, atol=tolerance, rtol=0)
    hashes = {hash_image_or_file(file) for file in tmp_path.iterdir()}
    assert len(hashes) == 2, "the block and the five equal planes: hashed by their pixels"


def test_a_series_in_several_transfer_syntaxes(tmp_path: Path):
    syntaxes = (
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
        JPEGLosslessSV1,
        ExplicitVRLittleEndian,
        HTJ2KLossless,
    )
    for file, syntax in zip(write_series(tmp_path, **T2), syntaxes, strict=True):
        recode_pixels(file, syntax)
    image = read_study(tmp_path).series[MRSequence.T2].image
    np.testing.assert_array_equal(image, np.stack([draw_plane(number) for number in range(6)]))


def test_jpeg_baseline_of_eight_bits(tmp_path: Path):
    """Lossy compression: close to the original, not equal."""
    for file in write_series(tmp_path, **T2):
        dataset = pydicom.dcmread(file)
        dataset.Rows = dataset.Columns = 16
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        stream = io.BytesIO()
        shades = np.tile(np.arange(40, 200, 10, dtype=np.uint8), (16, 1))
        Image.fromarray(shades).save(stream, "JPEG", quality=95)
        dataset.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
        dataset.save_as(file)
    expected = np.tile(np.arange(40, 200, 10), (6, 16, 1))
    np.testing.assert_allclose(read_study(tmp_path).series[MRSequence.T2].image, expected, atol=2)


@pytest.mark.parametrize("implicit, little", [(True, True), (False, False), (False, True)])
def test_bare_files_without_preamble_or_meta_information(tmp_path: Path, implicit: bool, little: bool):
    for file in write_series(tmp_path, **T2):
        dataset = pydicom.dcmread(file)
        if not little:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        del dataset.file_meta
        dataset.preamble = None
        pydicom.dcmwrite(file, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
        assert file.read_bytes()[128:132] != b"DICM"
    series = read_study(tmp_path).series[MRSequence.T2]
    np.testing.assert_array_equal(series.image, np.stack([draw_plane(number) for number in range(6)]))


def test_big_endian(tmp_path: Path):
    for file in write_series(tmp_path, **T2):
        dataset = pydicom.dcmread(file)
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        pydicom.dcmwrite(file, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    assert read_study(tmp_path).series[MRSequence.T2].image[4].max() == 500


def test_a_dicomdir_is_not_an_image(tmp_path: Path):
    source = write_series(tmp_path / "source", **T2)
    media = FileSet()
    for file in source:
        dataset = pydicom.dcmread(file)
        dataset.StudyID, dataset.SeriesNumber, dataset.StudyDate, dataset.StudyTime = (
            "1",
            1,
            "20200101",
            "1200",
        )
        media.add(dataset)
    media.write(tmp_path / "disc")
    (tmp_path / "disc" / "DICOMDIR").rename(tmp_path / "disc" / "DICOMDIR;1")
    assert len(list(find_dicom_files(tmp_path / "disc"))) == 6
    assert read_study(tmp_path / "disc").series[MRSequence.T2].image.shape == (6, 12, 10)
    index = read_instance(tmp_path / "disc" / "DICOMDIR;1")
    assert group_series([index])[0].recognition.sequence is None


@pytest.mark.parametrize(
    "charset, name",
    [
        ("GB18030", "王^小明"),
        ("ISO_IR 192", "Müller^Jürgen"),
        ("ISO_IR 100", "0012345"),
        ("no such set", "Doe^Jane"),
    ],
)
def test_names_in_other_alphabets(tmp_path: Path, charset: str | list[str], name: str):
    for file in write_series(tmp_path, **T2):
        dataset = pydicom.dcmread(file)
        dataset.SpecificCharacterSet, dataset.PatientName = charset, name
        dataset.save_as(file)
    (one,) = group_files(tmp_path)
    assert one.patient_name == name
    assert read_study(tmp_path).patient_id == "P-7"


def test_a_name_in_iso_2022_ir_58_is_decoded_as_the_standard_defines(tmp_path: Path):
    """With the escape sequence before each component (PS3.5 annex K), as pydicom itself does not write it."""
    coded = b"Wang^XiaoMing=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1\xc3\xf7"
    for file in write_series(tmp_path, **T2):
        dataset = pydicom.dcmread(file)
        dataset.SpecificCharacterSet, dataset.PatientName = ["", "ISO 2022 IR 58"], "x" * len(coded)
        dataset.save_as(file)
        file.write_bytes(file.read_bytes().replace(b"x" * len(coded), coded))
    (one,) = group_files(tmp_path)
    assert one.patient_name == "Wang^XiaoMing=王^小明"


def test_records_are_small_and_can_be_pickled(tmp_path: Path):
    instance = read_instance(write_series(tmp_path, **T2)[0])
    packed = pickle.dumps(instance)
    assert pickle.loads(packed) == instance and len(packed) < 8_000


def test_a_damaged_header_is_refused(tmp_path: Path):
    file = write_series(tmp_path, **T2)[0]
    data = file.read_bytes()
    for length in (200, 300, 500, 700):
        file.write_bytes(data[:length])
        with pytest.raises(GliomarkError, match="damaged"):
            read_instance(file)
    (tmp_path / "text").write_text("this is not DICOM " * 20)
    with pytest.raises(GliomarkError, match="damaged|not a DICOM"):
        read_instance(tmp_path / "text")


def test_an_enhanced_file_with_two_echoes_and_a_missing_frame(tmp_path: Path):
    dataset = create_blank_dataset(
        tmp_path / "e", SOPClassUID=EnhancedMRImageStorage, Rows=12, Columns=10, NumberOfFrames=11
    )
    dataset.SeriesInstanceUID, dataset.EchoPulseSequence = generate_uid(), "SPIN"
    dataset.SharedFunctionalGroupsSequence = create_sequence_item(
        PlaneOrientationSequence=create_sequence_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelMeasuresSequence=create_sequence_item(PixelSpacing=[2.0, 1.5]),
        MRTimingAndRelatedParametersSequence=create_sequence_item(RepetitionTime=3000),
    )
    frame_echoes = [
        (number, echo) for number in range(6) for echo in (15.0, 95.0) if (number, echo) != (2, 95.0)
    ]
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [
            create_sequence_item(
                PlanePositionSequence=create_sequence_item(ImagePositionPatient=[0, 0, 3 * number]),
                MREchoSequence=create_sequence_item(EffectiveEchoTime=echo),
                PixelValueTransformationSequence=create_sequence_item(RescaleSlope=echo, RescaleIntercept=0),
            )[0]
            for number, echo in frame_echoes
        ]
    )
    dataset.PixelData = np.stack([draw_plane(number) for number, _ in frame_echoes]).tobytes()
    save(dataset, tmp_path / "e" / "frames.dcm")
    study = read_study(tmp_path)
    assert study.series[MRSequence.T2].image.shape == (6, 12, 10)
    assert study.series[MRSequence.T2].image.max() == 95 * 500
    assert any("slice 3 of 6 was missing" in note for note in study.notes)
    frames = [(image.frame, image.fractional_index) for image in study.series[MRSequence.T2].source_images]
    assert frames == [(1, 0), (3, 1), (6, 3), (8, 4), (10, 5)]


# ---- real series compared with SimpleITK ------------------------------------------------------------


def read_with_itk(series: DicomSeries) -> sitk.Image:
    """Read the same files with SimpleITK: series reader for classic files, file reader for enhanced ones."""
    if len(series.instances) == 1:
        return sitk.ReadImage(str(series.first_instance.file))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(
        reader.GetGDCMSeriesFileNames(
            str(series.first_instance.file.parent), series.first_instance.series_instance_uid
        )
    )
    return reader.Execute()


def compute_itk_corners(series: DicomSeries, volume: sitk.Image) -> list[np.ndarray]:
    """Compute the four corners of the first and of the last slice, in LPS mm.

    For classic files, from the geometry of these two files: the series reader stacks slices along the slice normal and
    deviates by up to 0.06 mm from the stated position of the last file of the GE series.
    """
    ends = [volume[:, :, :1], volume[:, :, -1:]]
    if len(series.instances) > 1:
        ends = [sitk.ReadImage(str(series.instances[at].file)) for at in (0, -1)]
    corners = [(c, r, 0) for c in (0, volume.GetWidth() - 1) for r in (0, volume.GetHeight() - 1)]
    return [np.asarray(end.TransformIndexToPhysicalPoint(corner)) for end in ends for corner in corners]


def check_against_itk(series: DicomSeries) -> None:
    """Assert that corners agree within 1e-3 mm and voxels are equal, for either slice order."""
    ours, itk = read_series(series)[0], read_with_itk(series)
    back = np.linalg.inv(ours.affine)
    for corner in compute_itk_corners(series, itk):
        index = np.rint((back @ [*corner, 1])[:3])
        np.testing.assert_allclose((ours.affine @ [*index, 1])[:3], corner, atol=1e-3)
    voxels = sitk.GetArrayFromImage(itk)
    first = np.rint((back @ [*itk.TransformIndexToPhysicalPoint((0, 0, 0)), 1])[:3]).astype(int)
    np.testing.assert_array_equal(ours.image, voxels if first[2] == 0 else voxels[::-1])


@pytest.mark.parametrize(
    "folder",
    [
        "patients/ReMIND-022-dicom",
        "series/siemens-xa30-enhanced-multiframe-T1",
        "series/ge-PD-20-slices",
    ],
)
def test_real_series_agree_with_itk(shared: Path, tmp_path: Path, folder: str):
    if "ge-PD" in folder:  # megabytes of zeros after one file's pixels, which ITK reads in 15 s
        for file in find_dicom_files(shared / folder):
            (tmp_path / file.name).write_bytes(file.read_bytes()[:132_914])
    found = [
        one
        for one in group_files(tmp_path if "ge-PD" in folder else shared / folder)
        if one.first_instance.is_mr_image
    ]
    assert found
    for one in found:
        check_against_itk(one)


def test_a_folder_with_all_real_series_mixed(shared: Path, tmp_path: Path):
    """Files of three patients with meaningless names in one folder are grouped correctly into series."""
    files = [
        file for name in ("patients/ReMIND-022-dicom", "series") for file in find_dicom_files(shared / name)
    ]
    for number, file in enumerate(sorted(files, key=lambda one: one.name)):
        shutil.copyfile(file, tmp_path / f"{number:04d}")
    found = group_files(tmp_path)
    kinds = {(one.patient_id, one.recognition.kind): one for one in found}
    assert (
        len(found) == 6
        and sum(one.image_count for one in found if one.first_instance.is_mr_image) == 176 + 192 + 2 * 96 + 20
    )
    assert set(kinds) == {
        ("ReMIND-022", "T1C"),
        ("ReMIND-022", "T2"),
        ("ReMIND-022", "segmentation"),
        ("123565", "PD"),
        ("12343@hucheng", "T1"),
    }
    assert "post-contrast" in kinds["ReMIND-022", "T1C"].recognition.reason
    assert "TR 2300 ms, TE 22 ms" in kinds["123565", "PD"].recognition.reason
    reason = kinds["12343@hucheng", "T1"].recognition.reason
    assert "TI 900 ms" in reason and "resliced" in reason
    both = [one for one in found if one.patient_id == "12343@hucheng"]
    chosen = choose_series(both)[MRSequence.T1]
    assert (
        chosen.first_instance.series_number == "6"
    )  # intensity-normalised; series 5 is the same scan without normalisation
    (other,) = (one for one in both if one is not chosen)
    assert "intensity-normalised" in explain_choice(chosen, other)

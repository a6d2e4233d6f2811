"""DICOM results: in the source study, correctly positioned on its images, conformant, with complete contents."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pypdfium2
import pytest
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.spatial import cKDTree

from gliomark.errors import GliomarkError
from gliomark.io import read_study
from gliomark.io.masks import is_gliomark_result as is_predicted
from gliomark.io.masks import read_segmentation
from gliomark.messages import message
from gliomark.phantom.hospital import HospitalSettings, create_hospital_patient, write_patient_dicom
from gliomark.prediction import CalibrationSummary, LevelLimits, Prediction
from gliomark.reader_finding_accuracy import READER_FINDING_ACCURACY
from gliomark.reporting import (
    check_dicom_source,
    convert_to_comprehensive_sr,
    create_dicom_results,
    list_default_formats,
    resample_mask_to_series,
    write_prediction,
)
from gliomark.reporting.drawing import SEGMENTATION_COLOUR
from gliomark.reporting.mask_resampling import resample_mask_to_source_images, select_reference_sequence
from gliomark.study import READER_SEGMENTATION_RULE, MRSequence, Series, Study

Make = Callable[..., Prediction]
Points = NDArray[np.float64]
T1C, FLAIR = MRSequence.T1C, MRSequence.FLAIR
SPACING, STEP, SHAPE = (1.7, 1.5), 3.0, (16, 88, 80)  # between rows, between columns
SCAN: dict[MRSequence, dict[str, Any]] = {
    T1C: {
        "SeriesDescription": "t1 mprage",
        "RepetitionTime": 500,
        "EchoTime": 10,
        "ContrastBolusAgent": "Gadovist",
    },
    FLAIR: {"SeriesDescription": "t2 flair", "RepetitionTime": 9000, "EchoTime": 110, "InversionTime": 2500},
}
NAME = "Wang^Xiao=王^小明"


# ---- patients ---------------------------------------------------------------------------------------


def create_rotation() -> NDArray[np.float64]:
    """Directions of column, row and slice index, tilted about two axes."""
    a, b = np.radians(20), np.radians(-12)
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    nod = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    matrix: NDArray[np.float64] = tilt @ nod
    return matrix


def compute_position(index: float) -> list[float]:
    """Position (LPS mm) of the first pixel of a slice, counted from 0; the stack is centred on the origin."""
    middle = np.array(
        [(SHAPE[2] - 1) / 2 * SPACING[1], (SHAPE[1] - 1) / 2 * SPACING[0], (SHAPE[0] - 1) / 2 * STEP]
    )
    return [round(float(v), 5) for v in create_rotation() @ (np.array([0, 0, index * STEP]) - middle)]


def create_header(sop_class: str, tags: dict[str, Any]) -> Dataset:
    """Header common to all MR images; the patient name has Chinese characters in GB18030."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet, dataset.SOPClassUID, dataset.SOPInstanceUID = (
        "GB18030",
        sop_class,
        generate_uid(),
    )
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = (
        "住院 7",
        NAME,
        "19700102",
        "F",
    )
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = "1.2.3.4", "1.2.3.5"
    dataset.StudyID, dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = (
        "S1",
        "20240102",
        "101112",
        "A1",
    )
    dataset.ReferringPhysicianName, dataset.StudyDescription, dataset.Modality = "", "MR 头部", "MR"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (
        *SHAPE[1:],
        1,
        "MONOCHROME2",
    )
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return dataset


def create_pixels(index: float) -> bytes:
    plane = np.random.default_rng(round(100 * index)).integers(1, 900, SHAPE[1:], dtype=np.uint16)
    return plane.tobytes()


def write_classic(folder: Path, positions: tuple[float, ...] = tuple(range(SHAPE[0]))) -> Study:
    """Write two series of single-frame images with file names unrelated to the slice order."""
    for sequence, tags in SCAN.items():
        (folder / sequence).mkdir(parents=True)
        uid = generate_uid()
        for number, position in enumerate(positions, start=1):
            one = create_header(MRImageStorage, {**tags, "SeriesInstanceUID": uid, "InstanceNumber": number})
            one.ImageOrientationPatient = [round(float(v), 8) for v in create_rotation()[:, :2].T.ravel()]
            one.ImagePositionPatient, one.PixelSpacing, one.SliceThickness = (
                compute_position(position),
                list(SPACING),
                STEP,
            )
            one.SpacingBetweenSlices = 99.0  # wrong on purpose, as in many headers
            one.PixelData = create_pixels(position)
            one.save_as(folder / sequence / f"{97 * number % 101:03d}.dcm", enforce_file_format=True)
    return read_study(folder)


def write_enhanced(folder: Path) -> Study:
    """Write one multi-frame file with two echoes per slice, from head to neck, with the orientation in every frame."""
    one = create_header(
        EnhancedMRImageStorage, {"SeriesDescription": "protocol 5", "SeriesInstanceUID": generate_uid()}
    )
    one.EchoPulseSequence, one.InstanceNumber = "SPIN", 1
    frames = [(index, echo) for index in range(SHAPE[0])[::-1] for echo in (15.0, 95.0)]
    one.SharedFunctionalGroupsSequence = create_sequence_item(
        PixelMeasuresSequence=create_sequence_item(PixelSpacing=list(SPACING), SliceThickness=STEP),
        MRTimingAndRelatedParametersSequence=create_sequence_item(RepetitionTime=3000),
    )
    one.PerFrameFunctionalGroupsSequence = [
        create_sequence_item(
            PlanePositionSequence=create_sequence_item(ImagePositionPatient=compute_position(index)),
            PlaneOrientationSequence=create_sequence_item(
                ImageOrientationPatient=[round(float(v), 8) for v in create_rotation()[:, :2].T.ravel()]
            ),
            MREchoSequence=create_sequence_item(EffectiveEchoTime=echo),
        )[0]
        for index, echo in frames
    ]
    one.NumberOfFrames = len(frames)
    one.PixelData = b"".join(create_pixels(index) for index, _ in frames)
    folder.mkdir()
    one.save_as(folder / "frames.dcm", enforce_file_format=True)
    study = read_study(folder)
    return replace(study, series={T1C: study.series[MRSequence.T2]})


def create_sequence_item(**tags: Any) -> list[Dataset]:
    dataset = Dataset()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    return [dataset]


def create_prediction(make_prediction: Make, study: Study, **changes: Any) -> Prediction:
    """The synthetic prediction, moved to the centre of a study's T1C."""
    prediction = make_prediction("volumes", study=study, **{"patient_id": study.patient_id} | changes)
    series = study.series[T1C]
    slices, rows, columns = series.image.shape
    middle = series.affine @ np.array([(columns - 1) / 2, (rows - 1) / 2, (slices - 1) / 2, 1.0])
    affine = prediction.stack.affine.copy()
    affine[:3, 3] += middle[:3]
    return replace(prediction, stack=replace(prediction.stack, affine=affine))


def remove_lesion(prediction: Prediction) -> Prediction:
    mask = np.zeros_like(prediction.segmentation.mask)
    empty = replace(prediction.segmentation, mask=mask, probability=mask.astype(np.float32))
    markers = tuple(replace(m, probability=None, level="undetermined", slices=()) for m in prediction.markers)
    return replace(
        prediction,
        segmentation=empty,
        lesion_volume_ml=0.0,
        lesion_areas_mm2={},
        markers=markers,
        warnings=("No lesion was found; no marker is predicted.",),
    )


@pytest.fixture(scope="session")
def phantom_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    small = HospitalSettings(
        matrix=(56, 64),
        thickness_mm=(9.0, 10.0),
        sublayers=1,
        transfer_syntaxes=("rle",),
        has_distractors=False,
    )
    return read_study(
        write_patient_dicom(
            create_hospital_patient(7, small, (T1C, FLAIR)), tmp_path_factory.mktemp("phantom")
        )
    )


def create_results(prediction: Prediction, language: str = "en") -> dict[str, Dataset]:
    """The DICOM results with a dummy PDF, which saves rendering."""
    return dict(create_dicom_results(prediction, language, pdf=b"%PDF-1.7 of odd length"))  # type: ignore[arg-type]


# ---- conformance ------------------------------------------------------------------------------------


def check_conformance(results: dict[str, Dataset], folder: Path) -> None:
    """dciodvfy of dicom3tools reports no error for any object."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    for name, dataset in results.items():
        dataset.save_as(folder / name, enforce_file_format=True)
        found = subprocess.run(["dciodvfy", folder / name], capture_output=True, text=True, errors="replace")
        output = found.stdout + found.stderr
        assert [line for line in output.splitlines() if line.startswith(("Error", "Abort"))] == [], (
            name,
            output,
        )
        assert any(
            word in output
            for word in (
                "Segmentation",
                "Comprehensive3DSR",
                "ComprehensiveSR",
                "EncapsulatedPDF",
                "RTStructureSet",
            )
        )


@pytest.mark.parametrize("kind", ["classic", "uneven", "enhanced"])
def test_every_kind_of_source_gives_conformant_objects(
    make_prediction: Make, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "in"
    positions = (*range(5), 5.2, *range(6, 9), *range(10, 16)) if kind == "uneven" else tuple(range(16))
    study = write_enhanced(folder) if kind == "enhanced" else write_classic(folder, positions)
    prediction = create_prediction(make_prediction, study)
    for language in ("en", "zh"):
        check_conformance(create_results(prediction, language), tmp_path)
    check_conformance(create_results(remove_lesion(prediction)), tmp_path)


def test_the_export_of_a_phantom_gives_conformant_objects(
    make_prediction: Make, phantom_study: Study, tmp_path: Path
) -> None:
    results = create_results(create_prediction(make_prediction, phantom_study))
    assert list(results) == ["segmentation.dcm", "report.dcm", "report_pdf.dcm"]
    check_conformance(results, tmp_path)


@pytest.mark.parametrize(
    "folder", ["patients/ReMIND-022-dicom", "series/siemens-xa30-enhanced-multiframe-T1"]
)
def test_real_oblique_and_enhanced_series_give_conformant_objects(
    make_prediction: Make, shared: Path, tmp_path: Path, folder: str
) -> None:
    study = read_study(shared / folder)
    if T1C not in study.series:
        study = replace(study, series={T1C: study.series[MRSequence.T1]})
    prediction = create_prediction(make_prediction, study)
    results = create_results(prediction)
    check_position(prediction, results["segmentation.dcm"], tmp_path)
    check_conformance(results, tmp_path)


# ---- position of the segmentation -------------------------------------------------------------------


def compute_points(mask: NDArray[Any], affine: NDArray[np.float64]) -> Points:
    """Positions (LPS mm) of the voxels inside the mask."""
    found: Points = np.argwhere(mask > 0)[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
    return found


def check_position(prediction: Prediction, segmentation: Dataset, folder: Path) -> None:
    """Our reader and highdicom's read the voxel positions of ``resample_mask_to_series`` to 0.01 mm."""
    series = prediction.study.series[T1C]
    expected = compute_points(
        resample_mask_to_series(prediction.stack, prediction.segmentation, series), series.affine
    )
    assert len(expected) > 500
    segmentation.save_as(folder / "seg.dcm", enforce_file_format=True)
    ours = read_segmentation(folder / "seg.dcm").series
    theirs = highdicom.seg.segread(folder / "seg.dcm").get_volume(segment_numbers=[1], combine_segments=True)
    affine = theirs.affine[:, [2, 1, 0, 3]]  # highdicom's index is (slice, row, column)
    for found in (compute_points(ours.image, ours.affine), compute_points(theirs.array, affine)):
        distance, nearest = cKDTree(found).query(expected)
        assert distance.max() < 0.01
        assert len(set(nearest)) == len(found) == len(expected)


@pytest.mark.parametrize("write", [write_classic, write_enhanced])
def test_the_segmentation_has_the_position_of_the_mask(
    make_prediction: Make, tmp_path: Path, write: Callable[[Path], Study]
) -> None:
    prediction = create_prediction(make_prediction, write(tmp_path / "in"))
    check_position(prediction, create_results(prediction)["segmentation.dcm"], tmp_path)


def list_frames(segmentation: Dataset) -> list[tuple[Dataset, NDArray[np.uint8], Dataset]]:
    """Position, pixels and source image of each frame."""
    planes = segmentation.pixel_array
    groups = segmentation.PerFrameFunctionalGroupsSequence
    return [
        (group.PlanePositionSequence[0], plane, group.DerivationImageSequence[0].SourceImageSequence[0])
        for group, plane in zip(groups, planes, strict=True)
    ]


def save_and_read(dataset: Dataset) -> Dataset:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def test_a_repaired_series_keeps_the_mask_on_each_of_its_images(
    make_prediction: Make, tmp_path: Path
) -> None:
    """One slice is missing and one is off the regular grid by more than a fifth of the spacing."""
    positions = (*range(7), 7.22, *range(8, 10), *range(11, 16))
    study = write_classic(tmp_path / "in", positions)
    assert len(study.series[T1C].image) == 16 and len(study.series[T1C].source_images) == 15
    prediction = create_prediction(make_prediction, study)
    sources = {
        str(one.SOPInstanceUID): one for one in map(pydicom.dcmread, (tmp_path / "in" / T1C).iterdir())
    }
    frames = list_frames(save_and_read(create_results(prediction)["segmentation.dcm"]))
    found = set()
    for plane_position, plane, source in frames:
        image = sources[source.ReferencedSOPInstanceUID]
        assert list(plane_position.ImagePositionPatient) == list(image.ImagePositionPatient)
        affine = study.series[T1C].affine.copy()
        affine[:3, 3] = image.ImagePositionPatient
        alone = Series(np.zeros((1, *SHAPE[1:]), np.float32), affine, ("x",), Path("x"))
        expected = resample_mask_to_series(prediction.stack, prediction.segmentation, alone)[0]
        assert (plane != expected).sum() <= 2  # positions are rounded to five decimals
        found.add(source.ReferencedSOPInstanceUID)
    off_grid = next(
        uid for uid, one in sources.items() if list(one.ImagePositionPatient) == compute_position(7.22)
    )
    assert off_grid in found and len(found) == len(frames)


def test_frames_refer_to_the_correct_stack_of_a_file_with_two_stacks(
    make_prediction: Make, tmp_path: Path
) -> None:
    prediction = create_prediction(make_prediction, write_enhanced(tmp_path / "in"))
    original = pydicom.dcmread(tmp_path / "in" / "frames.dcm").PerFrameFunctionalGroupsSequence
    frames = list_frames(save_and_read(create_results(prediction)["segmentation.dcm"]))
    assert len(frames) > 5
    for plane_position, _, source in frames:
        group = original[source.ReferencedFrameNumber - 1]
        assert group.MREchoSequence[0].EffectiveEchoTime == 95.0
        assert group.PlanePositionSequence[0].ImagePositionPatient == plane_position.ImagePositionPatient


def test_the_segment_states_its_content_and_algorithm(make_prediction: Make, tmp_path: Path) -> None:
    prediction = create_prediction(make_prediction, write_classic(tmp_path / "in"))
    results = create_results(prediction)
    segmentation = save_and_read(results["segmentation.dcm"])
    assert segmentation.ImageComments.startswith("Research use only")
    assert segmentation.ContentQualification == "RESEARCH" and segmentation.SegmentationType == "BINARY"
    (segment,) = segmentation.SegmentSequence
    coded = {
        "SegmentedPropertyCategoryCodeSequence": "49755003",
        "SegmentedPropertyTypeCodeSequence": "52988006",
        "AnatomicRegionSequence": "12738006",
    }
    assert {name: segment[name].value[0].CodeValue for name in coded} == coded
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert (segment.SegmentAlgorithmType, algorithm.AlgorithmName) == ("AUTOMATIC", "demo")
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert "ab" * 32 in str(algorithm.AlgorithmParameters)
    assert segmentation.ContentCreatorName == "gliomark"
    # viewers can show the segment in the colour that gliomark uses for the outline
    lab = CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue)
    assert lab.to_rgb() == pytest.approx(SEGMENTATION_COLOUR, abs=2)


def test_predicted_segmentations_are_recognised_and_corrected_ones_attributed_to_the_reader(
    make_prediction: Make, tmp_path: Path
) -> None:
    prediction = create_prediction(make_prediction, write_classic(tmp_path / "in"))
    corrected = replace(
        prediction, segmentation=replace(prediction.segmentation, rule=READER_SEGMENTATION_RULE)
    )
    for one, predicted, comment, finder in (
        (prediction, True, "not reviewed", "Lesion found by the model"),
        (corrected, False, "Outlined or corrected by a reader", "Lesion outlined by the reader"),
    ):
        results = create_results(one)
        results["segmentation.dcm"].save_as(tmp_path / "seg.dcm", enforce_file_format=True)
        assert is_predicted(tmp_path / "seg.dcm") is predicted
        assert comment in results["segmentation.dcm"].ImageComments
        _, group, _ = read_report(results["report.dcm"])
        assert finder in [
            create_sequence_item.name.meaning for create_sequence_item in group.get_qualitative_evaluations()
        ]
        check_conformance(results, tmp_path)


# ---- the report -------------------------------------------------------------------------------------


def create_and_read_report(prediction: Prediction, language: str = "en") -> tuple[Any, Any, str]:
    """The report's dataset, its measurement group and its text."""
    return read_report(create_results(prediction, language)["report.dcm"])


def read_report(dataset: Dataset) -> tuple[Any, Any, str]:
    """The measurement report as read by highdicom, its group of the lesion, and its entire text."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    report = highdicom.sr.srread(buffer)
    root = report.content
    group, *_ = [*root.get_volumetric_roi_measurement_groups(), *root.get_image_measurement_groups()]
    return report, group, "\n".join(list_texts(report))


def get_lesion_evaluations(group: Any) -> dict[str, Any]:
    """The evaluations by code; highdicom lists the algorithm family among them."""
    found = group.get_qualitative_evaluations()
    return {one.name.value: one.value for one in found if one.name.scheme_designator == "99GLIOMARK"}


def list_texts(node: Dataset) -> list[str]:
    below = [text for child in node.get("ContentSequence", []) for text in list_texts(child)]
    return [str(node.TextValue), *below] if "TextValue" in node else below


def test_the_report_measures_the_lesion_it_refers_to(make_prediction: Make, tmp_path: Path) -> None:
    prediction = create_prediction(make_prediction, write_classic(tmp_path / "in"))
    results = create_results(prediction)
    segment = results["segmentation.dcm"].SegmentSequence[0]
    _, group, _ = read_report(results["report.dcm"])
    assert group.tracking_uid == segment.TrackingUID and group.tracking_identifier == segment.TrackingID
    used = group.referenced_segment
    assert used.referenced_sop_instance_uid == results["segmentation.dcm"].SOPInstanceUID
    assert used.has_source_images()
    report, group, text = create_and_read_report(prediction)
    measured = {one.name.meaning: (float(one.value), one.unit.value) for one in group.get_measurements()}
    largest = max(prediction.lesion_areas_mm2.values())
    assert measured["Volume"] == (round(prediction.lesion_volume_ml, 3), "ml")
    length, unit = measured["Maximum 3D Diameter of a Mesh"]
    assert 26 <= length <= 26 + 5 and unit == "mm"  # a sphere of radius 13 on slices of 5 mm
    assert measured["Area"] == (round(largest, 1), "mm2")
    assert measured["Probability by the model, IDH"] == (0.3, "1")
    for text in ("what idh means", "AUC 0.7", "a warning", "Research use only. Not a medical device."):
        assert text in text
    evidence = {str(instance) for _, _, instance, _ in report.get_evidence()}
    files = [image.file for series in prediction.study.series.values() for image in series.source_images]
    assert {str(pydicom.dcmread(file).SOPInstanceUID) for file in files} < evidence


def list_ranges(group: Any) -> list[tuple[str, str, float]]:
    """Name, derivation and value of the measurements across the lesion slices."""
    return [
        (one.name.meaning, one.derivation.value, float(one.value))
        for one in group.get_measurements()
        if one.name.value.startswith("r-")
    ]


def test_the_range_across_slices_is_a_minimum_and_a_maximum(make_prediction: Make, tmp_path: Path) -> None:
    prediction = create_prediction(make_prediction, write_classic(tmp_path / "in"))
    _, group, _ = create_and_read_report(prediction)
    assert list_ranges(group) == [
        (f"Probability range across lesion slices, {title}", derivation, value)
        for title in ("IDH", "KI67")
        for derivation, value in (("255605001", 0.12), ("56851009", 0.52))
    ]
    alone = tuple(replace(m, slices=tuple(s for s in m.slices if s.decides)) for m in prediction.markers)
    results = create_results(replace(prediction, markers=alone))
    _, group, _ = read_report(results["report.dcm"])
    assert list_ranges(group) == [] and len(group.get_measurements()) == 5
    check_conformance(results, tmp_path)


def test_levels_use_private_codes_and_state_who_decided(make_prediction: Make, tmp_path: Path) -> None:
    prediction = create_prediction(make_prediction, write_classic(tmp_path / "in"))
    idh, ki67 = prediction.markers
    reader_fields = {
        "decided_by": "reader's finding",
        "performance": READER_FINDING_ACCURACY.describe_performance(False),
    }
    markers = (
        replace(idh, level="mutant", label=message("label-idh"), **reader_fields),
        replace(ki67, level="undetermined"),
    )
    _, group, text = create_and_read_report(replace(prediction, markers=markers), "zh")
    evaluations = get_lesion_evaluations(group)
    level = evaluations["idh"]
    assert (level.value, level.scheme_designator, level.meaning) == (
        "mutant",
        "99GLIOMARK",
        "Predicted mutant",
    )
    names = [one.name.meaning for one in group.get_qualitative_evaluations()]
    assert "Predicted, not measured: IDH" in names
    undetermined = evaluations["ki67"]
    assert (undetermined.value, undetermined.scheme_designator) == ("373068000", "SCT")
    decided = [
        child.ConceptCodeSequence[0].CodeValue
        for create_sequence_item in group[0].ContentSequence
        for child in create_sequence_item.get("ContentSequence", [])
        if child.ConceptNameCodeSequence[0].CodeValue == "decided-by"
    ]
    assert decided == ["reader", "model"]
    assert "不是医疗器械" in text and "阳性：IDH1 或 IDH2 突变" in text and "0.64" in text


@pytest.mark.parametrize("level", ["cannot tell", "wild type"])
def test_a_calibrated_marker_states_limits_and_both_probabilities(
    make_prediction: Make, tmp_path: Path, level: str
) -> None:
    prediction = create_prediction(make_prediction, write_classic(tmp_path / "in"))
    idh = replace(
        prediction.markers["idh"],
        level=level,
        threshold=None,
        negative="wild type",
        raw_probability=0.62,
        limits=LevelLimits(0.2 if level == "cannot tell" else 0.35, 0.8, 0.9, 20, 20),
        calibration=CalibrationSummary("platt", "TCGA", 0.5, 0.4),
        limits_in_words="when a level is stated",
        calibration_in_words="how it was calibrated",
    )
    changed = replace(prediction, markers=(idh, prediction.markers["ki67"]))
    _, group, text = create_and_read_report(changed)
    measured = {one.name.meaning: float(one.value) for one in group.get_measurements()}
    assert measured["Probability by the model, IDH"] == 0.3
    assert measured["Probability before calibration, IDH"] == 0.62
    assert "Probability before calibration, KI67" not in measured
    code = get_lesion_evaluations(group)["idh"]
    expected = ("cannot-tell", "Cannot tell: mutant or wild type")
    assert (code.value, code.meaning) == (
        expected if level == "cannot tell" else ("wild-type", "Predicted wild type")
    )
    stated = {
        child.ConceptNameCodeSequence[0].CodeValue: float(child.MeasuredValueSequence[0].NumericValue)
        for item in group[0].ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "idh"
        for child in item.get("ContentSequence", [])
        if "MeasuredValueSequence" in child
    }
    assert stated == {
        "negative-below": idh.limits.negative_below,
        "positive-above": 0.8,
        "coverage": 0.9,
        "prevalence": 0.4,
    }
    assert "when a level is stated" in text and "how it was calibrated" in text
    check_conformance(create_results(changed), tmp_path)


def test_without_a_lesion_there_is_a_report_and_no_segmentation(
    make_prediction: Make, tmp_path: Path
) -> None:
    prediction = remove_lesion(create_prediction(make_prediction, write_classic(tmp_path / "in")))
    assert list(create_results(prediction)) == ["report.dcm", "report_pdf.dcm"]
    _, group, text = create_and_read_report(prediction)
    evaluations = {name: level.meaning for name, level in get_lesion_evaluations(group).items()}
    assert evaluations == {"lesion": "Absent", "idh": "Undetermined", "ki67": "Undetermined"}
    assert "the model missed it" in text
    assert [one.value for one in group.get_measurements()] == [0, 0]


def list_conclusions(report: Dataset) -> list[str]:
    """The sentences of the report's first container, if it is that of the conclusions."""
    first = next(item for item in report.ContentSequence if item.RelationshipType == "CONTAINS")
    if first.ConceptNameCodeSequence[0].CodeMeaning != "Conclusions":
        return []
    return [item.TextValue for item in first.ContentSequence]


def hide_lesion(prediction: Prediction) -> Prediction:
    """A lesion of which nothing is left on the images, so that there is nothing to draw."""
    mask = np.zeros_like(prediction.segmentation.mask)
    empty = replace(prediction.segmentation, mask=mask, probability=mask.astype(np.float32))
    return replace(prediction, segmentation=empty)


def erase_outline(prediction: Prediction) -> Prediction:
    empty = remove_lesion(prediction)
    return replace(empty, segmentation=replace(empty.segmentation, rule=READER_SEGMENTATION_RULE))


RESEARCH_ONLY = {"en": "Research use only. Not a medical device.", "zh": "不是医疗器械"}


@pytest.mark.parametrize(
    ("change", "language", "sentence"),
    [
        (remove_lesion, "en", "No lesion was found. The model outlined no lesion on these images."),
        (remove_lesion, "zh", "未发现病灶"),
        (erase_outline, "en", "No lesion outlined. The reader left no outline on these images."),
        (hide_lesion, "en", "a warning"),
        (lambda prediction: prediction, "en", None),
    ],
)
def test_a_report_that_has_nothing_to_draw_begins_with_its_conclusion(
    one_prediction: tuple[Prediction, Path],
    tmp_path: Path,
    change: Callable[[Prediction], Prediction],
    language: str,
    sentence: str | None,
) -> None:
    """OHIF shows it as text only under a title other than Imaging Measurement Report."""
    results = create_results(change(one_prediction[0]), language)
    for report in (results["report.dcm"], convert_to_comprehensive_sr(results["report.dcm"])):
        report = save_and_read(report)
        title, conclusions = report.ConceptNameCodeSequence[0].CodeValue, list_conclusions(report)
        assert (title, conclusions == []) == (("126000", True) if sentence is None else ("126001", False))
        if sentence is not None:
            assert conclusions[0].startswith(sentence)
            assert RESEARCH_ONLY[language] in conclusions[-1]
    check_conformance({"report.dcm": results["report.dcm"]}, tmp_path)


# ---- all three --------------------------------------------------------------------------------------


def test_all_results_are_in_the_patients_study_in_separate_series(
    make_prediction: Make, tmp_path: Path
) -> None:
    prediction = create_prediction(make_prediction, write_classic(tmp_path / "in"))
    results = [save_and_read(one) for one in create_results(prediction).values()]
    sources = {
        create_header.SeriesInstanceUID
        for create_header in map(pydicom.dcmread, (tmp_path / "in" / T1C).iterdir())
    }
    for one in results:
        assert (one.PatientID, str(one.PatientName), one.PatientSex) == ("住院 7", NAME, "F")
        assert (one.StudyInstanceUID, one.AccessionNumber, one.StudyDescription) == (
            "1.2.3.4",
            "A1",
            "MR 头部",
        )
        assert one.SpecificCharacterSet == "ISO_IR 192" and "research use only" in one.SeriesDescription
        assert one.DeviceSerialNumber == "ab" * 32
    series = {one.SeriesInstanceUID for one in results}
    assert len(series) == len({one.SOPInstanceUID for one in results}) == 3 and not series & sources
    assert [one.Modality for one in results] == ["SEG", "SR", "DOC"]


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_common_invalid_headers_are_blank_in_the_results(make_prediction: Make, tmp_path: Path) -> None:
    study = write_classic(tmp_path / "in")
    for file in (tmp_path / "in").rglob("*.dcm"):
        one = pydicom.dcmread(file)
        del one.StudyID, one.ReferringPhysicianName
        one.PatientSex, one.StudyTime = "W", "9h"
        one.save_as(file)
    results = create_results(create_prediction(make_prediction, study))
    for one in map(save_and_read, results.values()):
        assert (one.StudyID, one.PatientSex, one.StudyTime) == ("", "", "")


def create_raw_element(keyword: str, content: bytes, vr: str = "") -> RawDataElement:
    """An element as stored in a file, not validated by pydicom."""
    tag = Tag(keyword)
    content += b" " * (len(content) % 2)
    return RawDataElement(tag, vr or dictionary_VR(tag), len(content), content, 0, False, True)


INVALID = [
    ("StudyDate", b"2026-13-45"),
    ("StudyDate", b"20261345"),
    ("StudyDate", b"2024.01.02"),
    ("PatientBirthDate", b"19700230"),
    ("PatientBirthDate", b"about 1970"),
    ("StudyTime", b"256199"),
    ("StudyTime", b"10:11"),
    ("StudyID", b"a study id of more than sixteen"),
    ("AccessionNumber", b"2024-0001-0001-0001-0001"),
    ("AccessionNumber", b"A1\x07"),
    ("StudyDescription", b"MR " * 30),
    ("PatientName", b"Wang^" + b"x" * 70),
    ("ReferringPhysicianName", b"y" * 80),
    ("PatientSex", b"female"),
    ("PatientSex", b"W"),
    ("PatientAge", b"61"),
    ("PatientAge", b"sixty"),
    ("PatientWeight", b"70 kg"),
    ("PatientWeight", b"7,5"),
    ("PatientSize", b"1.70000000000000000001"),
    ("EthnicGroup", b"a group longer than sixteen"),
    ("PositionReferenceIndicator", b"p" * 70),
    ("PatientIdentityRemoved", b"yes"),
]


@pytest.mark.sample(3)
@pytest.mark.filterwarnings("ignore:Invalid value", "ignore:The value length", "ignore:The PN component")
@pytest.mark.parametrize(("keyword", "content"), INVALID)
def test_values_invalid_for_their_type_are_not_copied(
    one_prediction: tuple[Prediction, Path],
    tmp_path: Path,
    keyword: str,
    content: bytes,
) -> None:
    """Invalid elements are empty if the result requires them, otherwise absent; the rest of the header is copied."""
    _, results = create_altered_results(one_prediction, tmp_path, create_raw_element(keyword, content))
    for one in results.values():
        assert not one.get(keyword)
        assert one.StudyInstanceUID == "1.2.3.4"
        for name, value in (("PatientID", "住院 7"), ("PatientName", NAME), ("AccessionNumber", "A1")):
            assert name == keyword or str(one[name].value) == value
    assert results["segmentation.dcm"].FrameOfReferenceUID == "1.2.3.5"
    check_conformance(results, tmp_path)


@pytest.mark.filterwarnings("ignore:Invalid value", "ignore:The value length")
@pytest.mark.parametrize("broken", ["ReferencedSOPInstanceUID", "CodeValue", "wrong type"])
def test_a_sequence_with_an_invalid_value_is_left_out(
    one_prediction: tuple[Prediction, Path], tmp_path: Path, broken: str
) -> None:
    inner = Dataset()
    with pydicom.config.disable_value_validation():
        if broken == "ReferencedSOPInstanceUID":
            inner.ReferencedSOPClassUID, inner.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", "study 7"
            element = DataElement("ReferencedStudySequence", "SQ", [inner])
        elif broken == "CodeValue":
            inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "c" * 20, "99X", "meaning"
            element = DataElement("ProcedureCodeSequence", "SQ", [inner])
        else:
            element = DataElement("StudyDescription", "DS", "1.5")
        _, results = create_altered_results(one_prediction, tmp_path, element)
    assert not [one for one in results.values() if element.tag in one]
    check_conformance(results, tmp_path)


@pytest.fixture(scope="module")
def one_prediction(
    make_prediction: Make, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Prediction, Path]:
    """A patient's prediction and its input folder; tests must not change them."""
    folder = tmp_path_factory.mktemp("healthy") / "in"
    return create_prediction(make_prediction, write_classic(folder)), folder


def create_altered_results(
    healthy: tuple[Prediction, Path], tmp_path: Path, element: DataElement | RawDataElement
) -> tuple[Prediction, dict[str, Dataset]]:
    """The prediction on copies of its files with one element changed in each, and its results after a round trip."""
    prediction, folder = healthy
    copied_folder = Path(shutil.copytree(folder, tmp_path / "in"))
    for file in copied_folder.rglob("*.dcm"):
        one = pydicom.dcmread(file)
        one[element.tag] = element
        one.save_as(file)
    copied_series = {
        name: replace(
            series,
            source=copied_folder / series.source.relative_to(folder),
            source_images=tuple(
                replace(image, file=copied_folder / image.file.relative_to(folder))
                for image in series.source_images
            ),
        )
        for name, series in prediction.study.series.items()
    }
    prediction = replace(prediction, study=replace(prediction.study, series=copied_series))
    results = create_dicom_results(prediction, pdf=b"%PDF-1.4 drawn before")
    return prediction, {name: save_and_read(one) for name, one in results.items()}


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"])
@pytest.mark.parametrize("uid", [b"study 7", b"1.2.abc", b"1." * 40 + b"1"])
def test_an_invalid_uid_is_refused(
    one_prediction: tuple[Prediction, Path], tmp_path: Path, keyword: str, uid: bytes
) -> None:
    with pytest.raises(GliomarkError, match=f"has the {keyword} .* which is not a valid UID") as caught:
        create_altered_results(one_prediction, tmp_path, create_raw_element(keyword, uid))
    assert str(tmp_path / "in") in str(caught.value)


@pytest.mark.filterwarnings("ignore:The value length", "ignore:Invalid value")
@pytest.mark.parametrize(
    ("patient_id", "vr"),
    [(b"7" * 65, "LO"), (b"P7\x07", "LO"), (b"P7", "PN"), (b"123", "FD"), (b"abcd", "SQ")],
)
def test_a_patient_id_that_dicom_forbids_is_refused(
    one_prediction: tuple[Prediction, Path], tmp_path: Path, patient_id: bytes, vr: str
) -> None:
    with pytest.raises(GliomarkError, match="has a patient id that DICOM does not allow") as caught:
        create_altered_results(one_prediction, tmp_path, create_raw_element("PatientID", patient_id, vr))
    assert str(tmp_path / "in") in str(caught.value)


def test_a_blank_patient_id_stays_blank(one_prediction: tuple[Prediction, Path], tmp_path: Path) -> None:
    _, results = create_altered_results(one_prediction, tmp_path, create_raw_element("PatientID", b""))
    assert all(one.PatientID == "" for one in results.values())


@pytest.mark.parametrize(
    ("keyword", "content"), [("AcquisitionDuration", b"1234"), ("ReferencedStudySequence", b"abcd")]
)
def test_an_element_that_cannot_be_decoded_is_left_out(
    one_prediction: tuple[Prediction, Path], tmp_path: Path, keyword: str, content: bytes
) -> None:
    _, results = create_altered_results(one_prediction, tmp_path, create_raw_element(keyword, content))
    assert not any(keyword in one for one in results.values())
    assert all(one.PatientID == "住院 7" for one in results.values())


def test_a_lesion_between_the_images_is_noted(
    one_prediction: tuple[Prediction, Path], tmp_path: Path
) -> None:
    prediction, _ = one_prediction
    name = select_reference_sequence(prediction)
    planes = resample_mask_to_source_images(prediction, name)
    series = prediction.study.series[name]
    images = tuple(i for i, plane in zip(series.source_images, planes, strict=True) if not plane.any())
    assert 0 < len(images) < len(series.source_images)
    between = replace(
        prediction,
        study=replace(
            prediction.study,
            series={**prediction.study.series, name: replace(series, source_images=images)},
        ),
    )
    results = create_dicom_results(between)
    assert list(results) == ["report.dcm", "report_pdf.dcm"]
    sentence = "the outlined lesion lies between the images"
    texts = [str(element.value) for element in results["report.dcm"].iterall() if element.VR == "UT"]
    assert any(sentence in text for text in texts)
    document = pypdfium2.PdfDocument(results["report_pdf.dcm"].EncapsulatedDocument)
    printed = "".join(page.get_textpage().get_text_range() for page in document)
    assert sentence.replace(" ", "") in "".join(printed.split())
    folder = write_prediction(between, tmp_path, formats=["json", "dicom", "rtstruct"])
    assert sorted(file.name for file in (folder / "dicom").iterdir()) == ["report.dcm", "report_pdf.dcm"]
    notes = json.loads((folder / "prediction.json").read_text("utf-8"))["notes"]
    assert [note.split(" was written")[0] for note in notes[-2:]] == [
        "No DICOM segmentation",
        "No structure set (RTSTRUCT)",
    ]


def test_leading_zeros_in_a_uid_are_accepted(one_prediction: tuple[Prediction, Path], tmp_path: Path) -> None:
    _, results = create_altered_results(
        one_prediction, tmp_path, create_raw_element("FrameOfReferenceUID", b"1.2.003.5")
    )
    assert results["segmentation.dcm"].FrameOfReferenceUID == "1.2.003.5"


def test_the_encapsulated_pdf_equals_the_written_pdf(make_prediction: Make, tmp_path: Path) -> None:
    prediction = create_prediction(make_prediction, write_classic(tmp_path / "in"))
    folder = write_prediction(prediction, tmp_path / "out", formats=(*list_default_formats(), "pdf", "dicom"))
    assert sorted(file.name for file in (folder / "dicom").iterdir()) == [
        "report.dcm",
        "report_pdf.dcm",
        "segmentation.dcm",
    ]
    encapsulated = pydicom.dcmread(folder / "dicom" / "report_pdf.dcm")
    pdf = (folder / "report.pdf").read_bytes()
    assert encapsulated.EncapsulatedDocument[: encapsulated.EncapsulatedDocumentLength] == pdf
    assert (
        encapsulated.MIMETypeOfEncapsulatedDocument == "application/pdf"
        and encapsulated.BurnedInAnnotation == "YES"
    )
    write_prediction(prediction, tmp_path / "out")
    assert not (folder / "dicom").exists() and not (folder / "report.pdf").exists()


# ---- refusals ---------------------------------------------------------------------------------------


def test_inputs_other_than_dicom_are_refused_in_one_sentence(make_prediction: Make, tmp_path: Path) -> None:
    prediction = make_prediction("volumes")
    with pytest.raises(GliomarkError, match="are not DICOM.*--dicom-out"):
        check_dicom_source(prediction.study)
    with pytest.raises(GliomarkError, match="are not DICOM"):
        write_prediction(prediction, tmp_path, formats=(*list_default_formats(), "dicom"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID"])
def test_sources_without_study_or_frame_uid_are_refused(tmp_path: Path, keyword: str) -> None:
    write_classic(tmp_path)
    for file in tmp_path.rglob("*.dcm"):
        one = pydicom.dcmread(file)
        del one[keyword]
        one.save_as(file)
    with pytest.raises(GliomarkError, match=f"lacks {keyword}"):
        check_dicom_source(read_study(tmp_path))


def test_a_missing_source_leaves_the_older_result_unchanged(make_prediction: Make, tmp_path: Path) -> None:
    prediction = create_prediction(make_prediction, write_classic(tmp_path / "in"))
    folder = write_prediction(prediction, tmp_path / "out", formats=(*list_default_formats(), "dicom"))
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    prediction.study.series[T1C].source_images[9].file.unlink()
    with pytest.raises(GliomarkError, match="can no longer be read"):
        write_prediction(prediction, tmp_path / "out", formats=(*list_default_formats(), "dicom"))
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [folder.name]


def test_the_patients_own_dicom_folder_is_never_replaced(make_prediction: Make, tmp_path: Path) -> None:
    study = write_classic(tmp_path / "住院 7" / "dicom")
    prediction = create_prediction(make_prediction, study)
    with pytest.raises(GliomarkError, match="not a gliomark result"):
        write_prediction(prediction, tmp_path, formats=(*list_default_formats(), "dicom"))
    assert len(list(tmp_path.rglob("*.dcm"))) == 2 * SHAPE[0]

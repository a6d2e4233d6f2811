"""Further objects of a hospital's export: localisers, diffusion, maps, screenshots, reports and a segmentation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import highdicom
import numpy as np
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from scipy import ndimage

from gliomark.phantom.anatomy import HEAD_CENTRE_LPS, FloatArray
from gliomark.phantom.dicom_export import DicomExport, create_slice_image, set_pixels
from gliomark.phantom.rendering import compute_plane_points, render_plane, simulate_scan
from gliomark.study import MRSequence

DoubleArray = NDArray[np.float64]
# Columns: directions along a row, along a column and to the next slice.
_AXIAL = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], float).T
_SAGITTAL = np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]], float).T
_CORONAL = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], float).T


def create_distractor_series(export: DicomExport) -> list[list[Dataset]]:
    """Create all further series, each a list of files."""
    derived = _create_perfusion_map if export.rng.random() < 0.5 else _create_coronal_reformat
    return [
        list(_create_localiser(export)),
        list(_create_sagittal_t1(export)),
        *_create_diffusion(export),
        list(derived(export)),
        [_create_screenshot(export)],
        [_create_report(export)],
    ]


def _create_localiser(export: DicomExport) -> Iterator[Dataset]:
    """Create the three-plane localiser: one series, three orientations."""
    header = _create_mr_header(
        export, "3-plane Loc" if export.scanner.manufacturer[0] in "GP" else "localizer", "GR", 8.6, 4.0
    )
    header.ImageType = (
        ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]
        if export.scanner.manufacturer[0] == "S"
        else ["ORIGINAL", "PRIMARY", "OTHER"]
    )
    for number, orientation in enumerate((_AXIAL, _SAGITTAL, _CORONAL)):
        image, affine = _render_view(export, MRSequence.T1, orientation, 128, 2.0, 3, 12.0)
        header.InstanceNumber = 3 * number
        for slice_index in range(3):
            yield create_slice_image(export, header, image[slice_index], affine, slice_index, 12.0)


def _create_sagittal_t1(export: DicomExport) -> Iterator[Dataset]:
    """Create a sagittal T1 with thick slices."""
    name = "矢状位 T1" if export.scanner.manufacturer == "UIH" else "Sag T1 SE"
    header = _create_mr_header(export, name, "SE", 520.0, 11.0)
    header.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    image, affine = _render_view(export, MRSequence.T1, _SAGITTAL, 192, 1.25, 19, 6.5)
    for number, layer in enumerate(image):
        yield create_slice_image(export, header, layer, affine, number, 6.5)


def _render_view(
    export: DicomExport,
    sequence: MRSequence,
    orientation: DoubleArray,
    matrix: int,
    pixel_mm: float,
    slice_count: int,
    step_mm: float,
) -> tuple[FloatArray, DoubleArray]:
    """Render thin slices ``(slice, row, column)`` of the head at rest; return also their affine."""
    affine = np.eye(4)
    affine[:3, :3] = orientation * [pixel_mm, pixel_mm, step_mm]
    affine[:3, 3] = np.array(HEAD_CENTRE_LPS) - affine[:3, :3] @ (
        (np.array([matrix, matrix, slice_count]) - 1) / 2
    )
    person = export.patient.person
    shape = (matrix, matrix)
    layers = [
        render_plane(
            person.head,
            person.tissue_signals,
            (sequence,),
            compute_plane_points(affine, number, shape),
            shape,
        ).signal.reshape(shape)
        for number in range(slice_count)
    ]
    return simulate_scan(np.stack(layers), affine, 0.03, export.rng), affine


def _create_diffusion(export: DicomExport) -> list[list[Dataset]]:
    """Create an echo-planar series with b = 0 and b = 1000, and its ADC map, on the slices of T2."""
    reference = export.patient.study.series[MRSequence.T2]
    image, affine = _downsample_in_plane(reference.image, reference.affine)
    step_mm = float(np.linalg.norm(affine[:3, 2]))
    diffusivity = _simulate_diffusivity(image)
    header = _create_mr_header(
        export, "DWI b1000" if export.rng.random() < 0.5 else "ep2d_diff_3scan_trace", "EP", 4200.0, 78.0
    )
    header.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    files = []
    for number, b_value in enumerate((0.0, 1000.0)):
        header.InstanceNumber = number * len(image)
        header.DiffusionBValue = b_value
        weighted_image = image * np.exp(-b_value * diffusivity / 1e6)
        files += [
            create_slice_image(export, header, weighted_image[slice_index], affine, slice_index, step_mm)
            for slice_index in range(len(image))
        ]
    derived = _create_mr_header(export, "Apparent Diffusion Coefficient (mm2/s)", "EP", 4200.0, 78.0)
    derived.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
    return [
        files,
        [
            create_slice_image(export, derived, diffusivity[at], affine, at, step_mm)
            for at in range(len(image))
        ],
    ]


def _downsample_in_plane(image: FloatArray, affine: DoubleArray) -> tuple[FloatArray, DoubleArray]:
    """Downsample a volume by 2 in the plane, after smoothing; return also the new affine."""
    coarse = affine.copy()
    coarse[:3, :2] *= 2
    return ndimage.gaussian_filter(image, (0, 1.2, 1.2))[:, ::2, ::2], coarse


def _simulate_diffusivity(image: FloatArray) -> FloatArray:
    """Simulate diffusion coefficients (1e-6 mm2/s) from a T2 image: high in fluid, lower in tissue, 0 in air."""
    brightness = image / max(float(np.percentile(image, 99)), 1.0)
    return np.where(brightness > 0.08, 700 + 2300 * np.clip(brightness * 1.4 - 0.6, 0, 1), 0).astype(
        np.float32
    )


def _create_coronal_reformat(export: DicomExport) -> Iterator[Dataset]:
    """Create coronal reformats of the contrast-enhanced series."""
    header = _create_mr_header(export, "MPR Cor T1+C", "SE", 560.0, 11.0)
    header.ImageType = ["DERIVED", "SECONDARY", "MPR"]
    header.ContrastBolusAgent = "Gd-DTPA"
    image, affine = _render_view(export, MRSequence.T1C, _CORONAL, 192, 1.25, 6, 12.0)
    for number, layer in enumerate(image):
        yield create_slice_image(export, header, layer, affine, number, 12.0)


def _create_perfusion_map(export: DicomExport) -> Iterator[Dataset]:
    """Create a map of relative cerebral blood volume on the slices of T2."""
    reference = export.patient.study.series[MRSequence.T2]
    image, affine = _downsample_in_plane(reference.image, reference.affine)
    header = _create_mr_header(export, "rCBV_LOCAL", "EP", 1500.0, 30.0)
    header.ImageType = ["DERIVED", "SECONDARY", "PERFUSION", "RCBV"]
    header.ContrastBolusAgent = "Gd-DTPA"
    vessels = ndimage.gaussian_gradient_magnitude(image, 1.0)
    for number, layer in enumerate(vessels):
        yield create_slice_image(export, header, layer, affine, number, float(np.linalg.norm(affine[:3, 2])))


def _create_mr_header(
    export: DicomExport, description: str, technique: str, repetition_ms: float, echo_ms: float
) -> Dataset:
    """Create the header of a further MR series; times in ms."""
    header = export.create_series_header(description)
    header.ScanningSequence, header.SequenceVariant, header.ScanOptions = technique, "NONE", ""
    header.MRAcquisitionType, header.EchoTrainLength = "2D", 1
    header.RepetitionTime, header.EchoTime = f"{repetition_ms:.1f}", f"{echo_ms:.1f}"
    return header


def _create_screenshot(export: DicomExport) -> Dataset:
    """Create a screenshot with the patient's name burned in."""
    file = export.create_series_header("Screen Save", "OT")
    file.SOPClassUID, file.SOPInstanceUID = SecondaryCaptureImageStorage, export.create_uid("screenshot")
    file.InstanceNumber, file.ConversionType, file.BurnedInAnnotation = 1, "WSD", "YES"
    file.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    reference = export.patient.study.series[MRSequence.T2].image
    middle = reference[len(reference) // 2]
    grey = np.clip(middle / max(float(middle.max()), 1.0) * 255, 0, 255).astype(np.uint8)
    shown = Image.fromarray(grey).resize((512, 512))
    name = str(file.PatientName).split("=")[0]
    ImageDraw.Draw(shown).text((8, 8), f"{name}  {file.PatientID}  {file.StudyDate}", fill=255)
    set_pixels(file, np.asarray(shown))
    return file


def _create_report(export: DicomExport) -> Dataset:
    """Create a radiologist's report (Basic Text SR) that contains the patient's name."""
    file = export.create_series_header("Report", "SR")
    file.SOPClassUID, file.SOPInstanceUID = BasicTextSRStorage, export.create_uid("report")
    file.InstanceNumber, file.CompletionFlag, file.VerificationFlag = 1, "COMPLETE", "UNVERIFIED"
    file.ValueType, file.ContinuityOfContent = "CONTAINER", "SEPARATE"
    file.ConceptNameCodeSequence = [CodedConcept("18748-4", "LN", "Diagnostic imaging report")]
    sentence = Dataset()
    sentence.RelationshipType, sentence.ValueType = "CONTAINS", "TEXT"
    sentence.ConceptNameCodeSequence = [CodedConcept("121071", "DCM", "Finding")]
    side = "left" if export.patient.person.head.tumour_centre_lps[0] > 0 else "right"
    name = str(file.PatientName).split("=")[0].replace("^", " ")
    sentence.TextValue = f"{name}: space-occupying lesion in the {side} hemisphere, glioma suspected."
    file.ContentSequence = [sentence]
    file.PerformedProcedureCodeSequence = []
    file.ReferencedPerformedProcedureStepSequence = []
    return file


def create_segmentation(export: DicomExport, source_images: list[Dataset]) -> Dataset:
    """Create the reader's segmentation as DICOM SEG that references the images of the T2 series."""
    mask = export.patient.study.lesion
    assert mask is not None  # hospital patients always have a lesion
    for image in source_images:  # highdicom requires the transfer syntax of source images
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = export.create_series_header("Lesion outline", "SEG")
    algorithm = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="tumour core"
        if export.patient.settings.segmented_region == "core"
        else "FLAIR abnormality",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning about a patient's name without a family name
        file = highdicom.seg.Segmentation(
            source_images=source_images,
            pixel_array=mask.image.astype(np.uint8),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[algorithm],
            series_instance_uid=header.SeriesInstanceUID,
            series_number=header.SeriesNumber,
            sop_instance_uid=export.create_uid("segmentation"),
            instance_number=1,
            manufacturer="gliomark",
            manufacturer_model_name="synthetic reader",
            software_versions="1",
            device_serial_number="1",
            content_creator_name=str(export.rng.choice(["Liu^Yang", "Huang^Lei"])),
            series_description="Lesion outline",
        )
    # times and UIDs set by highdicom would differ between exports
    for keyword in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        if keyword in file:
            setattr(file, keyword, header.StudyDate)
    for keyword in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        if keyword in file:
            setattr(file, keyword, header.SeriesTime)
    for item in file.get("ContributingEquipmentSequence", ()):
        item.ContributionDateTime = header.StudyDate + header.SeriesTime
    organisation = export.create_uid("dimensions")
    for item in (*file.DimensionOrganizationSequence, *file.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    return file

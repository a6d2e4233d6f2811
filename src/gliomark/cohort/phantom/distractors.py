"""What a hospital's export holds beside the four sequences: scouts, diffusion, maps, screenshots, reports, a mask."""

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

from gliomark.cohort.phantom.dicom import Export, picture, set_pixels
from gliomark.cohort.phantom.head import CENTRE_LPS, Floats
from gliomark.cohort.phantom.paint import paint, plane, scan
from gliomark.study import MRSequence

Doubles = NDArray[np.float64]
# The three directions a scout or reformat looks along: rows and columns of the picture, then the way to the next.
_AXIAL = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], float).T
_SAGITTAL = np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]], float).T
_CORONAL = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], float).T


def distractors(export: Export) -> list[list[Dataset]]:
    """Every further series, each a list of files."""
    derived = _perfusion if export.chance.random() < 0.5 else _reformat
    return [
        list(_scouts(export)),
        list(_sagittal(export)),
        *_diffusion(export),
        list(derived(export)),
        [_screenshot(export)],
        [_report(export)],
    ]


def _scouts(export: Export) -> Iterator[Dataset]:
    """The three-plane localiser: one series, three orientations."""
    header = _plain(
        export, "3-plane Loc" if export.vendor.manufacturer[0] in "GP" else "localizer", "GR", 8.6, 4.0
    )
    header.ImageType = (
        ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]
        if export.vendor.manufacturer[0] == "S"
        else ["ORIGINAL", "PRIMARY", "OTHER"]
    )
    for number, turn in enumerate((_AXIAL, _SAGITTAL, _CORONAL)):
        image, affine = _look(export, MRSequence.T1, turn, 128, 2.0, 3, 12.0)
        header.InstanceNumber = 3 * number
        for place in range(3):
            yield picture(export, header, image[place], affine, place, 12.0)


def _sagittal(export: Export) -> Iterator[Dataset]:
    """Sagittal T1 in thick slices."""
    name = "矢状位 T1" if export.vendor.manufacturer == "UIH" else "Sag T1 SE"
    header = _plain(export, name, "SE", 520.0, 11.0)
    header.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    image, affine = _look(export, MRSequence.T1, _SAGITTAL, 192, 1.25, 19, 6.5)
    for number, layer in enumerate(image):
        yield picture(export, header, layer, affine, number, 6.5)


def _look(
    export: Export,
    sequence: MRSequence,
    turn: Doubles,
    matrix: int,
    pixel_mm: float,
    count: int,
    step_mm: float,
) -> tuple[Floats, Doubles]:
    """A few thin layers through the head at rest, ``(slice, row, column)``, and their affine."""
    affine = np.eye(4)
    affine[:3, :3] = turn * [pixel_mm, pixel_mm, step_mm]
    affine[:3, 3] = np.array(CENTRE_LPS) - affine[:3, :3] @ ((np.array([matrix, matrix, count]) - 1) / 2)
    person = export.patient.person
    shape = (matrix, matrix)
    layers = [
        paint(person.head, person.tissue, (sequence,), plane(affine, number, shape), shape).signal.reshape(
            shape
        )
        for number in range(count)
    ]
    return scan(np.stack(layers), affine, 0.03, export.chance), affine


def _diffusion(export: Export) -> list[list[Dataset]]:
    """b = 0 and b = 1000 in one echo-planar series, and the ADC map made of them, on T2's slices."""
    reference = export.patient.study.series[MRSequence.T2]
    image, affine = _halved(reference.image, reference.affine)
    step_mm = float(np.linalg.norm(affine[:3, 2]))
    diffusivity = _diffusivity(image)
    header = _plain(
        export, "DWI b1000" if export.chance.random() < 0.5 else "ep2d_diff_3scan_trace", "EP", 4200.0, 78.0
    )
    header.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    files = []
    for number, weight in enumerate((0.0, 1000.0)):
        header.InstanceNumber = number * len(image)
        header.DiffusionBValue = weight
        shown = image * np.exp(-weight * diffusivity / 1e6)
        files += [picture(export, header, shown[at], affine, at, step_mm) for at in range(len(image))]
    derived = _plain(export, "Apparent Diffusion Coefficient (mm2/s)", "EP", 4200.0, 78.0)
    derived.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]
    return [
        files,
        [picture(export, derived, diffusivity[at], affine, at, step_mm) for at in range(len(image))],
    ]


def _halved(image: Floats, affine: Doubles) -> tuple[Floats, Doubles]:
    """Every second pixel of a smoothed volume, and its affine."""
    coarse = affine.copy()
    coarse[:3, :2] *= 2
    return ndimage.gaussian_filter(image, (0, 1.2, 1.2))[:, ::2, ::2], coarse


def _diffusivity(image: Floats) -> Floats:
    """A diffusion coefficient in 1e-6 mm2/s for a T2 image: fluid diffuses freely, tissue less, air not at all."""
    brightness = image / max(float(np.percentile(image, 99)), 1.0)
    return np.where(brightness > 0.08, 700 + 2300 * np.clip(brightness * 1.4 - 0.6, 0, 1), 0).astype(
        np.float32
    )


def _reformat(export: Export) -> Iterator[Dataset]:
    """Coronal reformats through the contrast series."""
    header = _plain(export, "MPR Cor T1+C", "SE", 560.0, 11.0)
    header.ImageType = ["DERIVED", "SECONDARY", "MPR"]
    header.ContrastBolusAgent = "Gd-DTPA"
    image, affine = _look(export, MRSequence.T1C, _CORONAL, 192, 1.25, 6, 12.0)
    for number, layer in enumerate(image):
        yield picture(export, header, layer, affine, number, 12.0)


def _perfusion(export: Export) -> Iterator[Dataset]:
    """A map of relative blood volume, on T2's slices."""
    reference = export.patient.study.series[MRSequence.T2]
    image, affine = _halved(reference.image, reference.affine)
    header = _plain(export, "rCBV_LOCAL", "EP", 1500.0, 30.0)
    header.ImageType = ["DERIVED", "SECONDARY", "PERFUSION", "RCBV"]
    header.ContrastBolusAgent = "Gd-DTPA"
    vessels = ndimage.gaussian_gradient_magnitude(image, 1.0)
    for number, layer in enumerate(vessels):
        yield picture(export, header, layer, affine, number, float(np.linalg.norm(affine[:3, 2])))


def _plain(export: Export, description: str, technique: str, repetition: float, echo: float) -> Dataset:
    """The header of a further MR series."""
    header = export.open_series(description)
    header.ScanningSequence, header.SequenceVariant, header.ScanOptions = technique, "NONE", ""
    header.MRAcquisitionType, header.EchoTrainLength = "2D", 1
    header.RepetitionTime, header.EchoTime = f"{repetition:.1f}", f"{echo:.1f}"
    return header


def _screenshot(export: Export) -> Dataset:
    """A screenshot with the patient's name burnt into it."""
    file = export.open_series("Screen Save", "OT")
    file.SOPClassUID, file.SOPInstanceUID = SecondaryCaptureImageStorage, export.uid("screenshot")
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


def _report(export: Export) -> Dataset:
    """A radiologist's report as structured text, with the patient's name in a sentence."""
    file = export.open_series("Report", "SR")
    file.SOPClassUID, file.SOPInstanceUID = BasicTextSRStorage, export.uid("report")
    file.InstanceNumber, file.CompletionFlag, file.VerificationFlag = 1, "COMPLETE", "UNVERIFIED"
    file.ValueType, file.ContinuityOfContent = "CONTAINER", "SEPARATE"
    file.ConceptNameCodeSequence = [CodedConcept("18748-4", "LN", "Diagnostic imaging report")]
    sentence = Dataset()
    sentence.RelationshipType, sentence.ValueType = "CONTAINS", "TEXT"
    sentence.ConceptNameCodeSequence = [CodedConcept("121071", "DCM", "Finding")]
    side = "left" if export.patient.person.head.tumour_lps[0] > 0 else "right"
    name = str(file.PatientName).split("=")[0].replace("^", " ")
    sentence.TextValue = f"{name}: space-occupying lesion in the {side} hemisphere, glioma suspected."
    file.ContentSequence = [sentence]
    file.PerformedProcedureCodeSequence = []
    file.ReferencedPerformedProcedureStepSequence = []
    return file


def segmentation(export: Export, images: list[Dataset]) -> Dataset:
    """The reader's outline as a DICOM SEG that refers to the T2 series."""
    mask = export.patient.study.lesion
    assert mask is not None  # a phantom is always outlined
    for image in images:  # highdicom looks at the coding of what it refers to
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = export.open_series("Lesion outline", "SEG")
    algorithm = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="tumour core" if export.patient.settings.outline == "core" else "FLAIR abnormality",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a patient's name without a family part is meant so here
        file = highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=mask.image.astype(np.uint8),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[algorithm],
            series_instance_uid=header.SeriesInstanceUID,
            series_number=header.SeriesNumber,
            sop_instance_uid=export.uid("segmentation"),
            instance_number=1,
            manufacturer="gliomark",
            manufacturer_model_name="synthetic reader",
            software_versions="1",
            device_serial_number="1",
            content_creator_name=str(export.chance.choice(["Liu^Yang", "Huang^Lei"])),
            series_description="Lesion outline",
        )
    # its clock and its random number would differ from one export to the next
    for keyword in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        if keyword in file:
            setattr(file, keyword, header.StudyDate)
    for keyword in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        if keyword in file:
            setattr(file, keyword, header.SeriesTime)
    for item in file.get("ContributingEquipmentSequence", ()):
        item.ContributionDateTime = header.StudyDate + header.SeriesTime
    organisation = export.uid("dimensions")
    for item in (*file.DimensionOrganizationSequence, *file.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    return file

"""One synthetic patient in many file variants: harmless ones give the same result, harmful ones an error.

The same head is written in all kinds of files that users have (formats, bit depths, orders, orientations, units, names,
compressions, photometric interpretations, tables). A harmless variant must give the segmentation of the plain files
(Dice at least 0.97) and the same probability (within 0.02). A harmful variant, which cannot be read with certainty,
must raise an error that names the problem.

If a variant is read as exactly the same values as an earlier one, the earlier prediction is reused.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from gliomark import load_model, predict
from gliomark.errors import GliomarkError
from gliomark.io import find_patients, read_clinical_table, read_study
from gliomark.phantom import PhantomSettings, create_phantom
from gliomark.prediction import Prediction
from gliomark.study import ClinicalData, MRSequence, Study

# Lesion and head are the phantom's; the coarser grid only shortens the fifty predictions.
SETTINGS = PhantomSettings(matrix=160, spacing_mm=(1.4, 1.4), slice_count=20, slice_mm=7.5, sublayers=1)
PATIENT = "PHANTOM-0007"
PAIR = ("T1C", "FLAIR")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
Grey = NDArray[np.int16]
Make = Callable[[Path, "Head"], Any]


@dataclass(frozen=True, eq=False)
class Head:
    """The plain patient: grey values ``(slice, row, column)`` by name, and their affine ``(4, 4)`` to LPS mm."""

    images: Mapping[str, Grey]
    affine: NDArray[np.float64]

    def list_series(self) -> list[tuple[str, Grey]]:
        """Return the sequences that the shipped model needs: T1C and FLAIR."""
        return [(name, self.images[name]) for name in PAIR]


@dataclass(frozen=True)
class Case:
    """A file variant. make: writes the patient's folder (and optionally ``clinical.csv`` next to it)."""

    name: str
    make: Make
    like: str = "volumes"  # the plain form whose result it must give
    error_text: str = ""  # what the error message must contain


@pytest.fixture(scope="session")
def head() -> Head:
    phantom = create_phantom(7, SETTINGS)
    images = {
        str(name): np.rint(series.image).astype(np.int16) for name, series in phantom.study.series.items()
    }
    assert phantom.study.lesion is not None
    images["mask"] = phantom.study.lesion.image.astype(np.int16)
    return Head(images, phantom.study.series[MRSequence.T1C].affine)


@dataclass(frozen=True, eq=False)
class Predictor:
    """The model, and its predictions for each set of images so far."""

    model: Any
    known: dict[str, Prediction]

    def predict_folder(self, folder: Path) -> Prediction:
        """Predict by the usual steps: find the patient, read the study, get the clinical row, predict."""
        [found] = find_patients(folder)
        study = read_study(found)
        row = read_row(folder, study.patient_id)
        key = compute_fingerprint(study, row)
        if key not in self.known:
            self.known[key] = predict(study, row, self.model)
        return self.known[key]


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """The shipped model without its check of the images, which refuses the coarse grid."""
    return Predictor(replace(load_model("demo"), known_range=None), {})


def read_row(folder: Path, patient_id: str) -> ClinicalData:
    tables = [*folder.parent.glob("clinical.*")]
    return read_clinical_table(tables[0]).get_row(patient_id) if tables else ClinicalData(patient_id, 49.0, 1)


def compute_fingerprint(study: Study, row: ClinicalData) -> str:
    """Compute a hash that is equal for equal grey values and positions, independent of file names."""
    digest = hashlib.sha256(f"{row.age} {row.sex} {study.kind} {study.aligned}".encode())
    for name in PAIR:
        if name in study.series:
            series = study.series[MRSequence(name)]
            digest.update(f"{name} {series.image.shape} {np.round(series.affine, 2) + 0.0}".encode())
            digest.update(np.round(series.image, 2).tobytes())
    digest.update(b"" if study.lesion is None else study.lesion.image.tobytes())
    return digest.hexdigest()


# ---- volumes ----------------------------------------------------------------------------------------


def to_nifti(image: NDArray[Any], affine: NDArray[np.float64], kind: Any = nib.Nifti1Image) -> Any:
    """Convert to NIfTI, which has the index order (column, row, slice) and RAS coordinates."""
    nifti = kind(image.transpose(2, 1, 0), LPS_TO_RAS @ affine)
    nifti.header.set_xyzt_units("mm")
    return nifti


def write_volumes(
    change: Callable[[Any], Any] = lambda image: image,
    name: str = "{}.nii.gz",
    dtype: Any = np.int16,
    kind: Any = nib.Nifti1Image,
) -> Make:
    """Write every sequence as NIfTI after a change."""

    def make(folder: Path, head: Head) -> None:
        for sequence, image in head.list_series():
            file = folder / name.format(sequence)
            file.parent.mkdir(parents=True, exist_ok=True)
            nib.save(change(to_nifti(image.astype(dtype), head.affine, kind)), file)

    return make


def write_named_volumes(t1c: str, flair: str) -> Make:
    """Write plain NIfTI with other names."""

    def make(folder: Path, head: Head) -> None:
        for file, (_, image) in zip((t1c, flair), head.list_series(), strict=True):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            nib.save(to_nifti(image, head.affine), folder / file)

    return make


def reorient(axes: str) -> Callable[[Any], Any]:
    def turn(image: Any) -> Any:
        orientation = nib.orientations.axcodes2ornt(axes)
        return image.as_reoriented(
            nib.orientations.ornt_transform(nib.orientations.io_orientation(image.affine), orientation)
        )

    return turn


def change_units(unit: str, factor: float) -> Callable[[Any], Any]:
    def change(image: Any) -> Any:
        affine = image.affine.copy()
        affine[:3] *= factor
        nifti = nib.Nifti1Image(np.asarray(image.dataobj), affine)
        nifti.header.set_xyzt_units(unit, "sec")
        return nifti

    return change


def set_form_codes(sform: int, qform: int) -> Callable[[Any], Any]:
    """Set the form codes; a form with code 0 is not written."""

    def change(image: Any) -> Any:
        affine = image.affine.copy()  # set_sform changes the image's own affine
        image.set_sform(affine if sform else None, sform)
        image.set_qform(affine if qform else None, qform)
        return image

    return change


def store_with_slope(image: Any) -> Any:
    """Store (value + 10) / 0.5, with the inverse slope and intercept."""
    stored = ((np.asarray(image.dataobj).astype(np.int32) + 10) * 2).astype(np.int16)
    nifti = nib.Nifti1Image(stored, image.affine)
    nifti.header.set_slope_inter(0.5, -10)
    return nifti


def change_values(change: Callable[[NDArray[np.float32]], None]) -> Callable[[Any], Any]:
    """Convert to float32 ``(column, row, slice)`` and change some voxels."""

    def apply(image: Any) -> Any:
        values = np.asarray(image.dataobj).astype(np.float32)
        change(values)
        return nib.Nifti1Image(values, image.affine)

    return apply


def set_corner(value: float) -> Callable[[NDArray[np.float32]], None]:
    def change(values: NDArray[np.float32]) -> None:
        values[:4, :4, :] = value

    return change


def set_middle(value: float) -> Callable[[NDArray[np.float32]], None]:
    def change(values: NDArray[np.float32]) -> None:
        values[70:90, 70:90, 9] = value

    return change


def double_values(values: NDArray[np.float32]) -> None:
    values *= 2


def write_itk(suffix: str, compress: bool = False) -> Make:
    def make(folder: Path, head: Head) -> None:
        folder.mkdir(parents=True)
        for name, image in head.list_series():
            volume = sitk.GetImageFromArray(image)
            volume.SetSpacing([float(step) for step in np.linalg.norm(head.affine[:3, :3], axis=0)])
            volume.SetOrigin([float(at) for at in head.affine[:3, 3]])
            sitk.WriteImage(volume, str(folder / (name + suffix)), useCompression=compress)

    return make


def write_nnunet(channels: Mapping[str, str] | None) -> Make:
    def make(folder: Path, head: Head) -> None:
        write_named_volumes(f"{PATIENT}_0000.nii.gz", f"{PATIENT}_0001.nii.gz")(folder, head)
        if channels is not None:
            description = {
                "channel_names": channels,
                "labels": {"background": 0, "lesion": 1},
                "file_ending": ".nii.gz",
            }
            (folder / "dataset.json").write_text(json.dumps(description))

    return make


def write_all_sequences(folder: Path, head: Head) -> None:
    """Write all four sequences; the additional ones must not change the result."""
    write_volumes()(folder, head)
    for name in ("T1", "T2"):
        nib.save(to_nifti(head.images[name], head.affine), folder / f"{name}.nii.gz")


def write_truncated_volume(fraction: float) -> Make:
    def make(folder: Path, head: Head) -> None:
        write_volumes()(folder, head)
        file = folder / "FLAIR.nii.gz"
        file.write_bytes(file.read_bytes()[: int(fraction * file.stat().st_size)])

    return make


def overwrite_header(folder: Path, name: str, offset: int, form: str, *values: float) -> None:
    """Overwrite a part of a NIfTI header with values that nibabel would not write."""
    file = folder / f"{name}.nii.gz"
    raw = bytearray(gzip.decompress(file.read_bytes()))
    struct.pack_into(form, raw, offset, *values)
    file.write_bytes(gzip.compress(bytes(raw)))


def write_with_header_values(
    offset: int, form: str, *values: float, names: tuple[str, ...] = PAIR, change: Any = None
) -> Make:
    def make(folder: Path, head: Head) -> None:
        write_volumes(change or (lambda image: image))(folder, head)
        for name in names:
            overwrite_header(folder, name, offset, form, *values)

    return make


def mirror_qform(image: Any) -> Any:
    other = image.affine.copy()
    other[0] *= -1
    image.set_sform(image.affine, 1)
    image.set_qform(other, 1)
    return image


def shear(image: Any) -> Any:
    affine = image.affine.copy()
    affine[0, 1] += 0.4 * affine[1, 1]
    return nib.Nifti1Image(np.asarray(image.dataobj), affine)


def write_only(*names: str, file: str = "{}.nii.gz") -> Make:
    def make(folder: Path, head: Head) -> None:
        folder.mkdir(parents=True)
        for name in names:
            nib.save(to_nifti(head.images[name], head.affine), folder / file.format(name))

    return make


def write_with_one_unoriented(folder: Path, head: Head) -> None:
    write_volumes()(folder, head)
    image = nib.load(folder / "FLAIR.nii.gz")
    bare = nib.Nifti1Image(np.asarray(image.dataobj), None)
    bare.header.set_zooms(image.header.get_zooms())
    nib.save(bare, folder / "FLAIR.nii.gz")


def write_colour_volume(folder: Path, head: Head) -> None:
    write_volumes()(folder, head)
    colours = np.zeros(head.images["FLAIR"].T.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(colours, np.eye(4)), folder / "FLAIR.nii.gz")


def write_time_series(folder: Path, head: Head) -> None:
    write_volumes()(folder, head)
    image = np.stack([head.images["FLAIR"].transpose(2, 1, 0)] * 3, axis=3)
    nib.save(nib.Nifti1Image(image, LPS_TO_RAS @ head.affine), folder / "FLAIR.nii.gz")


# ---- DICOM ------------------------------------------------------------------------------------------

HEADERS = {
    "T1C": {
        "SeriesDescription": "t1_se_tra_CE", "RepetitionTime": 500, "EchoTime": 12, "ContrastBolusAgent": "Gadovist",
    },
    "FLAIR": {
        "SeriesDescription": "t2_tirm_tra_dark-fluid", "RepetitionTime": 9000, "EchoTime": 110, "InversionTime": 2500,
    },
}  # fmt: skip


def create_dicom_slice(name: str, image: Grey, affine: NDArray[np.float64], number: int, uid: str) -> Dataset:
    """Create one single-frame MR object."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = MRImageStorage, generate_uid(), "MR"
    file.PatientID, file.PatientName, file.PatientBirthDate = PATIENT, "Phantom^Seven", ""
    file.StudyInstanceUID, file.StudyDate, file.StudyTime = (
        "1.2.826.0.1.3680043.8.498.7",
        "20200102",
        "101500",
    )
    file.SeriesInstanceUID, file.FrameOfReferenceUID = uid, "1.2.826.0.1.3680043.8.498.8"
    file.SeriesNumber, file.InstanceNumber = 3 + PAIR.index(name), number + 1
    file.MRAcquisitionType, file.ScanningSequence, file.SequenceVariant = "2D", "SE", "NONE"
    file.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    for tag, value in HEADERS[name].items():
        setattr(file, tag, value)
    file.Rows, file.Columns = image.shape[1:]
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    file.PixelSpacing, file.SliceThickness = [float(steps[1]), float(steps[0])], float(steps[2])
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.ImagePositionPatient = [float(at) for at in affine[:3, 3] + number * affine[:3, 2]]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    set_pixels(file, image[number].astype(np.uint16), stored=12)
    return file


def set_pixels(file: Dataset, pixels: NDArray[Any], stored: int = 16) -> None:
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, stored, stored - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes()
    file["PixelData"].VR = "OW"


def write_dicom(change: Callable[[Dataset], Any] = lambda file: None, syntax: str = "") -> Make:
    """Write both sequences as single-frame files in one folder each, each file changed."""

    def make(folder: Path, head: Head) -> None:
        for name, image in head.list_series():
            uid = generate_uid()
            for number in range(len(image)):
                file = create_dicom_slice(name, image, head.affine, number, uid)
                change(file)
                save_dicom(file, folder / name / f"{number:03d}.dcm", syntax)

    return make


def save_dicom(file: Dataset, path: Path, syntax: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax in (RLELossless, JPEG2000Lossless):
        file.compress(syntax, encoding_plugin="pylibjpeg" if syntax == JPEG2000Lossless else "pydicom")
    elif syntax:
        file.file_meta.TransferSyntaxUID = syntax
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    if syntax == ExplicitVRBigEndian:
        file.PixelData = np.frombuffer(file.PixelData, "<u2").astype(">u2").tobytes()
        pydicom.dcmwrite(path, file, implicit_vr=False, little_endian=False)
        return
    pydicom.dcmwrite(path, file, enforce_file_format=True)


def read_pixels(file: Dataset) -> NDArray[Any]:
    return np.frombuffer(file.PixelData, "<u2").reshape(file.Rows, file.Columns).astype(np.int32)


def invert_greys(file: Dataset) -> None:
    file.PhotometricInterpretation = "MONOCHROME1"
    set_pixels(file, (4095 - read_pixels(file)).astype(np.uint16), stored=12)


def pad_corners(file: Dataset) -> None:
    """Set the image's corners to a padding value brighter than any tissue."""
    pixels = read_pixels(file)
    corner = np.zeros(pixels.shape, bool)
    corner[:10, :10] = corner[-10:, :10] = True
    file.PixelPaddingValue = 4095
    set_pixels(file, np.where(corner, 4095, pixels).astype(np.uint16), stored=12)


def store_signed(file: Dataset) -> None:
    set_pixels(file, (read_pixels(file) - 1024).astype(np.int16))
    file.RescaleSlope, file.RescaleIntercept = 1, 1024


def scale_by_slice(file: Dataset) -> None:
    """Store every second slice twice as bright, with the matching rescale slope."""
    factor = 1 + int(file.InstanceNumber) % 2
    set_pixels(file, (read_pixels(file) * factor).astype(np.uint16))
    file.RescaleSlope, file.RescaleIntercept = 1 / factor, 0


def set_overlay_bits(file: Dataset) -> None:
    """Set overlay data in the bits above BitsStored."""
    pixels = read_pixels(file)
    pixels[40:60, 40:60] |= 0x3000
    set_pixels(file, pixels.astype(np.uint16), stored=12)


def reverse_numbers(file: Dataset) -> None:
    file.InstanceNumber = 100 - int(file.InstanceNumber)


def jitter_orientation(file: Dataset) -> None:
    angle = 1e-7 * (int(file.InstanceNumber) % 5)
    file.ImageOrientationPatient = [1, angle, 0, -angle, 1, 0]


def remove_tags(*tags: str) -> Callable[[Dataset], None]:
    def change(file: Dataset) -> None:
        for tag in tags:
            delattr(file, tag)

    return change


def set_tags(**tags: Any) -> Callable[[Dataset], None]:
    def change(file: Dataset) -> None:
        for tag, value in tags.items():
            setattr(file, tag, value)

    return change


def write_copies(folder: Path, head: Head) -> None:
    """Write T1C twice, the second time with new UIDs."""
    write_dicom()(folder, head)
    series = generate_uid()
    for path in sorted((folder / "T1C").iterdir()):
        file = pydicom.dcmread(path)
        file.SeriesInstanceUID, file.SOPInstanceUID = series, generate_uid()
        save_dicom(file, folder / "again" / path.name)


def write_with_later_examination(folder: Path, head: Head) -> None:
    """Write a second examination years later, half as bright."""
    write_dicom()(folder, head)
    for name, image in head.list_series():
        uid = generate_uid()
        for number in range(len(image)):
            file = create_dicom_slice(name, image // 2, head.affine, number, uid)
            file.StudyInstanceUID, file.StudyDate = "1.2.826.0.1.3680043.8.498.99", "20991231"
            save_dicom(file, folder / f"{name} later" / f"{number:03d}.dcm")


def write_with_damaged_object(folder: Path, head: Head) -> None:
    write_dicom()(folder, head)
    (folder / "PR.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0\0\0\0\0")


def write_into_one_folder(folder: Path, head: Head) -> None:
    """Move all files into one folder, without suffix and order."""
    write_dicom()(folder, head)
    names = np.random.default_rng(1).permutation(1000)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for name, file in zip(names, files, strict=False):
        file.rename(folder / f"IM{name:04d}")
    for name in PAIR:
        (folder / name).rmdir()


def write_enhanced(folder: Path, head: Head) -> None:
    """Write one multi-frame object per sequence."""
    for name, image in head.list_series():
        file = create_dicom_slice(name, image, head.affine, 0, generate_uid())
        file.SOPClassUID = EnhancedMRImageStorage
        file.NumberOfFrames = len(image)
        frames = []
        for number in range(len(image)):
            frame = Dataset()
            position, content = Dataset(), Dataset()
            position.ImagePositionPatient = [
                float(at) for at in head.affine[:3, 3] + number * head.affine[:3, 2]
            ]
            content.InStackPositionNumber, content.StackID = number + 1, "1"
            content.DimensionIndexValues = [1, number + 1]
            frame.PlanePositionSequence = DicomSequence([position])
            frame.FrameContentSequence = DicomSequence([content])
            frames.append(frame)
        common, orientation, measures = Dataset(), Dataset(), Dataset()
        orientation.ImageOrientationPatient = file.ImageOrientationPatient
        measures.PixelSpacing, measures.SliceThickness = file.PixelSpacing, file.SliceThickness
        common.PlaneOrientationSequence = DicomSequence([orientation])
        common.PixelMeasuresSequence = DicomSequence([measures])
        file.SharedFunctionalGroupsSequence = DicomSequence([common])
        file.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            delattr(file, tag)
        set_pixels(file, image.astype(np.uint16), stored=12)
        save_dicom(file, folder / f"{name}.dcm")


def write_with_changed_slice(change: Callable[[Path], None], name: str = "T1C", number: int = 9) -> Make:
    """Write plain DICOM with one changed file."""

    def make(folder: Path, head: Head) -> None:
        write_dicom()(folder, head)
        change(folder / name / f"{number:03d}.dcm")

    return make


def truncate_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def change_object(change: Callable[[Dataset], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        file = pydicom.dcmread(path)
        change(file)
        save_dicom(file, path)

    return apply


def set_position_to_nan(file: Dataset) -> None:
    tag = Tag(0x00200032)
    encoding = file.original_encoding if hasattr(file, "original_encoding") else (False, True)
    file._dict[tag] = RawDataElement(tag, "DS", 12, b"nan\\nan\\nan ", 0, *encoding)


def convert_to_colour(file: Dataset) -> None:
    pixels = np.repeat(read_pixels(file)[:, :, None] // 8, 3, axis=2).astype(np.uint8)
    pixels[:20, :20] = (255, 0, 0)
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.PixelData = pixels.tobytes()


def write_without_three_slices(folder: Path, head: Head) -> None:
    write_dicom()(folder, head)
    for number in (9, 10, 11):
        (folder / "T1C" / f"{number:03d}.dcm").unlink()


def write_with_duplicate_uid(folder: Path, head: Head) -> None:
    """Write two objects with the same SOP Instance UID and different pixels."""
    write_dicom()(folder, head)
    first, second = (pydicom.dcmread(folder / "T1C" / f"{number:03d}.dcm") for number in (9, 10))
    second.SOPInstanceUID = first.SOPInstanceUID
    save_dicom(second, folder / "T1C" / "010.dcm")


def write_two_patients(folder: Path, head: Head) -> None:
    write_into_one_folder(folder, head)
    for path in folder.iterdir():
        file = pydicom.dcmread(path)
        if file.SeriesNumber == 4:
            file.PatientID, file.PatientName = "OTHER-01", "Other^One"
            save_dicom(file, path)


# ---- pictures ---------------------------------------------------------------------------------------


def apply_window(image: Grey) -> NDArray[np.uint8]:
    return np.rint(np.clip(image / np.percentile(image, 99.7), 0, 1) * 255).astype(np.uint8)


def write_pictures(
    save: Callable[[NDArray[np.uint8], Path], Any] = lambda grey, path: Image.fromarray(grey).save(path),
    name: Callable[[int], str] = lambda number: f"{number + 1:03d}.png",
    folders: Mapping[str, str] | None = None,
) -> Make:
    def make(folder: Path, head: Head) -> None:
        for sequence, image in head.list_series():
            sequence_folder = folder / (folders or {}).get(sequence, sequence)
            sequence_folder.mkdir(parents=True)
            for number, grey in enumerate(apply_window(image)):
                save(grey, sequence_folder / name(number))

    return make


def save_as_rgba(grey: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(grey).convert("RGBA").save(path)


def save_as_sixteen_bit(grey: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)


def save_as_reversed_palette(grey: NDArray[np.uint8], path: Path) -> None:
    """Save with a palette in which index i is the grey value 255 - i."""
    picture = Image.fromarray(255 - grey, mode="P")
    picture.putpalette([level for index in range(256) for level in [255 - index] * 3])
    picture.save(path)


def save_as_min_is_white(grey: NDArray[np.uint8], path: Path) -> None:
    """Write a TIFF in which 0 is white; Pillow cannot write one."""
    rows, columns = grey.shape
    tags = [(256, 3, columns), (257, 3, rows), (258, 3, 8), (259, 3, 1), (262, 3, 0), (273, 4, 122), (277, 3, 1),
            (278, 3, rows), (279, 4, rows * columns)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    header = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(header.ljust(122, b"\0") + (255 - grey).tobytes())


def write_with_changed_picture(name: str, number: int, change: Callable[[Path], None]) -> Make:
    def make(folder: Path, head: Head) -> None:
        write_pictures()(folder, head)
        change(folder / name / f"{number:03d}.png")

    return make


def paint_red(path: Path) -> None:
    picture = Image.open(path).convert("RGB")
    picture.paste((255, 0, 0), (60, 60, 80, 80))
    picture.save(path)


def flatten(path: Path) -> None:
    Image.new("L", Image.open(path).size, 90).save(path)


def convert_to_sixteen_bit(path: Path) -> None:
    save_as_sixteen_bit(np.asarray(Image.open(path)), path)


def turn_by_exif(path: Path) -> None:
    picture = Image.open(path)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)


def shrink(path: Path) -> None:
    Image.open(path).resize((80, 80)).save(path)


def write_black_flair(folder: Path, head: Head) -> None:
    write_pictures()(folder, head)
    for path in (folder / "FLAIR").iterdir():
        Image.new("L", (160, 160)).save(path)


# ---- tables -----------------------------------------------------------------------------------------


def write_table(content: bytes | Callable[[Path], None], suffix: str = ".csv") -> Make:
    """Write plain volumes with this table next to them."""

    def make(folder: Path, head: Head) -> None:
        write_volumes()(folder, head)
        path = folder.parent / f"clinical{suffix}"
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)

    return make


def create_workbook_writer(*rows: tuple[Any, ...]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(path)

    return write


HARMLESS = [
    Case("uncompressed", write_volumes(name="{}.nii")),
    Case("float", write_volumes(dtype=np.float32)),
    Case("slope and intercept", write_volumes(store_with_slope)),
    Case("NIfTI-2", write_volumes(kind=nib.Nifti2Image)),
    Case("a fourth axis of length 1",
         write_volumes(lambda i: nib.Nifti1Image(np.asarray(i.dataobj)[..., None], i.affine))),
    Case("left to right reversed", write_volumes(reorient("RAS"))),
    Case("axes in another order", write_volumes(reorient("PSR"))),
    Case("sform alone", write_volumes(set_form_codes(1, 0))),
    Case("qform alone", write_volumes(set_form_codes(0, 1))),
    Case("template codes", write_volumes(set_form_codes(4, 1))),
    Case("metres", write_volumes(change_units("meter", 0.001))),
    Case("micrometres", write_volumes(change_units("micron", 1000.0))),
    Case("not a number in a corner", write_volumes(change_values(set_corner(np.nan)))),
    Case("twice as bright", write_volumes(change_values(double_values))),
    Case("one voxel of value 1e6", write_volumes(change_values(lambda v: v.__setitem__((3, 3, 3), 1e6)))),
    Case("BIDS names", write_named_volumes("sub-7_ce-gd_T1w.nii.gz", "sub-7_space-T1w_FLAIR.nii.gz")),
    Case("registered names", write_named_volumes("T1C.nii.gz", "FLAIR_to_T1C.nii.gz")),
    Case("Chinese names", write_named_volumes("T1增强.nii.gz", "T2_FLAIR平扫.nii.gz")),
    Case("BraTS names", write_named_volumes("P7_t1ce.nii.gz", "P7_flair.nii.gz")),
    Case("nnU-Net channels", write_nnunet({"0": "T1Gd", "1": "FLAIR"})),
    Case("all four sequences", write_all_sequences),
    Case("MetaImage", write_itk(".mha")),
    Case("MetaImage in two files, compressed", write_itk(".mhd", compress=True)),
    Case("NRRD", write_itk(".nrrd")),
    Case("DICOM", write_dicom()),
    Case("MONOCHROME1", write_dicom(invert_greys)),
    Case("bright padding", write_dicom(pad_corners)),
    Case("signed with an intercept", write_dicom(store_signed)),
    Case("different slopes of slices", write_dicom(scale_by_slice)),
    Case("overlay in the high bits", write_dicom(set_overlay_bits)),
    Case("no PhotometricInterpretation", write_dicom(remove_tags("PhotometricInterpretation"))),
    Case("no window, no thickness", write_dicom(remove_tags("SliceThickness"))),
    Case("RLE", write_dicom(syntax=RLELossless)),
    Case("implicit", write_dicom(syntax=ImplicitVRLittleEndian)),
    Case("big endian", write_dicom(syntax=ExplicitVRBigEndian)),
    Case("numbered backwards", write_dicom(reverse_numbers)),
    Case("no order, no suffix", write_into_one_folder),
    Case("rounding errors in orientations", write_dicom(jitter_orientation)),
    Case("copies under new UIDs", write_copies),
    Case("a later examination", write_with_later_examination),
    Case("an additional damaged object", write_with_damaged_object),
    Case("multi-frame", write_enhanced),
    Case("16 bits", write_pictures(save_as_sixteen_bit), "pictures"),
    Case("opaque alpha", write_pictures(save_as_rgba), "pictures"),
    Case("reversed palette", write_pictures(save_as_reversed_palette), "pictures"),
    Case("0 is white", write_pictures(save_as_min_is_white, lambda n: f"{n + 1:03d}.tif"), "pictures"),
    Case("bitmaps", write_pictures(name=lambda n: f"{n + 1:03d}.bmp"), "pictures"),
    Case("named by position", write_pictures(name=lambda n: f"{-71.5 + 7.5 * n:.1f}.png"), "pictures"),
    Case("numbers without zeros", write_pictures(name=lambda n: f"slice{n + 1}.png"), "pictures"),
    Case("Chinese folders", write_pictures(folders={"T1C": "T1增强", "FLAIR": "FLAIR序列"}), "pictures"),
    Case("semicolons, GB18030", write_table(f"编号;年龄;性别\n{PATIENT};49岁;女\n".encode("gb18030"))),
    Case("tabs, UTF-16", write_table(f"ID\tAge\tGender\n{PATIENT}\t049Y\tF\n".encode("utf-16"))),
    Case("two byte order marks, sep=", write_table(f"\ufeff\ufeffsep=;\nid;age;sex\n{PATIENT};49,0;1\n".encode())),
    Case("workbook", write_table(create_workbook_writer(("住院号", "年龄", "性别"), (PATIENT, 49, "女")), ".xlsx")),
]  # fmt: skip

HARMFUL = [
    Case("millimetres declared as metres", write_volumes(lambda i: i.header.set_xyzt_units("meter") or i),
         error_text="T1C"),
    Case("mirrored qform", write_volumes(mirror_qform), error_text="T1C.nii.gz"),
    Case("spacing of zero", write_with_header_values(80, "<fff", 1.4, 1.4, 0.0, change=set_form_codes(0, 1)),
         error_text="T1C.nii.gz"),
    Case("sheared", write_volumes(shear), error_text="T1C.nii.gz"),
    Case("spacing too small by ten", write_volumes(change_units("mm", 0.1)), error_text="T1C"),
    Case("not a number in the brain", write_volumes(change_values(set_middle(np.nan))), error_text="T1C"),
    Case("infinite in the brain", write_volumes(change_values(set_middle(np.inf))), error_text="T1C"),
    Case("constant", write_volumes(change_values(lambda v: v.fill(7))), error_text="T1C"),
    Case("truncated", write_truncated_volume(0.6), error_text="FLAIR.nii.gz"),
    Case("in colour", write_colour_volume, error_text="FLAIR.nii.gz"),
    Case("a time series", write_time_series, error_text="FLAIR.nii.gz"),
    Case("only one has an orientation", write_with_one_unoriented, error_text="FLAIR.nii.gz"),
    Case("T1 alone registered to T1C", write_named_volumes("T1_to_T1C.nii.gz", "FLAIR.nii.gz"), error_text="T1C"),
    Case("T1 in the space of FLAIR", write_named_volumes("sub-7_ce-gd_T1w.nii.gz", "sub-7_space-FLAIR_T1w.nii.gz"),
         error_text="FLAIR"),
    Case("T1 without contrast", write_named_volumes("T1_without_contrast.nii.gz", "FLAIR.nii.gz"), error_text="T1C"),
    Case("T1 plain in Chinese", write_named_volumes("T1平扫.nii.gz", "FLAIR.nii.gz"), error_text="T1C"),
    Case("channels without names", write_nnunet(None), error_text="_0000"),
    Case("no FLAIR", write_only("T1C", "T1"), error_text="FLAIR"),
    Case("no sequence in the names", write_named_volumes("a.nii.gz", "b.nii.gz"), error_text="a.nii.gz"),
    Case("a truncated slice", write_with_changed_slice(truncate_file), error_text="009.dcm"),
    Case("three slices missing", write_without_three_slices, error_text="008.dcm"),
    Case("colour slices", write_dicom(convert_to_colour), error_text="000.dcm"),
    Case("BitsStored above BitsAllocated", write_dicom(set_tags(BitsStored=20, HighBit=19)), error_text="BitsStored"),
    Case("two patients", write_two_patients, error_text="two patients"),
    Case("positions not a number", write_dicom(set_position_to_nan), error_text="ImagePositionPatient"),
    Case("pixel size of zero", write_dicom(set_tags(PixelSpacing=[0.0, 0.0])), error_text="PixelSpacing"),
    Case("no pixel size", write_dicom(remove_tags("PixelSpacing")), error_text="PixelSpacing"),
    Case("rows and columns not orthogonal", write_dicom(set_tags(ImageOrientationPatient=[1, 0, 0, 0.5, 0.866, 0])),
         error_text="ImageOrientationPatient"),
    Case("same UID for two images", write_with_duplicate_uid, error_text="010.dcm"),
    Case("computed tomography", write_dicom(set_tags(Modality="CT")), error_text="MR"),
    Case("mixed bit depth", write_with_changed_picture("T1C", 9, convert_to_sixteen_bit), error_text="009.png"),
    Case("a red mark", write_with_changed_picture("T1C", 9, paint_red), error_text="009.png"),
    Case("a constant slice in the brain", write_with_changed_picture("T1C", 9, flatten), error_text="009"),
    Case("a smaller slice", write_with_changed_picture("FLAIR", 9, shrink), error_text="009.png"),
    Case("rotated by EXIF", write_with_changed_picture("FLAIR", 9, turn_by_exif), error_text="009.png"),
    Case("a truncated picture", write_with_changed_picture("T1C", 9, lambda p: p.write_bytes(p.read_bytes()[:700])),
         error_text="009.png"),
    Case("a slice missing in one sequence", write_with_changed_picture("T1C", 9, Path.unlink), error_text="009"),
    Case("all black", write_black_flair, error_text="FLAIR"),
    Case("no row", write_table(b"id,age,sex\nOTHER,49,1\n"), error_text=PATIENT),
    Case("two rows", write_table(f"id,age,sex\n{PATIENT},49,1\n{PATIENT},50,1\n".encode()), error_text=PATIENT),
    Case("too old", write_table(f"id,age,sex\n{PATIENT},149,1\n".encode()), error_text="149"),
    Case("a birth year", write_table(f"id,age,sex\n{PATIENT},1971,1\n".encode()), error_text="1971"),
    Case("unknown sex code", write_table(f"id,age,sex\n{PATIENT},49,3\n".encode()), error_text="3"),
    Case("no id column", write_table(b"age,sex\n49,1\n"), error_text="clinical.csv"),
    Case("an id changed by a spreadsheet", write_table(b"id,age,sex\n7,49,1\n"), error_text=PATIENT),
]  # fmt: skip


@pytest.mark.parametrize("form", ["volumes", "pictures"])
def test_the_plain_patient_has_a_lesion_and_a_prediction(
    form: str, head: Head, predictor: Predictor, tmp_path: Path
):
    plain = predict_plain(form, head, predictor, tmp_path)
    truth = head.images["mask"].sum() * abs(np.linalg.det(head.affine[:3, :3])) / 1000
    assert plain.lesion_volume_ml == pytest.approx(truth, rel=0.35)
    assert find_idh_probability(plain) is not None


@pytest.mark.parametrize("case", HARMLESS, ids=lambda case: case.name)
def test_harmless_variants_give_the_same_result(case: Case, head: Head, predictor: Predictor, tmp_path: Path):
    plain = predict_plain(case.like, head, predictor, tmp_path / "plain")
    folder = tmp_path / "data" / PATIENT
    case.make(folder, head)
    variant = predictor.predict_folder(folder)
    assert dice(plain, variant) >= 0.97
    assert find_idh_probability(variant) == pytest.approx(find_idh_probability(plain), abs=0.02)
    assert variant.patient_id == PATIENT


@pytest.mark.parametrize("case", HARMFUL, ids=lambda case: case.name)
def test_harmful_variants_are_refused_with_the_problem_named(
    case: Case, head: Head, predictor: Predictor, tmp_path: Path
):
    folder = tmp_path / "data" / PATIENT
    case.make(folder, head)
    with pytest.raises(GliomarkError) as refused:
        predictor.predict_folder(folder)
    sentence = str(refused.value)
    assert case.error_text in sentence
    assert "\n" not in sentence and sentence.endswith((".", "?"))


def predict_plain(form: str, head: Head, predictor: Predictor, parent: Path) -> Prediction:
    folder = parent / "data" / PATIENT
    {"volumes": write_volumes(), "pictures": write_pictures()}[form](folder, head)
    return predictor.predict_folder(folder)


def find_idh_probability(prediction: Prediction) -> float | None:
    [answer] = [marker for marker in prediction.markers if marker.marker == "idh"]
    return answer.probability


def dice(a: Prediction, b: Prediction) -> float:
    """Compute the Dice of two segmentations in patient space, after mapping b to the grid of a by the affines."""
    points = np.argwhere(np.ones_like(a.segmentation.mask))
    world = a.stack.affine @ np.c_[points[:, ::-1], np.ones(len(points))].T
    index = np.rint(np.linalg.inv(b.stack.affine) @ world)[2::-1].astype(int)
    inside = np.all((index >= 0) & (index < np.array(b.segmentation.mask.shape)[:, None]), axis=0)
    other = np.zeros(len(points), bool)
    other[inside] = b.segmentation.mask[tuple(index[:, inside])]
    mine = a.segmentation.mask.ravel()
    return 2 * float((mine & other).sum()) / float(mine.sum() + other.sum())

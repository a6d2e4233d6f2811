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
from dataclasses import dataclass
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

    def series(self) -> list[tuple[str, Grey]]:
        """Return the sequences that the shipped model needs: T1C and FLAIR."""
        return [(name, self.images[name]) for name in PAIR]


@dataclass(frozen=True)
class Case:
    """A file variant. make: writes the patient's folder (and optionally ``clinical.csv`` next to it)."""

    name: str
    make: Make
    like: str = "volumes"  # the plain form whose result it must give
    says: str = ""  # what the error message must contain


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
class Answers:
    """The model, and its predictions for each set of images so far."""

    model: Any
    known: dict[str, Prediction]

    def ask(self, folder: Path) -> Prediction:
        """Predict by the usual steps: find the patient, read the study, get the clinical row, predict."""
        [found] = find_patients(folder)
        study = read_study(found)
        row = read_row(folder, study.patient_id)
        key = fingerprint(study, row)
        if key not in self.known:
            self.known[key] = predict(study, row, self.model)
        return self.known[key]


@pytest.fixture(scope="session")
def answers() -> Answers:
    return Answers(load_model("demo"), {})


def read_row(folder: Path, patient_id: str) -> ClinicalData:
    tables = [*folder.parent.glob("clinical.*")]
    return read_clinical_table(tables[0]).get_row(patient_id) if tables else ClinicalData(patient_id, 49.0, 1)


def fingerprint(study: Study, row: ClinicalData) -> str:
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
    made = kind(image.transpose(2, 1, 0), LPS_TO_RAS @ affine)
    made.header.set_xyzt_units("mm")
    return made


def volumes(
    change: Callable[[Any], Any] = lambda image: image,
    name: str = "{}.nii.gz",
    dtype: Any = np.int16,
    kind: Any = nib.Nifti1Image,
) -> Make:
    """Write every sequence as NIfTI after a change."""

    def make(folder: Path, head: Head) -> None:
        for sequence, image in head.series():
            file = folder / name.format(sequence)
            file.parent.mkdir(parents=True, exist_ok=True)
            nib.save(change(to_nifti(image.astype(dtype), head.affine, kind)), file)

    return make


def named(t1c: str, flair: str) -> Make:
    """Write plain NIfTI with other names."""

    def make(folder: Path, head: Head) -> None:
        for file, (_, image) in zip((t1c, flair), head.series(), strict=True):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            nib.save(to_nifti(image, head.affine), folder / file)

    return make


def turned(axes: str) -> Callable[[Any], Any]:
    def turn(image: Any) -> Any:
        orientation = nib.orientations.axcodes2ornt(axes)
        return image.as_reoriented(
            nib.orientations.ornt_transform(nib.orientations.io_orientation(image.affine), orientation)
        )

    return turn


def in_units(unit: str, factor: float) -> Callable[[Any], Any]:
    def change(image: Any) -> Any:
        affine = image.affine.copy()
        affine[:3] *= factor
        made = nib.Nifti1Image(np.asarray(image.dataobj), affine)
        made.header.set_xyzt_units(unit, "sec")
        return made

    return change


def coded(sform: int, qform: int) -> Callable[[Any], Any]:
    """Set the form codes; a form with code 0 is not written."""

    def change(image: Any) -> Any:
        affine = image.affine.copy()  # set_sform changes the image's own affine
        image.set_sform(affine if sform else None, sform)
        image.set_qform(affine if qform else None, qform)
        return image

    return change


def scaled(image: Any) -> Any:
    """Store (value + 10) / 0.5, with the inverse slope and intercept."""
    stored = ((np.asarray(image.dataobj).astype(np.int32) + 10) * 2).astype(np.int16)
    made = nib.Nifti1Image(stored, image.affine)
    made.header.set_slope_inter(0.5, -10)
    return made


def with_values(change: Callable[[NDArray[np.float32]], None]) -> Callable[[Any], Any]:
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


def double(values: NDArray[np.float32]) -> None:
    values *= 2


def itk(suffix: str, compress: bool = False) -> Make:
    def make(folder: Path, head: Head) -> None:
        folder.mkdir(parents=True)
        for name, image in head.series():
            volume = sitk.GetImageFromArray(image)
            volume.SetSpacing([float(step) for step in np.linalg.norm(head.affine[:3, :3], axis=0)])
            volume.SetOrigin([float(at) for at in head.affine[:3, 3]])
            sitk.WriteImage(volume, str(folder / (name + suffix)), useCompression=compress)

    return make


def nnunet(channels: Mapping[str, str] | None) -> Make:
    def make(folder: Path, head: Head) -> None:
        named(f"{PATIENT}_0000.nii.gz", f"{PATIENT}_0001.nii.gz")(folder, head)
        if channels is not None:
            about = {
                "channel_names": channels,
                "labels": {"background": 0, "lesion": 1},
                "file_ending": ".nii.gz",
            }
            (folder / "dataset.json").write_text(json.dumps(about))

    return make


def with_others(folder: Path, head: Head) -> None:
    """Write all four sequences; the additional ones must not change the result."""
    volumes()(folder, head)
    for name in ("T1", "T2"):
        nib.save(to_nifti(head.images[name], head.affine), folder / f"{name}.nii.gz")


def cropped_bytes(share: float) -> Make:
    def make(folder: Path, head: Head) -> None:
        volumes()(folder, head)
        file = folder / "FLAIR.nii.gz"
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])

    return make


def poke(folder: Path, name: str, offset: int, form: str, *values: float) -> None:
    """Overwrite a part of a NIfTI header with values that nibabel would not write."""
    file = folder / f"{name}.nii.gz"
    raw = bytearray(gzip.decompress(file.read_bytes()))
    struct.pack_into(form, raw, offset, *values)
    file.write_bytes(gzip.compress(bytes(raw)))


def poked(offset: int, form: str, *values: float, names: tuple[str, ...] = PAIR, change: Any = None) -> Make:
    def make(folder: Path, head: Head) -> None:
        volumes(change or (lambda image: image))(folder, head)
        for name in names:
            poke(folder, name, offset, form, *values)

    return make


def mirrored_qform(image: Any) -> Any:
    other = image.affine.copy()
    other[0] *= -1
    image.set_sform(image.affine, 1)
    image.set_qform(other, 1)
    return image


def sheared(image: Any) -> Any:
    affine = image.affine.copy()
    affine[0, 1] += 0.4 * affine[1, 1]
    return nib.Nifti1Image(np.asarray(image.dataobj), affine)


def only(*names: str, file: str = "{}.nii.gz") -> Make:
    def make(folder: Path, head: Head) -> None:
        folder.mkdir(parents=True)
        for name in names:
            nib.save(to_nifti(head.images[name], head.affine), folder / file.format(name))

    return make


def one_unoriented(folder: Path, head: Head) -> None:
    volumes()(folder, head)
    image = nib.load(folder / "FLAIR.nii.gz")
    bare = nib.Nifti1Image(np.asarray(image.dataobj), None)
    bare.header.set_zooms(image.header.get_zooms())
    nib.save(bare, folder / "FLAIR.nii.gz")


def colour_volume(folder: Path, head: Head) -> None:
    volumes()(folder, head)
    colours = np.zeros(head.images["FLAIR"].T.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(colours, np.eye(4)), folder / "FLAIR.nii.gz")


def many_volumes(folder: Path, head: Head) -> None:
    volumes()(folder, head)
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


def dicom_slice(name: str, image: Grey, affine: NDArray[np.float64], number: int, uid: str) -> Dataset:
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


def dicom(change: Callable[[Dataset], Any] = lambda file: None, syntax: str = "") -> Make:
    """Write both sequences as single-frame files in one folder each, each file changed."""

    def make(folder: Path, head: Head) -> None:
        for name, image in head.series():
            uid = generate_uid()
            for number in range(len(image)):
                file = dicom_slice(name, image, head.affine, number, uid)
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


def pixels_of(file: Dataset) -> NDArray[Any]:
    return np.frombuffer(file.PixelData, "<u2").reshape(file.Rows, file.Columns).astype(np.int32)


def inverted(file: Dataset) -> None:
    file.PhotometricInterpretation = "MONOCHROME1"
    set_pixels(file, (4095 - pixels_of(file)).astype(np.uint16), stored=12)


def padded(file: Dataset) -> None:
    """Set the image's corners to a padding value brighter than any tissue."""
    pixels = pixels_of(file)
    corner = np.zeros(pixels.shape, bool)
    corner[:10, :10] = corner[-10:, :10] = True
    file.PixelPaddingValue = 4095
    set_pixels(file, np.where(corner, 4095, pixels).astype(np.uint16), stored=12)


def signed(file: Dataset) -> None:
    set_pixels(file, (pixels_of(file) - 1024).astype(np.int16))
    file.RescaleSlope, file.RescaleIntercept = 1, 1024


def scaled_by_slice(file: Dataset) -> None:
    """Store every second slice twice as bright, with the matching rescale slope."""
    factor = 1 + int(file.InstanceNumber) % 2
    set_pixels(file, (pixels_of(file) * factor).astype(np.uint16))
    file.RescaleSlope, file.RescaleIntercept = 1 / factor, 0


def with_overlay_bits(file: Dataset) -> None:
    """Set overlay data in the bits above BitsStored."""
    pixels = pixels_of(file)
    pixels[40:60, 40:60] |= 0x3000
    set_pixels(file, pixels.astype(np.uint16), stored=12)


def reversed_numbers(file: Dataset) -> None:
    file.InstanceNumber = 100 - int(file.InstanceNumber)


def jittered(file: Dataset) -> None:
    tremor = 1e-7 * (int(file.InstanceNumber) % 5)
    file.ImageOrientationPatient = [1, tremor, 0, -tremor, 1, 0]


def without(*tags: str) -> Callable[[Dataset], None]:
    def change(file: Dataset) -> None:
        for tag in tags:
            delattr(file, tag)

    return change


def setting(**tags: Any) -> Callable[[Dataset], None]:
    def change(file: Dataset) -> None:
        for tag, value in tags.items():
            setattr(file, tag, value)

    return change


def copied(folder: Path, head: Head) -> None:
    """Write T1C twice, the second time with new UIDs."""
    dicom()(folder, head)
    series = generate_uid()
    for path in sorted((folder / "T1C").iterdir()):
        file = pydicom.dcmread(path)
        file.SeriesInstanceUID, file.SOPInstanceUID = series, generate_uid()
        save_dicom(file, folder / "again" / path.name)


def later_examination(folder: Path, head: Head) -> None:
    """Write a second examination years later, half as bright."""
    dicom()(folder, head)
    for name, image in head.series():
        uid = generate_uid()
        for number in range(len(image)):
            file = dicom_slice(name, image // 2, head.affine, number, uid)
            file.StudyInstanceUID, file.StudyDate = "1.2.826.0.1.3680043.8.498.99", "20991231"
            save_dicom(file, folder / f"{name} later" / f"{number:03d}.dcm")


def stray_object(folder: Path, head: Head) -> None:
    dicom()(folder, head)
    (folder / "PR.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0\0\0\0\0")


def in_one_folder(folder: Path, head: Head) -> None:
    """Move all files into one folder, without suffix and order."""
    dicom()(folder, head)
    names = np.random.default_rng(1).permutation(1000)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for name, file in zip(names, files, strict=False):
        file.rename(folder / f"IM{name:04d}")
    for name in PAIR:
        (folder / name).rmdir()


def enhanced(folder: Path, head: Head) -> None:
    """Write one multi-frame object per sequence."""
    for name, image in head.series():
        file = dicom_slice(name, image, head.affine, 0, generate_uid())
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


def one_slice(change: Callable[[Path], None], name: str = "T1C", number: int = 9) -> Make:
    """Write plain DICOM with one changed file."""

    def make(folder: Path, head: Head) -> None:
        dicom()(folder, head)
        change(folder / name / f"{number:03d}.dcm")

    return make


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def one_file(change: Callable[[Dataset], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        file = pydicom.dcmread(path)
        change(file)
        save_dicom(file, path)

    return apply


def not_a_number(file: Dataset) -> None:
    tag = Tag(0x00200032)
    encoding = file.original_encoding if hasattr(file, "original_encoding") else (False, True)
    file._dict[tag] = RawDataElement(tag, "DS", 12, b"nan\\nan\\nan ", 0, *encoding)


def colour(file: Dataset) -> None:
    pixels = np.repeat(pixels_of(file)[:, :, None] // 8, 3, axis=2).astype(np.uint8)
    pixels[:20, :20] = (255, 0, 0)
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.PixelData = pixels.tobytes()


def three_missing(folder: Path, head: Head) -> None:
    dicom()(folder, head)
    for number in (9, 10, 11):
        (folder / "T1C" / f"{number:03d}.dcm").unlink()


def same_uid(folder: Path, head: Head) -> None:
    """Write two objects with the same SOP Instance UID and different pixels."""
    dicom()(folder, head)
    first, second = (pydicom.dcmread(folder / "T1C" / f"{number:03d}.dcm") for number in (9, 10))
    second.SOPInstanceUID = first.SOPInstanceUID
    save_dicom(second, folder / "T1C" / "010.dcm")


def two_people(folder: Path, head: Head) -> None:
    in_one_folder(folder, head)
    for path in folder.iterdir():
        file = pydicom.dcmread(path)
        if file.SeriesNumber == 4:
            file.PatientID, file.PatientName = "OTHER-01", "Other^One"
            save_dicom(file, path)


# ---- pictures ---------------------------------------------------------------------------------------


def windowed(image: Grey) -> NDArray[np.uint8]:
    return np.rint(np.clip(image / np.percentile(image, 99.7), 0, 1) * 255).astype(np.uint8)


def pictures(
    save: Callable[[NDArray[np.uint8], Path], Any] = lambda grey, path: Image.fromarray(grey).save(path),
    name: Callable[[int], str] = lambda number: f"{number + 1:03d}.png",
    folders: Mapping[str, str] | None = None,
) -> Make:
    def make(folder: Path, head: Head) -> None:
        for sequence, image in head.series():
            place = folder / (folders or {}).get(sequence, sequence)
            place.mkdir(parents=True)
            for number, grey in enumerate(windowed(image)):
                save(grey, place / name(number))

    return make


def as_rgba(grey: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(grey).convert("RGBA").save(path)


def as_sixteen_bit(grey: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)


def as_reversed_palette(grey: NDArray[np.uint8], path: Path) -> None:
    """Save with a palette in which index i is the grey value 255 - i."""
    picture = Image.fromarray(255 - grey, mode="P")
    picture.putpalette([level for index in range(256) for level in [255 - index] * 3])
    picture.save(path)


def as_min_is_white(grey: NDArray[np.uint8], path: Path) -> None:
    """Write a TIFF in which 0 is white; Pillow cannot write one."""
    rows, columns = grey.shape
    tags = [(256, 3, columns), (257, 3, rows), (258, 3, 8), (259, 3, 1), (262, 3, 0), (273, 4, 122), (277, 3, 1),
            (278, 3, rows), (279, 4, rows * columns)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    header = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(header.ljust(122, b"\0") + (255 - grey).tobytes())


def picture_of(name: str, number: int, change: Callable[[Path], None]) -> Make:
    def make(folder: Path, head: Head) -> None:
        pictures()(folder, head)
        change(folder / name / f"{number:03d}.png")

    return make


def paint_red(path: Path) -> None:
    picture = Image.open(path).convert("RGB")
    picture.paste((255, 0, 0), (60, 60, 80, 80))
    picture.save(path)


def flatten(path: Path) -> None:
    Image.new("L", Image.open(path).size, 90).save(path)


def to_sixteen_bit(path: Path) -> None:
    as_sixteen_bit(np.asarray(Image.open(path)), path)


def turn_by_exif(path: Path) -> None:
    picture = Image.open(path)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)


def shrink(path: Path) -> None:
    Image.open(path).resize((80, 80)).save(path)


def all_black(folder: Path, head: Head) -> None:
    pictures()(folder, head)
    for path in (folder / "FLAIR").iterdir():
        Image.new("L", (160, 160)).save(path)


# ---- tables -----------------------------------------------------------------------------------------


def table(content: bytes | Callable[[Path], None], suffix: str = ".csv") -> Make:
    """Write plain volumes with this table next to them."""

    def make(folder: Path, head: Head) -> None:
        volumes()(folder, head)
        path = folder.parent / f"clinical{suffix}"
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)

    return make


def workbook(*rows: tuple[Any, ...]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(path)

    return write


HARMLESS = [
    Case("uncompressed", volumes(name="{}.nii")),
    Case("float", volumes(dtype=np.float32)),
    Case("slope and intercept", volumes(scaled)),
    Case("NIfTI-2", volumes(kind=nib.Nifti2Image)),
    Case("a fourth axis of length 1", volumes(lambda i: nib.Nifti1Image(np.asarray(i.dataobj)[..., None], i.affine))),
    Case("left to right reversed", volumes(turned("RAS"))),
    Case("axes in another order", volumes(turned("PSR"))),
    Case("sform alone", volumes(coded(1, 0))),
    Case("qform alone", volumes(coded(0, 1))),
    Case("template codes", volumes(coded(4, 1))),
    Case("metres", volumes(in_units("meter", 0.001))),
    Case("micrometres", volumes(in_units("micron", 1000.0))),
    Case("not a number in a corner", volumes(with_values(set_corner(np.nan)))),
    Case("twice as bright", volumes(with_values(double))),
    Case("one voxel of value 1e6", volumes(with_values(lambda v: v.__setitem__((3, 3, 3), 1e6)))),
    Case("BIDS names", named("sub-7_ce-gd_T1w.nii.gz", "sub-7_space-T1w_FLAIR.nii.gz")),
    Case("registered names", named("T1C.nii.gz", "FLAIR_to_T1C.nii.gz")),
    Case("Chinese names", named("T1增强.nii.gz", "T2_FLAIR平扫.nii.gz")),
    Case("BraTS names", named("P7_t1ce.nii.gz", "P7_flair.nii.gz")),
    Case("nnU-Net channels", nnunet({"0": "T1Gd", "1": "FLAIR"})),
    Case("all four sequences", with_others),
    Case("MetaImage", itk(".mha")),
    Case("MetaImage in two files, compressed", itk(".mhd", compress=True)),
    Case("NRRD", itk(".nrrd")),
    Case("DICOM", dicom()),
    Case("MONOCHROME1", dicom(inverted)),
    Case("bright padding", dicom(padded)),
    Case("signed with an intercept", dicom(signed)),
    Case("different slopes of slices", dicom(scaled_by_slice)),
    Case("overlay in the high bits", dicom(with_overlay_bits)),
    Case("no PhotometricInterpretation", dicom(without("PhotometricInterpretation"))),
    Case("no window, no thickness", dicom(without("SliceThickness"))),
    Case("RLE", dicom(syntax=RLELossless)),
    Case("implicit", dicom(syntax=ImplicitVRLittleEndian)),
    Case("big endian", dicom(syntax=ExplicitVRBigEndian)),
    Case("numbered backwards", dicom(reversed_numbers)),
    Case("no order, no suffix", in_one_folder),
    Case("rounding errors in orientations", dicom(jittered)),
    Case("copies under new UIDs", copied),
    Case("a later examination", later_examination),
    Case("an additional damaged object", stray_object),
    Case("multi-frame", enhanced),
    Case("16 bits", pictures(as_sixteen_bit), "pictures"),
    Case("opaque alpha", pictures(as_rgba), "pictures"),
    Case("reversed palette", pictures(as_reversed_palette), "pictures"),
    Case("0 is white", pictures(as_min_is_white, lambda n: f"{n + 1:03d}.tif"), "pictures"),
    Case("bitmaps", pictures(name=lambda n: f"{n + 1:03d}.bmp"), "pictures"),
    Case("named by position", pictures(name=lambda n: f"{-71.5 + 7.5 * n:.1f}.png"), "pictures"),
    Case("numbers without zeros", pictures(name=lambda n: f"slice{n + 1}.png"), "pictures"),
    Case("Chinese folders", pictures(folders={"T1C": "T1增强", "FLAIR": "FLAIR序列"}), "pictures"),
    Case("semicolons, GB18030", table(f"编号;年龄;性别\n{PATIENT};49岁;女\n".encode("gb18030"))),
    Case("tabs, UTF-16", table(f"ID\tAge\tGender\n{PATIENT}\t049Y\tF\n".encode("utf-16"))),
    Case("two byte order marks, sep=", table(f"\ufeff\ufeffsep=;\nid;age;sex\n{PATIENT};49,0;1\n".encode())),
    Case("workbook", table(workbook(("住院号", "年龄", "性别"), (PATIENT, 49, "女")), ".xlsx")),
]  # fmt: skip

HARMFUL = [
    Case("millimetres declared as metres", volumes(lambda i: i.header.set_xyzt_units("meter") or i), says="T1C"),
    Case("mirrored qform", volumes(mirrored_qform), says="T1C.nii.gz"),
    Case("spacing of zero", poked(80, "<fff", 1.4, 1.4, 0.0, change=coded(0, 1)), says="T1C.nii.gz"),
    Case("sheared", volumes(sheared), says="T1C.nii.gz"),
    Case("spacing too small by ten", volumes(in_units("mm", 0.1)), says="T1C"),
    Case("not a number in the brain", volumes(with_values(set_middle(np.nan))), says="T1C"),
    Case("infinite in the brain", volumes(with_values(set_middle(np.inf))), says="T1C"),
    Case("constant", volumes(with_values(lambda v: v.fill(7))), says="T1C"),
    Case("truncated", cropped_bytes(0.6), says="FLAIR.nii.gz"),
    Case("in colour", colour_volume, says="FLAIR.nii.gz"),
    Case("a time series", many_volumes, says="FLAIR.nii.gz"),
    Case("only one has an orientation", one_unoriented, says="FLAIR.nii.gz"),
    Case("T1 alone registered to T1C", named("T1_to_T1C.nii.gz", "FLAIR.nii.gz"), says="T1C"),
    Case("T1 in the space of FLAIR", named("sub-7_ce-gd_T1w.nii.gz", "sub-7_space-FLAIR_T1w.nii.gz"), says="FLAIR"),
    Case("T1 without contrast", named("T1_without_contrast.nii.gz", "FLAIR.nii.gz"), says="T1C"),
    Case("T1 plain in Chinese", named("T1平扫.nii.gz", "FLAIR.nii.gz"), says="T1C"),
    Case("channels without names", nnunet(None), says="_0000"),
    Case("no FLAIR", only("T1C", "T1"), says="FLAIR"),
    Case("no sequence in the names", named("a.nii.gz", "b.nii.gz"), says="a.nii.gz"),
    Case("a truncated slice", one_slice(cut_short), says="009.dcm"),
    Case("three slices missing", three_missing, says="008.dcm"),
    Case("colour slices", dicom(colour), says="000.dcm"),
    Case("BitsStored above BitsAllocated", dicom(setting(BitsStored=20, HighBit=19)), says="BitsStored"),
    Case("two patients", two_people, says="two patients"),
    Case("positions not a number", dicom(not_a_number), says="ImagePositionPatient"),
    Case("pixel size of zero", dicom(setting(PixelSpacing=[0.0, 0.0])), says="PixelSpacing"),
    Case("no pixel size", dicom(without("PixelSpacing")), says="PixelSpacing"),
    Case("rows and columns not orthogonal", dicom(setting(ImageOrientationPatient=[1, 0, 0, 0.5, 0.866, 0])),
         says="ImageOrientationPatient"),
    Case("same UID for two images", same_uid, says="010.dcm"),
    Case("computed tomography", dicom(setting(Modality="CT")), says="MR"),
    Case("mixed bit depth", picture_of("T1C", 9, to_sixteen_bit), says="009.png"),
    Case("a red mark", picture_of("T1C", 9, paint_red), says="009.png"),
    Case("a constant slice in the brain", picture_of("T1C", 9, flatten), says="009"),
    Case("a smaller slice", picture_of("FLAIR", 9, shrink), says="009.png"),
    Case("rotated by EXIF", picture_of("FLAIR", 9, turn_by_exif), says="009.png"),
    Case("a truncated picture", picture_of("T1C", 9, lambda p: p.write_bytes(p.read_bytes()[:700])), says="009.png"),
    Case("a slice missing in one sequence", picture_of("T1C", 9, Path.unlink), says="009"),
    Case("all black", all_black, says="FLAIR"),
    Case("no row", table(b"id,age,sex\nOTHER,49,1\n"), says=PATIENT),
    Case("two rows", table(f"id,age,sex\n{PATIENT},49,1\n{PATIENT},50,1\n".encode()), says=PATIENT),
    Case("too old", table(f"id,age,sex\n{PATIENT},149,1\n".encode()), says="149"),
    Case("a birth year", table(f"id,age,sex\n{PATIENT},1971,1\n".encode()), says="1971"),
    Case("unknown sex code", table(f"id,age,sex\n{PATIENT},49,3\n".encode()), says="3"),
    Case("no id column", table(b"age,sex\n49,1\n"), says="clinical.csv"),
    Case("an id changed by a spreadsheet", table(b"id,age,sex\n7,49,1\n"), says=PATIENT),
]  # fmt: skip


@pytest.mark.parametrize("form", ["volumes", "pictures"])
def test_the_plain_patient_has_a_lesion_and_an_answer(
    form: str, head: Head, answers: Answers, tmp_path: Path
):
    plain = ask_plain(form, head, answers, tmp_path)
    truth = head.images["mask"].sum() * abs(np.linalg.det(head.affine[:3, :3])) / 1000
    assert plain.lesion_volume_ml == pytest.approx(truth, rel=0.35)
    assert idh(plain) is not None


@pytest.mark.parametrize("case", HARMLESS, ids=lambda case: case.name)
def test_harmless_disguises_give_the_same_answer(case: Case, head: Head, answers: Answers, tmp_path: Path):
    plain = ask_plain(case.like, head, answers, tmp_path / "plain")
    folder = tmp_path / "data" / PATIENT
    case.make(folder, head)
    disguised = answers.ask(folder)
    assert dice(plain, disguised) >= 0.97
    assert idh(disguised) == pytest.approx(idh(plain), abs=0.02)
    assert disguised.patient_id == PATIENT


@pytest.mark.parametrize("case", HARMFUL, ids=lambda case: case.name)
def test_harmful_disguises_are_refused_by_name(case: Case, head: Head, answers: Answers, tmp_path: Path):
    folder = tmp_path / "data" / PATIENT
    case.make(folder, head)
    with pytest.raises(GliomarkError) as refused:
        answers.ask(folder)
    sentence = str(refused.value)
    assert case.says in sentence
    assert "\n" not in sentence and sentence.endswith((".", "?"))


def ask_plain(form: str, head: Head, answers: Answers, where: Path) -> Prediction:
    folder = where / "data" / PATIENT
    {"volumes": volumes(), "pictures": pictures()}[form](folder, head)
    return answers.ask(folder)


def idh(prediction: Prediction) -> float | None:
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

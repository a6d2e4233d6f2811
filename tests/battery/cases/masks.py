"""Lesion masks beside the images and given apart: another grid, other labels, damaged objects."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import RTStructureSetStorage, SegmentationStorage
from tests.battery.case import Case, Scene, answered, refused
from tests.battery.dicom import blank, item, write
from tests.battery.ground import PATIENT
from tests.battery.kit import Bytes, Change, both, cut, instead_of_all, lay, noise, on, patient, put

DOOR, BUILD = "predict", "cohort build"
MASK = "mask.nii.gz"
LABELS = f"id,age,sex\n{PATIENT},50,M\n"


def with_mask(scene: Scene) -> None:
    shutil.copy(scene.ground / "mask" / PATIENT / MASK, scene.folder / PATIENT / MASK)


def in_folder(change: Change) -> Callable[[Scene], None]:
    return lambda scene: change(scene.folder / PATIENT)


def found(name: str, kind: str, change: Change, *says: str) -> Case:
    """A mask among a patient's volumes."""
    make = both(patient("volumes"), with_mask, in_folder(change))
    return refused(DOOR, f"found mask {name}", kind, make, *says)


def given(name: str, kind: str, lay_mask: Callable[[Scene], object], *says: str) -> Case:
    """A mask of --masks at the cohort's build."""
    words = "cohort build hospital --labels labels.csv --out cohort --sequences T1C,FLAIR --workers 0 --masks masks"
    return refused(BUILD, f"given mask {name}", kind, both(hospital, lay_mask), *says, words=words)


def hospital(scene: Scene) -> None:
    """The healthy DICOM patient in a hospital's export, its table, and an empty folder of masks."""
    shutil.copytree(scene.ground / "classic" / PATIENT, scene.folder / "hospital" / PATIENT)
    (scene.folder / "masks" / PATIENT).mkdir(parents=True)
    lay("labels.csv", LABELS)(scene)


def voxels(how: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> Bytes:
    def change(content: bytes) -> bytes:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        values = how(np.asanyarray(image.dataobj))
        new = nib.Nifti1Image(values, image.affine if affine is None else affine)
        new.header.set_xyzt_units("mm")
        return gzip.compress(new.to_bytes(), 1)

    return change


def fractions(values: np.ndarray) -> np.ndarray:
    return (values * 0.37).astype(np.float32)


def one_nan(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    values[1, 1, 1] = np.nan
    return values


FOUND = [
    found("cut in the middle", "truncation", on(MASK, cut(0.5)), "volume-damaged", "volume-short"),
    found("of nothing", "truncation", on(MASK, cut(0.0)), "volume-damaged"),
    found("of chance", "noise", on(MASK, noise(1, 0.2, 12)), "volume-damaged", "volume-short", "volume-header"),
    found("of fractions", "labels", on(MASK, voxels(fractions)), "mask-fractions"),
    found("with a voxel of no number", "NaN and inf", on(MASK, voxels(one_nan)), "mask-not-numbers"),
    found("of negative labels", "labels", on(MASK, voxels(lambda v: -v.astype(np.int16))), "mask-labels"),
    found("of strange labels", "labels", on(MASK, voxels(lambda v: v.astype(np.int16) * np.int16(9) + np.int16(7))),
          "mask-labels"),
    found("far from the images", "wrong grid", on(MASK, voxels(lambda v: v, np.diag([2.5, 2.5, 7, 1]) + np.array(
        [[0, 0, 0, 4e3], [0] * 4, [0] * 4, [0] * 4]))), "mask-elsewhere", "mask-outside"),
    found("twice", "duplicates", lambda folder: shutil.copy(folder / MASK, folder / "lesion.nii.gz"),
          "volumes-two-masks"),
    found("as a text", "another format", on(MASK, instead_of_all(b"a mask\n" * 99)), "volume-damaged",
          "volume-analyze"),
    refused(DOOR, "found mask pictures that mark the edge", "inverted",
            both(patient("pictures"), lambda scene: mask_pictures(scene, lambda p: 255 - p)), "picture-mask-inverted"),
    refused(DOOR, "found mask pictures of another size", "wrong grid",
            both(patient("pictures"), lambda scene: mask_pictures(scene, lambda p: np.pad(p, 4))),
            "picture-sizes-differ"),
    refused(DOOR, "found mask pictures of 1 and 255", "labels", both(patient("pictures"), lambda scene: mask_pictures(
        scene, lambda p, at=[0]: p if at.append(1) or len(at) % 2 else p // 255)), "picture-mask-mixed"),
    refused(DOOR, "found mask pictures that lack one", "wrong number of slices", both(
        patient("pictures"), lambda scene: mask_pictures(scene, lambda p: p),
        in_folder(lambda folder: (folder / "mask" / "009.png").unlink())), "picture-names-differ"),
]  # fmt: skip


def mask_pictures(scene: Scene, how: Callable[[np.ndarray], np.ndarray]) -> None:
    source = scene.ground / "mask-pictures" / PATIENT / "mask"
    (scene.folder / PATIENT / "mask").mkdir()
    for file in sorted(source.iterdir()):
        Image.fromarray(how(np.asarray(Image.open(file)))).save(scene.folder / PATIENT / "mask" / file.name)


def volume(how: Bytes, name: str = "lesion.nii.gz") -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        content = (scene.ground / "mask" / PATIENT / MASK).read_bytes()
        put(name, how(content))(scene.folder / "masks" / PATIENT)

    return make


def dicom(
    sop_class: str, change: Callable[[FileDataset], object], how: Bytes = lambda c: c
) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        one = blank(sop_class, "mask")
        change(one)
        file = write(one, scene.folder / "masks" / PATIENT / "mask.dcm")
        file.write_bytes(how(file.read_bytes()))

    return make


def segmentation(**values: object) -> Callable[[FileDataset], None]:
    def change(one: FileDataset) -> None:
        one.Modality, one.SegmentationType, one.Rows, one.Columns, one.NumberOfFrames = (
            "SEG",
            "BINARY",
            88,
            88,
            2,
        )
        one.BitsAllocated, one.BitsStored, one.HighBit = 1, 1, 0
        one.SegmentSequence = [item(SegmentNumber=1, SegmentLabel="tumor", SegmentAlgorithmType="MANUAL")]
        one.PixelData = bytes(88 * 88 * 2 // 8)
        for name, value in values.items():
            setattr(one, name, value)

    return change


def contours(**values: object) -> Callable[[FileDataset], None]:
    def change(one: FileDataset) -> None:
        one.Modality = "RTSTRUCT"
        one.StructureSetROISequence = [item(ROINumber=1, ROIName="GTV")]
        points = [0, 0, 0, 10, 0, 0, 10, 10, 0]
        drawn = item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=3, ContourData=points)
        for name, value in values.items():
            setattr(drawn, name, value)
        one.ROIContourSequence = [item(ReferencedROINumber=1, ContourSequence=[drawn])]

    return change


SEG, RT = SegmentationStorage, RTStructureSetStorage
DAMAGED = ("segmentation-damaged", "mask-damaged", "contours")
GIVEN = [
    given("volume cut in the middle", "truncation", volume(cut(0.5)), "volume-damaged", "volume-short"),
    given("volume of fractions", "labels", volume(voxels(fractions)), "mask-fractions"),
    given("volume of no numbers", "NaN and inf", volume(voxels(one_nan)), "mask-not-numbers"),
    given("volume far away", "wrong grid", volume(voxels(lambda v: v, np.diag([2.5, 2.5, 7, 1]) + np.array(
        [[0, 0, 0, 4e3], [0] * 4, [0] * 4, [0] * 4]))), "mask-elsewhere", "mask-outside"),
    given("MetaImage of NDims 77000", "impossible dimensions", volume(instead_of_all(
        b"ObjectType = Image\nNDims = 77000\nDimSize = 1\nElementType = MET_CHAR\nElementDataFile = LOCAL\n"),
        "lesion.mha"), "volume-header"),
    given("MetaImage that names /etc/passwd", "names another file", volume(instead_of_all(
        b"ObjectType = Image\nNDims = 3\nDimSize = 8 8 8\nElementType = MET_CHAR\nElementDataFile = /etc/passwd\n"),
        "lesion.mhd"), "volume-data-outside"),
    given("segmentation of a billion frames", "bomb", dicom(SEG, segmentation(NumberOfFrames=10**9)), *DAMAGED),
    given("segmentation of 65535 squared", "bomb", dicom(SEG, segmentation(Rows=65535, Columns=65535)), *DAMAGED),
    given("segmentation without places", "missing part", dicom(SEG, segmentation()), *DAMAGED),
    given("segmentation cut short", "truncation", dicom(SEG, segmentation(), cut(0.6)), *DAMAGED, "no lesion mask"),
    given("segmentation of no segment", "missing part", dicom(SEG, segmentation(SegmentSequence=[])), *DAMAGED,
          "segmentation-no-lesion"),
    given("contours cut short", "truncation", dicom(RT, contours(), cut(0.7)), *DAMAGED, "no lesion mask"),
    given("contours of no number", "NaN and inf",
          dicom(RT, contours(), lambda c: c.replace(b"10\\0\\0\\10", b"nan\\0\\0\\1")),
          *DAMAGED, "contours-not-numbers", "contours-off-all"),
    given("contours that claim a million points", "length lie", dicom(RT, contours(NumberOfContourPoints=10**6)),
          *DAMAGED, "contours-cut-short"),
    given("contours of no points", "missing part", dicom(RT, contours(ContourData=None)), *DAMAGED,
          "contours-missing"),
    given("annotation of broken XML", "truncation", lambda scene: put("FLAIR/009.xml", "<annotation><object>")(
        scene.folder / "masks" / PATIENT), "009.xml"),
    given("annotation of a billion laughs", "bomb", lambda scene: put("FLAIR/009.xml", laughs())(
        scene.folder / "masks" / PATIENT), "009.xml"),
    given("annotation of JSON 100 000 deep", "nested", lambda scene: put(
        "FLAIR/009.json", '{"shapes": ' + "[" * 100_000)(
        scene.folder / "masks" / PATIENT), "009.json"),
    given("annotation of JSON with NaN", "NaN and inf", lambda scene: put("FLAIR/009.json", json.dumps({"shapes": [
        {"label": "tumor", "shape_type": "polygon", "points": [[float("nan"), 1], [2, 3], [4, 5]]}],
        "imageWidth": 88, "imageHeight": 88}))(scene.folder / "masks" / PATIENT), "009.json"),
]  # fmt: skip


def laughs() -> str:
    names = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 11))
    return f'<!DOCTYPE x [<!ENTITY l0 "lol">{names}]><annotation><object><name>&l10;</name></object></annotation>'


def lesion_is_there(scene: Scene) -> str:
    """The found mask is named in a note and changes no answer."""
    told = json.loads((scene.folder / "out" / PATIENT / "prediction.json").read_text("utf-8"))
    said = " ".join(str(note) for note in (*told.get("warnings", ()), *told.get("notes", ())))
    return "" if "mask" in said.lower() else f"no word of the mask in {said[:200]!r}"


ODD = [
    answered(DOOR, f"found mask {name}", "odd but healthy", both(patient("volumes"), with_mask, in_folder(change)),
             lesion_is_there)
    for name, change in {
        "as it is": lambda folder: None,
        "of BraTS labels": on(MASK, voxels(lambda v: v.astype(np.int16) * 4)),
        "as floating point": on(MASK, voxels(lambda v: v.astype(np.float64))),
        "called tumour_seg": lambda folder: (folder / MASK).rename(folder / "tumour_seg.nii.gz"),
    }.items()
]  # fmt: skip

CASES = [*FOUND, *GIVEN, *ODD]

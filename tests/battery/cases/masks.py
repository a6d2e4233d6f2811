"""Lesion masks in the patient's folder or given separately: other grids, other labels, damaged objects."""

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
from tests.battery.cases_and_results import Case, CaseFolders, expect_answer, expect_refusal
from tests.battery.changes import (
    BytesChange,
    FolderChange,
    change_files,
    copy_patient,
    corrupt_bytes,
    replace_content,
    run_all,
    truncate_bytes,
    write_case_file,
    write_file,
)
from tests.battery.dicom_objects import create_blank_object, create_sequence_item, write_object
from tests.battery.healthy_inputs import PATIENT

DOOR, BUILD = "predict", "cohort build"
MASK = "mask.nii.gz"
LABELS = f"id,age,sex\n{PATIENT},50,M\n"


def add_mask(scene: CaseFolders) -> None:
    shutil.copy(scene.healthy_folder / "mask" / PATIENT / MASK, scene.folder / PATIENT / MASK)


def change_patient_folder(change: FolderChange) -> Callable[[CaseFolders], None]:
    return lambda scene: change(scene.folder / PATIENT)


def create_supplied_mask_case(name: str, kind: str, change: FolderChange, *says: str) -> Case:
    """Create a case with a mask among the patient's volumes."""
    make = run_all(copy_patient("volumes"), add_mask, change_patient_folder(change))
    return expect_refusal(DOOR, f"found mask {name}", kind, make, *says)


def create_masks_option_case(
    name: str, kind: str, write_mask: Callable[[CaseFolders], object], *says: str
) -> Case:
    """Create a case with a mask given by --masks to ``cohort build``."""
    words = "cohort build hospital --labels labels.csv --out cohort --sequences T1C,FLAIR --workers 0 --masks masks"
    return expect_refusal(
        BUILD, f"given mask {name}", kind, run_all(write_hospital, write_mask), *says, arguments=words
    )


def write_hospital(scene: CaseFolders) -> None:
    """Write a hospital export with the healthy DICOM patient, its table, and an empty folder for masks."""
    shutil.copytree(scene.healthy_folder / "classic" / PATIENT, scene.folder / "hospital" / PATIENT)
    (scene.folder / "masks" / PATIENT).mkdir(parents=True)
    write_case_file("labels.csv", LABELS)(scene)


def change_voxels(
    change_values: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None
) -> BytesChange:
    def change(content: bytes) -> bytes:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        values = change_values(np.asanyarray(image.dataobj))
        new = nib.Nifti1Image(values, image.affine if affine is None else affine)
        new.header.set_xyzt_units("mm")
        return gzip.compress(new.to_bytes(), 1)

    return change


def scale_to_fractions(values: np.ndarray) -> np.ndarray:
    return (values * 0.37).astype(np.float32)


def set_one_nan(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    values[1, 1, 1] = np.nan
    return values


FOUND = [
    create_supplied_mask_case(
        "cut in the middle",
        "truncation",
        change_files(MASK, truncate_bytes(0.5)),
        "volume-damaged",
        "volume-short",
    ),
    create_supplied_mask_case(
        "of nothing", "truncation", change_files(MASK, truncate_bytes(0.0)), "volume-damaged"
    ),
    create_supplied_mask_case(
        "of chance",
        "noise",
        change_files(MASK, corrupt_bytes(1, 0.2, 12)),
        "volume-damaged",
        "volume-short",
        "volume-header",
    ),
    create_supplied_mask_case(
        "of fractions", "labels", change_files(MASK, change_voxels(scale_to_fractions)), "mask-fractions"
    ),
    create_supplied_mask_case(
        "with a voxel of no number",
        "NaN and inf",
        change_files(MASK, change_voxels(set_one_nan)),
        "mask-not-numbers",
    ),
    create_supplied_mask_case(
        "of negative labels",
        "labels",
        change_files(MASK, change_voxels(lambda v: -v.astype(np.int16))),
        "mask-labels",
    ),
    create_supplied_mask_case(
        "of strange labels",
        "labels",
        change_files(MASK, change_voxels(lambda v: v.astype(np.int16) * np.int16(9) + np.int16(7))),
        "mask-labels",
    ),
    create_supplied_mask_case(
        "far from the images",
        "wrong grid",
        change_files(
            MASK,
            change_voxels(
                lambda v: v, np.diag([2.5, 2.5, 7, 1]) + np.array([[0, 0, 0, 4e3], [0] * 4, [0] * 4, [0] * 4])
            ),
        ),
        "mask-elsewhere",
        "mask-outside",
    ),
    create_supplied_mask_case(
        "twice",
        "duplicates",
        lambda folder: shutil.copy(folder / MASK, folder / "lesion.nii.gz"),
        "volumes-two-masks",
    ),
    create_supplied_mask_case(
        "as a text",
        "another format",
        change_files(MASK, replace_content(b"a mask\n" * 99)),
        "volume-damaged",
        "volume-analyze",
    ),
    expect_refusal(
        DOOR,
        "found mask pictures that mark the edge",
        "inverted",
        run_all(copy_patient("pictures"), lambda scene: write_mask_pictures(scene, lambda p: 255 - p)),
        "picture-mask-inverted",
    ),
    expect_refusal(
        DOOR,
        "found mask pictures of another size",
        "wrong grid",
        run_all(copy_patient("pictures"), lambda scene: write_mask_pictures(scene, lambda p: np.pad(p, 4))),
        "picture-sizes-differ",
    ),
    expect_refusal(
        DOOR,
        "found mask pictures of 1 and 255",
        "labels",
        run_all(
            copy_patient("pictures"),
            lambda scene: write_mask_pictures(
                scene, lambda p, at=[0]: p if at.append(1) or len(at) % 2 else p // 255
            ),
        ),
        "picture-mask-mixed",
    ),
    expect_refusal(
        DOOR,
        "found mask pictures that lack one",
        "wrong number of slices",
        run_all(
            copy_patient("pictures"),
            lambda scene: write_mask_pictures(scene, lambda p: p),
            change_patient_folder(lambda folder: (folder / "mask" / "009.png").unlink()),
        ),
        "picture-names-differ",
    ),
]


def write_mask_pictures(scene: CaseFolders, change_picture: Callable[[np.ndarray], np.ndarray]) -> None:
    source = scene.healthy_folder / "mask-pictures" / PATIENT / "mask"
    (scene.folder / PATIENT / "mask").mkdir()
    for file in sorted(source.iterdir()):
        Image.fromarray(change_picture(np.asarray(Image.open(file)))).save(
            scene.folder / PATIENT / "mask" / file.name
        )


def write_mask_volume(
    change_bytes: BytesChange, name: str = "lesion.nii.gz"
) -> Callable[[CaseFolders], None]:
    def make(scene: CaseFolders) -> None:
        content = (scene.healthy_folder / "mask" / PATIENT / MASK).read_bytes()
        write_file(name, change_bytes(content))(scene.folder / "masks" / PATIENT)

    return make


def write_mask_object(
    sop_class: str, change: Callable[[FileDataset], object], change_bytes: BytesChange = lambda c: c
) -> Callable[[CaseFolders], None]:
    def make(scene: CaseFolders) -> None:
        one = create_blank_object(sop_class, "mask")
        change(one)
        file = write_object(one, scene.folder / "masks" / PATIENT / "mask.dcm")
        file.write_bytes(change_bytes(file.read_bytes()))

    return make


def make_segmentation(**values: object) -> Callable[[FileDataset], None]:
    def change(one: FileDataset) -> None:
        one.Modality, one.SegmentationType, one.Rows, one.Columns, one.NumberOfFrames = (
            "SEG",
            "BINARY",
            88,
            88,
            2,
        )
        one.BitsAllocated, one.BitsStored, one.HighBit = 1, 1, 0
        one.SegmentSequence = [
            create_sequence_item(SegmentNumber=1, SegmentLabel="tumor", SegmentAlgorithmType="MANUAL")
        ]
        one.PixelData = bytes(88 * 88 * 2 // 8)
        for name, value in values.items():
            setattr(one, name, value)

    return change


def make_contours(**values: object) -> Callable[[FileDataset], None]:
    def change(one: FileDataset) -> None:
        one.Modality = "RTSTRUCT"
        one.StructureSetROISequence = [create_sequence_item(ROINumber=1, ROIName="GTV")]
        points = [0, 0, 0, 10, 0, 0, 10, 10, 0]
        drawn = create_sequence_item(
            ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=3, ContourData=points
        )
        for name, value in values.items():
            setattr(drawn, name, value)
        one.ROIContourSequence = [create_sequence_item(ReferencedROINumber=1, ContourSequence=[drawn])]

    return change


SEG, RT = SegmentationStorage, RTStructureSetStorage
DAMAGED = ("segmentation-damaged", "mask-damaged", "contours")
GIVEN = [
    create_masks_option_case(
        "volume cut in the middle",
        "truncation",
        write_mask_volume(truncate_bytes(0.5)),
        "volume-damaged",
        "volume-short",
    ),
    create_masks_option_case(
        "volume of fractions",
        "labels",
        write_mask_volume(change_voxels(scale_to_fractions)),
        "mask-fractions",
    ),
    create_masks_option_case(
        "volume of no numbers",
        "NaN and inf",
        write_mask_volume(change_voxels(set_one_nan)),
        "mask-not-numbers",
    ),
    create_masks_option_case(
        "volume far away",
        "wrong grid",
        write_mask_volume(
            change_voxels(
                lambda v: v, np.diag([2.5, 2.5, 7, 1]) + np.array([[0, 0, 0, 4e3], [0] * 4, [0] * 4, [0] * 4])
            )
        ),
        "mask-elsewhere",
        "mask-outside",
    ),
    create_masks_option_case(
        "MetaImage of NDims 77000",
        "impossible dimensions",
        write_mask_volume(
            replace_content(
                b"ObjectType = Image\nNDims = 77000\nDimSize = 1\nElementType = MET_CHAR\nElementDataFile = LOCAL\n"
            ),
            "lesion.mha",
        ),
        "volume-header",
    ),
    create_masks_option_case(
        "MetaImage that names /etc/passwd",
        "names another file",
        write_mask_volume(
            replace_content(
                b"ObjectType = Image\nNDims = 3\nDimSize = 8 8 8\nElementType = MET_CHAR\n"
                b"ElementDataFile = /etc/passwd\n"
            ),
            "lesion.mhd",
        ),
        "volume-data-outside",
    ),
    create_masks_option_case(
        "segmentation of a billion frames",
        "bomb",
        write_mask_object(SEG, make_segmentation(NumberOfFrames=10**9)),
        *DAMAGED,
    ),
    create_masks_option_case(
        "segmentation of 65535 squared",
        "bomb",
        write_mask_object(SEG, make_segmentation(Rows=65535, Columns=65535)),
        *DAMAGED,
    ),
    create_masks_option_case(
        "segmentation without places", "missing part", write_mask_object(SEG, make_segmentation()), *DAMAGED
    ),
    create_masks_option_case(
        "segmentation cut short",
        "truncation",
        write_mask_object(SEG, make_segmentation(), truncate_bytes(0.6)),
        *DAMAGED,
        "no lesion mask",
    ),
    create_masks_option_case(
        "segmentation of no segment",
        "missing part",
        write_mask_object(SEG, make_segmentation(SegmentSequence=[])),
        *DAMAGED,
        "segmentation-no-lesion",
    ),
    create_masks_option_case(
        "contours cut short",
        "truncation",
        write_mask_object(RT, make_contours(), truncate_bytes(0.7)),
        *DAMAGED,
        "no lesion mask",
    ),
    create_masks_option_case(
        "contours of no number",
        "NaN and inf",
        write_mask_object(RT, make_contours(), lambda c: c.replace(b"10\\0\\0\\10", b"nan\\0\\0\\1")),
        *DAMAGED,
        "contours-not-numbers",
        "contours-off-all",
    ),
    create_masks_option_case(
        "contours that claim a million points",
        "length lie",
        write_mask_object(RT, make_contours(NumberOfContourPoints=10**6)),
        *DAMAGED,
        "contours-cut-short",
    ),
    create_masks_option_case(
        "contours of no points",
        "missing part",
        write_mask_object(RT, make_contours(ContourData=None)),
        *DAMAGED,
        "contours-missing",
    ),
    create_masks_option_case(
        "annotation of broken XML",
        "truncation",
        lambda scene: write_file("FLAIR/009.xml", "<annotation><object>")(scene.folder / "masks" / PATIENT),
        "009.xml",
    ),
    create_masks_option_case(
        "annotation of a billion laughs",
        "bomb",
        lambda scene: write_file("FLAIR/009.xml", create_entity_bomb())(scene.folder / "masks" / PATIENT),
        "009.xml",
    ),
    create_masks_option_case(
        "annotation of JSON 100 000 deep",
        "nested",
        lambda scene: write_file("FLAIR/009.json", '{"shapes": ' + "[" * 100_000)(
            scene.folder / "masks" / PATIENT
        ),
        "009.json",
    ),
    create_masks_option_case(
        "annotation of JSON with NaN",
        "NaN and inf",
        lambda scene: write_file(
            "FLAIR/009.json",
            json.dumps(
                {
                    "shapes": [
                        {
                            "label": "tumor",
                            "shape_type": "polygon",
                            "points": [[float("nan"), 1], [2, 3], [4, 5]],
                        }
                    ],
                    "imageWidth": 88,
                    "imageHeight": 88,
                }
            ),
        )(scene.folder / "masks" / PATIENT),
        "009.json",
    ),
]


def create_entity_bomb() -> str:
    names = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 11))
    return f'<!DOCTYPE x [<!ENTITY l0 "lol">{names}]><annotation><object><name>&l10;</name></object></annotation>'


def check_mask_is_noted(scene: CaseFolders) -> str:
    """Check that a note mentions the mask that was found."""
    document = json.loads((scene.folder / "out" / PATIENT / "prediction.json").read_text("utf-8"))
    note_text = " ".join(str(note) for note in (*document.get("warnings", ()), *document.get("notes", ())))
    return "" if "mask" in note_text.lower() else f"no word of the mask in {note_text[:200]!r}"


ODD = [
    expect_answer(
        DOOR,
        f"found mask {name}",
        "odd but healthy",
        run_all(copy_patient("volumes"), add_mask, change_patient_folder(change)),
        check_mask_is_noted,
    )
    for name, change in {
        "as it is": lambda folder: None,
        "of BraTS labels": change_files(MASK, change_voxels(lambda v: v.astype(np.int16) * 4)),
        "as floating point": change_files(MASK, change_voxels(lambda v: v.astype(np.float64))),
        "called tumour_seg": lambda folder: (folder / MASK).rename(folder / "tumour_seg.nii.gz"),
    }.items()
]

CASES = [*FOUND, *GIVEN, *ODD]

"""A prepared cohort in one small file: 8-bit grey values in the brain's bounding box, masks, grades, labels and folds.

    python benchmarks/gpu/packed_cohort.py COHORT cohort.zip

The file contains images of patients: never commit it to the repository.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 240
LEVELS = 255


@dataclass(frozen=True)
class PatientRecord:
    """A patient's entry in the index.

    fold: fold in which the patient is tested, from 0; slices: number of slices; box: bounding box of the brain as
    (first row, end row, first column, end column), ends exclusive; spacing_mm: (slice, row, column); ranges: lowest and
    highest z-score by sequence.
    """

    patient: str
    fold: int
    slices: int
    box: tuple[int, int, int, int]
    spacing_mm: tuple[float, float, float]
    ranges: Mapping[str, tuple[float, float]]
    high_grade: int | None
    idh_mutant: int | None


@dataclass(frozen=True, eq=False)
class PackedPatient:
    """A patient's record and arrays ``(slice, 240, 240)``: z-scores by sequence, masks of brain and lesion."""

    record: PatientRecord
    images: Mapping[str, NDArray[np.float16]]
    brain: NDArray[np.bool_]
    lesion: NDArray[np.bool_]


def write_pack(folder: Path, path: Path) -> None:
    """Write all patients of a prepared cohort that have a lesion mask."""
    from gliomark.cohort.folds import load_cohort_folds
    from gliomark.cohort.store import Cohort
    from gliomark.experiments.segmentation.procedure import list_patients_with_mask

    cohort = Cohort(folder)
    folds = load_cohort_folds(cohort)
    fold_of = {p: number for number, fold in enumerate(folds.folds) for p in fold}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        facts = [_write_patient(file, cohort, p, fold_of[p]) for p in list_patients_with_mask(cohort)]
        index = {
            "cohort": folder.name,
            "folds_sha256": folds.sha256,
            "settings": cohort.metadata["settings"],
            "patients": facts,
        }
        file.writestr("index.json", json.dumps(index))


def _write_patient(file: zipfile.ZipFile, cohort, patient: str, fold: int) -> dict:
    from gliomark.training.slice_dataset import get_high_grade_label

    stack = cohort.read_stack(patient)
    rows, columns = (np.flatnonzero(stack.brain.any(axis=(0, axis))) for axis in (2, 1))
    box = (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    ranges = {}
    for name, image in stack.images.items():
        low, high = float(image.min()), float(image.max())
        grey = np.round((image - low) / (high - low) * LEVELS).astype(np.uint8)
        # voxels outside the brain already have the lowest z-score
        file.writestr(f"{patient}/{name}.webp", _encode_webp(grey, box))
        ranges[str(name)] = (low, high)
    for name, mask in (("brain", stack.brain), ("lesion", stack.reader_mask)):
        file.writestr(f"{patient}/{name}.webp", _encode_webp(mask.astype(np.uint8) * LEVELS, box))
    clinical = cohort.get_clinical(patient)
    mutant = clinical.columns.get("idh_mutant", "")
    record = PatientRecord(
        patient=patient,
        fold=fold,
        slices=len(stack.brain),
        box=box,
        spacing_mm=tuple(float(step) for step in stack.spacing_mm),
        ranges=ranges,
        high_grade=get_high_grade_label(clinical),
        idh_mutant=int(float(mutant)) if mutant else None,
    )
    return asdict(record)


def _encode_webp(stack: NDArray[np.uint8], box: tuple[int, int, int, int]) -> bytes:
    """Encode the bounding box of all slices, stacked vertically, as lossless WebP."""
    top, bottom, left, right = box
    stacked_slices = stack[:, top:bottom, left:right].reshape(-1, right - left)
    out = io.BytesIO()
    Image.fromarray(stacked_slices).convert("RGB").save(out, "WEBP", lossless=True, quality=80, method=4)
    return out.getvalue()


def read_pack(
    path: Path, sequences: tuple[str, ...], step: int = 1, requires_all_sequences: bool = False
) -> list[PackedPatient]:
    """Read every ``step``-th patient with those of the given sequences that it has.

    requires_all_sequences: skip patients that lack one of them.
    """
    with zipfile.ZipFile(path) as file:
        records = json.loads(file.read("index.json"))["patients"]
        chosen = [r for r in records if not requires_all_sequences or set(sequences) <= set(r["ranges"])]
        return [_read_patient(file, record, sequences) for record in chosen[::step]]


def _read_patient(file: zipfile.ZipFile, record: dict, sequences: tuple[str, ...]) -> PackedPatient:
    facts = PatientRecord(
        **{**record, "box": tuple(record["box"]), "spacing_mm": tuple(record["spacing_mm"])}
    )

    def read_array(name: str) -> NDArray[np.uint8]:
        top, bottom, left, right = facts.box
        stacked_slices = np.asarray(
            Image.open(io.BytesIO(file.read(f"{facts.patient}/{name}.webp"))).convert("L")
        )
        full_array = np.zeros((facts.slices, SIDE, SIDE), np.uint8)
        full_array[:, top:bottom, left:right] = stacked_slices.reshape(
            facts.slices, bottom - top, right - left
        )
        return full_array

    images = {}
    for name in sequences:
        if name in facts.ranges:
            low, high = facts.ranges[name]
            images[name] = (low + read_array(name).astype(np.float32) / LEVELS * (high - low)).astype(
                np.float16
            )
    return PackedPatient(facts, images, read_array("brain") > 0, read_array("lesion") > 0)


if __name__ == "__main__":
    write_pack(Path(sys.argv[1]), Path(sys.argv[2]))

"""Export a prepared cohort to the layouts of other tools: BIDS, nnU-Net version 2, and folders of pictures.

Patients rejected in ``qc.csv`` are not exported. Volumes are NIfTI in RAS millimetres, axes (column, row, slice).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from gliomark.cohort.folds import load_cohort_folds
from gliomark.cohort.store import (
    Cohort,
    ProgressCallback,
    ignore_progress,
    iterate_with_progress,
    write_json,
)
from gliomark.errors import CohortError, ConfigurationError
from gliomark.files import atomic_folder, encode_png, remove_leftovers
from gliomark.geometry import LPS_TO_RAS
from gliomark.io.pictures import sort_slice_names
from gliomark.reporting.bids_mask import create_derivative_description
from gliomark.study import ClinicalData, MRSequence, SliceStack
from gliomark.tables import format_csv

ExportLayout = Literal["bids", "nnunet", "structured-pictures"]
MAX_EXPORTED_AGE = 89  # years; BIDS recommends to cap ages at 89
NNUNET_DATASET_ID = 501  # 1 to 10 are used by the Medical Segmentation Decathlon
_BIDS_SUFFIXES = {
    MRSequence.T1: ("", "T1w"),
    MRSequence.T1C: ("_ce-gadolinium", "T1w"),
    MRSequence.T2: ("", "T2w"),
    MRSequence.FLAIR: ("", "FLAIR"),
}
_BIDS_MASKS = {
    "brain": "Brain mask, without the skull.",
    "lesion": "Enhancing tumour and necrotic core, without oedema; one mask for all sequences.",
}


def export_cohort(
    cohort: Cohort, layout: ExportLayout, out: Path, report_progress: ProgressCallback = ignore_progress
) -> Path:
    """Write the cohort to ``out`` in another layout.

    Parameters
    ----------
    cohort
        The prepared cohort.
    layout
        The layout: ``"bids"``, ``"nnunet"`` or ``"structured-pictures"``.
    out
        A new or empty folder.
    report_progress
        Called before each patient.

    Returns
    -------
    Path
        The folder of the data set: ``out``, for nnU-Net a folder inside it.

    Raises
    ------
    ConfigurationError
        If the layout is unknown or ``out`` is not empty.
    CohortError
        If there is no patient to export, two ids become one BIDS label, or nnU-Net would have no training patient.
    """
    writers: dict[str, Callable[[Cohort, Path, ProgressCallback], Path]] = {
        "bids": _write_bids,
        "nnunet": _write_nnunet,
        "structured-pictures": _write_pictures,
    }
    if layout not in writers:
        raise ConfigurationError(f"Unknown layout {layout}: give {', '.join(writers)}.")
    out = Path(os.path.abspath(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out} is not empty: give a new folder.")
    if not cohort.patient_ids:
        raise CohortError(
            f"{cohort.folder} contains no patient to export: build the cohort, or check its qc.csv."
        )
    remove_leftovers(out.parent)
    with atomic_folder(out) as part:
        dataset = writers[layout](cohort, part, report_progress)
    return out / dataset.relative_to(part)


# ---- volumes and tables -----------------------------------------------------------------------------


def _write_nifti(path: Path, image: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    """Write a ``(slice, row, column)`` image with an LPS affine as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = nib.Nifti1Image(np.ascontiguousarray(image.transpose(2, 1, 0)), LPS_TO_RAS @ affine)
    volume.set_qform(volume.affine, code=1)
    volume.set_sform(volume.affine, code=1)
    volume.header.set_xyzt_units("mm")
    nib.save(volume, path)


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str) -> None:
    path.write_text(format_csv([header, *rows], delimiter), encoding="utf-8", newline="")


def _list_further_columns(rows: Sequence[ClinicalData]) -> list[str]:
    """List all further columns of any patient, in the order of the table."""
    return list(dict.fromkeys(name for row in rows for name in row.columns))


def _format_number(number: float | None, missing: str) -> str:
    return missing if number is None else f"{number:g}"


# ---- BIDS -------------------------------------------------------------------------------------------


def _write_bids(cohort: Cohort, out: Path, report_progress: ProgressCallback) -> Path:
    """Write a BIDS derivative data set: the images are prepared, not as acquired."""
    labels = _create_bids_labels(cohort.patient_ids)
    for patient in iterate_with_progress(cohort.patient_ids, report_progress):
        _write_bids_patient(cohort.read_stack(patient), labels[patient], out)
    name = f"Prepared glioma MRI: {cohort.folder.resolve().name}"
    write_json(out / "dataset_description.json", create_derivative_description(name))
    _write_participants(cohort, labels, out)
    (out / "README").write_text(_BIDS_README, "utf-8")
    return out


def _create_bids_labels(patients: Iterable[str]) -> dict[str, str]:
    """Create BIDS labels (letters and digits only) by patient. Raises CohortError if two ids give one label."""
    labels = {patient: re.sub(r"[^0-9A-Za-z]", "", patient) for patient in patients}
    owners: dict[str, str] = {}
    for patient, label in labels.items():
        if not label or label in owners:
            other = f" and {owners[label]}" if label else ""
            raise CohortError(
                f"BIDS labels contain only letters and digits, and {patient}{other} would be sub-{label}: "
                "build the cohort with new ids."
            )
        owners[label] = patient
    return labels


def _write_bids_patient(stack: SliceStack, label: str, out: Path) -> None:
    folder, subject = out / f"sub-{label}" / "anat", f"sub-{label}"
    names = {}
    for sequence in stack.images:
        contrast, suffix = _BIDS_SUFFIXES[sequence]
        names[sequence] = f"{subject}{contrast}_space-individual_desc-preproc_{suffix}"
    reference = f"bids::{subject}/anat/{list(names.values())[-1]}.nii.gz"
    for sequence, image in stack.images.items():
        _write_nifti(folder / f"{names[sequence]}.nii.gz", image, stack.affine)
        sidecar = {
            "Description": f"{sequence}: brain only, z-scores inside the brain, on the common grid of all sequences.",
            "SkullStripped": True,
            "SpatialReference": reference,
        }
        write_json(folder / f"{names[sequence]}.json", sidecar)
    for name, mask in (("brain", stack.brain), ("lesion", stack.lesion)):
        if mask is not None:
            stem = f"{subject}_space-individual_desc-{name}_mask"
            _write_nifti(folder / f"{stem}.nii.gz", mask.astype(np.uint8), stack.affine)
            sidecar = {
                "Description": _BIDS_MASKS[name],
                "Type": name.capitalize(),
                "SpatialReference": reference,
                "Sources": [reference],
            }
            write_json(folder / f"{stem}.json", sidecar)


def _write_participants(cohort: Cohort, labels: Mapping[str, str], out: Path) -> None:
    rows = [cohort.get_clinical(patient) for patient in labels]
    others = {name: re.sub(r"\W+", "_", name) for name in _list_further_columns(rows)}
    table = [
        [
            f"sub-{labels[row.patient_id]}",
            _format_number(None if row.age is None else min(row.age, MAX_EXPORTED_AGE), "n/a"),
            "n/a" if row.sex is None else "MF"[row.sex],
            row.patient_id,
            *(row.columns.get(name, "n/a") for name in others),
        ]
        for row in rows
    ]
    header = ["participant_id", "age", "sex", "cohort_id", *others.values()]
    _write_table(out / "participants.tsv", header, table, "\t")
    sidecar: dict[str, object] = {
        "age": {"Description": f"Age at the examination, at most {MAX_EXPORTED_AGE}", "Units": "year"},
        "sex": {"Description": "Sex", "Levels": {"M": "male", "F": "female"}},
        "cohort_id": {"Description": "Id of the patient in the prepared cohort"},
    }
    sidecar |= {new: {"Description": f"Column {name} of the clinical table"} for name, new in others.items()}
    write_json(out / "participants.json", sidecar)


_BIDS_README = """\
Prepared glioma MRI, written by gliomark.

A BIDS derivative data set. All sequences of a patient are registered to one grid (space-individual, the grid of
the reference sequence), skull-stripped and z-scored inside the brain; outside the brain the value is the minimum
inside. desc-brain_mask is the brain mask, desc-lesion_mask the enhancing tumour and necrotic core, without
oedema. Marker labels are in participants.tsv. For research only; not a medical device.
"""


# ---- nnU-Net ----------------------------------------------------------------------------------------


def _write_nnunet(cohort: Cohort, out: Path, report_progress: ProgressCallback) -> Path:
    """Write for nnU-Net 2: ``out`` is the folder ``nnUNet_raw``; the cohort's test part and folds are kept."""
    sequences = tuple(MRSequence(name) for name in cohort.metadata["sequences"])
    name = re.sub(r"[^0-9A-Za-z]", "", cohort.folder.resolve().name) or "Glioma"
    folder, folds = out / f"Dataset{NNUNET_DATASET_ID:03d}_{name}", load_cohort_folds(cohort)
    exported: dict[str, list[str]] = {"Tr": [], "Ts": []}
    for patient in iterate_with_progress(cohort.patient_ids, report_progress):
        stack, subset = cohort.read_stack(patient), "Ts" if patient in folds.test else "Tr"
        if stack.lesion is not None and set(sequences) <= set(stack.images):
            _write_nnunet_patient(stack, sequences, folder, subset)
            exported[subset].append(patient)
    if not exported["Tr"]:
        raise CohortError(
            f"No training patient in {cohort.folder} has a lesion mask and all of {', '.join(sequences)}: "
            "nnU-Net cannot be trained on this cohort."
        )
    dataset_json = {
        "channel_names": {str(number): str(sequence) for number, sequence in enumerate(sequences)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(exported["Tr"]),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    write_json(folder / "dataset.json", dataset_json)
    write_json(folder / "splits_final.json", _create_nnunet_splits(folds.development_folds, exported["Tr"]))
    (folder / "README").write_text(_NNUNET_README.format(name=folder.name, number=NNUNET_DATASET_ID), "utf-8")
    return folder


def _write_nnunet_patient(
    stack: SliceStack, sequences: Sequence[MRSequence], folder: Path, subset: str
) -> None:
    for number, sequence in enumerate(sequences):
        # nnU-Net treats zeros as background, crops to the nonzero region and normalises only inside it
        image = np.where(stack.brain, stack.images[sequence], np.float32(0))
        path = folder / f"images{subset}" / f"{stack.patient_id}_{number:04d}.nii.gz"
        _write_nifti(path, image, stack.affine)
    path = folder / f"labels{subset}" / f"{stack.patient_id}.nii.gz"
    _write_nifti(path, stack.reader_mask.astype(np.uint8), stack.affine)


def _create_nnunet_splits(
    folds: Sequence[Sequence[str]], patients: Sequence[str]
) -> list[dict[str, list[str]]]:
    """Create the training and validation patients of each fold, among the exported patients of the training part."""
    return [
        {
            "train": [patient for patient in patients if patient not in fold],
            "val": [patient for patient in patients if patient in fold],
        }
        for fold in folds
    ]


_NNUNET_README = """\
Prepared glioma MRI, written by gliomark in the raw format of nnU-Net 2.

imagesTr and labelsTr contain the training and validation patients, imagesTs and labelsTs the test patients; the
label is the enhancing tumour and necrotic core. After

    nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity

copy splits_final.json to nnUNet_preprocessed/{name}, so that nnU-Net uses the cohort's folds.
"""


# ---- pictures ---------------------------------------------------------------------------------------


def _write_pictures(cohort: Cohort, out: Path, report_progress: ProgressCallback) -> Path:
    """Write ``<id>/<sequence>/<slice>.png``, ``<id>/mask/<slice>.png``, ``clinical.csv`` and ``spacing.csv``."""
    spacings = []
    for patient in iterate_with_progress(cohort.patient_ids, report_progress):
        stack = _make_slice_names_sortable(cohort.read_stack(patient))
        for sequence, image in stack.images.items():
            _write_png_slices(out / patient / sequence, _apply_window(image, stack.brain), stack.slice_names)
        if stack.lesion is not None:
            _write_png_slices(out / patient / "mask", stack.lesion * np.uint8(255), stack.slice_names)
        steps = np.linalg.norm(stack.affine[:3, :3], axis=0)
        spacings.append([patient, *(f"{step:.6g}" for step in steps)])
    rows = [cohort.get_clinical(patient) for patient in cohort.patient_ids]
    others = _list_further_columns(rows)
    table = [
        [
            row.patient_id,
            _format_number(row.age, ""),
            "" if row.sex is None else "MF"[row.sex],
            *(row.columns.get(name, "") for name in others),
        ]
        for row in rows
    ]
    _write_table(out / "clinical.csv", ["id", "age", "sex", *others], table, ",")
    _write_table(out / "spacing.csv", ["id", "column_mm", "row_mm", "slice_mm"], spacings, ",")
    return out


def _make_slice_names_sortable(stack: SliceStack) -> SliceStack:
    """Return the stack with slice names that sort in slice order, the order in which pictures are read."""
    names = stack.slice_names
    if list(names) == sort_slice_names(names):
        return stack
    digits = len(str(len(names)))
    counted = tuple(f"{number:0{digits}d}" for number in range(1, len(names) + 1))
    return replace(stack, slice_names=counted)


def _apply_window(image: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Scale ``(slice, row, column)`` to grey values 1 to 255 over the range inside the brain; 0 outside."""
    inside = image[brain]
    low, high = float(inside.min()), float(inside.max())
    grey = 1 + np.rint((image - low) / max(high - low, 1e-6) * 254).clip(0, 254)
    return np.where(brain, grey, 0).astype(np.uint8)


def _write_png_slices(folder: Path, image: NDArray[np.uint8], names: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for name, pixels in zip(names, image, strict=True):
        (folder / f"{name}.png").write_bytes(encode_png(pixels))

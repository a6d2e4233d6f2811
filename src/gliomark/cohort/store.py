"""A prepared cohort on disk, in the layout of METHOD section 2, step 7; every file opens in plain h5py.

::

    COHORT/cohort.json                          schema version, sequences, settings, software, hashes
    COHORT/MetaMS.csv                           the clinical table: id, age, sex, markers
    COHORT/folds.json                           the split and the folds, by patient, used by all stages
    COHORT/patients/<id>.json                   geometry, slice names, the K selected slices, quality
    COHORT/GMSBraTS/<sequence>/<id>/<slice>.h5  keys: image (float16 z-scores), mask and brain (uint8), 240x240
    COHORT/GMSGlioma/<sequence>/<id>/<slice>.h5 the same files (hard links), only slices whose mask is not empty
    COHORT/qc.csv                               a person's decisions; whoever is rejected there is not read

A slice without the key ``mask`` belongs to a patient whose lesion has not been drawn. The files' own attributes
say the sequence, the patient's id and the pixel spacing in millimetres.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from gliomark.cohort.quality import rejected
from gliomark.io import read_clinical
from gliomark.study import Clinical, GliomarkError, MRSequence, SliceStack

SCHEMA_VERSION = 2
_COMPRESSED = {"compression": "gzip", "compression_opts": 1}


@dataclass(frozen=True)
class Cohort:
    """A prepared cohort, read lazily. Raises GliomarkError where the folder is not one."""

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "cohort.json").is_file():
            raise GliomarkError(
                f"{self.folder} is not a prepared cohort (no cohort.json); make one with 'gliomark cohort build'."
            )
        if self.about.get("schema_version", 0) > SCHEMA_VERSION:
            raise GliomarkError(f"{self.folder} was made by a newer gliomark; update this one.")
        if not self.about.get("finished", True):
            raise GliomarkError(
                f"{self.folder} was not finished; run the same 'gliomark cohort build' again."
            )

    @cached_property
    def about(self) -> dict:
        """What ``cohort.json`` says: schema version, sequences (the reference last), settings."""
        return json.loads((self.folder / "cohort.json").read_text("utf-8"))

    @cached_property
    def prepared_ids(self) -> tuple[str, ...]:
        """Every prepared patient, sorted, the rejected ones too."""
        return tuple(sorted(path.stem for path in (self.folder / "patients").glob("*.json")))

    @cached_property
    def patient_ids(self) -> tuple[str, ...]:
        """Every prepared patient whom nobody rejected in ``qc.csv``, sorted."""
        out = rejected(self.folder)
        return tuple(patient for patient in self.prepared_ids if patient not in out)

    @cached_property
    def _table(self):
        return read_clinical(self.folder / "MetaMS.csv")

    def clinical(self, patient_id: str) -> Clinical:
        """The patient's row; age and sex may be unknown."""
        return self._table.row(patient_id, require_age_sex=False)

    def sequences(self, patient_id: str) -> tuple[MRSequence, ...]:
        """The sequences prepared for the patient."""
        return tuple(MRSequence(name) for name in self.record(patient_id)["sequences"])

    def has_mask(self, patient_id: str) -> bool:
        """Whether the patient's lesion has been drawn."""
        record = self.record(patient_id)
        folder = self.folder / "GMSBraTS" / record["sequences"][0] / patient_id
        with h5py.File(folder / f"{record['slice_names'][0]}.h5") as file:
            return "mask" in file

    def stack(self, patient_id: str, only: Collection[MRSequence] | None = None) -> SliceStack:
        """The patient as ``preprocessing.prepare`` made it, grey values in half precision.

        only: the sequences to read, those that the patient has; None is all.
        """
        record = self.record(patient_id)
        wanted = [name for name in record["sequences"] if only is None or name in only]
        read = {
            name: _read_slices(self.folder, name, patient_id, record["slice_names"])
            for name in wanted or record["sequences"][:1]
        }
        first = next(iter(read.values()))
        return SliceStack(
            patient_id=patient_id,
            images={MRSequence(name): read[name]["image"].astype(np.float32) for name in wanted},
            brain=first["brain"].astype(bool),
            affine=np.array(record["affine"]),
            slice_names=tuple(record["slice_names"]),
            selected=tuple(record["selected"]),
            lesion=first["mask"].astype(bool) if "mask" in first else None,
            notes=tuple(record["notes"]),
        )

    def record(self, patient_id: str) -> dict:
        """What ``patients/<id>.json`` says."""
        return json.loads((self.folder / "patients" / f"{patient_id}.json").read_text("utf-8"))


def _read_slices(folder: Path, sequence: str, patient: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Key to array ``(slice, 240, 240)``."""
    columns: dict[str, list[np.ndarray]] = {}
    for name in names:
        with h5py.File(folder / "GMSBraTS" / sequence / patient / f"{name}.h5") as file:
            for key in file:
                columns.setdefault(key, []).append(file[key][()])
    return {key: np.stack(slices) for key, slices in columns.items()}


# ---- writing ----------------------------------------------------------------------------------------


def write_patient(folder: Path, stack: SliceStack, **record: object) -> None:
    """Write one patient whole or not at all; record: further fields of ``patients/<id>.json``, JSON-able."""
    for sequence, image in stack.images.items():
        part = folder / "GMSBraTS" / sequence / f".{stack.patient_id}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for index, name in enumerate(stack.slice_names):
            _write_slice(part / f"{name}.h5", sequence, stack, image[index], index)
        _replace_folder(part, part.with_name(stack.patient_id))
        _link_lesion_slices(folder, sequence, stack)
    content = {
        "sequences": list(stack.images),
        "affine": stack.affine.tolist(),
        "slice_names": list(stack.slice_names),
        "selected": list(stack.selected),
        "notes": list(stack.notes),
        **record,
        "arrays_sha256": arrays_sha256(folder, stack.patient_id, list(stack.images), stack.slice_names),
    }
    # written last: a patient whose record is there is finished
    write_json(folder / "patients" / f"{stack.patient_id}.json", content)


def _write_slice(path: Path, sequence: str, stack: SliceStack, image: np.ndarray, index: int) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=image.astype(np.float16), **_COMPRESSED)
        file.create_dataset("brain", data=stack.brain[index].astype(np.uint8), **_COMPRESSED)
        if stack.lesion is not None:
            file.create_dataset("mask", data=stack.lesion[index].astype(np.uint8), **_COMPRESSED)
        spacing = np.linalg.norm(stack.affine[:3, :3], axis=0)
        file.attrs.update({"patient": stack.patient_id, "sequence": str(sequence), "slice": index})
        file.attrs["spacing_mm"] = [spacing[1], spacing[0], spacing[2]]  # row, column, slice


def _link_lesion_slices(folder: Path, sequence: str, stack: SliceStack) -> None:
    """GMSGlioma's view of the patient: the same files again, at no cost where links can be made."""
    place = folder / "GMSGlioma" / sequence / stack.patient_id
    shutil.rmtree(place, ignore_errors=True)
    if stack.lesion is None or not stack.lesion.any():
        return
    place.mkdir(parents=True)
    for index in np.flatnonzero(stack.lesion.any(axis=(1, 2))):
        name = f"{stack.slice_names[index]}.h5"
        source = folder / "GMSBraTS" / sequence / stack.patient_id / name
        try:
            os.link(source, place / name)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, place / name)


def _replace_folder(new: Path, old: Path) -> None:
    shutil.rmtree(old, ignore_errors=True)
    os.replace(new, old)


def arrays_sha256(folder: Path, patient: str, sequences: Sequence[str], names: Sequence[str]) -> str:
    """A hash of every array of a patient, whatever the compression. Raises OSError where one cannot be read."""
    digest = hashlib.sha256()
    for sequence in sequences:
        for key, array in sorted(_read_slices(folder, sequence, patient, names).items()):
            digest.update(f"{sequence}/{key}/{array.dtype}/{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def is_finished(folder: Path, patient: str, source_sha256: str) -> bool:
    """Whether the patient was prepared from just this source and every array is as it was written."""
    try:
        record = json.loads((folder / "patients" / f"{patient}.json").read_text("utf-8"))
        if record["source_sha256"] != source_sha256:
            return False
        found = arrays_sha256(folder, patient, record["sequences"], record["slice_names"])
    except (OSError, ValueError, KeyError):  # not there, cut short or of an older layout
        return False
    return found == record["arrays_sha256"]


def read_record(folder: Path, patient: str) -> dict | None:
    """A prepared patient's record; None where there is none."""
    path = folder / "patients" / f"{patient}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def remove_patient(folder: Path, patient: str) -> None:
    """Take a patient out of a cohort; one who is not there is no error."""
    (folder / "patients" / f"{patient}.json").unlink(missing_ok=True)
    for place in [*folder.glob(f"GMS*/*/{patient}"), *folder.glob(f"GMS*/*/.{patient}.part")]:
        shutil.rmtree(place)


def write_json(path: Path, content: Mapping | Sequence) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(part, path)

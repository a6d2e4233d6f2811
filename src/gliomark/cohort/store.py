"""A prepared cohort on disk, in the layout of METHOD section 2, step 7; every file opens in plain h5py.

::

    COHORT/cohort.json                          schema version, sequences, settings, software
    COHORT/MetaMS.csv                           the clinical table: id, age, sex, markers
    COHORT/folds.json                           the split and the folds, by patient, used by all stages
    COHORT/patients/<id>.json                   geometry, slice names, the K selected slices
    COHORT/GMSBraTS/<sequence>/<id>/<slice>.h5  keys: image (float16), mask and brain (uint8), 240x240
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from gliomark.io import find_patients, read_clinical, read_study
from gliomark.preprocessing import PreparationSettings, prepare
from gliomark.study import Clinical, GliomarkError, MRSequence, SliceStack

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Cohort:
    """A prepared cohort, read lazily. Raises GliomarkError where the folder is not one."""

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "cohort.json").is_file():
            raise GliomarkError(
                f"{self.folder} is not a prepared cohort (no cohort.json); make one with 'gliomark cohort build'."
            )

    @cached_property
    def about(self) -> dict:
        """What ``cohort.json`` says: schema version, sequences (the reference last), settings."""
        return json.loads((self.folder / "cohort.json").read_text("utf-8"))

    @cached_property
    def patient_ids(self) -> tuple[str, ...]:
        """Every prepared patient, sorted."""
        return tuple(sorted(path.stem for path in (self.folder / "patients").glob("*.json")))

    @cached_property
    def _table(self):
        return read_clinical(self.folder / "MetaMS.csv")

    def clinical(self, patient_id: str) -> Clinical:
        """The patient's row; age and sex may be unknown."""
        return self._table.row(patient_id, require_age_sex=False)

    def sequences(self, patient_id: str) -> tuple[MRSequence, ...]:
        """The sequences prepared for the patient."""
        return tuple(MRSequence(name) for name in self._record(patient_id)["sequences"])

    def stack(self, patient_id: str) -> SliceStack:
        """The patient as ``preprocessing.prepare`` made it, grey values in half precision."""
        record = self._record(patient_id)
        read = {name: self._slices(name, patient_id, record["slice_names"]) for name in record["sequences"]}
        _, lesion, brain = next(iter(read.values()))
        return SliceStack(
            patient_id=patient_id,
            images={MRSequence(name): image.astype(np.float32) for name, (image, _, _) in read.items()},
            brain=brain.astype(bool),
            affine=np.array(record["affine"]),
            slice_names=tuple(record["slice_names"]),
            selected=tuple(record["selected"]),
            lesion=lesion.astype(bool),
            notes=tuple(record["notes"]),
        )

    def _record(self, patient_id: str) -> dict:
        return json.loads((self.folder / "patients" / f"{patient_id}.json").read_text("utf-8"))

    def _slices(self, sequence: str, patient_id: str, names: Sequence[str]) -> list[np.ndarray]:
        folder = self.folder / "GMSBraTS" / sequence / patient_id
        columns: list[list[np.ndarray]] = [[], [], []]
        for name in names:
            with h5py.File(folder / f"{name}.h5") as file:
                for column, key in zip(columns, ("image", "mask", "brain"), strict=True):
                    column.append(file[key][()])
        return [np.stack(column) for column in columns]


def build_cohort(
    root: Path,
    labels: Path,
    out: Path,
    sequences: Sequence[MRSequence],
    settings: PreparationSettings = PreparationSettings(),
    progress: Callable[[str, int, int], None] = lambda patient_id, done, of: None,
) -> tuple[Cohort, dict[str, str]]:
    """Prepare every patient under ``root`` that has a lesion mask and the reference sequence.

    Patients already prepared are kept. Returns the cohort and, by patient, why one was left out.
    """
    table = read_clinical(labels)
    out.mkdir(parents=True, exist_ok=True)
    (out / "MetaMS.csv").write_bytes(Path(labels).read_bytes())
    about = {"schema_version": SCHEMA_VERSION, "sequences": list(sequences), "settings": asdict(settings)}
    _write_json(out / "cohort.json", about)
    left_out: dict[str, str] = {}
    folders = find_patients(root)
    for done, folder in enumerate(folders, start=1):
        progress(folder.name, done, len(folders))
        if (out / "patients" / f"{folder.name}.json").exists():
            continue
        try:
            stack = _prepare_patient(folder, sequences, settings)
            table.row(stack.patient_id, require_age_sex=False)
            _write_patient(out, stack)
        except GliomarkError as error:
            left_out[folder.name] = str(error)
    return Cohort(out), left_out


def _prepare_patient(
    folder: Path, sequences: Sequence[MRSequence], settings: PreparationSettings
) -> SliceStack:
    study = read_study(folder)
    if study.lesion is None:
        raise GliomarkError(f"{folder}: no lesion mask was found; a training cohort needs one per patient.")
    available = [name for name in sequences[:-1] if name in study.series]
    return prepare(study, [*available, sequences[-1]], settings)


def _write_patient(out: Path, stack: SliceStack) -> None:
    for sequence, image in stack.images.items():
        folder = out / "GMSBraTS" / sequence / stack.patient_id
        folder.mkdir(parents=True, exist_ok=True)
        for index, name in enumerate(stack.slice_names):
            with h5py.File(folder / f"{name}.h5", "w") as file:
                keep = {"compression": "gzip", "compression_opts": 1}
                file.create_dataset("image", data=image[index].astype(np.float16), **keep)
                file.create_dataset("mask", data=stack.drawn[index].astype(np.uint8), **keep)
                file.create_dataset("brain", data=stack.brain[index].astype(np.uint8), **keep)
    record = {
        "sequences": list(stack.images),
        "affine": stack.affine.tolist(),
        "slice_names": list(stack.slice_names),
        "selected": list(stack.selected),
        "notes": list(stack.notes),
    }
    # written last: a patient whose record is there is finished
    _write_json(out / "patients" / f"{stack.patient_id}.json", record)


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(part, path)

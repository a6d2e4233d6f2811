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

A patient's record holds a hash of every slice, and a slice that is read is compared with its own. Older records hold
one hash for all of a patient, which is compared at the first read; the oldest none, and a note says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from gliomark.cohort.quality import rejected
from gliomark.files import atomic_folder, atomic_write, remove
from gliomark.io import read_clinical
from gliomark.messages import message
from gliomark.study import Clinical, GliomarkError, MRSequence, SliceStack

SCHEMA_VERSION = 2
_LEVEL = 1  # of gzip


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
        return read_json(self.folder / "cohort.json", _is_about)

    @cached_property
    def prepared_ids(self) -> tuple[str, ...]:
        """Every prepared patient, sorted, the rejected ones too."""
        records = (self.folder / "patients").glob("*.json")
        return tuple(sorted(path.stem for path in records if not path.name.startswith(".")))

    @cached_property
    def patient_ids(self) -> tuple[str, ...]:
        """Every prepared patient whom nobody rejected in ``qc.csv``, sorted."""
        out = rejected(self.folder)
        return tuple(patient for patient in self.prepared_ids if patient not in out)

    @cached_property
    def _table(self):
        return read_clinical(self.folder / "MetaMS.csv", own=True)

    def clinical(self, patient_id: str) -> Clinical:
        """The patient's row; age and sex may be unknown."""
        return self._table.row(patient_id, require_age_sex=False)

    def sequences(self, patient_id: str) -> tuple[MRSequence, ...]:
        """The sequences prepared for the patient."""
        return tuple(MRSequence(name) for name in self.record(patient_id)["sequences"])

    def has_mask(self, patient_id: str) -> bool:
        """Whether the patient's lesion has been drawn."""
        record = self.record(patient_id)
        first, hashes = record["sequences"][0], self._hashes(patient_id, record)
        names = record["slice_names"][:1]
        return "mask" in _read_slices(self.folder, first, patient_id, names, hashes.get(first))

    def stack(self, patient_id: str, only: Collection[MRSequence] | None = None) -> SliceStack:
        """The patient as ``preprocessing.prepare`` made it, grey values in half precision.

        only: the sequences to read, those that the patient has; None is all. Raises GliomarkError, naming the file,
        where a slice is missing, damaged or no longer as it was written.
        """
        record = self.record(patient_id)
        wanted = [name for name in record["sequences"] if only is None or name in only]
        hashes = self._hashes(patient_id, record)
        read = {
            name: _read_slices(self.folder, name, patient_id, record["slice_names"], hashes.get(name))
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
            notes=(*record["notes"], *_unchecked(record, patient_id)),
        )

    def _hashes(self, patient_id: str, record: Mapping) -> Mapping[str, Mapping[str, str]]:
        """Sequence to slice name to hash; of an older record nothing, once the whole patient was compared."""
        whole = record.get("arrays_sha256")
        if "slices_sha256" in record or whole is None or patient_id in self._compared:
            return record.get("slices_sha256", {})
        found = arrays_sha256(self.folder, patient_id, record["sequences"], record["slice_names"])
        if found != whole:
            folders = self.folder / "GMSBraTS" / "*" / patient_id
            raise GliomarkError(message("cohort-slice-altered", path=folders))
        self._compared.add(patient_id)
        return {}

    @cached_property
    def _compared(self) -> set[str]:
        """Patients of an older layout who were compared with their hash."""
        return set()

    def arrays_digest(self, patients: Sequence[str]) -> str:
        """One hash for all arrays of these patients, from their records where these have it."""
        said = []
        for patient in patients:
            r = self.record(patient)
            known = r.get("arrays_sha256") or arrays_sha256(
                self.folder, patient, r["sequences"], r["slice_names"]
            )
            said.append((patient, known, r["affine"], r["selected"]))
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def record(self, patient_id: str) -> dict:
        """What ``patients/<id>.json`` says."""
        return read_json(self.folder / "patients" / f"{patient_id}.json", _is_patient)


def _unchecked(record: Mapping, patient: str) -> tuple[str, ...]:
    """The note on a record without any hash."""
    hashed = "slices_sha256" in record or "arrays_sha256" in record
    return () if hashed else (message("cohort-not-hashed", patient=patient),)


def _read_slices(
    folder: Path, sequence: str, patient: str, names: Sequence[str], hashes: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Key to array ``(slice, 240, 240)``; hashes: of each slice by name. Raises GliomarkError naming the file."""
    columns: dict[str, list[np.ndarray]] = {}
    for index, name in enumerate(names):
        path = folder / "GMSBraTS" / sequence / patient / f"{name}.h5"
        arrays = _read_slice(path)
        if hashes is not None and _slice_sha256(arrays) != hashes.get(name):
            raise GliomarkError(message("cohort-slice-altered", path=path))
        if index and set(arrays) != set(columns):
            raise GliomarkError(message("cohort-slice-altered", path=path))
        _check_values(path, arrays, columns["image"][0].shape if index else None)
        for key, array in arrays.items():
            columns.setdefault(key, []).append(array)
    return {key: np.stack(slices) for key, slices in columns.items()}


def _read_slice(path: Path) -> dict[str, np.ndarray]:
    try:
        with h5py.File(path) as file:
            return {key: file[key][()] for key in file}
    except FileNotFoundError:
        raise GliomarkError(message("cohort-slice-missing", path=path)) from None
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise GliomarkError(message("cohort-slice-damaged", path=path)) from error


def _check_values(path: Path, arrays: Mapping[str, np.ndarray], shape: tuple[int, ...] | None) -> None:
    """Raises GliomarkError for what no preparation writes. shape: of the slices before, None for the first."""
    image = arrays.get("image", np.empty(0))
    alike = {array.shape for array in arrays.values()} == {shape or image.shape} and image.ndim == 2
    masks = [array for key, array in arrays.items() if key != "image"]
    if not alike or not np.isfinite(image).all() or any((mask > 1).any() for mask in masks):
        raise GliomarkError(message("cohort-slice-unusable", path=path))


def _slice_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """A hash of a slice's arrays, whatever the compression."""
    digest = hashlib.sha256()
    for key, array in sorted(arrays.items()):
        digest.update(f"{key}/{array.dtype}/{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# ---- writing ----------------------------------------------------------------------------------------


def write_patient(folder: Path, stack: SliceStack, **record: object) -> None:
    """Write one patient whole or not at all; record: further fields of ``patients/<id>.json``, JSON-able."""
    for sequence, image in stack.images.items():
        with atomic_folder(folder / "GMSBraTS" / sequence / stack.patient_id) as part:
            for index, name in enumerate(stack.slice_names):
                (part / f"{name}.h5").write_bytes(_slice_bytes(sequence, stack, image[index], index))
        _link_lesion_slices(folder, sequence, stack)
    content = {
        "sequences": list(stack.images),
        "affine": stack.affine.tolist(),
        "slice_names": list(stack.slice_names),
        "selected": list(stack.selected),
        "notes": list(stack.notes),
        **record,
        **_written_hashes(folder, stack.patient_id, list(stack.images), stack.slice_names),
    }
    # written last: a patient whose record is there is finished
    write_json(folder / "patients" / f"{stack.patient_id}.json", content)


def _slice_bytes(sequence: str, stack: SliceStack, image: np.ndarray, index: int) -> bytes:
    """One slice's file, made in memory: HDF5's own words for a full disk are nobody's."""
    with h5py.File(f"{sequence}/{index}", "w", driver="core", backing_store=False) as file:
        _add(file, "image", image.astype(np.float16))
        _add(file, "brain", stack.brain[index].astype(np.uint8))
        if stack.lesion is not None:
            _add(file, "mask", stack.lesion[index].astype(np.uint8))
        spacing = np.linalg.norm(stack.affine[:3, :3], axis=0)
        file.attrs.update({"patient": stack.patient_id, "sequence": str(sequence), "slice": index})
        file.attrs["spacing_mm"] = [spacing[1], spacing[0], spacing[2]]  # row, column, slice
        file.flush()
        return file.id.get_file_image()


def _add(file: h5py.File, name: str, array: np.ndarray) -> None:
    """As one gzip chunk, compressed here: HDF5's own compressor does not always give the same bytes."""
    dataset = file.create_dataset(
        name, array.shape, array.dtype, chunks=array.shape, compression="gzip", compression_opts=_LEVEL
    )
    dataset.id.write_direct_chunk((0,) * array.ndim, zlib.compress(array.tobytes(), _LEVEL))


def _link_lesion_slices(folder: Path, sequence: str, stack: SliceStack) -> None:
    """GMSGlioma's view of the patient: the same files again, at no cost where links can be made."""
    place = folder / "GMSGlioma" / sequence / stack.patient_id
    if stack.lesion is None or not stack.lesion.any():
        remove(place)
        return
    with atomic_folder(place) as part:
        for index in np.flatnonzero(stack.lesion.any(axis=(1, 2))):
            name = f"{stack.slice_names[index]}.h5"
            source = folder / "GMSBraTS" / sequence / stack.patient_id / name
            try:
                os.link(source, part / name)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, part / name)


def arrays_sha256(folder: Path, patient: str, sequences: Sequence[str], names: Sequence[str]) -> str:
    """A hash of every array of a patient, whatever the compression. Raises GliomarkError where one cannot be read."""
    return _arrays_sha256({one: _read_slices(folder, one, patient, names) for one in sequences})


def _arrays_sha256(read: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """read: sequence to key to array."""
    digest = hashlib.sha256()
    for sequence, columns in read.items():
        for key, array in sorted(columns.items()):
            digest.update(f"{sequence}/{key}/{array.dtype}/{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _written_hashes(folder: Path, patient: str, sequences: Sequence[str], names: Sequence[str]) -> dict:
    """The hashes of what now lies on disk: of all arrays together, and by sequence of every slice."""
    read = {one: _read_slices(folder, one, patient, names) for one in sequences}
    slices = {
        sequence: {
            name: _slice_sha256({key: array[index] for key, array in columns.items()})
            for index, name in enumerate(names)
        }
        for sequence, columns in read.items()
    }
    return {"arrays_sha256": _arrays_sha256(read), "slices_sha256": slices}


def is_finished(folder: Path, patient: str, source_sha256: str) -> bool:
    """Whether the patient was prepared from just this source and every array is as it was written."""
    try:
        record = json.loads((folder / "patients" / f"{patient}.json").read_text("utf-8"))
        if record["source_sha256"] != source_sha256:
            return False
        found = arrays_sha256(folder, patient, record["sequences"], record["slice_names"])
    except (OSError, ValueError, KeyError, GliomarkError):  # not there, cut short or of an older layout
        return False
    return found == record["arrays_sha256"]


def read_record(folder: Path, patient: str) -> dict | None:
    """A prepared patient's record; None where there is none."""
    path = folder / "patients" / f"{patient}.json"
    return read_json(path, _is_patient) if path.exists() else None


def remove_patient(folder: Path, patient: str) -> None:
    """Take a patient out of a cohort; one who is not there is no error."""
    (folder / "patients" / f"{patient}.json").unlink(missing_ok=True)
    for place in folder.glob(f"GMS*/*/{patient}"):
        shutil.rmtree(place)


def read_json(path: Path, is_right: Callable[[dict], bool]) -> dict:
    """An object of JSON. Raises GliomarkError where it is cut short, something else or not as it must be."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if isinstance(content, dict) and is_right(content):
            return content
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise GliomarkError(message("cohort-record-damaged", path=path))


def _is_about(record: Mapping) -> bool:
    return isinstance(record.get("schema_version", 0), int) and set(record["sequences"]) <= set(MRSequence)


def _is_patient(record: Mapping) -> bool:
    """Whether the fields that are read are there, and the slices they name lie in the patient's own folder."""
    affine, names = np.array(record["affine"], dtype=np.float64), record["slice_names"]
    plain = all(isinstance(name, str) and name == Path(name).name for name in names)
    inside = all(0 <= at < len(names) for at in record["selected"])
    known = bool(record["sequences"]) and set(record["sequences"]) <= set(MRSequence)
    usable = affine.shape == (4, 4) and np.isfinite(affine).all() and np.linalg.det(affine) != 0
    return bool(plain and inside and known and usable and isinstance(record["notes"], list))


def write_json(path: Path, content: Mapping | Sequence) -> None:
    """Write JSON whole or not at all."""
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

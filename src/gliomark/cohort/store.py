"""A prepared cohort on disk, in the layout of method.md, section 2, step 7; slices are plain HDF5 files.

::

    COHORT/cohort.json                          schema version, sequences, settings, software, hashes
    COHORT/MetaMS.csv                           the clinical table: id, age, sex, markers
    COHORT/folds.json                           the split and the folds by patient, used by all stages
    COHORT/patients/<id>.json                   geometry, slice names, the K selected slices, quality
    COHORT/GMSBraTS/<sequence>/<id>/<slice>.h5  keys: image (float16 z-scores), mask and brain (uint8), 240x240
    COHORT/GMSGlioma/<sequence>/<id>/<slice>.h5 the same files (hard links), only slices whose mask is not empty
    COHORT/qc.csv                               the reader's decisions; patients rejected there are not read

A slice without the key ``mask`` belongs to a patient whose lesion has not been segmented. The attributes of a file
are the sequence, the patient's id, the slice index and the spacing in millimetres.

A patient's record contains a hash of every slice, which is verified when the slice is read. Older records contain one
hash for the whole patient, which is verified at the first read; the oldest contain none, which is noted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gliomark.cohort.quality import read_rejected_ids
from gliomark.errors import CohortError, GliomarkError
from gliomark.files import atomic_folder, atomic_write, remove_path
from gliomark.io import read_clinical_table
from gliomark.messages import message
from gliomark.preprocessing import PreparationConfig
from gliomark.study import ClinicalData, MRSequence, SliceStack
from gliomark.tables import ClinicalTable
from gliomark.tables.patient_ids import find_similar_ids

SCHEMA_VERSION = 2
_GZIP_LEVEL = 1

ProgressCallback = Callable[[str, int, int], None]  # patient, number of finished patients, number of all


def ignore_progress(patient: str, done: int, total: int) -> None:
    """Do nothing: the default of functions that report their progress."""


def iterate_with_progress(patients: Sequence[str], report_progress: ProgressCallback) -> Iterator[str]:
    """Iterate over patients; progress is reported before each."""
    for number, patient in enumerate(patients):
        report_progress(patient, number, len(patients))
        yield patient


@dataclass(frozen=True)
class Cohort:
    """A prepared cohort, read lazily.

    Raises
    ------
    CohortError
        If the folder is not a prepared cohort, was written by a newer version, or its build was not finished.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "cohort.json").is_file():
            raise CohortError(
                f"{self.folder} is not a prepared cohort (no cohort.json); create one with 'gliomark cohort build'."
            )
        if self.metadata.get("schema_version", 0) > SCHEMA_VERSION:
            raise CohortError(f"{self.folder} was written by a newer gliomark; update this installation.")
        if not self.metadata.get("finished", True):
            raise CohortError(
                f"The build of {self.folder} was not finished; run the same 'gliomark cohort build' again."
            )

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Content of ``cohort.json``: schema version, sequences (the reference last), settings."""
        return read_json(self.folder / "cohort.json", _is_valid_metadata)

    @property
    def preparation(self) -> PreparationConfig:
        """Settings with which the patients were prepared; those that are not recorded are the defaults."""
        return PreparationConfig(**self.metadata["settings"])

    @property
    def is_synthetic(self) -> bool:
        """Whether the patients were generated, not examined."""
        return "synthetic" in self.metadata

    @property
    def cohort_id(self) -> str:
        """Id of the cohort, which later builds keep; blank for synthetic cohorts and those of earlier versions.

        New patient ids, such as G0001, are assigned by every cohort and mean a patient only together with it.
        """
        return str(self.metadata.get("cohort_id", ""))

    @cached_property
    def prepared_ids(self) -> tuple[str, ...]:
        """All prepared patients, including rejected ones, sorted."""
        records = (self.folder / "patients").glob("*.json")
        return tuple(sorted(path.stem for path in records if not path.name.startswith(".")))

    @cached_property
    def patient_ids(self) -> tuple[str, ...]:
        """All prepared patients who are not rejected in ``qc.csv``, sorted.

        Raises
        ------
        CohortError
            If ``qc.csv`` rejects an id that is not in the cohort but looks like one of it.
        """
        rejected_ids = read_rejected_ids(self.folder)
        for unknown in sorted(rejected_ids - set(self.prepared_ids)):
            if similar := find_similar_ids(unknown, self.prepared_ids):
                raise CohortError(
                    message("qc-id-unknown", folder=self.folder, patient=unknown, similar=", ".join(similar))
                )
        return tuple(patient for patient in self.prepared_ids if patient not in rejected_ids)

    @cached_property
    def _clinical_table(self) -> ClinicalTable:
        return read_clinical_table(self.folder / "MetaMS.csv", is_gliomark_table=True)

    def get_clinical(self, patient_id: str) -> ClinicalData:
        """Return the patient's row of the clinical table; age and sex may be unknown."""
        return self._clinical_table.get_row(patient_id, require_age_sex=False)

    def get_sequences(self, patient_id: str) -> tuple[MRSequence, ...]:
        """Return the sequences prepared for the patient."""
        return tuple(MRSequence(name) for name in self.read_patient_record(patient_id)["sequences"])

    def has_mask(self, patient_id: str) -> bool:
        """Whether the patient has a lesion mask."""
        record = self.read_patient_record(patient_id)
        first, hashes = record["sequences"][0], self._get_slice_hashes(patient_id, record)
        names = record["slice_names"][:1]
        return "mask" in _read_slices(self.folder, first, patient_id, names, hashes.get(first))

    def read_stack(self, patient_id: str, sequences: Collection[MRSequence] | None = None) -> SliceStack:
        """Read the patient's prepared images, stored in half precision.

        Images, brain and lesion are ``(slice, row, column)``.

        Parameters
        ----------
        patient_id
            Id of the patient in the cohort.
        sequences
            The sequences to read, as far as the patient has them; None for all.

        Raises
        ------
        CohortError
            If a slice is missing, damaged or changed; the message gives the file.
        """
        record = self.read_patient_record(patient_id)
        wanted = [name for name in record["sequences"] if sequences is None or name in sequences]
        hashes = self._get_slice_hashes(patient_id, record)
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
            notes=(*record["notes"], *_note_missing_hashes(record, patient_id)),
        )

    def _get_slice_hashes(
        self, patient_id: str, record: Mapping[str, Any]
    ) -> Mapping[str, Mapping[str, str]]:
        """Return slice hashes by sequence and slice name; empty for older records, verified as a whole instead."""
        patient_hash = record.get("arrays_sha256")
        if "slices_sha256" in record or patient_hash is None or patient_id in self._verified_ids:
            hashes: Mapping[str, Mapping[str, str]] = record.get("slices_sha256", {})
            return hashes
        current_hash = hash_patient_arrays(
            self.folder, patient_id, record["sequences"], record["slice_names"]
        )
        if current_hash != patient_hash:
            folders = self.folder / "GMSBraTS" / "*" / patient_id
            raise CohortError(message("cohort-slice-altered", path=folders))
        self._verified_ids.add(patient_id)
        return {}

    @cached_property
    def _verified_ids(self) -> set[str]:
        """Patients with an older record whose hash has been verified."""
        return set()

    def hash_arrays(self, patients: Sequence[str]) -> str:
        """Return one SHA-256 of all arrays of these patients, using the hashes in their records where available."""
        digest_parts = []
        for patient in patients:
            r = self.read_patient_record(patient)
            known = r.get("arrays_sha256") or hash_patient_arrays(
                self.folder, patient, r["sequences"], r["slice_names"]
            )
            digest_parts.append((patient, known, r["affine"], r["selected"]))
        return hashlib.sha256(json.dumps(digest_parts).encode()).hexdigest()

    def read_patient_record(self, patient_id: str) -> dict[str, Any]:
        """Read ``patients/<id>.json``."""
        return read_json(self.folder / "patients" / f"{patient_id}.json", _is_valid_patient_record)


def _note_missing_hashes(record: Mapping[str, Any], patient: str) -> tuple[str, ...]:
    """Return a note if the record has no hash."""
    hashed = "slices_sha256" in record or "arrays_sha256" in record
    return () if hashed else (message("cohort-not-hashed", patient=patient),)


def _read_slices(
    folder: Path, sequence: str, patient: str, names: Sequence[str], hashes: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Read arrays ``(slice, row, column)`` by key. hashes: SHA-256 by slice name. Raises CohortError."""
    arrays_by_key: dict[str, list[np.ndarray]] = {}
    for index, name in enumerate(names):
        path = folder / "GMSBraTS" / sequence / patient / f"{name}.h5"
        arrays = _read_slice(path)
        if hashes is not None and _hash_slice(arrays) != hashes.get(name):
            raise CohortError(message("cohort-slice-altered", path=path))
        if index and set(arrays) != set(arrays_by_key):
            raise CohortError(message("cohort-slice-altered", path=path))
        _check_slice_arrays(path, arrays, arrays_by_key["image"][0].shape if index else None)
        for key, array in arrays.items():
            arrays_by_key.setdefault(key, []).append(array)
    return {key: np.stack(slices) for key, slices in arrays_by_key.items()}


def _read_slice(path: Path) -> dict[str, np.ndarray]:
    try:
        with h5py.File(path) as file:
            return {key: file[key][()] for key in file}
    except FileNotFoundError:
        raise CohortError(message("cohort-slice-missing", path=path)) from None
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise CohortError(message("cohort-slice-damaged", path=path)) from error


def _check_slice_arrays(path: Path, arrays: Mapping[str, np.ndarray], shape: tuple[int, ...] | None) -> None:
    """Raise CohortError for unusable arrays. shape: of the preceding slices, None for the first."""
    image = arrays.get("image", np.empty(0))
    is_consistent = {array.shape for array in arrays.values()} == {shape or image.shape} and image.ndim == 2
    masks = [array for key, array in arrays.items() if key != "image"]
    if not is_consistent or not np.isfinite(image).all() or any((mask > 1).any() for mask in masks):
        raise CohortError(message("cohort-slice-unusable", path=path))


def _hash_slice(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of a slice's decompressed arrays."""
    digest = hashlib.sha256()
    for key, array in sorted(arrays.items()):
        digest.update(f"{key}/{array.dtype}/{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# ---- writing ----------------------------------------------------------------------------------------


def write_patient(folder: Path, stack: SliceStack, **further_fields: object) -> None:
    """Write one patient atomically. further_fields: added to ``patients/<id>.json``, must be JSON types."""
    for sequence, image in stack.images.items():
        with atomic_folder(folder / "GMSBraTS" / sequence / stack.patient_id) as part:
            for index, name in enumerate(stack.slice_names):
                (part / f"{name}.h5").write_bytes(_encode_slice(sequence, stack, image[index], index))
        _link_lesion_slices(folder, sequence, stack)
    content = {
        "sequences": list(stack.images),
        "affine": stack.affine.tolist(),
        "slice_names": list(stack.slice_names),
        "selected": list(stack.selected),
        "notes": list(stack.notes),
        **further_fields,
        **_hash_written_slices(folder, stack.patient_id, list(stack.images), stack.slice_names),
    }
    # written last: a patient who has a record is finished
    write_json(folder / "patients" / f"{stack.patient_id}.json", content)


def _encode_slice(sequence: str, stack: SliceStack, image: np.ndarray, index: int) -> bytes:
    """Encode one slice as an HDF5 file, in memory because HDF5 reports a full disk with an unclear error."""
    with h5py.File(f"{sequence}/{index}", "w", driver="core", backing_store=False) as file:
        _write_dataset(file, "image", image.astype(np.float16))
        _write_dataset(file, "brain", stack.brain[index].astype(np.uint8))
        if stack.lesion is not None:
            _write_dataset(file, "mask", stack.lesion[index].astype(np.uint8))
        spacing = np.linalg.norm(stack.affine[:3, :3], axis=0)
        file.attrs.update({"patient": stack.patient_id, "sequence": str(sequence), "slice": index})
        file.attrs["spacing_mm"] = [spacing[1], spacing[0], spacing[2]]  # row, column, slice
        file.flush()
        content: bytes = file.id.get_file_image()
        return content


def _write_dataset(file: h5py.File, name: str, array: np.ndarray) -> None:
    """Write an array as one gzip chunk, compressed with zlib: HDF5's compressor does not always give the same bytes."""
    dataset = file.create_dataset(
        name, array.shape, array.dtype, chunks=array.shape, compression="gzip", compression_opts=_GZIP_LEVEL
    )
    dataset.id.write_direct_chunk((0,) * array.ndim, zlib.compress(array.tobytes(), _GZIP_LEVEL))


def _link_lesion_slices(folder: Path, sequence: str, stack: SliceStack) -> None:
    """Write the patient's files below GMSGlioma as hard links, or as copies where links are not supported."""
    lesion_folder = folder / "GMSGlioma" / sequence / stack.patient_id
    if stack.lesion is None or not stack.lesion.any():
        remove_path(lesion_folder)
        return
    with atomic_folder(lesion_folder) as part:
        for index in np.flatnonzero(stack.lesion.any(axis=(1, 2))):
            name = f"{stack.slice_names[index]}.h5"
            source = folder / "GMSBraTS" / sequence / stack.patient_id / name
            try:
                os.link(source, part / name)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, part / name)


def hash_patient_arrays(folder: Path, patient: str, sequences: Sequence[str], names: Sequence[str]) -> str:
    """Return the SHA-256 of all decompressed arrays of a patient."""
    return _hash_arrays({one: _read_slices(folder, one, patient, names) for one in sequences})


def _hash_arrays(arrays_by_sequence: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Hash arrays given by sequence and key."""
    digest = hashlib.sha256()
    for sequence, columns in arrays_by_sequence.items():
        for key, array in sorted(columns.items()):
            digest.update(f"{sequence}/{key}/{array.dtype}/{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _hash_written_slices(
    folder: Path, patient: str, sequences: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    """Hash the files now on disk: all arrays together, and every slice by sequence."""
    read = {one: _read_slices(folder, one, patient, names) for one in sequences}
    slices = {
        sequence: {
            name: _hash_slice({key: array[index] for key, array in columns.items()})
            for index, name in enumerate(names)
        }
        for sequence, columns in read.items()
    }
    return {"arrays_sha256": _hash_arrays(read), "slices_sha256": slices}


def is_finished(folder: Path, patient: str, source_sha256: str) -> bool:
    """Whether the patient was prepared from this source and all arrays are unchanged."""
    try:
        record = json.loads((folder / "patients" / f"{patient}.json").read_text("utf-8"))
        if record["source_sha256"] != source_sha256:
            return False
        found = hash_patient_arrays(folder, patient, record["sequences"], record["slice_names"])
    except (OSError, ValueError, KeyError, GliomarkError):  # missing, truncated or of an older layout
        return False
    is_unchanged: bool = found == record["arrays_sha256"]
    return is_unchanged


def find_patient_record(folder: Path, patient: str) -> dict[str, Any] | None:
    """Read the record of a prepared patient; None if there is none."""
    path = folder / "patients" / f"{patient}.json"
    return read_json(path, _is_valid_patient_record) if path.exists() else None


def remove_patient(folder: Path, patient: str) -> None:
    """Remove a patient from a cohort; does nothing if the cohort does not contain the patient."""
    (folder / "patients" / f"{patient}.json").unlink(missing_ok=True)
    for slice_folder in folder.glob(f"GMS*/*/{patient}"):
        shutil.rmtree(slice_folder)


def read_json(path: Path, is_valid: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Read a JSON object. is_valid: whether the content is valid.

    Raises
    ------
    CohortError
        If the file is truncated, not a JSON object or not valid.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        if isinstance(content, dict) and is_valid(content):
            return content
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise CohortError(message("cohort-record-damaged", path=path))


def _is_valid_metadata(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("schema_version", 0), int) and set(record["sequences"]) <= set(MRSequence)


def _is_valid_patient_record(record: Mapping[str, Any]) -> bool:
    """Whether all required fields are valid and slice names are plain file names, without folders."""
    affine, names = np.array(record["affine"], dtype=np.float64), record["slice_names"]
    has_plain_names = all(isinstance(name, str) and name == Path(name).name for name in names)
    has_valid_selection = all(0 <= at < len(names) for at in record["selected"])
    has_known_sequences = bool(record["sequences"]) and set(record["sequences"]) <= set(MRSequence)
    has_valid_affine = affine.shape == (4, 4) and np.isfinite(affine).all() and np.linalg.det(affine) != 0
    return bool(
        has_plain_names
        and has_valid_selection
        and has_known_sequences
        and has_valid_affine
        and isinstance(record["notes"], list)
    )


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a JSON file atomically."""
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

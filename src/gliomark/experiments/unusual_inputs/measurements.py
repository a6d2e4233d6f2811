"""Measure the patients of a cohort as they are and as every kind, once; later calls read the stored statistics."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.cohort.range_fitting import measure_training_patient
from gliomark.cohort.store import Cohort, write_json
from gliomark.errors import CohortError
from gliomark.experiments.unusual_inputs import alterations
from gliomark.experiments.unusual_inputs.kinds import PatientKind
from gliomark.io import read_study
from gliomark.known_range import statistics, wrong_images
from gliomark.known_range.statistics import (
    PatientStatistics,
    Statistics,
    measure_geometry,
    measure_images,
    measure_lesion,
    measure_similarity,
)
from gliomark.preprocessing.intensity import normalise_z_score
from gliomark.preprocessing.registration import register_rigidly
from gliomark.preprocessing.resampling import reorient_to_axial, resample
from gliomark.study import MRSequence, SliceStack

StatisticsByKind = dict[str, PatientStatistics]


@dataclass(frozen=True)
class RealPatient:
    """Statistics of a patient as it is, and of the wrong images made of it from which a model learns, by kind."""

    statistics: PatientStatistics
    wrong: Mapping[str, Statistics]


@dataclass(frozen=True)
class CohortSource:
    """A prepared cohort, the folder of its raw patients or None, and the folder in which statistics are stored."""

    cohort: Cohort
    raw_folder: Path | None
    work_folder: Path
    notify: Callable[[str], None]


def measure_real_patients(source: CohortSource, sequences: tuple[MRSequence, ...]) -> dict[str, RealPatient]:
    """Measure all patients of a cohort who have the sequences."""
    cohort, real = source.cohort, {}
    for patient in cohort.patient_ids:
        if set(sequences) <= set(cohort.get_sequences(patient)):
            measure = partial(_measure_real_patient, cohort, patient, sequences)
            stored = _load_or_measure(source, f"{patient}.json", "", measure)
            real[patient] = RealPatient(PatientStatistics(**stored["real"]), stored["wrong"])
    return real


def measure_altered_patients(
    source: CohortSource,
    patients: Sequence[str],
    sequences: tuple[MRSequence, ...],
    kinds: Sequence[PatientKind],
) -> dict[str, StatisticsByKind]:
    """Measure patients of a cohort as every kind that can be made of them."""
    altered = {}
    for patient in patients:
        measure = partial(_measure_altered_patient, source, patient, sequences, kinds)
        names = ", ".join(kind.name for kind in kinds)
        stored = _load_or_measure(source, f"{patient}_altered.json", names, measure)
        altered[patient] = {name: PatientStatistics(**one) for name, one in stored.items()}
    return altered


def _measure_real_patient(cohort: Cohort, patient: str, sequences: tuple[MRSequence, ...]) -> dict[str, Any]:
    statistics, wrong = measure_training_patient(cohort.read_stack(patient, sequences), sequences)
    return {"real": asdict(statistics), "wrong": wrong}


def _measure_altered_patient(
    source: CohortSource, patient: str, sequences: tuple[MRSequence, ...], kinds: Sequence[PatientKind]
) -> dict[str, Any]:
    stack = source.cohort.read_stack(patient, sequences)
    by_kind = measure_kinds(stack, _read_further(stack, source.raw_folder), sequences, kinds)
    return {name: asdict(one) for name, one in by_kind.items()}


def measure_kinds(
    stack: SliceStack,
    further: Mapping[MRSequence, NDArray[np.float32]],
    sequences: tuple[MRSequence, ...],
    kinds: Sequence[PatientKind],
) -> StatisticsByKind:
    """Measure a patient as every kind that can be made of it.

    further: images ``(slice, row, column)`` of other sequences on its grid. The lesion is the one that was drawn by a
    reader, or that the alteration drew.
    """
    ordered = replace(stack, images={name: stack.images[name] for name in sequences})
    measured: StatisticsByKind = {}
    geometry = measure_geometry(ordered, sequences)
    seed = int.from_bytes(hashlib.sha256(stack.patient_id.encode()).digest()[:4])
    for kind in kinds:
        altered = kind.create(ordered, {**further, **stack.images}, np.random.default_rng(seed))
        if altered is not None:
            has_lesion = altered.lesion is not None and altered.lesion.any()
            measured[kind.name] = PatientStatistics(
                images=measure_images(altered, sequences),
                geometry=measure_geometry(altered, sequences) if kind.changes_geometry else geometry,
                lesion=measure_lesion(altered, altered.reader_mask, sequences) if has_lesion else None,
                similarity=measure_similarity(altered, sequences),
            )
    return measured


def _load_or_measure(
    source: CohortSource, file_name: str, options: str, measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return the stored statistics of a patient if they were measured by the same code; else measure them."""
    path = source.work_folder / source.cohort.folder.name / file_name
    code = [inspect.getsource(module) for module in (statistics, wrong_images, alterations)]
    key = hashlib.sha256(json.dumps([options, *code]).encode()).hexdigest()
    stored = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if stored.get("key") != key:
        stored = {"key": key, "statistics": measure()}
        write_json(path, stored)
        source.notify(f"{source.cohort.folder.name}: {path.stem} measured")
    return dict(stored["statistics"])


def _read_further(stack: SliceStack, source_folder: Path | None) -> dict[MRSequence, NDArray[np.float32]]:
    """Read the sequences of the source that were not prepared, on the grid and within the brain of the stack."""
    if source_folder is None:
        return {}
    if (source_folder / "cohort.json").is_file():
        return _read_prepared(stack, Cohort(source_folder))
    study = read_study(source_folder / stack.patient_id)
    grid = _create_grid(stack)
    images = {}
    for name in study.series:
        if name not in stack.images:
            image = reorient_to_axial(study.series[name])
            transform = sitk.Transform(3, sitk.sitkIdentity)
            if not study.aligned:
                reference = list(stack.images)[-1]
                transform = register_rigidly(reorient_to_axial(study.series[reference]), image)
            array = sitk.GetArrayFromImage(resample(image, grid, transform, 0.0)).astype(np.float32)
            images[name] = normalise_z_score(array, stack.brain, name)
    return images


def _read_prepared(stack: SliceStack, cohort: Cohort) -> dict[MRSequence, NDArray[np.float32]]:
    """Read further sequences of a patient from another prepared cohort; it must have the patient on the same grid."""
    if stack.patient_id not in cohort.patient_ids:
        return {}
    other = cohort.read_stack(stack.patient_id)
    if other.brain.shape != stack.brain.shape or not np.allclose(other.affine, stack.affine, atol=1e-3):
        raise CohortError(
            f"Patient {stack.patient_id} in {cohort.folder} is not on the same grid: give a cohort prepared alike."
        )
    return {name: image for name, image in other.images.items() if name not in stack.images}


def _create_grid(stack: SliceStack) -> sitk.Image:
    grid = sitk.Image(*stack.brain.shape[::-1], sitk.sitkFloat32)
    spacing = np.linalg.norm(stack.affine[:3, :3], axis=0)
    grid.SetSpacing(spacing.tolist())
    grid.SetOrigin(stack.affine[:3, 3].tolist())
    grid.SetDirection((stack.affine[:3, :3] / spacing).ravel().tolist())
    return grid

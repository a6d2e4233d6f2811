"""Measure every patient of a cohort as each kind, once; later calls read the stored statistics."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.cohort.store import Cohort, write_json
from gliomark.experiments.unusual_inputs import alterations
from gliomark.experiments.unusual_inputs.kinds import PatientKind
from gliomark.io import read_study
from gliomark.known_range import statistics, wrong_images
from gliomark.known_range.statistics import (
    PatientStatistics,
    measure_geometry,
    measure_images,
    measure_lesion,
    measure_similarity,
)
from gliomark.known_range.wrong_images import create_wrong_images
from gliomark.preprocessing.intensity import normalise_z_score
from gliomark.preprocessing.registration import register_rigidly
from gliomark.preprocessing.resampling import reorient_to_axial, resample
from gliomark.study import MRSequence, SliceStack

StatisticsByKind = dict[str, PatientStatistics]


@dataclass(frozen=True)
class MeasuredPatient:
    """A patient as every kind, and as the wrong images from which a model learns, by kind."""

    kinds: StatisticsByKind
    wrong: Mapping[str, Mapping[str, float]]


def measure_cohort(
    cohort: Cohort,
    source_folder: Path | None,
    sequences: tuple[MRSequence, ...],
    kinds: Sequence[PatientKind],
    work_folder: Path,
    notify: Callable[[str], None],
) -> dict[str, MeasuredPatient]:
    """Measure all patients of a cohort who have the sequences.

    Parameters
    ----------
    cohort
        The prepared cohort.
    source_folder
        Folder of the cohort's source, a subfolder per patient id, from which further sequences are read; None for none.
    sequences
        The pair of sequences, the reference last.
    kinds
        The kinds.
    work_folder
        Folder of the stored statistics.
    notify
        Called with a message per measured patient.
    """
    measured = {}
    for patient in cohort.patient_ids:
        if not set(sequences) <= set(cohort.get_sequences(patient)):
            continue
        path = work_folder / cohort.folder.name / f"{patient}.json"
        key = _create_key(kinds)
        stored = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if stored.get("key") != key:
            stack = cohort.read_stack(patient, sequences)
            by_kind = measure_kinds(stack, _read_further(stack, source_folder), sequences, kinds)
            wrong = {
                name: measure_images(altered, sequences)
                for name, altered in create_wrong_images(stack, sequences)
            }
            stored = {
                "key": key,
                "kinds": {name: asdict(one) for name, one in by_kind.items()},
                "wrong": wrong,
            }
            write_json(path, stored)
            notify(f"{cohort.folder.name}, {patient}: {len(by_kind)} kinds measured")
        by_kind = {name: PatientStatistics(**one) for name, one in stored["kinds"].items()}
        measured[patient] = MeasuredPatient(by_kind, stored["wrong"])
    return measured


def measure_kinds(
    stack: SliceStack,
    further: Mapping[MRSequence, NDArray[np.float32]],
    sequences: tuple[MRSequence, ...],
    kinds: Sequence[PatientKind],
) -> StatisticsByKind:
    """Measure a patient as every kind that can be made of it; further: images ``(slice, row, column)`` of
    other sequences on its grid.

    The lesion is the one that was drawn by a reader, or that the alteration drew.
    """
    ordered = replace(stack, images={name: stack.images[name] for name in sequences})
    measured: StatisticsByKind = {}
    geometry = measure_geometry(ordered, sequences)
    for number, kind in enumerate(kinds):
        seed = int.from_bytes(hashlib.sha256(stack.patient_id.encode()).digest()[:4]) + number
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


def _read_further(stack: SliceStack, source_folder: Path | None) -> dict[MRSequence, NDArray[np.float32]]:
    """Read the sequences of the source that were not prepared, on the grid and within the brain of the stack."""
    if source_folder is None:
        return {}
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


def _create_grid(stack: SliceStack) -> sitk.Image:
    grid = sitk.Image(*stack.brain.shape[::-1], sitk.sitkFloat32)
    spacing = np.linalg.norm(stack.affine[:3, :3], axis=0)
    grid.SetSpacing(spacing.tolist())
    grid.SetOrigin(stack.affine[:3, 3].tolist())
    grid.SetDirection((stack.affine[:3, :3] / spacing).ravel().tolist())
    return grid


def _create_key(kinds: Sequence[PatientKind]) -> str:
    """Return a hash of what the statistics depend on."""
    sources = [inspect.getsource(module) for module in (statistics, wrong_images, alterations)]
    return hashlib.sha256(json.dumps([*(kind.name for kind in kinds), *sources]).encode()).hexdigest()

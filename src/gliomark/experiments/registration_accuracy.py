"""Accuracy of registration on phantom patients whose head moved by a known amount between series.

T1C of every synthetic patient is registered to T2 as in ``preprocessing.prepare``. The target registration error is
the distance, over the voxels of the brain, between the positions given by the computed and by the true transform.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from gliomark.files import atomic_write
from gliomark.phantom.hospital_patient import (
    REFERENCE_SEQUENCE,
    HospitalPatient,
    HospitalSettings,
    create_hospital_patient,
    decompose_movement,
)
from gliomark.preprocessing.registration import register_rigidly
from gliomark.preprocessing.resampling import compute_transform_matrix, reorient_to_axial
from gliomark.study import MRSequence
from gliomark.tables import format_csv

MOVING_SEQUENCE = MRSequence.T1C
GOAL_MEDIAN_MM, GOAL_WORST_MM = 0.5, 1.5


@dataclass(frozen=True)
class RegistrationMeasurement:
    """One patient: true movement, and displacement of the brain's voxels before and after registration in mm."""

    seed: int
    shift_mm: float
    turn_degrees: float
    before_mm: float
    mean_mm: float
    max_mm: float


def run_registration_accuracy(
    patient_count: int, first_seed: int, output_folder: Path, workers: int, notify: Callable[[str], None]
) -> Path:
    """Register phantoms and write ``registration_accuracy.csv``; its path.

    patient_count: number of phantoms, with consecutive seeds from ``first_seed``; workers: number of processes.
    """
    measurements = []
    for error in _measure_patients(range(first_seed, first_seed + patient_count), workers):
        measurements.append(error)
        notify(
            f"{len(measurements)}/{patient_count}: {error.before_mm:.2f} mm before, {error.mean_mm:.2f} mm after"
        )
    path = _write_table(measurements, output_folder)
    notify(describe_measurements(measurements))
    return path


def _measure_patients(seeds: Sequence[int], workers: int) -> Iterator[RegistrationMeasurement]:
    if workers <= 1:
        yield from map(measure_patient, seeds)
        return
    # spawn, not fork: ITK's threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(measure_patient, seeds)


def measure_patient(seed: int, settings: HospitalSettings = HospitalSettings()) -> RegistrationMeasurement:
    """Register T1C to T2 of one phantom and compare the transform with the true one."""
    # one thread: reproducible order of summation, and processes do not compete for cores
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    patient = create_hospital_patient(seed, settings, (MOVING_SEQUENCE,))
    points = compute_brain_points(patient)
    fixed, moving = (
        reorient_to_axial(patient.study.series[which]) for which in (REFERENCE_SEQUENCE, MOVING_SEQUENCE)
    )
    estimated = register_rigidly(fixed, moving)
    truth = patient.motion[MOVING_SEQUENCE]
    residual_mm = _compute_distances(compute_transform_matrix(estimated), truth, points)
    shift, turn = decompose_movement(truth)
    return RegistrationMeasurement(
        seed=patient.seed,
        shift_mm=float(np.linalg.norm(shift)),
        turn_degrees=float(np.linalg.norm(turn)),
        before_mm=float(_compute_distances(np.eye(4), truth, points).mean()),
        mean_mm=float(residual_mm.mean()),
        max_mm=float(residual_mm.max()),
    )


def compute_brain_points(patient: HospitalPatient) -> NDArray[np.float64]:
    """Compute the positions of the brain's voxels on the grid of T2: ``(n, 3)``, LPS, mm."""
    voxel_indices = np.argwhere(patient.brain.image > 0)[:, ::-1]  # (column, row, slice)
    affine = patient.brain.affine
    return voxel_indices @ affine[:3, :3].T + affine[:3, 3]


def _compute_distances(
    first_affine: NDArray[np.float64], second_affine: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the distances in mm, ``(n,)``, between points ``(n, 3)`` transformed by two 4x4 matrices."""
    difference = first_affine - second_affine
    length: NDArray[np.float64] = np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1)
    return length


def describe_measurements(measurements: Sequence[RegistrationMeasurement]) -> str:
    """Describe the measurements in one sentence."""
    mean = np.array([error.mean_mm for error in measurements])
    return (
        f"{len(measurements)} registrations: median error {np.median(mean):.2f} mm (goal {GOAL_MEDIAN_MM:g}), "
        f"worst patient "
        f"{mean.max():.2f} mm, worst voxel {max(error.max_mm for error in measurements):.2f} mm (goal "
        f"{GOAL_WORST_MM:g})"
    )


def _write_table(measurements: Sequence[RegistrationMeasurement], output_folder: Path) -> Path:
    table: list[list[object]] = [[field.name for field in fields(RegistrationMeasurement)]]
    table += [
        [f"{value:.4f}" if isinstance(value, float) else value for value in asdict(error).values()]
        for error in measurements
    ]
    return atomic_write(output_folder / "registration_accuracy.csv", format_csv(table))

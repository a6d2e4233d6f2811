"""Registration against truth: phantom patients whose head moved by a known amount between the series.

Every patient of the synthetic hospital is registered as ``preprocessing.prepare`` does it, T1C to T2, the
method's pair; the target registration error is the distance, over the brain's voxels, between where the found transform
and where the true one puts a point.
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

from gliomark.cohort.phantom.scanned import (
    REFERENCE,
    HospitalPatient,
    HospitalSettings,
    hospital_patient,
    movement_of,
)
from gliomark.files import atomic_write
from gliomark.preprocessing.registration import register
from gliomark.preprocessing.volume import axial, matrix_of
from gliomark.study import MRSequence
from gliomark.tables import csv_text

MOVING = MRSequence.T1C
GOAL_MEDIAN_MM, GOAL_WORST_MM = 0.5, 1.5


@dataclass(frozen=True)
class RegistrationError:
    """One patient: the true displacement, and what is left of it over the brain's voxels."""

    seed: int
    shift_mm: float
    turn_degrees: float
    before_mm: float
    mean_mm: float
    max_mm: float


def run(patients: int, seed: int, out: Path, workers: int, say: Callable[[str], None]) -> Path:
    """Measure ``patients`` phantoms from ``seed`` on, write ``out``/registration.csv and say how it went."""
    errors = []
    for error in _each(range(seed, seed + patients), workers):
        errors.append(error)
        say(f"{len(errors)}/{patients}: {error.before_mm:.2f} mm before, {error.mean_mm:.2f} mm after")
    path = _write(errors, out)
    say(summary(errors))
    return path


def _each(seeds: Sequence[int], workers: int) -> Iterator[RegistrationError]:
    if workers <= 1:
        yield from map(measure_patient, seeds)
        return
    # spawned, not forked: ITK's threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(measure_patient, seeds)


def measure_patient(seed: int, settings: HospitalSettings = HospitalSettings()) -> RegistrationError:
    """One patient's T1C registered to T2 and compared with the truth."""
    # one thread: sums in one order, and processes that do not fight for the cores
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    patient = hospital_patient(seed, settings, (MOVING,))
    points = brain_points(patient)
    fixed, moving = (axial(patient.study.series[which]) for which in (REFERENCE, MOVING))
    found = register(fixed, moving)
    truth = patient.motion[MOVING]
    left = _distance(matrix_of(found), truth, points)
    shift, turn = movement_of(truth)
    return RegistrationError(
        seed=patient.seed,
        shift_mm=float(np.linalg.norm(shift)),
        turn_degrees=float(np.linalg.norm(turn)),
        before_mm=float(_distance(np.eye(4), truth, points).mean()),
        mean_mm=float(left.mean()),
        max_mm=float(left.max()),
    )


def brain_points(patient: HospitalPatient) -> NDArray[np.float64]:
    """The brain's voxels on T2's grid, LPS mm: ``(n, 3)``."""
    place = np.argwhere(patient.brain.image > 0)[:, ::-1]  # (column, row, slice)
    affine = patient.brain.affine
    return place @ affine[:3, :3].T + affine[:3, 3]


def _distance(
    one: NDArray[np.float64], other: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Millimetres between where two 4x4 put each of points ``(n, 3)``: ``(n,)``."""
    apart = one - other
    length: NDArray[np.float64] = np.linalg.norm(points @ apart[:3, :3].T + apart[:3, 3], axis=1)
    return length


def summary(errors: Sequence[RegistrationError]) -> str:
    """The figures in one sentence."""
    mean = np.array([error.mean_mm for error in errors])
    return (
        f"{len(errors)} registrations: median error {np.median(mean):.2f} mm (goal {GOAL_MEDIAN_MM:g}), worst patient "
        f"{mean.max():.2f} mm, worst point {max(error.max_mm for error in errors):.2f} mm (goal {GOAL_WORST_MM:g})"
    )


def _write(errors: Sequence[RegistrationError], out: Path) -> Path:
    table: list[list[object]] = [[field.name for field in fields(RegistrationError)]]
    table += [
        [f"{value:.4f}" if isinstance(value, float) else value for value in asdict(error).values()]
        for error in errors
    ]
    return atomic_write(out / "registration.csv", csv_text(table))

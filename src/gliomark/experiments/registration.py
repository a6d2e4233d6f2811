"""Registration against truth: phantom patients whose head moved by a known amount between the series.

Every patient of the synthetic hospital is registered as ``preprocessing.prepare`` does it, each sequence to
T2; the target registration error is the distance, over the brain's voxels, between where the found transform
and where the true one puts a point.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliomark.cohort.hospital_patient import (
    REFERENCE,
    HospitalPatient,
    HospitalSettings,
    hospital_patient,
    movement_of,
)
from gliomark.preprocessing.registration import DOUBTFUL, register, registration_doubt
from gliomark.preprocessing.volume import axial, matrix_of
from gliomark.study import MRSequence

GOAL_MEDIAN_MM, GOAL_WORST_MM = 0.5, 1.5


@dataclass(frozen=True)
class RegistrationError:
    """One sequence of one patient: the true displacement, what is left of it, and whether that was noticed.

    mean_mm, max_mm: over the brain's voxels; doubt: ``registration_doubt``; flagged: above its limit.
    """

    seed: int
    sequence: str
    shift_mm: float
    turn_degrees: float
    before_mm: float
    mean_mm: float
    max_mm: float
    doubt: float
    flagged: bool


def run(patients: int, seed: int, out: Path, workers: int, say: Callable[[str], None]) -> Path:
    """Measure ``patients`` phantoms from ``seed`` on, write ``out``/registration.csv and say how it went."""
    errors = []
    for number, measured in enumerate(_each(range(seed, seed + patients), workers), 1):
        errors += measured
        say(f"{number}/{patients}: worst {max(error.max_mm for error in measured):.2f} mm")
    path = _write(errors, out)
    say(summary(errors))
    return path


def _each(seeds: Sequence[int], workers: int) -> Iterator[list[RegistrationError]]:
    if workers <= 1:
        yield from map(measure_patient, seeds)
        return
    # spawned, not forked: ITK's threads do not survive a fork
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(measure_patient, seeds)


def measure_patient(seed: int, settings: HospitalSettings = HospitalSettings()) -> list[RegistrationError]:
    """Every sequence of one patient registered to T2 and compared with the truth."""
    patient = hospital_patient(seed, settings)
    points = brain_points(patient)
    return [_measure(patient, name, points) for name in (MRSequence.T1, MRSequence.T1C, MRSequence.FLAIR)]


def brain_points(patient: HospitalPatient) -> NDArray[np.float64]:
    """The brain's voxels on T2's grid, LPS mm: ``(n, 3)``."""
    place = np.argwhere(patient.brain.image > 0)[:, ::-1]  # (column, row, slice)
    affine = patient.brain.affine
    return place @ affine[:3, :3].T + affine[:3, 3]


def _measure(patient: HospitalPatient, name: MRSequence, points: NDArray[np.float64]) -> RegistrationError:
    fixed, moving = (axial(patient.study.series[which]) for which in (REFERENCE, name))
    found = register(fixed, moving)
    truth = patient.motion[name]
    left = _distance(matrix_of(found), truth, points)
    shift, turn = movement_of(truth)
    doubt = registration_doubt(fixed, moving, found)
    return RegistrationError(
        seed=patient.seed,
        sequence=name.value,
        shift_mm=float(np.linalg.norm(shift)),
        turn_degrees=float(np.linalg.norm(turn)),
        before_mm=float(_distance(np.eye(4), truth, points).mean()),
        mean_mm=float(left.mean()),
        max_mm=float(left.max()),
        doubt=doubt,
        flagged=doubt > DOUBTFUL,
    )


def _distance(
    one: NDArray[np.float64], other: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Millimetres between where two 4x4 put each of points ``(n, 3)``: ``(n,)``."""
    apart = one - other
    length: NDArray[np.float64] = np.linalg.norm(points @ apart[:3, :3].T + apart[:3, 3], axis=1)
    return length


def summary(errors: Sequence[RegistrationError]) -> str:
    """The figures in one sentence; flagged series are named apart from the worst unflagged one."""
    mean = np.array([error.mean_mm for error in errors])
    trusted = [error.max_mm for error in errors if not error.flagged]
    worst = f"{max(trusted):.2f} mm" if trusted else "none"
    return (
        f"{len(errors)} registrations: median error {np.median(mean):.2f} mm (goal {GOAL_MEDIAN_MM:g}), worst mean "
        f"{mean.max():.2f} mm; worst point of those not flagged {worst} (goal {GOAL_WORST_MM:g}), "
        f"{len(errors) - len(trusted)} flagged"
    )


def _write(errors: Sequence[RegistrationError], out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    path, beside = out / "registration.csv", out / ".registration.csv.partial"
    with beside.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(RegistrationError)], lineterminator="\n")
        table.writeheader()
        for error in errors:
            row = asdict(error)
            table.writerow(
                {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in row.items()}
            )
    os.replace(beside, path)
    return path
